from __future__ import annotations

from dataclasses import replace

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, BindingError, BindingRefreshRequest, BindingUpdate
from mip6ha.icmpv6 import PrefixInformation
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, ICMPV6, IPV6, MOBILITY, UDP
from mip6ha.mobile.effects import (
    AnnounceAddress,
    AtHome,
    DropCareOfAddress,
    EndProbe,
    Event,
    LeaveHome,
    MobileEffect,
    ProbeAddress,
    ReserveSequences,
    SendPacket,
    SolicitRouter,
    UseCareOfAddress,
)
from mip6ha.mobile.mobile_node import MobileNode
from mip6ha.mobile.parameters import EmulatorParameters
from mip6ha.parameters import AssociationParameters

from .timeline import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    FOREIGN_1,
    FOREIGN_2,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    HOME_ROUTER,
    IDENTIFIER,
    ROUTER_1,
    ROUTER_2,
    advertised,
    seeded,
)

GCM = transform("aes-gcm-16")
PLAIN = EmulatorParameters(HOME_ADDRESS, 64, HOME_AGENT, IDENTIFIER)


def pair(use: Use, spi: int) -> tuple[AssociationParameters, AssociationParameters]:
    """SAs of the mobile node: towards the home agent, and back."""
    return (
        AssociationParameters(spi, Direction.OUT, use, GCM, Keys(bytes([spi & 0xFF]) * 20)),
        AssociationParameters(spi + 1, Direction.IN, use, GCM, Keys(bytes([spi & 0xFF, 1]) * 10)),
    )


def peer(given: AssociationParameters) -> SecurityAssociation:
    """The home agent's end of an SA."""
    direction = Direction.IN if given.direction is Direction.OUT else Direction.OUT
    return SecurityAssociation(
        spi=given.spi,
        direction=direction,
        use=given.use,
        home_address=HOME_ADDRESS,
        transform=given.transform,
        keys=given.keys,
        window=given.window,
    )


def kinds(effects: list[MobileEffect]) -> list[type]:
    return [type(effect) for effect in effects if not isinstance(effect, Event)]


def names(effects: list[MobileEffect]) -> list[str]:
    return [effect.name for effect in effects if isinstance(effect, Event)]


def packets(effects: list[MobileEffect]) -> list[bytes]:
    return [effect.packet for effect in effects if isinstance(effect, SendPacket)]


def arrives(node: MobileNode, prefix: bytes, router: bytes, now: float) -> list[MobileEffect]:
    """Carrier, then a Router Advertisement."""
    effects = node.carrier(True, now)
    return effects + node.advertisement(router, 255, advertised(prefix, router), now)


def update_of(packet: bytes) -> BindingUpdate:
    parsed = ipv6.parse(packet)
    body = messages.parse(parsed.payload, parsed.logical_source, parsed.logical_destination)
    assert isinstance(body, BindingUpdate)
    return body


def to_mobile_node(body: messages.Body, care_of_address: bytes = CARE_OF_1) -> bytes:
    octets = messages.build(body, HOME_AGENT, HOME_ADDRESS)
    return ipv6.build(HOME_AGENT, care_of_address, MOBILITY, octets, routing=HOME_ADDRESS)


def accept(node: MobileNode, now: float, care_of_address: bytes = CARE_OF_1) -> list[MobileEffect]:
    answer = BindingAcknowledgement(0, 0, node.registration.sequence, 15)
    return node.receive(to_mobile_node(answer, care_of_address), now)


def registered(parameters: EmulatorParameters = PLAIN) -> MobileNode:
    node = MobileNode(parameters, seeded("registered"))
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    accept(node, 0.0)
    assert node.registration.binding is not None
    return node


def datagram(length: int = 100, source: bytes = HOME_ADDRESS, destination: bytes = CORRESPONDENT) -> bytes:
    return ipv6.build(source, destination, UDP, bytes(length - 40))


def test_attachment_uses_the_address_before_it_registers() -> None:
    node = MobileNode(PLAIN, seeded("a"))
    assert kinds(node.carrier(True, 0.0)) == [SolicitRouter]
    effects = node.advertisement(ROUTER_1, 255, advertised(FOREIGN_1, ROUTER_1), 0.01)
    assert kinds(effects) == [UseCareOfAddress, SendPacket]
    assert names(effects) == ["router_advertisement", "care_of_address", "binding_update_sent"]
    assert UseCareOfAddress(CARE_OF_1, ROUTER_1) in effects
    (packet,) = packets(effects)
    parsed = ipv6.parse(packet)
    assert (parsed.source, parsed.destination) == (CARE_OF_1, HOME_AGENT)
    assert parsed.home_address == HOME_ADDRESS
    assert update_of(packet).lifetime == 15


@pytest.mark.parametrize(
    ("source", "hop_limit", "message", "reason"),
    [
        (ROUTER_1, 254, advertised(FOREIGN_1, ROUTER_1), "advertisement_hop_limit"),
        (CORRESPONDENT, 255, advertised(FOREIGN_1, ROUTER_1), "advertisement_source"),
        (ROUTER_1, 255, advertised(FOREIGN_1, ROUTER_1)[:15], "truncated_router_advertisement"),
        (ROUTER_1, 255, advertised(FOREIGN_1, ROUTER_1)[:-1], "truncated"),
    ],
)
def test_a_bad_advertisement_is_dropped(source: bytes, hop_limit: int, message: bytes, reason: str) -> None:
    node = MobileNode(PLAIN, seeded("a"))
    node.carrier(True, 0.0)
    assert node.advertisement(source, hop_limit, message, 0.0) == []
    assert node.counters == {reason: 1}


def test_a_move_drops_the_old_address_first() -> None:
    node = registered()
    effects = node.advertisement(ROUTER_2, 255, advertised(FOREIGN_2, ROUTER_2), 5.0)
    assert kinds(effects) == [DropCareOfAddress, UseCareOfAddress, SendPacket]
    assert ipv6.parse(packets(effects)[0]).source == CARE_OF_2
    # Until the home agent knows, it would drop what comes from the new address.
    assert node.receive(datagram(), 5.1) == []
    assert node.counters["not_registered"] == 1
    accept(node, 5.2, CARE_OF_2)
    assert len(packets(node.receive(datagram(), 5.3))) == 1


def test_the_way_home() -> None:
    node = registered()
    assert kinds(node.carrier(False, 9.0)) == [DropCareOfAddress]
    effects = arrives(node, HOME_PREFIX, HOME_ROUTER, 10.0)
    assert kinds(effects) == [SolicitRouter, AtHome, SendPacket]
    (packet,) = packets(effects)
    parsed = ipv6.parse(packet)
    assert (parsed.source, parsed.home_address) == (HOME_ADDRESS, None)
    assert update_of(packet).lifetime == 0
    answer = BindingAcknowledgement(0, 0, node.registration.sequence, 0)
    octets = messages.build(answer, HOME_AGENT, HOME_ADDRESS)
    effects = node.receive(ipv6.build(HOME_AGENT, HOME_ADDRESS, MOBILITY, octets), 10.01)
    assert effects[-1] == AnnounceAddress(HOME_ADDRESS)
    assert "deregistered" in names(effects)
    assert kinds(node.carrier(False, 20.0)) == [LeaveHome]


def test_at_home_from_the_start_needs_no_registration() -> None:
    node = MobileNode(PLAIN, seeded("a"))
    effects = arrives(node, HOME_PREFIX, HOME_ROUTER, 0.0)
    assert kinds(effects) == [SolicitRouter, AtHome, AnnounceAddress]
    assert node.receive(datagram(), 1.0) == []
    assert node.counters == {"at_home": 1}


def test_duplicate_address_detection_of_a_care_of_address() -> None:
    node = MobileNode(replace(PLAIN, care_of_dad=True), seeded("a"))
    effects = arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    assert kinds(effects) == [SolicitRouter, ProbeAddress]
    assert node.next_deadline() == 1.0
    effects = node.on_timer(1.0)
    assert kinds(effects) == [EndProbe, UseCareOfAddress, SendPacket]


def test_a_conflicting_care_of_address_is_not_used() -> None:
    node = MobileNode(replace(PLAIN, care_of_dad=True), seeded("a"))
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    assert node.address_conflict(CARE_OF_2, 0.5) == []
    effects = node.address_conflict(CARE_OF_1, 0.5)
    assert names(effects) == ["care_of_address_conflict"]
    assert kinds(effects) == [EndProbe]
    assert kinds(node.on_timer(1.0)) == []


def test_packets_go_through_the_tunnel_both_ways() -> None:
    node = registered()
    (outer,) = packets(node.receive(datagram(), 1.0))
    parsed = ipv6.parse(outer)
    assert (parsed.source, parsed.destination, parsed.next_header) == (CARE_OF_1, HOME_AGENT, IPV6)
    assert parsed.payload == datagram()
    inner = datagram(source=CORRESPONDENT, destination=HOME_ADDRESS)
    assert packets(node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, inner), 1.0)) == [inner]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ipv6.build(CORRESPONDENT, CARE_OF_1, IPV6, datagram(source=CORRESPONDENT)), "tunnel_source"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, datagram(destination=CARE_OF_1)), "inner_destination"),
        (
            ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, datagram(destination=icmpv6.ALL_NODES)),
            "inner_destination",
        ),
        (ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, datagram()[:50]), "truncated_inner_packet"),
        (ipv6.build(HOME_AGENT, CARE_OF_2, IPV6, datagram()), "not_ours"),
        (ipv6.build(HOME_AGENT, HOME_ADDRESS, UDP, bytes(8)), "not_at_home"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, UDP, bytes(8)), "unknown_next_header"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, UDP, bytes(8), routing=CARE_OF_2), "routing_header_address"),
        (ipv6.build(HOME_AGENT, CARE_OF_1, ESP, bytes(40)), "unknown_spi"),
        (ipv6.build(CORRESPONDENT, CARE_OF_1, ESP, bytes(40)), "esp_source"),
        (datagram(destination=icmpv6.ALL_NODES), "inner_destination"),
    ],
)
def test_what_is_not_for_the_mobile_node_is_dropped(packet: bytes, reason: str) -> None:
    node = registered()
    before = node.counters.total()
    assert node.receive(packet, 1.0) == []
    assert node.counters[reason] == 1
    assert node.counters.total() == before + 1


def test_a_mobile_network_prefix_shares_the_tunnel() -> None:
    prefix = messages.MobileNetworkPrefix(FOREIGN_2, 64)
    node = registered(replace(PLAIN, prefixes=(prefix,)))
    inner = datagram(source=CORRESPONDENT, destination=FOREIGN_2[:15] + b"\x07")
    assert packets(node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, inner), 1.0)) == [inner]
    assert len(packets(node.receive(datagram(source=FOREIGN_2[:15] + b"\x07"), 1.0))) == 1


def test_an_acknowledgement_must_come_from_the_home_agent_by_the_routing_header() -> None:
    node = MobileNode(PLAIN, seeded("a"))
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    answer = BindingAcknowledgement(0, 0, node.registration.sequence, 15)
    forged = messages.build(answer, CORRESPONDENT, HOME_ADDRESS)
    node.receive(ipv6.build(CORRESPONDENT, CARE_OF_1, MOBILITY, forged, routing=HOME_ADDRESS), 0.1)
    bare = messages.build(answer, HOME_AGENT, CARE_OF_1)
    node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, MOBILITY, bare), 0.1)
    assert node.counters == {"mobility_source": 1, "missing_routing_header": 1}
    assert node.registration.binding is None


def test_refresh_request_and_binding_error_lead_to_updates() -> None:
    node = registered()
    effects = node.receive(to_mobile_node(BindingRefreshRequest()), 2.0)
    assert names(effects) == ["binding_update_sent"]
    accept(node, 2.1)
    error = messages.build(BindingError(1, HOME_ADDRESS), HOME_AGENT, CARE_OF_1)
    effects = node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, MOBILITY, error), 3.0)
    assert names(effects) == ["binding_error", "binding_update_sent"]


def test_signalling_under_esp_both_ways() -> None:
    out, back = pair(Use.SIGNALLING, 0x1000)
    node = MobileNode(replace(PLAIN, associations=(out, back)), seeded("a"))
    effects = arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    assert kinds(effects) == [SolicitRouter, UseCareOfAddress, ReserveSequences, SendPacket]
    parsed = ipv6.parse(packets(effects)[0])
    assert (parsed.next_header, parsed.home_address) == (ESP, HOME_ADDRESS)
    next_header, octets = esp.unprotect(peer(out), parsed.payload)
    assert next_header == MOBILITY
    update = messages.parse(octets, HOME_ADDRESS, HOME_AGENT)
    assert isinstance(update, BindingUpdate)
    answer = BindingAcknowledgement(0, 0, update.sequence, 15)
    node.receive(to_mobile_node(answer), 0.1)
    assert node.counters == {"unprotected": 1}
    sender = peer(back)
    octets = esp.protect(sender, MOBILITY, messages.build(answer, HOME_AGENT, HOME_ADDRESS), seeded("b"))
    packet = ipv6.build(HOME_AGENT, CARE_OF_1, ESP, octets, routing=HOME_ADDRESS)
    assert "binding_acknowledged" in names(node.receive(packet, 0.2))
    node.receive(packet, 0.2)
    assert node.counters["replayed"] == 1
    # RFC 4301 5.2: a transport SA of the home address does not carry packets to the care-of address.
    octets = esp.protect(sender, MOBILITY, messages.build(answer, HOME_AGENT, CARE_OF_1), seeded("b"))
    node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ESP, octets), 0.3)
    octets = esp.protect(sender, UDP, bytes(8), seeded("b"))
    node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ESP, octets, routing=HOME_ADDRESS), 0.3)
    assert node.counters["selector"] == 2


def test_payload_under_esp_tunnel_mode() -> None:
    out, back = pair(Use.PAYLOAD, 0x2004)
    node = registered(replace(PLAIN, associations=(out, back)))
    effects = node.receive(datagram(), 1.0)
    assert kinds(effects) == [ReserveSequences, SendPacket]
    parsed = ipv6.parse(packets(effects)[0])
    assert (parsed.source, parsed.destination, parsed.home_address) == (CARE_OF_1, HOME_AGENT, None)
    assert esp.unprotect(peer(out), parsed.payload) == (IPV6, datagram())
    inner = datagram(source=CORRESPONDENT, destination=HOME_ADDRESS)
    node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, inner), 1.0)
    assert node.counters["unprotected"] == 1
    octets = esp.protect(peer(back), IPV6, inner, seeded("b"))
    assert packets(node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ESP, octets), 1.0)) == [inner]


def test_return_routability_sas_protect_home_tests_only() -> None:
    out, back = pair(Use.RETURN_ROUTABILITY, 0x2004)
    node = registered(replace(PLAIN, associations=(out, back)))
    init = messages.build(messages.HomeTestInit(bytes(8)), HOME_ADDRESS, CORRESPONDENT)
    (protected,) = packets(node.receive(ipv6.build(HOME_ADDRESS, CORRESPONDENT, MOBILITY, init), 1.0))
    assert ipv6.parse(protected).next_header == ESP
    (bare,) = packets(node.receive(datagram(), 1.0))
    assert ipv6.parse(bare).next_header == IPV6
    octets = messages.build(messages.HomeTest(1, bytes(8), bytes(8)), CORRESPONDENT, HOME_ADDRESS)
    test = ipv6.build(CORRESPONDENT, HOME_ADDRESS, MOBILITY, octets)
    assert node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, test), 1.0) == []
    assert node.counters["unprotected"] == 1


def test_sequence_numbers_are_reserved_before_use_and_begin_above_the_last_reservation() -> None:
    associations = pair(Use.PAYLOAD, 0x2004)
    node = registered(replace(PLAIN, associations=associations, sequence_floor=1000))
    effects = node.receive(datagram(), 1.0)
    (reserved,) = (effect.limit for effect in effects if isinstance(effect, ReserveSequences))
    assert isinstance(effects[0], ReserveSequences)
    assert int.from_bytes(ipv6.parse(packets(effects)[0]).payload[4:8], "big") == 1001
    assert reserved > 1001
    assert kinds(node.receive(datagram(), 1.0)) == [SendPacket]


def test_a_packet_too_big_for_the_tunnel_is_told_and_a_small_one_fragmented() -> None:
    node = registered()
    assert len(packets(node.receive(datagram(1460), 1.0))) == 1
    (told,) = packets(node.receive(datagram(1461), 1.0))
    parsed = ipv6.parse(told)
    icmp = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
    assert (parsed.destination, icmp.type, icmp.body[:4]) == (HOME_ADDRESS, 2, (1460).to_bytes(4, "big"))
    # Packet Too Big from a router in the tunnel.
    (outer,) = packets(node.receive(datagram(1400), 1.0))
    error = icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, 1300, ROUTER_1, outer)
    assert error is not None
    effects = node.receive(error, 1.1)
    assert names(effects) == ["tunnel_path_mtu"]
    (told,) = packets(effects)
    assert ipv6.parse(told).destination == HOME_ADDRESS
    pieces = packets(node.receive(datagram(1280), 1.2))
    assert [len(piece) <= 1300 for piece in pieces] == [True, True]


def test_an_error_about_somebody_elses_packet_teaches_nothing() -> None:
    node = registered()
    quoted = ipv6.build(CARE_OF_1, CORRESPONDENT, UDP, bytes(60))
    error = icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, 1300, ROUTER_1, quoted)
    assert error is not None
    assert node.receive(error, 1.0) == []
    assert node.counters["icmpv6_error_not_ours"] == 1


def test_outer_fragments_are_put_together() -> None:
    node = registered()
    inner = datagram(1400, source=CORRESPONDENT, destination=HOME_ADDRESS)
    pieces = ipv6.fragments(ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, inner), 1280, 7)
    assert len(pieces) == 2
    assert [packets(node.receive(piece, 1.0)) for piece in reversed(pieces)] == [[], [inner]]


def test_a_care_of_address_answers_echo_requests() -> None:
    node = registered()
    octets = icmpv6.message(icmpv6.ECHO_REQUEST, 0, b"\0\1\0\1x", CORRESPONDENT, CARE_OF_1)
    (reply,) = packets(node.receive(ipv6.build(CORRESPONDENT, CARE_OF_1, ICMPV6, octets), 1.0))
    assert ipv6.parse(reply).payload[0] == icmpv6.ECHO_REPLY


def test_prefixes_are_solicited_once_under_their_own_sas() -> None:
    out, back = pair(Use.PREFIX, 0x2002)
    node = MobileNode(replace(PLAIN, associations=(out, back)), seeded("a"))
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    effects = accept(node, 0.1)
    parsed = ipv6.parse(packets(effects)[0])
    receiver = peer(out)
    next_header, octets = esp.unprotect(receiver, parsed.payload)
    assert (next_header, parsed.home_address) == (ICMPV6, HOME_ADDRESS)
    assert icmpv6.parse(octets, HOME_ADDRESS, HOME_AGENT).type == icmpv6.MOBILE_PREFIX_SOLICITATION
    # No answer: again after 3 s, with another identifier.
    (again,) = packets(node.on_timer(3.1))
    _, second = esp.unprotect(receiver, ipv6.parse(again).payload)
    assert second[4:6] != octets[4:6]
    prefix = PrefixInformation(HOME_PREFIX, 64, 0xE0, 1000, 500)
    sender = peer(back)
    for identifier, answered in ((octets[4:6], False), (second[4:6], True)):
        body = icmpv6.mobile_prefix_advertisement(int.from_bytes(identifier, "big"), 0, (prefix,))
        answer = icmpv6.message(icmpv6.MOBILE_PREFIX_ADVERTISEMENT, 0, body, HOME_AGENT, HOME_ADDRESS)
        sealed = esp.protect(sender, ICMPV6, answer, seeded("b"))
        effects = node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ESP, sealed, routing=HOME_ADDRESS), 4.0)
        assert names(effects) == (["mobile_prefix_advertisement"] if answered else [])
    node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ICMPV6, answer, routing=HOME_ADDRESS), 4.0)
    assert node.counters == {"mobile_prefix_advertisement_identifier": 1, "unprotected": 1}


def test_a_lost_router_is_solicited_and_its_address_dropped() -> None:
    node = MobileNode(PLAIN, seeded("a"))
    node.carrier(True, 0.0)
    node.advertisement(ROUTER_1, 255, advertised(FOREIGN_1, ROUTER_1, lifetime=30), 0.0)
    accept(node, 0.0)
    assert kinds(node.on_timer(30.0)) == [DropCareOfAddress, SolicitRouter]


def test_a_stop_releases_everything_and_tells_the_counters() -> None:
    node = registered()
    node.receive(bytes(3), 1.0)
    effects = node.stop()
    assert kinds(effects) == [DropCareOfAddress]
    assert effects[-1] == Event("stopped", {"counters": {"truncated_ipv6_header": 1}})


def test_a_deregistration_before_a_stop() -> None:
    node = registered()
    (packet,) = packets(node.deregister(5.0))
    assert update_of(packet).lifetime == 0
    assert ipv6.parse(packet).home_address == HOME_ADDRESS
    node.receive(to_mobile_node(BindingAcknowledgement(0, 0, node.registration.sequence, 0)), 5.1)
    assert node.registration.binding is None
