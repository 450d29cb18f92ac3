"""What a home agent is told: validated, frozen, plain data.

Covered: the parameters of the cores, with the defaults of RFC 6275 13. Not covered: where they come from
(``config``), keys at rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .binding.messages import MobileNetworkPrefix
from .binding.registration import HomePrefix
from .ipsec.algorithms import Keys, Transform
from .ipsec.policy import Direction, Use
from .ipsec.replay import DEFAULT_WINDOW

__all__ = [
    "AssociationParameters",
    "AuthenticationParameters",
    "HomeAgentParameters",
    "HomePrefix",
    "MobileNodeParameters",
    "OtherHomeAgent",
]


@dataclass(frozen=True, slots=True)
class AssociationParameters:
    """One SA with manual keys (RFC 4301 4.5.1), seen from the side that owns these parameters."""

    spi: int
    direction: Direction
    use: Use
    transform: Transform
    keys: Keys
    esn: bool = False
    window: int = DEFAULT_WINDOW


@dataclass(frozen=True, slots=True)
class AuthenticationParameters:
    """A mobility security association of RFC 4285: a peer that signals without IPsec."""

    spi: int
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MobileNodeParameters:
    """One mobile node: its home address, its SAs, the prefixes it may bring as a mobile router."""

    home_address: bytes
    name: str
    associations: tuple[AssociationParameters, ...] = ()
    prefixes: tuple[MobileNetworkPrefix, ...] = ()
    authentication: AuthenticationParameters | None = None


@dataclass(frozen=True, slots=True)
class OtherHomeAgent:
    """A home agent to name in discovery replies (RFC 6275 10.5)."""

    address: bytes
    preference: int = 0


@dataclass(frozen=True, slots=True)
class HomeAgentParameters:
    """One home agent.

    Times are seconds. ``max_lifetime`` bounds what a binding is granted; ``refresh_advice`` and
    ``refresh_request`` are off at 0. ``sequence_floor`` is the highest outbound ESP sequence number
    that may have been used before this start; ``link_mtu`` the MTU of the link tunnels leave by.
    """

    address: bytes
    home_prefixes: tuple[HomePrefix, ...]
    mobile_nodes: tuple[MobileNodeParameters, ...] = ()
    virtual_home_link: bool = False
    duplicate_address_detection: bool = True
    max_lifetime: int = 3600
    max_bindings: int = 100_000
    refresh_advice: int = 0
    refresh_request: int = 0
    preference: int = 0
    home_agents: tuple[OtherHomeAgent, ...] = ()
    link_mtu: int = 1500
    sequence_floor: int = 0
