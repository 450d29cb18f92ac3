"""One end of a probe stream, run as a program inside a namespace (standard library only, so that it starts
fast).

Every ``interval`` it sends one UDP datagram with a sequence number and the monotonic time; it records what
it sent and what it received. Both ends run on one machine, so their clocks agree and one-way latencies are
true.

Wire: ``!4sIQ`` = mark, sequence number, nanoseconds of CLOCK_MONOTONIC when sent; then zeros up to the size.
Record: ``<BIqq`` = kind (0 sent, 1 received), sequence number, nanoseconds sent, then nanoseconds received
or, for kind 0, the errno that the send failed with (0 if it went out).

It prints ``ready`` when its socket is bound; SIGUSR2 makes it send, SIGUSR1 stop sending, SIGTERM write the
record and end.
"""

from __future__ import annotations

import argparse
import select
import signal
import socket
import struct
import time
from pathlib import Path
from types import FrameType

MARK = b"m6pr"
WIRE = struct.Struct("!4sIQ")
RECORD = struct.Struct("<BIqq")
SENT, RECEIVED = 0, 1


class Endpoint:
    """Sends and receives one stream until told to stop."""

    def __init__(self, local: str, remote: str, port: int, interval: float, size: int) -> None:
        self.sending = False
        self.running = True
        self._remote = (remote, port)
        self._interval = int(interval * 1e9)
        self._padding = bytes(max(0, size - WIRE.size))
        self._records: list[tuple[int, int, int, int]] = []
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind((local, port))

    def run(self) -> None:
        """Send at a fixed rate (late sends catch up, they do not shift the rest) and drain the socket."""
        sequence = 0
        due = 0
        while self.running:
            now = time.monotonic_ns()
            due = due or (now if self.sending else 0)
            if self.sending and now >= due:
                self._send(sequence)
                sequence += 1
                due += self._interval
                continue
            wait = (due - now) / 1e9 if self.sending else 0.05
            if select.select([self._socket], [], [], wait)[0]:
                self._receive()

    def _send(self, sequence: int) -> None:
        now, failure = time.monotonic_ns(), 0
        try:
            self._socket.sendto(WIRE.pack(MARK, sequence, now) + self._padding, self._remote)
        except OSError as error:
            failure = error.errno or -1
        self._records.append((SENT, sequence, now, failure))

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMPv6 error about an earlier datagram: that datagram is already missing
            now = time.monotonic_ns()
            if len(data) >= WIRE.size and data.startswith(MARK):
                _, sequence, sent = WIRE.unpack_from(data)
                self._records.append((RECEIVED, sequence, sent, now))

    def write(self, path: Path) -> None:
        """Write the record."""
        path.write_bytes(b"".join(RECORD.pack(*record) for record in self._records))


def main() -> None:
    """Parse the command line and run one end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--local", required=True)
    parser.add_argument("--remote", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument(
        "--interval", type=float, required=True, help="seconds between datagrams, 0.001 or more"
    )
    parser.add_argument("--size", type=int, default=64, help="octets of UDP payload")
    parser.add_argument("--record", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.interval < 0.001:
        parser.error("--interval: 0.001 or more")
    endpoint = Endpoint(arguments.local, arguments.remote, arguments.port, arguments.interval, arguments.size)

    def steer(number: int, frame: FrameType | None) -> None:
        endpoint.sending = number == signal.SIGUSR2
        endpoint.running = endpoint.running and number != signal.SIGTERM

    for each in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(each, steer)
    print("ready", flush=True)
    endpoint.run()
    endpoint.write(arguments.record)


if __name__ == "__main__":
    main()
