"""One capture file per link, recorded by dumpcap on the switch's bridges.

`start` returns only when dumpcap has opened its device, so that the first packet of a scenario is in the
file. Not covered: reading the files (`dissection`).
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .processes import Processes, Running
from .topology import SWITCH, Network

__all__ = ["Captures", "LinkCapture", "dropped_packets"]

READY_LIMIT = 30.0
# dumpcap reads its ring buffer in blocks; a block that is not full is handed over only after this long.
SETTLE = 0.3
BUFFER_MIB = 8

_COUNTS = re.compile(r"received/dropped on interface '[^']*': (\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class LinkCapture:
    """A running or finished capture of one link."""

    link: str
    path: Path
    running: Running


class Captures:
    """The captures of a run: link name -> file ``LINK.pcap`` in one directory."""

    def __init__(self, processes: Processes, network: Network, directory: Path) -> None:
        self._processes = processes
        self._network = network
        self._directory = directory
        self.links: dict[str, LinkCapture] = {}

    def start(self, links: Iterable[str]) -> None:
        """Begin to record; returns when every link is being recorded."""
        for link in links:
            path = self._directory / f"{link}.pcap"
            path.unlink(missing_ok=True)
            argv = [
                "dumpcap",
                "-q",
                "-P",
                "-B",
                str(BUFFER_MIB),
                "-i",
                self._network.bridge(link),
                "-w",
                str(path),
            ]
            running = self._processes.start(f"dumpcap-{link}", argv, self._network.namespace(SWITCH))
            self.links[link] = LinkCapture(link, path, running)
        for capture in self.links.values():
            # "File:" is what dumpcap prints once the device is open and the file begun.
            capture.running.wait_for_text("File:", READY_LIMIT)

    def stop(self) -> dict[str, int]:
        """End the recording; returns how many packets each capture lost."""
        time.sleep(SETTLE)
        for capture in self.links.values():
            capture.running.send(signal.SIGINT)
        for capture in self.links.values():
            capture.running.stop(signal.SIGINT)
        return {
            link: dropped_packets(capture.running.stderr.read_text()) for link, capture in self.links.items()
        }

    def path(self, link: str) -> Path:
        """File of a link."""
        return self.links[link].path


def dropped_packets(report: str) -> int:
    """How many packets dumpcap says that it lost; -1 if it did not say."""
    found = _COUNTS.findall(report)
    return sum(int(dropped) for _, dropped in found) if found else -1
