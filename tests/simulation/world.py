"""One run: an event heap, hosts, groups, mobile nodes, the network between them, and the checker.

Covered: wiring, and the phases of a run: faults, quiet, every rule once more at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.parameters import (
    AssociationParameters,
    GroupParameters,
    HomeAgentParameters,
    HomePrefix,
    PeerParameters,
)
from mip6ha.wire import address

from . import ending
from .arbiter import Arbiter
from .attacker import Attacker
from .checker import Checker
from .faults import Faults
from .host import Host, Seat
from .life import Life
from .mobile import MobileNode
from .network import Datagram, Network, Router
from .plan import CALM, GroupPlan, Plan
from .timeline import Timeline
from .violation import Violation

__all__ = ["Group", "World"]

_GCM = transform("aes-gcm-16")
_STUCK = 3_000_000
"""More events than any run has: the simulation, or a member, runs in a circle."""


class Group:
    """A redundant set with its mobile nodes."""

    def __init__(self, world: World, plan: GroupPlan) -> None:
        self.plan = plan
        self.prefix = address(f"2001:db8:a{plan.number}::")
        self.address = address(f"2001:db8:a{plan.number}::1")
        self.seats = [Seat(self, world.hosts[host], host + 1) for host in plan.hosts]
        for seat in self.seats:
            seat.host.seats.append(seat)
        self.addresses = {
            seat.identity: address(f"2001:db8:e{plan.number}::{seat.identity:x}") for seat in self.seats
        }
        self.identities = {each: identity for identity, each in self.addresses.items()}
        self.mobile_nodes = [MobileNode(world, self, index) for index in range(plan.mobile_nodes)]
        self.by_home_address = {each.home_address: each for each in self.mobile_nodes}
        self.by_spi = {spi: each for each in self.mobile_nodes for spi in each.inbound}
        self.parameters = HomeAgentParameters(
            self.address,
            (HomePrefix(self.prefix, 64),),
            tuple(each.parameters for each in self.mobile_nodes),
            duplicate_address_detection=plan.probing,
            lends_payload=plan.lends,
        )
        self.keys = {
            (one.identity, other.identity): Keys(world.random.randbytes(20))
            for one in self.seats
            for other in self.seats
            if one is not other
        }
        preferences = {seat.identity: world.random.randrange(3) for seat in self.seats}
        self.settings = {
            seat.identity: self._settings(seat.identity, preferences[seat.identity]) for seat in self.seats
        }

    def _settings(self, identity: int, preference: int) -> GroupParameters:
        peers = tuple(
            PeerParameters(
                other,
                self.addresses[other],
                (
                    AssociationParameters(
                        0x300 + identity, Direction.OUT, Use.HARP, _GCM, self.keys[identity, other]
                    ),
                    AssociationParameters(
                        0x300 + other, Direction.IN, Use.HARP, _GCM, self.keys[other, identity]
                    ),
                ),
            )
            for other in self.addresses
            if other != identity
        )
        plan = self.plan
        return GroupParameters(
            plan.number,
            identity,
            self.addresses[identity],
            peers,
            preference=preference,
            hello_interval=plan.interval,
            start_wait=max(0.1, 4 * plan.interval),
            synchronous=plan.synchronous,
            preempt=plan.preempt,
            hold_down=plan.hold_down,
            arbiter=plan.arbiter,
            extensions=plan.extensions,
        )

    def __repr__(self) -> str:
        return f"g{self.plan.number}"

    @property
    def lives(self) -> list[Life]:
        """The members that run."""
        return [seat.life for seat in self.seats if seat.life is not None]


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now = 0.0
        self.random = Random(f"run {plan.seed}")
        self.timeline = Timeline()
        self._heap: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self.events = 0
        self._count = 0
        self.addresses: dict[bytes, MobileNode] = {}
        self.network = Network(self.random, plan.quality)
        self.routers = [Router(index, self.random, self.network) for index in range(2)]
        self.arbiter = Arbiter(self)
        self.hosts = [Host(self, index, clock) for index, clock in enumerate(plan.clocks)]
        self.groups = [Group(self, each) for each in plan.groups]
        self.checker = Checker()
        self.attacker = Attacker(self)
        self.faults = Faults(self)

    # -- time --------------------------------------------------------------------------------------

    def at(self, delay: float, function: Callable[..., Any], *arguments: Any) -> None:
        """Call something after ``delay`` seconds."""
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, function, arguments))

    def log(self, *what: object) -> None:
        """Write down what happened, for the timeline."""
        self.timeline.add(self.now, what)

    def run(self) -> None:
        """The whole run; :class:`Violation` says which rule was broken."""
        plan, random = self.plan, self.random
        for host in self.hosts:
            self.at(random.random() * 0.5 if random.random() < 0.8 else random.random() * 5, host.start)
        for group in self.groups:
            for mobile_node in group.mobile_nodes:
                self.at(random.uniform(0, min(6, plan.faulty / 2)), mobile_node.begin)
        self.at(random.uniform(0, 3), self.faults.strike)
        self.at(plan.replay_gap, self.attacker.strike)
        self._until(plan.faulty)
        with self.checker.watching():
            self._quiet()
        self._until(plan.faulty + plan.settle)
        for group in self.groups:
            ending.nothing_lost(group)
            for mobile_node in group.mobile_nodes:
                self.at(random.uniform(0, 1.5), mobile_node.refresh)
        self._until(plan.faulty + plan.settle + 10)
        # A hold-down may have kept a member from its place until now.
        changes = [when for group in self.groups for life in group.lives for when in life.takeovers.values()]
        self._until(max(self.now, max(changes, default=0.0) + plan.settle))
        for group in self.groups:
            ending.in_order(group)

    def _until(self, end: float) -> None:
        heap = self._heap
        with self.checker.watching():
            while heap and heap[0][0] <= end:
                self.now, _, function, arguments = heappop(heap)
                self.events += 1
                if self.events > _STUCK:
                    raise Violation("endless", "too many events")
                function(*arguments)
        self.now = end

    def _quiet(self) -> None:
        """No more faults: everything that is not gone for good comes back."""
        self.log("quiet")
        self.faults.over = True
        self.network.heal(CALM)
        for group in self.groups:
            for mobile_node in group.mobile_nodes:
                mobile_node.wandering = False
        for host in self.hosts:
            host.heal()
            if not host.up and not host.gone:
                self.at(self.random.random(), host.start)

    # -- packets -----------------------------------------------------------------------------------

    def begin(self, seat: Seat) -> None:
        """A new life in a seat."""
        seat.lives += 1
        seat.life = Life(self, seat)
        self.checker.records.born(seat.life)
        self.log("starts", seat.life, f"stored term {seat.term:#x}")
        seat.life.start()

    def send_to_member(self, life: Life, destination: bytes, packet: bytes) -> None:
        """A member's message to another one."""
        group = life.seat.group
        seat = next(each for each in group.seats if each.identity == group.identities[destination])
        datagram = Datagram(packet, self.now, life)
        datagram.term = life.member.machine.term
        datagram.addressee = seat
        self.checker.packets.message_leaves(life, seat, datagram)
        self.attacker.saw_message(seat, life.seat.identity, datagram)
        for delay in self.network.sync_delays(life.seat.host.index, seat.host.index):
            self.at(delay, seat.host.take, (seat, datagram, life.seat.identity, "network"))

    def send_to_home_agent(self, group: Group, site: int, datagram: Datagram) -> None:
        """A packet from a mobile node, or for one, comes to a router."""
        router = self.routers[site]
        if datagram.spi:
            self.attacker.saw_packet(group, datagram)
        for delay in self.network.delays():
            self.at(delay, self._routed, router, group, datagram)

    def _routed(self, router: Router, group: Group, datagram: Datagram) -> None:
        seat = router.owner(group.plan.number, group.seats, self.now)
        if seat is not None:
            seat.host.take((seat, datagram, 0, "network"))

    def send_from_home_agent(self, life: Life, packet: bytes) -> None:
        """A member's packet towards a mobile node, or out of a tunnel."""
        datagram = Datagram(packet, self.now, life)
        datagram.term = life.member.machine.term
        self.checker.packets.packet_leaves(life, datagram)
        mobile_node = self.addresses.get(packet[24:40])
        if mobile_node is None:
            return
        for delay in self.network.home_delays(mobile_node.site, life.seat.host.index, inwards=False):
            self.at(delay, mobile_node.receive, datagram)

    def announce(self, seat: Seat) -> None:
        """An unsolicited advertisement for the home agent address on the home link."""
        for router in self.routers:
            for delay in self.network.home_delays(router.index, seat.host.index, inwards=False)[:1]:
                self.at(delay, router.announced, seat)
