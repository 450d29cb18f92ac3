"""What the reference mobile node (UMIP) does, and needs: one test for each observation."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding.messages import Status, refresh_advice
from mip6ha.effects import Effect, Event, ProbeAddress, ReleaseAddress, RemoveTunnel, SendPacket, SetTunnel
from mip6ha.ipsec import esp
from mip6ha.ipv6 import DESTINATION_OPTIONS, ESP, ICMPV6, MOBILITY, ROUTING
from mip6ha.wire import address, verifies

from .world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    A,
    H,
    MobileNode,
    World,
    dataplane,
    echo,
    only_packet,
    sent,
)

HOME = address("2001:db8:a::100")


def test_it_retransmits_with_a_new_sequence_and_ignores_answers_to_older_ones() -> None:
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    world.receive(node.update(sequence=41))
    world.advance(0.7)
    assert world.receive(node.update(sequence=42)) == []
    assert node.acknowledged(world.advance(0.3)).sequence == 42


@pytest.mark.parametrize("hold", [1, 2, 4])
def test_its_own_dad_may_hold_back_the_first_answer_while_it_keeps_asking(hold: int) -> None:
    # It registers with a tentative care-of address; the answers are lost to it, each update gets one.
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    answered = []
    for wait in (1.5, 2, hold):
        found = world.receive(node.update()) + world.advance(wait)
        answered += [node.open(packet).message.sequence for packet in sent(found)]
    assert answered == [1, 2, 3]
    assert world.count("registrations") == 1


def test_reregistration_does_not_repeat_dad_for_an_address_already_defended() -> None:
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    node.register(world)
    for source in (CARE_OF_1, CARE_OF_2, CARE_OF_1):
        found = world.receive(node.update(source))
        assert not [effect for effect in found if isinstance(effect, ProbeAddress)]
        assert len(sent(found)) == 1


def test_status_135_makes_it_retry_at_once_with_the_sequence_after_the_one_it_is_told() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world, sequence=65535)
    refused = node.acknowledged(world.receive(node.update(sequence=50_000)))
    assert (refused.status, refused.sequence) == (Status.SEQUENCE_OUT_OF_WINDOW, 65535)
    retry = node.acknowledged(world.receive(node.update(sequence=refused.sequence + 1 & 0xFFFF)))
    assert (retry.status, retry.sequence) == (Status.ACCEPTED, 0)


def test_any_other_refusal_stops_it_for_420_s_so_that_a_home_agent_not_ready_is_silent() -> None:
    # Waiting for duplicate address detection, or just restarted: never an answer of 128 or above.
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    assert sent(world.receive(node.update()) + world.receive(node.update())) == []
    world = World(node, sequence_floor=world.plane.reserved)
    assert node.register(world).status == Status.ACCEPTED


def test_no_binding_error_for_the_home_address_option_of_an_update_or_of_a_lost_one() -> None:
    # A Binding Error stops it just as long. Updates are covered by themselves, broken ones get silence.
    node = MobileNode()
    world = World(node)
    packet = bytearray(node.update())
    packet[-1] ^= 1
    assert world.drops(bytes(packet), "bad_icv") == []
    assert world.count("binding_errors") == 0
    node.register(world)
    assert world.count("binding_errors") == 0


def test_no_binding_error_for_a_solicitation_that_finds_no_binding() -> None:
    node = MobileNode()
    world = World(node)
    assert world.receive(node.solicitation()) == []
    assert world.count("prefix_solicitation_without_binding") == 1


def test_a_refresh_is_answered_in_the_same_breath() -> None:
    node = MobileNode()
    world = World(node, duplicate_address_detection=True)
    node.register(world)
    world.advance(57)
    found = world.agent.receive(node.update(), world.now)
    assert [type(effect) for effect in found] == [SendPacket]


def test_lifetime_0_answers_a_deregistration_and_nothing_else() -> None:
    node = MobileNode()
    world = World(node, max_lifetime=4)
    assert node.register(world, lifetime=1).lifetime == 1
    assert node.acknowledged(world.receive(node.home())).lifetime == 0


def test_refresh_advice_is_in_units_of_4_s() -> None:
    node = MobileNode()
    answer = node.register(World(node, refresh_advice=44))
    assert answer.options[0].data == (11).to_bytes(2, "big")
    assert refresh_advice(answer.options) == 44


def test_it_refreshes_at_0_95_of_the_lifetime_and_is_never_expired_by_then() -> None:
    node = MobileNode()
    world = World(node)
    for _ in range(10):
        answer = node.register(world)
        world.advance(0.95 * answer.lifetime * 4)
        assert world.plane.tunnels
    assert world.count("expiries") == 0


def test_alternate_care_of_address_a_and_h_are_what_it_always_sends() -> None:
    node = MobileNode()
    world = World(node)
    assert node.register(world, CARE_OF_1, flags=A | H, alternate=CARE_OF_1).status == 0


def test_home_address_option_and_routing_header_stay_outside_esp() -> None:
    node = MobileNode()
    world = World(node)
    update = node.update()
    assert (update[6], update[40]) == (DESTINATION_OPTIONS, ESP)
    answer = only_packet(world.receive(update))
    assert (answer[6], answer[40]) == (ROUTING, ESP)
    assert answer[48:64] == HOME


def test_checksums_are_over_the_home_address() -> None:
    node = MobileNode()
    world = World(node)
    parsed = ipv6.parse(only_packet(world.receive(node.update())))
    _, octets = esp.unprotect(node.inbound[0x2001], parsed.payload)
    assert verifies(HOME_AGENT, HOME, MOBILITY, octets)
    assert not verifies(HOME_AGENT, CARE_OF_1, MOBILITY, octets)
    parsed = ipv6.parse(only_packet(world.receive(node.solicitation())))
    _, octets = esp.unprotect(node.inbound[0x2003], parsed.payload)
    assert verifies(HOME_AGENT, HOME, ICMPV6, octets)


def test_back_home_it_deregisters_from_the_home_address_and_must_then_be_reachable_there() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    update = node.home()
    assert (update[8:24], update[6]) == (HOME, ESP)
    found = [effect for effect in world.receive(update) if not isinstance(effect, Event)]
    # The address is let go before the answer leaves, so that the answer meets the mobile node on the link.
    assert found[:2] == [RemoveTunnel(HOME), ReleaseAddress(HOME)]
    packet = ipv6.parse(only_packet(found))
    assert (packet.destination, packet.routing) == (HOME, None)
    world.drops(echo(CORRESPONDENT, HOME), "no_binding")


def test_its_prefix_solicitation_is_answered_with_its_identifier_and_flags_l_a_r() -> None:
    node = MobileNode()
    world = World(node)
    node.register(world)
    answer = node.open(only_packet(world.receive(node.solicitation(identifier=0x0F4A))))
    assert answer.message.type == icmpv6.MOBILE_PREFIX_ADVERTISEMENT
    assert answer.message.body[:2] == b"\x0f\x4a"
    (found,) = icmpv6.parse_prefixes(answer.message.body)
    assert (found.flags, found.prefix) == (0x80 | 0x40 | 0x20, HOME_AGENT)
    assert answer.packet.routing == HOME


def test_it_works_without_prefix_advertisements() -> None:
    node = MobileNode()
    world = World(node)
    for _ in range(3):
        assert node.register(world).status == Status.ACCEPTED
        world.advance(30)


def test_its_discovery_request_to_the_anycast_address_is_answered_with_our_address() -> None:
    anycast = address("2001:db8:a:0:fdff:ffff:ffff:fffe")
    octets = icmpv6.message(144, 0, b"\0\7\0\0", CARE_OF_1, anycast)
    packet = only_packet(World().receive(ipv6.build(CARE_OF_1, anycast, ICMPV6, octets)))
    parsed = ipv6.parse(packet)
    assert (parsed.source, parsed.destination) == (HOME_AGENT, CARE_OF_1)
    assert icmpv6.parse(parsed.payload, HOME_AGENT, CARE_OF_1) == (145, 0, b"\0\7\0\0" + HOME_AGENT)


def test_the_advertisement_that_claims_the_home_address_has_override_set_and_router_clear() -> None:
    packet = icmpv6.unsolicited_advertisement(HOME_AGENT, HOME, bytes(6))
    assert packet[44] == 0x20
    node = MobileNode()
    world = World(node)
    node.register(world)
    assert world.plane.announced == [HOME_AGENT, HOME]


def test_after_a_restart_numbers_below_the_last_used_ones_would_be_dropped_as_replays() -> None:
    node = MobileNode()
    world = World(node)
    for _ in range(50):
        node.register(world)
    restarted = World(node, sequence_floor=world.plane.reserved)
    assert node.acknowledged(restarted.receive(node.update())).status == Status.ACCEPTED


def test_a_thousand_mobile_nodes_at_once_each_get_their_answer() -> None:
    nodes = [MobileNode(f"2001:db8:a::1:{n:x}", spi=0x10000 + 4 * n) for n in range(1000)]
    world = World(*nodes, duplicate_address_detection=True)
    for node in nodes:
        world.agent.receive(node.update(), world.now)
    world.now += 1
    found: list[Effect] = []
    while (world.agent.next_deadline() or world.now) <= world.now and len(sent(found)) < 1000:
        # In batches, so that packets go on in between.
        found += world.agent.on_timer(world.now)
    assert len(sent(found)) == 1000
    assert world.agent.status(world.now)["bindings"] == 1000
    assert sum(isinstance(effect, SetTunnel) for effect in dataplane(found)) == 1000
