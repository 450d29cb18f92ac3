"""CREATE_CHILD_SA for children, both roles: new ones and re-keys (RFC 7296 1.3.1, 1.3.3, 2.8, 2.25.1).

Covered: with and without a key exchange of its own, re-keys from both ends at once, what is refused while
something else is under way. Not covered: re-keys of the IKE SA (``rekey``).
"""

from __future__ import annotations

from ...wire import Malformed, Refused
from .children import (
    Agreement,
    Nonces,
    agree,
    answer_payloads,
    concluded,
    install,
    offer_payloads,
)
from .contents import Contents
from .initial import NONCE_SIZE
from .message import Payload
from .numbers import Notification, PayloadKind, Protocol
from .parameters import ChildPolicy, Peer
from .payloads import KeyPayload, Notify, build_key_payload
from .proposals import Kind
from .sa import ChildSa, IkeSa, Pending, Rival, State, Task, TaskKind
from .transforms import GROUPS
from .turn import Rejection, Turn, notify
from .window import much_later, postpone, queue

__all__ = ["answer", "conclude", "request"]


def _policy(ike_sa: IkeSa, peer: Peer, task: Task) -> tuple[ChildPolicy | None, ChildSa | None]:
    if task.kind is TaskKind.CREATE_CHILD:
        return peer.child(task.child), None
    child = ike_sa.children.get(task.spi)
    if child is None or child.replaced:
        return None, child
    return peer.child(child.name), child


def _group(policy: ChildPolicy, wanted: int) -> int:
    """The group of the KE payload: the first that is offered, or the one that the responder asked for."""
    groups = [each.id for offer in policy.offers for each in offer.transforms if each.kind == Kind.GROUP]
    return wanted if wanted in groups else (groups[0] if groups else 0)


def request(turn: Turn, ike_sa: IkeSa, pending: Pending, peer: Peer) -> list[Payload] | None:
    """[REKEY_SA,] SA, Ni, [KEi,] TSi, TSr; ``None`` where there is nothing to do any more."""
    policy, old = _policy(ike_sa, peer, pending.task)
    if policy is None:
        return None
    spi = turn.new_child_spi()
    pending.spi, pending.nonce = spi.to_bytes(4, "big"), turn.random(NONCE_SIZE)
    pending.group = _group(policy, pending.group)
    try:
        payloads = offer_payloads(
            policy, ike_sa, spi, groups=True, home=old.home_address if old is not None else None
        )
    except ValueError:
        turn.notice("child_without_home_address", ike_sa, child=policy.name)
        return None
    payloads.insert(0, Payload(PayloadKind.NONCE, pending.nonce))
    if pending.group:
        exchange = GROUPS[pending.group].generate(turn.random)
        pending.private = exchange.private
        key = build_key_payload(KeyPayload(pending.group, exchange.public))
        payloads.insert(1, Payload(PayloadKind.KEY_EXCHANGE, key))
    if old is not None:
        payloads.insert(0, notify(Notification.REKEY_SA, spi=old.spi_in))
    return payloads


def _rekeyed_child(ike_sa: IkeSa, contents: Contents) -> ChildSa | None:
    """The child that a request is to replace; :class:`Rejection` where that cannot be (2.25.1)."""
    rekey = contents.notify(Notification.REKEY_SA)
    if rekey is None:
        return None
    if rekey.protocol != Protocol.ESP or len(rekey.spi) != 4:
        raise Malformed("notify_spi")
    spi = int.from_bytes(rekey.spi, "big")
    found = next((each for each in ike_sa.children.values() if each.spi_out == spi), None)
    pending = ike_sa.pending
    if found is None:
        if pending is not None and pending.task.kind in (TaskKind.CREATE_CHILD, TaskKind.REKEY_CHILD):
            # It may be the one that the response on its way to us has made.
            raise Rejection(Notification.TEMPORARY_FAILURE)
        raise Rejection(Notification.CHILD_SA_NOT_FOUND)
    deleting = pending is not None and pending.task == Task(TaskKind.DELETE_CHILD, spi=found.spi_in)
    if found.replaced or deleting:
        raise Rejection(Notification.TEMPORARY_FAILURE)
    return found


def answer(turn: Turn, ike_sa: IkeSa, contents: Contents, peer: Peer) -> list[Payload]:
    """Grant another child, or another in the place of one."""
    pending = ike_sa.pending
    if ike_sa.state is not State.ESTABLISHED or (
        pending is not None and pending.task.kind in (TaskKind.REKEY, TaskKind.DELETE)
    ):
        raise Rejection(Notification.TEMPORARY_FAILURE)
    if contents.nonce is None:
        raise Malformed("missing_payload")
    old = _rekeyed_child(ike_sa, contents)
    if old is None and len(ike_sa.children) >= turn.parameters.limits.children:
        raise Rejection(Notification.NO_ADDITIONAL_SAS)
    agreement = agree(peer, ike_sa, contents, groups=True, name=old.name if old is not None else None)
    public, shared = _responder_exchange(turn, agreement, contents)
    nonce, spi = turn.random(NONCE_SIZE), turn.new_child_spi()
    nonces = Nonces(contents.nonce, nonce, shared)
    child = install(
        turn,
        ike_sa,
        agreement,
        spi,
        nonces,
        initiator=False,
        replaces=old.spi_in if old is not None else None,
    )
    if old is not None:
        if pending is not None and pending.task == Task(TaskKind.REKEY_CHILD, spi=old.spi_in):
            # 2.8.1: both ends at once. Who is left with what is decided when our response is here.
            pending.rival = Rival(min(contents.nonce, nonce), child.spi_in.to_bytes(4, "big"))
        else:
            _replaced(ike_sa, old)
    payloads = answer_payloads(agreement, spi)
    payloads.insert(0, Payload(PayloadKind.NONCE, nonce))
    if public is not None:
        payloads.insert(1, Payload(PayloadKind.KEY_EXCHANGE, build_key_payload(public)))
    return payloads


def _responder_exchange(
    turn: Turn, agreement: Agreement, contents: Contents
) -> tuple[KeyPayload | None, bytes]:
    group = agreement.proposal.chosen(Kind.GROUP).id
    if not group:
        return None, b""
    if contents.key is None or contents.key.group != group:
        raise Rejection(Notification.INVALID_KE_PAYLOAD, group.to_bytes(2, "big"))
    exchange = GROUPS[group].generate(turn.random)
    try:
        shared = exchange.shared(contents.key.data)
    except Refused:
        raise Malformed("invalid_ke") from None
    return KeyPayload(group, exchange.public), shared


def _replaced(ike_sa: IkeSa, old: ChildSa) -> None:
    """It has a successor; whoever re-keyed it will delete it, and at its hard end it goes by itself."""
    old.replaced = True
    old.rekey_at = float("inf")
    ike_sa.waiting = tuple(each for each in ike_sa.waiting if each.spi != old.spi_in)


def conclude(turn: Turn, ike_sa: IkeSa, pending: Pending, contents: Contents, peer: Peer) -> None:
    """Take the child that was granted, or what was said against it."""
    policy, old = _policy(ike_sa, peer, pending.task)
    if contents.error is not None:
        _refused(turn, ike_sa, pending, contents.error, peer)
        return
    spi = int.from_bytes(pending.spi, "big")
    if policy is None and old is None:
        # What was to be replaced went away meanwhile, and so does what came in its place.
        queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=spi))
        return
    if policy is None and old is not None:
        policy = peer.child(old.name)
    try:
        if policy is None or contents.nonce is None:
            raise Refused("child_incomplete")
        home = old.home_address if old is not None else None
        agreement = concluded(policy, ike_sa, contents, groups=True, home=home)
        shared = _initiator_exchange(agreement, pending, contents)
    except Refused as refused:
        turn.counters[refused.reason] += 1
        turn.notice("child_refused", ike_sa, reason=refused.reason)
        queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=spi))
        return
    if int.from_bytes(agreement.proposal.spi, "big") in pending.gone:
        turn.counters["child_already_deleted"] += 1
        if old is not None:
            # To the peer the old one has been replaced, and what replaced it is not wanted any more.
            queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=old.spi_in))
        return
    child = install(
        turn,
        ike_sa,
        agreement,
        spi,
        Nonces(pending.nonce, contents.nonce, shared),
        initiator=True,
        replaces=old.spi_in if old is not None else None,
    )
    if old is None:
        return
    _replaced(ike_sa, old)
    redundant = old
    if pending.rival is not None:
        rival = ike_sa.children.get(int.from_bytes(pending.rival.spi, "big"))
        if rival is not None and min(pending.nonce, contents.nonce) < pending.rival.nonce:
            # 2.8.1: ours came from the lowest nonce: we delete it, and the peer deletes the old one.
            redundant = child
            child.replaced = True
        elif rival is not None:
            rival.replaced = True
            rival.rekey_at = float("inf")
    queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=redundant.spi_in), first=True)


def _initiator_exchange(agreement: Agreement, pending: Pending, contents: Contents) -> bytes:
    group = agreement.proposal.chosen(Kind.GROUP).id
    if not group:
        return b""
    if contents.key is None or not contents.key.group == group == pending.group:
        raise Refused("key_group")
    return GROUPS[group].resume(pending.private).shared(contents.key.data)


def _refused(turn: Turn, ike_sa: IkeSa, pending: Pending, error: Notify, peer: Peer) -> None:
    policy, old = _policy(ike_sa, peer, pending.task)
    turn.counters["child_refused"] += 1
    turn.notice("child_refused", ike_sa, task=pending.task.kind.value, error=error.kind)
    if error.kind == Notification.TEMPORARY_FAILURE:
        if old is None or not old.replaced:
            postpone(turn, ike_sa, pending.task)
    elif error.kind == Notification.CHILD_SA_NOT_FOUND and old is not None:
        # 2.25: the peer has it no more, so nor do we.
        turn.remove_child(ike_sa, old)
    elif error.kind == Notification.INVALID_KE_PAYLOAD and len(error.data) == 2:
        group = int.from_bytes(error.data, "big")
        # Once: who wants another one again wants none.
        first = policy is not None and pending.group == _group(policy, 0)
        if group != pending.group and policy is not None and first and _group(policy, group) == group:
            ike_sa.wanted_group = group
            queue(turn, ike_sa, pending.task, first=True)
    elif old is not None:
        old.rekey_at = much_later(turn, old.expires_at)
