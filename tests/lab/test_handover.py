"""The scenario ``handover`` for real, and what tshark says about its packets."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

LAB = Path(__file__).resolve().parents[2] / "netns-lab" / "run"
LIMIT = 90
BINDING_UPDATE, BINDING_ACKNOWLEDGEMENT = "5", "6"

pytestmark = [pytest.mark.netns, pytest.mark.tshark]


@dataclass(frozen=True)
class Ran:
    status: int
    output: str
    directory: Path
    figures: dict[str, Any]


def run(directory: Path, *options: str) -> Ran:
    argv: list[str | Path] = [
        LAB,
        "handover",
        "--json",
        directory / "handover.json",
        "--report",
        directory / "report",
        *options,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=directory)
    figures = json.loads((directory / "handover.json").read_text())
    return Ran(done.returncode, done.stdout + done.stderr, directory / "report", figures)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(tmp_path_factory.mktemp("handover"))


@pytest.fixture(scope="module")
def frames(ran: Ran) -> list[dict[str, str]]:
    """Every frame with ESP or a Mobility Header, as tshark prints it with the run's own key file."""
    fields = ("esp.spi", "esp.icv_good", "mip6.mhtype", "mip6check.status", "icmpv6.type")
    found = []
    for pcap in sorted(ran.directory.glob("*.pcap")):
        argv: list[str | Path] = [
            "tshark",
            "-n",
            "-r",
            pcap,
            "-Y",
            "esp || mipv6",
            "-T",
            "fields",
            "-E",
            "separator=/t",
        ]
        for field in fields:
            argv += ["-e", field]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "WIRESHARK_CONFIG_DIR": str(ran.directory / "wireshark")},
        )
        found += [dict(zip(fields, line.split("\t"), strict=True)) for line in done.stdout.splitlines()]
    return found


def test_every_check_passes(ran: Ran) -> None:
    failed = [check for check in ran.figures["checks"] if not check["ok"]]
    assert not failed, ran.output
    assert ran.status == 0, ran.output
    assert ran.figures["ok"] is True
    assert len(ran.figures["checks"]) > 20


def test_figures(ran: Ran) -> None:
    figures = ran.figures
    assert (figures["scenario"], figures["dataplane"], figures["dad"]) == ("handover", "tun", False)
    assert 0 < figures["registration_ms"] < 20
    assert 0 < figures["handover_own_ms"] < 50
    assert 0 < figures["home_own_ms"] < 50
    assert figures["handover_outage_ms"] >= figures["handover_own_ms"]
    assert figures["home_outage_ms"] >= figures["home_own_ms"]
    assert figures["deregistered"] is True
    assert figures["lost_packets"] == sum(figures["lost_packets_by_direction"].values())
    told = sum(sum(phases.values()) for phases in figures["lost_packets_by_phase"].values())
    assert told == figures["lost_packets"]
    assert {"kernel", "python", "tshark", "radvd"} <= figures["versions"].keys()


def test_traffic_is_lost_only_while_moving(ran: Ran) -> None:
    for phases in ran.figures["lost_packets_by_phase"].values():
        assert all(name.startswith(("no carrier", "moving")) for name in phases)


def test_tshark_decrypts_every_bu_and_ba_and_finds_their_checksums_good(frames: list[dict[str, str]]) -> None:
    kinds = [frame["mip6.mhtype"] for frame in frames]
    assert kinds.count(BINDING_UPDATE) >= 3
    assert kinds.count(BINDING_ACKNOWLEDGEMENT) >= 3
    for frame in frames:
        assert frame["esp.spi"], "a Mobility Header outside ESP"
        assert frame["esp.icv_good"] in {"1", "True"}
        assert frame["mip6.mhtype"] or frame["icmpv6.type"], "not decrypted"
        if frame["mip6.mhtype"]:
            assert frame["mip6check.status"] == "Good"


def test_tshark_finds_nothing_without_the_keys(ran: Ran) -> None:
    argv: list[str | Path] = ["tshark", "-n", "-r", ran.directory / "foreign1.pcap", "-Y", "mipv6"]
    environment = {**os.environ, "WIRESHARK_CONFIG_DIR": str(ran.directory / "nowhere")}
    assert not subprocess.run(argv, capture_output=True, check=True, env=environment).stdout


def test_report(ran: Ran) -> None:
    page = (ran.directory / "index.html").read_text()
    assert page.count("<svg") == 3
    assert "binding update sent" in page
    assert "deregistered" in page


def test_keys_are_in_no_output_but_the_key_files(ran: Ran) -> None:
    lines = (ran.directory / "wireshark" / "esp_sa").read_text().splitlines()
    keys = [line.split('","')[5].removeprefix("0x") for line in lines]
    assert len(keys) == 4
    for file in ran.directory.rglob("*"):
        if file.is_file() and file.name != "esp_sa" and file.suffix != ".keys":
            content = file.read_bytes()
            assert not any(key.encode() in content for key in keys), file


def test_registration_waits_for_duplicate_address_detection(tmp_path: Path) -> None:
    ran = run(tmp_path, "--dad")
    assert ran.status == 0, ran.output
    assert ran.figures["dad"] is True
    assert 1000 <= ran.figures["registration_ms"] <= 1100
