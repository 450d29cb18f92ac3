"""A client that knows nothing of Mobile IPv6, in the place of the mobile node: strongSwan, whose tunnel from
a fixed care-of address to a redundant set of home agents is its registration.

Covered: addresses, credentials of both ends, their configuration. Not covered: what happens (`scenarios`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .certificates import Authority, PrivateKey, new_ecdsa_key, new_rsa_key, pem, write_key
from .daemons import toml_text
from .mobility_network import FOREIGN1_PREFIX, HOME_ADDRESS, HOME_AGENT
from .redundant_network import redundant_topology
from .strongswan import Charon, Settings
from .topology import Attachment, Node, Topology

__all__ = [
    "CARE_OF_ADDRESS",
    "CHILD",
    "CONNECTION",
    "Credentials",
    "Suite",
    "client_topology",
    "load",
    "negotiate",
]

CARE_OF_ADDRESS = "2001:db8:b::c"
CONNECTION, CHILD = "home", "tunnel"
HOME_AGENT_NAME, CLIENT_NAME = "ha.lab.example", "mn1.lab.example"
SECRET_SIZE = 32
# Seconds of silence after which charon asks whether the home agent is there.
DEAD_PEER_DETECTION = 1


def client_topology(members: int) -> Topology:
    """A redundant set whose mobile node stays on the first foreign link, with an address by hand."""
    made = redundant_topology(members)
    client = Node("mn", routes=(f"default via {FOREIGN1_PREFIX.removesuffix('/64')}1",))
    cable = Attachment("mn", "eth0", "foreign1", (f"{CARE_OF_ADDRESS}/64",))
    return replace(
        made,
        nodes=tuple(client if each.name == "mn" else each for each in made.nodes),
        attachments=tuple(cable if each.node == "mn" else each for each in made.attachments),
    )


@dataclass(frozen=True, slots=True)
class Suite:
    """What both ends are to agree on, in strongSwan's words."""

    ike: str
    esp: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the ends prove who they are: a secret of both, or keys with certificates of one authority."""

    kind: str
    secret: str = field(repr=False)
    authority: Authority | None = field(default=None, repr=False)
    keys: Mapping[str, PrivateKey] = field(default_factory=dict, repr=False)

    @classmethod
    def new(cls, kind: str) -> Credentials:
        """Fresh ones: "psk", "rsa" or "ecdsa"."""
        if kind == "psk":
            return cls(kind, secrets.token_hex(SECRET_SIZE))
        make = new_rsa_key if kind == "rsa" else new_ecdsa_key
        return cls(kind, "", Authority(), {name: make() for name in (HOME_AGENT_NAME, CLIENT_NAME)})

    def write(self, name: str, certificate: Path, key: Path, anchor: Path) -> None:
        """Write somebody's certificate and key, and the authority's certificate."""
        if self.authority is None:
            return
        for path in (certificate, key, anchor):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        certificate.write_bytes(pem(self.authority.issue(name, self.keys[name])))
        write_key(key, self.keys[name])
        anchor.write_bytes(pem(self.authority.certificate))


def negotiate(
    configuration: Path, credentials: Credentials, key_log: Path, *, child_lifetime: int | None = None
) -> None:
    """Have a member of the set negotiate with the client; `child_lifetime` is in seconds."""
    directory = configuration.parent
    peer: dict[str, object] = {"identity": CLIENT_NAME, "client": True}
    ike: dict[str, object] = {"identity": HOME_AGENT_NAME, "key_log": str(key_log)}
    ike |= {} if child_lifetime is None else {"child_lifetime": child_lifetime}
    if credentials.authority is None:
        peer["keys"] = "client"
        keys = configuration.with_suffix(".keys")
        keys.write_text(f"{keys.read_text()}\n{toml_text([('[client]', {'secret': credentials.secret})])}")
    else:
        files = {"certificate": "ha.pem", "private_key": "ha.key"}
        credentials.write(
            HOME_AGENT_NAME,
            directory / files["certificate"],
            directory / files["private_key"],
            directory / "ca.pem",
        )
        ike |= {**files, "trust_anchors": ["ca.pem"]}
    text = toml_text([("[mobile_node.ike]", peer), ("[ike]", ike)])
    configuration.write_text(f"{configuration.read_text()}\n{text}")


def load(charon: Charon, credentials: Credentials, suite: Suite) -> None:
    """Tell charon of its home agent."""
    directory = charon.directory
    credentials.write(
        CLIENT_NAME,
        directory / "x509" / "own.pem",
        directory / "private" / "own.key",
        directory / "x509ca" / "ca.pem",
    )
    kind = "psk" if credentials.authority is None else "pubkey"
    child = {
        "mode": "tunnel",
        "esp_proposals": suite.esp,
        "local_ts": f"{HOME_ADDRESS}/128",
        "remote_ts": "::/0",
        # It begins nothing by itself: what it did would be seen as another IKE_SA_INIT.
        "close_action": "none",
        "dpd_action": "clear",
    }
    connection: dict[str, Any] = {
        "version": 2,
        "local_addrs": CARE_OF_ADDRESS,
        "remote_addrs": HOME_AGENT,
        "proposals": suite.ike,
        "dpd_delay": f"{DEAD_PEER_DETECTION}s",
        "local": {"auth": kind, "id": CLIENT_NAME},
        "remote": {"auth": kind, "id": HOME_AGENT_NAME},
        "children": {CHILD: child},
    }
    secret: Settings = {} if credentials.authority else {"ike-1": {"secret": f"0x{credentials.secret}"}}
    charon.load({CONNECTION: connection}, secret)
