"""The SAD and the policies on the home address: what is chosen, refused, forgotten and shown."""

from __future__ import annotations

from itertools import permutations

import pytest

from mip6ha.ipsec.algorithms import Keys, Transform, transform
from mip6ha.ipsec.policy import Direction, Mode, Selector, Use, selector
from mip6ha.ipsec.replay import DEFAULT_WINDOW
from mip6ha.ipsec.sad import SecurityAssociation, SecurityAssociationDatabase, counter_limit

from ..octets import CARE_OF_ADDRESS, CORRESPONDENT, HOME_ADDRESS, HOME_AGENT
from .associations import TRANSFORMS, association, keys_for

_GCM = transform("aes-gcm-16")
_IN, _OUT = Direction.IN, Direction.OUT
_MH, _ICMPV6, _UDP = 135, 58, 17


def _sa(use: Use, direction: Direction, spi: int, home_address: bytes = HOME_ADDRESS) -> SecurityAssociation:
    return association(_GCM, direction, use=use, spi=spi, home_address=home_address)


def test_every_use_fixes_mode_and_selectors() -> None:
    table = {
        use: (use.mode, selector(use, to_home_agent=True), selector(use, to_home_agent=False)) for use in Use
    }
    assert table == {
        # RFC 4877 4.2 to 4.4, message types of RFC 6275.
        Use.BINDING: (Mode.TRANSPORT, Selector(135, 5), Selector(135, 6)),
        Use.SIGNALLING: (Mode.TRANSPORT, Selector(135), Selector(135)),
        Use.PREFIX: (Mode.TRANSPORT, Selector(58, 146), Selector(58, 147)),
        Use.RETURN_ROUTABILITY: (Mode.TUNNEL, Selector(135, 1), Selector(135, 3)),
        Use.PAYLOAD: (Mode.TUNNEL, Selector(), Selector()),
        # Between members: either way all of the Mobility Header.
        Use.HARP: (Mode.TRANSPORT, Selector(135), Selector(135)),
    }


@pytest.mark.parametrize(
    ("chosen", "protocol", "kind", "expected"),
    [
        (Selector(135, 5), 135, 5, True),
        (Selector(135, 5), 135, 6, False),
        (Selector(135, 5), 58, 5, False),
        (Selector(135, 5), 135, None, False),
        (Selector(135), 135, None, True),
        (Selector(135), 135, 200, True),
        (Selector(135), 58, 135, False),
        (Selector(), 17, None, True),
        (Selector(None, 3), 135, 3, True),
        (Selector(135, 0), 135, None, False),
        (Selector(135, 0), 135, 0, True),
    ],
)
def test_selectors(chosen: Selector, protocol: int, kind: int | None, expected: bool) -> None:
    assert chosen.matches(protocol, kind) is expected


def _full() -> tuple[SecurityAssociationDatabase, dict[tuple[Use, Direction], SecurityAssociation]]:
    database, made = SecurityAssociationDatabase(), {}
    for n, use in enumerate(reversed(Use)):
        for direction in (_OUT, _IN):
            made[use, direction] = one = _sa(use, direction, 0x2000 + 2 * n + (direction is _OUT))
            database.add(HOME_AGENT if direction is _IN else CARE_OF_ADDRESS, one)
    return database, made


@pytest.mark.parametrize(
    ("direction", "mode", "protocol", "kind", "expected"),
    [
        (_IN, Mode.TRANSPORT, _MH, 5, Use.BINDING),
        (_OUT, Mode.TRANSPORT, _MH, 6, Use.BINDING),
        (_IN, Mode.TRANSPORT, _MH, 6, Use.SIGNALLING),
        (_OUT, Mode.TRANSPORT, _MH, 0, Use.SIGNALLING),
        (_IN, Mode.TRANSPORT, _ICMPV6, 146, Use.PREFIX),
        (_OUT, Mode.TRANSPORT, _ICMPV6, 147, Use.PREFIX),
        (_IN, Mode.TRANSPORT, _ICMPV6, 147, None),
        (_IN, Mode.TRANSPORT, _UDP, None, None),
        (_IN, Mode.TUNNEL, _MH, 1, Use.RETURN_ROUTABILITY),
        (_OUT, Mode.TUNNEL, _MH, 3, Use.RETURN_ROUTABILITY),
        (_OUT, Mode.TUNNEL, _MH, 1, Use.PAYLOAD),
        (_IN, Mode.TUNNEL, _UDP, None, Use.PAYLOAD),
        (_OUT, Mode.TUNNEL, _ICMPV6, 128, Use.PAYLOAD),
    ],
)
def test_the_narrowest_use_is_chosen(
    direction: Direction, mode: Mode, protocol: int, kind: int | None, expected: Use | None
) -> None:
    database, made = _full()
    found = database.select(HOME_ADDRESS, direction, mode, protocol, kind)
    assert found is (made[expected, direction] if expected else None)


def test_the_order_of_adding_decides_only_within_one_use() -> None:
    for uses in permutations(Use):
        database = SecurityAssociationDatabase()
        for n, use in enumerate(uses):
            database.add(HOME_AGENT, _sa(use, _IN, 0x2000 + n))
        assert [one.use for one in database.of(HOME_ADDRESS)] == list(Use)
    database = SecurityAssociationDatabase()
    first, second = _sa(Use.BINDING, _IN, 0x3001), _sa(Use.BINDING, _IN, 0x3000)
    database.add(HOME_AGENT, first)
    database.add(HOME_AGENT, second)
    assert database.select(HOME_ADDRESS, _IN, Mode.TRANSPORT, _MH, 5) is first


def test_nothing_is_chosen_for_somebody_else() -> None:
    database, _ = _full()
    assert database.select(CORRESPONDENT, _IN, Mode.TRANSPORT, _MH, 5) is None
    assert database.of(CORRESPONDENT) == ()


def test_inbound_is_found_by_destination_and_spi() -> None:
    database, made = _full()
    for (_, direction), one in made.items():
        found = database.inbound(HOME_AGENT, one.spi)
        assert found is (one if direction is _IN else None)
        assert database.inbound(CARE_OF_ADDRESS, one.spi) is None
    assert database.inbound(HOME_AGENT, 0x1FFF) is None
    assert len(database) == 2 * len(Use)
    assert set(database) == set(made.values())


def test_an_inbound_spi_is_taken_once_per_destination() -> None:
    database = SecurityAssociationDatabase()
    database.add(HOME_AGENT, _sa(Use.BINDING, _IN, 0x2000))
    twin = _sa(Use.PREFIX, _IN, 0x2000, CORRESPONDENT)
    with pytest.raises(ValueError, match="SPI 0x00002000 is already in use"):
        database.add(HOME_AGENT, twin)
    assert len(database) == 1
    assert database.of(CORRESPONDENT) == ()
    database.add(CARE_OF_ADDRESS, twin)
    # Outbound SPIs are the peer's business.
    database.add(CARE_OF_ADDRESS, _sa(Use.BINDING, _OUT, 0x2000))
    database.add(CARE_OF_ADDRESS, _sa(Use.PREFIX, _OUT, 0x2000))
    assert len(database) == 4


def test_removal_forgets_one_home_address_and_frees_its_spis() -> None:
    database = SecurityAssociationDatabase()
    other = _sa(Use.BINDING, _IN, 0x3000, CORRESPONDENT)
    for one in (_sa(Use.BINDING, _IN, 0x2000), _sa(Use.BINDING, _OUT, 0x2001), other):
        database.add(HOME_AGENT, one)
    database.remove(HOME_AGENT, HOME_ADDRESS)
    assert list(database) == [other]
    assert database.inbound(HOME_AGENT, 0x2000) is None
    assert database.select(HOME_ADDRESS, _OUT, Mode.TRANSPORT, _MH, 6) is None
    assert database.inbound(HOME_AGENT, 0x3000) is other
    database.remove(HOME_AGENT, HOME_ADDRESS)
    database.add(HOME_AGENT, _sa(Use.SIGNALLING, _IN, 0x2000))
    assert len(database) == 2


def test_directions_and_their_ends() -> None:
    inbound, outbound = _sa(Use.BINDING, _IN, 0x2000), _sa(Use.BINDING, _OUT, 0x2001)
    # A home agent receives updates and sends acknowledgements; a mobile node the other way round.
    assert (inbound.selector, outbound.selector) == (Selector(135, 5), Selector(135, 6))
    mobile = [
        association(_GCM, direction, use=Use.BINDING, to_home_agent=direction is _OUT)
        for direction in (_IN, _OUT)
    ]
    assert [one.selector for one in mobile] == [Selector(135, 6), Selector(135, 5)]
    assert outbound.window is None
    assert inbound.window is not None
    assert inbound.window.size == DEFAULT_WINDOW
    narrow = association(_GCM, _IN, window=64)
    assert narrow.window is not None
    assert narrow.window.size == 64
    assert _sa(Use.PAYLOAD, _IN, 0x2000).mode is Mode.TUNNEL


@pytest.mark.parametrize("spi", [0, 1, 255, -1, 1 << 32])
def test_reserved_spis(spi: int) -> None:
    with pytest.raises(ValueError, match="256 to 0xffffffff"):
        association(_GCM, _IN, spi=spi)


@pytest.mark.parametrize("chosen", TRANSFORMS, ids=lambda chosen: chosen.name)
def test_key_lengths(chosen: Transform) -> None:
    for size in range(70):
        good = size in chosen.encryption_lengths
        keys = Keys(bytes(size), bytes(chosen.integrity_length))
        if good:
            association(chosen, _IN, keys=keys)
        else:
            with pytest.raises(ValueError, match=f"takes encryption keys of {chosen.encryption_lengths[0]}"):
                association(chosen, _IN, keys=keys)
        if size != chosen.integrity_length:
            with pytest.raises(ValueError, match=f"an integrity key of {chosen.integrity_length} octets"):
                association(chosen, _IN, keys=Keys(bytes(chosen.encryption_lengths[0]), bytes(size)))


def test_counter_limits() -> None:
    for chosen in TRANSFORMS:
        assert counter_limit(chosen, esn=False) == (1 << 32) - 1
        assert counter_limit(chosen, esn=True) == ((1 << 40) - 1 if chosen.counter_iv else (1 << 64) - 1)


def test_nothing_shown_holds_key_material() -> None:
    for chosen in TRANSFORMS:
        keys = keys_for(chosen)
        for direction in (_IN, _OUT):
            one = association(chosen, direction, keys=keys)
            shown = f"{one!r} {one} {keys!r} {keys}"
            for key in (keys.encryption, keys.integrity):
                if key:
                    assert key.hex() not in shown
                    assert str(key)[2:-1] not in shown
                    assert str(list(key)) not in shown
            assert "0x00002000" in shown
            assert chosen.name in shown


def test_key_errors_hold_no_key_material() -> None:
    with pytest.raises(ValueError, match="octets") as caught:
        association(_GCM, _IN, keys=Keys(b"\xab" * 7))
    assert "abab" not in str(caught.value)
