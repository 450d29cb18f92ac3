"""A home agent with a journal: nothing is told that the journal lacks, and a restart goes on from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mip6ha import ipv6
from mip6ha.binding.messages import BindingAcknowledgement, Status
from mip6ha.effects import Effect, Event, ReserveSequences, SendPacket, SetTunnel, WriteJournal
from mip6ha.failover import journal
from mip6ha.failover.journal import Moment, Segment
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import UDP
from mip6ha.journaled import JournaledHomeAgent
from mip6ha.lending import PayloadCounted, PayloadLost
from mip6ha.numbering import HORIZON
from mip6ha.parameters import HomeAgentParameters, MobileNodeParameters

from .failover.negotiator import NEVER, Negotiator
from .failover.world import Answer, home
from .ipsec.ike.world import WALL, parameters_of, peer_of
from .node.world import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    HOME_AGENT,
    HOME_PREFIX,
    Dataplane,
    MobileNode,
    seeded,
)

PLAIN = (Use.SIGNALLING,)
TUNNELLED = (Use.SIGNALLING, Use.PAYLOAD)


class Host:
    """A machine with one disk, and one home agent after another on it.

    ``lag`` keeps batches from being written, ``sync`` is whether what is written is stored.
    """

    def __init__(self, *nodes: MobileNode, **settings: Any) -> None:
        self.nodes = nodes
        self.settings = {"duplicate_address_detection": False} | settings
        self.now = 1000.0
        self.boot = 1
        self.wall = 50_000.0
        self.floor = 0
        self.lag, self.sync = False, True
        self.disk: dict[int, list[tuple[journal.Batch, bool]]] = {}
        self.damage = ""
        self.used: set[tuple[int, int]] = set()
        self.start()

    def moment(self, at: float | None = None) -> Moment:
        at = self.now if at is None else at
        return Moment(f"boot {self.boot}", round(at * 1000), round((self.wall + at) * 1000))

    def parameters(self) -> tuple[MobileNodeParameters, ...]:
        return tuple(each.parameters for each in self.nodes)

    def start(self) -> None:
        parameters = HomeAgentParameters(
            HOME_AGENT,
            (HOME_PREFIX,),
            self.parameters(),
            sequence_floor=self.floor,
            **self.settings,
        )
        self.plane = Dataplane()
        self.plane.reserved = self.floor
        self.answers: list[bytes] = []
        self.waiting: list[WriteJournal] = []
        self.notices: list[Event] = []
        self.agent = JournaledHomeAgent(parameters, seeded(f"agent {self.now}"), self.now)
        self.carry_out(self.agent.start(self.now))
        segments = [
            Segment(each, [batch for batch, _ in batches], self.damage) for each, batches in self.disk.items()
        ]
        self.restored = journal.restore(segments, self.moment())
        self.carry_out(self.agent.restore(self.restored.contexts, self.now))
        self.settle()

    def kill(self, *, host: bool = False, down: float = 0.5) -> None:
        """The process is gone, or its host, and after a while it is back."""
        self.floor = self.plane.reserved
        self.now += down
        if host:
            self.boot += 1
            self.disk = {
                each: [(batch, True) for batch, stored in batches if stored]
                for each, batches in self.disk.items()
            }
            self.wall += self.now - down
            self.now = down
        self.start()

    def carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case WriteJournal():
                    self.waiting.append(effect)
                case SendPacket(packet):
                    self.answers.append(packet)
                    self._use(packet)
                case Event():
                    self.notices.append(effect)
                case ReserveSequences(limit) if limit == self.plane.reserved:
                    pass
                case _:
                    self.plane.carry_out(effect)

    def _use(self, packet: bytes) -> None:
        at = 64 if packet[6] == 43 else 40
        if 50 in {packet[6], packet[40]}:
            spi = int.from_bytes(packet[at : at + 4], "big")
            number = int.from_bytes(packet[at + 4 : at + 8], "big")
            assert (spi, number) not in self.used
            self.used.add((spi, number))

    def settle(self) -> None:
        """What the edge does after each batch of inputs."""
        self.carry_out(self.agent.flush(self.now))
        while self.waiting and not self.lag:
            self.write()
            self.carry_out(self.agent.flush(self.now))

    def write(self) -> None:
        effect = self.waiting.pop(0)
        if effect.begins:
            self.disk[max(self.disk, default=0) + 1] = []
        newest = max(self.disk)
        batch = journal.batch(self.moment(effect.moment), effect.contexts, complete=effect.completes)
        self.disk[newest].append((batch, self.sync))
        self.carry_out(self.agent.journal_written(effect.ticket, self.now))
        if self.sync:
            self.carry_out(self.agent.journal_stored(effect.ticket, self.now))
            if effect.completes:
                self.disk = {newest: self.disk[newest]}

    def receive(self, packet: bytes) -> None:
        self.carry_out(self.agent.receive(packet, self.now))
        self.settle()

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.agent.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.carry_out(self.agent.on_timer(self.now))
            self.settle()
        self.now = end

    def register(self, node: MobileNode, *arguments: Any, **fields: Any) -> BindingAcknowledgement:
        count = len(self.answers)
        self.receive(node.update(*arguments, **fields))
        (packet,) = self.answers[count:]
        message = node.open(packet).message
        assert isinstance(message, BindingAcknowledgement)
        return message

    @property
    def tunnels(self) -> dict[bytes, bytes]:
        return self.plane.tunnels


def mobile_node(*uses: Use, index: int = 0) -> MobileNode:
    home = HOME_PREFIX.prefix[:15] + bytes((0x10 + index,))
    return MobileNode(home, *(uses or PLAIN), spi=0x2000 + 16 * index)


def payload(node: MobileNode) -> bytes:
    inner = ipv6.build(node.home_address, CORRESPONDENT, UDP, bytes(12))
    return node.tunnel(inner, use=Use.PAYLOAD)


def test_a_killed_home_agent_forwards_again_and_takes_the_next_refresh() -> None:
    node = mobile_node()
    host = Host(node)
    assert host.register(node, CARE_OF_1).status == Status.ACCEPTED
    host.kill()
    assert host.tunnels == {node.home_address: CARE_OF_1}
    packet = ipv6.build(CORRESPONDENT, node.home_address, UDP, bytes(12))
    host.receive(packet)
    assert ipv6.parse(host.answers[-1]).destination == CARE_OF_1
    assert host.register(node, CARE_OF_2).status == Status.ACCEPTED
    assert host.tunnels == {node.home_address: CARE_OF_2}


def test_the_answer_waits_until_it_is_written() -> None:
    node = mobile_node()
    host = Host(node)
    host.lag = True
    host.receive(node.update())
    assert host.answers == []
    assert host.tunnels == {}
    host.write()
    assert host.tunnels == {node.home_address: CARE_OF_1}
    assert len(host.answers) == 1


def test_what_was_not_written_was_not_told_and_is_taken_again() -> None:
    node = mobile_node()
    host = Host(node)
    host.register(node)
    host.lag = True
    update = node.update(CARE_OF_2)
    host.receive(update)
    host.lag = False
    host.kill()
    assert host.tunnels == {node.home_address: CARE_OF_1}
    # The same packet again, for it was never answered.
    host.receive(update)
    assert host.tunnels == {node.home_address: CARE_OF_2}


def test_changes_that_come_meanwhile_go_together() -> None:
    nodes = [mobile_node(index=index) for index in range(10)]
    host = Host(*nodes)
    host.lag = True
    for node in nodes:
        host.receive(node.update())
    first = host.waiting
    assert [len(each.contexts) for each in first] == [1]
    host.write()
    host.settle()
    assert [len(each.contexts) for each in host.waiting] == [9]
    host.write()
    assert len(host.tunnels) == 10


@pytest.mark.parametrize("host_down", [False, True], ids=["process", "host"])
def test_no_replay_of_signalling_is_accepted(host_down: bool) -> None:
    node = mobile_node()
    host = Host(node)
    seen = [node.update(CARE_OF_1 if each & 1 else CARE_OF_2) for each in range(6)]
    for each in seen:
        host.receive(each)
    host.kill(host=host_down)
    before = dict(host.tunnels)
    assert before == {node.home_address: CARE_OF_1}
    for each in seen:
        host.receive(each)
    assert host.agent.counters["replayed"] == 6
    assert host.tunnels == before


def test_what_a_host_that_went_down_had_answered_is_fenced() -> None:
    """Its last two answers are not on the disk; what they answered is played again."""
    node = mobile_node()
    host = Host(node)
    host.register(node, CARE_OF_1)
    host.sync = False
    lost = [node.update(CARE_OF_2), node.update(CARE_OF_1), node.update(CARE_OF_2)]
    for each in lost:
        host.receive(each)
    host.sync = True
    host.kill(host=True)
    assert host.tunnels == {node.home_address: CARE_OF_1}
    for each in lost:
        host.receive(each)
        assert node.open(host.answers[-1]).message.status == Status.SEQUENCE_OUT_OF_WINDOW
    assert host.tunnels == {node.home_address: CARE_OF_1}
    # The mobile node is told in the same way, and goes on from there.
    refused = host.register(node, CARE_OF_2)
    assert refused.status == Status.SEQUENCE_OUT_OF_WINDOW
    assert host.register(node, CARE_OF_2, refused.sequence + 1).status == Status.ACCEPTED
    assert host.tunnels == {node.home_address: CARE_OF_2}
    node.sequence = refused.sequence + 1
    host.kill()
    assert host.register(node, CARE_OF_1).status == Status.ACCEPTED


@pytest.mark.parametrize("host_down", [False, True], ids=["process", "host"])
def test_no_replay_of_payload_is_accepted_and_few_packets_are_lost(host_down: bool) -> None:
    node = mobile_node(*TUNNELLED)
    host = Host(node)
    host.register(node)
    seen = [payload(node) for _ in range(200)]
    for each in seen:
        host.receive(each)
    assert host.agent.counters["beyond_replicated_window"] == 0
    # Accepted, and not stored: only what is within the horizon.
    host.sync = False
    more = [payload(node) for _ in range(200)]
    for each in more:
        host.receive(each)
    lost = host.agent.counters["beyond_replicated_window"]
    assert 200 - HORIZON <= lost < 200
    host.sync = True
    host.kill(host=host_down)
    refused = host.agent.counters["replayed"]
    count = len(host.answers)
    for each in seen + more[: 200 - lost]:
        host.receive(each)
    assert len(host.answers) == count
    assert host.agent.counters["replayed"] - refused == 400 - lost
    passed = 0
    for _ in range(2 * HORIZON):
        before = len(host.answers)
        host.receive(payload(node))
        passed += len(host.answers) > before
    assert passed >= HORIZON


def test_payload_is_lent_when_what_is_lent_is_stored() -> None:
    node = mobile_node(*TUNNELLED)
    host = Host(node, lends_payload=True)
    host.register(node)
    outwards = ipv6.build(CORRESPONDENT, node.home_address, UDP, bytes(12))
    host.sync = False
    for _ in range(5):
        host.receive(payload(node))
        host.receive(outwards)
    assert host.plane.lent == {}
    host.sync = True
    host.register(node)
    host.receive(payload(node))
    (inbound,) = (spi for outbound, spi in host.plane.lent[node.home_address] if not outbound)
    limit = host.plane.lent[node.home_address][False, inbound]
    lent = [node.tunnel(outwards, use=Use.PAYLOAD)]
    while node.outbound[Use.PAYLOAD].sequence < limit:
        lent.append(payload(node))
    # More is not lent either before that is stored.
    host.sync = False
    counted = PayloadCounted(node.home_address, False, inbound, limit)
    host.carry_out(host.agent.payload_news(counted, host.now))
    host.settle()
    assert host.plane.lent[node.home_address][False, inbound] == limit
    host.sync = True
    host.kill(host=True)
    count = len(host.answers)
    for each in lent:
        host.receive(each)
    assert len(host.answers) == count
    for _ in range(3 * HORIZON):
        host.receive(payload(node))
        host.receive(outwards)
    assert host.plane.lent[node.home_address][False, inbound] > limit


def test_what_was_lost_is_lent_anew_with_other_numbers() -> None:
    node = mobile_node(*TUNNELLED)
    host = Host(node, lends_payload=True)
    host.register(node)
    outwards = ipv6.build(CORRESPONDENT, node.home_address, UDP, bytes(12))
    before: dict[tuple[bool, int], int] = {}
    for _ in range(3):
        for _ in range(3 * HORIZON):
            host.receive(payload(node))
            host.receive(outwards)
        lent = host.plane.lent.pop(node.home_address)
        assert all(limit > before.get(about, 0) for about, limit in lent.items())
        before = lent
        host.carry_out(host.agent.payload_news(PayloadLost(node.home_address), host.now))
        host.advance(0.2)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_payload_is_lent_without_a_journal(when: str) -> None:
    node = mobile_node(*TUNNELLED)
    host = Host(node, lends_payload=True)
    host.register(node)
    host.lag = True
    for _ in range(4 if when == "meanwhile" else 0):
        host.receive(payload(node))
    assert host.plane.lent == {}
    host.carry_out(host.agent.journal_failed("No space left on device", host.now))
    for _ in range(4):
        host.receive(payload(node))
    (inbound,) = (spi for outbound, spi in host.plane.lent[node.home_address] if not outbound)
    limit = host.plane.lent[node.home_address][False, inbound]
    counted = PayloadCounted(node.home_address, False, inbound, limit)
    host.carry_out(host.agent.payload_news(counted, host.now))
    assert host.plane.lent[node.home_address][False, inbound] == limit + HORIZON
    outwards = ipv6.build(CORRESPONDENT, node.home_address, UDP, bytes(12))
    host.receive(outwards)
    assert host.answers[-1] == outwards
    host.carry_out(host.agent.payload_news(PayloadLost(node.home_address), host.now))
    assert host.agent.counters["payload_lost"] == 1


def test_outbound_numbers_are_never_used_twice_over_restarts() -> None:
    node = mobile_node(*TUNNELLED)
    host = Host(node)
    packet = ipv6.build(CORRESPONDENT, node.home_address, UDP, bytes(12))
    host.register(node)
    for host_down in (False, True, False):
        for _ in range(50):
            host.receive(packet)
        # The host itself looks that no number comes again.
        assert len(host.used) > 50
        host.kill(host=host_down)
        fenced = host.register(node)
        node.sequence = fenced.sequence
        if fenced.status:
            assert host.register(node).status == Status.ACCEPTED


def test_lifetimes_go_on() -> None:
    node = mobile_node()
    host = Host(node)
    host.register(node, lifetime=15)
    host.advance(20)
    host.kill(down=10)
    binding = host.agent.home_agent.cache.get(node.home_address)
    assert binding is not None
    assert binding.expires - host.now == pytest.approx(30)
    host.advance(31)
    assert host.tunnels == {}
    host.register(node, lifetime=15)
    host.kill(down=61)
    assert host.tunnels == {}
    # Its number is known all the same.
    node.sequence -= 1
    assert host.register(node).status == Status.SEQUENCE_OUT_OF_WINDOW


def test_a_deregistration_lasts() -> None:
    node = mobile_node()
    host = Host(node)
    host.register(node)
    host.receive(node.home())
    host.kill()
    assert host.tunnels == {}


@pytest.mark.parametrize("damage", ["record 3 is damaged", ""])
def test_a_damaged_journal_fences(damage: str) -> None:
    node = mobile_node()
    host = Host(node)
    host.register(node)
    host.damage = damage
    host.kill()
    assert host.tunnels == {node.home_address: CARE_OF_1}
    status = host.register(node).status
    assert status == (Status.SEQUENCE_OUT_OF_WINDOW if damage else Status.ACCEPTED)


def test_without_a_journal_it_serves_and_begins_anew() -> None:
    node, other = mobile_node(*TUNNELLED), mobile_node(index=1)
    host = Host(node, other)
    host.register(node)
    host.lag = True
    host.receive(other.update())
    host.waiting.clear()
    host.disk.clear()
    host.carry_out(host.agent.journal_failed("No space left on device", host.now))
    assert [each.name for each in host.notices if each.name == "journal_failed"] == ["journal_failed"]
    # What waited is told, and nothing waits any more.
    assert len(host.tunnels) == 2
    assert host.agent.status(host.now)["journal"] == "failed"
    host.register(node, CARE_OF_2)
    for _ in range(3 * HORIZON):
        host.receive(payload(node))
    assert host.agent.counters["beyond_replicated_window"] == 0
    assert host.waiting == []
    host.lag = False
    host.advance(6)
    assert host.agent.status(host.now)["journal"] == "whole"
    host.kill()
    assert host.tunnels == {node.home_address: CARE_OF_2, other.home_address: CARE_OF_1}
    assert host.register(node).status == Status.ACCEPTED


def test_a_stop_writes_what_waits() -> None:
    node = mobile_node()
    host = Host(node)
    host.lag = True
    host.receive(node.update())
    host.receive(node.update(CARE_OF_2))
    stopped = host.agent.stop(host.now)
    host.carry_out([each for each in stopped if type(each) is WriteJournal])
    while host.waiting:
        host.write()
    host.lag = False
    host.kill()
    assert host.tunnels == {node.home_address: CARE_OF_2}


def test_the_configuration_counts_for_more_than_the_journal() -> None:
    removed, rekeyed, stays = (mobile_node(index=index) for index in range(3))
    host = Host(removed, rekeyed, stays)
    for node in host.nodes:
        host.register(node)
    changed = tuple(
        replace(each, keys=other.keys)
        for each, other in zip(rekeyed.parameters.associations, removed.parameters.associations, strict=True)
    )
    rekeyed.parameters = rekeyed.changed(associations=changed)
    host.nodes = (rekeyed, stays)
    host.kill()
    assert host.tunnels == {stays.home_address: CARE_OF_1}
    assert host.agent.counters["journal_not_configured"] == 2
    assert host.agent.counters["journal_contexts"] == host.agent.counters["journal_bindings"] == 1


def test_a_mobile_node_that_was_removed_meanwhile_is_not_in_the_journal() -> None:
    node, stays = mobile_node(), mobile_node(index=1)
    host = Host(node, stays)
    host.register(node)
    host.register(stays)
    host.carry_out(host.agent.reconfigure((stays.parameters,), host.now))
    host.settle()
    host.register(stays)
    assert host.tunnels == {stays.home_address: CARE_OF_1}
    host.nodes = (stays,)
    host.kill()
    assert host.tunnels == {stays.home_address: CARE_OF_1}


def test_too_many_that_wait() -> None:
    node = mobile_node()
    host = Host(node)
    host.lag = True
    host.agent._pending = {index.to_bytes(16, "big"): [] for index in range(20_001)}
    host.receive(node.update())
    assert host.agent.counters["journal_too_slow"] == 1
    host.agent._pending.clear()
    host.lag = False
    host.carry_out(host.agent.journal_written(host.agent.journal.ticket, host.now))
    assert host.register(node).status == Status.ACCEPTED


def test_forwarding_comes_with_the_restored_binding() -> None:
    node = mobile_node()
    host = Host(node)
    host.register(node)
    contexts = journal.restore([Segment(1, [b for b, _ in host.disk[1]])], host.moment()).contexts
    agent = JournaledHomeAgent(host.agent.home_agent.parameters, seeded("again"), host.now)
    assert SetTunnel(node.home_address, CARE_OF_1) in agent.restore(contexts, host.now)


class _Negotiating(Host):
    """One whose mobile node negotiates, as :class:`~.failover.negotiator.Network` wants it."""

    uses: tuple[Use, ...] = PLAIN

    def __init__(self) -> None:
        self.heard: list[Answer] = []
        peer = peer_of("ha", home_addresses=(home(0),))
        super().__init__(ike=parameters_of("ha", peer, timing=NEVER), wall=lambda: WALL)

    def parameters(self) -> tuple[MobileNodeParameters, ...]:
        return (MobileNodeParameters(home(0), "mn", negotiated=self.uses),)

    def carry_out(self, effects: list[Effect]) -> None:
        super().carry_out(effects)
        self.heard += [Answer(self.now, 1, each.packet) for each in effects if isinstance(each, SendPacket)]


class _Network:
    def __init__(self, host: _Negotiating) -> None:
        self.host = host
        self.answers = host.heard

    @property
    def now(self) -> float:
        return self.host.now

    def receive(self, packet: bytes) -> None:
        self.host.receive(packet)

    def run(self, seconds: float) -> None:
        self.host.advance(seconds)


def test_ike_goes_on_after_a_kill_as_if_nothing_had_been() -> None:
    host = _Negotiating()
    node = Negotiator(_Network(host))  # type: ignore[arg-type]
    node.begin()
    assert node.register()[0].status == Status.ACCEPTED
    count = len(node.sent)
    host.kill()
    assert host.agent.counters["journal_contexts"] == 1
    assert node.register()[0].status == Status.ACCEPTED
    assert len(node.sent) == count
    node.do(node.endpoint.rekey(node.ike_sa.spi, host.now))
    node.run()
    node.do(node.endpoint.rekey_child(node.ike_sa.spi, node.child_spi(), host.now))
    node.run()
    assert node.register()[0].status == Status.ACCEPTED


def test_what_may_be_negotiated_no_longer_is_not_restored() -> None:
    host = _Negotiating()
    node = Negotiator(_Network(host))  # type: ignore[arg-type]
    node.begin()
    host.uses = (Use.PREFIX,)
    host.kill()
    assert host.agent.counters["journal_not_configured"] == 1
    assert not host.agent.home_agent.associations.database.of(home(0))
