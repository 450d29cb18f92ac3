"""What every scenario with a redundant set reports and is held against.

Covered: sequence numbers and nonces, terms, IKE, decrypted signalling, clean ends, losses. Not covered:
outages and what else depends on the scenario.
"""

from __future__ import annotations

from typing import Any

from .roles import SERVING, servers_at, terms_served
from .scenario import Check, Outcome
from .set_record import SetRecord, lost, milliseconds

__all__ = ["acknowledged_checks", "begin", "common_checks", "one_server"]


def begin(record: SetRecord) -> Outcome:
    """The figures that all scenarios have, and what the report draws."""
    parameters = record.set.parameters
    repeated = record.reuse()
    figures: dict[str, Any] = {
        "members": parameters.members,
        "contexts": parameters.contexts,
        "hello_interval_ms": parameters.hello_interval_ms,
        "failure_factor": parameters.failure_factor,
        "realtime": parameters.realtime,
        "probe_interval_ms": record.options.pace.probe_interval * 1000,
        "lost_packets": lost(record.streams),
        "lost_packets_by_direction": {each.name: len(each.lost) for each in record.streams},
        "sent_packets": {each.name: len(each.samples) for each in record.streams},
        "duplicates": {each.name: each.duplicates for each in record.streams},
        "sender_pause_ms": {each.name: milliseconds(each.sender_pause()) for each in record.streams},
        "latency": {each.name: each.latency_summary() for each in record.streams},
        "ike_messages": record.ike_messages(),
        "sequence_reuse": sum(each.total for each in repeated.values()),
        "esp_packets": {name: each.packets for name, each in repeated.items()},
        "terms": [
            {"term": term, "members": sorted(members)}
            for term, members in sorted(terms_served(record.hellos).items())
        ],
        "refreshes": [
            {"sequence": each["sequence"], "status": each["status"], "attempt": each["attempt"]}
            for each in record.acknowledged()
        ],
        "counters": {
            name.removesuffix(" counters"): shown
            for name, shown in record.set.shown.items()
            if name.endswith(" counters")
        },
    }
    return Outcome(figures, streams=record.streams, roles=tuple(record.roles))


def common_checks(record: SetRecord, outcome: Outcome) -> list[Check]:
    """What must hold whatever happens to a set."""
    figures, shared = outcome.figures, record.set
    packets = figures["esp_packets"]
    closed = sum(not frame.opened for frame in record.signalling if frame.spi is not None)
    clear = sum(frame.spi is None for frame in record.signalling)
    some = len(record.signalling)
    twice = [each for each in figures["terms"] if len(each["members"]) > 1]
    refused = [each for each in figures["refreshes"] if each["status"]]
    rewound = [event for event in record.events if event["event"] == "sequence_out_of_window"]
    failed = {name: status for name, status in shared.exit_status.items() if status}
    faults = {
        name: counters["internal_error"]
        for name, counters in figures["counters"].items()
        if counters.get("internal_error")
    }
    return [
        Check(
            f"sequence numbers and nonces used twice, of {sum(packets.values())} ESP packets",
            figures["sequence_reuse"] == 0 < min(packets.values()),
            figures["sequence_reuse"],
            0,
        ),
        Check("IKE messages", figures["ike_messages"] == 0, figures["ike_messages"], 0),
        Check(f"terms with two active members, of {len(figures['terms'])}", not twice, twice, []),
        Check("registrations refused", not refused and not rewound, [*refused, *rewound], []),
        Check(f"tshark: ESP not decrypted, of {some}", closed == 0 < some, closed, 0),
        Check(f"tshark: signalling without ESP, of {some}", clear == 0, clear, 0),
        Check("faults of the programs", not faults, faults, {}),
        Check("exit status of the daemons", not failed, failed, {}),
        *(
            Check(f"left behind in namespace {node}", not lines, lines, [])
            for node, lines in shared.left_behind.items()
        ),
        Check("packets lost by the captures", not any(shared.dropped.values()), shared.dropped, "all 0"),
    ]


def one_server(record: SetRecord) -> Check:
    """At the end exactly one member serves, as its own status says and as the logs say."""
    statuses = {
        name.removesuffix(" status"): shown["role"]
        for name, shown in record.set.shown.items()
        if name.endswith(" status")
    }
    by_log = [span.member for span in servers_at(record.roles, record.set.silent - 1e-3)]
    serving = [name for name, role in statuses.items() if role in SERVING]
    # Not necessarily the same: a busy machine may cause a take-over in between.
    return Check("one active member at the end", len(serving) == len(by_log) == 1, statuses, "one")


def acknowledged_checks(
    record: SetRecord, bindings: list[dict[str, Any]], when: str, last: int
) -> list[Check]:
    """The mobile node's binding is there with the last sequence number that it had acknowledged, and so is
    everybody else's.
    """
    own = [each for each in bindings if each["name"] == "mn1"]
    found = own[0]["sequence"] if own else None
    contexts = record.set.parameters.contexts
    return [
        Check(f"last acknowledged binding, {when}", found == last, found, last),
        Check(f"bindings, {when}", len(bindings) == contexts, len(bindings), contexts),
    ]
