"""Scenario ``switchover``: an operator lets the standby become active, and back, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..probes import Phase
from ..redundant_network import SetParameters, redundant_topology
from ..redundant_set import TOOLS, RedundantSet, Took
from ..scenario import Check, Outcome, Run, Scenario
from ..set_checks import begin, common_checks, one_server
from ..set_record import SetRecord, lost, milliseconds

__all__ = ["SWITCHOVER", "examine"]

DWELL = 1.5
EDGE = 0.05

STEPS = (
    "network, captures, routers",
    "home agents",
    "register",
    "register the fleet",
    "traffic",
    "switchover: the standby becomes active",
    "switchback: the active member gives its place back",
    "stop",
    "examine",
)


def _perform(run: Run) -> Callable[[], Outcome]:
    shared = RedundantSet.prepare(run, SetParameters(contexts=run.options.contexts))
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
    run.step(next(steps))
    # Usually member 1 serves first; a busy machine may have caused a take-over.
    first = shared.wait_settled()
    second = 3 - first
    there = shared.command(second, "switchover")
    shared.wait_for_role(first, "standby")
    shared.wait_synchronized(second)
    shared.pause(DWELL)
    run.step(next(steps))
    back = shared.command(second, "switchback", "--to", str(first))
    shared.wait_for_role(second, "standby")
    shared.wait_synchronized(first)
    # Also the first refresh after it.
    shared.wait_acknowledged(back.end)
    shared.pause(DWELL)
    run.step(next(steps))
    shared.silence()
    shared.finish()
    return partial(examine, SetRecord(shared.recording()), {second: there, first: back})


def examine(record: SetRecord, switches: dict[int, Took]) -> Outcome:
    """Figures, checks, and what the report draws. `switches` are by who became active, in order."""
    outcome = begin(record)
    figures: dict[str, Any] = {}
    # Nothing is lost, but what is under way meanwhile may be late.
    limit = record.options.pace.outage_limit_ms
    checks = []
    for name, (member, took) in zip(("switchover", "switchback"), switches.items(), strict=True):
        _, gap = record.longest_gap(took.start, took.end + EDGE)
        outcome.outages += (Phase(name, gap.start, gap.end),)
        began = record.logged("switch_begins", took.start)
        served = record.logged("active", took.start, member=member)
        figures[f"{name}_command_ms"] = milliseconds(took.end - took.start)
        figures[f"{name}_ms"] = milliseconds(served[0] - began[0]) if began and served else None
        figures[f"{name}_gap_ms"] = milliseconds(gap.length)
        late = gap.length * 1000
        checks.append(
            Check(
                f"{name}: longest gap, ms",
                late <= limit,
                round(late, 3),
                f"at most {limit:g}",
            )
        )
    began_at = min(took.start for took in switches.values())
    terms = {span.term for span in record.roles if span.role == "active" and span.end > began_at}
    every, unasked = lost(record.streams), len(record.unasked(began_at))
    outcome.figures = figures | {"messages_to_mobile_node": unasked} | outcome.figures
    outcome.checks = [
        Check(f"packets lost, of {sum(outcome.figures['sent_packets'].values())}", every == 0, every, 0),
        *checks,
        Check("messages to the mobile node", unasked == 0, unasked, 0),
        Check("terms served since then", len(terms) == 3, len(terms), 3),
        one_server(record),
        *common_checks(record, outcome),
    ]
    return outcome


SWITCHOVER = Scenario(
    name="switchover",
    description=(
        "The standby is told to become active, and then to give its place back, while correspondent and "
        "mobile node exchange a probe every millisecond in both directions."
    ),
    topology=redundant_topology(2),
    steps=STEPS,
    perform=_perform,
    tools=TOOLS,
)
