"""A mobile node whose kernel makes the packets: the emulator only speaks, on raw sockets.

Covered: Mobility Headers and Mobile Prefix Solicitations from the home address, answers to it, and the order
in which the kernel is changed. Not covered: what it is changed to (``mobile_kernel_network``,
``mobile_associations``); packets too big for the tunnel and errors from inside it are the kernel's.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.task import LoopingCall

from ..icmpv6 import MOBILE_PREFIX_ADVERTISEMENT
from ..ipv6 import ICMPV6, MOBILITY
from ..mobile.effects import (
    AtHome,
    DropCareOfAddress,
    Event,
    LeaveHome,
    MobileEffect,
    RemoveTunnel,
    SendMessage,
    SetTunnel,
    SignallingEffect,
    UseCareOfAddress,
)
from ..mobile.signalling import Signalling
from ..wire import address, text
from .mobile_associations import KernelAssociations
from .mobile_dataplane import MobileDataplane
from .mobile_kernel_network import KernelNetwork
from .mobile_link import SocketReader

__all__ = ["KernelDataplane", "MessageSocket"]

_BUFFER = 1 << 20
_BATCH = 64
# Seconds between two looks at states and policies.
_LOOK = 0.25
_ICMPV6_FILTER = 1
_ANY_INTERFACE = bytes(4)


class MessageSocket:
    """Messages of one protocol to any of our addresses; what is sent comes from the home address.

    The kernel verifies checksums and makes them (RFC 3542 3.1), from the offset it knows for the protocol.
    """

    def __init__(self, protocol: int, received: Callable[[bytes, bytes, bytes], None]) -> None:
        self._received = received
        self.socket = made = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
        )
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        if protocol == ICMPV6:
            # RFC 3542 3.2: a set bit blocks its type.
            words = [0xFFFFFFFF] * 8
            words[MOBILE_PREFIX_ADVERTISEMENT >> 5] &= ~(1 << (MOBILE_PREFIX_ADVERTISEMENT & 31))
            octets = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
            made.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, octets)

    def fileno(self) -> int:
        """For the reactor."""
        return self.socket.fileno()

    def send(self, octets: bytes, source: bytes, destination: bytes) -> None:
        """Send a message; raises ``OSError``."""
        where = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source + _ANY_INTERFACE)
        self.socket.sendmsg([octets], [where], 0, (text(destination), 0))

    def ready(self) -> None:
        """Give (message, source, destination) of what is there to ``received``."""
        for _ in range(_BATCH):
            try:
                octets, ancillary, _, sender = self.socket.recvmsg(65536, 256)
            except OSError:
                # Nothing more, or an error of something sent: the message is repeated.
                return
            for level, kind, data in ancillary:
                if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                    self._received(octets, address(sender[0].partition("%")[0]), data[:16])


class KernelDataplane(MobileDataplane):
    """Addresses, tunnel, states and policies follow what the mobile node decides."""

    node: Signalling

    def start(self) -> None:
        """Make devices, states and policies."""
        given, undo = self._given, self._undo
        edge, parameters = given.edge, given.parameters
        self.node = Signalling(parameters, os.urandom, given.counters)
        self._network = KernelNetwork(
            edge.interface, edge.tun_name, parameters.home_address, edge.home_prefix, parameters.prefixes
        )
        undo.callback(self._network.close)
        self._network.lead_to(parameters.home_agent)
        self._network.open(given.switches, given.counters)
        self._associations = KernelAssociations(parameters, given.state.reserve_sequences, given.counters)
        undo.callback(self._associations.close)
        self._associations.open()
        self._sockets = {
            protocol: MessageSocket(protocol, partial(self._received, protocol))
            for protocol in (MOBILITY, ICMPV6)
        }
        for each in self._sockets.values():
            undo.callback(each.socket.close)

    def listen(self) -> None:
        """Read the sockets, and what the kernel says about states; look after states and policies."""
        reactor = self._given.reactor
        for each in self._sockets.values():
            self._read(SocketReader(each, each.ready, reactor), self._undo)
        events = self._associations.events
        self._read(SocketReader(events, self._associations.read_events, reactor), self._undo)
        looking: Any = LoopingCall(self._given.received, self._look)
        looking.clock = reactor
        looking.start(_LOOK, now=False)
        self._undo.callback(looking.stop)

    def _look(self, _: float) -> list[Event]:
        repaired = self._associations.look()
        return [Event("kernel_repaired", dict(sorted(repaired.items())))] if repaired else []

    def _received(self, protocol: int, octets: bytes, source: bytes, destination: bytes) -> None:
        self._given.received(partial(self.node.receive, protocol, octets, source, destination))
        self._given.settle()

    def act(self, effect: MobileEffect | SignallingEffect) -> None:
        """Send a message, or change the kernel."""
        network, associations = self._network, self._associations
        match effect:
            case SendMessage():
                self._send(effect)
            case UseCareOfAddress(care_of_address, router):
                network.use_care_of_address(care_of_address, router)
                associations.away(care_of_address)
            case DropCareOfAddress(care_of_address):
                network.drop_care_of_address(care_of_address)
            case SetTunnel(_, care_of_address):
                associations.set_tunnel(care_of_address)
                network.set_tunnel()
            case RemoveTunnel():
                network.remove_tunnel()
                associations.remove_tunnel()
            case AtHome(router):
                associations.home()
                network.at_home(router)
            case LeaveHome():
                network.leave_home()

    def _send(self, message: SendMessage) -> None:
        parameters = self._given.parameters
        try:
            self._sockets[message.protocol].send(
                message.octets, parameters.home_address, parameters.home_agent
            )
        except OSError as error:
            reason = f"send_{errno.errorcode.get(error.errno or 0, 'failed')}"
            self._given.counters[reason] += 1
            self._given.received(lambda _: [Event("not_sent", {"reason": reason})])
