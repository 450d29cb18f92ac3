"""IKE_AUTH, both roles (RFC 7296 1.2, 2.15, 2.21.2; RFC 4877 and 5026 for mobile nodes).

Covered: identities, pre-shared keys and signatures, the first child, home address assignment, initial
contact. Not covered: EAP, which is refused; multiple authentications.
"""

from __future__ import annotations

from ...wire import Malformed, Refused
from .authentication import HASHES, Method, check_psk, psk_auth, sign, signed_octets, verify
from .certificates import X509_SIGNATURE, certificate_chain
from .children import Nonces, agree, answer_payloads, concluded, install, offer_payloads
from .contents import Contents
from .effects import Established
from .identities import Identity
from .message import Payload
from .numbers import ConfigurationKind, MobileAttribute, Notification, PayloadKind
from .parameters import Peer
from .payloads import (
    Authentication,
    Certificate,
    Configuration,
    build_authentication,
    build_certificate,
    build_configuration,
    build_identification,
    home_prefix,
    internal_address,
    parse_identification,
)
from .sa import IkeSa, Pending, State, Task, TaskKind
from .turn import Rejection, Turn, notify
from .window import queue

__all__ = ["answer", "conclude", "request"]

_FOREVER = 0xFFFFFFFF
_FAILED = "authentication_failed"


def _octets(ike_sa: IkeSa, body: bytes, *, of_initiator: bool) -> bytes:
    handshake, keys = ike_sa.handshake, ike_sa.keys
    if handshake is None or keys is None:
        raise Refused("unexpected_exchange")
    prf = ike_sa.suite.prf
    if of_initiator:
        return signed_octets(handshake.request, handshake.nonce_r, prf, keys.pi, body)
    return signed_octets(handshake.response, handshake.nonce_i, prf, keys.pr, body)


def _prove(peer: Peer, ike_sa: IkeSa, body: bytes) -> list[Payload]:
    """Our CERT and AUTH."""
    octets = _octets(ike_sa, body, of_initiator=ike_sa.initiator)
    found = []
    if peer.psk is not None:
        data = Authentication(Method.SHARED_KEY, psk_auth(ike_sa.suite.prf, peer.psk, octets))
    elif peer.private_key is not None:
        data = Authentication(*sign(peer.private_key, octets, frozenset(ike_sa.peer_hashes)))
        found = [
            Payload(PayloadKind.CERTIFICATE, build_certificate(Certificate(X509_SIGNATURE, each)))
            for each in peer.chain
        ]
    else:
        raise ValueError(f"{peer.name}: no credentials")
    return [*found, Payload(PayloadKind.AUTHENTICATION, build_authentication(data))]


def _verify(turn: Turn, peer: Peer, ike_sa: IkeSa, body: bytes, contents: Contents) -> None:
    """The peer's AUTH; :class:`Refused` if it is not who it says, or not by the method that we demand."""
    authentication = contents.authentication
    if authentication is None:
        raise Refused("eap_refused")
    octets = _octets(ike_sa, body, of_initiator=not ike_sa.initiator)
    if peer.psk is not None:
        if authentication.method != Method.SHARED_KEY:
            raise Refused("authentication_method")
        check_psk(ike_sa.suite.prf, peer.psk, octets, authentication.data)
        return
    if peer.trust is None:
        raise Refused("authentication_failed")
    chain = certificate_chain(contents.certificates)
    key = peer.trust.verify(chain, Identity(*parse_identification(body)), turn.wall())
    verify(authentication.method, authentication.data, octets, key, HASHES)


def request(turn: Turn, ike_sa: IkeSa, pending: Pending, peer: Peer) -> list[Payload]:
    """IDi, what proves it, IDr, CP, and what the first child needs."""
    body = build_identification(*peer.local)
    ike_sa.home_addresses = peer.home_addresses
    payloads = [Payload(PayloadKind.ID_INITIATOR, body)]
    if peer.remote is not None:
        payloads.append(Payload(PayloadKind.ID_RESPONDER, build_identification(*peer.remote)))
        if peer.remote.normal() not in turn.register.by_identity:
            payloads.append(notify(Notification.INITIAL_CONTACT))
    if peer.psk is None and peer.trust is not None:
        authorities = Certificate(X509_SIGNATURE, peer.trust.key_hashes())
        payloads.append(Payload(PayloadKind.CERTIFICATE_REQUEST, build_certificate(authorities)))
    payloads += _prove(peer, ike_sa, body)
    if peer.request_address:
        attributes = ((MobileAttribute.INTERNAL_IP6_ADDRESS, b""), (MobileAttribute.MIP6_HOME_PREFIX, b""))
        cp = build_configuration(Configuration(ConfigurationKind.REQUEST, attributes))
        payloads.append(Payload(PayloadKind.CONFIGURATION, cp))
    # A child on a home address that is yet to be assigned comes with an exchange of its own.
    first = next((each for each in peer.children if each.start), None)
    if first is not None and not peer.request_address:
        spi = turn.new_child_spi()
        try:
            payloads += offer_payloads(first, ike_sa, spi, groups=False)
            pending.task = Task(TaskKind.AUTHENTICATE, first.name, spi)
        except ValueError:
            turn.notice("child_without_home_address", ike_sa, child=first.name)
    payloads.append(notify(Notification.IKEV2_MESSAGE_ID_SYNC_SUPPORTED))
    return payloads


def answer(turn: Turn, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """Check who it is and grant what it may have.

    :class:`Rejection` ``authentication_failed`` for all that is wrong with that: the counter knows more.
    """
    body = contents.id_initiator
    child = (contents.sa, contents.ts_initiator, contents.ts_responder)
    if body is None or (None in child and child != (None, None, None)):
        raise Malformed("missing_payload")
    if contents.configuration is not None:
        # Now, while nothing is done yet, it must be found out if this cannot be read.
        internal_address(contents.configuration)
    identity = parse_identification(body)
    peer = turn.directory.find(identity)
    try:
        if peer is None:
            raise Refused("unknown_identity")
        _verify(turn, peer, ike_sa, body, contents)
    except Refused as refused:
        if refused.reason != _FAILED:
            turn.counters[refused.reason] += 1
        turn.notice(_FAILED, ike_sa, reason=refused.reason, identity=str(Identity(*identity)))
        raise Rejection(Notification.AUTHENTICATION_FAILED) from None
    if turn.endpoints is not None:
        # 2.23: it may have gone to port 4500 with this request.
        ike_sa.local, ike_sa.remote = turn.endpoints
    our_body = build_identification(*peer.local)
    payloads = [Payload(PayloadKind.ID_RESPONDER, our_body), *_prove(peer, ike_sa, our_body)]
    if contents.notify(Notification.INITIAL_CONTACT) is not None:
        _first_contact(turn, ike_sa, identity)
    _establish(turn, ike_sa, peer, identity)
    _take_abilities(turn, ike_sa, contents)
    if ike_sa.message_id_sync:
        payloads.append(notify(Notification.IKEV2_MESSAGE_ID_SYNC_SUPPORTED))
    if ike_sa.mobike:
        payloads.append(notify(Notification.MOBIKE_SUPPORTED))
    ike_sa.home_addresses = peer.home_addresses
    try:
        payloads += _assign(peer, ike_sa, contents)
        payloads += _first_child(turn, ike_sa, peer, contents)
    except Rejection as rejection:
        # 1.2: the IKE SA stands without the child.
        turn.counters[rejection.reason] += 1
        payloads.append(rejection.payload)
    return payloads


def _take_abilities(turn: Turn, ike_sa: IkeSa, contents: Contents) -> None:
    ike_sa.message_id_sync = contents.notify(Notification.IKEV2_MESSAGE_ID_SYNC_SUPPORTED) is not None
    ike_sa.mobike = turn.parameters.mobike and contents.notify(Notification.MOBIKE_SUPPORTED) is not None


def _assign(peer: Peer, ike_sa: IkeSa, contents: Contents) -> list[Payload]:
    """RFC 5026 4.2: a home address for who asks for one, out of those that its identity may have."""
    wish = contents.configuration
    if wish is None or wish.kind != ConfigurationKind.REQUEST:
        return []
    wanted = internal_address(wish)
    if wanted is None:
        return []
    if not peer.assign or not peer.home_addresses:
        raise Rejection(Notification.INTERNAL_ADDRESS_FAILURE)
    home = wanted[0] if wanted[0] in peer.home_addresses else peer.home_addresses[0]
    ike_sa.home_addresses = (home,)
    length = peer.home_prefix_length
    attributes = [(int(MobileAttribute.INTERNAL_IP6_ADDRESS), home + bytes((length,)))]
    if wish.first(MobileAttribute.MIP6_HOME_PREFIX) is not None:
        mask = (1 << 128) - (1 << 128 - length)
        prefix = (int.from_bytes(home, "big") & mask).to_bytes(16, "big")
        attributes.append((MobileAttribute.MIP6_HOME_PREFIX, home_prefix(_FOREVER, prefix, length)))
    reply = Configuration(ConfigurationKind.REPLY, tuple(attributes))
    return [Payload(PayloadKind.CONFIGURATION, build_configuration(reply))]


def _first_child(turn: Turn, ike_sa: IkeSa, peer: Peer, contents: Contents) -> list[Payload]:
    if contents.sa is None:
        # RFC 6023: no child was asked for.
        return []
    handshake = ike_sa.handshake
    if handshake is None:
        raise Refused("unexpected_exchange")
    agreement = agree(peer, ike_sa, contents, groups=False)
    spi = turn.new_child_spi()
    nonces = Nonces(handshake.nonce_i, handshake.nonce_r)
    install(turn, ike_sa, agreement, spi, nonces, initiator=False)
    return answer_payloads(agreement, spi)


def _first_contact(turn: Turn, ike_sa: IkeSa, identity: tuple[int, bytes]) -> None:
    """2.4: what the peer had with us before is gone on its side."""
    for spi in sorted(turn.register.by_identity.get(Identity(*identity).normal(), ())):
        other = turn.register.ike_sas.get(spi)
        if other is not None and other is not ike_sa:
            turn.close(other, "initial_contact")


def _establish(turn: Turn, ike_sa: IkeSa, peer: Peer, identity: tuple[int, bytes]) -> None:
    timing = turn.parameters.timing
    ike_sa.peer, ike_sa.identity, ike_sa.state = peer.name, identity, State.ESTABLISHED
    ike_sa.rekey_at, ike_sa.expires_at = turn.lifetime(timing.ike_lifetime)
    if timing.probe_interval is not None:
        ike_sa.probe_at = turn.now + timing.probe_interval
    turn.register.authenticated(ike_sa)
    turn.effects.append(Established(ike_sa))
    turn.notice("ike_sa_established", ike_sa, identity=str(Identity(*identity)), initiator=ike_sa.initiator)


def conclude(turn: Turn, ike_sa: IkeSa, pending: Pending, contents: Contents, peer: Peer) -> None:
    """Check who answered, and take what it granted."""
    body, error = contents.id_responder, contents.error
    if body is None or contents.authentication is None:
        reason = "authentication_failed" if error is None else f"refused_{error.kind}"
        turn.counters["authentication_refused"] += 1
        turn.close(ike_sa, reason)
        return
    identity = parse_identification(body)
    try:
        if peer.remote is not None and not peer.remote.same(Identity(*identity)):
            raise Refused("unexpected_identity")
        _verify(turn, peer, ike_sa, body, contents)
    except Refused as refused:
        turn.counters[refused.reason] += 1
        turn.notice("authentication_failed", ike_sa, reason=refused.reason, identity=str(Identity(*identity)))
        # 2.21.2: the responder believes that all is well; it is told otherwise.
        ike_sa.state = State.REFUSED
        queue(turn, ike_sa, Task(TaskKind.REJECT))
        return
    _establish(turn, ike_sa, peer, identity)
    _take_abilities(turn, ike_sa, contents)
    handshake, ike_sa.handshake = ike_sa.handshake, None
    if contents.configuration is not None and peer.request_address:
        assigned = internal_address(contents.configuration)
        if assigned is not None and any(assigned[0]):
            ike_sa.home_addresses = (assigned[0],)
    spi, first = pending.task.spi, peer.child(pending.task.child)
    if first is not None and handshake is not None:
        if error is not None:
            turn.notice("child_refused", ike_sa, child=first.name, error=error.kind)
        else:
            try:
                agreement = concluded(first, ike_sa, contents, groups=False)
            except Refused as refused:
                turn.counters[refused.reason] += 1
                queue(turn, ike_sa, Task(TaskKind.DELETE_CHILD, spi=spi))
            else:
                nonces = Nonces(handshake.nonce_i, handshake.nonce_r)
                install(turn, ike_sa, agreement, spi, nonces, initiator=True)
    for policy in peer.children:
        if policy.start and policy is not first:
            queue(turn, ike_sa, Task(TaskKind.CREATE_CHILD, policy.name))
