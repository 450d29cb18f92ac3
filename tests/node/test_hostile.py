"""Hostile packets: each with its exact drop reason or status, and the proof that nothing else changed."""

from __future__ import annotations

import struct

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, Status
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Transform
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ESP, ICMPV6, IPV6, MOBILITY
from mip6ha.mobility import Option, build
from mip6ha.wire import address, checksum

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CBC,
    CORRESPONDENT,
    GCM,
    HOME_AGENT,
    MobileNode,
    World,
    bound,
    echo,
    only_packet,
    sent,
)

HOME = address("2001:db8:a::100")
OTHER_HOME = address("2001:db8:a::101")


def altered(packet: bytes, at: int, *octets: int) -> bytes:
    return packet[:at] + bytes(octets) + packet[at + len(octets) :]


def sealed(node: MobileNode, octets: bytes, protocol: int = MOBILITY, use: Use = Use.BINDING) -> bytes:
    """``octets``, whatever they are, under the SA that opens them."""
    return ipv6.build(
        CARE_OF_1,
        HOME_AGENT,
        ESP,
        esp.protect(node.outbound[use], protocol, octets, node.random),
        home_address=HOME,
    )


def refuses(world: World, packet: bytes, reason: str) -> None:
    """``packet`` opens, so that its window advances, and is then refused without anything else changing."""
    before, counted = world.state(), world.agent.counters.copy()
    spi = struct.unpack(">I", ipv6.parse(packet).payload[:4])[0]
    assert world.receive(packet) == []
    assert world.agent.counters - counted == {reason: 1}
    after = world.state()
    assert after == before._replace(associations=after.associations)
    changed = [
        now[0] for now, then in zip(after.associations, before.associations, strict=True) if now != then
    ]
    assert changed == [spi]


# Truncated, oversized


def test_an_update_cut_anywhere() -> None:
    world, node = bound()
    packet = node.update(CARE_OF_2)
    reasons: dict[str, int] = {}
    for size in range(len(packet)):
        counted = world.agent.counters.copy()
        before = world.state()
        assert world.receive(packet[:size]) == []
        assert world.state() == before
        ((reason, count),) = (world.agent.counters - counted).items()
        assert count == 1
        reasons.setdefault(reason, size)
    # Shorter than its destination field it is for nobody.
    assert reasons == {"no_binding": 0, "truncated_ipv6_payload": 40}
    assert node.acknowledged(world.receive(packet)).status == 0


def test_an_update_cut_anywhere_with_the_length_made_to_fit() -> None:
    world, node = bound()
    packet = node.update(CARE_OF_2)
    reasons = set()
    for size in range(40, len(packet)):
        counted = world.agent.counters.copy()
        before = world.state()
        world.receive(altered(packet[:size], 4, *(size - 40).to_bytes(2, "big")))
        assert world.state() == before
        reasons |= set(world.agent.counters - counted)
    assert reasons == {"truncated_extension_header", "truncated_esp", "bad_icv"}


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_sealed_update_cut_anywhere(cut: int) -> None:
    world, node = bound()
    octets = messages.build(node.message(2, alternate=CARE_OF_2), HOME, HOME_AGENT)
    cut_short = octets[:-cut]
    if len(octets) - cut > 2:
        reason = "mobility_header_length" if len(cut_short) >= 8 else "truncated_mobility_header"
    else:
        reason = "selector_mismatch"
    refuses(world, sealed(node, cut_short), reason)


def test_octets_behind_an_update_are_ignored() -> None:
    world, node = bound()
    octets = messages.build(node.message(2, alternate=CARE_OF_1), HOME, HOME_AGENT)
    assert node.acknowledged(world.receive(sealed(node, octets + bytes(64)))).status == 0
    assert node.acknowledged(world.receive(node.update(sequence=3) + bytes(64))).status == 0


def test_the_largest_packet_there_is() -> None:
    world, node = bound()
    world.drops(ipv6.build(CARE_OF_1, HOME_AGENT, ESP, bytes(65535)), "unknown_spi")
    world.drops(ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, bytes(65535)), "mobility_header_checksum")
    message = node.message(2, alternate=CARE_OF_1, options=[Option(77, bytes(255))] * 7)
    octets = messages.build(message, HOME, HOME_AGENT)
    assert len(octets) > 1800
    assert node.acknowledged(world.receive(sealed(node, octets))).status == 0


# Extension headers


@pytest.mark.parametrize(
    ("next_header", "payload", "reason", "problem"),
    [
        (60, bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 20, "too_many_extension_headers", None),
        (43, bytes((43, 0, 0, 0, 0, 0, 0, 0)) * 20, "too_many_extension_headers", None),
        (60, bytes((60, 255)) + bytes(6), "truncated_extension_header", None),
        (60, bytes((135, 0, 201, 16, 0, 0, 0, 0)), "truncated_ipv6_option", None),
        (60, bytes((135, 0, 201, 4, 0, 0, 0, 0)), "home_address_option_length", None),
        (60, bytes((135, 0, 0x9E, 4, 0, 0, 0, 0)), "unknown_ipv6_option", (2, 42)),
        (60, bytes((135, 0, 0x5E, 4, 0, 0, 0, 0)), "unknown_ipv6_option", None),
        (60, bytes((0, 0, 1, 4, 0, 0, 0, 0)) + bytes(8), "misplaced_hop_by_hop", (1, 40)),
        (43, bytes((135, 2, 0, 1)) + bytes(4) + HOME, "routing_header_type", (0, 42)),
        (43, bytes((135, 2, 2, 2)) + bytes(4) + HOME, "routing_header_segments", (0, 43)),
        (43, bytes((135, 4, 2, 1)) + bytes(4) + HOME * 2, "routing_header_length", (0, 41)),
        (43, bytes((50, 2, 2, 1)) + bytes(4) + HOME + bytes(40), "routing_header_not_for_us", None),
        (
            60,
            (bytes((60, 2, 1, 2, 0, 0, 201, 16)) + HOME) + (bytes((50, 2, 1, 2, 0, 0, 201, 16)) + OTHER_HOME),
            "second_home_address_option",
            None,
        ),
    ],
)
def test_extension_headers(
    next_header: int, payload: bytes, reason: str, problem: tuple[int, int] | None
) -> None:
    world, _ = bound()
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, next_header, payload)
    found = world.drops(packet, reason)
    if problem is None:
        assert found == []
    else:
        answer = icmpv6.parse(only_packet(found)[40:], HOME_AGENT, CORRESPONDENT)
        assert (answer.type, answer.code) == (icmpv6.PARAMETER_PROBLEM, problem[0])
        assert answer.body == problem[1].to_bytes(4, "big") + packet


@pytest.mark.parametrize("home_address", ["ff0e::1", "fe80::1", "::", "::1", "::ffff:1.2.3.4"])
def test_a_home_address_option_that_holds_none(home_address: str) -> None:
    world, _ = bound()
    packet = ipv6.build(CARE_OF_1, HOME_AGENT, ESP, bytes(40), home_address=address(home_address))
    assert world.drops(packet, "home_address_option_address") == []


# ESP


def test_a_wrong_spi() -> None:
    world, node = bound()
    packet = node.update()
    for spi in (0, 1, 255, 0x1FFF, 0x2001, 0xFFFFFFFF):
        world.drops(altered(packet, 64, *spi.to_bytes(4, "big")), "unknown_spi")


def test_a_replay_even_after_a_move_or_the_end() -> None:
    world, node = bound()
    packet = node.update(CARE_OF_2)
    world.receive(packet)
    world.drops(packet, "replayed")
    node.register(world, CARE_OF_1)
    world.drops(packet, "replayed")
    world.receive(node.home())
    world.drops(packet, "replayed")


def test_a_number_left_of_the_window() -> None:
    world, node = bound()
    old = node.update(sequence=100)
    node.outbound[Use.BINDING].sequence += 1024
    node.register(world, sequence=200)
    world.drops(old, "replayed")


@pytest.mark.parametrize("protection", [GCM, CBC], ids=["gcm", "cbc"])
def test_every_octet_of_esp_is_covered(protection: Transform) -> None:
    world, node = bound(protection=protection)
    packet = node.update(CARE_OF_2)
    for at in range(68, len(packet)):
        world.drops(altered(packet, at, packet[at] ^ 0x40), "bad_icv")
    assert node.acknowledged(world.receive(packet)).status == 0


def test_a_forgery_with_a_high_number_does_not_move_the_window() -> None:
    world, node = bound()
    packet = node.update()
    world.drops(altered(packet, 68, 0xFF, 0xFF, 0xFF, 0xFF), "bad_icv")
    assert node.acknowledged(world.receive(packet)).status == 0


def test_the_home_address_option_of_somebody_elses_sa() -> None:
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second)
    first.register(world)
    second.register(world, CARE_OF_2)
    octets = messages.build(first.message(9, alternate=CARE_OF_1), OTHER_HOME, HOME_AGENT)
    world.drops(first.wrap(MOBILITY, octets, CARE_OF_1, claimed=OTHER_HOME), "home_address_not_of_sa")
    # Nor does the truth help where the home address is missing.
    sealed_update = ipv6.parse(first.update()).payload
    world.drops(ipv6.build(CARE_OF_1, HOME_AGENT, ESP, sealed_update), "home_address_not_of_sa")


def test_one_mobile_nodes_update_inside_anothers_sa() -> None:
    # The checksum is over the home address, and the SA's is the one that counts.
    first, second = MobileNode("2001:db8:a::100"), MobileNode("2001:db8:a::101", spi=0x3000)
    world = World(first, second)
    octets = messages.build(first.message(9, alternate=CARE_OF_1), OTHER_HOME, HOME_AGENT)
    refuses(world, sealed(first, octets), "mobility_header_checksum")


def test_padding_that_is_not_1_2_3() -> None:
    world, node = bound()
    octets = messages.build(node.message(2, alternate=CARE_OF_2), HOME, HOME_AGENT)
    association = node.outbound[Use.BINDING]
    head = struct.pack(">II", association.spi, association.sequence + 1)
    iv = (association.sequence + 1).to_bytes(8, "big")
    for tail in (b"\1\3\2\x87", b"\0\0\2\x87", b"\xff\x87"):
        packet = GCM.seal(association.keys, head, b"", iv, octets + tail)
        world.drops(ipv6.build(CARE_OF_1, HOME_AGENT, ESP, packet, home_address=HOME), "bad_padding")


@pytest.mark.parametrize("size", range(0, 34, 3))
def test_esp_too_short_for_itself(size: int) -> None:
    world, node = bound()
    payload = ipv6.parse(node.update()).payload[:size]
    world.drops(ipv6.build(CARE_OF_1, HOME_AGENT, ESP, payload, home_address=HOME), "truncated_esp")


# Messages under a valid SA


@pytest.mark.parametrize(
    ("at", "octets", "reason"),
    [
        (4, (0, 0), "mobility_header_checksum"),
        (0, (58,), "mobility_header_checksum"),
        (1, (255,), "mobility_header_length"),
        (1, (0,), "mobility_header_checksum"),
        (2, (6,), "selector_mismatch"),
    ],
)
def test_a_broken_mobility_header(at: int, octets: tuple[int, ...], reason: str) -> None:
    world, node = bound()
    good = messages.build(node.message(2, alternate=CARE_OF_2), HOME, HOME_AGENT)
    refuses(world, sealed(node, altered(good, at, *octets)), reason)


def test_no_parameter_problem_points_into_ciphertext() -> None:
    world, node = bound()
    refuses(world, sealed(node, build(5, bytes(2), HOME, HOME_AGENT)), "mobility_header_length")
    octets = bytearray(messages.build(node.message(2), HOME, HOME_AGENT))
    octets[0] = 58
    octets[4:6] = bytes(2)
    octets[4:6] = checksum(HOME, HOME_AGENT, MOBILITY, bytes(octets)).to_bytes(2, "big")
    refuses(world, sealed(node, bytes(octets)), "mobility_payload_proto")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (Option(3, bytes(15)), "mobility_option_length"),
        (Option(3, bytes(17)), "mobility_option_length"),
        (Option(6, bytes(4)), "mobility_option_length"),
    ],
)
def test_a_broken_option(option: Option, reason: str) -> None:
    world, node = bound()
    octets = messages.build(node.message(2, options=[option]), HOME, HOME_AGENT)
    refuses(world, sealed(node, octets), reason)


def test_an_option_longer_than_its_message() -> None:
    world, node = bound()
    octets = messages.build(node.message(2, options=[Option(77, bytes(2))]), HOME, HOME_AGENT)
    broken = bytearray(octets)
    broken[13] = 200
    broken[4:6] = bytes(2)
    broken[4:6] = checksum(HOME, HOME_AGENT, MOBILITY, bytes(broken)).to_bytes(2, "big")
    refuses(world, sealed(node, bytes(broken)), "truncated_mobility_option")


def test_messages_that_the_sa_does_not_select() -> None:
    world, node = bound(Use.BINDING, Use.PREFIX, Use.SIGNALLING)
    update = messages.build(node.message(2), HOME, HOME_AGENT)
    solicitation = icmpv6.message(146, 0, bytes(4), HOME, HOME_AGENT)
    acknowledgement = messages.build(BindingAcknowledgement(0, 0, 1, 1), HOME, HOME_AGENT)
    for octets, protocol, use, reason in (
        (solicitation, ICMPV6, Use.BINDING, "selector_mismatch"),
        (update, MOBILITY, Use.PREFIX, "selector_mismatch"),
        (solicitation, ICMPV6, Use.SIGNALLING, "selector_mismatch"),
        (acknowledgement, MOBILITY, Use.BINDING, "selector_mismatch"),
        (acknowledgement, MOBILITY, Use.SIGNALLING, "unexpected_message"),
        (echo(HOME, CORRESPONDENT), IPV6, Use.BINDING, "selector_mismatch"),
        (b"", MOBILITY, Use.BINDING, "selector_mismatch"),
        (b"", ICMPV6, Use.PREFIX, "selector_mismatch"),
        (b"", 59, Use.BINDING, "selector_mismatch"),
        (solicitation[:6], ICMPV6, Use.PREFIX, "truncated_icmpv6"),
        (altered(solicitation, 2, 0, 0), ICMPV6, Use.PREFIX, "icmpv6_checksum"),
    ):
        refuses(world, sealed(node, octets, protocol, use), reason)


def test_esp_inside_esp_is_nothing() -> None:
    world, node = bound()
    refuses(world, sealed(node, bytes(40), ESP), "selector_mismatch")


# Updates that are answered: the status, and nothing else changes


@pytest.mark.parametrize("source", ["fe80::1", "::", "::1"])
def test_a_source_that_cannot_be_answered(source: str) -> None:
    world, node = bound()
    octets = messages.build(node.message(2, alternate=CARE_OF_2), HOME, HOME_AGENT)
    packet = altered(sealed(node, octets), 8, *address(source))
    refuses(world, packet, "unanswerable_source")


def test_a_multicast_source() -> None:
    world, node = bound()
    assert world.drops(altered(node.update(), 8, *address("ff0e::1")), "multicast_source") == []


@pytest.mark.parametrize(
    ("sequence", "care_of_address", "status", "told"),
    [
        (2, "ff0e::1", Status.INVALID_CARE_OF_ADDRESS, 2),
        (2, "fe80::1", Status.INVALID_CARE_OF_ADDRESS, 2),
        (2, "2001:db8:a::1", Status.INVALID_CARE_OF_ADDRESS, 2),
        (2, "::1", Status.INVALID_CARE_OF_ADDRESS, 2),
        (1, "2001:db8:d::42", Status.SEQUENCE_OUT_OF_WINDOW, 1),
        (0, "2001:db8:d::42", Status.SEQUENCE_OUT_OF_WINDOW, 1),
        (0x8001, "2001:db8:d::42", Status.SEQUENCE_OUT_OF_WINDOW, 1),
    ],
)
def test_a_refusal_changes_windows_and_nothing_else(
    sequence: int, care_of_address: str, status: Status, told: int
) -> None:
    world, node = bound()
    before = world.state()
    counted = world.agent.counters.copy()
    found = world.receive(node.update(CARE_OF_1, sequence, alternate=address(care_of_address)))
    assert len(found) == 1
    assert node.acknowledged(found) == (status, 0, told, 0, ())
    after = world.state()
    assert after == before._replace(associations=after.associations)
    assert world.agent.counters - counted == {f"refused_{int(status)}": 1}


def test_a_foreign_prefix_is_132_whatever_else_is_wrong() -> None:
    node = MobileNode("2001:db8:f::100")
    world = World(node)
    found = world.receive(node.update(sequence=5, alternate=address("ff0e::1")))
    assert node.acknowledged(found) == (Status.NOT_HOME_SUBNET, 0, 5, 0, ())
    assert len(world.agent.cache) == 0


# Plain forgeries


def test_plain_messages_with_wrong_checksums() -> None:
    world, _ = bound()
    test_init = messages.build(messages.HomeTestInit(bytes(8)), CORRESPONDENT, HOME_AGENT)
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, MOBILITY, altered(test_init, 8, 1))
    assert world.drops(packet, "mobility_header_checksum") == []
    assert world.drops(altered(echo(CORRESPONDENT, HOME_AGENT), 45, 9), "icmpv6_checksum") == []


def test_a_plain_update_is_silently_dropped_however_broken() -> None:
    world, node = bound()
    octets = messages.build(node.message(2, alternate=CARE_OF_2), HOME, HOME_AGENT)
    for body in (octets, octets[:3], altered(octets, 4, 0, 0), altered(octets, 1, 200)):
        packet = ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, body, home_address=HOME)
        assert world.drops(packet, "unprotected_binding_update") == []


def test_a_plain_mobility_header_with_a_wrong_length_or_payload_gets_a_parameter_problem() -> None:
    world, _ = bound()
    good = messages.build(messages.HomeTestInit(bytes(8)), CORRESPONDENT, HOME_AGENT)
    packet = ipv6.build(CORRESPONDENT, HOME_AGENT, MOBILITY, altered(good, 1, 9))
    found = world.drops(packet, "mobility_header_length")
    answer = icmpv6.parse(only_packet(found)[40:], HOME_AGENT, CORRESPONDENT)
    assert (answer.type, answer.code, answer.body[:4]) == (4, 0, (41).to_bytes(4, "big"))


def test_not_ipv6_at_all() -> None:
    world, _ = bound()
    for packet in (b"", b"\x45" * 60, bytes(39), bytes(40)):
        assert world.drops(packet, "no_binding") == []
    assert world.drops(b"\x45" + echo(CORRESPONDENT, HOME_AGENT)[1:], "not_ipv6") == []


def test_a_flood_of_fragments_stays_within_bounds() -> None:
    world, node = bound()
    for number in range(1000):
        piece = bytes((17, 0, 0, 1)) + number.to_bytes(4, "big") + bytes(8)
        assert world.receive(ipv6.build(CORRESPONDENT, HOME_AGENT, 44, piece)) == []
    assert len(world.agent._reassembler) <= 256
    assert sent(world.receive(node.update()))
