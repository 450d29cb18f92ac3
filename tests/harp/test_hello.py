"""Neighbors: what counts as a newer HELLO, and when silence is failure."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mip6ha.harp.hello import Neighbor
from mip6ha.harp.messages import Hello
from mip6ha.wire import address

ADDRESS = address("2001:db8:e::2")
_HELLO = Hello(1, 5, 1800, 100, 1, False, False, True, 7, None)


def neighbor() -> Neighbor:
    return Neighbor(2, ADDRESS, 0, 0.1, 3.0)


def state(each: Neighbor) -> list[object]:
    return [getattr(each, name) for name in Neighbor.__slots__]


def test_a_neighbor_that_was_never_heard_is_not_alive() -> None:
    each = neighbor()
    assert not each.is_alive(0.0)
    assert not each.is_alive(-1e9)


def test_a_hello_is_taken_in_whole() -> None:
    each = neighbor()
    assert each.take(_HELLO._replace(active=True, synchronized=(3, 4)), 10.0)
    assert (each.preference, each.active, each.term) == (5, True, 7)
    assert each.synchronized == frozenset({3, 4})
    assert each.rank == (5, ADDRESS)
    assert each.is_alive(10.29)


def test_what_is_not_said_is_not_nothing() -> None:
    each = neighbor()
    each.take(_HELLO, 10.0)
    assert each.synchronized is None
    each.take(_HELLO._replace(sequence=2, synchronized=()), 10.1)
    assert each.synchronized == frozenset()


def test_failure_after_three_of_the_peer_s_own_intervals() -> None:
    each = neighbor()
    each.take(_HELLO._replace(interval=20), 10.0)
    assert each.interval == 0.02
    assert each.is_alive(10.059)
    assert not each.is_alive(10.0601)
    each.take(_HELLO._replace(sequence=2, interval=1000), 10.1)
    assert each.fails_at == 13.1


def test_an_interval_is_neither_zero_nor_endless() -> None:
    each = neighbor()
    each.take(_HELLO._replace(interval=0), 10.0)
    assert each.interval == 0.001
    each.take(_HELLO._replace(sequence=2, interval=65535), 10.0)
    assert each.interval == 60.0


def test_an_older_hello_changes_nothing() -> None:
    each = neighbor()
    each.take(_HELLO._replace(sequence=10), 10.0)
    before = state(each)
    for sequence in (10, 9, 0, 10 - 0x7FFF & 0xFFFF, 10 + 0x8000):
        late = _HELLO._replace(sequence=sequence, active=True, preference=99, interval=5, synchronized=(2,))
        assert not each.take(late, 10.1)
        assert state(each) == before


def test_the_sequence_number_wraps() -> None:
    each = neighbor()
    for step, sequence in enumerate((0xFFFE, 0xFFFF, 0, 1)):
        assert each.take(_HELLO._replace(sequence=sequence), 10.0 + step / 10)
    assert not each.take(_HELLO._replace(sequence=0xFFFF), 10.4)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_of_two_hellos_at_most_one_is_newer(one: int, other: int) -> None:
    def accepts(first: int, second: int) -> bool:
        each = neighbor()
        each.take(_HELLO._replace(sequence=first), 10.0)
        return each.take(_HELLO._replace(sequence=second), 10.1)

    forwards, backwards = accepts(one, other), accepts(other, one)
    assert not (forwards and backwards)
    assert forwards or backwards or (other - one) & 0x7FFF == 0


def test_a_member_that_failed_may_start_anywhere() -> None:
    each = neighbor()
    each.take(_HELLO._replace(sequence=1000), 10.0)
    restarted = _HELLO._replace(sequence=3)
    assert not each.take(restarted, 10.29)
    assert each.take(restarted, 10.31)
    assert each.sequence == 3


def test_a_member_that_leaves_has_failed_at_once() -> None:
    each = neighbor()
    each.take(_HELLO._replace(active=True), 10.0)
    each.fail()
    assert not each.is_alive(10.0)
    assert not each.active
    assert each.take(_HELLO._replace(sequence=0), 10.01)
