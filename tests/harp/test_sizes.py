"""How much of a message a mobile node takes: what is foretold is what is built."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.harp import messages
from mip6ha.harp.messages import StateEntry, StateReply, build, entry_size, packed, parse

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT
from .strategies import TERMS, entries

_BETWEEN = (HOME_AGENT, CARE_OF_ADDRESS)
_ENTRY = StateEntry(HOME_ADDRESS, CARE_OF_ADDRESS, 0xC000, 7, 15)


@given(entries(1500), TERMS, st.booleans())
def test_the_size_of_one_entry_is_exact(entry: StateEntry, term: int | None, extensions: bool) -> None:
    reply = StateReply(1, True, (entry,), term)
    alone = messages.MAX_LENGTH + 1
    for room in range(16, messages.MAX_LENGTH + 8, 8):
        try:
            assert list(packed([entry], term, room, extensions=extensions)) == [(entry,)]
        except ValueError:
            continue
        alone = room
        break
    try:
        octets = build(reply, *_BETWEEN, extensions=extensions)
    except ValueError:
        assert alone > messages.MAX_LENGTH
        return
    assert len(octets) == alone
    assert len(octets) <= 32 + entry_size(entry, extensions=extensions)


@given(
    st.lists(entries(1000, aaa=60), max_size=12, unique_by=lambda entry: entry.home_address),
    TERMS,
    st.integers(1400, 2048),
    st.booleans(),
)
def test_messages_are_as_full_as_they_can_be(
    items: list[StateEntry], term: int | None, room: int, extensions: bool
) -> None:
    def size(group: tuple[StateEntry, ...]) -> int:
        try:
            return len(build(StateReply(1, True, group, term), *_BETWEEN, extensions=extensions))
        except ValueError:
            return messages.MAX_LENGTH + 8

    groups = list(packed(items, term, room, extensions=extensions))
    assert [entry for group in groups for entry in group] == items
    assert all(size(group) <= room for group in groups)
    assert all(size((*group, after[0])) > room for group, after in pairwise(groups))
    assert all(
        size(group) <= 32 + sum(entry_size(entry, extensions=extensions) for entry in group)
        for group in groups
    )


def test_the_largest_context() -> None:
    largest = _ENTRY._replace(generation=1, context=bytes(1876))
    assert list(packed([largest], 4)) == [(largest,)]
    octets = build(StateReply(1, True, (largest,), 4), *_BETWEEN)
    assert len(octets) == messages.MAX_LENGTH
    assert parse(octets, *_BETWEEN) == StateReply(1, True, (largest,), 4)
    larger = largest._replace(context=bytes(1877))
    with pytest.raises(ValueError, match=r"2001:db8:a::100 takes 20\d\d octets of 2048"):
        list(packed([largest, larger], 4))
    with pytest.raises(ValueError, match="2048"):
        build(StateReply(1, True, (larger,), 4), *_BETWEEN)
