"""CREATE_CHILD_SA and deletion: re-keys of children and IKE SAs, from one end and from both at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mip6ha.ipsec.ike.effects import Established, InstallChild, SendDatagram
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import Notification
from mip6ha.ipsec.ike.parameters import Limits
from mip6ha.ipsec.ike.proposals import Offer, esp_offer, ike_offer
from mip6ha.ipsec.ike.sa import State
from mip6ha.ipsec.ike.turn import notify

from .tampering import changed, opened
from .world import CALM, ESP_PFS, Node, World, parameters_of, peer_of, signalling

INIT, AUTH, CREATE, INFORMATIONAL = 34, 35, 36, 37
KEY_EXCHANGE, DELETE = 34, 42


def connected(**changes: object) -> World:
    world = World(parameters_of("mn", **changes), parameters_of("ha", **changes))
    world.connect()
    world.check()
    world.sent.clear()
    return world


def with_children(*offers: Offer) -> World:
    mn = parameters_of("mn", peer_of("mn", children=(signalling(*offers, role="mn"),)))
    ha = parameters_of("ha", peer_of("ha", children=(signalling(*offers, role="ha"),)))
    world = World(mn, ha)
    world.connect()
    world.sent.clear()
    return world


def rekey_child(world: World, node: Node) -> None:
    world.do(node, node.endpoint.rekey_child(node.sa.spi, node.child.spi_in, world.now))


def rekey(world: World, node: Node) -> None:
    world.do(node, node.endpoint.rekey(node.sa.spi, world.now))


def kinds(world: World) -> list[int]:
    return [exchange for exchange, _, _ in world.exchanges()]


@pytest.fixture(params=["mn", "ha"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def of(world: World, side: str) -> tuple[Node, Node]:
    return (world.mn, world.ha) if side == "mn" else (world.ha, world.mn)


def test_a_child_is_rekeyed_and_the_old_one_deleted(side: str) -> None:
    world = connected()
    asking, other = of(world, side)
    old = asking.child
    rekey_child(world, asking)
    world.run()
    world.check()
    assert kinds(world) == [CREATE, CREATE, INFORMATIONAL, INFORMATIONAL]
    assert len(asking.installed) == len(other.installed) == 1
    assert old.spi_in not in asking.installed
    installed = asking.all(InstallChild)[-1]
    assert installed.replaces == old.spi_in
    assert other.all(InstallChild)[-1].replaces == old.spi_out
    # Nothing of the old key is in the new one.
    assert installed.inbound != asking.all(InstallChild)[0].inbound


def test_make_before_break(side: str) -> None:
    """The new one stands on both ends before the old one goes from either."""
    world = connected()
    asking, other = of(world, side)
    rekey_child(world, asking)
    while parse_header(world.sent[-1].octets)[0].exchange == CREATE:
        world.run(0.01)
    assert len(asking.installed) == len(other.installed) == 2
    world.run()
    world.check()


def test_with_a_key_exchange_of_its_own(side: str) -> None:
    world = with_children(ESP_PFS)
    asking, _ = of(world, side)
    assert asking.child.group == 0
    rekey_child(world, asking)
    world.run()
    world.check()
    assert asking.child.group == 31
    _, payloads = opened(asking, world.sent[0])
    assert KEY_EXCHANGE in [each.kind for each in payloads]


def test_without_a_key_exchange_of_its_own(side: str) -> None:
    world = connected()
    asking, _ = of(world, side)
    rekey_child(world, asking)
    world.run()
    _, payloads = opened(asking, world.sent[0])
    assert KEY_EXCHANGE not in [each.kind for each in payloads]
    assert asking.child.group == 0


def test_the_responder_wants_another_group_for_a_child() -> None:
    mn = parameters_of(
        "mn", peer_of("mn", children=(signalling(esp_offer([(20, 128)], group=[31, 19]), role="mn"),))
    )
    ha = parameters_of(
        "ha", peer_of("ha", children=(signalling(esp_offer([(20, 128)], group=[19]), role="ha"),))
    )
    world = World(mn, ha)
    world.connect()
    rekey_child(world, world.mn)
    world.run()
    world.check()
    assert world.mn.child.group == 19
    assert world.ha.endpoint.counters == {"invalid_ke_payload": 1}


def test_the_responder_wants_another_group_for_an_ike_sa() -> None:
    both = ike_offer([(20, 128)], [5], [31, 19])
    world = connected(proposals=(both,))
    world.ha.endpoint.reconfigure(parameters_of("ha", proposals=(ike_offer([(20, 128)], [5], [19]),)))
    rekey(world, world.mn)
    world.run()
    world.check()
    assert world.mn.sa.group == 19
    assert kinds(world) == [CREATE] * 4 + [INFORMATIONAL] * 2


def test_an_ike_sa_is_rekeyed_with_its_children(side: str) -> None:
    world = connected()
    asking, other = of(world, side)
    old, child = asking.sa, asking.child
    rekey(world, asking)
    world.run()
    world.check()
    assert kinds(world) == [CREATE, CREATE, INFORMATIONAL, INFORMATIONAL]
    fresh = asking.sa
    assert fresh.spi != old.spi
    assert fresh.keys != old.keys
    assert fresh.initiator
    assert asking.child is child
    assert len(asking.all(InstallChild)) == 1
    assert asking.all(Established)[-1].replaces == old.spi
    assert (fresh.next_id, fresh.expected_id) == (0, 0)
    assert (fresh.home_addresses, fresh.identity) == (old.home_addresses, old.identity)
    # And it does what the old one did.
    rekey_child(world, other)
    world.run()
    rekey(world, other)
    world.run()
    world.check()
    world.run(100)
    assert len(asking.endpoint.ike_sas) == len(other.endpoint.ike_sas) == 1


def test_both_rekey_a_child_at_once() -> None:
    """2.8.1: of the four nonces the lowest says whose new child goes."""
    survivors = set()
    for seed in range(12):
        world = World(seed=seed)
        world.connect()
        world.sent.clear()
        old = world.mn.child
        rekey_child(world, world.mn)
        rekey_child(world, world.ha)
        world.run()
        world.check()
        assert len(world.mn.installed) == 1
        assert old.spi_in not in world.mn.installed
        assert world.mn.child.spi_in == world.ha.child.spi_out
        assert kinds(world) == [CREATE] * 4 + [INFORMATIONAL] * 4
        first = parse_header(world.sent[0].octets)[0]
        assert not first.response
        survivors.add(world.mn.all(InstallChild)[-1].installation.child is world.mn.child)
    assert survivors == {True, False}


def test_both_rekey_the_ike_sa_at_once() -> None:
    survivors = set()
    for seed in range(12):
        world = World(seed=seed)
        world.connect()
        world.sent.clear()
        old = world.mn.sa
        rekey(world, world.mn)
        rekey(world, world.ha)
        world.run()
        world.check()
        assert world.mn.sa.spi_i == world.ha.sa.spi_i != old.spi_i
        assert world.mn.child
        assert kinds(world) == [CREATE] * 4 + [INFORMATIONAL] * 4
        survivors.add(world.mn.sa.initiator)
        world.run(200)
        assert len(world.mn.endpoint.ike_sas) == len(world.ha.endpoint.ike_sas) == 1
    assert survivors == {True, False}


def without_requests_of(node: Node) -> Callable[[SendDatagram], list[SendDatagram]]:
    def pass_or_not(datagram: SendDatagram) -> list[SendDatagram]:
        is_request = not parse_header(datagram.octets)[0].response
        return [] if is_request and datagram.local[0] == node.address[0] else [datagram]

    return pass_or_not


def test_a_rekey_that_the_other_end_sees_too_late() -> None:
    """2.8.1: one end has no collision: it is finished before the other's request comes."""
    for what in ("child", "ike"):
        for lost in ("mn", "ha"):
            world = connected()
            late, early = of(world, lost)
            begin = rekey_child if what == "child" else rekey
            world.meddle = without_requests_of(late)
            begin(world, late)
            begin(world, early)
            world.run(0.5)
            world.meddle = None
            world.run(60)
            world.check()
            assert len(world.mn.sas()) == len(world.ha.sas()) == 1
            assert len(world.mn.installed) == 1
            assert world.mn.sa.spi_i == world.ha.sa.spi_i


@pytest.mark.parametrize("action", ["rekey", "delete"])
def test_a_peer_that_goes_on_under_its_own_rekey_while_ours_is_open(action: str) -> None:
    """2.8.2: the children are the new IKE SA's as soon as the peer uses that."""
    world = connected()

    def lost(datagram: SendDatagram) -> list[SendDatagram]:
        header, _ = parse_header(datagram.octets)
        from_ha = datagram.local[0] == world.ha.address[0]
        old_delete = not from_ha and header.exchange == INFORMATIONAL and header.spi_i == old
        return [] if (from_ha and not header.response) or old_delete else [datagram]

    old = world.mn.sa.spi_i
    world.meddle = lost
    rekey(world, world.mn)
    rekey(world, world.ha)
    world.run(0.1)
    child = world.mn.child.spi_in
    assert world.mn.sa.spi_i != old
    assert [bool(each.children) for each in world.ha.sas() if each.spi_i == old] == [True]
    ask = world.mn.endpoint.rekey_child if action == "rekey" else world.mn.endpoint.delete_child
    world.do(world.mn, ask(world.mn.sa.spi, child, world.now))
    world.run(0.5)
    world.meddle = None
    world.run(200)
    world.check()
    assert child not in world.mn.installed
    assert len(world.mn.installed) == (1 if action == "rekey" else 0)
    assert len(world.mn.endpoint.ike_sas) == len(world.ha.endpoint.ike_sas) == 1


def test_a_child_rekey_while_the_ike_sa_is_rekeyed() -> None:
    """2.25.2: it has to wait, and then goes on under the new one."""
    for first, second in (("ike", "child"), ("child", "ike")):
        world = connected()
        begin = {"ike": rekey, "child": rekey_child}
        old, old_child = world.mn.sa.spi, world.mn.child.spi_in
        begin[first](world, world.mn)
        begin[second](world, world.ha)
        world.run(60)
        world.check()
        assert world.mn.sa.spi != old
        assert old_child not in world.mn.installed
        assert len(world.mn.installed) == 1
        assert (
            world.mn.endpoint.counters["temporary_failure"] + world.ha.endpoint.counters["temporary_failure"]
        )


def test_a_child_is_deleted(side: str) -> None:
    world = connected()
    asking, other = of(world, side)
    child = asking.child
    world.do(asking, asking.endpoint.delete_child(asking.sa.spi, child.spi_in, world.now))
    world.run()
    world.check()
    assert not asking.installed
    assert not other.installed
    assert asking.sa.state is State.ESTABLISHED
    # The answer names the other half (1.4.1).
    _, [delete] = opened(asking, world.sent[1])
    assert (delete.kind, delete.body) == (DELETE, b"\x03\x04\0\x01" + child.spi_out.to_bytes(4, "big"))


def test_both_delete_a_child_at_once() -> None:
    """2.25.1: who has asked for it answers without a Delete."""
    world = connected()
    for node in (world.mn, world.ha):
        world.do(node, node.endpoint.delete_child(node.sa.spi, node.child.spi_in, world.now))
    world.run()
    world.check()
    assert not world.mn.installed
    for datagram in world.sent:
        header, payloads = opened(world.mn, datagram)
        assert len(payloads) == (0 if header.response else 1)


def test_an_ike_sa_is_deleted_with_its_children(side: str) -> None:
    world = connected()
    asking, other = of(world, side)
    world.do(asking, asking.endpoint.delete(asking.sa.spi, world.now))
    world.run()
    assert kinds(world) == [INFORMATIONAL, INFORMATIONAL]
    assert not asking.installed
    assert not other.installed
    assert not asking.endpoint.ike_sas
    world.run(60)
    assert not other.endpoint.ike_sas


def test_both_delete_the_ike_sa_at_once() -> None:
    world = connected()
    for node in (world.mn, world.ha):
        world.do(node, node.endpoint.delete(node.sa.spi, world.now))
    world.run(60)
    assert not world.mn.endpoint.ike_sas
    assert not world.ha.endpoint.ike_sas
    assert not world.mn.installed


def test_lifetimes_rekey_by_themselves() -> None:
    world = connected(timing=replace(CALM, ike_lifetime=500.0, child_lifetime=200.0))
    # The two ends do not come to it in the same instant, as they would not with jitter.
    world.run(1990)
    world.check()
    assert len(world.mn.installed) == 1
    assert len(world.mn.all(InstallChild)) >= 9
    assert len(world.mn.all(Established)) >= 4
    assert not world.mn.endpoint.counters["peer_unreachable"]


def test_what_cannot_be_rekeyed_ends() -> None:
    world = connected(timing=replace(CALM, ike_lifetime=500.0, child_lifetime=10_000.0, attempts=20))
    world.ha.down = True
    world.run(620)
    assert not world.mn.sas(State.ESTABLISHED, State.REKEYED)
    assert not world.mn.installed
    world.ha.down = False
    world.mn.down = True
    world.run(200)
    assert not world.ha.endpoint.ike_sas
    assert not world.ha.installed


def test_the_peer_is_told_when_a_lifetime_ends() -> None:
    world = connected(timing=replace(CALM, ike_lifetime=500.0, child_lifetime=10_000.0))
    # Neither end may have a successor.
    for node in (world.mn, world.ha):
        node.sa.rekey_at = float("inf")
    world.ha.sa.expires_at = float("inf")
    world.run(560)
    assert kinds(world) == [INFORMATIONAL, INFORMATIONAL]
    assert not world.mn.installed
    assert not world.ha.installed
    assert not world.ha.sas(State.ESTABLISHED, State.REKEYED)


@pytest.mark.parametrize("what", ["ike", "child"])
def test_a_rekey_that_is_refused_for_good_is_not_asked_for_again_and_again(what: str) -> None:
    world = connected(timing=replace(CALM, ike_lifetime=4000.0, child_lifetime=4000.0))
    other = esp_offer([(28, None)])
    ha = peer_of("ha", children=(signalling(other, role="ha"),))
    world.ha.endpoint.reconfigure(
        parameters_of("ha", ha, proposals=(ike_offer([(28, None)], [5], [31]),), timing=CALM)
    )
    (rekey if what == "ike" else rekey_child)(world, world.mn)
    world.run(100)
    assert len(world.sent) == 2
    assert world.ha.endpoint.counters == {"no_proposal_chosen": 1}
    world.run(1000)
    assert len(world.sent) == 4


@pytest.mark.parametrize("what", ["ike", "child"])
def test_two_groups_in_turn_are_not_asked_for_for_ever(what: str) -> None:
    """A responder that wants whatever group it did not get."""
    groups = [31, 19]
    child = esp_offer([(20, 128)], group=groups)
    peers = {role: peer_of(role, children=(signalling(child, role=role),)) for role in ("mn", "ha")}
    suite = ike_offer([(20, 128)], [5], groups)
    world = World(*(parameters_of(role, peers[role], proposals=(suite,)) for role in ("mn", "ha")))
    world.connect()
    world.sent.clear()

    def other_group(datagram: SendDatagram) -> list[SendDatagram]:
        header, _ = parse_header(datagram.octets)
        if datagram.local == world.ha.address and header.exchange == CREATE:
            [asked] = [each for each in opened(world.mn, world.sent[-2])[1] if each.kind == KEY_EXCHANGE]
            wanted = b"\0\x13" if asked.body[:2] == b"\0\x1f" else b"\0\x1f"
            refusal = notify(Notification.INVALID_KE_PAYLOAD, wanted)
            return [changed(world.ha, datagram, lambda _: [refusal])]
        return [datagram]

    world.meddle = other_group
    (rekey if what == "ike" else rekey_child)(world, world.mn)
    world.run(60)
    assert kinds(world).count(CREATE) == 4


def test_another_child() -> None:
    world = connected()
    world.do(world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "payload", world.now))
    world.run()
    world.check()
    assert {each.name for each in world.ha.sa.live_children()} == {"signalling", "payload"}
    tunnel = next(each for each in world.ha.installed.values() if each.installation.child.name == "payload")
    assert tunnel.installation.child.mode == "tunnel"


def test_a_child_that_the_parameters_do_not_have() -> None:
    world = connected()
    world.do(world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "nothing", world.now))
    world.run()
    assert not world.sent
    assert world.mn.sa.next_id == 2


def test_no_more_children_than_allowed() -> None:
    ha = parameters_of("ha", limits=Limits(children=1))
    world = World(ha=ha)
    world.connect()
    world.do(world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "payload", world.now))
    world.run()
    world.check()
    assert world.ha.endpoint.counters == {"no_additional_sas": 1}
    assert len(world.mn.installed) == 1
