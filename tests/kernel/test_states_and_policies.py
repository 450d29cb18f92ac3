"""What we install is what iproute2 sees and what we read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mip6ha.edge import xfrm
from mip6ha.edge.netlink_messages import Overrun
from mip6ha.edge.xfrm import Xfrm
from mip6ha.edge.xfrm_events import (
    Counted,
    Expired,
    Installed,
    PolicyInstalled,
    PolicyRemoved,
    Removed,
    XfrmEvents,
)
from mip6ha.edge.xfrm_layout import ANY, Limits, Mode, Selector
from mip6ha.edge.xfrm_policy import Action, Direction, Policy, PolicyType, Template
from mip6ha.edge.xfrm_state import Counters, InstalledState, Protection, State, StateFlag
from mip6ha.ipsec.algorithms import Keys
from mip6ha.wire import UNSPECIFIED

from .network import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, Wire

ESP, HAO, ROUTE2, MH, ICMPV6 = 50, 60, 43, 135, 58
TO_HOME_AGENT = Selector.between(HOME_ADDRESS, HOME_AGENT)
TO_MOBILE_NODE = Selector.between(HOME_AGENT, HOME_ADDRESS)
RO = Mode.ROUTE_OPTIMIZATION


@pytest.fixture
def kernel(wire: Wire) -> Iterator[Xfrm]:
    with wire.inside():
        kernel = Xfrm()
    yield kernel
    kernel.close()


@pytest.fixture
def events(wire: Wire) -> Iterator[XfrmEvents]:
    with wire.inside():
        events = XfrmEvents()
    yield events
    events.close()


CBC = Protection("aes-cbc+hmac-sha2-256-128", Keys(bytes(range(15, -1, -1)), bytes(range(32))))


def esp(number: int, **changes: object) -> State:
    """One of UMIP's states: even ones inbound."""
    ends = (HOME_AGENT, HOME_ADDRESS) if number % 2 else (HOME_ADDRESS, HOME_AGENT)
    state = State(
        *ends, ESP, Mode.TRANSPORT, spi=0x2000 + number, reqid=number + 1, protection=CBC, window=64
    )
    return replace(state, **changes)  # type: ignore[arg-type]


# What a working home agent of another make has in the kernel for one mobile node.
UMIP_STATES: tuple[tuple[State, Counters], ...] = (
    (State(HOME_ADDRESS, HOME_AGENT, HAO, RO, 0, 0, TO_HOME_AGENT, None, CARE_OF_ADDRESS), Counters()),
    (State(HOME_AGENT, HOME_ADDRESS, ROUTE2, RO, 0, 0, TO_MOBILE_NODE, None, CARE_OF_ADDRESS), Counters()),
    (
        State(UNSPECIFIED, UNSPECIFIED, HAO, RO, 0, 0, ANY, None, UNSPECIFIED, StateFlag.WILD_RECEIVE),
        Counters(),
    ),
    (esp(3), Counters(sent=1)),
    (esp(2), Counters(received=1, seen=0b1)),
    (esp(1), Counters(sent=2)),
    (esp(0), Counters(received=2, seen=0b11)),
)
USE_HAO = Template(HAO, RO, 0, HOME_ADDRESS, HOME_AGENT, optional=True)


def main(selector: Selector, direction: Direction, priority: int, reqid: int) -> Policy:
    return Policy(selector, direction, priority, templates=(Template(ESP, Mode.TRANSPORT, reqid),))


def sub(selector: Selector, direction: Direction, priority: int, *templates: Template) -> Policy:
    return Policy(selector, direction, priority, PolicyType.SUB, templates)


IN, OUT = Direction.IN, Direction.OUT
UMIP_POLICIES = (
    sub(Selector(protocol=MH), OUT, 12),
    sub(TO_HOME_AGENT, IN, 16, USE_HAO),
    sub(TO_MOBILE_NODE, OUT, 16, Template(ROUTE2, RO, optional=True)),
    main(replace(TO_HOME_AGENT, protocol=ICMPV6, kind=146), IN, 5, 3),
    main(replace(TO_MOBILE_NODE, protocol=ICMPV6, kind=147), OUT, 5, 4),
    main(replace(TO_MOBILE_NODE, protocol=MH, kind=6), OUT, 2, 2),
    main(replace(TO_HOME_AGENT, protocol=MH, kind=5), IN, 2, 1),
    sub(Selector(protocol=ICMPV6, kind=0), OUT, 12),
    sub(Selector(protocol=ICMPV6, kind=136), OUT, 3),
    sub(Selector(protocol=ICMPV6, kind=135), OUT, 12),
    sub(Selector(protocol=MH, kind=5), IN, 9, Template(HAO, RO, optional=True)),
)


def blocks(text: str) -> set[str]:
    """The objects that iproute2 lists, without their order and the times."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("src "):
            found.append([])
        if line.strip() and "lastused" not in line:
            found[-1].append(line.strip())
    return {"\n".join(lines) for lines in found}


def test_the_state_of_another_home_agent_is_reproduced(wire: Wire, kernel: Xfrm) -> None:
    requests = [xfrm.install(state, counters) for state, counters in UMIP_STATES]
    requests += map(xfrm.install_policy, UMIP_POLICIES)
    assert kernel.carry_out(requests) == []
    states, policies = (Path(__file__).parent / "umip.txt").read_text().split("====\n")
    assert blocks(wire.ip("xfrm state")) == blocks(states)
    assert blocks(wire.ip("xfrm policy")) == blocks(policies)
    assert {(each.state, each.counters) for each in kernel.states()} == set(UMIP_STATES)
    assert {each.policy for each in kernel.policies()} == set(UMIP_POLICIES)


@pytest.mark.parametrize(
    ("transform", "keys", "shown"),
    [
        ("aes-gcm-16", Keys(bytes(20)), "aead rfc4106(gcm(aes)) 0x" + "00" * 20),
        ("aes-gcm-16", Keys(bytes(36)), "aead rfc4106(gcm(aes)) 0x" + "00" * 36),
        ("chacha20-poly1305", Keys(bytes(36)), "aead rfc7539esp(chacha20,poly1305) 0x"),
        ("aes-cbc+hmac-sha2-512-256", Keys(bytes(32), bytes(64)), "auth-trunc hmac(sha512) 0x"),
        ("aes-cbc+hmac-sha2-384-192", Keys(bytes(16), bytes(48)), "auth-trunc hmac(sha384) 0x"),
        ("aes-cbc+hmac-sha1-96", Keys(bytes(24), bytes(20)), "auth-trunc hmac(sha1) 0x"),
        ("null+hmac-sha2-256-128", Keys(b"", bytes(32)), "enc ecb(cipher_null)"),
    ],
)
def test_every_transform_is_read_back(
    wire: Wire, kernel: Xfrm, transform: str, keys: Keys, shown: str
) -> None:
    state = esp(
        0,
        protection=Protection(transform, keys),
        flags=StateFlag.ESN,
        window=1024,
        limits=Limits(soft_packets=1000, hard_packets=2000, soft_seconds=50),
    )
    counters = Counters(sent=(5 << 32) + 7, received=(3 << 32) + 2, seen=(1 << 1023) | 0b101)
    assert kernel.carry_out([xfrm.install(state, counters)]) == []
    found = kernel.state(state.id)
    assert found is not None
    assert (found.state, found.counters) == (state, counters)
    listed = wire.ip("xfrm state", statistics=True)
    assert shown in listed
    assert "seq-hi 0x3, seq 0x2, oseq-hi 0x5, oseq 0x7" in listed
    assert "replay_window 1024, bitmap-length 32" in listed
    assert "limit: soft 1000(packets), hard 2000(packets)" in listed
    if not transform.startswith("null"):
        assert keys.encryption.hex() not in repr(found)


def test_what_is_not_there_is_none(kernel: Xfrm) -> None:
    assert kernel.state(esp(0).id) is None
    assert kernel.counters(esp(0).id) is None
    assert kernel.policy(UMIP_POLICIES[0]) is None
    assert list(kernel.states()) == list(kernel.policies()) == []


def test_states_and_policies_are_updated_in_place(kernel: Xfrm) -> None:
    hao = UMIP_STATES[0][0]
    policy = UMIP_POLICIES[6]
    assert kernel.carry_out([xfrm.install(hao), xfrm.install_policy(policy)]) == []
    moved = replace(hao, care_of_address=HOME_AGENT)
    blocking = replace(policy, action=Action.BLOCK, priority=7)
    assert kernel.carry_out([xfrm.update(moved), xfrm.update_policy(blocking)]) == []
    assert [each.state for each in kernel.states()] == [moved]
    assert [each.policy for each in kernel.policies()] == [blocking]
    assert kernel.carry_out([xfrm.remove(moved.id), xfrm.remove_policy(policy)]) == []
    assert list(kernel.states()) == list(kernel.policies()) == []


def test_counters_are_set_and_got(kernel: Xfrm) -> None:
    state = esp(0, flags=StateFlag.ESN, window=1024)
    assert kernel.carry_out([xfrm.install(state)]) == []
    counters = Counters(sent=(1 << 32) + 9, received=(7 << 32) + 5, seen=0b1011)
    assert kernel.carry_out([xfrm.count(state.id, counters, 1024)]) == []
    found = kernel.counters(state.id)
    assert found is not None
    assert (found.id, found.reqid, found.counters, found.window) == (state.id, 1, counters, 1024)


def test_the_failing_ones_of_a_batch_are_named(kernel: Xfrm) -> None:
    requests = [xfrm.install(esp(0, spi=0x5000 + number)) for number in range(300)]
    requests[57] = xfrm.remove(esp(0, spi=0x9999).id)
    requests[259] = xfrm.install(esp(0, spi=0x5003))
    requests[299] = xfrm.install_policy(Policy(Selector(protocol=MH), Direction(IN), 1, PolicyType.SUB, ()))
    requests[120] = xfrm.install(esp(1, spi=0x5999, window=8192))
    failures = kernel.carry_out(requests)
    assert [(each.index, str(each).split()[0]) for each in failures] == [
        (57, "ESRCH"),
        (120, "EINVAL"),
        (259, "EEXIST"),
    ]
    assert len(list(kernel.states())) == 296
    assert kernel.messages == 301


def test_only_what_is_ours_is_cleared(wire: Wire, kernel: Xfrm) -> None:
    requests = [xfrm.install(state, counters) for state, counters in UMIP_STATES]
    requests += map(xfrm.install_policy, UMIP_POLICIES)
    assert kernel.carry_out(requests) == []
    assert kernel.clear(range(1, 3)) == []
    assert {each.state.reqid for each in kernel.states()} == {0, 3, 4}
    left = {each.policy for each in kernel.policies()}
    assert set(UMIP_POLICIES) - left == set(UMIP_POLICIES[5:7])


def test_an_spi_is_allocated(kernel: Xfrm) -> None:
    state = esp(0, spi=0)
    assert kernel.allocate_spi(state, 0x7000, 0x7000) == 0x7000
    assert 0x7001 <= kernel.allocate_spi(state, 0x7001, 0x8000) <= 0x8000
    with pytest.raises(OSError, match="ENOENT"):
        kernel.allocate_spi(state, 0x7000, 0x7000)
    assert kernel.carry_out([xfrm.update(replace(state, spi=0x7000))]) == []
    assert {each.state.protection for each in kernel.states()} == {CBC, None}


def test_a_tunnel_moves_with_its_states(kernel: Xfrm) -> None:
    old, new = CARE_OF_ADDRESS, CARE_OF_ADDRESS[:-1] + b"\x55"
    state = replace(esp(1), source=HOME_AGENT, destination=old, mode=Mode.TUNNEL)
    template = Template(ESP, Mode.TUNNEL, 2, HOME_AGENT, old)
    policy = Policy(Selector.between(HOME_AGENT, HOME_ADDRESS), OUT, 5, templates=(template,))
    assert kernel.carry_out([xfrm.install(state, Counters(sent=77)), xfrm.install_policy(policy)]) == []
    change = xfrm.Migration(HOME_AGENT, old, HOME_AGENT, new, reqid=2)
    assert kernel.carry_out([xfrm.migrate(policy.selector, OUT, [change])]) == []
    (moved,) = kernel.states()
    assert moved.state == replace(state, destination=new)
    assert moved.counters.sent == 77
    (found,) = kernel.policies()
    assert found.policy.templates == (replace(template, destination=new),)


def test_changes_are_announced(kernel: Xfrm, events: XfrmEvents) -> None:
    state, policy = esp(0), UMIP_POLICIES[6]
    assert events.read() == []
    kernel.carry_out([xfrm.install(state, Counters(received=5)), xfrm.install_policy(policy)])
    kernel.carry_out([xfrm.count(state.id, Counters(sent=4, received=9, seen=1), 64)])
    kernel.carry_out([xfrm.remove(state.id), xfrm.remove_policy(policy)])
    installed, policy_installed, counted, removed, policy_removed = events.read()
    assert isinstance(installed, Installed)
    assert (installed.state.state, installed.state.counters) == (state, Counters(received=5))
    assert isinstance(policy_installed, PolicyInstalled)
    assert policy_installed.policy.policy == policy
    assert isinstance(counted, Counted)
    assert (counted.id, counted.counters) == (state.id, Counters(sent=4, received=9, seen=1))
    assert isinstance(removed, Removed)
    assert (removed.id, removed.installed.state) == (state.id, state)
    assert removed.installed.counters == Counters(sent=4, received=9, seen=1)
    assert isinstance(policy_removed, PolicyRemoved)
    assert policy_removed.policy is not None
    assert policy_removed.policy.policy == policy


def test_expiry_is_announced(wire: Wire, kernel: Xfrm, events: XfrmEvents) -> None:
    state = esp(1, limits=Limits(soft_seconds=1, hard_seconds=2))
    kernel.carry_out([xfrm.install(state)])
    found = []
    while len(found) < 2:
        found += [each for each in events.read() if isinstance(each, Expired)]
    assert [each.hard for each in found] == [False, True]
    assert {(each.id, each.reqid) for each in found} == {(state.id, 2)}
    assert kernel.state(state.id) is None


def test_an_overrun_is_reported_and_survived(wire: Wire, kernel: Xfrm) -> None:
    with wire.inside():
        events = XfrmEvents(buffer=4096)
    try:
        kernel.carry_out([xfrm.install(esp(0, spi=0x6000 + number)) for number in range(100)])
        with pytest.raises(Overrun):
            events.read()
        while True:
            try:
                events.read()
                break
            except Overrun:
                continue
        kernel.carry_out([xfrm.remove(esp(0, spi=0x6000).id)])
        (removed,) = events.read()
        assert isinstance(removed, Removed)
        assert removed.id == esp(0, spi=0x6000).id
    finally:
        events.close()


def test_installed_state_shows_no_keys(kernel: Xfrm) -> None:
    kernel.carry_out([xfrm.install(esp(0))])
    (found,) = kernel.states()
    assert isinstance(found, InstalledState)
    assert "hidden" in repr(found)
    assert CBC.keys.integrity.hex() not in repr(found)
