"""What the lab writes for strongSwan and for the home agents that it talks to."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from netnslab.client_network import (
    CARE_OF_ADDRESS,
    CLIENT_NAME,
    HOME_AGENT_NAME,
    Credentials,
    Suite,
    client_topology,
    load,
    negotiate,
)
from netnslab.redundant_network import SetParameters, new_keys, redundant_topology, write_member
from netnslab.strongswan import Charon, LogLine, Settings, read_log, text
from netnslab.timeline import Timeline

from mip6ha import config
from mip6ha.ipsec.ike.parameters import Peer
from mip6ha.ipsec.policy import Use

KINDS = ["psk", "rsa", "ecdsa"]


def members(directory: Path, credentials: Credentials) -> list[config.Configuration]:
    keys = new_keys(2, ())
    found = []
    for identity in (1, 2):
        path, _ = write_member(directory, directory, identity, SetParameters(), keys)
        negotiate(path, credentials, directory / "wireshark", child_lifetime=20)
        found.append(config.load(path))
    return found


def peer(configuration: config.Configuration) -> Peer:
    assert configuration.parameters.ike is not None
    (found,) = configuration.parameters.ike.peers
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_members_accept_a_client_without_mobile_ipv6(tmp_path: Path, kind: str) -> None:
    credentials = Credentials.new(kind)
    for each in members(tmp_path, credentials):
        found = peer(each)
        (node,) = each.parameters.mobile_nodes
        assert (node.client, node.negotiated) == (True, (Use.PAYLOAD,))
        assert (str(found.local), str(found.remote)) == (HOME_AGENT_NAME, CLIENT_NAME)
        assert found.psk == (bytes.fromhex(credentials.secret) if kind == "psk" else None)
        assert (found.private_key is not None, found.trust is not None) == (kind != "psk",) * 2
        assert each.edge.key_log == tmp_path / "wireshark"
        assert each.parameters.ike is not None
        assert each.parameters.ike.timing.child_lifetime == 20.0
        assert each.group is not None
    for name in ("ha1", "ha2"):
        assert not credentials.secret or credentials.secret not in (tmp_path / f"{name}.toml").read_text()
        assert (tmp_path / f"{name}.keys").stat().st_mode & 0o777 == 0o600


def test_every_run_has_credentials_of_its_own() -> None:
    assert Credentials.new("psk").secret != Credentials.new("psk").secret
    assert "secret" not in repr(Credentials.new("psk"))
    first, second = (Credentials.new("ecdsa").authority for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.certificate != second.certificate


class Unstarted(Charon):
    """It notes what it would be told."""

    def load(self, connections: Settings, secrets: Settings) -> None:
        self.told = text(connections), text(secrets)


@pytest.mark.parametrize("kind", KINDS)
def test_strongswan_is_told_of_its_home_agent(tmp_path: Path, kind: str) -> None:
    charon = Unstarted(tmp_path / "charon", tmp_path, Timeline(), {"retransmit_tries": 2})
    credentials = Credentials.new(kind)
    load(charon, credentials, Suite("aes128gcm16-prfsha256-x25519", "aes128gcm16"))
    connection, secrets = charon.told
    for line in (f"local_addrs = {CARE_OF_ADDRESS}", "remote_ts = ::/0", f"id = {HOME_AGENT_NAME}"):
        assert line in connection
    assert bool(secrets) == (kind == "psk") == ("auth = psk" in connection)
    assert credentials.secret in secrets
    assert credentials.secret not in connection or not credentials.secret
    assert "retransmit_tries = 2" in (tmp_path / "charon" / "strongswan.conf").read_text()
    own = tmp_path / "charon" / "x509" / "own.pem"
    assert own.exists() == (kind != "psk")
    if kind == "psk":
        return
    names = x509.load_pem_x509_certificate(own.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == [CLIENT_NAME]
    assert (tmp_path / "charon" / "private" / "own.key").stat().st_mode & 0o777 == 0o600


def test_the_client_is_where_the_mobile_node_was() -> None:
    ours, theirs = redundant_topology(2), client_topology(2)
    assert [each.name for each in theirs.nodes] == [each.name for each in ours.nodes]
    (cable,) = (each for each in theirs.attachments if each.node == "mn")
    assert (cable.link, cable.addresses) == ("foreign1", (f"{CARE_OF_ADDRESS}/64",))
    assert len(theirs.attachments) == len(ours.attachments)


def test_lines_of_a_log() -> None:
    log = "1700000000.250 05[IKE] sending DPD request\ngarbage\n1700000001.000 00[DMN] SIGTERM received\n"
    assert read_log(log) == [
        LogLine(1700000000.25, "[IKE] sending DPD request"),
        LogLine(1700000001.0, "[DMN] SIGTERM received"),
    ]
