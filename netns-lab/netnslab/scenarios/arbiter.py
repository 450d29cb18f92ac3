"""Scenario ``arbiter``: three members take terms from a real etcd, the active one is cut off from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..mobility_network import HOME_AGENT
from ..packets import IPV6_IN_IPV6, address, outer
from ..probes import Phase
from ..redundant_network import ETCD_URL, SetParameters, member_name, redundant_topology
from ..redundant_set import TOOLS, RedundantSet
from ..roles import SERVING
from ..scenario import Check, Outcome, Run, Scenario
from ..set_checks import begin, common_checks, one_server
from ..set_record import SetRecord, milliseconds

__all__ = ["ARBITER", "Cut", "examine"]

LEASE = 2
LIFETIME = 8
DWELL = 1.5
# Seconds beyond the lease until another one serves: etcd looks for expired leases twice a second.
PATIENCE = 2.0
READY_LIMIT = 20.0

STEPS = (
    "network, captures, routers",
    "etcd",
    "home agents",
    "register",
    "traffic",
    "cut the active member off from its peers and etcd",
    "traffic through another one",
    "heal",
    "stop",
    "examine",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """Who was cut off and who served next; when the cut was made and healed, in monotonic seconds."""

    first: int
    cut: float
    healed: float
    next_active: int


def _start_etcd(run: Run) -> None:
    local = "http://[::1]:2380"
    argv = ["etcd", "--name", "lab", "--data-dir", run.work / "etcd"]
    argv += ["--listen-client-urls", ETCD_URL, "--advertise-client-urls", ETCD_URL]
    argv += ["--listen-peer-urls", local, "--initial-advertise-peer-urls", local]
    argv += ["--initial-cluster", f"lab={local}"]
    running = run.processes.start("etcd", argv, run.network.namespace("etcd"))
    running.wait_for_text("ready to serve client requests", READY_LIMIT)
    run.timeline.add("etcd_up", shutil.which("etcd") or "")


def _perform(run: Run) -> Callable[[], Outcome]:
    # So that the binding does not expire while nobody serves.
    parameters = SetParameters(
        members=3, contexts=run.options.contexts, lease_s=LEASE, binding_lifetime=LIFETIME
    )
    shared = RedundantSet.prepare(run, parameters)
    steps = iter(STEPS)
    run.step(next(steps))
    shared.open_network()
    run.step(next(steps))
    _start_etcd(run)
    run.step(next(steps))
    shared.start_members()
    run.step(next(steps))
    shared.register()
    shared.load_fleet()
    run.step(next(steps))
    shared.start_probes()
    shared.pause(DWELL)
    run.step(next(steps))
    # Usually member 1; a busy machine may have caused a take-over.
    first = shared.wait_for_any(shared.members, "active")
    sync = (member_name(first), "eth1")
    cut = shared.cut_unseen(*sync)
    shared.pause(LEASE + DWELL)
    active = shared.wait_for_any(set(shared.members) - {first}, "active")
    shared.shown["cut off"] = shared.members[first].ask("status")
    run.step(next(steps))
    shared.wait_acknowledged(cut)
    shared.pause(DWELL)
    run.step(next(steps))
    healed = shared.heal_unseen(*sync, "sync")
    shared.wait_synchronized(active)
    shared.pause(DWELL)
    run.step(next(steps))
    shared.silence()
    shared.finish()
    return partial(examine, SetRecord(shared.recording()), Cut(first, cut, healed, active))


def examine(record: SetRecord, story: Cut) -> Outcome:
    """Figures, checks, and what the report draws."""
    outcome = begin(record)
    cut, healed, active = story.cut, story.healed, story.next_active
    mac = record.mac(story.first)
    # Only what left through the tunnel shows that it served: its kernel forwards other packets as any router.
    sent = [
        record.monotonic(each.time)
        for each in record.frames["home"]
        if each.sender == mac
        and outer(each.packet).protocol == IPV6_IN_IPV6
        and each.source == address(HOME_AGENT)
    ]
    last = max((at for at in sent if at < healed), default=cut)
    first = record.payload_from(active, cut)
    lease_lost = record.logged("lease_lost", cut, member=story.first)
    _, gap = record.longest_gap(cut, healed)
    # Each new term after the cut is somebody's who serves.
    terms = {span.term for span in record.roles if span.role == "active" and span.end > cut}
    outcome.outages = (Phase("cut off", gap.start, gap.end),)
    role = record.set.shown["cut off"]["role"]
    late = sum(at > healed for at in sent)
    limit = (LEASE + PATIENCE) * 1000
    outcome.figures = {
        "lease_s": LEASE,
        "stopped_after_ms": milliseconds(last - cut),
        "lease_lost_ms": milliseconds(lease_lost[0] - cut) if lease_lost else None,
        "next_served_after_ms": milliseconds(None if first is None else first - cut),
        "outage_ms": milliseconds(gap.length),
        "next_active": f"ha{active}",
    } | outcome.figures
    outcome.checks = [
        Check(
            "cut off: stopped serving within its lease, ms",
            0 <= last - cut <= LEASE,
            milliseconds(last - cut),
            f"at most {LEASE * 1000}",
        ),
        Check("cut off: its role after the lease", role not in SERVING, role, "not active"),
        Check(
            "another one served after it had stopped, ms",
            first is not None and last < first and (first - cut) * 1000 <= limit,
            milliseconds(None if first is None else first - last),
            f"above 0, {limit:g} after the cut",
        ),
        Check("served again after healing, without being asked", late == 0, late, 0),
        Check("terms served since the cut", len(terms) == 2, len(terms), 2),
        one_server(record),
        *common_checks(record, outcome),
    ]
    return outcome


ARBITER = Scenario(
    name="arbiter",
    description=(
        "Three home agents take their terms from an etcd. The active one is cut off from the others and from "
        "etcd, but not from the home link: it stops serving within its lease, another one goes on."
    ),
    topology=redundant_topology(3, etcd=True),
    steps=STEPS,
    perform=_perform,
    tools=TOOLS | {"etcd": "etcd-server"},
)
