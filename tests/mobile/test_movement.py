from __future__ import annotations

import pytest

from mip6ha.icmpv6 import PrefixInformation, RouterAdvertisement
from mip6ha.mobile.movement import Movement, interface_identifier
from mip6ha.wire import address

from .timeline import (
    CARE_OF_1,
    CARE_OF_2,
    FOREIGN_1,
    FOREIGN_2,
    HOME_ADDRESS,
    HOME_PREFIX,
    HOME_ROUTER,
    IDENTIFIER,
    ROUTER_1,
    ROUTER_2,
)


def advertisement(
    *prefixes: bytes, lifetime: int = 1800, flags: int = 0xC0, length: int = 64
) -> RouterAdvertisement:
    options = tuple(PrefixInformation(prefix, length, flags, 86400, 14400) for prefix in prefixes)
    return RouterAdvertisement(64, 0, lifetime, options, None, None, 0, lifetime)


def movement(*, up: bool = True) -> Movement:
    interface = Movement(HOME_ADDRESS, IDENTIFIER)
    if up:
        interface.carrier(up=True, now=0.0)
    return interface


def address_of(interface: Movement) -> bytes | None:
    return interface.attachment and interface.attachment.address


def test_the_identifier_is_the_modified_eui_64() -> None:
    # RFC 4291 appendix A's example.
    assert interface_identifier(bytes.fromhex("3456789abcde")) == bytes.fromhex("365678fffe9abcde")


def test_solicitation_is_immediate_then_follows_the_rfc() -> None:
    interface = movement()
    sent = []
    while (deadline := interface.next_deadline()) is not None and deadline < 100:
        assert interface.solicits(deadline)
        sent.append(deadline)
    assert sent == [0.0, 4.0, 8.0, 12.0, 20.0, 36.0, 68.0]


def test_nothing_is_solicited_or_believed_without_carrier() -> None:
    interface = movement(up=False)
    assert interface.next_deadline() is None
    assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.0)


def test_an_advertisement_makes_a_care_of_address_and_ends_solicitation() -> None:
    interface = movement()
    interface.solicits(0.0)
    assert interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.1)
    assert address_of(interface) == CARE_OF_1
    assert interface.attachment is not None
    assert interface.attachment.router == ROUTER_1
    assert not interface.attachment.at_home
    assert not interface.solicits(4.0)
    assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 3.0)


def test_a_carrier_change_forgets_everything() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.1)
    assert interface.carrier(up=False, now=1.0)
    assert interface.attachment is None
    assert interface.next_deadline() is None
    assert not interface.carrier(up=True, now=2.0)
    assert interface.solicits(2.0)
    assert interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 2.1)


def test_an_up_without_a_down_counts_as_both() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.1)
    assert interface.carrier(up=True, now=1.0)
    assert interface.solicits(1.0)


@pytest.mark.parametrize("prefix", [HOME_PREFIX, address("2001:db8:a::1")])
def test_a_prefix_around_the_home_address_is_home(prefix: bytes) -> None:
    interface = movement()
    # With the R flag the prefix field holds the home agent's whole address (RFC 6275 7.2).
    assert interface.advertised(HOME_ROUTER, advertisement(FOREIGN_2, prefix), 0.0)
    assert interface.attachment is not None
    assert interface.attachment.at_home
    assert address_of(interface) == HOME_ADDRESS


def test_a_new_router_takes_over_at_once_and_two_on_one_link_do_not_make_it_flap() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.0)
    assert interface.advertised(ROUTER_2, advertisement(FOREIGN_2), 1.0)
    assert address_of(interface) == CARE_OF_2
    for second in range(2, 20):
        assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_1), second)
        assert not interface.advertised(ROUTER_2, advertisement(FOREIGN_2), second + 0.5)


def test_a_known_router_takes_over_when_the_present_one_is_silent() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.0)
    interface.advertised(ROUTER_2, advertisement(FOREIGN_2), 1.0)
    heard = [interface.advertised(ROUTER_1, advertisement(FOREIGN_1), second) for second in (2, 3, 4)]
    assert heard == [False, False, True]
    assert address_of(interface) == CARE_OF_1


def test_home_is_left_only_when_its_router_is_silent() -> None:
    interface = movement()
    interface.advertised(HOME_ROUTER, advertisement(HOME_PREFIX), 0.0)
    heard = [interface.advertised(ROUTER_1, advertisement(FOREIGN_1), second) for second in (1, 2, 3)]
    assert heard == [False, False, True]


def test_a_router_that_resigns_or_expires_is_lost() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.0)
    assert not interface.advertised(ROUTER_2, advertisement(FOREIGN_2, lifetime=0), 1.0)
    assert interface.advertised(ROUTER_1, advertisement(FOREIGN_1, lifetime=0), 2.0)
    assert interface.attachment is None
    assert interface.solicits(2.0)
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1, lifetime=30), 3.0)
    assert interface.next_deadline() == 33.0
    assert not interface.expired(32.9)
    assert interface.expired(33.0)
    assert interface.solicits(33.0)


def test_prefixes_that_cannot_make_addresses_are_passed_over() -> None:
    interface = movement()
    assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_1, flags=0x80), 0.0)
    assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_1, length=48), 0.0)
    assert not interface.advertised(ROUTER_1, advertisement(), 0.0)


def test_of_several_prefixes_the_one_in_use_is_kept() -> None:
    interface = movement()
    interface.advertised(ROUTER_1, advertisement(FOREIGN_1), 0.0)
    assert not interface.advertised(ROUTER_1, advertisement(FOREIGN_2, FOREIGN_1), 1.0)
    assert interface.advertised(ROUTER_1, advertisement(FOREIGN_2), 2.0)
    assert address_of(interface) == CARE_OF_2
