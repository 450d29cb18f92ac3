"""What a home agent is told: validated, frozen, plain data.

Covered: the parameters of the cores, with the defaults of RFC 6275 13. Not covered: where they come from
(``config``), keys at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .binding.messages import MobileNetworkPrefix
from .binding.registration import HomePrefix
from .harp.numbers import DEFAULT as NUMBERS
from .harp.numbers import Numbers
from .ipsec.algorithms import Keys, Transform
from .ipsec.ike.parameters import Parameters as IkeParameters
from .ipsec.policy import Direction, Use
from .ipsec.replay import DEFAULT_WINDOW

__all__ = [
    "AssociationParameters",
    "AuthenticationParameters",
    "GroupParameters",
    "HomeAgentParameters",
    "HomePrefix",
    "MobileNodeParameters",
    "OtherHomeAgent",
    "PeerParameters",
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
    """One mobile node: its home address, its SAs, the prefixes it may bring as a mobile router.

    One that is ``suspended`` is told that it is administratively prohibited. ``negotiated`` is what it has to
    protect with SAs that come from IKE: without them it is not served. A ``client`` knows nothing of Mobile
    IPv6: the tunnel that it negotiates takes the place of a registration.
    """

    home_address: bytes
    name: str
    associations: tuple[AssociationParameters, ...] = ()
    prefixes: tuple[MobileNetworkPrefix, ...] = ()
    authentication: AuthenticationParameters | None = None
    suspended: bool = False
    negotiated: tuple[Use, ...] = ()
    client: bool = False


@dataclass(frozen=True, slots=True)
class OtherHomeAgent:
    """A home agent to name in discovery replies (RFC 6275 10.5)."""

    address: bytes
    preference: int = 0


@dataclass(frozen=True, slots=True)
class PeerParameters:
    """Another member of a redundant set, and the SAs with it: none where they are negotiated."""

    identity: int
    address: bytes
    associations: tuple[AssociationParameters, ...] = ()

    @property
    def name(self) -> str:
        """What it is called among the peers of IKE."""
        return f"member {self.identity}"


@dataclass(frozen=True, slots=True)
class GroupParameters:
    """A member of a redundant home agent set: itself and its peers. Times are seconds.

    ``identity`` is 1 to 255 and unique in the set. A member has failed after ``failure_factor`` of its
    hello intervals in silence. ``start_wait`` is how long a starting member listens before it serves
    alone. ``synchronous``: an acknowledgement to a mobile node waits for the standbys. ``preempt``: become
    active when preferred, after ``hold_down``. ``arbiter``: terms are taken from one. Without
    ``extensions`` only what the draft has is sent. ``ike`` is for SAs with peers that have none with manual
    keys; its peers bear their names.
    """

    group: int
    identity: int
    address: bytes
    peers: tuple[PeerParameters, ...]
    preference: int = 0
    hello_interval: float = 0.1
    failure_factor: float = 3.0
    start_wait: float = 1.0
    synchronous: bool = True
    preempt: bool = False
    hold_down: float = 1.0
    retransmission: float = 0.02
    announcements_per_second: int = 1000
    arbiter: bool = False
    extensions: bool = True
    numbers: Numbers = NUMBERS
    ike: IkeParameters | None = None


def _long_ago() -> datetime:
    # No certificate is valid to who was told no date.
    return datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HomeAgentParameters:
    """One home agent.

    Times are seconds. ``max_lifetime`` bounds what a binding is granted; ``refresh_advice`` and
    ``refresh_request`` are off at 0. ``sequence_floor`` is the highest outbound ESP sequence number
    that may have been used before this start; ``link_mtu`` the MTU of the link tunnels leave by. ``ike`` are
    those of the IKE endpoint, if there is one: its peers are the mobile nodes that negotiate. ``wall``
    tells the date, for certificates. ``lends_payload``: the dataplane can do ESP in tunnel mode.
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
    ike: IkeParameters | None = None
    lends_payload: bool = False
    wall: Callable[[], datetime] = field(default=_long_ago, compare=False, repr=False)
