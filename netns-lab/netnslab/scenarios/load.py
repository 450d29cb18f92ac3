"""Scenario ``load``: many mobile nodes register, refresh, move and de-register as fast as they are answered.

Covered: rates, what is asked of the kernel for it, a burst, duplicate address detection for all at once, and
that nothing is left behind. Not covered: payload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..daemons import HomeAgentDaemon
from ..fleet import Fleet
from ..load_network import LOAD_TOPOLOGY, LoadKeys, write_fleet, write_home_agent
from ..scenario import Check, Outcome, Run, Scenario
from ..state import network_state

__all__ = ["LOAD", "Load", "examine"]

MOBILE_NODES = 1000
FLEET_LIMIT = 120.0
FIRST_LEAST, REFRESHES_LEAST = 300.0, 800.0
DETECTION_LIMIT = 5.0
# Seconds between phases, so that what one leaves to be done does not count for the next.
REST = "0.3"
COUNTED = "netlink_messages"
# What a run of the fleet goes through before the phase that counts are refreshes, if it is registered.
REGISTER = ("--refreshes", "0", "--moves", "0", "--keep")
REFRESH = ("--refreshes", "1", "--moves", "0", "--keep")
MOVE = ("--refreshes", "0", "--moves", "1", "--keep")
DEREGISTER = ("--refreshes", "0", "--moves", "0")

STEPS = (
    "network",
    "home agent, virtual home link",
    "first registrations",
    "refreshes",
    "moves",
    "de-registrations",
    "stop: is anything left?",
    "a burst",
    "duplicate address detection",
    "stop",
    "examine",
)


@dataclass(slots=True)
class Load:
    """What the phases came to, by the scenario's name for each: the fleet's reports, and how many netlink
    messages the home agent sent meanwhile, if it counts them. The rest is by home agent.
    """

    mobile_nodes: int
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, int | None] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    left_behind: dict[str, list[str]] = field(default_factory=dict)
    exit_status: dict[str, int] = field(default_factory=dict)


class _Stage:
    """One home agent after the other, and a fleet, each of whose phases is a run of its program."""

    def __init__(self, run: Run, load: Load) -> None:
        self._run = run
        self._load = load
        keys = LoadKeys()
        for stem in ("ha", "fleet"):
            keys.write(run.report, stem)
        configuration = write_fleet(run.report, run.work, load.mobile_nodes)
        namespace = run.network.namespace("fleet")
        self._fleet = Fleet(run.processes, namespace, configuration, run.report, FLEET_LIMIT)
        self._before: set[str] = set()

    def start(self, name: str, home_link: str | None = None) -> HomeAgentDaemon:
        run, count = self._run, self._load.mobile_nodes
        configuration, control_socket = write_home_agent(
            run.report, run.work, count, dataplane=run.options.dataplane, home_link=home_link
        )
        self._before = network_state(run.network, "ha")
        agent = HomeAgentDaemon(configuration, control_socket, name)
        agent.start(run.processes, run.network, "ha")
        run.timeline.add("home_agent_up", name)
        return agent

    def stop(self, agent: HomeAgentDaemon) -> None:
        self._load.counters[agent.name] = agent.ask("counters")
        self._load.exit_status[agent.name] = agent.stop()
        left = self._before ^ network_state(self._run.network, "ha")
        self._load.left_behind[agent.name] = sorted(left)
        self._run.timeline.add("home_agent_stopped", agent.name)

    def phase(self, agent: HomeAgentDaemon, name: str, *options: str) -> None:
        before = agent.ask("counters").get(COUNTED, 0)
        report = self._fleet.run("--pause", REST, *options)[-1]
        after = agent.ask("counters").get(COUNTED)
        self._load.reports[name] = report
        self._load.messages[name] = None if after is None else after - before
        said = (
            f"{report['accepted']} accepted, {report['unanswered']} unanswered, {report['per_second']} per s"
        )
        self._run.timeline.add(name, said)


def _perform(run: Run) -> Callable[[], Outcome]:
    load = Load(run.options.contexts if run.options.contexts > 1 else MOBILE_NODES)
    steps = iter(STEPS)
    run.step(next(steps))
    stage = _Stage(run, load)
    run.step(next(steps))
    agent = stage.start("ha")
    phases = {"first": REGISTER, "refresh": REFRESH, "move": MOVE, "deregistration": DEREGISTER}
    for name, options in phases.items():
        run.step(next(steps))
        stage.phase(agent, name, *options)
    run.step(next(steps))
    stage.stop(agent)
    run.step(next(steps))
    agent = stage.start("ha-burst")
    stage.phase(agent, "burst", "--burst", *REGISTER)
    stage.stop(agent)
    run.step(next(steps))
    agent = stage.start("ha-on-a-link", "eth1")
    stage.phase(agent, "detection", "--burst", *REGISTER)
    run.step(next(steps))
    stage.stop(agent)
    return partial(examine, load)


def _per_mobile_node(messages: int | None, mobile_nodes: int) -> float | None:
    return None if messages is None else round(messages / mobile_nodes, 3)


def examine(load: Load) -> Outcome:
    """Figures and checks."""
    reports, count = load.reports, load.mobile_nodes
    unanswered = sum(report["unanswered"] for report in reports.values())
    first, refreshes = reports["first"]["per_second"], reports["refresh"]["per_second"]
    detected = reports["detection"]["seconds"]
    messages = {name: _per_mobile_node(load.messages[name], count) for name in ("first", "refresh", "move")}
    refused = {name: each["accepted"] for name, each in reports.items() if each["accepted"] != count}
    failed = {name: status for name, status in load.exit_status.items() if status}
    figures: dict[str, Any] = {
        "mobile_nodes": count,
        "first_registrations_per_s": first,
        "refreshes_per_s": refreshes,
        "moves_per_s": reports["move"]["per_second"],
        "deregistrations_per_s": reports["deregistration"]["per_second"],
        "burst_per_s": reports["burst"]["per_second"],
        "detection_s": detected,
        "unanswered": unanswered,
        "netlink_messages": messages,
        "phases": reports,
        "counters": load.counters,
    }
    limit = round(DETECTION_LIMIT * max(1.0, count / MOBILE_NODES), 1)
    checks = [
        Check("first registrations per second", first >= FIRST_LEAST, first, f"at least {FIRST_LEAST:g}"),
        Check(
            "refreshes per second", refreshes >= REFRESHES_LEAST, refreshes, f"at least {REFRESHES_LEAST:g}"
        ),
        Check("unanswered", unanswered == 0, unanswered, 0),
        Check(f"phases without {count} accepted", not refused, refused, {}),
        Check("all registered after DAD, s", detected <= limit, detected, f"at most {limit:g}"),
        Check("netlink messages of refreshes", messages["refresh"] in (None, 0), messages["refresh"], 0),
        Check("exit status of the home agents", not failed, failed, {}),
        *(
            Check(f"left behind by {name}", not lines, lines[:20], [])
            for name, lines in load.left_behind.items()
        ),
    ]
    return Outcome(figures, checks)


LOAD = Scenario(
    name="load",
    description=(
        "1,000 mobile nodes register, refresh, move and de-register with a home agent on a virtual home "
        "link, as fast as they are answered; then they all come at once; then with duplicate address "
        "detection. Nothing is left in the kernel."
    ),
    topology=LOAD_TOPOLOGY,
    steps=STEPS,
    perform=_perform,
)
