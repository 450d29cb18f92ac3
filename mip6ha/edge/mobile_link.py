"""What a mobile node hears and says on its link below the emulator's packets.

Covered: carrier events, Router Advertisements and Solicitations, and at home the packets that the home agent
sends to an address which is local. Not covered: neighbour messages (``ndp``), packets by the TUN.
"""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

from pyroute2 import IPRoute
from twisted.internet.abstract import FileDescriptor

from .. import ipv6, udp
from ..icmpv6 import ALL_ROUTERS, ROUTER_ADVERTISEMENT, ROUTER_SOLICITATION
from ..wire import address
from .ike_socket import IkeSocket

__all__ = [
    "Carrier",
    "CarrierEvents",
    "HomeDatagrams",
    "HomeSockets",
    "RouterDiscovery",
    "SocketReader",
    "link",
]

_BUFFER = 1 << 20
_BATCH = 64

_LINK_GROUP = 1
_NEW_LINK = 16
_MESSAGE = Struct("=IHHII")
_LINK = Struct("=BxHiII")
_ATTRIBUTE = Struct("=HH")
_CARRIER_CHANGES, _CARRIER_UP_COUNT = 35, 47
_UP, _LOWER_UP = 0x1, 0x10000

_ICMPV6_FILTER = 1
_HOP_LIMIT = Struct("=i")


class _Readable(Protocol):
    def fileno(self) -> int: ...


class SocketReader(FileDescriptor):
    """Calls ``ready`` when a socket has something to read; ``reactor`` provides IReactorFDSet."""

    def __init__(self, source: _Readable, ready: Callable[[], None], reactor: Any) -> None:
        super().__init__(reactor)
        self._source = source
        self._ready = ready

    def fileno(self) -> int:
        """For the reactor."""
        return self._source.fileno()

    def doRead(self) -> None:  # noqa: N802
        """One wake-up."""
        self._ready()

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        """Nothing is ever written through the reactor."""
        return len(data)


class Carrier:
    """Whether one interface has carrier, from the kernel's link messages.

    The kernel may merge a down and an up into one message: the counter of ups tells.
    """

    def __init__(self, interface: int) -> None:
        self.up = False
        self._interface = interface
        self._ups = -1

    def messages(self, octets: bytes) -> list[bool]:
        """The carrier events in the messages of one read."""
        events = []
        offset = 0
        while offset + _MESSAGE.size + _LINK.size <= len(octets):
            size, kind, _, _, _ = _MESSAGE.unpack_from(octets, offset)
            if size < _MESSAGE.size:
                break
            _, _, interface, flags, _ = _LINK.unpack_from(octets, offset + _MESSAGE.size)
            if kind == _NEW_LINK and interface == self._interface:
                start = offset + _MESSAGE.size + _LINK.size
                ups = _number(octets[start : offset + size], _CARRIER_UP_COUNT)
                events += self.state(flags, ups)
            offset += size + 3 & ~3
        return events

    def state(self, flags: int, ups: int | None) -> list[bool]:
        """What is new in these interface flags and that count of carrier ups."""
        up = bool(flags & _UP and flags & _LOWER_UP)
        again = up and self.up and ups is not None and ups != self._ups
        if ups is not None:
            self._ups = ups
        if up == self.up and not again:
            return []
        self.up = up
        return [up]


def _number(attributes: bytes, wanted: int) -> int | None:
    offset = 0
    while offset + 8 <= len(attributes):
        size, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if size < 4:
            return None
        if kind == wanted:
            return int.from_bytes(attributes[offset + 4 : offset + 8], sys.byteorder)
        offset += size + 3 & ~3
    return None


def link(name: str) -> Any:
    """The kernel's link message of an interface."""
    with IPRoute() as kernel:
        return kernel.get_links(socket.if_nametoindex(name))[0]


class CarrierEvents:
    """Gives carrier events of an interface to ``changed``."""

    def __init__(self, name: str, changed: Callable[[bool], None]) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, _LINK_GROUP))
        self._name = name
        self._changed = changed
        self._carrier = Carrier(socket.if_nametoindex(name))
        self.socket = self._socket

    def look(self) -> None:
        """Ask for the state as it is; at the start, and after messages were lost."""
        message = link(self._name)
        for up in self._carrier.state(message["flags"], message.get_attr("IFLA_CARRIER_UP_COUNT")):
            self._changed(up)

    def ready(self) -> None:
        """Read what is there."""
        for _ in range(_BATCH):
            try:
                octets = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: something was lost.
                self.look()
                return
            for up in self._carrier.messages(octets):
                self._changed(up)


class RouterDiscovery:
    """Router Solicitations out, advertisements (source, hop limit, message) to ``advertised``."""

    def __init__(
        self, name: str, advertised: Callable[[bytes, int, bytes], None], counters: Counter[str]
    ) -> None:
        self._interface = socket.if_nametoindex(name)
        self._advertised = advertised
        self._counters = counters
        self.socket = source = socket.socket(
            socket.AF_INET6,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.IPPROTO_ICMPV6,
        )
        # RFC 3542 3.2: a set bit blocks its type.
        words = [0xFFFFFFFF] * 8
        words[ROUTER_ADVERTISEMENT >> 5] &= ~(1 << (ROUTER_ADVERTISEMENT & 31))
        octets = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        source.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, octets)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)

    def solicit(self) -> None:
        """One Router Solicitation (RFC 4861 4.1) from the link-local address; the kernel fills the sum."""
        message = bytes((ROUTER_SOLICITATION, 0, 0, 0)) + bytes(4)
        try:
            self.socket.sendto(
                message, (socket.inet_ntop(socket.AF_INET6, ALL_ROUTERS), 0, 0, self._interface)
            )
        except OSError:
            self._counters["solicitation_not_sent"] += 1

    def ready(self) -> None:
        """Read what is there."""
        for _ in range(_BATCH):
            try:
                message, ancillary, _, sender = self.socket.recvmsg(2048, 256)
            except BlockingIOError:
                return
            except OSError:
                self._counters["advertisement_receive_failed"] += 1
                return
            hop_limit = 0
            for level, kind, data in ancillary:
                if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT:
                    hop_limit = _HOP_LIMIT.unpack(data)[0]
            self._advertised(address(sender[0].partition("%")[0]), hop_limit, message)


class HomeSockets:
    """At home the home address is local: ESP and Mobility Headers to it, as the whole packets they were."""

    def __init__(
        self, home_address: bytes, received: Callable[[bytes], None], counters: Counter[str]
    ) -> None:
        self._home_address = home_address
        self._received = received
        self._counters = counters
        self.sockets = {protocol: self._open(protocol) for protocol in (ipv6.ESP, ipv6.MOBILITY)}

    def _open(self, protocol: int) -> socket.socket:
        source = socket.socket(
            socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol
        )
        source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        source.bind((socket.inet_ntop(socket.AF_INET6, self._home_address), 0))
        return source

    def ready(self, protocol: int) -> None:
        """Read what is there."""
        for _ in range(_BATCH):
            try:
                payload, sender = self.sockets[protocol].recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:
                self._counters["home_receive_failed"] += 1
                return
            source = address(sender[0].partition("%")[0])
            self._received(ipv6.build(source, self._home_address, protocol, payload))

    def close(self) -> None:
        """Listen no longer."""
        for source in self.sockets.values():
            source.close()


class HomeDatagrams:
    """Datagrams to one UDP port of the home address while that is local, as the whole packets they were."""

    def __init__(
        self, home_address: bytes, port: int, received: Callable[[bytes], None], counters: Counter[str]
    ) -> None:
        self._received = received
        self._socket = IkeSocket(home_address, port, counters)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def ready(self) -> None:
        """Read what is there."""
        for _ in range(_BATCH):
            found = self._socket.receive()
            if found is None:
                return
            payload, (source, port), (destination, own) = found
            octets = udp.build(source, destination, udp.Datagram(port, own, payload))
            self._received(ipv6.build(source, destination, ipv6.UDP, octets))

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()
