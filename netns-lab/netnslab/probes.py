"""Probe streams between two nodes, and what they measure: loss, duplicates, latency, gaps.

A stream is one direction. Its samples come from the sender's record, its arrivals from the receiver's
(`endpoint` describes both). All times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import signal
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from . import endpoint
from .processes import Processes, Running

__all__ = ["Gap", "Phase", "ProbePair", "Sample", "Stream", "join_records", "longest_gap", "losses_by_phase"]

READY_LIMIT = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One datagram that was to be sent. `failure` is the errno of a send that the kernel refused, else 0."""

    sequence: int
    sent: float
    received: float | None
    failure: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction. `arrivals` holds the time of every datagram that came in, in order, duplicates
    included.
    """

    name: str
    samples: tuple[Sample, ...]
    arrivals: tuple[float, ...]
    duplicates: int

    @property
    def lost(self) -> tuple[Sample, ...]:
        """The datagrams that never arrived."""
        return tuple(sample for sample in self.samples if sample.received is None)

    def latencies(self) -> list[float]:
        """One-way latencies in seconds."""
        return [sample.received - sample.sent for sample in self.samples if sample.received is not None]

    def latency_summary(self) -> dict[str, float]:
        """Median, 99th percentile and maximum, in milliseconds; empty without arrivals."""
        values = sorted(self.latencies())
        if not values:
            return {}
        named = {
            "median_ms": statistics.median(values),
            "p99_ms": values[min(len(values) - 1, len(values) * 99 // 100)],
            "max_ms": values[-1],
        }
        return {name: round(value * 1000, 3) for name, value in named.items()}

    def first_arrival(self, moment: float) -> float | None:
        """Time of the first arrival at or after a moment."""
        return next((time for time in self.arrivals if time >= moment), None)

    def sender_pause(self) -> float:
        """The longest time in seconds that the sender itself was late, beyond its interval."""
        pauses = [second.sent - first.sent for first, second in pairwise(self.samples)]
        return max(pauses) - statistics.median(pauses) if pauses else 0.0

    def between(self, start: float, end: float) -> tuple[int, int]:
        """How many datagrams sent in ``[start, end)`` arrived, and how many there were."""
        chosen = [sample for sample in self.samples if start <= sample.sent < end]
        return sum(sample.received is not None for sample in chosen), len(chosen)


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without arrivals."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start

    def since(self, moment: float) -> float:
        """Length of the part of the gap that lies after a moment."""
        return max(0.0, self.end - max(self.start, moment))


@dataclass(frozen=True, slots=True)
class Phase:
    """A named part of a run, ``[start, end)``."""

    name: str
    start: float
    end: float


def longest_gap(arrivals: Sequence[float], start: float, end: float, *, began_before: bool = True) -> Gap:
    """The longest time without arrivals that overlaps ``[start, end]``.

    A gap may begin before `start` and finish after `end`. Where nothing arrived before (or after), the
    window's own edge bounds it; its start does as well unless a gap that `began_before` counts whole.
    """
    before = max((time for time in arrivals if time <= start and began_before), default=start)
    after = min((time for time in arrivals if time >= end), default=end)
    points = [before, *(time for time in arrivals if start < time < end), after]
    gaps = [Gap(first, second) for first, second in pairwise(points)]
    return max(gaps, key=lambda gap: gap.length)


def losses_by_phase(stream: Stream, phases: Iterable[Phase]) -> dict[str, int]:
    """How many datagrams were lost in each phase, by the time they were sent; phases without loss are left
    out.
    """
    counts = {
        phase.name: sum(phase.start <= sample.sent < phase.end for sample in stream.lost) for phase in phases
    }
    counts["outside every phase"] = len(stream.lost) - sum(counts.values())
    return {name: count for name, count in counts.items() if count}


def read_records(path: Path) -> list[tuple[int, int, int, int]]:
    """The records of one endpoint, as `endpoint` wrote them."""
    return list(endpoint.RECORD.iter_unpack(path.read_bytes()))


def join_records(
    name: str, sender: Iterable[tuple[int, int, int, int]], receiver: Iterable[tuple[int, int, int, int]]
) -> Stream:
    """One direction, from the records of both its ends."""
    first: dict[int, float] = {}
    arrivals, duplicates = [], 0
    for kind, sequence, _, received in receiver:
        if kind == endpoint.RECEIVED:
            arrivals.append(received / 1e9)
            duplicates += sequence in first
            first.setdefault(sequence, received / 1e9)
    samples = tuple(
        Sample(sequence, sent / 1e9, first.get(sequence), failure)
        for kind, sequence, sent, failure in sender
        if kind == endpoint.SENT
    )
    return Stream(name, samples, tuple(sorted(arrivals)), duplicates)


class ProbePair:
    """Streams in both directions between two nodes."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        interval: float,
        port: int = 4000,
        *,
        first: bool = False,
    ) -> None:
        self._processes = processes
        self._directory = directory
        self._interval = interval
        self._port = port
        self._first = first
        self._ends: dict[str, Running] = {}

    def start(self, ends: dict[str, tuple[str, str]]) -> None:
        """Start both ends and then their streams: name -> (namespace, address)."""
        (first, (_, first_address)), (second, (_, second_address)) = ends.items()
        remotes = {first: second_address, second: first_address}
        for name, (namespace, address) in ends.items():
            argv = [
                sys.executable,
                "-I",
                "-S",
                endpoint.__file__,
                "--local",
                address,
                "--remote",
                remotes[name],
            ]
            argv += ["--port", str(self._port), "--interval", str(self._interval)]
            argv += ["--record", str(self._record(name))]
            self._ends[name] = self._processes.start(f"probe-{name}", argv, namespace, first=self._first)
        for running in self._ends.values():
            running.wait_for_text("ready", READY_LIMIT)
        for running in self._ends.values():
            running.send(signal.SIGUSR2)

    def silence(self) -> None:
        """Stop sending; what is under way still arrives."""
        for running in self._ends.values():
            running.send(signal.SIGUSR1)

    def finish(self) -> tuple[Stream, Stream]:
        """End both programs and join their records: (first to second, second to first)."""
        first, second = self._ends
        for running in self._ends.values():
            running.stop()
        records = {name: read_records(self._record(name)) for name in self._ends}
        return (
            join_records(f"{first}_to_{second}", records[first], records[second]),
            join_records(f"{second}_to_{first}", records[second], records[first]),
        )

    def _record(self, name: str) -> Path:
        return self._directory / f"probe-{name}.bin"
