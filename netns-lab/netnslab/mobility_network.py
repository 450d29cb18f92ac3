"""The network of the Mobile IPv6 scenarios: a home link with home agent and home router, a correspondent,
two foreign links, and a mobile node whose cable goes from link to link.

Covered: addresses, topology, router advertisements, the daemons' configuration files. Not covered: what
happens on it (`scenarios`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .daemons import Association, association_tables, toml_text, write_configuration
from .routers import Advertiser
from .topology import Attachment, Node, Topology

__all__ = [
    "ADVERTISERS",
    "CORRESPONDENT",
    "FOREIGN1_PREFIX",
    "FOREIGN2_PREFIX",
    "HOME_ADDRESS",
    "HOME_AGENT",
    "HOME_PREFIX",
    "HOME_ROUTER",
    "MOBILITY_TOPOLOGY",
    "write_home_agent",
    "write_mobile_node",
]

HOME_PREFIX = "2001:db8:a::/64"
HOME_AGENT = "2001:db8:a::1"
HOME_ADDRESS = "2001:db8:a::100"
HOME_ROUTER = "2001:db8:a::ff"
CORRESPONDENT = "2001:db8:c::2"
FOREIGN1_PREFIX = "2001:db8:b::/64"
FOREIGN2_PREFIX = "2001:db8:d::/64"

# Seconds; the reference mobile node's captures have the same.
BINDING_LIFETIME = 60

MOBILITY_TOPOLOGY = Topology(
    links=("home", "foreign1", "foreign2", "corresp", "core"),
    nodes=(
        Node("hr", True, (f"{FOREIGN1_PREFIX} via 2001:db8:f::b", f"{FOREIGN2_PREFIX} via 2001:db8:f::d")),
        Node("ha", True, (f"default via {HOME_ROUTER}",)),
        Node("cn", False, ("default via 2001:db8:c::1",)),
        Node("ar1", True, ("default via 2001:db8:f::a",)),
        Node("ar2", True, ("default via 2001:db8:f::a",)),
        Node("mn"),
    ),
    attachments=(
        Attachment("hr", "eth0", "home", (f"{HOME_ROUTER}/64",)),
        Attachment("hr", "eth1", "corresp", ("2001:db8:c::1/64",)),
        Attachment("hr", "eth2", "core", ("2001:db8:f::a/64",)),
        Attachment("ha", "eth0", "home", ("2001:db8:a::2/64",)),
        Attachment("cn", "eth0", "corresp", (f"{CORRESPONDENT}/64",)),
        Attachment("ar1", "eth0", "foreign1", ("2001:db8:b::1/64",)),
        Attachment("ar1", "eth1", "core", ("2001:db8:f::b/64",)),
        Attachment("ar2", "eth0", "foreign2", ("2001:db8:d::1/64",)),
        Attachment("ar2", "eth1", "core", ("2001:db8:f::d/64",)),
        Attachment("mn", "eth0", None),
    ),
)

ADVERTISERS = (
    Advertiser("hr", "eth0", HOME_PREFIX),
    Advertiser("ha", "eth0", f"{HOME_AGENT}/64", home_agent=True),
    Advertiser("ar1", "eth0", FOREIGN1_PREFIX),
    Advertiser("ar2", "eth0", FOREIGN2_PREFIX),
)


def write_home_agent(
    directory: Path, work: Path, associations: Sequence[Association], *, dataplane: str, dad: bool
) -> tuple[Path, Path]:
    """Write ``ha.toml`` and ``ha.keys``; returns the former and the control socket that it names."""
    control_socket = work / "ha.sock"
    home_agent: dict[str, object] = {
        "address": HOME_AGENT,
        "home_link": "eth0",
        "home_prefixes": [HOME_PREFIX],
        "dataplane": dataplane,
        "duplicate_address_detection": dad,
        "max_lifetime": BINDING_LIFETIME,
        "control_socket": str(control_socket),
        "state_dir": str(work / "ha-state"),
        "keys_file": "ha.keys",
    }
    mobile_node: dict[str, object] = {"name": "mn1", "home_address": HOME_ADDRESS}
    text = toml_text(
        [
            ("[home_agent]", home_agent),
            ("[[mobile_node]]", mobile_node),
            *association_tables(associations, home_agent=True),
        ]
    )
    return write_configuration(directory, "ha", text, associations), control_socket


def write_mobile_node(
    directory: Path,
    work: Path,
    associations: Sequence[Association],
    lifetime: int = BINDING_LIFETIME,
    *,
    dataplane: str = "tun",
) -> tuple[Path, Path]:
    """Write ``mn.toml`` and ``mn.keys``; returns the former and the file that its events go to."""
    events = directory / "mn-events.jsonl"
    mobile_node: dict[str, object] = {
        "home_address": HOME_ADDRESS,
        "home_prefix_length": 64,
        "home_agent": HOME_AGENT,
        "interface": "eth0",
        "dataplane": dataplane,
        "lifetime": lifetime,
        "care_of_dad": False,
        "state_dir": str(work / "mn-state"),
        "events": str(events),
        "keys_file": "mn.keys",
    }
    text = toml_text([("[mobile_node]", mobile_node), *association_tables(associations, home_agent=False)])
    return write_configuration(directory, "mn", text, associations), events
