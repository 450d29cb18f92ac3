"""Neighbour discovery on the home link for addresses that the kernel does not have.

Covered: answers to solicitations for defended addresses (RFC 4861 7.2, RFC 6275 10.4.1), the unsolicited
advertisement that claims one, DAD probes for a mobile node's address and hearing the answer (RFC 4862 5.4,
RFC 6275 10.3.1). Not covered: which addresses are defended, and whether by us at this moment (``dataplane``).

The kernel's neighbour proxies would do the answering as well, but they outlive a killed process and answer on
for a home agent that is no more, each costs more the more there are, and none may say Override.
"""

from __future__ import annotations

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
from ..wire import UNSPECIFIED, Malformed, text
from .errors import Unusable
from .socket_filter import (
    IF_ABOVE,
    IF_AT_LEAST,
    IF_EQUAL,
    KEEP_BACK,
    LET_THROUGH,
    LOAD_HALF,
    LOAD_OCTET,
    LOAD_WORD,
    attach,
    program,
)

__all__ = ["HomeLink", "NeighborListener", "conflict"]

_ETH_P_ALL, _ETH_P_IPV6 = 0x0003, 0x86DD
_ETHERNET = 1
_SOL_PACKET = 263
_OUTGOING = 4
_PACKET_ADD_MEMBERSHIP, _PACKET_DROP_MEMBERSHIP, _ALL_MULTICAST = 1, 2, 2
_PACKET_IGNORE_OUTGOING = 23
_MEMBERSHIP = Struct("=iHH8x")
_GET_MTU = 0x8921
_INTERFACE_MTU = Struct("=16si12x")
_BATCH = 64
_BUFFER = 1 << 20
# A group costs the more to join the more there are: 11 us each for the first thousand. The kernel allows one
# socket about 2,300. Beyond, the interface takes every multicast frame instead.
_MOST_GROUPS = 1024

_PROTOCOL, _PACKET_TYPE, _ETHERNET_HEADER = 0xFFFFF000, 0xFFFFF004, 0xFFE00000
_TO_OTHER_HOST = 3


def _filter(link_layer: bytes) -> bytes:
    """ICMPv6 of types 135 and 136 right behind the fixed header, whole; nothing else wakes us.

    Of what is for another host only what is for ``link_layer``.
    """
    return program(
        (LOAD_HALF, 0, 0, _PROTOCOL),
        (IF_EQUAL, 0, 11, _ETH_P_IPV6),
        (LOAD_OCTET, 0, 0, 6),
        (IF_EQUAL, 0, 9, ipv6.ICMPV6),
        (LOAD_OCTET, 0, 0, 40),
        (IF_AT_LEAST, 0, 7, icmpv6.NEIGHBOR_SOLICITATION),
        (IF_ABOVE, 6, 0, icmpv6.NEIGHBOR_ADVERTISEMENT),
        (LOAD_OCTET, 0, 0, _PACKET_TYPE),
        (IF_EQUAL, 0, 5, _TO_OTHER_HOST),
        (LOAD_WORD, 0, 0, _ETHERNET_HEADER),
        (IF_EQUAL, 0, 2, int.from_bytes(link_layer[:4], "big")),
        (LOAD_HALF, 0, 0, _ETHERNET_HEADER + 4),
        (IF_EQUAL, 1, 0, int.from_bytes(link_layer[4:], "big")),
        KEEP_BACK,
        LET_THROUGH,
    )


def conflict(packet: bytes) -> bytes | None:
    """The address that a neighbour message claims: an advertisement, or somebody's own DAD probe."""
    heard = _neighbour_message(packet)
    if heard is None:
        return None
    parsed, message = heard
    if message.type == icmpv6.NEIGHBOR_ADVERTISEMENT or parsed.source == UNSPECIFIED:
        return icmpv6.parse_neighbor(message).target
    return None


def _neighbour_message(packet: bytes) -> tuple[ipv6.Packet, icmpv6.Icmp] | None:
    """A Neighbor Solicitation or Advertisement that is valid (RFC 4861 7.1), its options looked through."""
    try:
        parsed = ipv6.parse(packet)
        if parsed.next_header != ipv6.ICMPV6 or parsed.hop_limit != 255:
            return None
        message = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
        if message.code:
            return None
        icmpv6.parse_neighbor(message)
    except Malformed:
        return None
    if message.type == icmpv6.NEIGHBOR_SOLICITATION and parsed.source == UNSPECIFIED:
        # Who probes has no address to be answered at, and says so only to the group of the target.
        if parsed.destination[:13] != icmpv6.solicited_node(UNSPECIFIED)[:13]:
            return None
        return None if icmpv6.source_link_layer(message) else (parsed, message)
    known = (icmpv6.NEIGHBOR_SOLICITATION, icmpv6.NEIGHBOR_ADVERTISEMENT)
    return (parsed, message) if message.type in known else None


def _mtu(name: str) -> int:
    request = _INTERFACE_MTU.pack(name.encode(), 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        return int(_INTERFACE_MTU.unpack(fcntl.ioctl(any_socket, _GET_MTU, request))[1])


class HomeLink:
    """Packet sockets on an Ethernet interface.

    Answers for the addresses of :meth:`defend` as long as ``answers`` is set, from the address ``source``;
    sends probes and advertisements, tells of conflicts on probed addresses. ``virtual`` is the link-layer
    address that frames come from and that answers name, the interface's own where ``None``.
    """

    def __init__(
        self, name: str, counters: Counter[str], source: bytes = UNSPECIFIED, virtual: bytes | None = None
    ) -> None:
        try:
            self.interface = socket.if_nametoindex(name)
            self.mtu = _mtu(name)
        except OSError:
            raise Unusable(f"home link {name}: there is no such interface") from None
        self.name = name
        self.answers = False
        self._counters = counters
        self._source = source
        self._defended: dict[bytes, bool] = {}
        self._probed: set[bytes] = set()
        self._groups: Counter[bytes] = Counter()
        self._joined: set[bytes] = set()
        self._unjoined: set[bytes] = set()
        kind = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | kind, 0)
            self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | kind, 0)
            self._router = socket.socket(socket.AF_INET6, socket.SOCK_RAW | kind, socket.IPPROTO_RAW)
        except PermissionError:
            raise Unusable(f"home link {name}: needs CAP_NET_RAW") from None
        self._out.bind((name, 0))
        self._router.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
        hardware, own = self._out.getsockname()[3:5]
        if hardware != _ETHERNET:
            raise Unusable(f"home link {name}: is not an Ethernet interface")
        self._link_layer = own if virtual is None else virtual
        self._virtual = virtual
        self._own = frozenset((own, self._link_layer))
        self._head = self._link_layer + _ETH_P_IPV6.to_bytes(2, "big")
        self._true_head = own + _ETH_P_IPV6.to_bytes(2, "big")
        attach(self._socket, _filter(self._link_layer))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        # Frames to the virtual address are taken by the interface that has it: only a tap sees them here.
        self._socket.bind((name, _ETH_P_IPV6 if virtual is None else _ETH_P_ALL))
        self._membership = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave every group and stop listening."""
        self._socket.close()
        self._out.close()
        self._router.close()
        self._membership.close()

    # -- what is ours ------------------------------------------------------------------------------

    def defend(self, address: bytes, *, override: bool = True) -> None:
        """Answer for an address while ``answers`` is set; an anycast address does not override."""
        if address not in self._defended:
            self._join(icmpv6.solicited_node(address), 1)
        self._defended[address] = override

    def release(self, address: bytes) -> None:
        """Answer no longer; harmless if it was not defended."""
        if self._defended.pop(address, None) is not None:
            self._join(icmpv6.solicited_node(address), -1)

    def probe(self, address: bytes) -> None:
        """Send one DAD solicitation, and listen until :meth:`end_probe`."""
        if address not in self._probed:
            self._probed.add(address)
            self._join(icmpv6.solicited_node(address), 1)
        packet = icmpv6.duplicate_address_probe(address)
        self._send(packet, _multicast(packet))

    def end_probe(self, address: bytes) -> None:
        """Listen no longer; harmless if nobody listened."""
        if address in self._probed:
            self._probed.discard(address)
            self._join(icmpv6.solicited_node(address), -1)

    def announce(self, address: bytes, source: bytes) -> None:
        """Tell all nodes, from ``source``, that ``address`` is at our link-layer address."""
        packet = icmpv6.unsolicited_advertisement(source, address, self._link_layer)
        self._send(packet, _multicast(packet))

    def pass_on(self, packet: bytes) -> None:
        """Give a packet for a defended address to whoever answers for that now, but not with our voice."""
        if self._virtual is not None:
            self._send(packet, self._virtual, self._true_head)
            return
        try:
            # By this link and no other, so that the kernel asks its neighbours and not our routes.
            self._router.sendto(packet, (text(packet[24:40]), 0))
        except OSError as error:
            self._counters[f"home_link_send_{_name(error)}"] += 1

    def _send(self, packet: bytes, destination: bytes, head: bytes = b"") -> None:
        try:
            self._out.send(destination + (head or self._head) + packet)
        except OSError as error:
            self._counters[f"home_link_send_{_name(error)}"] += 1

    # -- what is heard -----------------------------------------------------------------------------

    def receive(self) -> bytes | None:
        """Answer the next message, or tell the probed address that it claims; empty where it claims none.

        ``None`` when nothing is waiting.
        """
        try:
            packet, (_, _, kind, _, sender) = self._socket.recvfrom(2048)
        except BlockingIOError:
            return None
        except OSError as error:
            self._counters[f"home_link_receive_{_name(error)}"] += 1
            return None
        target = packet[48:64]
        defended = self.answers and target in self._defended
        if not defended and target not in self._probed:
            return b""
        if kind == _OUTGOING or sender in self._own:
            # With the virtual address another member speaks.
            self._counters["home_link_own_address_heard"] += 1
            return b""
        if defended:
            self._answer(packet, target, sender)
            return b""
        return target if conflict(packet) == target else b""

    def _answer(self, packet: bytes, target: bytes, sender: bytes) -> None:
        heard = _neighbour_message(packet)
        if heard is None or heard[1].type != icmpv6.NEIGHBOR_SOLICITATION:
            return
        parsed, message = heard
        solicitor = parsed.source
        answer = icmpv6.solicited_advertisement(
            self._source, solicitor, target, self._link_layer, override=self._defended[target]
        )
        if solicitor == UNSPECIFIED:
            self._send(answer, _multicast(answer))
        else:
            self._send(answer, icmpv6.source_link_layer(message) or sender)
        self._counters["solicitations_answered"] += 1

    # -- multicast groups --------------------------------------------------------------------------

    def _join(self, group: bytes, change: int) -> None:
        before = self._groups[group]
        self._groups[group] += change
        if bool(before) == bool(self._groups[group]):
            return
        try:
            if change > 0:
                self._enter(group)
            else:
                del self._groups[group]
                self._leave(group)
        except OSError as error:
            self._counters[f"multicast_group_{_name(error)}"] += 1

    def _enter(self, group: bytes) -> None:
        if len(self._joined) < _MOST_GROUPS:
            try:
                self._change_group(socket.IPV6_JOIN_GROUP, group)
            except OSError as error:
                # Some kernels grant a socket less memory for groups than others.
                if error.errno not in (errno.ENOMEM, errno.ENOBUFS):
                    raise
            else:
                self._joined.add(group)
                return
        if not self._unjoined:
            self._take_all(_PACKET_ADD_MEMBERSHIP)
        self._unjoined.add(group)

    def _leave(self, group: bytes) -> None:
        if group in self._joined:
            self._joined.discard(group)
            self._change_group(socket.IPV6_LEAVE_GROUP, group)
            return
        self._unjoined.discard(group)
        if not self._unjoined:
            self._take_all(_PACKET_DROP_MEMBERSHIP)

    def _change_group(self, option: int, group: bytes) -> None:
        request = group + self.interface.to_bytes(4, sys.byteorder)
        self._membership.setsockopt(socket.IPPROTO_IPV6, option, request)

    def _take_all(self, option: int) -> None:
        request = _MEMBERSHIP.pack(self.interface, _ALL_MULTICAST, 0)
        self._socket.setsockopt(_SOL_PACKET, option, request)


def _multicast(packet: bytes) -> bytes:
    """RFC 2464 7: 33:33 and the last four octets of the group."""
    return b"\x33\x33" + packet[36:40]


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "failed")


class NeighborListener(FileDescriptor):
    """Lets a :class:`HomeLink` answer, and gives every conflict to ``conflicted``.

    ``reactor`` provides IReactorFDSet.
    """

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
