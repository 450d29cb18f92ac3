"""The rules of home registration, without packets: order of checks, outcomes, clock."""

from __future__ import annotations

from typing import Any

import pytest

from mip6ha.binding.cache import BindingCache, State
from mip6ha.binding.messages import (
    BindingUpdate,
    MobileNetworkPrefix,
    OptionType,
    Status,
    mobile_network_prefix_option,
)
from mip6ha.binding.registration import (
    Action,
    Before,
    HomePrefix,
    Outcome,
    RegistrationPolicy,
    Registrations,
)
from mip6ha.mobility import Option
from mip6ha.wire import Refused, address

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT

A, H, L, R = 0x8000, 0x4000, 0x2000, 0x0400
PREFIX = MobileNetworkPrefix(address("2001:db8:aa::"), 48)
FOREVER = float("inf")


def rules(**settings: Any) -> Registrations:
    chosen: dict[str, Any] = {
        "address": HOME_AGENT,
        "home_prefixes": (HomePrefix(address("2001:db8:a::"), 64),),
        "probes": False,
        "announces": True,
        "max_lifetime": 3600,
        "max_bindings": 10,
        "refresh_request": 0,
    }
    return Registrations(BindingCache(), RegistrationPolicy(**(chosen | settings)))


def update(registrations: Registrations, sequence: int, **fields: Any) -> Outcome:
    options: list[Option] = list(fields.get("options", ()))
    if "alternate" in fields:
        options.append(Option(OptionType.ALTERNATE_CARE_OF_ADDRESS, fields["alternate"]))
    message = BindingUpdate(sequence, fields.get("flags", A | H), fields.get("lifetime", 15), tuple(options))
    home_address = fields.get("home_address", HOME_ADDRESS)
    source = fields.get("source", CARE_OF_ADDRESS)
    return registrations.update(
        home_address, source, message, fields.get("authorized", ()), fields.get("now", 0.0)
    )


def test_the_outcome_of_each_step_of_a_registrations_life() -> None:
    registrations = rules()
    assert update(registrations, 1) == Outcome(Action.BIND, 0, 1, 15, Before(State.UNBOUND, HOME_ADDRESS))
    bound = Before(State.BOUND, CARE_OF_ADDRESS)
    assert update(registrations, 2) == Outcome(Action.BIND, 0, 2, 15, bound)
    assert update(registrations, 3, lifetime=0) == Outcome(Action.END, 0, 3, 0, bound)
    again = update(registrations, 4, lifetime=0)
    assert again == Outcome(Action.END, 0, 4, 0, Before(State.UNBOUND, CARE_OF_ADDRESS))
    assert update(registrations, 5).action is Action.BIND


def test_checks_come_in_the_order_of_the_rfc() -> None:
    registrations = rules(max_bindings=0)
    wrong: dict[str, Any] = {
        "home_address": address("2001:db8:f::1"),
        "flags": A | H | R,
        "alternate": address("ff02::1"),
    }
    assert update(registrations, 1, **wrong).status == Status.NOT_HOME_SUBNET
    wrong["home_address"] = HOME_ADDRESS
    assert update(registrations, 1, **wrong).status == Status.INVALID_CARE_OF_ADDRESS
    del wrong["alternate"]
    assert update(registrations, 1, **wrong).status == Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED
    wrong["authorized"] = (PREFIX,)
    assert update(registrations, 1, **wrong).status == Status.INSUFFICIENT_RESOURCES
    assert len(registrations.cache) == 0


def test_the_sequence_is_judged_before_the_care_of_address_and_the_type() -> None:
    registrations = rules()
    update(registrations, 10)
    assert update(registrations, 10, alternate=address("::"), flags=A | H | R) == Outcome(
        Action.REFUSE, Status.SEQUENCE_OUT_OF_WINDOW, 10
    )
    assert update(registrations, 10, lifetime=0).status == Status.SEQUENCE_OUT_OF_WINDOW


def test_without_h() -> None:
    registrations = rules()
    with pytest.raises(Refused, match="not_a_home_registration"):
        update(registrations, 1, flags=A)
    update(registrations, 1)
    assert update(registrations, 2, flags=A).status == Status.REGISTRATION_TYPE_CHANGE_DISALLOWED


def test_probing_waits_and_binds() -> None:
    registrations = rules(probes=True)
    assert update(registrations, 1, now=100.0).action is Action.PROBE
    assert registrations.cache.next_deadline() == 101
    assert update(registrations, 2, lifetime=5, now=100.5).action is Action.WAIT
    assert list(registrations.due(100.9)) == []
    ((binding, outcome),) = registrations.due(101.5)
    assert outcome == Outcome(Action.BIND, 0, 2, 5, Before(State.PROBING))
    assert (binding.expires, binding.announce_at, binding.is_bound) == (121.5, 102.5, True)


@pytest.mark.parametrize("flags", [A | H, A | H | L])
def test_whose_address_is_probed(flags: int) -> None:
    registrations = rules(probes=True)
    update(registrations, 1, flags=flags)
    link_local = address("fe80::")[:8] + HOME_ADDRESS[8:]
    assert len(registrations.probing(HOME_ADDRESS)) == 1
    assert len(registrations.probing(link_local)) == bool(flags & L)
    assert registrations.probing(CARE_OF_ADDRESS) == ()
    (binding,) = registrations.probing(HOME_ADDRESS)
    outcome = registrations.conflict(binding)
    assert outcome == Outcome(Action.REFUSE, Status.DUPLICATE_ADDRESS_DETECTION_FAILED, 1)
    assert registrations.probing(HOME_ADDRESS) == ()
    assert registrations.cache.registered == 0


def test_three_claims_then_the_end() -> None:
    registrations = rules()
    update(registrations, 1)
    actions = []
    while (deadline := registrations.cache.next_deadline()) is not None:
        actions += [(deadline, outcome.action) for _, outcome in registrations.due(deadline)]
    assert actions == [(1, Action.ANNOUNCE), (2, Action.ANNOUNCE), (60, Action.EXPIRE)]


def test_a_late_timer_does_everything_that_was_due_and_nothing_twice() -> None:
    registrations = rules(refresh_request=20)
    update(registrations, 1)
    assert [outcome.action for _, outcome in registrations.due(45)] == [Action.ANNOUNCE, Action.ASK_REFRESH]
    assert [outcome.action for _, outcome in registrations.due(1000)] == [Action.EXPIRE]
    assert list(registrations.due(10_000)) == []


@pytest.mark.parametrize(("lifetime", "asked_at"), [(15, 40), (5, 10), (1, 2)])
def test_when_a_refresh_is_asked_for(lifetime: int, asked_at: float) -> None:
    registrations = rules(refresh_request=20, announces=False)
    update(registrations, 1, lifetime=lifetime)
    assert registrations.cache.next_deadline() == asked_at


def test_expiry_says_what_was() -> None:
    registrations = rules(announces=False)
    brought = [mobile_network_prefix_option(PREFIX)]
    update(registrations, 1, flags=A | H | R, authorized=(PREFIX,), options=brought)
    ((binding, outcome),) = registrations.due(60)
    assert outcome == Outcome(Action.EXPIRE, before=Before(State.BOUND, CARE_OF_ADDRESS, (PREFIX,)))
    assert (binding.prefixes, binding.deadline) == ((), FOREVER)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        ("2001:db8:a::/64", "2001:db8:a::1", "2001:db8:b::1"),
        ("2001:db8:a::/63", "2001:db8:a:1::1", "2001:db8:a:2::1"),
        ("::/0", "2001:db8:b::1", ""),
        ("2001:db8:a::5/128", "2001:db8:a::5", "2001:db8:a::4"),
    ],
)
def test_home_prefixes(prefix: str, inside: str, outside: str) -> None:
    network, length = prefix.split("/")
    home = HomePrefix(address(network), int(length))
    assert home.covers(address(inside))
    if outside:
        assert not home.covers(address(outside))
