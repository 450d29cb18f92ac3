"""Raw IPv6 sockets between the members of a redundant set.

Covered: ESP packets from and to a member's own address, and mobility messages that come without ESP. Not
covered: what is in them (``channel``). The kernel checks and makes the IPv6 header.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor

from ..ipv6 import ESP, MOBILITY
from ..wire import text
from .errors import Unusable

__all__ = ["MemberSocket", "RawReader", "UnprotectedSocket"]

# A resynchronisation of many mobile nodes waits here while something else is done.
_BUFFER = 4 << 20
_LONGEST = 65536
_BATCH = 256
_LONGEST_BATCH = 0.001


def _raw(address: bytes, protocol: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        made = socket.socket(socket.AF_INET6, kind, protocol)
    except PermissionError:
        raise Unusable("raw sockets need CAP_NET_RAW") from None
    try:
        made.bind((text(address), 0))
    except OSError as error:
        made.close()
        hint = " (not on an interface here, or still tentative)" * (error.errno == errno.EADDRNOTAVAIL)
        raise Unusable(f"member address {text(address)}: {error.strerror}{hint}") from None
    return made


class MemberSocket:
    """ESP between ``address`` and the members at ``peers``; what cannot be sent is counted."""

    def __init__(self, address: bytes, peers: tuple[bytes, ...], counters: Counter[str]) -> None:
        self._counters = counters
        self._names = {peer: (text(peer), 0) for peer in peers}
        self._addresses = {name: peer for peer, (name, _) in self._names.items()}
        self._socket = _raw(address, ESP)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear and say no more."""
        self._socket.close()

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next packet of a member, from its SPI on, behind the member's address; ``None``: none waits."""
        while True:
            try:
                packet, source = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return None
            except OSError as error:
                self._counters[f"member_receive_{_name(error)}"] += 1
                return None
            peer = self._addresses.get(source[0])
            if peer is not None:
                return peer, packet
            self._counters["harp_from_nobody"] += 1

    def send(self, address: bytes, packet: bytes) -> None:
        """Send a packet, from its SPI on."""
        try:
            self._socket.sendto(packet, self._names[address])
        except OSError as error:
            self._counters[f"member_send_{_name(error)}"] += 1


class UnprotectedSocket:
    """Hears mobility messages to ``address`` that come without ESP, only to count them."""

    def __init__(self, address: bytes) -> None:
        self._socket = _raw(address, MOBILITY)

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()

    def receive(self) -> bytes | None:
        """The next message, ``None`` when there is none."""
        try:
            return self._socket.recv(_LONGEST)
        except OSError:
            return None


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "failed")


class RawReader(FileDescriptor):
    """Gives what ``receive`` of ``source`` yields to ``received``, a bounded batch a wake-up.

    Then it calls ``drained``. ``reactor`` provides IReactorFDSet.
    """

    def __init__(
        self, source: Any, received: Callable[[Any], None], drained: Callable[[], None], reactor: Any
    ) -> None:
        super().__init__(reactor)
        self._source = source
        self._received = received
        self._drained = drained

    def fileno(self) -> int:
        """For the reactor."""
        return int(self._source.fileno())

    def doRead(self) -> None:  # noqa: N802
        """One wake-up."""
        self.read()
        self._drained()

    def read(self) -> None:
        """What waits, as much of it as one wake-up allows."""
        end = time.monotonic() + _LONGEST_BATCH
        for _ in range(_BATCH):
            found = self._source.receive()
            if found is None:
                break
            self._received(found)
            if time.monotonic() > end:
                break

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        """Nothing is ever written through the reactor."""
        return len(data)
