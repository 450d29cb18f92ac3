"""IKE_SA_INIT, both roles (RFC 7296 1.2, 2.6, 2.7, 2.14).

Covered: proposals and key exchange, a cookie returned, another group where the responder wants one, what each
end announces (RFC 7383, 7427, 6023). Not covered: when a cookie is demanded (``endpoint``); a redirect (RFC
5685) is not followed.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes

from ...wire import Malformed, Refused
from .authentication import HASHES
from .certificates import X509_SIGNATURE
from .contents import Contents
from .effects import KeyLog
from .keylog import line
from .keymat import ike_keys
from .message import Header, Payload, build_clear
from .nat import detect, notifies
from .numbers import COOKIE_MAXIMUM, NATT_PORT, Exchange, Notification, PayloadKind, Protocol
from .parameters import Peer
from .payloads import Certificate, KeyPayload, build_certificate, build_key_payload
from .proposals import Kind, Proposal, accept, build_proposals, choose, offered
from .sa import Address, Handshake, IkeSa, Pending, State, Task, TaskKind
from .transforms import GROUPS
from .turn import Rejection, Turn, notify

__all__ = ["agree", "answer", "begin", "conclude", "log_keys", "request_digest", "take_suite"]

NONCE_SIZE = 32
_ZERO = bytes(8)
_MOST_ROUNDS = 5
"""Cookies and other groups, until an initiator takes the responder for a fool or a forger."""


def begin(turn: Turn, peer: Peer, local: Address) -> IkeSa:
    """Send the first request of a new IKE SA."""
    if peer.address is None:
        raise KeyError(peer.name)
    ike_sa = IkeSa(turn.new_spi(), _ZERO, True, peer.name, State.INITIATED, local, peer.address)
    group = next(
        each.id for offer in turn.parameters.proposals for each in offer.transforms if each.kind == Kind.GROUP
    )
    pending = Pending(
        Task(TaskKind.INITIATE), 0, (), 1, turn.now + turn.parameters.timing.retransmit, group=group
    )
    pending.nonce = turn.random(NONCE_SIZE)
    pending.private = GROUPS[group].generate(turn.random).private
    ike_sa.pending, ike_sa.handshake = pending, Handshake(b"")
    ike_sa.expires_at = turn.now + turn.parameters.timing.ike_lifetime
    turn.register.add(ike_sa)
    _send(turn, ike_sa, pending, ike_sa.handshake)
    return ike_sa


def _send(turn: Turn, ike_sa: IkeSa, pending: Pending, handshake: Handshake) -> None:
    header = Header(ike_sa.spi_i, _ZERO, Exchange.IKE_SA_INIT, True, False, 0)
    payloads = [notify(Notification.COOKIE, handshake.cookie)] if handshake.cookie else []
    public = GROUPS[pending.group].resume(pending.private).public
    sa = offered(turn.parameters.proposals, Protocol.IKE, b"")
    payloads += _offer(sa, KeyPayload(pending.group, public), pending.nonce)
    payloads += [*notifies(turn, ike_sa, _ZERO), *_announced(fragments=True)]
    handshake.request = build_clear(header, payloads)
    pending.datagrams = (handshake.request,)
    turn.changed(ike_sa)
    turn.send(ike_sa, pending.datagrams)


def _offer(sa: Sequence[Proposal], key: KeyPayload, nonce: bytes) -> list[Payload]:
    return [
        Payload(PayloadKind.SA, build_proposals(sa)),
        Payload(PayloadKind.KEY_EXCHANGE, build_key_payload(key)),
        Payload(PayloadKind.NONCE, nonce),
    ]


def _announced(*, fragments: bool) -> list[Payload]:
    hash_numbers = b"".join(each.to_bytes(2, "big") for each in sorted(HASHES))
    found = [notify(Notification.FRAGMENTATION_SUPPORTED)] if fragments else []
    return [*found, notify(Notification.SIGNATURE_HASH_ALGORITHMS, hash_numbers)]


def _take_announced(ike_sa: IkeSa, contents: Contents) -> None:
    ike_sa.fragments = contents.notify(Notification.FRAGMENTATION_SUPPORTED) is not None
    found = contents.notify(Notification.SIGNATURE_HASH_ALGORITHMS)
    data = found.data if found is not None else b""
    if len(data) % 2:
        raise Malformed("signature_hashes")
    ike_sa.peer_hashes = tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def take_suite(ike_sa: IkeSa, chosen: Proposal) -> None:
    """Note what was agreed on."""
    encryption = chosen.chosen(Kind.ENCRYPTION)
    ike_sa.encryption = (encryption.id, encryption.key_bits)
    ike_sa.integrity = chosen.chosen(Kind.INTEGRITY).id
    ike_sa.prf = chosen.chosen(Kind.PRF).id
    ike_sa.group = chosen.chosen(Kind.GROUP).id


def log_keys(turn: Turn, ike_sa: IkeSa) -> None:
    """Give the keys away where the parameters ask for that."""
    if turn.parameters.key_log and ike_sa.keys is not None:
        text = line(ike_sa.suite, ike_sa.keys, ike_sa.spi_i, ike_sa.spi_r)
        if text is not None:
            turn.effects.append(KeyLog(text))


def agree(
    turn: Turn, proposals: Sequence[Proposal], key: KeyPayload
) -> tuple[Proposal, KeyPayload, bytes, bytes]:
    """A responder's choice, KE payload, nonce and the shared secret.

    :class:`Rejection` ``no_proposal_chosen``, or ``invalid_ke_payload`` with the group that is wanted.
    """
    try:
        chosen = choose(turn.parameters.proposals, proposals, Protocol.IKE, key.group)
    except Refused:
        raise Rejection(Notification.NO_PROPOSAL_CHOSEN) from None
    group = chosen.chosen(Kind.GROUP).id
    if group != key.group:
        raise Rejection(Notification.INVALID_KE_PAYLOAD, group.to_bytes(2, "big"))
    exchange = GROUPS[group].generate(turn.random)
    try:
        shared = exchange.shared(key.data)
    except Refused:
        # RFC 7296 3.4: a value of the wrong length or outside the group is bad syntax, not another group.
        raise Rejection(Notification.INVALID_SYNTAX) from None
    return chosen, KeyPayload(group, exchange.public), turn.random(NONCE_SIZE), shared


def request_digest(datagram: bytes) -> bytes:
    """What tells one IKE_SA_INIT request from another (2.1)."""
    code = hashes.Hash(hashes.SHA256())
    code.update(datagram)
    return code.finalize()[:16]


def answer(turn: Turn, header: Header, contents: Contents, datagram: bytes) -> None:
    """Answer a new IKE_SA_INIT request: a half-open IKE SA, or an error in the clear."""
    sa, key, nonce = contents.sa, contents.key, contents.nonce
    if sa is None or key is None or nonce is None or turn.endpoints is None:
        raise Malformed("missing_payload")
    local, remote = turn.endpoints
    if any(each.spi for each in sa):
        raise Malformed("proposal_structure")
    ike_sa = IkeSa(header.spi_i, turn.new_spi(), False, "", State.HALF_OPEN, local, remote)
    _take_announced(ike_sa, contents)
    chosen, ours, nonce_r, shared = agree(turn, sa, key)
    take_suite(ike_sa, chosen)
    detect(turn, ike_sa, _ZERO, contents)
    ike_sa.keys = ike_keys(ike_sa.suite, nonce, nonce_r, shared, ike_sa.spi_i, ike_sa.spi_r)
    ike_sa.expected_id = 1
    ike_sa.expires_at = turn.now + turn.parameters.timing.half_open
    payloads = _offer([chosen], ours, nonce_r)
    payloads += [*notifies(turn, ike_sa, ike_sa.spi_r), *_announced(fragments=ike_sa.fragments)]
    payloads.append(notify(Notification.CHILDLESS_IKEV2_SUPPORTED))
    if turn.directory.authorities:
        # 1.2: here, for there is no other message of ours before the initiator's certificate.
        request = build_certificate(Certificate(X509_SIGNATURE, turn.directory.authorities))
        payloads.append(Payload(PayloadKind.CERTIFICATE_REQUEST, request))
    response = build_clear(header._replace(spi_r=ike_sa.spi_r, initiator=False, response=True), payloads)
    ike_sa.handshake = Handshake(datagram, response, nonce, nonce_r, digest=request_digest(datagram))
    ike_sa.last_response = (response,)
    turn.register.add(ike_sa)
    log_keys(turn, ike_sa)
    turn.changed(ike_sa)
    turn.answer(ike_sa, ike_sa.last_response)


def conclude(turn: Turn, ike_sa: IkeSa, header: Header, contents: Contents, datagram: bytes) -> bool:
    """Take the response to our request: whether IKE_AUTH may follow.

    Nothing here is authenticated: what cannot be is refused, and the request goes on being sent.
    """
    pending, handshake = ike_sa.pending, ike_sa.handshake
    if pending is None or handshake is None:
        raise Refused("unexpected_response")
    cookie = contents.notify(Notification.COOKIE)
    wanted = contents.notify(Notification.INVALID_KE_PAYLOAD)
    if cookie is not None or wanted is not None:
        _again(turn, ike_sa, pending, handshake, contents)
        return False
    if contents.error is not None:
        turn.close(ike_sa, _reason(contents.error.kind))
        return False
    sa, key, nonce = contents.sa, contents.key, contents.nonce
    if sa is None or key is None or nonce is None or header.spi_r == _ZERO:
        raise Malformed("missing_payload")
    chosen = accept(offered(turn.parameters.proposals, Protocol.IKE, b""), sa)
    if not chosen.chosen(Kind.GROUP).id == key.group == pending.group:
        raise Refused("key_group")
    shared = GROUPS[key.group].resume(pending.private).shared(key.data)
    _take_announced(ike_sa, contents)
    take_suite(ike_sa, chosen)
    ike_sa.spi_r = header.spi_r
    ike_sa.keys = ike_keys(ike_sa.suite, pending.nonce, nonce, shared, ike_sa.spi_i, ike_sa.spi_r)
    detect(turn, ike_sa, ike_sa.spi_r, contents)
    handshake.response, handshake.nonce_i, handshake.nonce_r = datagram, pending.nonce, nonce
    if ike_sa.encapsulate:
        # 2.23: from here on between the ports 4500, whatever is at the other end of the NAT.
        ike_sa.local, ike_sa.remote = (ike_sa.local[0], NATT_PORT), (ike_sa.remote[0], NATT_PORT)
    ike_sa.state, ike_sa.pending, ike_sa.next_id = State.HALF_OPEN, None, 1
    log_keys(turn, ike_sa)
    return True


def _again(turn: Turn, ike_sa: IkeSa, pending: Pending, handshake: Handshake, contents: Contents) -> None:
    """Ask once more, with the cookie (2.6) or the group (1.2) that the responder wants."""
    if handshake.rounds >= _MOST_ROUNDS:
        raise Refused("too_many_rounds")
    cookie = contents.notify(Notification.COOKIE)
    if cookie is not None:
        if not 1 <= len(cookie.data) <= COOKIE_MAXIMUM:
            raise Malformed("cookie_length")
        handshake.cookie = cookie.data
    wanted = contents.notify(Notification.INVALID_KE_PAYLOAD)
    if wanted is not None:
        group = int.from_bytes(wanted.data, "big") if len(wanted.data) == 2 else 0
        ours = {
            each.id
            for offer in turn.parameters.proposals
            for each in offer.transforms
            if each.kind == Kind.GROUP
        }
        if group not in ours or group == pending.group:
            raise Refused("group_not_offered")
        pending.group, pending.private = group, GROUPS[group].generate(turn.random).private
    handshake.rounds += 1
    pending.attempts = 1
    pending.retransmit_at = turn.now + turn.parameters.timing.retransmit
    _send(turn, ike_sa, pending, handshake)


def _reason(kind: int) -> str:
    try:
        return Notification(kind).name.lower()
    except ValueError:
        return f"error_{kind}"
