"""Numbers that are lent, against a model of a state in the kernel: packets pass between any two requests."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.edge.netlink_messages import Request, attributes
from mip6ha.edge.payload_associations import Association, LentPayload
from mip6ha.edge.xfrm_events import state_in
from mip6ha.edge.xfrm_layout import NEW_EVENT, NEW_STATE, UPDATE_STATE
from mip6ha.edge.xfrm_policy import Direction
from mip6ha.edge.xfrm_state import Counters
from mip6ha.effects import LendPayload, LentAssociation
from mip6ha.ipsec.algorithms import Keys
from mip6ha.wire import address

AGENT, HOME, CARE_OF = map(address, ("2001:db8:a::1", "2001:db8:a::100", "2001:db8:b::42"))
OTHER = address("2001:db8:b::43")
KEYS = Keys(b"secret octets of a key!!"[:20])


def lent(*associations: LentAssociation) -> LentPayload:
    return LentPayload.of(LendPayload(HOME, associations), AGENT, CARE_OF, 0x68000007)


def outbound(first: int, limit: int) -> Association:
    made = lent(LentAssociation(True, 9, "aes-gcm-16", KEYS, True, 64, first, limit, 10))
    return made.associations[True, 9]


class Kernel:
    """What a state does with packets and requests."""

    def __init__(self) -> None:
        self.sent = self.packets = self.hard = 0
        self.gone = True
        self.used: list[int] = []

    def take(self, request: Request) -> None:
        if request.kind == NEW_EVENT:
            if not self.gone:
                found = attributes(request.body, 48)
                if 23 in found:
                    self.sent = Counters.decoded(found)[0].sent
            return
        installed = state_in(request.body)
        limits = installed.state.limits
        assert limits.hard_packets is not None
        assert limits.soft_packets is not None
        assert 1 <= limits.soft_packets <= limits.hard_packets
        if request.kind == NEW_STATE:
            self.gone, self.packets, self.sent = False, 0, installed.counters.sent
        else:
            assert request.kind == UPDATE_STATE
        self.hard = limits.hard_packets

    def send(self, count: int) -> None:
        for _ in range(count):
            self.gone |= self.packets >= self.hard
            if not self.gone:
                self.sent += 1
                self.packets += 1
                self.used.append(self.sent)


BURST = st.sampled_from((0, 0, 1, 3, 40))


@settings(max_examples=1000)
@given(
    st.integers(1, 1 << 40),
    st.integers(1, 50),
    st.lists(st.tuples(st.sampled_from((0, 0, 1, 100)), st.integers(1, 50), BURST, BURST, BURST), max_size=8),
)
def test_whatever_happens_in_between_no_number_is_used_that_is_not_lent(
    first: int, size: int, steps: list[tuple[int, int, int, int, int]]
) -> None:
    kernel = Kernel()
    limit = first + size - 1
    blocks = [range(first, limit + 1)]
    each = outbound(first, limit)
    kernel.take(each.install())
    for gap, more, *bursts in steps:
        kernel.send(bursts[0])
        first = limit + 1 + gap
        limit = first + more - 1
        blocks.append(range(first, limit + 1))
        requests = each.extend(first, limit, 10, kernel.packets)
        for request, burst in zip(requests, bursts[1:], strict=False):
            kernel.send(burst)
            kernel.take(request)
        assert each.lent.limit == limit
    kernel.send(1000)
    assert len(kernel.used) == len(set(kernel.used))
    assert all(any(number in block for block in blocks) for number in kernel.used)


def test_numbers_that_go_on_are_all_used() -> None:
    kernel, each = Kernel(), outbound(5, 10)
    kernel.take(each.install())
    kernel.send(3)
    for request in each.extend(11, 20, 10, 0):
        kernel.take(request)
    kernel.send(100)
    assert kernel.used == list(range(5, 21))
    assert kernel.gone


def test_a_change_of_step_is_told_alone() -> None:
    each = outbound(1, 10)
    each.install()
    assert [request.kind for request in each.extend(11, 20, 10, 0)] == [UPDATE_STATE]
    assert [request.kind for request in each.extend(21, 30, 5, 0)] == [UPDATE_STATE, NEW_EVENT]
    made = lent(LentAssociation(False, 9, "aes-gcm-16", KEYS, True, 64, 1, 10, 10)).associations[False, 9]
    assert made.extend(11, 20, 10, 0) == []
    assert [request.kind for request in made.extend(21, 30, 0, 0)] == [NEW_EVENT]
    assert made.steered() == (1, 30)


def test_what_is_below_the_first_number_counts_as_seen() -> None:
    made = lent(LentAssociation(False, 9, "aes-gcm-16", KEYS, True, 64, 1000, 2000, 10)).associations[
        False, 9
    ]
    installed = state_in(made.install().body)
    assert installed.counters == Counters(received=999, seen=(1 << 64) - 1)
    # Or what was seen in an earlier state.
    seen = Counters(received=1500, seen=5)
    assert state_in(made.install(seen).body).counters == seen


def test_a_move_changes_addresses_and_nothing_else() -> None:
    made = lent(
        LentAssociation(False, 9, "aes-gcm-16", KEYS, True, 64, 1, 10, 10),
        LentAssociation(True, 10, "aes-gcm-16", KEYS, True, 64, 1, 10, 10),
    )
    before = {key: each.state for key, each in made.associations.items()}
    names = [policy.selector for policy in made.policies()]
    made.move(OTHER)
    for key, each in made.associations.items():
        ends = (AGENT, OTHER) if key[0] else (OTHER, AGENT)
        assert each.state == replace(before[key], source=ends[0], destination=ends[1])
    assert [policy.selector for policy in made.policies()] == names


def test_what_comes_in_may_have_been_opened_by_the_daemon() -> None:
    for policy in lent().policies():
        (template,) = policy.templates
        assert template.optional is (policy.direction is not Direction.OUT)
        assert template.reqid == 0x68000007


def test_keys_are_not_shown() -> None:
    made = lent(LentAssociation(True, 10, "aes-gcm-16", KEYS, True, 64, 1, 10, 10))
    assert "secret" not in repr(made)
    assert "hidden" in repr(made)
