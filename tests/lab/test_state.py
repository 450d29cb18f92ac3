"""What is compared before and after a run."""

from __future__ import annotations

from netnslab.state import unrouted

ADDRESSES = (
    r"1: lo    inet6 2001:db8:a::100/128 scope global \       valid_lft forever preferred_lft forever",
    r"7: eth0    inet6 2001:db8:b::c/64 scope global nodad \       valid_lft forever preferred_lft forever",
)
ROUTES = (
    "2001:db8:b::/64 dev eth0 proto kernel metric 256 pref medium",
    "local 2001:db8:b::c dev eth0 table local proto kernel metric 0 pref medium",
)


def test_addresses_that_the_kernel_has_not_finished_with() -> None:
    assert unrouted(ADDRESSES + ROUTES) == {"2001:db8:a::100"}
    last = "local 2001:db8:a::100 dev lo table local proto kernel metric 0 pref medium"
    assert unrouted((*ADDRESSES, *ROUTES, last)) == set()
    assert unrouted(ROUTES) == set()
