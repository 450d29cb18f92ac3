"""What outlives the process, and log lines."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from mip6ha.edge.errors import Unusable
from mip6ha.edge.logging import line
from mip6ha.edge.storage import StateDirectory, StoredNumber, write_atomically


def test_the_reservation_is_read_back(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "a" / "b")
    assert state.sequence_floor() == 0
    state.reserve_sequences(1 << 40)
    reserved = state.sequence_floor()
    assert reserved >= 1 << 40
    state.reserve_sequences(5)
    state.reserve_sequences(reserved)
    assert state.sequence_floor() == reserved
    assert state.term() == 0
    state.store_term(513)
    state.store_term(257)
    with pytest.raises(Unusable, match="another home agent"):
        StateDirectory(tmp_path / "a" / "b")
    state.close()
    again = StateDirectory(tmp_path / "a" / "b")
    assert again.sequence_floor() == reserved
    assert again.term() == 513
    again.close()


def test_an_interrupted_write_leaves_the_old_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    (tmp_path / "file.new").write_text("half of what was to c")
    assert path.read_text() == "old"
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_reservation_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.reserve_sequences(5)
    fill_disk(state, "sequences")
    with pytest.raises(OSError, match="No space"):
        state.reserve_sequences(1 << 30)
    assert state.sequence_floor() < 1 << 30
    state.close()


def fill_disk(state: StateDirectory, name: str) -> None:
    """Writes to that file fail from now on as on a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, state._numbers[name]._file)
    os.close(full)


def test_a_write_that_was_torn_leaves_the_number_before(tmp_path: Path) -> None:
    path = tmp_path / "number"
    number = StoredNumber(path, "number")
    for value in (5, 9, 12):
        number.raise_to(value)
    number.close()
    octets = bytearray(path.read_bytes())
    at = octets.index(b"00000012")
    octets[at : at + 8] = b"00000099"
    path.write_bytes(octets)
    torn = StoredNumber(path, "number")
    assert torn.value == 9
    torn.raise_to(13)
    torn.close()
    whole = StoredNumber(path, "number")
    assert whole.value == 13
    whole.close()


@pytest.mark.parametrize("octets", [b"x", b"12\n", bytes(1024), b"\xff" * 1024])
def test_a_file_without_a_number_is_refused(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "term").write_bytes(octets)
    state = StateDirectory(tmp_path)
    with pytest.raises(Unusable, match="term: holds no term"):
        state.term()
    state.close()


def test_events_keep_their_fields() -> None:
    event = {"log_time": 0.0, "log_level": LogLevel.info, "event": "registered", "fields": {"sequence": 7}}
    assert line(event, "text") == "1970-01-01T00:00:00.000+00:00 info registered sequence=7"
    assert json.loads(line(event, "json")) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "event": "registered",
        "sequence": 7,
    }


def test_a_failure_comes_with_its_traceback() -> None:
    try:
        io.BytesIO().fileno()
    except io.UnsupportedOperation:
        failure = Failure()
    event = {"log_time": 0.0, "log_level": LogLevel.critical, "log_format": "oh", "log_failure": failure}
    told = json.loads(line(event, "json"))
    assert told["event"] == "oh"
    assert "UnsupportedOperation" in told["failure"]
