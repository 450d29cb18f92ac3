"""A mobile node's payload in the kernel as data: its states and policies, and what makes them go on.

Covered: tunnel mode states that use no number but those lent, the policies of a home address, more numbers.
Not covered: the conversation with the kernel, steering (``kernel_payload``).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace

from ..effects import LendPayload, LentAssociation
from ..wire import UNSPECIFIED
from . import xfrm
from .esp_steering import horizon
from .netlink_messages import Request
from .xfrm_layout import Limits, Mode, Selector
from .xfrm_policy import Direction, Policy, Template
from .xfrm_state import Counters, Protection, State, StateFlag

__all__ = ["Association", "LentPayload"]

_WHOLE = 128
# Behind those of others that say nothing about it.
_PRIORITY = 13660
# The kernel wants one for numbers of 64 bits, though nothing is received.
_OUTBOUND_WINDOW = 32
_NEVER = 0xFFFFFFFF


@dataclass(slots=True)
class Association:
    """One SA and its state. ``packets`` is how many the kernel lets out before it removes the state.

    That is the bound of outbound numbers: the kernel counts packets and numbers under one lock. Inbound,
    ``reached`` is the highest number that it is known to have accepted.
    """

    lent: LentAssociation
    state: State
    packets: int = 0
    reached: int = 0

    def install(self, counters: Counters | None = None) -> Request:
        """The state, from the first number on, or where ``counters`` stood in another state of this SA."""
        lent = self.lent
        if not lent.outbound:
            # What is below is not the kernel's to accept.
            counters = counters or Counters(received=lent.first - 1, seen=(1 << lent.window) - 1)
            return xfrm.install(self.state, counters, event_after=lent.step or _NEVER)
        sent = lent.first - 1 if counters is None else counters.sent
        self.packets = lent.limit - sent
        return xfrm.install(self._limited(self.packets), Counters(sent=sent), event_after=lent.step or _NEVER)

    def steered(self) -> tuple[int, int]:
        """Inbound, the numbers that are to come here."""
        lent = self.lent
        return horizon(lent.first, lent.limit, self.reached + 1 - lent.window), lent.limit

    def has_numbers(self, counters: Counters) -> bool:
        """Whether anything is left of what was lent."""
        return not self.lent.outbound or counters.sent < self.lent.limit

    def goes_on_with(self, first: int) -> bool:
        """Whether these numbers follow those that the kernel may use already."""
        return not self.lent.outbound or first == self.lent.limit + 1

    def extend(self, first: int, limit: int, step: int, sent: int) -> list[Request]:
        """More numbers. ``sent`` packets have gone out at least, where they do not go on.

        Numbers that go on need nothing but room for more packets. Otherwise the number is set to ``first``
        while packets go on, so that the order matters. ``sent`` was read before: whatever went out since took
        numbers of the old block, and the bound of ``sent`` and the new block's size is too low by that, never
        too high. While the number is set already and the bound is not, or the other way round, the lower of
        both bounds must hold: so a higher one is set after the number, and a lower one before it.
        """
        lent, goes_on = self.lent, self.goes_on_with(first)
        changed = step != lent.step
        self.lent = lent._replace(first=lent.first if goes_on else first, limit=limit, step=step)
        event_after = step or _NEVER
        if not lent.outbound:
            return [xfrm.count(self.state.id, event_after=event_after)] if changed else []
        size = limit - first + 1
        before, self.packets = self.packets, (self.packets if goes_on else sent) + size
        bound = xfrm.update(self._limited(size))
        if goes_on:
            return [bound, *([xfrm.count(self.state.id, event_after=event_after)] if changed else [])]
        counters = Counters(sent=first - 1)
        number = xfrm.count(self.state.id, counters, self.state.window, event_after=event_after)
        return [number, bound] if self.packets > before else [bound, number]

    def _limited(self, size: int) -> State:
        """The state with its bound, and a word in the middle of the last ``size`` numbers."""
        limits = Limits(soft_packets=max(1, self.packets - size // 2), hard_packets=self.packets)
        return replace(self.state, limits=limits)


@dataclass(slots=True)
class LentPayload:
    """What is lent for one home address; ``reqid`` ties its states to its policies, and to no others."""

    home_address: bytes
    home_agent: bytes
    care_of_address: bytes
    reqid: int
    associations: dict[tuple[bool, int], Association] = field(default_factory=dict)
    steered: set[int] = field(default_factory=set)
    """SPIs with filters."""

    @classmethod
    def of(cls, effect: LendPayload, home_agent: bytes, care_of_address: bytes, reqid: int) -> LentPayload:
        """As an effect wants it."""
        made = cls(effect.home_address, home_agent, care_of_address, reqid)
        for lent in effect.associations:
            made.associations[lent.outbound, lent.spi] = Association(lent, made._state(lent))
        return made

    def move(self, care_of_address: bytes) -> None:
        """Everything is at another care-of address."""
        self.care_of_address = care_of_address
        for each in self.associations.values():
            each.state = self._state(each.lent)

    def _ends(self, *, outbound: bool) -> tuple[bytes, bytes]:
        ends = self.home_agent, self.care_of_address
        return ends if outbound else ends[::-1]

    def _state(self, lent: LentAssociation) -> State:
        return State(
            *self._ends(outbound=lent.outbound),
            socket.IPPROTO_ESP,
            Mode.TUNNEL,
            lent.spi,
            self.reqid,
            protection=Protection(lent.transform, lent.keys),
            flags=StateFlag.ESN if lent.esn else StateFlag.NONE,
            window=_OUTBOUND_WINDOW if lent.outbound else lent.window,
        )

    def policies(self) -> list[Policy]:
        """What goes to the home address is sealed; what comes from it and was opened here was its.

        What was not opened here is let through, because the daemon opens some. A policy says whose SA it
        has to be all the same: one that opened something is accepted for its own home address only.
        """
        found = []
        for direction in (Direction.IN, Direction.FORWARD, Direction.OUT):
            outbound = direction is Direction.OUT
            template = Template(
                socket.IPPROTO_ESP,
                Mode.TUNNEL,
                self.reqid,
                *self._ends(outbound=outbound),
                optional=not outbound,
            )
            here, anywhere = (self.home_address, _WHOLE), (UNSPECIFIED, 0)
            selector = Selector(*anywhere, *here) if outbound else Selector(*here, *anywhere)
            found.append(Policy(selector, direction, _PRIORITY, templates=(template,)))
        return found
