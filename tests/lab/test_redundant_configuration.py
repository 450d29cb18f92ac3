"""The files that the lab writes for the members of a set and for a fleet, and their network."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from netnslab.daemons import new_associations
from netnslab.injection import replay
from netnslab.packets import Captured
from netnslab.redundant_network import (
    ACCESS_ROUTERS,
    VIRTUAL_MAC,
    SetKeys,
    SetParameters,
    member_address,
    new_keys,
    redundant_topology,
    write_fleet,
    write_member,
)
from netnslab.topology import NAMESPACE_DIRECTORY, Attachment, Network, Node, Topology, port_name

from mip6ha import config, mobile_config
from mip6ha.ipsec.policy import Direction
from mip6ha.wire import address


def keys(members: int) -> SetKeys:
    return new_keys(members, new_associations(("binding", "payload"), 0x2000))


@pytest.mark.parametrize("members", [2, 3])
def test_members_accept_their_configurations_and_share_keys(tmp_path: Path, members: int) -> None:
    parameters = SetParameters(members=members, contexts=11, hello_interval_ms=20)
    made = keys(members)
    loaded = {}
    for identity in range(1, members + 1):
        path, control_socket = write_member(tmp_path, tmp_path, identity, parameters, made)
        found = config.load(path)
        assert found.edge.control_socket == control_socket
        assert len(found.parameters.mobile_nodes) == 11
        assert found.group is not None
        assert found.membership is not None
        assert found.membership.arbiter is None
        assert found.membership.virtual_mac == bytes.fromhex(VIRTUAL_MAC.replace(":", ""))
        assert (found.group.identity, found.group.address) == (identity, address(member_address(identity)))
        assert found.group.hello_interval == 0.02
        loaded[identity] = found.group
    for group in loaded.values():
        assert {peer.identity for peer in group.peers} == loaded.keys() - {group.identity}
        for peer in group.peers:
            ours = {sa.direction: sa for sa in peer.associations}
            back = next(each for each in loaded[peer.identity].peers if each.identity == group.identity)
            theirs = {sa.direction: sa for sa in back.associations}
            assert ours[Direction.OUT].keys == theirs[Direction.IN].keys
            assert ours[Direction.OUT].spi == theirs[Direction.IN].spi
            assert ours[Direction.OUT].keys != ours[Direction.IN].keys


def test_arbiter_is_configured_with_a_lease(tmp_path: Path) -> None:
    path, _ = write_member(tmp_path, tmp_path, 1, SetParameters(members=3, lease_s=2), keys(3))
    membership = config.load(path).membership
    assert membership is not None
    assert membership.arbiter is not None
    assert membership.arbiter.lease == 2


def test_spis_of_the_fleet_are_those_of_its_pool(tmp_path: Path) -> None:
    parameters = SetParameters(contexts=4)
    member = config.load(write_member(tmp_path, tmp_path, 1, parameters, keys(2))[0])
    spis = {
        sa.spi for node in member.parameters.mobile_nodes if node.name != "mn1" for sa in node.associations
    }
    assert {spi for spi in range(min(spis) - 2, max(spis) + 3) if parameters.is_fleet(spi)} == spis
    assert not SetParameters().is_fleet(min(spis))


def test_fleet_is_the_pool_of_the_members(tmp_path: Path) -> None:
    parameters, made = SetParameters(contexts=4), keys(2)
    fleet = mobile_config.load_load(write_fleet(tmp_path, tmp_path, parameters, made))
    member = config.load(write_member(tmp_path, tmp_path, 1, parameters, made)[0])
    pool = [node for node in member.parameters.mobile_nodes if node.name != "mn1"]
    assert fleet.count == len(pool) == 3
    assert fleet.first_home_address == pool[0].home_address
    assert {sa.spi for sa in pool[0].associations} == {fleet.first_spi, fleet.first_spi + 1}


def test_keys_are_private_and_in_no_configuration(tmp_path: Path) -> None:
    made, parameters = keys(2), SetParameters(contexts=2)
    write_member(tmp_path, tmp_path, 1, parameters, made)
    write_fleet(tmp_path, tmp_path, parameters, made)
    secrets = [made.fleet_secret, *(each.encryption_key for each in (*made.mobile, *made.harp))]
    for path in tmp_path.iterdir():
        if path.suffix == ".keys":
            assert path.stat().st_mode & 0o777 == 0o600
        else:
            assert not any(secret in path.read_text() for secret in secrets)
    assert not any(secret in repr(made) for secret in secrets)
    assert len({key.spi for key in made.esp_keys()}) == len(made.esp_keys())


@pytest.mark.parametrize(("members", "etcd"), [(2, False), (3, True)])
def test_topology_is_consistent(members: int, etcd: bool) -> None:
    topology = redundant_topology(members, etcd=etcd)
    nodes = [node.name for node in topology.nodes]
    assert len(set(nodes)) == len(nodes)
    assert ("etcd" in nodes) is etcd
    ports = [port_name(each.node, each.interface) for each in topology.attachments]
    assert len(set(ports)) == len(ports)
    assert all(len(port) <= 15 for port in ports)
    assert all(each.link is None or each.link in topology.links for each in topology.attachments)
    assert {each.node for each in (*topology.attachments, *ACCESS_ROUTERS)} <= set(nodes)
    addresses = [each for attachment in topology.attachments for each in attachment.addresses]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.netns
def test_replayed_frame_leaves_where_it_left_before() -> None:
    wire = Topology(
        ("wire",),
        (Node("one"), Node("two")),
        (
            Attachment("one", "eth0", "wire", ("2001:db8::1/64",)),
            Attachment("two", "eth0", "wire", ("2001:db8::2/64",)),
        ),
    )
    with Network(wire, f"t{os.getpid()}r") as network:

        def received() -> int:
            return int(network.execute("two", "cat", "/sys/class/net/eth0/statistics/rx_packets"))

        before = received()
        frame = b"\xff" * 6 + bytes.fromhex("02000000000186dd60000000000c3bff") + bytes(44)
        namespace = NAMESPACE_DIRECTORY / network.namespace("one")
        end = time.monotonic() + 5
        # A bridge's port forwards a moment after it has come up.
        while received() < before + 20 and time.monotonic() < end:
            assert replay(namespace, "eth0", [Captured(0.0, frame)] * 20) == 20
            time.sleep(0.05)
        assert received() >= before + 20
