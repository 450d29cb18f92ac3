"""strongSwan and our mobile node through failovers of what they negotiated, for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .test_redundant_set import failed, run

pytestmark = [pytest.mark.netns, pytest.mark.tshark]


def lasting(figures: dict[str, Any]) -> None:
    """What no failover may cost."""
    expected = {
        "hello_interval_ms": 10,
        "ike_messages": 0,
        "spis_unchanged": True,
        "sequence_reuse": 0,
        "replays_accepted": 0,
    }
    assert {name: figures[name] for name in expected} == expected
    assert {"detect_ms", "takeover_ms", "outage_ms", "lost_packets", "contexts"} <= figures.keys()
    assert figures["outage_ms"] < 300


@pytest.mark.interop
@pytest.mark.parametrize(
    ("role", "credentials"), [("initiator", "ecdsa"), ("initiator", "psk"), ("responder", "rsa")]
)
def test_strongswan(tmp_path: Path, role: str, credentials: str) -> None:
    figures, output = run(tmp_path, f"interop-strongswan-{role}", "--credentials", credentials)
    # Whether more is lost than the outage costs depends on how busy the machine is.
    assert not failed(figures, "outage", "probes lost"), output
    lasting(figures)
    assert figures["credentials"] == credentials
    assert figures["rejected_by_strongswan"] == 0
    assert figures["first_sequence_after"] > figures["last_sequence_before"]
    assert figures["ike_messages_after"]["CREATE_CHILD_SA"] >= 4
    assert "IKE_SA_INIT" not in figures["ike_messages_after"]
    pages = {path.name for path in (tmp_path / "report").iterdir()}
    assert pages >= {"index.html", "core.pcap", "ike.pcap", "takeover.pcap", "wireshark", "charon"}


def test_our_mobile_node(tmp_path: Path) -> None:
    figures, output = run(tmp_path, "ike-failover")
    assert not failed(figures, "outage"), output
    lasting(figures)
    assert figures["refresh_status"] == 0
    assert figures["messages_to_mobile_node"] == 0
    assert figures["last_acknowledged_binding_present"] is True
    assert figures["ike_messages_after_the_fault"]["CREATE_CHILD_SA"] == 2
