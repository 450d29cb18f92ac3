"""A TUN device: whole IPv6 packets to and from the kernel.

Covered: opening (and first removing a persistent one of the same name), the link's settings, reading in
batches under Twisted's reactor, writing without waiting. Not covered: several queues, offloads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Any

from pyroute2 import IPRoute
from twisted.internet.abstract import FileDescriptor

from .errors import Unusable
from .sysctl import switch

__all__ = ["Tun", "TunReader"]

_DEVICE = Path("/dev/net/tun")
_SET_INTERFACE = 0x400454CA
_SET_PERSISTENT = 0x400454CB
_TUN, _NO_PACKET_INFORMATION = 0x0001, 0x1000
_REQUEST = Struct("16sH14x")
_UP, _MULTICAST = 0x1, 0x1000
_LONGEST = 65536
# A burst of registrations waits here rather than being lost: whole packets, so some megabytes at worst.
_QUEUE_LENGTH = 8192
_BATCH = 64
# Seconds. A registration takes longer than a forwarded packet, and a HELLO may be due every few milliseconds.
_LONGEST_BATCH = 0.001


class Tun:
    """A TUN device that exists as long as it is open. ``mtu`` in octets."""

    def __init__(self, name: str, mtu: int, counters: Counter[str]) -> None:
        self.name = name
        self._counters = counters
        if name in (known for _, known in socket.if_nameindex()):
            # A killed process leaves one only if somebody made it persistent.
            leftover = _open(name)
            fcntl.ioctl(leftover, _SET_PERSISTENT, 0)
            os.close(leftover)
            counters["leftover_tun_removed"] += 1
        self._descriptor = _open(name)
        try:
            self.interface = socket.if_nametoindex(name)
            # No addresses and no multicast: the kernel's own router solicitations and MLD would arrive here.
            switch(f"conf/{name}/addr_gen_mode", "1")
            switch(f"conf/{name}/accept_ra", "0")
            with IPRoute() as kernel:
                kernel.link(
                    "set",
                    index=self.interface,
                    mtu=mtu,
                    txqlen=_QUEUE_LENGTH,
                    flags=_UP,
                    change=_UP | _MULTICAST,
                )
        except BaseException:
            os.close(self._descriptor)
            raise

    def fileno(self) -> int:
        """For the reactor."""
        return self._descriptor

    def read(self) -> bytes | None:
        """The next packet, ``None`` when there is none."""
        try:
            return os.read(self._descriptor, _LONGEST)
        except BlockingIOError:
            return None

    def write(self, packet: bytes) -> None:
        """Hand a packet to the kernel's routing; one that it does not take is counted."""
        try:
            os.write(self._descriptor, packet)
        except OSError as error:
            self._counters[f"tun_write_{errno.errorcode.get(error.errno or 0, 'failed')}"] += 1

    def close(self) -> None:
        """End the device, and with it every route to it."""
        os.close(self._descriptor)


def _open(name: str) -> int:
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unusable(f"{_DEVICE}: {error.strerror}") from None
    try:
        fcntl.ioctl(descriptor, _SET_INTERFACE, _REQUEST.pack(name.encode(), _TUN | _NO_PACKET_INFORMATION))
    except OSError as error:
        os.close(descriptor)
        reason = {
            errno.EBUSY: "another process has it",
            errno.EINVAL: "there is another kind of interface of that name",
            errno.EPERM: "needs CAP_NET_ADMIN",
        }.get(error.errno or 0, error.strerror)
        raise Unusable(f"TUN device {name}: {reason}") from None
    return descriptor


class TunReader(FileDescriptor):
    """Gives every packet from a :class:`Tun` to ``received``, then calls ``drained`` once for the batch.

    ``reactor`` provides IReactorFDSet.
    """

    def __init__(
        self,
        tun: Tun,
        received: Callable[[bytes], None],
        drained: Callable[[], None],
        reactor: Any,
    ) -> None:
        super().__init__(reactor)
        self._tun = tun
        self._received = received
        self._drained = drained

    def fileno(self) -> int:
        """For the reactor."""
        return self._tun.fileno()

    def doRead(self) -> None:  # noqa: N802
        """One wake-up: a bounded batch, so that timers and control requests get their turn."""
        end = time.monotonic() + _LONGEST_BATCH
        for _ in range(_BATCH):
            packet = self._tun.read()
            if packet is None:
                break
            self._received(packet)
            if time.monotonic() > end:
                break
        self._drained()

    def writeSomeData(self, data: bytes) -> int:  # noqa: N802
        """Nothing is ever written through the reactor."""
        return len(data)
