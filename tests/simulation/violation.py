"""A broken rule, and what several rules have in common.

Covered: whom a member relies on, the order of Binding Updates. Not covered: the rules (``checker``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mip6ha.harp.sync import Progress

if TYPE_CHECKING:
    from .life import Life

__all__ = ["Violation", "ahead", "counted"]


class Violation(Exception):
    """A rule was broken."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


def ahead(sequence: int, other: int) -> bool:
    """Whether ``sequence`` is ``other`` or later, modulo 2^16 (RFC 6275 9.5.1)."""
    return (sequence - other) & 0xFFFF < 0x8000


def counted(life: Life) -> frozenset[int]:
    """The members that a life waits for before it answers, and calls synchronised."""
    return frozenset(
        identity
        for identity, peer in life.member.replication.peers.items()
        if peer.progress is Progress.SYNCHRONIZED and not peer.is_mute
    )
