"""A mobile node of the simulation: the registration core of ``mip6ha.mobile`` over real ESP.

Covered: registration, refresh, moves, de-registration away and at home, retransmission, payload both ways,
its own replay windows. Not covered: discovery, tunnels without ESP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, IPV6, UDP
from mip6ha.mobile.registration import Registration, SendUpdate, State, Step
from mip6ha.parameters import AssociationParameters, MobileNodeParameters
from mip6ha.wire import Refused, address

from .network import Datagram

if TYPE_CHECKING:
    from .life import Life
    from .world import Group, World

__all__ = ["CORRESPONDENT", "Ack", "MobileNode"]

CORRESPONDENT = address("2001:db8:c::2")
_FIRST_SPI = 0x1000
_USES = (Use.SIGNALLING, Use.PAYLOAD)


class Ack:
    """A Binding Acknowledgement with success that left: ``ends`` is when its lifetime is over (0: none).

    ``holders`` are the lives that had this registration, or a later one.
    """

    __slots__ = ("at", "by", "ends", "holders", "sequence")

    def __init__(self, sequence: int, ends: float, by: object, at: float) -> None:
        self.sequence = sequence
        self.ends = ends
        self.by = by
        self.at = at
        self.holders: set[Life] = set()

    @property
    def is_held(self) -> bool:
        """Whether anybody who has it is alive."""
        return any(life.alive for life in self.holders)


class MobileNode:
    """One mobile node. ``sent`` maps a Binding Update's sequence number to its ESP packet's."""

    def __init__(self, world: World, group: Group, index: int) -> None:
        random, plan = world.random, group.plan
        self.world = world
        self.group = group
        self.index = index
        number = int.from_bytes(group.prefix, "big") + 0x10000 + index
        self.home_address = number.to_bytes(16, "big")
        self.outbound: dict[Use, SecurityAssociation] = {}
        self.inbound: dict[int, SecurityAssociation] = {}
        described = []
        protection = transform(*plan.transform)
        uses = _USES if index < plan.with_payload else _USES[:1]
        for rank, use in enumerate(uses):
            for direction in (Direction.IN, Direction.OUT):
                spi = _FIRST_SPI + 4 * index + 2 * rank + (direction is Direction.OUT)
                keys = Keys(
                    random.randbytes(protection.encryption_lengths[0]),
                    random.randbytes(protection.integrity_length),
                )
                described.append(AssociationParameters(spi, direction, use, protection, keys, plan.esn))
                mirrored = SecurityAssociation(
                    spi=spi,
                    direction=Direction.OUT if direction is Direction.IN else Direction.IN,
                    use=use,
                    home_address=self.home_address,
                    transform=protection,
                    keys=keys,
                    esn=plan.esn,
                    to_home_agent=direction is Direction.IN,
                )
                if direction is Direction.IN:
                    self.outbound[use] = mirrored
                else:
                    self.inbound[spi] = mirrored
        self.parameters = MobileNodeParameters(self.home_address, f"mn{index}", tuple(described))
        self.registration = Registration(
            self.home_address, lifetime=plan.lifetime, sequence=random.randrange(0x10000)
        )
        self.site = random.randrange(plan.sites)
        self.moves = 0
        self.care_of_address: bytes | None = None
        self.sent: dict[int, int] = {}
        self.acks: list[Ack] = []
        self.tops: dict[int, Datagram] = {}
        self.wandering = True
        self._armed: float | None = None
        self.got_payload = 0

    def __repr__(self) -> str:
        return f"g{self.group.plan.number}mn{self.index}"

    @property
    def is_registered(self) -> bool:
        """Whether it believes to be registered where it is."""
        return self.registration.state is State.REGISTERED

    @property
    def sequence(self) -> int:
        """Of the last Binding Update it sent."""
        return self.registration.sequence

    # -- what it does ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Switch it on, away from home."""
        self.move()
        self.world.at(self.world.random.expovariate(1 / 25), self._wander)
        if Use.PAYLOAD in self.outbound:
            self.world.at(self.group.plan.payload_interval, self._exchange)

    def move(self) -> None:
        """Register from a new care-of address."""
        random, plan = self.world.random, self.group.plan
        self.site = random.randrange(plan.sites)
        self.moves += 1
        self.world.addresses.pop(self.care_of_address or self.home_address, None)
        text = f"2001:db8:b{self.site}:{plan.number}:{self.moves:x}::{self.index + 1:x}"
        self.care_of_address = address(text)
        self.world.addresses[self.care_of_address] = self
        self._perform(self.registration.register(self.care_of_address, self.world.now))

    def refresh(self) -> None:
        """Register again where it is; away, if it was at home."""
        if self.care_of_address is None:
            self.move()
        else:
            self._perform(self.registration.register(self.care_of_address, self.world.now))

    def leave(self, *, home: bool) -> None:
        """De-register, from where it is or from the home link."""
        if home:
            self.world.addresses.pop(self.care_of_address or self.home_address, None)
            self.care_of_address, self.site = None, 0
            self.world.addresses[self.home_address] = self
        self._perform(self.registration.deregister(self.world.now, self.care_of_address))

    def _wander(self) -> None:
        if not self.wandering:
            return
        random = self.world.random
        what = random.random()
        if what < 0.6:
            self.move()
        elif what < 0.85:
            self.refresh()
        elif self.is_registered:
            self.leave(home=what > 0.93)
            self.world.at(random.uniform(0.5, 5), self._return)
        self.world.at(random.expovariate(1 / 25), self._wander)

    def _return(self) -> None:
        if self.wandering and self.registration.state is State.IDLE:
            self.move()

    def _exchange(self) -> None:
        """Payload out, and payload from the correspondent in."""
        if self.world.now > self.world.plan.duration:
            return
        self.payload(1)
        self.world.at(self.group.plan.payload_interval, self._exchange)

    def payload(self, count: int) -> None:
        """``count`` packets each way."""
        for _ in range(count if self.is_registered and self.care_of_address else 0):
            inner = ipv6.build(self.home_address, CORRESPONDENT, UDP, bytes(12))
            association = self.outbound[Use.PAYLOAD]
            sealed = esp.protect(association, IPV6, inner, self.world.random.randbytes)
            self._send(association, ipv6.build(self.care_of_address or b"", self.group.address, ESP, sealed))
            inner = ipv6.build(CORRESPONDENT, self.home_address, UDP, bytes(12))
            self.world.send_to_home_agent(self.group, self.site, Datagram(inner, self.world.now))

    # -- sending and receiving ---------------------------------------------------------------------

    def _perform(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, SendUpdate):
                octets = messages.build(step.update, self.home_address, self.group.address)
                association = self.outbound[Use.SIGNALLING]
                sealed = esp.protect(association, ipv6.MOBILITY, octets, self.world.random.randbytes)
                source, home = step.care_of_address, self.home_address
                packet = ipv6.build(
                    source or home, self.group.address, ESP, sealed, home_address=home if source else None
                )
                self.sent[step.update.sequence] = association.sequence
                self._send(association, packet)
        self._arm()

    def _send(self, association: SecurityAssociation, packet: bytes) -> None:
        datagram = Datagram(packet, self.world.now)
        datagram.spi, datagram.sequence = association.spi, association.sequence
        self.world.send_to_home_agent(self.group, self.site, datagram)

    def receive(self, datagram: Datagram) -> None:
        """A packet for one of its addresses arrives."""
        fresh, datagram.arrived = not datagram.arrived, True
        try:
            self._open(datagram)
        except Refused as refused:
            if fresh and refused.reason == "replayed":
                self.world.checker.packets.fresh_refused(self, datagram, self.tops.get(datagram.spi))
        self._arm()

    def _open(self, datagram: Datagram) -> None:
        parsed = ipv6.parse(datagram.octets)
        if parsed.next_header != ESP:
            return
        association = self.inbound.get(esp.spi(parsed.payload))
        if association is None or parsed.logical_destination not in (self.home_address, self.care_of_address):
            return
        next_header, octets = esp.unprotect(association, parsed.payload)
        if association.window is not None and association.window.top == datagram.sequence:
            self.tops[datagram.spi] = datagram
        if next_header == IPV6:
            self.got_payload += 1
            return
        message = messages.parse(octets, self.group.address, self.home_address)
        if isinstance(message, BindingAcknowledgement):
            self.world.checker.packets.binding_acknowledged(self, message)
            self._perform(self.registration.acknowledged(message, self.world.now))

    def _arm(self) -> None:
        deadline = self.registration.next_deadline()
        if deadline is not None and deadline != self._armed:
            self._armed = deadline
            self.world.at(max(0.0, deadline - self.world.now), self._timed, deadline)

    def _timed(self, at: float) -> None:
        if at == self._armed:
            self._armed = None
            self._perform(self.registration.on_timer(max(at, self.world.now)))
