"""The whole daemon: Binding Updates over a veth into ``mip6ha run`` on the tun dataplane, and answers back.

Two network namespaces, one link: the home agent's, whose only route leads to the generator, and the
generator's. Nothing is changed outside them, and they end with the measurement. The home link is virtual: a
refresh does nothing on it. Not covered: payload, losses, other dataplanes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

from mip6ha.wire import text

from .generator import MOBILE_NODES
from .workload import FIRST_HOME_ADDRESS, FIRST_SPI, HOME_AGENT, LIFETIME

__all__ = ["INTERFACE", "SECRET", "STATION", "STEPS", "daemon", "dataplane_figures", "ip", "lacks", "network"]

STEPS = 2
"""How often :func:`dataplane_figures` reports progress."""
_START_LIMIT = 15.0
_STOP_LIMIT = 15.0
_RUN_LIMIT = 300.0
SECRET = bytes(range(32))
_GATEWAY = "fe80::1"
STATION = "020000000001"
_GATEWAY_STATION = "020000000002"
INTERFACE = "eth0"

_CONFIGURATION = """\
[home_agent]
address = "{address}"
home_prefixes = ["2001:db8:a::/64"]
max_lifetime = {lifetime}
control_socket = "ha.sock"
state_dir = "state"

[[mobile_node_pool]]
first_home_address = "{first}"
count = {count}
first_spi = {spi}
encryption = "aes-gcm-16"
secret = "{secret}"
"""


def lacks() -> str | None:
    """What is missing for this measurement here, if anything is."""
    if os.geteuid():
        return "network namespaces need root"
    return None if Path("/dev/net/tun").exists() else "/dev/net/tun does not exist"


def ip(*arguments: str) -> None:
    """Run ``ip`` of iproute2."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _colons(station: str) -> str:
    return ":".join(station[at : at + 2] for at in range(0, 12, 2))


@contextmanager
def network(prefix: str) -> Iterator[tuple[str, str]]:
    """The two namespaces, ready: (home agent's, generator's)."""
    home, generator = (f"mip6bench{os.getpid()}-{prefix}-{name}" for name in ("ha", "gen"))
    with ExitStack() as stack:
        for name in (home, generator):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
        peer = ["address", _colons(_GATEWAY_STATION), "netns", generator]
        own = ["address", _colons(STATION), "netns", home]
        ip("link", "add", "name", INTERFACE, *own, "type", "veth", "peer", "name", INTERFACE, *peer)
        switch_off = f"echo 1 > /proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"
        ip("netns", "exec", generator, "sh", "-c", switch_off)
        for name in (home, generator):
            ip("-n", name, "link", "set", INTERFACE, "up")
        neighbour = ["lladdr", _colons(_GATEWAY_STATION), "dev", INTERFACE, "nud", "permanent"]
        ip("-n", home, "neighbour", "add", _GATEWAY, *neighbour)
        ip("-n", home, "-6", "route", "add", "default", "via", _GATEWAY, "dev", INTERFACE)
        yield home, generator


@contextmanager
def daemon(namespace: str, directory: Path, group: str = "") -> Iterator[int]:
    """``mip6ha run`` in a namespace, from serving to stopped: its process id. ``group`` is more TOML."""
    path = directory / "ha.toml"
    path.touch(mode=0o600)
    path.write_text(
        _CONFIGURATION.format(
            address=text(HOME_AGENT),
            lifetime=LIFETIME,
            first=text(FIRST_HOME_ADDRESS.to_bytes(16, "big")),
            count=MOBILE_NODES,
            spi=FIRST_SPI,
            secret=SECRET.hex(),
        )
        + group
    )
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "mip6ha", "run", "-c", str(path)]
    log = directory / "ha.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--log-level", "error"], stdout=output, stderr=output)
        try:
            end = monotonic() + _START_LIMIT
            while not (directory / "ha.sock").exists():
                if process.poll() is not None or monotonic() > end:
                    raise RuntimeError(f"the home agent did not start: {log.read_text().strip()}")
                sleep(0.05)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def dataplane_figures(step: Callable[[], None]) -> dict[str, object]:
    """Binding Updates answered a second with 64 outstanding, and how long a single one takes."""
    with (
        tempfile.TemporaryDirectory(prefix="mip6bench") as name,
        network("tun") as (home, generator),
        daemon(home, Path(name)),
    ):
        step()
        command = ["ip", "netns", "exec", generator, sys.executable, sys.argv[0], "--generator"]
        arguments = [INTERFACE, STATION, SECRET.hex()]
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=_RUN_LIMIT, check=False
        )
        if done.returncode:
            log = (Path(name) / "ha.log").read_text()
            raise RuntimeError(f"{done.stderr.strip()}\n{log}".strip())
        step()
    figures: dict[str, object] = json.loads(done.stdout)
    return figures
