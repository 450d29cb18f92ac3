"""Where a mobile node's packets are made: what the service needs of it, whoever that is.

Covered: the port, and the emulator itself behind a TUN. Not covered: the kernel (``mobile_kernel``), what is
the same for both (``mobile_service``).
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.abstract import FileDescriptor

from ..ipsec.ike.numbers import NATT_PORT, PORT
from ..mobile.effects import (
    AtHome,
    DropCareOfAddress,
    LeaveHome,
    MobileEffect,
    ReserveSequences,
    SendPacket,
    SignallingEffect,
    UseCareOfAddress,
)
from ..mobile.mobile_node import MobileNode
from ..mobile.parameters import EmulatorParameters
from ..mobile.signalling import Signalling
from ..mobile_config import MobileEdgeConfiguration
from .mobile_link import HomeDatagrams, HomeSockets, SocketReader
from .mobile_network import TunNetwork
from .storage import StateDirectory
from .sysctl import Switches
from .tun import Tun, TunReader

__all__ = ["MobileDataplane", "Surroundings", "TunDataplane"]

# Packets from the link must get through, whatever its MTU is.
_LEAST_TUN_MTU = 1500


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the service gives. ``received`` calls something and carries out the effects that come back.

    ``settle`` is called when no more waits to be read; ``reactor`` provides IReactorFDSet.
    """

    edge: MobileEdgeConfiguration
    parameters: EmulatorParameters
    state: StateDirectory
    switches: Switches
    counters: Counter[str]
    received: Callable[[Callable[[float], Sequence[MobileEffect | SignallingEffect]]], None]
    settle: Callable[[], None]
    reactor: Any


class MobileDataplane(ABC):
    """``node`` decides, :meth:`act` carries out what concerns packets. ``undo`` holds all that is open."""

    node: MobileNode | Signalling

    def __init__(self, given: Surroundings) -> None:
        self._given = given
        self._undo = ExitStack()

    def close(self) -> None:
        """Leave nothing behind."""
        self._undo.close()

    @abstractmethod
    def start(self) -> None:
        """Take over the interface, or raise what tells why not; read nothing before :meth:`listen`."""

    @abstractmethod
    def listen(self) -> None:
        """Begin to read."""

    @abstractmethod
    def act(self, effect: MobileEffect | SignallingEffect) -> None:
        """Carry out an effect that is not the link's own."""

    def _read(self, reader: FileDescriptor, undo: ExitStack) -> None:
        self._given.reactor.addReader(reader)
        undo.callback(self._given.reactor.removeReader, reader)


class TunDataplane(MobileDataplane):
    """The emulator makes every packet; the kernel only brings them."""

    node: MobileNode

    def start(self) -> None:
        """Make the TUN and lead packets there."""
        given, undo = self._given, self._undo
        edge, parameters = given.edge, given.parameters
        self.node = MobileNode(parameters, os.urandom, time.monotonic())
        self._tun = Tun(edge.tun_name, max(parameters.link_mtu, _LEAST_TUN_MTU), given.counters)
        undo.callback(self._tun.close)
        self._network = TunNetwork(
            edge.interface, edge.tun_name, parameters.home_address, edge.home_prefix, parameters.prefixes
        )
        undo.callback(self._network.close)
        self._network.open(given.switches, given.counters)
        self._home_undo = undo.enter_context(ExitStack())

    def listen(self) -> None:
        """Read the TUN."""
        given = self._given
        self._read(TunReader(self._tun, self._received, given.settle, given.reactor), self._undo)

    def _received(self, packet: bytes) -> None:
        self._given.received(partial(self.node.receive, packet))

    def _received_at_home(self, packet: bytes) -> None:
        self._received(packet)
        self._given.settle()

    def act(self, effect: MobileEffect | SignallingEffect) -> None:
        """Write packets, change routes, reserve numbers."""
        match effect:
            case SendPacket(packet):
                self._tun.write(packet)
            case UseCareOfAddress(address, router):
                self._network.use_care_of_address(address, router)
            case DropCareOfAddress(address):
                self._network.drop_care_of_address(address)
            case AtHome(router):
                self._network.at_home(router)
                self._listen_at_home()
            case LeaveHome():
                self._network.leave_home()
                self._home_undo.close()
            case ReserveSequences(limit):
                self._given.state.reserve_sequences(limit)

    def _listen_at_home(self) -> None:
        self._home_undo.close()
        given = self._given
        parameters = given.parameters
        sockets = HomeSockets(parameters.home_address, self._received_at_home, given.counters)
        self._home_undo.callback(sockets.close)
        for protocol, source in sockets.sockets.items():
            reader = SocketReader(source, partial(sockets.ready, protocol), given.reactor)
            self._read(reader, self._home_undo)
        for port in (PORT, NATT_PORT) if parameters.ike is not None else ():
            datagrams = HomeDatagrams(parameters.home_address, port, self._received_at_home, given.counters)
            self._home_undo.callback(datagrams.close)
            self._read(SocketReader(datagrams, datagrams.ready, given.reactor), self._home_undo)
