"""A fleet of mobile nodes on a TUN: one loop that writes Binding Updates and reads their answers.

Covered: the device, the route of the care-of prefix to it, phases with window and rate. Not covered: what the
packets are (``mobile.fleet``). There is no reactor: nothing else happens in this process.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from pyroute2 import IPRoute

from ..ipsec.algorithms import Keys
from ..mobile.fleet import Fleet, Phase, PhaseReport
from ..mobile_config import LoadConfiguration
from ..tables import derived_keys
from .mobile_network import PROTOCOL
from .storage import StateDirectory
from .sysctl import Switches
from .tun import Tun

__all__ = ["LoadPlan", "run"]

_MTU = 1500
# Between looks at the answers; a burst is no longer than the device's queue that way.
_CHUNK = 64
_LONGEST_WAIT = 0.1

Progress = Callable[[PhaseReport], None]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do: ``window`` updates may be outstanding, ``rate`` per second may begin (``None``: any).

    ``pause`` is what the fleet waits between phases, in seconds.
    """

    phases: tuple[Phase, ...]
    window: int
    rate: float | None = None
    pause: float = 0.0


class _Stopped(Exception):
    """SIGTERM or SIGINT came."""


def run(configuration: LoadConfiguration, plan: LoadPlan, progress: Progress) -> Iterator[PhaseReport]:
    """Run the phases; each report when it is complete, the last one early if a signal ends the run."""
    with ExitStack() as stack:
        state = StateDirectory(configuration.state_dir)
        stack.callback(state.close)
        fleet = _fleet(configuration, state.sequence_floor())
        state.reserve_sequences(fleet.reserved)
        counters: Counter[str] = Counter()
        tun = Tun(configuration.tun_name, _MTU, counters)
        stack.callback(tun.close)
        switches = Switches(configuration.state_dir / "switches.json")
        stack.callback(switches.restore)
        switches.enable_forwarding()
        with IPRoute() as kernel:
            kernel.route(
                "replace",
                family=socket.AF_INET6,
                dst=configuration.care_of_prefix_text,
                oif=tun.interface,
                proto=PROTOCOL,
            )
        stack.enter_context(_signals())
        gc.collect()
        gc.freeze()
        for position, phase in enumerate(plan.phases):
            if position:
                time.sleep(plan.pause)
            report = fleet.begin(phase, time.monotonic())
            try:
                _loop(fleet, tun, plan, report, progress)
            except _Stopped:
                yield report
                return
            report.dropped.update(counters)
            counters.clear()
            yield report


def _fleet(configuration: LoadConfiguration, floor: int) -> Fleet:
    first = int.from_bytes(configuration.first_home_address, "big")
    return Fleet(
        home_agent=configuration.home_agent,
        home_addresses=((first + index).to_bytes(16, "big") for index in range(configuration.count)),
        care_of_prefix=configuration.care_of_prefix,
        first_spi=configuration.first_spi,
        protection=configuration.protection,
        keys=partial(_keys, configuration),
        random=os.urandom,
        lifetime=configuration.lifetime,
        esn=configuration.esn,
        sequence_floor=floor,
    )


def _keys(configuration: LoadConfiguration, home_address: bytes, spi: int) -> Keys:
    return derived_keys(configuration.secret, home_address, spi, configuration.protection)


@contextmanager
def _signals() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Stopped

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, action in former.items():
            signal.signal(number, action)


def _loop(fleet: Fleet, tun: Tun, plan: LoadPlan, report: PhaseReport, progress: Progress) -> None:
    poll = select.poll()
    poll.register(tun.fileno(), select.POLLIN)
    clock, write = time.monotonic, tun.write
    shown = clock()
    while not fleet.finished:
        now = clock()
        for packet in fleet.fill(_allowed(fleet, plan, report, now), now):
            write(packet)
        _drain(fleet, tun)
        deadline = fleet.next_deadline()
        if deadline is not None and deadline <= (now := clock()):
            for packet in fleet.on_timer(now):
                write(packet)
        if now - shown >= _LONGEST_WAIT:
            shown = now
            progress(report)
        if not fleet.finished and not _allowed(fleet, plan, report, now):
            poll.poll(_wait(plan, deadline, now) * 1000)
    progress(report)


def _allowed(fleet: Fleet, plan: LoadPlan, report: PhaseReport, now: float) -> int:
    """How many updates may begin now."""
    begun = report.settled + fleet.outstanding
    count = min(_CHUNK, plan.window - fleet.outstanding, report.count - begun)
    if plan.rate is not None:
        count = min(count, int((now - report.began) * plan.rate) + 1 - begun)
    return max(count, 0)


def _wait(plan: LoadPlan, deadline: float | None, now: float) -> float:
    wait = _LONGEST_WAIT if deadline is None else min(_LONGEST_WAIT, max(deadline - now, 0.0))
    return wait if plan.rate is None else min(wait, 1 / plan.rate)


def _drain(fleet: Fleet, tun: Tun) -> None:
    """Take the answers that are there, a bounded number so that new updates get their turn."""
    for _ in range(2 * _CHUNK):
        packet = tun.read()
        if packet is None:
            return
        for answer in fleet.receive(packet, time.monotonic()):
            tun.write(answer)
