"""R1 as an answer leaves, R3 and R4: what mobile nodes send and get, and the numbers between members.

Covered: one check for each packet. Not covered: what is there when all is over (``ending``).
"""

from __future__ import annotations

from typing import NamedTuple

from mip6ha.binding import messages
from mip6ha.binding.messages import ACCEPTED, LIFETIME_UNIT, BindingAcknowledgement
from mip6ha.failover.states import Role
from mip6ha.ipsec.policy import Mode
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, MOBILITY, ROUTING

from .host import Seat
from .life import Life
from .mobile import Ack, MobileNode
from .network import Datagram
from .violation import Violation, ahead, counted

__all__ = ["Packets"]

_KEPT_ACKS = 6


class _Opened(NamedTuple):
    """Who opened a mobile node's packet first, and when. ``counted`` are the members it relied on."""

    life: Life
    at: float
    excused: bool
    counted: frozenset[int]


class Packets:
    """What was used, opened and acknowledged in a run."""

    def __init__(self) -> None:
        self._used: dict[tuple[object, int], tuple[Life, float]] = {}
        self._nonces: dict[tuple[object, bytes], Life] = {}
        self._opened: dict[tuple[int, int, int], _Opened] = {}
        self._terms: list[tuple[int, int, float]] = []
        self._packets = 0
        self.acknowledgements = self.refusals = 0

    def took_over(self, life: Life, term: int) -> None:
        """A member takes over."""
        self._terms.append((life.seat.group.plan.number, term, life.world.now))

    def _is_overtaken(self, life: Life, term: int, at: float) -> bool:
        """Whether somebody else served under a higher term then."""
        number = life.seat.group.plan.number
        return any(group == number and other > term and taken <= at for group, other, taken in self._terms)

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
        self.opened(life, datagram, bringer, signalling=association.mode is not Mode.TUNNEL)

    def opened(self, life: Life, datagram: Datagram, bringer: str, *, signalling: bool = False) -> None:
        """R4: a packet was opened, by a member or by the kernel below it."""
        self._needs_lease(life)
        if bringer == "forger":
            raise Violation("R7", f"{life} opened a forged packet")
        key = life.seat.group.plan.number, datagram.spi, datagram.sequence
        before = self._opened.get(key)
        if before is not None and (before.life is life or not self._may_repeat(life, before)):
            raise Violation(
                "R4",
                f"{life} opened number {datagram.sequence} of SA {datagram.spi:#x}, opened by {before.life} "
                f"(and answered) at {before.at:.4f}",
            )
        if not signalling and before is None:
            self._opened[key] = self._note(life, excused=life.member.replication.alone)

    def _needs_lease(self, life: Life) -> None:
        if life.seat.host.clock() > life.lease_until:
            raise Violation("R5", f"{life} serves mobile nodes, but its lease is over")

    def _note(self, life: Life, *, excused: bool) -> _Opened:
        now, term = life.world.now, life.member.machine.term
        return _Opened(life, now, excused or self._is_overtaken(life, term, now), counted(life))

    def _may_repeat(self, life: Life, before: _Opened) -> bool:
        return (
            before.excused
            or not life.seat.group.plan.extensions
            or life.seat.identity not in before.counted
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
        datagram.counted = counted(life)
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

    def message_leaves(self, life: Life, seat: Seat, datagram: Datagram) -> None:
        """R3 between members."""
        self._once((life.seat, seat), datagram.octets, life, counter_iv=True)

    def _once(self, key: object, packet: bytes, life: Life, *, counter_iv: bool) -> None:
        number = int.from_bytes(packet[4:8], "big")
        used = self._used.setdefault((key, number), (life, life.world.now))
        if used != (life, life.world.now) or (counter_iv and (key, packet[8:16]) in self._nonces):
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
        ack = Ack(sequence, life.world.now + lasts if lasts else 0.0, life, life.world.now)
        relied_on = counted(life)
        for other in life.seat.group.lives:
            binding = other.member.home_agent.cache.get(mobile_node.home_address)
            has = binding is not None and binding.sequence >= 0 and ahead(binding.sequence, sequence)
            if has:
                ack.holders.add(other)
            elif other is life:
                raise Violation("R1", f"{life} acknowledged {sequence} to {mobile_node} and does not have it")
            elif relies and other.seat.identity in relied_on and self._would_take_over(other, life):
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
        if top.sender is life and top.sent_at >= datagram.sent_at:
            # The later one arrived first, and jumped: the member had heard of numbers used before.
            return
        split = top.term < datagram.term and (
            self._is_overtaken(top.sender, top.term, top.sent_at)
            or life.seat.identity not in top.counted
            or top.sent_at < life.knows_since
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
