"""One mobile node on the real world: reads packets and events, carries out the core's effects in order.

Covered: start, stop, one timer, event lines. Not covered: what any of it means (``mobile``), who makes the
packets (``mobile_dataplane``), kernel state (``mobile_network``).
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TextIO

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..mobile.effects import (
    AnnounceAddress,
    EndProbe,
    Event,
    LogKeys,
    MobileEffect,
    ProbeAddress,
    SendPacket,
    SignallingEffect,
    SolicitRouter,
)
from ..mobile.movement import interface_identifier
from ..mobile_config import MobileConfiguration
from .errors import Unusable
from .ike_keylog import KeyLogDirectory
from .mobile_associations import remove_own
from .mobile_dataplane import MobileDataplane, Surroundings, TunDataplane
from .mobile_kernel import KernelDataplane
from .mobile_link import CarrierEvents, RouterDiscovery, SocketReader, link
from .ndp import HomeLink, NeighborListener
from .reactor import MonotonicReactor, new_reactor, run_reactor
from .storage import StateDirectory
from .sysctl import Switches

__all__ = ["EventLog", "MobileNodeService", "run"]

_DEREGISTRATION_PATIENCE = 2.0
_DATAPLANES: dict[str, type[MobileDataplane]] = {"tun": TunDataplane, "kernel": KernelDataplane}


class EventLog:
    """Events as JSON lines, stamped when written: ``time`` is the wall clock's, both in seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: Event) -> None:
        """One line, at once."""
        stamps = {"time": round(time.time(), 6), "monotonic": round(time.monotonic(), 6)}
        print(json.dumps({**stamps, "event": event.name, **event.fields}), file=self._stream, flush=True)


class MobileNodeService(Service):
    """Runs from :meth:`startService`, which leaves nothing behind if it raises, until :meth:`stopService`."""

    log = Logger()

    def __init__(self, configuration: MobileConfiguration, stream: TextIO, reactor: MonotonicReactor) -> None:
        self.failed = False
        self._configuration = configuration
        self._reactor = reactor
        self._events = EventLog(stream)
        self._counters: Counter[str] = Counter()
        self._undo = ExitStack()
        self._timer: DelayedCall | None = None
        self._armed_for = 0.0
        self._stopped: Deferred[None] | None = None
        self._key_log: KeyLogDirectory | None = None

    # Start and stop.

    def startService(self) -> None:  # noqa: N802
        """Take over the interface, or raise what tells why not."""
        try:
            self._start()
        except BaseException:
            self._undo.close()
            raise
        super().startService()

    def _start(self) -> None:
        edge, undo, counters = self._configuration.edge, self._undo, self._counters
        self._state = StateDirectory(edge.state_dir)
        undo.callback(self._state.close)
        try:
            device = link(edge.interface)
        except OSError:
            raise Unusable(f"interface {edge.interface}: there is no such interface") from None
        mtu = device.get_attr("IFLA_MTU")
        mac = bytes.fromhex(device.get_attr("IFLA_ADDRESS").replace(":", ""))
        parameters = replace(
            self._configuration.parameters,
            interface_identifier=edge.interface_identifier or interface_identifier(mac),
            link_mtu=mtu,
            sequence_floor=self._state.sequence_floor(),
            wall=lambda: datetime.now(UTC),
        )
        if edge.key_log is not None:
            self._key_log = KeyLogDirectory(edge.key_log)
            undo.callback(self._key_log.close)
        self._home_address = parameters.home_address
        switches = Switches(edge.state_dir / "switches.json")
        undo.callback(switches.restore)
        # Whichever dataplane was there before.
        remove_own(counters)
        self._dataplane = _DATAPLANES[edge.dataplane](
            Surroundings(
                edge, parameters, self._state, switches, counters, self._received, self._arm, self._reactor
            )
        )
        undo.callback(self._dataplane.close)
        self._dataplane.start()
        self._node = self._dataplane.node
        self._neighbours = HomeLink(edge.interface, counters)
        undo.callback(self._neighbours.close)
        self._routers = RouterDiscovery(edge.interface, self._advertised, counters)
        undo.callback(self._routers.socket.close)
        self._carrier = CarrierEvents(edge.interface, self._carrier_changed)
        undo.callback(self._carrier.socket.close)
        if leftovers := {name: count for name, count in counters.items() if count}:
            self._events.write(Event("leftovers_removed", dict(leftovers)))
        self._carry_out(self._node.start())
        self._dataplane.listen()
        for reader in (
            NeighborListener(self._neighbours, self._conflicted, self._reactor),
            SocketReader(self._routers.socket, self._routers.ready, self._reactor),
            SocketReader(self._carrier.socket, self._carrier.ready, self._reactor),
        ):
            self._reactor.addReader(reader)
            undo.callback(self._reactor.removeReader, reader)
        self._carrier.look()
        self._arm()

    def stopService(self) -> Deferred[None] | None:  # noqa: N802
        """Release everything, after a de-registration if that is configured."""
        if not self.running:
            return None
        super().stopService()
        effects = (
            self._node.deregister(time.monotonic()) if self._configuration.edge.deregister_at_stop else []
        )
        if not effects:
            self._release()
            return None
        self._stopped = Deferred()
        self._reactor.callLater(_DEREGISTRATION_PATIENCE, self._release)
        self._carry_out(effects)
        self._arm()
        return self._stopped

    def _release(self) -> None:
        stopped, self._stopped = self._stopped, None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._node.counters.update(self._counters)
        self._counters.clear()
        self._carry_out(self._node.stop())
        self._undo.close()
        if stopped is not None:
            stopped.callback(None)

    # Inputs.

    def _received(self, hear: Callable[[float], Sequence[MobileEffect | SignallingEffect]]) -> None:
        try:
            self._carry_out(hear(time.monotonic()))
        except Exception:
            # Otherwise the reactor would stop reading the device for good.
            self._counters["internal_error"] += 1
            self.log.failure("a packet was dropped by a fault of this program")

    def _advertised(self, source: bytes, hop_limit: int, message: bytes) -> None:
        self._carry_out(self._node.advertisement(source, hop_limit, message, time.monotonic()))
        self._arm()

    def _carrier_changed(self, up: bool) -> None:
        self._carry_out(self._node.carrier(up, time.monotonic()))
        self._arm()

    def _conflicted(self, address: bytes) -> None:
        self._carry_out(self._node.address_conflict(address, time.monotonic()))
        self._arm()

    def _due(self) -> None:
        self._carry_out(self._node.on_timer(time.monotonic()))
        self._arm()

    def _arm(self) -> None:
        if self._stopped is not None and not self._node.registration.may_be_bound:
            # Not now: the packet that brought us here is still being read.
            self._reactor.callLater(0, self._release)
            return
        deadline, timer = self._node.next_deadline(), self._timer
        active = timer is not None and timer.active()
        if active and deadline == self._armed_for:
            return
        if timer is not None and active:
            timer.cancel()
        self._timer = None
        if deadline is not None:
            self._armed_for = deadline
            self._timer = self._reactor.callLater(max(0.0, deadline - time.monotonic()), self._due)

    # Effects.

    def _carry_out(self, effects: Sequence[MobileEffect | SignallingEffect]) -> None:
        for effect in effects:
            if type(effect) is SendPacket:
                self._dataplane.act(effect)
            elif isinstance(effect, Event):
                self._events.write(effect)
            else:
                self._act(effect)

    def _act(self, effect: MobileEffect | SignallingEffect) -> None:
        match effect:
            case SolicitRouter():
                self._routers.solicit()
            case AnnounceAddress(address):
                self._neighbours.announce(address, self._home_address)
            case ProbeAddress(address):
                self._neighbours.probe(address)
            case EndProbe(address):
                self._neighbours.end_probe(address)
            case LogKeys():
                self._log_keys(effect)
            case _:
                self._dataplane.act(effect)

    def _log_keys(self, effect: LogKeys) -> None:
        if self._key_log is not None:
            (self._key_log.esp if effect.esp else self._key_log.ike)(effect.line)


def run(configuration: MobileConfiguration) -> int:
    """Be a mobile node until SIGTERM or SIGINT; the exit status. Raises :class:`Unusable`."""
    reactor = new_reactor()
    events = configuration.edge.events
    with ExitStack() as stack:
        try:
            stream = sys.stdout if events is None else stack.enter_context(events.open("a"))
        except OSError as error:
            raise Unusable(f"events {events}: {error.strerror}") from None
        service = MobileNodeService(configuration, stream, reactor)
        started = run_reactor(reactor, service.startService, service.stopService, service.log)
    return 0 if started and not service.failed else 1
