"""Two members of a set on one address, without what is around them: where one stops, the other has the state.

A socket each for ports 500 and 4500 stands for the address that moves. What a member asks to be replicated is
replicated before anything behind it is sent. Not covered: how members talk (``harp``), ESP.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from mip6ha import udp
from mip6ha.ipsec.ike.effects import Changed, Closed, Effect, InstallChild, Notice, SendDatagram
from mip6ha.ipsec.ike.endpoint import IkeEndpoint
from mip6ha.ipsec.ike.numbers import NATT_PORT, PORT
from mip6ha.ipsec.ike.parameters import Parameters
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.wire import address, text

from .network import OURS, Namespace

_TICK = 0.05


class Members:
    """Runs in a thread from ``with`` on. ``mute``: the active member dies before it sends anything more."""

    def __init__(self, namespace: Namespace, parameters: Parameters) -> None:
        self.mute = False
        self.notices: list[str] = []
        self.installed: list[InstallChild] = []
        self._parameters = parameters
        self._replica: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._term = 0
        self.active = self._next_member()
        with namespace.inside():
            self._sockets = {
                port: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for port in (PORT, NATT_PORT)
            }
            for port, source in self._sockets.items():
                source.bind((OURS, port))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Members:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        for source in self._sockets.values():
            source.close()

    def _next_member(self) -> IkeEndpoint:
        self._term += 1
        return IkeEndpoint(
            self._parameters,
            os.urandom,
            time.monotonic(),
            wall=lambda: datetime.now(UTC),
            iv_prefix=self._term,
        )

    def _run(self) -> None:
        while not self._stopping:
            ready = select.select(list(self._sockets.values()), [], [], _TICK)[0]
            with self._lock:
                now = time.monotonic()
                for port, source in self._sockets.items():
                    if source in ready:
                        self._receive(port, *source.recvfrom(65536), now)
                due = self.active.next_deadline()
                if due is not None and due <= now:
                    self._perform(self.active.on_timer(now))

    def _receive(self, port: int, payload: bytes, source: tuple[str, int], now: float) -> None:
        if port == NATT_PORT:
            if udp.is_keep_alive(payload) or udp.is_esp(payload):
                return
            payload = udp.unmarked(payload)
        ends = (address(source[0]), source[1]), (address(OURS), port)
        self._perform(self.active.receive(payload, *ends, now))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Changed):
                spi = effect.ike_sa.spi
                self._replica[spi] = self.active.export_state(spi, time.monotonic())
            elif isinstance(effect, Closed):
                self._replica.pop(effect.ike_sa.spi, None)
            elif isinstance(effect, SendDatagram):
                if not self.mute:
                    self._send(effect)
            elif isinstance(effect, InstallChild):
                self.installed.append(effect)
            elif isinstance(effect, Notice):
                self.notices.append(effect.name)

    def _send(self, effect: SendDatagram) -> None:
        marker = udp.NON_ESP_MARKER if effect.local[1] == NATT_PORT else b""
        remote = text(effect.remote[0]), effect.remote[1]
        self._sockets[effect.local[1]].sendto(marker + effect.octets, remote)

    def take_over(self, *, synchronise: bool = False) -> None:
        """The active member is gone; the next one has what was replicated. It may ask for message ids."""
        with self._lock:
            self.mute = False
            self.active, now = self._next_member(), time.monotonic()
            for octets in list(self._replica.values()):
                self._perform(self.active.import_state(octets, now))
            for ike_sa in self.established() if synchronise else ():
                self._perform(self.active.synchronise(ike_sa.spi, now))

    def established(self) -> list[IkeSa]:
        return [each for each in self.active.ike_sas.values() if each.state is State.ESTABLISHED]

    def ask(self, act: Callable[[IkeEndpoint, bytes, float], list[Effect]]) -> None:
        """Have the active member do something with its IKE SA."""
        with self._lock:
            (ike_sa,) = self.established()
            self._perform(act(self.active, ike_sa.spi, time.monotonic()))
