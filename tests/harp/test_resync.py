"""Resynchronisation while changes go on, and over a bad network."""

from __future__ import annotations

from random import Random

import pytest

from mip6ha.harp.messages import (
    StateAcknowledge,
    StateReply,
)

from .sender import TERM, Sender, home, homes


def newcomer(count: int, **settings: int) -> Sender:
    sender = Sender(**settings)
    for index in range(count):
        sender.change(index)
    sender.replication.appear(2)
    sender.replication.peers[2].pulled = True
    sender.replication.answer(2, 77, [home(index) for index in range(count)])
    return sender


def test_an_answer_ends_with_a_mark_when_all_of_it_is_acknowledged() -> None:
    sender = newcomer(40)
    sent = sender.poll()
    assert sorted(index for _, message in sent for index in homes(message)) == list(range(40))
    assert {message.identifier for _, message in sent} == {77}
    assert sender.poll() == []
    for each in sent[1:]:
        sender.acknowledge(*each)
    assert sender.poll() == []
    sender.acknowledge(*sent[0])
    ((_, mark),) = sender.poll()
    assert (mark.identifier, mark.entries) == (77, ())
    assert sender.replication.settle() == []
    sender.acknowledge(2, mark)
    assert sender.replication.settle() == [2]
    assert sender.replication.settle() == []
    assert sender.replication.synchronized() == (2,)


def test_an_answer_of_nothing_is_the_mark() -> None:
    sender = newcomer(0)
    ((_, mark),) = sender.poll()
    assert mark == StateReply(77, True, (), TERM)


def test_the_mark_is_repeated_until_it_is_acknowledged() -> None:
    sender = newcomer(0)
    ((_, mark),) = sender.poll()
    assert sender.poll(0.02) == [(2, mark)]
    sender.acknowledge(2, mark)
    assert sender.replication.settle() == [2]


def test_a_repeated_request_changes_nothing() -> None:
    sender = newcomer(40, window=2)
    first = sender.poll()
    sender.replication.answer(2, 77, [home(0)])
    for each in first:
        sender.acknowledge(*each)
    rest = [index for _, message in sender.poll() for index in homes(message)]
    assert rest[0] == homes(first[-1][1])[-1] + 1


def test_another_request_starts_over() -> None:
    sender = newcomer(3)
    ((_, old),) = sender.poll()
    sender.replication.answer(2, 78, [home(1)])
    ((_, new),) = sender.poll()
    assert (new.identifier, homes(new)) == (78, [1])
    sender.acknowledge(2, old)
    sender.acknowledge(2, new)
    ((_, mark),) = sender.poll()
    assert mark.identifier == 78


def test_changes_go_before_what_was_asked_for() -> None:
    sender = newcomer(200, window=2)
    sender.poll()
    sender.change(199, "somebody waits")
    assert sender.poll() == []
    sender.replication.peers[2].in_flight.popitem()
    ((_, message),) = sender.poll()
    assert homes(message) == [199]
    assert message.identifier != 77


def test_lost_parts_of_an_answer_are_sent_again_before_the_mark() -> None:
    sender = newcomer(30)
    sent = sender.poll()
    for each in sent[1:]:
        sender.acknowledge(*each)
    assert sender.poll(0.01) == []
    ((_, again),) = sender.poll(0.01)
    assert homes(again) == homes(sent[0][1])
    sender.acknowledge(2, again)
    ((_, mark),) = sender.poll()
    assert mark.entries == ()


def test_a_member_catches_up_while_changes_never_end() -> None:
    sender = newcomer(300, window=4)
    late: list[tuple[int, StateReply]] = []
    for step in range(500):
        sender.change(step % 300)
        now = sender.poll(0.001)
        for each in late:
            sender.acknowledge(*each)
        late = now
        if sender.replication.settle():
            break
    assert sender.replication.synchronized() == (2,)
    assert sender.replication.peers[2].in_flight


def test_what_changed_while_nobody_waited_is_owed() -> None:
    sender = Sender().synchronize()
    sender.change(1)
    sender.poll()
    sender.replication.mute(2)
    sender.change(2, "not held")
    # It asks again, and had everything but what it never acknowledged.
    sender.replication.answer(2, 5, [])
    sent = sender.poll()
    assert all(message.entries for _, message in sent)
    sender.acknowledge(*sent[0])
    marks = [message for _, message in sender.poll() if not message.entries]
    assert marks == []
    sender.drain()
    sent = sender.poll(1.0)
    for each in sent:
        sender.acknowledge(*each)
    sender.drain()
    assert sender.replication.synchronized() == (2,)


def test_an_acknowledgement_of_an_answer_releases_nothing() -> None:
    """Who was gone for a moment repeats its request: old acknowledgements then look like new ones."""
    sender = newcomer(1)
    ((_, before),) = sender.poll()
    sender.replication.vanish(2)
    sender.replication.appear(2)
    sender.change(0, "not yet")
    sender.replication.answer(2, 77, [home(0)])
    changed, answered = sender.poll()
    assert answered[1].identifier == before.identifier
    assert sender.acknowledge(2, before) == []
    assert sender.acknowledge(*changed) == ["not yet"]


def test_who_is_trusted_is_asked_but_needs_not_be_told() -> None:
    sender = Sender()
    sender.replication.appear(2)
    sender.replication.trust(2)
    assert not sender.replication.settle()
    sender.replication.peers[2].pulled = True
    assert sender.replication.settle() == [2]


def test_who_has_not_told_what_it_has_is_told_nothing() -> None:
    sender = Sender()
    sender.replication.appear(2, 0.0, pull_first=True)
    sender.change(1)
    assert sender.poll() == []
    assert not sender.replication.stalled(1.0)
    assert sender.replication.stalled(1.1) == [2]
    sender.replication.peers[2].pulled = True
    assert len(sender.poll(1.2)) == 1


def test_flushed_is_synchronized_with_nothing_under_way() -> None:
    sender = Sender().synchronize()
    assert sender.replication.is_flushed(2)
    sender.change(1)
    assert not sender.replication.is_flushed(2)
    ((_, message),) = sender.poll()
    assert not sender.replication.is_flushed(2)
    sender.acknowledge(2, message)
    assert sender.replication.is_flushed(2)
    sender.replication.doubt(2)
    assert not sender.replication.is_flushed(2)


@pytest.mark.parametrize("seed", range(30))
def test_over_a_bad_network_all_arrives_and_nothing_is_released_before(seed: int) -> None:
    """Loss, duplication, reordering: a member knows whatever was released."""
    random = Random(seed)
    sender = Sender(size=random.choice((100, 600)), window=random.choice((1, 3, 8)))
    known: dict[bytes, tuple[int, int]] = {}
    under_way: list[tuple[float, StateReply | StateAcknowledge]] = []
    sender.replication.appear(2)
    sender.replication.peers[2].pulled = True
    sender.replication.answer(2, 9, [])
    promised: dict[str, tuple[bytes, tuple[int, int]]] = {}
    released: list[str] = []
    for step in range(1500):
        calm = step > 900
        sender.now += 0.005
        if not calm and random.random() < 0.5:
            index, word = random.randrange(20), f"{step}"
            if sender.change(index, word):
                promised[word] = home(index), sender.versions[home(index)]
        for _, message in sender.poll():
            for _ in range(1 if calm else random.choice((0, 1, 1, 2))):
                under_way.append((sender.now + (0.001 if calm else random.random() * 0.1), message))
        due = sorted((each for each in under_way if each[0] <= sender.now), key=lambda each: each[0])
        for arrival in due:
            under_way.remove(arrival)
            arrived = arrival[1]
            if isinstance(arrived, StateReply):
                for entry in arrived.entries:
                    version = (TERM, entry.generation)
                    known[entry.home_address] = max(known.get(entry.home_address, (0, 0)), version)
                if calm or random.random() < 0.7:
                    statuses = tuple((0, entry.home_address) for entry in arrived.entries)
                    delay = 0.001 if calm else random.random() * 0.1
                    under_way.append((sender.now + delay, StateAcknowledge(arrived.identifier, statuses)))
            else:
                for word in sender.replication.acknowledge(2, arrived, sender.now):
                    released.append(word)
                    home_address, version = promised[word]
                    assert known[home_address] >= version
        sender.replication.settle()
    assert known == sender.versions
    assert sorted(released, key=int) == list(promised)
    assert sender.replication.is_flushed(2)


def test_nobody_is_answered_who_wants_no_answer_any_more() -> None:
    sender = newcomer(2)
    assert len(sender.poll()) == 1
    sender.replication.withdraw(2)
    assert sender.poll(10.0) == []
    assert sender.replication.next_deadline() is None
    # Asked again, it answers again.
    sender.replication.answer(2, 78, [home(0)])
    assert [message.identifier for _, message in sender.poll()] == [78]
