"""Payload under ESP in the kernel with numbers that are lent: what passes, what never does, what is left."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mip6ha import ipv6
from mip6ha.edge.features import kernel_features
from mip6ha.edge.netlink_messages import Failure, Request
from mip6ha.edge.xfrm import Xfrm
from mip6ha.effects import (
    DefendAddress,
    ExtendPayload,
    LendPayload,
    LentAssociation,
    NarrowPath,
    RecallPayload,
    ReleaseAddress,
    RemoveTunnel,
    SetTunnel,
    StandDown,
    TakeOver,
)
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, by_name
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.lending import PayloadCounted, PayloadLost, PayloadNews

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, neighbour
from .test_dataplane import AGENT, BEHIND, CORRESPONDENT, ELSEWHERE, OTHER, Agent, is_quiet, told
from .test_packets import TRANSFORMS, tunnelled

IN, OUT = 0x1001, 0x1002
LISTED = ("xfrm state", "xfrm policy")
UP = tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up")
DOWN = tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down")


class Lender(Agent):
    """Stands in for the core: what it is told, and mobile nodes' ends of the SAs."""

    def lend(
        self,
        home_address: bytes = HOME_ADDRESS,
        transform: str = "aes-gcm-16",
        *,
        esn: bool = True,
        first: int = 1,
        limit: int = 1000,
        step: int = 10,
        window: int = 64,
        spi: int = IN,
    ) -> Node:
        keys = TRANSFORMS[transform]
        self.do(SetTunnel(home_address, CARE_OF_ADDRESS, protected=True), DefendAddress(home_address))
        associations = tuple(
            LentAssociation(outbound, number, transform, keys, esn, window, first, limit, step)
            for outbound, number in ((False, spi), (True, spi + 1))
        )
        self.do(LendPayload(home_address, associations))
        return Node(self, home_address, transform, esn=esn, spi=spi, first=first)

    def to_daemon(self) -> list[bytes]:
        # Not what the kernel has to say about multicast.
        return [packet for packet in super().to_daemon() if packet[24] != 0xFF]

    def news(self) -> list[PayloadNews]:
        payload = self.dataplane._payload
        assert payload is not None
        payload.read_events()
        return payload.news()


class Node:
    """The mobile node's end. ``number`` is the next one that it uses."""

    def __init__(
        self, agent: Lender, home_address: bytes, transform: str, *, esn: bool, spi: int, first: int
    ) -> None:
        self.agent = agent
        self.wire = agent.wire
        self.care_of_address = CARE_OF_ADDRESS
        self.number = first

        def association(number: int, direction: Direction) -> SecurityAssociation:
            return SecurityAssociation(
                spi=number,
                direction=direction,
                use=Use.PAYLOAD,
                home_address=home_address,
                transform=by_name(transform),
                keys=TRANSFORMS[transform],
                esn=esn,
                to_home_agent=direction is Direction.OUT,
            )

        self.out = association(spi, Direction.OUT)
        self.back = association(spi + 1, Direction.IN)
        assert self.back.window is not None
        self.back.window.advance(first - 1)

    def sealed(self, packet: bytes = UP, number: int | None = None) -> bytes:
        if number is None:
            number, self.number = self.number, self.number + 1
        self.out.sequence = number - 1
        payload = esp.protect(self.out, ipv6.IPV6, packet, os.urandom)
        return ipv6.build(self.care_of_address, AGENT, ipv6.ESP, payload)

    def goes_up(self, packet: bytes = UP, number: int | None = None) -> bool:
        """Whether the kernel forwards it."""
        self.wire.send(self.sealed(packet, number))
        try:
            return self.wire.receive(0.5)[8:] == packet[8:]
        except AssertionError:
            return False

    def comes_down(self, packet: bytes = DOWN) -> int:
        """The number under which the kernel has sent it, which is opened."""
        self.wire.send(packet)
        while (parsed := ipv6.parse(self.wire.receive())).next_header != ipv6.ESP:
            pass
        assert (parsed.source, parsed.destination) == (AGENT, self.care_of_address)
        protocol, inner = esp.unprotect(self.back, parsed.payload)
        assert protocol == ipv6.IPV6
        assert inner[8:] == packet[8:]
        assert self.back.window is not None
        return self.back.window.top


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[Lender]:
    wire.ip(neighbour("2001:db8:a::ff"), neighbour("2001:db8:b::9"))
    made = Lender(wire, tmp_path)
    yield made
    made.close()


class Pump(Clock):
    """A reactor by hand, on real time."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:  # noqa: N802
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        self.readers.remove(reader)

    def run(self, seconds: float) -> None:
        now = time.monotonic()
        end = now + seconds
        while now < end:
            with self.wire.inside():
                for each in select.select(self.readers, [], [], 0.01)[0]:
                    each.doRead()
                before, now = now, time.monotonic()
                self.advance(now - before)


def left(agent: Lender) -> list[str]:
    """What of ours the kernel has, in short."""
    filters = agent.wire.filters("mip6test egress")
    # Not in one batch: the second listing would be empty.
    found = [line for what in LISTED for line in agent.wire.ip(what).splitlines()] + filters.splitlines()
    return [line for line in found if line.startswith("src") or "mirred" in line]


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


def numbers(wire: Wire, patience: float = 0.05) -> list[int]:
    """Those of the ESP packets on the wire."""
    found = []
    try:
        while True:
            packet = wire.receive(patience)
            if packet[6] == ipv6.ESP:
                found.append(int.from_bytes(packet[44:48], "big"))
    except AssertionError:
        return found


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


def test_what_a_killed_process_left_is_removed(wire: Wire, agent: Lender) -> None:
    foreign = foreigners(wire)
    agent.lend()
    agent.lend(OTHER, spi=0x2001)
    agent.kill()
    agent.open()
    assert left(agent) == foreign
    assert agent.dataplane.counters["leftover_payload_removed"] == 10
    node = agent.lend(first=2000, limit=3000)
    assert node.goes_up()
    assert node.comes_down() == 2000


FOREIGN = (
    "xfrm state add src 2001:db8:f::1 dst 2001:db8:f::2 proto esp spi 0x77 reqid 77 mode tunnel "
    "aead rfc4106(gcm(aes)) 0x0001020304050607080900010203040506070809 128",
    "xfrm policy add src 2001:db8:f::/64 dst 2001:db8:e::/64 dir out "
    "tmpl src 2001:db8:f::1 dst 2001:db8:f::2 proto esp reqid 77 mode tunnel",
    # Of another group.
    "xfrm policy add src 2001:db8:f::/64 dst 2001:db8:e::/64 dir fwd "
    "tmpl src 2001:db8:f::1 dst 2001:db8:f::2 proto esp reqid 1744896000 mode tunnel",
)


def foreigners(wire: Wire) -> list[str]:
    wire.ip(*FOREIGN)
    return [line for what in LISTED for line in wire.ip(what).splitlines() if line.startswith("src")]


def test_what_is_not_ours_stays(wire: Wire, agent: Lender) -> None:
    foreign = foreigners(wire)
    agent.clock.now += 10
    agent.lend()
    assert agent.repair() == {}
    agent.do(RecallPayload(HOME_ADDRESS))
    assert left(agent) == foreign


@pytest.mark.parametrize(
    "occupied",
    [
        "xfrm state add src 2001:db8:f::1 dst 2001:db8:b:0:ec1e:83ff:fee7:1faf proto esp spi 0x1002 reqid 5 "
        "mode tunnel aead rfc4106(gcm(aes)) 0x0001020304050607080900010203040506070809 128",
        "xfrm policy add src 2001:db8:a::100/128 dst ::/0 dir fwd",
    ],
)
def test_where_another_stands_nothing_is_lent(wire: Wire, agent: Lender, occupied: str) -> None:
    wire.ip(occupied)
    before = left(agent)
    agent.lend()
    assert agent.news() == [PayloadLost(HOME_ADDRESS)]
    assert agent.dataplane.counters["xfrm_EEXIST"] == 1
    assert left(agent) == before
    wire.send(DOWN)
    assert len(agent.to_daemon()) == 1


def test_what_the_kernel_cannot_do_is_refused(wire: Wire, agent: Lender) -> None:
    agent.do(SetTunnel(HOME_ADDRESS, CARE_OF_ADDRESS, protected=True))
    wrong = LentAssociation(True, OUT, "rot13", Keys(bytes(16)), True, 64, 1, 10, 1)
    agent.do(LendPayload(HOME_ADDRESS, (wrong,)))
    assert agent.news() == [PayloadLost(HOME_ADDRESS)]
    agent.do(LendPayload(HOME_ADDRESS, (wrong._replace(transform="aes-gcm-16"),)))
    assert agent.news() == [PayloadLost(HOME_ADDRESS)]
    assert agent.dataplane.counters["payload_refused_transform"] == 1
    assert agent.dataplane.counters["xfrm_EINVAL"] == 1
    # Of what is not lent nothing can become more or less.
    agent.do(ExtendPayload(HOME_ADDRESS, True, OUT, 11, 20, 1), RecallPayload(HOME_ADDRESS))
    assert agent.news() == []
    assert left(agent) == []


DAMAGE = {
    "state deleted": ("xfrm state delete dst 2001:db8:a::77 proto esp spi 0x1001", "", "association"),
    "state of other keys": (
        "xfrm state delete dst 2001:db8:a::77 proto esp spi 0x1001\n"
        "xfrm state add src 2001:db8:b:0:ec1e:83ff:fee7:1faf dst 2001:db8:a::77 proto esp spi 0x1001 "
        "reqid 1744830464 mode tunnel replay-window 64 flag esn "
        "aead rfc4106(gcm(aes)) 0x0001020304050607080900010203040506070809 128",
        "",
        "association",
    ),
    "policy deleted": ("xfrm policy delete src ::/0 dst 2001:db8:a::100/128 dir out", "", "payload_policy"),
    "policy made nothing": (
        "xfrm policy update src ::/0 dst 2001:db8:a::100/128 dir out",
        "",
        "payload_policy",
    ),
    "policy changed": (
        "xfrm policy update src 2001:db8:a::100/128 dst ::/0 dir fwd priority 9 tmpl "
        "src 2001:db8:b:0:ec1e:83ff:fee7:1faf dst 2001:db8:a::77 proto esp reqid 1744830464 mode tunnel",
        "",
        "payload_policy",
    ),
    "policy of somebody": (
        "xfrm policy add src ::/0 dst 2001:db8:a::222/128 dir out tmpl "
        "src 2001:db8:a::77 dst 2001:db8:b::9 proto esp reqid 1744830469 mode tunnel",
        "",
        "payload_leftover",
    ),
    "state of somebody": (
        "xfrm state add src 2001:db8:b::9 dst 2001:db8:a::77 proto esp spi 0x1005 "
        "reqid 1744830469 mode tunnel aead rfc4106(gcm(aes)) 0x0001020304050607080900010203040506070809 128",
        "",
        "payload_leftover",
    ),
    "all states": ("xfrm state flush", "", "association"),
    "all policies": ("xfrm policy flush", "", "payload_policy"),
    "everything": ("xfrm state flush\nxfrm policy flush", "filter del dev mip6test egress", "steering"),
    "filter deleted": (
        "link show lo",
        "filter del dev mip6test egress protocol ipv6 pref 100 handle 68:1:1 u32",
        "steering",
    ),
    "filter of somebody": (
        "link show lo",
        "filter add dev mip6test egress protocol ipv6 pref 100 handle 68:5:9 u32 ht 68:5: "
        "match u32 0x1005 0xffffffff at 40 action mirred ingress redirect dev mip6test",
        "steering",
    ),
    "filters deleted": ("link show lo", "filter del dev mip6test egress pref 100", "steering"),
    "queue deleted": ("link show lo", "qdisc del dev mip6test clsact", "steering"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_by_hand_is_repaired(wire: Wire, agent: Lender, damage: str) -> None:
    commands, traffic, kind = DAMAGE[damage]
    agent.clock.now += 10
    agent.lend()
    other = agent.lend(OTHER, spi=0x2003)
    told: list[PayloadNews] = []
    reports: list[dict[str, object]] = []
    reactor = Pump(wire)
    with wire.inside():
        close = agent.dataplane.attend(reactor, lambda name, fields: reports.append(fields), told.extend)
    try:
        reactor.run(0.2)
        assert (told, reports) == ([], [])
        wire.ip(*commands.splitlines())
        if traffic:
            wire.tc(traffic)
        # Soon, where nobody else wants the processor.
        for _ in range(50):
            reactor.run(0.1)
            if reports:
                break
    finally:
        close()
    assert kind in reports[0]
    assert agent.dataplane.counters[f"repaired_{kind}"]
    lost = [each for each in told if isinstance(each, PayloadLost)]
    if kind == "payload_leftover" or "of somebody" in damage:
        assert lost == []
    else:
        assert PayloadLost(HOME_ADDRESS) in lost
        both = damage.startswith(("all", "every", "queue", "filters"))
        assert (PayloadLost(OTHER) in lost) is both
        node = agent.lend(first=2000, limit=3000)
        assert node.goes_up()
        assert node.comes_down() == 2000
    if PayloadLost(OTHER) not in lost:
        assert other.goes_up(tunnelled(OTHER, CORRESPONDENT, b"up"))
    else:
        agent.lend(OTHER, spi=0x2003)
    assert agent.repair() == {}
    assert len([line for line in left(agent) if line.startswith("src")]) == 10
    agent.do(RecallPayload(HOME_ADDRESS), RecallPayload(OTHER))
    assert left(agent) == []


def test_what_was_not_heard_is_asked_for(wire: Wire, agent: Lender) -> None:
    node = agent.lend()
    node.comes_down()
    assert node.goes_up()
    payload = agent.dataplane._payload
    assert payload is not None
    assert agent.news() == []
    payload._missed = True
    assert agent.repair() == {}
    assert set(agent.news()) == {
        PayloadCounted(HOME_ADDRESS, False, IN, 1),
        PayloadCounted(HOME_ADDRESS, True, OUT, 1),
    }


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


def test_nothing_is_left_of_a_thousand_that_came_moved_and_went(wire: Wire, agent: Lender) -> None:
    before = left(agent)
    for number in range(1000):
        home_address = HOME_ADDRESS[:14] + (0x1000 + number % 16).to_bytes(2, "big")
        agent.lend(home_address, spi=0x3000 + 2 * number)
        agent.do(SetTunnel(home_address, ELSEWHERE, protected=True))
        if number % 2:
            agent.do(RecallPayload(home_address))
        agent.do(RemoveTunnel(home_address), ReleaseAddress(home_address))
    assert agent.news() == []
    assert agent.dataplane.counters.keys() == {"netlink_messages"}
    assert left(agent) == before == []
    node = agent.lend()
    assert node.goes_up()
    agent.close()
    listed = [line for what in LISTED for line in agent.wire.ip(what).splitlines()]
    assert [line for line in listed if line.startswith("src")] == []
