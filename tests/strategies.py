"""Hypothesis strategies: addresses, mobility options and messages as the codecs accept them."""

from __future__ import annotations

from hypothesis import strategies as st

from mip6ha.binding import messages
from mip6ha.binding.messages import OPTION_RULES, Body, OptionType
from mip6ha.mobility import Option

from .octets import HOME_ADDRESS

ADDRESSES = st.binary(min_size=16, max_size=16)
ROUTABLE = st.binary(min_size=14, max_size=14).map(lambda tail: b"\x20\x01" + tail) | st.just(HOME_ADDRESS)
U8 = st.integers(0, 0xFF)
U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
_EIGHT = st.binary(min_size=8, max_size=8)


def _sized(kind: int) -> st.SearchStrategy[Option]:
    rule = OPTION_RULES[kind]
    data = st.binary(min_size=rule.length, max_size=rule.length if rule.exact else rule.length + 30)
    return st.builds(Option, st.just(int(kind)), data)


KNOWN_OPTIONS = st.one_of([_sized(kind) for kind in OptionType])
UNKNOWN_OPTIONS = st.builds(
    Option,
    st.sampled_from([kind for kind in range(2, 256) if kind not in OPTION_RULES]),
    st.binary(max_size=40),
)
OPTIONS = st.lists(KNOWN_OPTIONS | UNKNOWN_OPTIONS, max_size=5).map(tuple)

MESSAGES: st.SearchStrategy[Body] = st.one_of(
    st.builds(messages.BindingRefreshRequest, OPTIONS),
    st.builds(messages.HomeTestInit, _EIGHT, OPTIONS),
    st.builds(messages.CareOfTestInit, _EIGHT, OPTIONS),
    st.builds(messages.HomeTest, U16, _EIGHT, _EIGHT, OPTIONS),
    st.builds(messages.CareOfTest, U16, _EIGHT, _EIGHT, OPTIONS),
    st.builds(messages.BindingUpdate, U16, U16, U16, OPTIONS),
    st.builds(messages.BindingAcknowledgement, U8, U8, U16, U16, OPTIONS),
    st.builds(messages.BindingError, U8, ADDRESSES, OPTIONS),
)
