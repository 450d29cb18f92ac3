"""Two network namespaces, the link between them, and what is on it as a capture."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from pyroute2.netns import popns, pushns

_T = TypeVar("_T")

OURS, THEIRS = "2001:db8:1::1", "2001:db8:1::2"
# For selectors: home addresses, networks behind either end. They are local to it.
BEHIND_US, BEHIND_THEM = "2001:db8:a::1", "2001:db8:b::1"
LINK = "eth0"
_ETHERNET, _PCAP = 1, 0xA1B2C3D4
_EVERYTHING = 0x0003


def eventually(condition: Callable[[], _T | None], seconds: float = 10.0) -> _T:
    """What ``condition`` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("it never happened")


class Capture:
    """Everything that passes a link of a namespace, in a file that tshark reads.

    The socket is open on return, so that the first packet is in the file.
    """

    def __init__(self, namespace: Namespace, path: Path, link: str = LINK) -> None:
        self.path = path
        with namespace.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
            self._socket.bind((link, _EVERYTHING))
        self._file = path.open("wb")
        self._file.write(struct.pack("<IHHiIII", _PCAP, 2, 4, 0, 0, 1 << 16, _ETHERNET))
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._record)
        self._thread.start()

    def _record(self) -> None:
        while True:
            ready = select.select([self._socket, self._stop], [], [])[0]
            if self._socket in ready:
                self._write(self._socket.recv(1 << 16))
            elif self._stop in ready:
                return

    def _write(self, frame: bytes) -> None:
        seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
        self._file.write(struct.pack("<IIII", seconds, fraction // 1000, len(frame), len(frame)) + frame)

    def close(self) -> Path:
        """Record no more; the file, with everything that has passed before."""
        if not self._file.closed:
            os.close(self._stopped)
            self._thread.join()
            os.close(self._stop)
            self._socket.close()
            self._file.close()
        return self.path


class Namespace:
    """One end of the link: a network namespace, and the processes that are started in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[bytes]] = []

    def ip(self, *commands: str) -> None:
        subprocess.run(
            ["ip", "-6", "-n", self.name, "-batch", "-"], input="\n".join(commands), text=True, check=True
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The system calls of this thread are made in the namespace; its sockets stay there."""
        pushns(self.name)
        try:
            yield
        finally:
            popns()

    def run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(
        self, *command: str, output: Path, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A process that ends with the namespace at the latest; what it says goes to a file."""
        with output.open("ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            stop(process)


def stop(process: subprocess.Popen[bytes], seconds: float = 5.0) -> int:
    """End a process, by force if need be; its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Network:
    """``ours`` and ``theirs`` on one link; nothing is left of them behind, whatever happens."""

    def __init__(self) -> None:
        prefix = f"mip6ike-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self.ours, self.theirs = Namespace(f"{prefix}-o"), Namespace(f"{prefix}-t")
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        try:
            for namespace in (self.ours, self.theirs):
                subprocess.run(["ip", "netns", "add", namespace.name], check=True)
                self._undo.callback(
                    subprocess.run, ["ip", "netns", "del", namespace.name], capture_output=True, check=False
                )
                self._undo.callback(namespace.close)
            self.ours.ip(f"link add {LINK} type veth peer name {LINK} netns {self.theirs.name}")
            for namespace, address, behind, peer, behind_peer in (
                (self.ours, OURS, BEHIND_US, THEIRS, BEHIND_THEM),
                (self.theirs, THEIRS, BEHIND_THEM, OURS, BEHIND_US),
            ):
                namespace.ip(
                    "link set lo up",
                    f"link set {LINK} addrgenmode none up",
                    f"addr add {address}/64 dev {LINK} nodad",
                    f"addr add {behind}/128 dev lo nodad",
                    f"route add {behind_peer}/128 via {peer} src {behind}",
                )
        except BaseException:
            self._undo.close()
            raise
        return self

    @contextmanager
    def cut(self) -> Iterator[None]:
        """What either end sends meanwhile goes to nobody's link-layer address."""
        ends = ((self.ours, THEIRS), (self.theirs, OURS))
        for namespace, peer in ends:
            namespace.ip(f"neigh replace {peer} lladdr 02:00:00:00:00:99 dev {LINK} nud permanent")
        try:
            yield
        finally:
            for namespace, peer in ends:
                namespace.ip(f"neigh del {peer} dev {LINK}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
