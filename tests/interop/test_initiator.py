"""We begin, charon answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .charon import Charon
from .conftest import Credentials, Talk, run_ours
from .dissection import CREATE_CHILD_SA, IKE_AUTH, IKE_SA_INIT, messages
from .network import Capture, Network, eventually
from .test_responder import SUITES, agree, charons_keys, rekey_child, rekey_ike


@pytest.fixture(scope="module")
def talk(
    network: Network, charon: Charon, credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Talk]:
    """We have an ECDSA key this time."""
    made = run_ours(network, tmp_path_factory.mktemp("ours"), credentials, "curve")
    yield Talk(made, charon, credentials)
    assert made.stop() == 0, made.log()[-5000:]


def begin(talk: Talk, who: str) -> None:
    before = len(talk.ours.events("ike_sa_established", peer=who))
    talk.ours.ask("initiate", who)
    talk.ours.says("ike_sa_established", before + 1, peer=who)


def end(talk: Talk, who: str) -> None:
    talk.ours.ask("delete", who)
    eventually(lambda: not talk.charon.associations())
    eventually(lambda: not talk.ours.ike_sas(who))


@pytest.mark.parametrize(("who", "ike", "esp"), SUITES)
def test_with_a_child(talk: Talk, who: str, ike: str, esp: str) -> None:
    talk.load(who, ike, esp, own="curve")
    begin(talk, who)
    spis = agree(talk, who)
    keys = talk.ours.esp_keys()
    if "chacha" not in esp:
        assert {keys[spi][0] for spi in spis.values()} <= charons_keys(talk)
    end(talk, who)


def test_without_a_child(talk: Talk) -> None:
    talk.load("childless", esp=None, own="curve")
    begin(talk, "childless")
    (association,) = talk.charon.associations().values()
    assert association["remote-id"] == "curve.example"
    end(talk, "childless")


def test_a_whole_life_as_tshark_reads_it(talk: Talk, capture: Capture) -> None:
    """MODP-2048 is not our first guess, so there is an INVALID_KE_PAYLOAD on the way."""
    talk.load("large", "aes128-sha256-modp2048", "aes128-sha256", own="curve")
    begin(talk, "large")
    child, (before,) = agree(talk, "large"), talk.ours.ike_sas("large")
    talk.ours.ask("rekey-child", "large", "net")
    talk.ours.says("child_removed", spi_in=child["in"])
    talk.ours.ask("rekey", "large")
    talk.ours.says("ike_sa_closed", ike_sa=before["spi"])
    end(talk, "large")
    found = messages(capture.close(), talk.ours.key_log())
    assert [each.notifications for each in found if each.exchange == IKE_SA_INIT][1] == (17,)
    assert len([each for each in found if each.exchange == IKE_SA_INIT]) == 4
    assert len([each for each in found if each.exchange == IKE_AUTH]) > 2
    assert not [each for each in found if each.exchange == CREATE_CHILD_SA and len(each.payloads) < 4]


def test_everything_again_from_the_other_end(talk: Talk) -> None:
    talk.load("psk", own="curve")
    begin(talk, "psk")
    rekey_child(talk, "psk")
    fresh = agree(talk, "psk")
    rekey_ike(talk, "psk")
    assert agree(talk, "psk") == fresh
    talk.charon.control("--terminate", "--child", "net")
    talk.ours.says("child_removed", spi_in=fresh["in"])
    talk.charon.control("--terminate", "--ike", "talk")
    eventually(lambda: not talk.ours.ike_sas("psk"))


@pytest.mark.parametrize(
    ("who", "secret", "reasons"),
    [
        # That one refuses us.
        ("psk", b"another secret altogether", []),
        ("revoked", b"", ["certificate_revoked"]),
        ("old", b"", ["certificate_expired"]),
    ],
)
def test_who_is_refused(talk: Talk, who: str, secret: bytes, reasons: list[str]) -> None:
    talk.load(who, secret=secret, own="curve")
    before = len(talk.ours.events("ike_sa_closed", peer=who))
    talk.ours.ask("initiate", who)
    talk.ours.says("ike_sa_closed", before + 1, peer=who)
    assert [each["reason"] for each in talk.ours.events("authentication_failed", peer=who)] == reasons
    eventually(lambda: not talk.charon.associations())
