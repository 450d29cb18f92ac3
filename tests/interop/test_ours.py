"""Both ends are ours: what a member of a set negotiates with another one, and ends that do not answer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .network import OURS, THEIRS, Network, eventually
from .ours import Ours, configuration, peer


def harp(here: str, there: str) -> str:
    return f'use = "harp"\nlocal = ["{here}/128[135]"]\nremote = ["{there}/128[135]"]'


@pytest.fixture
def members(network: Network, tmp_path: Path) -> Iterator[tuple[Ours, Ours]]:
    """``one`` begins."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    second = configuration(THEIRS, "two.example") + peer("one", OURS, child=harp(THEIRS, OURS))
    two = Ours(network.theirs, tmp_path / "two", second)
    begin = peer("two", THEIRS, child=harp(OURS, THEIRS)).replace("[[peer]]", "[[peer]]\ninitiate = true")
    one = Ours(network.ours, tmp_path / "one", configuration(OURS, "one.example") + "attempts = 2\n" + begin)
    yield one, two
    assert (one.stop(), two.stop()) == (0, 0)


def test_members(members: tuple[Ours, Ours]) -> None:
    one, two = members
    one.says("child_installed", use="harp", mode="transport")
    (here,), (there,) = one.ike_sas("two"), two.ike_sas("one")
    (ours,), (theirs,) = here["children"], there["children"]
    assert (ours["spi_in"], ours["spi_out"]) == (theirs["spi_out"], theirs["spi_in"])
    keys = one.esp_keys()
    assert keys == two.esp_keys()
    assert len({key for key, _ in keys.values()}) == 2
    assert not any(key.hex() in each.log() for each in members for key, _ in keys.values())
    # Told at the end.
    assert one.stop() == 0
    two.says("ike_sa_closed", reason="deleted_by_peer")
    assert two.ike_sas("one") == []


def test_who_does_not_answer(members: tuple[Ours, Ours]) -> None:
    one, two = members
    one.says("ike_sa_established")
    two.process.send_signal(signal.SIGSTOP)
    try:
        one.ask("probe", "two")
        one.says("ike_sa_closed", reason="peer_unreachable")
        one.ask("initiate", "two")
        # Nor does it keep us from ending.
        assert one.stop() == 0
    finally:
        two.process.send_signal(signal.SIGCONT)
    eventually(lambda: two.ask("sas"))
