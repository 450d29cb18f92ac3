"""An IKE SA goes on elsewhere: exported after each exchange, imported by another member, served by that."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.ipsec.ike import state
from mip6ha.ipsec.ike.effects import Changed, Established, SendDatagram
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import Exchange, Notification
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.ike.turn import notify
from mip6ha.wire import Malformed

from .tampering import forged, opened
from .world import HA, MN, Node, World, parameters_of

ANOTHER_MEMBER = 0x020001


def take_over(world: World, *, later: float = 0.0) -> Node:
    """The home agent dies, and another member has its address and what it had exported."""
    dead = world.ha
    records = [
        dead.endpoint.export_state(spi, world.now)
        for spi, ike_sa in dead.endpoint.ike_sas.items()
        if ike_sa.state is not State.CLOSED
    ]
    world.nodes.remove(dead)
    fresh = world.add(parameters_of("ha"), HA, iv_prefix=ANOTHER_MEMBER)
    world.now += later
    for octets in records:
        world.do(fresh, fresh.endpoint.import_state(octets, world.now))
    # The children's SAs came with the context, not with this.
    fresh.effects = [each for each in dead.effects if type(each).__name__ in ("InstallChild", "RemoveChild")]
    world.ha = fresh
    return fresh


def connected() -> World:
    world = World()
    world.connect()
    return world


ACTIONS: dict[str, Callable[[World], object]] = {
    "peer rekeys the child": lambda world: world.do(
        world.mn, world.mn.endpoint.rekey_child(world.mn.sa.spi, world.mn.child.spi_in, world.now)
    ),
    "rekeys the child": lambda world: world.do(
        world.ha, world.ha.endpoint.rekey_child(world.ha.sa.spi, world.ha.child.spi_in, world.now)
    ),
    "is rekeyed": lambda world: world.do(world.mn, world.mn.endpoint.rekey(world.mn.sa.spi, world.now)),
    "rekeys": lambda world: world.do(world.ha, world.ha.endpoint.rekey(world.ha.sa.spi, world.now)),
    "is probed": lambda world: world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now)),
    "probes": lambda world: world.do(world.ha, world.ha.endpoint.probe(world.ha.sa.spi, world.now)),
    "grants a child": lambda world: world.do(
        world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "payload", world.now)
    ),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_another_member_goes_on(action: str) -> None:
    world = connected()
    take_over(world)
    for _ in range(2):
        if action != "grants a child" or not world.mn.sa.children.keys() - {world.mn.child.spi_in}:
            ACTIONS[action](world)
        world.run()
        world.check()
        if action == "grants a child":
            break
        take_over(world)
    assert not world.mn.endpoint.counters["peer_unreachable"]
    assert 34 not in [exchange for exchange, _, _ in world.exchanges()[4:]]


@pytest.mark.parametrize("delete", ["mn", "ha"])
def test_another_member_deletes_or_is_told_to(delete: str) -> None:
    world = connected()
    take_over(world)
    node = world.mn if delete == "mn" else world.ha
    world.do(node, node.endpoint.delete(node.sa.spi, world.now))
    world.run()
    assert not world.mn.sas()
    assert not world.ha.sas()
    assert not world.mn.installed


@pytest.mark.parametrize("action", ["peer rekeys the child", "is rekeyed", "is probed", "grants a child"])
def test_a_retransmitted_request_gets_the_identical_octets(action: str) -> None:
    """The response was lost with the member that sent it."""
    world = connected()
    world.meddle = lambda datagram: [] if datagram.local == HA else [datagram]
    ACTIONS[action](world)
    world.run(0.5)
    world.meddle = None
    lost = world.sent[-1]
    assert lost.local == HA
    take_over(world, later=0.1)
    world.run()
    world.check()
    again = [each for each in world.sent if each.local == HA and each.octets == lost.octets]
    assert len(again) == 2
    assert world.ha.endpoint.counters["answered_again"] == 1


@pytest.mark.parametrize("exchanges", [1, 2, 3, 4])
def test_in_the_middle_of_the_handshake(exchanges: int) -> None:
    """After every datagram of IKE_SA_INIT and IKE_AUTH; what was lost is sent again by the initiator."""
    world = World()
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    while len(world.sent) < exchanges:
        world.run(0.005)
    take_over(world)
    world.run(60)
    world.check()
    assert world.mn.sas()


@pytest.mark.parametrize("action", ["rekeys the child", "rekeys", "probes"])
def test_a_request_that_was_under_way(action: str) -> None:
    """Our own request is sent again octet for octet, and its response taken: the private value came along."""
    world = connected()
    world.meddle = lambda datagram: [] if datagram.local == MN else [datagram]
    ACTIONS[action](world)
    world.run(0.5)
    request = world.sent[-1 if parse_header(world.sent[-1].octets)[0].response is False else -2]
    world.meddle = None
    take_over(world)
    world.run(20)
    world.check()
    assert [each.octets for each in world.sent].count(request.octets) == 2
    assert len(world.mn.sas()) == len(world.ha.sas()) == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.3]))
def test_members_that_die_again_and_again_on_a_bad_link(seed: int, loss: float, duplicates: float) -> None:
    world = World(parameters_of("mn", fragment_size=300), seed=seed)
    world.loss, world.duplicates, world.jitter = loss, duplicates, 0.4
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(world.random.random() * 30)
    for _ in range(8):
        world.stir()
        if world.random.random() < 0.3:
            take_over(world)
    world.settle()


def test_a_mobile_node_too() -> None:
    world = connected()
    octets = world.mn.endpoint.export_state(world.mn.sa.spi, world.now)
    dead = world.mn
    world.nodes.remove(dead)
    world.mn = world.add(parameters_of("mn"), MN, iv_prefix=7)
    world.do(world.mn, world.mn.endpoint.import_state(octets, world.now))
    world.mn.effects = list(dead.effects)
    ACTIONS["peer rekeys the child"](world)
    world.run()
    ACTIONS["rekeys"](world)
    world.run()
    world.check()


def test_two_members_never_seal_under_one_iv() -> None:
    """Both believe to be active, from the same state: the prefix keeps their nonces apart."""
    world = connected()
    octets = world.ha.endpoint.export_state(world.ha.sa.spi, world.now)
    twin = world.add(parameters_of("ha"), HA, iv_prefix=ANOTHER_MEMBER)
    twin.endpoint.import_state(octets, world.now)
    found = []
    for node in (world.ha, twin):
        effects = node.endpoint.probe(next(iter(node.endpoint.ike_sas)), world.now)
        [sent] = [each for each in effects if isinstance(each, SendDatagram)]
        found.append(sent.octets[32:40])
    assert found[0][:3] == b"\0\0\0"
    assert found[1][:3] == ANOTHER_MEMBER.to_bytes(3, "big")


def test_times_are_relative() -> None:
    world = connected()
    ike_sa, now = world.ha.sa, world.now
    child = world.ha.child
    found = state.decode(world.ha.endpoint.export_state(ike_sa.spi, now), 5.0)
    assert found.expires_at == pytest.approx(ike_sa.expires_at - now + 5.0)
    assert found.rekey_at == pytest.approx(ike_sa.rekey_at - now + 5.0)
    assert found.probe_at == float("inf")
    assert found.children[child.spi_in].rekey_at == pytest.approx(child.rekey_at - now + 5.0)
    # And what was exported is not what goes on here.
    assert ike_sa.children[child.spi_in] is child


def test_what_is_exported_is_all() -> None:
    world = connected()
    world.meddle = lambda datagram: []
    ACTIONS["rekeys"](world)
    ike_sa = world.ha.sa
    assert ike_sa.pending is not None
    found = state.decode(world.ha.endpoint.export_state(ike_sa.spi, 0.0), 0.0)
    assert found == ike_sa
    assert found is not ike_sa


def test_every_change_is_told_before_what_it_changes_is_seen() -> None:
    """Whoever holds back what stands behind `Changed` has every state that a peer has heard of."""
    world = World()
    known: dict[bytes, bytes] = {}
    deliver = world.do

    def do(node: Node, effects: list[object]) -> list[object]:
        if node is world.ha:
            for each in effects:
                if isinstance(each, Changed):
                    known[each.ike_sa.spi] = node.endpoint.export_state(each.ike_sa.spi, world.now)
                if isinstance(each, SendDatagram):
                    header, _ = parse_header(each.octets)
                    spi = header.spi_i if header.initiator else header.spi_r
                    ike_sa = node.endpoint.ike_sas.get(spi)
                    if ike_sa is not None and ike_sa.state is not State.CLOSED:
                        assert state.decode(known[spi], world.now) == ike_sa
        return deliver(node, effects)  # type: ignore[arg-type, return-value]

    world.do = do  # type: ignore[assignment, method-assign]
    world.connect()
    for action in ACTIONS.values():
        action(world)
        world.run()
    assert len(known) == 3


def record(world: World) -> list[object]:
    octets = world.ha.endpoint.export_state(world.ha.sa.spi, world.now)
    return msgspec.msgpack.decode(octets)  # type: ignore[no-any-return]


FIELDS = list(IkeSa.__struct_fields__)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("spi_i", b"short", "ike_state_schema"),
        ("next_id", -1, "ike_state_schema"),
        ("state", "unheard-of", "ike_state_schema"),
        ("keys", None, "ike_state_keys"),
        ("state", "initiated", "ike_state_keys"),
        ("encryption", (3, None), "ike_state_algorithm"),
        ("prf", 1, "ike_state_algorithm"),
        ("group", 1, "ike_state_algorithm"),
        ("integrity", 1, "ike_state_algorithm"),
        ("integrity", 12, "ike_state_keys"),
        ("encryption", (20, 256), "ike_state_keys"),
        ("prf", 7, "ike_state_keys"),
    ],
)
def test_a_record_that_cannot_be_is_refused(field: str, value: object, reason: str) -> None:
    world = connected()
    whole = record(world)
    whole[1][FIELDS.index(field)] = value  # type: ignore[index]
    with pytest.raises(Malformed, match=reason):
        world.ha.endpoint.import_state(msgspec.msgpack.encode(whole), world.now)
    assert len(world.ha.endpoint.ike_sas) == 1


def test_a_child_under_another_spi_or_of_another_format() -> None:
    world = connected()
    whole = record(world)
    children = whole[1][FIELDS.index("children")]  # type: ignore[index]
    [child] = children.values()
    whole[1][FIELDS.index("children")] = {1234: child}  # type: ignore[index]
    with pytest.raises(Malformed, match="ike_state_child"):
        world.ha.endpoint.import_state(msgspec.msgpack.encode(whole), world.now)
    with pytest.raises(Malformed, match="ike_state_format"):
        world.ha.endpoint.import_state(msgspec.msgpack.encode([2, *record(world)[1:]]), world.now)
    octets = world.ha.endpoint.export_state(world.ha.sa.spi, world.now)
    for cut in range(len(octets)):
        with pytest.raises(Malformed, match="ike_state_schema"):
            state.decode(octets[:cut], 0.0)


def test_nothing_of_a_record_is_quoted() -> None:
    with pytest.raises(Malformed) as caught:
        state.decode(msgspec.msgpack.encode([1, ["secret" * 2]]), 0.0)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_message_ids_are_agreed_on_after_a_takeover() -> None:
    """RFC 6311 5.1, with a state that is behind: the peer's word and ours, whichever is more."""
    world = connected()
    stale = world.ha.endpoint.export_state(world.ha.sa.spi, world.now)
    for _ in range(3):
        for action in ("is probed", "probes"):
            ACTIONS[action](world)
            world.run()
    dead = world.ha
    world.nodes.remove(dead)
    world.ha = world.add(parameters_of("ha"), HA, iv_prefix=ANOTHER_MEMBER)
    effects = world.do(world.ha, world.ha.endpoint.import_state(stale, world.now))
    assert [type(each) for each in effects] == [Established]
    world.ha.effects = list(dead.effects)
    assert (world.ha.sa.next_id, world.ha.sa.expected_id) == (0, 2)
    world.sent.clear()
    world.do(world.ha, world.ha.endpoint.synchronise(world.ha.sa.spi, world.now))
    world.run()
    assert world.exchanges() == [(37, False, 0), (37, True, 0)]
    assert (world.ha.sa.next_id, world.ha.sa.expected_id) == (3, 5)
    for action in ("is rekeyed", "peer rekeys the child", "rekeys the child"):
        ACTIONS[action](world)
        world.run()
        world.check()


def test_message_ids_never_go_back() -> None:
    world = connected()
    for _ in range(3):
        ACTIONS["is probed"](world)
        world.run()
    sync = notify(Notification.IKEV2_MESSAGE_ID_SYNC, b"nnnn" + bytes(8))
    before = (world.ha.sa.next_id, world.ha.sa.expected_id)
    answer = world.deliver(world.ha, forged(world.mn, Exchange.INFORMATIONAL, [sync], message_id=0))
    [sent] = [each for each in answer if isinstance(each, SendDatagram)]
    expected = b"nnnn" + before[0].to_bytes(4, "big") + before[1].to_bytes(4, "big")
    assert opened(world.ha, sent)[1] == (notify(Notification.IKEV2_MESSAGE_ID_SYNC, expected),)
    assert (world.ha.sa.next_id, world.ha.sa.expected_id) == before
    ACTIONS["is probed"](world)
    world.run()
    assert not world.mn.endpoint.counters["peer_unreachable"]


def test_an_answer_to_another_question_changes_no_message_id() -> None:
    world = connected()
    world.mn.down = True
    world.do(world.ha, world.ha.endpoint.synchronise(world.ha.sa.spi, world.now))
    wrong = notify(Notification.IKEV2_MESSAGE_ID_SYNC, b"nnnn" + b"\0\0\1\0" * 2)
    answer = forged(world.mn, Exchange.INFORMATIONAL, [wrong], message_id=0, response=True)
    world.deliver(world.ha, answer)
    assert world.ha.endpoint.counters == {"message_id_sync_refused": 1}
    assert (world.ha.sa.next_id, world.ha.sa.expected_id) == (0, 2)


def test_nothing_is_synchronised_with_who_does_not_know_how() -> None:
    world = connected()
    world.ha.sa.message_id_sync = False
    assert not world.ha.endpoint.synchronise(world.ha.sa.spi, world.now)
    sync = notify(Notification.IKEV2_MESSAGE_ID_SYNC, b"nnnn" + bytes(8))
    assert not world.deliver(world.ha, forged(world.mn, Exchange.INFORMATIONAL, [sync], message_id=0))
    assert world.ha.endpoint.counters == {"message_id": 1}


def test_another_member_serves_it_now() -> None:
    world = connected()
    spi = world.ha.sa.spi
    world.ha.endpoint.forget(spi)
    assert not world.ha.endpoint.ike_sas
    assert world.ha.endpoint.next_deadline() is None or not world.ha.endpoint.on_timer(world.now + 10**6)
