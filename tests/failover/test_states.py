"""The table of roles is enforced: what it names happens, everything else raises and changes nothing."""

from __future__ import annotations

from itertools import product

import pytest

from mip6ha.failover.machine import Machine
from mip6ha.failover.states import TRANSITIONS, Event, IllegalTransition, Role, next_role

ALLOWED = [(role, event, after) for role, row in TRANSITIONS.items() for event, after in row.items()]
FORBIDDEN = [(role, event) for role, event in product(Role, Event) if event not in TRANSITIONS[role]]


def machine(role: Role) -> Machine:
    each = Machine(1, (0, bytes(16)), {}, interval=0.1, factor=3, start_wait=1, term=0, now=0.0)
    each.role = role
    return each


@pytest.mark.parametrize(("role", "event", "after"), ALLOWED)
def test_an_allowed_event(role: Role, event: Event, after: Role) -> None:
    each = machine(role)
    each.do(event)
    assert each.role is after is next_role(role, event)


@pytest.mark.parametrize(("role", "event"), FORBIDDEN)
def test_any_other_event_raises_and_changes_nothing(role: Role, event: Event) -> None:
    each = machine(role)
    before = vars(each).copy()
    with pytest.raises(IllegalTransition, match=f"{event.value} while {role.value}"):
        each.do(event)
    assert vars(each) == before


def test_the_table_knows_every_role() -> None:
    assert set(TRANSITIONS) == set(Role)
    assert len(ALLOWED) + len(FORBIDDEN) == len(Role) * len(Event)


def test_nothing_leads_out_of_the_end() -> None:
    assert not TRANSITIONS[Role.STOPPED]


def test_every_other_role_can_stop() -> None:
    for role in set(Role) - {Role.STOPPED}:
        assert next_role(role, Event.STOP) is Role.STOPPED


def test_only_a_taken_term_and_a_failed_hand_over_make_active() -> None:
    assert {(role, event) for role, event, after in ALLOWED if after is Role.ACTIVE} == {
        (Role.CLAIMING, Event.TERM_TAKEN),
        (Role.YIELDING, Event.YIELD_FAILED),
    }


@pytest.mark.parametrize("role", Role)
def test_who_serves(role: Role) -> None:
    assert machine(role).serves == (role in {Role.ACTIVE, Role.YIELDING})
