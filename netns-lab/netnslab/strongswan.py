"""strongSwan's charon, without systemd: its configuration, what it is told, what it says.

Covered: the syntax of its files, swanctl, its answers, its log with times. Not covered: what it is used for.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from .processes import Processes, ProcessFailed, Running, answers
from .timeline import Timeline
from .topology import Network

__all__ = [
    "CONTROL",
    "DAEMON",
    "PLUGINS",
    "Charon",
    "Kernel",
    "LogLine",
    "Settings",
    "read_log",
    "text",
    "values",
]

DAEMON, CONTROL = "/usr/sbin/charon-systemd", "/usr/sbin/swanctl"
PLUGINS = (
    *("random", "nonce", "openssl", "pem", "pkcs1", "pkcs8", "x509", "pubkey", "revocation", "constraints"),
    *("kdf", "hmac", "vici", "socket-default"),
)
"""What charon needs for anything at all; beside it what has its SAs, see :class:`Kernel`."""

Settings = Mapping[str, Any]

_READY_LIMIT = 20.0
_ANSWER_LIMIT = 15.0
_EXPECTED_WITHIN = 10.0


class Kernel(StrEnum):
    """What has charon's SAs: the kernel, or charon itself with a TUN device and ESP in UDP."""

    NETLINK = "kernel-netlink"
    LIBIPSEC = "kernel-libipsec"


def text(settings: Settings, depth: int = 0) -> str:
    """What stands in a file of strongSwan's."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += [f"{'  ' * depth}{key} {{", text(value, depth + 1), f"{'  ' * depth}}}"]
        else:
            lines.append(f"{'  ' * depth}{key} = {value}")
    return "\n".join(lines)


# Names are in lower case, unlike those in a distinguished name.
_NAME = r"[a-z][^\s={}A-Z]*"
_ENDS = rf"(?=\s{_NAME}(?:=| {{)|}})"
_TOKEN = re.compile(
    rf"\s*(?:(?P<close>}})|(?P<table>{_NAME}) {{|(?P<list>{_NAME})=\[(?P<items>.*?)\]{_ENDS}"
    rf"|(?P<key>{_NAME})=(?P<value>.*?){_ENDS})"
)


def values(line: str) -> dict[str, Any]:
    """What ``swanctl --raw`` prints."""
    first: dict[str, Any] = {}
    stack = [first]
    # The outermost braces are the message itself.
    for token in _TOKEN.finditer(line.removeprefix("{")):
        if token["close"]:
            stack.pop()
            if not stack:
                break
        elif token["table"]:
            inner: dict[str, Any] = {}
            stack[-1][token["table"]] = inner
            stack.append(inner)
        elif token["list"]:
            stack[-1][token["list"]] = token["items"].split()
        else:
            stack[-1][token["key"]] = token["value"]
    return first


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of charon's log; `time` is in seconds since 1970."""

    time: float
    text: str


_LOG_LINE = re.compile(r"^(\d+\.\d+) \d\d(\[\w+\] .*)$", re.M)


def read_log(log: str) -> list[LogLine]:
    """Lines of a log that was written as :class:`Charon` has it."""
    return [LogLine(float(match[1]), match[2]) for match in _LOG_LINE.finditer(log)]


class Charon:
    """charon in a node of the lab; `directory` gets its files, `log` among them.

    It is a program of somebody else: what it does between two calls is known from its log only. `events` is
    empty, where the emulator's mobile node has its own.
    """

    def __init__(self, directory: Path, work: Path, timeline: Timeline, settings: Settings) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.events: list[dict[str, Any]] = []
        self.log = directory / "log"
        self.log.unlink(missing_ok=True)
        self.directory = directory
        self._timeline = timeline
        self._socket = work / "vici"
        self._running: Running | None = None
        log = {"path": self.log, "default": 1, "time_format": "%s", "time_add_ms": "yes", "flush_line": "yes"}
        daemon = {
            # kernel-netlink also knows addresses and routes, for whoever has the SAs.
            "load": " ".join([*PLUGINS, Kernel.LIBIPSEC, Kernel.NETLINK]),
            "plugins": {"vici": {"socket": f"unix://{self._socket}"}},
            "filelog": {"log": log},
            "journal": {"default": -1},
            **settings,
        }
        self._configuration = directory / "strongswan.conf"
        self._configuration.write_text(text({"charon-systemd": daemon}))

    def start(self, processes: Processes, network: Network, node: str) -> None:
        """Start it before everything of ordinary priority; returns when it can be told something."""
        environment = {"STRONGSWAN_CONF": str(self._configuration)}
        self._running = processes.start("charon", [DAEMON], network.namespace(node), environment, first=True)
        self._running.wait_for("control socket", lambda: answers(self._socket), _READY_LIMIT)

    def load(self, connections: Settings, secrets: Settings) -> None:
        """Take these connections and secrets; certificates and keys stand in `directory`."""
        configuration = self.directory / "swanctl.conf"
        configuration.unlink(missing_ok=True)
        configuration.touch(mode=0o600)
        configuration.write_text(text({"connections": connections, "secrets": secrets}))
        self.control("--load-all", "--clear", "--file", str(configuration))

    def control(self, *arguments: str) -> str:
        """A command of swanctl; `ProcessFailed` with what it complained about."""
        argv = [CONTROL, *arguments, "--uri", f"unix://{self._socket}"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_ANSWER_LIMIT, check=False)
        if done.returncode:
            raise ProcessFailed(
                f"swanctl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done.stdout

    def associations(self) -> list[dict[str, Any]]:
        """The IKE SAs that it has, ``child-sas`` in them."""
        return [
            {"name": name, **found}
            for line in self.control("--list-sas", "--raw").splitlines()
            if line.startswith("list-sa event ")
            for name, found in values(line.removeprefix("list-sa event ")).items()
        ]

    def wait_for(self, what: str, ready: Callable[[], bool], limit: float = _EXPECTED_WITHIN) -> None:
        """Wait until something is so; `ProcessFailed` after `limit` seconds, or if charon has ended."""
        self._started().wait_for(what, ready, limit)

    def lines(self, after: float = 0.0) -> list[LogLine]:
        """What it has logged at or after a monotonic time."""
        offset = self._timeline.epoch_offset
        return [each for each in read_log(self.log.read_text()) if each.time - offset >= after]

    def says(self, words: str, after: float) -> bool:
        """Whether it has logged some words since a monotonic time."""
        return any(words in each.text for each in self.lines(after))

    def tell(self, wanted: Callable[[str], bool]) -> None:
        """Add what it logged to the timeline."""
        for each in self.lines():
            if wanted(each.text):
                at = each.time - self._timeline.epoch_offset
                self._timeline.add("charon", each.text, source="mn", at=at, live=False)

    def pause(self, seconds: float) -> None:
        """Let time pass; there are no events to read meanwhile."""
        time.sleep(seconds)

    def stop(self) -> int:
        """End it cleanly: it deletes its IKE SAs first. Its exit status."""
        return self._started().stop()

    def _started(self) -> Running:
        if self._running is None:
            raise ProcessFailed("charon was not started")
        return self._running
