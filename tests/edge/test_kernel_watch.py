"""When the kernel is looked after: soon after a doubt, now and then without, and after faults too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from mip6ha.edge.kernel_messages import NETLINK_ROUTE
from mip6ha.edge.kernel_watch import KernelWatch
from mip6ha.edge.netlink_messages import Conversation, Message

from ..reactor import ByHand


class Reactor(ByHand):
    def run(self, seconds: float) -> None:
        """As time passes: what is due at once is done at once."""
        for _ in range(round(seconds * 100)):
            self.advance(0.01)
            self.advance(0)


class Watched:
    """Needs three steps for a comparison."""

    def __init__(self) -> None:
        self.kernel = Conversation(NETLINK_ROUTE)
        self.ports = (self.kernel.port,)
        # How long a step takes, in seconds.
        self.takes = 0.0
        self.clock: Clock | None = None
        self.suspect = False
        self.steps = self.comparisons = self.tended = self.faults = 0

    def doubt(self) -> None:
        self.suspect = True

    def concerns(self, message: Message) -> bool:
        return True

    def tend(self) -> None:
        self.tended += 1
        if self.faults:
            raise ZeroDivisionError

    def repair(self, report: Callable[[dict[str, int]], Any]) -> Iterator[None]:
        self.suspect = False
        for _ in range(3):
            self.steps += 1
            if self.clock is not None:
                self.clock.rightNow += self.takes
            yield
            if self.faults:
                self.faults -= 1
                raise ZeroDivisionError
        self.comparisons += 1
        report({"route": self.comparisons})


@pytest.fixture
def world() -> Iterator[tuple[Watched, Reactor, list[dict[str, int]], KernelWatch]]:
    watched, reactor, reports = Watched(), Reactor(), []
    watch = KernelWatch(watched, reactor, reports.append)
    yield watched, reactor, reports, watch
    watched.kernel.close()


def test_a_doubt_is_looked_into_soon_and_everything_now_and_then(world: Any) -> None:
    watched, reactor, reports, watch = world
    reactor.run(1)
    assert (watched.comparisons, watched.tended) == (0, 10)
    watched.doubt()
    reactor.run(0.2)
    assert reports == [{"route": 1}]
    reactor.run(9)
    assert len(reports) == 1
    reactor.run(1.2)
    assert len(reports) == 2
    watch.close()
    assert reactor.readers == []
    assert reactor.getDelayedCalls() == []


def test_a_comparison_takes_half_of_the_time_at_most(world: Any) -> None:
    watched, reactor, _, watch = world
    watched.clock, watched.takes = reactor, 0.5
    watched.doubt()
    reactor.advance(0.1)
    assert watched.steps == 1
    reactor.advance(0.49)
    assert watched.steps == 1
    reactor.advance(0.02)
    assert watched.steps == 2
    watch.close()


def test_after_the_end_nothing_is_looked_into(world: Any) -> None:
    watched, reactor, reports, watch = world
    watched.doubt()
    watch.close()
    reactor.run(1)
    assert (watched.steps, watched.tended, reports) == (0, 0, [])


def test_a_fault_is_tried_again(world: Any) -> None:
    watched, reactor, reports, watch = world
    watched.faults = 3
    watched.doubt()
    reactor.run(1)
    assert watched.tended == 10
    assert reports == [{"route": 1}]
    watch.close()
