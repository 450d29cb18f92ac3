"""Scenario ``restart``: each member is restarted in turn under traffic, asked to or killed, active or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..probes import Phase
from ..redundant_network import SetParameters, member_name, redundant_topology
from ..redundant_set import TOOLS, RedundantSet
from ..scenario import Check, Outcome, Run, Scenario
from ..set_checks import begin, common_checks, one_server
from ..set_record import SetRecord, milliseconds

__all__ = ["RESTART", "Restart", "examine"]

LEAST_CONTEXTS = 101
DWELL = 0.7
EDGE = 0.05
# Whose restart, and how. What an active member leaves is taken over, so both of them have their turn.
PLAN = (("active", "SIGTERM"), ("active", "SIGKILL"), ("standby", "SIGTERM"), ("standby", "SIGKILL"))

STEPS = (
    "network, captures, routers",
    "home agents",
    "register",
    "register the fleet",
    "traffic",
    *(f"{signal} of the {role} member, and its restart" for role, signal in PLAN),
    "stop",
    "examine",
)


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart: who, how, what it was, what it had when it was back. Monotonic seconds."""

    member: int
    signal: str
    was: str
    down: float
    gone: float
    back: float
    synchronized: float
    contexts: int
    bindings: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.signal} of {member_name(self.member)} ({self.was})"


def _restart(shared: RedundantSet, was: str, signal: str) -> Restart:
    active = shared.wait_settled()
    member = active if was == "active" else 3 - active
    other = 3 - member
    if signal == "SIGKILL":
        down = gone = shared.kill(member)
    else:
        took = shared.terminate(member)
        down, gone = took.start, took.end
    shared.wait_for_role(other, "active")
    shared.pause(DWELL)
    shared.start_member(member)
    back = time.monotonic()
    shared.wait_synchronized(other)
    synchronized = time.monotonic()
    status: dict[str, Any] = shared.members[member].ask("status")
    shared.pause(DWELL)
    return Restart(
        member, signal, was, down, gone, back, synchronized, status["contexts"], status["bindings"]
    )


def _perform(run: Run) -> Callable[[], Outcome]:
    contexts = run.options.contexts if run.options.contexts > 1 else LEAST_CONTEXTS
    shared = RedundantSet.prepare(run, SetParameters(contexts=contexts))
    steps = iter(STEPS)
    run.step(next(steps))
    shared.open_network()
    run.step(next(steps))
    shared.start_members()
    run.step(next(steps))
    shared.register()
    run.step(next(steps))
    shared.load_fleet()
    run.step(next(steps))
    shared.start_probes()
    shared.pause(DWELL)
    restarts = []
    for role, signal in PLAN:
        run.step(next(steps))
        restarts.append(_restart(shared, role, signal))
    run.step(next(steps))
    shared.silence()
    shared.finish()
    return partial(examine, SetRecord(shared.recording()), restarts)


def examine(record: SetRecord, restarts: list[Restart]) -> Outcome:
    """Figures, checks, and what the report draws."""
    outcome = begin(record)
    rows, checks = [], []
    contexts, limit = record.set.parameters.contexts, record.options.pace.outage_limit_ms
    for each in restarts:
        _, gap = record.longest_gap(each.down - EDGE, each.gone + DWELL)
        _, later = record.longest_gap(each.back - DWELL / 2, each.synchronized + DWELL)
        missing = [
            sum(each.down - EDGE <= sample.sent < each.synchronized for sample in stream.lost)
            for stream in record.streams
        ]
        if each.was == "active":
            outcome.outages += (Phase(each.name, gap.start, gap.end),)
        rows.append(
            {
                "restart": each.name,
                "outage_ms": milliseconds(gap.length),
                "outage_at_return_ms": milliseconds(later.length),
                "lost_packets": sum(missing),
                "resync_ms": milliseconds(each.synchronized - each.back),
                "contexts": each.contexts,
                "bindings": each.bindings,
            }
        )
        planned = each.signal == "SIGTERM" or each.was != "active"
        checks += [
            Check(
                f"{each.name}: outage, ms",
                gap.length * 1000 <= limit,
                milliseconds(gap.length),
                f"at most {limit:g}",
            ),
            *([Check(f"{each.name}: packets lost", not sum(missing), sum(missing), 0)] if planned else []),
            Check(
                f"{each.name}: contexts, bindings when it is back",
                each.contexts == each.bindings == contexts,
                [each.contexts, each.bindings],
                [contexts, contexts],
            ),
        ]
    outcome.figures = {"restarts": rows} | outcome.figures
    outcome.checks = [*checks, one_server(record), *common_checks(record, outcome)]
    return outcome


RESTART = Scenario(
    name="restart",
    description=(
        "Each of two home agents is restarted in turn, with SIGTERM and with SIGKILL, as active member and "
        "as standby, while correspondent and mobile node exchange a probe every millisecond in both "
        "directions; each comes back with all contexts."
    ),
    topology=redundant_topology(2),
    steps=STEPS,
    perform=_perform,
    tools=TOOLS,
)
