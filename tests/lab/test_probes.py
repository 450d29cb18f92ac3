"""Probe statistics on made-up records."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from netnslab import endpoint
from netnslab.probes import Gap, Phase, Stream, join_records, longest_gap, losses_by_phase, read_records

MS = 1_000_000
SENT, RECEIVED = endpoint.SENT, endpoint.RECEIVED


def stream(lost: set[int], count: int = 100, latency: float = 0.001) -> Stream:
    """A probe every 10 ms from 0 s on."""
    sender = [(SENT, number, number * 10 * MS, 0) for number in range(count)]
    receiver = [
        (RECEIVED, number, number * 10 * MS, number * 10 * MS + int(latency * 1e9))
        for number in range(count)
        if number not in lost
    ]
    return join_records("there", sender, receiver)


def test_nothing_lost() -> None:
    whole = stream(set())
    assert len(whole.samples) == 100
    assert not whole.lost
    assert whole.duplicates == 0
    assert whole.latency_summary() == {"median_ms": 1.0, "p99_ms": 1.0, "max_ms": 1.0}


def test_lost_are_those_that_never_arrive() -> None:
    assert [sample.sequence for sample in stream({3, 4, 50}).lost] == [3, 4, 50]


def test_refused_sends_count_as_lost_with_their_reason() -> None:
    one = join_records("there", [(SENT, 0, 0, errno.ENETUNREACH)], [])
    assert one.lost[0].failure == errno.ENETUNREACH


def test_duplicates_are_counted_once_each_and_keep_the_first_arrival() -> None:
    twice = join_records(
        "there",
        [(SENT, 0, 0, 0)],
        [(RECEIVED, 0, 0, 5 * MS), (RECEIVED, 0, 0, 9 * MS), (RECEIVED, 0, 0, 11 * MS)],
    )
    assert twice.duplicates == 2
    assert twice.samples[0].received == pytest.approx(0.005)


def test_what_an_endpoint_sent_is_not_what_it_received() -> None:
    both = [(SENT, 0, 0, 0), (RECEIVED, 7, 1, 2)]
    assert [sample.sequence for sample in join_records("there", both, both).samples] == [0]


def test_longest_gap_is_where_the_losses_are() -> None:
    gap = longest_gap(stream({40, 41, 42, 43, 44}).arrivals, 0.3, 0.6)
    assert gap.start == pytest.approx(0.391)
    assert gap.end == pytest.approx(0.451)
    assert gap.length == pytest.approx(0.06)


def test_gap_counts_from_a_moment_inside_it() -> None:
    gap = Gap(1.0, 1.5)
    assert gap.since(1.2) == pytest.approx(0.3)
    assert gap.since(0.5) == pytest.approx(0.5)
    assert gap.since(2.0) == 0


def test_gap_reaches_out_of_the_window() -> None:
    clipped = longest_gap([0.0, 1.0, 1.2], 0.4, 1.1, began_before=False)
    assert clipped == Gap(0.4, 1.0)
    gap = longest_gap([0.0, 1.0], 0.4, 0.6)
    assert (gap.start, gap.end) == (0.0, 1.0)


def test_gap_without_any_arrival_is_the_window() -> None:
    assert longest_gap([], 1.0, 3.0) == Gap(1.0, 3.0)


def test_gap_that_never_ends_is_bounded_by_the_window() -> None:
    assert longest_gap([0.5], 1.0, 3.0) == Gap(0.5, 3.0)


def test_losses_belong_to_the_phase_in_which_they_were_sent() -> None:
    phases = (Phase("before", 0.0, 0.5), Phase("after", 0.5, 0.9))
    assert losses_by_phase(stream({10, 49, 50, 95}), phases) == {
        "before": 2,
        "after": 1,
        "outside every phase": 1,
    }


def test_phases_without_loss_are_left_out() -> None:
    assert losses_by_phase(stream(set()), (Phase("all", 0.0, 1.0),)) == {}


def test_first_arrival_after_a_moment() -> None:
    assert stream({50, 51}).first_arrival(0.5) == pytest.approx(0.521)
    assert stream(set()).first_arrival(9.0) is None


def test_between_counts_by_the_time_of_sending() -> None:
    assert stream({5}).between(0.0, 0.1) == (9, 10)


def test_endpoints_talk_to_each_other(tmp_path: Path) -> None:
    record = tmp_path / "one.bin"
    argv = [sys.executable, "-I", "-S", endpoint.__file__, "--local", "::1", "--remote", "::1"]
    process = subprocess.Popen(
        [*argv, "--port", "41871", "--interval", "0.001", "--record", str(record)], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.3)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(5)
        if process.stdout is not None:
            process.stdout.close()
    records = read_records(record)
    itself = join_records("itself", records, records)
    assert 200 <= len(itself.samples) <= 400
    assert not itself.lost
    assert itself.duplicates == 0


def test_endpoint_refuses_an_interval_that_it_cannot_keep(tmp_path: Path) -> None:
    argv = [sys.executable, endpoint.__file__, "--local", "::1", "--remote", "::1", "--port", "1"]
    done = subprocess.run(
        [*argv, "--interval", "0.0001", "--record", str(tmp_path / "x")], capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"--interval" in done.stderr
