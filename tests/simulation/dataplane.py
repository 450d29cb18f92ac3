"""A kernel that opens and seals payload: what a member lends to its dataplane, on a host of the simulation.

Covered: numbers as they are lent, steering by care-of address and number, reports of how far it is, states
that are gone, packets that pass while the process is paused. Not covered: what is not lent (``life``).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from mip6ha import ipv6
from mip6ha.effects import ExtendPayload, LendPayload, LentAssociation, RecallPayload, RemoveTunnel, SetTunnel
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import by_name
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.replay import ReplayWindow
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, IPV6
from mip6ha.lending import PayloadCounted, PayloadLost
from mip6ha.wire import Refused

from .network import Datagram

if TYPE_CHECKING:
    from .life import Life

__all__ = ["Dataplane"]

_NEWS = 0.0005
"""Seconds until the process can read what the kernel says."""
_LOSES = 0.002
"""How often, for each packet, somebody removes a mobile node's states by hand."""
_OTHERS = 150
"""Outbound packets to nobody here, at most, for each one of the simulation: blocks last minutes otherwise."""


class _State:
    """An SA as the kernel has it; ``reported`` is the number that the process was told last."""

    def __init__(self, home_address: bytes, lent: LentAssociation, prefix: int) -> None:
        self.first, self.step, self.reported = lent.first, lent.step, lent.first - 1
        self.association = SecurityAssociation(
            spi=lent.spi,
            direction=Direction.OUT if lent.outbound else Direction.IN,
            use=Use.PAYLOAD,
            home_address=home_address,
            transform=by_name(lent.transform),
            keys=lent.keys,
            esn=lent.esn,
            window=lent.window,
            iv_prefix=prefix,
        )
        self.association.sequence = lent.first - 1
        self.association.limit = lent.limit
        if self.association.window is not None:
            full = ReplayWindow(lent.window, lent.first - 1, (1 << lent.window) - 1)
            self.association.window.merge(full)


class _Loan:
    def __init__(self, effect: LendPayload, random: Random) -> None:
        self.home_address = effect.home_address
        # The kernel's IVs are numbers under a random mask: it knows nothing of members and terms.
        states = [_State(effect.home_address, each, random.getrandbits(24)) for each in effect.associations]
        self.outbound = next(each for each in states if each.association.direction is Direction.OUT)
        self.inbound = {each.association.spi: each for each in states if each is not self.outbound}


class Dataplane:
    """The kernel below one life of a member."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._random = Random(f"dataplane {life.world.plan.seed} {life}")
        self._loans: dict[bytes, _Loan] = {}
        self._by_spi: dict[int, _Loan] = {}
        self._tunnels: dict[bytes, bytes] = {}

    # -- effects -----------------------------------------------------------------------------------

    def carry_out(self, effect: object) -> None:
        """Do what an effect asks for, if it is about payload."""
        if isinstance(effect, LendPayload):
            loan = self._loans[effect.home_address] = _Loan(effect, self._random)
            self._by_spi |= dict.fromkeys(loan.inbound, loan)
            self._life.world.timeline.counts["lent"] += 1
        elif isinstance(effect, ExtendPayload):
            self._extend(effect)
        elif isinstance(effect, RecallPayload | RemoveTunnel):
            self._end(effect.home_address)
        elif isinstance(effect, SetTunnel):
            self._tunnels[effect.home_address] = effect.care_of_address

    def end(self) -> None:
        """Everything goes."""
        self._loans.clear()
        self._by_spi.clear()

    def _extend(self, effect: ExtendPayload) -> None:
        loan = self._loans.get(effect.home_address)
        if loan is None:
            return
        state = loan.outbound if effect.outbound else loan.inbound[effect.spi]
        state.step = effect.step
        state.association.limit = effect.limit
        if effect.outbound:
            state.association.sequence = max(state.association.sequence, effect.first - 1)
            state.first, state.reported = effect.first, effect.first - 1
        self._life.world.timeline.counts["lent_more"] += 1

    def _end(self, home_address: bytes) -> bool:
        loan = self._loans.pop(home_address, None)
        for spi in loan.inbound if loan is not None else ():
            del self._by_spi[spi]
        return loan is not None

    # -- packets -----------------------------------------------------------------------------------

    def take(self, datagram: Datagram, bringer: str) -> bool:
        """Do what the kernel does with a packet; ``False`` where that is giving it to the process."""
        octets = datagram.octets
        destination = octets[24:40]
        loan = self._loans.get(destination)
        if loan is not None:
            if not self._breaks(loan):
                self._seal(loan, octets)
            return True
        if destination != self._life.seat.group.address or octets[6] != ESP or len(octets) < 48:
            return False
        loan = self._by_spi.get(int.from_bytes(octets[40:44], "big"))
        if loan is None or octets[8:24] != self._tunnels[loan.home_address]:
            return False
        state = loan.inbound[int.from_bytes(octets[40:44], "big")]
        number = int.from_bytes(octets[44:48], "big")
        # The filters see the lower half alone; no run comes to the upper one.
        if not state.first <= number <= state.association.limit or self._breaks(loan):
            return False
        self._open(loan, state, datagram, bringer)
        return True

    def take_back(self, packet: bytes) -> bool:
        """Whether what the process sends is a mobile node's payload again, and ours."""
        loan = self._loans.get(packet[24:40])
        if loan is not None:
            self._seal(loan, packet)
        return loan is not None

    def _open(self, loan: _Loan, state: _State, datagram: Datagram, bringer: str) -> None:
        association = state.association
        try:
            esp.unprotect(association, datagram.octets[40:])
        except Refused:
            return
        self._life.world.checker.packets.opened(self._life, datagram, bringer)
        datagram.arrived = True
        assert association.window is not None
        top = association.window.top
        if top >= state.reported + state.step:
            state.reported = top
            self._tell(loan, state, top)

    def _seal(self, loan: _Loan, inner: bytes) -> None:
        life, state = self._life, loan.outbound
        association = state.association
        association.sequence = min(association.limit, association.sequence + self._random.randrange(_OTHERS))
        if association.sequence >= association.limit:
            self._lose(loan)
            return
        sealed = esp.protect(association, IPV6, inner, self._random.randbytes)
        if association.sequence > (state.first + association.limit) // 2 > state.reported:
            state.reported = association.sequence
            self._tell(loan, state, association.sequence)
        packet = ipv6.build(life.seat.group.address, self._tunnels[loan.home_address], ESP, sealed)
        life.world.send_from_home_agent(life, packet)

    # -- news for the process ----------------------------------------------------------------------

    def _tell(self, loan: _Loan, state: _State, number: int) -> None:
        outbound = state is loan.outbound
        counted = PayloadCounted(loan.home_address, outbound, state.association.spi, number)
        self._life.world.at(_NEWS, self._life.payload_news, counted)

    def _breaks(self, loan: _Loan) -> bool:
        """Whether somebody removes the states at this moment."""
        if self._random.random() >= _LOSES or self._life.world.faults.over:
            return False
        self._lose(loan)
        return True

    def _lose(self, loan: _Loan) -> None:
        self._end(loan.home_address)
        self._life.world.at(_NEWS, self._life.payload_news, PayloadLost(loan.home_address))
