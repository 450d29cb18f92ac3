"""The daemons under test: their configuration, start, events and stop.

Keys are made anew for every run and stand in key files of mode 0600 beside the configurations, and in the
key file for tshark. Not covered: keys negotiated by IKEv2.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from .dissection import EspKey
from .processes import POLL, Processes, ProcessFailed, Running, answers
from .timeline import Timeline
from .topology import Network

__all__ = [
    "Association",
    "HomeAgentDaemon",
    "MobileNodeDaemon",
    "MobileNodeProgram",
    "key_file_text",
    "new_associations",
    "toml_text",
    "write_private",
]

READY_LIMIT = 30.0
ANSWER_LIMIT = 10.0
GCM_KEY_AND_SALT = 20

# The programs of this checkout, installed or not.
_HOME_AGENT = (sys.executable, "-m", "mip6ha")
MOBILE_NODE = (sys.executable, "-m", "mip6ha.mobile_cli")
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


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


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def write_configuration(directory: Path, stem: str, text: str, associations: Sequence[Association]) -> Path:
    """Write ``STEM.toml`` and ``STEM.keys``; returns the former."""
    write_private(directory / f"{stem}.keys", key_file_text(associations))
    path = directory / f"{stem}.toml"
    path.write_text(text)
    return path


class HomeAgentDaemon:
    """``mip6ha run`` in a namespace, as often as it is started. `name` is its source in the timeline."""

    def __init__(self, configuration: Path, control_socket: Path, name: str = "ha") -> None:
        self.name = name
        self._configuration = configuration
        self._socket = control_socket
        self._starts: list[Running] = []

    @property
    def _running(self) -> Running:
        if not self._starts:
            raise ProcessFailed(f"the home agent {self.name} was not started")
        return self._starts[-1]

    def start(self, processes: Processes, network: Network, node: str) -> None:
        """Start it; returns when it answers on its control socket's path."""
        argv = [*_HOME_AGENT, "run", "--log-format", "json", "-c", self._configuration]
        log = f"{self.name}-{len(self._starts) + 1}" if self._starts else self.name
        running = processes.start(log, argv, network.namespace(node), ENVIRONMENT)
        self._starts.append(running)
        running.wait_for("control socket", lambda: answers(self._socket), READY_LIMIT)

    def show(self, what: str) -> Any:
        """What ``mip6ha show WHAT --json`` prints."""
        return json.loads(self.command("show", what, "--json"))

    def command(self, *words: str) -> str:
        """What ``mip6ha WORDS`` prints; `ProcessFailed` with what it complained about."""
        argv = [*_HOME_AGENT, *words, "--socket", str(self._socket)]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=READY_LIMIT,
            check=False,
            env={**os.environ, **ENVIRONMENT},
        )
        if done.returncode:
            raise ProcessFailed(f"{self.name}: mip6ha {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def ask(self, what: str, /, **arguments: str) -> Any:
        """What `show` or another command returns, without a program that takes the processor from what is
        measured.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_LIMIT)
            connection.connect(str(self._socket))
            connection.sendall(json.dumps({"command": what, **arguments}).encode() + b"\n")
            with connection.makefile() as lines:
                answer = json.loads(lines.readline())
        if not answer["ok"]:
            raise ProcessFailed(f"{self.name}: {what}: {answer['error']}")
        return answer["result"]

    def wait_for(self, what: str, ready: Callable[[dict[str, Any]], bool], limit: float) -> dict[str, Any]:
        """Wait until its status is as `ready` wants it, and return that."""
        found: list[dict[str, Any]] = [{}]

        def looks_right() -> bool:
            found[0] = self.ask("status")
            return ready(found[0])

        self._running.wait_for(what, looks_right, limit)
        return found[0]

    def alive(self) -> bool:
        """Whether its process runs."""
        return bool(self._starts) and self._running.alive()

    def kill(self) -> float:
        """SIGKILL; returns the monotonic time just before."""
        running, before = self._running, time.monotonic()
        running.send(signal.SIGKILL)
        running.process.wait(READY_LIMIT)
        return before

    def stop(self) -> int:
        """Stop it; returns its exit status."""
        return self._running.stop()

    def log(self) -> list[dict[str, Any]]:
        """Every line that it logged since its first start; `time` is in seconds since 1970."""
        entries = []
        for running in self._starts:
            for line in running.stderr.read_text().splitlines():
                if line.startswith("{"):
                    entry = json.loads(line)
                    entries.append(entry | {"time": datetime.fromisoformat(entry["time"]).timestamp()})
        return entries

    def tell(self, timeline: Timeline, wanted: Callable[[dict[str, Any]], bool] = bool) -> None:
        """Add what it logged to a timeline, as exact as its log is."""
        for entry in filter(wanted, self.log()):
            when = entry.pop("time") - timeline.epoch_offset
            name = entry.pop("event")
            detail = " ".join(f"{key}={value}" for key, value in entry.items() if key != "level")
            timeline.add(name, detail, source=self.name, at=when, live=False)


class MobileNodeProgram(Protocol):
    """What plays the mobile node, whoever made it. `events` are what it says while it runs."""

    events: list[dict[str, Any]]

    def pause(self, seconds: float) -> None:
        """Let time pass, and take in what it says meanwhile."""

    def stop(self) -> int:
        """Stop it; returns its exit status."""


class MobileNodeDaemon:
    """``mip6mn run`` in a namespace; its events go to the timeline as they are read."""

    def __init__(self, configuration: Path, events: Path, timeline: Timeline) -> None:
        self._configuration = configuration
        self._file = events
        self._timeline = timeline
        self._running: Running | None = None
        self._read = 0
        self.events: list[dict[str, Any]] = []

    def start(self, processes: Processes, network: Network, node: str, *, first: bool = False) -> None:
        """Start it (`first`: see `Processes.start`); returns when it says that it has."""
        self._file.unlink(missing_ok=True)
        argv = [*MOBILE_NODE, "run", "-c", self._configuration]
        self._running = processes.start("mn", argv, network.namespace(node), ENVIRONMENT, first=first)
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
