"""What outlives the process, and log lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from mip6ha.edge.errors import Unusable
from mip6ha.edge.logging import line
from mip6ha.edge.storage import StateDirectory, write_atomically


def test_the_reservation_is_read_back(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "a" / "b")
    assert state.sequence_floor() == 0
    state.reserve_sequences(1 << 40)
    assert state.sequence_floor() == 1 << 40
    with pytest.raises(Unusable, match="another home agent"):
        StateDirectory(tmp_path / "a" / "b")
    state.close()
    again = StateDirectory(tmp_path / "a" / "b")
    assert again.sequence_floor() == 1 << 40
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
    (tmp_path / "sequences.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        state.reserve_sequences(5)
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
