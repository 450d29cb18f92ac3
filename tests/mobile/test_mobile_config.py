"""``mip6mn check``: what is wrong is told by file, key and allowed values; key material never is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mip6ha.ipsec.ike.parameters import Scope
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.mobile_cli import main
from mip6ha.mobile_config import load, load_load
from mip6ha.wire import address

NODE = """
[mobile_node]
home_address = "2001:db8:a::100"
home_agent = "2001:db8:a::1"
interface = "eth0"
"""
SA = """
[[mobile_node.sa]]
use = "signalling"
direction = "out"
spi = 0x2000
encryption = "aes-gcm-16"
encryption_key = "000102030405060708090a0b0c0d0e0fa0a1a2a3"
"""
LOAD = """
[load]
home_agent = "2001:db8:a::1"
first_home_address = "2001:db8:a::1:0"
count = 10
first_spi = 0x10000
encryption = "aes-gcm-16"
secret = "000102030405060708090a0b0c0d0e0f"
care_of_prefix = "2001:db8:e::/64"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "mn.toml"
    path.touch(0o600)
    path.write_text(text)
    return path


def test_defaults(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, NODE + SA))
    assert loaded.parameters.home_address == address("2001:db8:a::100")
    assert loaded.parameters.lifetime == 60
    assert not loaded.parameters.care_of_dad
    assert loaded.edge.home_prefix == "2001:db8:a::/64"
    assert loaded.edge.events is None
    (association,) = loaded.parameters.associations
    assert association.direction is Direction.OUT


def test_the_kernel_makes_the_packets_where_that_is_said(tmp_path: Path) -> None:
    assert load(written(tmp_path, NODE + SA)).edge.dataplane == "tun"
    assert load(written(tmp_path, NODE + 'dataplane = "kernel"\n' + SA)).edge.dataplane == "kernel"


def test_the_kernel_has_no_policy_for_return_routability(tmp_path: Path) -> None:
    tunnel = SA.replace('"signalling"', '"return-routability"')
    for dataplane, status in (("tun", 0), ("kernel", 2)):
        path = written(tmp_path, f'{NODE}dataplane = "{dataplane}"\n{tunnel}')
        told = CliRunner().invoke(main, ["check", "-c", str(path)])
        assert told.exit_code == status
    assert "mobile_node.sa" in told.output
    assert "is not for the kernel dataplane" in told.output


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, NODE + 'events = "e.jsonl"\nstate_dir = "s"\n'))
    assert (loaded.edge.events, loaded.edge.state_dir) == (tmp_path / "e.jsonl", tmp_path / "s")


def test_a_load_configuration(tmp_path: Path) -> None:
    loaded = load_load(written(tmp_path, LOAD))
    assert (loaded.count, loaded.care_of_prefix_text) == (10, "2001:db8:e::/64")
    assert load_load(tmp_path / "mn.toml", 99).count == 99


IKE = """
[mobile_node.ike]
identity = "ha.example.org"
keys = "ha"

[ike]
identity = "mn@example.org"
key_log = "keys"
"""
KEYED = NODE + 'keys_file = "mn.keys"\n' + IKE


@pytest.fixture(autouse=True)
def keys(tmp_path: Path) -> None:
    path = tmp_path / "mn.keys"
    path.touch(0o600)
    path.write_text(f'[ha]\nsecret = "{"0102030405060708" * 3}"\n[short]\nsecret = "0102030405060708"\n')


def test_ike(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, KEYED + "probe_interval = 0\n"))
    ike = loaded.parameters.ike
    assert ike is not None
    assert ike.key_log
    assert loaded.edge.key_log == tmp_path / "keys"
    assert ike.timing.probe_interval is None
    (peer,) = ike.peers
    assert peer.address == (address("2001:db8:a::1"), 500)
    assert peer.home_addresses == (address("2001:db8:a::100"),)
    assert (str(peer.local), str(peer.remote)) == ("mn@example.org", "ha.example.org")
    assert loaded.parameters.negotiated == (Use.SIGNALLING, Use.PREFIX)
    signalling = peer.children[0]
    assert signalling.local == (Scope(135),)
    assert signalling.remote == (Scope(135, None, address("2001:db8:a::1"), address("2001:db8:a::1")),)
    assert "0102030405060708" not in repr(loaded)


def test_what_binding_updates_wait_for_is_the_first_child(tmp_path: Path) -> None:
    uses = 'uses = ["payload", "prefix", "binding", "payload"]\n'
    loaded = load(written(tmp_path, KEYED.replace('keys = "ha"\n', f'keys = "ha"\n{uses}')))
    assert loaded.parameters.negotiated == (Use.BINDING, Use.PREFIX, Use.PAYLOAD)
    payload = loaded.parameters.ike and loaded.parameters.ike.peers[0].children[2]
    assert payload
    assert payload.local == (Scope(),)
    assert payload.remote == (Scope(0, None, bytes(16), b"\xff" * 16),)


BROKEN = [
    ("", "mobile_node: is missing"),
    ("[mobile_node]\n", "mobile_node.home_address: is missing"),
    (NODE + "lifetime = 3\n", "mobile_node.lifetime: is out of range"),
    (NODE + "care_of_dat = true\n", "mobile_node.care_of_dat: unknown key"),
    (NODE + 'link_local = "yes"\n', "mobile_node.link_local"),
    (NODE.replace("eth0", "an interface"), "mobile_node.interface"),
    (NODE.replace("::100", "::1"), "mobile_node.home_address: is the home agent's"),
    (NODE + 'interface_identifier = "0011"\n', "mobile_node.interface_identifier: has a wrong length"),
    (NODE + 'tun_name = "eth0"\n', "mobile_node.tun_name: is the interface's"),
    (NODE + SA.replace("0x2000", "12"), "mobile_node.sa[0].spi"),
    (NODE + SA.replace("a0a1a2a3", ""), "mobile_node.sa[0].encryption_key: has 16 octets"),
    (NODE + SA + SA, "mobile_node.sa[1].spi: is used twice"),
    (NODE + 'keys_file = "none.keys"\n', "none.keys"),
    (NODE + "[mobile_node", "TOML"),
    (KEYED.replace("[ike]", "[nothing]"), "nothing: unknown"),
    (KEYED.split("[ike]", maxsplit=1)[0], "mobile_node.ike: needs a table [ike]"),
    (NODE + '[ike]\nidentity = "mn@example.org"\n', "mobile_node.ike: is missing"),
    (NODE + 'keys_file = "mn.keys"\n' + SA + IKE, "mobile_node.ike: stands beside"),
    (NODE + 'keys_file = "mn.keys"\ndataplane = "kernel"\n' + IKE, "mobile_node.dataplane: does not go"),
    (KEYED.replace('identity = "ha.example.org"\n', ""), "mobile_node.ike.identity: is missing"),
    (KEYED.replace('keys = "ha"\n', ""), "mobile_node.ike.keys: is missing"),
    (KEYED.replace('"ha"', '"short"'), "mobile_node.ike.keys: names no secret"),
    (KEYED.replace('"ha"', '"ha"\nuses = ["payload"]'), "mobile_node.ike.uses: protects no Binding Updates"),
    (KEYED.replace('"ha"', '"ha"\nuses = ["harp"]'), "mobile_node.ike.uses[0]"),
    (KEYED + 'private_key = "none.key"\n', "ike.private_key: "),
    (LOAD.replace("count = 10", "count = 0"), "load.count"),
    (LOAD.replace("/64", "/56"), "load.care_of_prefix: has a wrong length"),
    (LOAD.replace("secret", "keys"), "load.keys: names no keys"),
    (LOAD.replace("0x10000", "0xffffffff"), "load.first_spi: leaves too few SPIs"),
    (LOAD.replace("08090a0b0c0d0e0f", ""), "load.secret: is no secret"),
    (LOAD.replace("aes-gcm-16", "aes-cbc"), "load.integrity"),
]


@pytest.mark.parametrize(("text", "told"), BROKEN, ids=[told for _, told in BROKEN])
def test_a_broken_configuration_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    done = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert told in done.stderr
    assert "allowed: " in done.stderr
    assert "0102030405060708" not in done.output


@pytest.mark.parametrize("text", [NODE + SA, LOAD, KEYED], ids=["run", "load", "ike"])
def test_a_good_one_is_usable(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    done = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert (done.exit_code, done.output) == (0, f"{path}: usable\n")
