"""Log lines on standard error: text for people, JSON for programs.

Covered: both formats over twisted.logger, one line an event; a thread that writes them, so that whoever logs
never waits for a disk or a pipe. Not covered: files and rotation, which whoever starts the process does
better.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner

__all__ = ["Lines", "line", "lost", "start"]

_ORDER = [LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical]
_WARN = 2
_MOST = 10_000
_PATIENCE = 2.0
_STANDARD_ERROR = 2
FORMATS = ("text", "json")
LEVELS = tuple(level.name for level in _ORDER)


def line(event: LogEvent, form: str) -> str:
    """One event as one line. What is logged as ``event`` with fields keeps them; else the formatted text."""
    stamp = datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds")
    level = event["log_level"].name
    name = event.get("event") or formatEvent(event)
    fields = dict(event.get("fields", {}))
    failure = event.get("log_failure")
    if failure is not None:
        fields["failure"] = failure.getTraceback()
    if form == "json":
        return json.dumps({"time": stamp, "level": level, "event": name, **fields}, default=str)
    rest = "".join(f" {key}={value}" for key, value in fields.items())
    return f"{stamp} {level} {name}{rest}"


class Lines:
    """Lines on their way to a descriptor, ``most`` of them; what comes while so many wait is lost (counted).

    The thread uses no stream object: at the end of the process it may hang in a pipe that nobody reads.
    """

    def __init__(self, file: int, most: int = _MOST) -> None:
        self.lost = 0
        self._file = file
        self._most = most
        self._waiting: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def put(self, text: str) -> None:
        """Write a line, soon."""
        if self._waiting.qsize() < self._most:
            self._waiting.put(text)
        else:
            self.lost += 1

    def close(self, patience: float = _PATIENCE) -> None:
        """Write what waits, but not for longer than ``patience`` seconds."""
        self._waiting.put(None)
        self._thread.join(patience)

    def _work(self) -> None:
        while (text := self._waiting.get()) is not None:
            texts = [text]
            ends = False
            while not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    ends = True
                    break
                texts.append(more)
            try:
                octets = "".join(f"{each}\n" for each in texts).encode(errors="replace")
                while octets:
                    octets = octets[os.write(self._file, octets) :]
            except OSError:
                # Whoever read it is gone, or its disk is full.
                self.lost += len(texts)
            if ends:
                return


_lines: Lines | None = None


def lost() -> int:
    """How many lines could not be written since the start."""
    return 0 if _lines is None else _lines.lost


def start(form: str, level: str) -> None:
    """Log events of at least ``level`` to standard error, in one of :data:`FORMATS`."""
    global _lines  # noqa: PLW0603 (standard error is one for the whole process)
    least = LEVELS.index(level)
    lines = _lines = Lines(_STANDARD_ERROR)
    atexit.register(lines.close)

    def observe(event: LogEvent) -> None:
        # What Twisted says about itself is of interest only when something is wrong.
        own = event.get("log_namespace", "").startswith("mip6ha")
        if event.get("log_level") in _ORDER[least if own else max(least, _WARN) :]:
            lines.put(line(event, form))

    observer: Any = observe
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
