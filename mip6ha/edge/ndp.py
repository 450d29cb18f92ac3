"""Neighbour discovery on the home link that the kernel does not do for somebody else's address.

Covered: DAD probes for a mobile node's address and hearing the answer (RFC 4862 5.4, RFC 6275 10.3.1), the
unsolicited advertisement that claims it (10.4.1). Not covered: answering solicitations, which the kernel's
neighbour proxy does.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import sys
from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.abstract import FileDescriptor

from .. import icmpv6, ipv6
from ..wire import UNSPECIFIED, Malformed
from .errors import Unusable

__all__ = ["HomeLink", "NeighborListener", "conflict"]

_ETH_P_IPV6 = 0x86DD
_ETHERNET = 1
_OUTGOING = 4
_SO_ATTACH_FILTER = 26
_GET_MTU = 0x8921
_INTERFACE_MTU = Struct("=16si12x")
_BATCH = 64
_BUFFER = 1 << 20

_INSTRUCTION = Struct("=HBBI")
_LOAD_OCTET, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _JUMP_IF_GREATER, _RETURN = (
    0x30,
    0x15,
    0x35,
    0x25,
    0x06,
)
# ICMPv6 of types 135 and 136 right behind the fixed header, whole; nothing else wakes us.
_FILTER = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (_LOAD_OCTET, 0, 0, 6),
        (_JUMP_IF_EQUAL, 0, 4, ipv6.ICMPV6),
        (_LOAD_OCTET, 0, 0, 40),
        (_JUMP_IF_GREATER_OR_EQUAL, 0, 2, icmpv6.NEIGHBOR_SOLICITATION),
        (_JUMP_IF_GREATER, 1, 0, icmpv6.NEIGHBOR_ADVERTISEMENT),
        (_RETURN, 0, 0, 0xFFFF),
        (_RETURN, 0, 0, 0),
    )
)


def conflict(packet: bytes) -> bytes | None:
    """The address that a neighbour message claims: an advertisement, or somebody's own DAD probe."""
    try:
        parsed = ipv6.parse(packet)
        if parsed.next_header != ipv6.ICMPV6 or parsed.hop_limit != 255:
            return None
        message = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
        if message.code:
            return None
        if message.type == icmpv6.NEIGHBOR_ADVERTISEMENT:
            return icmpv6.parse_neighbor(message).target
        if message.type == icmpv6.NEIGHBOR_SOLICITATION and parsed.source == UNSPECIFIED:
            return icmpv6.parse_neighbor(message).target
    except Malformed:
        pass
    return None


def _mtu(name: str) -> int:
    request = _INTERFACE_MTU.pack(name.encode(), 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        return int(_INTERFACE_MTU.unpack(fcntl.ioctl(any_socket, _GET_MTU, request))[1])


class HomeLink:
    """A packet socket on an interface; sends neighbour messages, tells of conflicts on probed addresses."""

    def __init__(self, name: str, counters: Counter[str]) -> None:
        try:
            self.interface = socket.if_nametoindex(name)
            self.mtu = _mtu(name)
        except OSError:
            raise Unusable(f"home link {name}: there is no such interface") from None
        self.name = name
        self._counters = counters
        self._probed: set[bytes] = set()
        self._groups: Counter[bytes] = Counter()
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
            )
        except PermissionError:
            raise Unusable(f"home link {name}: needs CAP_NET_RAW") from None
        self._attach_filter()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((name, _ETH_P_IPV6))
        kind, self._link_layer = self._socket.getsockname()[3:5]
        if kind != _ETHERNET:
            raise Unusable(f"home link {name}: is not an Ethernet interface")
        self._membership = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def _attach_filter(self) -> None:
        octets = ctypes.create_string_buffer(_FILTER)
        program = Struct("@HP").pack(len(_FILTER) // _INSTRUCTION.size, ctypes.addressof(octets))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave every group and stop listening."""
        self._socket.close()
        self._membership.close()

    def probe(self, address: bytes) -> None:
        """Send one DAD solicitation, and listen until :meth:`end_probe`."""
        if address not in self._probed:
            self._probed.add(address)
            self._join(icmpv6.solicited_node(address), 1)
        self._send(icmpv6.duplicate_address_probe(address))

    def end_probe(self, address: bytes) -> None:
        """Listen no longer; harmless if nobody listened."""
        if address in self._probed:
            self._probed.discard(address)
            self._join(icmpv6.solicited_node(address), -1)

    def announce(self, address: bytes, source: bytes) -> None:
        """Tell all nodes, from ``source``, that ``address`` is at this interface's link-layer address."""
        self._send(icmpv6.unsolicited_advertisement(source, address, self._link_layer))

    def _join(self, group: bytes, change: int) -> None:
        before = self._groups[group]
        self._groups[group] += change
        if bool(before) == bool(self._groups[group]):
            return
        option = socket.IPV6_JOIN_GROUP if change > 0 else socket.IPV6_LEAVE_GROUP
        if change < 0:
            del self._groups[group]
        try:
            self._membership.setsockopt(
                socket.IPPROTO_IPV6, option, group + self.interface.to_bytes(4, sys.byteorder)
            )
        except OSError as error:
            self._counters[f"multicast_group_{errno.errorcode.get(error.errno or 0, 'failed')}"] += 1

    def _send(self, packet: bytes) -> None:
        # RFC 2464 7: 33:33 and the last four octets of the group.
        destination = b"\x33\x33" + packet[36:40]
        try:
            self._socket.sendto(packet, (self.name, _ETH_P_IPV6, 0, 0, destination))
        except OSError as error:
            self._counters[f"home_link_send_{errno.errorcode.get(error.errno or 0, 'failed')}"] += 1

    def receive(self) -> bytes | None:
        """The next probed address that another station claims; empty if a message claimed none.

        ``None`` when nothing is waiting.
        """
        try:
            packet, (_, _, kind, _, link_layer) = self._socket.recvfrom(2048)
        except BlockingIOError:
            return None
        except OSError as error:
            self._counters[f"home_link_receive_{errno.errorcode.get(error.errno or 0, 'failed')}"] += 1
            return None
        if not self._probed or kind == _OUTGOING or link_layer == self._link_layer:
            return b""
        address = conflict(packet)
        return address if address in self._probed else b""


class NeighborListener(FileDescriptor):
    """Gives every conflict on a :class:`HomeLink` to ``conflicted``; ``reactor`` provides IReactorFDSet."""

    def __init__(self, link: HomeLink, conflicted: Callable[[bytes], None], reactor: Any) -> None:
        super().__init__(reactor)
        self._link = link
        self._conflicted = conflicted

    def fileno(self) -> int:
        """For the reactor."""
        return self._link.fileno()

    def doRead(self) -> None:  # noqa: N802
        """One wake-up: a bounded batch."""
        for _ in range(_BATCH):
            address = self._link.receive()
            if address is None:
                break
            if address:
                self._conflicted(address)

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        """Nothing is ever written through the reactor."""
        return len(data)
