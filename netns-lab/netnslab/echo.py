"""Sends ICMPv6 echo requests and prints the round trips: a small ping, so that the lab needs no further
package.

Prints one line ``COUNT_SENT COUNT_ANSWERED MEDIAN_MS``; exit status 0 if all were answered.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import time

ECHO_REQUEST, ECHO_REPLY = 128, 129
HEADER = struct.Struct("!BBHHH")


def round_trip(raw: socket.socket, remote: str, identifier: int, sequence: int, limit: float) -> float | None:
    """Seconds until the answer to one request, or None (the kernel fills the checksum in, RFC 3542 3.1)."""
    started = time.monotonic()
    raw.sendto(HEADER.pack(ECHO_REQUEST, 0, 0, identifier, sequence) + bytes(56), (remote, 0))
    while (left := started + limit - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            data = raw.recv(2048)
        except TimeoutError:
            return None
        if len(data) >= HEADER.size:
            kind, _, _, its_identifier, its_sequence = HEADER.unpack_from(data)
            if (kind, its_identifier, its_sequence) == (ECHO_REPLY, identifier, sequence):
                return time.monotonic() - started
    return None


def main() -> int:
    """Parse the command line and send the requests one after another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--local", required=True)
    parser.add_argument("--remote", required=True)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.0, help="seconds to wait for each answer")
    arguments = parser.parse_args()
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.bind((arguments.local, 0))
        identifier = os.getpid() & 0xFFFF
        tries = [
            round_trip(raw, arguments.remote, identifier, number, arguments.limit)
            for number in range(arguments.count)
        ]
    answered = [seconds for seconds in tries if seconds is not None]
    middle = statistics.median(answered) * 1000 if answered else float("nan")
    print(arguments.count, len(answered), f"{middle:.3f}")
    return 0 if len(answered) == arguments.count else 1


if __name__ == "__main__":
    sys.exit(main())
