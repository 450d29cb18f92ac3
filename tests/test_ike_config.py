"""The configuration of IKE: what it says, and what is wrong with it by file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from netnslab.certificates import Authority, key_pem, new_ecdsa_key, pem, write_key

from mip6ha import ike_config
from mip6ha.ike_config import MobileNodeIkeTable, home_agent_child, load
from mip6ha.ike_texts import CHILD_DEFAULT, IKE_DEFAULT
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.parameters import Scope
from mip6ha.ipsec.ike.proposals import esp_offer, ike_offer
from mip6ha.ipsec.policy import Mode, Use
from mip6ha.tables import ConfigError
from mip6ha.wire import address

SECRET = "00112233445566778899aabbccddeeff"
LEAST = """
[ike]
identity = "ha.example"
address = "2001:db8:1::1"
keys_file = "keys"

[[peer]]
name = "mn"
identity = "mn@example"
keys = "mn"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f'[mn]\nsecret = "{SECRET}"\n[short]\nsecret = "0011"\n[other]\nkey = "{SECRET}"\n')
    return tmp_path / "ike.toml"


def wrong(path: Path, text: str) -> list[str]:
    """What is said of a configuration, without the file's name."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert SECRET not in str(caught.value)
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


def test_the_least(path: Path) -> None:
    path.write_text(LEAST)
    found = load(path)
    [peer] = found.parameters.peers
    assert (peer.name, peer.local, peer.remote) == (
        "mn",
        Identity(2, b"ha.example"),
        Identity(3, b"mn@example"),
    )
    assert peer.psk == bytes.fromhex(SECRET)
    assert found.parameters.proposals == tuple(IKE_DEFAULT)
    assert found.parameters.timing.probe_interval == 60.0
    assert not found.parameters.key_log
    assert (found.key_log, found.initiate) == (None, ())
    assert found.control_socket == Path("/run/mip6ha-ike.sock")
    assert SECRET not in repr(found)


def test_everything(path: Path) -> None:
    more = """
proposals = ["aes-cbc-256 aes-cbc-128 hmac-sha2-512-256 prf-hmac-sha2-384 modp-2048 x25519"]
ike_lifetime = 100
child_lifetime = 50
probe_interval = 0
retransmit_ms = 250
attempts = 3
cookie_threshold = 0
half_open = 5
fragment_size = 1000
encapsulate = true
mobike = false
key_log = "log"
control_socket = "socket"
"""
    peer = """
address = "2001:db8:1::2"
initiate = true
home_addresses = ["2001:db8:a::1"]
assign = true
request_address = true

[[peer.child]]
name = "net"
use = "payload"
local = ["2001:db8:b::/64", "::/0[17]"]
remote = ["home-address[135/5]"]
proposals = ["aes-gcm-16-256 aes-gcm-16-128 x25519 no-group esn no-esn"]
start = false
"""
    path.write_text(LEAST.replace("\n\n", f"{more}\n", 1) + peer)
    found = load(path)
    parameters = found.parameters
    assert parameters.proposals == (ike_offer([(12, 256), (12, 128)], [6], [14, 31], [14]),)
    timing = parameters.timing
    assert (timing.ike_lifetime, timing.child_lifetime, timing.probe_interval) == (100.0, 50.0, None)
    assert (timing.retransmit, timing.attempts) == (0.25, 3)
    assert (parameters.limits.cookie_threshold, parameters.limits.half_open) == (0, 5)
    assert (parameters.fragment_size, parameters.encapsulate, parameters.mobike) == (1000, True, False)
    assert parameters.key_log
    assert (found.key_log, found.control_socket) == (path.parent / "log", path.parent / "socket")
    assert found.initiate == ("mn",)
    [one] = parameters.peers
    assert one.address == (address("2001:db8:1::2"), 500)
    assert (one.home_addresses, one.assign, one.request_address) == ((address("2001:db8:a::1"),), True, True)
    [child] = one.children
    assert (child.name, child.use, child.start) == ("net", Use.PAYLOAD, False)
    assert child.local == (
        Scope(0, None, address("2001:db8:b::"), address("2001:db8:b::ffff:ffff:ffff:ffff")),
        Scope(17, None, bytes(16), b"\xff" * 16),
    )
    assert child.remote == (Scope(135, 5),)
    assert child.offers == (esp_offer([(20, 256), (20, 128)], [], [31, 0], [1, 0]),)


@pytest.mark.parametrize(
    ("replace", "by", "line"),
    [
        (
            '"ha.example"',
            '"ha example"',
            "ike.identity: is not an identity ('ha example'); allowed: a domain",
        ),
        (
            '"2001:db8:1::1"',
            '"::1"',
            "ike.address: is not a routable unicast address ('::1'); allowed: a rout",
        ),
        (
            '"mn@example"',
            "5",
            "peer[0].identity: is not an identity (5); allowed: a domain name, name@domain",
        ),
        ('identity = "mn@example"', "", "peer[0].identity: is missing; allowed: a domain name"),
        ('keys = "mn"', "", "peer[0].keys: is missing; allowed: a name in keys_file, or absent where certi"),
        ('keys = "mn"', 'keys = "who"', "peer[0].keys: names no keys; allowed: a name in "),
        (
            'keys = "mn"',
            'keys = "short"',
            "peer[0].keys: names no secret; allowed: at least 16 octets as secret",
        ),
        (
            'keys = "mn"',
            'keys = "other"',
            "peer[0].keys: names no secret; allowed: at least 16 octets as secret",
        ),
        ('"mn"\nid', '"mn"\ninitiate = true\nid', "peer[0].address: is missing; allowed: a routable"),
        (
            "\n\n",
            "\nproposals = []\n\n",
            "ike.proposals: is not allowed; allowed: a list of names with spaces",
        ),
        ("\n\n", "\nattempts = 0\n\n", "ike.attempts: is out of range (0); allowed: 1 to 20"),
        ("\n\n", "\nmobile = 0\n\n", "ike.mobile: unknown key; allowed: identity, certificate, private_key"),
        ("\n\n", '\ncertificate = "c"\n\n', "ike.private_key: is missing; allowed: a path: certificate and"),
        ("\n\n", '\nprivate_key = "k"\n\n', "ike.certificate: is missing; allowed: a path: certificate and"),
        (
            "\n\n",
            '\ntrust_anchors = ["keys"]\n\n',
            "ike.trust_anchors: {directory}/keys: is not that; allowed: a file",
        ),
        (
            "\n\n",
            '\nrevocation_lists = ["n"]\n\n',
            "ike.revocation_lists: {directory}/n: No such file or directory",
        ),
    ],
)
def test_what_is_wrong(path: Path, replace: str, by: str, line: str) -> None:
    found = wrong(path, LEAST.replace(replace, by, 1))
    assert any(each.startswith(line.format(directory=path.parent)) for each in found), found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("aes-gcm-16-128 x25519", "cannot be offered (an IKE SA needs a PRF and a group)"),
        ("prf-hmac-sha2-256 x25519", "cannot be offered (an offer has AEADs alone"),
        (
            "aes-gcm-16-128 aes-cbc-128 prf-hmac-sha2-256 x25519",
            "cannot be offered (an offer has AEADs alone",
        ),
        ("aes-cbc-128 prf-hmac-sha2-256 x25519", "cannot be offered (an offer has AEADs alone"),
        ("aes-gcm-16-128 prf-hmac-sha2-256 x25519 x25519", "names something twice"),
        ("aes-gcm-16-128 prf-hmac-md5 x25519", "has an unknown name in it"),
        ("aes-gcm-16-128 prf-hmac-sha2-256 x25519 esn", "has an unknown name in it"),
    ],
)
def test_what_cannot_be_offered(path: Path, line: str, said: str) -> None:
    [found] = wrong(path, LEAST.replace("\n\n", f'\nproposals = ["{line}"]\n\n', 1))
    assert found.startswith(f"ike.proposals[0]: {said}")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("use", '"all"', "is not one of the choices ('all'); allowed: binding, signalling"),
        ("local", '["2001:db8::1/64"]', "is not a traffic selector ('2001:db8::1/64'); allowed: a list of"),
        ("local", '["::/0[17/5]"]', "has no such protocol or type ('::/0[17/5]'); allowed:"),
        ("local", '["::/0[135/256]"]', "has no such protocol or type ('::/0[135/256]'); allowed:"),
        ("remote", '["::/0]"]', "is not a traffic selector ('::/0]'); allowed:"),
        ("remote", "[]", "is not allowed; allowed: a list of prefixes"),
        ("proposals", '["no-group"]', "cannot be offered (an offer has AEADs alone"),
    ],
)
def test_what_is_wrong_with_a_child(path: Path, key: str, value: str, said: str) -> None:
    child = {"name": '"net"', "use": '"payload"', "local": '["::/0"]', "remote": '["::/0"]'} | {key: value}
    lines = "\n".join(f"{name} = {each}" for name, each in child.items())
    [found] = wrong(path, f"{LEAST}\n[[peer.child]]\n{lines}\n")
    assert found.split(": ", 1)[1].startswith(said)
    assert found.startswith(f"peer[0].child[0].{key}")


def test_names_are_used_once(path: Path) -> None:
    child = '[[peer.child]]\nname = "net"\nuse = "payload"\nlocal = ["::/0"]\nremote = ["::/0"]\n'
    peer = LEAST[LEAST.index("[[peer]]") :]
    assert wrong(path, LEAST + child + child + peer) == [
        "peer[0].child[1].name: is used twice; allowed: one name for each child",
        "peer[1].name: is used twice; allowed: one name for each peer",
    ]


CERTIFICATES = LEAST.replace('keys = "mn"', "").replace(
    "\n\n",
    '\ncertificate = "chain"\nprivate_key = "key"\ntrust_anchors = ["anchor"]\nrevocation_lists = ["crl"]'
    "\nrequire_revocation_list = true\n\n",
    1,
)


def test_certificates(path: Path) -> None:
    authority, key = Authority(), new_ecdsa_key()
    certificate = authority.issue("ha.example", key)
    directory = path.parent
    write_key(directory / "key", key)
    (directory / "chain").write_bytes(pem(certificate) + pem(authority.certificate))
    (directory / "anchor").write_bytes(pem(authority.certificate))
    (directory / "crl").write_bytes(pem(authority.revocations()))
    path.write_text(CERTIFICATES)
    [peer] = load(path).parameters.peers
    assert peer.psk is None
    assert len(peer.chain) == 2
    assert peer.trust is not None
    assert peer.trust.anchors == (authority.certificate,)
    assert (len(peer.trust.crls), peer.trust.require_crl) == (1, True)
    assert peer.private_key is not None
    assert peer.private_key.public_key() == key.public_key()
    (directory / "key").chmod(0o644)
    [found, _] = wrong(path, CERTIFICATES)
    assert found.startswith(
        f"ike.private_key: {directory / 'key'}: has mode 0644; allowed: an RSA or ECDSA key"
    )
    (directory / "key").unlink()
    write_key(directory / "key", new_ecdsa_key())
    [found] = wrong(path, CERTIFICATES)
    assert found == "ike.private_key: is not the certificate's; allowed: the key of the first certificate"
    (directory / "key").write_bytes(key_pem(ed25519.Ed25519PrivateKey.generate()))  # type: ignore[arg-type]
    [found, _] = wrong(path, CERTIFICATES)
    assert found.startswith(
        f"ike.private_key: {directory / 'key'}: is not that; allowed: an RSA or ECDSA key"
    )


def test_a_mobile_node(path: Path) -> None:
    """RFC 4877 4.2 to 4.4, from the home agent's side."""
    table = MobileNodeIkeTable.model_validate(
        {"identity": "mn.example", "uses": ["binding", "payload", "binding"]}
    )
    home_address, home_agent = address("2001:db8:a::1"), address("2001:db8:a::fe")
    own = ike_config.Credentials(Identity(2, b"ha.example"))
    peer = table.peer("mn", home_address, home_agent, own, bytes(16))
    assert peer.home_addresses == (home_address,)
    binding, payload = peer.children
    assert (binding.mode, payload.mode) == (Mode.TRANSPORT, Mode.TUNNEL)
    assert binding.local == (Scope(135, 6, home_agent, home_agent),)
    assert binding.remote == (Scope(135, 5),)
    assert payload.local == (Scope(0, None, bytes(16), b"\xff" * 16),)
    assert payload.remote == (Scope(0, None),)
    assert binding.offers == tuple(CHILD_DEFAULT)
    prefix = home_agent_child(Use.PREFIX, home_agent, ())
    assert (prefix.local, prefix.remote) == ((Scope(58, 147, home_agent, home_agent),), (Scope(58, 146),))
    with pytest.raises(ValueError, match="refused"):
        MobileNodeIkeTable.model_validate({"identity": "mn.example", "uses": ["harp"]})
