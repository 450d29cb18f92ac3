"""What ``ike-failover`` adds to ``failover``: every fault fails its check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from netnslab.dissection import IkeSeen
from netnslab.ike_failover_checks import rekey_checks
from netnslab.ike_record import IkeRecord, by_exchange
from netnslab.packets import Captured, address
from netnslab.redundant_set import SetRecording
from netnslab.scenario import Check
from netnslab.timeline import Timeline

INIT, AUTH, CHILD, INFORMATIONAL = 34, 35, 36, 37
FAULT, REFRESH, REKEY = 10.0, 12.0, 20.0
EVENTS = [{"event": "ike_established", "monotonic": 1.0}]
REKEYED = {"event": "child_installed", "monotonic": REKEY}
LAST = {"status": 0, "monotonic": 24.0}


def message(at: float, kind: int, *, response: bool = False, opened: bool = True, spi: str = "a1") -> IkeSeen:
    return IkeSeen(at, kind, opened, False, "::1", response, 0, spi)


def pair(at: float, kind: int, *, spi: str = "a1") -> list[IkeSeen]:
    opened = kind != INIT
    return [message(at, kind, response=response, opened=opened, spi=spi) for response in (False, True)]


GOOD = [*pair(1, INIT), *pair(1.1, AUTH), *pair(REKEY - 0.01, CHILD), *pair(REKEY, INFORMATIONAL)]


class Made(IkeRecord):
    def __init__(self, messages: list[IkeSeen]) -> None:
        self.__dict__["ike"] = messages
        self.timeline = Timeline(epoch_offset=0.0)
        self.quiet = FAULT, REFRESH


def judge(messages: list[IkeSeen], events: Any = EVENTS, last: Any = LAST, spis: int = 4) -> list[str]:
    record = Made(messages)
    checks: list[Check] = [*record.ike_checks(), *rekey_checks(record, events, REKEYED, last, spis)]
    return [check.name for check in checks if not check.ok]


def test_a_good_run_passes() -> None:
    assert not judge(GOOD)
    assert by_exchange(GOOD) == {"IKE_SA_INIT": 2, "IKE_AUTH": 2, "CREATE_CHILD_SA": 2, "INFORMATIONAL": 2}


def test_no_re_key_is_seen() -> None:
    assert judge(GOOD[:4]) == ["child re-keyed, messages of CREATE_CHILD_SA", "the IKE SA is the same"]


def test_another_ike_sa_is_seen() -> None:
    names = judge([*GOOD, *pair(REKEY + 1, INIT, spi="a2")], EVENTS * 2)
    assert names == [
        "IKE SAs begun by IKE_SA_INIT",
        "IKE_SA_INIT after the fault",
        "the IKE SA is the same",
        "IKE SAs established",
    ]


@pytest.mark.parametrize(
    ("events", "last", "spis", "name"),
    [
        ([*EVENTS, {"event": "ike_closed"}], LAST, 4, "IKE SAs closed before the end"),
        (EVENTS, LAST | {"status": 129}, 4, "status of a refresh under the new child"),
        (EVENTS, LAST | {"monotonic": REKEY - 1}, 4, "status of a refresh under the new child"),
        (EVENTS, LAST, 6, "SPIs of the mobile node in all"),
    ],
)
def test_every_fault_fails_its_check(events: Any, last: Any, spis: int, name: str) -> None:
    assert judge(GOOD, events, last, spis) == [name]


def captured(at: float, port: int, payload: bytes) -> Captured:
    datagram = port.to_bytes(2) * 2 + bytes(4) + payload
    packet = b"`\0\0\0" + len(datagram).to_bytes(2) + b"\x11\x40" + address("::1") + address("::2") + datagram
    return Captured(at, bytes(12) + b"\x86\xdd" + packet)


@pytest.mark.parametrize(
    ("at", "count"), [(FAULT - 0.001, 0), (FAULT, 1), (REFRESH - 0.001, 1), (REFRESH, 0)]
)
def test_ike_is_counted_while_there_must_be_none(at: float, count: int) -> None:
    record = Made([])
    esp = captured(at, 4500, b"\0\0\1\0" + bytes(20))
    record.__dict__["frames"] = {"core": [captured(at, 500, bytes(28)), esp]}
    assert record.ike_messages() == count


def test_spis_are_those_that_were_negotiated(tmp_path: Path) -> None:
    recording: Any = type("Recording", (), dict.fromkeys(SetRecording.__slots__))()
    recording.directory, recording.keys = tmp_path, type("Keys", (), {"mobile": ()})()
    record = IkeRecord(recording, {1, 2, 3}, {3}, (FAULT, REFRESH))
    assert (record.mobile_spis, record.payload_spis) == ({1, 2, 3}, {3})
