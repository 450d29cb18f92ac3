"""How a mobile node's kernel takes its packets the right way: rules, routes, addresses, proxies, switches.

Covered: what both dataplanes have in common, and the way to the emulator and back. There the care-of address
is not local: it is routed to the TUN, and the kernel answers solicitations for it by proxy. The home address
is local, on the TUN. Two tables decide by where a packet begins: what the emulator wrote (``iif`` TUN) leaves
by the link, what applications send (``iif lo``) goes to the TUN, or at home to the link.
Not covered: a kernel that makes the packets (``mobile_kernel_network``), reading and writing packets
(``mobile_tun``), link events (``mobile_link``).
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..wire import text
from .sysctl import Switches

__all__ = ["PROTOCOL", "MobileNetwork", "TunNetwork"]

PROTOCOL = 136
"""Origin of our routes, rules, addresses, proxies, group of our devices; what carries it at a start was left
by a killed emulator."""
EMULATOR_TABLE = 13601
APPLICATION_TABLE = 13602
_MAIN_TABLE = 254
_FIRST_PRIORITY = 13600

_INET6 = socket.AF_INET6
_PROXY = 0x08
NO_DAD, HOME = 0x02, 0x10
_PERMANENT = 0x80
_KINDS = frozenset(("dummy", "ip6tnl"))
_FROM_ADVERTISEMENT = 9
_GONE = frozenset((errno.ENOENT, errno.ESRCH, errno.EEXIST, errno.ENODEV, errno.EADDRNOTAVAIL))


class MobileNetwork(ABC):
    """One interface, and a device that has the home address; every change is made at once.

    ``prefixes`` are the mobile network's (RFC 3963), as (address, length).
    """

    def __init__(
        self,
        interface: str,
        device: str,
        home_address: bytes,
        home_prefix: str,
        prefixes: Sequence[tuple[bytes, int]] = (),
    ) -> None:
        self._name = interface
        self._device_name = device
        self._device = 0
        self._home_address = text(home_address)
        self._home_prefix = home_prefix
        self._prefixes = [(text(prefix), length) for prefix, length in prefixes]
        self._kernel = IPRoute()
        self._interface = socket.if_nametoindex(interface)
        # Between the routes on the links and what applications send.
        self._emulator_priority = _FIRST_PRIORITY + 1 + len(self._prefixes)

    def open(self, switches: Switches, counters: Counter[str]) -> None:
        """Clean up after others, then take over the interface."""
        self._remove_own(counters)
        for name, value in (
            (f"conf/{self._name}/accept_ra", "0"),
            (f"conf/{self._name}/autoconf", "0"),
            # The link-local address is needed the moment the carrier is there (RFC 4429's motive).
            (f"conf/{self._name}/dad_transmits", "0"),
        ):
            switches.set(name, value)
        self._remove_autoconfigured(counters)
        self._prepare(switches)
        rules: list[dict[str, Any]] = [
            {"dst": prefix, "dst_len": length, "table": _MAIN_TABLE}
            for prefix, length in (("fe80::", 10), *self._prefixes)
        ]
        for priority, rule in enumerate(rules, _FIRST_PRIORITY):
            self._rule("add", priority, **rule)
        rules = [
            {"iifname": "lo"},
            *({"src": prefix, "src_len": length} for prefix, length in self._prefixes),
        ]
        for priority, rule in enumerate(rules, self._emulator_priority + 1):
            self._rule("add", priority, table=APPLICATION_TABLE, **rule)
        self._applications_by(self._device)

    @abstractmethod
    def _prepare(self, switches: Switches) -> None:
        """Have the device, with the home address."""

    def close(self) -> None:
        """Remove everything of ours but a TUN, which ends with its descriptor."""
        self._remove_own(Counter())
        self._kernel.close()

    def _applications_by(self, device: int) -> None:
        self._route(dst="default", oif=device, table=APPLICATION_TABLE, prefsrc=self._home_address)

    def _rule(self, command: str, priority: int, **rule: Any) -> None:
        self._kernel.rule(command, family=_INET6, priority=priority, protocol=PROTOCOL, **rule)

    def _by_the_link(self, table: int, router: bytes, **source: str) -> None:
        """Send to the home link's addresses directly, to all others by ``router``."""
        self._route(dst=self._home_prefix, oif=self._interface, table=table, **source)
        self._route(dst="default", gateway=text(router), oif=self._interface, table=table, **source)

    def _route(self, **route: Any) -> None:
        self._kernel.route("replace", family=_INET6, proto=PROTOCOL, **route)

    def _remove_route(self, **route: Any) -> None:
        try:
            self._kernel.route("del", family=_INET6, proto=PROTOCOL, **route)
        except NetlinkError as error:
            # A link that went down took its routes along.
            if error.code not in _GONE:
                raise

    def _address(self, command: str, device: int, address: str, flags: int = NO_DAD) -> None:
        try:
            self._kernel.addr(
                command,
                family=_INET6,
                index=device,
                address=address,
                prefixlen=128,
                flags=flags,
                proto=PROTOCOL,
            )
        except NetlinkError as error:
            if command != "del" or error.code not in _GONE:
                raise

    def _proxy(self, command: str, address: str) -> None:
        try:
            self._kernel.neigh(
                command,
                family=_INET6,
                dst=address,
                ifindex=self._interface,
                flags=_PROXY,
                protocol=PROTOCOL,
            )
        except NetlinkError as error:
            if command != "del" or error.code not in _GONE:
                raise

    def _remove_own(self, counters: Counter[str]) -> None:
        for rule in self._kernel.get_rules(family=_INET6):
            if rule.get_attr("FRA_PROTOCOL") == PROTOCOL:
                counters["leftover_rules_removed"] += 1
                self._kernel.rule("del", family=_INET6, priority=rule.get_attr("FRA_PRIORITY"))
        for table in (EMULATOR_TABLE, APPLICATION_TABLE, _MAIN_TABLE):
            for route in self._kernel.get_routes(family=_INET6, table=table, proto=PROTOCOL):
                counters["leftover_routes_removed"] += 1
                self._delete_found(route, table)
        for neighbour in self._kernel.get_neighbours(family=_INET6, flags=_PROXY):
            if neighbour.get_attr("NDA_PROTOCOL") == PROTOCOL:
                counters["leftover_proxies_removed"] += 1
                self._proxy("del", neighbour.get_attr("NDA_DST"))
        for address in self._kernel.get_addr(family=_INET6):
            if address.get_attr("IFA_PROTO") == PROTOCOL:
                counters["leftover_addresses_removed"] += 1
                self._address("del", address["index"], address.get_attr("IFA_ADDRESS"))
        for link in self._kernel.get_links():
            kind = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND")
            if link.get_attr("IFLA_GROUP") == PROTOCOL and kind in _KINDS:
                counters["leftover_devices_removed"] += 1
                self._kernel.link("del", index=link["index"])

    def _remove_autoconfigured(self, counters: Counter[str]) -> None:
        """What the kernel made of earlier Router Advertisements."""
        for address in self._kernel.get_addr(family=_INET6, index=self._interface):
            if not (address.get_attr("IFA_FLAGS") or address["flags"]) & _PERMANENT:
                counters["autoconfigured_addresses_removed"] += 1
                self._kernel.addr(
                    "del",
                    family=_INET6,
                    index=self._interface,
                    address=address.get_attr("IFA_ADDRESS"),
                    prefixlen=address["prefixlen"],
                )
        for route in self._kernel.get_routes(family=_INET6, table=_MAIN_TABLE, oif=self._interface):
            if route["proto"] == _FROM_ADVERTISEMENT:
                self._delete_found(route, _MAIN_TABLE)

    def _delete_found(self, route: Any, table: int) -> None:
        destination = route.get_attr("RTA_DST")
        wanted: dict[str, Any] = {
            "dst": f"{destination}/{route['dst_len']}" if destination else "default",
            "oif": route.get_attr("RTA_OIF"),
            "table": table,
        }
        try:
            self._kernel.route("del", family=_INET6, **wanted)
        except NetlinkError as error:
            if error.code not in _GONE:
                raise


class TunNetwork(MobileNetwork):
    """With a TUN, which is there: packets to the care-of address come to it, and those of applications."""

    def _prepare(self, switches: Switches) -> None:
        self._device = socket.if_nametoindex(self._device_name)
        switches.enable_forwarding()
        switches.set(f"conf/{self._name}/proxy_ndp", "1")
        switches.set(f"neigh/{self._name}/proxy_delay", "0")
        self._address("replace", self._device, self._home_address)
        self._rule("add", self._emulator_priority, iifname=self._device_name, table=EMULATOR_TABLE)

    def use_care_of_address(self, address: bytes, router: bytes) -> None:
        """Packets to ``address`` come to the TUN; what the emulator writes leaves by ``router``."""
        self._route(dst="default", gateway=text(router), oif=self._interface, table=EMULATOR_TABLE)
        self._route(dst=f"{text(address)}/128", oif=self._device, table=_MAIN_TABLE)
        self._proxy("replace", text(address))

    def drop_care_of_address(self, address: bytes) -> None:
        """Undo :meth:`use_care_of_address`."""
        self._proxy("del", text(address))
        self._remove_route(dst=f"{text(address)}/128", oif=self._device, table=_MAIN_TABLE)
        self._remove_route(dst="default", table=EMULATOR_TABLE)

    def at_home(self, router: bytes) -> None:
        """The home address is on the link; emulator and applications use the link."""
        self._proxy("replace", self._home_address)
        self._by_the_link(EMULATOR_TABLE, router)
        self._by_the_link(APPLICATION_TABLE, router, prefsrc=self._home_address)

    def leave_home(self) -> None:
        """Undo :meth:`at_home`."""
        self._proxy("del", self._home_address)
        for table in (EMULATOR_TABLE, APPLICATION_TABLE):
            self._remove_route(dst=self._home_prefix, table=table)
        self._remove_route(dst="default", table=EMULATOR_TABLE)
        self._applications_by(self._device)
