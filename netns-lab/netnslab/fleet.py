"""``mip6mn load``: many mobile nodes that only register, run to its end.

Covered: its options, its report. Not covered: its configuration file (`redundant_network`, `load_network`).
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .daemons import ENVIRONMENT, MOBILE_NODE
from .processes import Processes, ProcessFailed

__all__ = ["Fleet"]

# What a home agent does beside other work. A fleet that takes all of the processor is another experiment.
_BESIDE = ("--window", "64", "--rate", "1500")


@dataclass(slots=True)
class Fleet:
    """A fleet in a namespace; each run is a program. Reports go to `directory`, `limit` is in seconds."""

    processes: Processes
    namespace: str
    configuration: Path
    directory: Path
    limit: float
    _runs: int = field(default=0, init=False)

    def register(self) -> list[dict[str, Any]]:
        """Register every mobile node once, beside other work; `ProcessFailed` if one was not."""
        phases = self.run("--refreshes", "0", "--moves", "0", "--keep", *_BESIDE)
        if any(phase["accepted"] < phase["count"] for phase in phases):
            raise ProcessFailed(f"the fleet was not registered: {phases}")
        return phases

    def run(self, *options: str) -> list[dict[str, Any]]:
        """One run; its report, a part for each phase, also of mobile nodes that got no answer."""
        self._runs += 1
        name = f"fleet-{self._runs}" if self._runs > 1 else "fleet"
        output = self.directory / f"{name}.json"
        output.unlink(missing_ok=True)
        argv = [*MOBILE_NODE, "load", "-c", self.configuration, "--json", output, *options]
        running = self.processes.start(name, argv, self.namespace, ENVIRONMENT)
        try:
            running.process.wait(self.limit)
        except subprocess.TimeoutExpired:
            running.stop()
            raise ProcessFailed(f"the fleet had not ended after {self.limit:g} s") from None
        if not output.exists():
            raise ProcessFailed(f"the fleet came to nothing: {running.last_words()}")
        phases: list[dict[str, Any]] = json.loads(output.read_text())["phases"]
        return phases
