"""Roles out of logs, and terms out of what members say."""

from __future__ import annotations

from netnslab.dissection import HelloSeen
from netnslab.roles import RoleSpan, role_spans, servers_at, terms_served

EPOCH = 1000.0


def entry(at: float, role: str, term: int) -> dict[str, object]:
    return {"time": EPOCH + at, "event": "something", "role": role, "term": term}


def test_equal_samples_are_one_span() -> None:
    log = [entry(1, "standby", 257), entry(2, "standby", 257), entry(3, "active", 514)]
    assert role_spans("ha2", log, (), EPOCH, 9.0) == [
        RoleSpan("ha2", "standby", 257, 1.0, 3.0),
        RoleSpan("ha2", "active", 514, 3.0, 9.0),
    ]


def test_what_was_on_the_wire_before_a_take_over_is_not_after_it() -> None:
    log = [entry(1, "standby", 257), entry(3, "active", 514), entry(3.0005, "standby", 257)]
    assert role_spans("ha2", log, (), EPOCH, 9.0)[-1] == RoleSpan("ha2", "active", 514, 3.0, 9.0)


def test_process_that_ended_has_no_role_until_it_says_one() -> None:
    log = [entry(1, "active", 257), entry(5, "starting", 257), entry(6, "standby", 514)]
    assert role_spans("ha1", log, (3.0,), EPOCH, 9.0) == [
        RoleSpan("ha1", "active", 257, 1.0, 3.0),
        RoleSpan("ha1", "starting", 257, 5.0, 6.0),
        RoleSpan("ha1", "standby", 514, 6.0, 9.0),
    ]


def test_lines_without_a_role_and_out_of_order() -> None:
    log = [entry(4, "active", 1), {"time": EPOCH + 2, "event": "ready"}, entry(1, "standby", 0)]
    assert [span.role for span in role_spans("ha1", log, (), EPOCH, 9.0)] == ["standby", "active"]


def test_who_served_at_a_moment() -> None:
    spans = [
        RoleSpan("ha1", "active", 257, 0.0, 2.0),
        RoleSpan("ha1", "yielding", 257, 2.0, 3.0),
        RoleSpan("ha2", "standby", 257, 0.0, 2.5),
        RoleSpan("ha2", "active", 514, 2.5, 9.0),
    ]
    assert [span.member for span in servers_at(spans, 1.0)] == ["ha1"]
    assert [span.member for span in servers_at(spans, 2.7)] == ["ha1", "ha2"]
    assert [span.member for span in servers_at(spans, 3.0)] == ["ha2"]
    assert not servers_at(spans, 9.0)


def test_terms_are_those_of_members_that_say_that_they_are_active() -> None:
    hellos = [
        HelloSeen(1.0, "::1", True, 257, 1800),
        HelloSeen(1.1, "::2", False, 257, 1800),
        HelloSeen(2.0, "::2", True, 514, 1800),
        HelloSeen(2.1, "::1", True, 514, 1800),
        HelloSeen(2.2, "::1", True, 999, 0),
        HelloSeen(2.3, "::3", True, None, 1800),
    ]
    assert terms_served(hellos) == {257: {"::1"}, 514: {"::1", "::2"}}
