"""The journal's files: segments in the state directory, their key, and two threads that wait for the disk.

Covered: reading at a start, appending, stable storage, removing what is of no use any more, disks that fail.
Not covered: octets and what they are worth (``failover.journal``), what is written when (``journaling``).

One thread writes, another one waits until that is on stable storage, so that an answer which needs the first
does not wait for the second.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from twisted.logger import Logger

from ..effects import WriteJournal
from ..failover import journal
from ..failover.journal import Moment, Restored, Segment, SegmentWriter
from ..wire import Malformed
from .errors import Unusable

__all__ = ["JournalFiles", "journal_key", "moment"]

_NAME = re.compile(r"journal\.(\d{1,18})")
_KEY_OCTETS = 32
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@cache
def _boot() -> str:
    return _BOOT.read_text().strip()


def moment(monotonic: float) -> Moment:
    """A moment on the monotonic clock, as the journal has it."""
    wall = time.time() - (time.monotonic() - monotonic)
    return Moment(_boot(), round(monotonic * 1000), max(0, round(wall * 1000)))


def journal_key(directory: Path) -> bytes:
    """The key in ``journal.key``, made at the first start; :class:`Unusable` if others can read it."""
    path = directory / "journal.key"
    try:
        if not path.exists():
            fresh = path.with_name("journal.key.new")
            fresh.unlink(missing_ok=True)
            fresh.touch(mode=0o600)
            with fresh.open("w") as file:
                file.write(secrets.token_hex(_KEY_OCTETS) + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        if path.stat().st_mode & 0o077:
            raise Unusable(f"{path}: others can read it; allowed: mode 0600")
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_OCTETS:
        raise Unusable(f"{path}: holds no key; remove it to have one made, and the journal is begun anew")
    return key


class _Open(NamedTuple):
    """The segment that is being written."""

    generation: int
    file: int
    writer: SegmentWriter


class _Written(NamedTuple):
    """What is to be put on stable storage: everything of a segment until a batch."""

    ticket: int
    segment: _Open
    records: int
    closes: bool = False
    completes: bool = False


class JournalFiles:
    """The journal in ``directory``, sealed with ``key``.

    ``answers`` get, in the reactor's thread: the ticket of a batch that is written, of one that is stored, or
    why the journal is gone.
    """

    log = Logger()

    def __init__(
        self,
        directory: Path,
        key: bytes,
        reactor: Any,
        answers: tuple[Callable[[int], object], Callable[[int], object], Callable[[str], object]],
    ) -> None:
        self._directory = directory
        self._key = key
        self._reactor = reactor
        self._written, self._stored, self._failed = answers
        self._generation = max(self._segments(), default=0)
        self._segment: _Open | None = None
        self._batches: SimpleQueue[WriteJournal | None] = SimpleQueue()
        self._unstored: SimpleQueue[_Written | None] = SimpleQueue()
        self._broken = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._write, self._store)]

    # -- the reactor's side ------------------------------------------------------------------------

    def read(self, *, alone: bool) -> Restored:
        """What there is, as old as it is now; what is wrong is told, once, and the rest is used."""
        segments: list[Segment] = []
        wrong = []
        for path in self._segments().values():
            try:
                segments.append(journal.read(path.read_bytes(), self._key))
            except OSError as error:
                wrong.append(f"{path.name}: {error.strerror}")
            except Malformed as bad:
                wrong.append(f"{path.name}: {bad.reason}")
        restored = journal.restore(segments, moment(time.monotonic()), alone=alone and not wrong)
        wrong += restored.wrong
        if wrong:
            self.log.warn("{event}", event="journal_damaged", fields={"wrong": "; ".join(wrong)})
        return restored

    def begin(self) -> None:
        """Be ready to write."""
        for thread in self._threads:
            thread.start()

    def append(self, effect: WriteJournal) -> None:
        """Write a batch, soon."""
        self._batches.put(effect)

    def close(self) -> None:
        """Write what there is; it is on stable storage on return."""
        self._batches.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # -- the threads' ------------------------------------------------------------------------------

    def _segments(self) -> dict[int, Path]:
        found = {}
        for path in self._directory.iterdir():
            match = _NAME.fullmatch(path.name)
            if match:
                found[int(match[1])] = path
        return dict(sorted(found.items()))

    def _tell(self, answer: Callable[..., object], what: object) -> None:
        self._reactor.callFromThread(answer, what)

    def _write(self) -> None:
        while (effect := self._batches.get()) is not None:
            if self._broken.is_set() and not effect.begins:
                # Asked for before it was known that there is no journal.
                continue
            try:
                self._append(effect)
            except OSError as error:
                self._break(error)
        if self._segment is not None:
            self._unstored.put(_Written(0, self._segment, self._segment.writer.records, closes=True))
        self._unstored.put(None)

    def _append(self, effect: WriteJournal) -> None:
        if effect.begins:
            self._broken.clear()
            before, self._segment = self._segment, None
            if before is not None:
                self._unstored.put(_Written(0, before, before.writer.records, closes=True))
            self._segment = self._open()
        segment = self._segment
        if segment is None:
            return
        batch = journal.batch(moment(effect.moment), effect.contexts, complete=effect.completes)
        _write_all(segment.file, segment.writer.record(batch))
        self._tell(self._written, effect.ticket)
        self._unstored.put(
            _Written(effect.ticket, segment, segment.writer.records, completes=effect.completes)
        )

    def _open(self) -> _Open:
        self._generation += 1
        writer = SegmentWriter(self._key, self._generation, os.urandom)
        path = self._directory / f"journal.{self._generation}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        _write_all(file, writer.beginning)
        return _Open(self._generation, file, writer)

    def _store(self) -> None:
        marked: dict[int, int] = {}
        while (written := self._unstored.get()) is not None:
            waiting = [written]
            ends = False
            while not self._unstored.empty() and not waiting[-1].closes and not waiting[-1].completes:
                each = self._unstored.get()
                if each is None:
                    ends = True
                    break
                waiting.append(each)
            try:
                self._put(waiting[-1], marked)
            except OSError as error:
                self._break(error)
            if ends:
                break

    def _put(self, last: _Written, marked: dict[int, int]) -> None:
        """Everything until ``last`` on stable storage; it is the last of its segment in this turn."""
        generation, file, writer = last.segment
        os.fdatasync(file)
        if marked.get(generation, 0) < last.records:
            marked[generation] = last.records
            at, octets = writer.mark(last.records)
            os.pwrite(file, octets, at)
        if last.completes:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._remove(before=generation)
        if last.closes:
            os.close(file)
        elif not self._broken.is_set():
            self._tell(self._stored, last.ticket)

    def _remove(self, before: int) -> None:
        for generation, path in self._segments().items():
            if generation < before:
                path.unlink(missing_ok=True)

    def _break(self, error: OSError) -> None:
        """What cannot be kept up is worse than nothing: a restart would go back to it."""
        self._broken.set()
        self._remove(before=1 << 62)
        self._tell(self._failed, error.strerror or str(error))


def _write_all(file: int, octets: bytes) -> None:
    if os.write(file, octets) != len(octets):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
