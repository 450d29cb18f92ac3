"""What every exchange that makes a CHILD_SA has in common (RFC 7296 1.2, 1.3.1, 2.9, 2.17).

Covered: which child of the parameters a peer's request is, what is offered for one of ours, narrowing on the
home addresses that an identity may use (RFC 4877 4), keys into the SAD. Not covered: the exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...wire import Malformed, Refused
from ..algorithms import Keys
from ..policy import Mode
from .contents import Contents
from .effects import ChildInstallation, InstallChild
from .keymat import child_keys
from .message import Payload
from .numbers import Notification, PayloadKind, Protocol
from .parameters import ChildPolicy, Peer
from .proposals import Kind, Offer, Proposal, accept, build_proposals, choose, offered, without_groups
from .sa import ChildSa, IkeSa
from .selectors import TrafficSelector, build_selectors, covers, narrow
from .transforms import ENCRYPTIONS, INTEGRITIES
from .turn import Rejection, Turn, notify

__all__ = [
    "Agreement",
    "Nonces",
    "agree",
    "answer_payloads",
    "concluded",
    "install",
    "installation",
    "offer_payloads",
]

_NO_HOME = b""


class Nonces(NamedTuple):
    """Nonces of the exchange that makes a child, and g^ir where it had a key exchange of its own."""

    initiator: bytes
    responder: bytes
    shared: bytes = b""


class Agreement(NamedTuple):
    """Which child, under which transforms, for which traffic of ours and of the peer's."""

    policy: ChildPolicy
    proposal: Proposal
    local: tuple[TrafficSelector, ...]
    remote: tuple[TrafficSelector, ...]
    home_address: bytes


def _sides(
    policy: ChildPolicy, home: bytes
) -> tuple[tuple[TrafficSelector, ...], tuple[TrafficSelector, ...]]:
    homes = (home,) if home else ()
    local = [selector for scope in policy.local for selector in scope.selectors(homes)]
    remote = [selector for scope in policy.remote for selector in scope.selectors(homes)]
    return tuple(local), tuple(remote)


def offer_payloads(
    policy: ChildPolicy, ike_sa: IkeSa, spi: int, *, groups: bool, home: bytes | None = None
) -> list[Payload]:
    """Notify, SA, TSi and TSr of a request for ``policy``; KE and nonce are the exchange's.

    ``ValueError`` where the child is on a home address and there is none.
    """
    if home is None:
        home = ike_sa.home_addresses[0] if ike_sa.home_addresses else _NO_HOME
    local, remote = _sides(policy, home)
    if not local or not remote:
        raise ValueError(f"{policy.name}: no home address")
    proposals = offered(policy.offers, Protocol.ESP, spi.to_bytes(4, "big"), groups=groups)
    found = [notify(Notification.USE_TRANSPORT_MODE)] if policy.mode is Mode.TRANSPORT else []
    return [
        *found,
        Payload(PayloadKind.SA, build_proposals(proposals)),
        Payload(PayloadKind.TS_INITIATOR, build_selectors(local)),
        Payload(PayloadKind.TS_RESPONDER, build_selectors(remote)),
    ]


def agree(
    peer: Peer, ike_sa: IkeSa, contents: Contents, *, groups: bool, name: str | None = None
) -> Agreement:
    """A responder's choice: the first child of the parameters that the request can be narrowed to.

    ``name``: only that one, as in a re-key. :class:`Rejection` ``ts_unacceptable``, ``no_proposal_chosen``.
    """
    if contents.sa is None or contents.ts_initiator is None or contents.ts_responder is None:
        raise Malformed("missing_payload")
    transport = contents.notify(Notification.USE_TRANSPORT_MODE) is not None
    proposals = contents.sa if groups else without_groups(contents.sa)
    proposals = tuple(each for each in proposals if each.protocol == Protocol.ESP and len(each.spi) == 4)
    group = contents.key.group if contents.key is not None else None
    # 1.3.1: transport mode is the initiator's wish, which may be answered with a tunnel.
    policies = [each for each in peer.children if transport or each.mode is Mode.TUNNEL]
    policies.sort(key=lambda each: (each.mode is Mode.TRANSPORT) is not transport)
    refusal = Notification.TS_UNACCEPTABLE
    for policy in policies:
        if name is not None and policy.name != name:
            continue
        for home in ike_sa.home_addresses or (_NO_HOME,):
            ours, theirs = _sides(policy, home)
            local, remote = narrow(contents.ts_responder, ours), narrow(contents.ts_initiator, theirs)
            if not local or not remote:
                continue
            offers = policy.offers if groups else [_without(each) for each in policy.offers]
            try:
                chosen = choose(offers, proposals, Protocol.ESP, group)
            except Refused:
                refusal = Notification.NO_PROPOSAL_CHOSEN
                continue
            return Agreement(policy, chosen, local, remote, _home_of(policy, home))
    raise Rejection(refusal)


def _without(offer: Offer) -> Offer:
    return Offer(tuple(each for each in offer.transforms if each.kind != Kind.GROUP))


def _home_of(policy: ChildPolicy, home: bytes) -> bytes:
    scopes = (*policy.local, *policy.remote)
    return home if any(each.first is None for each in scopes) else _NO_HOME


def answer_payloads(agreement: Agreement, spi: int) -> list[Payload]:
    """Notify, SA, TSi and TSr of a response."""
    chosen = agreement.proposal._replace(spi=spi.to_bytes(4, "big"))
    found = [notify(Notification.USE_TRANSPORT_MODE)] if agreement.policy.mode is Mode.TRANSPORT else []
    return [
        *found,
        Payload(PayloadKind.SA, build_proposals([chosen])),
        Payload(PayloadKind.TS_INITIATOR, build_selectors(agreement.remote)),
        Payload(PayloadKind.TS_RESPONDER, build_selectors(agreement.local)),
    ]


def concluded(
    policy: ChildPolicy, ike_sa: IkeSa, contents: Contents, *, groups: bool, home: bytes | None = None
) -> Agreement:
    """What a response to our request agreed on; :class:`Refused` where that is not within the request."""
    if contents.sa is None or contents.ts_initiator is None or contents.ts_responder is None:
        raise Refused("child_incomplete")
    if home is None:
        home = ike_sa.home_addresses[0] if ike_sa.home_addresses else _NO_HOME
    chosen = accept(offered(policy.offers, Protocol.ESP, b"", groups=groups), contents.sa)
    transport = contents.notify(Notification.USE_TRANSPORT_MODE) is not None
    if transport is not (policy.mode is Mode.TRANSPORT):
        raise Refused("child_mode")
    ours, theirs = _sides(policy, home)
    if not covers(ours, contents.ts_initiator) or not covers(theirs, contents.ts_responder):
        raise Refused("child_selectors")
    if len(chosen.spi) != 4 or int.from_bytes(chosen.spi, "big") < 256:
        raise Refused("child_spi")
    return Agreement(policy, chosen, contents.ts_initiator, contents.ts_responder, _home_of(policy, home))


def installation(ike_sa: IkeSa, child: ChildSa) -> ChildInstallation:
    """What the SAD needs to know of a child besides its keys."""
    encryption = ENCRYPTIONS[child.encryption]
    name = encryption.family
    if child.integrity:
        name = f"{name}+{INTEGRITIES[child.integrity].name}"
    return ChildInstallation(child, ike_sa.peer, name, ike_sa.local, ike_sa.remote, ike_sa.encapsulate)


def install(
    turn: Turn,
    ike_sa: IkeSa,
    agreement: Agreement,
    spi_in: int,
    nonces: Nonces,
    *,
    initiator: bool,
    replaces: int | None = None,
) -> ChildSa:
    """Make the child: its keys (2.17) go out as an effect and are not kept.

    ``initiator``: whether this exchange was ours.
    """
    policy, proposal, local, remote, home_address = agreement
    cipher = proposal.chosen(Kind.ENCRYPTION)
    integrity = proposal.chosen(Kind.INTEGRITY).id
    rekey_at, expires_at = turn.lifetime(turn.parameters.timing.child_lifetime)
    child = ChildSa(
        name=policy.name,
        use=policy.use,
        mode=policy.mode,
        spi_in=spi_in,
        spi_out=int.from_bytes(proposal.spi, "big"),
        encryption=(cipher.id, cipher.key_bits),
        integrity=integrity,
        group=proposal.chosen(Kind.GROUP).id,
        esn=bool(proposal.chosen(Kind.ESN).id),
        local=local,
        remote=remote,
        rekey_at=rekey_at,
        expires_at=expires_at,
        home_address=home_address,
    )
    keys = ike_sa.keys
    if keys is None:
        raise ValueError("an IKE SA without keys has no children")
    encryption_size = ENCRYPTIONS[child.encryption].key_size
    integrity_size = INTEGRITIES[integrity].key_size if integrity else 0
    encryption_i, integrity_i, encryption_r, integrity_r = child_keys(
        ike_sa.suite.prf,
        keys.d,
        nonces.initiator,
        nonces.responder,
        nonces.shared,
        encryption_size,
        integrity_size,
    )
    ours, theirs = Keys(encryption_i, integrity_i), Keys(encryption_r, integrity_r)
    if not initiator:
        ours, theirs = theirs, ours
    ike_sa.children[spi_in] = child
    turn.register.child_spis[spi_in] = ike_sa.spi
    made = installation(ike_sa, child)
    turn.effects.append(InstallChild(ike_sa.spi, made, theirs, ours, replaces, initiator))
    turn.notice(
        "child_installed",
        ike_sa,
        child=child.name,
        spi_in=f"0x{spi_in:08x}",
        spi_out=f"0x{child.spi_out:08x}",
    )
    return child


def spis(children: Sequence[ChildSa]) -> tuple[bytes, ...]:
    """What a Delete payload says of children: the SPIs that we receive with (1.4.1)."""
    return tuple(each.spi_in.to_bytes(4, "big") for each in children)
