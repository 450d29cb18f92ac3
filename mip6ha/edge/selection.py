"""The rule that has a member's routes looked into for packets from anywhere, in a thread of its own.

Covered: changing it in order, without anybody waiting. Not covered: the routes (``dataplane``). The kernel
looks at every route when a rule changes: too long for a process that must send a HELLO every few
milliseconds, and for a takeover, which does not need it for what comes from the home link.
"""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Protocol

__all__ = ["Selection"]


_LET_GO_FIRST = 0.001


class Select(Protocol):
    """Has the routes looked into, or not any more."""

    def __call__(self, *, selected: bool) -> None:
        """Returns when that is so."""


class Selection:
    """Whether a member's routes are looked into; they are not at first. Ends with :meth:`close`."""

    def __init__(self, select: Select) -> None:
        self._select = select
        self._wanted: SimpleQueue[bool | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="selection", daemon=True)
        self._thread.start()

    def set(self, *, selected: bool) -> None:
        """Have it looked into, or not, in a moment."""
        self._wanted.put(selected)

    def close(self) -> None:
        """Not any more; returns when that is so."""
        self._wanted.put(False)
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (selected := self._wanted.get()) is not None:
            if selected:
                # The frame that takes over goes first.
                sleep(_LET_GO_FIRST)
            self._select(selected=selected)
