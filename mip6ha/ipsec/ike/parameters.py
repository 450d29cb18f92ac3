"""What an IKE endpoint is told: identities, credentials, proposals, children, times and limits, all frozen.

Covered: the data, and what cannot be. Not covered: where it comes from (the configuration), what was agreed
(``sa``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..policy import Mode, Use
from .proposals import Offer
from .sa import Address
from .selectors import ANY_PORT, ICMPV6, MOBILITY, TrafficSelector, icmp_ports, mobility_ports

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from .certificates import Trust
    from .identities import Identity

__all__ = ["ChildPolicy", "Limits", "Parameters", "Peer", "Scope", "Timing"]

# They have to fit into fragments, and into a responder that knows nobody yet.
_MOST_CERTIFICATES = 0x4000


class Scope(NamedTuple):
    """Traffic at one end of a child. ``first`` and ``last`` are ``None`` for the mobile node's home address.

    ``kind`` is a message type of protocol 135, or a type of ICMPv6.
    """

    protocol: int = 0
    kind: int | None = None
    first: bytes | None = None
    last: bytes | None = None

    def selectors(self, home_addresses: tuple[bytes, ...]) -> tuple[TrafficSelector, ...]:
        """The traffic selectors; none where a home address is meant and none is known."""
        ports = ANY_PORT
        if self.protocol == MOBILITY:
            ports = mobility_ports(self.kind)
        elif self.protocol == ICMPV6 and self.kind is not None:
            ports = icmp_ports(self.kind)
        if self.first is None or self.last is None:
            ranges = [(each, each) for each in home_addresses]
        else:
            ranges = [(self.first, self.last)]
        return tuple(TrafficSelector(self.protocol, *ports, first, last) for first, last in ranges)


@dataclass(frozen=True, slots=True)
class ChildPolicy:
    """A CHILD_SA that may exist. ``start``: as initiator, ask for it with the IKE SA."""

    name: str
    use: Use
    offers: tuple[Offer, ...]
    local: tuple[Scope, ...]
    remote: tuple[Scope, ...]
    start: bool = True

    @property
    def mode(self) -> Mode:
        """Fixed by the use."""
        return self.use.mode


@dataclass(frozen=True, slots=True)
class Peer:
    """Another end, or with ``remote`` ``None`` all ends that certificates vouch for.

    ``home_addresses`` are those that it may use (RFC 4877 4: authorisation of an identity), or that we may
    as a mobile node. ``assign``: it may get the first one by CP (RFC 5026). ``request_address``: we ask for
    one. ``psk`` is used both ways; where there is none, each end signs.
    """

    name: str
    local: Identity
    remote: Identity | None
    children: tuple[ChildPolicy, ...]
    address: Address | None = None
    psk: bytes | None = field(default=None, repr=False)
    # One that was read again is another object; the chain tells whether it is another key.
    private_key: RSAPrivateKey | EllipticCurvePrivateKey | None = field(
        default=None, repr=False, compare=False
    )
    chain: tuple[bytes, ...] = ()
    trust: Trust | None = None
    home_addresses: tuple[bytes, ...] = ()
    home_prefix_length: int = 64
    assign: bool = False
    request_address: bool = False

    def __post_init__(self) -> None:
        if self.psk is None and (self.private_key is None or self.trust is None or not self.chain):
            raise ValueError(
                f"{self.name}: a pre-shared key, or a private key, certificates and a trust anchor"
            )
        if sum(map(len, self.chain)) > _MOST_CERTIFICATES:
            raise ValueError(f"{self.name}: certificates of more than {_MOST_CERTIFICATES} octets in all")
        if self.psk is not None and (not self.psk or self.remote is None):
            raise ValueError(f"{self.name}: a pre-shared key is for one identity, and is not empty")

    def child(self, name: str) -> ChildPolicy | None:
        """The child of that name."""
        return next((each for each in self.children if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds throughout. A lifetime ends softly (re-key) after ``1 - jitter`` to 1 of itself, at random."""

    ike_lifetime: float = 14400.0
    child_lifetime: float = 3600.0
    jitter: float = 0.1
    overtime: float = 0.1
    """What of a lifetime is added before the hard end."""
    probe_interval: float | None = 60.0
    """Ask after this much silence; ``None``: never."""
    retransmit: float = 1.0
    backoff: float = 2.0
    attempts: int = 6
    half_open: float = 30.0
    linger: float = 30.0
    """How long a closed IKE SA answers for the last time."""
    retry: float = 2.0
    """After TEMPORARY_FAILURE; jitter on top."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Against floods. Past ``cookie_threshold`` half-open IKE SAs, cookies; past ``half_open``, nothing."""

    cookie_threshold: int = 32
    half_open: int = 1000
    queue: int = 256
    """IKE_SA_INIT requests waiting for their key exchange."""
    handshakes_per_turn: int = 4
    """Of those, how many are served before anything else is looked at again."""
    source_rate: float = 10.0
    """IKE_SA_INIT a second from one /64, in bursts of up to ``source_burst``."""
    source_burst: float = 20.0
    sources: int = 4096
    children: int = 16
    """Of one IKE SA."""
    ike_sas: int = 100_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """One endpoint. ``proposals`` are for every IKE SA, best first."""

    proposals: tuple[Offer, ...]
    peers: tuple[Peer, ...]
    timing: Timing = Timing()
    limits: Limits = Limits()
    fragment_size: int = 1232
    """Octets of a UDP payload at most, towards peers that know fragments: what fits any IPv6 link."""
    encapsulate: bool = False
    """Ask for ESP in UDP even without a NAT."""
    mobike: bool = True
    """Let a peer with MOBIKE say that its address is another."""
    key_log: bool = False

    def __post_init__(self) -> None:
        names = {each.name for each in self.peers}
        if len(names) != len(self.peers):
            raise ValueError("two peers have the same name")
        if not self.proposals:
            raise ValueError("no proposal for IKE SAs")

    def peer(self, name: str) -> Peer | None:
        """The peer of that name."""
        return next((each for each in self.peers if each.name == name), None)
