"""Our requests: one at a time, sent again until there is a response (RFC 7296 2.1 to 2.4, window of 1).

Covered: message ids that are never used twice, retransmission with back-off, what waits for its turn. Not
covered: what a request says (the exchanges).
"""

from __future__ import annotations

from collections.abc import Sequence

from .message import Header, Payload
from .numbers import Exchange
from .sa import IkeSa, Pending, State, Task, TaskKind
from .turn import Turn

__all__ = [
    "EXCHANGES",
    "exhausted",
    "idle",
    "much_later",
    "new_pending",
    "postpone",
    "queue",
    "retransmit",
    "send_request",
]

EXCHANGES: dict[TaskKind, Exchange] = {
    TaskKind.INITIATE: Exchange.IKE_SA_INIT,
    TaskKind.AUTHENTICATE: Exchange.IKE_AUTH,
    TaskKind.CREATE_CHILD: Exchange.CREATE_CHILD_SA,
    TaskKind.REKEY_CHILD: Exchange.CREATE_CHILD_SA,
    TaskKind.REKEY: Exchange.CREATE_CHILD_SA,
    TaskKind.DELETE_CHILD: Exchange.INFORMATIONAL,
    TaskKind.DELETE: Exchange.INFORMATIONAL,
    TaskKind.PROBE: Exchange.INFORMATIONAL,
    TaskKind.SYNCHRONISE: Exchange.INFORMATIONAL,
    TaskKind.REJECT: Exchange.INFORMATIONAL,
}
_LAST_ID = 0xFFFFFFFF


def queue(turn: Turn, ike_sa: IkeSa, task: Task, *, first: bool = False) -> None:
    """Have an exchange begin as soon as no other is under way; the same one is not asked for twice."""
    under_way = ike_sa.pending is not None and ike_sa.pending.task == task
    if not under_way and task not in ike_sa.waiting:
        ike_sa.waiting = (task, *ike_sa.waiting) if first else (*ike_sa.waiting, task)
        turn.register.touched.add(ike_sa.spi)


def postpone(turn: Turn, ike_sa: IkeSa, task: Task) -> None:
    """Try again a little later: the peer is in the middle of something that this would cross (2.25)."""
    timing = turn.parameters.timing
    queue(turn, ike_sa, task, first=True)
    ike_sa.resume_at = turn.now + timing.retry * (1.0 + turn.fraction())


def much_later(turn: Turn, expires_at: float) -> float:
    """When a re-key that was refused for good is tried once more: at a quarter of the time that is left."""
    return turn.now + max(turn.parameters.timing.retry, (expires_at - turn.now) / 4)


def send_request(turn: Turn, ike_sa: IkeSa, pending: Pending, payloads: Sequence[Payload]) -> None:
    """Seal the request of ``pending`` under the next message id, which is spent, and send it.

    Only the question what the ids are has the id 0 for ever (RFC 6311 5.1).
    """
    if pending.task.kind is not TaskKind.SYNCHRONISE:
        pending.message_id = ike_sa.next_id
        ike_sa.next_id += 1
    exchange = EXCHANGES[pending.task.kind]
    header = Header(ike_sa.spi_i, ike_sa.spi_r, exchange, ike_sa.initiator, False, pending.message_id)
    pending.datagrams = turn.seal(ike_sa, header, payloads)
    ike_sa.pending = pending
    turn.changed(ike_sa)
    turn.send(ike_sa, pending.datagrams)


def new_pending(turn: Turn, ike_sa: IkeSa, task: Task) -> Pending:
    """What is to become our request; it has no message id yet."""
    group, ike_sa.wanted_group = ike_sa.wanted_group, 0
    return Pending(task, 0, (), 1, turn.now + turn.parameters.timing.retransmit, group=group)


def exhausted(ike_sa: IkeSa) -> bool:
    """No message id is left (2.2): the IKE SA must end."""
    return ike_sa.next_id > _LAST_ID


def retransmit(turn: Turn, ike_sa: IkeSa) -> None:
    """Send the request again, octet for octet, or give the peer up."""
    pending, timing = ike_sa.pending, turn.parameters.timing
    if pending is None:
        return
    if pending.attempts >= timing.attempts:
        turn.counters["peer_unreachable"] += 1
        turn.close(ike_sa, "peer_unreachable")
        return
    delay = timing.retransmit * timing.backoff**pending.attempts
    pending.attempts += 1
    pending.retransmit_at = turn.now + delay * (1.0 + 0.1 * turn.fraction())
    turn.counters["request_retransmitted"] += 1
    turn.register.touched.add(ike_sa.spi)
    turn.send(ike_sa, pending.datagrams)


def idle(turn: Turn, ike_sa: IkeSa) -> bool:
    """Whether the next exchange may begin now."""
    return (
        ike_sa.pending is None
        and bool(ike_sa.waiting)
        and ike_sa.state in (State.ESTABLISHED, State.REKEYED, State.REFUSED)
        and (ike_sa.resume_at <= turn.now or ike_sa.resume_at == float("inf"))
    )
