"""Configurations: what a good one becomes, and what people are told about bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from mip6ha.cli import main
from mip6ha.config import ConfigError, derived_keys, load
from mip6ha.ipsec.algorithms import transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.wire import address

KEY = "d1c2b3a4958677685940312213f4e5d6c7b8a990"
OTHER_KEY = "00112233445566778899aabbccddeeff00112233"

GOOD = f"""
[home_agent]
address = "2001:db8:a::1"
home_link = "eth0"
home_prefixes = ["2001:db8:a::/64"]
control_socket = "ha.sock"
state_dir = "state"

[[mobile_node]]
name = "mn1"
home_address = "2001:db8:a::100"

[[mobile_node.sa]]
use = "binding"
direction = "in"
spi = 0x2000
encryption = "aes-gcm-16"
encryption_key = "{KEY}"

[[mobile_node.sa]]
use = "binding"
direction = "out"
spi = 0x2001
encryption = "aes-gcm-16"
encryption_key = "{OTHER_KEY}"
"""

POOL = f"""
[[mobile_node_pool]]
first_home_address = "2001:db8:a::1:0"
count = 3
first_spi = 0x10000
encryption = "aes-cbc"
integrity = "hmac-sha2-256-128"
secret = "{KEY}"
"""


def write(directory: Path, content: str, keys: str | None = None, mode: int = 0o600) -> Path:
    path = directory / "ha.toml"
    path.write_text(content)
    path.chmod(0o600)
    if keys is not None:
        (directory / "ha.keys").write_text(keys)
        (directory / "ha.keys").chmod(mode)
    return path


def replaced(old: str, new: str, content: str = GOOD) -> str:
    assert old in content
    return content.replace(old, new, 1)


def with_keys_file(content: str, name: str = "mn1") -> str:
    content = replaced("[home_agent]", '[home_agent]\nkeys_file = "ha.keys"', content)
    return replaced(f'encryption_key = "{KEY}"', f'keys = "{name}"', content)


def test_a_good_configuration_becomes_parameters(tmp_path: Path) -> None:
    configuration = load(write(tmp_path, GOOD))
    parameters = configuration.parameters
    assert parameters.address == address("2001:db8:a::1")
    assert not parameters.virtual_home_link
    assert parameters.duplicate_address_detection
    assert [(prefix.prefix, prefix.length) for prefix in parameters.home_prefixes] == [
        (address("2001:db8:a::"), 64)
    ]
    (node,) = parameters.mobile_nodes
    assert (node.name, node.home_address) == ("mn1", address("2001:db8:a::100"))
    inbound, outbound = node.associations
    assert (inbound.spi, inbound.direction, inbound.use) == (0x2000, Direction.IN, Use.BINDING)
    assert inbound.transform is transform("aes-gcm-16")
    assert inbound.keys.encryption == bytes.fromhex(KEY)
    assert outbound.direction is Direction.OUT
    edge = configuration.edge
    assert (edge.home_link, edge.tun_name) == ("eth0", "mip6ha")
    assert (edge.control_socket, edge.state_dir) == (tmp_path / "ha.sock", tmp_path / "state")
    assert configuration.warnings == ()


def test_without_a_home_link_it_is_virtual(tmp_path: Path) -> None:
    parameters = load(write(tmp_path, replaced('home_link = "eth0"\n', ""))).parameters
    assert parameters.virtual_home_link
    assert not parameters.duplicate_address_detection


def test_keys_come_from_their_own_file(tmp_path: Path) -> None:
    path = write(tmp_path, with_keys_file(GOOD), f'[mn1]\nencryption = "{KEY}"\n')
    assert load(path).parameters.mobile_nodes[0].associations[0].keys.encryption == bytes.fromhex(KEY)


def test_prefixes_peers_and_authentication(tmp_path: Path) -> None:
    content = replaced(
        'home_prefixes = ["2001:db8:a::/64"]',
        """home_prefixes = ["2001:db8:a::/64", { prefix = "2001:db8:b::/64", valid = 600, preferred = 300 }]
home_agents = [{ address = "2001:db8:a::2", preference = -5 }]""",
    )
    content = replaced(
        'home_address = "2001:db8:a::100"',
        f"""home_address = "2001:db8:a::100"
mobile_network_prefixes = ["2001:db8:100::/56"]
authentication = {{ spi = 256, key = "{KEY}" }}""",
        content,
    )
    parameters = load(write(tmp_path, content)).parameters
    second = parameters.home_prefixes[1]
    assert (second.length, second.valid, second.preferred) == (64, 600, 300)
    assert parameters.home_agents[0].preference == -5
    node = parameters.mobile_nodes[0]
    assert node.prefixes == ((address("2001:db8:100::"), 56),)
    assert node.authentication is not None
    assert node.authentication.key == bytes.fromhex(KEY)


def test_a_pool_makes_a_pair_of_associations_for_each_mobile_node(tmp_path: Path) -> None:
    nodes = load(write(tmp_path, GOOD + POOL)).parameters.mobile_nodes[1:]
    assert [node.home_address for node in nodes] == [address(f"2001:db8:a::1:{i}") for i in range(3)]
    assert [(sa.spi, sa.direction) for sa in nodes[2].associations] == [
        (0x10004, Direction.IN),
        (0x10005, Direction.OUT),
    ]
    keys = {sa.keys for node in nodes for sa in node.associations}
    assert len(keys) == 6
    protection = transform("aes-cbc", "hmac-sha2-256-128")
    expected = derived_keys(bytes.fromhex(KEY), nodes[0].home_address, 0x10000, protection)
    assert nodes[0].associations[0].keys == expected
    assert (len(expected.encryption), len(expected.integrity)) == (16, 32)


def test_what_is_allowed_but_odd_is_a_warning(tmp_path: Path) -> None:
    content = replaced("2001:db8:a::100", "2001:db8:ffff::100")
    (warning,) = load(write(tmp_path, content)).warnings
    assert warning.startswith("mobile_node[0]:")
    assert "132" in warning
    path = write(tmp_path, GOOD)
    path.chmod(0o644)
    (warning,) = load(path).warnings
    assert "0600" in warning


SECOND_NODE = """
[[mobile_node]]
home_address = "2001:db8:a::101"
"""
FOURTH = f"""
[[mobile_node]]
home_address = "2001:db8:a::102"
[[mobile_node.sa]]
use = "binding"
direction = "in"
spi = 255
encryption = "aes-gcm-16"
encryption_key = "{KEY}"
"""


class Broken(NamedTuple):
    """A configuration, the key that the message must name, and what it must say is allowed."""

    content: str
    key: str
    allowed: str
    keys: str | None = None
    mode: int = 0o600


BROKEN = {
    "not TOML": Broken("[home_agent\n", "ha.toml", "TOML"),
    "empty": Broken("", "home_agent", "[home_agent]"),
    "no address": Broken(replaced('address = "2001:db8:a::1"\n', ""), "home_agent.address", "IPv6 address"),
    "no address at all": Broken(replaced("2001:db8:a::1", "nowhere"), "home_agent.address", "IPv6 address"),
    "multicast": Broken(replaced("2001:db8:a::1", "ff02::1"), "home_agent.address", "unicast"),
    "host bits": Broken(replaced("a::/64", "a::1/64"), "home_agent.home_prefixes[0].prefix", "/64"),
    "no prefix": Broken(replaced('["2001:db8:a::/64"]', "[]"), "home_agent.home_prefixes", "at least one"),
    "lifetime": Broken(
        replaced("[home_agent]", "[home_agent]\nmax_lifetime = 300000"),
        "home_agent.max_lifetime",
        "4 to 262140",
    ),
    "type": Broken(
        replaced("[home_agent]", '[home_agent]\nmax_bindings = "many"'),
        "home_agent.max_bindings",
        "1 to 10000000",
    ),
    "dataplane": Broken(
        replaced("[home_agent]", '[home_agent]\ndataplane = "magic"'),
        "home_agent.dataplane",
        "allowed: tun, kernel",
    ),
    "half protected": Broken(
        replaced("[home_agent]", '[home_agent]\ndataplane = "kernel"').replace(
            '"binding"', '"return-routability"'
        ),
        "mobile_node[0].sa",
        "return-routability but not payload",
    ),
    "boolean": Broken(
        replaced("[home_agent]", "[home_agent]\nduplicate_address_detection = 1"),
        "home_agent.duplicate_address_detection",
        "true, false",
    ),
    "unknown key": Broken(replaced("state_dir", "statedir"), "home_agent.statedir", "state_dir"),
    "use": Broken(replaced('"binding"', '"bindings"'), "mobile_node[0].sa[0].use", "signalling"),
    "direction": Broken(replaced('"in"', '"inbound"'), "mobile_node[0].sa[0].direction", "in, out"),
    "spi": Broken(GOOD + SECOND_NODE + FOURTH, "mobile_node[2].sa[0].spi", "256 to 4294967295"),
    "encryption": Broken(
        replaced('"aes-gcm-16"', '"des"'), "mobile_node[0].sa[0].encryption", "chacha20-poly1305"
    ),
    "no integrity": Broken(
        replaced('"aes-gcm-16"', '"aes-cbc"'), "mobile_node[0].sa[0].integrity", "hmac-sha2-256-128"
    ),
    "short key": Broken(
        replaced(KEY, KEY[:-2]), "mobile_node[0].sa[0].encryption_key", "20 or 28 or 36 octets"
    ),
    "key with a typing error": Broken(
        replaced(KEY, KEY + "xy"), "mobile_node[0].sa[0].encryption_key", "hexadecimal"
    ),
    "key under the wrong name": Broken(
        replaced('encryption = "aes-gcm-16"', f'encryption = "{KEY}"'),
        "mobile_node[0].sa[0].encryption",
        "aes-gcm-16",
    ),
    "key as an address": Broken(
        replaced('home_address = "2001:db8:a::100"', f'home_address = "{KEY}"'),
        "mobile_node[0].home_address",
        "IPv6 address",
    ),
    "key as an unknown key's value": Broken(
        replaced("encryption_key", "encription_key"), "mobile_node[0].sa[0].encription_key", "encryption_key"
    ),
    "key and key file": Broken(
        replaced(f'key = "{KEY}"', f'key = "{KEY}"\nkeys = "mn1"'),
        "mobile_node[0].sa[0].keys",
        "keys, or encryption_key",
    ),
    "replay window": Broken(
        replaced("spi = 0x2000", "spi = 0x2000\nwindow = 32"), "mobile_node[0].sa[0].window", "64 to 65536"
    ),
    "home address twice": Broken(
        GOOD + SECOND_NODE.replace("101", "100"), "mobile_node[1].home_address", "one mobile node for each"
    ),
    "own address": Broken(
        GOOD + SECOND_NODE.replace("101", "1"), "mobile_node[1].home_address", "another address"
    ),
    "SPI twice": Broken(
        GOOD + FOURTH.replace("spi = 255", "spi = 0x2000"), "mobile_node[1].sa[0].spi", "one inbound SA"
    ),
    "pool over a mobile node": Broken(
        GOOD + POOL.replace("a::1:0", "a::ff"),
        "mobile_node_pool[0].first_home_address",
        "one mobile node for each",
    ),
    "pool over an SPI": Broken(
        GOOD + POOL.replace("0x10000", "0x1ffe"), "mobile_node_pool[0].first_spi", "one inbound SA"
    ),
    "pool without room": Broken(
        GOOD + POOL.replace("0x10000", "0xffffffff"), "mobile_node_pool[0].first_spi", "256 to 4294967290"
    ),
    "pool without secret": Broken(
        GOOD + replaced(f'secret = "{KEY}"\n', "", POOL), "mobile_node_pool[0].secret", "at least 16 octets"
    ),
    "no keys file": Broken(with_keys_file(GOOD), "ha.keys", "0600"),
    "open keys file": Broken(
        with_keys_file(GOOD), "ha.keys: has mode 0640", "0600", f'[mn1]\nencryption = "{KEY}"\n', 0o640
    ),
    "unknown name": Broken(
        with_keys_file(GOOD, "mn2"), "mobile_node[0].sa[0].keys", "mn1", f'[mn1]\nencryption = "{KEY}"\n'
    ),
    "key as a name": Broken(
        with_keys_file(GOOD, KEY), "mobile_node[0].sa[0].keys", "mn1", f'[mn1]\nencryption = "{KEY}"\n'
    ),
    "bad key in the keys file": Broken(
        with_keys_file(GOOD), "mn1.encryption", "hexadecimal", f'[mn1]\nencryption = "{KEY}x"\n'
    ),
    "short key in the keys file": Broken(
        with_keys_file(GOOD),
        "mobile_node[0].sa[0].keys",
        "20 or 28 or 36 octets",
        f'[mn1]\nencryption = "{KEY[:-2]}"\n',
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_configuration_is_explained(tmp_path: Path, broken: Broken) -> None:
    path = write(tmp_path, broken.content, broken.keys, broken.mode)
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if broken.key in line]
    assert len(lines) == 1, result.stderr
    assert str(tmp_path) in lines[0]
    assert "allowed: " in lines[0]
    assert broken.allowed in lines[0]
    assert "Traceback" not in result.output
    for material in (KEY, OTHER_KEY):
        assert material[:16] not in result.output


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "-c", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "none.toml: No such file" in result.stderr


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    content = replaced('"in"', '"inbound"', replaced("0x2001", "1"))
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, content))
    assert len(caught.value.lines) == 2
