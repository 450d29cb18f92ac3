"""The command ``netns-lab/run``: opens the network, performs a scenario, cleans up always, writes what it
found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .display import Display
from .pace import UML, pace_here
from .performance import Interrupted, interruptible, perform
from .report import write_html, write_json
from .scenario import Check, Options, Outcome, Scenario
from .scenarios import SCENARIOS
from .timeline import Timeline
from .topology import CommandFailed
from .uml import host_lacks, perform_in_uml

__all__ = ["Interrupted", "main", "run_scenario"]

OUTPUT = Path("lab-out")
TOOLS = {"ip": "iproute2", "tc": "iproute2", "sysctl": "procps", "setpriv": "util-linux"}


def refusal(scenario: Scenario, *, uml: bool, keep: bool) -> str | None:
    """Why this scenario cannot run here, in one line, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root: run this as root"
    for tool, package in (TOOLS | dict(scenario.tools)).items():
        if shutil.which(tool) is None:
            return f"the program {tool} is missing: install the package {package}"
    if uml:
        return "--keep: User-Mode Linux ends with the scenario" if keep else None
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing: load the kernel module tun"
    return None


def _versions() -> dict[str, str]:
    """Versions of what a run depends on."""
    found = {"python": sys.version.split()[0]}
    for program in ("tshark", "radvd", "etcd"):
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
            numbers = re.findall(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
            found[program] = numbers[0] if numbers else "unknown"
    return found


def run_scenario(
    scenario: Scenario,
    options: Options,
    json_path: Path,
    report: Path,
    console: Console,
    *,
    uml: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """Run a scenario and write its outputs; returns the figures. `Interrupted` comes through after the
    clean-up.
    """
    (report / "logs").mkdir(parents=True, exist_ok=True)
    # An earlier run's would be read as this one's.
    for old in report.glob("*-events.jsonl"):
        old.unlink()
    began = time.monotonic()
    result: dict[str, Any] = {
        "ok": False,
        "scenario": scenario.name,
        "dataplane": options.dataplane,
        "mobile_dataplane": options.mobile_dataplane,
        "dad": options.dad,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    outcome, timeline = Outcome(), Timeline()
    with Display(console, scenario, timeline) as display, interruptible():
        if uml:
            performance = perform_in_uml(scenario, options, report, timeline=timeline, step=display.step)
        else:
            performance = perform(
                scenario,
                options,
                f"lab{os.getpid()}",
                report,
                timeline=timeline,
                step=display.step,
                keep=keep,
            )
        if performance.examine is not None:
            display.step(scenario.steps[-1])
            try:
                outcome = performance.examine()
            except (CommandFailed, subprocess.TimeoutExpired, OSError) as error:
                performance.fail(error)
            except Interrupted as stop:
                performance.interrupt(stop)
    left = performance.left_over
    if not keep:
        outcome.checks.append(Check("namespaces gone at the end", not left, left, []))
    if performance.error:
        result["error"] = performance.error
    result |= outcome.figures
    result["ok"] = (
        "error" not in result and bool(outcome.checks) and all(check.ok for check in outcome.checks)
    )
    result["duration_s"] = round(time.monotonic() - began, 1)
    result["checks"] = [check.view() for check in outcome.checks]
    result["versions"] = {"kernel": performance.kernel, **_versions()}
    write_json(json_path, result)
    page = write_html(report, scenario, outcome, performance.timeline, result)
    display.finish(outcome.checks, {"json": str(json_path), "report": str(page)})
    if keep:
        kept = " ".join(left)
        console.print(
            f"kept: {kept}\nremove them with: for each in {kept}; do ip netns delete $each; done",
            soft_wrap=True,
        )
    if performance.interrupted:
        raise Interrupted(performance.interrupted)
    return result


def _list(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        for scenario in SCENARIOS.values():
            click.echo(f"{scenario.name}: {scenario.description}")
        context.exit()


_DATAPLANE = click.Choice(["tun", "kernel"])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("scenario", type=click.Choice(list(SCENARIOS)))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Default: lab-out/SCENARIO.json.")
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), help="Default: lab-out/SCENARIO/."
)
@click.option("--dataplane", type=_DATAPLANE, default="tun", show_default=True, help="Of the home agents.")
@click.option("--mobile-dataplane", type=_DATAPLANE, help="Of the mobile node, if it is another one.")
@click.option("--uml", is_flag=True, help="In User-Mode Linux, whatever the kernel of this machine can do.")
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
@click.option(
    "--credentials",
    type=click.Choice(["psk", "rsa", "ecdsa"]),
    default="psk",
    show_default=True,
    help="interop-*: how strongSwan and home agents prove who they are.",
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
    mobile_dataplane: str | None,
    uml: bool,
    dad: bool,
    contexts: int,
    fault: str,
    credentials: str,
    keep: bool,
) -> None:
    """Run a scenario of the home agent on network namespaces; exit status 0 if every check passes."""
    chosen = SCENARIOS[scenario]
    mobile = chosen.mobile_dataplane(mobile_dataplane, dataplane)
    if mobile is None:
        allowed = ", ".join(chosen.mobile_dataplanes)
        click.echo(f"netns-lab: --mobile-dataplane of {scenario}: {allowed}", err=True)
        sys.exit(2)
    planes = (dataplane, mobile)
    # The tun dataplane runs on every kernel.
    uml = uml or ("kernel" in planes and os.geteuid() == 0 and bool(host_lacks()))
    options = Options(*planes, dad, contexts, fault, credentials, UML if uml else pace_here())
    reason = refusal(chosen, uml=uml, keep=keep)
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
            uml=uml,
            keep=keep,
        )
    except Interrupted as stop:
        click.echo(f"netns-lab: {stop}; everything was cleaned up", err=True)
        sys.exit(128 + stop.number)
    if "error" in result:
        click.echo(f"netns-lab: {result['error']}", err=True)
    sys.exit(0 if result["ok"] else 1)
