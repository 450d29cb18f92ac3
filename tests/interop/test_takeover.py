"""A member dies, another goes on with the IKE SA, and strongSwan notices nothing but RFC 6311."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mip6ha.ike_config import load
from mip6ha.ipsec.ike.endpoint import IkeEndpoint

from .charon import Charon
from .conftest import CHILD
from .members import Members
from .network import BEHIND_THEM, BEHIND_US, OURS, THEIRS, Network, eventually
from .ours import SECRET, configuration, peer

SUITES = [("aes128gcm16-prfsha256-x25519", "aes128gcm16"), ("aes128-sha256-modp2048", "aes128-sha256")]


@pytest.fixture
def members(network: Network, tmp_path: Path) -> Iterator[Members]:
    path = tmp_path / "ike.toml"
    path.write_text(configuration(OURS, "ours.example") + peer("psk", THEIRS, child=CHILD))
    (tmp_path / "secrets").touch(mode=0o600)
    (tmp_path / "secrets").write_text(f'[psk]\nsecret = "{SECRET.hex()}"\n')
    with Members(network.ours, load(path).parameters) as found:
        yield found


@pytest.fixture
def session(members: Members, charon: Charon, request: pytest.FixtureRequest) -> Iterator[Members]:
    """charon has an IKE SA with a child; it never begins another one."""
    ike, esp = getattr(request, "param", SUITES[0])
    child = {
        "mode": "tunnel",
        "esp_proposals": esp,
        "local_ts": f"{BEHIND_THEM}/128",
        "remote_ts": f"{BEHIND_US}/128",
    }
    connection = {
        "local_addrs": THEIRS,
        "remote_addrs": OURS,
        "proposals": ike,
        "local": {"auth": "psk", "id": "psk.example"},
        "remote": {"auth": "psk", "id": "ours.example"},
        "children": {"net": child},
    }
    charon.load({"talk": connection}, {"ike-1": {"secret": f"0x{SECRET.hex()}"}})
    charon.initiate(child="net")
    before = charon.log().count("generating IKE_SA_INIT")
    yield members
    assert charon.log().count("generating IKE_SA_INIT") == before
    charon.control("--terminate", "--ike", "talk")
    eventually(lambda: not members.established())


def agree(members: Members, charon: Charon) -> int:
    """Both ends have one child, the same; our SPI of it."""
    (association,) = charon.associations().values()
    (theirs,) = (each for each in association["child-sas"].values() if each["state"] == "INSTALLED")
    (ike_sa,) = members.established()
    (ours,) = ike_sa.live_children()
    assert (f"{ours.spi_in:08x}", f"{ours.spi_out:08x}") == (theirs["spi-out"], theirs["spi-in"])
    return ours.spi_in


def lives_on(members: Members, charon: Charon) -> None:
    """Both ends can re-key children and the IKE SA, whoever is active."""
    child, installed = agree(members, charon), len(members.installed)
    charon.control("--rekey", "--child", "net")
    eventually(lambda: len(members.installed) > installed)
    eventually(lambda: len(members.established()[0].children) == 1)
    fresh = agree(members, charon)
    assert fresh != child
    members.take_over()
    (before,) = members.established()
    members.ask(IkeEndpoint.rekey)
    eventually(lambda: [each.spi for each in members.established()] not in ([], [before.spi]))
    eventually(lambda: len(charon.associations()) == 1)
    members.take_over()
    assert agree(members, charon) == fresh


@pytest.mark.parametrize("session", SUITES, indirect=True)
def test_the_next_member_goes_on(session: Members, charon: Charon) -> None:
    """What was replicated before each response is all that there is to know."""
    for _ in range(3):
        session.take_over()
        lives_on(session, charon)


@pytest.mark.parametrize("session", SUITES[1:], indirect=True)
def test_message_ids_are_synchronised(session: Members, charon: Charon) -> None:
    """RFC 6311 5."""
    for number in range(1, 4):
        session.take_over(synchronise=True)
        eventually(partial(synchronised, session, number))
        lives_on(session, charon)


def synchronised(members: Members, times: int) -> bool:
    return members.notices.count("message_ids_synchronised") == times


def test_message_ids_are_synchronised_once_with_an_aead(session: Members, charon: Charon) -> None:
    """charon makes IVs of message ids: it can seal no second response with the id 0."""
    session.take_over(synchronise=True)
    eventually(partial(synchronised, session, 1))
    charon.control("--rekey", "--child", "net")
    eventually(lambda: len(session.installed) == 2)
    eventually(lambda: len(session.established()[0].children) == 1)
    agree(session, charon)


def test_the_response_is_the_dead_members(session: Members, charon: Charon) -> None:
    """It died before it could send: charon asks again and gets what was replicated."""
    child = agree(session, charon)
    session.mute = True
    charon.control("--rekey", "--child", "net")
    eventually(lambda: len(session.installed) == 2)
    session.take_over()
    eventually(lambda: len(session.established()[0].children) == 1)
    assert agree(session, charon) != child
    assert len(session.installed) == 2
    lives_on(session, charon)
