"""What becomes of a protected message: the window, the exchange, the one answer (RFC 7296 2.1 to 2.3).

Covered: which message id may come, retransmitted requests, fragments, errors that are answered. A message is
verified, parsed whole, and only then does anything change. Not covered: what the exchanges do.
"""

from __future__ import annotations

from ...wire import Malformed, Refused
from . import auth, create_child, informational, initial, rekey
from .contents import Contents, UnsupportedCritical, parse_contents
from .fragments import Reassembly, fragment_numbers, open_fragment
from .message import Chain, Header, Payload, open_encrypted, parse_chain
from .numbers import Exchange, Notification, PayloadKind, Protocol
from .parameters import Peer
from .sa import IkeSa, Pending, State, Task, TaskKind
from .turn import Rejection, Turn, notify
from .window import EXCHANGES, exhausted, idle, new_pending, send_request

__all__ = ["advance", "receive", "receive_initial_response", "start"]

_CREATE = (TaskKind.CREATE_CHILD, TaskKind.REKEY_CHILD)
_OPEN = (State.ESTABLISHED, State.REKEYED)


def receive(turn: Turn, ike_sa: IkeSa, header: Header, chain: Chain, datagram: bytes) -> None:
    """Take a message of an IKE SA that has keys; :class:`Refused` says why it was dropped."""
    if header.initiator is ike_sa.initiator:
        raise Refused("wrong_direction")
    if chain.encrypted is None or chain.payloads:
        raise Refused("unprotected")
    if header.response:
        _receive_response(turn, ike_sa, header, chain, datagram)
    else:
        _receive_request(turn, ike_sa, header, chain, datagram)


def _verified(
    turn: Turn, ike_sa: IkeSa, header: Header, chain: Chain, datagram: bytes
) -> tuple[int, bytes] | None:
    """The type of the first payload inside and all of them; ``None`` while fragments are missing.

    Nothing is kept that did not verify.
    """
    encrypted, protection = chain.encrypted, turn.opening(ike_sa)
    if encrypted is None or protection is None:
        raise Refused("unprotected")
    key = (ike_sa.spi, header.response)
    if encrypted.kind == PayloadKind.ENCRYPTED:
        found: tuple[int, bytes] | None
        found = encrypted.first, open_encrypted(datagram, encrypted, protection)
    else:
        if not ike_sa.fragments:
            raise Refused("fragment_unexpected")
        fragment = open_fragment(datagram, encrypted, protection)
        reassembly = turn.register.reassemblies.get(key)
        if reassembly is None or reassembly.message_id != header.message_id:
            reassembly = turn.register.reassemblies[key] = Reassembly(header.message_id)
        found = reassembly.add(fragment)
        if found is None:
            return None
    turn.register.reassemblies.pop(key, None)
    return found


def _contents(header: Header, verified: tuple[int, bytes]) -> Contents:
    first, octets = verified
    inner = parse_chain(octets, 0, first)
    if inner.encrypted is not None:
        raise Malformed("nested_encryption")
    return parse_contents(header.exchange, header.response, inner.payloads)


def _receive_response(turn: Turn, ike_sa: IkeSa, header: Header, chain: Chain, datagram: bytes) -> None:
    pending = ike_sa.pending
    if (
        pending is None
        or header.message_id != pending.message_id
        or header.exchange != EXCHANGES[pending.task.kind]
    ):
        raise Refused("unexpected_response")
    verified = _verified(turn, ike_sa, header, chain, datagram)
    if verified is None:
        return
    try:
        contents = _contents(header, verified)
        ike_sa.pending = None
        _heard(turn, ike_sa)
        _conclude(turn, ike_sa, pending, contents)
    except (UnsupportedCritical, Malformed) as error:
        # 2.21.2: who has the keys and answers what cannot be read is no peer to go on with.
        turn.counters[error.reason] += 1
        turn.close(ike_sa, error.reason)
    if ike_sa.state is not State.CLOSED:
        turn.changed(ike_sa)


def _receive_request(turn: Turn, ike_sa: IkeSa, header: Header, chain: Chain, datagram: bytes) -> None:
    synchronisation = (
        header.message_id == 0
        and header.exchange == Exchange.INFORMATIONAL
        and ike_sa.message_id_sync
        and ike_sa.state in _OPEN
    )
    if header.message_id == ike_sa.expected_id:
        _check_exchange(ike_sa, header)
    elif not synchronisation:
        _answer_again(turn, ike_sa, header, chain, datagram)
        return
    verified = _verified(turn, ike_sa, header, chain, datagram)
    if verified is None:
        return
    expected = ike_sa.expected_id
    payloads, is_new = _answer(turn, ike_sa, header, verified)
    if payloads is None:
        # Message id 0 again, but no synchronisation: the peer's very first request, or nothing at all.
        _answer_again(turn, ike_sa, header, chain, datagram)
        return
    datagrams = turn.seal(ike_sa, header._replace(initiator=ike_sa.initiator, response=True), payloads)
    if is_new:
        # What the message id does not count may be a replay: nothing is learned from where and when it came.
        _heard(turn, ike_sa)
        _follow(turn, ike_sa)
        ike_sa.expected_id = expected + 1
        ike_sa.last_response = datagrams
    if turn.closing:
        turn.close(ike_sa, turn.closing, linger=True)
    else:
        turn.changed(ike_sa)
    turn.answer(ike_sa, datagrams)
    if header.exchange == Exchange.IKE_AUTH and ike_sa.handshake is not None:
        turn.register.requests.pop(ike_sa.handshake.digest, None)
        ike_sa.handshake = None


def _check_exchange(ike_sa: IkeSa, header: Header) -> None:
    if ike_sa.state is State.HALF_OPEN and not ike_sa.initiator:
        allowed = header.exchange == Exchange.IKE_AUTH
    else:
        allowed = ike_sa.state in _OPEN and header.exchange in (
            Exchange.CREATE_CHILD_SA,
            Exchange.INFORMATIONAL,
        )
    if not allowed:
        raise Refused("unexpected_exchange")


def _answer_again(turn: Turn, ike_sa: IkeSa, header: Header, chain: Chain, datagram: bytes) -> None:
    """2.1: the request before this one gets the very same octets; anything else gets nothing."""
    answered = bool(ike_sa.last_response) and ike_sa.state is not State.HALF_OPEN
    if not answered or header.message_id + 1 != ike_sa.expected_id:
        raise Refused("message_id")
    protection, encrypted = turn.opening(ike_sa), chain.encrypted
    if protection is None or encrypted is None:
        raise Refused("unprotected")
    if encrypted.kind == PayloadKind.FRAGMENT:
        # RFC 7383 2.6.1: one answer for all of its fragments.
        if fragment_numbers(datagram, encrypted)[0] != 1:
            raise Refused("retransmitted_fragment")
        open_fragment(datagram, encrypted, protection)
    else:
        open_encrypted(datagram, encrypted, protection)
    turn.counters["answered_again"] += 1
    turn.answer(ike_sa, ike_sa.last_response)


def _answer(
    turn: Turn, ike_sa: IkeSa, header: Header, verified: tuple[int, bytes]
) -> tuple[list[Payload] | None, bool]:
    """The payloads of the response, and whether it is one that the message id counts.

    Whatever goes wrong from here on is told to a peer that has the keys.
    """
    authenticating = header.exchange == Exchange.IKE_AUTH
    try:
        contents = _contents(header, verified)
        if contents.notify(Notification.IKEV2_MESSAGE_ID_SYNC) is not None and header.message_id == 0:
            if not ike_sa.message_id_sync:
                raise Malformed("message_id_sync")
            return informational.answer_synchronisation(ike_sa, contents), False
        if header.message_id != ike_sa.expected_id:
            return None, False
        return _exchange(turn, ike_sa, header, contents), True
    except UnsupportedCritical as error:
        turn.counters[error.reason] += 1
        if authenticating:
            turn.closing = error.reason
        return [notify(Notification.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((error.kind,)))], True
    except Rejection as rejection:
        turn.counters[rejection.reason] += 1
        if authenticating:
            turn.closing = rejection.reason
        return [rejection.payload], True
    except Malformed as error:
        # 2.21.3: fatal, and both ends know it.
        turn.counters[error.reason] += 1
        turn.notice("invalid_syntax", ike_sa, reason=error.reason)
        turn.closing = "invalid_syntax"
        return [notify(Notification.INVALID_SYNTAX)], True


def _exchange(turn: Turn, ike_sa: IkeSa, header: Header, contents: Contents) -> list[Payload]:
    if header.exchange == Exchange.IKE_AUTH:
        return auth.answer(turn, ike_sa, contents)
    if ike_sa.predecessor and not any(each.protocol == Protocol.IKE for each in contents.deletes):
        rekey.settle(turn, ike_sa)
    if header.exchange == Exchange.INFORMATIONAL:
        return informational.answer(turn, ike_sa, contents)
    peer = _peer(turn, ike_sa)
    if peer is None:
        # The configuration has been changed, and knows it no more.
        raise Rejection(Notification.NO_ADDITIONAL_SAS)
    if contents.ts_initiator is None and contents.ts_responder is None:
        return rekey.answer(turn, ike_sa, contents)
    return create_child.answer(turn, ike_sa, contents, peer)


def _heard(turn: Turn, ike_sa: IkeSa) -> None:
    interval = turn.parameters.timing.probe_interval
    if interval is not None and ike_sa.state is State.ESTABLISHED:
        ike_sa.probe_at = turn.now + interval


def _follow(turn: Turn, ike_sa: IkeSa) -> None:
    """2.23: a NAT may give a peer behind it another address at any time; MOBIKE has its own way."""
    if turn.endpoints is None or not ike_sa.nat_there or ike_sa.mobike or ike_sa.state not in _OPEN:
        return
    if ike_sa.remote != turn.endpoints.remote:
        ike_sa.local, ike_sa.remote = turn.endpoints
        informational.move(turn, ike_sa)


def _conclude(turn: Turn, ike_sa: IkeSa, pending: Pending, contents: Contents) -> None:
    kind, peer = pending.task.kind, _peer(turn, ike_sa)
    error = contents.error
    if error is not None and error.kind == Notification.INVALID_SYNTAX and kind is not TaskKind.AUTHENTICATE:
        # 2.21.3: fatal for both ends, without a Delete.
        turn.close(ike_sa, "invalid_syntax")
    elif peer is None:
        turn.close(ike_sa, "unknown_peer")
    elif kind is TaskKind.AUTHENTICATE:
        auth.conclude(turn, ike_sa, pending, contents, peer)
    elif kind in _CREATE:
        create_child.conclude(turn, ike_sa, pending, contents, peer)
    elif kind is TaskKind.REKEY:
        rekey.conclude(turn, ike_sa, pending, contents)
    else:
        informational.conclude(turn, ike_sa, pending, contents)


def _peer(turn: Turn, ike_sa: IkeSa) -> Peer | None:
    return turn.directory.by_name.get(ike_sa.peer)


def advance(turn: Turn, ike_sa: IkeSa) -> None:
    """Begin what waits, if its turn has come."""
    while idle(turn, ike_sa):
        if exhausted(ike_sa):
            turn.close(ike_sa, "message_ids_exhausted")
            return
        task, ike_sa.waiting = ike_sa.waiting[0], ike_sa.waiting[1:]
        start(turn, ike_sa, task)


def start(turn: Turn, ike_sa: IkeSa, task: Task) -> None:
    """Build and send a request; nothing where it has become pointless."""
    peer = _peer(turn, ike_sa)
    if peer is None:
        turn.close(ike_sa, "unknown_peer")
        return
    pending = new_pending(turn, ike_sa, task)
    payloads: list[Payload] | None
    if task.kind is TaskKind.AUTHENTICATE:
        payloads = auth.request(turn, ike_sa, pending, peer)
    elif task.kind in _CREATE:
        payloads = create_child.request(turn, ike_sa, pending, peer)
    elif task.kind is TaskKind.REKEY:
        payloads = rekey.request(turn, ike_sa, pending)
    else:
        payloads = informational.request(turn, ike_sa, pending)
    if payloads is not None:
        send_request(turn, ike_sa, pending, payloads)


def receive_initial_response(
    turn: Turn, ike_sa: IkeSa, header: Header, contents: Contents, datagram: bytes
) -> None:
    """Take an IKE_SA_INIT response and go on to IKE_AUTH."""
    if initial.conclude(turn, ike_sa, header, contents, datagram):
        start(turn, ike_sa, Task(TaskKind.AUTHENTICATE))
