"""What must be so when all faults are over: R1 once more, and liveness.

Covered: a group at one moment. Not covered: what happened on the way (``checker``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mip6ha.failover.states import Role

from .life import Life
from .mobile import Ack, MobileNode
from .violation import Violation, ahead

if TYPE_CHECKING:
    from .world import Group

__all__ = ["in_order", "nothing_lost"]


def active_of(group: Group) -> Life:
    """Liveness: the one active member."""
    serving = [life for life in group.lives if life.serves]
    if len(serving) != 1:
        roles = {str(life): life.member.machine.role.value for life in group.lives}
        raise Violation("liveness", f"group {group.plan.number} has {len(serving)} active members: {roles}")
    return serving[0]


def nothing_lost(group: Group) -> None:
    """R1, once all is quiet and before the mobile nodes say anything new."""
    if not any(True for _ in group.lives):
        return
    active = active_of(group)
    for mobile_node in group.mobile_nodes:
        for ack in mobile_node.acks:
            if ack.is_held:
                _check_kept(active, mobile_node, ack)


def _check_kept(active: Life, mobile_node: MobileNode, ack: Ack) -> None:
    binding = active.member.home_agent.cache.get(mobile_node.home_address)
    holders = sorted(str(each) for each in ack.holders if each.alive)
    said = f"what {ack.by} acknowledged to {mobile_node} at {ack.at:.4f}"
    said += f" (number {ack.sequence}, held by {holders})"
    if binding is None or binding.sequence < 0 or not ahead(binding.sequence, ack.sequence):
        has = None if binding is None else binding.sequence
        raise Violation("R1", f"{active} lost {said}: it has {has}")
    if binding.sequence == ack.sequence and ack.ends > active.world.now + 2 and not binding.is_bound:
        raise Violation("R1", f"{active} ended {said}, {ack.ends - active.world.now:.1f} s too early")


def in_order(group: Group) -> None:
    """Liveness, at the very end."""
    if not group.lives:
        return
    active, plan = active_of(group), group.plan
    for life in group.lives:
        machine = life.member.machine
        ready = machine.eligible or not group.plan.extensions
        if life is not active and not (machine.role is Role.STANDBY and ready):
            raise Violation(
                "liveness",
                f"{life} is {machine.role.value}, active {machine.active}, eligible {machine.eligible}",
            )
    for mobile_node in group.mobile_nodes:
        binding = active.member.home_agent.cache.get(mobile_node.home_address)
        senders = [top.sender for top in mobile_node.tops.values() if top.sender is not None]
        if any(each.seat.host.gone or (each is not active and not plan.extensions) for each in senders):
            # It may have last heard numbers that only the one knew who is gone for good.
            continue
        if not mobile_node.is_registered or binding is None or not binding.is_bound:
            raise Violation(
                "liveness",
                f"{mobile_node} is {mobile_node.registration.state.value}, its binding at {active} is "
                f"{None if binding is None else (binding.state.value, binding.sequence)}, "
                f"it sent {mobile_node.sequence}",
            )
    nothing_lost(group)
