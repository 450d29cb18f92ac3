"""What runs in User-Mode Linux: one scenario, told to the lab outside line by line, and at the end its
recordings.

Not covered: everything that is the same on any kernel (`performance`).
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from pathlib import Path

from .performance import perform
from .scenarios import SCENARIOS
from .timeline import Mark, Timeline
from .uml import Request

__all__ = ["main"]


def _tell(*what: object) -> None:
    print(json.dumps(what), flush=True)


def _mark(mark: Mark) -> None:
    _tell("mark", mark.time, mark.source, mark.name, mark.detail)


def main(request: Path) -> None:
    """Perform what a request asks for."""
    # Sockets and state on a file system that is in memory; reports go where they were asked for.
    tempfile.tempdir = "/run"
    wanted: Request = pickle.loads(request.read_bytes())
    name, options, report, answer = wanted
    timeline = Timeline(_mark)
    _tell("begin", timeline.start, timeline.epoch_offset)

    def step(name: str) -> None:
        _tell("step", name)

    performance = perform(SCENARIOS[name], options, "lab", report, timeline=timeline, step=step)
    timeline.forget_listener()
    answer.write_bytes(pickle.dumps(performance))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
