"""Contexts: whole, or refused with the exact reason, and never a key in what people read."""

from __future__ import annotations

import contextlib
import traceback
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mip6ha.failover.context import AssociationState, BindingState, Context, Version, decode, encode
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.wire import Malformed

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, mutations
from ..strategies import ADDRESSES, U16

KEY = b"\xc5SECRET-KEY-OCTETS\xc5\xc6"
INTEGRITY = b"\xc7SECRET-INTEGRITY-KEY-OF-32-OCT.\xc8"[:32]
GCM = "aes-gcm-16"
BINDING = BindingState(True, False, 7, CARE_OF_ADDRESS, CARE_OF_ADDRESS, 0xC000, 0, 15, 60_000, (), False)
INBOUND = AssociationState(0x1000, False, "signalling", GCM, KEY, b"", False, 1024, 9, 0, b"\1\xff")
OUTBOUND = AssociationState(0x1001, True, "signalling", GCM, KEY, b"", False, 64, 64, 0, b"")
CONTEXT = Context(1, HOME_ADDRESS, 0x101, 3, "mn", BINDING, (INBOUND, OUTBOUND), 0, False, ())

_AEAD_KEYS = st.sampled_from((20, 28, 36)).flatmap(lambda size: st.binary(min_size=size, max_size=size))
_USES = [use.value for use in Use if use is not Use.HARP]
_COUNTERS = st.integers(0, 2**64 - 1)


@st.composite
def _associations(draw: st.DrawFn) -> tuple[AssociationState, ...]:
    spis = draw(st.lists(st.integers(256, 0xFFFFFFFF), max_size=6, unique=True))
    return tuple(
        AssociationState(
            spi,
            draw(st.booleans()),
            draw(st.sampled_from(_USES)),
            GCM,
            draw(_AEAD_KEYS),
            b"",
            draw(st.booleans()),
            draw(st.integers(64, 65536)),
            draw(_COUNTERS),
            draw(_COUNTERS),
            draw(st.binary(max_size=8)),
        )
        for spi in spis
    )


_PREFIXES = st.lists(st.tuples(ADDRESSES, st.integers(1, 128)), max_size=3).map(tuple)
_BINDINGS = st.integers(0, 0xFFFF).flatmap(
    lambda lifetime: st.builds(
        BindingState,
        st.just(bool(lifetime)),
        st.booleans(),
        U16,
        ADDRESSES,
        ADDRESSES,
        U16,
        st.integers(0, 255),
        st.just(lifetime),
        _COUNTERS,
        _PREFIXES,
        st.booleans(),
    )
)
CONTEXTS = st.builds(
    Context,
    st.just(1),
    ADDRESSES,
    st.integers(0, 2**63 - 1),
    st.integers(1, 2**62),
    st.text(max_size=20),
    st.none() | _BINDINGS,
    _associations(),
    _COUNTERS,
    st.just(False),
)


def with_binding(**fields: Any) -> Context:
    return structs.replace(CONTEXT, binding=structs.replace(BINDING, **fields))


def with_association(**fields: Any) -> Context:
    return structs.replace(CONTEXT, associations=(structs.replace(INBOUND, **fields), OUTBOUND))


def refusal(octets: bytes) -> str:
    """The reason why ``octets`` are refused; nothing that anybody reads of it holds a key."""
    with pytest.raises(Malformed) as caught:
        decode(octets)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value)
    assert "SECRET" not in shown
    assert caught.value.__cause__ is None
    return caught.value.reason


@given(CONTEXTS)
def test_round_trip(context: Context) -> None:
    assert decode(encode(context)) == context


def test_version() -> None:
    assert CONTEXT.version == Version(0x101, 3)
    assert Version(2, 1) > Version(1, 9) > Version(1, 8)


def test_directions_are_seen_from_the_home_agent() -> None:
    assert (INBOUND.direction, OUTBOUND.direction) == (Direction.IN, Direction.OUT)


def test_no_key_in_a_representation() -> None:
    for shown in (repr(CONTEXT), str(CONTEXT), repr(INBOUND), f"{CONTEXT.associations}"):
        assert "SECRET" not in shown
    assert "0x00001000" in repr(INBOUND)


_BOUNDS: dict[str, list[Context]] = {
    "home address": [structs.replace(CONTEXT, home_address=HOME_ADDRESS + b"\0")],
    "short home address": [structs.replace(CONTEXT, home_address=HOME_ADDRESS[1:])],
    "term": [structs.replace(CONTEXT, term=each) for each in (-1, 2**63, 2**64 - 1)],
    "generation": [structs.replace(CONTEXT, generation=each) for each in (-1, 0, 2**62 + 1, 2**64 - 1)],
    "sequence": [with_binding(sequence=each) for each in (-2, 0x10000)],
    "care-of address": [with_binding(care_of_address=each) for each in (b"", bytes(15), bytes(17))],
    "source": [with_binding(source=each) for each in (b"", bytes(15), bytes(17))],
    "flags": [with_binding(flags=each) for each in (-1, 0x10000)],
    "status": [with_binding(status=each) for each in (-1, 256)],
    "lifetime": [with_binding(lifetime=each) for each in (-1, 0x10000)],
    "remaining": [with_binding(remaining=-1)],
    "prefix length": [with_binding(prefixes=((HOME_ADDRESS, each),)) for each in (0, 129, -1)],
    "prefix": [with_binding(prefixes=((bytes(15), 64),))],
    "spi": [with_association(spi=each) for each in (0, 255, 2**32, -1)],
    "window": [with_association(size=each) for each in (0, 63, 65537)],
    "counter": [with_association(counter=-1)],
    "limit": [with_association(limit=-1)],
}


@pytest.mark.parametrize("name", _BOUNDS)
def test_the_bounds_of_every_number_and_address(name: str) -> None:
    for context in _BOUNDS[name]:
        assert refusal(encode(context)) == "context_schema"


def _raw(context: Context = CONTEXT) -> list[Any]:
    """A context as the lists it is made of."""
    found = msgspec.msgpack.decode(encode(context))
    assert isinstance(found, list)
    return found


def _places(value: object, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    if not isinstance(value, list):
        return [path]
    return [path, *(each for index, part in enumerate(value) for each in _places(part, (*path, index)))]


@pytest.mark.parametrize("path", _places(_raw()), ids=str)
def test_a_value_of_another_type_anywhere(path: tuple[int, ...]) -> None:
    for wrong in ({"SECRET": 1}, 1.5, "SECRET", b"SECRET" * 3, [b"SECRET"], 1 << 40, True):
        raw: Any = [_raw()]
        place = raw
        for index in (0, *path)[:-1]:
            place = place[index]
        last = (0, *path)[-1]
        if type(place[last]) is type(wrong):
            continue
        place[last] = wrong
        octets = msgspec.msgpack.encode(raw[0])
        try:
            decode(octets)
        except Malformed:
            assert refusal(octets).startswith("context_")
        else:
            # The only place where it fits all the same.
            assert isinstance(wrong, bytes | int)


def test_missing_and_additional_fields() -> None:
    raw = _raw()
    assert refusal(msgspec.msgpack.encode(raw[:-1])) == "context_schema"
    assert refusal(msgspec.msgpack.encode([*raw, 1])) == "context_schema"
    for index in (5, 6):
        longer = _raw()
        (longer[index] if index == 5 else longer[index][0]).append(b"SECRET")
        assert refusal(msgspec.msgpack.encode(longer)) == "context_schema"
        shorter = _raw()
        (shorter[index] if index == 5 else shorter[index][0]).pop()
        assert refusal(msgspec.msgpack.encode(shorter)) == "context_schema"


def test_octets_behind_the_end() -> None:
    assert refusal(encode(CONTEXT) + b"\0") == "context_schema"


def test_every_truncation() -> None:
    octets = encode(CONTEXT)
    for end in range(len(octets)):
        assert refusal(octets[:end]) == "context_schema"


@pytest.mark.parametrize("number", [0, 2, 1 << 60])
def test_a_layout_of_another_version(number: int) -> None:
    assert refusal(encode(structs.replace(CONTEXT, format=number))) == "context_format"


@pytest.mark.parametrize("fields", [{"transform": "aes-gcm-17"}, {"transform": ""}, {"use": "SECRET"}])
def test_algorithms_and_uses_that_nobody_knows(fields: dict[str, str]) -> None:
    assert refusal(encode(with_association(**fields))) == "context_algorithm"


@pytest.mark.parametrize("length", [0, 16, 19, 21, 32, 64])
def test_keys_of_a_wrong_length(length: int) -> None:
    assert refusal(encode(with_association(encryption=(KEY * 4)[:length]))) == "context_keys"


def test_an_integrity_key_where_there_must_be_none() -> None:
    assert refusal(encode(with_association(integrity=INTEGRITY))) == "context_keys"


def test_the_keys_of_members_are_nobody_s_context() -> None:
    assert refusal(encode(with_association(use="harp"))) == "context_keys"


def test_a_bitmap_longer_than_its_window() -> None:
    assert decode(encode(with_association(size=64, bitmap=b"\xff" * 8)))
    assert refusal(encode(with_association(size=64, bitmap=b"SECRETSEC"))) == "context_window"


def test_an_spi_twice() -> None:
    both = structs.replace(CONTEXT, associations=(INBOUND, INBOUND))
    assert refusal(encode(both)) == "context_spi"
    # The other direction is another SA.
    other_way = structs.replace(OUTBOUND, spi=INBOUND.spi)
    assert decode(encode(structs.replace(CONTEXT, associations=(INBOUND, other_way))))


@pytest.mark.parametrize(
    "fields", [{"bound": False}, {"lifetime": 0}, {"sequence": -1}, {"bound": False, "sequence": -1}]
)
def test_a_binding_that_contradicts_itself(fields: dict[str, Any]) -> None:
    assert refusal(encode(with_binding(**fields))) == "context_binding"


def test_a_mobile_node_without_a_binding() -> None:
    context = structs.replace(CONTEXT, binding=None)
    assert decode(encode(context)) == context


@given(CONTEXTS, st.integers(0, 2**32))
def test_mutated_octets_are_whole_or_malformed(context: Context, seed: int) -> None:

    for octets in mutations(encode(context), Random(seed).random, 20):
        with contextlib.suppress(Malformed):
            found = decode(octets)
            assert decode(encode(found)) == found


def test_of_a_mobile_node_that_is_gone_only_the_version_is_left() -> None:
    gone = structs.replace(CONTEXT, binding=None, associations=(), gone=True)
    assert decode(encode(gone)) == gone
    for more in ({"binding": BINDING}, {"associations": (INBOUND,)}, {"timestamp": 1}):
        assert refusal(encode(structs.replace(gone, **more))) == "context_gone"
