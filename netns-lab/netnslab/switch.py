"""The switch's cables: ports of bridges that go up, down, and from bridge to bridge within microseconds.

A socket belongs to the namespace that it was made in, whichever namespace its owner is in; so one socket
made inside the switch namespace by a thread of its own is enough, and no process starts at the moment that
is measured.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

__all__ = ["Switch", "socket_inside"]

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFINDEX = 0x8913, 0x8914, 0x8933
SIOCBRADDIF, SIOCBRDELIF = 0x89A2, 0x89A3
IFF_UP = 1

_FLAGS = struct.Struct("16sh14x")
_INDEX = struct.Struct("16si12x")
_libc = ctypes.CDLL(None, use_errno=True)


def socket_inside(namespace: Path, family: int, kind: int) -> socket.socket:
    """A socket of another network namespace. Only the helping thread ever enters it (setns(2))."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, CLONE_NEWNET):
                number = ctypes.get_errno()
                failed.append(OSError(number, os.strerror(number), str(namespace)))
            else:
                made.append(socket.socket(family, kind))
        finally:
            os.close(handle)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


class Switch:
    """The ports of the switch namespace, by name."""

    def __init__(self, namespace: Path) -> None:
        self._socket = socket_inside(namespace, socket.AF_INET, socket.SOCK_DGRAM)
        self._bridges: dict[str, str] = {}

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def unplug(self, port: str) -> None:
        """Port down: the other end loses carrier."""
        self._set_up(port, False)
        bridge = self._bridges.pop(port, None)
        if bridge is not None:
            self._bridge(SIOCBRDELIF, bridge, port)

    def isolate(self, port: str) -> None:
        """Lose what a port carries while both its ends have carrier: a fault farther away."""
        self._bridge(SIOCBRDELIF, self._bridges.pop(port), port)

    def insert(self, port: str, bridge: str) -> None:
        """Make a port a member of a bridge."""
        self._bridge(SIOCBRADDIF, bridge, port)
        self._bridges[port] = bridge

    def bring_up(self, port: str) -> None:
        """Port up: the other end has carrier."""
        self._set_up(port, True)

    def _set_up(self, port: str, up: bool) -> None:
        name = port.encode()
        answer = fcntl.ioctl(self._socket, SIOCGIFFLAGS, _FLAGS.pack(name, 0))
        flags = _FLAGS.unpack(answer)[1] & ~IFF_UP | (IFF_UP if up else 0)
        fcntl.ioctl(self._socket, SIOCSIFFLAGS, _FLAGS.pack(name, flags))

    def _bridge(self, request: int, bridge: str, port: str) -> None:
        answer = fcntl.ioctl(self._socket, SIOCGIFINDEX, _INDEX.pack(port.encode(), 0))
        index = _INDEX.unpack(answer)[1]
        fcntl.ioctl(self._socket, request, _INDEX.pack(bridge.encode(), index))
