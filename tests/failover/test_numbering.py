"""Sequence numbers that a set shares: own slots only, reserved before use, never twice by anybody."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.effects import Effect, ReserveSequences
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import IPV6, MOBILITY
from mip6ha.numbering import (
    HIGHEST_FLOOR,
    HORIZON,
    PAYLOAD_BLOCK,
    SIGNALLING_BLOCK,
    SharedAssociations,
)
from mip6ha.parameters import AssociationParameters
from mip6ha.wire import Refused

from ..node.world import GCM, HOME_AGENT, keys_of, seeded
from .world import home

HOME = home(0)
SIGNALLING, PAYLOAD = 0x1001, 0x1003


def parameters(spi: int, direction: Direction, use: Use, *, esn: bool = False) -> AssociationParameters:
    return AssociationParameters(spi, direction, use, GCM, keys_of(GCM, spi), esn=esn)


def shared(identity: int = 1, slots: int = 2, *, floor: int = 0, esn: bool = False) -> SharedAssociations:
    found = SharedAssociations(HOME_AGENT, seeded("numbers"), floor, identity, slots)
    found.admit(
        HOME,
        (
            parameters(0x1000, Direction.IN, Use.SIGNALLING, esn=esn),
            parameters(SIGNALLING, Direction.OUT, Use.SIGNALLING, esn=esn),
            parameters(0x1002, Direction.IN, Use.PAYLOAD, esn=esn),
            parameters(PAYLOAD, Direction.OUT, Use.PAYLOAD, esn=esn),
        ),
    )
    return found


def association(of: SharedAssociations, spi: int) -> SecurityAssociation:
    (found,) = (each for each in of.database.of(HOME) if each.spi == spi)
    return found


def send(of: SharedAssociations, spi: int) -> tuple[int, list[Effect]]:
    """The number of the next packet, and what had to be stored first."""
    effects: list[Effect] = []
    next_header = MOBILITY if spi == SIGNALLING else IPV6
    packet = of.protect(association(of, spi), next_header, bytes(16), effects)
    return int.from_bytes(packet[4:8], "big"), effects


def acknowledge(of: SharedAssociations) -> None:
    of.wanting.clear()
    of.confirm(of.outstanding(HOME))


@pytest.mark.parametrize(("identity", "slots"), [(1, 2), (2, 2), (3, 3), (1, 5), (7, 9)])
@pytest.mark.parametrize(("spi", "block"), [(SIGNALLING, SIGNALLING_BLOCK), (PAYLOAD, PAYLOAD_BLOCK)])
def test_only_blocks_of_the_own_slot(identity: int, slots: int, spi: int, block: int) -> None:
    found = shared(identity, slots)
    found.begin(0x100 + identity)
    last = 0
    for _ in range(2 * block + 10):
        number, _ = send(found, spi)
        assert number > last
        assert (number - 1) // block % slots == identity % slots
        last = number


def test_a_block_stands_on_stable_storage_before_its_first_number() -> None:
    found = shared(2, 2, floor=1000)
    found.begin(0x102)
    stored = found.reservation().limit
    for _ in range(20 * PAYLOAD_BLOCK):
        number, effects = send(found, PAYLOAD)
        for effect in effects:
            assert isinstance(effect, ReserveSequences)
            assert effect.limit > stored
            stored = effect.limit
        assert 1000 < number <= stored


def test_after_a_restart_nothing_up_to_the_mark_is_used() -> None:
    found = shared(floor=123_456)
    found.begin(0x101)
    assert send(found, SIGNALLING)[0] > 123_456


def test_a_signalling_block_may_be_used_at_once_for_its_message_waits() -> None:
    found = shared()
    found.begin(0x101)
    found.alone = False
    send(found, SIGNALLING)
    assert found.wanting == {HOME: None}
    assert found.outstanding(HOME) == []


def test_a_payload_block_waits_for_its_acknowledgement() -> None:
    found = shared()
    found.begin(0x101)
    found.alone = False
    for _ in range(3):
        with pytest.raises(Refused, match="sequence_exhausted"):
            send(found, PAYLOAD)
    assert found.wanting == {HOME: None}
    acknowledge(found)
    assert send(found, PAYLOAD)[0] == PAYLOAD_BLOCK + 1


def test_alone_nobody_is_waited_for() -> None:
    found = shared()
    found.begin(0x101)
    assert found.alone
    assert send(found, PAYLOAD)[0] == PAYLOAD_BLOCK + 1


def test_the_next_payload_block_is_asked_for_when_half_is_left() -> None:
    found = shared()
    found.begin(0x101)
    send(found, PAYLOAD)
    found.alone = False
    acknowledge(found)
    numbers = []
    for _ in range(4 * PAYLOAD_BLOCK):
        numbers.append(send(found, PAYLOAD)[0])
        if found.wanting:
            acknowledge(found)
    assert len(set(numbers)) == len(numbers)
    # Not one packet was refused for want of a number.
    assert numbers == sorted(numbers)


def test_an_acknowledgement_of_another_epoch_confirms_nothing() -> None:
    found = shared()
    found.begin(0x101)
    found.alone = False
    with pytest.raises(Refused):
        send(found, PAYLOAD)
    outstanding = found.outstanding(HOME)
    found.begin(0x301)
    with pytest.raises(Refused):
        send(found, PAYLOAD)
    found.confirm(outstanding)
    with pytest.raises(Refused):
        send(found, PAYLOAD)


def test_a_new_term_goes_above_all_that_was_reserved() -> None:
    found = shared()
    found.begin(0x101)
    before = [send(found, spi)[0] for spi in (SIGNALLING, PAYLOAD)]
    reserved = [association(found, spi).reserved for spi in (SIGNALLING, PAYLOAD)]
    found.begin(0x301)
    for spi, old, limit in zip((SIGNALLING, PAYLOAD), before, reserved, strict=True):
        assert send(found, spi)[0] > limit >= old


def test_a_key_without_esn_ends_before_two_to_the_32() -> None:
    found = shared(1, 2)
    found.begin(0x101)
    each = association(found, SIGNALLING)
    found.place(each, (1 << 32) - 3 * SIGNALLING_BLOCK)
    numbers = [send(found, SIGNALLING)[0] for _ in range(SIGNALLING_BLOCK)]
    assert numbers[-1] < 1 << 32
    assert each.reserved < 1 << 32
    with pytest.raises(Refused, match="sequence_exhausted"):
        send(found, SIGNALLING)


def test_with_esn_it_goes_on() -> None:
    found = shared(1, 2, esn=True)
    found.begin(0x101)
    each = association(found, SIGNALLING)
    found.place(each, (1 << 32) - 3 * SIGNALLING_BLOCK)
    for _ in range(4 * SIGNALLING_BLOCK):
        send(found, SIGNALLING)
    assert each.sequence > 1 << 32
    found.place(each, (1 << 40) - 1)
    with pytest.raises(Refused, match="sequence_exhausted"):
        send(found, SIGNALLING)


def test_a_nonce_names_member_and_term() -> None:
    found = shared(3, 5)
    found.begin(0xABCDEF03)
    packet = found.protect(association(found, SIGNALLING), MOBILITY, bytes(8), [])
    assert packet[8:11] == bytes((3, 0xCD, 0xEF))


# -- inbound ---------------------------------------------------------------------------------------


class Sender:
    """The other side of the inbound payload SA."""

    def __init__(self) -> None:
        keys = keys_of(GCM, 0x1002)
        self.association = SecurityAssociation(
            spi=0x1002, direction=Direction.OUT, use=Use.PAYLOAD, home_address=HOME, transform=GCM, keys=keys
        )

    def packet(self, number: int) -> bytes:
        self.association.sequence = number - 1
        return esp.protect(self.association, IPV6, bytes(40), seeded("sender"))


def arrives(of: SharedAssociations, packet: bytes) -> str:
    """Why a packet is refused, empty if it is not."""
    found = of.inbound(0x1002)
    assert found is not None
    try:
        esp.unprotect(found, packet)
    except Refused as refused:
        return refused.reason
    return ""


def test_payload_is_accepted_up_to_the_horizon_that_others_know() -> None:
    found, sender = shared(), Sender()
    found.begin(0x101)
    found.alone = False
    assert arrives(found, sender.packet(1)) == "beyond_replicated_window"
    assert found.wanting == {HOME: None}
    acknowledge(found)
    for number in range(1, HORIZON + 1):
        assert arrives(found, sender.packet(number)) == ""
    # Half of it was left when more was asked for.
    assert found.wanting == {HOME: None}
    assert arrives(found, sender.packet(2 * HORIZON)) == "beyond_replicated_window"
    acknowledge(found)
    assert arrives(found, sender.packet(HORIZON + 1)) == ""


def test_many_packets_lost_in_a_row_do_not_end_a_tunnel() -> None:
    found, sender = shared(), Sender()
    found.begin(0x101)
    found.alone = False
    arrives(found, sender.packet(1))
    acknowledge(found)
    assert arrives(found, sender.packet(1)) == ""
    found.wanting.clear()
    assert arrives(found, sender.packet(5000)) == "beyond_replicated_window"
    arrives(found, sender.packet(5001))
    acknowledge(found)
    assert arrives(found, sender.packet(5002)) == ""
    assert association(found, 0x1002).reserved < 5002 + 2 * HORIZON


def test_a_forged_number_moves_no_horizon() -> None:
    found, sender = shared(), Sender()
    found.begin(0x101)
    arrives(found, sender.packet(1))
    before = association(found, 0x1002).reserved
    forged = sender.packet(1)[:4] + (1 << 31).to_bytes(4, "big") + sender.packet(1)[8:]
    for _ in range(5):
        assert arrives(found, forged) == "bad_icv"
    assert association(found, 0x1002).reserved == before


def test_after_a_takeover_everything_up_to_the_horizon_counts_as_seen() -> None:
    found, sender = shared(), Sender()
    found.place(association(found, 0x1002), 3 * HORIZON)
    found.begin(0x301)
    for number in (1, HORIZON, 3 * HORIZON):
        assert arrives(found, sender.packet(number)) == "replayed"
    assert arrives(found, sender.packet(3 * HORIZON + 1)) == ""


def test_a_takeover_opens_no_window_that_another_member_s_news_closed() -> None:
    found, sender = shared(), Sender()
    each = association(found, 0x1002)
    found.place(each, HORIZON)
    assert each.window is not None
    each.window.merge(type(each.window)(1024, 5000, (1 << 1024) - 1))
    found.begin(0x301)
    for number in (HORIZON + 1, 4500, 5000):
        assert arrives(found, sender.packet(number)) == "replayed"
    assert arrives(found, sender.packet(5001)) == ""


def test_signalling_windows_have_no_horizon() -> None:
    found = shared()
    found.begin(0x101)
    found.alone = False
    each = found.inbound(0x1000)
    assert each is not None
    assert each.limit == (1 << 32) - 1
    assert found.wanting == {}


# -- two members, whatever happens -----------------------------------------------------------------


class Pair:
    """Members that take over from each other; what one reserved reaches another, or is lost."""

    def __init__(self, slots: int) -> None:
        self.members = [shared(identity, slots) for identity in range(1, slots + 1)]
        self.used: dict[tuple[int, int], int] = {}
        self.nonces: set[tuple[int, bytes]] = set()
        self.term = 0

    def send(self, index: int, spi: int) -> None:
        member = self.members[index]
        effects: list[Effect] = []
        try:
            packet = member.protect(association(member, spi), IPV6, b"", effects)
        except Refused:
            return
        number = int.from_bytes(packet[4:8], "big")
        assert (spi, number) not in self.used
        assert (spi, packet[8:16]) not in self.nonces
        self.used[spi, number] = index
        self.nonces.add((spi, packet[8:16]))

    def take_over(self, index: int) -> None:
        self.term = (self.term >> 8) + 1 << 8 | index + 1
        self.members[index].begin(self.term)

    def replicate(self, source: int, destination: int, spi: int) -> None:
        """One member's context is installed at another one, which does not serve or merges it."""
        known, other = (association(self.members[each], spi) for each in (source, destination))
        if known.reserved > other.reserved:
            self.members[destination].place(other, known.reserved)
        if destination != source:
            acknowledge(self.members[source])


_STEPS = st.tuples(
    st.sampled_from(("send", "send", "send", "burst", "take over", "replicate", "alone")),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from((SIGNALLING, PAYLOAD)),
)


@settings(max_examples=60)
@given(st.integers(2, 3), st.lists(_STEPS, max_size=60))
def test_no_interleaving_of_takeovers_uses_a_number_twice(
    slots: int, steps: list[tuple[str, int, int, int]]
) -> None:
    pair = Pair(slots)
    for what, one, other, spi in steps:
        one, other = one % slots, other % slots
        if what == "send":
            pair.send(one, spi)
        elif what == "burst":
            for _ in range(SIGNALLING_BLOCK + 5):
                pair.send(one, spi)
        elif what == "take over":
            pair.take_over(one)
        elif what == "replicate":
            pair.replicate(one, other, spi)
        else:
            pair.members[one].alone = not pair.members[one].alone


@given(st.integers(1, 200), st.integers(0, 2**31))
def test_what_was_placed_is_never_used_again(identity: int, counter: int) -> None:
    found = shared(identity, max(identity, 2))
    found.place(association(found, SIGNALLING), counter)
    found.begin(0x100 | identity)
    assert send(found, SIGNALLING)[0] > counter


def test_another_member_s_floor_leaves_numbers() -> None:
    found = shared()
    found.begin(0x101)
    effects: list[Effect] = []
    found.skip(1_000_000, effects)
    assert send(found, SIGNALLING)[0] > 1_000_000
    found.skip((1 << 64) - 1, effects)
    assert HIGHEST_FLOOR < send(found, SIGNALLING)[0] < HIGHEST_FLOOR + 4 * SIGNALLING_BLOCK
    # The same again moves nothing.
    found.skip((1 << 64) - 1, effects)
    assert send(found, SIGNALLING)[0] < HIGHEST_FLOOR + 4 * SIGNALLING_BLOCK
    reserved = [each.limit for each in effects if isinstance(each, ReserveSequences)]
    assert max(reserved) < 2 * HIGHEST_FLOOR
