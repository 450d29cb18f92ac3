"""The network of the scenario ``load``: a home agent, and a fleet of mobile nodes that only register.

Covered: addresses, topology, the configuration files. Not covered: what happens on it (`scenarios.load`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from .daemons import toml_text, write_private
from .mobility_network import HOME_AGENT, HOME_PREFIX
from .topology import Attachment, Node, Topology

__all__ = ["LOAD_TOPOLOGY", "LoadKeys", "write_fleet", "write_home_agent"]

FLEET_PREFIX = "2001:db8:e::/64"
FIRST_HOME_ADDRESS = "2001:db8:a::1:0"
FIRST_SPI = 0x10000
ENCRYPTION = "aes-gcm-16"
LIFETIME = 3600
SECRET_OCTETS = 32

# The home agent's own links lead away from the home link, so that a virtual one is possible.
LOAD_TOPOLOGY = Topology(
    links=("core", "home"),
    nodes=(
        Node("ha", True, (f"{FLEET_PREFIX} via 2001:db8:f::e",)),
        Node("fleet", True, (f"{HOME_AGENT}/128 via 2001:db8:f::2",)),
    ),
    attachments=(
        Attachment("ha", "eth0", "core", ("2001:db8:f::2/64",)),
        Attachment("ha", "eth1", "home", ("2001:db8:a::2/64",)),
        Attachment("fleet", "eth0", "core", ("2001:db8:f::e/64",)),
    ),
)


@dataclass(frozen=True, slots=True)
class LoadKeys:
    """What the keys of the whole fleet are derived from."""

    secret: str = field(default_factory=lambda: secrets.token_hex(SECRET_OCTETS), repr=False)

    def write(self, directory: Path, stem: str) -> None:
        """Write ``STEM.keys``."""
        write_private(directory / f"{stem}.keys", toml_text([("[fleet]", {"secret": self.secret})]))


def _pool(count: int) -> dict[str, object]:
    return {
        "first_home_address": FIRST_HOME_ADDRESS,
        "count": count,
        "first_spi": FIRST_SPI,
        "encryption": ENCRYPTION,
        "keys": "fleet",
    }


def write_home_agent(
    directory: Path, work: Path, count: int, *, dataplane: str, home_link: str | None
) -> tuple[Path, Path]:
    """Write ``ha.toml``; without a `home_link` it is virtual. Returns the file, and the control socket
    that it names.
    """
    control_socket = work / "ha.sock"
    home_agent: dict[str, object] = {
        "address": HOME_AGENT,
        "home_prefixes": [HOME_PREFIX],
        "dataplane": dataplane,
        "max_lifetime": LIFETIME,
        "control_socket": str(control_socket),
        "state_dir": str(work / "ha-state"),
        "keys_file": "ha.keys",
    }
    if home_link is not None:
        home_agent["home_link"] = home_link
    path = directory / ("ha.toml" if home_link is None else "ha-on-a-link.toml")
    path.write_text(toml_text([("[home_agent]", home_agent), ("[[mobile_node_pool]]", _pool(count))]))
    return path, control_socket


def write_fleet(directory: Path, work: Path, count: int) -> Path:
    """Write ``fleet.toml`` for ``mip6mn load``."""
    load = {
        "home_agent": HOME_AGENT,
        **_pool(count),
        "care_of_prefix": FLEET_PREFIX,
        "lifetime": LIFETIME,
        "state_dir": str(work / "fleet-state"),
        "keys_file": "fleet.keys",
    }
    path = directory / "fleet.toml"
    path.write_text(toml_text([("[load]", load)]))
    return path
