"""Hostile octets at the codec between home agents: a whole message, or Malformed, and never half of one."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha import mobility
from mip6ha.binding.messages import MobileNetworkPrefix
from mip6ha.harp.messages import (
    Body,
    Control,
    Hello,
    HomeAgentSwitch,
    StateAcknowledge,
    StateEntry,
    StateReply,
    StateRequest,
    build,
    parse,
    parse_body,
)
from mip6ha.wire import Malformed

from ..harp.strategies import MESSAGES
from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, mutations

_BETWEEN = (HOME_AGENT, CARE_OF_ADDRESS)
_ENTRY = StateEntry(
    HOME_ADDRESS,
    CARE_OF_ADDRESS,
    0xC400,
    7,
    15,
    (MobileNetworkPrefix(HOME_ADDRESS, 64),),
    b"\1mn@example",
    b"avps",
    5,
    bytes(range(250)) * 2,
)
_SEEDS: list[Body] = [
    Hello(1, 5, 30, 10, 7, True, True, True, 99, (1, 2)),
    StateRequest(9, (HOME_ADDRESS, HOME_AGENT)),
    StateReply(9, True, (_ENTRY, _ENTRY._replace(home_address=HOME_AGENT, context=b"")), 99),
    StateAcknowledge(9, ((0, HOME_ADDRESS), (131, HOME_AGENT))),
    Control(1, 130, 99, (HOME_ADDRESS,)),
    HomeAgentSwitch((HOME_AGENT, HOME_ADDRESS), True),
]


def outcome(kind: int, body: bytes) -> Body | Malformed:
    try:
        return parse_body(mobility.Message(kind, body))
    except Malformed as error:
        return error


def check(kind: int, body: bytes) -> str:
    """What became of ``body``; a message that came out must survive being sent again, unless too long."""
    message = outcome(kind, body)
    if isinstance(message, Malformed):
        assert 0 <= message.offset <= len(body)
        return message.reason
    assert all(isinstance(value, tuple | int | bytes | None) for value in message)
    if isinstance(message, StateReply):
        homes = [entry.home_address for entry in message.entries]
        assert len(set(homes)) == len(homes)
    if len(body) < 1200:
        assert parse(build(message, *_BETWEEN), *_BETWEEN) == message
    return type(message).__name__


@given(st.binary(max_size=300))
def test_arbitrary_octets(data: bytes) -> None:
    with pytest.raises(Malformed):
        # Nothing random has a checksum that holds.
        parse(b"\x3b\x00\xf0\x00\xff\xff" + data, *_BETWEEN)


@given(st.sampled_from((240, 241, 242, 12)), st.binary(min_size=2, max_size=300))
def test_arbitrary_bodies(kind: int, body: bytes) -> None:
    check(kind, body)


@settings(max_examples=60)
@given(MESSAGES, st.integers(0, 2**32))
def test_mutated_messages(message: Body, seed: int) -> None:
    octets = build(message, *_BETWEEN)
    for data in mutations(octets[6:], random.Random(seed).random, 20):
        if len(data) >= 2:
            check(octets[2], data)


def _reasons(count: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for number, message in enumerate(_SEEDS):
        octets = build(message, *_BETWEEN)
        for data in mutations(octets[6:], random.Random(number).random, count):
            if len(data) >= 2:
                found[check(octets[2], data)] += 1
    return found


def test_mutations_reach_every_refusal() -> None:
    found = _reasons(2000)
    expected = {
        "context_fragment",
        "context_incomplete",
        "mobility_header_length",
        "mobility_option_length",
        "option_without_binding",
        "prefix_length",
        "repeated_option",
        "truncated_mobility_option",
        "unknown_control_type",
        "unknown_state_synchronization_type",
    }
    assert expected <= found.keys()
    assert {type(message).__name__ for message in _SEEDS} <= found.keys()


@pytest.mark.fuzz
def test_many_mutations() -> None:
    assert _reasons(20000).total() > 100000
