"""One home agent in this process: packets and timers in, effects out in their order.

Covered: start and clean stop, its one timer, stable storage before effects that rely on it, reload of the
mobile nodes, answers for the control socket. Not covered: any protocol (``node``), any system call of
forwarding (``dataplane``), membership of a redundant set (``member_service``), the process (``process``).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger

from ..binding.discovery import anycast_address
from ..config import ConfigError, Configuration, EdgeConfiguration, load
from ..effects import Effect, Event, LogKeys, ReserveSequences
from ..lending import PayloadNews
from ..negotiation import REQUESTS
from ..node import HomeAgent
from ..parameters import HomeAgentParameters, MobileNodeParameters
from ..wire import address, text
from . import logging
from .control import Listing, Request, UnixControl, Unwilling
from .dataplane import TunDataplane
from .ike_keylog import KeyLogDirectory
from .ike_views import ike_sa
from .ndp import NeighborListener
from .reactor import MonotonicReactor
from .storage import StateDirectory
from .tun import TunReader

__all__ = ["HomeAgentService"]

# Seconds. What fails each time it is tried must leave room for everything else.
_AFTER_FAULT = 0.01


class Core(Protocol):
    """What a home agent and a member of a redundant set have in common."""

    counters: Counter[str]

    def start(self, now: float) -> list[Effect]:
        """Begin."""

    def receive(self, packet: bytes, now: float) -> list[Effect]:
        """A packet from the TUN device."""

    def address_conflict(self, address: bytes, now: float) -> list[Effect]:
        """Somebody claims an address that is probed."""

    def payload_news(self, news: PayloadNews, now: float) -> list[Effect]:
        """What the dataplane says of payload that it was lent."""

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` is due."""

    def on_timer(self, now: float) -> list[Effect]:
        """Do what the clock asks for."""

    def reconfigure(self, mobile_nodes: tuple[MobileNodeParameters, ...], now: float) -> list[Effect]:
        """Serve these mobile nodes from now on."""

    def stop(self, now: float) -> list[Effect]:
        """End."""

    def ask_ike(self, home_address: bytes, what: str, now: float) -> tuple[bool, list[Effect]]:
        """Begin an exchange of IKE with a mobile node."""

    def status(self, now: float) -> dict[str, object]:
        """A few figures."""


class _NotStored(Exception):
    """Something is not on stable storage that must be there before anything else happens."""


class HomeAgentService(Service):
    """One home agent on the TUN dataplane.

    ``ended`` is called when it cannot go on; it has stopped by itself then.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        configuration: Configuration,
        reactor: MonotonicReactor,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self.failed = False
        self._path = path
        self._configuration = configuration
        self._reactor = reactor
        self._ended = ended
        self._timer: DelayedCall | None = None
        self._timer_due = 0.0
        self._not_before = 0.0
        self._closers: list[Callable[[], object]] = []
        self._core: Core
        self._home_agent: HomeAgent
        self._carry_out: dict[type, Callable[[Any], object]] = {
            Event: self._event,
            ReserveSequences: self._reserve,
        }

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
        anycast = frozenset(map(anycast_address, parameters.home_prefixes))
        self._dataplane = self._open_dataplane(parameters.address, edge, anycast)
        self._closers.append(self._dataplane.close)
        if edge.key_log is not None:
            key_log = KeyLogDirectory(edge.key_log)
            self._closers.append(key_log.close)
            self._carry_out[LogKeys] = lambda each: (key_log.esp if each.esp else key_log.ike)(each.line)
        self._make_core(
            replace(
                parameters,
                link_mtu=self._dataplane.link_mtu,
                sequence_floor=floor,
                lends_payload=self._dataplane.offloads,
                wall=lambda: datetime.now(UTC),
            )
        )
        self._perform(self._begin())
        self._read(TunReader(self._dataplane.tun, self._received, self._settle, self._reactor))
        if self._dataplane.home_link is not None:
            self._read(NeighborListener(self._dataplane.home_link, self._conflicted, self._reactor))
        self._closers.append(self._dataplane.attend(self._reactor, self._log, self._payload_told))
        # Last, for whoever reaches the socket may expect a home agent that serves.
        self._closers.append(UnixControl(edge.control_socket, self._commands(), self._reactor).close)
        self._settle()
        self._log("ready", {"mobile_nodes": len(parameters.mobile_nodes), "tun": edge.tun_name})

    def _make_core(self, parameters: HomeAgentParameters) -> None:
        self._core = self._home_agent = HomeAgent(parameters, os.urandom, time.monotonic())

    def _begin(self) -> list[Effect]:
        return self._core.start(time.monotonic())

    def _open_dataplane(
        self, address: bytes, edge: EdgeConfiguration, anycast: frozenset[bytes]
    ) -> TunDataplane:
        if edge.dataplane == "tun":
            return TunDataplane(address, edge, anycast)
        # It speaks more netlink than most need.
        from .kernel_dataplane import KernelDataplane  # noqa: PLC0415

        return KernelDataplane(address, edge, anycast, clock=time.monotonic)

    def _read(self, reader: Any) -> None:
        self._reactor.addReader(reader)
        self._closers.append(lambda: self._reactor.removeReader(reader))

    def stopService(self) -> Deferred[Any]:  # noqa: N802
        """Release every address, then undo everything that start did; fires when the last file is gone."""
        if not self.running:
            return succeed(None)
        super().stopService()
        self._perform(self._core.stop(time.monotonic()))
        waiting = self._close()
        self._log("stopped", {})
        return DeferredList(waiting)

    def _close(self) -> list[Deferred[Any]]:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        waiting = []
        while self._closers:
            closed = self._closers.pop()()
            if isinstance(closed, Deferred):
                waiting.append(closed)
        return waiting

    def _fail(self) -> None:
        """Stop in a moment, for what is to be done next must not be done."""
        if not self.failed:
            self.failed = True
            self._reactor.callLater(0, self._end)

    def _end(self) -> None:
        self.stopService().addBoth(lambda _: self._ended())

    # -- inputs ------------------------------------------------------------------------------------

    def _input(self, give: Callable[[], Iterable[Effect]]) -> None:
        """Give the core an input, and carry out what it asks for."""
        try:
            self._perform(give())
        except Exception:
            # Otherwise the reactor would stop reading the device, or the timer would never come again.
            self._dataplane.counters["internal_error"] += 1
            self._not_before = time.monotonic() + _AFTER_FAULT
            self.log.failure("an input was dropped by a fault of this program")

    def _received(self, packet: bytes) -> None:
        self._input(lambda: self._core.receive(packet, time.monotonic()))

    def _conflicted(self, address: bytes) -> None:
        self._input(lambda: self._core.address_conflict(address, time.monotonic()))
        self._settle()

    def _payload_told(self, news: list[PayloadNews]) -> None:
        for each in news:
            self._input(partial(self._core.payload_news, each, time.monotonic()))
        self._settle()

    def _timed(self) -> None:
        self._timer = None
        now = time.monotonic()
        deadline = self._core.next_deadline()
        if deadline is not None and deadline <= now:
            self._input(lambda: self._core.on_timer(now))
        self._settle()

    def _settle(self) -> None:
        """After each batch of inputs."""
        deadline, timer = self._core.next_deadline(), self._timer
        if deadline is None or not self._closers:
            return
        if timer is not None:
            # One that is early finds nothing to do, and is set anew.
            if self._timer_due <= deadline:
                return
            timer.cancel()
        self._timer_due = deadline
        wait = max(deadline, self._not_before) - time.monotonic()
        self._timer = self._reactor.callLater(max(0.0, wait), self._timed)

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
        self._perform(self._core.reconfigure(mobile_nodes, time.monotonic()))
        self._settle()
        self._log("reloaded", {"mobile_nodes": len(mobile_nodes)})

    # -- effects -----------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        own, dataplane = self._carry_out, self._dataplane
        if self.failed and self.running:
            return
        try:
            for effect in effects:
                carry_out = own.get(type(effect))
                if carry_out is None:
                    dataplane.carry_out(effect)
                else:
                    carry_out(effect)
        except _NotStored:
            # What follows relies on it.
            self._fail()
        dataplane.flush()

    def _reserve(self, effect: ReserveSequences) -> None:
        self._store("reserve sequence numbers", lambda: self._state.reserve_sequences(effect.limit))

    def _store(self, what: str, store: Callable[[], None]) -> None:
        try:
            store()
        except OSError as error:
            # A restart would use numbers again that this process used: rather none at all.
            self.log.critical("cannot {what}: {error}", what=what, error=error.strerror)
            raise _NotStored from None

    def _event(self, effect: Event) -> None:
        self._log(effect.name, effect.fields)

    def _log(self, name: str, fields: dict[str, object]) -> None:
        self.log.info("{event}", event=name, fields=fields)

    # -- views -------------------------------------------------------------------------------------

    def _commands(self) -> Mapping[str, Callable[[Request], object]]:
        return {
            "bindings": lambda _: Listing(self._home_agent.bindings(time.monotonic())),
            "sas": lambda _: Listing(self._home_agent.security_associations()),
            "counters": lambda _: self.counters(),
            "status": lambda _: self._status(),
            "ike": lambda _: Listing(self._ike_sas()),
            "ask-ike": self._ask_ike,
        }

    def _ike_sas(self) -> Iterator[dict[str, object]]:
        negotiation = self._home_agent.negotiation
        endpoint = None if negotiation is None else negotiation.endpoint
        return iter(()) if endpoint is None else (ike_sa(each) for each in list(endpoint.ike_sas.values()))

    def _ask_ike(self, request: Request) -> None:
        what, home_address = str(request.get("what")), str(request.get("home_address"))
        if what not in REQUESTS:
            raise Unwilling(f"what is one of {', '.join(REQUESTS)}")
        try:
            home = address(home_address)
        except ValueError:
            raise Unwilling(f"{home_address!r} is no address") from None
        found, effects = self._core.ask_ike(home, what, time.monotonic())
        if not found:
            raise Unwilling(f"no IKE SA of {text(home)} here")
        self._perform(effects)
        self._settle()

    def counters(self) -> dict[str, int]:
        """What the core and the dataplane counted, by name."""
        own = Counter(log_lines_lost=logging.lost())
        return dict(sorted((Counter(self._core.counters) + self._dataplane.counters + own).items()))

    def _status(self) -> dict[str, Any]:
        edge = self._configuration.edge
        own: dict[str, Any] = {"dataplane": edge.dataplane, "tun": edge.tun_name}
        own |= {"home_link": edge.home_link, "pid": os.getpid()}
        return {**self._core.status(time.monotonic()), **own}


def _fixed(configuration: Configuration) -> tuple[object, ...]:
    parameters = replace(configuration.parameters, mobile_nodes=())
    return parameters, configuration.edge, configuration.group, configuration.membership
