"""Planned switches: one member becomes active in place of another that lives (HA-CTRL).

Covered: switchover asked by a standby, switchback asked by the active member, the pause in which the one
that leaves sends its last state, time-outs, hold-down, pre-emption. Not covered: failures (``member``).

The active member first takes no more registrations and waits until the other has acknowledged all; only
then it says that the other may claim the next term. It stops when it hears that term: payload is forwarded
all the time.
"""

from __future__ import annotations

from collections.abc import Callable

from .effects import Effect
from .failover.damping import HoldDown
from .failover.machine import Machine
from .failover.states import Event, Role
from .harp.messages import Control, ControlStatus, ControlType
from .node import HomeAgent
from .parameters import GroupParameters
from .wire import Refused

__all__ = ["PlannedSwitch"]

_NEVER = float("inf")


class PlannedSwitch:
    """One member's part in planned switches.

    ``synchronized`` yields the standbys that have all state, ``is_flushed`` whether one of them has
    acknowledged everything and nothing waits. ``send`` and ``report`` append to the effects they are given.
    """

    def __init__(
        self,
        group: GroupParameters,
        machine: Machine,
        home_agent: HomeAgent,
        *,
        synchronized: Callable[[], tuple[int, ...]],
        is_flushed: Callable[[int], bool],
        send: Callable[[int, Control, list[Effect]], None],
        report: Callable[..., None],
    ) -> None:
        self._group = group
        self._machine = machine
        self._home_agent = home_agent
        self._synchronized = synchronized
        self._is_flushed = is_flushed
        self._send = send
        self._report = report
        self._hold_down = HoldDown(group.hold_down)
        self._to: int | None = None
        self._reply = ControlType.SWO_REP
        self._said = False
        self._asked: int | None = None
        self.deadline = _NEVER
        """When the other must have claimed."""

    def changed(self, now: float) -> None:
        """The own role changed: whatever was planned is over."""
        self._hold_down.changed(now)
        self._to = self._asked = None
        self.deadline = _NEVER
        self._home_agent.frozen = ""

    def ask(self, effects: list[Effect]) -> str:
        """Ask the active member for its place; why not in words, empty if it was asked."""
        machine = self._machine
        if machine.role is not Role.STANDBY or machine.active is None:
            return f"this member is {machine.role.value}, not a standby of an active one"
        if not machine.eligible:
            return "this member does not have all state yet"
        self._asked = machine.active
        self._send(machine.active, Control(ControlType.SWO_REQ, term=machine.term), effects)
        return ""

    def offer(self, identity: int | None, now: float, effects: list[Effect]) -> str:
        """Offer the own place to a standby; why not in words, empty if the switch has begun."""
        if self._machine.role is not Role.ACTIVE:
            return f"this member is {self._machine.role.value}, not active"
        if identity not in self._synchronized():
            return "no such member is synchronised"
        self._begin(identity, ControlType.SWB_REQ, now, effects)
        return ""

    def preempt(self, active: tuple[int, bytes], now: float, effects: list[Effect]) -> None:
        """Ask for the place of an active member with a lower rank (preference, address)."""
        rank = (self._group.preference, self._group.address)
        if self._machine.eligible and rank > active and self._hold_down.allows(now) and not self.ask(effects):
            # An answer may be lost: ask again, but not at once.
            self._hold_down.changed(now)

    def take(self, identity: int, control: Control, now: float, effects: list[Effect]) -> bool:
        """Process a message; whether this member must now claim the next term in the sender's place."""
        machine = self._machine
        kind = control.type
        if kind == ControlType.SWO_REQ:
            if machine.serves and control.term not in (machine.term, None):
                raise Refused("stale_control")
            self._asked_by(identity, now, effects)
        elif kind == ControlType.SWO_REP:
            if self._asked != identity or control.term not in (machine.term, None):
                raise Refused("stale_control")
            self._asked = None
            if control.status == ControlStatus.SUCCESS and machine.role is Role.STANDBY:
                return True
            self._report("switch_refused", effects, member=identity, status=control.status)
        elif kind == ControlType.SWB_REQ:
            if machine.active != identity or control.term not in (machine.term, None):
                raise Refused("stale_control")
            ready = machine.role is Role.STANDBY and machine.eligible
            status = ControlStatus.SUCCESS if ready else ControlStatus.NOT_STANDBY
            self._send(identity, Control(ControlType.SWB_REP, status, machine.term), effects)
            return ready
        elif kind == ControlType.SWB_REP:
            if self._to != identity or control.term not in (machine.term, None):
                raise Refused("stale_control")
            if control.status != ControlStatus.SUCCESS:
                self._fail(effects, f"refused with {control.status}")
        else:
            self._report("switch_complete", effects, member=identity)
        return False

    def progress(self, now: float, effects: list[Effect]) -> None:
        """Say that the other may go as soon as it has all; give up when it does not."""
        if self._to is None or self._machine.role is not Role.YIELDING:
            return
        if self.deadline <= now:
            self._fail(effects, "no answer")
        elif not self._said and self._is_flushed(self._to):
            self._said = True
            self._send(self._to, Control(self._reply, ControlStatus.SUCCESS, self._machine.term), effects)

    def _asked_by(self, identity: int, now: float, effects: list[Effect]) -> None:
        status = ControlStatus.SUCCESS
        if self._machine.role is Role.YIELDING and self._to == identity:
            # Its request again: perhaps our answer was lost.
            self._said = False
            return
        if self._machine.role is not Role.ACTIVE:
            status = ControlStatus.NOT_ACTIVE
        elif identity not in self._synchronized():
            status = ControlStatus.NOT_STANDBY
        elif not self._hold_down.allows(now):
            status = ControlStatus.ADMINISTRATIVELY_PROHIBITED
        if status is ControlStatus.SUCCESS:
            self._begin(identity, ControlType.SWO_REP, now, effects)
        else:
            self._send(identity, Control(ControlType.SWO_REP, status, self._machine.term), effects)

    def _begin(self, identity: int | None, reply: ControlType, now: float, effects: list[Effect]) -> None:
        self._machine.do(Event.YIELD)
        self._home_agent.frozen = "yielding"
        self._to, self._reply, self._said = identity, reply, False
        self.deadline = now + max(1.0, 10 * self._group.hello_interval)
        self._report("switch_begins", effects, member=identity)
        self.progress(now, effects)

    def _fail(self, effects: list[Effect], why: str) -> None:
        self._machine.do(Event.YIELD_FAILED)
        self._home_agent.frozen = ""
        self._to = None
        self.deadline = _NEVER
        self._report("switch_failed", effects, reason=why)
