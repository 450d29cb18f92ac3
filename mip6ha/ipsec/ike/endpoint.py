"""An IKEv2 endpoint: datagrams and time in, effects out (RFC 7296).

Covered: which IKE SA a datagram is for, strangers and their floods (cookies, rates, a bounded queue of
handshakes), deadlines in order, what the owner may ask for. Not covered: what is done with a message of an
IKE SA (``dispatch``), sockets, the non-ESP marker.

Requests of strangers wait in a queue that :meth:`IkeEndpoint.on_timer` serves a few at a time; everything
else is served where it comes in. So a flood of handshakes delays handshakes, and nobody who is established.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from ...wire import Malformed, Refused
from . import dispatch, initial, state
from .contents import Contents, UnsupportedCritical, parse_contents
from .cookies import Cookies, SourceRates
from .effects import Effect, Established
from .informational import move
from .message import HEADER_SIZE, Chain, Header, build_clear, parse_chain, parse_header
from .numbers import MAJOR_VERSION, Exchange, Notification
from .parameters import Parameters
from .sa import Address, IkeSa, State, Task, TaskKind
from .timers import deadline, due
from .turn import Directory, Endpoints, Register, Rejection, Turn, notify
from .window import queue

__all__ = ["IkeEndpoint"]

_ZERO = bytes(8)


class _Waiting(NamedTuple):
    header: Header
    contents: Contents
    datagram: bytes
    endpoints: Endpoints


class IkeEndpoint:
    """Both roles, for any number of peers.

    ``random(n)`` returns n octets nobody can guess; ``wall()`` the date, for certificates. ``iv_prefix`` are
    24 bits of member id and term, as in ``sad``. An IKE SA is named by our own SPI, a child by its inbound.
    """

    def __init__(
        self,
        parameters: Parameters,
        random: Callable[[int], bytes],
        now: float,
        *,
        wall: Callable[[], datetime],
        iv_prefix: int = 0,
    ) -> None:
        self.iv_prefix = iv_prefix
        self.counters: Counter[str] = Counter()
        self._random, self._wall = random, wall
        self._register = Register()
        self._cookies = Cookies(random, now)
        self._queue: deque[_Waiting] = deque()
        self._queued: set[bytes] = set()
        self._deadlines: list[tuple[float, bytes]] = []
        self._scheduled: dict[bytes, float] = {}
        self.reconfigure(parameters)

    def reconfigure(self, parameters: Parameters) -> None:
        """Go on with other parameters; what was agreed on stands until its re-key."""
        self.parameters = parameters
        self._directory = Directory(parameters)
        limits = parameters.limits
        self._rates = SourceRates(limits.source_rate, limits.source_burst, limits.sources)

    @property
    def ike_sas(self) -> Mapping[bytes, IkeSa]:
        """Every IKE SA by our SPI; also those that are half-open or only answer for the last time."""
        return self._register.ike_sas

    def _turn(self, now: float) -> Turn:
        return Turn(
            self._register,
            self.parameters,
            self._directory,
            self._random,
            counters=self.counters,
            wall=self._wall,
            iv_prefix=self.iv_prefix,
            now=now,
        )

    def _done(self, turn: Turn) -> list[Effect]:
        touched = self._register.touched
        # Also an IKE SA that has just taken another one's place may have something to begin.
        for spi in sorted(touched):
            ike_sa = self._register.ike_sas.get(spi)
            if ike_sa is not None:
                dispatch.advance(turn, ike_sa)
        self._schedule()
        return turn.effects

    def _schedule(self) -> None:
        touched = self._register.touched
        for spi in touched:
            ike_sa = self._register.ike_sas.get(spi)
            if ike_sa is None:
                self._scheduled.pop(spi, None)
                continue
            at = deadline(ike_sa)
            # A deadline that moved later is found out when the old one comes up.
            if at < self._scheduled.get(spi, float("inf")):
                self._scheduled[spi] = at
                heapq.heappush(self._deadlines, (at, spi))
        touched.clear()

    def receive(self, datagram: bytes, source: Address, destination: Address, now: float) -> list[Effect]:
        """Take a datagram, without the non-ESP marker; ``counters`` count why one was dropped."""
        turn = self._turn(now)
        turn.endpoints = Endpoints(destination, source)
        try:
            self._receive(turn, datagram)
        except Refused as refused:
            self.counters[refused.reason] += 1
        return self._done(turn)

    def _receive(self, turn: Turn, datagram: bytes) -> None:
        header, first = parse_header(datagram)
        if header.major_version != MAJOR_VERSION:
            if header.major_version > MAJOR_VERSION and not header.response:
                self._answer_clear(turn, header._replace(version=MAJOR_VERSION << 4), _VERSION_REJECTED)
            raise Malformed("ike_version", 17)
        chain = parse_chain(datagram, HEADER_SIZE, first)
        if header.exchange == Exchange.IKE_SA_INIT:
            if chain.encrypted is not None:
                raise Malformed("unexpected_payload")
            if header.response:
                self._initial_response(turn, header, chain, datagram)
            else:
                self._initial_request(turn, header, chain, datagram)
            return
        ike_sa = self._register.ike_sas.get(header.spi_r if header.initiator else header.spi_i)
        if ike_sa is None or (ike_sa.spi_i, ike_sa.spi_r) != (header.spi_i, header.spi_r):
            if not header.response:
                self._answer_clear(turn, header, Rejection(Notification.INVALID_IKE_SPI))
            raise Refused("unknown_ike_spi")
        dispatch.receive(turn, ike_sa, header, chain, datagram)

    def _answer_clear(self, turn: Turn, header: Header, rejection: Rejection) -> None:
        """An error without protection (1.5, 2.21), as often as a source may ask at all."""
        endpoints = turn.endpoints
        if endpoints is not None and self._rates.take(endpoints.remote[0], turn.now):
            flags = header._replace(initiator=not header.initiator, response=True)
            octets = build_clear(flags, [rejection.payload])
            turn.answer_to(endpoints, octets)

    def _initial_response(self, turn: Turn, header: Header, chain: Chain, datagram: bytes) -> None:
        ike_sa = self._register.ike_sas.get(header.spi_i)
        if ike_sa is None or ike_sa.state is not State.INITIATED or header.message_id or header.initiator:
            raise Refused("unexpected_response")
        contents = parse_contents(header.exchange, True, chain.payloads)
        dispatch.receive_initial_response(turn, ike_sa, header, contents, datagram)

    def _initial_request(self, turn: Turn, header: Header, chain: Chain, datagram: bytes) -> None:
        endpoints = turn.endpoints
        if endpoints is None or header.message_id or header.spi_r != _ZERO or not header.initiator:
            raise Malformed("initial_header", 8)
        digest = initial.request_digest(datagram)
        known = self._register.ike_sas.get(self._register.requests.get(digest, b""))
        if known is not None and known.state is State.HALF_OPEN:
            self.counters["answered_again"] += 1
            turn.answer(known, known.last_response)
            return
        if digest in self._queued:
            raise Refused("duplicate_request")
        try:
            contents = parse_contents(header.exchange, False, chain.payloads)
        except UnsupportedCritical as error:
            kind = Notification.UNSUPPORTED_CRITICAL_PAYLOAD
            self._answer_clear(turn, header, Rejection(kind, bytes((error.kind,))))
            raise
        self._admit(turn, header, contents, endpoints)
        self._queue.append(_Waiting(header, contents, datagram, endpoints))
        self._queued.add(digest)

    def _admit(self, turn: Turn, header: Header, contents: Contents, endpoints: Endpoints) -> None:
        """2.6: whether a stranger's request may cost us a key exchange."""
        limits, half_open = self.parameters.limits, len(self._register.half_open)
        if half_open + len(self._queue) >= limits.cookie_threshold and contents.nonce is not None:
            cookie, address = contents.notify(Notification.COOKIE), endpoints.remote[0]
            nonce, spi = contents.nonce, header.spi_i
            if cookie is None or not self._cookies.holds(cookie.data, nonce, address, spi, turn.now):
                fresh = self._cookies.make(nonce, address, spi, turn.now)
                answer = header._replace(initiator=False, response=True)
                turn.answer_to(endpoints, build_clear(answer, [notify(Notification.COOKIE, fresh)]))
                raise Refused("cookie_demanded")
        if half_open >= limits.half_open:
            raise Refused("half_open_limit")
        if len(self._register.ike_sas) >= limits.ike_sas:
            raise Refused("ike_sa_limit")
        if not self._rates.take(endpoints.remote[0], turn.now):
            raise Refused("source_rate")
        if len(self._queue) >= limits.queue:
            raise Refused("handshake_queue_full")

    def _serve(self, turn: Turn) -> None:
        """A few of the handshakes that wait, in order."""
        for _ in range(min(self.parameters.limits.handshakes_per_turn, len(self._queue))):
            header, contents, datagram, endpoints = self._queue.popleft()
            self._queued.discard(initial.request_digest(datagram))
            turn.endpoints = endpoints
            try:
                initial.answer(turn, header, contents, datagram)
            except Rejection as rejection:
                self.counters[rejection.reason] += 1
                answer = header._replace(initiator=False, response=True)
                turn.answer_to(endpoints, build_clear(answer, [rejection.payload]))
            except Refused as refused:
                self.counters[refused.reason] += 1
        turn.endpoints = None

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` wants to be called; minus infinity where handshakes wait for their turn."""
        if self._queue:
            return float("-inf")
        return self._deadlines[0][0] if self._deadlines else None

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        turn = self._turn(now)
        self._serve(turn)
        while self._deadlines and self._deadlines[0][0] <= now:
            at, spi = heapq.heappop(self._deadlines)
            if self._scheduled.get(spi) != at:
                continue
            del self._scheduled[spi]
            ike_sa = self._register.ike_sas.get(spi)
            if ike_sa is not None:
                self._register.touched.add(spi)
                if deadline(ike_sa) <= now:
                    due(turn, ike_sa)
        return self._done(turn)

    def initiate(self, peer: str, local: Address, now: float) -> list[Effect]:
        """Begin an IKE SA with a peer of the parameters; ``KeyError`` if there is none with an address."""
        turn = self._turn(now)
        initial.begin(turn, self._directory.by_name[peer], local)
        return self._done(turn)

    def _ask(self, spi: bytes, task: Task, now: float) -> list[Effect]:
        turn, ike_sa = self._turn(now), self._register.ike_sas[spi]
        if ike_sa.state is State.ESTABLISHED:
            queue(turn, ike_sa, task)
        return self._done(turn)

    def create_child(self, spi: bytes, name: str, now: float) -> list[Effect]:
        """Ask for another child; this and all below: ``KeyError`` for an IKE SA that is not there."""
        return self._ask(spi, Task(TaskKind.CREATE_CHILD, name), now)

    def rekey_child(self, spi: bytes, child: int, now: float) -> list[Effect]:
        """Replace a child before its time."""
        return self._ask(spi, Task(TaskKind.REKEY_CHILD, spi=child), now)

    def delete_child(self, spi: bytes, child: int, now: float) -> list[Effect]:
        """End a child."""
        return self._ask(spi, Task(TaskKind.DELETE_CHILD, spi=child), now)

    def rekey(self, spi: bytes, now: float) -> list[Effect]:
        """Replace an IKE SA before its time."""
        return self._ask(spi, Task(TaskKind.REKEY), now)

    def delete(self, spi: bytes, now: float) -> list[Effect]:
        """End an IKE SA and its children; the peer is told if both have authenticated."""
        ike_sa = self._register.ike_sas[spi]
        if ike_sa.state in (State.INITIATED, State.HALF_OPEN):
            turn = self._turn(now)
            turn.close(ike_sa, "deleted")
            return self._done(turn)
        return self._ask(spi, Task(TaskKind.DELETE), now)

    def probe(self, spi: bytes, now: float) -> list[Effect]:
        """Ask whether the peer is alive."""
        return self._ask(spi, Task(TaskKind.PROBE), now)

    def synchronise(self, spi: bytes, now: float) -> list[Effect]:
        """After a takeover, agree on message ids (RFC 6311); nothing where the peer knows nothing of it."""
        if not self._register.ike_sas[spi].message_id_sync:
            return []
        return self._ask(spi, Task(TaskKind.SYNCHRONISE), now)

    def peer_moved(self, spi: bytes, address: bytes, now: float) -> list[Effect]:
        """The peer is elsewhere, on the authority of a Binding Update with K (RFC 6275 11.7.1)."""
        ike_sa = self._register.ike_sas[spi]
        return self._moved(ike_sa, ike_sa.local, (address, ike_sa.remote[1]), now)

    def moved(self, spi: bytes, address: bytes, now: float) -> list[Effect]:
        """We are elsewhere; the peer learns it from the K flag."""
        ike_sa = self._register.ike_sas[spi]
        return self._moved(ike_sa, (address, ike_sa.local[1]), ike_sa.remote, now)

    def _moved(self, ike_sa: IkeSa, local: Address, remote: Address, now: float) -> list[Effect]:
        turn = self._turn(now)
        if (ike_sa.local, ike_sa.remote) != (local, remote):
            ike_sa.local, ike_sa.remote = local, remote
            move(turn, ike_sa)
            turn.changed(ike_sa)
        return self._done(turn)

    def export_state(self, spi: bytes, now: float) -> bytes:
        """An IKE SA as octets; they hold keys."""
        return state.encode(self._register.ike_sas[spi], now)

    def import_state(self, octets: bytes, now: float) -> list[Effect]:
        """Go on with an IKE SA that another member exported; :class:`Malformed` if it is none."""
        ike_sa = state.decode(octets, now)
        self.adopt(ike_sa, now)
        return [Established(ike_sa)]

    def adopt(self, ike_sa: IkeSa, now: float) -> None:
        """As :meth:`import_state`, of what ``state.decode`` made; in place of what was known of it."""
        known = self._register.ike_sas.get(ike_sa.spi)
        if known is not None:
            self._register.forget(known)
        self._register.add(ike_sa)
        self._schedule()

    def forget(self, spi: bytes) -> None:
        """Know nothing of an IKE SA any more, and say so to nobody: another member serves it."""
        ike_sa = self._register.ike_sas.get(spi)
        if ike_sa is not None:
            self._register.forget(ike_sa)
            self._scheduled.pop(spi, None)


_VERSION_REJECTED = Rejection(Notification.INVALID_MAJOR_VERSION)
