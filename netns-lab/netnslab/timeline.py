"""What happened when: one list of marks on the monotonic clock, in the order they became known.

Not covered: how marks are shown (`display`, `report`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Mark", "Timeline"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened. `time` is in seconds of CLOCK_MONOTONIC; `source` is the node or "lab"."""

    time: float
    source: str
    name: str
    detail: str = ""


def _nobody(mark: Mark) -> None:
    """Listen to nothing."""


@dataclass(slots=True)
class Timeline:
    """Marks of one run. `start` is its zero, `epoch_offset` what to add to get seconds since 1970."""

    listener: Callable[[Mark], None] = _nobody
    start: float = field(default_factory=time.monotonic)
    epoch_offset: float = field(default_factory=lambda: time.time() - time.monotonic())
    marks: list[Mark] = field(default_factory=list)

    def add(
        self, name: str, detail: str = "", *, source: str = "lab", at: float | None = None, live: bool = True
    ) -> Mark:
        """Note something that happens now, or that happened at a monotonic time; tell the listener if
        `live`.
        """
        mark = Mark(time.monotonic() if at is None else at, source, name, detail)
        self.take(mark, live=live)
        return mark

    def take(self, mark: Mark, *, live: bool = True) -> None:
        """Note a mark that was made elsewhere; tell the listener if `live`."""
        self.marks.append(mark)
        if live:
            self.listener(mark)

    def forget_listener(self) -> None:
        """Tell nobody any more, so that it can go to another process."""
        self.listener = _nobody

    def in_order(self) -> list[Mark]:
        """All marks by time."""
        return sorted(self.marks, key=lambda mark: mark.time)

    def first(self, name: str, after: float = 0.0) -> Mark | None:
        """The first mark with a name at or after a time."""
        return next((mark for mark in self.in_order() if mark.name == name and mark.time >= after), None)
