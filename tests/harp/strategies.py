"""Hypothesis strategies: messages between home agents as the codec accepts them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st

from mip6ha.binding.messages import MobileNetworkPrefix
from mip6ha.harp import messages
from mip6ha.harp.messages import StateEntry
from mip6ha.harp.numbers import DEFAULT
from mip6ha.mobility import Option

from ..strategies import ADDRESSES, U8, U16

U64 = st.integers(0, 2**64 - 1)
TERMS = st.none() | U64
DRAFT = replace(DEFAULT, term=251, context=252, synchronized_members=253, digest=254, incarnation=255)
"""The draft's table, in which our extensions have no number that anybody uses."""
_KNOWN = {6, 8, *range(60, 69), *range(DEFAULT.ip_address, DEFAULT.incarnation + 1), *range(DRAFT.term, 256)}
UNKNOWN_OPTIONS = st.builds(
    Option, st.sampled_from([kind for kind in range(2, 256) if kind not in _KNOWN]), st.binary(max_size=40)
)
OPTIONS = st.lists(UNKNOWN_OPTIONS, max_size=4).map(tuple)
PREFIXES = st.builds(MobileNetworkPrefix, ADDRESSES, st.integers(0, 128))
T = TypeVar("T")


def tuples(elements: st.SearchStrategy[T], most: int) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(elements, max_size=most).map(tuple)


def entries(context: int, aaa: int = 600) -> st.SearchStrategy[StateEntry]:
    """Entries with a context of up to ``context`` octets, short and long ones alike."""
    return st.builds(
        StateEntry,
        ADDRESSES,
        ADDRESSES,
        U16,
        U16,
        U16,
        tuples(PREFIXES, 3),
        st.none() | st.binary(min_size=2, max_size=60),
        st.none() | st.integers(0, aaa).map(bytes) | st.binary(max_size=40),
        st.just(0) | U64,
        st.binary(max_size=20) | st.integers(0, context).map(lambda size: (bytes(range(251)) * 9)[:size]),
    )


def _distinct(least: int, most: int, context: int) -> st.SearchStrategy[tuple[StateEntry, ...]]:
    return st.lists(
        entries(context, aaa=60), min_size=least, max_size=most, unique_by=lambda entry: entry.home_address
    ).map(tuple)


HOME_ADDRESSES = st.lists(ADDRESSES, max_size=5, unique=True).map(tuple)
REPLIES = st.builds(
    messages.StateReply, U16, st.booleans(), _distinct(0, 2, 400) | _distinct(1, 1, 1500), TERMS
)
_STATUSES = st.lists(st.tuples(U8, ADDRESSES), max_size=5, unique_by=lambda status: status[1]).map(tuple)
_REPLIES = (messages.ControlType.SWO_REP, messages.ControlType.SWB_REP)
_OTHERS = [kind for kind in messages.ControlType if kind not in _REPLIES]
_HELLOS = st.builds(
    messages.Hello,
    U16,
    st.integers(-(2**15), 2**15 - 1),
    U16,
    U16,
    U8,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    TERMS,
    st.none() | tuples(U8, 8),
    OPTIONS,
    U64,
    U64,
    U64,
)
HELLOS = _HELLOS | _HELLOS.map(lambda hello: hello._replace(incarnation=None, echo=0, floor=0))

MESSAGES: st.SearchStrategy[messages.Body] = st.one_of(
    HELLOS,
    st.builds(messages.StateRequest, U16, HOME_ADDRESSES, st.binary(max_size=255)),
    REPLIES,
    st.builds(messages.StateAcknowledge, U16, _STATUSES),
    st.builds(messages.Control, st.sampled_from(_REPLIES), U8, TERMS, HOME_ADDRESSES),
    st.builds(messages.Control, st.sampled_from(_OTHERS), st.just(0), TERMS, HOME_ADDRESSES),
    st.builds(messages.HomeAgentSwitch, tuples(ADDRESSES, 5), st.booleans(), OPTIONS),
)
