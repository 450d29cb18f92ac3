"""Hostile messages between members: each is counted with its reason, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from mip6ha.failover.context import AssociationState, Context, decode, encode
from mip6ha.harp.messages import (
    Control,
    ControlType,
    Hello,
    HomeAgentSwitch,
    StateAcknowledge,
    StateEntry,
    StateReply,
    StateRequest,
    SynchronizationStatus,
    build,
)
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ICMPV6, MOBILITY
from mip6ha.mobility import build as build_header

from ..node.world import CARE_OF_2, GCM, keys_of, seeded
from .world import World, harp_spi, home, member_address, mobile_node

ACTIVE, STANDBY = 1, 2
BOTH = pytest.mark.parametrize(("source", "target"), [(ACTIVE, STANDBY), (STANDBY, ACTIVE)])


@pytest.fixture
def world() -> World:
    """Two mobile nodes bound, member 1 active, member 2 with all state; a second term has begun."""
    world = World(mobile_node(0), mobile_node(1)).registered()
    world.run(0.05)
    assert (world.active, world.standby) == (ACTIVE, STANDBY)
    return world


def entry(world: World, node: int = 0, source: int = ACTIVE) -> StateEntry:
    """The state of a mobile node as a member would send it."""
    record = world.members[source].contexts.record(home(node))
    assert record is not None
    return record[0]


def changed(world: World, node: int = 0, change: Callable[[Context], Context] | None = None) -> StateEntry:
    """The next generation of a context, moved to another care-of address, and whatever else."""
    known = entry(world, node)
    context = decode(known.context)
    assert context.binding is not None
    sequence = context.binding.sequence + 1
    binding = structs.replace(context.binding, care_of_address=CARE_OF_2, sequence=sequence)
    context = structs.replace(context, generation=context.generation + 1, binding=binding)
    if change is not None:
        context = change(context)
    return known._replace(generation=context.generation, context=encode(context))


def reply(world: World, *entries: StateEntry, term: int | None = 0x101, identifier: int = 7) -> bytes:
    return world.forge(ACTIVE, STANDBY, StateReply(identifier, True, entries, term))


def hello(world: World, source: int, **fields: object) -> Hello:
    """The HELLO that a member would say next."""
    last = world.messages(Hello, source)[-1]
    assert isinstance(last, Hello)
    return last._replace(sequence=last.sequence + 1 & 0xFFFF, **fields)  # type: ignore[arg-type]


# -- who speaks ------------------------------------------------------------------------------------


@BOTH
def test_a_message_without_esp(world: World, source: int, target: int) -> None:
    before = world.snapshot(target)
    world.members[target].receive_unprotected()
    assert world.members[target].counters["harp_unprotected"] == 1
    assert world.snapshot(target) == before


@BOTH
def test_a_message_under_another_key(world: World, source: int, target: int) -> None:
    octets = build(hello(world, source), member_address(source), member_address(target))
    association = SecurityAssociation(
        spi=harp_spi(source, target),
        direction=Direction.OUT,
        use=Use.HARP,
        home_address=member_address(target),
        transform=GCM,
        keys=keys_of(GCM, 0x999),
    )
    association.sequence = 1 << 20
    world.refuses(source, target, esp.protect(association, MOBILITY, octets, seeded("forger")), "bad_icv")


@BOTH
def test_every_octet_of_a_message_is_protected(world: World, source: int, target: int) -> None:
    packet = world.forge(source, target, hello(world, source))
    for at in range(4, len(packet)):
        bent = packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :]
        # A lower number is an older packet's.
        lower = int.from_bytes(bent[4:8], "big") < int.from_bytes(packet[4:8], "big")
        world.refuses(source, target, bent, "replayed" if lower else "bad_icv")


@BOTH
def test_an_spi_that_nobody_has(world: World, source: int, target: int) -> None:
    packet = world.forge(source, target, hello(world, source))
    world.refuses(source, target, b"\0\0\x0f\xff" + packet[4:], "unknown_spi")


def test_one_member_does_not_speak_for_another() -> None:
    world = World(mobile_node(), members=3).registered()
    packet = world.forge(3, 2, hello(world, 1))
    world.refuses(1, 2, packet, "not_the_peer_of_sa")


@BOTH
def test_a_message_for_another_member_is_not_ours(world: World, source: int, target: int) -> None:
    packet = world.forge(target, source, hello(world, target))
    world.refuses(source, target, packet, "unknown_spi")


@BOTH
def test_everything_that_was_said_is_refused_when_it_comes_again(
    world: World, source: int, target: int
) -> None:
    world.register(world.nodes[0])
    world.run(0.1)
    said = [each for each in world.said if (each.source, each.destination) == (source, target)]
    assert {type(each.message) for each in said} >= {Hello, StateRequest}
    for each in said:
        world.refuses(source, target, each.packet, "replayed")


@BOTH
def test_truncated_esp(world: World, source: int, target: int) -> None:
    packet = world.forge(source, target, hello(world, source))
    for end in range(len(packet)):
        reason = "truncated_esp" if end < 34 else "bad_icv"
        world.refuses(source, target, packet[:end], reason)


# -- what is in it ---------------------------------------------------------------------------------


@BOTH
def test_truncated_messages(world: World, source: int, target: int) -> None:
    whole = build(hello(world, source), member_address(source), member_address(target))
    for end in range(len(whole)):
        reason = "truncated_mobility_header" if end < 8 else "mobility_header_length"
        world.refuses(source, target, world.sealed(source, target, whole[:end]), reason)


def test_truncated_state(world: World) -> None:
    message = StateReply(7, True, (changed(world),), 0x101)
    whole = build(message, member_address(ACTIVE), member_address(STANDBY))
    for length in range(8, len(whole), 8):
        # A frame that is right around contents that end too early.
        octets = build_header(whole[2], whole[6:length], member_address(ACTIVE), member_address(STANDBY))
        counters = world.members[STANDBY].counters
        before, known = counters.copy(), world.snapshot(STANDBY)
        world.receive_member(ACTIVE, STANDBY, world.sealed(ACTIVE, STANDBY, octets))
        found = counters - before
        if found:
            assert len(found) == 1
            assert set(found) <= {
                "harp_truncated_mobility_option",
                "harp_context_incomplete",
                "harp_mobility_header_length",
                "harp_context_schema",
            }
            assert world.snapshot(STANDBY) == known
        # Else it ends before the first option that says anything: an answer without entries.
        assert world.contexts(STANDBY)[home(0)] == world.contexts(ACTIVE)[home(0)]


@BOTH
def test_an_oversized_message(world: World, source: int, target: int) -> None:
    """Octets beyond what the length field can say are no part of a message; a lie about it is one."""
    whole = build(hello(world, source), member_address(source), member_address(target))
    lying = whole[:1] + b"\xff" + whole[2:]
    world.refuses(source, target, world.sealed(source, target, lying), "mobility_header_length")
    long = lying + bytes(3000)
    world.refuses(source, target, world.sealed(source, target, long), "mobility_header_checksum")


@BOTH
@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\x3b\x00\x05\x00\x00\x00\x00\x00", "mobility_header_checksum"),
        (b"", "truncated_mobility_header"),
    ],
)
def test_broken_frames(world: World, source: int, target: int, octets: bytes, reason: str) -> None:
    world.refuses(source, target, world.sealed(source, target, octets), reason)


BROKEN_MESSAGES = {
    "unknown_mobility_header_type": (5, bytes(10)),
    "unknown_state_synchronization_type": (240, b"\x03\0\0\0" + bytes(6)),
    "unknown_control_type": (241, b"\x05\0" + bytes(8)),
    "mobility_header_length": (242, bytes(10)),
    "mobility_option_length": (240, b"\x01\0\0\0\xf5\x04" + bytes(4)),
    "option_without_binding": (240, b"\x01\0\0\0\x08\x04" + bytes(4)),
    "truncated_mobility_option": (240, b"\x01\0\0\0\x08\xff" + bytes(4)),
}


@BOTH
@pytest.mark.parametrize("reason", BROKEN_MESSAGES)
def test_broken_messages(world: World, source: int, target: int, reason: str) -> None:
    kind, body = BROKEN_MESSAGES[reason]
    octets = build_header(kind, body, member_address(source), member_address(target))
    world.refuses(source, target, world.sealed(source, target, octets), reason)


@BOTH
def test_another_protocol(world: World, source: int, target: int) -> None:
    packet = world.sealed(source, target, bytes(40), ICMPV6)
    world.refuses(source, target, packet, "selector_mismatch")


@BOTH
def test_a_message_that_members_do_not_send_each_other(world: World, source: int, target: int) -> None:
    message = HomeAgentSwitch((member_address(source),))
    world.refuses(source, target, world.forge(source, target, message), "unexpected_message")


# -- HELLO -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("fields", [{"group": 2}, {"virtual": False}])
def test_a_hello_of_another_set(world: World, source: int, target: int, fields: dict[str, object]) -> None:
    message = hello(world, source, term=0x999, **fields)
    world.refuses(source, target, world.forge(source, target, message), "foreign_group")


@BOTH
def test_hellos_that_come_in_another_order(world: World, source: int, target: int) -> None:
    late = hello(world, source)
    world.run(0.05)
    for message in (late, late._replace(lifetime=0), late._replace(preference=999, interval=1)):
        world.refuses(source, target, world.forge(source, target, message), "stale_hello")


def test_a_hello_of_an_active_member_of_old_changes_no_role(world: World) -> None:
    world.kill(ACTIVE)
    world.until(lambda: world.serving)
    world.start(ACTIVE)
    world.settle()
    message = hello(world, ACTIVE, active=True, term=0x101, synchronized=(2,))
    role, term = world.members[2].machine.role, world.members[2].machine.term
    world.receive_member(1, 2, world.forge(1, 2, message))
    assert (world.members[2].machine.role, world.members[2].machine.term) == (role, term)


@BOTH
def test_a_term_that_leaves_none(world: World, source: int, target: int) -> None:
    for term in (1 << 63, (1 << 64) - 1):
        message = hello(world, source, term=term)
        world.refuses(source, target, world.forge(source, target, message), "term_out_of_range")


# -- state -----------------------------------------------------------------------------------------


def test_state_of_a_stale_term(world: World) -> None:
    for term in (0, 0x100):
        world.refuses(ACTIVE, STANDBY, reply(world, changed(world), term=term), "stale_term")


def test_state_that_an_active_member_did_not_ask_for(world: World) -> None:
    for entries in ((), (changed(world),)):
        message = StateReply(7, True, entries, 0x101)
        world.refuses(STANDBY, ACTIVE, world.forge(STANDBY, ACTIVE, message), "unasked_state")


def test_a_request_of_a_member_that_was_never_heard(world: World) -> None:
    world.kill(STANDBY)
    world.run(0.1)
    world.start(STANDBY)
    neighbor = world.members[ACTIVE].neighbors[STANDBY]
    assert not neighbor.is_alive(world.now)
    message = StateRequest(7, (), b"")
    world.refuses(STANDBY, ACTIVE, world.forge(STANDBY, ACTIVE, message), "request_of_absent_member")


def test_an_acknowledgement_of_nothing(world: World) -> None:
    before = world.snapshot(ACTIVE)
    for statuses in ((), ((0, home(0)),), ((128, home(0)),), ((0, bytes(16)),)):
        for identifier in (0, 7, 0xFFFF):
            message = StateAcknowledge(identifier, statuses)
            world.receive_member(STANDBY, ACTIVE, world.forge(STANDBY, ACTIVE, message))
    assert world.snapshot(ACTIVE) == before


def _other_name(context: Context) -> Context:
    return structs.replace(context, home_address=home(1))


def _short_key(context: Context) -> Context:
    first, *others = context.associations
    return structs.replace(context, associations=(structs.replace(first, encryption=b"SECRET"), *others))


def _wide(context: Context) -> Context:
    first, *others = context.associations
    return structs.replace(context, associations=(structs.replace(first, size=64, bitmap=bytes(9)), *others))


def _twice(context: Context) -> Context:
    return structs.replace(context, associations=(context.associations[0],) * 2)


def _lying(context: Context) -> Context:
    assert context.binding is not None
    return structs.replace(context, binding=structs.replace(context.binding, bound=False))


def _unknown(context: Context) -> Context:
    first, *others = context.associations
    return structs.replace(context, associations=(structs.replace(first, transform="rot13"), *others))


def _layout(context: Context) -> Context:
    return structs.replace(context, format=2)


BROKEN: dict[str, Callable[[Context], Context]] = {
    "context_of_another": _other_name,
    "context_keys": _short_key,
    "context_window": _wide,
    "context_spi": _twice,
    "context_binding": _lying,
    "context_algorithm": _unknown,
    "context_format": _layout,
}


@pytest.mark.parametrize("reason", BROKEN)
@pytest.mark.parametrize("first", [False, True])
def test_one_broken_context_and_none_of_the_message_is_applied(
    world: World, reason: str, first: bool
) -> None:
    good, bad = changed(world, 1), changed(world, 0, BROKEN[reason])
    entries = (bad, good) if first else (good, bad)
    world.refuses(ACTIVE, STANDBY, reply(world, *entries), reason)
    # The good one alone is welcome.
    world.receive_member(ACTIVE, STANDBY, reply(world, good))
    assert world.planes[STANDBY].tunnels[home(1)] == CARE_OF_2


def test_a_context_that_is_no_context(world: World) -> None:
    known = changed(world)
    for octets in (known.context[:-1], known.context + b"\0", b"SECRET" * 20):
        bad = known._replace(context=octets)
        world.refuses(ACTIVE, STANDBY, reply(world, changed(world, 1), bad), "context_schema")


def test_parts_that_make_no_context(world: World) -> None:
    known = changed(world)
    world.refuses(ACTIVE, STANDBY, reply(world, known._replace(context=b"\xc1")), "context_part")
    first, second = (b"\xc1" + bytes((index, 2)) + bytes(4) + b"x" for index in (0, 1))
    world.refuses(ACTIVE, STANDBY, reply(world, known._replace(context=first)), "context_part_missing")
    world.refuses(ACTIVE, STANDBY, reply(world, known._replace(context=second)), "context_part")


def test_a_generation_that_is_not_the_context_s(world: World) -> None:
    bad = changed(world)._replace(generation=99)
    world.refuses(ACTIVE, STANDBY, reply(world, bad), "context_of_another")


def test_an_spi_of_another_mobile_node(world: World) -> None:
    """The one context is refused, whole, and the sender is told; what stands beside it is applied."""
    victim = decode(entry(world, 1).context)

    def steal(context: Context) -> Context:
        inbound: list[AssociationState] = [each for each in victim.associations if not each.outbound]
        return structs.replace(context, associations=(*context.associations, *inbound))

    member = world.members[STANDBY]
    before, counted = world.contexts(STANDBY), member.counters.copy()
    world.said.clear()
    world.receive_member(ACTIVE, STANDBY, reply(world, changed(world, 0, steal)))
    assert dict(member.counters - counted) == {"harp_context_spi": 1}
    assert world.contexts(STANDBY) == before
    (answer,) = world.messages(StateAcknowledge, STANDBY)
    assert answer.statuses == ((SynchronizationStatus.UNSPECIFIED, home(0)),)


@pytest.mark.parametrize("generation", [0, 99])
def test_a_binding_without_its_associations(world: World, generation: int) -> None:
    """Only a member that knows nothing but the draft may leave the context out."""
    half = changed(world)._replace(context=b"", generation=generation)
    for term in (0x101, None):
        world.refuses(ACTIVE, STANDBY, reply(world, changed(world, 1), half, term=term), "context_schema")


def test_older_generations_are_known_already(world: World) -> None:
    old = entry(world)
    world.register(world.nodes[0], CARE_OF_2)
    world.run(0.05)
    before = world.snapshot(STANDBY)
    world.receive_member(ACTIVE, STANDBY, reply(world, old))
    assert world.snapshot(STANDBY) == before
    assert world.members[STANDBY].counters["contexts_known"] >= 1


def test_generations_that_come_in_another_order(world: World) -> None:
    node = world.nodes[0]
    delays = iter((0.015, 0.0))
    world.late = lambda said: next(delays, 0.0) if isinstance(said.message, StateReply) else 0.0
    world.receive(node.update(CARE_OF_2))
    world.run(0.001)
    world.receive(node.update())
    world.run(0.1)
    world.same_everywhere()
    assert world.members[STANDBY].counters["contexts_known"] >= 1


# -- switches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ControlType.SWO_REQ, ControlType.SWB_REP])
def test_switches_of_another_term_at_the_active_member(world: World, kind: ControlType) -> None:
    for term in (0, 0x100):
        message = Control(kind, term=term)
        world.refuses(STANDBY, ACTIVE, world.forge(STANDBY, ACTIVE, message), "stale_control")


@pytest.mark.parametrize("kind", [ControlType.SWO_REP, ControlType.SWB_REQ])
def test_switches_of_another_term_at_the_standby(world: World, kind: ControlType) -> None:
    for term in (0, 0x100):
        message = Control(kind, term=term)
        world.refuses(ACTIVE, STANDBY, world.forge(ACTIVE, STANDBY, message), "stale_control")


@pytest.mark.parametrize("status", [0, 129])
def test_replies_that_nobody_asked_for(world: World, status: int) -> None:
    message = Control(ControlType.SWO_REP, status, 0x101)
    world.refuses(ACTIVE, STANDBY, world.forge(ACTIVE, STANDBY, message), "stale_control")
    message = Control(ControlType.SWB_REP, status, 0x101)
    world.refuses(STANDBY, ACTIVE, world.forge(STANDBY, ACTIVE, message), "stale_control")


def test_a_standby_cannot_ask_another_one_to_take_over() -> None:
    world = World(mobile_node(), members=3).registered()
    message = Control(ControlType.SWB_REQ, term=0x101)
    world.refuses(3, 2, world.forge(3, 2, message), "stale_control")


def test_no_counter_and_no_notice_holds_a_key(world: World) -> None:
    for name, change in BROKEN.items():
        world.refuses(ACTIVE, STANDBY, reply(world, changed(world, 0, change)), name)
    keys = {each.keys.encryption for each in world.members[1].home_agent.associations.database}
    shown = repr((world.notices, world.members[STANDBY].counters, world.members[STANDBY].status(world.now)))
    assert "SECRET" not in shown
    for key in keys:
        assert repr(key)[2:-1] not in shown
        assert key.hex() not in shown
