"""What goes into a journal when: segments, batches, what failed."""

from __future__ import annotations

from mip6ha.effects import Effect, WriteJournal
from mip6ha.journaling import Journal


class Known:
    """A journal over contexts of a size."""

    def __init__(self, count: int, size: int = 400, delay: float = 0.0) -> None:
        self.homes = {index.to_bytes(16, "big"): bytes(size) for index in range(count)}
        self.journal = Journal(self.homes.get, lambda: self.homes, delay=delay)
        self.now = 0.0
        self.batches: list[WriteJournal] = []

    def run(self, seconds: float) -> list[WriteJournal]:
        """Time passes on a disk that takes no time; the batches."""
        end, before = self.now + seconds, len(self.batches)
        while (due := self.journal.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            effects: list[Effect] = []
            self.journal.poll(self.now, effects)
            self.batches += [each for each in effects if isinstance(each, WriteJournal)]
            self.journal.has_written(self.journal.ticket)
            self.journal.has_stored(self.journal.ticket)
        self.now = end
        return self.batches[before:]


def test_a_segment_gets_everything_little_by_little() -> None:
    known = Known(100)
    batches = known.run(1)
    assert batches[0].begins
    assert [each.completes for each in batches] == [False] * (len(batches) - 1) + [True]
    assert sum(len(each.contexts) for each in batches) == 100
    assert max(len(each.contexts) for each in batches) <= 16
    assert known.journal.is_whole
    assert known.run(10) == []


def test_a_segment_that_has_grown_is_followed_by_another() -> None:
    known = Known(1000, size=2000)
    known.run(10)
    homes = list(known.homes)
    begun = 0
    for turn in range(300):
        known.journal.changed |= dict.fromkeys(homes[:64])
        batches = known.run(0.01)
        assert sum(len(each.contexts) for each in batches) <= 64 + 16 * len(batches), turn
        begun += sum(each.begins for each in batches)
    # 38 MB have changed, and each segment takes 4 MiB of that besides the 2 MB of all.
    assert 3 <= begun <= 6
    rest = known.run(10)
    assert rest[-1].completes


def test_changes_wait_for_others() -> None:
    known = Known(0, delay=0.02)
    known.run(1)
    for index in range(30):
        known.homes[bytes((index,))] = known.journal.changed[bytes((index,))] = b"x"  # type: ignore[assignment]
        known.run(0.001)
    known.run(1)
    assert [len(each.contexts) for each in known.batches] == [0, 1, 20, 9]


def test_one_batch_at_a_time() -> None:
    known = Known(5)
    effects: list[Effect] = []
    known.journal.poll(0, effects)
    known.journal.changed |= dict.fromkeys(known.homes)
    known.journal.poll(1, effects)
    assert len(effects) == 1
    assert known.journal.next_deadline() is None
    known.journal.has_written(1)
    known.journal.poll(1, effects)
    assert len(effects) == 2


def test_what_failed_is_begun_anew_after_a_while() -> None:
    known = Known(20)
    known.run(1)
    known.journal.fail(known.now)
    assert not known.journal.is_whole
    known.journal.changed |= dict.fromkeys(known.homes)
    assert known.run(4.9) == []
    batches = known.run(1)
    assert batches[0].begins
    assert sum(len(each.contexts) for each in batches) == 20
    assert known.journal.is_whole


def test_no_keys_in_a_representation() -> None:
    effect = WriteJournal(3, 1.0, (b"SECRET",), begins=True, completes=False)
    assert "SECRET" not in f"{effect} {effect!r} {[effect]}"
