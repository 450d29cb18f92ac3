"""The sealed journal: what comes back of it, and that everything that is wrong with it is found."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from mip6ha.failover import journal
from mip6ha.failover.context import BindingState, Context, decode, encode
from mip6ha.failover.journal import Moment, Segment, SegmentWriter
from mip6ha.wire import Malformed

from ..octets import HOME_ADDRESS
from .test_context import BINDING, CONTEXT, CONTEXTS

KEY = bytes(range(32))
BOOT = Moment("boot 1", 5_000_000, 1_700_000_000_000)


def later(milliseconds: int, *, boot: str = BOOT.boot, wall: int | None = None) -> Moment:
    return Moment(boot, BOOT.monotonic + milliseconds, BOOT.wall + (milliseconds if wall is None else wall))


def writer(generation: int = 1, seed: int = 0) -> SegmentWriter:
    return SegmentWriter(KEY, generation, Random(seed + generation).randbytes)


def of(*contexts: Context, moment: Moment = BOOT, complete: bool = True) -> journal.Batch:
    return journal.batch(moment, map(encode, contexts), complete=complete)


def numbered(sequence: int, home_address: bytes = HOME_ADDRESS) -> Context:
    return structs.replace(
        CONTEXT, home_address=home_address, binding=structs.replace(BINDING, sequence=sequence)
    )


def segment(*batches: journal.Batch, generation: int = 1, mark: int = 0) -> tuple[bytes, list[int]]:
    """The octets of a segment, and where its records begin."""
    made = writer(generation)
    octets = bytearray(made.beginning)
    places = []
    for batch in batches:
        places.append(len(octets))
        octets += made.record(batch)
    if mark:
        at, sealed = made.mark(mark)
        octets[at : at + len(sealed)] = sealed
    return bytes(octets), places


def restored(*segments: Segment, now: Moment = BOOT, alone: bool = True) -> tuple[list[Context], list[str]]:
    found = journal.restore(segments, now, alone=alone)
    return found.contexts, found.wrong


@given(st.lists(st.lists(CONTEXTS, max_size=3), max_size=4), st.booleans())
@settings(max_examples=50)
def test_what_was_written_is_read(contexts: list[list[Context]], complete: bool) -> None:
    batches = [of(*each, complete=complete) for each in contexts]
    octets, _ = segment(*batches, generation=7, mark=len(batches))
    assert journal.read(octets, KEY) == Segment(7, batches)


def test_no_key_and_no_address_is_in_the_clear() -> None:
    octets, _ = segment(of(CONTEXT))
    for each in (CONTEXT.associations[0].encryption, CONTEXT.home_address, b"signalling", KEY):
        assert each not in octets
    assert "SECRET" not in repr(of(CONTEXT)) + str(of(CONTEXT))


def test_no_two_segments_and_no_two_records_are_sealed_alike() -> None:
    (one, first), (other, second) = segment(of(CONTEXT), of(CONTEXT)), segment(of(CONTEXT), generation=2)
    assert one[first[0] + 4 : first[1]] != one[first[1] + 4 :]
    assert one[first[0] : first[1]] != other[second[0] :]


@given(st.data())
@settings(max_examples=150)
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    batches = [of(numbered(each)) for each in range(4)]
    octets, _ = segment(*batches, mark=4)
    bit = data.draw(st.integers(0, len(octets) * 8 - 1))
    damaged = bytearray(octets)
    damaged[bit >> 3] ^= 1 << (bit & 7)
    try:
        found = journal.read(bytes(damaged), KEY)
    except Malformed:
        assert bit >> 3 < 104
        return
    # Of the two marks one is enough, and the first of them was written when there was nothing.
    assert found.wrong or (found.batches == batches and 40 <= bit >> 3 < 104)
    assert found.batches == batches[: len(found.batches)]


@given(st.integers(0, 3), st.integers(0, 3))
def test_moved_repeated_and_left_out_records_are_found(one: int, other: int) -> None:
    batches = [of(numbered(each)) for each in range(4)]
    octets, places = segment(*batches, mark=4)
    ends = [*places[1:], len(octets)]
    parts = [octets[start:end] for start, end in zip(places, ends, strict=True)]
    head = octets[: places[0]]
    swapped = list(parts)
    swapped[one], swapped[other] = parts[other], parts[one]
    repeated = [*parts[: one + 1], *parts[one:]]
    left_out = parts[:one] + parts[one + 1 :]
    rolled_back = [parts[other] if each == one else part for each, part in enumerate(parts)]
    for wrong in (swapped, repeated, left_out, rolled_back):
        found = journal.read(head + b"".join(wrong), KEY)
        if wrong == parts:
            assert found == Segment(1, batches)
            continue
        assert found.wrong
        assert found.batches == batches[: len(found.batches)]


def test_a_record_of_another_segment_is_found() -> None:
    octets, places = segment(of(numbered(1)), of(numbered(2)))
    other, elsewhere = segment(of(numbered(3)), of(numbered(4)), generation=2)
    found = journal.read(octets[: places[1]] + other[elsewhere[1] :], KEY)
    assert (len(found.batches), found.wrong) == (1, "record 1 is damaged")


def test_a_record_that_was_never_finished_is_nothing_wrong() -> None:
    batches = [of(numbered(each)) for each in range(3)]
    octets, places = segment(*batches, mark=2)
    for end in range(places[2], len(octets)):
        assert journal.read(octets[:end], KEY) == Segment(1, batches[:2])


def test_what_was_stored_and_is_cut_off_is_missed() -> None:
    batches = [of(numbered(each)) for each in range(3)]
    octets, places = segment(*batches, mark=2)
    for end in (places[0], places[1], places[1] + 5):
        found = journal.read(octets[:end], KEY)
        assert found.wrong.startswith("2 records were stored, ")


def test_of_the_marks_the_later_one_counts() -> None:
    made = writer()
    octets = bytearray(made.beginning + made.record(of(CONTEXT)))
    for count in (3, 4, 5):
        at, sealed = made.mark(count)
        octets[at : at + len(sealed)] = sealed
    assert journal.read(bytes(octets), KEY).wrong == "5 records were stored, 1 are there"
    # Torn, the one before it.
    octets[at] ^= 1
    assert journal.read(bytes(octets), KEY).wrong == "4 records were stored, 1 are there"


@pytest.mark.parametrize("octets", [b"", bytes(103), b"another file" * 20])
def test_another_file(octets: bytes) -> None:
    with pytest.raises(Malformed, match="journal_header"):
        journal.read(octets, KEY)


def test_another_key() -> None:
    octets, _ = segment(of(CONTEXT))
    with pytest.raises(Malformed, match="journal_key"):
        journal.read(octets, KEY[::-1])


@given(st.integers(0, 2**32))
@settings(max_examples=50)
def test_mutated_files_are_read_or_refused(seed: int) -> None:
    random = Random(seed)
    octets = bytearray(segment(*(of(numbered(each)) for each in range(3)))[0])
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(octets))
        if random.random() < 0.5:
            octets[at : at + random.randrange(20)] = random.randbytes(random.randrange(20))
        else:
            del octets[at:]
            octets += bytes(104 - len(octets)) if len(octets) < 104 else b""
    try:
        found = journal.read(bytes(octets), KEY)
    except Malformed:
        return
    for batch, sequence in zip(found.batches, range(3), strict=False):
        assert batch == of(numbered(sequence))


# -- what may be used ----------------------------------------------------------------------------------


def test_the_latest_of_each_mobile_node() -> None:
    other = HOME_ADDRESS[:-1] + b"\7"
    first = Segment(3, [of(numbered(1), numbered(8, other)), of(numbered(2), complete=False)])
    second = Segment(4, [of(numbered(3), complete=False)])
    contexts, wrong = restored(second, first)
    assert [(each.home_address, each.binding and each.binding.sequence) for each in contexts] == [
        (HOME_ADDRESS, 3),
        (other, 8),
    ]
    assert wrong == []


def test_what_is_before_a_complete_segment_is_of_no_use() -> None:
    old = Segment(1, [of(numbered(1, HOME_ADDRESS[:-1] + b"\7"))])
    contexts, wrong = restored(old, Segment(2, [of(complete=False), of(numbered(2))]))
    assert [each.home_address for each in contexts] == [HOME_ADDRESS]
    assert wrong == []


@pytest.mark.parametrize("generations", [(1, 3), (2,), (2, 4)])
def test_a_segment_that_is_missing(generations: tuple[int, ...]) -> None:
    segments = [Segment(each, [of(numbered(each), complete=each == 1)]) for each in generations]
    _, wrong = restored(*segments)
    assert wrong == ["a segment is missing"]


def test_no_journal_is_no_mistake() -> None:
    assert restored() == ([], [])
    assert restored(Segment(1, [])) == ([], ["a segment is missing"])


def binding(moment: Moment, *segments: Segment, alone: bool = True) -> BindingState:
    (context,), _ = restored(*(segments or (Segment(1, [of(CONTEXT)]),)), now=moment, alone=alone)
    assert context.binding is not None
    return context.binding


def test_within_a_boot_the_clock_that_nobody_sets_tells_the_age() -> None:
    assert binding(later(20_000)).remaining == 40_000
    assert binding(later(20_000, wall=-5_000_000)).remaining == 40_000
    assert binding(later(20_000, wall=5_000_000)).remaining == 40_000
    assert not binding(later(60_000)).bound


def test_after_another_boot_only_the_time_of_day_does() -> None:
    def booted(wall: int) -> Moment:
        return Moment("boot 2", 10_000, BOOT.wall + wall)

    assert binding(booted(20_000)).remaining == 40_000
    assert not binding(booted(60_000)).bound
    # It was set back: nobody knows.
    assert not binding(booted(-1)).bound


def test_a_binding_that_is_over_keeps_its_sequence_number() -> None:
    over = binding(later(100_000))
    assert over == structs.replace(BINDING, bound=False, lifetime=0, remaining=0)
    assert decode(encode(structs.replace(CONTEXT, binding=over))).binding == over


def test_only_what_lacks_nothing_is_not_fenced() -> None:
    assert not binding(later(1)).fenced
    assert binding(later(1, boot="boot 2")).fenced
    assert binding(later(1), alone=False).fenced
    assert binding(later(1), Segment(1, [of(CONTEXT)], "record 1 is damaged")).fenced
    assert binding(later(1), Segment(2, [of(CONTEXT, complete=False)])).fenced
    was = structs.replace(CONTEXT, binding=structs.replace(BINDING, fenced=True))
    assert binding(later(1), Segment(1, [of(was)])).fenced


def test_a_context_of_another_layout_is_told_and_the_others_are_used() -> None:
    strange = structs.replace(CONTEXT, format=9, home_address=HOME_ADDRESS[:-1] + b"\7")
    contexts, wrong = restored(Segment(1, [of(strange, CONTEXT)]))
    assert [each.home_address for each in contexts] == [HOME_ADDRESS]
    assert wrong == ["context_format"]
    assert contexts[0].binding is not None
    assert contexts[0].binding.fenced
