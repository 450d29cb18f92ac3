"""Anycast addresses, discovery replies, prefix advertisements: RFC 2526, RFC 6275 10.5 and 10.6."""

from __future__ import annotations

import pytest

from mip6ha import icmpv6, ipv6
from mip6ha.binding.discovery import anycast_address, discovery_reply, prefix_advertisement
from mip6ha.binding.registration import HomePrefix
from mip6ha.icmpv6 import Icmp, PrefixInformation
from mip6ha.wire import Malformed, address

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        # RFC 2526 2: with an EUI-64 identifier the universal bit is clear ...
        ("2001:db8:a::/64", "2001:db8:a:0:fdff:ffff:ffff:fffe"),
        # ... with any other length all bits above the low seven are set.
        ("2001:db8:a::/48", "2001:db8:a:ffff:ffff:ffff:ffff:fffe"),
        ("2001:db8:a::/112", "2001:db8:a::fffe"),
        ("2001:db8:a::/120", "2001:db8:a::fe"),
    ],
)
def test_the_anycast_address(prefix: str, expected: str) -> None:
    network, length = prefix.split("/")
    assert anycast_address(HomePrefix(address(network), int(length))) == address(expected)


def test_a_reply_lists_by_preference_and_keeps_the_order_of_equals() -> None:
    agents = [
        (address(f"2001:db8:a::{n}"), preference) for n, preference in ((1, 0), (2, 9), (3, -9), (4, 9))
    ]
    packet = discovery_reply(Icmp(144, 0, b"\xab\xcd\0\0"), HOME_AGENT, CARE_OF_ADDRESS, agents)
    parsed = ipv6.parse(packet)
    reply = icmpv6.parse(parsed.payload, HOME_AGENT, CARE_OF_ADDRESS)
    assert reply[:2] == (145, 0)
    assert reply.body == b"\xab\xcd\0\0" + b"".join(address(f"2001:db8:a::{n}") for n in (2, 4, 1, 3))


@pytest.mark.parametrize("request_", [Icmp(146, 0, bytes(4)), Icmp(144, 0, bytes(3))])
def test_no_request(request_: Icmp) -> None:
    with pytest.raises(Malformed, match="home_agent_discovery_request"):
        discovery_reply(request_, HOME_AGENT, CARE_OF_ADDRESS, [])


def test_an_advertisement() -> None:
    prefixes = (
        HomePrefix(address("2001:db8:a::"), 64, 86400, 43200),
        HomePrefix(address("2001:db8:f::"), 48, 0xFFFFFFFF, 0),
    )
    octets = prefix_advertisement(Icmp(146, 0, b"\x12\x34\0\0"), HOME_AGENT, HOME_ADDRESS, prefixes)
    message = icmpv6.parse(octets, HOME_AGENT, HOME_ADDRESS)
    assert (message.type, message.code, message.body[:4]) == (147, 0, b"\x12\x34\0\0")
    # L, A, and R with the whole address where that lies in the prefix (7.2).
    assert icmpv6.parse_prefixes(message.body) == (
        PrefixInformation(HOME_AGENT, 64, 0xE0, 86400, 43200),
        PrefixInformation(address("2001:db8:f::"), 48, 0xC0, 0xFFFFFFFF, 0),
    )


@pytest.mark.parametrize("solicitation", [Icmp(144, 0, bytes(4)), Icmp(146, 0, bytes(2))])
def test_no_solicitation(solicitation: Icmp) -> None:
    with pytest.raises(Malformed, match="mobile_prefix_solicitation"):
        prefix_advertisement(solicitation, HOME_AGENT, HOME_ADDRESS, ())
