"""Programs by which the kernel keeps messages back from a socket: classic BPF.

Covered: the instructions that are used here, encoding them, giving a program to a socket. Not covered: what
to keep back (``ndp``, ``kernel_messages``, ``xfrm_events``).
"""

from __future__ import annotations

import ctypes
import socket
from struct import Struct

__all__ = [
    "AND",
    "IF_ABOVE",
    "IF_AT_LEAST",
    "IF_EQUAL",
    "KEEP_BACK",
    "LET_THROUGH",
    "LOAD_HALF",
    "LOAD_OCTET",
    "LOAD_WORD",
    "Instruction",
    "attach",
    "program",
    "word",
]

_SO_ATTACH_FILTER = 26
_INSTRUCTION = Struct("=HBBI")

Instruction = tuple[int, int, int, int]
"""What to do, how many to skip if a comparison holds, and if it does not, and a number."""

LOAD_WORD, LOAD_HALF, LOAD_OCTET, AND = 0x20, 0x28, 0x30, 0x54
"""Load from an offset, in network order; keep some bits."""
IF_EQUAL, IF_ABOVE, IF_AT_LEAST = 0x15, 0x25, 0x35
_GIVE_BACK = 0x06
LET_THROUGH: Instruction = (_GIVE_BACK, 0, 0, 0xFFFF)
KEEP_BACK: Instruction = (_GIVE_BACK, 0, 0, 0)


def program(*instructions: Instruction) -> bytes:
    """Encode a program."""
    return b"".join(_INSTRUCTION.pack(*each) for each in instructions)


def word(value: int) -> int:
    """What :data:`LOAD_WORD` makes of 32 bits in the order of the host, as in a netlink header."""
    return socket.htonl(value)


def attach(to: socket.socket, filtered: bytes) -> None:
    """Have the kernel run a program on everything before ``to`` gets it."""
    instructions = ctypes.create_string_buffer(filtered, len(filtered))
    argument = Struct("@HP").pack(len(filtered) // _INSTRUCTION.size, ctypes.addressof(instructions))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
