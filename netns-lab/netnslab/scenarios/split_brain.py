"""Scenario ``split-brain``: the members cannot hear each other, both serve, and then they meet again.

The home link leads to one member at a time, because both use one MAC address; the lab pins that address to a
port, so that registrations come to either side: first to the new one, last to the old one. Payload is in ESP
too, so that both members use sequence numbers under the same keys all the while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..probes import Phase
from ..redundant_network import VIRTUAL_MAC, SetParameters, member_name, redundant_topology
from ..redundant_set import TOOLS, RedundantSet
from ..scenario import Check, Outcome, Run, Scenario
from ..set_checks import acknowledged_checks, begin, common_checks, one_server
from ..set_record import SetRecord, milliseconds
from ..topology import SWITCH, port_name

__all__ = ["SPLIT_BRAIN", "Split", "examine"]

DWELL = 1.0
UNPLUGGED = 0.05
EDGE = 0.05
STEPS = (
    "network, captures, routers",
    "home agents",
    "register",
    "traffic",
    "cut the link between the members",
    "move, registered by the new active member",
    "move back, registered by the old one",
    "heal",
    "next refresh",
    "stop",
    "examine",
)


@dataclass(frozen=True, slots=True)
class Split:
    """Who served before; when the members were parted and met again, in monotonic seconds; what the mobile
    node was answered in between, by the new active member and by the old one.
    """

    first: int
    cut: float
    healed: float
    there: dict[str, Any]
    back: dict[str, Any]


def _lead(run: Run, member: int) -> None:
    """Pin the set's MAC address to a member's port of the home link, whoever says otherwise (sticky)."""
    pin = ("bridge", "fdb", "replace", VIRTUAL_MAC, "dev", port_name(member_name(member), "eth0"), "master")
    run.network.execute(SWITCH, *pin, "static", "sticky")
    run.timeline.add("home_link_leads", f"to {member_name(member)}")


def _let_learn(run: Run, member: int) -> None:
    """Let the switch learn again where the MAC address is."""
    port = port_name(member_name(member), "eth0")
    run.network.execute(SWITCH, "bridge", "fdb", "del", VIRTUAL_MAC, "dev", port, "master")
    run.timeline.add("home_link_learns")


def _move(shared: RedundantSet, link: str) -> dict[str, Any]:
    down = shared.run.network.detach("mn", "eth0")
    shared.run.timeline.add("carrier_down", "cable out", at=down)
    shared.pause(UNPLUGGED)
    return shared.plug(link)


def _perform(run: Run) -> Callable[[], Outcome]:
    shared = RedundantSet.prepare(run, SetParameters(contexts=run.options.contexts), ("binding", "payload"))
    steps = iter(STEPS)
    run.step(next(steps))
    shared.open_network()
    run.step(next(steps))
    shared.start_members()
    run.step(next(steps))
    shared.register()
    shared.load_fleet()
    run.step(next(steps))
    shared.start_probes()
    shared.pause(DWELL)

    run.step(next(steps))
    # Usually member 1 serves first; a busy machine may have caused a take-over.
    first = shared.wait_for_any(shared.members, "active")
    second = 3 - first
    sync = (member_name(second), "eth1")
    cut = shared.cut_unseen(*sync)
    shared.wait_for_role(second, "active")
    shared.shown["both"] = {
        member_name(each): shared.members[each].ask("status")["role"] for each in shared.members
    }
    run.step(next(steps))
    _lead(run, second)
    shared.pause(DWELL)
    there = _move(shared, "foreign2")
    shared.pause(DWELL)
    run.step(next(steps))
    _lead(run, first)
    back = _move(shared, "foreign1")
    shared.pause(DWELL)

    run.step(next(steps))
    healed = shared.heal_unseen(*sync, "sync")
    _let_learn(run, first)
    shared.wait_for_role(first, "standby")
    shared.wait_synchronized(second)
    shared.shown["after"] = shared.members[second].ask("bindings")
    shared.shown["last"] = shared.acknowledged()[-1]["sequence"]
    run.step(next(steps))
    shared.wait_acknowledged(healed)
    shared.pause(DWELL)
    run.step(next(steps))
    shared.silence()
    shared.finish()
    return partial(examine, SetRecord(shared.recording()), Split(first, cut, healed, there, back))


def _most_arrived(counts: tuple[int, int]) -> bool:
    arrived, sent = counts
    return 2 * arrived > sent


def examine(record: SetRecord, split: Split) -> Outcome:
    """Figures, checks, and what the report draws."""
    cut, healed = split.cut, split.healed
    old, new = member_name(split.first), member_name(3 - split.first)
    outcome = begin(record)
    shown = record.set.shown
    registered = [record.answered_by(each) for each in (split.there, split.back)]
    by_member = {
        name: sum(1 for each in record.frames["home"] if each.sender == record.mac(identity))
        for identity, name in ((1, "ha1"), (2, "ha2"))
    }
    restored = record.restored(healed)
    bare = record.payload_outside_esp()
    before = {stream.name: stream.between(record.set.started, cut - EDGE) for stream in record.streams}
    # What the mobile node refused before is the split's.
    _, gap = record.longest_gap(healed, min(healed + DWELL * 2, record.set.silent), began_before=False)
    outcome.outages = (Phase("split", cut, healed), Phase("healing", gap.start, gap.end))
    stood_down = record.logged("higher_term", healed, member=split.first)
    merged = shown[f"{new} counters"].get("contexts_merged", 0)
    outcome.figures = {
        "split_s": round(healed - cut, 3),
        "both_served": shown["both"],
        "registered_by": {"move": registered[0], "move back": registered[1]},
        "stood_down_after_healing_ms": milliseconds(stood_down[0] - healed) if stood_down else None,
        "restored_after_healing_ms": milliseconds(None if restored is None else restored - healed),
        "outage_after_healing_ms": milliseconds(gap.length),
        "payload_outside_esp": bare,
        "contexts_merged": merged,
        "frames_by_member": by_member,
    } | outcome.figures
    outcome.checks = [
        Check("before the cut: arrived, sent", all(map(_most_arrived, before.values())), before, "most"),
        Check("payload restored after healing", restored is not None, restored is not None, True),
        Check("payload outside ESP", bare == 0, bare, 0),
        Check(
            "both served while they were apart",
            set(shown["both"].values()) == {"active"},
            shown["both"],
            "active",
        ),
        Check("move registered by the new active member", registered[0] == new, registered[0], new),
        Check("move back registered by the old one", registered[1] == old, registered[1], old),
        Check("contexts handed over by the loser", merged > 0, merged, "at least 1"),
        Check("the old one stood down after healing", stood_down is not None, stood_down is not None, True),
        *acknowledged_checks(record, shown["after"], "after healing", shown["last"]),
        one_server(record),
        *common_checks(record, outcome),
    ]
    return outcome


SPLIT_BRAIN = Scenario(
    name="split-brain",
    description=(
        "The link between two home agents is cut while both live: both serve, and the mobile node registers "
        "with the one and then with the other. After healing one of them serves, with the last registration "
        "that either acknowledged, and no sequence number or nonce was used twice."
    ),
    topology=redundant_topology(2),
    steps=STEPS,
    perform=_perform,
    tools=TOOLS | {"bridge": "iproute2"},
)
