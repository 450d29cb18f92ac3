"""What a redundant set costs for many contexts: resynchronisation of a fresh standby, memory, take-over.

Two processes, each a member's core, joined by a socket pair. A context is a mobile node with two transport
mode SAs under AES-GCM-16, registered. Resynchronisation: octets of ESP from the active member, seconds until
that counts the standby as synchronised, processor time of each process meanwhile, its largest resident set.
Take-over: the active process is stopped (SIGSTOP) and its standby notices by itself; the clock runs in the
core from the timer that takes over until the answer to the first Binding Update. Then the stopped one goes
on, hears of the new term, catches up, and the next take-over is its own. Not covered: dataplanes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from .members import SocketPair

__all__ = ["SIZES", "STEPS", "failover_figures"]

SIZES = (1, 1_000, 100_000)
_TAKE_OVERS = 10
STEPS = len(SIZES) * (2 + _TAKE_OVERS)
"""How often :func:`failover_figures` reports progress."""

_Answer = dict[str, float]


class _Member:
    """A member in a process of its own."""

    def __init__(self, identity: int, size: int, descriptor: int) -> None:
        command = [sys.executable, sys.argv[0], "--member", str(identity), str(size), str(descriptor)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            pass_fds=[descriptor],
        )
        self.answer()

    def tell(self, command: str, number: int = 0) -> None:
        """Give a command; :meth:`answer` is to follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command} {number}\n")

    def answer(self) -> _Answer:
        """The answer to the last command."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a member ended early")
        answer: _Answer = json.loads(line)
        return answer

    def ask(self, command: str, number: int = 0) -> _Answer:
        """Give a command and wait for the answer."""
        self.tell(command, number)
        return self.answer()

    def signal(self, number: signal.Signals) -> None:
        """Stop the process, or let it go on."""
        os.kill(self._process.pid, number)

    def close(self) -> None:
        """End the process, stopped or not."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def _members(size: int) -> Iterator[tuple[_Member, _Member]]:
    with ExitStack() as stack:
        pair = SocketPair()
        stack.callback(pair.close)
        members = []
        for identity, end in enumerate(pair.ends, start=1):
            member = _Member(identity, size, end.fileno())
            stack.callback(member.close)
            members.append(member)
        first, second = members
        yield first, second


def _resynchronise(size: int, active: _Member, standby: _Member) -> dict[str, object]:
    """A registered population, then a standby that has nothing of it."""
    active.ask("start")
    active.ask("register")
    before = active.ask("mark")
    standby.ask("mark")
    seconds = standby.ask("start")["seconds"]
    sides = {"active": active.ask("mark"), "standby": standby.ask("mark")}
    return {
        "resync_bytes_per_context": sides["active"]["octets"] / size,
        "resync_us_per_context": {name: side["processor_s"] / size * 1e6 for name, side in sides.items()},
        "resync_s": seconds,
        "resync_peak_mib": {name: side["peak_mib"] for name, side in sides.items()},
        "bytes_per_context": {
            "active": before["bytes_per_context"],
            "standby": sides["standby"]["bytes_per_context"],
        },
    }


def _take_overs(active: _Member, standby: _Member, step: Callable[[], None]) -> Iterator[float]:
    for taken in range(_TAKE_OVERS):
        standby.tell("take_over", taken + 1)
        active.signal(signal.SIGSTOP)
        yield sum(standby.answer().values())
        active.signal(signal.SIGCONT)
        active.ask("settle")
        active, standby = standby, active
        step()


def failover_figures(step: Callable[[], None]) -> dict[str, object]:
    """Resynchronisation at the largest size, and take-overs at each."""
    figures: dict[str, object] = {}
    take_overs: dict[str, float] = {}
    for size in SIZES:
        with _members(size) as (active, standby):
            step()
            resynchronised = _resynchronise(size, active, standby)
            if size == SIZES[-1]:
                figures |= resynchronised
            step()
            take_overs[str(size)] = median(_take_overs(active, standby, step))
    return {**figures, "takeover_ms_by_contexts": take_overs}
