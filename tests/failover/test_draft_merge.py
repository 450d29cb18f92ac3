"""Members that speak the draft alone: what an active one adopts of the others."""

from __future__ import annotations

from mip6ha.contexts import Contexts
from mip6ha.harp.messages import StateEntry
from mip6ha.node import HomeAgent
from mip6ha.parameters import HomeAgentParameters, HomePrefix
from mip6ha.wire import address

HOME, CARE_OF = address("2001:db8:a::100"), address("2001:db8:b::5")


def _contexts() -> tuple[Contexts, HomeAgent]:
    prefix = HomePrefix(address("2001:db8:a::"), 64)
    home_agent = HomeAgent(HomeAgentParameters(address("2001:db8:a::1"), (prefix,)), bytes, 0.0)
    return Contexts(home_agent, 0.0), home_agent


def test_only_the_binding_of_a_later_update_is_adopted() -> None:
    contexts, home_agent = _contexts()
    entry = StateEntry(HOME, CARE_OF, 0xC000, 7, 15)
    assert contexts.merge_draft(entry, [])
    assert not contexts.merge_draft(entry, [])
    assert not contexts.merge_draft(entry._replace(sequence=6), [])
    assert contexts.merge_draft(entry._replace(sequence=8, lifetime=0), [])
    binding = home_agent.cache.get(HOME)
    assert binding is not None
    assert (binding.sequence, binding.is_bound) == (8, False)


def test_what_never_was_is_not_adopted() -> None:
    contexts, home_agent = _contexts()
    assert not contexts.merge_draft(StateEntry(HOME, HOME, 0, 0, 0), [])
    assert home_agent.cache.get(HOME) is None
