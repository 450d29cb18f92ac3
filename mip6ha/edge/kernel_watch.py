"""What somebody else changes in the kernel: heard of at once, repaired soon.

Covered: notifications of routes, rules, filters, addresses and links that are ours, their overruns, a look at
everything now and then, a little at a time. Not covered: what is compared (``kernel_tunnels``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from .kernel_messages import (
    GROUP_ADDRESS,
    GROUP_LINK,
    GROUP_ROUTE,
    GROUP_RULE,
    GROUP_TRAFFIC,
    NETLINK_ROUTE,
    others_only,
)
from .mobile_link import SocketReader
from .netlink_messages import Conversation, Message, Overrun

__all__ = ["KernelWatch"]

# Seconds. How often is looked whether there is something to do, and how often everything is compared although
# nothing was heard.
_TICK = 0.1
_WHOLE = 10.0


class _Watched(Protocol):
    @property
    def ports(self) -> tuple[int, ...]: ...

    @property
    def suspect(self) -> bool: ...

    def doubt(self) -> None: ...

    def concerns(self, message: Message) -> bool: ...

    def tend(self) -> None: ...

    def repair(self, report: Callable[[dict[str, int]], Any]) -> Iterator[None]: ...


class KernelWatch:
    """Repairs ``watched`` while ``reactor`` runs; ``report`` is told what was repaired, by kind."""

    log = Logger()

    def __init__(self, watched: _Watched, reactor: Any, report: Callable[[dict[str, int]], Any]) -> None:
        self._watched = watched
        self._reactor = reactor
        self._report = report
        self._repairing: Iterator[None] | None = None
        self._step: Any = None
        self._compared = reactor.seconds()
        groups = (GROUP_LINK, GROUP_TRAFFIC, GROUP_ADDRESS, GROUP_ROUTE, GROUP_RULE)
        self._notifications = Conversation(NETLINK_ROUTE, groups)
        self._notifications.attach_filter(others_only(watched.ports))
        source: Any = self._notifications
        self._reader = SocketReader(source, self._heard, reactor)
        reactor.addReader(self._reader)
        self._loop: Any = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._loop.start(_TICK, now=False)

    def close(self) -> None:
        """Listen and repair no more."""
        self._loop.stop()
        if self._step is not None:
            self._step.cancel()
        self._reactor.removeReader(self._reader)
        self._notifications.close()

    def _heard(self) -> None:
        try:
            messages = self._notifications.notifications()
        except Overrun:
            self._watched.doubt()
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._watched.doubt()
            return
        if not self._watched.suspect and any(map(self._watched.concerns, messages)):
            self._watched.doubt()

    def _tick(self) -> None:
        try:
            self._watched.tend()
        except Exception:
            # Otherwise the loop would end.
            self.log.failure("what time brings to the kernel was not done, by a fault of this program")
        now = self._reactor.seconds()
        if self._repairing is None and (self._watched.suspect or now - self._compared >= _WHOLE):
            self._compared = now
            self._repairing = self._watched.repair(self._report)
            self._go_on()

    def _go_on(self) -> None:
        """One step, and then for as long whatever else waits: a HELLO may be due, or another process."""
        self._step = None
        if self._repairing is None:
            return
        begun = self._reactor.seconds()
        try:
            next(self._repairing)
        except StopIteration:
            self._repairing = None
        except Exception:
            self._repairing = None
            self._watched.doubt()
            self.log.failure("a comparison with the kernel ended by a fault of this program")
        else:
            self._step = self._reactor.callLater(self._reactor.seconds() - begun, self._go_on)
