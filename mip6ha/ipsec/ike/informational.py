"""INFORMATIONAL, both roles: deletion, liveness, message ids after a takeover, a peer that moved.

RFC 7296 1.4, 2.25; RFC 6311 (message ids, not replay counters: those of ESP are reserved ahead here, see
``sad``); RFC 4555 as the one who is told. Not covered: return routability checks of new addresses.
"""

from __future__ import annotations

from ...wire import Malformed, Refused
from .children import installation, spis
from .contents import Contents
from .effects import MoveChild
from .message import Payload
from .nat import detect, notifies
from .numbers import COOKIE_MAXIMUM, Notification, PayloadKind, Protocol
from .payloads import Delete, build_delete
from .rekey import inherit
from .sa import IkeSa, Pending, State, Task, TaskKind
from .turn import Turn, notify

__all__ = ["answer", "answer_synchronisation", "conclude", "move", "request"]

_SYNC_SIZE = 12
_MOST_GONE = 16
_LEAST_COOKIE2 = 8


def request(turn: Turn, ike_sa: IkeSa, pending: Pending) -> list[Payload]:
    """What a task says to the peer."""
    kind, _, spi = pending.task
    if kind is TaskKind.DELETE_CHILD:
        return [_delete(Delete(Protocol.ESP, (spi.to_bytes(4, "big"),)))]
    if kind is TaskKind.DELETE:
        return [_delete(Delete(Protocol.IKE))]
    if kind is TaskKind.REJECT:
        return [notify(Notification.AUTHENTICATION_FAILED), _delete(Delete(Protocol.IKE))]
    if kind is TaskKind.SYNCHRONISE:
        pending.nonce = turn.random(4)
        return [notify(Notification.IKEV2_MESSAGE_ID_SYNC, _message_ids(ike_sa, pending.nonce))]
    return []


def _delete(payload: Delete) -> Payload:
    return Payload(PayloadKind.DELETE, build_delete(payload))


def _message_ids(ike_sa: IkeSa, nonce: bytes) -> bytes:
    """RFC 6311 5.1: nonce, the id of our next request, the id of the next one that we expect."""
    return nonce + ike_sa.next_id.to_bytes(4, "big") + ike_sa.expected_id.to_bytes(4, "big")


def _take_message_ids(ike_sa: IkeSa, data: bytes) -> None:
    """Both ends go on above whatever either has used (RFC 6311 5.1); nothing ever goes back."""
    sends, expects = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
    ike_sa.next_id = max(ike_sa.next_id, expects)
    if sends > ike_sa.expected_id:
        ike_sa.expected_id = sends
        # What was answered last is not the request before this one any more.
        ike_sa.last_response = ()


def answer(turn: Turn, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """Do as asked; an empty request is answered with nothing, which says that we are alive."""
    error = contents.error
    if error is not None:
        turn.notice("peer_error", ike_sa, error=error.kind)
        if error.kind in (Notification.AUTHENTICATION_FAILED, Notification.INVALID_SYNTAX):
            turn.closing = "refused_by_peer"
    payloads = _deleted(turn, ike_sa, contents)
    if ike_sa.mobike and contents.notify(Notification.UPDATE_SA_ADDRESSES) is not None:
        payloads += _update_addresses(turn, ike_sa, contents)
    cookie = contents.notify(Notification.COOKIE2)
    if cookie is not None and _LEAST_COOKIE2 <= len(cookie.data) <= COOKIE_MAXIMUM:
        # RFC 4555 4.2.5: as it came.
        payloads.append(notify(Notification.COOKIE2, cookie.data))
    return payloads


def answer_synchronisation(ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """The peer is another member of its cluster now, and asks where we were (RFC 6311 5.1)."""
    found = contents.notify(Notification.IKEV2_MESSAGE_ID_SYNC)
    if found is None or len(found.data) != _SYNC_SIZE:
        raise Malformed("message_id_sync")
    _take_message_ids(ike_sa, found.data)
    return [notify(Notification.IKEV2_MESSAGE_ID_SYNC, _message_ids(ike_sa, found.data[:4]))]


def _deleted(turn: Turn, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    wanted: set[int] = set()
    pending = ike_sa.pending
    for delete in contents.deletes:
        if delete.protocol == Protocol.ESP:
            wanted |= {int.from_bytes(each, "big") for each in delete.spis}
        elif delete.protocol == Protocol.IKE:
            if pending is not None and pending.rival is not None and pending.task.kind is TaskKind.REKEY:
                # 2.8.2: the peer saw no collision; its new IKE SA is the one.
                rival = turn.register.ike_sas.get(pending.rival.spi)
                if rival is not None and ike_sa.state is State.ESTABLISHED:
                    inherit(turn, ike_sa, rival)
            turn.closing = "rekeyed" if ike_sa.successor else "deleted_by_peer"
    gone = [each for each in ike_sa.children.values() if each.spi_out in wanted]
    if pending is not None:
        unknown = sorted(wanted - {each.spi_out for each in gone})
        pending.gone = (*pending.gone, *unknown)[-_MOST_GONE:]
    answered = []
    for child in gone:
        # 2.25.1: who asks for the same at the same time has said it already.
        if pending is None or pending.task != Task(TaskKind.DELETE_CHILD, spi=child.spi_in):
            answered.append(child)
        turn.remove_child(ike_sa, child)
        turn.notice("child_deleted", ike_sa, child=child.name, spi_in=f"0x{child.spi_in:08x}")
    return [_delete(Delete(Protocol.ESP, spis(answered)))] if answered else []


def _update_addresses(turn: Turn, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """RFC 4555 3.5: the addresses of the request are the ones from now on."""
    if turn.endpoints is None:
        raise Refused("unexpected_exchange")
    ike_sa.local, ike_sa.remote = turn.endpoints
    detect(turn, ike_sa, ike_sa.spi_r, contents)
    move(turn, ike_sa)
    # The hashes are under the SPIs of this IKE SA, seen from here.
    return notifies(turn, ike_sa, ike_sa.spi_r)


def move(turn: Turn, ike_sa: IkeSa) -> None:
    """Tell the SAD where the ends of every child are now."""
    for child in ike_sa.children.values():
        turn.effects.append(MoveChild(ike_sa.spi, installation(ike_sa, child)))
    turn.notice("ike_sa_moved", ike_sa)


def conclude(turn: Turn, ike_sa: IkeSa, pending: Pending, contents: Contents) -> None:
    """Take the response to what :func:`request` said."""
    kind, _, spi = pending.task
    if kind is TaskKind.DELETE_CHILD:
        child = ike_sa.children.get(spi)
        if child is not None:
            turn.remove_child(ike_sa, child)
    elif kind is TaskKind.DELETE:
        turn.close(ike_sa, "rekeyed" if ike_sa.successor else "deleted")
    elif kind is TaskKind.REJECT:
        turn.close(ike_sa, "authentication_failed")
    elif kind is TaskKind.SYNCHRONISE:
        found = contents.notify(Notification.IKEV2_MESSAGE_ID_SYNC)
        if found is None or len(found.data) != _SYNC_SIZE or found.data[:4] != pending.nonce:
            turn.counters["message_id_sync_refused"] += 1
            turn.notice("message_id_sync_refused", ike_sa)
            return
        _take_message_ids(ike_sa, found.data)
        turn.notice("message_ids_synchronised", ike_sa)
