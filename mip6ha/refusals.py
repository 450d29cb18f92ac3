"""The one exit for packets that are not served: counted by reason, answered where an RFC says so.

Covered: Binding Errors (RFC 6275 9.3.3), Parameter Problems (RFC 4443 3.4, RFC 6275 9.2), their rate. Not
covered: why a packet is refused (``node``).
"""

from __future__ import annotations

from collections import Counter

from . import icmpv6, ipv6
from .binding import messages
from .binding.cache import BindingCache
from .binding.messages import BindingError, ErrorStatus
from .effects import Effect, SendPacket
from .ipv6 import MOBILITY, Packet
from .rate import TokenBucket
from .wire import Malformed, Refused

__all__ = ["Refusals"]

# RFC 4443 2.4(f) and RFC 6275 9.3.3: errors are rate limited.
_ERRORS_PER_SECOND = 100
_ERRORS_AT_ONCE = 200


class _UnknownBinding(Refused):
    """A home address option without a binding: it asks for a Binding Error, status 1."""


class Refusals:
    """What becomes of packets to the home agent at ``address`` that are refused; ``now`` is in seconds."""

    def __init__(self, address: bytes, cache: BindingCache, counters: Counter[str], now: float) -> None:
        self._address = address
        self._cache = cache
        self._counters = counters
        self._errors = TokenBucket(_ERRORS_PER_SECOND, _ERRORS_AT_ONCE, now)

    def check_home_address_option(self, parsed: Packet) -> None:
        """A home address option outside registrations must match a binding (RFC 6275 9.3.1)."""
        home_address = parsed.home_address
        if home_address is not None and not self._cache.is_at(home_address, parsed.source):
            raise _UnknownBinding("home_address_option_without_binding")

    def allow(self, now: float) -> bool:
        """Whether one more error may be answered; counted if not."""
        if self._errors.take(now):
            return True
        self._counters["errors_suppressed"] += 1
        return False

    def drop(self, refused: Refused, packet: bytes, now: float, effects: list[Effect]) -> None:
        """Count what is not served, and say so to who sent it if it was for the home agent itself."""
        self._counters[refused.reason] += 1
        if packet[24:40] != self._address:
            return
        if isinstance(refused, messages.UnknownMessage | _UnknownBinding):
            unknown = isinstance(refused, messages.UnknownMessage)
            status = ErrorStatus.UNKNOWN_MESSAGE if unknown else ErrorStatus.UNKNOWN_BINDING
            self._binding_error(status, ipv6.parse(packet), now, effects)
        elif isinstance(refused, Malformed) and refused.parameter_problem is not None:
            code, offset = refused.parameter_problem, refused.offset
            problem = icmpv6.error(icmpv6.PARAMETER_PROBLEM, code, offset, self._address, packet)
            if problem is not None and self.allow(now):
                effects.append(SendPacket(problem))

    def _binding_error(self, status: ErrorStatus, parsed: Packet, now: float, effects: list[Effect]) -> None:
        """RFC 6275 9.3.3: to the packet's source, without protection."""
        if not ipv6.is_routable_unicast(parsed.source):
            self._counters["errors_suppressed"] += 1
            return
        if not self.allow(now):
            return
        message = BindingError(status, parsed.home_address or bytes(16))
        octets = messages.build(message, self._address, parsed.source)
        effects.append(SendPacket(ipv6.build(self._address, parsed.source, MOBILITY, octets)))
        self._counters["binding_errors"] += 1
