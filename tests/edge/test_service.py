"""The service around a core that fails: everything goes on, nothing spins."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mip6ha.config import Configuration
from mip6ha.edge.service import HomeAgentService
from mip6ha.effects import Effect, Event
from mip6ha.lending import PayloadCounted, PayloadLost, PayloadNews


class Failing:
    """A core that is due at once and fails ``faults`` times; then it has something to say."""

    def __init__(self, faults: int) -> None:
        self.counters: Counter[str] = Counter()
        self.faults = faults
        self.calls = 0

    def next_deadline(self) -> float | None:
        return 0.0 if self.calls <= self.faults else None

    def on_timer(self, now: float) -> list[Effect]:
        self.calls += 1
        if self.calls <= self.faults:
            raise ZeroDivisionError
        return [Event("said", {})]

    def receive(self, packet: bytes, now: float) -> list[Effect]:
        raise ZeroDivisionError


class Nothing:
    """A dataplane that does nothing."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def carry_out(self, effect: Effect) -> None:
        raise AssertionError(effect)

    def flush(self) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> tuple[HomeAgentService, Clock, list[str]]:
    clock: Any = Clock()
    monkeypatch.setattr(time, "monotonic", clock.seconds)
    configuration: Any = Configuration
    made: Any = HomeAgentService(Path(), configuration, clock)
    made._dataplane = Nothing()
    made._core = Failing(2)
    made._closers.append(lambda: None)
    said: list[str] = []
    monkeypatch.setattr(made, "_log", lambda name, fields: said.append(name))
    return made, clock, said


def test_a_fault_in_the_timer_is_counted_and_tried_again(
    service: tuple[HomeAgentService, Clock, list[str]],
) -> None:
    made, clock, said = service
    made._settle()
    clock.advance(0)
    assert made._dataplane.counters == {"internal_error": 1}
    for _ in range(10):
        clock.advance(0.0005)
    assert made._dataplane.counters == {"internal_error": 1}
    clock.advance(0.01)
    assert made._dataplane.counters == {"internal_error": 2}
    assert said == []
    clock.advance(0.01)
    assert said == ["said"]


def test_a_fault_in_a_packet_leaves_the_reader_alone(
    service: tuple[HomeAgentService, Clock, list[str]],
) -> None:
    made, _, _ = service
    made._received(b"packet")
    assert made._dataplane.counters == {"internal_error": 1}


def test_what_the_kernel_says_about_payload_goes_to_the_core(
    service: tuple[HomeAgentService, Clock, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clock, said = service
    heard: list[tuple[PayloadNews, float]] = []

    def payload_news(news: PayloadNews, now: float) -> list[Effect]:
        heard.append((news, now))
        if isinstance(news, PayloadLost):
            raise ZeroDivisionError
        return [Event("counted", {})]

    core: Any = made._core
    core.payload_news = payload_news
    clock.advance(7)
    lost, counted = PayloadLost(bytes(16)), PayloadCounted(bytes(16), True, 9, 1000)
    made._payload_told([lost, counted])
    # A fault ends nothing.
    assert heard == [(lost, 7.0), (counted, 7.0)]
    assert said == ["counted"]
    assert made._dataplane.counters == {"internal_error": 1}
