"""Members with journals: what the others have counts for more, and one that is alone goes on from its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mip6ha.binding.messages import Status
from mip6ha.effects import Effect, WriteJournal
from mip6ha.failover import journal
from mip6ha.failover.journal import Moment, Segment
from mip6ha.ipsec.policy import Use
from mip6ha.member import Member

from ..node.world import CARE_OF_1, CARE_OF_2, MobileNode
from .world import World, mobile_node


class JournaledWorld(World):
    """A world whose members keep journals on disks that take no time."""

    def __init__(self, *nodes: MobileNode, **settings: Any) -> None:
        self.disks: dict[int, list[Segment]] = {}
        self.broken: set[int] = set()
        super().__init__(*nodes, **settings)

    def moment(self) -> Moment:
        return Moment("boot", round(self.now * 1000), round(self.now * 1000))

    def start(self, identity: int) -> Member:
        member = super().start(identity)
        member.contexts.keep(0.02)
        restored = journal.restore(self.disks.get(identity, []), self.moment(), alone=False)
        assert restored.wrong == []
        self.carry_out(identity, member.restore(restored.contexts, self.now))
        return member

    def carry_out(self, identity: int, found: Iterable[Effect]) -> None:
        effects = list(found)
        super().carry_out(identity, effects)
        for effect in effects:
            if type(effect) is WriteJournal:
                self._write(identity, effect)

    def _write(self, identity: int, effect: WriteJournal) -> None:
        kept = self.members[identity].contexts.journal
        assert kept is not None
        if identity in self.broken:
            self.disks[identity] = []
            self.carry_out(identity, self.members[identity].journal_failed("broken", self.now))
            return
        segments = self.disks.setdefault(identity, [])
        if effect.begins:
            segments.append(Segment(segments[-1].generation + 1 if segments else 1, []))
        moment = Moment("boot", round(effect.moment * 1000), round(effect.moment * 1000))
        segments[-1].batches.append(journal.batch(moment, effect.contexts, complete=effect.completes))
        if effect.completes:
            del segments[:-1]
        kept.has_written(effect.ticket)
        kept.has_stored(effect.ticket)

    def tunnels(self, identity: int) -> dict[bytes, bytes]:
        return self.planes[identity].tunnels


def test_one_that_is_alone_goes_on_from_its_journal() -> None:
    node = mobile_node(0, Use.SIGNALLING, Use.PAYLOAD)
    world = JournaledWorld(node).registered()
    active, standby = world.active, world.standby
    for identity in (standby, active):
        world.run(0.1)
        world.kill(identity)
    world.start(active)
    world.until(lambda: world.serving)
    assert world.tunnels(active) == {node.home_address: CARE_OF_1}
    # It cannot know what the other one has accepted meanwhile: the mobile node is asked to go past all that.
    fenced = world.register(node)
    assert fenced.status == Status.SEQUENCE_OUT_OF_WINDOW
    node.sequence = fenced.sequence
    assert world.register(node, CARE_OF_2).status == Status.ACCEPTED
    assert world.tunnels(active) == {node.home_address: CARE_OF_2}


def test_nothing_that_the_other_one_answered_meanwhile_is_accepted_again() -> None:
    node = mobile_node()
    world = JournaledWorld(node).registered()
    first, second = world.active, world.standby
    world.kill(first)
    world.until(lambda: world.serving == [second])
    answered = [node.update(CARE_OF_2 if each & 1 else CARE_OF_1) for each in range(5)]
    for each in answered:
        world.receive(each)
        world.run(0.05)
    assert world.tunnels(second) == {node.home_address: CARE_OF_1}
    world.kill(second)
    world.start(first)
    world.until(lambda: world.serving)
    count = len(world.answers)
    for each in answered:
        world.receive(each)
        world.run(0.01)
    statuses = {node.open(each.packet).message.status for each in world.answers[count:]}
    assert statuses == {Status.SEQUENCE_OUT_OF_WINDOW}
    assert world.tunnels(first) == {node.home_address: CARE_OF_1}


def test_a_member_whose_peer_lives_takes_what_that_one_has() -> None:
    moved, stays = mobile_node(0), mobile_node(1)
    world = JournaledWorld(moved, stays).registered()
    standby = world.standby
    world.kill(standby)
    world.until(lambda: not world.member(world.active).replication.synchronized())
    assert world.register(moved, CARE_OF_2).status == Status.ACCEPTED
    member = world.start(standby)
    assert world.tunnels(standby) == {moved.home_address: CARE_OF_1, stays.home_address: CARE_OF_1}
    world.settle()
    assert world.tunnels(standby) == {moved.home_address: CARE_OF_2, stays.home_address: CARE_OF_1}
    # What is the same on both sides was not sent again.
    assert member.counters["contexts_applied"] == 3
    fenced = {each.home_address: each.fenced for each in member.home_agent.cache}
    assert fenced == {moved.home_address: False, stays.home_address: True}
    world.kill(world.active)
    world.until(lambda: world.serving)
    assert world.register(moved).status == Status.ACCEPTED


def test_an_old_journal_brings_nothing_back() -> None:
    removed, left = mobile_node(0), mobile_node(1)
    world = JournaledWorld(removed, left).registered()
    active, standby = world.active, world.standby
    world.kill(standby)
    world.until(lambda: not world.member(active).replication.synchronized())
    world.carry_out(active, world.member(active).reconfigure((left.parameters,), world.now))
    world.receive(left.home())
    world.run(0.1)
    world.start(standby)
    world.settle()
    for identity in (active, standby):
        assert world.tunnels(identity) == {}
        assert removed.home_address not in world.member(identity).home_agent.mobile_nodes


def test_who_comes_back_first_with_the_older_journal_takes_over_what_the_later_one_has() -> None:
    node = mobile_node()
    world = JournaledWorld(node).registered()
    first, second = world.active, world.standby
    world.kill(first)
    world.until(lambda: world.serving == [second])
    assert world.register(node, CARE_OF_2).status == Status.ACCEPTED
    world.run(0.1)
    world.kill(second)
    world.start(first)
    world.until(lambda: world.serving == [first])
    assert world.tunnels(first) == {node.home_address: CARE_OF_1}
    world.start(second)
    world.settle()
    assert world.tunnels(first) == world.tunnels(second) == {node.home_address: CARE_OF_2}


def test_terms_never_go_back_though_the_term_was_lost() -> None:
    world = JournaledWorld(mobile_node()).registered()
    active = world.active
    term = world.member(active).machine.term
    for identity in (world.standby, active):
        world.kill(identity)
    world.terms[active] = 0
    member = world.start(active)
    assert member.machine.term == world.planes[active].term == term
    world.until(lambda: world.serving)
    assert member.machine.term > term


def test_a_stop_writes_what_waits() -> None:
    node = mobile_node()
    world = JournaledWorld(node).registered()
    active = world.active
    world.kill(world.standby)
    world.until(lambda: not world.member(active).replication.synchronized())
    assert world.register(node, CARE_OF_2).status == Status.ACCEPTED
    world.stop(active)
    world.start(active)
    assert world.tunnels(active) == {node.home_address: CARE_OF_2}


def test_without_a_journal_nothing_waits() -> None:
    node = mobile_node()
    world = JournaledWorld(node).registered()
    world.broken.add(world.active)
    assert world.register(node).status == Status.ACCEPTED
    world.run(0.1)
    assert [each.name for each in world.notices if each.name == "journal_failed"] == ["journal_failed"]
    assert world.register(node).status == Status.ACCEPTED
    world.broken.clear()
    world.run(6)
    assert world.disks[world.active][-1].is_complete
