"""charon begins, we answer."""

from __future__ import annotations

import re

import pytest

from .conftest import Talk
from .dissection import CREATE_CHILD_SA, IKE_AUTH, IKE_SA_INIT, INFORMATIONAL, messages
from .network import BEHIND_THEM, BEHIND_US, Capture, eventually

FRAGMENT = 53
SUITES = [
    ("psk", "aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    ("psk", "aes256gcm16-prfsha384-ecp256", "aes256gcm16"),
    ("psk", "aes128-sha256-prfsha256-modp2048", "aes128-sha256"),
    ("psk", "aes256-sha512-prfsha512-ecp384", "aes256-sha512"),
    ("psk", "chacha20poly1305-prfsha256-x25519", "chacha20poly1305"),
    ("rsa", "aes128gcm16-prfsha256-x25519", "aes128gcm16"),
    ("ecdsa", "aes128-sha256-modp2048", "aes128-sha256"),
    ("large", "aes256gcm16-prfsha256-ecp256", "aes256gcm16"),
]


def agree(talk: Talk, who: str) -> dict[str, str]:
    """Both ends have the same child: its SPIs, ours first, and its keys."""
    (association,) = talk.charon.associations().values()
    (theirs,) = (each for each in association["child-sas"].values() if each["state"] == "INSTALLED")
    (ours,) = talk.ours.ike_sas(who)
    (child,) = (each for each in ours["children"] if each["spi_out"] == theirs["spi-in"])
    assert child["spi_in"] == theirs["spi-out"]
    assert (child["local"], child["remote"]) == ([f"{BEHIND_US}/128"], [f"{BEHIND_THEM}/128"])
    assert (theirs["local-ts"], theirs["remote-ts"]) == (child["remote"], child["local"])
    return {"in": child["spi_in"], "out": child["spi_out"]}


def charons_keys(talk: Talk) -> set[bytes]:
    """Encryption keys of all children that charon has made."""
    found = set()
    log = talk.charon.log()
    for match in re.finditer(
        r"^\d\d\[CHD\] encryption \w+ key => .*\n((?:\d\d\[CHD\] +\d+: .*\n)+)", log, re.M
    ):
        dumps = re.findall(r"^\d\d\[CHD\] +\d+: ((?:[0-9A-F]{2} )+)", match[1], re.M)
        found.add(bytes.fromhex("".join(dumps)))
    return found


def end(talk: Talk, who: str) -> None:
    before = len(talk.ours.events("ike_sa_closed", peer=who))
    talk.charon.control("--terminate", "--ike", "talk")
    talk.ours.says("ike_sa_closed", before + 1, peer=who)
    assert not talk.charon.associations()


def rekey_child(talk: Talk, who: str) -> None:
    """charon replaces the child; done when the old one is gone."""
    before = agree(talk, who)
    talk.charon.control("--rekey", "--child", "net")
    talk.ours.says("child_removed", spi_in=before["in"])
    assert agree(talk, who)["in"] != before["in"]


def rekey_ike(talk: Talk, who: str) -> None:
    """charon replaces the IKE SA; done when the old one is gone."""
    (before,) = talk.ours.ike_sas(who)
    talk.charon.control("--rekey", "--ike", "talk")
    talk.ours.says("ike_sa_closed", ike_sa=before["spi"])
    eventually(lambda: len(talk.charon.associations()) == 1)
    (after,) = talk.ours.ike_sas(who)
    assert after["spi"] != before["spi"]


@pytest.mark.parametrize(("who", "ike", "esp"), SUITES)
def test_with_a_child(talk: Talk, who: str, ike: str, esp: str) -> None:
    talk.load(who, ike, esp)
    talk.charon.initiate(child="net")
    spis = agree(talk, who)
    keys = talk.ours.esp_keys()
    if "chacha" not in esp:
        assert {keys[spi][0] for spi in spis.values()} <= charons_keys(talk)
    (association,) = talk.charon.associations().values()
    assert association["local-port"] == "4500"
    end(talk, who)


def test_without_a_child(talk: Talk) -> None:
    talk.load("childless", esp=None)
    talk.charon.initiate(ike="talk")
    (ours,) = talk.ours.ike_sas("childless")
    assert ours["children"] == []
    end(talk, "childless")


def test_a_whole_life_as_tshark_reads_it(talk: Talk, capture: Capture) -> None:
    for suite in SUITES[0], SUITES[2], SUITES[7]:
        talk.load(*suite)
        talk.charon.initiate(child="net")
        rekey_child(talk, suite[0])
        rekey_ike(talk, suite[0])
        end(talk, suite[0])
    found = messages(capture.close(), talk.ours.key_log())
    assert {each.exchange for each in found} == {IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL}
    assert sum(FRAGMENT in each.payloads for each in found if each.exchange == IKE_AUTH) > 2
    # Behind 46 stands what was in it, if anything, where tshark could decrypt it.
    assert not [each for each in found if each.exchange == CREATE_CHILD_SA and len(each.payloads) < 4]


def test_children_come_and_go(talk: Talk) -> None:
    talk.load("psk")
    talk.charon.initiate(child="net")
    first = agree(talk, "psk")
    rekey_child(talk, "psk")
    second = agree(talk, "psk")
    assert second.keys().isdisjoint(first.values())
    talk.charon.control("--terminate", "--child", "net")
    talk.ours.says("child_removed", spi_in=second["in"])
    (ours,) = talk.ours.ike_sas("psk")
    assert ours["children"] == []
    talk.charon.initiate(child="net")
    assert agree(talk, "psk")["in"] not in (*first.values(), *second.values())
    end(talk, "psk")


def test_ike_is_rekeyed_by_the_peer(talk: Talk) -> None:
    talk.load("psk")
    talk.charon.initiate(child="net")
    child = agree(talk, "psk")
    rekey_ike(talk, "psk")
    assert agree(talk, "psk") == child
    end(talk, "psk")


def test_everything_again_from_our_end(talk: Talk) -> None:
    """Who answered first asks now: liveness, re-keying of child and IKE SA, deletion of both."""
    talk.load("psk")
    talk.charon.initiate(child="net")
    child, (before,) = agree(talk, "psk"), talk.ours.ike_sas("psk")
    talk.ours.ask("probe", "psk")
    talk.ours.ask("rekey-child", "psk", "net")
    talk.ours.says("child_removed", spi_in=child["in"])
    fresh = eventually(lambda: agree(talk, "psk"))
    assert fresh["in"] != child["in"]
    talk.ours.ask("rekey", "psk")
    talk.ours.says("ike_sa_closed", ike_sa=before["spi"])
    assert agree(talk, "psk") == fresh
    talk.ours.ask("delete-child", "psk", "net")
    talk.ours.says("child_removed", spi_in=fresh["in"])
    talk.ours.ask("create-child", "psk", "net")
    eventually(lambda: talk.ours.ike_sas("psk")[0]["children"])
    agree(talk, "psk")
    talk.ours.ask("delete", "psk")
    eventually(lambda: not talk.charon.associations())
    assert not talk.ours.ike_sas("psk")


def test_the_peer_asks_whether_we_live(talk: Talk) -> None:
    talk.load("childless", esp=None, dpd_delay="1s")
    talk.charon.initiate(ike="talk")
    before = talk.charon.log().count("parsed INFORMATIONAL response")
    eventually(lambda: talk.charon.log().count("parsed INFORMATIONAL response") > before)
    assert len(talk.charon.associations()) == 1
    end(talk, "childless")


@pytest.mark.parametrize(
    ("who", "secret", "proposal", "said"),
    [
        ("psk", b"another secret altogether", "aes128gcm16-prfsha256-x25519", "AUTH_FAILED"),
        ("nobody", b"a secret for two ends", "aes128gcm16-prfsha256-x25519", "AUTH_FAILED"),
        ("psk", b"a secret for two ends", "aes128-sha1-modp1024", "NO_PROP"),
        ("revoked", b"", "aes128gcm16-prfsha256-x25519", "AUTH_FAILED"),
        ("old", b"", "aes128gcm16-prfsha256-x25519", "AUTH_FAILED"),
    ],
)
def test_who_is_refused(talk: Talk, who: str, secret: bytes, proposal: str, said: str) -> None:
    talk.load(who, proposal, secret=secret)
    assert f"N({said})" in talk.charon.initiate(child="net", check=False)
    assert not talk.ours.ike_sas(who)
    assert not talk.charon.associations()


def test_selectors_with_nothing_in_common(talk: Talk) -> None:
    """The IKE SA stands, the child does not (RFC 7296 1.2)."""
    selectors = {"mode": "tunnel", "local_ts": "2001:db8:f::/64", "remote_ts": f"{BEHIND_US}/128"}
    talk.load("psk", children={"net": selectors})
    assert "N(TS_UNACCEPT)" in talk.charon.initiate(child="net", check=False)
    (ours,) = talk.ours.ike_sas("psk")
    assert ours["children"] == []
    end(talk, "psk")
