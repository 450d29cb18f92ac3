"""Performing a scenario: its network and processes are there for as long as it takes, and gone afterwards,
whatever happens.

Covered: clean-up, interrupts, what is left to examine. Not covered: on which kernel (`uml`), outputs
(`main`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from .processes import Processes, ProcessFailed
from .scenario import Options, Outcome, Run, Scenario, StepListener
from .timeline import Timeline
from .topology import CommandFailed, Network

__all__ = ["Interrupted", "Performance", "interruptible", "perform"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the lab to end; everything is cleaned up on its way out."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(slots=True)
class Performance:
    """What came of it. Either `examine` judges the recordings, or there is an `error`. `left_over` names
    namespaces that are still there, `interrupted` is a signal's number, `kernel` the release it ran on.
    """

    timeline: Timeline
    examine: Callable[[], Outcome] | None = None
    error: str = ""
    interrupted: int = 0
    left_over: list[str] = field(default_factory=list)
    kernel: str = field(default_factory=lambda: os.uname().release)

    def interrupt(self, stop: Interrupted) -> None:
        """Note that it ended early."""
        self.error, self.interrupted = f"interrupted by {stop}", stop.number

    def fail(self, error: Exception) -> None:
        """Note that it came to nothing."""
        self.error = str(error)
        self.timeline.add("error", self.error)


def _interrupt(number: int, frame: FrameType | None) -> None:
    ignore_signals()
    raise Interrupted(number)


def ignore_signals() -> None:
    """From here on nothing interrupts the clean-up."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals that ask for the end become `Interrupted` in the block, the first of them only."""
    previous = [signal.signal(each, _interrupt) for each in SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(SIGNALS, previous, strict=True):
            signal.signal(number, handler)


def perform(
    scenario: Scenario,
    options: Options,
    prefix: str,
    report: Path,
    *,
    timeline: Timeline,
    step: StepListener,
    keep: bool = False,
) -> Performance:
    """Perform it on this kernel. Namespaces are called ``PREFIX-*``; with `keep` they stay."""
    performance = Performance(timeline)
    network = Network(scenario.topology, prefix)
    try:
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netns-lab-")))
            stack.enter_context(network)
            processes = stack.enter_context(Processes(report / "logs"))
            # Registered last, called first: the clean-up that follows is not to be interrupted.
            stack.callback(ignore_signals)
            run = Run(options, network, processes, timeline, report, work, step)
            performance.examine = scenario.perform(run)
            if keep:
                network.keep()
    except (CommandFailed, ProcessFailed, subprocess.TimeoutExpired, OSError) as error:
        performance.fail(error)
    except Interrupted as stop:
        performance.interrupt(stop)
    performance.left_over = network.left_over()
    return performance
