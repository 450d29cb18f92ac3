"""Ranges of sequence numbers as words, and filters that read back as what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.edge import esp_steering
from mip6ha.edge.esp_steering import EspSteering, horizon, words
from mip6ha.edge.netlink_messages import Conversation, Failure, Message, Request, attributes
from mip6ha.wire import address

WORD = 1 << 32
AGENT = address("2001:db8:a::1")
CARE_OF = address("2001:db8:b::42")
NUMBERS = st.integers(0, (1 << 64) - 1) | st.integers(-5000, 5000).map(lambda near: 7 * WORD + near)


def covered(found: list[tuple[int, int]]) -> list[range]:
    """The numbers of each, which a mask of leading ones makes a range."""
    for value, mask in found:
        assert value & ~mask == 0
        assert (WORD - mask) & (WORD - mask - 1) == 0
    return [range(value, value + WORD - mask) for value, mask in found]


def fewest(low: int, high: int) -> int:
    """How many aligned blocks make a range, counted by halving the space."""

    def count(start: int, size: int) -> int:
        if high < start or start + size <= low:
            return 0
        if low <= start and start + size - 1 <= high:
            return 1
        return count(start, size // 2) + count(start + size // 2, size // 2)

    return count(0, WORD)


@given(NUMBERS, st.integers(0, 10_000) | st.integers(0, WORD - 2))
def test_words_are_exactly_the_range_and_as_few_as_possible(first: int, more: int) -> None:
    last = first + more
    found = words(first, last)
    low, high = first % WORD, last % WORD
    expected = [range(low, high + 1)] if low <= high else [range(low, WORD), range(high + 1)]
    blocks = sorted(covered(found), key=lambda block: block.start)
    joined: list[range] = []
    for block in blocks:
        assert not joined or joined[-1].stop <= block.start
        if joined and joined[-1].stop == block.start:
            joined[-1] = range(joined[-1].start, block.stop)
        else:
            joined.append(block)
    assert joined == sorted(expected, key=lambda each: each.start) or joined == [range(WORD)]
    assert len(found) == sum(fewest(each.start, each.stop - 1) for each in expected)


def test_words_at_the_edges() -> None:
    assert words(5, 4) == []
    assert words(0, WORD - 1) == words(9, WORD + 9) == [(0, 0)]
    assert words(WORD - 1, WORD) == [(WORD - 1, WORD - 1), (0, WORD - 1)]
    assert words(4096, 6143) == [(4096, WORD - 2048)]


@given(st.integers(1, 1 << 40), st.integers(0, 1 << 20), st.integers(0, 1 << 20))
def test_the_horizon_holds_back_nothing_that_may_come(first: int, more: int, late: int) -> None:
    limit = first + more
    due = max(first, limit - late)
    lowest = horizon(first, limit, due)
    assert first <= lowest <= due
    assert lowest == first or lowest % 2048 == 0
    assert len(words(lowest, limit)) < 45


class Kernel(Conversation):
    """Keeps what it is told, and refuses what ``refuses`` names by index."""

    def __init__(self) -> None:
        self.filters: dict[int, bytes] = {}
        self.log: list[str] = []

    def send(self, requests: object) -> list[Failure]:
        assert isinstance(requests, list)
        for each in requests:
            handle = int.from_bytes(each.body[8:12], "little")
            if each.kind == esp_steering.NEW_FILTER:
                assert handle not in self.filters
                self.filters[handle] = each.body
                self.log.append("add")
            elif each.kind == esp_steering.DELETE_FILTER and handle:
                del self.filters[handle]
                self.log.append("remove")
        return []


@given(st.lists(st.tuples(st.sampled_from((0x1001, 0x2001, 0x1002)), st.integers(1, 9000)), max_size=30))
def test_only_the_difference_is_told_and_adding_comes_first(steps: list[tuple[int, int]]) -> None:
    kernel = Kernel()
    steering = EspSteering(kernel, 7, AGENT)
    wanted: dict[int, set[tuple[int, int]]] = {}
    for spi, limit in steps:
        kernel.log.clear()
        kernel.send(steering.steer(spi, CARE_OF, 1, limit))
        assert kernel.log == sorted(kernel.log)
        before = wanted.get(spi, set())
        wanted[spi] = set(words(1, limit))
        assert len(kernel.log) == len(before ^ wanted[spi])
        found = [esp_steering._filter_in(Message(44, body), 7) for body in kernel.filters.values()]
        assert len(found) == len(set(found)) == sum(map(len, wanted.values()))
    for spi in wanted:
        kernel.send(steering.release(spi))
    assert kernel.filters == {}


def test_a_filter_says_all_that_it_matches() -> None:
    kernel = Kernel()
    (request,) = EspSteering(kernel, 7, AGENT).steer(0x12345678, CARE_OF, 5, 5)
    assert esp_steering._filter_in(Message(44, request.body), 8) is None
    options = attributes(attributes(request.body, 20)[2])
    assert int.from_bytes(options[2], "little") == 0x06878000
    selector = options[5]
    assert (selector[0], selector[2]) == (1, 6)
    keys = [selector[at : at + 16] for at in range(16, len(selector), 16)]
    matched = {int.from_bytes(key[8:12], "little"): (key[:4], key[4:8]) for key in keys}
    whole = b"\xff" * 4
    assert matched[40] == (whole, bytes.fromhex("12345678"))
    assert matched[44] == (whole, bytes.fromhex("00000005"))
    assert [matched[at] for at in (8, 12, 16, 20)] == [(whole, CARE_OF[at : at + 4]) for at in (0, 4, 8, 12)]


def test_a_bucket_that_is_full_is_refused_by_the_kernel() -> None:
    steering = EspSteering(Kernel(), 7, AGENT)
    handles: list[int] = []
    for spi in range(1, 4097):
        (request,) = steering.steer(spi * 256, CARE_OF, 1, 1)
        handles.append(int.from_bytes(request.body[8:12], "little"))
    assert handles[:4095] == list(range(0x06800001, 0x06801000))
    # There is one of that number.
    assert handles[4095] == 0x06800FFF


@pytest.mark.parametrize("request_", esp_steering._open(7, AGENT), ids=["table", "root"])
def test_what_everything_begins_with(request_: Request) -> None:
    found = esp_steering._filter_in(Message(44, request_.body), 7)
    if int.from_bytes(request_.body[8:12], "little") == 0x68 << 20:
        assert found is None
    else:
        assert found == (1, esp_steering._root(AGENT), (0x68 << 20).to_bytes(4, "little"))
