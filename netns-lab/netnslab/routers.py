"""Router advertisements by radvd, at the rates that RFC 6275 7.5 allows for mobile nodes.

Not covered: radvd's own solicited answers beyond what it does by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .processes import Processes, Running
from .topology import Network

__all__ = ["Advertiser", "radvd_configuration", "start_advertiser"]

READY_LIMIT = 20.0

# RFC 6275 7.5: MinRtrAdvInterval, MaxRtrAdvInterval, MIN_DELAY_BETWEEN_RAS, in seconds.
MINIMUM_INTERVAL = 0.03
MAXIMUM_INTERVAL = 0.07
MINIMUM_DELAY = 0.03


@dataclass(frozen=True, slots=True)
class Advertiser:
    """What one router advertises on one interface.

    With `home_agent` it is the home agent's advertisement (RFC 6275 7): H flag, Home Agent Information, the
    prefix option holds the home agent's whole address with the R flag, and it is nobody's default router.
    """

    node: str
    interface: str
    prefix: str
    home_agent: bool = False
    lifetime: int = 30


def radvd_configuration(advertiser: Advertiser) -> str:
    """The radvd.conf of an advertiser."""
    home_agent = advertiser.home_agent
    options = {
        "AdvSendAdvert": "on",
        "MinRtrAdvInterval": f"{MINIMUM_INTERVAL:g}",
        "MaxRtrAdvInterval": f"{MAXIMUM_INTERVAL:g}",
        "MinDelayBetweenRAs": f"{MINIMUM_DELAY:g}",
        "AdvIntervalOpt": "on",
        "AdvDefaultLifetime": "0" if home_agent else str(advertiser.lifetime),
        "AdvHomeAgentFlag": "on" if home_agent else "off",
    }
    if home_agent:
        options |= {
            "AdvHomeAgentInfo": "on",
            "HomeAgentLifetime": str(advertiser.lifetime),
            "HomeAgentPreference": "10",
        }
    lines = [f"    {name} {value};" for name, value in options.items()]
    router_address = "on" if home_agent else "off"
    lines.append(f"    prefix {advertiser.prefix} {{ AdvAutonomous on; AdvRouterAddr {router_address}; }};")
    return "\n".join([f"interface {advertiser.interface} {{", *lines, "};", ""])


def start_advertiser(
    processes: Processes, network: Network, advertiser: Advertiser, directory: Path
) -> Running:
    """Start radvd in a node, with files of its own."""
    name = f"radvd-{advertiser.node}"
    configuration, pid_file = directory / f"{name}.conf", directory / f"{name}.pid"
    configuration.write_text(radvd_configuration(advertiser))
    configuration.chmod(0o644)
    pid_file.unlink(missing_ok=True)
    argv = ["radvd", "-n", "-d", "1", "-m", "stderr", "-C", configuration, "-p", pid_file]
    running = processes.start(name, argv, network.namespace(advertiser.node))
    running.wait_for("process id file", pid_file.exists, READY_LIMIT)
    return running
