"""Links, nodes and addresses as data, and the network namespaces that make them real.

Every link is a bridge (no multicast snooping, no spanning tree) in one "switch" namespace; every interface
of a node is a veth whose other end is a port of that switch, so that a node moves between links as a cable
does: port down (the node loses carrier), other bridge, port up. Names carry a prefix of this run. Nothing is
made outside the namespaces, and `Network.close` removes exactly the namespaces that this object made.

Not covered: IPv4, loss and delay on links.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .switch import Switch

__all__ = ["Attachment", "CommandFailed", "Network", "Node", "Topology", "port_name"]

SWITCH = "switch"
NAMESPACE_DIRECTORY = Path("/run/netns")

# A veth whose index equals its peer's is taken by the kernel for a device without lower device, and its
# carrier events may then be delayed by up to a second (link watch): ports get indexes that no node's
# interface reaches.
FIRST_PORT_INDEX = 1000

# Seconds that one command may take before the lab gives up on it.
COMMAND_LIMIT = 20.0


class CommandFailed(Exception):
    """A command that builds or inspects the network ended with an error."""


@dataclass(frozen=True, slots=True)
class Node:
    """A host or router. `routes` are arguments of ``ip -6 route add``; `sysctls` are set before any
    interface exists.
    """

    name: str
    forwarding: bool = False
    routes: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """An interface of a node. Without a link the port stays down until `Network.attach`. `mtu` is in
    octets.
    """

    node: str
    interface: str
    link: str | None
    addresses: tuple[str, ...] = ()
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole network of a scenario."""

    links: tuple[str, ...]
    nodes: tuple[Node, ...]
    attachments: tuple[Attachment, ...]


def run_command(argv: Iterable[str], text: str = "") -> str:
    """Run a command with `text` as its input and return its output; `CommandFailed` says what it complained
    about.
    """
    arguments = list(argv)
    done = subprocess.run(
        arguments,
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ip_batch(namespace: str, lines: Iterable[str], *options: str) -> str:
    """One ``ip`` process for many changes or questions, in a namespace; what it says."""
    argv = ["ip", "-n", namespace, *(options or ["-6"]), "-batch", "-"]
    return run_command(argv, "".join(f"{line}\n" for line in lines))


class Network:
    """The namespaces of one topology, from construction by `open` to `close`."""

    def __init__(self, topology: Topology, prefix: str) -> None:
        self.topology = topology
        self.prefix = prefix
        self._made: list[str] = []
        self._switch: Switch | None = None

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def namespace(self, node: str) -> str:
        """Name of a node's network namespace."""
        return f"{self.prefix}-{node}"

    def bridge(self, link: str) -> str:
        """Name of a link's bridge inside the switch namespace."""
        return f"br-{link}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every namespace that belongs to this network, whether it exists or not."""
        return tuple(self.namespace(name) for name in (SWITCH, *(node.name for node in self.topology.nodes)))

    def open(self) -> None:
        """Make the namespaces, bridges, interfaces, addresses and routes."""
        for name in self.namespaces:
            # Noted first: an interrupt may come while the command runs.
            self._made.append(name)
            try:
                run_command(["ip", "netns", "add", name])
            except CommandFailed:
                self._made.pop()
                raise
        self._set_sysctls(SWITCH, [("net.ipv6.conf.default.disable_ipv6", "1")])
        for node in self.topology.nodes:
            # accept_dad=0: a link-local address is usable as soon as there is carrier, also after a move.
            wanted = [("net.ipv6.conf.default.accept_dad", "0"), ("net.ipv6.conf.all.accept_dad", "0")]
            wanted.append(("net.ipv6.conf.all.forwarding", "1" if node.forwarding else "0"))
            wanted += [(f"net.ipv6.conf.{which}.accept_ra", "0") for which in ("all", "default")]
            self._set_sysctls(node.name, [*wanted, *node.sysctls])
        ip_batch(self.namespace(SWITCH), self._switch_lines())
        for node in self.topology.nodes:
            ip_batch(self.namespace(node.name), self._node_lines(node))
        self._switch = Switch(NAMESPACE_DIRECTORY / self.namespace(SWITCH))
        for attachment in self.topology.attachments:
            if attachment.link is not None:
                self.attach(attachment.node, attachment.interface, attachment.link)

    def close(self) -> None:
        """Remove what `open` made; safe to call twice and after a partial `open`."""
        if self._switch is not None:
            self._switch.close()
            self._switch = None
        problems = []
        while self._made:
            name = self._made.pop()
            if not (NAMESPACE_DIRECTORY / name).exists():
                continue
            try:
                run_command(["ip", "netns", "delete", name])
            except (CommandFailed, subprocess.TimeoutExpired) as error:
                problems.append(str(error))
        if problems:
            raise CommandFailed("; ".join(problems))

    def keep(self) -> tuple[str, ...]:
        """Give the namespaces away: `close` will leave them. Returns their names."""
        kept = tuple(self._made)
        self._made.clear()
        return kept

    def left_over(self) -> list[str]:
        """Namespaces of this network that exist."""
        return [name for name in self.namespaces if (NAMESPACE_DIRECTORY / name).exists()]

    def execute(self, node: str, *argv: str, text: str = "") -> str:
        """Run a short command inside a node and return its output."""
        return run_command(["ip", "netns", "exec", self.namespace(node), *argv], text)

    def ask(self, node: str, questions: Iterable[str], *options: str) -> str:
        """What ``ip OPTIONS QUESTION`` says in a node, for one question after the other."""
        return ip_batch(self.namespace(node), questions, *options)

    def traffic_control(self, node: str, *argv: str) -> str:
        """What ``tc ARGV`` says in a node."""
        return run_command(["tc", "-n", self.namespace(node), *argv])

    def detach(self, node: str, interface: str) -> float:
        """Take the cable out: the node loses carrier. Returns the monotonic time just before."""
        switch = self._opened()
        before = time.monotonic()
        switch.unplug(port_name(node, interface))
        return before

    def attach(self, node: str, interface: str, link: str) -> float:
        """Plug the cable into a link. Returns the monotonic time just before carrier comes up."""
        switch, port = self._opened(), port_name(node, interface)
        switch.insert(port, self.bridge(link))
        before = time.monotonic()
        switch.bring_up(port)
        return before

    def isolate(self, node: str, interface: str) -> float:
        """Lose what a cable carries without a sign to the node. Returns the monotonic time just before."""
        switch = self._opened()
        before = time.monotonic()
        switch.isolate(port_name(node, interface))
        return before

    def rejoin(self, node: str, interface: str, link: str) -> float:
        """End what `isolate` did. Returns the monotonic time just before."""
        switch = self._opened()
        before = time.monotonic()
        switch.insert(port_name(node, interface), self.bridge(link))
        return before

    def _opened(self) -> Switch:
        if self._switch is None:
            raise CommandFailed("the network is not open")
        return self._switch

    def _set_sysctls(self, node: str, settings: Iterable[tuple[str, str]]) -> None:
        self.execute(node, "sysctl", "-qw", *(f"{key}={value}" for key, value in settings))

    def _switch_lines(self) -> Iterable[str]:
        for link in self.topology.links:
            yield f"link add {self.bridge(link)} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            yield f"link set {self.bridge(link)} up"
        for offset, attachment in enumerate(self.topology.attachments):
            port = port_name(attachment.node, attachment.interface)
            yield (
                f"link add name {port} index {FIRST_PORT_INDEX + offset} mtu {attachment.mtu} type veth peer "
                f"name {attachment.interface} mtu {attachment.mtu} netns {self.namespace(attachment.node)}"
            )

    def _node_lines(self, node: Node) -> Iterable[str]:
        yield "link set lo up"
        for attachment in self.topology.attachments:
            if attachment.node == node.name:
                yield f"link set {attachment.interface} up"
                for address in attachment.addresses:
                    yield f"address add {address} dev {attachment.interface} nodad"
        for route in node.routes:
            yield f"route add {route}"


def port_name(node: str, interface: str) -> str:
    """Name of the switch's end of a node's interface."""
    return f"{node}-{interface}"
