"""The lab's package is beside the project's, not installed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from .kernel_runs import PERFORMED, RUNS, perform, pool

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "netns-lab"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = [each.name for each in session.items if each.path.name == "test_kernel_dataplane.py"]
    names = [name for name in RUNS if any(f"[{name}]" in each for each in wanted)]
    config = session.config
    if names and not config.option.collectonly:
        directory = tempfile.TemporaryDirectory()
        config.add_cleanup(directory.cleanup)
        waiting = pool()
        config.add_cleanup(lambda: waiting.shutdown(cancel_futures=True))
        config.stash[PERFORMED] = perform(names, Path(directory.name), waiting)
