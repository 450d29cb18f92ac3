"""The reactor of a daemon, and its life from start to SIGTERM.

Covered: the clock of timers, a start that fails, the exit status. Not covered: what a daemon does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

from .errors import Unusable

__all__ = ["MonotonicReactor", "new_reactor", "run_reactor"]


class MonotonicReactor(EPollReactor):
    """The epoll reactor on the clock that the cores use, so that setting the time of day moves no timer."""

    def seconds(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


def new_reactor() -> MonotonicReactor:
    """The one of this process; files that are made from now on are its user's alone."""
    os.umask(0o077)
    reactor = MonotonicReactor()
    installReactor(reactor)
    return reactor


def run_reactor(
    reactor: MonotonicReactor,
    start: Callable[[], object],
    stop: Callable[[], object],
    log: Logger,
) -> bool:
    """Run until SIGTERM or SIGINT; whether ``start`` was without fault. Raises its :class:`Unusable`.

    ``start`` is called inside the reactor, so that a signal during it already stops cleanly; ``stop`` returns
    what fires when everything is put back.
    """
    unusable: list[Unusable] = []
    faults = 0

    def begin() -> None:
        nonlocal faults
        try:
            start()
        except Unusable as error:
            unusable.append(error)
            reactor.stop()
        except Exception:
            log.failure("cannot start")
            faults += 1
            reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    for error in unusable:
        raise error
    return not faults
