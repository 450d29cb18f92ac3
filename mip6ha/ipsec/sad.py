"""Security associations and the database that finds them (RFC 4301 4.4.2).

Covered: one SA's parameters and counters, lookup of inbound SAs by (destination, SPI), choice of the
SA that policy demands for a message. Not covered: negotiation, cryptography (``esp``).
"""

from __future__ import annotations

from collections.abc import Iterator

from .algorithms import Keys, Transform
from .policy import Direction, Mode, Selector, Use, selector
from .replay import DEFAULT_WINDOW, ReplayWindow

__all__ = ["SecurityAssociation", "SecurityAssociationDatabase", "counter_limit"]


def counter_limit(transform: Transform, *, esn: bool) -> int:
    """The highest sequence number one key may ever see (RFC 4303 3.3.3).

    Where the IV is a counter, 24 of its 64 bits say which member counts (see ``iv_prefix``).
    """
    if not esn:
        return (1 << 32) - 1
    return (1 << 40) - 1 if transform.counter_iv else (1 << 64) - 1


class SecurityAssociation:
    """One direction of protection between a home address and its home agent.

    ``sequence`` is the last number sent, ``limit`` the last one that may be sent under the present
    reservation, or inbound that may be accepted. ``reserved`` is what was asked for beyond it and
    ``confirmed`` what of that is acknowledged, in the numbering of ``epoch`` (see ``numbering``).
    ``ahead`` is the highest number beyond the limit that a packet with a good ICV came with, or outbound the
    end of a block that nobody needs to know of before it is used.
    ``lent`` is the last number that the dataplane has, 0 if it has none; ``limit`` is then what stays here.
    ``iv_prefix`` is the upper 24 bits of a counter IV: member id and term, so that two members that both
    believe to be active never make the same nonce. ``window`` exists inbound only.
    """

    __slots__ = (
        "ahead",
        "confirmed",
        "direction",
        "epoch",
        "esn",
        "home_address",
        "iv_prefix",
        "keys",
        "lent",
        "limit",
        "mode",
        "packets",
        "reserved",
        "selector",
        "sequence",
        "spi",
        "transform",
        "use",
        "window",
    )

    def __init__(
        self,
        *,
        spi: int,
        direction: Direction,
        use: Use,
        home_address: bytes,
        transform: Transform,
        keys: Keys,
        esn: bool = False,
        window: int = DEFAULT_WINDOW,
        to_home_agent: bool | None = None,
        iv_prefix: int = 0,
    ) -> None:
        if not 256 <= spi <= 0xFFFFFFFF:
            raise ValueError("an SPI is 256 to 0xffffffff")
        if len(keys.encryption) not in transform.encryption_lengths:
            allowed = ", ".join(str(length) for length in transform.encryption_lengths)
            raise ValueError(f"{transform.name} takes encryption keys of {allowed} octets, salt included")
        if len(keys.integrity) != transform.integrity_length:
            raise ValueError(
                f"{transform.name} takes an integrity key of {transform.integrity_length} octets"
            )
        if to_home_agent is None:
            to_home_agent = direction is Direction.IN
        self.spi = spi
        self.direction = direction
        self.use = use
        self.mode: Mode = use.mode
        self.home_address = home_address
        self.selector: Selector = selector(use, to_home_agent=to_home_agent)
        self.transform = transform
        self.keys = keys
        self.esn = esn
        self.sequence = 0
        self.limit = counter_limit(transform, esn=esn)
        self.iv_prefix = iv_prefix
        self.window = ReplayWindow(window) if direction is Direction.IN else None
        self.packets = 0
        self.reserved = self.confirmed = self.limit
        self.epoch = self.ahead = self.lent = 0

    def __repr__(self) -> str:
        return f"<SecurityAssociation {self.direction} 0x{self.spi:08x} {self.use} {self.transform.name}>"


_ORDER = {use: rank for rank, use in enumerate(Use)}


def _rank(association: SecurityAssociation) -> int:
    return _ORDER[association.use]


class SecurityAssociationDatabase:
    """Inbound SAs by (destination, SPI), and every SA by its home address."""

    def __init__(self) -> None:
        self._inbound: dict[bytes, dict[int, SecurityAssociation]] = {}
        self._by_home_address: dict[bytes, tuple[SecurityAssociation, ...]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_home_address.values()))

    def __iter__(self) -> Iterator[SecurityAssociation]:
        for associations in self._by_home_address.values():
            yield from associations

    def home_addresses(self) -> list[bytes]:
        """Every home address that has SAs."""
        return list(self._by_home_address)

    def add(self, destination: bytes, association: SecurityAssociation) -> None:
        """Take in an SA that protects packets to ``destination``; ``ValueError`` if its SPI is taken."""
        if association.direction is Direction.IN:
            inbound = self._inbound.setdefault(destination, {})
            if association.spi in inbound:
                raise ValueError(f"SPI 0x{association.spi:08x} is already in use")
            inbound[association.spi] = association
        home_address = association.home_address
        associations = (*self._by_home_address.get(home_address, ()), association)
        self._by_home_address[home_address] = tuple(sorted(associations, key=_rank))

    def remove(self, destination: bytes, home_address: bytes) -> None:
        """Forget every SA of a home address."""
        for association in self._by_home_address.pop(home_address, ()):
            if association.direction is Direction.IN:
                del self._inbound[destination][association.spi]

    def discard(self, destination: bytes, home_address: bytes, direction: Direction, spi: int) -> None:
        """Forget one SA of a home address; no error if it is not there."""
        associations = self._by_home_address.get(home_address, ())
        left = tuple(each for each in associations if (each.direction, each.spi) != (direction, spi))
        if len(left) == len(associations):
            return
        if left:
            self._by_home_address[home_address] = left
        else:
            del self._by_home_address[home_address]
        if direction is Direction.IN:
            del self._inbound[destination][spi]

    def inbound(self, destination: bytes, spi: int) -> SecurityAssociation | None:
        """The SA that opens packets to ``destination`` with ``spi``."""
        inbound = self._inbound.get(destination)
        return inbound.get(spi) if inbound else None

    def of(self, home_address: bytes) -> tuple[SecurityAssociation, ...]:
        """Every SA of a home address."""
        return self._by_home_address.get(home_address, ())

    def select(
        self, home_address: bytes, direction: Direction, mode: Mode, protocol: int, kind: int | None
    ) -> SecurityAssociation | None:
        """The first SA whose selector takes such a message, in the order of :class:`~.policy.Use`
        and, for one use, of :meth:`add`.

        Outbound it protects the message; inbound its existence means that the message must come protected.
        """
        for association in self._by_home_address.get(home_address, ()):
            if (
                association.direction is direction
                and association.mode is mode
                and association.selector.matches(protocol, kind)
            ):
                return association
        return None
