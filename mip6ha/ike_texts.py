"""Words of a configuration of IKE: proposals, identities and traffic selectors as people write them.

Covered: their types for tables. Not covered: the tables (``ike_config``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Network
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from .ipsec.ike.identities import Identity
from .ipsec.ike.parameters import Scope
from .ipsec.ike.proposals import Kind, Offer, Transform, esp_offer, ike_offer
from .ipsec.ike.selectors import ICMPV6, MOBILITY
from .ipsec.ike.transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS
from .ipsec.policy import Use

__all__ = [
    "CHILD_ALLOWED",
    "CHILD_DEFAULT",
    "IDENTITY_ALLOWED",
    "IKE_ALLOWED",
    "IKE_DEFAULT",
    "MOBILE_NODE_USES",
    "SCOPE_ALLOWED",
    "ChildOffer",
    "IdentityText",
    "IkeOffer",
    "MobileNodeUse",
    "ScopeText",
    "UseName",
]

IDENTITY_ALLOWED = (
    "a domain name, name@domain, an IP address, a distinguished name such as CN=a,O=b, or keyid:HEXADECIMAL"
)

# Names of everything that a proposal may have. They differ, so that a name alone says what it is.
_IKE_NAMES: dict[str, Transform] = {
    **{each.name: Transform(Kind.ENCRYPTION, each.id, each.key_bits) for each in ENCRYPTIONS.values()},
    **{each.name: Transform(Kind.INTEGRITY, each.id) for each in INTEGRITIES.values()},
    **{each.name: Transform(Kind.PRF, each.id) for each in PRFS.values()},
    **{each.name: Transform(Kind.GROUP, each.id) for each in GROUPS.values()},
}
_CHILD_NAMES: dict[str, Transform] = {
    **{name: each for name, each in _IKE_NAMES.items() if each.kind != Kind.PRF},
    "no-group": Transform(Kind.GROUP, 0),
    "esn": Transform(Kind.ESN, 1),
    "no-esn": Transform(Kind.ESN, 0),
}
_IKE_LINES = [
    "aes-gcm-16-128 aes-gcm-16-256 chacha20-poly1305 prf-hmac-sha2-256 prf-hmac-sha2-384 prf-hmac-sha2-512 "
    "x25519 ecp-256 ecp-384 modp-2048",
    "aes-cbc-128 aes-cbc-256 hmac-sha2-256-128 hmac-sha2-384-192 hmac-sha2-512-256 prf-hmac-sha2-256 "
    "prf-hmac-sha2-384 prf-hmac-sha2-512 x25519 ecp-256 ecp-384 modp-2048",
]
_CHILD_LINES = [
    "aes-gcm-16-128 aes-gcm-16-256 chacha20-poly1305 no-group x25519 ecp-256 ecp-384 modp-2048 no-esn esn",
    "aes-cbc-128 aes-cbc-256 hmac-sha2-256-128 hmac-sha2-384-192 hmac-sha2-512-256 no-group x25519 ecp-256 "
    "ecp-384 modp-2048 no-esn esn",
]
IKE_ALLOWED = f"a list of names with spaces between, best first: {' '.join(_IKE_NAMES)}"
CHILD_ALLOWED = f"a list of names with spaces between, best first: {' '.join(_CHILD_NAMES)}"


def _refused(wrong: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{wrong}", {"wrong": wrong})


def _chosen(value: object, names: dict[str, Transform]) -> dict[Kind, list[Transform]]:
    """The transforms that a line of names says, by kind."""
    found: dict[Kind, list[Transform]] = {kind: [] for kind in Kind}
    for name in value.split() if isinstance(value, str) else ["?"]:
        transform = names.get(name)
        if transform is None:
            raise _refused("has an unknown name in it")
        if transform in found[Kind(transform.kind)]:
            raise _refused("names something twice")
        found[Kind(transform.kind)].append(transform)
    return found


def _ids(transforms: Iterable[Transform]) -> list[int]:
    return [each.id for each in transforms]


def _ciphers(transforms: Iterable[Transform]) -> list[tuple[int, int | None]]:
    return [(each.id, each.key_bits) for each in transforms]


def _ike_offer(value: object) -> Offer:
    found = _chosen(value, _IKE_NAMES)
    groups, integrity = _ids(found[Kind.GROUP]), _ids(found[Kind.INTEGRITY])
    try:
        return ike_offer(_ciphers(found[Kind.ENCRYPTION]), _ids(found[Kind.PRF]), groups, integrity)
    except ValueError as error:
        raise _refused(f"cannot be offered ({error})") from None


def _child_offer(value: object) -> Offer:
    found = _chosen(value, _CHILD_NAMES)
    groups, integrity = _ids(found[Kind.GROUP]), _ids(found[Kind.INTEGRITY])
    try:
        return esp_offer(_ciphers(found[Kind.ENCRYPTION]), integrity, groups, _ids(found[Kind.ESN]) or [0])
    except ValueError as error:
        raise _refused(f"cannot be offered ({error})") from None


def _identity(value: object) -> Identity:
    try:
        return Identity.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise _refused("is not an identity") from None


_SCOPE = re.compile(r"(?P<addresses>[^\[\]]+)(?:\[(?P<protocol>\d{1,3})(?:/(?P<kind>\d{1,3}))?\])?")
SCOPE_ALLOWED = (
    "a list of prefixes, or home-address, each with [PROTOCOL] or [PROTOCOL/TYPE] behind it unless it is for "
    "everything; types are those of protocols 135 and 58"
)


def _scope(value: object) -> Scope:
    match = _SCOPE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refused("is not a traffic selector")
    protocol = int(match["protocol"] or 0)
    kind = None if match["kind"] is None else int(match["kind"])
    if protocol > 255 or (kind is not None and (kind > 255 or protocol not in (MOBILITY, ICMPV6))):
        raise _refused("has no such protocol or type")
    if match["addresses"] == "home-address":
        return Scope(protocol, kind)
    try:
        network = IPv6Network(match["addresses"])
    except ValueError:
        raise _refused("is not a traffic selector") from None
    return Scope(protocol, kind, network[0].packed, network[-1].packed)


def _use(value: object) -> Use:
    try:
        return Use(str(value))
    except ValueError:
        raise _refused("is not one of the choices") from None


def _mobile_node_use(value: object) -> Use:
    use = _use(value)
    if use is Use.HARP:
        raise _refused("is not one of the choices")
    return use


MOBILE_NODE_USES = ", ".join(use for use in Use if use is not Use.HARP)


IkeOffer = Annotated[Offer, BeforeValidator(_ike_offer)]
ChildOffer = Annotated[Offer, BeforeValidator(_child_offer)]
IdentityText = Annotated[Identity, BeforeValidator(_identity)]
ScopeText = Annotated[Scope, BeforeValidator(_scope)]
MobileNodeUse = Annotated[Use, BeforeValidator(_mobile_node_use)]
UseName = Annotated[Use, BeforeValidator(_use)]
IKE_DEFAULT = [_ike_offer(each) for each in _IKE_LINES]
CHILD_DEFAULT = [_child_offer(each) for each in _CHILD_LINES]
