"""The home agent as a process: packets, timers and signals in, effects out in their order.

Covered: start and clean stop, the one timer, stable storage before effects that rely on it, reload of the
mobile nodes, answers for the control socket. Not covered: any protocol (``node``), any system call of
forwarding (``dataplane``).
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

from ..config import ConfigError, Configuration, load
from ..effects import Effect, Event, ReserveSequences
from ..node import HomeAgent
from .control import UnixControl
from .dataplane import TunDataplane
from .errors import Unusable
from .ndp import NeighborListener
from .storage import StateDirectory
from .tun import TunReader

__all__ = ["HomeAgentService", "MonotonicReactor", "run"]


class MonotonicReactor(EPollReactor):
    """The epoll reactor on the clock that the cores use, so that setting the time of day moves no timer."""

    def seconds(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()


class HomeAgentService(Service):
    """One home agent on the TUN dataplane."""

    log = Logger()

    def __init__(self, path: Path, configuration: Configuration, reactor: MonotonicReactor) -> None:
        self.failed = False
        self._path = path
        self._configuration = configuration
        self._reactor = reactor
        self._timer: DelayedCall | None = None
        self._armed_for = 0.0
        self._closers: list[Callable[[], object]] = []

    # -- start and stop ----------------------------------------------------------------------------

    def startService(self) -> None:  # noqa: N802
        """Set everything up, or raise what tells why not with nothing left behind."""
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        super().startService()

    def _start(self) -> None:
        edge, parameters = self._configuration.edge, self._configuration.parameters
        self._state = StateDirectory(edge.state_dir)
        self._closers.append(self._state.close)
        floor = self._state.sequence_floor()
        self._dataplane = TunDataplane(parameters.address, edge)
        self._closers.append(self._dataplane.close)
        self._node = HomeAgent(
            replace(parameters, link_mtu=self._dataplane.link_mtu, sequence_floor=floor),
            os.urandom,
            time.monotonic(),
        )
        commands = {
            "bindings": lambda: self._node.bindings(time.monotonic()),
            "sas": self._node.security_associations,
            "counters": self.counters,
            "status": self._status,
        }
        self._perform(self._node.start(time.monotonic()))
        reader = TunReader(self._dataplane.tun, self._received, self._arm, self._reactor)
        self._reactor.addReader(reader)
        self._closers.append(lambda: self._reactor.removeReader(reader))
        if self._dataplane.home_link is not None:
            listener = NeighborListener(self._dataplane.home_link, self._conflicted, self._reactor)
            self._reactor.addReader(listener)
            self._closers.append(lambda: self._reactor.removeReader(listener))
        # Last, for whoever reaches the socket may expect a home agent that serves.
        self._closers.append(UnixControl(edge.control_socket, commands, self._reactor).close)
        self._arm()
        self._event("ready", {"mobile_nodes": len(parameters.mobile_nodes), "tun": edge.tun_name})

    def stopService(self) -> Deferred[Any] | None:  # noqa: N802
        """Release every address, then undo everything that start did; fires when the last file is gone."""
        if not self.running:
            return None
        super().stopService()
        self._perform(self._node.stop(time.monotonic()))
        waiting = self._close()
        self._event("stopped", {})
        return DeferredList(waiting)

    def _close(self) -> list[Deferred[Any]]:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        waiting = []
        while self._closers:
            closed = self._closers.pop()()
            if isinstance(closed, Deferred):
                waiting.append(closed)
        return waiting

    # -- inputs ------------------------------------------------------------------------------------

    def _received(self, packet: bytes) -> None:
        try:
            self._perform(self._node.receive(packet, time.monotonic()))
        except Exception:
            # Otherwise the reactor would stop reading the device for good.
            self._dataplane.counters["internal_error"] += 1
            self.log.failure("a packet was dropped by a fault of this program")

    def _conflicted(self, address: bytes) -> None:
        self._perform(self._node.address_conflict(address, time.monotonic()))
        self._arm()

    def _timed(self) -> None:
        self._perform(self._node.on_timer(time.monotonic()))
        self._arm()

    def _arm(self) -> None:
        deadline, timer = self._node.next_deadline(), self._timer
        active = timer is not None and timer.active()
        if active and deadline == self._armed_for:
            return
        if timer is not None and active:
            timer.cancel()
        self._timer = None
        if deadline is not None:
            self._armed_for = deadline
            self._timer = self._reactor.callLater(max(0.0, deadline - time.monotonic()), self._timed)

    def reload(self) -> None:
        """Take the mobile nodes over from the configuration file; one that is not usable changes nothing."""
        if not self.running:
            return
        try:
            configuration = load(self._path)
        except ConfigError as error:
            for wrong in error.lines:
                self.log.error("reload refused: {wrong}", wrong=wrong)
            return
        before = self._configuration
        if _fixed(configuration) != _fixed(before):
            self.log.warn("only mobile nodes are taken over; other changes need a restart")
        for warning in configuration.warnings:
            self.log.warn("{warning}", warning=warning)
        mobile_nodes = configuration.parameters.mobile_nodes
        self._configuration = replace(
            before, parameters=replace(before.parameters, mobile_nodes=mobile_nodes)
        )
        self._perform(self._node.reconfigure(mobile_nodes, time.monotonic()))
        self._arm()
        self._event("reloaded", {"mobile_nodes": len(mobile_nodes)})

    # -- effects -----------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        dataplane = self._dataplane
        for effect in effects:
            if isinstance(effect, Event):
                self._event(effect.name, effect.fields)
            elif isinstance(effect, ReserveSequences):
                try:
                    self._state.reserve_sequences(effect.limit)
                except OSError as error:
                    # What follows might use numbers that a restart would use again: rather none at all.
                    self.log.critical("cannot reserve sequence numbers: {error}", error=error.strerror)
                    self.failed = True
                    self._reactor.callLater(0, self._reactor.stop)
                    return
            else:
                dataplane.carry_out(effect)
        dataplane.flush()

    def _event(self, name: str, fields: dict[str, object]) -> None:
        self.log.info("{event}", event=name, fields=fields)

    # -- views -------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """What the core and the dataplane counted, by name."""
        return dict(sorted((Counter(self._node.counters) + self._dataplane.counters).items()))

    def _status(self) -> dict[str, Any]:
        edge = self._configuration.edge
        own = {"dataplane": "tun", "tun": edge.tun_name, "home_link": edge.home_link, "pid": os.getpid()}
        return {**self._node.status(time.monotonic()), **own}


def _fixed(configuration: Configuration) -> tuple[object, object]:
    return replace(configuration.parameters, mobile_nodes=()), configuration.edge


def run(path: Path, configuration: Configuration) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises :class:`Unusable` where it cannot start."""
    os.umask(0o077)
    reactor = MonotonicReactor()
    installReactor(reactor)
    service = HomeAgentService(path, configuration, reactor)
    failures: list[Unusable] = []

    def start() -> None:
        try:
            service.startService()
        except Unusable as error:
            failures.append(error)
            reactor.stop()
        except Exception:
            service.log.failure("cannot start")
            service.failed = True
            reactor.stop()

    # Inside the reactor, so that a signal during the start already stops cleanly.
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(service.reload))
    reactor.run()
    for failure in failures:
        raise failure
    return 1 if service.failed else 0
