"""Dynamic home agent address discovery and mobile prefix discovery (RFC 6275 10.5, 10.6).

Covered: the anycast address, the reply with home agents by preference, the Mobile Prefix Advertisement.
Not covered: sending Router Advertisements on the home link (a router advertisement daemon does).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..icmpv6 import (
    HOME_AGENT_DISCOVERY_REPLY,
    HOME_AGENT_DISCOVERY_REQUEST,
    MOBILE_PREFIX_ADVERTISEMENT,
    MOBILE_PREFIX_SOLICITATION,
    Icmp,
    PrefixInformation,
    message,
    mobile_prefix_advertisement,
)
from ..ipv6 import ICMPV6, build
from ..wire import Malformed
from .registration import HomePrefix

__all__ = ["anycast_address", "discovery_reply", "prefix_advertisement"]

_AUTONOMOUS_ON_LINK = 0xC0
_ROUTER_ADDRESS = 0x20
# 10.5.1: the reply must not exceed the minimum MTU.
_MAX_LISTED = (1280 - 40 - 8) // 16


def anycast_address(prefix: HomePrefix) -> bytes:
    """The Mobile IPv6 home agents anycast address of a home prefix (RFC 2526 2, identifier 126)."""
    host_bits = 128 - prefix.length
    host = (1 << host_bits) - 1 & ~0x7F | 126
    if prefix.length == 64:
        # An EUI-64 identifier: the universal bit is clear.
        host &= ~(1 << 57)
    return (int.from_bytes(prefix.prefix, "big") | host).to_bytes(16, "big")


def discovery_reply(
    request: Icmp, address: bytes, destination: bytes, agents: Iterable[tuple[bytes, int]]
) -> bytes:
    """The Home Agent Address Discovery Reply, a whole packet.

    ``agents`` are (address, preference); the best stands first.
    """
    if request.type != HOME_AGENT_DISCOVERY_REQUEST or len(request.body) < 4:
        raise Malformed("home_agent_discovery_request")
    ranked = [agent for agent, _ in sorted(agents, key=lambda agent: -agent[1])][:_MAX_LISTED]
    body = request.body[:2] + bytes(2) + b"".join(ranked)
    octets = message(HOME_AGENT_DISCOVERY_REPLY, 0, body, address, destination)
    return build(address, destination, ICMPV6, octets)


def prefix_advertisement(
    solicitation: Icmp, address: bytes, home_address: bytes, prefixes: Iterable[HomePrefix]
) -> bytes:
    """The ICMPv6 octets of the answer to a Mobile Prefix Solicitation (10.6.2): flags L, A and R.

    With R the prefix field holds the home agent's whole address where it lies in the prefix (RFC 6275 7.2).
    """
    if solicitation.type != MOBILE_PREFIX_SOLICITATION or len(solicitation.body) < 4:
        raise Malformed("mobile_prefix_solicitation")
    listed = tuple(
        PrefixInformation(
            address, prefix.length, _AUTONOMOUS_ON_LINK | _ROUTER_ADDRESS, prefix.valid, prefix.preferred
        )
        if prefix.covers(address)
        else PrefixInformation(
            prefix.prefix, prefix.length, _AUTONOMOUS_ON_LINK, prefix.valid, prefix.preferred
        )
        for prefix in prefixes
    )
    body = mobile_prefix_advertisement(int.from_bytes(solicitation.body[:2], "big"), 0, listed)
    return message(MOBILE_PREFIX_ADVERTISEMENT, 0, body, address, home_address)
