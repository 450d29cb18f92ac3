"""Members of one redundant set on a simulated clock and network, and a model of each one's dataplane.

Messages take ``delay`` seconds. ``cut`` holds directions that lose everything, ``lose`` says which others
are lost. Every packet to a mobile node is in ``answers``, every message in ``said``, opened; where members
negotiate their SAs, every IKE message in ``exchanged``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import permutations
from typing import Any, NamedTuple

from mip6ha import effects
from mip6ha.binding.messages import BindingAcknowledgement
from mip6ha.effects import Effect
from mip6ha.harp import messages
from mip6ha.harp.messages import Body
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, Transform
from mip6ha.ipsec.ike.numbers import PORT
from mip6ha.ipsec.ike.parameters import Parameters as IkeParameters
from mip6ha.ipsec.policy import Direction, Mode, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import MOBILITY
from mip6ha.member import Member
from mip6ha.parameters import AssociationParameters, GroupParameters, HomeAgentParameters, PeerParameters
from mip6ha.wire import address

from ..node.world import GCM, HOME_AGENT, HOME_PREFIX, Dataplane, MobileNode, keys_of, seeded

GROUP = 1
INTERVAL = 0.01
START_WAIT = 0.1


def home(index: int) -> bytes:
    """The home address of a mobile node of these tests."""
    return address(f"2001:db8:a::{0x100 + index:x}")


def member_address(identity: int) -> bytes:
    return address(f"2001:db8:e::{identity:x}")


def harp_spi(source: int, destination: int) -> int:
    return 0x300 + 16 * source + destination


def mobile_node(index: int = 0, *uses: Use, **settings: Any) -> MobileNode:
    uses = uses or (Use.SIGNALLING,)
    return MobileNode(home(index), *uses, spi=0x10000 + 16 * index, name=f"mn{index}", **settings)


class Answer(NamedTuple):
    """A packet that a member sent to a mobile node, or out of a tunnel."""

    time: float
    member: int
    packet: bytes


class Said(NamedTuple):
    """A message between members, at the moment it was sent; ``packet`` as it was on the wire."""

    time: float
    source: int
    destination: int
    message: Body
    packet: bytes


class Exchanged(NamedTuple):
    """An IKE message between members, at the moment it was sent."""

    time: float
    source: int
    destination: int
    octets: bytes


class Notice(NamedTuple):
    """Something a member reported."""

    time: float
    member: int
    name: str
    fields: dict[str, object]


class MemberDataplane(Dataplane):
    """A dataplane that may be switched off, and stable storage."""

    def __init__(self) -> None:
        super().__init__()
        self.owns = False
        self.term = 0

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case effects.ReserveSequences(limit):
                # Two kinds of SAs share the mark.
                self.reserved = max(self.reserved, limit)
            case effects.TakeOver():
                self.owns = True
            case effects.StandDown():
                self.owns = False
                self.lent.clear()
            case effects.StoreTerm(term):
                assert term > self.term
                self.term = term
            case effects.SetTunnel(home_address, care_of_address):
                # Networks that went leave a tunnel that is set again.
                self.tunnels[home_address] = care_of_address
            case effects.AnnounceAddress() | effects.SendPacket():
                assert self.owns
                super().carry_out(effect)
            case _:
                super().carry_out(effect)


def group_parameters(
    identity: int, members: Iterable[int], keys: Callable[[int, int], Keys], **settings: Any
) -> GroupParameters:
    negotiated = settings.get("ike") is not None
    peers = tuple(
        PeerParameters(
            other,
            member_address(other),
            ()
            if negotiated
            else (
                AssociationParameters(
                    harp_spi(identity, other), Direction.OUT, Use.HARP, GCM, keys(identity, other)
                ),
                AssociationParameters(
                    harp_spi(other, identity), Direction.IN, Use.HARP, GCM, keys(other, identity)
                ),
            ),
        )
        for other in members
        if other != identity
    )
    chosen: dict[str, Any] = {
        "preference": 100 - identity,
        "hello_interval": INTERVAL,
        "start_wait": START_WAIT,
    } | settings
    return GroupParameters(GROUP, identity, member_address(identity), peers, **chosen)


def harp_keys(source: int, destination: int) -> Keys:
    return keys_of(GCM, harp_spi(source, destination))


class World:
    """A set of ``members`` that serve ``nodes``; ``settings`` are fields of every member's group parameters,
    ``each`` those of single ones, ``agent`` those of the home agent's parameters. With ``ike``, which has the
    parameters of a member's endpoint, the members negotiate their SAs.
    """

    def __init__(
        self,
        *nodes: MobileNode,
        members: int = 2,
        start: bool = True,
        delay: float = 0.001,
        each: dict[int, dict[str, Any]] | None = None,
        agent: dict[str, Any] | None = None,
        ike: Callable[[int], IkeParameters] | None = None,
        **settings: Any,
    ) -> None:
        self.now = 1000.0
        self.delay = delay
        self.identities = tuple(range(1, members + 1))
        self.nodes = nodes
        self.groups = {
            identity: group_parameters(
                identity,
                self.identities,
                harp_keys,
                **({"ike": ike(identity)} if ike is not None else {}),
                **(settings | (each or {}).get(identity, {})),
            )
            for identity in self.identities
        }
        self._agent: dict[str, Any] = {
            "home_prefixes": (HOME_PREFIX,),
            "duplicate_address_detection": False,
        } | (agent or {})
        self.members: dict[int, Member] = {}
        self.planes: dict[int, MemberDataplane] = {}
        self.terms = dict.fromkeys(self.identities, 0)
        self.floors = dict.fromkeys(self.identities, 0)
        self.lives = dict.fromkeys(self.identities, 0)
        self.cut: set[tuple[int, int]] = set()
        self.lose: Callable[[Said], bool] = lambda said: False
        self.late: Callable[[Said], float] = lambda said: 0.0
        self.lose_ike: Callable[[Exchanged], bool] = lambda exchanged: False
        self.late_ike: Callable[[Exchanged], float] = lambda exchanged: 0.0
        self.exchanged: list[Exchanged] = []
        self._negotiated = ike is not None
        self._keys: dict[int, tuple[Transform, Keys]] = {}
        self.answers: list[Answer] = []
        self.said: list[Said] = []
        self.notices: list[Notice] = []
        self.claims: list[tuple[int, int]] = []
        self.used: set[tuple[int, int, bytes]] = set()
        self._queue: list[tuple[float, int, int, int, bytes, bool]] = []
        self._count = 0
        self._identities = {member_address(each): each for each in self.identities}
        if start:
            for identity in self.identities:
                self.start(identity)

    # -- members -----------------------------------------------------------------------------------

    def parameters(self, identity: int) -> HomeAgentParameters:
        return HomeAgentParameters(
            address=HOME_AGENT,
            mobile_nodes=tuple(node.parameters for node in self.nodes),
            sequence_floor=self.floors[identity],
            **self._agent,
        )

    def start(self, identity: int) -> Member:
        """Start a member with what is on its stable storage."""
        self.lives[identity] += 1
        member = Member(
            self.parameters(identity),
            self.groups[identity],
            seeded(f"member {identity} {self.lives[identity]}"),
            self.now,
            self.terms[identity],
        )
        self.members[identity] = member
        self.planes[identity] = plane = MemberDataplane()
        plane.term, plane.reserved = self.terms[identity], self.floors[identity]
        self.carry_out(identity, member.start(self.now))
        return member

    def kill(self, identity: int) -> Member:
        """The process is gone, at once; what it was."""
        self.terms[identity] = self.planes[identity].term
        self.floors[identity] = self.planes[identity].reserved
        return self.members.pop(identity)

    def stop(self, identity: int) -> None:
        self.carry_out(identity, self.members[identity].stop(self.now))
        self.kill(identity)

    def member(self, identity: int) -> Member:
        return self.members[identity]

    @property
    def serving(self) -> list[int]:
        return [identity for identity, member in self.members.items() if member.machine.serves]

    @property
    def active(self) -> int:
        """The one member that serves."""
        (identity,) = self.serving
        return identity

    @property
    def standby(self) -> int:
        """The one member that lives and does not serve."""
        (identity,) = (each for each in self.members if each != self.active)
        return identity

    def split(self, *side: int) -> None:
        """Cut ``side`` off from all others, both ways."""
        for one in side:
            for other in self.identities:
                if other not in side:
                    self.cut |= {(one, other), (other, one)}

    # -- time --------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._step(end):
            pass
        self.now = end

    def until(self, condition: Callable[[], object], most: float = 5.0) -> float:
        """Let time pass until ``condition``; how long that took."""
        begin = self.now
        while not condition():
            assert self.now - begin <= most, "it never came"
            assert self._step(begin + most + 1), "nothing happens any more"
        return self.now - begin

    def _step(self, end: float) -> bool:
        """The next thing that happens until ``end``, if any."""
        timers = [
            (deadline, identity)
            for identity, member in self.members.items()
            if (deadline := member.next_deadline()) is not None
        ]
        due, identity = min(timers, default=(float("inf"), 0))
        if self._queue and self._queue[0][0] <= due:
            if self._queue[0][0] > end:
                return False
            self.now, _, source, destination, packet, is_ike = heappop(self._queue)
            if destination in self.members and (source, destination) not in self.cut:
                receive = self.receive_member_ike if is_ike else self.receive_member
                receive(source, destination, packet)
            return True
        if due > end:
            return False
        self.now = max(self.now, due)
        self.carry_out(identity, self.members[identity].on_timer(self.now))
        return True

    # -- packets -----------------------------------------------------------------------------------

    def receive_member(self, source: int, destination: int, packet: bytes) -> None:
        """A member's message arrives, now."""
        member = self.members[destination]
        self.carry_out(destination, member.receive_member(member_address(source), packet, self.now))
        self.flush(destination)

    def receive_member_ike(self, source: int, destination: int, datagram: bytes) -> None:
        """A member's IKE message arrives, now."""
        there = member_address(source), PORT
        self.carry_out(destination, self.members[destination].receive_member_ike(datagram, there, self.now))
        self.flush(destination)

    def receive(self, packet: bytes, identity: int | None = None) -> None:
        """A packet to the home agent or a mobile node arrives, at the active member by default."""
        identity = self.active if identity is None else identity
        self.carry_out(identity, self.members[identity].receive(packet, self.now))
        self.flush(identity)

    def flush(self, identity: int) -> None:
        self.carry_out(identity, self.members[identity].flush(self.now))

    def carry_out(self, identity: int, found: Iterable[Effect]) -> None:
        """Do what a member asks for, in that order."""
        self._learn_keys(identity)
        for effect in found:
            self.planes[identity].carry_out(effect)
            match effect:
                case effects.SendToMember(destination, packet):
                    self._send(identity, self._identities[destination], packet)
                case effects.SendIkeToMember(destination, port, datagram):
                    assert port == PORT
                    self._send_ike(Exchanged(self.now, identity, self._identities[destination], datagram))
                case effects.SendPacket(packet):
                    self._use(packet)
                    self.answers.append(Answer(self.now, identity, packet))
                case effects.Event(name, fields):
                    self.notices.append(Notice(self.now, identity, name, fields))
                case effects.ClaimTerm(term):
                    self.claims.append((identity, term))

    def _use(self, packet: bytes) -> None:
        """No SPI's sequence number, and no nonce, is ever used twice."""
        at = 64 if packet[6] == 43 else 40
        if 50 in {packet[6], packet[40]} and packet[at : at + 4]:
            spi = int.from_bytes(packet[at : at + 4], "big")
            for kind, octets in enumerate((packet[at + 4 : at + 8], packet[at + 8 : at + 16])):
                assert (spi, kind, octets) not in self.used
                self.used.add((spi, kind, octets))

    def _learn_keys(self, identity: int) -> None:
        if self._negotiated and identity in self.members:
            for each in self.members[identity].channel.associations.database:
                if each.direction is Direction.OUT:
                    self._keys[each.spi] = each.transform, each.keys

    def _send(self, source: int, destination: int, packet: bytes) -> None:
        if self._negotiated:
            transform, keys = self._keys[esp.spi(packet)]
            message = opened(source, destination, packet, transform, keys)
        else:
            message = opened(source, destination, packet)
        said = Said(self.now, source, destination, message, packet)
        self.said.append(said)
        if (source, destination) not in self.cut and not self.lose(said):
            self._enqueue(source, destination, packet, self.late(said))

    def _send_ike(self, exchanged: Exchanged) -> None:
        _, source, destination, octets = exchanged
        self.exchanged.append(exchanged)
        if (source, destination) not in self.cut and not self.lose_ike(exchanged):
            self._enqueue(source, destination, octets, self.late_ike(exchanged), is_ike=True)

    def _enqueue(
        self, source: int, destination: int, octets: bytes, late: float = 0.0, *, is_ike: bool = False
    ) -> None:
        self._count += 1
        entry = (self.now + self.delay + late, self._count, source, destination, octets, is_ike)
        heappush(self._queue, entry)

    def forge(self, source: int, destination: int, message: Body) -> bytes:
        """A message that ``source`` never meant to send, under its keys; not delivered."""
        group = self.groups[source]
        octets = messages.build(message, group.address, member_address(destination))
        return self.sealed(source, destination, octets)

    def sealed(self, source: int, destination: int, octets: bytes, next_header: int = MOBILITY) -> bytes:
        channel = self.members[source].channel.associations
        association = channel.database.select(
            member_address(destination), Direction.OUT, Mode.TRANSPORT, MOBILITY, 0
        )
        assert association is not None
        return channel.protect(association, next_header, octets, [])

    # -- mobile nodes ------------------------------------------------------------------------------

    def register(self, node: MobileNode, *arguments: Any, **fields: Any) -> BindingAcknowledgement:
        """A Binding Update to the active member, and the answer to it."""
        before = len(self.answers)
        self.receive(node.update(*arguments, **fields))
        self.until(lambda: len(self.answers) > before)
        answer = node.open(self.answers[-1].packet).message
        assert isinstance(answer, BindingAcknowledgement)
        return answer

    def registered(self, *nodes: MobileNode) -> World:
        """This world with an active member, synchronised standbys and ``nodes`` (all by default) bound."""
        self.settle()
        for node in nodes or self.nodes:
            assert self.register(node).status == 0
        self.run(0.05)
        return self

    def settle(self) -> World:
        """Wait until one member serves and all others have its state."""
        self.until(self.is_settled)
        return self

    def is_settled(self) -> bool:
        if len(self.serving) != 1:
            return False
        others = set(self.members) - {self.active}
        return set(self.members[self.active].replication.synchronized()) == others and all(
            self.members[each].machine.eligible for each in others
        )

    # -- what there is -----------------------------------------------------------------------------

    def names(self, name: str) -> list[Notice]:
        return [each for each in self.notices if each.name == name]

    def messages(self, kind: type[Body], source: int | None = None) -> list[Any]:
        return [
            each.message for each in self.said if type(each.message) is kind and source in (None, each.source)
        ]

    def contexts(self, identity: int) -> dict[bytes, object]:
        """For each mobile node everything that replicates, comparable: nothing relative to a clock."""
        member = self.members[identity]
        agent = member.home_agent
        homes = {node.home_address for node in self.nodes}
        homes |= {each.home_address for each in agent.associations.database}
        return {home_address: context_of(member, home_address) for home_address in homes}

    def same_everywhere(self) -> None:
        """Every member has the same contexts, and dataplanes that fit them."""
        first, *others = (self.contexts(each) for each in self.members)
        for other in others:
            assert other == first
        self.check()

    def check(self) -> None:
        """Each dataplane is what its member's bindings say."""
        for identity, member in self.members.items():
            if member.replication.holding:
                continue
            plane, cache = self.planes[identity], member.home_agent.cache
            bound = [binding for binding in cache if binding.is_bound]
            assert plane.tunnels == {each.home_address: each.care_of_address for each in bound}
            assert plane.defended >= set().union(*(each.defended for each in bound))
            assert plane.routes == {prefix for each in bound for prefix in each.prefixes}
            assert plane.owns == member.machine.serves

    def snapshot(self, identity: int) -> object:
        """Everything that a refused message must leave alone, comparable."""
        member = self.members[identity]
        machine = member.machine
        plane = self.planes[identity]
        return (
            (machine.role, machine.term, machine.active, machine.eligible, machine.orphaned),
            (plane.tunnels.copy(), plane.defended.copy(), plane.routes.copy(), plane.term, plane.owns),
            {home_address: member.contexts.version(home_address) for home_address in self.contexts(identity)},
            self.contexts(identity),
            member.contexts.digest(),
            {
                (each.spi, each.direction): (each.sequence, each.limit, each.reserved, each.confirmed)
                for each in member.home_agent.associations.database
            },
            {
                each.identifier: (each.progress, each.is_mute, tuple(each.dirty), tuple(each.in_flight))
                for each in member.replication.peers.values()
            },
            {
                key: [getattr(each, name) for name in type(each).__slots__ if name != "heard"]
                for key, each in member.neighbors.items()
            },
            (member.home_agent.frozen, member.switch.deadline, member.replication.holding),
        )

    def refuses(self, source: int, destination: int, packet: bytes, reason: str) -> None:
        """``packet`` counts ``reason`` at ``destination`` once, and changes nothing."""
        counters = self.members[destination].counters
        counted, before = counters.copy(), self.snapshot(destination)
        sent = len(self.said), len(self.answers), len(self.notices)
        self.receive_member(source, destination, packet)
        assert dict(counters - counted) == {f"harp_{reason}": 1}
        assert self.snapshot(destination) == before
        assert (len(self.said), len(self.answers), len(self.notices)) == sent


def association_of(each: SecurityAssociation) -> tuple[object, ...]:
    window = each.window
    seen = None
    if window is not None and each.mode is Mode.TRANSPORT:
        seen = window.size, window.top, window.bitmap
    return each.spi, each.direction, each.use, each.keys, each.esn, each.transform, seen


def context_of(member: Member, home_address: bytes) -> tuple[object, ...]:
    agent = member.home_agent
    binding = agent.cache.get(home_address)
    known = None
    if binding is not None and binding.sequence >= 0:
        known = (
            binding.state,
            binding.sequence,
            binding.care_of_address,
            binding.source,
            binding.flags,
            binding.lifetime,
            binding.prefixes,
            binding.ended,
        )
    return known, tuple(association_of(each) for each in agent.associations.database.of(home_address))


def plaintext(
    source: int, destination: int, packet: bytes, transform: Transform = GCM, keys: Keys | None = None
) -> bytes:
    """The Mobility Header in an ESP packet between members, by default under manual keys."""
    octets = transform.open(keys or harp_keys(source, destination), packet, b"")
    return octets[: -2 - octets[-2]]


def opened(
    source: int, destination: int, packet: bytes, transform: Transform = GCM, keys: Keys | None = None
) -> Body:
    octets = plaintext(source, destination, packet, transform, keys)
    return messages.parse(octets, member_address(source), member_address(destination))


def spi_and_number(packet: bytes) -> tuple[int, int]:
    """SPI and sequence number of a packet to a mobile node."""
    at = 64 if packet[6] == 43 else 40
    return esp.spi(packet[at:]), int.from_bytes(packet[at + 4 : at + 8], "big")


def every_pair(members: Iterable[int]) -> set[tuple[int, int]]:
    return set(permutations(members, 2))
