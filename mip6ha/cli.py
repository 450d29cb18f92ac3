"""The command ``mip6ha``: run a home agent, check its configuration, look into a running one.

Covered: options, tables for people, JSON for programs, exit status (2: configuration or usage, 1: could not
do it). Not covered: what any of it means.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.table import Table

from . import __version__
from .config import DEFAULT_SOCKET, ConfigError, Configuration, load
from .edge import control, logging
from .edge.errors import Unusable
from .ike_cli import ike
from .negotiation import REQUESTS
from .wire import text

if TYPE_CHECKING:
    from .edge.features import KernelFeatures

__all__ = ["main"]

DEFAULT_CONFIGURATION = Path("/etc/mip6ha/ha.toml")
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13
_Command = TypeVar("_Command", bound=Callable[..., Any])

_configuration = click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="TOML file of the home agent.",
)


def _find_socket(command: _Command) -> _Command:
    """The options that say which home agent is asked."""
    socket_option = click.option(
        "--socket",
        "control_socket",
        type=click.Path(path_type=Path),
        help=f"Control socket.  [default: {DEFAULT_SOCKET}]",
    )
    path_option = click.option(
        "-c", "--config", "path", type=click.Path(path_type=Path), help="Find the socket in this file."
    )
    return path_option(socket_option(command))


def _fail(lines: tuple[str, ...], status: int) -> NoReturn:
    for line in lines:
        click.echo(f"mip6ha: {line}", err=True)
    sys.exit(status)


def _load(path: Path) -> Configuration:
    try:
        return load(path)
    except ConfigError as error:
        _fail(error.lines, 2)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mip6ha")
def main() -> None:
    """A Mobile IPv6 home agent."""


main.add_command(ike)


@main.command()
@click.option(
    "-c",
    "--config",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    default=[DEFAULT_CONFIGURATION],
    show_default=True,
    help="TOML file of a home agent; several home agents run in one process.",
)
@click.option("--log-format", type=click.Choice(logging.FORMATS), default="text", show_default=True)
@click.option("--log-level", type=click.Choice(logging.LEVELS), default="info", show_default=True)
def run(paths: tuple[Path, ...], log_format: str, log_level: str) -> None:
    """Serve in the foreground: SIGTERM stops cleanly, SIGHUP takes over changed mobile nodes."""
    configurations = [(path, _load(path)) for path in paths]
    clashes = tuple(_clashes(configurations))
    if clashes:
        _fail(clashes, 2)
    unable = tuple(filter(None, (_unable(path, configuration) for path, configuration in configurations)))
    if unable:
        _fail(unable, 2)
    for _, configuration in configurations:
        for warning in configuration.warnings:
            click.echo(f"mip6ha: warning: {warning}", err=True)
    logging.start(log_format, log_level)
    # A reactor is of no use to the other commands.
    from .edge import process  # noqa: PLC0415

    try:
        sys.exit(process.run(configurations))
    except Unusable as error:
        _fail((str(error),), 1)


def _unable(path: Path, configuration: Configuration) -> str:
    """What keeps this kernel from being the dataplane, where it is to be."""
    missing = ", ".join(_kernel().forwarding) if configuration.edge.dataplane == "kernel" else ""
    return missing and f"{path}: home_agent.dataplane: this kernel has no {missing}; allowed: tun"


def _clashes(configurations: list[tuple[Path, Configuration]]) -> Iterator[str]:
    """What two home agents of one process must not share."""
    seen: dict[tuple[str, object], Path] = {}
    for path, configuration in configurations:
        edge, group = configuration.edge, configuration.group
        own: list[tuple[str, object]] = [
            ("home_agent.address", configuration.parameters.address),
            ("home_agent.tun_name", edge.tun_name),
            ("home_agent.control_socket", edge.control_socket),
            ("home_agent.state_dir", edge.state_dir),
        ]
        if edge.dataplane == "kernel" and group is None:
            own.append(("home_agent.dataplane (kernel, without a group)", edge.dataplane))
        own += [("group.id", group.group), ("group.address", group.address)] if group else []
        for key, value in own:
            other = seen.setdefault((key, value), path)
            if other is not path:
                yield f"{path}: {key}: is the same as in {other}; allowed: one of its own for each file"


@main.command()
@_configuration
def check(path: Path) -> None:
    """Tell what the configuration would serve, or everything that is wrong with it (exit status 2)."""
    configuration = _load(path)
    parameters, edge = configuration.parameters, configuration.edge
    nodes = parameters.mobile_nodes
    prefixes = ", ".join(f"{text(prefix.prefix)}/{prefix.length}" for prefix in parameters.home_prefixes)
    associations = sum(len(node.associations) for node in nodes)
    click.echo(f"{path}: is usable")
    click.echo(f"home agent {text(parameters.address)} for {prefixes}")
    click.echo(f"home link {edge.home_link or 'virtual'}, TUN device {edge.tun_name}")
    click.echo(f"dataplane {edge.dataplane}")
    click.echo(f"{len(nodes)} mobile nodes, {associations} security associations")
    group = configuration.group
    if group is not None:
        others = ", ".join(f"{peer.identity} at {text(peer.address)}" for peer in group.peers)
        click.echo(
            f"member {group.identity} of group {group.group} at {text(group.address)}; others: {others}"
        )
    for warning in configuration.warnings:
        click.echo(f"warning: {warning}")
    kernel = _kernel()
    missing, leaves = ", ".join(kernel.forwarding), ", ".join(kernel.offload)
    click.echo(f"dataplane kernel: {f'missing here: {missing}' if missing else 'can run here'}")
    click.echo(f"payload under ESP: {f'left to the daemon: {leaves}' if leaves else 'in the kernel too'}")
    lacking = _lacks(configuration)
    if edge.dataplane == "kernel" and missing:
        lacking.append(f"the kernel has no {missing}")
    for lack in lacking:
        click.echo(f"cannot run here: {lack}")


def _kernel() -> KernelFeatures:
    """What this kernel lacks for being the dataplane, and for sealing and opening payload."""
    # Trying takes a moment.
    from .edge.features import kernel_features  # noqa: PLC0415

    return kernel_features()


def _lacks(configuration: Configuration) -> list[str]:
    """What this kernel and this user lack for the TUN dataplane."""
    lacks = []
    device = Path("/dev/net/tun")
    if not os.access(device, os.R_OK | os.W_OK):
        lacks.append(f"{device} {'cannot be opened' if device.exists() else 'does not exist'}")
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    lacks += [
        f"{name} is missing"
        for name, bit in (("CAP_NET_ADMIN", _CAP_NET_ADMIN), ("CAP_NET_RAW", _CAP_NET_RAW))
        if not effective >> bit & 1
    ]
    link = configuration.edge.home_link
    if link is not None and link not in (name for _, name in socket.if_nameindex()):
        lacks.append(f"home link {link} does not exist")
    return lacks


@main.command()
@click.argument("what", type=click.Choice(["bindings", "sas", "ike", "counters", "status"]))
@_find_socket
@click.option("--json", "as_json", is_flag=True, help="Print what the home agent answers.")
def show(what: str, path: Path | None, control_socket: Path | None, as_json: bool) -> None:
    """Look into a running home agent."""
    answer = _ask(path, control_socket, what)
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    elif not answer:
        click.echo(f"no {what}")
    else:
        # A pipe has no width; do not cut what goes there.
        console = Console() if sys.stdout.isatty() else Console(width=400)
        members = answer.pop("members", None) if isinstance(answer, dict) else None
        console.print(_table(what, answer))
        if members:
            console.print(_table("members", members))


@main.command()
@_find_socket
def switchover(path: Path | None, control_socket: Path | None) -> None:
    """Let this standby become the active member of its set (exit status 1 if it does not)."""
    _tell(_ask(path, control_socket, "switchover"))


@main.command()
@_find_socket
@click.option("--to", type=click.IntRange(1, 255), metavar="MEMBER", help="Which one; the best by default.")
def switchback(path: Path | None, control_socket: Path | None, to: int | None) -> None:
    """Let a standby become active in place of this member (exit status 1 if it does not)."""
    _tell(_ask(path, control_socket, "switchback", to=to))


@main.command("ask-ike")
@click.argument("home_address")
@click.argument("what", type=click.Choice(list(REQUESTS)))
@_find_socket
def ask_ike(home_address: str, what: str, path: Path | None, control_socket: Path | None) -> None:
    """Begin an exchange of IKE with a mobile node, for a test or in place of a lifetime's end."""
    _ask(path, control_socket, "ask-ike", home_address=home_address, what=what)


def _tell(outcome: dict[str, Any]) -> None:
    took = f"after {outcome['seconds'] * 1000:.1f} ms"
    click.echo("group {group}: member {member} is {role}, term {term}, ".format(**outcome) + took)


def _ask(path: Path | None, control_socket: Path | None, command: str, **arguments: int | str | None) -> Any:
    if control_socket is None:
        control_socket = DEFAULT_SOCKET if path is None else _load(path).edge.control_socket
    try:
        return control.ask(control_socket, command, arguments)
    except Unusable as error:
        _fail((str(error),), 1)


def _table(title: str, answer: Any) -> Table:
    if isinstance(answer, dict):
        table = Table("name", "value", title=title)
        for name, value in answer.items():
            table.add_row(str(name), _cell(value))
        return table
    columns = list(dict.fromkeys(name for row in answer for name in row))
    table = Table(*columns, title=f"{title} ({len(answer)})")
    for row in answer:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    return table


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)
