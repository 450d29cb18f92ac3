"""The checks of ``failover`` on made-up records: a good one passes, every fault fails the check about it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netnslab.dissection import Frame, HelloSeen, MobilityMessage
from netnslab.failover_checks import Failover, examine
from netnslab.packets import Reuse
from netnslab.probes import Gap, Sample, Stream, longest_gap
from netnslab.redundant_network import SetParameters
from netnslab.roles import RoleSpan
from netnslab.scenario import Options, Outcome

START, FAULT, DECISION, SERVICE, END = 10.0, 12.0, 12.025, 12.027, 16.0
SPIS = {0x2000, 0x2001}


def stream(name: str, restored: float) -> Stream:
    times = [START + number / 1000 for number in range(round((END - START) * 1000))]
    samples = tuple(Sample(n, t, None if FAULT <= t < restored else t + 0.0003) for n, t in enumerate(times))
    return Stream(name, samples, tuple(s.received for s in samples if s.received is not None), 0)


class Record:
    """What `examine` asks of a `SetRecord`; each field is one that a test may spoil."""

    def __init__(self) -> None:
        self.restored = SERVICE
        self.contexts = 1
        self.decision: float | None = DECISION
        self.after_spis = SPIS
        self.unasked_frames: list[Frame] = []
        self.replay: dict[str, Any] = {"sent": 3, "refused": 3, "changed": False}
        self.sequence_after = 7
        self.reused = Reuse(100, 0, 0)
        self.ike = 0
        self.end_roles = {"ha1": "standby", "ha2": "active"}
        self.terms = {257: "::1", 514: "::2"}
        self.internal_errors = 0
        self.exit_status = {"mn": 0}
        self.left_behind: dict[str, list[str]] = {"ha2": []}
        self.dropped = {"home": 0}
        self.status = 0
        self.events: list[dict[str, Any]] = []
        message = MobilityMessage(6, 7, 1, 0, True)
        self.signalling = [Frame(0.0, (), False, None, None, 0x2001, True, message)]
        self.mobile_spis = SPIS
        self.options = Options()

    def finish(self) -> Record:
        self.streams = (stream("cn_to_mn", self.restored), stream("mn_to_cn", self.restored))
        self.roles = [
            RoleSpan("ha1", "active", 257, START, FAULT),
            RoleSpan("ha2", "standby", 257, START, DECISION),
            RoleSpan("ha2", "active", 514, DECISION, END),
        ]
        self.hellos = [
            HelloSeen(FAULT, source, True, term, 1800)
            for term, sources in self.terms.items()
            for source in sources.split()
        ]
        binding = {"name": "mn1", "sequence": self.sequence_after}
        shown: dict[str, Any] = {
            "ha1 status": {"role": self.end_roles["ha1"]},
            "ha2 status": {"role": self.end_roles["ha2"]},
            "sas after the fault": [{"spi": hex(spi)} for spi in self.mobile_spis],
            "ha2 counters": {"internal_error": self.internal_errors},
            "replay": {**self.replay, "bindings": [binding] * self.contexts},
        }
        self.set = SimpleNamespace(
            parameters=SetParameters(contexts=self.contexts),
            shown=shown,
            started=START,
            silent=END,
            exit_status=self.exit_status,
            left_behind=self.left_behind,
            dropped=self.dropped,
        )
        return self

    def logged(self, name: str, after: float, *, member: int | None = None) -> Any:
        return None if self.decision is None else (self.decision, {})

    def payload_from(self, identity: int, after: float) -> float:
        return SERVICE

    def longest_gap(self, start: float, end: float) -> tuple[str, Gap]:
        return "cn_to_mn", longest_gap(self.streams[0].arrivals, start, end)

    def unasked(self, after: float) -> list[Frame]:
        return self.unasked_frames

    def spis(self, start: float, end: float) -> set[int]:
        return SPIS if end == FAULT else self.after_spis

    def reuse(self) -> dict[str, Reuse]:
        return {"mobile nodes": self.reused, "members": Reuse(5, 0, 0)}

    def ike_messages(self) -> int:
        return self.ike

    def acknowledged(self) -> list[dict[str, Any]]:
        return [{"sequence": 8, "status": self.status, "attempt": 1}]


def judge(record: Record) -> Outcome:
    record.finish()
    last = {"sequence": 7, "status": 0, "attempt": 1, "monotonic": FAULT - 0.002}
    refresh = {"sequence": 8, "status": record.status, "attempt": 1, "monotonic": 15.0}
    return examine(record, Failover(FAULT, last, refresh, None, 2), "ha2")  # type: ignore[arg-type]


def test_good_run() -> None:
    outcome = judge(Record())
    assert not [check for check in outcome.checks if not check.ok]
    figures = outcome.figures
    assert (figures["detect_ms"], figures["takeover_ms"]) == (25.0, 2.0)
    assert 26 < figures["outage_ms"] < 30
    assert figures["killed_after_acknowledgement_ms"] == 2.0
    assert figures["takeovers_before_the_fault"] == 0
    assert figures["lost_packets"] == 54
    assert outcome.roles[-1].member == "ha2"


@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        ("restored", FAULT + 0.08, "outage"),
        ("decision", None, "standby decided"),
        ("after_spis", {0x2000, 0x2007}, "SPIs unchanged"),
        ("unasked_frames", [Frame(0.0, (), False, None, None, 0x2001, True, None)], "messages to the mobile"),
        ("replay", {"sent": 3, "refused": 2, "changed": False}, "replays accepted"),
        ("replay", {"sent": 3, "refused": 3, "changed": True}, "replays accepted"),
        ("replay", {"sent": 0, "refused": 0, "changed": False}, "replays accepted"),
        ("sequence_after", 6, "last acknowledged binding"),
        ("status", 135, "next refresh"),
        ("reused", Reuse(100, 1, 0), "sequence numbers and nonces"),
        ("reused", Reuse(100, 0, 1), "sequence numbers and nonces"),
        ("reused", Reuse(0, 0, 0), "sequence numbers and nonces"),
        ("ike", 1, "IKE messages"),
        ("end_roles", {"ha1": "active", "ha2": "active"}, "one active member"),
        ("terms", {257: "::1", 514: "::1 ::2"}, "terms with two"),
        ("events", [{"event": "sequence_out_of_window"}], "registrations refused"),
        ("internal_errors", 1, "faults of the programs"),
        ("exit_status", {"ha2 stopped 1": 1}, "exit status"),
        ("left_behind", {"ha2": ["rule 13500"]}, "left behind in namespace ha2"),
        ("dropped", {"home": 2}, "packets lost by the captures"),
        ("signalling", [Frame(0.0, (), False, None, None, 0x2001, False, None)], "tshark: ESP not decrypted"),
        ("signalling", [Frame(0.0, (), False, None, None, None, None, None)], "tshark: signalling without"),
    ],
)
def test_every_fault_fails_its_check(field: str, value: object, check: str) -> None:
    record = Record()
    setattr(record, field, value)
    failed = [each.name for each in judge(record).checks if not each.ok]
    assert any(name.startswith(check) for name in failed), failed


def test_more_contexts_may_take_ten_milliseconds_longer() -> None:
    record = Record()
    record.contexts = 3
    record.restored = FAULT + 0.065
    assert all(check.ok for check in judge(record).checks)


def test_report_has_a_lane_for_each_member(tmp_path: Path) -> None:
    from netnslab import figures

    outcome = judge(Record())
    drawn = figures.draw(
        outcome.streams, [], outcome.outages, zero=START, window=(START, END), title="it", roles=outcome.roles
    )
    svg = figures.inline_svg(drawn)
    assert svg.count("<svg") == 1
    assert len(drawn.axes) == 3
    labels = [label.get_text() for label in drawn.axes[-1].get_yticklabels()]
    assert sorted(labels) == ["ha1", "ha2"]
