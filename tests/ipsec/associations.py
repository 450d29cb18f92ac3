"""Pairs of security associations for tests, one for every transform."""

from __future__ import annotations

from typing import Any

from mip6ha.ipsec.algorithms import ENCRYPTION, INTEGRITY, Keys, Transform, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation

from ..octets import HOME_ADDRESS

TRANSFORMS = [
    *(transform(name) for name in ("aes-gcm-16", "chacha20-poly1305")),
    *(transform(name, integrity) for name in ("aes-cbc", "null") for integrity in INTEGRITY),
]
assert {chosen.name.split("+")[0] for chosen in TRANSFORMS} == set(ENCRYPTION)


def keys_for(chosen: Transform, size: int | None = None) -> Keys:
    """Distinct octets of the right length; ``size`` is one of the transform's key lengths."""
    length = chosen.encryption_lengths[-1] if size is None else size
    return Keys(bytes(range(1, length + 1)), bytes(range(0x40, 0x40 + chosen.integrity_length)))


def association(chosen: Transform, direction: Direction, **changes: Any) -> SecurityAssociation:
    """An SA with what every test would otherwise repeat."""
    settings: dict[str, Any] = {
        "spi": 0x2000,
        "use": Use.SIGNALLING,
        "home_address": HOME_ADDRESS,
        "keys": keys_for(chosen),
    }
    return SecurityAssociation(transform=chosen, direction=direction, **(settings | changes))


def pair(chosen: Transform, **changes: Any) -> tuple[SecurityAssociation, SecurityAssociation]:
    """The same SA seen from its sender and from its receiver."""
    return association(chosen, Direction.OUT, **changes), association(chosen, Direction.IN, **changes)
