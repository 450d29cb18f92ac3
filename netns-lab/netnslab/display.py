"""What the terminal shows of a run: the steps as a progress bar, the timeline as it grows, the checks as a
table.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from .scenario import Check, Scenario
from .timeline import Mark, Timeline

__all__ = ["Display"]

WIDEST = 40
_COLOURS = {"lab": "cyan", "mn": "green", "ha": "magenta"}
# Events that repeat many times a second are for the log files.
_QUIET = {"router_solicitation"}


class Display:
    """Use as a context: the progress bar lives as long as the block."""

    def __init__(self, console: Console, scenario: Scenario, timeline: Timeline) -> None:
        self._console = console
        self._steps = len(scenario.steps)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("prepare", total=self._steps)
        self._started = False
        self._timeline = timeline
        timeline.listener = self.mark

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, name: str) -> None:
        """A step begins."""
        self._progress.update(self._task, description=name, advance=1 if self._started else 0)
        self._started = True

    def mark(self, mark: Mark) -> None:
        """One line of the timeline."""
        if mark.name in _QUIET:
            return
        line = Text(f"{mark.time - self._timeline.start:9.3f} s  ", style="dim")
        line.append(f"{mark.source:<4}", style=_COLOURS.get(mark.source, "white"))
        line.append(mark.name.replace("_", " "), style="bold")
        line.append(f"  {mark.detail}" if mark.detail else "", style="dim")
        self._console.print(line, soft_wrap=True)

    def finish(self, checks: list[Check], files: dict[str, str]) -> None:
        """The checks, and where the outputs are."""
        table = Table(title="checks", title_justify="left", box=SIMPLE)
        for heading in ("", "check", "measured", "limit"):
            table.add_column(heading)
        for check in checks:
            verdict = Text("ok", style="green") if check.ok else Text("FAILED", style="bold red")
            table.add_row(verdict, Text(check.name), _cell(check.measured), _cell(check.limit))
        self._console.print(table)
        for name, path in files.items():
            self._console.print(Text(f"{name:>8}  {path}"), soft_wrap=True)


def _cell(value: object) -> Text:
    text = str(value)
    return Text(text if len(text) <= WIDEST else f"{text[: WIDEST - 2]} \N{HORIZONTAL ELLIPSIS}")
