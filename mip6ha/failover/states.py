"""The roles of a member of a redundant home agent set, as a table that is enforced.

Covered: which event leads from which role to which. Not covered: when the events happen (``machine``).
``docs/roles.md`` is generated from :data:`TRANSITIONS`.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "Event", "IllegalTransition", "Role", "next_role"]


class Role(Enum):
    """What a member does for its group."""

    STARTING = "starting"
    """Just started: asks who is there, serves nobody."""
    STANDBY = "standby"
    """Follows an active member, or waits for its turn to replace one."""
    CLAIMING = "claiming"
    """Has asked for the next term and waits for stable storage or the arbiter."""
    ACTIVE = "active"
    """Owns the home agent address and serves."""
    YIELDING = "yielding"
    """Active, but hands over: forwards payload, takes no more registrations."""
    STOPPED = "stopped"
    """Left the set."""


class Event(Enum):
    """What changes a role."""

    ACTIVE_HEARD = "an active member is heard"
    CLAIM = "own turn to become active"
    TERM_TAKEN = "term taken"
    CLAIM_LOST = "claim lost"
    HIGHER_TERM = "higher term heard"
    LEASE_LOST = "lease lost"
    YIELD = "planned switch begins"
    YIELD_FAILED = "planned switch fails"
    STOP = "stop"


class IllegalTransition(Exception):
    """An event that the role has no answer to: a mistake of ours, never a peer's."""


TRANSITIONS: dict[Role, dict[Event, Role]] = {
    Role.STARTING: {
        Event.ACTIVE_HEARD: Role.STANDBY,
        Event.CLAIM: Role.CLAIMING,
        Event.HIGHER_TERM: Role.STARTING,
        Event.STOP: Role.STOPPED,
    },
    Role.STANDBY: {
        Event.ACTIVE_HEARD: Role.STANDBY,
        Event.HIGHER_TERM: Role.STANDBY,
        Event.CLAIM: Role.CLAIMING,
        Event.STOP: Role.STOPPED,
    },
    Role.CLAIMING: {
        Event.TERM_TAKEN: Role.ACTIVE,
        Event.CLAIM_LOST: Role.STANDBY,
        Event.ACTIVE_HEARD: Role.STANDBY,
        Event.HIGHER_TERM: Role.STANDBY,
        Event.STOP: Role.STOPPED,
    },
    Role.ACTIVE: {
        Event.HIGHER_TERM: Role.STANDBY,
        Event.LEASE_LOST: Role.STANDBY,
        Event.YIELD: Role.YIELDING,
        Event.STOP: Role.STOPPED,
    },
    Role.YIELDING: {
        Event.HIGHER_TERM: Role.STANDBY,
        Event.LEASE_LOST: Role.STANDBY,
        Event.YIELD_FAILED: Role.ACTIVE,
        Event.STOP: Role.STOPPED,
    },
    Role.STOPPED: {},
}


def next_role(role: Role, event: Event) -> Role:
    """The role after ``event``; :class:`IllegalTransition` where the table has none, and nothing changes."""
    try:
        return TRANSITIONS[role][event]
    except KeyError:
        raise IllegalTransition(f"{event.value} while {role.value}") from None
