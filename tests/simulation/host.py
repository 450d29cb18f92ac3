"""The hosts that members run on: clocks, socket buffers, pauses, stable storage, crashes.

Covered: what is around a member process. Not covered: what the member's effects do (``life``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .network import Datagram
from .plan import ClockPlan

if TYPE_CHECKING:
    from .life import Life
    from .world import Group, World

__all__ = ["BUFFER", "Arrival", "Host", "Seat"]

BUFFER = 256
"""Packets that a host keeps for a process that does not read."""

Arrival = tuple["Seat", Datagram, int, str]
"""Where to, what, from which member's identity (0: from the home side), and who brought it."""


class Seat:
    """A place in a group, taken by one life after another.

    ``term`` and ``floor`` are on stable storage.
    """

    def __init__(self, group: Group, host: Host, identity: int) -> None:
        self.group = group
        self.host = host
        self.identity = identity
        self.term = self.floor = 0
        self.life: Life | None = None
        self.lives = 0
        self.owns = False

    def __repr__(self) -> str:
        return f"g{self.group.plan.number}m{self.identity}"


class Host:
    """A machine with one process: it runs, is paused, is slow, or is down."""

    def __init__(self, world: World, index: int, clock: ClockPlan) -> None:
        self.index = index
        self.seats: list[Seat] = []
        self.up = False
        self.gone = False
        """Down for good."""
        self.paused = False
        self.cost = 0.0
        self.trap: int | None = None
        """Crash when so many effects more have been carried out."""
        self.trap_storage = False
        self._world = world
        self._clock = clock
        self._stopped = 0.0
        self._inbox: deque[Arrival] = deque()
        self._draining = False
        self.boots = 0

    # -- the clock ---------------------------------------------------------------------------------

    def clock(self) -> float:
        """What this host's monotonic clock shows."""
        return self._clock.offset + (self._world.now - self._stopped) * (1 + self._clock.drift)

    def when(self, local: float) -> float:
        """When the clock will show ``local``, if it is not stopped until then."""
        return (local - self._clock.offset) / (1 + self._clock.drift) + self._stopped

    # -- starting, stopping, pausing ---------------------------------------------------------------

    def start(self) -> None:
        """Start the process."""
        if self.up or self.gone:
            return
        self.up = True
        self.boots += 1
        for seat in self.seats:
            self._world.begin(seat)

    def crash(self, why: str) -> None:
        """The process is gone, and everything that was not on stable storage."""
        if not self.up:
            return
        self._world.log("crash", f"h{self.index}", why)
        self._down()

    def stop(self) -> None:
        """The process is asked to end, and does."""
        if not self.up or self.paused:
            return
        for seat in self.seats:
            if self.up and seat.life is not None:
                seat.life.stop()
        if self.up:
            self._world.log("stopped", f"h{self.index}")
            self._down()

    def _down(self) -> None:
        self.up = self.paused = False
        self.trap, self.trap_storage, self.cost = None, False, 0.0
        self._inbox.clear()
        for seat in self.seats:
            if seat.life is not None:
                seat.life.end()

    def pause(self, duration: float, *, stops_clock: bool) -> None:
        """The process does not run for a while; with ``stops_clock`` its clock does not either."""
        if not self.up or self.paused:
            return
        self._world.log(
            "paused", f"h{self.index}", f"{duration:.2f} s, clock {'stops' if stops_clock else 'goes on'}"
        )
        self.paused = True
        self._world.at(duration, self._resume, self.boots, duration if stops_clock else 0.0)

    def _resume(self, boot: int, stopped: float) -> None:
        if boot != self.boots or not self.paused:
            return
        self.paused = False
        self._stopped += stopped
        self._world.log("resumed", f"h{self.index}", f"{len(self._inbox)} packets wait")
        timers_first = self._world.random.random() < 0.7
        if timers_first:
            self._wake()
        while self._inbox and self.up and not self.paused and not self.cost:
            self._process(self._inbox.popleft())
        if not timers_first:
            self._wake()
        self._drain_later()

    def heal(self) -> None:
        """Nothing is wrong with it any more; if it is down it stays down."""
        self.trap, self.trap_storage, self.cost = None, False, 0.0
        self._resume(self.boots, 0.0)

    def _wake(self) -> None:
        for seat in self.seats:
            if self.up and seat.life is not None:
                seat.life.on_timer()

    # -- packets -----------------------------------------------------------------------------------

    def take(self, arrival: Arrival) -> None:
        """A packet arrives."""
        if not self.up:
            return
        seat, datagram, identity, bringer = arrival
        if not identity and seat.life is not None and seat.life.dataplane.take(datagram, bringer):
            return
        if not self.paused and not self.cost and not self._inbox:
            self._process(arrival)
            return
        if len(self._inbox) < BUFFER:
            self._inbox.append(arrival)
            self._drain_later()

    def _process(self, arrival: Arrival) -> None:
        life = arrival[0].life
        if life is not None:
            life.take(arrival)

    def _drain_later(self) -> None:
        if self._inbox and not self.paused and not self._draining:
            self._draining = True
            self._world.at(self.cost, self._drain, self.boots)

    def _drain(self, boot: int) -> None:
        self._draining = False
        if boot == self.boots and self._inbox and not self.paused:
            self._process(self._inbox.popleft())
        self._drain_later()
