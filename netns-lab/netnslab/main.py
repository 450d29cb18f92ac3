"""The command ``netns-lab/run``: opens the network, performs a scenario, cleans up always, writes what it
found.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

from .display import Display
from .processes import Processes, ProcessFailed
from .report import write_html, write_json
from .scenario import Check, Options, Outcome, Run, Scenario
from .scenarios import SCENARIOS
from .timeline import Timeline
from .topology import CommandFailed, Network

__all__ = ["Interrupted", "main", "run_scenario"]

OUTPUT = Path("lab-out")
TOOLS = {"ip": "iproute2", "sysctl": "procps"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the lab to end; everything is cleaned up on its way out."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def _interrupt(number: int, frame: FrameType | None) -> None:
    _ignore_signals()
    raise Interrupted(number)


def _ignore_signals() -> None:
    """From here on nothing interrupts the clean-up."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)


def refusal(scenario: Scenario, options: Options) -> str | None:
    """Why this scenario cannot run here, in one line, or None."""
    if options.dataplane == "kernel":
        return "--dataplane kernel: there is no kernel dataplane yet; use --dataplane tun"
    if os.geteuid() != 0:
        return "network namespaces need root: run this as root"
    for tool, package in (TOOLS | dict(scenario.tools)).items():
        if shutil.which(tool) is None:
            return f"the program {tool} is missing: install the package {package}"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing: load the kernel module tun"
    return None


def _versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    found = {"kernel": os.uname().release, "python": sys.version.split()[0]}
    for program in ("tshark", "radvd", "etcd"):
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
            numbers = re.findall(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
            found[program] = numbers[0] if numbers else "unknown"
    return found


def _perform(
    scenario: Scenario,
    options: Options,
    network: Network,
    *,
    display: Display,
    timeline: Timeline,
    report: Path,
    keep: bool,
) -> Callable[[], Outcome]:
    """Perform the scenario; whatever happens, its processes and namespaces are gone at the end."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netns-lab-")))
        stack.enter_context(network)
        processes = stack.enter_context(Processes(report / "logs"))
        # Registered last, called first: the clean-up that follows is not to be interrupted.
        stack.callback(_ignore_signals)
        examine = scenario.perform(Run(options, network, processes, timeline, report, work, display.step))
        if keep:
            network.keep()
    return examine


def run_scenario(
    scenario: Scenario,
    options: Options,
    json_path: Path,
    report: Path,
    console: Console,
    *,
    keep: bool = False,
) -> dict[str, Any]:
    """Run a scenario and write its outputs; returns the figures. `Interrupted` comes through after the
    clean-up.
    """
    report.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "ok": False,
        "scenario": scenario.name,
        "dataplane": options.dataplane,
        "dad": options.dad,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    outcome, timeline = Outcome(), Timeline()
    network = Network(scenario.topology, f"lab{os.getpid()}")
    interrupted: Interrupted | None = None
    with Display(console, scenario) as display:
        display.zero, timeline.listener = timeline.start, display.mark
        previous = [signal.signal(each, _interrupt) for each in SIGNALS]
        try:
            examine = _perform(
                scenario, options, network, display=display, timeline=timeline, report=report, keep=keep
            )
            display.step(scenario.steps[-1])
            outcome = examine()
        except (CommandFailed, ProcessFailed, subprocess.TimeoutExpired, OSError) as error:
            result["error"] = str(error)
            timeline.add("error", str(error))
        except Interrupted as stop:
            result["error"] = f"interrupted by {stop}"
            interrupted = stop
        finally:
            for number, handler in zip(SIGNALS, previous, strict=True):
                signal.signal(number, handler)
    if not keep:
        left = network.left_over()
        outcome.checks.append(Check("namespaces gone at the end", not left, left, []))
    result |= outcome.figures
    result["ok"] = (
        "error" not in result and bool(outcome.checks) and all(check.ok for check in outcome.checks)
    )
    result["duration_s"] = round(time.monotonic() - timeline.start, 1)
    result["checks"] = [check.view() for check in outcome.checks]
    result["versions"] = _versions()
    write_json(json_path, result)
    page = write_html(report, scenario, outcome, timeline, result)
    display.finish(outcome.checks, {"json": str(json_path), "report": str(page)})
    if keep:
        kept = " ".join(network.left_over())
        console.print(
            f"kept: {kept}\nremove them with: for each in {kept}; do ip netns delete $each; done",
            soft_wrap=True,
        )
    if interrupted is not None:
        raise interrupted
    return result


def _list(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        for scenario in SCENARIOS.values():
            click.echo(f"{scenario.name}: {scenario.description}")
        context.exit()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("scenario", type=click.Choice(list(SCENARIOS)))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Default: lab-out/SCENARIO.json.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Default: lab-out/SCENARIO/."
)
@click.option("--dataplane", type=click.Choice(["tun", "kernel"]), default="tun", show_default=True)
@click.option(
    "--dad", is_flag=True, help="The home agent does duplicate address detection, which takes a second."
)
@click.option(
    "--contexts",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="failover: mobile nodes that the set has; all but one are a fleet that only registers.",
)
@click.option(
    "--fault",
    type=click.Choice(["kill", "links"]),
    default="kill",
    show_default=True,
    help="failover: how the active member goes.",
)
@click.option("--keep", is_flag=True, help="Leave the namespaces (not the processes) for a look around.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Name the scenarios."
)
def main(
    *,
    scenario: str,
    json_path: Path | None,
    report: Path | None,
    dataplane: str,
    dad: bool,
    contexts: int,
    fault: str,
    keep: bool,
) -> None:
    """Run a scenario of the home agent on network namespaces; exit status 0 if every check passes."""
    chosen, options = SCENARIOS[scenario], Options(dataplane, dad, contexts, fault)
    reason = refusal(chosen, options)
    if reason is not None:
        click.echo(f"netns-lab: {reason}", err=True)
        sys.exit(2)
    try:
        result = run_scenario(
            chosen,
            options,
            json_path or OUTPUT / f"{scenario}.json",
            (report or OUTPUT / scenario).resolve(),
            Console(),
            keep=keep,
        )
    except Interrupted as stop:
        click.echo(f"netns-lab: {stop}; everything was cleaned up", err=True)
        sys.exit(128 + stop.number)
    if "error" in result:
        click.echo(f"netns-lab: {result['error']}", err=True)
    sys.exit(0 if result["ok"] else 1)
