"""The SA payload and what two ends agree on (RFC 7296 2.7, 3.3).

Covered: the codec, the choice of a responder, what an initiator takes for an answer. Policy is data: a tuple
of offers in order of preference, each a tuple of transforms in order of preference. Not covered: what a
transform computes (``transforms``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from ...wire import Malformed, Reader, Refused
from .numbers import Protocol

__all__ = [
    "Kind",
    "Offer",
    "Proposal",
    "Transform",
    "accept",
    "build_proposals",
    "choose",
    "esp_offer",
    "ike_offer",
    "offered",
    "parse_proposals",
    "without_groups",
]

_KEY_LENGTH = 14
_FIXED = 0x8000
_AEADS = frozenset({18, 19, 20, 28})
# Nothing honest comes near; a datagram of 64 KiB made of empty proposals would.
_MOST_PROPOSALS = 64


class Kind(IntEnum):
    """Transform types (3.3.2)."""

    ENCRYPTION = 1
    PRF = 2
    INTEGRITY = 3
    GROUP = 4
    ESN = 5


class Transform(NamedTuple):
    """One transform. ``understood`` is false where an attribute is unknown: never chosen then (3.3.6)."""

    kind: int
    id: int
    key_bits: int | None = None
    understood: bool = True


class Proposal(NamedTuple):
    """One proposal; ``number`` counts from 1, ``spi`` is empty in IKE_SA_INIT."""

    number: int
    protocol: int
    spi: bytes
    transforms: tuple[Transform, ...]

    def chosen(self, kind: Kind) -> Transform:
        """The transform of a kind in a proposal that was agreed on; NONE (0) where there is none."""
        return next((each for each in self.transforms if each.kind == kind), Transform(kind, 0))


class Offer(NamedTuple):
    """What one proposal of ours allows, best first within each kind. No group: none is wanted."""

    transforms: tuple[Transform, ...]


def ike_offer(
    encryption: Iterable[tuple[int, int | None]],
    prf: Iterable[int],
    group: Iterable[int],
    integrity: Iterable[int] = (),
) -> Offer:
    """An offer for an IKE SA; ``ValueError`` where AEADs and other ciphers are mixed (3.3)."""
    prfs = tuple(Transform(Kind.PRF, number) for number in prf)
    groups = tuple(Transform(Kind.GROUP, number) for number in group)
    if not prfs or not groups or any(each.id == 0 for each in groups):
        raise ValueError("an IKE SA needs a PRF and a group")
    return Offer((*_ciphers(encryption, integrity), *prfs, *groups))


def esp_offer(
    encryption: Iterable[tuple[int, int | None]],
    integrity: Iterable[int] = (),
    group: Iterable[int] = (),
    esn: Iterable[int] = (0,),
) -> Offer:
    """An offer for a CHILD_SA. Group 0 beside others: with or without a key exchange of its own."""
    numbers = tuple(Transform(Kind.ESN, number) for number in esn)
    if not numbers:
        raise ValueError("a CHILD_SA has extended sequence numbers or not: one of both must be offered")
    return Offer(
        (*_ciphers(encryption, integrity), *(Transform(Kind.GROUP, number) for number in group), *numbers),
    )


def _ciphers(encryption: Iterable[tuple[int, int | None]], integrity: Iterable[int]) -> tuple[Transform, ...]:
    ciphers = tuple(Transform(Kind.ENCRYPTION, number, bits) for number, bits in encryption)
    codes = tuple(Transform(Kind.INTEGRITY, number) for number in integrity)
    aead = {each.id in _AEADS for each in ciphers}
    if len(aead) != 1 or aead == {bool(codes)}:
        raise ValueError("an offer has AEADs alone, or other ciphers with integrity algorithms")
    return ciphers + codes


def offered(
    offers: Sequence[Offer], protocol: Protocol, spi: bytes, *, groups: bool = True
) -> tuple[Proposal, ...]:
    """The proposals that say ``offers``. Without ``groups`` as in IKE_AUTH, where there is no KE (1.2)."""
    return tuple(
        Proposal(
            number,
            protocol,
            spi,
            tuple(each for each in offer.transforms if groups or each.kind != Kind.GROUP),
        )
        for number, offer in enumerate(offers, 1)
    )


def without_groups(proposals: Iterable[Proposal]) -> tuple[Proposal, ...]:
    """``proposals`` as if they spoke of no group: IKE_AUTH has no KE payload to go with one (1.2)."""
    return tuple(
        each._replace(transforms=tuple(one for one in each.transforms if one.kind != Kind.GROUP))
        for each in proposals
    )


def choose(
    offers: Sequence[Offer], proposals: Sequence[Proposal], protocol: Protocol, group: int | None = None
) -> Proposal:
    """The answer to a peer's proposals: our first preference that it offers.

    Of several groups that both allow, ``group`` (of the peer's KE payload) is taken, which saves a round
    trip. :class:`Refused` ``no_proposal_chosen``.
    """
    for offer in offers:
        for proposal in proposals:
            if proposal.protocol == protocol:
                chosen = _match(offer.transforms, proposal.transforms, group)
                if chosen is not None:
                    return proposal._replace(transforms=chosen)
    raise Refused("no_proposal_chosen")


_KNOWN = frozenset(Kind)
# Absent, these mean NONE, "no group" and "32-bit sequence numbers" (3.3.3).
_OPTIONAL = frozenset({Kind.INTEGRITY, Kind.GROUP, Kind.ESN})


def _match(
    ours: tuple[Transform, ...], theirs: tuple[Transform, ...], group: int | None
) -> tuple[Transform, ...] | None:
    said = {each.kind for each in theirs}
    if not said <= _KNOWN:
        return None
    chosen = []
    for kind in Kind:
        mine = [each for each in ours if each.kind == kind]
        if kind in _OPTIONAL:
            mine = mine or [Transform(kind, 0)]
            both = [each for each in mine if each in theirs or (kind not in said and each.id == 0)]
        else:
            if not mine and kind not in said:
                continue
            both = [each for each in mine if each in theirs]
        if not both:
            return None
        best = both[0]
        if kind == Kind.GROUP and group is not None:
            best = next((each for each in both if each.id == group), best)
        if kind in said:
            chosen.append(best)
    return tuple(chosen)


def accept(sent: Sequence[Proposal], answer: Sequence[Proposal]) -> Proposal:
    """The proposal that a responder chose; :class:`Refused` ``proposal_not_offered`` if it is none of ours.

    Exactly one, with one transform of each type of what was offered under its number (2.7): anything
    else is an attempt to talk us into what we did not offer.
    """
    if len(answer) != 1:
        raise Refused("proposal_not_offered")
    [chosen] = answer
    for proposal in sent:
        if proposal.number == chosen.number and proposal.protocol == chosen.protocol:
            kinds = [each.kind for each in chosen.transforms]
            optional = {each.kind for each in proposal.transforms if each.id == 0}
            if (
                len(set(kinds)) == len(kinds)
                and set(chosen.transforms) <= set(proposal.transforms)
                and {each.kind for each in proposal.transforms} - optional <= set(kinds)
            ):
                return chosen
    raise Refused("proposal_not_offered")


def parse_proposals(body: bytes) -> tuple[Proposal, ...]:
    """The proposals of an SA payload's body."""
    reader, more = Reader(body), True
    found: list[Proposal] = []
    while more:
        start = reader.offset
        last, _, length = reader.u8(), reader.u8(), reader.u16()
        if last not in (0, 2) or length < 8 or len(found) == _MOST_PROPOSALS:
            raise Malformed("proposal_structure", start)
        more = last == 2
        inner = Reader(body, start + 4, start + length)
        if start + length > len(body):
            raise Malformed("truncated", start)
        number, protocol, size, count = inner.u8(), inner.u8(), inner.u8(), inner.u8()
        spi = inner.take(size)
        transforms = tuple(_parse_transform(body, inner, last=left == 1) for left in range(count, 0, -1))
        if inner.remaining or not number:
            raise Malformed("proposal_structure", start)
        found.append(Proposal(number, protocol, spi, transforms))
        reader.offset = start + length
    if reader.remaining:
        raise Malformed("proposal_structure", reader.offset)
    return tuple(found)


def _parse_transform(body: bytes, reader: Reader, *, last: bool) -> Transform:
    start = reader.offset
    more, _, length = reader.u8(), reader.u8(), reader.u16()
    if more != (0 if last else 3) or length < 8 or length - 4 > reader.remaining:
        raise Malformed("transform_structure", start)
    kind, _, name = reader.u8(), reader.u8(), reader.u16()
    if length == 8:
        return Transform(kind, name)
    attributes = Reader(body, reader.offset, start + length)
    key_bits, understood = None, True
    while attributes.remaining:
        at = attributes.offset
        attribute, value = attributes.u16(), attributes.u16()
        if attribute == _FIXED | _KEY_LENGTH and key_bits is None:
            key_bits = value
            continue
        if attribute & 0x7FFF == _KEY_LENGTH:
            raise Malformed("transform_attribute", at)
        understood = False
        if not attribute & _FIXED:
            attributes.take(value)
    reader.offset = start + length
    return Transform(kind, name, key_bits, understood)


def build_proposals(proposals: Sequence[Proposal]) -> bytes:
    """The body of an SA payload."""
    parts = []
    for number, proposal in enumerate(proposals, 1):
        transforms = b"".join(
            _build_transform(each, last=left == 1)
            for left, each in zip(range(len(proposal.transforms), 0, -1), proposal.transforms, strict=True)
        )
        parts.append(
            bytes((0 if number == len(proposals) else 2, 0))
            + (8 + len(proposal.spi) + len(transforms)).to_bytes(2, "big")
            + bytes((proposal.number, proposal.protocol, len(proposal.spi), len(proposal.transforms)))
            + proposal.spi
            + transforms
        )
    return b"".join(parts)


def _build_transform(transform: Transform, *, last: bool) -> bytes:
    kind, name, key_bits, _ = transform
    attribute = b""
    if key_bits is not None:
        attribute = (_FIXED | _KEY_LENGTH).to_bytes(2, "big") + key_bits.to_bytes(2, "big")
    return (
        bytes((0 if last else 3, 0))
        + (8 + len(attribute)).to_bytes(2, "big")
        + bytes((kind, 0))
        + name.to_bytes(2, "big")
        + attribute
    )
