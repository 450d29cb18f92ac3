"""What payload is lent, by home address, and which of the kernel's states and policies are whose.

Covered: reqids, noting and forgetting what is installed, telling ours from others'. Not covered: installing
it (``kernel_payload``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from .payload_associations import Association, LentPayload
from .xfrm_events import (
    Announcement,
    Flushed,
    Installed,
    PolicyExpired,
    PolicyInstalled,
    PolicyRemoved,
    Removed,
)
from .xfrm_layout import FOREVER
from .xfrm_policy import Policy, PolicyId
from .xfrm_state import State, StateId

__all__ = ["PayloadRegister"]

_NOBODY = b"", None


class PayloadRegister:
    """What is lent, with ``reqids`` to give to it; ``states`` and ``policies`` are what is installed."""

    def __init__(self, reqids: range) -> None:
        self.reqids = reqids
        self.lent: dict[bytes, LentPayload] = {}
        self.states: dict[StateId, tuple[bytes, Association]] = {}
        self.policies: dict[PolicyId, tuple[bytes, Policy]] = {}
        self._unused = iter(reqids)
        self._returned: list[int] = []

    def begin(self) -> int | None:
        """A reqid that nobody has."""
        return self._returned.pop() if self._returned else next(self._unused, None)

    def end(self, home_address: bytes) -> tuple[LentPayload, list[Association], list[Policy]]:
        """What was lent, and what of it is installed; none of it is, from now on."""
        lent = self.lent.pop(home_address)
        self._returned.append(lent.reqid)
        associations = [
            each
            for each in lent.associations.values()
            if self.states.get(each.state.id, _NOBODY)[0] == home_address
        ]
        policies = [
            each for each in lent.policies() if self.policies.get(each.id, _NOBODY)[0] == home_address
        ]
        for association in associations:
            del self.states[association.state.id]
        for policy in policies:
            del self.policies[policy.id]
        return lent, associations, policies

    def note(self, home_address: bytes, failed: Collection[int]) -> None:
        """States and policies are installed, but for some, by their place among all.

        Where it failed the kernel may have one of that name already, which is another's.
        """
        lent = self.lent[home_address]
        for index, each in enumerate(lent.associations.values()):
            if index not in failed:
                self.states[each.state.id] = home_address, each
        for index, policy in enumerate(lent.policies(), len(lent.associations)):
            if index not in failed:
                self.policies[policy.id] = home_address, policy

    def is_installed(self, name: StateId | PolicyId) -> bool:
        """Whether something of that name is."""
        return name in self.states or name in self.policies

    def has_state(self, state: State) -> bool:
        """Whether it is one of ours as it should be, but for limits, which change with every extension."""
        known = self.states.get(state.id)
        return known is not None and replace(state, limits=FOREVER) == known[1].state

    def has_policy(self, policy: Policy) -> bool:
        """Whether it is one of ours as it should be."""
        return self.policies.get(policy.id, _NOBODY)[1] == policy

    def claims(self, policy: Policy) -> bool:
        """Whether it says that it is ours, or is in the place of one that is."""
        return policy.id in self.policies or any(
            template.reqid in self.reqids for template in policy.templates
        )

    def concerns(self, announced: Announcement) -> bool:
        """Whether somebody else has changed something of ours, or what says that it is."""
        if isinstance(announced, Installed):
            state = announced.state.state
            return state.reqid in self.reqids or state.id in self.states
        if isinstance(announced, Removed):
            return announced.id in self.states
        if isinstance(announced, (PolicyInstalled, PolicyRemoved, PolicyExpired)):
            return announced.policy is None or self.claims(announced.policy.policy)
        return isinstance(announced, Flushed)
