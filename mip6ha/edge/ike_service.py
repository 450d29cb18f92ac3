"""One IKE endpoint on UDP sockets and nothing else: what it negotiates is reported, and carries no packet.

Covered: start and clean stop, its one timer, effects, the key log, answers for the control socket. Not
covered: the protocol (``ipsec.ike``), ESP, home agents: there IKE comes by the home agent's own ways.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..ike_config import IkeConfiguration
from ..ipsec.ike.effects import (
    Changed,
    Closed,
    Effect,
    Established,
    InstallChild,
    KeyLog,
    MoveChild,
    Notice,
    RemoveChild,
    SendDatagram,
)
from ..ipsec.ike.endpoint import IkeEndpoint
from ..ipsec.ike.keylog import esp_line
from ..ipsec.ike.numbers import PORT
from ..ipsec.ike.sa import IkeSa, State
from . import ike_views as views
from .control import Request, UnixControl, Unwilling
from .ike_keylog import KeyLogDirectory
from .ike_socket import IkeSockets, Received
from .reactor import MonotonicReactor, new_reactor, run_reactor

__all__ = ["IkeService", "run"]

# Seconds that the peers have to hear of the end of their IKE SAs.
_FAREWELL = 2.0


class IkeService(Service):
    """Runs from :meth:`startService`, which leaves nothing behind if it raises, until :meth:`stopService`."""

    log = Logger()

    def __init__(self, configuration: IkeConfiguration, reactor: MonotonicReactor) -> None:
        self.failed = False
        self._configuration = configuration
        self._reactor = reactor
        self._undo = ExitStack()
        self._timer: DelayedCall | None = None
        self._counters: Counter[str] = Counter()
        self._key_log: KeyLogDirectory | None = None
        self._endpoint: IkeEndpoint
        self._sockets: IkeSockets
        self._carry_out: dict[type, Callable[[Any], object]] = {
            SendDatagram: self._send,
            Changed: lambda effect: None,
            KeyLog: self._write_key,
            InstallChild: self._install,
            RemoveChild: lambda effect: self._log("child_removed", views.child(effect.child)),
            MoveChild: lambda effect: self._log("child_moved", views.installation(effect.installation)),
            # What a notice tells in words.
            Established: lambda effect: None,
            Closed: lambda effect: None,
            Notice: lambda effect: self._log(effect.name, effect.fields),
        }

    # Start and stop.

    def startService(self) -> None:  # noqa: N802
        """Listen, and begin with the peers that the configuration says."""
        try:
            self._start()
        except BaseException:
            self._undo.close()
            raise
        super().startService()

    def _start(self) -> None:
        configuration, undo = self._configuration, self._undo
        if configuration.key_log is not None:
            self._key_log = KeyLogDirectory(configuration.key_log)
            undo.callback(self._key_log.close)
        self._endpoint = IkeEndpoint(
            configuration.parameters, os.urandom, time.monotonic(), wall=lambda: datetime.now(UTC)
        )
        self._sockets = IkeSockets(
            self._received,
            self._esp,
            self._settle,
            self._counters,
            self._reactor,
            local=configuration.address,
        )
        undo.callback(self._sockets.close)
        undo.callback(self._cancel)
        undo.callback(UnixControl(configuration.control_socket, self._commands(), self._reactor).close)
        self._log("ready", {"peers": len(configuration.parameters.peers), "pid": os.getpid()})
        for name in configuration.initiate:
            self._initiate(name)

    def stopService(self) -> Deferred[None] | None:  # noqa: N802
        """Tell the peers; fires when they have said that they know, or have had time to."""
        if not self.running:
            return None
        super().stopService()
        self._farewell: Deferred[None] = Deferred()
        self._patience = self._reactor.callLater(_FAREWELL, self._release)
        for ike_sa in list(self._endpoint.ike_sas.values()):
            if ike_sa.state is State.ESTABLISHED:
                self._input(partial(self._endpoint.delete, ike_sa.spi))
        self._settle()
        return self._farewell

    def _release(self) -> None:
        if self._patience.active():
            self._patience.cancel()
        self._undo.close()
        self._log("stopped", self._counts())
        self._farewell.callback(None)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # Inputs.

    def _input(self, give: Callable[[float], Iterable[Effect]]) -> None:
        try:
            for effect in give(time.monotonic()):
                self._carry_out[type(effect)](effect)
        except Exception:
            # Otherwise the reactor would read the socket no more, or the timer would never come again.
            self._counters["internal_error"] += 1
            self.log.failure("an input was dropped by a fault of this program")

    def _received(self, datagram: Received) -> None:
        self._input(partial(self._endpoint.receive, *datagram))

    def _esp(self, datagram: Received) -> None:
        self._counters["esp_without_dataplane"] += 1

    def _timed(self) -> None:
        self._timer = None
        self._input(self._endpoint.on_timer)
        self._settle()

    def _settle(self) -> None:
        """After each batch of inputs."""
        self._cancel()
        if not self.running and not any(map(_is_open, self._endpoint.ike_sas.values())):
            # Not now: the datagram that brought us here is still being read.
            self._timer = self._reactor.callLater(0, self._release)
            return
        deadline = self._endpoint.next_deadline()
        if deadline is not None:
            wait = max(0.0, deadline - time.monotonic())
            self._timer = self._reactor.callLater(wait, self._timed)

    # Effects.

    def _send(self, effect: SendDatagram) -> None:
        self._sockets.send(effect.octets, effect.local, effect.remote)

    def _install(self, effect: InstallChild) -> None:
        installation = effect.installation
        replaces = {} if effect.replaces is None else {"replaces": f"{effect.replaces:08x}"}
        self._log("child_installed", {**views.installation(installation), **replaces})
        if self._key_log is not None:
            for keys, spi in (
                (effect.inbound, installation.child.spi_in),
                (effect.outbound, installation.child.spi_out),
            ):
                line = esp_line(installation.transform, keys, spi)
                if line is not None:
                    self._key_log.esp(line)

    def _write_key(self, effect: KeyLog) -> None:
        if self._key_log is not None:
            self._key_log.ike(effect.line)

    def _log(self, name: str, fields: Mapping[str, object]) -> None:
        self.log.info("{event}", event=name, fields=fields)

    # What the control socket is asked.

    def _commands(self) -> Mapping[str, Callable[[Request], object]]:
        endpoint = self._endpoint
        return {
            "sas": lambda _: [views.ike_sa(each) for each in endpoint.ike_sas.values()],
            "counters": lambda _: self._counts(),
            "initiate": lambda request: self._initiate(str(request.get("peer"))),
            "create-child": self._create_child,
            "rekey-child": partial(self._to_child, endpoint.rekey_child),
            "delete-child": partial(self._to_child, endpoint.delete_child),
            "rekey": partial(self._to_peer, endpoint.rekey),
            "delete": partial(self._to_peer, endpoint.delete),
            "probe": partial(self._to_peer, endpoint.probe),
        }

    def _counts(self) -> dict[str, int]:
        return dict(sorted((self._endpoint.counters + self._counters).items()))

    def _initiate(self, name: str) -> None:
        peer = self._configuration.parameters.peer(name)
        if peer is None or peer.address is None:
            raise Unwilling(f"no peer {name!r} with an address")
        local = self._configuration.address, PORT
        self._input(lambda now: self._endpoint.initiate(name, local, now))
        self._settle()

    def _of(self, request: Request) -> IkeSa:
        """The IKE SA that a request is about: the last one with its peer."""
        for found in reversed(list(self._endpoint.ike_sas.values())):
            if found.state is State.ESTABLISHED and found.peer == request.get("peer"):
                return found
        raise Unwilling(f"no IKE SA with {request.get('peer')!r}")

    def _to_peer(self, act: Callable[[bytes, float], list[Effect]], request: Request) -> None:
        ike_sa = self._of(request)
        self._input(lambda now: act(ike_sa.spi, now))
        self._settle()

    def _create_child(self, request: Request) -> None:
        ike_sa, name = self._of(request), str(request.get("child"))
        peer = self._configuration.parameters.peer(ike_sa.peer)
        if peer is None or peer.child(name) is None:
            raise Unwilling(f"no child {name!r} of {ike_sa.peer!r}")
        self._input(lambda now: self._endpoint.create_child(ike_sa.spi, name, now))
        self._settle()

    def _to_child(self, act: Callable[[bytes, int, float], list[Effect]], request: Request) -> None:
        ike_sa = self._of(request)
        for found in reversed(ike_sa.live_children()):
            if found.name == request.get("child"):
                self._input(partial(act, ike_sa.spi, found.spi_in))
                self._settle()
                return
        raise Unwilling(f"no child {request.get('child')!r} with {ike_sa.peer!r}")


def _is_open(ike_sa: IkeSa) -> bool:
    return ike_sa.state in (State.ESTABLISHED, State.REKEYED)


def run(configuration: IkeConfiguration) -> int:
    """Negotiate until SIGTERM or SIGINT; the exit status. Raises :class:`Unusable` where it cannot start."""
    reactor = new_reactor()
    service = IkeService(configuration, reactor)
    started = run_reactor(reactor, service.startService, service.stopService, service.log)
    return 0 if started and not service.failed else 1
