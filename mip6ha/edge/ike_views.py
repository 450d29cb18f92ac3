"""What people and programs are shown of IKE SAs and their children: plain values, and never a key.

Covered: IKE SAs, children, selectors, addresses with ports. Not covered: who is shown it.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, summarize_address_range

from ..ipsec.ike.effects import ChildInstallation
from ..ipsec.ike.identities import Identity
from ..ipsec.ike.sa import Address, ChildSa, IkeSa, State
from ..ipsec.ike.selectors import ANY_PORT, TrafficSelector

__all__ = ["child", "ends", "ike_sa", "installation", "selectors"]

Fields = dict[str, object]


def ends(address: Address) -> str:
    """An address and a port: ``[2001:db8::1]:500``."""
    host, port = _address(address[0]), address[1]
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def _address(octets: bytes) -> IPv4Address | IPv6Address:
    return IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets)


def selectors(found: tuple[TrafficSelector, ...]) -> list[str]:
    """Each as prefixes with protocol and ports: ``2001:db8::/64[135/5]``; a range of ports is ``1-9``."""
    texts = []
    for each in found:
        first, last = _address(each.first), _address(each.last)
        upper = ""
        if each.protocol or each.ports != ANY_PORT:
            upper = f"[{each.protocol}{_ports(each.ports)}]"
        texts += [f"{prefix}{upper}" for prefix in summarize_address_range(first, last)]
    return texts


def _ports(ports: tuple[int, int]) -> str:
    first, last = ports
    if ports == ANY_PORT:
        return ""
    if first > last:
        return "/opaque"
    return f"/{first}" if first == last else f"/{first}-{last}"


def child(found: ChildSa) -> Fields:
    """A pair of ESP SAs."""
    return {
        "child": found.name,
        "use": found.use.value,
        "mode": found.mode.value,
        "spi_in": f"{found.spi_in:08x}",
        "spi_out": f"{found.spi_out:08x}",
        "esn": found.esn,
        "local": selectors(found.local),
        "remote": selectors(found.remote),
    }


def installation(found: ChildInstallation) -> Fields:
    """A pair of ESP SAs, and how its packets go."""
    ways = {"peer": found.peer, "transform": found.transform, "encapsulate": found.encapsulate}
    return {**child(found.child), **ways, "from": ends(found.local), "to": ends(found.remote)}


def ike_sa(found: IkeSa) -> Fields:
    """An IKE SA with its children."""
    fields: Fields = {
        "spi": found.spi.hex(),
        "peer": found.peer,
        "state": found.state.value,
        "initiator": found.initiator,
        "local": ends(found.local),
        "remote": ends(found.remote),
    }
    if found.state is not State.INITIATED:
        parts = (part.name for part in found.suite if part is not None)
        fields["suite"] = " ".join(parts)
    if found.identity[1]:
        fields["identity"] = str(Identity(*found.identity))
    return {**fields, "children": [child(each) for each in found.children.values()]}
