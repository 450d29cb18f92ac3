"""What somebody else does to a mobile node's states and policies, and what becomes of it."""

from __future__ import annotations

import socket
from collections import Counter

from mip6ha import ipv6
from mip6ha.edge import xfrm
from mip6ha.edge.xfrm import Xfrm
from mip6ha.edge.xfrm_state import Counters, StateId
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Use

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, quiet, tunnelled
from .test_mobile_associations import (
    ACKNOWLEDGEMENT,
    CORRESPONDENT,
    ELSEWHERE,
    HOME_AGENT,
    IN,
    KEYS,
    OUT,
    UPDATE,
    MobileNode,
    home_agent_end,
    mobile_node,
    routed,
    sealed,
)

TO, FROM = "src 2001:db8:a::100 dst 2001:db8:a::ff", "src 2001:db8:a::ff dst 2001:db8:a::100"
OTHER_KEYS = f"aead rfc4106(gcm(aes)) 0x{bytes(20).hex()} 128"
SAME_KEYS = f"aead rfc4106(gcm(aes)) 0x{KEYS.encryption.hex()} 128"
DELETE_OUT = f"xfrm state delete {TO} proto esp spi 0x1000"
DELETE_IN = f"xfrm state delete {FROM} proto esp spi 0x1001"
FLUSH = ("xfrm state flush", "xfrm policy flush", "xfrm policy flush ptype sub")
OURS = "reqid 0x6d6e00"
FOREIGN = (
    f"xfrm state add {TO} proto esp spi 0x9999 reqid 7 mode transport {OTHER_KEYS}",
    f"xfrm policy add {TO} proto udp dport 9 dir out priority 13600 action block",
)


def number(packet: ipv6.Packet) -> int:
    return int.from_bytes(packet.payload[4:8], "big")


class Judge:
    """A home agent that goes on with its numbers, and remembers everything."""

    def __init__(self, node: MobileNode) -> None:
        self._node = node
        self._end = home_agent_end(IN)
        self._heard: list[bytes] = []
        self._last = 0

    def fresh(self) -> bytes:
        """What has not been heard yet."""
        self._heard.append(routed(sealed(self._end, ipv6.MOBILITY, ACKNOWLEDGEMENT)))
        return self._heard[-1]

    def is_content(self) -> bool:
        """Whether messages come and go, no number is used again and nothing is heard again."""
        node = self._node
        packet = node.says()
        assert packet is not None
        parsed = ipv6.parse(packet)
        assert (parsed.source, parsed.home_address) == (CARE_OF_ADDRESS, HOME_ADDRESS)
        assert esp.unprotect(home_agent_end(OUT), parsed.payload) == (ipv6.MOBILITY, UPDATE)
        assert number(parsed) > self._last
        self._last = number(parsed)
        for old in self._heard:
            node.wire.send(old)
        heard = node.hears(self.fresh()) and len(node.heard) == 1
        return heard and not node.hears(routed(ACKNOWLEDGEMENT, ipv6.MOBILITY))


def test_what_others_remove_or_change_is_as_before(wire: Wire) -> None:
    with mobile_node(wire) as node:
        associations = node.associations
        wire.ip(*FOREIGN)
        assert associations.look() == {}
        associations.away(CARE_OF_ADDRESS)
        # What was done here is no news.
        assert associations.events.read() == []
        before = sorted(wire.ip("xfrm policy").split("src "))
        judge = Judge(node)
        total: Counter[str] = Counter()
        assert judge.is_content()
        for harm, repaired in (
            ((DELETE_OUT,), {"state": 1}),
            ((DELETE_IN,), {"state": 1}),
            (
                (DELETE_OUT, f"{DELETE_OUT.replace('delete', 'add')} mode transport {OTHER_KEYS}"),
                {"state": 1},
            ),
            ((DELETE_IN, f"{DELETE_IN.replace('delete', 'add')} mode transport {SAME_KEYS}"), {"state": 1}),
            (
                (f"{DELETE_IN.replace('delete', 'update')} mode transport {SAME_KEYS} limit packet-hard 9",),
                {"state": 1},
            ),
            (
                (f"xfrm state add {TO} proto esp spi 0x7777 {OURS}05 mode transport {OTHER_KEYS}",),
                {"state": 1},
            ),
            (
                (f"xfrm state delete {TO} proto hao", f"xfrm state delete {FROM} proto route2"),
                {"header_state": 2},
            ),
            (
                (f"xfrm state update {TO} proto hao {OURS}00 mode ro coa 2001:db8:d::7 sel {TO}",),
                {"header_state": 1},
            ),
            (
                (
                    f"xfrm policy delete {TO} proto 135 dir out",
                    f"xfrm policy delete {FROM} proto 135 dir in ptype sub",
                ),
                {"policy": 2},
            ),
            ((f"xfrm policy update {TO} proto 135 dir out action block",), {"policy": 1}),
            ((f"xfrm policy add {TO} proto tcp dir out priority 13620",), {"policy": 1}),
        ):
            wire.ip(*harm)
            assert associations.look() == repaired, harm
            assert associations.look() == {}, harm
            total.update(repaired)
            assert judge.is_content(), harm
        assert sorted(wire.ip("xfrm policy").split("src ")) == before
        assert "spi 0x00009999 reqid 7" in wire.ip("xfrm state")
        # Without a word of the numbers: those of the last look.
        associations.look()
        wire.ip(*FLUSH)
        flushed = associations.look()
        assert (flushed["state"], flushed["header_state"]) == (2, 2)
        after = sorted(each for each in wire.ip("xfrm policy").split("src ") if "dport 9" not in each)
        assert after == [each for each in before if "dport 9" not in each]
        assert judge.is_content()
        assert node.counters == {f"repaired_{kind}": count for kind, count in (total + flushed).items()}


def test_numbers_that_are_set_back_are_put_right(wire: Wire) -> None:
    with mobile_node(wire) as node:
        associations = node.associations
        associations.away(CARE_OF_ADDRESS)
        judge = Judge(node)
        assert judge.is_content()
        assert judge.is_content()
        assert associations.look() == {}
        with wire.inside():
            kernel = Xfrm()
        ends = StateId(HOME_AGENT, socket.IPPROTO_ESP, OUT), StateId(HOME_ADDRESS, socket.IPPROTO_ESP, IN)
        kernel.carry_out([xfrm.count(each, Counters(sent=1, received=1, seen=1), 64) for each in ends])
        assert associations.look() == {"state": 2}
        assert judge.is_content()
        # The same again but for its window, and already beyond where the old one was.
        found = kernel.state(ends[1])
        assert found is not None
        kernel.carry_out([xfrm.remove(found.state.id), xfrm.install(found.state, Counters(received=3))])
        assert node.hears(judge.fresh())
        assert associations.look() == {"state": 1}
        assert judge.is_content()
        kernel.close()


def test_payload_goes_on_after_a_flush(wire: Wire) -> None:
    with mobile_node(wire, Use.PAYLOAD) as node:
        associations = node.associations
        associations.away(CARE_OF_ADDRESS)
        associations.set_tunnel(CARE_OF_ADDRESS)
        application = wire.socket(socket.SOCK_DGRAM)
        application.bind(("2001:db8:a::100", 6000))
        ours, theirs = home_agent_end(IN, Use.PAYLOAD), home_agent_end(OUT, Use.PAYLOAD)
        packets: list[bytes] = []
        numbers: list[int] = []

        def sealed_for(place: bytes) -> bytes:
            inner = tunnelled(CORRESPONDENT, HOME_ADDRESS, b"in")
            packets.append(ipv6.build(HOME_AGENT, place, ipv6.ESP, sealed(ours, ipv6.IPV6, inner)))
            return packets[-1]

        for _ in range(2):
            application.sendto(b"out", ("2001:db8:c::2", 5000))
            parsed = ipv6.parse(wire.receive())
            assert esp.unprotect(theirs, parsed.payload)[0] == ipv6.IPV6
            numbers.append(number(parsed))
            wire.send(sealed_for(CARE_OF_ADDRESS))
            assert application.recv(10) == b"in"
            associations.look()
            wire.ip(*FLUSH)
            repaired = associations.look()
            assert (repaired["state"], repaired["header_state"]) == (4, 2)
            assert associations.look() == {}
            for packet in packets:
                wire.send(packet)
            wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"unprotected"))
            assert quiet(application)
        assert numbers[1] > numbers[0]
        # Removed, and moved before anybody has looked.
        wire.send(sealed_for(CARE_OF_ADDRESS))
        assert application.recv(10) == b"in"
        inbound = "src 2001:db8:a::ff dst 2001:db8:b:0:ec1e:83ff:fee7:1faf proto esp spi 0x1001"
        wire.ip(f"xfrm state delete {inbound}")
        associations.away(ELSEWHERE)
        for packet in packets:
            wire.send(packet[:24] + ELSEWHERE + packet[40:])
        assert quiet(application)
        wire.send(sealed_for(ELSEWHERE))
        assert application.recv(10) == b"in"
