"""The tunnel device that all mobile nodes share, and how their packets get to it.

Covered: making and adopting the device, the home agent's address on it, the rules that split payload from
signalling, the gate that keeps a standby quiet, finding out what of it is missing. Not covered: the tunnels
themselves (``kernel_tunnels``), which of two members has the gate open (``kernel_dataplane``).

The kernel takes tunnel packets only for an address that it has. So the device has the home agent's, without
the route that would make everything sent to it the kernel's: a rule sends just tunnel packets (protocol 41)
to a table where the address is local. Everything else goes to the daemon.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from time import sleep

from ..ipv6 import HEADER_LENGTH, IPV6
from .errors import Unusable
from .kernel_messages import (
    EGRESS,
    INGRESS,
    Filter,
    Route,
    Rule,
    add_address,
    add_clsact,
    add_device,
    add_filter,
    add_route,
    add_rule,
    address_in,
    addresses_of,
    ask_device,
    change_device,
    device_is_ready,
    drop_everything,
    is_tunnel_device,
    remove_address,
    remove_device,
    remove_filter,
    remove_own_address,
    remove_route,
    remove_rule,
    route_in,
    routes_of,
)
from .netlink_messages import Conversation, Request
from .sysctl import switch

__all__ = ["NAME", "TunnelDevice"]

NAME = "mip6"
"""There is one such device in a network namespace, for every home agent in it."""

# Behind the rules of ``netlink``: what the daemon gives back, tunnel packets by interface, and from anywhere.
_GIVEN_BACK, _BY_INTERFACE, _FROM_ANYWHERE = 13497, 13498, 13499
# The table where the address of group 1 is local is 13757, and so on.
_FIRST_TABLE = 13756
_GATE, _LET_THROUGH, _NOTHING_ELSE = 100, 1000, 60000
_SIDES = (INGRESS, EGRESS)
# Milliseconds.
_PATIENCE = 100


class TunnelDevice:
    """The device and what belongs to one home agent address on it. ``group`` 0 is a home agent alone.

    ``interfaces`` are those whose tunnel packets it takes while it is ready, ``tun`` is the daemon's own.
    What is missing is made by :meth:`ensure`. The gate is shut as long as ``shut`` says so.
    """

    def __init__(
        self,
        kernel: Conversation,
        dumps: Conversation,
        address: bytes,
        group: int,
        *,
        link_mtu: int,
        interfaces: Sequence[str],
        tun: str,
    ) -> None:
        self.index = 0
        self.shut = False
        self.preference = _LET_THROUGH + group
        self._gate = _GATE + group
        self._kernel = kernel
        self._dumps = dumps
        self._address = address
        self._mtu = link_mtu - HEADER_LENGTH
        self._table = _FIRST_TABLE + group
        self.from_anywhere = Rule(_FROM_ANYWHERE, self._table, None, address, IPV6)
        self._rules = [Rule(_GIVEN_BACK, self._table, tun, address)]
        self._rules += [Rule(_BY_INTERFACE, self._table, each, address, IPV6) for each in interfaces]
        if not group:
            self._rules.append(self.from_anywhere)

    def ensure(self) -> tuple[set[str], list[str]]:
        """Make what is not there; what that was, and what could not be made, as ``name_ERROR``.

        ``device`` in the first means that the device is a new one, with nothing on it. Raises
        :class:`Unusable` where there can be none.
        """
        made: set[str] = set()
        failed: list[str] = []
        if self._find():
            made.add("device")
        if not device_is_ready(self._kernel.ask(ask_device(self.index)), self._mtu):
            self._try("device_state", [change_device(self.index, self._mtu)], made, failed)
        self._try("address", [add_address(self.index, self._address)], made, failed)
        self._try("own_route", [remove_own_address(self._address, self.index)], made, failed)
        for _ in range(_PATIENCE if "address" in made else 0):
            # The kernel makes it in a moment, for every new address.
            if "own_route" in made:
                break
            sleep(0.001)
            self._try("own_route", [remove_own_address(self._address, self.index)], made, failed)
        self._try(
            "filter", [add_clsact(self.index), drop_everything(self.index, _NOTHING_ELSE)], made, failed
        )
        self._try("gate", self._gate_requests(), made, failed)
        self._try("rule", [add_rule(rule) for rule in self._rules], made, failed)
        if not self._is_delivered():
            local = Route(self._address, 128, self.index)
            self._try("route", [add_route(local, self._table, local=True)], made, failed)
        return made, failed

    def _find(self) -> bool:
        """Know the index of the device; whether it was made just now."""
        try:
            index = socket.if_nametoindex(NAME)
        except OSError:
            index = 0
        if index:
            if not is_tunnel_device(self._kernel.ask(ask_device(index))):
                raise Unusable(f"interface {NAME}: there is another kind of interface of that name")
            changed, self.index = index != self.index, index
            return changed
        for failure in self._kernel.send([add_device(NAME)]):
            reason = {
                errno.EEXIST: "the network namespace has another device for every IPv6 tunnel (external)",
                errno.EOPNOTSUPP: "the kernel has no IPv6 tunnels (ip6_tunnel)",
                errno.EPERM: "needs CAP_NET_ADMIN",
            }.get(failure.code, failure.text or os.strerror(failure.code))
            raise Unusable(f"interface {NAME}: {reason}")
        self.index = socket.if_nametoindex(NAME)
        # No address but ours, and no word of the kernel's own through it.
        switch(f"conf/{NAME}/addr_gen_mode", "1")
        switch(f"conf/{NAME}/accept_ra", "0")
        switch(f"conf/{NAME}/forwarding", "1")
        return True

    def _try(self, name: str, requests: list[Request], made: set[str], failed: list[str]) -> None:
        """Those that change nothing fail, and that says so."""
        already = (errno.EEXIST, errno.ESRCH, errno.ENOENT)
        failures = self._kernel.send(requests)
        if len(failures) < len(requests):
            made.add(name)
        failed += [
            f"{name}_{errno.errorcode.get(each.code, str(each.code))}"
            for each in failures
            if each.code not in already
        ]

    def _is_delivered(self) -> bool:
        request = routes_of(self._table)
        found = [route_in(each, self._table) for each in self._dumps.dump(request.kind, request.body)]
        return Route(self._address, 128, self.index) in found

    # -- the gate ----------------------------------------------------------------------------------

    def _gate_requests(self) -> list[Request]:
        if not self.shut:
            return [remove_filter(self.index, side, self._gate, 1) for side in _SIDES]
        filters = (Filter(None, self._address, drops=True), Filter(self._address, None, drops=True))
        return [
            add_filter(self.index, side, self._gate, 1, each)
            for side, each in zip(_SIDES, filters, strict=True)
        ]

    def set_gate(self, *, shut: bool) -> list[str]:
        """Let nothing through in either direction, or again everything; what went wrong."""
        self.shut = shut
        failed: list[str] = []
        self._try("gate", self._gate_requests(), set(), failed)
        return failed

    # -- the end -----------------------------------------------------------------------------------

    def remove(self) -> None:
        """Take away everything of this home agent, and the device with the last of them."""
        requests = [remove_rule(rule) for rule in self._rules]
        requests.append(remove_route(self._address, 128, self._table))
        requests += [remove_filter(self.index, side, self._gate, 0) for side in _SIDES]
        requests.append(remove_filter(self.index, INGRESS, self.preference, 0))
        requests.append(remove_address(self.index, self._address))
        self._kernel.send(requests)
        if not self.index:
            return
        request = addresses_of(self.index)
        others = [address_in(each, self.index) for each in self._dumps.dump(request.kind, request.body)]
        if not any(others):
            self._kernel.send([remove_device(self.index)])
