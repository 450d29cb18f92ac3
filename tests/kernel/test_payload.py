"""Payload under ESP in the kernel with numbers that are lent: what passes, what never does, what is left."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mip6ha import ipv6
from mip6ha.edge.features import kernel_features
from mip6ha.edge.netlink_messages import Failure, Request
from mip6ha.edge.xfrm import Xfrm
from mip6ha.effects import (
    DefendAddress,
    ExtendPayload,
    NarrowPath,
    RecallPayload,
    RemoveTunnel,
    SetTunnel,
    StandDown,
    TakeOver,
)
from mip6ha.lending import PayloadCounted, PayloadLost

from .agent import (
    AGENT,
    BEHIND,
    CORRESPONDENT,
    DOWN,
    ELSEWHERE,
    IN,
    OTHER,
    OUT,
    Lender,
    is_quiet,
    left,
    numbers,
    told,
)
from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, tunnelled
from .test_packets import TRANSFORMS


@pytest.mark.parametrize("esn", [False, True], ids=["plain", "esn"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_kernel_seals_and_opens(wire: Wire, agent: Lender, transform: str, esn: bool) -> None:
    # Across the change of subspace where there is one.
    first = (1 << 32) - 2 if esn else 7
    node = agent.lend(transform=transform, esn=esn, first=first, limit=first + 99)
    for number in range(first, first + 5):
        assert node.goes_up(number=number)
        assert node.comes_down() == number
    assert not node.goes_up(number=first + 1)
    assert agent.to_daemon() == []
    agent.do(RecallPayload(HOME_ADDRESS))
    assert not node.goes_up(number=first + 6)
    assert len(agent.to_daemon()) == 1
    wire.send(DOWN)
    assert [packet[8:] for packet in agent.to_daemon()] == [DOWN[8:]]
    assert agent.dataplane.counters.keys() == {"netlink_messages"}
    assert left(agent) == []


def test_nothing_above_the_limit_is_the_kernels(wire: Wire, agent: Lender) -> None:
    node = agent.lend(first=1, limit=20)
    assert node.goes_up(number=20)
    beyond = node.sealed(number=21)
    wire.send(beyond)
    assert [packet[40:] for packet in agent.to_daemon()] == [beyond[40:]]
    agent.do(ExtendPayload(HOME_ADDRESS, False, IN, 21, 5000, 10))
    assert node.goes_up(number=21)
    assert node.goes_up(number=5000)
    wire.send(node.sealed(number=5001))
    assert len(agent.to_daemon()) == 1


def test_the_steered_range_follows(wire: Wire, agent: Lender) -> None:
    """What can still be accepted is steered, however much is lent; what comes later is the daemon's."""
    node = agent.lend(first=1, limit=100_000)
    assert node.goes_up(number=9000)
    assert agent.news() == [PayloadCounted(HOME_ADDRESS, False, IN, 9000)]
    agent.do(ExtendPayload(HOME_ADDRESS, False, IN, 100_001, 200_000, 10))
    assert node.goes_up(number=9001)
    assert node.goes_up(number=8990)
    wire.send(node.sealed(number=8191))
    assert len(agent.to_daemon()) == 1
    assert node.goes_up(number=200_000)


def test_the_outer_header(wire: Wire, agent: Lender) -> None:
    agent.lend()
    flow = 0xB9 << 20 | 0x12345
    wire.send(ipv6.build(CORRESPONDENT, HOME_ADDRESS, ipv6.NO_NEXT_HEADER, b"", flow=flow))
    outer = ipv6.parse(wire.receive())
    assert (outer.next_header, outer.flow, outer.hop_limit) == (ipv6.ESP, flow, 64)


def test_only_from_its_care_of_address_and_to_the_home_agent(wire: Wire, agent: Lender) -> None:
    node = agent.lend()
    node.care_of_address = ELSEWHERE
    wire.send(node.sealed())
    payload = node.sealed()[40:]
    wire.send(ipv6.build(CARE_OF_ADDRESS, AGENT, ipv6.ESP, payload, home_address=HOME_ADDRESS))
    agent.do(DefendAddress(OTHER))
    wire.send(ipv6.build(CARE_OF_ADDRESS, OTHER, ipv6.ESP, payload))
    assert [packet[24:40] for packet in agent.to_daemon()] == [AGENT, AGENT, OTHER]


def test_inner_sources_of_others_are_dropped(wire: Wire, agent: Lender) -> None:
    node = agent.lend()
    agent.lend(OTHER, spi=0x2001)
    for source in (OTHER, BEHIND, ELSEWHERE, CARE_OF_ADDRESS):
        assert not node.goes_up(tunnelled(source, CORRESPONDENT, b"spoofed"))
    assert node.goes_up()
    assert agent.to_daemon() == []


def test_exactly_what_is_lent_goes_out(wire: Wire, agent: Lender) -> None:
    node = agent.lend(first=100, limit=149)
    assert [node.comes_down() for _ in range(50)] == list(range(100, 150))
    # Half of it was worth a word, and so was every tenth.
    assert {each for each in agent.news() if isinstance(each, PayloadCounted)} == {
        PayloadCounted(HOME_ADDRESS, True, OUT, 149)
    }
    wire.send(DOWN)
    assert is_quiet(wire)
    assert agent.news() == [PayloadLost(HOME_ADDRESS)]
    assert left(agent) == []
    wire.send(DOWN)
    assert len(agent.to_daemon()) == 1


def test_numbers_go_on_or_begin_elsewhere(wire: Wire, agent: Lender) -> None:
    node = agent.lend(limit=10)
    for _ in range(5):
        node.comes_down()
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 11, 20, 10))
    assert [node.comes_down() for _ in range(8)] == list(range(6, 14))
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 101, 103, 10))
    assert [node.comes_down() for _ in range(2)] == [101, 102]
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 104, 105, 10))
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 201, 220, 10))
    assert [node.comes_down() for _ in range(20)] == list(range(201, 221))
    wire.send(DOWN)
    assert numbers(wire) == []
    assert agent.news()[-1] == PayloadLost(HOME_ADDRESS)


def test_no_number_that_is_not_lent_whatever_happens_in_between(
    wire: Wire, agent: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets pass between any two requests, as they do where there is more than one CPU."""
    choice = random.Random(7)
    payload = agent.dataplane._payload
    assert payload is not None
    lent: set[int] = set()
    seen: list[int] = []
    original = Xfrm.carry_out

    def burst() -> None:
        for _ in range(choice.choice((0, 1, 3, 12))):
            wire.send(DOWN)

    def one_by_one(self: Xfrm, requests: Sequence[Request]) -> list[Failure]:
        failures = []
        for index, each in enumerate(requests):
            burst()
            failures += [replace(failure, index=index) for failure in original(self, [each])]
        burst()
        return failures

    monkeypatch.setattr(Xfrm, "carry_out", one_by_one)
    limit = extended = 0
    for _ in range(60):
        first = limit + choice.choice((1, 1, 50))
        limit = first + choice.choice((0, 5, 30))
        lent |= set(range(first, limit + 1))
        if HOME_ADDRESS in payload._register.lent:
            agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, first, limit, 1000))
            extended += HOME_ADDRESS in payload._register.lent
        else:
            agent.lend(first=first, limit=limit)
        burst()
        seen += numbers(wire, 0.005)
        assert len(seen) == len(set(seen))
        assert set(seen) <= lent
        agent.news()
        agent.dataplane.tun.read()
    assert extended > 10
    assert len(seen) > 200


SENDER = """
import socket, sys, time
out = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
packet, to = bytes.fromhex(sys.argv[1]), ("test", 0x86DD, 0, 0, bytes.fromhex("020000000001"))
print(flush=True)
for number in range(int(sys.argv[2])):
    out.sendto(packet, to)
    if number % 20 == 0:
        time.sleep(float(sys.argv[3]))
"""


@contextmanager
def sending(wire: Wire, count: int, pause: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody sends packets down as fast as it can, with a pause after twenty."""
    what = DOWN.hex(), str(count), str(pause)
    command = ["ip", "netns", "exec", wire.name, sys.executable, "-c", SENDER, *what]
    wire.hold(1 << 24)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        assert process.wait(60) == 0


def test_the_bound_holds_under_load(wire: Wire, agent: Lender) -> None:
    agent.lend(first=1, limit=700)
    with sending(wire, 2000):
        pass
    assert numbers(wire) == list(range(1, 701))
    assert agent.news()[-1] == PayloadLost(HOME_ADDRESS)
    assert left(agent) == []


def test_extending_under_load(wire: Wire, agent: Lender) -> None:
    agent.lend(first=1, limit=400, step=50)
    limit, lent, seen, extended = 400, set(range(1, 401)), [], 0
    with sending(wire, 8000, 0.002) as process:
        while process.poll() is None:
            seen += numbers(wire, 0.0)
            for each in agent.news():
                if isinstance(each, PayloadLost):
                    first, limit = limit + 1, limit + 400
                    lent |= set(range(first, limit + 1))
                    agent.lend(first=first, limit=limit, step=50)
                elif limit - each.number < 200:
                    first = limit + (1 if extended % 2 else 1000)
                    limit = first + 399
                    lent |= set(range(first, limit + 1))
                    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, first, limit, 50))
                    extended += 1
            while agent.dataplane.tun.read() is not None:
                pass
    seen += numbers(wire)
    assert len(seen) == len(set(seen))
    assert set(seen) <= lent
    assert extended > 3
    assert len(seen) > 1000


def test_a_move_takes_numbers_and_window_along(wire: Wire, agent: Lender) -> None:
    node = agent.lend(limit=500)
    for number in (1, 2, 30):
        assert node.goes_up(number=number)
        node.comes_down()
    before = left(agent)
    agent.do(SetTunnel(HOME_ADDRESS, ELSEWHERE, protected=True))
    assert len(left(agent)) == len(before)
    assert not node.goes_up(number=31)
    node.care_of_address = ELSEWHERE
    assert [node.comes_down() for _ in range(3)] == [4, 5, 6]
    assert not node.goes_up(number=2)
    assert node.goes_up(number=3)
    assert node.goes_up(number=31)
    # The bound has come along.
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 501, 503, 10))
    for _ in range(600):
        wire.send(DOWN)
    assert numbers(wire) == list(range(7, 504))
    assert len(agent.to_daemon()) == 1
    assert agent.dataplane.counters["repaired_association"] == 0


def test_what_ends_a_tunnel_recalls(wire: Wire, agent: Lender) -> None:
    agent.lend()
    agent.do(RemoveTunnel(HOME_ADDRESS))
    assert left(agent) == []
    agent.lend()
    agent.do(SetTunnel(HOME_ADDRESS, CARE_OF_ADDRESS))
    assert left(agent) == []
    # Again, and instead of what was lent.
    agent.lend()
    node = agent.lend(first=100, limit=200)
    assert node.comes_down() == 100
    assert len([line for line in left(agent) if line.startswith("src")]) == 5
    assert agent.news() == []


def test_standing_down_recalls_everything(wire: Wire, tmp_path: Path) -> None:
    member = Lender(wire, tmp_path, group=1)
    try:
        member.do(TakeOver())
        for index in range(50):
            member.lend(HOME_ADDRESS[:15] + bytes((index,)), spi=0x3000 + 2 * index)
        assert len(left(member)) > 250
        # One message for all filters, and three that begin anew.
        assert member.do(StandDown()) == 4
        assert not any("mirred" in line for line in left(member))
        member.repair()
        assert left(member) == []
        assert member.news() == []
        member.do(TakeOver())
        assert member.lend().goes_up()
        # What has not gone yet makes room.
        member.do(StandDown(), TakeOver())
        node = member.lend(first=2000, limit=3000)
        assert node.goes_up()
        assert member.repair() == {}
        assert node.goes_up()
        assert member.news() == []
        # Without a successor nothing goes on, not even what would be sealed.
        assert node.comes_down() == 2000
        member.do(StandDown(succeeded=False))
        wire.send(DOWN)
        assert numbers(wire) == []
        assert member.repair() == {}
        assert left(member) == []
    finally:
        member.close()


def test_progress_is_told_every_so_many_numbers(wire: Wire, agent: Lender) -> None:
    node = agent.lend(step=10)
    for _ in range(9):
        assert node.goes_up()
    assert agent.news() == []
    assert node.goes_up()
    assert agent.news() == [PayloadCounted(HOME_ADDRESS, False, IN, 10)]
    agent.do(ExtendPayload(HOME_ADDRESS, False, IN, 1001, 2000, 3))
    for _ in range(3):
        assert node.goes_up()
    assert agent.news() == [PayloadCounted(HOME_ADDRESS, False, IN, 13)]


def test_a_path_that_is_shorter_than_the_link(wire: Wire, agent: Lender) -> None:
    # Other tests have taught it about this path.
    wire.ip("route flush cache")
    node = agent.lend()
    agent.do(NarrowPath(CARE_OF_ADDRESS, 1420, 600.0))
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, bytes(1300)))
    assert len(wire.receive()) <= 1420
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, bytes(1400)))
    assert 1320 < told(wire) < 1380
    assert node.goes_up()


def test_without_steering_payload_is_left_to_the_daemon(
    wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = replace(kernel_features(), steering="EOPNOTSUPP")
    monkeypatch.setattr("mip6ha.edge.kernel_dataplane.kernel_features", lambda: features)
    agent = Lender(wire, tmp_path)
    try:
        assert not agent.dataplane.offloads
        node = agent.lend()
        agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 11, 20, 1), RecallPayload(HOME_ADDRESS))
        assert left(agent) == []
        wire.send(node.sealed())
        assert len(agent.to_daemon()) == 1
        assert agent.repair() == {}
    finally:
        agent.close()
