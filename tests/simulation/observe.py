"""Hears of contexts that members export and install, without a word in the product.

The functions of ``mip6ha.replica`` are replaced, wherever they were imported, by ones that tell the records
of the run that is going on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import mip6ha.member  # noqa: F401 (everything that uses replica must be there)
from mip6ha import replica
from mip6ha.effects import Effect
from mip6ha.failover.context import BindingState, Context, Version
from mip6ha.node import HomeAgent

if TYPE_CHECKING:
    from .records import Records

__all__ = ["everywhere", "export", "to"]

_listeners: list[Records] = []
_underneath: dict[str, Callable[..., Any]] = {}


@contextmanager
def everywhere(original: object, substitute: object) -> Iterator[None]:
    """Put ``substitute`` in place of ``original`` in every module of the product that has it."""
    changed = []
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "mip6ha":
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, substitute)
                    changed.append((module, attribute))
    try:
        yield
    finally:
        for module, attribute in changed:
            setattr(module, attribute, original)


def export(home_agent: HomeAgent, home_address: bytes, version: Version, now: float) -> Context:
    """The context as the product exports it, unseen."""
    context: Context = _underneath["export"](home_agent, home_address, version, now)
    return context


def _export(home_agent: HomeAgent, home_address: bytes, version: Version, now: float) -> Context:
    context = export(home_agent, home_address, version, now)
    _listeners[-1].exported(home_agent, context)
    return context


def _install(home_agent: HomeAgent, context: Context, now: float) -> list[Effect]:
    _listeners[-1].installing(home_agent, context)
    effects: list[Effect] = _underneath["install"](home_agent, context, now)
    _listeners[-1].installed(home_agent, context)
    return effects


def _install_binding(
    home_agent: HomeAgent, home_address: bytes, state: BindingState | None, now: float
) -> list[Effect]:
    effects: list[Effect] = _underneath["install_binding"](home_agent, home_address, state, now)
    _listeners[-1].bound(home_agent, home_address, state)
    return effects


_SUBSTITUTES = {"export": _export, "install": _install, "install_binding": _install_binding}


@contextmanager
def to(records: Records) -> Iterator[None]:
    """Tell ``records`` of what happens meanwhile."""
    _listeners.append(records)
    before = dict(_underneath)
    entered = []
    for name, substitute in _SUBSTITUTES.items():
        original = getattr(replica, name)
        if original is not substitute:
            _underneath[name] = original
            context = everywhere(original, substitute)
            context.__enter__()
            entered.append(context)
    try:
        yield
    finally:
        for context in reversed(entered):
            context.__exit__(None, None, None)
        _listeners.pop()
        _underneath.update(before)
