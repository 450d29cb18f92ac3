"""The process of the home agent: one or several of them on one reactor, signals, and how it is scheduled.

Covered: start, SIGTERM, SIGHUP, exit status, the garbage collector, real-time priority on request. Not
covered: what a home agent does (``service``, ``member_service``).
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from ..config import Configuration
from .journaled_service import JournaledService
from .member_service import MemberService
from .reactor import new_reactor, run_reactor
from .service import HomeAgentService

__all__ = ["run"]

_LOCK_CURRENT_AND_FUTURE = 3
# Young objects at a time: well below a millisecond for each collection.
_YOUNG = 2000
_MIDDLE = 5
_NEVER = 1 << 30

_log = Logger()


def run(configurations: Sequence[tuple[Path, Configuration]]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises :class:`Unusable` where it cannot start."""
    reactor = new_reactor()
    services: list[HomeAgentService] = []

    def ended() -> None:
        if not any(service.running for service in services) and reactor.running:
            reactor.stop()

    for path, configuration in configurations:
        if configuration.group is not None:
            kind: type[HomeAgentService] = MemberService
        else:
            kind = JournaledService if configuration.edge.journal else HomeAgentService
        services.append(kind(path, configuration, reactor, ended))

    def start() -> None:
        # Now, for once a service has started a HELLO may be due.
        gc.collect()
        if any(each.membership and each.membership.realtime for _, each in configurations):
            _become_realtime()
        for service in services:
            service.startService()
        _spare_collections()

    def stop() -> Deferred[Any]:
        return DeferredList([service.stopService() for service in services])

    def reload() -> None:
        for service in services:
            service.reload()

    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(reload))
    started = run_reactor(reactor, start, stop, _log)
    return 0 if started and not any(service.failed for service in services) else 1


def _spare_collections() -> None:
    """Keep the garbage collector from looking at everything that lives.

    A full collection walks every mobile node's objects and stops the process for it: 0.5 s with 100,000
    contexts, while a HELLO may be due every 5 ms. What is there after the start stays; what comes later is
    freed by its reference count, and cycles are only looked for among young objects, which is short.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)


def _become_realtime() -> None:
    """Run before everything of ordinary priority, and never wait for memory; told where it is not allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except OSError as error:
        _log.warn("no real-time priority: {error}", error=error.strerror)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_LOCK_CURRENT_AND_FUTURE):
        _log.warn("memory is not locked: {error}", error=os.strerror(ctypes.get_errno()))
