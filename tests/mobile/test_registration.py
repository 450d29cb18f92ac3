from __future__ import annotations

import pytest

from mip6ha.binding.messages import (
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    Option,
    OptionType,
    Status,
    UpdateFlag,
    alternate_care_of_address,
)
from mip6ha.effects import Event
from mip6ha.mobile.registration import Registration, SendUpdate, State, Step
from mip6ha.wire import Refused

from .timeline import CARE_OF_1, CARE_OF_2, HOME_ADDRESS


def registration(sequence: int = 99, **settings: object) -> Registration:
    return Registration(HOME_ADDRESS, lifetime=60, sequence=sequence, **settings)  # type: ignore[arg-type]


def updates(steps: list[Step]) -> list[SendUpdate]:
    return [step for step in steps if isinstance(step, SendUpdate)]


def update(steps: list[Step]) -> BindingUpdate:
    (sent,) = updates(steps)
    return sent.update


def events(steps: list[Step]) -> dict[str, dict[str, object]]:
    return {step.name: step.fields for step in steps if isinstance(step, Event)}


def accepted(sequence: int, lifetime: int = 15, *options: Option, status: int = 0) -> BindingAcknowledgement:
    return BindingAcknowledgement(status, 0, sequence, lifetime, options)


def registered(now: float = 0.0, **settings: object) -> Registration:
    machine = registration(**settings)
    machine.register(CARE_OF_1, now)
    machine.acknowledged(accepted(machine.sequence), now)
    return machine


def sending_times(machine: Registration, until: float) -> list[tuple[float, int]]:
    """Run the clock without any answer: when which sequence number left."""
    sent = []
    while (deadline := machine.next_deadline()) is not None and deadline <= until:
        sent += [(deadline, step.update.sequence) for step in updates(machine.on_timer(deadline))]
    return sent


def test_a_first_update_asks_for_what_was_configured() -> None:
    (sent,) = updates(registration(sequence=0xFFFF, link_local=True).register(CARE_OF_1, 0.0))
    assert sent.care_of_address == CARE_OF_1
    assert sent.update.sequence == 0
    assert sent.update.flags == UpdateFlag.ACKNOWLEDGE | UpdateFlag.HOME_REGISTRATION | UpdateFlag.LINK_LOCAL
    assert sent.update.lifetime == 15
    assert alternate_care_of_address(sent.update.options) == CARE_OF_1


def test_a_first_registration_is_retransmitted_at_doubling_intervals_with_new_sequence_numbers() -> None:
    machine = registration()
    assert update(machine.register(CARE_OF_1, 0.0)).sequence == 100
    assert sending_times(machine, 130.0) == [
        (1.5, 101),
        (4.5, 102),
        (10.5, 103),
        (22.5, 104),
        (46.5, 105),
        (78.5, 106),
        (110.5, 107),
    ]


def test_a_refresh_begins_with_a_shorter_timeout() -> None:
    machine = registered()
    # 60 s granted: refreshed at 57 s, retransmitted after 1 s and 2 s; then the binding is over.
    assert sending_times(machine, 60.0) == [(57.0, 101), (58.0, 102), (60.0, 103)]
    assert machine.binding is None


def test_a_refresh_keeps_the_binding_until_it_expires() -> None:
    machine = registered()
    machine.on_timer(57.0)
    assert machine.binding is not None
    assert machine.binding.care_of_address == CARE_OF_1
    assert "binding_expired" in events(machine.on_timer(60.0))


def test_only_the_answer_to_the_latest_update_counts() -> None:
    machine = registration()
    machine.register(CARE_OF_1, 0.0)
    machine.on_timer(1.5)
    with pytest.raises(Refused, match="stale_acknowledgement"):
        machine.acknowledged(accepted(100), 1.6)
    assert machine.binding is None
    told = events(machine.acknowledged(accepted(101), 1.75))["binding_acknowledged"]
    assert told == {"status": 0, "sequence": 101, "rtt_ms": 250.0, "attempt": 2, "lifetime": 60}
    assert machine.state is State.REGISTERED


def test_an_answer_to_nothing_is_refused() -> None:
    machine = registered()
    with pytest.raises(Refused, match="unexpected_acknowledgement"):
        machine.acknowledged(accepted(100), 1.0)


def test_out_of_window_is_retried_at_once_above_the_home_agents_number() -> None:
    machine = registration(sequence=6)
    machine.register(CARE_OF_1, 0.0)
    steps = machine.acknowledged(accepted(5000, 0, status=Status.SEQUENCE_OUT_OF_WINDOW), 0.01)
    assert update(steps).sequence == 5001
    # The answer to an update that left before comes late: we are past it already.
    with pytest.raises(Refused, match="stale_acknowledgement"):
        machine.acknowledged(accepted(5000, 0, status=Status.SEQUENCE_OUT_OF_WINDOW), 0.02)
    machine.acknowledged(accepted(5001), 0.03)
    assert machine.state is State.REGISTERED


def test_out_of_window_wraps() -> None:
    machine = registration(sequence=0x8000)
    machine.register(CARE_OF_1, 0.0)
    steps = machine.acknowledged(accepted(0xFFFF, 0, status=Status.SEQUENCE_OUT_OF_WINDOW), 0.0)
    assert update(steps).sequence == 0


@pytest.mark.parametrize("status", [128, 129, 130, 131, 132, 133, 134, 140, 174])
def test_a_refusal_is_told_and_leaves_no_binding(status: int) -> None:
    machine = registered()
    machine.register(CARE_OF_2, 10.0)
    steps = machine.acknowledged(accepted(101, 0, status=status), 10.1)
    assert events(steps)["refused"] == {"status": status, "retry_after": 420.0}
    assert machine.state is State.REFUSED
    assert machine.binding is None
    assert not machine.may_be_bound
    assert machine.next_deadline() == pytest.approx(430.1)
    assert update(machine.on_timer(430.1)).sequence == 102
    assert machine.state is State.REGISTERING


def test_the_silence_after_a_refusal_is_configurable_and_ends_with_a_move() -> None:
    machine = registration(refused_delay=7.0)
    machine.register(CARE_OF_1, 0.0)
    machine.acknowledged(accepted(100, 0, status=129), 0.0)
    assert machine.next_deadline() == 7.0
    assert len(updates(machine.register(CARE_OF_2, 1.0))) == 1


def test_a_grant_is_counted_from_when_the_update_left() -> None:
    machine = registration()
    machine.register(CARE_OF_1, 0.0)
    machine.acknowledged(accepted(100, 10), 1.0)
    assert machine.binding is not None
    assert machine.binding.expires == 40.0
    assert machine.next_deadline() == 38.0


@pytest.mark.parametrize(("advice", "refresh"), [(2, 8.0), (15, 57.0), (20, 57.0), (0, 57.0)])
def test_refresh_advice_below_the_lifetime_is_followed(advice: int, refresh: float) -> None:
    machine = registration()
    machine.register(CARE_OF_1, 0.0)
    option = Option(OptionType.BINDING_REFRESH_ADVICE, advice.to_bytes(2, "big"))
    machine.acknowledged(accepted(100, 15, option), 0.0)
    assert machine.next_deadline() == refresh


def test_prefix_discovery_necessary_is_an_acceptance() -> None:
    machine = registration()
    machine.register(CARE_OF_1, 0.0)
    machine.acknowledged(accepted(100, 15, status=1), 0.0)
    assert machine.state is State.REGISTERED


def test_lifetime_zero_is_a_deregistration() -> None:
    machine = registered()
    machine.on_timer(57.0)
    steps = machine.acknowledged(accepted(101, 0), 57.1)
    assert "deregistered" in events(steps)
    assert machine.binding is None


def test_a_refresh_request_is_answered() -> None:
    machine = registered()
    assert update(machine.refresh_requested(5.0)).sequence == 101
    with pytest.raises(Refused, match="unexpected_refresh_request"):
        machine.refresh_requested(5.1)


def test_an_unknown_binding_is_registered_again_once() -> None:
    machine = registered()
    assert update(machine.error(BindingError(1, HOME_ADDRESS), 5.0)).sequence == 101
    assert machine.binding is None
    assert not updates(machine.error(BindingError(1, HOME_ADDRESS), 5.1))
    assert sending_times(machine, 7.0) == [(6.5, 102)]


def test_other_binding_errors_change_nothing() -> None:
    machine = registered()
    assert not updates(machine.error(BindingError(2, HOME_ADDRESS), 5.0))
    with pytest.raises(Refused, match="binding_error_home_address"):
        machine.error(BindingError(1, CARE_OF_1), 5.0)
    assert machine.state is State.REGISTERED


def test_a_move_replaces_a_pending_update() -> None:
    machine = registered()
    machine.on_timer(57.0)
    (sent,) = updates(machine.register(CARE_OF_2, 57.5))
    assert (sent.care_of_address, sent.update.sequence) == (CARE_OF_2, 102)
    assert machine.next_deadline() == 58.5
    with pytest.raises(Refused):
        machine.acknowledged(accepted(101), 57.6)
    machine.acknowledged(accepted(102), 57.7)
    assert machine.binding is not None
    assert machine.binding.care_of_address == CARE_OF_2


def test_deregistration_at_home() -> None:
    machine = registered()
    (sent,) = updates(machine.deregister(10.0))
    assert sent.care_of_address is None
    assert sent.update.lifetime == 0
    assert sent.update.flags & UpdateFlag.ACKNOWLEDGE
    assert alternate_care_of_address(sent.update.options) == HOME_ADDRESS
    assert machine.next_deadline() == 11.0
    assert "deregistered" in events(machine.acknowledged(accepted(101, 0), 10.1))
    assert machine.next_deadline() is None
    assert not machine.may_be_bound


def test_deregistration_away_states_the_care_of_address() -> None:
    machine = registered()
    (sent,) = updates(machine.deregister(10.0, CARE_OF_1))
    assert sent.care_of_address == CARE_OF_1
    assert sent.update.lifetime == 0
    assert alternate_care_of_address(sent.update.options) == CARE_OF_1


def test_an_unanswered_deregistration_ends_with_the_binding() -> None:
    machine = registered()
    machine.deregister(10.0)
    assert [time for time, _ in sending_times(machine, 1000.0)] == [11.0, 13.0, 17.0, 25.0, 41.0]
    assert machine.state is State.IDLE
    assert not machine.may_be_bound


def test_without_a_link_nothing_is_sent_but_the_binding_ends_in_time() -> None:
    machine = registered()
    machine.suspend()
    assert machine.next_deadline() == 60.0
    assert not updates(machine.on_timer(60.0))
    assert machine.next_deadline() is None
