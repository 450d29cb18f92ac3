"""Payload lent to the kernel and what others do to it, what a killed process leaves, and what is left."""

from __future__ import annotations

import select
import time

import pytest

from mip6ha.effects import (
    ExtendPayload,
    LendPayload,
    LentAssociation,
    RecallPayload,
    ReleaseAddress,
    RemoveTunnel,
    SetTunnel,
)
from mip6ha.ipsec.algorithms import Keys
from mip6ha.lending import PayloadCounted, PayloadLost, PayloadNews

from ..reactor import ByHand
from .agent import CORRESPONDENT, DOWN, ELSEWHERE, IN, LISTED, OTHER, OUT, Lender, left
from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, tunnelled


class Pump(ByHand):
    """On real time."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.wire = wire

    def run(self, seconds: float) -> None:
        now = time.monotonic()
        end = now + seconds
        while now < end:
            with self.wire.inside():
                for each in select.select(self.readers, [], [], 0.01)[0]:
                    each.doRead()
                before, now = now, time.monotonic()
                self.advance(now - before)


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
