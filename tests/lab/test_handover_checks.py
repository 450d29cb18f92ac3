"""The checks of ``handover`` on made-up runs: a good one passes, and every fault fails the check that is
about it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from netnslab.dissection import BINDING_ACKNOWLEDGEMENT, BINDING_UPDATE, Frame, MobilityMessage
from netnslab.handover_checks import PROBE_PORT, Recording, Wire, judge
from netnslab.probes import Sample, Stream
from netnslab.scenario import Options, Outcome
from netnslab.timeline import Timeline

EPOCH = 1_000_000.0
START, DOWN2, UP2, DOWN3, UP3, END = 10.0, 12.0, 12.1, 14.0, 14.1, 16.0
CARE_OF, AT_HOME = UP2 + 0.004, UP3 + 0.004


def lost(sent: float) -> bool:
    return DOWN2 <= sent < UP2 + 0.01 or DOWN3 <= sent < UP3 + 0.01


def stream(name: str, is_lost: Callable[[float], bool] = lost) -> Stream:
    times = [START + number / 100 for number in range(round((END - START) * 100))]
    samples = tuple(Sample(n, t, None if is_lost(t) else t + 0.0003) for n, t in enumerate(times))
    return Stream(name, samples, tuple(s.received for s in samples if s.received is not None), 0)


def probe(at: float, tunnelled: bool) -> Frame:
    return Frame(EPOCH + at, (), tunnelled, PROBE_PORT, None, None, None, None)


def signalling(at: float, kind: int, sequence: int, lifetime: int) -> Frame:
    status = 0 if kind == BINDING_ACKNOWLEDGEMENT else None
    message = MobilityMessage(kind, sequence, lifetime, status, True)
    return Frame(EPOCH + at, (), False, None, None, 0x2000, True, message)


def exchange(at: float, sequence: int, lifetime: int = 15) -> list[Frame]:
    return [
        signalling(at, BINDING_UPDATE, sequence, lifetime),
        signalling(at + 0.002, BINDING_ACKNOWLEDGEMENT, sequence, lifetime),
    ]


def wire() -> dict[str, list[Frame]]:
    return {
        "foreign1": [*exchange(9.0, 1), probe(11.0, True)],
        "foreign2": [*exchange(UP2 + 0.005, 2), probe(13.0, True)],
        "home": [
            *exchange(9.0, 1),
            *exchange(UP2 + 0.005, 2),
            *exchange(UP3 + 0.005, 3, 0),
            probe(15.0, False),
        ],
    }


def recording() -> Recording:
    def event(name: str, at: float) -> dict[str, object]:
        return {"event": name, "monotonic": at, "time": EPOCH + at}

    return Recording(
        options=Options(),
        timeline=Timeline(start=8.0, epoch_offset=EPOCH),
        directory=Path(),
        captures={},
        events=[
            *(event("binding_update_sent", at) for at in (9.0, UP2 + 0.005, UP3 + 0.005)),
            *(event("binding_acknowledged", at) for at in (9.002, UP2 + 0.007, UP3 + 0.007)),
            event("care_of_address", 8.9),
            event("care_of_address", CARE_OF),
            event("at_home", AT_HOME),
            event("deregistered", UP3 + 0.007),
        ],
        streams=(stream("cn_to_mn"), stream("mn_to_cn")),
        started=START,
        silent=END,
        moves={"foreign2": (DOWN2, UP2), "home": (DOWN3, UP3)},
        shown={"bindings": [{}], "bindings_at_home": [], "counters": {}},
        left_behind={"ha": [], "mn": []},
        exit_status={"ha": 0, "mn": 0},
        dropped={"home": 0},
    )


def failed(outcome: Outcome) -> list[str]:
    return [check.name for check in outcome.checks if not check.ok]


def test_good_run_passes_with_the_right_figures() -> None:
    outcome = judge(recording(), Wire(wire()))
    assert failed(outcome) == []
    figures = outcome.figures
    assert figures["registration_ms"] == pytest.approx(2.0, abs=0.01)
    # The first probe after carrier up that arrives is sent 10 ms later.
    assert figures["handover_outage_ms"] == pytest.approx(10.3, abs=0.01)
    assert figures["handover_own_ms"] == pytest.approx(6.3, abs=0.01)
    assert figures["home_own_ms"] == pytest.approx(6.3, abs=0.01)
    assert figures["lost_packets"] == 44
    assert figures["lost_packets_by_phase"]["cn_to_mn"] == {
        "no carrier before foreign2": 10,
        "moving to foreign2": 1,
        "no carrier before home": 10,
        "moving to home": 1,
    }
    assert [each["link"] for each in figures["signalling"]] == ["foreign1", "foreign2", "home"]


def test_duplicate_address_detection_moves_the_limit() -> None:
    slow = wire()
    slow["foreign1"][1] = signalling(10.003, BINDING_ACKNOWLEDGEMENT, 1, 15)
    dad = replace(recording(), options=Options(dad=True))
    assert failed(judge(dad, Wire(slow))) == []
    assert failed(judge(dad, Wire(wire()))) == ["registration, BU to BA, ms"]
    assert failed(judge(recording(), Wire(slow))) == ["registration, BU to BA, ms"]


def test_slow_hand_over() -> None:
    slow = replace(
        recording(),
        streams=(stream("cn_to_mn", lambda t: lost(t) or UP2 < t < UP2 + 0.07), stream("mn_to_cn")),
    )
    assert failed(judge(slow, Wire(wire()))) == ["hand-over's own share, ms"]


def test_loss_in_a_steady_phase() -> None:
    leaky = replace(
        recording(), streams=(stream("cn_to_mn", lambda t: lost(t) or 13.0 < t < 13.1), stream("mn_to_cn"))
    )
    assert failed(judge(leaky, Wire(wire()))) == ["cn to mn on foreign2: arrived, sent"]


def test_duplicates() -> None:
    twice = replace(stream("mn_to_cn"), duplicates=2)
    assert failed(judge(replace(recording(), streams=(stream("cn_to_mn"), twice)), Wire(wire()))) == [
        "mn to cn: duplicates"
    ]


@pytest.mark.parametrize(
    ("link", "frame", "check"),
    [
        ("foreign1", probe(11.5, False), "away: probes outside the tunnel, of 3"),
        ("home", probe(15.5, True), "at home: probes in the tunnel, of 2"),
        (
            "home",
            Frame(EPOCH + 9.5, (), False, None, None, 0x9999, False, None),
            "tshark: ESP frames decrypted and verified",
        ),
    ],
)
def test_frame_that_should_not_be_there(link: str, frame: Frame, check: str) -> None:
    frames = wire()
    frames[link].append(frame)
    assert failed(judge(recording(), Wire(frames))) == [check]


def altered(**changes: object) -> dict[str, list[Frame]]:
    """The good run with its first BA on the home link changed."""
    frames = wire()
    frames["home"][1] = replace(frames["home"][1], **changes)  # type: ignore[arg-type]
    return frames


def test_ba_without_esp() -> None:
    assert failed(judge(recording(), Wire(altered(spi=None, icv_good=None)))) == [
        "tshark: without ESP, of 10 BUs and BAs"
    ]


def test_ba_with_a_bad_icv() -> None:
    assert failed(judge(recording(), Wire(altered(icv_good=False)))) == [
        "tshark: ESP frames decrypted and verified",
        "tshark: bad ICVs, of 10 BUs and BAs",
    ]


def test_ba_with_a_bad_checksum() -> None:
    bad = MobilityMessage(BINDING_ACKNOWLEDGEMENT, 1, 15, 0, False)
    assert failed(judge(recording(), Wire(altered(mobility=bad)))) == ["tshark: bad checksums, of 10 MHs"]


def test_bu_that_tshark_did_not_see() -> None:
    frames = wire()
    del frames["foreign2"][0]
    assert "tshark: BUs on the mobile node's links" in failed(judge(recording(), Wire(frames)))


def test_nothing_captured_passes_nothing() -> None:
    names = failed(judge(recording(), Wire({"foreign1": [], "foreign2": [], "home": []})))
    assert "registration, BU to BA, ms" in names
    assert "de-registered" in names
    assert sum(name.startswith("tshark") for name in names) == 6


def test_binding_that_stays() -> None:
    stays = replace(recording(), shown={"bindings": [{}], "bindings_at_home": [{}], "counters": {}})
    assert failed(judge(stays, Wire(wire()))) == ["de-registered"]


def test_leftovers_exit_status_and_dropped_packets() -> None:
    dirty = replace(
        recording(),
        left_behind={"ha": ["proxy 2001:db8:a::100"]},
        exit_status={"ha": 1},
        dropped={"home": -1},
    )
    assert failed(judge(dirty, Wire(wire()))) == [
        "left behind in namespace ha",
        "exit status of the daemons",
        "packets lost by the captures",
    ]
