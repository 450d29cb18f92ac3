"""``[group]``: what a good table becomes, and what people are told about bad ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from netnslab.certificates import Authority, new_ecdsa_key, pem, write_key

from mip6ha.cli import main
from mip6ha.config import ConfigError, Configuration, load
from mip6ha.group_config import ArbiterConfiguration, Membership
from mip6ha.harp.numbers import DEFAULT
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.parameters import Scope
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipv6 import MOBILITY
from mip6ha.wire import address

KEY = "d1c2b3a4958677685940312213f4e5d6c7b8a990"
AGENT = """
[home_agent]
address = "2001:db8:a::1"
home_link = "eth0"
home_prefixes = ["2001:db8:a::/64"]
control_socket = "ha.sock"
state_dir = "state"
"""
GROUP = """
[group]
id = 1
member = 1
address = "2001:db8:e::1"
"""
PEER = f"""
[[group.peer]]
member = 2
address = "2001:db8:e::2"

[[group.peer.sa]]
direction = "out"
spi = 0x312
encryption = "aes-gcm-16"
encryption_key = "{KEY}"

[[group.peer.sa]]
direction = "in"
spi = 0x321
encryption = "aes-gcm-16"
encryption_key = "{KEY[::-1]}"
"""
THIRD = PEER.replace("member = 2", "member = 3").replace("e::2", "e::3").replace("0x321", "0x331")


def loaded(directory: Path, group: str = GROUP, peers: str = PEER) -> Configuration:
    path = directory / "ha.toml"
    path.write_text(AGENT + group + peers)
    path.chmod(0o600)
    return load(path)


def faults(directory: Path, group: str = GROUP, peers: str = PEER) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        loaded(directory, group, peers)
    prefix = f"{directory / 'ha.toml'}: "
    assert all(line.startswith(prefix) for line in refused.value.lines)
    assert KEY not in str(refused.value)
    return [line.removeprefix(prefix) for line in refused.value.lines]


def test_a_member_with_defaults(tmp_path: Path) -> None:
    configuration = loaded(tmp_path)
    group = configuration.group
    assert group is not None
    assert (group.group, group.identity, group.address) == (1, 1, address("2001:db8:e::1"))
    assert (group.hello_interval, group.failure_factor, group.start_wait) == (0.1, 3.0, 1.0)
    assert (group.synchronous, group.preempt, group.arbiter, group.extensions) == (True, False, False, True)
    assert group.numbers == DEFAULT
    (peer,) = group.peers
    assert (peer.identity, peer.address) == (2, address("2001:db8:e::2"))
    assert [(each.direction, each.use, each.spi) for each in peer.associations] == [
        (Direction.OUT, Use.HARP, 0x312),
        (Direction.IN, Use.HARP, 0x321),
    ]
    assert configuration.membership == Membership(bytes.fromhex("02005e000201"), None, False)
    assert (configuration.edge.group, configuration.edge.virtual_mac) == (1, bytes.fromhex("02005e000201"))
    assert not configuration.warnings


def test_a_member_with_everything(tmp_path: Path) -> None:
    more = """
preference = -3
hello_interval_ms = 5
failure_factor = 4
start_wait_ms = 250
sync = "async"
preempt = true
hold_down_ms = 0
retransmission_ms = 7
announcements_per_second = 50
extensions = false
virtual_mac = "02:AA:00:00:00:07"
realtime = true
numbers = { hello = 200, digest = 201 }
arbiter = { endpoints = ["http://[2001:db8:e::e]:2379/", "http://etcd:2379"], lease_s = 3, prefix = "ha" }
"""
    configuration = loaded(tmp_path, GROUP + more, PEER + THIRD)
    group = configuration.group
    assert group is not None
    assert len(group.peers) == 2
    assert replace(group, peers=()) == replace(
        group,
        peers=(),
        preference=-3,
        hello_interval=0.005,
        failure_factor=4.0,
        start_wait=0.25,
        synchronous=False,
        preempt=True,
        hold_down=0.0,
        retransmission=0.007,
        announcements_per_second=50,
        arbiter=True,
        extensions=False,
        numbers=replace(DEFAULT, hello=200, digest=201),
    )
    endpoints = ("http://[2001:db8:e::e]:2379", "http://etcd:2379")
    assert configuration.membership == Membership(
        bytes.fromhex("02aa00000007"), ArbiterConfiguration(endpoints, 3, "ha"), True
    )


def test_without_a_virtual_mac_address(tmp_path: Path) -> None:
    assert loaded(tmp_path, GROUP + 'virtual_mac = "off"\n').edge.virtual_mac is None


def test_a_home_agent_alone_is_in_no_group(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "", "")
    assert (configuration.group, configuration.membership, configuration.edge.group) == (None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "id = 1",
            "id = 256",
            "group.id: is out of range (256); allowed: 0 to 255, the same on every member",
        ),
        ("member = 1", "member = 0", "group.member: is out of range (0); allowed: 1 to 255"),
        ("member = 1\n", "", "group.member: is missing; allowed: 1 to 255"),
        (
            "e::1",
            "a::1",
            "group.address: is the home agent's address; allowed: an address of this host",
        ),
        ("member = 2", "member = 1", "group.peer[0].member: is also in group; allowed: another number"),
        ("e::2", "e::1", "group.peer[0].address: is also in group; allowed: another address"),
        ("e::2", "a::1", "group.peer[0].address: is also in home_agent; allowed: another address"),
        ('"in"', '"out"', "group.peer[0].sa: is no pair; allowed: one SA in and one out"),
        (
            'direction = "in"',
            'direction = "in"\nuse = "harp"',
            "group.peer[0].sa[1].use: unknown key; allowed: direction, spi, encryption, integrity, "
            "encryption_key, integrity_key, keys, esn, window",
        ),
        (
            "member = 1",
            "member = 1\nhello_interval_ms = 4",
            "group.hello_interval_ms: is out of range (4); allowed: 5 to 60000 milliseconds",
        ),
        (
            "member = 1",
            'member = 1\nsync = "sometimes"',
            "group.sync: is not allowed ('sometimes'); allowed: ack, async",
        ),
        (
            "member = 1",
            'member = 1\nvirtual_mac = "03:00:5e:00:02:01"',
            "group.virtual_mac: is not the MAC address of an interface ('03:00:5e:00:02:01'); allowed: a "
            'unicast MAC address such as 02:00:5e:00:02:01, or "off"',
        ),
        (
            "member = 1",
            "member = 1\nnumbers = { hello = 5 }",
            "group.numbers: hello is 5, which binding registration uses; allowed: 0 to 255, not in use for "
            "anything else",
        ),
        (
            "member = 1",
            'member = 1\narbiter = { endpoints = ["https://etcd:2379"] }',
            "group.arbiter.endpoints[0]: is not an endpoint ('https://etcd:2379'); allowed: a list of at "
            "least one http://HOST:PORT of an etcd server",
        ),
        (KEY, KEY[2:], "group.peer[0].sa[0].encryption_key: has 19 octets for encryption; allowed: "),
    ],
)
def test_one_fault(tmp_path: Path, old: str, new: str, told: str) -> None:
    content = GROUP + PEER
    assert old in content
    (line,) = faults(tmp_path, content.replace(old, new, 1), "")
    assert line.startswith(told)


def test_peers_must_differ(tmp_path: Path) -> None:
    assert faults(tmp_path, peers=PEER + PEER) == [
        "group.peer[1].member: is also in group.peer[0]; allowed: another number",
        "group.peer[1].address: is also in group.peer[0]; allowed: another address",
        "group.peer[1].sa[1].spi: is also in group.peer[0].sa[1]; allowed: one inbound SA for each SPI",
    ]


def test_a_member_needs_another_one(tmp_path: Path) -> None:
    assert faults(tmp_path, peers="") == [
        "group.peer: is missing; allowed: at least one [[group.peer]] table"
    ]


def test_mobile_nodes_have_no_use_for_harp(tmp_path: Path) -> None:
    node = PEER.replace("group.peer", "mobile_node").replace("member = 2\n", "")
    node = node.replace("address =", "home_address =").replace("direction", 'use = "harp"\ndirection')
    (first, _) = faults(tmp_path, "", node)
    assert first == (
        "mobile_node[0].sa[0].use: is not one of the choices ('harp'); allowed: binding, signalling, prefix, "
        "return-routability, payload"
    )


def test_check_tells_about_the_set(tmp_path: Path) -> None:
    loaded(tmp_path)
    result = CliRunner().invoke(main, ["check", "-c", str(tmp_path / "ha.toml")])
    assert result.exit_code == 0
    assert "member 1 of group 1 at 2001:db8:e::1" in result.stdout
    assert "others: 2 at 2001:db8:e::2" in result.stdout


def test_two_files_for_one_process_must_not_share(tmp_path: Path) -> None:
    loaded(tmp_path)
    second = tmp_path / "second.toml"
    second.write_text((tmp_path / "ha.toml").read_text().replace('"ha.sock"', '"other.sock"'))
    second.chmod(0o600)
    result = CliRunner().invoke(main, ["run", "-c", str(tmp_path / "ha.toml"), "-c", str(second)])
    assert result.exit_code == 2
    told = [line.split(": ")[2] for line in result.stderr.splitlines()]
    assert told == [
        "home_agent.address",
        "home_agent.tun_name",
        "home_agent.state_dir",
        "group.id",
        "group.address",
    ]


def test_what_a_set_replicates_of_a_mobile_node_fits_a_message(tmp_path: Path) -> None:
    def node(prefixes: int) -> str:
        listed = ", ".join(f'"2001:db8:f:{index:x}::/64"' for index in range(prefixes))
        return f"""
[[mobile_node]]
home_address = "2001:db8:a::100"
mobile_network_prefixes = [{listed}]
"""

    assert loaded(tmp_path, peers=PEER + node(20)).parameters.mobile_nodes
    (fault,) = faults(tmp_path, peers=PEER + node(60))
    assert fault.startswith("mobile_node[0]")
    assert fault.endswith("at most 2016: fewer mobile network prefixes or SAs")
    alone = tmp_path / "alone.toml"
    alone.write_text(AGENT + node(60))
    assert load(alone).parameters.mobile_nodes


SECRET = "00112233445566778899aabbccddeeff"
IKE = """
[group.ike]
identity = "ha1.example"
"""
NEGOTIATED = """
[[group.peer]]
member = 2
address = "2001:db8:e::2"
ike = { identity = "ha2.example", keys = "two" }
"""


def with_secrets(directory: Path) -> str:
    """A group whose keys are in a file."""
    keys = directory / "keys"
    keys.touch(mode=0o600)
    keys.write_text(f'[two]\nsecret = "{SECRET}"\n[short]\nsecret = "0011"\n')
    return 'keys_file = "keys"\n' + GROUP


def with_certificates(directory: Path) -> str:
    """A group with certificates of its own."""
    authority, key = Authority(), new_ecdsa_key()
    write_key(directory / "key", key)
    (directory / "chain").write_bytes(pem(authority.issue("ha1.example", key)))
    (directory / "anchor").write_bytes(pem(authority.certificate))
    return GROUP + IKE + 'certificate = "chain"\nprivate_key = "key"\ntrust_anchors = ["anchor"]\n'


def test_a_peer_with_a_pre_shared_key_beside_one_with_manual_keys(tmp_path: Path) -> None:
    more = "ike_lifetime = 100\nchild_lifetime = 50\n"
    configuration = loaded(tmp_path, with_secrets(tmp_path) + IKE + more, NEGOTIATED + THIRD)
    group = configuration.group
    assert group is not None
    assert group.ike is not None
    assert [len(each.associations) for each in group.peers] == [0, 2]
    (peer,) = group.ike.peers
    assert (peer.name, peer.address) == ("member 2", (address("2001:db8:e::2"), 500))
    assert (peer.local, peer.remote) == (Identity(2, b"ha1.example"), Identity(2, b"ha2.example"))
    assert peer.psk == bytes.fromhex(SECRET)
    (child,) = peer.children
    own, other = address("2001:db8:e::1"), address("2001:db8:e::2")
    assert (child.use, child.local, child.remote) == (
        Use.HARP,
        (Scope(MOBILITY, None, own, own),),
        (Scope(MOBILITY, None, other, other),),
    )
    timing = group.ike.timing
    assert (timing.ike_lifetime, timing.child_lifetime) == (100.0, 50.0)
    assert not group.ike.mobike
    assert SECRET not in repr(configuration)
    # Our own mobile nodes are another matter.
    assert configuration.parameters.ike is None


def test_peers_with_certificates(tmp_path: Path) -> None:
    peers = NEGOTIATED.replace(', keys = "two"', "")
    content = with_certificates(tmp_path)
    group = loaded(tmp_path, content, peers).group
    # What is read again at SIGHUP is the same, if nobody has changed it.
    assert loaded(tmp_path, content, peers).group == group
    assert loaded(tmp_path, with_certificates(tmp_path), peers).group != group
    assert group is not None
    assert group.ike is not None
    (peer,) = group.ike.peers
    assert peer.psk is None
    assert peer.private_key is not None
    assert peer.trust is not None
    assert len(peer.chain) == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (IKE, "", "group.peer[0].ike: needs a table [group.ike]; allowed: our own identity there"),
        (
            "ike = {",
            f"sa = [{{ direction = 'in', spi = 800, encryption = 'aes-gcm-16', encryption_key = '{KEY}' }}]\n"
            "ike = {",
            "group.peer[0].ike: stands beside [[group.peer.sa]]; allowed: one of both",
        ),
        (
            'ike = { identity = "ha2.example", keys = "two" }',
            "",
            "group.peer[0].sa: is missing; allowed: [[group.peer.sa]] tables, one in and one out, or a table "
            "[group.peer.ike]",
        ),
        (
            "ha2.example",
            "ha1.example",
            "group.peer[0].ike.identity: is also in group.ike; allowed: one identity for each member",
        ),
        (
            'identity = "ha2.example", ',
            "",
            "group.peer[0].ike.identity: is missing; allowed: a domain name, ",
        ),
        ('"two"', '"three"', "group.peer[0].ike.keys: names no keys; allowed: a name in "),
        (
            '"two"',
            '"short"',
            "group.peer[0].ike.keys: names no secret; allowed: at least 16 octets as secret",
        ),
        (
            ', keys = "two"',
            "",
            "group.peer[0].ike.keys: is missing; allowed: a name in keys_file, or absent where certificates "
            "speak: certificate, private_key and trust_anchors in [group.ike]",
        ),
        (
            '[group.ike]\nidentity = "ha1.example"',
            "[group.ike]",
            "group.ike.identity: is missing; allowed: a domain name, ",
        ),
        (
            '[group.ike]\nidentity = "ha1.example"',
            '[group.ike]\nidentity = "ha1.example"\nchild_lifetime = 9',
            "group.ike.child_lifetime: is out of range (9); allowed: 10 to 604800 seconds",
        ),
        (
            '[group.ike]\nidentity = "ha1.example"',
            '[group.ike]\nidentity = "ha1.example"\nproposals = ["aes-gcm-16-128"]',
            "group.ike.proposals[0]: cannot be offered (",
        ),
    ],
)
def test_one_fault_with_ike(tmp_path: Path, old: str, new: str, told: str) -> None:
    content = with_secrets(tmp_path) + IKE + NEGOTIATED
    assert old in content
    (line,) = faults(tmp_path, content.replace(old, new, 1), "")
    assert line.startswith(told)


def test_whoever_has_a_certificate_is_no_member(tmp_path: Path) -> None:
    peers = NEGOTIATED.replace('ike = { identity = "ha2.example", keys = "two" }', "ike = {}")
    (line,) = faults(tmp_path, with_certificates(tmp_path), peers)
    assert line.startswith("group.peer[0].ike.identity: is missing; allowed: a domain name, ")


def test_two_peers_of_one_identity_or_number(tmp_path: Path) -> None:
    content = with_secrets(tmp_path) + IKE
    other = NEGOTIATED.replace("member = 2", "member = 3").replace("e::2", "e::3")
    (line,) = faults(tmp_path, content, NEGOTIATED + other)
    assert line == (
        "group.peer[1].ike.identity: is also in group.peer[0].ike; allowed: one identity for each member"
    )
    other = NEGOTIATED.replace("ha2", "ha3").replace("e::2", "e::3")
    (line,) = faults(tmp_path, content, NEGOTIATED + other)
    assert line == "group.peer[1].member: is also in group.peer[0]; allowed: another number"


def test_a_chain_that_fits_into_no_message(tmp_path: Path) -> None:
    content = with_certificates(tmp_path)
    chain = tmp_path / "chain"
    chain.write_bytes(chain.read_bytes() * 50)
    (line,) = faults(tmp_path, content, NEGOTIATED.replace(', keys = "two"', ""))
    assert line.startswith(
        "group.peer[0].ike: member 2: certificates of more than 16384 octets in all; allowed: "
    )
