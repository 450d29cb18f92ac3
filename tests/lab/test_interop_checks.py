"""The checks of ``interop-strongswan-*`` on made-up records: a good one passes, every fault fails the check
about it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from netnslab.client_network import CARE_OF_ADDRESS
from netnslab.client_set import Seen
from netnslab.dissection import Frame, HelloSeen, IkeSeen
from netnslab.interop_checks import ClientRecord, Story, examine_asked, examine_asking
from netnslab.mobility_network import HOME_AGENT
from netnslab.packets import Reuse
from netnslab.probes import Gap, Sample, Stream, longest_gap
from netnslab.redundant_network import SetParameters
from netnslab.roles import RoleSpan
from netnslab.scenario import Options, Outcome
from netnslab.strongswan import LogLine
from netnslab.timeline import Timeline

START, FAULT, DECISION, SERVICE, ASKED, END = 10.0, 12.0, 12.025, 12.027, 14.0, 16.0
INIT, AUTH, CHILD, INFORMATIONAL = 34, 35, 36, 37
FIRST, SECOND, SYNC = (0x2001, 0x2002), (0x3001, 0x3002), 16422
OLD_IKE, NEW_IKE = ("a1", "b1"), ("a2", "b2")


def stream(name: str, restored: float, late: float | None = None) -> Stream:
    times = [START + number / 1000 for number in range(round((END - START) * 1000))]
    lost = [FAULT <= time < restored or (late is not None and abs(time - late) < 1e-4) for time in times]
    samples = tuple(
        Sample(n, t, None if gone else t + 0.0003)
        for n, (t, gone) in enumerate(zip(times, lost, strict=True))
    )
    return Stream(name, samples, tuple(s.received for s in samples if s.received is not None), 0)


def exchange(
    at: float,
    kind: int,
    identifier: int,
    source: str,
    spi: str = "a1",
    *,
    notifications: tuple[int, ...] = (),
) -> list[IkeSeen]:
    """A request and its response."""
    ends = (HOME_AGENT, CARE_OF_ADDRESS)
    other = ends[source == HOME_AGENT]
    opened = kind != INIT
    return [
        IkeSeen(at, kind, opened, False, source, False, identifier, spi, notifications),
        IkeSeen(at + 0.001, kind, opened, False, other, True, identifier, spi, notifications),
    ]


class Made(ClientRecord):
    """A record of what the fields say; each is one that a test may spoil."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.restored = {"cn_to_mn": SERVICE, "mn_to_cn": SERVICE + 0.05}
        self.late: float | None = None
        self.decision: float | None = DECISION
        self.spis_after = set(FIRST)
        self.seen = {
            "connected": Seen(START, OLD_IKE, FIRST),
            "after the fault": Seen(ASKED, OLD_IKE, FIRST),
            "child re-keyed": Seen(ASKED, OLD_IKE if source == CARE_OF_ADDRESS else NEW_IKE, SECOND),
            "IKE SA re-keyed": Seen(ASKED, NEW_IKE, SECOND if source == CARE_OF_ADDRESS else FIRST),
        }
        self.log = [LogLine(START, "[ENC] generating IKE_SA_INIT request 0")]
        self.numbers = {"old": [5, 6], "new": [8193]}
        self.replay: dict[str, Any] = {"sent": 3, "refused": 3, "changed": False}
        self.bound = [CARE_OF_ADDRESS]
        self.left: list[dict[str, Any]] = []
        self.echo = "5 5 0.4"
        self.early_ike = 0
        self.synchronised = True
        self.reused = Reuse(100, 0, 0)
        self.signalling_frames = [Frame(0.0, ("a", "b", "c", "d"), False, 4000, None, FIRST[0], True, None)]
        self.requests = [
            *exchange(START - 1, INIT, 0, CARE_OF_ADDRESS),
            *exchange(START - 0.9, AUTH, 1, CARE_OF_ADDRESS),
            *exchange(ASKED + 0.1, INFORMATIONAL, 0, source),
            *exchange(ASKED + 0.2, INFORMATIONAL, 0, source, notifications=(SYNC,)),
            *exchange(ASKED + 0.3, CHILD, 1, source),
            *exchange(ASKED + 0.4, INFORMATIONAL, 2, source),
            *exchange(ASKED + 0.5, CHILD, 0, source, "a2"),
            *exchange(ASKED + 0.6, INFORMATIONAL, 1, source, "a2"),
            *exchange(ASKED + 0.7, INFORMATIONAL, 2, source, "a2"),
        ]

    def finish(self) -> Made:
        self.streams = tuple(stream(name, at, self.late) for name, at in self.restored.items())
        self.__dict__["ike"] = self.requests
        self.__dict__["signalling"] = self.signalling_frames
        self.__dict__["hellos"] = [HelloSeen(START, "::1", True, 257, 1), HelloSeen(END, "::2", True, 514, 1)]
        self.__dict__["roles"] = [
            RoleSpan("ha1", "active", 257, START, FAULT),
            RoleSpan("ha2", "active", 514, DECISION, END),
        ]
        self.timeline, self.events, self.options = Timeline(epoch_offset=0.0), [], Options()
        self.quiet = FAULT, ASKED
        self.story = Story(FAULT, ASKED, 2, self.seen, self.log)
        shown = {
            "ha1 status": {"role": "standby"},
            "ha2 status": {"role": "active"},
            "ha2 counters": {},
            "replay": {**self.replay, "bindings": [{"care_of_address": each} for each in self.bound]},
            "bindings at the end": self.left,
            "echo": self.echo,
        }
        self.set: Any = SimpleNamespace(
            parameters=SetParameters(),
            options=self.options,
            shown=shown,
            started=START,
            silent=END,
            exit_status={"mn": 0},
            left_behind={},
            dropped={"core": 0},
        )
        return self

    def logged(self, name: str, after: float, *, member: int | None = None) -> Any:
        if name == "message_ids_synchronised":
            return (ASKED, {}) if self.synchronised else None
        return None if self.decision is None else (self.decision, {})

    def payload_from(self, identity: int, after: float) -> float:
        return SERVICE

    def longest_gap(self, start: float, end: float) -> tuple[str, Gap]:
        return "mn_to_cn", longest_gap(self.streams[1].arrivals, start, end)

    def spis(self, start: float, end: float) -> set[int]:
        return set(FIRST) if end == FAULT else self.spis_after

    def sequences(self, start: float, end: float) -> list[int]:
        return self.numbers["old" if end == FAULT else "new"]

    def reuse(self) -> dict[str, Reuse]:
        return {"mobile nodes": self.reused, "members": Reuse(5, 0, 0)}

    def ike_messages(self) -> int:
        return self.early_ike


def judge(record: Made) -> Outcome:
    record.finish()
    return examine_asking(record) if record.source == CARE_OF_ADDRESS else examine_asked(record)


@pytest.mark.parametrize("source", [CARE_OF_ADDRESS, HOME_AGENT])
def test_a_good_run_passes(source: str) -> None:
    outcome = judge(Made(source))
    assert not [check.name for check in outcome.checks if not check.ok]
    figures = outcome.figures
    assert (figures["detect_ms"], figures["takeover_ms"]) == (25.0, 2.0)
    assert 26 < figures["outage_by_direction_ms"]["cn_to_mn"] < 30
    assert 76 < figures["outage_ms"] < 80
    assert (figures["last_sequence_before"], figures["first_sequence_after"]) == (6, 8193)
    assert figures["ike_messages_after"] == {"INFORMATIONAL": 10, "CREATE_CHILD_SA": 4}


@pytest.mark.parametrize("source", [CARE_OF_ADDRESS, HOME_AGENT])
@pytest.mark.parametrize(
    ("field", "value", "check"),
    [
        ("restored", {"cn_to_mn": FAULT + 0.07, "mn_to_cn": SERVICE}, "outage, cn_to_mn"),
        ("restored", {"cn_to_mn": SERVICE, "mn_to_cn": FAULT + 0.13}, "outage, mn_to_cn"),
        ("late", SERVICE + 1, "probes lost after the outage"),
        ("decision", None, "standby decided"),
        ("spis_after", {*FIRST, 7}, "SPIs unchanged"),
        ("log", [], "IKE_SA_INIT in strongSwan's log"),
        ("numbers", {"old": [5, 9000], "new": [8193]}, "numbers of the new active member"),
        ("replay", {"sent": 3, "refused": 2, "changed": False}, "replays accepted"),
        ("replay", {"sent": 3, "refused": 3, "changed": True}, "replays accepted"),
        ("bound", [], "bindings after the fault"),
        ("left", [{}], "bindings at the end"),
        ("echo", "5 4 0.4", "echoes"),
        ("early_ike", 1, "IKE messages"),
        ("reused", Reuse(100, 1, 0), "sequence numbers and nonces"),
        ("signalling_frames", [Frame(0.0, ("a", "b"), False, 4500, None, 1, False, None)], "tshark: ESP not"),
    ],
)
def test_every_fault_fails_its_check(source: str, field: str, value: object, check: str) -> None:
    record = Made(source)
    setattr(record, field, value)
    failed = [each.name for each in judge(record).checks if not each.ok]
    assert any(name.startswith(check) for name in failed), failed


@pytest.mark.parametrize(
    "words",
    [
        "[ESP] ESP sequence number verification failed:",
        "[ESP] ESP decryption or ICV verification failed",
        "[ESP] inbound ESP packet does not belong to an installed SA",
    ],
)
def test_what_strongswan_rejects_is_seen(words: str) -> None:
    record = Made(CARE_OF_ADDRESS)
    record.log.append(LogLine(SERVICE, words))
    assert [each.name for each in judge(record).checks if not each.ok] == ["ESP that strongSwan rejected"]


def test_another_ike_sa_is_seen() -> None:
    record = Made(CARE_OF_ADDRESS)
    record.requests += exchange(FAULT + 1, INIT, 0, CARE_OF_ADDRESS, "a9")
    failed = [each.name for each in judge(record).checks if not each.ok]
    assert failed == ["IKE SAs begun by IKE_SA_INIT", "IKE_SA_INIT after the fault"]


@pytest.mark.parametrize(
    ("opened", "malformed", "check"), [(False, False, "decrypted"), (True, True, "malformed")]
)
def test_what_tshark_cannot_read_is_seen(opened: bool, malformed: bool, check: str) -> None:
    record = Made(CARE_OF_ADDRESS)
    record.requests.append(IkeSeen(END, INFORMATIONAL, opened, malformed))
    (failed,) = [each.name for each in judge(record).checks if not each.ok]
    assert check in failed


@pytest.mark.parametrize("source", [CARE_OF_ADDRESS, HOME_AGENT])
def test_a_request_without_an_answer_is_seen(source: str) -> None:
    record = Made(source)
    record.requests = [each for each in record.requests if each.exchange != CHILD or not each.response]
    (failed,) = [each.name for each in judge(record).checks if not each.ok]
    assert failed.startswith("re-keys that")


@pytest.mark.parametrize(
    ("name", "seen", "check"),
    [
        ("after the fault", Seen(ASKED, NEW_IKE, FIRST), "strongSwan has the same SAs"),
        ("child re-keyed", Seen(ASKED, NEW_IKE, SECOND), "the child was re-keyed under the same IKE SA"),
        ("IKE SA re-keyed", Seen(ASKED, NEW_IKE, FIRST), "the IKE SA was re-keyed with its child"),
    ],
)
def test_other_sas_are_seen(name: str, seen: Seen, check: str) -> None:
    record = Made(CARE_OF_ADDRESS)
    record.seen[name] = seen
    assert [each.name for each in judge(record).checks if not each.ok] == [check]


def test_message_ids_that_are_not_synchronised_are_seen() -> None:
    record = Made(HOME_AGENT)
    record.synchronised = False
    assert [each.name for each in judge(record).checks if not each.ok] == [
        "message ids synchronised (RFC 6311)"
    ]
    record = Made(HOME_AGENT)
    record.seen["child re-keyed"] = Seen(ASKED, OLD_IKE, SECOND)
    assert [each.name for each in judge(record).checks if not each.ok] == [
        "the child was re-keyed under the re-keyed IKE SA"
    ]
