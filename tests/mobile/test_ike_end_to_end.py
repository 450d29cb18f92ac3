"""The emulator and the home agent negotiate on real packets: register, move, go home, leave, be stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from netnslab.certificates import Authority, new_ecdsa_key, pem, write_key

from mip6ha.mobile_config import load

from .namespaces import HOME_ADDRESS, World, eventually, world
from .programs import Talk, configure, happens, start, start_home_agent

pytestmark = pytest.mark.netns

_SECRET = "0f0e0d0c0b0a09080706050403020100"
_HELLO = b"hello from " + HOME_ADDRESS.encode()


def negotiated(
    place: World, *uses: str, ike: str = "", mobile_node: str = "", certificates: bool = False
) -> None:
    """Both configurations, with IKE in the place of SAs."""
    authority = Authority() if certificates else None
    listed = ", ".join(f'"{use}"' for use in uses)
    configure(
        place, uses=(), home_agent='keys_file = "keys"\n', mobile_node=f'keys_file = "keys"\n{mobile_node}'
    )
    keys = place.directory / "keys"
    keys.touch(0o600)
    keys.write_text(f'[shared]\nsecret = "{_SECRET}"\n')
    for name, own, other in (
        ("ha", "ha.example.org", "mn.example.org"),
        ("mn", "mn.example.org", "ha.example.org"),
    ):
        proof = "" if authority is None else issued(place.directory, authority, name, own)
        secret = 'keys = "shared"\n' if authority is None else ""
        path = place.directory / f"{name}.toml"
        path.write_text(
            f"{path.read_text()}\n"
            f'[mobile_node.ike]\nidentity = "{other}"\n{secret}uses = [{listed}]\n'
            f'[ike]\nidentity = "{own}"\n{proof}{ike if name == "mn" else ""}'
        )
    load(place.directory / "mn.toml")


def issued(directory: Path, authority: Authority, name: str, identity: str) -> str:
    """A certificate and its key in files, large enough for fragments; the lines that name them."""
    key = new_ecdsa_key()
    (directory / f"{name}.pem").write_bytes(pem(authority.issue(identity, key, more_names=100)))
    (directory / "ca.pem").write_bytes(pem(authority.certificate))
    write_key(directory / f"{name}.key", key)
    return (
        f'certificate = "{name}.pem"\nprivate_key = "{name}.key"\ntrust_anchors = ["ca.pem"]\n'
        f'key_log = "{name}-keys"\n'
    )


def count_of(place: World, name: str) -> int:
    return sum(event["event"] == name for event in place.events())


@pytest.mark.parametrize("encapsulate", [False, True], ids=["esp", "esp-in-udp"])
def test_away_and_home_again(tmp_path: Path, encapsulate: bool) -> None:
    with world(tmp_path) as place:
        negotiated(
            place,
            *("signalling", "prefix", "payload"),
            ike="encapsulate = true\n" if encapsulate else "",
            mobile_node="deregister_at_stop = true\n",
        )
        start_home_agent(place)
        talk = Talk(place)
        process = start(place)
        happens(place, "started", 0)
        count = 0
        for link in ("one", "two"):
            place.plug(link)
            count = happens(place, "binding_acknowledged", count)
            assert eventually(talk.works) == _HELLO
        large = bytes(1430)
        assert eventually(lambda: talk.works(large)) == large + b" from " + HOME_ADDRESS.encode()
        place.plug("home")
        count = happens(place, "deregistered", count)
        assert eventually(talk.works) == _HELLO
        place.plug("one")
        count = happens(place, "binding_acknowledged", count)
        assert eventually(talk.works) == _HELLO
        talk.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        acknowledged = [event for event in place.events() if event["event"] == "binding_acknowledged"]
        assert [event["attempt"] for event in acknowledged] == [1] * len(acknowledged)
        # One IKE SA from the first care-of address to the end, which the home agent heard of.
        assert count_of(place, "ike_established") == 1
        assert _SECRET not in (tmp_path / "events.jsonl").read_text()
        assert eventually(lambda: "ike_closed" in (tmp_path / "log").read_text())


def test_certificates(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        negotiated(place, "binding", certificates=True)
        start_home_agent(place)
        place.plug("one")
        start(place)
        happens(place, "binding_acknowledged", 0)
        assert count_of(place, "ike_established") == 1
        # Each end has the same keys, of one IKE SA and one pair of ESP SAs.
        for name, lines in (("ikev2_decryption_table", 1), ("esp_sa", 2)):
            logs = [tmp_path / f"{end}-keys" / name for end in ("mn", "ha")]
            ours, theirs = (set(path.read_text().splitlines()) for path in logs)
            assert ours == theirs
            assert len(ours) == lines
            assert {path.stat().st_mode & 0o777 for path in logs} == {0o600}


def test_re_keys_at_home_and_abroad(tmp_path: Path) -> None:
    """At home the home address is local, and datagrams to it come by sockets."""
    with world(tmp_path) as place:
        negotiated(place, "signalling", ike="ike_lifetime = 10\nchild_lifetime = 10\nprobe_interval = 1\n")
        start_home_agent(place)
        talk = Talk(place)
        start(place)
        place.plug("one")
        count = happens(place, "binding_acknowledged", 0)
        place.plug("home")
        count = happens(place, "deregistered", count)
        # Of the IKE SA and of its child.
        eventually(lambda: count_of(place, "ike_established") == 2, 20.0)
        eventually(lambda: count_of(place, "child_installed") == 2, 20.0)
        place.plug("two")
        happens(place, "binding_acknowledged", count)
        assert eventually(talk.works) == _HELLO
        talk.close()
        closed = [event["reason"] for event in place.events() if event["event"] == "ike_closed"]
        assert set(closed) == {"rekeyed"}
