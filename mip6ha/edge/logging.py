"""Log lines on standard error: text for people, JSON for programs.

Covered: both formats over twisted.logger, one line an event. Not covered: files and rotation, which whoever
starts the process does better.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner

__all__ = ["line", "start"]

_ORDER = [LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical]
_WARN = 2
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


def start(form: str, level: str, stream: TextIO = sys.stderr) -> None:
    """Log events of at least ``level`` to ``stream``, one of :data:`FORMATS`."""
    least = LEVELS.index(level)

    def observe(event: LogEvent) -> None:
        # What Twisted says about itself is of interest only when something is wrong.
        own = event.get("log_namespace", "").startswith("mip6ha")
        if event.get("log_level") in _ORDER[least if own else max(least, _WARN) :]:
            stream.write(line(event, form) + "\n")
            stream.flush()

    observer: Any = observe
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
