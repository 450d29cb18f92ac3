"""The binding cache: entries, deadlines in one lazy heap, prefixes by longest match."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mip6ha.binding.cache import Binding, BindingCache, State
from mip6ha.binding.messages import MobileNetworkPrefix, UpdateFlag
from mip6ha.wire import address

FOREVER = float("inf")
HOMES = [address(f"2001:db8:a::{n:x}") for n in range(1, 6)]


def bind(cache: BindingCache, home_address: bytes, expires: float) -> Binding:
    """What a registration does to an entry."""
    binding = cache.entry(home_address)
    if binding.state is State.UNBOUND:
        cache.registered += 1
    binding.state, binding.expires = State.BOUND, expires
    cache.schedule(binding)
    return binding


def test_an_entry_is_made_once() -> None:
    cache = BindingCache()
    assert cache.get(HOMES[0]) is None
    binding = cache.entry(HOMES[0])
    assert cache.entry(HOMES[0]) is binding is cache.get(HOMES[0])
    assert (len(cache), list(cache), cache.registered) == (1, [binding], 0)
    assert (binding.is_bound, binding.sequence, binding.deadline) == (False, -1, FOREVER)


def test_an_end_keeps_the_sequence_number_and_forgetting_does_not() -> None:
    cache = BindingCache()
    binding = bind(cache, HOMES[0], 60)
    binding.sequence = 7
    cache.end(binding)
    cache.end(binding)
    found = cache.get(HOMES[0])
    assert found is not None
    assert (found.sequence, found.state, cache.registered) == (7, State.UNBOUND, 0)
    cache.forget(bind(cache, HOMES[0], 60))
    assert (cache.get(HOMES[0]), len(cache), cache.registered) == (None, 0, 0)


def test_the_deadline_depends_on_the_state() -> None:
    binding = Binding(HOMES[0])
    binding.expires, binding.probe_ends, binding.announce_at, binding.refresh_at = 60, 1, 2, 50
    assert binding.deadline == FOREVER
    binding.state = State.PROBING
    assert binding.deadline == 1
    binding.state = State.BOUND
    assert binding.deadline == 2
    binding.announce_at = FOREVER
    assert binding.deadline == 50


def test_defended_addresses() -> None:
    binding = Binding(address("2001:db8:a::1:2:3"))
    assert binding.defended == (address("2001:db8:a::1:2:3"),)
    binding.flags = UpdateFlag.LINK_LOCAL
    defended: tuple[bytes, ...] = binding.defended
    assert defended == (address("2001:db8:a::1:2:3"), address("fe80::1:2:3"))


def test_later_deadlines_cost_nothing_and_are_kept() -> None:
    cache = BindingCache()
    binding = bind(cache, HOMES[0], 60)
    for expires in range(61, 1000):
        bind(cache, HOMES[0], expires)
    assert len(cache._heap) == 1
    assert cache.next_deadline() == 60
    assert list(cache.due(60)) == []  # only the heap learns something
    assert cache.next_deadline() == 999
    assert list(cache.due(998.9)) == []
    assert next(cache.due(999)) is binding


def test_earlier_deadlines_come_earlier() -> None:
    cache = BindingCache()
    binding = bind(cache, HOMES[0], 60)
    bind(cache, HOMES[0], 10)
    assert cache.next_deadline() == 10
    assert next(cache.due(10)) is binding


def test_an_ended_or_forgotten_entry_is_never_due() -> None:
    cache = BindingCache()
    cache.end(bind(cache, HOMES[0], 10))
    cache.forget(bind(cache, HOMES[1], 10))
    assert list(cache.due(1000)) == []
    assert cache.next_deadline() is None


def test_an_entry_made_again_does_not_inherit_deadlines() -> None:
    cache = BindingCache()
    cache.forget(bind(cache, HOMES[0], 10))
    binding = bind(cache, HOMES[0], 20)
    assert list(cache.due(15)) == []
    assert next(cache.due(20)) is binding


def test_the_longest_prefix_matches() -> None:
    cache = BindingCache()
    wide, narrow = cache.entry(HOMES[0]), cache.entry(HOMES[1])
    cache.set_prefixes(wide, (MobileNetworkPrefix(address("2001:db8:aa::"), 48),))
    cache.set_prefixes(narrow, (MobileNetworkPrefix(address("2001:db8:aa:1::"), 64),))
    inside, outside = address("2001:db8:aa:1::9"), address("2001:db8:aa:2::9")
    assert (cache.behind(inside), cache.behind(outside)) == (narrow, wide)
    assert cache.holder(MobileNetworkPrefix(address("2001:db8:aa::"), 48)) is wide
    assert cache.holder(MobileNetworkPrefix(address("2001:db8:aa::"), 64)) is None
    cache.set_prefixes(narrow, ())
    assert cache.behind(inside) is wide
    cache.forget(wide)
    assert cache.behind(inside) is None
    assert cache.behind(HOMES[0]) is None


@given(st.integers(1, 128), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_a_prefix_covers_what_shares_its_bits(length: int, network: bytes, other: bytes) -> None:
    cache = BindingCache()
    binding = cache.entry(HOMES[0])
    number = int.from_bytes(network, "big") >> 128 - length << 128 - length
    cache.set_prefixes(binding, (MobileNetworkPrefix(number.to_bytes(16, "big"), length),))
    bits = f"{number:0128b}"[:length]
    assert cache.behind(network) is binding
    covered = f"{int.from_bytes(other, 'big'):0128b}".startswith(bits)
    assert (cache.behind(other) is binding) == covered


class Clock(RuleBasedStateMachine):
    """Random registrations, ends and moments against a dictionary of deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = BindingCache()
        self.expected: dict[bytes, float] = {}
        self.now = 0.0

    @rule(home_address=st.sampled_from(HOMES), lifetime=st.integers(1, 50))
    def register(self, home_address: bytes, lifetime: int) -> None:
        bind(self.cache, home_address, self.now + lifetime)
        self.expected[home_address] = self.now + lifetime

    @rule(home_address=st.sampled_from(HOMES), forget=st.booleans())
    def finish(self, home_address: bytes, *, forget: bool) -> None:
        binding = self.cache.get(home_address)
        if binding is not None:
            (self.cache.forget if forget else self.cache.end)(binding)
            self.expected.pop(home_address, None)

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        due = {home_address for home_address, when in self.expected.items() if when <= self.now}
        found = set()
        for binding in self.cache.due(self.now):
            assert binding.home_address not in found
            found.add(binding.home_address)
            self.cache.end(binding)
            del self.expected[binding.home_address]
        assert found == due

    @invariant()
    def nothing_is_missed(self) -> None:
        deadline = self.cache.next_deadline()
        assert self.cache.registered == len(self.expected)
        if self.expected:
            assert deadline is not None
            assert deadline <= min(self.expected.values())


TestClock = Clock.TestCase
