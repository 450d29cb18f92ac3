"""CREATE_CHILD_SA that replaces the IKE SA itself, both roles (RFC 7296 1.3.2, 2.8.2, 2.18, 2.25.2).

Covered: the new IKE SA, the children's move to it, re-keys from both ends at once. Not covered: the old one's
deletion (``informational``).
"""

from __future__ import annotations

from ...wire import Malformed, Refused
from .contents import Contents
from .effects import Established
from .initial import NONCE_SIZE, agree, log_keys, take_suite
from .keymat import rekeyed_ike_keys
from .message import Payload
from .numbers import Notification, PayloadKind, Protocol
from .payloads import KeyPayload, build_key_payload
from .proposals import Kind, Proposal, accept, build_proposals, offered
from .sa import IkeSa, Pending, Rival, State, Task, TaskKind
from .transforms import GROUPS
from .turn import Rejection, Turn
from .window import much_later, postpone, queue

__all__ = ["answer", "conclude", "inherit", "request", "settle"]

_CHILD_TASKS = (TaskKind.CREATE_CHILD, TaskKind.REKEY_CHILD, TaskKind.DELETE_CHILD)


def request(turn: Turn, ike_sa: IkeSa, pending: Pending) -> list[Payload]:
    """SA, Ni, KEi."""
    pending.spi, pending.nonce = turn.new_spi(), turn.random(NONCE_SIZE)
    group = pending.group or ike_sa.group
    exchange = GROUPS[group].generate(turn.random)
    pending.group, pending.private = group, exchange.private
    sa = offered(turn.parameters.proposals, Protocol.IKE, pending.spi)
    return _payloads(sa, pending.nonce, KeyPayload(group, exchange.public))


def _payloads(sa: tuple[Proposal, ...], nonce: bytes, key: KeyPayload) -> list[Payload]:
    return [
        Payload(PayloadKind.SA, build_proposals(sa)),
        Payload(PayloadKind.NONCE, nonce),
        Payload(PayloadKind.KEY_EXCHANGE, build_key_payload(key)),
    ]


def _successor(
    turn: Turn, old: IkeSa, chosen: Proposal, spis: tuple[bytes, bytes], *, initiator: bool
) -> IkeSa:
    """An IKE SA that knows of the other end what the old one knows."""
    timing = turn.parameters.timing
    rekey_at, expires_at = turn.lifetime(timing.ike_lifetime)
    fresh = IkeSa(
        *spis,
        initiator,
        old.peer,
        State.ESTABLISHED,
        old.local,
        old.remote,
        identity=old.identity,
        peer_hashes=old.peer_hashes,
        fragments=old.fragments,
        message_id_sync=old.message_id_sync,
        mobike=old.mobike,
        nat_here=old.nat_here,
        nat_there=old.nat_there,
        encapsulate=old.encapsulate,
        home_addresses=old.home_addresses,
        rekey_at=rekey_at,
        expires_at=expires_at,
    )
    if timing.probe_interval is not None:
        fresh.probe_at = turn.now + timing.probe_interval
    take_suite(fresh, chosen)
    return fresh


def _derive(turn: Turn, old: IkeSa, fresh: IkeSa, nonces: tuple[bytes, bytes], shared: bytes) -> None:
    if old.keys is None:
        raise Refused("unexpected_exchange")
    fresh.keys = rekeyed_ike_keys(
        old.suite.prf, old.keys.d, fresh.suite, *nonces, shared, fresh.spi_i, fresh.spi_r
    )
    turn.register.add(fresh)
    log_keys(turn, fresh)


def inherit(turn: Turn, old: IkeSa, fresh: IkeSa) -> None:
    """The children, and what was to be done with them, are the new IKE SA's (1.3.2)."""
    fresh.predecessor = b""
    for spi, child in old.children.items():
        fresh.children[spi] = child
        turn.register.child_spis[spi] = fresh.spi
    old.children = {}
    moved = tuple(each for each in old.waiting if each.kind in _CHILD_TASKS)
    fresh.waiting, old.waiting = (*fresh.waiting, *moved), ()
    old.state, old.successor = State.REKEYED, fresh.spi
    old.rekey_at = old.probe_at = old.resume_at = float("inf")
    # Whoever is to delete it may be gone.
    old.expires_at = turn.now + 2 * turn.parameters.timing.linger
    turn.effects.append(Established(fresh, old.spi))
    turn.notice("ike_sa_rekeyed", fresh, replaces=old.spi.hex())
    turn.changed(fresh)


def answer(turn: Turn, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """Make another IKE SA in the place of this one."""
    pending = ike_sa.pending
    busy = pending is not None and pending.task.kind in (*_CHILD_TASKS, TaskKind.DELETE)
    if ike_sa.state is not State.ESTABLISHED or busy:
        raise Rejection(Notification.TEMPORARY_FAILURE)
    if contents.sa is None or contents.key is None or contents.nonce is None:
        raise Malformed("missing_payload")
    chosen, key, nonce, shared = agree(turn, contents.sa, contents.key)
    if len(chosen.spi) != 8 or not any(chosen.spi):
        raise Malformed("proposal_structure")
    fresh = _successor(turn, ike_sa, chosen, (chosen.spi, turn.new_spi()), initiator=False)
    _derive(turn, ike_sa, fresh, (contents.nonce, nonce), shared)
    if pending is not None and pending.task.kind is TaskKind.REKEY:
        # 2.8.2: both at once. Whose it will be is known when our response is here.
        pending.rival, fresh.predecessor = Rival(min(contents.nonce, nonce), fresh.spi), ike_sa.spi
        turn.changed(fresh)
    else:
        inherit(turn, ike_sa, fresh)
    return _payloads((chosen._replace(spi=fresh.spi_r),), nonce, key)


def conclude(turn: Turn, ike_sa: IkeSa, pending: Pending, contents: Contents) -> None:
    """Take the new IKE SA, or what was said against it."""
    error = contents.error
    if error is not None:
        turn.counters["rekey_refused"] += 1
        turn.notice("rekey_refused", ike_sa, error=error.kind)
        if ike_sa.state is not State.ESTABLISHED or pending.rival is not None:
            _yield_to(turn, ike_sa, pending)
        elif error.kind == Notification.INVALID_KE_PAYLOAD:
            _other_group(turn, ike_sa, pending, error.data)
        elif error.kind == Notification.TEMPORARY_FAILURE:
            postpone(turn, ike_sa, pending.task)
        else:
            ike_sa.rekey_at = much_later(turn, ike_sa.expires_at)
        return
    sa, key, nonce = contents.sa, contents.key, contents.nonce
    try:
        if sa is None or key is None or nonce is None:
            raise Refused("rekey_incomplete")
        chosen = accept(offered(turn.parameters.proposals, Protocol.IKE, b""), sa)
        if not chosen.chosen(Kind.GROUP).id == key.group == pending.group:
            raise Refused("key_group")
        if len(chosen.spi) != 8 or not any(chosen.spi):
            raise Refused("rekey_spi")
        shared = GROUPS[key.group].resume(pending.private).shared(key.data)
    except Refused as refused:
        # Under the protection of the old IKE SA somebody answers what we did not ask: nothing can be saved.
        turn.counters[refused.reason] += 1
        turn.close(ike_sa, refused.reason)
        return
    fresh = _successor(turn, ike_sa, chosen, (pending.spi, chosen.spi), initiator=True)
    _derive(turn, ike_sa, fresh, (pending.nonce, nonce), shared)
    rival = turn.register.ike_sas.get(pending.rival.spi) if pending.rival is not None else None
    settled = ike_sa.state is not State.ESTABLISHED
    if (
        pending.rival is not None
        and rival is not None
        and (settled or min(pending.nonce, nonce) < pending.rival.nonce)
    ):
        # Ours came from the lowest nonce (2.8.2): we delete it, and the peer deletes the old one.
        if not settled:
            inherit(turn, ike_sa, rival)
        fresh.state, fresh.successor = State.REKEYED, rival.spi
        fresh.rekey_at = fresh.probe_at = float("inf")
        queue(turn, fresh, Task(TaskKind.DELETE))
        turn.changed(fresh)
        return
    inherit(turn, ike_sa, fresh)
    if rival is not None:
        rival.state, rival.successor = State.REKEYED, fresh.spi
        rival.rekey_at = rival.probe_at = float("inf")
        rival.expires_at = turn.now + 2 * turn.parameters.timing.linger
        turn.changed(rival)
    queue(turn, ike_sa, Task(TaskKind.DELETE))


def settle(turn: Turn, fresh: IkeSa) -> None:
    """The peer uses its own re-key, so to the peer that is the one, whatever became of ours (2.8.2)."""
    old, fresh.predecessor = turn.register.ike_sas.get(fresh.predecessor), b""
    if old is not None and old.state is State.ESTABLISHED:
        inherit(turn, old, fresh)


def _yield_to(turn: Turn, ike_sa: IkeSa, pending: Pending) -> None:
    """Ours was refused, but the peer's own re-key came meanwhile: that is it."""
    rival = turn.register.ike_sas.get(pending.rival.spi) if pending.rival is not None else None
    if rival is not None and ike_sa.state is State.ESTABLISHED:
        inherit(turn, ike_sa, rival)


def _other_group(turn: Turn, ike_sa: IkeSa, pending: Pending, data: bytes) -> None:
    group = int.from_bytes(data, "big") if len(data) == 2 else 0
    ours = {
        each.id for offer in turn.parameters.proposals for each in offer.transforms if each.kind == Kind.GROUP
    }
    # Once: who wants another one again wants none.
    if group in ours and group != pending.group == ike_sa.group:
        ike_sa.wanted_group = group
        queue(turn, ike_sa, pending.task, first=True)
