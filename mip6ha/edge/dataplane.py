"""How effects become forwarding state: the port, and the dataplane that works on any kernel with TUN.

Covered: routes to the TUN device, who answers on the home link, taking over and standing down, the switches
of the stack, putting everything back. Not covered: ESP and encapsulation, which the core does itself here,
and the dataplane of kernels with XFRM.

A member of a redundant set has everything ready while another one serves. Its routes stand in a table of
their own, which is looked into for what comes from the home link: nothing does before neighbours and switches
are told to, and that is all that taking over means, one frame for any number of addresses. For what comes
from elsewhere one rule follows.
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
    ExtendPayload,
    LendPayload,
    NarrowPath,
    ProbeAddress,
    RecallPayload,
    ReleaseAddress,
    RemoveTunnel,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    StandDown,
    TakeOver,
    UnroutePrefix,
)
from ..ipv6 import HEADER_LENGTH
from ..lending import PayloadNews
from .ndp import HomeLink
from .netlink import MAIN_TABLE, KernelTables
from .selection import Selection
from .sysctl import Switches
from .tun import Tun
from .virtual_link import VirtualLink

__all__ = [
    "FIRST_TABLE",
    "Dataplane",
    "Report",
    "Tell",
    "TunDataplane",
]

_DEFAULT_MTU = 1500
FIRST_TABLE = 13500
"""The table of group 1 is 13501, and so on."""


Report = Callable[[str, dict[str, object]], object]
"""Takes the name of an event, and its fields."""


Tell = Callable[[list[PayloadNews]], object]
"""Takes what the core has to hear about lent payload, in order; never in the middle of an effect."""


class Dataplane(Protocol):
    """Carries out the effects that change forwarding or send packets."""

    counters: Counter[str]

    def carry_out(self, effect: Effect) -> None:
        """Do, or queue in order behind what is queued; failures are counted, for nobody could act on them."""

    def flush(self) -> None:
        """Do everything that is queued."""

    def attend(self, reactor: Any, report: Report, tell: Tell) -> Callable[[], object]:
        """Look after what is in the kernel while ``reactor`` runs, until what is returned is called."""

    def close(self) -> None:
        """Leave nothing behind."""


class TunDataplane:
    """Addresses and prefixes are routed to a TUN device, and answered for on the home link.

    Raises :class:`Unusable` where that cannot be set up, with nothing left behind; ``address`` is the home
    agent's, the source of neighbour advertisements, ``anycast`` are addresses that others may have as well.
    ``link_mtu`` is the MTU of the links tunnels leave by. Without a group it owns its addresses at once.
    """

    _forwards_on = False
    """Whether what a killed process left still forwards."""
    offloads = False
    """Whether payload under ESP may be lent to it."""
    lease_margin = 0.0
    """How many seconds before the end of its lease a member stops: as long as telling the kernel may take."""

    def __init__(
        self, address: bytes, edge: EdgeConfiguration, anycast: frozenset[bytes] = frozenset()
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._address = address
        self._anycast = anycast
        self._undo = ExitStack()
        self.owns = edge.group is None
        self._virtual: VirtualLink | None = None
        with ExitStack() as undo:
            self._switches = Switches(edge.state_dir / "switches")
            undo.callback(self._switches.restore)
            self.home_link = self._open_home_link(edge, undo)
            self.link_mtu = edge.link_mtu or (self.home_link.mtu if self.home_link else _DEFAULT_MTU)
            self._tables = KernelTables(MAIN_TABLE if edge.group is None else FIRST_TABLE + edge.group)
            undo.callback(self._tables.close)
            self.tun = Tun(edge.tun_name, self.link_mtu, self.counters)
            undo.callback(self.tun.close)
            self._selection = self._prepare(edge, undo)
            undo.callback(self._disown)
            self._switches.enable_forwarding()
            if edge.home_link is not None:
                self._switches.set(f"conf/{edge.home_link}/forwarding", "1")
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
            TakeOver: lambda effect: self._own(),
            StandDown: lambda effect: self._disown(at_once=not effect.succeeded),
            # The core encapsulates, so that a tunnel is nothing here.
            SetTunnel: lambda effect: None,
            RemoveTunnel: lambda effect: None,
            NarrowPath: lambda effect: None,
            # It seals and opens as well.
            LendPayload: lambda effect: None,
            ExtendPayload: lambda effect: None,
            RecallPayload: lambda effect: None,
        }

    def _open_home_link(self, edge: EdgeConfiguration, undo: ExitStack) -> HomeLink | None:
        if edge.home_link is None:
            return None
        link = HomeLink(edge.home_link, self.counters, self._address, edge.virtual_mac)
        undo.callback(link.close)
        link.answers = self.owns
        if edge.group is not None and edge.virtual_mac is not None:
            self._virtual = VirtualLink(
                edge.group,
                link.interface,
                link.mtu,
                edge.virtual_mac,
                self.counters,
                adopt=self._forwards_on,
            )
            undo.callback(self._virtual.remove)
        return link

    def carry_out(self, effect: Effect) -> None:
        """See :class:`Dataplane`."""
        self._carry_out[type(effect)](effect)

    def flush(self) -> None:
        """See :class:`Dataplane`."""
        for failure in self._tables.flush():
            self.counters[f"netlink_{failure}"] += 1

    def attend(self, reactor: Any, report: Report, tell: Tell) -> Callable[[], object]:
        """See :class:`Dataplane`: nothing here lives on without this process."""
        return lambda: None

    def close(self) -> None:
        """See :class:`Dataplane`."""
        self._undo.close()

    # -- who owns the addresses --------------------------------------------------------------------

    def _interfaces(self) -> list[str]:
        """Those whose packets look into our routes, whoever serves."""
        interfaces = [] if self.home_link is None else [self.home_link.name]
        if self._virtual is not None:
            interfaces.append(self._virtual.name)
        return interfaces

    def _prepare(self, edge: EdgeConfiguration, undo: ExitStack) -> Selection | None:
        """Rules for what comes from the home link, and what switches the one for everything else."""
        if edge.group is None:
            return None
        interfaces = self._interfaces()
        if not self._forwards_on:
            # A killed process leaves its rules.
            self._tables.look_up(add=False)
        for interface in interfaces:
            self._tables.look_up(interface)
        TunDataplane.flush(self)

        def remove() -> None:
            for interface in interfaces:
                self._tables.look_up(interface, add=False)
            TunDataplane.flush(self)

        undo.callback(remove)
        self._selected = KernelTables(FIRST_TABLE + edge.group)
        undo.callback(self._selected.close)
        selection = Selection(self._switch_rules)
        undo.callback(selection.close)
        return selection

    def _switch_rules(self, *, selected: bool) -> None:
        """Have the routes looked into for what comes from anywhere, or not: in the selection's thread."""
        self._selected.look_up(add=selected)
        self._selected.flush()

    def _own(self) -> None:
        self.owns = True
        if self.home_link is not None:
            self.home_link.answers = True
        if self._selection is not None:
            self._selection.set(selected=True)

    def _disown(self, *, at_once: bool = False) -> None:
        """Answer for nothing. What still comes may be passed on (:meth:`pass_on`), but for ``at_once``."""
        self.owns = False
        if self.home_link is not None:
            self.home_link.answers = False
        if self._selection is not None:
            self._selection.set(selected=False)

    def assert_ownership(self) -> None:
        """Say again where the virtual address is, so that switches do not forget it."""
        if self.owns and self.home_link is not None and self._virtual is not None:
            self.home_link.announce(self._address, self._address)

    def pass_on(self, packet: bytes) -> bool:
        """Give a packet that came before others knew to the member that serves now; whether that can be."""
        if self.home_link is None or len(packet) < HEADER_LENGTH:
            return False
        self.home_link.pass_on(packet)
        return True

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
        # A link-local address is never routed; the answer alone keeps others from taking it.
        if not _is_link_local(address):
            self._bring_here(address)
        if self.home_link is not None:
            self.home_link.defend(address, override=address not in self._anycast)

    def _release(self, effect: ReleaseAddress) -> None:
        address = effect.address
        if self.home_link is not None:
            self.home_link.release(address)
        if not _is_link_local(address):
            self._bring_here(address, here=False)

    def _bring_here(self, address: bytes, *, here: bool = True) -> None:
        self._tables.route(address, 128, self.tun.interface, add=here)

    def _route(self, effect: RoutePrefix) -> None:
        self._tables.route(effect.prefix, effect.length, self.tun.interface)

    def _unroute(self, effect: UnroutePrefix) -> None:
        self._tables.route(effect.prefix, effect.length, self.tun.interface, add=False)


def _is_link_local(address: bytes) -> bool:
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
