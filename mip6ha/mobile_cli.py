"""``mip6mn``: a mobile node on real packets, or many of them at once.

Covered: commands, options, exit status (0 done, 1 failed, 2 not usable). Not covered: what they do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import __version__
from .mobile_config import load, load_load
from .tables import ConfigError

__all__ = ["main"]

_CONFIGURATION = click.option(
    "-c",
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="The TOML file to read.",
)


def _refuse(lines: tuple[str, ...]) -> None:
    for line in lines:
        click.echo(line, err=True)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Emulate Mobile IPv6 mobile nodes."""


@main.command()
@_CONFIGURATION
def run(path: Path) -> None:
    """Be one mobile node until SIGTERM: follow the routers, register, carry applications' packets."""
    from .edge.errors import Unusable  # noqa: PLC0415
    from .edge.mobile_service import run as serve  # noqa: PLC0415

    try:
        sys.exit(serve(load(path)))
    except ConfigError as error:
        _refuse(error.lines)
    except Unusable as error:
        click.echo(f"mip6mn: {error}", err=True)
        sys.exit(1)


@main.command(name="load")
@_CONFIGURATION
@click.option("--count", type=click.IntRange(1), help="Mobile nodes, instead of the file's count.")
@click.option("--window", type=click.IntRange(1), default=256, show_default=True, help="Updates outstanding.")
@click.option("--burst", is_flag=True, help="No window: all Binding Updates of a phase at once.")
@click.option("--rate", type=click.FloatRange(0.1), help="Binding Updates that begin per second.")
@click.option("--refreshes", type=click.IntRange(0), default=1, show_default=True, help="Refresh rounds.")
@click.option("--moves", type=click.IntRange(0), default=1, show_default=True, help="Moves of every node.")
@click.option("--deregister/--keep", default=True, show_default=True, help="De-register at the end.")
@click.option("--pause", type=click.FloatRange(0), default=0.0, help="Seconds between phases.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the report here.")
def load_command(  # noqa: PLR0917
    path: Path,
    count: int | None,
    window: int,
    burst: bool,
    rate: float | None,
    refreshes: int,
    moves: int,
    deregister: bool,
    pause: float,
    output: Path | None,
) -> None:
    """Be many mobile nodes: register, refresh, move and de-register, and say how long it took.

    Exit status 1 if any registration was refused or never answered.
    """
    from .edge.errors import Unusable  # noqa: PLC0415
    from .edge.mobile_load import LoadPlan  # noqa: PLC0415
    from .edge.mobile_report import show  # noqa: PLC0415
    from .mobile.fleet import Phase  # noqa: PLC0415

    phases = [Phase.REGISTER, *[Phase.REFRESH] * refreshes, *[Phase.MOVE] * moves]
    if deregister:
        phases.append(Phase.DEREGISTER)
    try:
        configuration = load_load(path, count)
        plan = LoadPlan(tuple(phases), configuration.count if burst else window, rate, pause)
        sys.exit(show(configuration, plan, output))
    except ConfigError as error:
        _refuse(error.lines)
    except Unusable as error:
        click.echo(f"mip6mn: {error}", err=True)
        sys.exit(1)


@main.command()
@_CONFIGURATION
def check(path: Path) -> None:
    """Say whether a configuration, for run or load, is usable."""
    from .tables import load_toml  # noqa: PLC0415

    try:
        if "load" in load_toml(path):
            load_load(path)
        else:
            load(path)
    except ConfigError as error:
        _refuse(error.lines)
    click.echo(f"{path}: usable")


if __name__ == "__main__":
    main()
