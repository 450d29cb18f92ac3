"""Where the mobile node is: carrier and Router Advertisements in, point of attachment out (RFC 6275 11.5).

Covered: solicitation (RFC 4861 6.3.7, RFC 7559), choice of router and prefix, address formation
(RFC 4862 5.5.3), being at home. Not covered: neighbour unreachability, DHCPv6, duplicate address detection
(``mobile_node``), several links at once.
"""

from __future__ import annotations

from typing import NamedTuple

from ..icmpv6 import PrefixInformation, RouterAdvertisement

__all__ = ["SOLICITATION_INTERVAL", "Attachment", "Movement", "interface_identifier"]

SOLICITATION_INTERVAL = 4.0
"""RTR_SOLICITATION_INTERVAL in seconds (RFC 4861 10)."""
SOLICITATIONS = 3
"""MAX_RTR_SOLICITATIONS (RFC 4861 10); the interval doubles after them (RFC 7559 2)."""
LONGEST_SOLICITATION_INTERVAL = 3600.0

_AUTONOMOUS = 0x40
# An old router that stays silent while others advertise this often is gone.
_MISSED_ADVERTISEMENTS = 3


class Attachment(NamedTuple):
    """A router (link-local address), a prefix it advertises, the address to use: the home address at home."""

    router: bytes
    prefix: bytes
    length: int
    address: bytes
    at_home: bool


def interface_identifier(mac: bytes) -> bytes:
    """The modified EUI-64 of a 48-bit link-layer address (RFC 4291 appendix A)."""
    return bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:6]


def _masked(address: bytes, length: int) -> bytes:
    host = 128 - length
    return (int.from_bytes(address, "big") >> host << host).to_bytes(16, "big")


class Movement:
    """One interface. ``attachment`` is the present one, ``None`` between links."""

    def __init__(self, home_address: bytes, identifier: bytes) -> None:
        if len(identifier) != 8:
            raise ValueError("an interface identifier has 8 octets")
        self.attachment: Attachment | None = None
        self._home_address = home_address
        self._identifier = identifier
        self._carrier = False
        self._expires = 0.0
        self._known: set[tuple[bytes, bytes]] = set()
        self._missed = 0
        self._solicited = 0
        self._solicit_at: float | None = None

    def carrier(self, up: bool, now: float) -> bool:
        """The link came or went; ``True`` if the attachment is lost with it.

        An up is news even if no down was seen: links change faster than their events.
        """
        lost = self.attachment is not None
        self._detach()
        self._carrier = up
        self._solicited = 0
        self._solicit_at = now if up else None
        return lost

    def advertised(self, router: bytes, advertisement: RouterAdvertisement, now: float) -> bool:
        """Weigh a Router Advertisement from ``router``; ``True`` if the attachment is now another."""
        if not self._carrier:
            return False
        found = self._candidate(router, advertisement)
        present = self.attachment
        if found is None:
            # RFC 4861 4.2: lifetime zero is no longer a default router.
            if present is not None and present.router == router:
                self._detach()
                self._solicited, self._solicit_at = 0, now
                return True
            return False
        self._solicit_at = None
        if found == present:
            self._missed = 0
            self._expires = now + advertisement.lifetime
            return False
        known = found[:2] in self._known
        self._known.add(found[:2])
        if present is not None and (known or present.at_home):
            self._missed += 1
            if self._missed < _MISSED_ADVERTISEMENTS:
                return False
        self.attachment = found
        self._missed = 0
        self._expires = now + advertisement.lifetime
        return True

    def solicits(self, now: float) -> bool:
        """Whether a Router Solicitation is due; if so it counts as sent."""
        if self._solicit_at is None or now < self._solicit_at:
            return False
        # A host waits up to a second before its first one; RFC 6275 11.5.2 lets a moving one send at once.
        self._solicited += 1
        doublings = min(max(self._solicited - SOLICITATIONS, 0), 16)
        interval = min(SOLICITATION_INTERVAL * 2**doublings, LONGEST_SOLICITATION_INTERVAL)
        self._solicit_at = now + interval
        return True

    def expired(self, now: float) -> bool:
        """Whether the router's lifetime ran out; if so the attachment is gone and solicitation begins."""
        if self.attachment is None or now < self._expires:
            return False
        self._detach()
        self._solicited, self._solicit_at = 0, now
        return True

    def next_deadline(self) -> float | None:
        """When :meth:`solicits` or :meth:`expired` will next have something to say."""
        if self._solicit_at is not None:
            return self._solicit_at
        return self._expires if self.attachment is not None else None

    def _detach(self) -> None:
        self.attachment = None
        self._known.clear()
        self._missed = 0

    def _candidate(self, router: bytes, advertisement: RouterAdvertisement) -> Attachment | None:
        if not advertisement.lifetime:
            return None
        usable: PrefixInformation | None = None
        present = self.attachment
        for prefix in advertisement.prefixes:
            length = prefix.length
            masked = _masked(prefix.prefix, length)
            if length and masked == _masked(self._home_address, length):
                return Attachment(router, masked, length, self._home_address, at_home=True)
            if prefix.flags & _AUTONOMOUS and length == 64 and prefix.valid:
                same = present is not None and masked == present.prefix
                usable = prefix if usable is None or same else usable
        if usable is None:
            return None
        masked = _masked(usable.prefix, 64)
        return Attachment(router, masked, 64, masked[:8] + self._identifier, at_home=False)
