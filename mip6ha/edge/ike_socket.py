"""UDP sockets for IKE: ports 500 and 4500 of every address here, or of one.

Covered: the address that was asked answers, the non-ESP marker, ESP in UDP beside IKE on port 4500
(RFC 3948). Not covered: what is in a message (``ipsec.ike``), addresses that are routed to a TUN device
instead (``udp``), link-local peers.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from .. import udp
from ..ipsec.ike.numbers import NATT_PORT, PORT
from ..ipsec.ike.sa import Address
from ..wire import UNSPECIFIED, address, text
from .errors import Unusable
from .member_socket import RawReader

__all__ = ["IkeSocket", "IkeSockets", "Received"]

_BUFFER = 4 << 20
_LONGEST = 65536
# Address and interface index (RFC 3542 6.1).
_PACKET_INFORMATION = Struct("=16sI")
_ANCILLARY = socket.CMSG_SPACE(_PACKET_INFORMATION.size)


class Received(NamedTuple):
    """A datagram: what it carries, where it comes from, what it was sent to."""

    payload: bytes
    source: Address
    destination: Address


class IkeSocket:
    """One UDP port; what cannot be sent or received is counted."""

    def __init__(self, local: bytes, port: int, counters: Counter[str]) -> None:
        self.port = port
        self._counters = counters
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET6, kind)
        for level, option, value in (
            (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
            (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1),
            (socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER),
        ):
            self._socket.setsockopt(level, option, value)
        try:
            self._socket.bind((text(local), port))
        except OSError as error:
            self._socket.close()
            raise Unusable(f"UDP port {port} of {text(local)}: {error.strerror}") from None

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hear and say no more."""
        self._socket.close()

    def receive(self) -> Received | None:
        """The next datagram; ``None``: none waits."""
        while True:
            try:
                payload, ancillary, _, source = self._socket.recvmsg(_LONGEST, _ANCILLARY)
            except BlockingIOError:
                return None
            except OSError as error:
                self._counters[f"ike_receive_{_name(error)}"] += 1
                return None
            if "%" in source[0]:
                self._counters["ike_from_link_local"] += 1
                continue
            for level, kind, data in ancillary:
                if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                    local, _ = _PACKET_INFORMATION.unpack(data)
                    return Received(payload, (address(source[0]), source[1]), (local, self.port))
            self._counters["ike_without_destination"] += 1

    def send(self, payload: bytes, local: bytes, remote: Address) -> None:
        """Send a datagram from the address ``local``."""
        information = _PACKET_INFORMATION.pack(local, 0)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, information)]
        try:
            self._socket.sendmsg([payload], ancillary, 0, (text(remote[0]), remote[1]))
        except OSError as error:
            self._counters[f"ike_send_{_name(error)}"] += 1


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "failed")


class IkeSockets:
    """Both ports: IKE messages, without marker, to ``received``, ESP packets from the SPI on to ``esp``.

    ``drained`` is called after each batch. ``reactor`` provides IReactorFDSet. Port numbers other than the
    standard's are for tests without privileges. :class:`Unusable` if a port cannot be had.
    """

    def __init__(
        self,
        received: Callable[[Received], None],
        esp: Callable[[Received], None],
        drained: Callable[[], None],
        counters: Counter[str],
        reactor: Any,
        *,
        local: bytes = UNSPECIFIED,
        ports: tuple[int, int] = (PORT, NATT_PORT),
    ) -> None:
        self._received = received
        self._esp = esp
        self._counters = counters
        self._reactor = reactor
        self._sockets: dict[int, IkeSocket] = {}
        self._readers: list[RawReader] = []
        self._marked = ports[1]
        try:
            for port in ports:
                self._sockets[port] = IkeSocket(local, port, counters)
        except Unusable:
            self.close()
            raise
        for port, source in self._sockets.items():
            take = self._demultiplex if port == self._marked else received
            reader = RawReader(source, take, drained, reactor)
            reactor.addReader(reader)
            self._readers.append(reader)

    def _demultiplex(self, datagram: Received) -> None:
        payload = datagram.payload
        if udp.is_keep_alive(payload):
            self._counters["nat_keep_alive"] += 1
        elif udp.is_esp(payload):
            self._esp(datagram)
        else:
            self._received(datagram._replace(payload=udp.unmarked(payload)))

    def send(self, message: bytes, local: Address, remote: Address) -> None:
        """Send an IKE message; the non-ESP marker is put before it where the port asks for it."""
        source, port = local
        marked = port == self._marked
        self._sockets[port].send(udp.NON_ESP_MARKER + message if marked else message, source, remote)

    def send_esp(self, packet: bytes, local: bytes, remote: Address) -> None:
        """Send an ESP packet, from its SPI on, in UDP."""
        self._sockets[self._marked].send(packet, local, remote)

    def close(self) -> None:
        """Hear and say no more."""
        for reader in self._readers:
            self._reactor.removeReader(reader)
        for source in self._sockets.values():
            source.close()
