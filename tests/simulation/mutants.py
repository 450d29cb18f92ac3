"""Deliberate faults of the product, for tests only: each must be found by the simulation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MUTANTS", "mutated"]

MUTANTS: dict[str, object] = {}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    yield
