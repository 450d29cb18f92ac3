"""A mobile node's states and policies, tried by packets that a home agent makes, and by what comes out."""

from __future__ import annotations

import os
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate
from mip6ha.edge import mobile_associations
from mip6ha.edge.mobile_associations import KernelAssociations
from mip6ha.edge.mobile_kernel import MessageSocket
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, by_name
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.mobile.parameters import EmulatorParameters
from mip6ha.parameters import AssociationParameters
from mip6ha.wire import address

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, Wire, datagram, neighbour, quiet, tunnelled

HOME_AGENT = address("2001:db8:a::ff")
CORRESPONDENT = address("2001:db8:c::2")
ELSEWHERE = address("2001:db8:d::7")
GCM = by_name("aes-gcm-16")
KEYS = Keys(bytes(range(20)))
OUT, IN = 0x1000, 0x1001
UPDATE = messages.build(BindingUpdate(1, 0xC000, 15, ()), HOME_ADDRESS, HOME_AGENT)
ACKNOWLEDGEMENT = messages.build(BindingAcknowledgement(0, 0, 1, 15), HOME_AGENT, HOME_ADDRESS)


class MobileNode:
    """The kernel's end of the wire; ``reserved`` is what was put on stable storage."""

    def __init__(self, wire: Wire, use: Use, floor: int = 0) -> None:
        self.wire = wire
        self.reserved: list[int] = []
        self.counters: Counter[str] = Counter()
        self.heard: list[tuple[bytes, bytes, bytes]] = []
        uses = (use,) if use in (Use.BINDING, Use.SIGNALLING) else (use, Use.SIGNALLING)
        given = tuple(
            AssociationParameters(spi + 0x1000 * rank, direction, each, GCM, KEYS, window=64)
            for rank, each in enumerate(uses)
            for spi, direction in ((OUT, Direction.OUT), (IN, Direction.IN))
        )
        parameters = EmulatorParameters(HOME_ADDRESS, 64, HOME_AGENT, bytes(8), given, sequence_floor=floor)
        with wire.inside():
            self.associations = KernelAssociations(parameters, self.reserved.append, self.counters)
            self.associations.open()
            self.messages, self.prefixes = (
                MessageSocket(protocol, lambda *heard: self.heard.append(heard))
                for protocol in (ipv6.MOBILITY, ipv6.ICMPV6)
            )

    def close(self) -> None:
        self.messages.socket.close()
        self.prefixes.socket.close()
        with self.wire.inside():
            self.associations.close()

    def hears(self, packet: bytes) -> bool:
        """Whether the message in a packet is taken."""
        self.heard.clear()
        self.wire.send(packet)
        for each in select.select([self.messages, self.prefixes], [], [], 0.1)[0]:
            each.ready()
        return [octets for octets, *ends in self.heard if ends == [HOME_AGENT, HOME_ADDRESS]] != []

    def says(self) -> bytes | None:
        """What comes out for a Binding Update."""
        with suppress(OSError):
            self.messages.send(UPDATE, HOME_ADDRESS, HOME_AGENT)
        return None if self.wire.is_quiet() else self.wire.receive()


@contextmanager
def mobile_node(wire: Wire, use: Use = Use.SIGNALLING, floor: int = 0) -> Iterator[MobileNode]:
    names = ("2001:db8:a::ff", "2001:db8:c::2")
    addresses = ("2001:db8:a::100", "2001:db8:b:0:ec1e:83ff:fee7:1faf", "2001:db8:d::7")
    wire.ip(*map(neighbour, names), *(f"addr add {each}/128 dev home home nodad" for each in addresses))
    made = MobileNode(wire, use, floor)
    try:
        yield made
    finally:
        made.close()
        wire.ip(*(f"addr del {each}/128 dev home" for each in addresses))


def home_agent_end(spi: int, use: Use = Use.SIGNALLING, keys: Keys = KEYS) -> SecurityAssociation:
    direction = Direction.IN if spi % 2 == 0 else Direction.OUT
    return SecurityAssociation(
        spi=spi,
        direction=direction,
        use=use,
        home_address=HOME_ADDRESS,
        transform=GCM,
        keys=keys,
        to_home_agent=direction is Direction.IN,
    )


def sealed(association: SecurityAssociation, protocol: int, octets: bytes) -> bytes:
    return esp.protect(association, protocol, octets, os.urandom)


def straight(payload: bytes, protocol: int = ipv6.ESP) -> bytes:
    return ipv6.build(HOME_AGENT, HOME_ADDRESS, protocol, payload)


def routed(payload: bytes, protocol: int = ipv6.ESP, to: bytes = CARE_OF_ADDRESS) -> bytes:
    return ipv6.build(HOME_AGENT, to, protocol, payload, routing=HOME_ADDRESS)


@pytest.mark.parametrize("use", [Use.BINDING, Use.SIGNALLING])
def test_away_messages_have_their_headers_and_are_heard_with_theirs_only(wire: Wire, use: Use) -> None:
    with mobile_node(wire, use) as node:
        node.associations.away(CARE_OF_ADDRESS)
        packet = node.says()
        assert packet is not None
        parsed = ipv6.parse(packet)
        assert (parsed.source, parsed.destination) == (CARE_OF_ADDRESS, HOME_AGENT)
        assert parsed.home_address == HOME_ADDRESS
        assert esp.unprotect(home_agent_end(OUT), parsed.payload) == (ipv6.MOBILITY, UPDATE)
        ours = home_agent_end(IN)
        first = routed(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT))
        assert node.hears(first)
        assert not node.hears(first)
        assert not node.hears(routed(ACKNOWLEDGEMENT, ipv6.MOBILITY))
        assert not node.hears(straight(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT)))
        assert not node.hears(straight(ACKNOWLEDGEMENT, ipv6.MOBILITY))
        assert not node.hears(routed(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT), to=ELSEWHERE))
        forger = home_agent_end(IN, keys=Keys(bytes(20)))
        forger.sequence = 100
        assert not node.hears(routed(sealed(forger, ipv6.MOBILITY, ACKNOWLEDGEMENT)))
        assert wire.statistics() == {
            "XfrmInStateSeqError": 1,
            "XfrmInTmplMismatch": 3,
            # The routing header is for another care-of address.
            "XfrmInNoStates": 1,
            "XfrmInStateProtoError": 1,
        }
        # Another care-of address, in the states that are there.
        node.associations.away(ELSEWHERE)
        assert node.hears(routed(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT), to=ELSEWHERE))
        packet = node.says()
        assert packet is not None
        assert ipv6.parse(packet).source == ELSEWHERE
        # What asks for a refresh needs no SA of those for Binding Updates.
        request = messages.build(BindingRefreshRequest(), HOME_AGENT, HOME_ADDRESS)
        assert node.hears(routed(request, ipv6.MOBILITY, ELSEWHERE)) == (use is Use.BINDING)
        assert node.counters == {}


@pytest.mark.parametrize("use", [Use.BINDING, Use.SIGNALLING])
def test_at_home_messages_are_protected_and_nothing_else(wire: Wire, use: Use) -> None:
    with mobile_node(wire, use) as node:
        for _ in range(2):
            packet = node.says()
            assert packet is not None
            parsed = ipv6.parse(packet)
            assert (parsed.source, parsed.home_address, parsed.next_header) == (HOME_ADDRESS, None, ipv6.ESP)
            ours = home_agent_end(IN)
            ours.sequence = parsed.payload[7]
            assert node.hears(straight(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT)))
            assert not node.hears(straight(ACKNOWLEDGEMENT, ipv6.MOBILITY))
            assert not node.hears(routed(sealed(ours, ipv6.MOBILITY, ACKNOWLEDGEMENT)))
            # As it was, after having been elsewhere.
            node.associations.away(CARE_OF_ADDRESS)
            node.associations.home()
        assert node.counters == {}


def test_prefixes_are_told_under_their_own_protection(wire: Wire) -> None:
    with mobile_node(wire, Use.PREFIX) as node:
        told = icmpv6.message(147, 0, b"id\0\0", HOME_AGENT, HOME_ADDRESS)
        ours, other = home_agent_end(IN, Use.PREFIX), home_agent_end(IN + 0x1000)
        for away in (False, True, False):
            build = routed if away else straight
            if away:
                node.associations.away(CARE_OF_ADDRESS)
            else:
                node.associations.home()
            assert node.hears(build(sealed(ours, ipv6.ICMPV6, told)))
            assert not node.hears(build(told, ipv6.ICMPV6))
            assert not node.hears(build(sealed(other, ipv6.ICMPV6, told)))
            if away:
                assert not node.hears(straight(sealed(ours, ipv6.ICMPV6, told)))
        assert node.counters == {}


def test_no_number_is_used_that_is_not_reserved(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobile_associations, "RESERVATION", 8)
    with mobile_node(wire, floor=1000) as node:
        numbers = []

        def says() -> bool:
            packet = node.says()
            if packet is not None:
                numbers.append(int.from_bytes(ipv6.parse(packet).payload[4:8], "big"))
            return packet is not None

        assert node.reserved == [1008]
        # Nobody listens to what the kernel says about it.
        assert [says() for _ in range(10)] == [True] * 8 + [False] * 2
        node.associations.read_events()
        assert node.reserved == [1008, 1016]
        assert node.counters == {"reservation_used_up": 1}
        for _ in range(20):
            assert says()
            node.associations.read_events()
        assert numbers == list(range(1001, 1029))
        assert max(numbers) <= node.reserved[-1]
        assert node.counters == {"reservation_used_up": 1}


def test_payload_in_tunnel_mode_moves_with_its_window(wire: Wire) -> None:
    with mobile_node(wire, Use.PAYLOAD) as node:
        application = wire.socket(socket.SOCK_DGRAM)
        application.bind(("2001:db8:a::100", 6000))

        def sent() -> ipv6.Packet:
            application.sendto(b"out", ("2001:db8:c::2", 5000))
            return ipv6.parse(wire.receive())

        def payload(association: SecurityAssociation, to: bytes) -> bytes:
            inner = tunnelled(CORRESPONDENT, HOME_ADDRESS, b"in")
            return ipv6.build(HOME_AGENT, to, ipv6.ESP, sealed(association, ipv6.IPV6, inner))

        ours, theirs = home_agent_end(IN, Use.PAYLOAD), home_agent_end(OUT, Use.PAYLOAD)
        seen: list[int] = []
        for place in (CARE_OF_ADDRESS, ELSEWHERE):
            node.associations.away(place)
            assert sent().next_header == ipv6.UDP
            node.associations.set_tunnel(place)
            parsed = sent()
            assert (parsed.source, parsed.destination) == (place, HOME_AGENT)
            seen.append(int.from_bytes(parsed.payload[4:8], "big"))
            assert esp.unprotect(theirs, parsed.payload)[0] == ipv6.IPV6
            packet = payload(ours, place)
            wire.send(packet)
            assert application.recv(10) == b"in"
            node.associations.remove_tunnel()
        # One move later nothing that was heard before is heard again, nor is a number used again.
        again = ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, ipv6.ESP, ipv6.parse(packet).payload)
        node.associations.away(CARE_OF_ADDRESS)
        wire.send(again)
        wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"unprotected"))
        assert quiet(application)
        assert wire.statistics() == {"XfrmInStateSeqError": 1, "XfrmInTmplMismatch": 1}
        assert seen[1] > seen[0] + 1000
        # At home it is protected no more, and needs not be.
        node.associations.home()
        wire.send(
            ipv6.build(CORRESPONDENT, HOME_ADDRESS, ipv6.UDP, datagram(CORRESPONDENT, HOME_ADDRESS, b"in"))
        )
        assert application.recv(10) == b"in"
        assert node.counters == {}
