"""An interface with the virtual MAC address of a redundant home agent set, on top of the home link.

Covered: making it so that it never speaks by itself, what a killed process left of it, removing it. Not
covered: neighbour discovery with that address (``ndp``), what comes in by it (``dataplane``).

Every member of a set has one with the same address, always up, for bringing an interface up takes the kernel
30 ms where there are 100,000 routes. So neighbours keep one link-layer address for the home agent for good,
whoever serves, and a takeover needs a single frame, whatever the number of home addresses: it teaches the
switch where the address is now. What a switch floods meanwhile reaches the others too, who drop it.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from .errors import Unusable
from .sysctl import switch

__all__ = ["VirtualLink", "interface_name"]

_UP, _NO_ARP, _MULTICAST = 0x1, 0x80, 0x1000
# There is no IPv6 on an interface with an MTU of less than 1280.
_NO_IPV6 = 1279


def interface_name(group: int) -> str:
    """The name of the interface of a group."""
    return f"mip6ha-v{group}"


class VirtualLink:
    """A macvlan interface that exists until :meth:`remove`.

    ``lower`` is the home link's index, ``mtu`` its MTU. Raises :class:`Unusable` where it cannot be made.
    With ``adopt`` one that a killed process left, and that lets packets in still, stays.
    """

    def __init__(
        self,
        group: int,
        lower: int,
        mtu: int,
        link_layer: bytes,
        counters: Counter[str],
        *,
        adopt: bool = False,
    ) -> None:
        self.name = interface_name(group)
        with IPRoute() as kernel:
            for index in kernel.link_lookup(ifname=self.name):
                # A killed process leaves it.
                if _kind(kernel, index) != "macvlan":
                    raise Unusable(f"interface {self.name}: there is another kind of interface of that name")
                if adopt and _is_as_it_was(kernel, index, lower, mtu, link_layer):
                    self.interface = index
                    return
                kernel.link("del", index=index)
                counters["leftover_virtual_link_removed"] += 1
            try:
                kernel.link(
                    "add",
                    ifname=self.name,
                    kind="macvlan",
                    macvlan_mode="private",
                    link=lower,
                    address=link_layer.hex(":"),
                    mtu=_NO_IPV6,
                )
            except NetlinkError as error:
                raise Unusable(f"interface {self.name}: {_why(error)}") from None
            self.interface = socket.if_nametoindex(self.name)
            try:
                # The kernel must not say anything with this address: a switch would believe it. So no IPv6
                # address, no answers to ARP for other interfaces' addresses, no multicast listener reports,
                # which it would owe to groups that it joins when IPv6 begins on an interface with multicast.
                kernel.link("set", index=self.interface, flags=_NO_ARP, change=_NO_ARP | _MULTICAST)
                kernel.link("set", index=self.interface, mtu=mtu)
                switch(f"conf/{self.name}/addr_gen_mode", "1")
                switch(f"conf/{self.name}/accept_ra", "0")
                switch(f"conf/{self.name}/forwarding", "1")
                kernel.link("set", index=self.interface, flags=_UP, change=_UP)
            except BaseException:
                self.remove()
                raise

    def remove(self) -> None:
        """End the interface; harmless if it has gone already."""
        with IPRoute() as kernel:
            for index in kernel.link_lookup(ifname=self.name):
                kernel.link("del", index=index)


def _kind(kernel: IPRoute, index: int) -> str | None:
    for link in kernel.get_links(index):
        information = link.get_attr("IFLA_LINKINFO")
        if information is not None:
            return str(information.get_attr("IFLA_INFO_KIND"))
    return None


def _is_as_it_was(kernel: IPRoute, index: int, lower: int, mtu: int, link_layer: bytes) -> bool:
    wanted = {"IFLA_LINK": lower, "IFLA_MTU": mtu, "IFLA_ADDRESS": link_layer.hex(":")}
    return any(
        link["flags"] & (_UP | _NO_ARP | _MULTICAST) == _UP | _NO_ARP
        and all(link.get_attr(name) == value for name, value in wanted.items())
        for link in kernel.get_links(index)
    )


def _why(error: NetlinkError) -> str:
    if error.code == errno.EOPNOTSUPP:
        return 'the kernel has no macvlan; set virtual_mac = "off"'
    if error.code == errno.EADDRINUSE:
        return "another interface on the home link has this MAC address"
    if error.code == errno.EPERM:
        return "needs CAP_NET_ADMIN"
    return str(error.args[-1])
