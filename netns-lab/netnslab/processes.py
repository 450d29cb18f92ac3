"""Processes inside namespaces: started with a log file each, watched for a ready line, stopped by process id.

A process is started with ``ip netns exec``, which replaces itself by the program, so that the id is the
program's. Each one has its own session (the terminal's interrupt reaches the lab only, which stops them in
order) and dies with the lab. Not covered: restarts.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ProcessFailed", "Processes", "Running", "answers"]

POLL = 0.005
STOP_LIMIT = 5.0
# It replaces itself by the program that follows. What Python itself could do between fork and exec costs a
# real fork, during which a kernel that cannot be interrupted does nothing else.
DIE_WITH_THE_LAB = ("setpriv", "--pdeathsig", "TERM")


def answers(path: Path) -> bool:
    """Whether somebody takes connections at a socket: it is there a moment before."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


class ProcessFailed(Exception):
    """A process ended early, or was not ready in time."""


@dataclass(slots=True)
class Running:
    """A process that the lab started, with the files that hold what it prints."""

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.alive():
            self.process.send_signal(number)

    def wait_for(self, what: str, ready: Callable[[], bool], limit: float) -> None:
        """Wait until `ready` says so; `ProcessFailed` if the process ends first or `limit` seconds pass."""
        end = time.monotonic() + limit
        while not ready():
            if not self.alive():
                raise ProcessFailed(
                    f"{self.name} ended with status {self.process.returncode} before {what}: "
                    f"{self.last_words()}"
                )
            if time.monotonic() > end:
                raise ProcessFailed(f"{self.name}: no {what} within {limit:g} s: {self.last_words()}")
            time.sleep(POLL)

    def wait_for_text(self, text: str, limit: float) -> None:
        """Wait until the process has printed `text`, on either stream."""
        wanted = text.encode()
        self.wait_for(
            f"line with {text!r}",
            lambda: any(wanted in file.read_bytes() for file in (self.stdout, self.stderr)),
            limit,
        )

    def last_words(self) -> str:
        """The last lines that it printed, for an error message."""
        text = (
            self.stderr.read_text(errors="replace").strip() or self.stdout.read_text(errors="replace").strip()
        )
        return " / ".join(text.splitlines()[-3:]) or "(it printed nothing)"

    def stop(self, number: signal.Signals = signal.SIGTERM, limit: float = STOP_LIMIT) -> int:
        """Ask it to end, insist after `limit` seconds; returns the exit status (negative: signal)."""
        self.send(number)
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(limit)


class Processes:
    """Everything a run has started; leaving the block stops what still runs, last started first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[Running] = []

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        argv: Sequence[object],
        namespace: str | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        first: bool = False,
    ) -> Running:
        """Start a program in a namespace; its output goes to ``NAME.out`` and ``NAME.err`` in the log
        directory. `first`: it runs before everything of ordinary priority, so that what it measures is not
        what else this machine does.
        """
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        stdout, stderr = self._logs / f"{name}.out", self._logs / f"{name}.err"
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                [*DIE_WITH_THE_LAB, *inside, *(str(part) for part in argv)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        if first:
            # Also before daemons that have real-time priority themselves. Where it is not allowed it is as
            # it is.
            with suppress(OSError):
                before_daemons = os.sched_param(os.sched_get_priority_min(os.SCHED_RR) + 1)
                os.sched_setscheduler(process.pid, os.SCHED_RR, before_daemons)
        running = Running(name, process, stdout, stderr)
        self._running.append(running)
        return running

    def stop_all(self) -> None:
        """Stop everything that still runs."""
        while self._running:
            self._running.pop().stop()
