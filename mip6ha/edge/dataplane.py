"""How effects become forwarding state: the port, and the dataplane that works on any kernel with TUN.

Covered: routes to the TUN device, neighbour proxies and neighbour messages on the home link, the switches
of the stack, leftovers of a killed process, putting everything back. Not covered: ESP and encapsulation,
which the core does itself here, and the dataplane of kernels with XFRM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from ..config import EdgeConfiguration
from ..effects import (
    AnnounceAddress,
    DefendAddress,
    Effect,
    EndProbe,
    ProbeAddress,
    ReleaseAddress,
    RemoveTunnel,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    UnroutePrefix,
)
from .ndp import HomeLink
from .netlink import KernelTables
from .sysctl import Switches
from .tun import Tun

__all__ = ["Dataplane", "TunDataplane"]

_DEFAULT_MTU = 1500


class Dataplane(Protocol):
    """Carries out the effects that change forwarding or send packets."""

    counters: Counter[str]

    def carry_out(self, effect: Effect) -> None:
        """Do, or queue in order behind what is queued; failures are counted, for nobody could act on them."""

    def flush(self) -> None:
        """Do everything that is queued."""

    def close(self) -> None:
        """Leave nothing behind."""


class TunDataplane:
    """Addresses and prefixes are routed to a TUN device; the kernel answers for them on the home link.

    Raises :class:`Unusable` where that cannot be set up, with nothing left behind; ``address`` is the home
    agent's, the source of neighbour advertisements. ``link_mtu`` is the MTU of the links tunnels leave by.
    """

    def __init__(self, address: bytes, edge: EdgeConfiguration) -> None:
        self.counters: Counter[str] = Counter()
        self._address = address
        self._defended: set[bytes] = set()
        self._undo = ExitStack()
        with ExitStack() as undo:
            self._switches = Switches(edge.state_dir / "switches")
            undo.callback(self._switches.restore)
            self.home_link = None if edge.home_link is None else HomeLink(edge.home_link, self.counters)
            if self.home_link is not None:
                undo.callback(self.home_link.close)
            self.link_mtu = edge.link_mtu or (self.home_link.mtu if self.home_link else _DEFAULT_MTU)
            self.tun = Tun(edge.tun_name, self.link_mtu, self.counters)
            undo.callback(self.tun.close)
            self._tables = KernelTables()
            undo.callback(self._tables.close)
            self._remove_leftovers()
            self._prepare_stack(edge.home_link)
            self._undo = undo.pop_all()
        self._carry_out: dict[type, Callable[[Any], None]] = {
            SendPacket: self._send,
            ProbeAddress: self._probe,
            EndProbe: self._end_probe,
            AnnounceAddress: self._announce,
            DefendAddress: self._defend,
            ReleaseAddress: self._release,
            RoutePrefix: self._route,
            UnroutePrefix: self._unroute,
            # The core encapsulates, so that a tunnel is nothing here.
            SetTunnel: lambda effect: None,
            RemoveTunnel: lambda effect: None,
        }

    def _prepare_stack(self, home_link: str | None) -> None:
        self._switches.enable_forwarding()
        if home_link is not None:
            self._switches.set(f"conf/{home_link}/forwarding", "1")
            self._switches.set(f"conf/{home_link}/proxy_ndp", "1")
            # RFC 4861 7.2.8 delays answers of proxies; nobody else answers for a mobile node that is away.
            self._switches.set(f"neigh/{home_link}/proxy_delay", "0")

    def _remove_leftovers(self) -> None:
        # A killed process takes its TUN device and the routes to it along, but leaves its proxies. Where
        # another home agent runs on the same host, each of its proxies has a route to its TUN device.
        routes = self._tables.own_routes()
        elsewhere = {prefix for prefix, _, interface in routes if interface != self.tun.interface}
        for address, interface in self._tables.own_proxies():
            if address not in elsewhere and not (_is_link_local(address) and elsewhere):
                self._tables.proxy(address, interface, add=False)
                self.counters["leftover_proxy_removed"] += 1
        self.flush()

    def carry_out(self, effect: Effect) -> None:
        """See :class:`Dataplane`."""
        self._carry_out[type(effect)](effect)

    def flush(self) -> None:
        """See :class:`Dataplane`."""
        for failure in self._tables.flush():
            self.counters[f"netlink_{failure}"] += 1

    def close(self) -> None:
        """See :class:`Dataplane`."""
        for address in self._defended.copy():
            self._release(ReleaseAddress(address))
        self.flush()
        self._undo.close()

    # What goes out must meet the state that effects before it asked for: hence the flushes.

    def _send(self, effect: SendPacket) -> None:
        self.flush()
        self.tun.write(effect.packet)

    def _probe(self, effect: ProbeAddress) -> None:
        if self.home_link is not None:
            self.home_link.probe(effect.address)

    def _end_probe(self, effect: EndProbe) -> None:
        if self.home_link is not None:
            self.home_link.end_probe(effect.address)

    def _announce(self, effect: AnnounceAddress) -> None:
        self.flush()
        if self.home_link is not None:
            self.home_link.announce(effect.address, self._address)

    def _defend(self, effect: DefendAddress) -> None:
        address = effect.address
        self._defended.add(address)
        # A link-local address is never routed; the proxy alone keeps others from taking it.
        if not _is_link_local(address):
            self._tables.route(address, 128, self.tun.interface)
        if self.home_link is not None:
            self._tables.proxy(address, self.home_link.interface)

    def _release(self, effect: ReleaseAddress) -> None:
        address = effect.address
        self._defended.discard(address)
        if self.home_link is not None:
            self._tables.proxy(address, self.home_link.interface, add=False)
        if not _is_link_local(address):
            self._tables.route(address, 128, self.tun.interface, add=False)

    def _route(self, effect: RoutePrefix) -> None:
        self._tables.route(effect.prefix, effect.length, self.tun.interface)

    def _unroute(self, effect: UnroutePrefix) -> None:
        self._tables.route(effect.prefix, effect.length, self.tun.interface, add=False)


def _is_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
