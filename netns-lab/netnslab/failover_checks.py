"""What a recording of the scenario ``failover`` shows, and the limits that it is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .probes import Gap, Phase
from .scenario import Check, Outcome
from .set_checks import acknowledged_checks, begin, common_checks, one_server
from .set_record import SetRecord, milliseconds

__all__ = ["Failover", "Takeover", "examine", "takeover"]

EDGE = 0.05
WATCHED = 3.0


@dataclass(frozen=True, slots=True)
class Failover:
    """The story of a run, monotonic seconds. `last` and `refresh` are the acknowledgements around the fault,
    `healed` when the cables were put back.
    """

    fault: float
    last: dict[str, Any]
    refresh: dict[str, Any]
    healed: float | None
    new_active: int
    rekeyed: float | None = None
    """When SPIs began to change, as they are meant to."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """What a fault costs until the standby serves: when it decided, when it sent payload, the longest gap of
    the probes in the worse direction.
    """

    fault: float
    decided: float | None
    service: float | None
    direction: str
    gap: Gap

    def figures(self) -> dict[str, Any]:
        """As they are in the JSON output."""
        decided, service = self.decided, self.service
        return {
            "detect_ms": milliseconds(None if decided is None else decided - self.fault),
            "takeover_ms": milliseconds(None if service is None or decided is None else service - decided),
            "outage_ms": milliseconds(self.gap.length),
            "outage_direction": self.direction,
            "outage_after_fault_ms": milliseconds(self.gap.end - self.fault),
        }


def takeover(record: SetRecord, fault: float, new_active: int) -> Takeover:
    """How the set got over a fault."""
    decision = record.logged("member_failed", fault, member=new_active)
    decided = decision[0] if decision else None
    service = None if decided is None else record.payload_from(new_active, fault)
    direction, gap = record.longest_gap(fault, min(fault + WATCHED, record.set.silent))
    return Takeover(fault, decided, service, direction, gap)


def examine(record: SetRecord, story: Failover, name: str) -> Outcome:
    """Figures, checks, and what the report draws."""
    outcome = begin(record)
    fault, silent = story.fault, record.set.silent
    took = takeover(record, fault, story.new_active)
    service, gap = took.service, took.gap
    outcome.outages = (Phase(f"{name} takes over", gap.start, gap.end),)
    replayed = record.set.shown["replay"]
    unasked = record.unasked(fault)
    refresh = story.refresh
    before = record.spis(record.set.started - WATCHED, fault)
    after = record.spis(fault + EDGE, story.rekeyed or silent + WATCHED)
    known = {int(each["spi"], 16) for each in record.set.shown["sas after the fault"]} & record.mobile_spis
    unchanged = before == after == record.mobile_spis == known
    # A packet that is accepted is one that was not refused as a replay.
    accepted = replayed["sent"] - replayed["refused"]
    present = [each["sequence"] for each in replayed["bindings"] if each["name"] == "mn1"]
    figures = {
        "fault": record.options.fault,
        **took.figures(),
        "killed_after_acknowledgement_ms": milliseconds(fault - story.last["monotonic"]),
        "takeovers_before_the_fault": sum(
            span.role == "active" and span.start < fault for span in outcome.roles
        )
        - 1,
        "messages_to_mobile_node": len(unasked),
        "spis_unchanged": unchanged,
        "replays_sent": replayed["sent"],
        "replays_accepted": accepted,
        "refresh_status": refresh["status"],
        "refresh_attempt": refresh["attempt"],
        "last_acknowledged_binding_present": present == [story.last["sequence"]],
    }
    if story.healed is not None:
        until = min(story.healed + WATCHED, silent)
        _, second = record.longest_gap(story.healed, until, began_before=False)
        figures["outage_after_healing_ms"] = milliseconds(second.length)
        if silent > story.healed:
            outcome.outages += (Phase("healed", second.start, second.end),)
    outcome.figures = figures | outcome.figures
    limit = record.options.pace.outage_limit_ms + (10.0 if record.set.parameters.contexts > 1 else 0.0)
    outcome.checks = [
        Check(
            "outage, longest gap of both directions, ms",
            gap.length * 1000 <= limit,
            figures["outage_ms"],
            f"at most {limit:g}",
        ),
        Check("standby decided and served", service is not None, figures["takeover_ms"], "measured"),
        Check("messages to the mobile node", not unasked, len(unasked), 0),
        Check("SPIs unchanged", unchanged, sorted(map(hex, after)), sorted(map(hex, record.mobile_spis))),
        Check(
            f"replays accepted, of {replayed['sent']}",
            accepted == 0 < replayed["sent"] and not replayed["changed"],
            accepted,
            0,
        ),
        Check(
            "next refresh: status, attempt",
            (refresh["status"], refresh["attempt"]) == (0, 1),
            [refresh["status"], refresh["attempt"]],
            [0, 1],
        ),
        *acknowledged_checks(record, replayed["bindings"], "after the fault", story.last["sequence"]),
        one_server(record),
        *common_checks(record, outcome),
    ]
    return outcome
