"""What a recording of the scenario ``ike-failover`` shows beside that of ``failover``."""

from __future__ import annotations

from typing import Any

from .failover_checks import Failover, examine
from .ike_record import CREATE_CHILD_SA, IkeRecord, by_exchange
from .redundant_set import SetRecording
from .scenario import Check, Outcome

__all__ = ["examine_negotiated"]


def examine_negotiated(
    recording: SetRecording, story: Failover, name: str, rekeyed: dict[str, Any]
) -> Outcome:
    """As ``failover``; `rekeyed` is the mobile node's event about the child in place of the first one."""
    installed = [event for event in recording.events if event["event"] == "child_installed"]
    spis = {int(event[way], 16) for event in installed for way in ("spi_in", "spi_out")}
    first = {int(installed[0][way], 16) for way in ("spi_in", "spi_out")}
    record = IkeRecord(recording, first, set(), (story.fault, story.refresh["monotonic"]))
    outcome = examine(record, story, name)
    after = record.ike_between(story.fault, float("inf"))
    last = record.acknowledged()[-1]
    outcome.figures |= {
        "ike_messages_after_the_fault": by_exchange(after),
        "child_rekeyed_after_fault_s": round(rekeyed["monotonic"] - story.fault, 3),
    }
    outcome.checks += [
        *record.ike_checks(),
        *rekey_checks(record, recording.events, rekeyed, last, len(spis)),
    ]
    return outcome


def rekey_checks(
    record: IkeRecord,
    events: list[dict[str, Any]],
    rekeyed: dict[str, Any],
    last: dict[str, Any],
    spis: int,
) -> list[Check]:
    """That the mobile node re-keyed its child with the new active member, under the IKE SA that it had."""
    established = sum(event["event"] == "ike_established" for event in events)
    closed = sum(event["event"] == "ike_closed" for event in events)
    messages = record.ike_between(record.quiet[1], float("inf"))
    own = [each for each in messages if each.exchange == CREATE_CHILD_SA]
    same = {each.spi for each in messages} == {each.spi for each in record.ike[:1]}
    return [
        Check("child re-keyed, messages of CREATE_CHILD_SA", len(own) == 2, len(own), 2),
        Check("SPIs of the mobile node in all", spis == 4, spis, 4),
        Check("the IKE SA is the same", same and bool(messages), same, True),
        Check(
            "status of a refresh under the new child",
            last["monotonic"] > rekeyed["monotonic"] and last["status"] == 0,
            last["status"],
            0,
        ),
        Check("IKE SAs established", established == 1, established, 1),
        Check("IKE SAs closed before the end", closed == 0, closed, 0),
    ]
