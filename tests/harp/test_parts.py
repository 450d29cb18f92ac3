"""Entries in parts: whole again in any order, never half, and never more of them than there is room for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.binding.messages import MobileNetworkPrefix
from mip6ha.harp.messages import StateEntry, StateReply, build, parse
from mip6ha.harp.parts import LARGEST_ENTRY, Parts, in_parts
from mip6ha.wire import Malformed, address

HOME_ADDRESS, OTHER = address("2001:db8:a::100"), address("2001:db8:a::101")
SOURCE, DESTINATION = address("2001:db8:e::1"), address("2001:db8:e::2")
PREFIXES = tuple(MobileNetworkPrefix(address(f"2001:db8:{each:x}::"), 48) for each in range(16))


def entry(context: bytes, home_address: bytes = HOME_ADDRESS, generation: int = 7) -> StateEntry:
    return StateEntry(home_address, home_address, 0, 1, 2, PREFIXES, generation=generation, context=context)


def reply(*entries: StateEntry) -> StateReply:
    return StateReply(9, True, entries, 0x101)


def sent(message: StateReply) -> StateReply:
    """As it comes out at the other end; it has to fit a message."""
    received = parse(build(message, SOURCE, DESTINATION), SOURCE, DESTINATION)
    assert isinstance(received, StateReply)
    return received


CONTEXTS = st.builds(
    lambda size, seed: b"\x99" + bytes(each * seed & 0xFF for each in range(size)),
    st.integers(0, 20_000),
    st.integers(1, 255),
)


@given(CONTEXTS, st.randoms(use_true_random=False))
def test_parts_make_the_entry_in_any_order(context: bytes, random: object) -> None:
    messages = [sent(each) for each in in_parts(reply(entry(context)))]
    assert [each.acknowledge for each in messages] == [False] * (len(messages) - 1) + [True]
    random.shuffle(messages)  # type: ignore[attr-defined]
    parts = Parts()
    found = [parts.join(each.entries[0]) for each in messages]
    assert found[:-1] == [None] * (len(messages) - 1)
    whole = found[-1]
    assert whole is not None
    assert whole.context == context
    assert not len(parts)


def test_what_fits_goes_in_one() -> None:
    small = reply(entry(bytes(100)), entry(bytes(100), OTHER))
    assert in_parts(small) == [small]
    assert len(in_parts(reply(entry(bytes(LARGEST_ENTRY))))) == 2


def test_a_missing_part_is_waited_for() -> None:
    first, second, third = in_parts(reply(entry(b"\x99" * 3000)))
    parts = Parts()
    for each in (first, third, third, first):
        assert parts.join(each.entries[0]) is None
    whole = parts.join(second.entries[0])
    assert whole is not None
    assert whole.context == b"\x99" * 3000
    assert whole.prefixes == (), "those of the part that came last: the context has them too"


def test_generations_are_not_mixed() -> None:
    old = in_parts(reply(entry(b"\x99" * 3000, generation=7)))
    new = in_parts(reply(entry(b"\x98" * 3000, generation=8)))
    parts = Parts()
    for each in (old[0], new[1], old[2], new[0]):
        assert parts.join(each.entries[0]) is None
    whole = parts.join(new[2].entries[0])
    assert whole is not None
    assert whole.context == b"\x98" * 3000


def test_of_one_sender_few_wait() -> None:
    parts = Parts()
    for index in range(1000):
        first, _ = in_parts(reply(entry(bytes([0x99]) * LARGEST_ENTRY, generation=index + 1)))
        assert parts.join(first.entries[0]) is None
    assert len(parts) == 64


@pytest.mark.parametrize(
    "octets", [b"\xc1", b"\xc1\0\1\0\0\0\0", b"\xc1\2\2\0\0\0\0x", b"\xc1\0\0\0\0\0\0x", b"\xc1\0\1\0\0\0\0x"]
)
def test_a_part_that_is_none(octets: bytes) -> None:
    parts = Parts()
    with pytest.raises(Malformed, match="context_part"):
        parts.join(entry(octets))
    assert not len(parts)
