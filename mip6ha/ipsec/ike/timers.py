"""What an IKE SA does when its time has come (RFC 7296 2.4, 2.8).

Covered: its next deadline, retransmission, re-keys, hard ends, liveness. Not covered: the order of IKE SAs in
time (``endpoint``).
"""

from __future__ import annotations

from .sa import IkeSa, State, Task, TaskKind
from .turn import Turn
from .window import queue, retransmit

__all__ = ["deadline", "due"]

_NEVER = float("inf")


def deadline(ike_sa: IkeSa) -> float:
    """When :func:`due` has something to do."""
    first = min(ike_sa.expires_at, ike_sa.rekey_at, ike_sa.probe_at, ike_sa.resume_at)
    if ike_sa.pending is not None:
        first = min(first, ike_sa.pending.retransmit_at)
    for child in ike_sa.children.values():
        first = min(first, child.rekey_at, child.expires_at)
    return first


def due(turn: Turn, ike_sa: IkeSa) -> None:
    """Do all whose time has come."""
    now, interval = turn.now, turn.parameters.timing.probe_interval
    if ike_sa.expires_at <= now:
        if ike_sa.state is State.CLOSED:
            turn.register.forget(ike_sa)
        elif ike_sa.state is State.ESTABLISHED:
            # The peer is told, if it can be; what it says to that is not waited for very long.
            turn.counters["lifetime"] += 1
            ike_sa.state, ike_sa.waiting = State.REKEYED, ()
            ike_sa.rekey_at = ike_sa.probe_at = ike_sa.resume_at = _NEVER
            ike_sa.expires_at = now + 2 * turn.parameters.timing.linger
            queue(turn, ike_sa, Task(TaskKind.DELETE))
        else:
            ended = "rekeyed" if ike_sa.successor else "lifetime"
            reason = "half_open_expired" if ike_sa.state is State.HALF_OPEN else ended
            turn.counters[reason] += 1
            turn.close(ike_sa, reason)
        return
    if ike_sa.pending is not None and ike_sa.pending.retransmit_at <= now:
        retransmit(turn, ike_sa)
        if ike_sa.state is State.CLOSED:
            return
    if ike_sa.resume_at <= now:
        ike_sa.resume_at = _NEVER
    for child in ike_sa.children.values():
        if child.expires_at <= now:
            child.rekey_at = child.expires_at = _NEVER
            queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=child.spi_in))
        elif child.rekey_at <= now:
            child.rekey_at = _NEVER
            queue(turn, ike_sa, Task(TaskKind.REKEY_CHILD, spi=child.spi_in))
    if ike_sa.rekey_at <= now:
        ike_sa.rekey_at = _NEVER
        queue(turn, ike_sa, Task(TaskKind.REKEY))
    if ike_sa.probe_at <= now:
        ike_sa.probe_at = now + interval if interval is not None else _NEVER
        if ike_sa.pending is None and not ike_sa.waiting:
            queue(turn, ike_sa, Task(TaskKind.PROBE))
