"""A home agent that is a member of a redundant set: everything that makes two of them one.

``receive`` -> the home agent decides -> the context's new generation goes to the standbys -> their
acknowledgement lets the effects out. Covered: HELLO, election and terms, replication, resynchronisation,
takeover, planned switches, hand-over after a split (draft-ietf-mip6-hareliability with our extensions).
Not covered: hard switch with different home agent addresses, tickets, the arbiter itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .channel import Channel
from .commits import Commits, Held
from .contexts import Contexts
from .effects import (
    AnnounceAddress,
    ClaimTerm,
    Effect,
    StandDown,
    StoreTerm,
    TakeOver,
)
from .effects import Event as Notice
from .exchange import StateExchange
from .failover.context import Context
from .failover.machine import HIGHEST_TERM, Machine
from .failover.states import Event, Role
from .failover.takeover import Announcements
from .harp.hello import Neighbor
from .harp.messages import (
    Body,
    Control,
    ControlType,
    Hello,
    StateAcknowledge,
    StateReply,
    StateRequest,
)
from .harp.sync import Progress, Replication
from .hellos import Hellos
from .inquiries import Inquiries
from .ipsec.ike.sa import Address
from .lending import PayloadNews
from .member_keys import MemberKeys
from .node import HomeAgent
from .numbering import HIGHEST_FLOOR, SharedAssociations
from .parameters import GroupParameters, HomeAgentParameters, MobileNodeParameters
from .reconfiguration import Reconfiguration
from .switching import PlannedSwitch
from .views import neighbor_views
from .wire import Refused

__all__ = ["Member"]

_FOREVER = float("inf")


class Member:
    """One member of one group. ``term`` is the highest it has stored, ``random`` yields octets.

    Inputs return effects, to be carried out in their order; :meth:`flush` comes after each batch of inputs.
    """

    def __init__(
        self,
        parameters: HomeAgentParameters,
        group: GroupParameters,
        random: Callable[[int], bytes],
        now: float,
        term: int = 0,
    ) -> None:
        self.group = group
        members = (group.identity, *(peer.identity for peer in group.peers))
        self.associations = SharedAssociations(
            parameters.address, random, parameters.sequence_floor, group.identity, max(members)
        )
        self.home_agent = HomeAgent(parameters, random, now, self.associations)
        self.counters = self.home_agent.counters
        self.channel = Channel(group, random, parameters.sequence_floor)
        interval, factor = group.hello_interval, group.failure_factor
        self.contexts = Contexts(self.home_agent, now)
        self.neighbors = {
            peer.identity: Neighbor(peer.identity, peer.address, 0, interval, factor) for peer in group.peers
        }
        self.machine = Machine(
            group.identity,
            (group.preference, group.address),
            self.neighbors,
            interval=interval,
            factor=factor,
            start_wait=group.start_wait,
            term=term,
            now=now,
        )
        self.replication: Replication[Held] = Replication(
            tuple(self.neighbors), self.contexts.record, timeout=group.retransmission
        )
        self.hellos = Hellos(
            group,
            self.machine,
            self.neighbors,
            self.replication,
            random=random,
            now=now,
            floor=parameters.sequence_floor,
            send=self._send,
        )
        self.inquiries = Inquiries(
            group,
            self.machine,
            self.replication,
            random=random,
            digest=self.contexts.digest,
            send=self._send,
        )
        self.keys: MemberKeys | None = None
        if group.ike is not None:
            self.keys = MemberKeys(
                group,
                group.ike,
                self.channel,
                self.neighbors,
                random=random,
                now=now,
                wall=parameters.wall,
                counters=self.counters,
                greet=lambda identity, effects: self.hellos.answer(identity, effects, solicit=True),
            )
        self._exchange = StateExchange(
            self.machine,
            self.neighbors,
            self.contexts,
            self.replication,
            self.inquiries,
            counters=self.counters,
            send=self._send,
        )
        self._commits = Commits(
            self.home_agent,
            self.associations,
            self.contexts,
            self.replication,
            synchronous=group.synchronous,
            may_answer=lambda: self.machine.serves and self._lease_until > self.contexts.now,
        )
        self._reconfiguration = Reconfiguration(self.home_agent, self.machine, self.contexts)
        self._announcements = Announcements(group.announcements_per_second)
        self._claiming_until = _FOREVER
        self._lease_until = _FOREVER
        self.switch = PlannedSwitch(
            group,
            self.machine,
            self.home_agent,
            synchronized=self.replication.synchronized,
            is_flushed=lambda identity: (
                self.replication.is_flushed(identity) and not self.replication.holding
            ),
            send=self._send,
            report=self._report,
        )

    # -- inputs ------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Ask who is there."""
        self._note(now)
        self.machine.listen(now)
        effects: list[Effect] = [self.associations.reservation(), self.channel.associations.reservation()]
        effects += self.home_agent.prepare()
        self.hellos.say(now, effects, solicit=True)
        if self.keys is not None:
            self.keys.start(now)
        return effects

    def restore(self, contexts: Iterable[Context], now: float) -> list[Effect]:
        """Take what a journal has, after :meth:`start`: what counts if no other member knows better."""
        self._note(now)
        effects: list[Effect] = []
        term = self.contexts.restore(contexts, effects)
        if self.machine.term < term <= HIGHEST_TERM:
            # It was stored with that term; the term itself was lost.
            self.machine.term = term
            effects.insert(0, StoreTerm(term))
        return effects

    def stop(self, now: float) -> list[Effect]:
        """Leave the set: the others need not wait for silence."""
        self._note(now)
        effects: list[Effect] = []
        if self.machine.serves:
            effects.append(StandDown())
            self.home_agent.lending.end()
        self.machine.do(Event.STOP)
        self.hellos.say(now, effects, lifetime=0)
        if self.contexts.journal is not None:
            self.contexts.journal.drain(now, effects)
        return effects

    def receive(self, packet: bytes, now: float) -> list[Effect]:
        """A packet to the home agent address or to a mobile node."""
        self._note(now)
        if not self.machine.serves or self._lease_until <= now:
            self.counters["not_active"] += 1
            return []
        self._commits.bound()
        return self._commits.commit(self.home_agent.receive(packet, now), self.machine.term)

    def receive_member(self, source: bytes, packet: bytes, now: float) -> list[Effect]:
        """An ESP packet (from its SPI on) from another member's address to ours."""
        self._note(now)
        effects: list[Effect] = []
        if self.machine.role is Role.STOPPED:
            return effects
        try:
            identity, spi, message = self.channel.open(source, packet)
            if self.keys is not None:
                self.keys.heard(identity, spi, now, effects)
            self._take(identity, message, now, effects)
        except Refused as refused:
            self.counters[f"harp_{refused.reason}"] += 1
        return effects

    def receive_member_ike(self, datagram: bytes, source: Address, now: float) -> list[Effect]:
        """An IKE message to port 500 of our own address, from an address and port."""
        self._note(now)
        effects: list[Effect] = []
        if self.keys is not None and self.machine.role is not Role.STOPPED:
            self.keys.receive(datagram, source, now, effects)
        return effects

    def receive_unprotected(self) -> None:
        """A HARP message without ESP: dropped, whatever it says."""
        self.counters["harp_unprotected"] += 1

    def address_conflict(self, address: bytes, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.address_conflict`."""
        self._note(now)
        if not self.machine.serves:
            return []
        return self._commits.commit(self.home_agent.address_conflict(address, now), self.machine.term)

    def payload_news(self, news: PayloadNews, now: float) -> list[Effect]:
        """See :meth:`HomeAgent.payload_news`."""
        self._note(now)
        return self._commits.commit(self.home_agent.payload_news(news, now), self.machine.term)

    def flush(self, now: float) -> list[Effect]:
        """Send what the inputs since the last call have changed, grouped."""
        self._note(now)
        effects: list[Effect] = []
        self._settle(effects)
        self.switch.progress(now, effects)
        for identity, message in self.replication.poll(self.machine.term, now):
            self._send(identity, message, effects)
        if self.contexts.journal is not None:
            self.contexts.journal.poll(now, effects)
        return effects

    def journal_failed(self, why: str, now: float) -> list[Effect]:
        """There is no journal, nor anything of the one before."""
        self._note(now)
        effects: list[Effect] = []
        self.counters["journal_failures"] += 1
        self._report("journal_failed", effects, reason=why)
        if self.contexts.journal is not None:
            self.contexts.journal.fail(now)
        return effects

    def reconfigure(self, mobile_nodes: tuple[MobileNodeParameters, ...], now: float) -> list[Effect]:
        """See :meth:`Reconfiguration.configure`."""
        self._note(now)
        effects: list[Effect] = []
        for home_address in self._reconfiguration.configure(mobile_nodes, effects):
            self.replication.change(home_address)
        return effects

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` is due."""
        if self.machine.role is Role.STOPPED:
            return None
        times = [
            self.hellos.due,
            _FOREVER if self.machine.role is Role.YIELDING else self._announcements.deadline,
            self._claiming_until,
            self._lease_until,
            self.switch.deadline,
        ]
        times += [
            neighbor.fails_at
            for identity, neighbor in self.neighbors.items()
            if self.replication.peers[identity].progress is not Progress.ABSENT
        ]
        claim = self.machine.claim_at(self.contexts.now)
        if claim is not None:
            times.append(claim)
        journal = self.contexts.journal
        for deadline in (
            None if journal is None else journal.next_deadline(),
            None if self.keys is None else self.keys.next_deadline(),
            self.replication.next_deadline(),
            self.home_agent.next_deadline() if self.machine.serves else None,
        ):
            if deadline is not None:
                times.append(deadline)
        return min(times)

    def on_timer(self, now: float) -> list[Effect]:
        """Do what the clock asks for."""
        effects: list[Effect] = []
        if self.machine.role is Role.STOPPED:
            return effects
        self._note(now)
        self._check_neighbors(now, effects)
        if self._claiming_until <= now:
            self._claiming_until = _FOREVER
            self.machine.give_up(Event.CLAIM_LOST, now)
        if self.machine.serves and self._lease_until <= now:
            self._report("lease_lost", effects)
            self._stop_serving(now, effects, succeeded=False)
            self.machine.give_up(Event.LEASE_LOST, now)
        claim = self.machine.claim_at(now)
        if claim is not None and claim <= now:
            self._claim(now, effects)
        if self.machine.serves:
            yields = self.machine.role is Role.YIELDING
            for each in self.home_agent.timeouts(now):
                # The other may have said already that the home link's traffic is to go to it.
                told = [one for one in each if type(one) is not AnnounceAddress] if yields else each
                effects += self._commits.commit(told, self.machine.term)
            if not yields:
                effects += map(AnnounceAddress, self._announcements.due(now))
            for home_address in self._reconfiguration.bring_in(effects):
                self.replication.change(home_address)
        if self.hellos.due <= now:
            self.hellos.say(now, effects)
            self.inquiries.ask(now, effects)
            if self.group.preempt and self.machine.active in self.neighbors:
                self.switch.preempt(self.neighbors[self.machine.active].rank, now, effects)
        if self.keys is not None:
            self.keys.on_timer(now, effects)
        effects += self.flush(now)
        return effects

    # -- what an operator and the arbiter say ------------------------------------------------------

    def switchover(self, now: float) -> tuple[str, list[Effect]]:
        """Become active in place of the active member; why not in words, empty if that was asked for."""
        self._note(now)
        effects: list[Effect] = []
        return self.switch.ask(effects), effects

    def switchback(self, now: float, identity: int | None = None) -> tuple[str, list[Effect]]:
        """Hand over to another member, the best synchronised one by default; why not in words."""
        self._note(now)
        ready = self.replication.synchronized()
        if identity is None and ready:
            identity = max(ready, key=lambda each: self.neighbors[each].rank)
        effects: list[Effect] = []
        return self.switch.offer(identity, now, effects), effects

    def claim_answered(self, term: int, granted: bool, lease_until: float, now: float) -> list[Effect]:
        """The arbiter's answer to :class:`ClaimTerm`; ``term`` is the highest that it knows."""
        self._note(now)
        effects: list[Effect] = []
        if self.machine.role is not Role.CLAIMING:
            return effects
        self._claiming_until = _FOREVER
        if granted and lease_until > now:
            self._lease_until = lease_until
            self._become_active(term, now, effects, self.machine.instead_of)
        else:
            self.machine.term = max(self.machine.term, term)
            self.machine.give_up(Event.CLAIM_LOST, now)
        return effects

    def home_link(self, up: bool, now: float) -> None:
        """The home link lost its carrier, or has it again: who has none takes over nothing."""
        self._note(now)
        self.machine.detached = not up
        self.machine.eligible &= up

    def lease_renewed(self, lease_until: float, now: float) -> None:
        """The arbiter prolonged the lease of the active member."""
        if self.machine.serves:
            self._lease_until = max(self._lease_until, lease_until)

    def ask_ike(self, home_address: bytes, what: str, now: float) -> tuple[bool, list[Effect]]:
        """See :meth:`HomeAgent.ask_ike`; only the active member speaks for the set."""
        self._note(now)
        if not self.machine.serves:
            return False, []
        found, effects = self.home_agent.ask_ike(home_address, what, now)
        return found, self._commits.commit(effects, self.machine.term)

    def status(self, now: float) -> dict[str, object]:
        """The member in a few figures, JSON-ready."""
        machine = self.machine
        return {
            **self.home_agent.status(now),
            "group": self.group.group,
            "member": self.group.identity,
            "role": machine.role.value,
            "term": machine.term,
            "active": machine.active,
            "eligible": machine.eligible,
            "degraded": machine.serves and self.replication.alone,
            "contexts": len(self.contexts),
            "waiting": self.replication.holding,
            "members": neighbor_views(
                self.neighbors.values(),
                lambda identity: self.replication.peers[identity].progress.value,
                lambda identity: "manual" if self.keys is None else self.keys.protection(identity),
                now,
            ),
        }

    # -- messages of other members -----------------------------------------------------------------

    def _take(self, identity: int, message: Body, now: float, effects: list[Effect]) -> None:
        neighbor = self.neighbors[identity]
        if self.group.extensions and not neighbor.proved:
            self._prove(neighbor, message, now, effects)
        match message:
            case Hello():
                self._hello(identity, message, now, effects)
            case StateReply():
                self._learn(identity, message.term, now, effects)
                self._exchange.told(identity, message, now, effects)
            case StateAcknowledge():
                self._commits.let_go(self.replication.acknowledge(identity, message, now), effects)
            case StateRequest():
                self._exchange.asked(identity, message)
            case Control():
                self._learn(identity, message.term, now, effects)
                if self.switch.take(identity, message, now, effects):
                    self._claim(now, effects, planned=identity)
            case _:
                raise Refused("unexpected_message")

    def _prove(self, neighbor: Neighbor, message: Body, now: float, effects: list[Effect]) -> None:
        """The own windows are new: only a member that has heard of this start of ours speaks after it."""
        identity = neighbor.identifier
        if isinstance(message, Hello) and message.group != self.group.group:
            raise Refused("foreign_group")
        # However old a message is, nobody takes back a term.
        self._learn(identity, getattr(message, "term", None), now, effects)
        if not isinstance(message, Hello):
            raise Refused("not_proved")
        if not neighbor.prove(message, self.hellos.incarnation):
            self.hellos.answer(identity, effects, solicit=True)
            raise Refused("not_proved")
        self._close(identity, effects)

    def _close(self, identity: int, effects: list[Effect], *, restarted: bool = False) -> None:
        """Believe nothing more that a peer said before what it said last."""
        self.channel.close(identity)
        if self.keys is not None:
            self.keys.outdate(identity, effects, restarted=restarted)

    def _hello(self, identity: int, hello: Hello, now: float, effects: list[Effect]) -> None:
        if hello.group != self.group.group or not hello.virtual:
            raise Refused("foreign_group")
        self._learn(identity, hello.term, now, effects)
        neighbor = self.neighbors[identity]
        if neighbor.restarted(hello):
            self._close(identity, effects, restarted=True)
            self._check_neighbors(now, effects)
        if hello.floor > HIGHEST_FLOOR:
            self.counters["floor_bounded"] += 1
        if self.associations.skip(hello.floor, effects):
            self.home_agent.lending.recall_all(effects)
        served = neighbor.active
        if not neighbor.take(hello, now):
            raise Refused("stale_hello")
        if not hello.lifetime:
            neighbor.fail()
            self._check_neighbors(now, effects)
            return
        if self.replication.peers[identity].progress is Progress.ABSENT:
            self._appear(identity, now)
            self.inquiries.forget(identity)
            if hello.term is None:
                # It will not say what was missed.
                self.machine.complete = False
            self._report("member_appeared", effects, member=identity)
            if self.machine.serves:
                # It answers only those that it has heard.
                self.hellos.answer(identity, effects)
                self.inquiries.ask(now, effects)
        self.machine.heard(neighbor, now)
        if served and not hello.active and self.machine.serves:
            # What it said while it served may have led the home link to it.
            effects.append(AnnounceAddress(self.home_agent.address))
        if self.machine.role is not Role.CLAIMING:
            self._claiming_until = _FOREVER
        if not self.machine.serves and not hello.active and hello.term is not None:
            # Only an active member asks a standby, and only as long as it is one.
            self.replication.withdraw(identity)
        if hello.solicit:
            self.hellos.answer(identity, effects)

    def _learn(self, identity: int, term: int | None, now: float, effects: list[Effect]) -> None:
        """Whoever hears a higher term, in whatever message, stops serving at once."""
        if term is None or term <= self.machine.term:
            return
        if term > HIGHEST_TERM:
            raise Refused("term_out_of_range")
        served = self.machine.learn(term, now)
        self._claiming_until = _FOREVER
        if served:
            self._report("higher_term", effects, member=identity, term=term)
            self._stop_serving(now, effects)
        effects.append(StoreTerm(term))

    def _appear(self, identity: int, now: float) -> None:
        # A member without terms, by the draft alone, has nothing to hand over that could be told apart.
        pull_first = self.machine.serves and self.neighbors[identity].term is not None
        self.replication.appear(identity, now, pull_first=pull_first)

    # -- roles -------------------------------------------------------------------------------------

    def _claim(self, now: float, effects: list[Effect], planned: int | None = None) -> None:
        self.machine.do(Event.CLAIM)
        term = self.machine.next_term()
        if self.group.arbiter:
            self._claiming_until = now + max(2.0, 10 * self.group.hello_interval)
            self.machine.instead_of = planned
            effects.append(ClaimTerm(term, planned))
            return
        self._become_active(term, now, effects, planned)

    def _become_active(
        self, term: int, now: float, effects: list[Effect], planned: int | None = None
    ) -> None:
        """Service first: own the address, tell the link, tell the others; hygiene after."""
        self.machine.take(term)
        self.associations.begin(term)
        if self.home_agent.negotiation is not None:
            self.home_agent.negotiation.endpoint.iv_prefix = self.associations.iv_prefix
        self.switch.changed(now)
        effects += [StoreTerm(term), TakeOver()]
        effects += self.home_agent.own()
        self.hellos.say(now, effects)
        for identity, neighbor in self.neighbors.items():
            if neighbor.is_alive(now):
                self._appear(identity, now)
        if planned is not None:
            # It waited until we had all it had.
            self.replication.trust(planned)
        self.inquiries.forget_all()
        self.inquiries.ask(now, effects)
        self._settle(effects)
        self._announcements.begin(self._defended(), now)
        self._report("active", effects, term=term)
        if planned is not None:
            self._send(planned, Control(ControlType.SW_COMP, term=term), effects)

    def _defended(self) -> Iterator[bytes]:
        """Every defended address, as they are when the first is wanted: not while this member takes over."""
        for binding in list(self.home_agent.cache):
            if binding.is_bound:
                yield from binding.defended

    def _stop_serving(self, now: float, effects: list[Effect], *, succeeded: bool = True) -> None:
        """Our term is over: nothing leaves under it, what was accepted stays to be handed over."""
        effects.append(StandDown(succeeded))
        self.home_agent.lending.end()
        self.switch.changed(now)
        self._commits.let_go(self.replication.abandon(), effects)
        effects += self.home_agent.end_probes()
        for identity, peer in self.replication.peers.items():
            if peer.progress is not Progress.ABSENT:
                self.replication.appear(identity, now)
        self.inquiries.forget_all()
        self.associations.alone = False
        self._announcements.end()
        self._lease_until = _FOREVER

    def _note(self, now: float) -> None:
        """Every input comes by here: who did not run for a while cannot tell who was silent.

        What waits to be read may be a HELLO. A timer fires in every hello interval of one's own.
        """
        before = self.contexts.now
        if now - before > 1.5 * self.group.hello_interval:
            for neighbor in self.neighbors.values():
                neighbor.forgive(before, now)
        self.contexts.now = now

    def _check_neighbors(self, now: float, effects: list[Effect]) -> None:
        for identity, neighbor in self.neighbors.items():
            if self.replication.peers[identity].progress is Progress.ABSENT or neighbor.is_alive(now):
                continue
            self._commits.let_go(self.replication.vanish(identity), effects)
            self.inquiries.forget(identity)
            self._report("member_failed", effects, member=identity)
        for identity in self.replication.stalled(now):
            self._commits.let_go(self.replication.mute(identity), effects)
            self.counters["standby_stalled"] += 1
        self.machine.check(now)
        self.associations.alone = self.replication.alone

    def _settle(self, effects: list[Effect]) -> None:
        if not self.machine.serves:
            return
        caught_up = self.replication.settle()
        self.associations.alone = self.replication.alone
        if caught_up:
            self._report("synchronized", effects, members=list(self.replication.synchronized()))
            self.hellos.say(self.contexts.now, effects)

    # -- what this member says ---------------------------------------------------------------------

    def _send(self, identity: int, message: Body, effects: list[Effect]) -> None:
        try:
            self.channel.send(identity, message, effects)
        except Refused as refused:
            self.counters[f"harp_{refused.reason}"] += 1

    def _report(self, name: str, effects: list[Effect], **fields: object) -> None:
        machine = self.machine
        known: dict[str, object] = {
            "group": self.group.group,
            "role": machine.role.value,
            "term": machine.term,
        }
        effects.append(Notice(name, known | fields))
