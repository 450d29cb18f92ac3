"""Who was what and when, out of the members' logs and what the lab did to them; and which terms were served.

Covered: role spans, members that serve at once, terms on the wire. Not covered: whether that is as it should
be (`set_checks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .dissection import HelloSeen

__all__ = ["SERVING", "RoleSpan", "role_spans", "servers_at", "terms_served"]

SERVING = frozenset({"active", "yielding"})
# Told with the role that it ends.
_ENDS_IN = {"lease_lost": "standby"}


@dataclass(frozen=True, slots=True)
class RoleSpan:
    """A member had a role under a term in ``[start, end)``, monotonic seconds."""

    member: str
    role: str
    term: int
    start: float
    end: float


def role_spans(
    member: str, log: Iterable[Mapping[str, Any]], ends: Sequence[float], epoch_offset: float, end: float
) -> list[RoleSpan]:
    """The roles of a member until `end`, from log lines that say role and term. `ends` are when its process
    ended.
    """
    spans: list[RoleSpan] = []
    samples = [
        (
            entry["time"] - epoch_offset,
            _ENDS_IN.get(entry.get("event", ""), entry["role"]),
            int(entry["term"]),
        )
        for entry in log
        if "role" in entry and "term" in entry
    ]
    changes: list[tuple[float, str, int]] = sorted([*samples, *((moment, "", 0) for moment in ends)])
    current: tuple[float, str, int] | None = None
    for change in [*changes, (end, "", 0)]:
        moment, role, term = change
        if current is not None and role and term < current[2]:
            # Logs are exact to the millisecond: what was on the wire just before comes after them here.
            continue
        if current is not None and (role, term) != current[1:]:
            if current[1]:
                spans.append(RoleSpan(member, current[1], current[2], current[0], moment))
            current = None
        if current is None:
            current = change
    return spans


def servers_at(spans: Iterable[RoleSpan], moment: float) -> list[RoleSpan]:
    """Who served at a moment."""
    return [span for span in spans if span.role in SERVING and span.start <= moment < span.end]


def terms_served(hellos: Iterable[HelloSeen]) -> dict[int, set[str]]:
    """Term -> addresses of the members that said, with their A flag, that they are active under it."""
    found: dict[int, set[str]] = {}
    for hello in hellos:
        if hello.active and hello.term is not None and hello.lifetime:
            found.setdefault(hello.term, set()).add(hello.source)
    return found
