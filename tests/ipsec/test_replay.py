"""The replay window against a set, and the extension of sequence numbers against arithmetic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.replay import DEFAULT_WINDOW, ReplayWindow

_SIZES = (64, 65, 100, 128, 1000, 1024)
_LOW = 1 << 32


class _Model:
    """Every number ever accepted, in a set (RFC 4303 3.4.3)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[int] = set()
        self.top = 0

    def is_new(self, sequence: int) -> bool:
        return sequence > 0 and sequence > self.top - self.size and sequence not in self.seen

    def advance(self, sequence: int) -> None:
        self.seen.add(sequence)
        self.top = max(self.top, sequence)


def _extended(top: int, size: int, low: int) -> int:
    """The one number with that low half in the 2^32 numbers from the window's left edge on."""
    edge = top - size + 1
    found = edge + (low - edge) % _LOW
    if found < 0:
        found += _LOW  # numbers below zero were never sent
    return found % (1 << 64)


@pytest.mark.parametrize("size", [0, 1, 32, 63, -1])
def test_a_window_has_at_least_64_entries(size: int) -> None:
    with pytest.raises(ValueError, match="at least 64"):
        ReplayWindow(size)


def test_a_new_window() -> None:
    window = ReplayWindow()
    assert (window.size, window.top, window.bitmap) == (DEFAULT_WINDOW, 0, 0) == (1024, 0, 0)
    assert not window.is_new(0)
    assert window.is_new(1)
    assert window.is_new(1 << 40)


@pytest.mark.parametrize("size", _SIZES)
def test_every_number_around_the_window_after_every_jump(size: int) -> None:
    for jump in (1, 2, 63, 64, 65, size - 1, size, size + 1, 3 * size):
        window, model = ReplayWindow(size), _Model(size)
        for step in range(4):
            sequence = 1 + step * jump
            window.advance(sequence)
            model.advance(sequence)
            for candidate in range(max(0, sequence - size - 3), sequence + 4):
                assert window.is_new(candidate) is model.is_new(candidate), (jump, sequence, candidate)
        assert window.bitmap.bit_length() <= size


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_random_orders_against_the_model(size: int, seed: int) -> None:
    source = random.Random(size * 10 + seed)
    window, model = ReplayWindow(size), _Model(size)
    next_one = 1
    for _ in range(6000):
        step = source.choice((0, 1, 1, 1, 2, 5, size // 2, size, 2 * size)) if source.random() < 0.9 else 0
        next_one += step
        sequence = max(
            0, next_one - source.choice((0, 0, 1, 3, size - 1, size, size + 1, source.randrange(2 * size)))
        )
        expected = model.is_new(sequence)
        before = (window.top, window.bitmap)
        assert window.is_new(sequence) is expected
        assert (window.top, window.bitmap) == before
        if expected and source.random() < 0.8:
            window.advance(sequence)
            model.advance(sequence)
            assert not window.is_new(sequence)
        assert window.top == model.top
        assert window.bitmap.bit_length() <= size


@given(
    st.sampled_from(_SIZES),
    st.lists(st.integers(0, 300) | st.integers(0, 5000) | st.integers(0, (1 << 64) - 1), max_size=60),
)
def test_any_sequence_of_arrivals_against_the_model(size: int, arrivals: list[int]) -> None:
    window, model = ReplayWindow(size), _Model(size)
    for sequence in arrivals:
        expected = model.is_new(sequence)
        assert window.is_new(sequence) is expected
        if expected:
            window.advance(sequence)
            model.advance(sequence)
    for sequence in {
        *arrivals,
        model.top,
        model.top - 1,
        model.top - size,
        model.top - size + 1,
        model.top + 1,
    }:
        assert window.is_new(sequence) is model.is_new(sequence)


@pytest.mark.parametrize("size", _SIZES)
def test_extension_around_every_boundary(size: int) -> None:
    near = [*range(-3, 4)]
    for epoch in (0, 1, 2, 255, 0xFFFFFFFE, 0xFFFFFFFF):
        for base in (0, size - 1, size, 1 << 31, _LOW - size, _LOW - 1):
            for top in {(epoch << 32) + base + offset for offset in near}:
                if not 0 <= top < 1 << 64:
                    continue
                window = ReplayWindow(size, top)
                points = {0, top, top - size, top - size + 1, top + 1, top + (1 << 31), _LOW - 1}
                for low in {(point + offset) % _LOW for point in points for offset in near}:
                    assert window.extend(low) == _extended(top, size, low), (top, low)
                assert window.top == top


@given(st.sampled_from(_SIZES), st.integers(0, (1 << 64) - 1), st.integers(0, _LOW - 1))
def test_extension_anywhere(size: int, top: int, low: int) -> None:
    found = ReplayWindow(size, top).extend(low)
    assert found == _extended(top, size, low)
    assert found % _LOW == low
    assert 0 <= found < 1 << 64


@given(st.sampled_from(_SIZES), st.integers(1, (1 << 63)), st.integers(-1023, 1 << 31))
def test_what_is_in_the_window_or_not_too_far_ahead_is_found_again(size: int, top: int, ahead: int) -> None:
    sequence = top + max(ahead, 1 - size)
    if sequence >= 0:
        assert ReplayWindow(size, top).extend(sequence % _LOW) == sequence


def test_the_very_last_number_is_followed_by_nothing() -> None:
    last = (1 << 64) - 1
    window = ReplayWindow(64, last, 1)
    for low in (0, 1, 0x7FFFFFFF):
        assert window.extend(low) == low
        assert not window.is_new(window.extend(low))
    assert window.is_new(window.extend(0xFFFFFFFE))
