"""Every scenario with the kernel's dataplane, and with both kinds of dataplane at once.

Where this kernel lacks it, each run has a User-Mode Linux of its own; they perform one after the other, and
what one has recorded is examined while the next one performs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mip6ha.edge.features import kernel_features

LAB = Path(__file__).resolve().parents[2] / "netns-lab" / "run"
LIMIT = 280

pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.tshark, pytest.mark.timeout(LIMIT + 20)]

KERNEL = ("--dataplane", "kernel")
RUNS = {
    "failover": ("failover", *KERNEL),
    "failover of a thousand": ("failover", *KERNEL, "--contexts", "1000"),
    "switchover": ("switchover", *KERNEL),
    "split-brain": ("split-brain", *KERNEL),
    "restart": ("restart", *KERNEL),
    "arbiter": ("arbiter", *KERNEL),
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


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Ran]]]:
    """The runs that these tests are about; on this kernel itself one after the other."""
    names = [name for name in RUNS if any(name in item.name for item in request.session.items)]
    with ThreadPoolExecutor(len(RUNS) if kernel_features().missing else 1) as pool:
        futures = {name: pool.submit(run, tmp_path_factory.mktemp("run"), RUNS[name]) for name in names}
        yield futures
        for each in futures.values():
            each.cancel()


@pytest.fixture
def ran(request: pytest.FixtureRequest, started: dict[str, Future[Ran]]) -> Ran:
    return started[request.param].result()


@pytest.mark.parametrize("ran", RUNS, indirect=True)
def test_all_checks_pass(ran: Ran) -> None:
    assert not ran.failed
    assert ran.status == 0
