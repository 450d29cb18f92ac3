"""A mobile node whose kernel makes the packets: its addresses, its tunnel, and the routes to both.

The home address is local, on a device that swallows what it is given (``dummy``): there go the packets of
applications as long as there is no binding. With one they go into an IPv6 tunnel from the care-of address,
which is an address of the interface; what comes from that leaves by the care-of link's router. At home the
home address is on the interface too. Not covered: IPsec and Mobile IPv6 headers (``mobile_associations``).
"""

from __future__ import annotations

import socket
import time
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from ..wire import text
from .errors import Unusable
from .mobile_network import APPLICATION_TABLE, EMULATOR_TABLE, HOME, NO_DAD, PROTOCOL, MobileNetwork
from .sysctl import Switches, switch

__all__ = ["KernelNetwork", "tunnel_name"]

_HOP_LIMIT = 64
_LOCAL_TABLE = 255
# Milliseconds.
_PATIENCE = 50
_MOMENT = 0.001
_IPV6_IN_IPV6 = 41
_NO_ENCAPSULATION_LIMIT = 1
# No link-local addresses, and so no Router Solicitations and reports of groups.
_NO_ADDRESSES = "1"
_NOWHERE = "100::"
"""Of the Discard-Only block (RFC 6666), never ours: a tunnel from there carries nothing."""


def tunnel_name(device: str) -> str:
    """The name of the tunnel beside a device of that name: 15 octets at most."""
    return f"{device[:13]}-t"


class KernelNetwork(MobileNetwork):
    """Makes a device and a tunnel to ``home_agent``, and removes them at the end."""

    _tunnel = 0
    _home_agent = ""

    def lead_to(self, home_agent: bytes) -> None:
        """Say where the tunnel ends; before :meth:`open`."""
        self._home_agent = text(home_agent)

    def _prepare(self, switches: Switches) -> None:
        if self._prefixes:
            switches.enable_forwarding()
        self._device = self._make(self._device_name, "dummy")
        self._address("add", self._device, self._home_address, NO_DAD | HOME)
        self._tunnel = self._make(tunnel_name(self._device_name), "ip6tnl", **self._ends(_NOWHERE))

    def _make(self, name: str, kind: str, **settings: Any) -> int:
        try:
            self._kernel.link("add", ifname=name, kind=kind, group=PROTOCOL, **settings)
            switch(f"conf/{name}/addr_gen_mode", _NO_ADDRESSES)
            switch(f"conf/{name}/accept_ra", "0")
            index = socket.if_nametoindex(name)
            self._kernel.link("set", index=index, state="up")
        except NetlinkError as error:
            raise Unusable(f"device {name}: no {kind}: {error.args[-1]}") from None
        return index

    def _ends(self, local: str) -> dict[str, Any]:
        return {
            "ip6tnl_local": local,
            "ip6tnl_remote": self._home_agent,
            "ip6tnl_ttl": _HOP_LIMIT,
            "ip6tnl_proto": _IPV6_IN_IPV6,
            "ip6tnl_flags": _NO_ENCAPSULATION_LIMIT,
        }

    def _await(self, address: str) -> None:
        """Wait until the kernel takes packets to an address of the interface, which it does a little later.

        Before that it has not joined the group that solicitations for it come to, and what comes is lost: the
        next solicitation is a second away.
        """
        for _ in range(_PATIENCE):
            routes = self._kernel.get_routes(family=socket.AF_INET6, table=_LOCAL_TABLE, oif=self._interface)
            if any(route.get_attr("RTA_DST") == address for route in routes):
                return
            time.sleep(_MOMENT)

    def use_care_of_address(self, address: bytes, router: bytes) -> None:
        """It is on the interface; what comes from it leaves by ``router``; packets come out of the tunnel."""
        local = text(address)
        self._route(dst="default", gateway=text(router), oif=self._interface, table=EMULATOR_TABLE)
        self._rule("add", self._emulator_priority, src=local, src_len=128, table=EMULATOR_TABLE)
        self._address("replace", self._interface, local)
        self._kernel.link("set", index=self._tunnel, kind="ip6tnl", **self._ends(local))
        self._await(local)

    def drop_care_of_address(self, address: bytes) -> None:
        """Undo :meth:`use_care_of_address`."""
        self._kernel.link("set", index=self._tunnel, kind="ip6tnl", **self._ends(_NOWHERE))
        self._address("del", self._interface, text(address))
        self._rule("del", self._emulator_priority, src=text(address), src_len=128, table=EMULATOR_TABLE)
        self._remove_route(dst="default", table=EMULATOR_TABLE)

    def set_tunnel(self) -> None:
        """Applications' packets go into the tunnel."""
        self._applications_by(self._tunnel)

    def remove_tunnel(self) -> None:
        """Undo :meth:`set_tunnel`."""
        self._applications_by(self._device)

    def at_home(self, router: bytes) -> None:
        """The home address is on the link, and so are the applications."""
        self._address("replace", self._interface, self._home_address)
        self._by_the_link(APPLICATION_TABLE, router, prefsrc=self._home_address)
        self._await(self._home_address)

    def leave_home(self) -> None:
        """Undo :meth:`at_home`."""
        self._address("del", self._interface, self._home_address)
        self._remove_route(dst=self._home_prefix, table=APPLICATION_TABLE)
        self._applications_by(self._device)
