"""A home link, two foreign links and a mobile node that can be plugged into each, in namespaces of their own.

One namespace is the router of all links (a bridge each, its own address on it) and the correspondent.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from mip6ha.icmpv6 import PrefixInformation, prefix_option
from mip6ha.wire import address

ROOT = Path(__file__).parent.parent.parent
LINKS = {"home": "2001:db8:a::", "one": "2001:db8:b::", "two": "2001:db8:d::"}
CORRESPONDENT = "2001:db8:c::2"
HOME_AGENT = "2001:db8:a::1"
HOME_ADDRESS = "2001:db8:a::100"
_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


def command(line: str) -> str:
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{line}: {done.stderr}")
    return done.stdout


def batch(namespace: str, *lines: str) -> None:
    """Several commands of iproute2 for the price of one process."""
    line = f"ip -6 -n {namespace} -batch -"
    done = subprocess.run(line.split(), input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{lines}: {done.stderr}")


def switch(namespace: str, name: str, value: str) -> None:
    """Set a switch of the IPv6 stack."""
    inside(namespace, lambda: (Path("/proc/sys/net/ipv6") / name).write_text(value))


def inside(namespace: str, call: Callable[[], _T]) -> _T:
    """Call something (that opens a socket, say) in a network namespace; the caller's stays as it is."""
    found: list[_T] = []

    def work() -> None:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)
        found.append(call())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]


def eventually(condition: Callable[[], _T | None], seconds: float = 30.0) -> _T:
    """What ``condition`` returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError("it never happened")


class Advertiser:
    """Answers every Router Solicitation on a bridge at once, to all nodes."""

    def __init__(self, namespace: str, bridge: str, prefix: str) -> None:
        self._prefix = address(prefix)
        self._bridge = bridge
        self._socket = inside(namespace, self._open)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _open(self) -> socket.socket:
        source = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._bridge.encode())
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        self._index = socket.if_nametoindex(self._bridge)
        group = address("ff02::2") + struct.pack("=I", self._index)
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        return source

    def _answer(self) -> None:
        option = prefix_option(PrefixInformation(self._prefix, 64, 0xC0, 86400, 14400))
        message = bytes((134, 0, 0, 0, 64, 0)) + (1800).to_bytes(2, "big") + bytes(8) + option
        while self._stop not in (ready := select.select([self._socket, self._stop], [], [])[0]):
            if ready and self._socket.recv(2048)[0] == 133:
                self._socket.sendto(message, ("ff02::1", 0, 0, self._index))

    def close(self) -> None:
        os.close(self._stopped)
        self._thread.join()
        os.close(self._stop)
        self._socket.close()


class World:
    """Namespaces ``router``, ``agent`` and ``mobile``; processes started in them end with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        prefix = f"mn{os.getpid()}"
        self.router, self.agent, self.mobile = (f"{prefix}-{name}" for name in ("router", "agent", "mobile"))
        self._namespaces: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._advertisers: list[Advertiser] = []

    def build(self) -> None:
        for namespace in (self.router, self.agent, self.mobile):
            self._add(namespace)
        switch(self.router, "conf/all/forwarding", "1")
        switch(self.agent, "conf/default/accept_ra", "0")
        lines = [f"addr add {CORRESPONDENT}/128 dev lo nodad"]
        for name, prefix in LINKS.items():
            lines.append(f"link add {name} type bridge mcast_snooping 0 forward_delay 0")
            lines += [f"link set {name} up", f"addr add {prefix}ff/64 dev {name} nodad"]
        for index, (namespace, port) in enumerate(((self.agent, "agent"), (self.mobile, "mobile"))):
            # An index unlike its peer's: otherwise the kernel may delay carrier events by a second.
            lines.append(f"link add {port} index {1000 + index} type veth peer name eth0 netns {namespace}")
        batch(self.router, *lines, "link set agent master home up")
        batch(
            self.agent,
            "link set eth0 up",
            "addr add 2001:db8:a::fe/64 dev eth0 nodad",
            "route add default via 2001:db8:a::ff dev eth0",
        )
        batch(self.mobile, "link set eth0 up")
        for name, prefix in LINKS.items():
            self._advertisers.append(Advertiser(self.router, name, prefix))

    def namespace(self, name: str) -> str:
        """One more; its full name."""
        full = f"{self.router.removesuffix('router')}{name}"
        self._add(full)
        return full

    def _add(self, namespace: str) -> None:
        command(f"ip netns add {namespace}")
        self._namespaces.append(namespace)
        batch(namespace, "link set lo up")
        # The tests wait for nobody's link-local address.
        switch(namespace, "conf/default/accept_dad", "0")

    def plug(self, link: str) -> None:
        """Move the mobile node's cable."""
        batch(self.router, "link set mobile down")
        batch(self.router, f"link set mobile master {link} up")

    def start(self, namespace: str, *arguments: str) -> subprocess.Popen[bytes]:
        log = (self.directory / "log").open("ab")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )
        log.close()
        self._processes.append(process)
        return process

    def events(self) -> list[dict[str, object]]:
        path = self.directory / "events.jsonl"
        if not path.exists():
            return []
        return [
            json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for advertiser in self._advertisers:
            advertiser.close()
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


@contextmanager
def world(directory: Path) -> Iterator[World]:
    made = World(directory)
    try:
        made.build()
        yield made
    finally:
        made.close()
