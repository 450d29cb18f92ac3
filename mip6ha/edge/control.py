"""Questions to a running home agent over a UNIX socket: one JSON object a line, one line an answer.

Covered: ``{"command": "bindings"}`` -> ``{"ok": true, "result": ...}`` or ``{"ok": false, "error": "..."}``,
answers that take their time, long ones that are made piece by piece, the socket file's mode and replacing a
stale one, asking (:func:`ask`). Not covered: what the commands do.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from .errors import Unusable

__all__ = ["Listing", "Request", "UnixControl", "Unwilling", "ask"]

_LONGEST_REQUEST = 4096
_IDLE_SECONDS = 30
_CONNECTIONS = 32
_ROWS = 50
"""Rows of a listing between two looks at everything else: about a millisecond."""
_PENDING = 32

Request = Mapping[str, Any]
Commands = Mapping[str, Callable[[Request], object]]
"""What is asked for by name -> the result for that request, or a Deferred of it, or a :class:`Listing`."""


class Unwilling(Exception):
    """A request cannot be met; the text says why."""


class Listing:
    """A result that may be long: its rows, made when they are wanted.

    Whoever asks gets one list. What is listed may change meanwhile: ``rows`` must stand that.
    """

    def __init__(self, rows: Iterable[object]) -> None:
        self.rows = iter(rows)


class _Pieces:
    """One answer with a listing, a piece whenever the socket has taken the last one (an IPullProducer)."""

    def __init__(self, transport: Any, listing: Listing, ended: Callable[[], object]) -> None:
        self._transport = transport
        self._rows = listing.rows
        self._ended = ended
        self._between = b""
        transport.write(b'{"ok": true, "result": [')
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:  # noqa: N802
        """Write the next piece."""
        rows = list(islice(self._rows, _ROWS))
        if rows:
            self._transport.write(self._between + json.dumps(rows)[1:-1].encode())
            self._between = b", "
        if len(rows) < _ROWS:
            self._transport.unregisterProducer()
            self._transport.write(b"]}\n")
            self._ended()

    def stopProducing(self) -> None:  # noqa: N802
        """Nobody reads it any more."""
        self._rows = iter(())


class _Conversation(LineOnlyReceiver, TimeoutMixin):
    # Zope's interface says too little about it.
    transport: Any
    delimiter = b"\n"
    MAX_LENGTH = _LONGEST_REQUEST

    def __init__(self, control: UnixControl) -> None:
        self._control = control
        self._lists = False
        self._pending: deque[bytes] = deque()

    def connectionMade(self) -> None:  # noqa: N802
        self._control.connections += 1
        if self._control.connections > _CONNECTIONS:
            self._answer({"ok": False, "error": "too many connections"})
            self.transport.loseConnection()
        self.setTimeout(_IDLE_SECONDS)

    def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
        self._control.connections -= 1
        self.setTimeout(None)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802
        self.resetTimeout()
        if self._lists:
            self._pending.append(line)
            if len(self._pending) > _PENDING:
                self.transport.abortConnection()
            return
        answer = self._control.answer(line)
        if isinstance(answer, Deferred):
            answer.addCallback(self._answer)
        elif isinstance(answer, Listing):
            self._lists = True
            _Pieces(self.transport, answer, self._listed)
        else:
            self._answer(answer)

    def _listed(self) -> None:
        self._lists = False
        while self._pending and not self._lists:
            self.lineReceived(self._pending.popleft())

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        self._answer({"ok": False, "error": f"a request has at most {_LONGEST_REQUEST} octets"})
        self.transport.loseConnection()

    def _answer(self, answer: object) -> None:
        if self.connected:
            self.sendLine(json.dumps(answer).encode())


class UnixControl(Factory):
    """Answers ``commands`` on the socket ``path``, mode 0600. ``reactor`` provides IReactorUNIX."""

    noisy = False

    def __init__(self, path: Path, commands: Commands, reactor: Any) -> None:
        self.connections = 0
        self._commands = commands
        _remove_stale(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._port = reactor.listenUNIX(str(path), self, mode=0o600)
        except Exception as error:
            raise Unusable(f"control socket {path}: {error}") from None

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:  # noqa: N802
        """Twisted's way of taking a connection."""
        return _Conversation(self)

    def answer(self, line: bytes) -> dict[str, object] | Deferred[dict[str, object]] | Listing:
        """The answer to one request."""
        try:
            request = json.loads(line)
            command = self._commands.get(request["command"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"ok": False, "error": 'a request is {"command": NAME}'}
        if command is None:
            return {"ok": False, "error": f"unknown command; allowed: {', '.join(self._commands)}"}
        try:
            result = command(request)
        except Unwilling as why:
            return {"ok": False, "error": str(why)}
        if isinstance(result, Listing):
            return result
        if isinstance(result, Deferred):
            return result.addCallbacks(
                lambda done: {"ok": True, "result": done},
                lambda failure: {"ok": False, "error": _why(failure)},
            )
        return {"ok": True, "result": result}

    def close(self) -> Deferred[None] | None:
        """Answer no more; the socket file goes."""
        stopped: Deferred[None] | None = self._port.stopListening()
        return stopped


def _why(failure: Failure) -> str:
    failure.trap(Unwilling)
    return failure.getErrorMessage()


def _remove_stale(path: Path) -> None:
    if not path.exists():
        return
    if not path.is_socket():
        raise Unusable(f"control socket {path}: there is another kind of file")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Unusable(f"control socket {path}: another home agent answers there")


def ask(path: Path, command: str, arguments: Request = MappingProxyType({}), timeout: float = 30.0) -> Any:
    """The result of ``command`` from the home agent behind ``path``; ``timeout`` in seconds.

    Raises :class:`Unusable` when there is none or it refuses.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
            answer = json.loads(line)
        except OSError as error:
            raise Unusable(f"{path}: no home agent answers there ({error.strerror or error})") from None
        except ValueError:
            raise Unusable(f"{path}: the answer is not JSON") from None
    if not answer.get("ok"):
        raise Unusable(f"{path}: {answer.get('error', 'refused')}")
    return answer["result"]
