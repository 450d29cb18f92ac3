"""What daemons may leave behind in a namespace, as lines that can be compared.

Covered: links, addresses, routes, rules, neighbour proxies, traffic control, IPsec states and policies,
kernel settings. Not covered: what the kernel changes by itself with carrier and time.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator

from .processes import POLL
from .topology import Network

__all__ = ["network_state", "unrouted"]

# What the daemons switch on for as long as they run.
_SWITCHES = (
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.eth0.accept_ra",
    "net.ipv6.conf.eth0.forwarding",
    "net.ipv6.conf.eth0.proxy_ndp",
    "net.ipv6.neigh.eth0.proxy_delay",
)
# Routes that the kernel makes and removes by itself with carrier.
_FOLLOWS_CARRIER = re.compile(r"(fe80:|ff00:)\S* .*proto kernel")
_ADDRESS = re.compile(r"\d+: \S+\s+inet6 ([^/\s]+)")
_EXPIRY = re.compile(r"\s+expires \S+")
_NETLINK_XFRM = 6
_PATIENCE = 1.0
# One process for all of them; that the answers follow each other does no harm.
_QUESTIONS = (
    "address show scope global",
    "route show table all",
    "rule show",
    "neighbour show proxy",
)
_IPSEC = ("xfrm state list nokeys", "xfrm policy list")


def network_state(network: Network, node: str) -> set[str]:
    """What a daemon could leave behind in a node; its kernel is given the time for what it owes addresses."""
    links = network.ask(node, ["link show"], "-br").splitlines()
    lines = {f"link {line.split('@')[0].split()[0]}" for line in links}
    answers = network.ask(node, _QUESTIONS, "-6", "-o").splitlines()
    deadline = time.monotonic() + _PATIENCE
    while unrouted(answers) and time.monotonic() < deadline:
        time.sleep(POLL)
        answers = network.ask(node, _QUESTIONS, "-6", "-o").splitlines()
    for line in answers:
        if not _FOLLOWS_CARRIER.search(line):
            lines.add(_EXPIRY.sub("", line).strip())
    if _has_xfrm():
        blocks = filter(None, re.split(r"\n(?!\s)", network.ask(node, _IPSEC, "-d")))
        lines |= {f"xfrm {' '.join(block.split())}" for block in blocks}
    lines |= set(_traffic_control(network, node))
    return lines | set(network.execute(node, "sysctl", *_SWITCHES).splitlines())


def unrouted(answers: Iterable[str]) -> set[str]:
    """Addresses without the local route that the kernel makes for each a moment after it came."""
    routed = set()
    addresses = set()
    for line in answers:
        if found := _ADDRESS.match(line):
            addresses.add(found[1])
        elif line.startswith("local "):
            routed.add(line.split()[1])
    return addresses - routed


def _traffic_control(network: Network, node: str) -> Iterator[str]:
    for discipline in network.traffic_control(node, "qdisc", "show").splitlines():
        yield discipline
        words = discipline.split()
        if words[1] in ("clsact", "ingress"):
            device = words[words.index("dev") + 1]
            for side in ("ingress", "egress"):
                shown = network.traffic_control(node, "filter", "show", "dev", device, side)
                yield from (f"filter {device} {side} {line.strip()}" for line in shown.splitlines())


def _has_xfrm() -> bool:
    """Whether this kernel has IPsec at all: ``ip xfrm`` fails where it has not."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM).close()
    except OSError:
        return False
    return True
