"""Payload that the dataplane seals and opens: what is lent, what stays, and what comes back."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.effects import (
    Effect,
    ExtendPayload,
    LendPayload,
    LentAssociation,
    RecallPayload,
    RemoveTunnel,
    ReserveSequences,
    SendPacket,
    SetTunnel,
)
from mip6ha.ipsec.policy import Direction, Mode, Use
from mip6ha.ipsec.sad import SecurityAssociation, counter_limit
from mip6ha.ipv6 import ESP, ICMPV6
from mip6ha.lending import PayloadCounted, PayloadLost
from mip6ha.wire import address

from .world import (
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    A,
    H,
    MobileNode,
    R,
    World,
    bound,
    dataplane,
    echo,
    only_packet,
    prefix,
    sent,
)

HOME = address("2001:db8:a::100")
IN, OUT = 0x2002, 0x2003


def lending(*uses: Use, lends: bool = True) -> tuple[World, MobileNode]:
    return bound(*(uses or (Use.SIGNALLING, Use.PAYLOAD)), lends_payload=lends)


def towards(world: World) -> list[Effect]:
    return world.receive(echo(CORRESPONDENT, HOME))


def from_it(world: World, node: MobileNode, count: int = 1) -> list[Effect]:
    found: list[Effect] = []
    for _ in range(count):
        found = world.receive(node.tunnel(echo(HOME, CORRESPONDENT), use=Use.PAYLOAD))
    return found


def lent(found: list[Effect]) -> LendPayload:
    (effect,) = (each for each in found if isinstance(each, LendPayload))
    return effect


def share(offer: LendPayload, *, outbound: bool) -> LentAssociation:
    (found,) = (each for each in offer.associations if each.outbound is outbound)
    return found


def association(world: World, spi: int) -> SecurityAssociation:
    (found,) = (each for each in world.agent.associations.database.of(HOME) if each.spi == spi)
    return found


def counted(world: World, number: int, *, outbound: bool = False) -> list[Effect]:
    spi = OUT if outbound else IN
    return world.carry_out(world.agent.payload_news(PayloadCounted(HOME, outbound, spi, number), world.now))


def number_of(packet: bytes) -> int:
    assert packet[6] == ESP
    return int.from_bytes(packet[44:48], "big")


def test_the_first_packet_goes_by_the_core_and_the_next_by_the_dataplane() -> None:
    world, node = lending()
    found = towards(world)
    packet, offer = only_packet(found), lent(found)
    assert node.inner(packet) == echo(CORRESPONDENT, HOME)
    assert offer.home_address == HOME
    out = share(offer, outbound=True)
    assert (out.spi, out.transform, out.keys) == (OUT, "aes-gcm-16", node.inbound[OUT].keys)
    assert number_of(packet) < out.first < out.limit <= world.plane.reserved
    # What was on its way here goes back, for its number would come behind those that are used by now.
    given_back = echo(CORRESPONDENT, HOME, 20)
    assert sent(world.receive(given_back)) == [given_back]
    assert world.count("payload_given_back") == 1


def test_payload_from_the_mobile_node_begins_a_loan_as_well() -> None:
    world, node = lending()
    found = from_it(world, node)
    inbound = share(lent(found), outbound=False)
    assert (inbound.spi, inbound.first % 64, inbound.limit) == (IN, 1, inbound.first + 63)


def test_nobody_opens_what_is_the_others() -> None:
    world, node = lending()
    inbound = share(lent(from_it(world, node)), outbound=False)
    # Up to there the core goes on, once.
    late = node.tunnel(echo(HOME, CORRESPONDENT), use=Use.PAYLOAD)
    assert sent(world.receive(late))
    world.drops(late, "replayed")
    node.outbound[Use.PAYLOAD].sequence = inbound.first - 2
    assert sent(from_it(world, node))
    world.drops(node.tunnel(echo(HOME, CORRESPONDENT), use=Use.PAYLOAD), "beyond_replicated_window")


def test_more_in_time() -> None:
    world, node = lending()
    offer = lent(from_it(world, node))
    inbound, out = share(offer, outbound=False), share(offer, outbound=True)
    assert counted(world, inbound.first + 8) == []
    (more,) = counted(world, inbound.first + 40)
    assert more == ExtendPayload(HOME, False, IN, inbound.limit + 1, inbound.limit + 64, more.step)  # type: ignore[union-attr]
    assert counted(world, inbound.first + 50) == []
    (stored, more) = counted(world, out.limit // 2, outbound=True)
    assert stored == ReserveSequences(world.plane.reserved)
    assert more == ExtendPayload(HOME, True, OUT, out.limit + 1, world.plane.reserved, more.step)  # type: ignore[union-attr]


def test_who_is_fast_gets_more_at_a_time() -> None:
    world, node = lending()
    limit = share(lent(from_it(world, node)), outbound=False).limit
    widths = []
    for seconds in (0.01,) * 9 + (1.0,) * 8:
        world.advance(seconds)
        (more,) = counted(world, limit - 1)
        assert isinstance(more, ExtendPayload)
        widths.append(more.limit - limit)
        limit = more.limit
    assert widths[0] == widths[-1] == 64
    assert max(widths) == 4096


def test_a_jump_beyond_what_is_lent() -> None:
    world, node = lending()
    inbound = share(lent(from_it(world, node)), outbound=False)
    node.outbound[Use.PAYLOAD].sequence = inbound.limit + 5000
    assert from_it(world, node) == []
    found = from_it(world, node)
    (more,) = found
    assert isinstance(more, ExtendPayload)
    assert more.limit > inbound.limit + 5002
    assert sent(found) == []


def test_a_forged_jump_does_nothing() -> None:
    world, node = lending()
    inbound = share(lent(from_it(world, node)), outbound=False)
    node.outbound[Use.PAYLOAD].sequence = inbound.limit + 5000
    forged = bytearray(node.tunnel(echo(HOME, CORRESPONDENT), use=Use.PAYLOAD))
    forged[-1] ^= 1
    for _ in range(2):
        world.drops(bytes(forged), "bad_icv")


def test_a_move_takes_the_loan_along() -> None:
    world, node = lending()
    from_it(world, node)
    found = dataplane(world.receive(node.update(CARE_OF_2)))
    assert found == [SetTunnel(HOME, CARE_OF_2, protected=True)]
    assert HOME in world.agent.lending


def test_the_end_of_a_binding_ends_the_loan_first() -> None:
    world, node = lending()
    from_it(world, node)
    kinds = [type(each) for each in dataplane(world.receive(node.update(lifetime=0)))]
    assert kinds.index(RecallPayload) < kinds.index(RemoveTunnel)
    assert HOME not in world.agent.lending
    node.register(world)
    assert lent(towards(world))


def test_the_payload_of_a_mobile_router_stays_here() -> None:
    node = MobileNode(HOME, Use.SIGNALLING, Use.PAYLOAD, prefixes=(prefix("2001:db8:f::/48"),))
    world = World(node, lends_payload=True)
    node.register(world)
    assert lent(towards(world))
    # It becomes one.
    node.register(world, lifetime=0)
    found = world.receive(node.update(flags=A | H | R))
    assert not any(isinstance(each, LendPayload) for each in found + towards(world) + from_it(world, node))


def test_what_comes_back_was_used() -> None:
    world, node = lending()
    offer = lent(from_it(world, node))
    inbound, out = share(offer, outbound=False), share(offer, outbound=True)
    stolen = []
    for number in (inbound.first, inbound.limit):
        node.outbound[Use.PAYLOAD].sequence = number - 1
        stolen.append(node.tunnel(echo(HOME, CORRESPONDENT), use=Use.PAYLOAD))
    world.agent.lending.recall(HOME, effects := [])
    assert world.carry_out(effects) == [RecallPayload(HOME)]
    for packet in stolen:
        world.drops(packet, "replayed")
    assert number_of(only_packet(towards(world))) > out.limit
    assert sent(from_it(world, node))


@pytest.mark.parametrize("spi", [IN, OUT])
def test_a_key_without_numbers(spi: int) -> None:
    world, node = lending()
    offer = lent(from_it(world, node))
    known = association(world, spi)
    most = counter_limit(known.transform, esn=False)
    known.lent = most
    assert [
        each for each in counted(world, most, outbound=spi == OUT) if isinstance(each, ExtendPayload)
    ] == []
    assert offer


def test_a_dataplane_that_does_not_do_it_loses_the_loan() -> None:
    world, _ = lending()
    towards(world)
    for _ in range(10_000):
        assert isinstance(towards(world)[0], SendPacket)
    found = towards(world)
    assert found[0] == RecallPayload(HOME)
    assert number_of(only_packet(found))
    assert world.count("payload_not_taken") == 1


def test_a_loan_that_ends_with_a_packet_that_is_dropped_has_ended() -> None:
    world, _ = lending()
    towards(world)
    known = association(world, OUT)
    for _ in range(10_000):
        assert isinstance(towards(world)[0], SendPacket)
    # No number is left for the packet itself.
    known.lent = counter_limit(known.transform, esn=False)
    found = world.agent.receive(echo(CORRESPONDENT, HOME), world.now)
    assert [each for each in found if not isinstance(each, ReserveSequences)] == [RecallPayload(HOME)]
    assert world.count("sequence_exhausted") == 1


def test_what_was_lost_is_lent_anew_a_moment_later() -> None:
    world, node = lending()
    offer = lent(from_it(world, node))
    world.plane.lent.clear()
    assert world.agent.payload_news(PayloadLost(HOME), world.now) == []
    assert world.agent.payload_news(PayloadLost(HOME), world.now) == []
    assert world.count("payload_lost") == 1
    node.outbound[Use.PAYLOAD].sequence = share(offer, outbound=False).limit
    assert not any(isinstance(each, LendPayload) for each in from_it(world, node))
    world.advance(0.2)
    again = lent(from_it(world, node))
    assert share(again, outbound=True).first > share(offer, outbound=True).limit
    assert share(again, outbound=False).first > share(offer, outbound=False).limit


def test_a_path_that_needs_fragments_is_the_cores() -> None:
    world, node = lending()
    quoted = only_packet(towards(world))
    body = (1290).to_bytes(4, "big") + quoted[:100]
    error = icmpv6.message(icmpv6.PACKET_TOO_BIG, 0, body, CARE_OF_2, HOME_AGENT)
    found = world.receive(ipv6.build(CARE_OF_2, HOME_AGENT, ICMPV6, error))
    assert RecallPayload(HOME) in found
    assert not any(isinstance(each, LendPayload) for each in from_it(world, node) + towards(world))


@pytest.mark.parametrize(
    ("uses", "lends"),
    [
        ((Use.SIGNALLING, Use.PAYLOAD), False),
        ((Use.SIGNALLING, Use.RETURN_ROUTABILITY, Use.PAYLOAD), True),
        ((Use.SIGNALLING,), True),
    ],
)
def test_what_is_not_lent(uses: tuple[Use, ...], lends: bool) -> None:
    world, _ = lending(*uses, lends=lends)
    for _ in range(3):
        assert not any(isinstance(each, LendPayload) for each in towards(world))


def test_loans_are_paced() -> None:
    nodes = [
        MobileNode(HOME[:15] + bytes((n,)), Use.SIGNALLING, Use.PAYLOAD, spi=0x2000 + 16 * n)
        for n in range(40)
    ]
    world = World(*nodes, lends_payload=True)
    for node in nodes:
        node.register(world)

    def lend_all() -> int:
        found = [each for node in nodes for each in world.receive(echo(CORRESPONDENT, node.home_address))]
        return sum(isinstance(each, LendPayload) for each in found)

    assert lend_all() == 10
    while world.count("payload_lent") < 40:
        world.advance(1.1)
        assert 0 < lend_all() <= 10


def test_a_view_tells_what_is_lent() -> None:
    world, node = lending()
    from_it(world, node)
    shown = {each["spi"]: each["lent"] for each in world.agent.security_associations()}
    assert shown == {"0x00002000": False, "0x00002001": False, "0x00002002": True, "0x00002003": True}
    assert {each.mode for each in world.agent.associations.database.of(HOME)} == {Mode.TRANSPORT, Mode.TUNNEL}
    assert association(world, IN).direction is Direction.IN
