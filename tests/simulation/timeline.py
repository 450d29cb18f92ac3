"""What happened last, for people: events with the time, the member and its role and term."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

__all__ = ["Timeline"]

_QUIET = frozenset(
    ("registered", "moved", "registration_refused", "probing", "deregistered", "binding_expired")
)


class Timeline:
    """The last events; those of single mobile nodes are left out."""

    def __init__(self, length: int = 400) -> None:
        self.counts: Counter[str] = Counter()
        self._events: deque[tuple[float, tuple[object, ...]]] = deque(maxlen=length)

    def add(self, now: float, what: tuple[object, ...]) -> None:
        """Note an event: its name, who, and details."""
        self.counts[str(what[0])] += 1
        if what[0] not in _QUIET:
            self._events.append((now, tuple(map(_plain, what))))

    def lines(self, last: int = 60) -> list[str]:
        """The last events, one a line."""
        return [
            f"{now:10.4f}  {what[0]!s:18} {' '.join(str(each) for each in what[1:])}"
            for now, what in list(self._events)[-last:]
        ]


def _plain(what: object) -> object:
    if isinstance(what, Mapping):
        fields = dict(what)
        fields.pop("group", None)
        term = fields.pop("term", None)
        shown = [f"{fields.pop('role', '')}", f"term {term:#x}" if isinstance(term, int) else ""]
        return " ".join([*filter(None, shown), *(f"{name}={value}" for name, value in fields.items())])
    return what if isinstance(what, str) else str(what)
