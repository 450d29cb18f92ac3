"""The report and the terminal, on a made-up run."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from netnslab.capture import dropped_packets
from netnslab.display import Display
from netnslab.mobility_network import MOBILITY_TOPOLOGY
from netnslab.probes import Phase, Sample, Stream
from netnslab.report import write_html, write_json
from netnslab.scenario import Check, Outcome, Run, Scenario
from netnslab.timeline import Timeline
from rich.console import Console


def never(run: Run) -> object:
    raise AssertionError(run)


SCENARIO = Scenario("made up", "A <run> & nothing else.", MOBILITY_TOPOLOGY, ("one", "two"), never)  # type: ignore[arg-type]


def outcome() -> Outcome:
    samples = tuple(
        Sample(n, 100 + n / 100, None if 40 <= n < 52 else 100 + n / 100 + 0.0004) for n in range(100)
    )
    arrivals = tuple(sample.received for sample in samples if sample.received is not None)
    stream = Stream("cn_to_mn", samples, arrivals, 0)
    return Outcome(
        checks=[Check("good", True, 1, 2), Check("bad <b>", False, ["x"] * 40, [])],
        streams=(stream, Stream("mn_to_cn", samples, arrivals, 0)),
        outages=(Phase("move to foreign2", 100.39, 100.52),),
    )


def timeline() -> Timeline:
    made = Timeline(start=100.0, epoch_offset=0.0)
    for name, at in (("carrier_up", 100.5), ("carrier_down", 100.4), ("care_of_address", 100.51)):
        made.add(name, "detail <i>", source="mn", at=at)
    return made


def test_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path) -> None:
    found = outcome()
    result = {
        "ok": False,
        "registration_ms": 2.0,
        "checks": [check.view() for check in found.checks],
        "more": {"a": 1},
    }
    page = write_html(tmp_path, SCENARIO, found, timeline(), result).read_text()
    assert page.count("<svg") == 2
    assert "A &lt;run&gt; &amp; nothing else." in page
    assert "bad &lt;b&gt;" in page
    assert "detail &lt;i&gt;" in page
    assert "FAILED" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page.replace('xlink:href="#', "")), "links to elsewhere"
    assert (tmp_path / "timeline.svg").stat().st_size > 1000
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_page_of_a_run_that_came_to_nothing(tmp_path: Path) -> None:
    page = write_html(
        tmp_path, SCENARIO, Outcome(), timeline(), {"ok": False, "error": "no <network>"}
    ).read_text()
    assert "<svg" not in page
    assert "no &lt;network&gt;" in page


def test_timeline_text_is_in_order_of_time(tmp_path: Path) -> None:
    write_html(tmp_path, SCENARIO, Outcome(), timeline(), {})
    lines = (tmp_path / "timeline.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0.400", "0.500", "0.510"]
    assert lines[0].split()[1:4] == ["mn", "carrier", "down"]


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "run.json", {"ok": True})
    assert json.loads((tmp_path / "deep" / "run.json").read_text()) == {"ok": True}


def test_terminal_shows_timeline_and_checks() -> None:
    screen = io.StringIO()
    with Display(Console(file=screen, width=100), SCENARIO, timeline()) as display:
        display.step("one")
        display.mark(timeline().in_order()[0])
    display.finish(outcome().checks, {"json": "somewhere/run.json"})
    shown = screen.getvalue()
    assert "0.400 s  mn  carrier down" in shown
    assert "FAILED" in shown
    assert "somewhere/run.json" in shown


def test_marks_that_are_not_live_are_not_shown_but_kept() -> None:
    seen: list[str] = []
    quiet = Timeline(listener=lambda mark: seen.append(mark.name))
    quiet.add("told")
    quiet.add("kept", live=False)
    assert seen == ["told"]
    assert [mark.name for mark in quiet.marks] == ["told", "kept"]
    assert quiet.first("kept") is not None


def test_what_dumpcap_says_about_lost_packets() -> None:
    said = "Packets received/dropped on interface 'br-home': 863/{} (pcap:0/dumpcap:0)"
    assert dropped_packets(said.format(0)) == 0
    assert dropped_packets(said.format(7)) == 7
    assert dropped_packets("killed") == -1
