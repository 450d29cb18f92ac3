"""XFRM messages without a kernel: encoding, decoding, and what never shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.edge import xfrm
from mip6ha.edge.features import kernel_features
from mip6ha.edge.netlink_messages import attribute, attributes, nested
from mip6ha.edge.xfrm_layout import POLICY_SIZE, STATE_SIZE, Limits, Mode, Selector
from mip6ha.edge.xfrm_policy import Action, Direction, InstalledPolicy, Policy, PolicyType, Template
from mip6ha.edge.xfrm_state import Counters, InstalledState, Protection, State, StateFlag, StateId
from mip6ha.ipsec.algorithms import Keys
from mip6ha.ipsec.replay import ReplayWindow

ADDRESSES = st.binary(min_size=16, max_size=16)
WINDOWS = st.sampled_from([64, 128, 1024, 2048, 4096])
SELECTORS = st.builds(
    Selector,
    *(ADDRESSES, st.integers(0, 128), ADDRESSES, st.integers(0, 128)),
    protocol=st.integers(0, 255),
    kind=st.none() | st.integers(0, 0xFFFF),
    code=st.none() | st.integers(0, 0xFFFF),
)
AMOUNTS = st.none() | st.integers(1, 1 << 40)
LIMITS = st.builds(Limits, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
PROTECTIONS = st.sampled_from(
    [
        Protection("aes-gcm-16", Keys(bytes(range(36)))),
        Protection("chacha20-poly1305", Keys(bytes(range(36)))),
        Protection("aes-cbc+hmac-sha2-384-192", Keys(bytes(24), bytes(range(48)))),
        Protection("null+hmac-sha1-96", Keys(b"", bytes(range(20)))),
    ]
)
SPIS = st.integers(256, 0xFFFFFFFF)
STATES = st.builds(
    State,
    *(ADDRESSES, ADDRESSES, st.just(50), st.sampled_from(Mode), SPIS, st.integers(0, 0xFFFFFFFF), SELECTORS),
    protection=PROTECTIONS,
    care_of_address=st.none() | ADDRESSES,
    flags=st.sampled_from([StateFlag.NONE, StateFlag.ESN, StateFlag.ESN | StateFlag.NO_ECN]),
    window=WINDOWS,
    limits=LIMITS,
)
TEMPLATES = st.builds(
    Template,
    *(st.sampled_from([43, 50, 60]), st.sampled_from(Mode), st.integers(0, 0xFFFFFFFF), ADDRESSES, ADDRESSES),
    optional=st.booleans(),
    spi=st.just(0) | SPIS,
)
POLICIES = st.builds(
    Policy,
    *(SELECTORS, st.sampled_from(Direction), st.integers(0, 0xFFFFFFFF), st.sampled_from(PolicyType)),
    templates=st.lists(TEMPLATES, max_size=4).map(tuple),
    action=st.sampled_from(Action),
    limits=LIMITS,
)


@st.composite
def counters(draw: st.DrawFn, window: int) -> Counters:
    """Counters as they can be: nothing seen before the first number."""
    received = draw(st.integers(0, (1 << 64) - 1))
    seen = draw(st.integers(0, (1 << window) - 1)) & (1 << min(received, window)) - 1
    return Counters(draw(st.integers(0, (1 << 64) - 1)), received, seen)


@given(STATES, st.data())
def test_a_state_is_read_as_it_was_written(state: State, data: st.DataObject) -> None:
    numbers = data.draw(counters(state.window))
    body = state.encoded(numbers)
    assert len(state.head()) == STATE_SIZE
    found = InstalledState.decoded(body, attributes(body, STATE_SIZE))
    assert (found.state, found.counters) == (state, numbers)
    assert found.state.id == StateId(state.destination, 50, state.spi, state.source)


@given(POLICIES)
def test_a_policy_is_read_as_it_was_written(policy: Policy) -> None:
    body = policy.encoded()
    assert InstalledPolicy.decoded(body, attributes(body, POLICY_SIZE)).policy == policy


@given(st.lists(st.integers(0, 200), max_size=80))
def test_the_ring_says_what_a_replay_window_says(steps: list[int]) -> None:
    """The kernel sets the bit (number - 1) % window, and clears those that it passes."""
    size = 64
    number = (1 << 32) - 100
    window = ReplayWindow(size, number)
    ring = 0
    for step in steps:
        number += step - 60
        if not window.is_new(number):
            continue
        for passed in range(window.top + 1, number + 1):
            ring &= ~(1 << (passed - 1) % size)
        ring |= 1 << (number - 1) % size
        window.advance(number)
    encoded = Counters(received=window.top, seen=window.bitmap).encoded(size)
    assert int.from_bytes(encoded[4 + 24 :], "little") == ring


def test_known_octets_of_a_selector() -> None:
    selector = Selector(bytes(15) + b"\1", 128, bytes(15) + b"\2", 64, 135, 5)
    assert (
        selector.encoded().hex()
        == (
            "00" * 15
            + "02"
            + "00" * 15
            + "01"
            + "00000000"
            + "0005ffff"
            + "0a00"
            + "40"
            + "80"
            + "87"
            + "000000"
        )
        + "00" * 8
    )


def test_keys_never_show() -> None:
    key = b"secret-octets-of-a-key-secret-octets"
    state = State(bytes(16), bytes(16), 50, Mode.TUNNEL, protection=Protection("aes-gcm-16", Keys(key)))
    assert "secret" not in repr(state)
    assert key.hex() not in repr(state)


def test_an_unknown_transform_is_refused_without_its_keys() -> None:
    protection = Protection("rot13", Keys(b"secret"))
    with pytest.raises(ValueError, match="no such transform") as error:
        protection.encoded()
    assert "secret" not in str(error.value)


def test_other_algorithms_keep_the_names_of_the_kernel() -> None:
    algorithm = b"cbc(camellia)".ljust(64, b"\0") + (128).to_bytes(4, "little") + bytes(16)
    found = Protection.decoded({2: algorithm})
    assert found == Protection("cbc(camellia)+", Keys(bytes(16)))


def test_attributes_that_run_past_the_end_are_left() -> None:
    data = attribute(1, b"abc") + nested(2, attribute(3, b"x")) + b"\xff\x00\x04\x00"
    assert attributes(data) == {1: b"abc", 2: attribute(3, b"x")}
    assert attributes(b"\1\0\0\0\0") == {}


def test_a_request_to_move_a_tunnel() -> None:
    change = xfrm.Migration(b"\1" * 16, b"\2" * 16, b"\3" * 16, b"\4" * 16, reqid=9)
    request = xfrm.migrate(Selector(), Direction.OUT, [change, replace_source(change)])
    entries = attributes(request.body, 64)[17]
    assert len(entries) == 2 * 76
    assert entries[:64] == b"\2" * 16 + b"\1" * 16 + b"\4" * 16 + b"\3" * 16


def replace_source(change: xfrm.Migration) -> xfrm.Migration:
    return change._replace(old_source=b"\5" * 16)


def test_limits_and_states_are_plain_data() -> None:
    state = State(bytes(16), bytes(16), 60, Mode.ROUTE_OPTIMIZATION)
    assert hash(state) == hash(replace(state))
    assert state.encoded(Counters()) == state.head()


@pytest.mark.netns
def test_features_are_found_by_trying() -> None:
    """Whatever this kernel has: the answer is the same twice, and says why something is missing."""
    found = kernel_features()
    assert found == kernel_features()
    for missing in found.missing:
        assert "(E" in missing
