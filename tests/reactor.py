"""A reactor by hand: time that passes when a test says so, and readers that it may call."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

__all__ = ["ByHand"]


class ByHand(Clock):
    """IReactorTime and what is needed of IReactorFDSet; :attr:`readers` are those that listen."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:  # noqa: N802
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:  # noqa: N802
        self.readers.remove(reader)
