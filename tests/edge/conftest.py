"""A network namespace with a home link, and a home agent as a process in it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pyroute2.netns import popns, pushns

PATIENCE = 15.0


@dataclass
class Namespace:
    """A network namespace; ``home`` is an Ethernet link in it, ``peer`` its other end."""

    name: str

    def run(self, *command: str, check: bool = True) -> str:
        result = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, check=False
        )
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def routes(self) -> set[str]:
        """Destinations of the routes that are a home agent's."""
        lines = self.run("ip", "-6", "route", "show", "table", "all", "proto", "135").splitlines()
        return {line.split()[0] for line in lines}

    def rules(self) -> set[str]:
        """Where packets must come from for a home agent's routing rules."""
        lines = self.run("ip", "-6", "rule", "show").splitlines()
        words = [line.split() for line in lines if "proto 135" in line]
        return {line[line.index("iif") + 1] if "iif" in line else "all" for line in words}

    def switch(self, name: str) -> str:
        return self.run("sysctl", "-n", f"net.ipv6.{name}").strip()

    def links(self) -> set[str]:
        return {link["ifname"] for link in json.loads(self.run("ip", "-json", "link"))}


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.geteuid():
        pytest.fail("network namespaces need root; run as root, or deselect these tests with: -m 'not netns'")
    name = f"mip6edge-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        space = Namespace(name)
        space.run("ip", "link", "set", "lo", "up")
        space.run("ip", "link", "add", "home", "type", "veth", "peer", "peer")
        for link in ("home", "peer"):
            space.run("ip", "link", "set", link, "addrgenmode", "none", "up")
        # The kernel resolves neighbours from it; by hand, for a generated one is tentative for a second.
        space.run("ip", "address", "add", "fe80::1/64", "dev", "home", "nodad")
        yield space
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture
def inside(namespace: Namespace) -> Iterator[Namespace]:
    """The test itself runs in the namespace."""
    pushns(namespace.name)
    try:
        yield namespace
    finally:
        popns()


CONFIGURATION = """
[home_agent]
address = "2001:db8:a::1"
home_link = "home"
home_prefixes = ["2001:db8:a::/64"]
tun_name = "mip6test"
control_socket = "ha.sock"
state_dir = "state"
"""


@dataclass
class HomeAgentProcess:
    """``mip6ha run`` in a namespace, with the files in ``directory``."""

    namespace: Namespace
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def configuration(self) -> Path:
        return self.directory / "ha.toml"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def start(self) -> None:
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace.name, sys.executable, "-m", "mip6ha"),
                    *("run", "-c", str(self.configuration), "--log-format", "json"),
                ],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        self.started.append(self.process)

    def start_ready(self) -> None:
        before = self.events().count("ready") if (self.directory / "log").exists() else 0
        self.start()
        self.wait(lambda: self.events().count("ready") > before)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until ``condition`` holds; fails with the log if the process ends or time is up."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.splitlines() if line.startswith("{")]

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def show(self, what: str) -> Any:
        return asked(self.directory / "ha.sock", what)


def asked(path: Path, what: str) -> Any:
    """The answer of a home agent, over its socket itself, for a process takes half a second."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(json.dumps({"command": what}).encode() + b"\n")
        with connection.makefile("rb") as stream:
            return json.loads(stream.readline())["result"]


@pytest.fixture
def agent(namespace: Namespace, tmp_path: Path) -> Iterator[HomeAgentProcess]:
    process = HomeAgentProcess(namespace, tmp_path)
    process.configuration.write_text(CONFIGURATION)
    try:
        yield process
    finally:
        for started in process.started:
            if started.poll() is None:
                started.kill()
                started.wait()
