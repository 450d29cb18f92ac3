"""A simulated clock, and the ends of a link that tests join."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from mip6ha import icmpv6
from mip6ha.icmpv6 import PrefixInformation
from mip6ha.wire import address

HOME_AGENT = address("2001:db8:a::1")
HOME_ADDRESS = address("2001:db8:a::100")
CORRESPONDENT = address("2001:db8:c::2")
IDENTIFIER = bytes.fromhex("0000000000000042")
FOREIGN_1 = address("2001:db8:b::")
FOREIGN_2 = address("2001:db8:d::")
HOME_PREFIX = address("2001:db8:a::")
CARE_OF_1 = address("2001:db8:b::42")
CARE_OF_2 = address("2001:db8:d::42")
ROUTER_1 = address("fe80::b")
ROUTER_2 = address("fe80::d")
HOME_ROUTER = address("fe80::a")


def seeded(seed: str) -> Callable[[int], bytes]:
    """A source of octets that are the same in every run."""
    count = 0

    def random(length: int) -> bytes:
        nonlocal count
        count += 1
        octets = b"".join(
            sha256(f"{seed}/{count}/{part}".encode()).digest() for part in range(length // 32 + 1)
        )
        return octets[:length]

    return random


def advertised(prefix: bytes, router: bytes, lifetime: int = 1800) -> bytes:
    """The octets of a Router Advertisement."""
    body = bytes((64, 0)) + lifetime.to_bytes(2, "big") + bytes(8)
    body += icmpv6.prefix_option(PrefixInformation(prefix, 64, 0xC0, 86400, 14400))
    return icmpv6.message(icmpv6.ROUTER_ADVERTISEMENT, 0, body, router, icmpv6.ALL_NODES)
