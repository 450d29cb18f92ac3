"""``mip6ha ike``: IKEv2 alone, to test it against other implementations.

Covered: its commands, exit status (1: could not do it, 2: configuration). Not covered: what they do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NoReturn

import click

from .edge import control, logging
from .edge.errors import Unusable
from .ike_config import IkeConfiguration, load
from .tables import ConfigError

__all__ = ["ike"]

_TO_PEER = ("initiate", "rekey", "delete", "probe")
_TO_CHILD = ("create-child", "rekey-child", "delete-child")
_configuration = click.option(
    "-c",
    "--config",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    help="TOML file of the endpoint.",
)


def _fail(lines: tuple[str, ...], status: int) -> NoReturn:
    for line in lines:
        click.echo(f"mip6ha: {line}", err=True)
    sys.exit(status)


def _load(path: Path) -> IkeConfiguration:
    try:
        return load(path)
    except ConfigError as error:
        _fail(error.lines, 2)


@click.group()
def ike() -> None:
    """Negotiate by IKEv2 and carry no packet: a program for tests."""


@ike.command()
@_configuration
@click.option("--log-format", type=click.Choice(logging.FORMATS), default="json", show_default=True)
@click.option("--log-level", type=click.Choice(logging.LEVELS), default="info", show_default=True)
def run(path: Path, log_format: str, log_level: str) -> None:
    """Be an IKE endpoint in the foreground until SIGTERM; what it negotiates is on standard error."""
    configuration = _load(path)
    logging.start(log_format, log_level)
    # A reactor is of no use to the other commands.
    from .edge import ike_service  # noqa: PLC0415

    try:
        sys.exit(ike_service.run(configuration))
    except Unusable as error:
        _fail((str(error),), 1)


@ike.command()
@_configuration
def check(path: Path) -> None:
    """Say whether a configuration is usable."""
    configuration = _load(path)
    click.echo(f"{path}: is usable; {len(configuration.parameters.peers)} peers")


@ike.command()
@_configuration
@click.argument("what", type=click.Choice(["sas", "counters", *_TO_PEER, *_TO_CHILD]))
@click.argument("peer", required=False)
@click.argument("child", required=False)
def ask(path: Path, what: str, peer: str | None, child: str | None) -> None:
    """Ask a running endpoint: for its SAs, or to do something with a PEER, or with a CHILD of it."""
    wanted = 2 if what in _TO_CHILD else 1 if what in _TO_PEER else 0
    if len([each for each in (peer, child) if each is not None]) != wanted:
        raise click.UsageError(f"{what} takes {('nothing else', 'PEER', 'PEER and CHILD')[wanted]}")
    arguments = {"peer": peer, "child": child}
    try:
        answer = control.ask(_load(path).control_socket, what, arguments)
    except Unusable as error:
        _fail((str(error),), 1)
    if answer is not None:
        click.echo(json.dumps(answer, indent=2))
