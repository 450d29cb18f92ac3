"""The network of a redundant set of home agents: members side by side on the home link, a link between them,
and a mobile node, a fleet of further ones and a correspondent around them.

Covered: addresses, topology, keys, the daemons' configuration files. Not covered: what happens on it
(`scenarios`), a set that spans sites.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from .daemons import (
    GCM_KEY_AND_SALT,
    Association,
    association_tables,
    key_file_text,
    toml_text,
    write_private,
)
from .dissection import EspKey
from .mobility_network import (
    CORRESPONDENT,
    FOREIGN1_PREFIX,
    FOREIGN2_PREFIX,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    HOME_ROUTER,
)
from .routers import Advertiser
from .topology import Attachment, Node, Topology

__all__ = [
    "ACCESS_ROUTERS",
    "ETCD_URL",
    "VIRTUAL_MAC",
    "HarpAssociation",
    "SetKeys",
    "SetParameters",
    "member_address",
    "member_name",
    "new_keys",
    "redundant_topology",
    "write_fleet",
    "write_member",
]

GROUP = 1
VIRTUAL_MAC = f"02:00:5e:00:02:{GROUP:02x}"
ENCRYPTION = "aes-gcm-16"
SYNC_PREFIX = "2001:db8:5::"
ETCD = f"{SYNC_PREFIX}e7"
ETCD_URL = f"http://[{ETCD}]:2379"
FLEET_PREFIX = "2001:db8:e::/64"
FLEET_FIRST = "2001:db8:a::1:0"
FLEET_SPI = 0x10000
HARP_SPI = 0x5000
# Seconds. The fleet registers once and stays registered for the whole run.
FLEET_LIFETIME = 3600
POOL_SECRET_OCTETS = 32

ACCESS_ROUTERS = (
    Advertiser("ar1", "eth0", FOREIGN1_PREFIX),
    Advertiser("ar2", "eth0", FOREIGN2_PREFIX),
)


def member_name(identity: int) -> str:
    """A member's node."""
    return f"ha{identity}"


def member_address(identity: int) -> str:
    """A member's own address, on the link between the members."""
    return f"{SYNC_PREFIX}{identity:x}"


def redundant_topology(members: int, *, etcd: bool = False) -> Topology:
    """A set of some members. `eth0` of each is on the home link, `eth1` on the link between them."""
    identities = range(1, members + 1)
    nodes = [
        Node(
            "hr",
            True,
            (
                f"{FOREIGN1_PREFIX} via 2001:db8:f::b",
                f"{FOREIGN2_PREFIX} via 2001:db8:f::d",
                f"{FLEET_PREFIX} via 2001:db8:f::e",
            ),
        ),
        *(Node(member_name(each), True, (f"default via {HOME_ROUTER}",)) for each in identities),
        Node("cn", False, ("default via 2001:db8:c::1",)),
        Node("ar1", True, ("default via 2001:db8:f::a",)),
        Node("ar2", True, ("default via 2001:db8:f::a",)),
        Node("fleet", True, ("default via 2001:db8:f::a",)),
        Node("mn"),
    ]
    attachments = [
        Attachment("hr", "eth0", "home", (f"{HOME_ROUTER}/64",)),
        Attachment("hr", "eth1", "corresp", ("2001:db8:c::1/64",)),
        Attachment("hr", "eth2", "core", ("2001:db8:f::a/64",)),
        Attachment("cn", "eth0", "corresp", (f"{CORRESPONDENT}/64",)),
        Attachment("ar1", "eth0", "foreign1", ("2001:db8:b::1/64",)),
        Attachment("ar1", "eth1", "core", ("2001:db8:f::b/64",)),
        Attachment("ar2", "eth0", "foreign2", ("2001:db8:d::1/64",)),
        Attachment("ar2", "eth1", "core", ("2001:db8:f::d/64",)),
        Attachment("fleet", "eth0", "core", ("2001:db8:f::e/64",)),
        Attachment("mn", "eth0", None),
    ]
    for each in identities:
        attachments += [
            Attachment(member_name(each), "eth0", "home", (f"2001:db8:a::{each + 1:x}/64",)),
            Attachment(member_name(each), "eth1", "sync", (f"{member_address(each)}/64",)),
        ]
    if etcd:
        nodes.append(Node("etcd"))
        attachments.append(Attachment("etcd", "eth0", "sync", (f"{ETCD}/64",)))
    links = ("home", "sync", "foreign1", "foreign2", "corresp", "core")
    return Topology(links, tuple(nodes), tuple(attachments))


@dataclass(frozen=True, slots=True)
class HarpAssociation:
    """The SA for what one member says to another."""

    sender: int
    receiver: int
    encryption_key: str = field(repr=False)

    @property
    def spi(self) -> int:
        """Its SPI, unlike any other of the set."""
        return HARP_SPI + (self.sender << 8) + self.receiver

    @property
    def key_name(self) -> str:
        """Its name in the key files."""
        return f"harp-{self.sender}-{self.receiver}"

    def esp_key(self) -> EspKey:
        """What tshark needs to decrypt it."""
        return EspKey(self.spi, ENCRYPTION, self.encryption_key)


@dataclass(frozen=True, slots=True)
class SetKeys:
    """All keys of a run: the mobile node's, those between the members, and the secret of the fleet's."""

    mobile: tuple[Association, ...]
    harp: tuple[HarpAssociation, ...]
    fleet_secret: str = field(repr=False)

    def esp_keys(self) -> list[EspKey]:
        """What tshark needs; the fleet's traffic stays closed."""
        return [*(each.esp_key() for each in self.mobile), *(each.esp_key() for each in self.harp)]


def new_keys(members: int, mobile: tuple[Association, ...]) -> SetKeys:
    """Fresh keys for a set of some members."""
    identities = range(1, members + 1)
    harp = tuple(
        HarpAssociation(sender, receiver, secrets.token_hex(GCM_KEY_AND_SALT))
        for sender in identities
        for receiver in identities
        if sender != receiver
    )
    return SetKeys(mobile, harp, secrets.token_hex(POOL_SECRET_OCTETS))


@dataclass(frozen=True, slots=True)
class SetParameters:
    """What the members of a set have in common. `contexts` counts the mobile node and the fleet."""

    members: int = 2
    contexts: int = 1
    hello_interval_ms: int = 10
    failure_factor: int = 3
    start_wait_ms: int = 1000
    binding_lifetime: int = 4
    hold_down_ms: int = 200
    realtime: bool = True
    lease_s: int | None = None

    def is_fleet(self, spi: int) -> bool:
        """Whether an SPI is one of the fleet's."""
        return FLEET_SPI <= spi < FLEET_SPI + 2 * (self.contexts - 1)


def _member_keys(identity: int, keys: SetKeys) -> str:
    own = [each for each in keys.harp if identity in (each.sender, each.receiver)]
    tables: list[tuple[str, dict[str, object]]] = [
        (f"[{each.key_name}]", {"encryption": each.encryption_key}) for each in own
    ]
    return key_file_text(keys.mobile) + toml_text([*tables, ("[fleet]", {"secret": keys.fleet_secret})])


def _group_tables(
    identity: int, parameters: SetParameters, keys: SetKeys
) -> list[tuple[str, dict[str, object]]]:
    tables: list[tuple[str, dict[str, object]]] = [
        (
            "[group]",
            {
                "id": GROUP,
                "member": identity,
                "address": member_address(identity),
                "hello_interval_ms": parameters.hello_interval_ms,
                "failure_factor": parameters.failure_factor,
                "start_wait_ms": parameters.start_wait_ms,
                "hold_down_ms": parameters.hold_down_ms,
                "realtime": parameters.realtime,
            },
        )
    ]
    if parameters.lease_s is not None:
        tables.append(("[group.arbiter]", {"endpoints": [ETCD_URL], "lease_s": parameters.lease_s}))
    for peer in range(1, parameters.members + 1):
        if peer == identity:
            continue
        tables.append(("[[group.peer]]", {"member": peer, "address": member_address(peer)}))
        for each in keys.harp:
            if {each.sender, each.receiver} == {identity, peer}:
                protection: dict[str, object] = {
                    "direction": "out" if each.sender == identity else "in",
                    "spi": each.spi,
                    "encryption": ENCRYPTION,
                    "keys": each.key_name,
                }
                tables.append(("[[group.peer.sa]]", protection))
    return tables


def write_member(
    directory: Path,
    work: Path,
    identity: int,
    parameters: SetParameters,
    keys: SetKeys,
    *,
    dataplane: str = "tun",
) -> tuple[Path, Path]:
    """Write ``haN.toml`` and ``haN.keys``; returns the former and the control socket that it names."""
    name = member_name(identity)
    control_socket = work / f"{name}.sock"
    home_agent: dict[str, object] = {
        "address": HOME_AGENT,
        "home_link": "eth0",
        "home_prefixes": [HOME_PREFIX],
        "dataplane": dataplane,
        "duplicate_address_detection": False,
        "max_lifetime": FLEET_LIFETIME,
        "control_socket": str(control_socket),
        "state_dir": str(work / f"{name}-state"),
        "keys_file": f"{name}.keys",
    }
    tables: list[tuple[str, dict[str, object]]] = [
        ("[home_agent]", home_agent),
        *_group_tables(identity, parameters, keys),
        ("[[mobile_node]]", {"name": "mn1", "home_address": HOME_ADDRESS}),
        *association_tables(keys.mobile, home_agent=True),
    ]
    if parameters.contexts > 1:
        tables.append(("[[mobile_node_pool]]", {**_fleet(parameters), "name": "fleet"}))
    write_private(directory / f"{name}.keys", _member_keys(identity, keys))
    path = directory / f"{name}.toml"
    path.write_text(toml_text(tables))
    return path, control_socket


def _fleet(parameters: SetParameters) -> dict[str, object]:
    return {
        "first_home_address": FLEET_FIRST,
        "count": parameters.contexts - 1,
        "first_spi": FLEET_SPI,
        "encryption": ENCRYPTION,
        "keys": "fleet",
    }


def write_fleet(directory: Path, work: Path, parameters: SetParameters, keys: SetKeys) -> Path:
    """Write ``fleet.toml`` and ``fleet.keys`` for ``mip6mn load``; returns the former."""
    load = {
        "home_agent": HOME_AGENT,
        **_fleet(parameters),
        "care_of_prefix": FLEET_PREFIX,
        "lifetime": FLEET_LIFETIME,
        "state_dir": str(work / "fleet-state"),
        "keys_file": "fleet.keys",
    }
    write_private(directory / "fleet.keys", toml_text([("[fleet]", {"secret": keys.fleet_secret})]))
    path = directory / "fleet.toml"
    path.write_text(toml_text([("[load]", load)]))
    return path
