"""How a mobile node's kernel takes its packets to the emulator and back: rules, routes, proxies, switches.

The care-of address is not local: it is routed to the TUN, and the kernel answers solicitations for it by
proxy. The home address is local, on the TUN. Two tables decide by where a packet begins: what the emulator
wrote (``iif`` TUN) leaves by the link, what applications send (``iif lo``) goes to the TUN, or at home to the
link.
Not covered: reading and writing packets (``mobile_service``), link events (``mobile_link``).
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ..wire import text
from .sysctl import Switches

__all__ = ["MobileNetwork"]

PROTOCOL = 136
"""Origin of our routes, rules and proxies; what carries it at a start was left by a killed emulator."""
EMULATOR_TABLE = 13601
APPLICATION_TABLE = 13602
_MAIN_TABLE = 254
_FIRST_PRIORITY = 13600

_INET6 = socket.AF_INET6
_PROXY = 0x08
_PERMANENT = 0x80
_FROM_ADVERTISEMENT = 9
_GONE = frozenset((errno.ENOENT, errno.ESRCH, errno.EEXIST, errno.ENODEV, errno.EADDRNOTAVAIL))


class MobileNetwork:
    """One interface and one TUN (by name and index); every change is made at once.

    ``prefixes`` are the mobile network's (RFC 3963), as (address, length).
    """

    def __init__(
        self,
        interface: str,
        tun: tuple[str, int],
        home_address: bytes,
        home_prefix: str,
        prefixes: Sequence[tuple[bytes, int]] = (),
    ) -> None:
        self._name = interface
        self._tun_name, self._tun = tun
        self._home_address = text(home_address)
        self._home_prefix = home_prefix
        self._prefixes = [(text(prefix), length) for prefix, length in prefixes]
        self._kernel = IPRoute()
        self._interface = socket.if_nametoindex(interface)

    def open(self, switches: Switches, counters: Counter[str]) -> None:
        """Clean up after others, then take over the interface."""
        self._remove_own(counters)
        switches.enable_forwarding()
        for name, value in (
            (f"conf/{self._name}/accept_ra", "0"),
            (f"conf/{self._name}/autoconf", "0"),
            # The link-local address is needed the moment the carrier is there (RFC 4429's motive).
            (f"conf/{self._name}/dad_transmits", "0"),
            (f"conf/{self._name}/proxy_ndp", "1"),
            (f"neigh/{self._name}/proxy_delay", "0"),
        ):
            switches.set(name, value)
        self._remove_autoconfigured(counters)
        self._kernel.addr(
            "replace", family=_INET6, index=self._tun, address=self._home_address, prefixlen=128, flags=2
        )
        rules: list[dict[str, Any]] = [
            {"dst": prefix, "dst_len": length, "table": _MAIN_TABLE}
            for prefix, length in (("fe80::", 10), *self._prefixes)
        ]
        rules.append({"iifname": self._tun_name, "table": EMULATOR_TABLE})
        rules.append({"iifname": "lo", "table": APPLICATION_TABLE})
        rules += [
            {"src": prefix, "src_len": length, "table": APPLICATION_TABLE}
            for prefix, length in self._prefixes
        ]
        for position, rule in enumerate(rules):
            priority = _FIRST_PRIORITY + position
            self._kernel.rule("add", family=_INET6, priority=priority, protocol=PROTOCOL, **rule)
        self._applications_to_tun()

    def close(self) -> None:
        """Remove everything of ours but the TUN, which ends with its descriptor."""
        self._remove_own(Counter())
        self._kernel.close()

    def use_care_of_address(self, address: bytes, router: bytes) -> None:
        """Packets to ``address`` come to the TUN; what the emulator writes leaves by ``router``."""
        self._route(dst="default", gateway=text(router), oif=self._interface, table=EMULATOR_TABLE)
        self._route(dst=f"{text(address)}/128", oif=self._tun, table=_MAIN_TABLE)
        self._proxy("replace", text(address))

    def drop_care_of_address(self, address: bytes) -> None:
        """Undo :meth:`use_care_of_address`."""
        self._proxy("del", text(address))
        self._remove_route(dst=f"{text(address)}/128", oif=self._tun, table=_MAIN_TABLE)
        self._remove_route(dst="default", table=EMULATOR_TABLE)

    def at_home(self, router: bytes) -> None:
        """The home address is on the link; emulator and applications use the link."""
        self._proxy("replace", self._home_address)
        for table, source in ((EMULATOR_TABLE, {}), (APPLICATION_TABLE, {"prefsrc": self._home_address})):
            link = {"oif": self._interface, "table": table, **source}
            self._route(dst=self._home_prefix, **link)
            self._route(dst="default", gateway=text(router), **link)

    def leave_home(self) -> None:
        """Undo :meth:`at_home`."""
        self._proxy("del", self._home_address)
        for table in (EMULATOR_TABLE, APPLICATION_TABLE):
            self._remove_route(dst=self._home_prefix, table=table)
        self._remove_route(dst="default", table=EMULATOR_TABLE)
        self._applications_to_tun()

    def _applications_to_tun(self) -> None:
        self._route(dst="default", oif=self._tun, table=APPLICATION_TABLE, prefsrc=self._home_address)

    def _route(self, **route: Any) -> None:
        self._kernel.route("replace", family=_INET6, proto=PROTOCOL, **route)

    def _remove_route(self, **route: Any) -> None:
        try:
            self._kernel.route("del", family=_INET6, proto=PROTOCOL, **route)
        except NetlinkError as error:
            # A link that went down took its routes along.
            if error.code not in _GONE:
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
