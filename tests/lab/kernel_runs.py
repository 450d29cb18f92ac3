"""Runs of the lab with the kernel's dataplane, and with both kinds at once, begun with the session.

Where this kernel lacks it, each run has a User-Mode Linux of its own; they perform one after the other, and
what one has recorded is examined while the next one performs.
"""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mip6ha.edge.features import kernel_features

__all__ = ["PERFORMED", "RUNS", "Ran", "perform", "pool"]

LAB = Path(__file__).resolve().parents[2] / "netns-lab" / "run"
# Seconds, of which most may be spent waiting for the others.
LIMIT = 900

KERNEL = ("--dataplane", "kernel")
RUNS = {
    "failover": ("failover", *KERNEL),
    "failover of a thousand": ("failover", *KERNEL, "--contexts", "1000"),
    "switchover": ("switchover", *KERNEL),
    "split-brain": ("split-brain", *KERNEL),
    "restart": ("restart", *KERNEL),
    "arbiter": ("arbiter", *KERNEL),
    "IKE": ("ike-failover", *KERNEL),
    "IKE, handover": ("ike-handover", *KERNEL),
    "strongSwan asks": ("interop-strongswan-initiator", *KERNEL),
    "strongSwan answers": ("interop-strongswan-responder", *KERNEL),
    "load": ("load", *KERNEL),
    "handover": ("handover", *KERNEL),
    "kernel and tun": ("handover", *KERNEL, "--mobile-dataplane", "tun"),
    "tun and kernel": ("handover", "--dataplane", "tun", "--mobile-dataplane", "kernel"),
}


@dataclass(frozen=True)
class Ran:
    status: int
    output: str
    figures: dict[str, Any]

    @property
    def failed(self) -> list[str]:
        """What went wrong, for a message."""
        wrong = [f"{each['name']}: {each['measured']}" for each in self.figures["checks"] if not each["ok"]]
        return [*wrong, *([self.figures["error"]] if "error" in self.figures else [])]


def run(directory: Path, options: tuple[str, ...]) -> Ran:
    figures = directory / "figures.json"
    argv: list[str | Path] = [LAB, *options, "--json", figures, "--report", directory / "report"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=directory)
    assert figures.exists(), done.stdout + done.stderr
    return Ran(done.returncode, done.stdout + done.stderr, json.loads(figures.read_text()))


def pool() -> ThreadPoolExecutor:
    """Who waits for runs: on this kernel itself they go one after the other."""
    return ThreadPoolExecutor(len(RUNS) if kernel_features().missing else 1)


def perform(names: list[str], directory: Path, waiting: ThreadPoolExecutor) -> dict[str, Future[Ran]]:
    """Begin the runs of these names."""
    futures = {}
    for name in names:
        own = directory / name.replace(" ", "-")
        own.mkdir()
        futures[name] = waiting.submit(run, own, RUNS[name])
    return futures


PERFORMED = pytest.StashKey[dict[str, Future[Ran]]]()
