"""The rules of atomic failover, held against every step of a run.

Made precise as follows. A *life* is a member's process from start to end. A member *counts* another one when
its answers to mobile nodes wait for that one and it calls it synchronised; it is *degraded* when they wait for
nobody. A member is *ready* when it takes over as one that had all state (``eligible``); what its active members
of old knew is lost with a takeover that was not ready, and whoever gets all state from that one is excused too.

R1  When a Binding Acknowledgement with success leaves with ``sync = "ack"``, every member that the sender counts
    and that believes to be eligible has that binding, or a later one. When all faults are over the active member
    of a group has, for every mobile node, the last binding that was acknowledged, or a later one, and it is bound
    as long as its lifetime lasts. Excuse: nobody who ever had it lives (an acknowledgement of a degraded member
    that died, or all its holders died).
R2  What a member applies is byte for byte what some member exported under that (home address, term, generation),
    and what it then has is that, binding and SAs. The same is asked of all contexts that a member has not
    changed itself when it takes over.
R3  No (key, sequence number) and no (key, counter IV) leaves twice, whoever sends, to mobile nodes or to members.
    A mobile node never refuses a fresh packet of the latest term as a replay. Excuse: the number that makes it
    look old was sent after the takeover (split), or by a member that did not count the new one, or that was not ready.
R4  No member opens an ESP packet of a mobile node that another life has opened; for signalling, opened counts from
    when its answer left. Excuses: the first was degraded then, did not count this one, or answered before
    replication (``sync = "async"``, signalling); it opened after this one took over (split); this one was not ready.
R5  One member for each term. Who serves does so under the term it took last. A message with a higher term makes it
    stop. A message from a lower term installs nothing. With an arbiter nobody serves without a lease.
R6  Owning the home agent address comes first, and what is done until then does not depend on the number of
    mobile nodes.
R7  What was delivered before, was sent to another life or member, or is forged changes nothing, except that a term
    which it is the first to tell of is higher at any time.

At the end, when all faults are over: one active member in each group, every other one eligible, every mobile
node registered there. Excuse: the highest number that it has seen came from a member that is gone for good.

Not covered: rule 8 (keys at rest), payload that is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from mip6ha.binding import messages
from mip6ha.binding.messages import ACCEPTED, LIFETIME_UNIT, BindingAcknowledgement
from mip6ha.effects import AnnounceAddress, Effect, Event, SendToMember, TakeOver
from mip6ha.failover.context import BindingState, Context, Version, decode, encode
from mip6ha.failover.states import Role
from mip6ha.harp.messages import parse as parse_message
from mip6ha.harp.sync import Progress
from mip6ha.ipsec.policy import Mode
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, MOBILITY, ROUTING
from mip6ha.node import HomeAgent

from . import observe
from .life import Life
from .mobile import Ack, MobileNode
from .network import Datagram

if TYPE_CHECKING:
    from .host import Seat
    from .world import Group, World

__all__ = ["Checker", "Violation"]

_KEPT_ACKS = 6


class Violation(Exception):
    """A rule was broken."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


class _Opened(NamedTuple):
    """Who opened a mobile node's packet first, and when. ``counted`` are the members it relied on."""

    life: Life
    at: float
    excused: bool
    counted: frozenset[int]


Judge = tuple[bool, object, int]
"""Before a message that may change nothing: True, what the member was, the term it knew."""


def ahead(sequence: int, other: int) -> bool:
    """Whether ``sequence`` is ``other`` or later, modulo 2^16 (RFC 6275 9.5.1)."""
    return (sequence - other) & 0xFFFF < 0x8000


class Checker:
    """All rules over all groups of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives: dict[int, Life] = {}
        self._exported: dict[tuple[int, bytes, Version], set[bytes]] = {}
        self._used: dict[tuple[object, int], tuple[Life, float]] = {}
        self._nonces: dict[tuple[object, bytes], Life] = {}
        self._terms: dict[tuple[int, int], Life] = {}
        self._opened: dict[tuple[int, int, int], _Opened] = {}
        self._installed: dict[tuple[Life, bytes], Version] = {}
        self._delivering: tuple[Life, Datagram] | None = None
        self._eligible = False
        self.acknowledgements = self.refusals = self.takeovers = self.replays = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hear of every export and every installation of a context meanwhile."""
        with observe.to(self):
            yield

    def born(self, life: Life) -> None:
        """A life begins."""
        self._lives[id(life.member.home_agent)] = life

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
        holder = self._terms.setdefault((group.plan.number, term), life)
        if holder is not life:
            raise Violation("R5", f"{life} and {holder} have the same term {term:#x}")
        life.takeovers[term] = self._world.now
        if not self._eligible:
            life.knows_since = self._world.now
        for home_address in group.by_home_address:
            version = life.member.version(home_address)
            if version is not None and self._installed.get((life, home_address)) == version:
                self._compare(life, home_address, version)
        self._world.attacker.took_over(life)

    # -- contexts (called by ``observe``) ----------------------------------------------------------

    def exported(self, home_agent: HomeAgent, context: Context) -> None:
        """A member reads one of its records, to send it."""
        life = self._lives.get(id(home_agent))
        if life is not None:
            key = life.seat.group.plan.number, context.home_address, context.version
            self._exported.setdefault(key, set()).add(_lasting(context))

    def installing(self, home_agent: HomeAgent, context: Context) -> None:
        """R2 and R5: a member is about to take in a record."""
        life = self._lives.get(id(home_agent))
        if life is None:
            return
        group = life.seat.group
        known = self._exported.get((group.plan.number, context.home_address, context.version), ())
        if _lasting(context) not in known:
            raise Violation("R2", f"{life} applies what nobody exported: {_named(group, context)}")
        had = life.member.version(context.home_address)
        if had is not None and context.version <= had:
            raise Violation("R5", f"{life} replaces {had} by the older {context.version}")
        if self._delivering is not None and not life.member.machine.serves:
            datagram = self._delivering[1]
            if datagram.term < life.member.machine.term:
                raise Violation(
                    "R5",
                    f"{life} at term {life.member.machine.term:#x} applies what {datagram.sender} sent under "
                    f"{datagram.term:#x}",
                )

    def installed(self, home_agent: HomeAgent, context: Context) -> None:
        """R2: what is there now is what came, whole."""
        life = self._lives.get(id(home_agent))
        if life is None:
            return
        self._installed[life, context.home_address] = context.version
        now = life.seat.host.clock()
        here = observe.export(home_agent, context.home_address, context.version, now)
        if _lasting(here) != _lasting(context):
            raise Violation("R2", f"{life} applied {_named(life.seat.group, context)} in part")

    def bound(self, home_agent: HomeAgent, home_address: bytes, state: BindingState | None) -> None:
        """A member took in a binding: it holds what was acknowledged until then."""
        life = self._lives.get(id(home_agent))
        if life is None or state is None:
            return
        mobile_node = life.seat.group.by_home_address[home_address]
        for ack in mobile_node.acks:
            if ahead(state.sequence, ack.sequence):
                ack.holders.add(life)

    def _compare(self, life: Life, home_address: bytes, version: Version) -> None:
        group = life.seat.group
        known = self._exported.get((group.plan.number, home_address, version), ())
        here = observe.export(life.member.home_agent, home_address, version, life.seat.host.clock())
        binding = here.binding
        if binding is not None and not binding.bound and not binding.ended:
            # Its lifetime is over by now: only the rest can be compared.
            known = {_lasting(_unbound(decode(each))) for each in known}
        if _lasting(here) not in known:
            raise Violation("R2", f"{life} takes over with a context that nobody sent: {_named(group, here)}")

    # -- messages between members ------------------------------------------------------------------

    def message_leaves(self, life: Life, seat: Seat, datagram: Datagram) -> None:
        """R3 between members."""
        self._once((life.seat, seat), datagram.octets, life, counter_iv=True)

    def before_message(self, life: Life, datagram: Datagram, bringer: str) -> Judge | None:
        """Look at a member that a message is about to reach."""
        self._delivering = life, datagram
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
        self._delivering = None
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
            tuple((each.heard, each.sequence, each.active) for each in member.neighbors.values()),
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
        plaintext = association.transform.open(keys, datagram.octets, b"")
        octets = plaintext[: len(plaintext) - 2 - plaintext[-2]]
        source, destination = group.addresses[sender.seat.identity], group.addresses[life.seat.identity]
        message = parse_message(octets, source, destination)
        term = getattr(message, "term", None)
        return term if isinstance(term, int) else None

    # -- packets of mobile nodes -------------------------------------------------------------------

    def before_packet(self, life: Life, datagram: Datagram) -> SecurityAssociation | None:
        """The SA that would open a packet, and how many it has opened."""
        if not datagram.spi:
            return None
        group = life.seat.group
        association = life.member.associations.database.inbound(group.address, datagram.spi)
        if association is not None:
            self._packets = association.packets
        return association

    def after_packet(
        self, life: Life, datagram: Datagram, bringer: str, association: SecurityAssociation | None
    ) -> None:
        """R4: whether a packet was opened that had been opened before."""
        if association is None or association.packets == self._packets:
            return
        self._needs_lease(life)
        if bringer == "forger":
            raise Violation("R7", f"{life} opened a forged packet")
        key = life.seat.group.plan.number, datagram.spi, datagram.sequence
        before = self._opened.get(key)
        if before is not None and (before.life is life or not self._may_repeat(life, before)):
            raise Violation(
                "R4",
                f"{life} opened number {datagram.sequence} of SA {datagram.spi:#x}, which {before.life} opened "
                f"(and answered) at {before.at:.4f}",
            )
        if association.mode is Mode.TUNNEL and before is None:
            self._opened[key] = self._note(life, excused=life.member.replication.alone)

    def _needs_lease(self, life: Life) -> None:
        if life.seat.host.clock() > life.lease_until:
            raise Violation("R5", f"{life} serves mobile nodes, but its lease is over")

    def _note(self, life: Life, *, excused: bool) -> _Opened:
        return _Opened(life, self._world.now, excused, self._counted(life))

    def _counted(self, life: Life) -> frozenset[int]:
        return frozenset(
            identity
            for identity, peer in life.member.replication.peers.items()
            if peer.progress is Progress.SYNCHRONIZED and not peer.is_mute
        )

    def _may_repeat(self, life: Life, before: _Opened) -> bool:
        term = life.member.machine.term
        return (
            before.excused
            or not life.seat.group.plan.extensions
            or life.seat.identity not in before.counted
            or before.at >= life.takeovers.get(term, 0.0)
            or before.at < life.knows_since
        )

    def packet_leaves(self, life: Life, datagram: Datagram) -> None:
        """R3 towards mobile nodes; R1 and R4 if it is a Binding Acknowledgement."""
        packet = datagram.octets
        if packet[6] == ESP:
            at = 40
        elif packet[6] == ROUTING and packet[40] == ESP:
            at = 64
        else:
            return
        group = life.seat.group
        self._needs_lease(life)
        datagram.counted = self._counted(life)
        datagram.spi = int.from_bytes(packet[at : at + 4], "big")
        datagram.sequence = int.from_bytes(packet[at + 4 : at + 8], "big")
        mobile_node = group.by_spi[datagram.spi]
        association = mobile_node.inbound[datagram.spi]
        transform = association.transform
        self._once((group, datagram.spi), packet[at:], life, counter_iv=transform.counter_iv)
        if association.mode is Mode.TUNNEL:
            return
        plaintext = transform.open(association.keys, packet[at:], bytes(4) if association.esn else b"")
        octets = plaintext[: len(plaintext) - 2 - plaintext[-2]]
        if plaintext[-1] == MOBILITY:
            message = messages.parse(octets, group.address, mobile_node.home_address)
            if isinstance(message, BindingAcknowledgement):
                self._answer_leaves(life, mobile_node, message)

    def _once(self, key: object, packet: bytes, life: Life, *, counter_iv: bool) -> None:
        number = int.from_bytes(packet[4:8], "big")
        used = self._used.setdefault((key, number), (life, self._world.now))
        if used != (life, self._world.now) or (counter_iv and (key, packet[8:16]) in self._nonces):
            raise Violation(
                "R3", f"{life} sends number {number} of {key}, which {used[0]} sent at {used[1]:.4f}"
            )
        if counter_iv:
            self._nonces[key, packet[8:16]] = life

    def _answer_leaves(self, life: Life, mobile_node: MobileNode, answer: BindingAcknowledgement) -> None:
        if answer.status >= ACCEPTED:
            self.refusals += 1
            return
        self.acknowledgements += 1
        sequence, plan = answer.sequence, life.seat.group.plan
        relies = not life.member.replication.alone and plan.synchronous
        opened = mobile_node.sent.get(sequence)
        if opened is not None:
            spi = next(iter(mobile_node.outbound.values())).spi
            note = self._note(life, excused=not relies)
            self._opened.setdefault((plan.number, spi, opened), note)
        lasts = answer.lifetime * LIFETIME_UNIT
        ack = Ack(sequence, self._world.now + lasts if lasts else 0.0, life, self._world.now)
        counted = self._counted(life)
        for other in life.seat.group.lives:
            binding = other.member.home_agent.cache.get(mobile_node.home_address)
            has = binding is not None and binding.sequence >= 0 and ahead(binding.sequence, sequence)
            if has:
                ack.holders.add(other)
            elif other is life:
                raise Violation("R1", f"{life} acknowledged {sequence} to {mobile_node} and does not have it")
            elif relies and other.seat.identity in counted and self._would_take_over(other, life):
                raise Violation(
                    "R1", f"{life} acknowledged {sequence} to {mobile_node}, but {other} does not have it"
                )
        mobile_node.acks.append(ack)
        del mobile_node.acks[:-_KEPT_ACKS]

    def _would_take_over(self, other: Life, active: Life) -> bool:
        machine = other.member.machine
        return (
            machine.eligible
            and machine.role is Role.STANDBY
            and machine.active == active.seat.identity
            and machine.term == active.member.machine.term
        )

    def fresh_refused(self, mobile_node: MobileNode, datagram: Datagram, top: Datagram | None) -> None:
        """R3: a mobile node takes a packet for a replay that it never got."""
        life = datagram.sender
        assert life is not None
        if top is None or top.sender is None or top.term > datagram.term:
            return
        taken = life.takeovers.get(datagram.term, 0.0)
        if top.sender is life and top.sent_at >= datagram.sent_at:
            # The later one arrived first, and jumped: the member had heard of numbers used before.
            return
        split = top.term < datagram.term and (
            top.sent_at >= taken or life.seat.identity not in top.counted or top.sent_at < life.knows_since
        )
        if not split and mobile_node.group.plan.synchronous and mobile_node.group.plan.extensions:
            raise Violation(
                "R3",
                f"{mobile_node} refused number {datagram.sequence} of {life} (term {datagram.term:#x}) after "
                f"{top.sequence} of {top.sender} (term {top.term:#x}, {top.sent_at:.4f})",
            )

    def binding_acknowledged(self, mobile_node: MobileNode, answer: BindingAcknowledgement) -> None:
        """No answer names a Binding Update that was never sent."""
        if answer.sequence not in mobile_node.sent:
            raise Violation(
                "R1", f"{mobile_node} hears of sequence number {answer.sequence}, which it never sent"
            )

    # -- when all faults are over ------------------------------------------------------------------

    def active_of(self, group: Group) -> Life:
        """Liveness: the one active member."""
        serving = [life for life in group.lives if life.serves]
        if len(serving) != 1:
            roles = {str(life): life.member.machine.role.value for life in group.lives}
            raise Violation(
                "liveness", f"group {group.plan.number} has {len(serving)} active members: {roles}"
            )
        return serving[0]

    def nothing_lost(self, group: Group) -> None:
        """R1, once all is quiet and before the mobile nodes say anything new."""
        if not any(True for _ in group.lives):
            return
        active = self.active_of(group)
        for mobile_node in group.mobile_nodes:
            for ack in mobile_node.acks:
                if any(isinstance(each, Life) and each.alive for each in ack.holders):
                    self._check_kept(active, mobile_node, ack)

    def _check_kept(self, active: Life, mobile_node: MobileNode, ack: Ack) -> None:
        binding = active.member.home_agent.cache.get(mobile_node.home_address)
        holders = [str(each) for each in ack.holders if isinstance(each, Life) and each.alive]
        said = f"what {ack.by} acknowledged to {mobile_node} at {ack.at:.4f} (number {ack.sequence}, held by {holders})"
        if binding is None or binding.sequence < 0 or not ahead(binding.sequence, ack.sequence):
            has = None if binding is None else binding.sequence
            raise Violation("R1", f"{active} lost {said}: it has {has}")
        if binding.sequence == ack.sequence and ack.ends > self._world.now + 2 and not binding.is_bound:
            raise Violation("R1", f"{active} ended {said}, {ack.ends - self._world.now:.1f} s too early")

    def in_order(self, group: Group) -> None:
        """Liveness, at the very end."""
        if not group.lives:
            return
        active, plan = self.active_of(group), group.plan
        for life in group.lives:
            machine = life.member.machine
            ready = machine.eligible or not group.plan.extensions
            if life is not active and not (machine.role is Role.STANDBY and ready):
                raise Violation(
                    "liveness",
                    f"{life} is {machine.role.value}, active {machine.active}, eligible {machine.eligible}",
                )
        for mobile_node in group.mobile_nodes:
            binding = active.member.home_agent.cache.get(mobile_node.home_address)
            senders = [top.sender for top in mobile_node.tops.values() if top.sender is not None]
            if any(each.seat.host.gone or (each is not active and not plan.extensions) for each in senders):
                # It may have last heard numbers that only the one knew who is gone for good.
                continue
            if not mobile_node.is_registered or binding is None or not binding.is_bound:
                raise Violation(
                    "liveness",
                    f"{mobile_node} is {mobile_node.registration.state.value}, its binding at {active} is "
                    f"{None if binding is None else (binding.state.value, binding.sequence)}, "
                    f"it sent {mobile_node.sequence}",
                )
        self.nothing_lost(group)


def _unbound(context: Context) -> Context:
    binding = context.binding
    if binding is None:
        return context
    return replace(context, binding=replace(binding, bound=False, ended=False, lifetime=0, prefixes=()))


def _lasting(context: Context) -> bytes:
    """A record without what only tells the time."""
    binding = context.binding
    if binding is not None:
        context = replace(context, binding=replace(binding, remaining=0))
    return encode(context)


def _named(group: Group, context: Context) -> str:
    return f"{group.by_home_address[context.home_address]} {context.version}"
