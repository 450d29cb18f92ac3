"""What people read of a binding and of the members of a set, JSON-ready.

Covered: fields and their units. Not covered: printing them (``cli``), SAs (``associations``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .binding.cache import Binding
from .binding.messages import LIFETIME_UNIT, flag_names
from .harp.hello import Neighbor
from .wire import text

__all__ = ["binding_view", "neighbor_views"]


def binding_view(binding: Binding, name: str, now: float) -> dict[str, object]:
    """A registration; ``name`` is the mobile node's. Lifetimes are seconds."""
    return {
        "home_address": text(binding.home_address),
        "care_of_address": text(binding.care_of_address),
        "state": binding.state.value,
        "sequence": binding.sequence,
        "lifetime_s": binding.lifetime * LIFETIME_UNIT,
        "expires_in_s": round(binding.expires - now, 3) if binding.is_bound else None,
        "flags": flag_names(binding.flags),
        "mobile_network_prefixes": [f"{text(prefix)}/{length}" for prefix, length in binding.prefixes],
        "name": name,
    }


def neighbor_views(
    neighbors: Iterable[Neighbor],
    progress: Callable[[int], str],
    keys: Callable[[int], str],
    now: float,
) -> list[dict[str, object]]:
    """The other members; ``progress`` says how far one has our state, ``keys`` where its SAs come from."""
    return [
        {
            "member": each.identifier,
            "address": text(each.address),
            "alive": each.is_alive(now),
            "active": each.active,
            "progress": progress(each.identifier),
            "keys": keys(each.identifier),
        }
        for each in neighbors
    ]
