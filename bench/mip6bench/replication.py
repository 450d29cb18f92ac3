"""What synchronous replication costs: the rate of Binding Updates with and without a standby, whole daemons.

Two home agents at the same time, each in a namespace with a generator behind a veth: one alone, without a
group, and an active member whose standby is in a third namespace behind another veth. They are measured in
turn, so that whatever slows the machine slows both. Where there are two processors, what is measured has one
for itself, and generators and standby share the other: they would be other machines. All of it runs at
real-time priority, where that is allowed, for two daemons that take turns on a processor with a compiler lose
more than one does. Not covered: losses and delay between members.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

from .dataplane import INTERFACE, SECRET, STATION, daemon, ip, network
from .generator import MOBILE_NODES

__all__ = ["STEPS", "replication_figures"]

_ROUNDS = 15
STEPS = _ROUNDS + 3
"""How often :func:`replication_figures` reports progress."""
_READY_LIMIT = 15.0
_SYNC = "sync"
_MEASURED, _OTHERS = 0, -1

_GROUP = """
[group]
id = 1
member = {own}
address = "2001:db8:e::{own}"
preference = {preference}
hello_interval_ms = 1000

[[group.peer]]
member = {other}
address = "2001:db8:e::{other}"

[[group.peer.sa]]
direction = "out"
spi = 0x30{own}
encryption = "aes-gcm-16"
encryption_key = "{out}"

[[group.peer.sa]]
direction = "in"
spi = 0x30{other}
encryption = "aes-gcm-16"
encryption_key = "{into}"
"""


def _group(own: int) -> str:
    other = 3 - own
    # The one that a generator reaches starts first, and stays active.
    return _GROUP.format(
        own=own, other=other, preference=other, out=f"{own:02x}" * 20, into=f"{other:02x}" * 20
    )


def _status(directory: Path) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_READY_LIMIT)
        connection.connect(str(directory / "ha.sock"))
        connection.sendall(b'{"command": "status"}\n')
        with connection.makefile("rb") as stream:
            status: dict[str, Any] = json.loads(stream.readline())["result"]
    return status


def _wait(directory: Path, what: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    end = monotonic() + _READY_LIMIT
    while not holds(_status(directory)):
        if monotonic() > end:
            raise RuntimeError(f"a member did not become {what}")
        sleep(0.05)


class _Measured:
    """A home agent with its generator; ``processes`` are the daemons whose processor time counts."""

    def __init__(self, namespace: str, processes: dict[str, int]) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, sys.argv[0], "--generator-rounds"]
        self._generator = subprocess.Popen(
            [*command, INTERFACE, STATION, SECRET.hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        _place(self._generator.pid, _OTHERS)
        self._processes = processes
        self.rates: list[float] = []
        self.processor: dict[str, list[float]] = {name: [] for name in processes}

    def round(self, updates: int) -> None:
        """One round of so many updates for each mobile node."""
        before = {name: _processor_seconds(process) for name, process in self._processes.items()}
        assert self._generator.stdin is not None
        assert self._generator.stdout is not None
        self._generator.stdin.write("\n")
        line = self._generator.stdout.readline()
        if not line:
            raise RuntimeError("a generator ended early")
        self.rates.append(float(line))
        for name, process in self._processes.items():
            spent = _processor_seconds(process) - before[name]
            self.processor[name].append(spent / updates / MOBILE_NODES * 1e6)

    def forget(self) -> None:
        """Begin to measure."""
        self.rates.clear()
        for each in self.processor.values():
            each.clear()

    def close(self) -> None:
        """End the generator."""
        self._generator.kill()
        self._generator.communicate()


def _place(process: int, share: int) -> None:
    """Give a process the first or the last of the processors that there are."""
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(process, {usable[share]})


def _processor_seconds(process: int) -> float:
    # In nanoseconds, where stat has ticks; the daemon's work is all in its first thread.
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9


@contextmanager
def _members(directory: Path, active: str, standby: str) -> Iterator[dict[str, int]]:
    """An active member and a synchronised standby: their process ids."""
    ip("link", "add", "name", _SYNC, "netns", active, "type", "veth", "peer", "name", _SYNC, "netns", standby)
    for own, namespace in ((1, active), (2, standby)):
        ip("-n", namespace, "address", "add", f"2001:db8:e::{own}/64", "dev", _SYNC, "nodad")
        ip("-n", namespace, "link", "set", _SYNC, "up")
    with ExitStack() as stack:
        processes = {}
        for own, name, namespace in ((1, "active", active), (2, "standby", standby)):
            (directory / name).mkdir()
            processes[name] = stack.enter_context(daemon(namespace, directory / name, _group(own)))
            _place(processes[name], _MEASURED if name == "active" else _OTHERS)
            if name == "active":
                _wait(directory / name, "active", lambda status: status["role"] == "active")
            else:
                _wait(directory / name, "eligible", lambda status: bool(status["eligible"]))
        yield processes


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Everything started within has real-time priority, where that is allowed."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def replication_figures(step: Callable[[], None]) -> dict[str, object]:
    """Rates of refreshes with 64 outstanding, their ratio, and processor time of each daemon a refresh."""
    with ExitStack() as stack:
        stack.enter_context(_undisturbed())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mip6bench")))
        (directory / "alone").mkdir()
        home, generator = stack.enter_context(network("alone"))
        alone = stack.enter_context(daemon(home, directory / "alone"))
        _place(alone, _MEASURED)
        active, other_generator = stack.enter_context(network("set"))
        standby = f"mip6bench{os.getpid()}-standby"
        ip("netns", "add", standby)
        stack.callback(ip, "netns", "delete", standby)
        processes = stack.enter_context(_members(directory, active, standby))
        step()
        measured = {
            "alone": _Measured(generator, {"alone": alone}),
            "ack": _Measured(other_generator, processes),
        }
        for each in measured.values():
            stack.callback(each.close)
            each.round(1)
        step()
        for each in measured.values():
            each.round(3)
            each.forget()
        step()
        for _ in range(_ROUNDS):
            for each in measured.values():
                each.round(3)
            step()
    rates = {name: median(each.rates) for name, each in measured.items()}
    ratios = [ack / own for ack, own in zip(measured["ack"].rates, measured["alone"].rates, strict=True)]
    processor = {
        name: median(values) for each in measured.values() for name, values in each.processor.items()
    }
    return {
        "sync_ack_rate_ratio": median(ratios),
        "sync_bu_per_s": rates,
        "sync_processor_us_per_bu": processor,
    }
