"""The rules of atomic failover, held against every step of a run.

Made precise as follows. A *life* is a member's process from start to end. A member *counts* another one
when its answers to mobile nodes wait for that one and it calls it synchronised; it is *degraded* when they
wait for nobody. A member is *ready* when it takes over as one that had all state (``eligible``). What was
known before a takeover that was not ready may be lost with it, and to everybody who then gets all state
from that one.

R1  When a Binding Acknowledgement with success leaves with ``sync = "ack"``, every member that the sender
    counts and that believes to be eligible has that binding, or a later one. When all faults are over the
    active member of a group has, for every mobile node, the last binding that was acknowledged, or a later
    one, and it is bound as long as its lifetime lasts. Excuse: nobody who ever had it lives (an
    acknowledgement of a degraded member that died, or all its holders died).
R2  What a member applies is byte for byte what some member exported under that (home address, term,
    generation), and what it then has is that, binding and SAs. The same is asked of all contexts that a
    member has not changed itself when it takes over.
R3  No (key, sequence number) and no (key, counter IV) leaves twice, whoever sends, to mobile nodes or to
    members. A mobile node never refuses a fresh packet of the latest term as a replay. Excuse: the number
    that makes it look old was sent when a higher term had been taken (split), or by a member that did not
    count the new one, or before a takeover that was not ready.
R4  No member opens an ESP packet of a mobile node that another life has opened; for signalling, opened
    counts from when its answer left. Excuses: the first was degraded then, did not count this one, or
    answered before replication (``sync = "async"``, signalling); it opened when a higher term had been taken
    (split), or before a takeover that was not ready.
R5  One member for each term. Who serves does so under the term it took last. A message with a higher term
    makes it stop. A message from a lower term installs nothing, an older version replaces none. With an
    arbiter nobody serves without a lease.
R6  Owning the home agent address comes first, and what is done until then does not depend on the number of
    mobile nodes.
R7  What was delivered before, was sent to another life or member, or is forged changes nothing, except that
    a term which it is the first to tell of is higher at any time. A member yields to another one's request
    only after its hold-down. When all faults are over roles change no more, but for one pre-emption.

At the end, when all faults are over: one active member in each group, every other one eligible, every mobile
node registered there. Excuse: the highest number that it has seen came from a member that is gone for good.

Members that speak the draft alone have neither terms nor contexts: of them only R3, R6 and the end are asked,
and what was acknowledged.

Not covered: rule 8 (keys at rest), payload that is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from mip6ha.effects import AnnounceAddress, Effect, Event, SendToMember, TakeOver
from mip6ha.failover.states import Role
from mip6ha.harp.messages import parse as parse_message
from mip6ha.wire import Refused

from . import observe
from .life import Life
from .network import Datagram
from .packets import Packets
from .records import Records
from .violation import Violation

__all__ = ["Checker", "Judge"]

Judge = tuple[bool, object, int]
"""Before a message that may change nothing: True, what the member was, the term it knew."""


class Checker:
    """All rules over all groups of one run; those of ``records`` and ``packets`` have files of their own."""

    def __init__(self) -> None:
        self.records = Records()
        self.packets = Packets()
        self._terms: dict[tuple[int, int], Life] = {}
        self._late: Counter[int] = Counter()
        self._eligible = False
        self.takeovers = self.replays = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hear of every export and every installation of a context meanwhile."""
        with observe.to(self.records):
            yield

    # -- steps -------------------------------------------------------------------------------------

    def before_step(self, life: Life) -> None:
        """A member is about to be given something."""
        self._eligible = life.member.machine.eligible
        if life.member.machine.role is Role.YIELDING or life.member.machine.role is Role.ACTIVE:
            self._eligible = False

    def after_step(self, life: Life) -> None:
        """R5: who serves does so under its own last term."""
        machine = life.member.machine
        if machine.serves and (not life.takeovers or machine.term != next(reversed(life.takeovers))):
            raise Violation("R5", f"{life} serves under term {machine.term:#x}, which it did not take")
        if machine.serves != life.seat.owns:
            raise Violation("R5", f"{life} is {machine.role.value}, but owns the address: {life.seat.owns}")
        if machine.eligible and not machine.serves:
            for other in life.seat.group.lives:
                if other.seat.identity == machine.active and other.serves:
                    life.knows_since = other.knows_since

    def yields(self, life: Life) -> None:
        """R7: a member begins to hand over because another one asked."""
        since = life.world.now - max(life.takeovers.values())
        if since < life.seat.group.plan.hold_down * 0.99:
            raise Violation("R7", f"{life} yields {since:.3f} s after it took over")

    def takeover_effects(self, life: Life, effects: list[Effect]) -> None:
        """R6: the order and the number of effects of a takeover."""
        kinds = [type(effect) for effect in effects]
        start = kinds.index(TakeOver)
        members = len(life.seat.group.seats)
        group_address = life.seat.group.address
        announced = [effect.address for effect in effects if isinstance(effect, AnnounceAddress)]
        if start > 4 + 2 * members:
            raise Violation("R6", f"{life} does {start} other things before it takes over")
        if not announced or announced[0] != group_address:
            raise Violation("R6", f"{life} announces another address before that of the home agent")
        end = next(
            index
            for index, effect in enumerate(effects)
            if isinstance(effect, Event) and effect.name == "active" and index > start
        )
        if end - start > 6 + 4 * members:
            raise Violation("R6", f"{life} needs {end - start} effects to take over")
        if AnnounceAddress in kinds[:start]:
            raise Violation("R6", f"{life} announces before it owns")

    def took_over(self, life: Life) -> None:
        """R5 and R2: a member takes over."""
        term, group = life.member.machine.term, life.seat.group
        self.takeovers += 1
        world = life.world
        if world.now > world.plan.faulty + world.plan.settle:
            self._late[group.plan.number] += 1
            if self._late[group.plan.number] > group.plan.preempt:
                raise Violation("R7", f"{life} takes over though nothing is wrong")
        holder = self._terms.setdefault((group.plan.number, term), life)
        if holder is not life:
            raise Violation("R5", f"{life} and {holder} have the same term {term:#x}")
        life.takeovers[term] = life.world.now
        if not self._eligible:
            life.knows_since = life.world.now
        self.records.took_over(life)
        self.packets.took_over(life, term)
        life.world.attacker.took_over(life)

    # -- messages between members ------------------------------------------------------------------

    def before_message(self, life: Life, datagram: Datagram, bringer: str) -> Judge | None:
        """Look at a member that a message is about to reach."""
        self.records.delivering = datagram
        stale = datagram.arrived or datagram.sender is None or life.started_at > datagram.sent_at
        if not life.seat.group.plan.extensions and life.started_at > datagram.sent_at:
            # The draft has nothing against replays to a member that has been restarted.
            return None
        if stale or bringer != "network":
            if not stale and bringer == "attacker" and self.is_for(life, datagram):
                # Recorded, and it never arrived: the attacker has only delayed it.
                return None
            self.replays += 1
            return True, self._state(life), life.member.machine.term
        return None

    def is_for(self, life: Life, datagram: Datagram) -> bool:
        """Whether a message was sent to the member that this is a life of."""
        return datagram.addressee is life.seat

    def after_message(
        self, life: Life, datagram: Datagram, bringer: str, judge: Judge | None, effects: list[Effect]
    ) -> None:
        """R7 and R5: what the message did."""
        self.records.delivering = None
        machine = life.member.machine
        if judge is not None and not self._tells_term(life, datagram, judge[2]):
            kinds = [type(effect) for effect in effects if not isinstance(effect, SendToMember | Event)]
            if kinds or self._state(life) != judge[1]:
                raise Violation(
                    "R7",
                    f"{life} changed through a message from {datagram.sender} of {datagram.sent_at:.4f} that "
                    f"the {bringer} brought: {judge[1]} -> {self._state(life)} {kinds}",
                )
        elif machine.serves and machine.term < datagram.term and not datagram.arrived:
            term = self._term_of(life, datagram)
            if term is not None and term > machine.term:
                raise Violation(
                    "R5",
                    f"{life} serves under {machine.term:#x} and has heard {term:#x} from {datagram.sender}",
                )

    def _tells_term(self, life: Life, datagram: Datagram, known: int) -> bool:
        """Whether a message, though old, was the first to tell of a term: that is true at any time."""
        if life.member.machine.term <= known or datagram.sender is None:
            return False
        term = self._term_of(life, datagram)
        return term is not None and term > known

    def _state(self, life: Life) -> object:
        member = life.member
        machine = member.machine
        return (
            machine.role,
            machine.term,
            machine.active,
            machine.eligible,
            machine.orphaned,
            # Whatever wakes a member after a pause, it forgives the others some silence.
            tuple((0.0 if life.idled else each.heard, each.sequence) for each in member.neighbors.values()),
            tuple(each.progress for each in member.replication.peers.values()),
            hash(member.contexts.digest()),
            member.replication.holding,
        )

    def _term_of(self, life: Life, datagram: Datagram) -> int | None:
        """The term that stands in a message."""
        sender = datagram.sender
        assert sender is not None
        group = life.seat.group
        keys = group.keys[sender.seat.identity, life.seat.identity]
        association = life.member.channel.associations.inbound(int.from_bytes(datagram.octets[:4], "big"))
        assert association is not None
        try:
            plaintext = association.transform.open(keys, datagram.octets, b"")
        except Refused:
            # It is for somebody else.
            return None
        octets = plaintext[: len(plaintext) - 2 - plaintext[-2]]
        source, destination = group.addresses[sender.seat.identity], group.addresses[life.seat.identity]
        message = parse_message(octets, source, destination)
        term = getattr(message, "term", None)
        return term if isinstance(term, int) else None
