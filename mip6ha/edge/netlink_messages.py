"""Netlink as messages: attributes, many requests in one system call, dumps, notifications.

Covered: encoding and walking attributes (RFC 3549 2.2), errors mapped back to the request that failed with
the kernel's own words (extended acknowledgements), overruns. Not covered: what the messages of a protocol
mean (``xfrm``); routes, for which ``netlink`` needs no attributes of its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from .socket_filter import attach

__all__ = [
    "ACKNOWLEDGE",
    "CREATE",
    "DUMP",
    "EXCLUSIVE",
    "REPLACE",
    "Conversation",
    "Failure",
    "Message",
    "Overrun",
    "Request",
    "attribute",
    "attributes",
    "nested",
]

ACKNOWLEDGE = 0x4
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
DUMP = 0x300
"""Flags of a request, besides the one that says it is one."""

_REQUEST = 0x1
_CAPPED, _HAS_TEXT = 0x100, 0x200
_ERROR_MESSAGE, _DONE = 2, 3
_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")
_ERROR = Struct("=i")
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_TEXT, _OFFSET = 1, 2

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 1, 10, 11, 12
_RECEIVE_BUFFER_FORCE = 33
_RECEIVE = 1 << 17
# The kernel takes what fits the send buffer; the answers to so many requests fit the receive buffer.
_BATCH_OCTETS, _BATCH_REQUESTS = 1 << 16, 256
_BUFFER = 1 << 20


class Overrun(Exception):
    """The kernel had more to say than fits the receive buffer (ENOBUFS): something was lost."""


class Request(NamedTuple):
    """One message to the kernel, without its header."""

    kind: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """One message of the kernel, without its header."""

    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that the kernel refused: which of those given, an ``errno``, and what it said about it."""

    index: int
    code: int
    text: str

    def __str__(self) -> str:
        name = errno.errorcode.get(self.code, str(self.code))
        return f"{name} ({self.text})" if self.text else name


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | _NESTED, b"".join(inner))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes that start at ``offset``; the last one of a kind counts, a truncated rest does not."""
    found = {}
    while offset + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > len(data):
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + size]
        offset += size + 3 & ~3
    return found


class Conversation:
    """A netlink socket of one protocol, for requests and answers, or for the notifications of ``groups``.

    The socket belongs to the network namespace it was made in; ``buffer`` is how many octets may wait.
    ``port`` is what the kernel calls it: notifications tell who caused them. ``OSError`` where the kernel has
    no such protocol.
    """

    def __init__(self, protocol: int, groups: Iterable[int] = (), buffer: int = _BUFFER) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, buffer)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except BaseException:
            self._socket.close()
            raise
        # Of this socket, in every request: what NETLINK_XFRM announces says who caused it in these words.
        self.port = int(self._socket.getsockname()[0])
        self._sequence = 0
        self.sent = 0

    def select_dumps(self) -> None:
        """Have the kernel list only what a dump asks for; one that cannot lists everything."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)

    def attach_filter(self, program: bytes) -> None:
        """Have the kernel keep back notifications: the instructions of a classic BPF program."""
        attach(self._socket, program)

    def close(self) -> None:
        """Give up the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """For a reactor that waits for notifications."""
        return self._socket.fileno()

    def send(self, requests: Sequence[Request]) -> list[Failure]:
        """Send the requests in order, as many as possible at a time; those that failed, the others were done.

        Raises :class:`Overrun` when it is unknown which failed.
        """
        failures: list[Failure] = []
        start = 0
        while start < len(requests):
            stop, size = start, 0
            while stop < len(requests) and stop - start < _BATCH_REQUESTS:
                size += _HEADER.size + len(requests[stop].body) + 3
                if size > _BATCH_OCTETS and stop > start:
                    break
                stop += 1
            failures += self._send(requests[start:stop], start)
            start = stop
        return failures

    def _send(self, requests: Sequence[Request], start: int) -> list[Failure]:
        first = self._sequence
        last = self._write(requests)
        failures = []
        for kind, flags, sequence, body in self._read():
            if kind != _ERROR_MESSAGE or not first < sequence <= last:
                continue
            (code,) = _ERROR.unpack_from(body)
            if code:
                failures.append(Failure(start + sequence - first - 1, -code, _words(flags, body)))
            # Failures are always reported; only the last request needs to be told that it is done.
            if sequence == last:
                return failures
        raise AssertionError("unreachable")

    def _write(self, requests: Sequence[Request]) -> int:
        parts = []
        final = len(requests) - 1
        for index, (kind, flags, body) in enumerate(requests):
            self._sequence = self._sequence + 1 & 0x7FFFFFFF or 1
            flags |= _REQUEST | (ACKNOWLEDGE if index == final and flags & DUMP != DUMP else 0)
            parts.append(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, self.port))
            parts.append(body + bytes(-len(body) % 4))
        self._socket.send(b"".join(parts))
        self.sent += len(requests)
        return self._sequence

    def ask(self, request: Request) -> Message:
        """Send a request that is answered by one message; ``OSError`` if it is refused."""
        sequence = self._write([request])
        answer: Message | None = None
        for kind, flags, number, body in self._read():
            if number != sequence:
                continue
            if kind != _ERROR_MESSAGE:
                answer = Message(kind, body)
                continue
            (code,) = _ERROR.unpack_from(body)
            if code:
                raise OSError(-code, _words(flags, body) or errno.errorcode.get(-code, "refused"))
            if answer is None:
                raise OSError(errno.ENODATA, "no answer")
            return answer
        raise AssertionError("unreachable")

    def dump(self, kind: int, body: bytes = b"") -> Iterator[Message]:
        """Every object of a kind; take all of them before the next request. ``OSError`` if it is refused."""
        sequence = self._write([Request(kind, DUMP, body)])
        for answer, flags, number, content in self._read():
            if number != sequence:
                continue
            if answer == _DONE:
                return
            if answer == _ERROR_MESSAGE:
                (code,) = _ERROR.unpack_from(content)
                raise OSError(-code, _words(flags, content) or errno.errorcode.get(-code, "refused"))
            yield Message(answer, content)

    def notifications(self) -> list[Message]:
        """What has been announced since, without waiting; :class:`Overrun` when some of it was lost.

        After an overrun the socket goes on with what is announced from then on.
        """
        found: list[Message] = []
        while True:
            try:
                data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except OSError as error:
                raise _overrun(error) from None
            found += [Message(kind, body) for kind, _, _, body in _messages(data)]

    def _read(self) -> Iterator[tuple[int, int, int, bytes]]:
        while True:
            try:
                data = self._socket.recv(_RECEIVE)
            except OSError as error:
                raise _overrun(error) from None
            yield from _messages(data)


def _overrun(error: OSError) -> Exception:
    return Overrun("netlink") if error.errno == errno.ENOBUFS else error


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size:
            return
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + size]
        offset += size + 3 & ~3


def _words(flags: int, body: bytes) -> str:
    """What the kernel says about an error (``NLMSGERR_ATTR_MSG``), or where it is in the request."""
    if not flags & _HAS_TEXT:
        return ""
    # Behind the error stands the request's header, and unless capped its body.
    behind = _ERROR.size + _HEADER.size
    if not flags & _CAPPED:
        behind = _ERROR.size + (_HEADER.unpack_from(body, _ERROR.size)[0] + 3 & ~3)
    found = attributes(body, behind)
    if _TEXT in found:
        return found[_TEXT].rstrip(b"\0").decode(errors="replace")
    if _OFFSET in found:
        return f"at octet {int.from_bytes(found[_OFFSET], 'little')}"
    return ""
