"""Replication: group commit, windows, retransmission, waiting effects, resynchronisation under way."""

from __future__ import annotations

import pytest

from mip6ha.harp.messages import (
    SynchronizationStatus,
    build,
)
from mip6ha.harp.sync import Progress

from ..octets import CARE_OF_ADDRESS, HOME_AGENT
from .sender import TERM, Sender, home, homes

# -- what changes ----------------------------------------------------------------------------------


def test_changes_while_nothing_is_sent_go_in_one_message() -> None:
    sender = Sender().synchronize()
    for index in range(5):
        sender.change(index)
    ((identity, message),) = sender.poll()
    assert (identity, homes(message)) == (2, [0, 1, 2, 3, 4])
    assert (message.acknowledge, message.term) == (True, TERM)
    assert sender.poll() == []


def test_a_mobile_node_that_changed_twice_is_sent_once() -> None:
    sender = Sender().synchronize()
    for _ in range(3):
        sender.change(7, "one of three")
    ((_, message),) = sender.poll()
    assert [(entry.generation) for entry in message.entries] == [3]
    assert sender.acknowledge(2, message) == ["one of three"] * 3


def test_every_message_fits() -> None:
    for size in (1, 243, 244, 245, 700, 1800):
        sender = Sender(size=size, window=1000).synchronize()
        for index in range(60):
            sender.change(index)
        sent: list[int] = []
        while messages := sender.poll():
            for _, message in messages:
                assert len(build(message, HOME_AGENT, CARE_OF_ADDRESS)) <= 2048
                sent += homes(message)
        assert sent == list(range(60))


def test_no_more_messages_are_under_way_than_the_window_holds() -> None:
    sender = Sender(size=1500, window=3).synchronize()
    for index in range(10):
        sender.change(index)
    first = sender.poll()
    assert [homes(message) for _, message in first] == [[0], [1], [2]]
    assert sender.poll() == []
    sender.acknowledge(2, first[1][1])
    ((_, message),) = sender.poll()
    assert homes(message) == [3]


def test_one_call_sends_a_bounded_number_of_messages() -> None:
    sender = Sender(size=1500, window=100).synchronize()
    for index in range(40):
        sender.change(index)
    assert len(sender.replication.poll(TERM, 0.0, most=4)) == 4
    assert len(sender.poll()) == 16


def test_a_record_that_is_gone_is_not_sent() -> None:
    sender = Sender().synchronize()
    sender.change(1)
    sender.change(2)
    del sender.versions[home(1)]
    ((_, message),) = sender.poll()
    assert homes(message) == [2]


def test_absent_members_get_nothing() -> None:
    sender = Sender(2, 3).synchronize(2)
    assert sender.change(1, "waits for 2 alone")
    ((identity, message),) = sender.poll()
    assert identity == 2
    assert sender.acknowledge(2, message) == ["waits for 2 alone"]


# -- retransmission --------------------------------------------------------------------------------


def test_retransmission_doubles_up_to_the_longest() -> None:
    sender = Sender(timeout=0.1, longest=0.5).synchronize()
    sender.change(1)
    sender.poll()
    for wait in (0.1, 0.2, 0.4, 0.5, 0.5):
        deadline = sender.replication.next_deadline()
        assert deadline == pytest.approx(sender.now + wait)
        assert sender.poll(wait - 0.001) == []
        ((_, message),) = sender.poll(0.0011)
        assert homes(message) == [1]


def test_an_acknowledgement_resets_the_timer() -> None:
    sender = Sender(timeout=0.1).synchronize()
    sender.change(1)
    sender.poll()
    sender.poll(0.1)
    ((_, message),) = sender.poll(0.2)
    sender.acknowledge(2, message)
    assert sender.replication.next_deadline() is None
    sender.change(2)
    sender.poll()
    assert sender.replication.next_deadline() == pytest.approx(sender.now + 0.1)


def test_what_is_sent_again_is_the_latest_generation() -> None:
    sender = Sender(timeout=0.1).synchronize()
    sender.change(1, "first")
    ((_, lost),) = sender.poll()
    sender.change(1, "second")
    ((_, newer),) = sender.poll()
    ((_, again),) = sender.poll(0.1)
    assert [each.entries[0].generation for each in (lost, newer, again)] == [1, 2, 2]
    assert sender.acknowledge(2, again) == ["first", "second"]


def test_an_acknowledgement_that_took_longer_than_the_timer_counts() -> None:
    sender = Sender(timeout=0.1).synchronize()
    sender.change(1, "waits")
    ((_, first),) = sender.poll()
    ((_, second),) = sender.poll(0.1)
    assert first.identifier != second.identifier
    assert sender.acknowledge(2, first) == ["waits"]
    # It answers the copy too.
    assert sender.poll(5.0) == []
    assert sender.replication.is_flushed(2)


def test_a_late_acknowledgement_says_nothing_of_what_came_after() -> None:
    sender = Sender(timeout=0.1).synchronize()
    sender.change(1, "first")
    ((_, first),) = sender.poll()
    sender.change(1, "second")
    ((_, second),) = sender.poll(0.1)
    assert sender.acknowledge(2, first) == ["first"]
    assert not sender.replication.is_flushed(2)
    assert sender.acknowledge(2, second) == ["second"]


def test_acknowledgements_of_nothing_that_was_sent_change_nothing() -> None:
    sender = Sender(2, 3).synchronize()
    sender.change(1, "waits")
    (_, message), _ = sender.poll()
    for bad in (
        message._replace(identifier=message.identifier + 1 & 0xFFFF),
        message._replace(entries=()),
        message._replace(entries=(*message.entries, message.entries[0]._replace(home_address=home(9)))),
    ):
        assert sender.acknowledge(2, bad) == []
    assert sender.acknowledge(2, message) == []
    assert sender.acknowledge(2, message) == []
    assert sender.replication.holding == 1


# -- what waits ------------------------------------------------------------------------------------


def test_effects_wait_for_every_member() -> None:
    sender = Sender(2, 3).synchronize()
    assert sender.change(1, "answer")
    (two, three) = sender.poll()
    assert sender.acknowledge(*two) == []
    assert sender.replication.holding == 1
    assert sender.acknowledge(*three) == ["answer"]
    assert sender.replication.holding == 0


def test_effects_of_one_mobile_node_stay_in_order() -> None:
    sender = Sender().synchronize()
    sender.change(1, "a")
    ((_, first),) = sender.poll()
    sender.change(1, "b")
    sender.change(2, "x")
    ((_, second),) = sender.poll()
    # The later one comes first, and tells of both.
    assert sender.acknowledge(2, second) == ["a", "b", "x"]
    assert sender.acknowledge(2, first) == []


def test_an_older_generation_releases_only_what_waited_for_it() -> None:
    sender = Sender().synchronize()
    sender.change(1, "a")
    ((_, first),) = sender.poll()
    sender.change(1, "b")
    assert sender.acknowledge(2, first) == ["a"]


def test_alone_nothing_waits() -> None:
    sender = Sender()
    assert sender.replication.alone
    assert not sender.change(1, "goes at once")
    assert sender.replication.holding == 0


def test_what_waited_for_a_member_that_failed_goes() -> None:
    sender = Sender(2, 3).synchronize()
    sender.change(1, "a")
    sender.change(2, "b")
    (_, three) = sender.poll()
    assert sender.acknowledge(*three) == []
    assert sender.replication.vanish(2) == ["a", "b"]
    assert sender.replication.synchronized() == (3,)
    assert not sender.replication.alone
    assert sender.replication.vanish(3) == []
    assert sender.replication.alone


def test_a_member_that_appears_is_waited_for_from_then_on() -> None:
    sender = Sender(2, 3).synchronize(2)
    sender.change(1, "old")
    ((_, message),) = sender.poll()
    sender.replication.appear(3)
    assert sender.acknowledge(2, message) == ["old"]
    sender.change(2, "new")
    (two, three) = sender.poll()
    assert sender.acknowledge(*two) == []
    assert sender.acknowledge(*three) == ["new"]
    assert sender.replication.synchronized() == (2,)


def test_abandoning_returns_everything() -> None:
    sender = Sender(2, 3).synchronize()
    for index, word in enumerate("abc"):
        sender.change(index % 2, word)
    assert sorted(sender.replication.abandon()) == ["a", "b", "c"]
    assert sender.replication.holding == 0


def test_a_mute_member_is_not_waited_for_until_it_acknowledges() -> None:
    sender = Sender(2, 3, patience=1.0).synchronize()
    sender.change(1, "a")
    (_, three) = sender.poll()
    sender.acknowledge(*three)
    assert sender.replication.stalled(1.0) == []
    assert sender.replication.stalled(1.01) == [2]
    assert sender.replication.mute(2) == ["a"]
    assert sender.replication.stalled(2.0) == []
    assert sender.replication.synchronized() == (3,)
    assert not sender.replication.alone
    sender.now = 1.1
    sender.change(2, "b")
    for identity, message in sender.poll():
        released = sender.acknowledge(identity, message) if identity == 3 else []
        if identity == 3:
            assert released == ["b"]
        else:
            late = message
    # It speaks again: now it is waited for, but it has to ask for what it missed.
    sender.acknowledge(2, late)
    sender.change(3, "c")
    assert not sender.replication.peers[2].is_mute
    (two, three) = sender.poll()
    assert sender.acknowledge(*three) == []
    assert sender.acknowledge(*two) == ["c"]
    assert sender.replication.settle() == []
    assert sender.replication.peers[2].progress is Progress.SYNCHRONIZING


def test_a_member_that_refuses_a_record_does_not_count() -> None:
    sender = Sender().synchronize()
    sender.change(1, "answer")
    ((_, message),) = sender.poll()
    assert sender.acknowledge(2, message, SynchronizationStatus.UNSPECIFIED) == ["answer"]
    assert sender.replication.synchronized() == ()
    assert sender.replication.alone


def test_doubt_sends_a_member_back() -> None:
    sender = Sender().synchronize()
    sender.replication.doubt(2)
    assert sender.replication.synchronized() == ()
    assert not sender.replication.alone
    assert sender.replication.settle() == []


def test_who_tells_late_what_it_has_is_waited_for_once_it_counts() -> None:
    sender = Sender()
    replication = sender.replication
    replication.appear(2, sender.now, pull_first=True)
    replication.trust(2)
    sender.now += 5.0
    assert replication.stalled(sender.now) == [2]
    assert replication.mute(2) == []
    assert replication.alone
    replication.peers[2].pulled = True
    assert replication.settle() == [2]
    assert replication.synchronized() == (2,)
    assert not replication.alone
    assert sender.change(1, "answer")
    ((_, message),) = sender.poll()
    assert sender.acknowledge(2, message) == ["answer"]
