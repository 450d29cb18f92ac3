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
