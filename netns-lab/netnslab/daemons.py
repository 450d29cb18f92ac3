"""The daemons under test: their configuration, start, events and stop.

Keys are made anew for every run and stand in key files of mode 0600 beside the configurations, and in the
key file for tshark. Not covered: keys negotiated by IKEv2.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from .dissection import EspKey
from .processes import POLL, Processes, ProcessFailed, Running
from .timeline import Timeline
from .topology import Network

__all__ = [
    "Association",
    "HomeAgentDaemon",
    "MobileNodeDaemon",
    "key_file_text",
    "network_state",
    "new_associations",
    "toml_text",
]

READY_LIMIT = 10.0
GCM_KEY_AND_SALT = 20

# The programs of this checkout, installed or not.
_HOME_AGENT = (sys.executable, "-m", "mip6ha")
_MOBILE_NODE = (sys.executable, "-m", "mip6ha.mobile_cli")
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
# What the daemons switch on for as long as they run.
_SWITCHES = (
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.eth0.accept_ra",
    "net.ipv6.conf.eth0.forwarding",
    "net.ipv6.conf.eth0.proxy_ndp",
    "net.ipv6.neigh.eth0.proxy_delay",
)
# Routes that the kernel makes and removes by itself with carrier.
_FOLLOWS_CARRIER = re.compile(r"(fe80:|ff00:)\S* .*proto kernel")
_EXPIRY = re.compile(r"\s+expires \S+")


@dataclass(frozen=True, slots=True)
class Association:
    """One SA, seen from the mobile node (`outbound`: towards the home agent)."""

    use: str
    outbound: bool
    spi: int
    encryption: str
    encryption_key: str = field(repr=False)

    @property
    def key_name(self) -> str:
        """Its name in the key files."""
        return f"{self.use}-{'update' if self.outbound else 'answer'}"

    def esp_key(self) -> EspKey:
        """What tshark needs to decrypt it."""
        return EspKey(self.spi, self.encryption, self.encryption_key)


def new_associations(uses: Sequence[str], first_spi: int) -> tuple[Association, ...]:
    """A pair of AES-GCM-16 SAs with fresh 128-bit keys for each use."""
    pairs = [(use, outbound) for use in uses for outbound in (True, False)]
    return tuple(
        Association(use, outbound, first_spi + offset, "aes-gcm-16", secrets.token_hex(GCM_KEY_AND_SALT))
        for offset, (use, outbound) in enumerate(pairs)
    )


def toml_value(value: object) -> str:
    """A string, number, truth value or list of those in TOML (the JSON forms are valid TOML)."""
    return json.dumps(value)


def toml_text(tables: Sequence[tuple[str, Mapping[str, object]]]) -> str:
    """TOML from (header, values) in order; headers carry their own brackets."""
    parts = []
    for header, values in tables:
        parts += [header, *(f"{name} = {toml_value(value)}" for name, value in values.items()), ""]
    return "\n".join(parts)


def key_file_text(associations: Sequence[Association]) -> str:
    """The key file that both daemons read."""
    return toml_text([(f"[{each.key_name}]", {"encryption": each.encryption_key}) for each in associations])


def association_tables(
    associations: Sequence[Association], home_agent: bool
) -> list[tuple[str, dict[str, object]]]:
    """The SA tables of one side."""
    return [
        (
            "[[mobile_node.sa]]",
            {
                "use": each.use,
                "direction": "in" if each.outbound is home_agent else "out",
                "spi": each.spi,
                "encryption": each.encryption,
                "keys": each.key_name,
            },
        )
        for each in associations
    ]


def write_configuration(directory: Path, stem: str, text: str, associations: Sequence[Association]) -> Path:
    """Write ``STEM.toml`` and ``STEM.keys``; returns the former."""
    keys = directory / f"{stem}.keys"
    keys.unlink(missing_ok=True)
    keys.touch(mode=0o600)
    keys.write_text(key_file_text(associations))
    path = directory / f"{stem}.toml"
    path.write_text(text)
    return path


def network_state(network: Network, node: str) -> set[str]:
    """What a daemon could leave behind: links, addresses, routes, rules, neighbour proxies, switches."""
    questions = (
        ("link", "-br", "link", "show"),
        ("address", "-6", "-o", "address", "show", "scope", "global"),
        ("route", "-6", "route", "show", "table", "all"),
        ("rule", "-6", "rule", "show"),
        ("proxy", "-6", "neighbour", "show", "proxy"),
    )
    lines: set[str] = set()
    for name, *question in questions:
        for line in network.execute(node, "ip", *question).splitlines():
            if name == "link":
                lines.add(f"link {line.split('@')[0].split()[0]}")
            elif not _FOLLOWS_CARRIER.search(line):
                lines.add(f"{name} {_EXPIRY.sub('', line).strip()}")
    return lines | set(network.execute(node, "sysctl", *_SWITCHES).splitlines())


class HomeAgentDaemon:
    """``mip6ha run`` in a namespace."""

    def __init__(self, configuration: Path, control_socket: Path) -> None:
        self._configuration = configuration
        self._socket = control_socket
        self._running: Running | None = None

    def start(self, processes: Processes, network: Network, node: str) -> None:
        """Start it; returns when it answers on its control socket's path."""
        argv = [*_HOME_AGENT, "run", "--log-format", "json", "-c", self._configuration]
        self._running = processes.start("ha", argv, network.namespace(node), _ENVIRONMENT)
        self._running.wait_for("control socket", self._socket.exists, READY_LIMIT)

    def show(self, what: str) -> Any:
        """What ``mip6ha show WHAT --json`` prints."""
        argv = [*_HOME_AGENT, "show", what, "--json", "--socket", str(self._socket)]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=10, check=False, env={**os.environ, **_ENVIRONMENT}
        )
        if done.returncode:
            raise ProcessFailed(f"mip6ha show {what}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def stop(self) -> int:
        """Stop it; returns its exit status."""
        if self._running is None:
            raise ProcessFailed("the home agent was not started")
        return self._running.stop()

    def tell(self, timeline: Timeline) -> None:
        """Add what it logged to a timeline, to the millisecond that its log has."""
        if self._running is None:
            raise ProcessFailed("the home agent was not started")
        for line in self._running.stderr.read_text().splitlines():
            if line.startswith("{"):
                entry = json.loads(line)
                when = datetime.fromisoformat(entry.pop("time")).timestamp() - timeline.epoch_offset
                name = entry.pop("event")
                detail = " ".join(f"{key}={value}" for key, value in entry.items() if key != "level")
                timeline.add(name, detail, source="ha", at=when, live=False)


class MobileNodeDaemon:
    """``mip6mn run`` in a namespace; its events go to the timeline as they are read."""

    def __init__(self, configuration: Path, events: Path, timeline: Timeline) -> None:
        self._configuration = configuration
        self._file = events
        self._timeline = timeline
        self._running: Running | None = None
        self._read = 0
        self.events: list[dict[str, Any]] = []

    def start(self, processes: Processes, network: Network, node: str) -> None:
        """Start it; returns when it says that it has."""
        self._file.unlink(missing_ok=True)
        argv = [*_MOBILE_NODE, "run", "-c", self._configuration]
        self._running = processes.start("mn", argv, network.namespace(node), _ENVIRONMENT)
        self.wait_for("started", limit=READY_LIMIT)

    def wait_for(
        self,
        name: str,
        *,
        after: float = 0.0,
        limit: float,
        matching: Callable[[dict[str, Any]], bool] = bool,
    ) -> dict[str, Any]:
        """The first event with a name at or after a monotonic time; `ProcessFailed` after `limit` seconds."""
        if self._running is None:
            raise ProcessFailed("the mobile node was not started")
        found: list[dict[str, Any]] = []

        def seen() -> bool:
            self.read_events()
            found[:] = [
                event
                for event in self.events
                if event["event"] == name and event["monotonic"] >= after and matching(event)
            ]
            return bool(found)

        self._running.wait_for(f"event {name}", seen, limit)
        return found[0]

    def read_events(self) -> None:
        """Take in the events that were written since the last call."""
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        for line in complete.splitlines():
            event = json.loads(line)
            self.events.append(event)
            fields = {
                name: value for name, value in event.items() if name not in {"event", "monotonic", "time"}
            }
            detail = " ".join(f"{name}={value}" for name, value in fields.items() if name != "counters")
            self._timeline.add(event["event"], detail, source="mn", at=event["monotonic"])

    def pause(self, seconds: float) -> None:
        """Let time pass while events are read."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read_events()
            time.sleep(max(POLL, min(0.05, end - time.monotonic())))

    def stop(self) -> int:
        """Stop it; returns its exit status."""
        if self._running is None:
            raise ProcessFailed("the mobile node was not started")
        status = self._running.stop()
        self.read_events()
        return status
