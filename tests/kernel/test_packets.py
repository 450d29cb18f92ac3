"""Our ESP and Mobile IPv6 packets against the kernel's, both ways."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mip6ha import ipv6
from mip6ha.edge import xfrm
from mip6ha.edge.xfrm import Xfrm
from mip6ha.edge.xfrm_events import Counted, XfrmEvents
from mip6ha.edge.xfrm_layout import ANY, Mode, Selector
from mip6ha.edge.xfrm_policy import Direction, Policy, PolicyType, Template
from mip6ha.edge.xfrm_state import Counters, Protection, State, StateFlag
from mip6ha.ipsec import esp
from mip6ha.ipsec import policy as uses
from mip6ha.ipsec.algorithms import Keys, by_name
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.wire import UNSPECIFIED, Refused, checksum, text

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, Wire, datagram, quiet, tunnelled

ESP, HAO, ROUTE2, MH, UDP = 50, 60, 43, 135, 17
TRANSPORT, TUNNEL, RO = Mode.TRANSPORT, Mode.TUNNEL, Mode.ROUTE_OPTIMIZATION
IN, OUT = Direction.IN, Direction.OUT
WINDOW = 1024
IN_SPI, OUT_SPI, REQID = 0x4000, 0x4001, 77
TO_HOME_AGENT = Selector.between(HOME_ADDRESS, HOME_AGENT)
TO_MOBILE_NODE = Selector.between(HOME_AGENT, HOME_ADDRESS)

TRANSFORMS = {
    "aes-gcm-16": Keys(bytes(range(20))),
    "chacha20-poly1305": Keys(bytes(range(36))),
    "aes-cbc+hmac-sha2-256-128": Keys(bytes(range(16)), bytes(range(32))),
    "null+hmac-sha2-512-256": Keys(b"", bytes(range(64))),
}


class Pair:
    """The same two SAs in the kernel, which is the home agent, and in the test, which is the mobile node."""

    def __init__(
        self, transform: str = "aes-gcm-16", *, esn: bool = True, use: uses.Use = uses.Use.SIGNALLING
    ) -> None:
        flags = StateFlag.ESN if esn else StateFlag.NONE
        keys = TRANSFORMS[transform]
        mode = TUNNEL if use.mode is uses.Mode.TUNNEL else TRANSPORT
        peer = CARE_OF_ADDRESS if mode is TUNNEL else HOME_ADDRESS
        common = State(
            peer, HOME_AGENT, ESP, mode, IN_SPI, REQID, ANY, Protection(transform, keys), None, flags, WINDOW
        )
        self.inbound = common
        self.outbound = replace(common, source=HOME_AGENT, destination=peer, spi=OUT_SPI)
        self.template = Template(ESP, mode, REQID)

        def association(spi: int, direction: uses.Direction) -> SecurityAssociation:
            return SecurityAssociation(
                spi=spi,
                direction=direction,
                use=use,
                home_address=HOME_ADDRESS,
                transform=by_name(transform),
                keys=keys,
                esn=esn,
                to_home_agent=direction is uses.Direction.OUT,
            )

        self.ours_out = association(IN_SPI, uses.Direction.OUT)
        self.ours_in = association(OUT_SPI, uses.Direction.IN)

    def protect(self, next_header: int, payload: bytes) -> bytes:
        return esp.protect(self.ours_out, next_header, payload, os.urandom)

    def unprotect(self, packet: ipv6.Packet) -> tuple[int, bytes]:
        assert packet.next_header == ESP
        return esp.unprotect(self.ours_in, packet.payload)


@pytest.fixture
def kernel(wire: Wire) -> Iterator[Xfrm]:
    with wire.inside():
        kernel = Xfrm()
    yield kernel
    kernel.close()


def mobility(kind: int, source: bytes, destination: bytes, body: bytes) -> bytes:
    """A Mobility Header message; ``body`` behind the checksum."""
    head = bytes((59, (6 + len(body)) // 8 - 1 + (1 if (6 + len(body)) % 8 else 0), kind, 0))
    body += b"\1\0"[: -(6 + len(body)) % 8] if (6 + len(body)) % 8 == 6 else b"\0" * (-(6 + len(body)) % 8)
    code = checksum(source, destination, MH, head + b"\0\0" + body)
    return head + code.to_bytes(2, "big") + body


def udp_policies(pair: Pair) -> list[Policy]:
    return [
        Policy(replace(TO_HOME_AGENT, protocol=UDP), IN, 5, templates=(pair.template,)),
        Policy(replace(TO_MOBILE_NODE, protocol=UDP), OUT, 5, templates=(pair.template,)),
    ]


@pytest.mark.parametrize("esn", [False, True], ids=["plain", "esn"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_esp_in_transport_mode(wire: Wire, kernel: Xfrm, transform: str, esn: bool) -> None:
    pair = Pair(transform, esn=esn)
    # Beyond the first subspace where numbers have 64 bits.
    start = (1 << 32) - 2 if esn else 7
    seen = Counters(sent=start, received=start, seen=1)
    pair.ours_out.sequence = start
    assert pair.ours_in.window is not None
    pair.ours_in.window.advance(start)
    requests = [xfrm.install(pair.inbound, seen), xfrm.install(pair.outbound, seen)]
    requests += map(xfrm.install_policy, udp_policies(pair))
    assert kernel.carry_out(requests) == []
    receiver = wire.socket(socket.SOCK_DGRAM)
    receiver.bind(("2001:db8:a::1", 6000))
    for data in (b"", b"x", b"mobile" * 100, bytes(1200)):
        payload = pair.protect(UDP, datagram(HOME_ADDRESS, HOME_AGENT, data))
        wire.send(ipv6.build(HOME_ADDRESS, HOME_AGENT, ESP, payload))
        received, peer = receiver.recvfrom(2000)
        assert (received, peer[:2]) == (data, ("2001:db8:a::100", 5000))
        receiver.sendto(data, ("2001:db8:a::100", 5000))
        packet = ipv6.parse(wire.receive())
        assert (packet.source, packet.destination) == (HOME_AGENT, HOME_ADDRESS)
        protocol, inner = pair.unprotect(packet)
        assert (protocol, inner[8:]) == (UDP, data)
    found = kernel.counters(pair.inbound.id)
    assert found is not None
    assert found.counters == Counters(received=start + 4, seen=0b11111, sent=start)
    found = kernel.counters(pair.outbound.id)
    assert found is not None
    assert found.counters.sent == start + 4
    assert wire.statistics() == {}


def test_numbers_go_on_where_they_are_set(wire: Wire, kernel: Xfrm) -> None:
    pair = Pair()
    kernel.carry_out([xfrm.install(pair.inbound), xfrm.install(pair.outbound)])
    kernel.carry_out([*map(xfrm.install_policy, udp_policies(pair))])
    top = (5 << 32) + 1000
    unseen = top - 3
    seen = (1 << WINDOW) - 1 & ~(1 << 3)
    assert (
        kernel.carry_out(
            [
                xfrm.count(pair.inbound.id, Counters(received=top, seen=seen), WINDOW),
                xfrm.count(pair.outbound.id, Counters(sent=top), WINDOW),
            ]
        )
        == []
    )
    receiver = wire.socket(socket.SOCK_DGRAM)
    receiver.bind(("2001:db8:a::1", 6000))

    def send(number: int) -> None:
        pair.ours_out.sequence = number - 1
        payload = pair.protect(UDP, datagram(HOME_ADDRESS, HOME_AGENT, str(number).encode()))
        wire.send(ipv6.build(HOME_ADDRESS, HOME_AGENT, ESP, payload))

    for number in (top, top - 4, top - WINDOW, top - WINDOW + 1):
        send(number)
    assert quiet(receiver)
    for number in (unseen, top + 1, top + WINDOW - 5):
        send(number)
        assert receiver.recv(100) == str(number).encode()
    send(unseen)
    assert quiet(receiver)
    # One past the window's left edge is taken for one of the next subspace: its ICV is wrong.
    statistics = wire.statistics()
    assert statistics["XfrmInStateSeqError"] >= 3
    assert sum(statistics.values()) == 5
    receiver.sendto(b"next", ("2001:db8:a::100", 5000))
    assert pair.ours_in.window is not None
    pair.ours_in.window.advance(top)
    assert pair.unprotect(ipv6.parse(wire.receive()))[0] == UDP
    assert pair.ours_in.window.top == top + 1


def test_counters_are_announced_with_the_packet(wire: Wire, kernel: Xfrm) -> None:
    """With a threshold of one packet."""
    pair = Pair()
    with wire.inside():
        events = XfrmEvents()
    kernel.carry_out(
        [xfrm.install(pair.inbound, event_after=1), *map(xfrm.install_policy, udp_policies(pair))]
    )
    receiver = wire.socket(socket.SOCK_DGRAM)
    receiver.bind(("2001:db8:a::1", 6000))
    events.read()
    for number in (1, 2, 3):
        payload = pair.protect(UDP, datagram(HOME_ADDRESS, HOME_AGENT, b"event"))
        wire.send(ipv6.build(HOME_ADDRESS, HOME_AGENT, ESP, payload))
        receiver.recv(100)
        (event,) = events.read()
        assert isinstance(event, Counted)
        assert (event.id, event.window) == (pair.inbound.id, WINDOW)
        assert event.counters.received == number
    events.close()


@pytest.mark.parametrize("transform", ["aes-gcm-16", "aes-cbc+hmac-sha2-256-128"])
def test_esp_in_tunnel_mode(wire: Wire, kernel: Xfrm, transform: str) -> None:
    pair = Pair(transform, use=uses.Use.PAYLOAD)
    inward = replace(pair.template, source=CARE_OF_ADDRESS, destination=HOME_AGENT)
    outward = replace(pair.template, source=HOME_AGENT, destination=CARE_OF_ADDRESS)
    requests = [xfrm.install(pair.inbound), xfrm.install(pair.outbound)]
    requests += [
        xfrm.install_policy(Policy(TO_HOME_AGENT, IN, 5, templates=(inward,))),
        xfrm.install_policy(Policy(TO_MOBILE_NODE, OUT, 5, templates=(outward,))),
    ]
    assert kernel.carry_out(requests) == []
    receiver = wire.socket(socket.SOCK_DGRAM)
    receiver.bind(("2001:db8:a::1", 6000))
    for data in (b"in a tunnel", bytes(1000)):
        payload = pair.protect(ipv6.IPV6, tunnelled(HOME_ADDRESS, HOME_AGENT, data))
        wire.send(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ESP, payload))
        received, peer = receiver.recvfrom(2000)
        assert (received, peer[0]) == (data, text(HOME_ADDRESS))
        receiver.sendto(data, ("2001:db8:a::100", 5000))
        packet = ipv6.parse(wire.receive())
        assert (packet.source, packet.destination) == (HOME_AGENT, CARE_OF_ADDRESS)
        protocol, inner = pair.unprotect(packet)
        assert protocol == ipv6.IPV6
        parsed = ipv6.parse(inner)
        assert (parsed.source, parsed.destination) == (HOME_AGENT, HOME_ADDRESS)
        assert parsed.payload[8:] == data


BINDING_UPDATE = bytes((0, 7, 0xC0, 0, 0, 30))
BINDING_ACKNOWLEDGEMENT = bytes((0, 0, 0, 7, 0, 30))


def mobile_node(pair: Pair) -> list[xfrm.Request]:
    """What a home agent has in the kernel for a registered mobile node with protected signalling."""
    hao = State(UNSPECIFIED, UNSPECIFIED, HAO, RO, care_of_address=UNSPECIFIED, flags=StateFlag.WILD_RECEIVE)
    route = State(HOME_AGENT, HOME_ADDRESS, ROUTE2, RO, 0, 0, TO_MOBILE_NODE, care_of_address=CARE_OF_ADDRESS)
    sub, optional = PolicyType.SUB, True
    return [
        *(xfrm.install(state) for state in (hao, route, pair.inbound, pair.outbound)),
        *(
            xfrm.install_policy(policy)
            for policy in (
                Policy(Selector(protocol=MH, kind=5), IN, 9, sub, (Template(HAO, RO, optional=optional),)),
                Policy(TO_MOBILE_NODE, OUT, 16, sub, (Template(ROUTE2, RO, optional=optional),)),
                Policy(replace(TO_HOME_AGENT, protocol=MH, kind=5), IN, 2, templates=(pair.template,)),
                Policy(replace(TO_MOBILE_NODE, protocol=MH, kind=6), OUT, 2, templates=(pair.template,)),
            )
        ),
    ]


@pytest.mark.parametrize("transform", ["aes-gcm-16", "aes-cbc+hmac-sha2-256-128"])
def test_the_kernel_takes_our_binding_update_and_we_its_acknowledgement(
    wire: Wire, kernel: Xfrm, transform: str
) -> None:
    """RFC 3776 3.1: home address option before ESP inwards, type 2 routing header before ESP outwards."""
    pair = Pair(transform)
    assert kernel.carry_out(mobile_node(pair)) == []
    signalling = wire.socket(socket.SOCK_RAW, MH)
    update = mobility(5, HOME_ADDRESS, HOME_AGENT, BINDING_UPDATE)
    wire.send(
        ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ESP, pair.protect(MH, update), home_address=HOME_ADDRESS)
    )
    received, peer = signalling.recvfrom(2000)
    assert (received, peer[0]) == (update, text(HOME_ADDRESS))
    # Sent by a socket that lets the kernel fill in the checksum (RFC 6275 6.1.1).
    answer = mobility(6, HOME_AGENT, HOME_ADDRESS, BINDING_ACKNOWLEDGEMENT)
    signalling.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 4)
    signalling.sendto(answer[:4] + b"\0\0" + answer[6:], ("2001:db8:a::100", 0))
    packet = ipv6.parse(wire.receive())
    assert (packet.source, packet.destination, packet.routing) == (HOME_AGENT, CARE_OF_ADDRESS, HOME_ADDRESS)
    assert pair.unprotect(packet) == (MH, answer)
    assert wire.statistics() == {}


def test_a_binding_update_that_must_be_protected_and_is_not(wire: Wire, kernel: Xfrm) -> None:
    pair = Pair()
    assert kernel.carry_out(mobile_node(pair)) == []
    signalling = wire.socket(socket.SOCK_RAW, MH)
    update = mobility(5, HOME_ADDRESS, HOME_AGENT, BINDING_UPDATE)
    wire.send(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, MH, update, home_address=HOME_ADDRESS))
    assert quiet(signalling)
    assert wire.statistics() == {"XfrmInTmplMismatch": 1}


def test_the_kernel_refuses_what_we_refuse(wire: Wire, kernel: Xfrm) -> None:
    pair = Pair()
    assert kernel.carry_out(mobile_node(pair)) == []
    signalling = wire.socket(socket.SOCK_RAW, MH)
    update = mobility(5, HOME_ADDRESS, HOME_AGENT, BINDING_UPDATE)
    payload = pair.protect(MH, update)

    def send(payload: bytes) -> None:
        wire.send(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ESP, payload, home_address=HOME_ADDRESS))

    send(payload)
    assert signalling.recv(100) == update
    send(payload)
    send(payload[:-1] + bytes((payload[-1] ^ 1,)))
    send((0x4444).to_bytes(4, "big") + payload[4:])
    forged = bytearray(pair.protect(MH, update))
    forged[20] ^= 1
    send(bytes(forged))
    assert quiet(signalling)
    statistics = wire.statistics()
    assert statistics["XfrmInStateSeqError"] == 2
    assert statistics["XfrmInNoStates"] == 1
    assert statistics["XfrmInStateProtoError"] == 1
    mirror = SecurityAssociation(
        spi=IN_SPI,
        direction=uses.Direction.IN,
        use=uses.Use.SIGNALLING,
        home_address=HOME_ADDRESS,
        transform=by_name("aes-gcm-16"),
        keys=TRANSFORMS["aes-gcm-16"],
        esn=True,
    )
    assert esp.unprotect(mirror, payload) == (MH, update)
    for packet, reason in ((payload, "replayed"), (bytes(forged), "bad_icv")):
        with pytest.raises(Refused, match=reason):
            esp.unprotect(mirror, packet)


def test_counter_nonces_of_the_kernel_are_its_numbers_in_disguise(wire: Wire, kernel: Xfrm) -> None:
    """AES-GCM's IV is the number, XORed with something random that a state gets when it is installed.

    So the same numbers under the same key never make the same nonce by design, only with a chance of 2^-64
    for each pair of states: ``iv_prefix`` has no counterpart in the kernel.
    """
    pair = Pair()
    masks = []
    for _ in range(2):
        kernel.carry_out([xfrm.install(pair.outbound), xfrm.install_policy(udp_policies(pair)[1])])
        sender = wire.socket(socket.SOCK_DGRAM)
        seen = set()
        for number in range(1, 5):
            sender.sendto(b"number", ("2001:db8:a::100", 5000))
            payload = ipv6.parse(wire.receive()).payload
            assert int.from_bytes(payload[4:8], "big") == number
            seen.add(int.from_bytes(payload[8:16], "big") ^ number)
        (mask,) = seen
        masks.append(mask)
        kernel.carry_out([xfrm.remove(pair.outbound.id)])
    assert masks[0] != masks[1]
