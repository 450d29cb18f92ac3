"""A kernel on one end of a wire, the test on the other."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pyroute2.netns import popns, pushns

from mip6ha import ipv6, udp
from mip6ha.edge.xfrm import Xfrm, remove, remove_policy
from mip6ha.wire import address

HOME_AGENT = address("2001:db8:a::1")
HOME_ADDRESS = address("2001:db8:a::100")
CARE_OF_ADDRESS = address("2001:db8:b:0:ec1e:83ff:fee7:1faf")
_IPV6 = 0x86DD
_MULTICAST = 0xFF
_RECEIVE_BUFFER_FORCE = 33
_HOME, _TEST = "02:00:00:00:00:01", "02:00:00:00:00:02"
_SETUP = (
    "link set lo up",
    f"link add home address {_HOME} type veth peer name test address {_TEST}",
    *(f"link set {link} addrgenmode none multicast off up" for link in ("home", "test")),
    "addr add 2001:db8:a::1/64 dev home nodad",
    "route add default dev home",
    f"neigh add 2001:db8:a::100 lladdr {_TEST} dev home nud permanent",
    f"neigh add 2001:db8:b:0:ec1e:83ff:fee7:1faf lladdr {_TEST} dev home nud permanent",
)
_PATIENCE = 3.0


def neighbour(name: str) -> str:
    """What makes an address one of the test's."""
    return f"neigh replace {name} lladdr {_TEST} dev home nud permanent"


class Wire:
    """A network namespace whose kernel is the home agent, and the other end of its only link.

    The test sends and receives whole IPv6 packets there; every address is a neighbour.
    """

    def __init__(self) -> None:
        self.name = f"mip6kernel-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self._undo = ExitStack()
        self._opened = ExitStack()
        self._before: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._undo.callback(subprocess.run, ["ip", "netns", "delete", self.name], check=False)
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        try:
            self.ip(*_SETUP)
            # The other end is the test's alone.
            self.switch("conf/test/disable_ipv6", "1")
            with self.inside():
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_IPV6))
                self._socket.bind(("test", _IPV6))
            self._undo.callback(self._socket.close)
            self._to = ("test", _IPV6, 0, 0, bytes.fromhex(_HOME.replace(":", "")))
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        self._undo.close()

    def ip(self, *commands: str, statistics: bool = False) -> str:
        """What iproute2 says in the namespace; one process, for they are slow in User-Mode Linux."""
        done = subprocess.run(
            ["ip", "-6", "-d", *["-s"] * statistics, "-n", self.name, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}: {done.stderr}"
        return done.stdout

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The test's own system calls are made in the namespace; its sockets stay there."""
        pushns(self.name)
        try:
            yield
        finally:
            popns()

    def send(self, packet: bytes) -> None:
        """Put a packet on the wire."""
        self._socket.sendto(packet, self._to)

    def receive(self, patience: float = _PATIENCE) -> bytes:
        """The next IPv6 packet that the kernel puts on the wire."""
        while select.select([self._socket], [], [], patience)[0]:
            packet = self._socket.recv(1 << 16)
            # Not what the kernel has to say to every neighbour.
            if packet[24] != _MULTICAST:
                return packet
        raise AssertionError(f"nothing came: {self.statistics()}")

    def statistics(self) -> dict[str, int]:
        """What IPsec has counted since :meth:`start_over`, without zeros."""
        counts = self._count()
        return {name: more for name, count in counts.items() if (more := count - self._before[name])}

    def tc(self, *commands: str) -> None:
        """Traffic control in the namespace."""
        done = subprocess.run(
            ["tc", "-n", self.name, "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}: {done.stderr}"

    def filters(self, where: str) -> str:
        """The filters of a device's side, as they are listed."""
        listing = ["tc", "-n", self.name, "filter", "show", "dev", *where.split()]
        return subprocess.run(listing, capture_output=True, text=True, check=True).stdout

    def switch(self, name: str, value: str) -> None:
        """Set a switch of the IPv6 stack in the namespace."""
        with self.inside():
            (Path("/proc/sys/net/ipv6") / name).write_text(value)

    def hold(self, octets: int) -> None:
        """Let so many octets wait at the test's end."""
        self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, octets)

    def is_quiet(self) -> bool:
        """Whether nothing more comes but what the kernel has to say to every neighbour."""
        while not quiet(self._socket):
            if self._socket.recv(1 << 16, socket.MSG_PEEK)[24] != _MULTICAST:
                return False
            self._socket.recv(1 << 16)
        return True

    def _count(self) -> dict[str, int]:
        # Of the thread's network namespace.
        with self.inside():
            lines = Path("/proc/thread-self/net/xfrm_stat").read_text().splitlines()
        return {name: int(count) for name, count in map(str.split, lines)}

    def start_over(self) -> None:
        """Leave neither states nor policies nor packets."""
        with self.inside():
            kernel = Xfrm()
        requests = [remove_policy(each.policy) for each in kernel.policies()]
        requests += [remove(each.state.id) for each in kernel.states()]
        failures = kernel.carry_out(requests)
        kernel.close()
        assert failures == []
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(1 << 16)
        self._opened.close()
        self._before = self._count()

    def socket(self, kind: int, protocol: int = 0) -> socket.socket:
        """An IPv6 socket of the kernel's end that waits only so long."""
        with self.inside():
            made = socket.socket(socket.AF_INET6, kind, protocol)
        made.settimeout(_PATIENCE)
        self._opened.callback(made.close)
        return made


def quiet(receiver: socket.socket, seconds: float = 0.1) -> bool:
    """Whether nothing comes."""
    return not select.select([receiver], [], [], seconds)[0]


def datagram(source: bytes, destination: bytes, data: bytes) -> bytes:
    return udp.build(source, destination, udp.Datagram(5000, 6000, data))


def tunnelled(source: bytes, destination: bytes, data: bytes) -> bytes:
    return ipv6.build(source, destination, ipv6.UDP, datagram(source, destination, data))
