"""Mobile Prefix Solicitation and Advertisement, the mobile node's side (RFC 6275 11.4.3, 6.7, 6.8).

Covered: one solicitation with its retransmissions, matching the answer. Not covered: renumbering; what the
prefixes say is reported and not acted upon.
"""

from __future__ import annotations

from collections.abc import Callable

from ..icmpv6 import PrefixInformation, parse_prefixes
from ..wire import Malformed, Refused

__all__ = ["PrefixDiscovery"]

INITIAL_SOLICIT_TIMER = 3.0
"""Seconds (RFC 6275 12)."""
PREFIX_ADV_RETRIES = 3
"""RFC 6275 12."""


class PrefixDiscovery:
    """Bodies of Mobile Prefix Solicitations out, advertised prefixes in."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._identifier: bytes | None = None
        self._deadline: float | None = None
        self._attempt = 0

    def begin(self, now: float) -> bytes:
        """The body of a new solicitation (identifier, reserved)."""
        self._attempt = 0
        return self._solicit(now)

    def stop(self) -> None:
        """Ask no more; a late answer is refused."""
        self._identifier = self._deadline = None

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` may have a retransmission."""
        return self._deadline

    def on_timer(self, now: float) -> bytes | None:
        """The body of a retransmission that is due."""
        if self._deadline is None or now < self._deadline:
            return None
        if self._attempt > PREFIX_ADV_RETRIES:
            self._deadline = None
            return None
        return self._solicit(now)

    def advertised(self, body: bytes) -> tuple[PrefixInformation, ...]:
        """The prefixes of the answer, or of an unsolicited advertisement (identifier 0, RFC 6275 6.8)."""
        if len(body) < 4:
            raise Malformed("truncated_mobile_prefix_advertisement", len(body))
        if body[:2] != b"\0\0" and body[:2] != self._identifier:
            raise Refused("mobile_prefix_advertisement_identifier")
        prefixes = parse_prefixes(body)
        self.stop()
        return prefixes

    def _solicit(self, now: float) -> bytes:
        self._deadline = now + INITIAL_SOLICIT_TIMER * 2**self._attempt
        self._attempt += 1
        # RFC 6275 11.4.3: the identifier is new each time and not zero.
        self._identifier = (int.from_bytes(self._random(2), "big") | 1).to_bytes(2, "big")
        return self._identifier + b"\0\0"
