"""The files that the lab writes for others to read: the daemons, radvd, tshark."""

from __future__ import annotations

import tomllib
from pathlib import Path

from netnslab.daemons import key_file_text, new_associations
from netnslab.dissection import EspKey, esp_sa_line, write_wireshark_directory
from netnslab.mobility_network import ADVERTISERS, MOBILITY_TOPOLOGY, write_home_agent, write_mobile_node
from netnslab.routers import Advertiser, radvd_configuration
from netnslab.topology import FIRST_PORT_INDEX, port_name

from mip6ha import config, mobile_config
from mip6ha.ipsec.policy import Direction


def test_both_daemons_accept_their_configuration_and_hold_the_same_keys(tmp_path: Path) -> None:
    associations = new_associations(("binding", "prefix"), 0x2000)
    home_agent_file, control_socket = write_home_agent(
        tmp_path, tmp_path, associations, dataplane="tun", dad=True
    )
    mobile_node_file, events = write_mobile_node(tmp_path, tmp_path, associations)
    home_agent = config.load(home_agent_file)
    mobile_node = mobile_config.load(mobile_node_file)
    assert home_agent.edge.control_socket == control_socket
    assert home_agent.parameters.duplicate_address_detection
    assert mobile_node.edge.events == events
    theirs = {sa.spi: sa for sa in home_agent.parameters.mobile_nodes[0].associations}
    ours = {sa.spi: sa for sa in mobile_node.parameters.associations}
    assert theirs.keys() == ours.keys() == {0x2000, 0x2001, 0x2002, 0x2003}
    for spi, association in ours.items():
        assert association.keys == theirs[spi].keys
        assert association.use == theirs[spi].use
        assert {association.direction, theirs[spi].direction} == {Direction.IN, Direction.OUT}
    assert ours[0x2000].direction is Direction.OUT


def test_keys_are_private_and_new_each_time(tmp_path: Path) -> None:
    first, second = (new_associations(("binding",), 0x2000) for _ in range(2))
    assert {sa.encryption_key for sa in first}.isdisjoint({sa.encryption_key for sa in second})
    assert first[0].encryption_key not in repr(first)
    write_mobile_node(tmp_path, tmp_path, first)
    write_wireshark_directory(tmp_path / "wireshark", [sa.esp_key() for sa in first])
    for private in (tmp_path / "mn.keys", tmp_path / "wireshark" / "esp_sa"):
        assert private.stat().st_mode & 0o777 == 0o600
    assert first[0].encryption_key not in (tmp_path / "mn.toml").read_text()


def test_key_file_is_toml() -> None:
    associations = new_associations(("binding",), 0x2000)
    assert tomllib.loads(key_file_text(associations)) == {
        "binding-update": {"encryption": associations[0].encryption_key},
        "binding-answer": {"encryption": associations[1].encryption_key},
    }


def test_tshark_keys() -> None:
    assert esp_sa_line(EspKey(0x2000, "aes-gcm-16", "00ff")) == (
        '"IPv6","*","*","0x00002000","AES-GCM with 16 octet ICV [RFC4106]","0x00ff","NULL",""'
    )
    assert esp_sa_line(EspKey(1, "aes-cbc", "aa", "hmac-sha2-256-128", "bb")) == (
        '"IPv6","*","*","0x00000001","AES-CBC [RFC3602]","0xaa","HMAC-SHA-256-128 [RFC4868]","0xbb"'
    )


def test_routers_advertise_at_the_rates_for_mobile_nodes() -> None:
    text = radvd_configuration(Advertiser("ar1", "eth0", "2001:db8:b::/64"))
    for line in ("MinRtrAdvInterval 0.03;", "MaxRtrAdvInterval 0.07;", "MinDelayBetweenRAs 0.03;"):
        assert line in text
    assert "AdvHomeAgentFlag off;" in text
    assert "AdvRouterAddr off;" in text


def test_home_agent_advertises_itself_but_is_nobodys_router() -> None:
    text = radvd_configuration(next(each for each in ADVERTISERS if each.home_agent))
    for line in ("AdvHomeAgentFlag on;", "AdvDefaultLifetime 0;", "AdvHomeAgentInfo on;"):
        assert line in text
    assert "prefix 2001:db8:a::1/64 { AdvAutonomous on; AdvRouterAddr on; };" in text


def test_topology_is_consistent() -> None:
    nodes = {node.name for node in MOBILITY_TOPOLOGY.nodes}
    for attachment in MOBILITY_TOPOLOGY.attachments:
        assert attachment.node in nodes
        assert attachment.link is None or attachment.link in MOBILITY_TOPOLOGY.links
        assert len(port_name(attachment.node, attachment.interface)) <= 15
    assert len(MOBILITY_TOPOLOGY.attachments) < FIRST_PORT_INDEX
    assert {each.node for each in ADVERTISERS} <= nodes
