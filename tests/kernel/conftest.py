"""Tests that need IPsec and Mobile IPv6 in the kernel run on a kernel that has them, whatever the host's.

Where the host's lacks something, ``tools/kernel-run`` is started with a pytest for all of them; what each did
there is reported here as if it had run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mip6ha.edge.features import kernel_features

from .agent import Lender
from .network import Wire

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSIDE = "MIP6_KERNEL_RUN" in os.environ
SECONDS = 900
Reports = dict[str, list[dict[str, Any]]]
NAMES = pytest.StashKey[list[str]]()
REPORTS = pytest.StashKey[Reports]()


def is_ours(item: pytest.Item) -> bool:
    return item.path.is_relative_to(HERE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in filter(is_ours, items):
        item.add_marker(pytest.mark.kernel)
        if not INSIDE:
            # The first of them waits for all.
            item.add_marker(pytest.mark.timeout(SECONDS + 60))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Outside: what is to run inside."""
    names = [each.nodeid for each in session.items if is_ours(each)]
    if names and not INSIDE and not session.config.option.collectonly and kernel_features().missing:
        session.config.stash[NAMES] = names


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Inside: write down what happened."""
    report = yield
    if path := os.environ.get("MIP6_KERNEL_REPORTS"):
        data = item.config.hook.pytest_report_to_serializable(config=item.config, report=report)
        with Path(path).open("a") as reports:
            reports.write(json.dumps(data) + "\n")
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Outside: run all of them inside when the first has its turn, and report what happened there."""
    stash = item.config.stash
    if not is_ours(item) or NAMES not in stash:
        return None
    if REPORTS not in stash:
        stash[REPORTS] = run_inside(stash[NAMES])
    reports = stash[REPORTS]
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for data in reports[item.nodeid]:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def run_inside(names: list[str]) -> Reports:
    """Run tests in User-Mode Linux; the reports of each."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "reports"
        done = subprocess.run(
            [
                *(str(ROOT / "tools" / "kernel-run"), "--uml", "--timeout", str(SECONDS)),
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names),
            ],
            cwd=ROOT,
            env=os.environ | {"MIP6_KERNEL_REPORTS": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = path.read_text().splitlines() if path.exists() else []
    reports: Reports = defaultdict(list)
    for line in lines:
        data = json.loads(line)
        reports[data["nodeid"]].append(data)
    for name in names:
        if not any(data["when"] == "teardown" for data in reports[name]):
            reports[name].append(lost(name, done.stdout[-3000:] + done.stderr[-3000:]))
    return reports


def lost(name: str, output: str) -> dict[str, Any]:
    """The report of a test that never came to its end."""
    report = pytest.TestReport(name, (name, 0, name), {}, "failed", f"not run to its end:\n{output}", "call")
    return report._to_json() | {"$report_type": "TestReport"}


@pytest.fixture(scope="session")
def the_wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture
def wire(the_wire: Wire) -> Wire:
    the_wire.start_over()
    return the_wire


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[Lender]:
    with closing(Lender(wire, tmp_path)) as made:
        yield made
