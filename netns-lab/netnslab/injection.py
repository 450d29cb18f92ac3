"""Frames played again, exactly as they were captured, from the node that sent them.

A replayed frame leaves through the interface it once left through, so that no switch learns anything wrong.
Not covered: changing frames.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from .packets import Captured
from .switch import socket_inside

__all__ = ["replay"]


def replay(namespace: Path, interface: str, frames: Iterable[Captured]) -> int:
    """Send frames from an interface of a namespace; returns how many."""
    count = 0
    with socket_inside(namespace, socket.AF_PACKET, socket.SOCK_RAW) as sender:
        # Bound in the namespace that the socket is of, whichever namespace the caller is in (packet(7)).
        sender.bind((interface, 0))
        for each in frames:
            sender.send(each.frame)
            count += 1
    return count
