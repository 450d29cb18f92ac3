"""A scenario in User-Mode Linux: performed there, shown and examined here.

Covered: where to run, the way of steps, marks and recordings from the inside (`inside`) to here. Not covered:
the kernel itself (``tools/kernel-run``).
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mip6ha.edge.features import kernel_features

from .performance import Interrupted, Performance
from .processes import ProcessFailed
from .scenario import Options, Scenario, StepListener
from .timeline import Mark, Timeline

__all__ = ["Request", "host_lacks", "perform_in_uml"]

ROOT = Path(__file__).resolve().parents[2]
# First: gaps are those of the programs under test, not of what else this machine does.
_BOOT = (ROOT / "tools" / "kernel-run", "--uml", "--first", "--memory", "1G")

Request = tuple[str, Options, Path, Path]


def host_lacks() -> list[str]:
    """What the kernel of this machine lacks for the kernel dataplane; needs root."""
    return list(kernel_features().missing)


def perform_in_uml(
    scenario: Scenario, options: Options, report: Path, *, timeline: Timeline, step: StepListener
) -> Performance:
    """Perform it on a kernel that ends with it; its clock becomes the timeline's."""
    performance = Performance(timeline)
    try:
        with tempfile.TemporaryDirectory(prefix="netns-lab-") as name:
            request, answer = Path(name) / "request", Path(name) / "answer"
            wanted: Request = (scenario.name, options, report, answer)
            request.write_bytes(pickle.dumps(wanted))
            with (report / "logs" / "kernel.err").open("wb") as complaints:
                process = subprocess.Popen(
                    [*_BOOT, sys.executable, "-m", "netnslab.inside", request],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
                    start_new_session=True,
                )
            try:
                _follow(process, timeline, step)
            finally:
                _end(process)
            if not answer.exists():
                said = (report / "logs" / "kernel.err").read_text(errors="replace").strip().splitlines()
                raise ProcessFailed(f"User-Mode Linux: {' / '.join(said[-3:]) or 'it said nothing'}")
            # Written by this project a moment ago, in a directory that is this user's alone.
            performance = pickle.loads(answer.read_bytes())
    except (ProcessFailed, OSError) as error:
        performance.fail(error)
    except Interrupted as stop:
        performance.interrupt(stop)
    return performance


def _follow(process: subprocess.Popen[bytes], timeline: Timeline, step: StepListener) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        kind, *values = json.loads(line)
        if kind == "begin":
            timeline.start, timeline.epoch_offset = values
        elif kind == "step":
            step(*values)
        else:
            timeline.take(Mark(*values))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait()
