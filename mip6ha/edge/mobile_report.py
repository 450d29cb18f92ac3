"""A load run for people: a progress bar while it lasts, a table and a JSON file afterwards.

Not covered: the run (``mobile_load``).
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from ..mobile.fleet import PhaseReport
from ..mobile_config import LoadConfiguration
from .mobile_load import LoadPlan, run

__all__ = ["show"]

_COLUMNS = (
    "phase",
    "answered",
    "per s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "max ms",
    "retransmitted",
    "unanswered",
)


def show(configuration: LoadConfiguration, plan: LoadPlan, output: Path | None) -> int:
    """Run the plan; 0 if every mobile node got what it asked for in every phase, else 1."""
    console = Console(stderr=True)
    reports: list[PhaseReport] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        bar = bars.add_task("making mobile nodes", total=configuration.count, rate="")

        def progress(report: PhaseReport) -> None:
            rate = report.as_json()["per_second"] if report.latencies else 0
            bars.update(bar, description=report.phase.value, completed=report.settled, rate=f"{rate} per s")

        reports.extend(run(configuration, plan, progress))
    figures = [report.as_json() for report in reports]
    complete = len(reports) == len(plan.phases) and all(report.accepted == report.count for report in reports)
    _print(console, reports)
    if output is not None:
        summary = {"ok": complete, "count": configuration.count, "window": plan.window, "phases": figures}
        output.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if complete else 1


def _print(console: Console, reports: list[PhaseReport]) -> None:
    table = Table(*(Column(name, no_wrap=True) for name in _COLUMNS))
    for report in reports:
        figures = report.as_json()
        latency = figures["latency_ms"]
        shown = latency.values() if isinstance(latency, dict) else ()
        table.add_row(
            report.phase.value,
            str(len(report.latencies)),
            str(figures["per_second"]),
            *(f"{value:.1f}" if value is not None else "-" for value in shown),
            str(report.retransmissions),
            str(report.unanswered),
        )
    console.print(table)
    for report in reports:
        refused = {status: count for status, count in report.statuses.items() if status >= 128}
        if refused or report.dropped:
            console.print(f"{report.phase.value}: refused {refused}, dropped {dict(report.dropped)}")
