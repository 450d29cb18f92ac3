"""What the home agent answers to who looks for home agents or prefixes (RFC 6275 10.5, 10.6).

Covered: replies to the anycast address of a home prefix, Mobile Prefix Advertisements under the mobile
node's SA. Not covered: the messages (``binding.discovery``).
"""

from __future__ import annotations

from collections import Counter

from . import icmpv6, ipv6
from .binding.cache import BindingCache
from .binding.discovery import anycast_address, discovery_reply, prefix_advertisement
from .effects import Effect, SendPacket
from .icmpv6 import Icmp
from .ipv6 import ICMPV6, Packet
from .parameters import HomeAgentParameters
from .signalling import Signalling
from .wire import Refused

__all__ = ["Discovery"]


class Discovery:
    """Answers for one home agent; ``anycast`` are the addresses that it is asked at."""

    def __init__(
        self,
        parameters: HomeAgentParameters,
        cache: BindingCache,
        signalling: Signalling,
        counters: Counter[str],
    ) -> None:
        self._parameters = parameters
        self._cache = cache
        self._signalling = signalling
        self._counters = counters
        self.anycast = frozenset(map(anycast_address, parameters.home_prefixes))

    def home_agents(self, packet: bytes, effects: list[Effect]) -> None:
        """A packet to an anycast address: which home agents there are (10.5)."""
        parsed = ipv6.parse(packet)
        if parsed.next_header != ICMPV6 or parsed.home_address is not None:
            raise Refused("unexpected_message")
        icmp = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
        if not ipv6.is_routable_unicast(parsed.source):
            raise Refused("unanswerable_source")
        own = self._parameters
        others = [(other.address, other.preference) for other in own.home_agents]
        agents = [(own.address, own.preference), *others]
        effects.append(SendPacket(discovery_reply(icmp, own.address, parsed.source, agents)))
        self._counters["home_agent_discoveries"] += 1

    def prefixes(self, home_address: bytes, parsed: Packet, icmp: Icmp, effects: list[Effect]) -> None:
        """A Mobile Prefix Solicitation of a mobile node that is registered from where it speaks (10.6)."""
        if not self._cache.is_at(home_address, parsed.source):
            raise Refused("prefix_solicitation_without_binding")
        own = self._parameters
        octets = prefix_advertisement(icmp, own.address, home_address, own.home_prefixes)
        self._counters["prefix_advertisements"] += 1
        self._signalling.send(home_address, parsed.source, ICMPV6, octets, effects)
