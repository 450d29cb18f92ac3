"""What was captured before a fault, played again to whoever serves after it.

Covered: ESP towards the home agent, from the routers that it came from. Not covered: IKE, where a request
that comes again is answered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mip6ha import udp
from mip6ha.udp import Datagram

from .injection import replay
from .mobility_network import HOME_AGENT
from .packets import UDP, Captured, address, esp_numbers, read_pcap
from .redundant_set import RedundantSet
from .topology import NAMESPACE_DIRECTORY

__all__ = ["play", "protected_before"]

SETTLE = 0.3
CAPTURE_SETTLE = 0.7
# Of an IPv6 header.
_NEXT_HEADER, _HEADER = 6, 40
# Where what reaches the home agent on the core link comes from.
_ROUTERS = (("ar1", "eth1"), ("fleet", "eth0"))


def protected_before(shared: RedundantSet, moment: float) -> dict[int, list[Captured]]:
    """What reached the home agent under ESP before a monotonic time, by SPI, as the core link saw it: each
    frame still leads from its sender to the home router. It waits until the capture has it.
    """
    shared.pause(CAPTURE_SETTLE)
    home_agent, before = address(HOME_AGENT), moment + shared.run.timeline.epoch_offset
    sent: dict[int, list[Captured]] = {}
    for each in read_pcap(shared.captures.path("core")):
        numbers = esp_numbers(each.packet) if each.destination == home_agent else None
        if numbers is not None and each.time < before:
            sent.setdefault(numbers.spi, []).append(each)
    return sent


def play(shared: RedundantSet, active: int, frames: Iterable[Captured]) -> dict[str, Any]:
    """Send frames once more to the active member; what that changed."""
    run, member, frames = shared.run, shared.members[active], list(frames)
    before = member.ask("counters"), member.ask("bindings")
    sent = {}
    for node, interface in _ROUTERS:
        mac = run.network.execute(node, "cat", f"/sys/class/net/{interface}/address").strip()
        own = [_whole(each) for each in frames if each.sender.hex(":") == mac]
        sent[node] = replay(NAMESPACE_DIRECTORY / run.network.namespace(node), interface, own)
    run.timeline.add("replayed", ", ".join(f"{count} from {node}" for node, count in sent.items()))
    shared.pause(SETTLE)
    after = member.ask("counters"), member.ask("bindings")
    return {
        "sent": sum(sent.values()),
        "refused": after[0].get("replayed", 0) - before[0].get("replayed", 0),
        "bindings": before[1],
        "changed": _lasting(before[1]) != _lasting(after[1]),
    }


def _whole(captured: Captured) -> Captured:
    """The frame with a checksum of UDP, which nobody fills in on a link that is in memory."""
    packet = captured.packet
    if packet[_NEXT_HEADER] != UDP:
        return captured
    source, destination = captured.source, captured.destination
    ports = int.from_bytes(packet[_HEADER : _HEADER + 2]), int.from_bytes(packet[_HEADER + 2 : _HEADER + 4])
    datagram = udp.build(source, destination, Datagram(*ports, packet[_HEADER + udp.HEADER_LENGTH :]))
    return captured._replace(frame=captured.frame.removesuffix(packet) + packet[:_HEADER] + datagram)


def _lasting(bindings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bindings without what goes on by itself."""
    return [{name: value for name, value in each.items() if name != "expires_in_s"} for each in bindings]
