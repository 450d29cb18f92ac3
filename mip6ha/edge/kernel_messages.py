"""What the kernel dataplane says to the kernel over NETLINK_ROUTE, and what it reads back.

Covered: the tunnel device, routes with a tunnel's end points, flower filters on them, policy rules, the
requests to list them. Not covered: when any of it is wanted (``kernel_tunnels``, ``tunnel_device``).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple

from .netlink import PROTOCOL
from .netlink_messages import CREATE, EXCLUSIVE, REPLACE, Message, Request, attribute, attributes, nested
from .socket_filter import IF_EQUAL, KEEP_BACK, LET_THROUGH, LOAD_HALF, LOAD_OCTET, LOAD_WORD, program, word

__all__ = [
    "EGRESS",
    "INGRESS",
    "METRIC",
    "TUNNEL_HOP_LIMIT",
    "Filter",
    "Route",
    "Rule",
    "add_address",
    "add_clsact",
    "add_device",
    "add_filter",
    "add_route",
    "add_rule",
    "change_device",
    "drop_everything",
    "filter_in",
    "filters_of",
    "remove_address",
    "remove_device",
    "remove_filter",
    "remove_route",
    "remove_rule",
    "route_in",
    "routes_of",
]

NETLINK_ROUTE = 0
GROUP_LINK, GROUP_TRAFFIC, GROUP_ADDRESS, GROUP_ROUTE, GROUP_RULE = 1, 4, 9, 11, 19
"""Multicast groups of what concerns IPv6."""
NEW_LINK, DELETE_LINK, GET_LINK = 16, 17, 18
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_RULE, DELETE_RULE = 32, 33
NEW_QUEUE = 36
NEW_FILTER, DELETE_FILTER, GET_FILTER = 44, 45, 46

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""The two sides of ``clsact``: what comes out of tunnels, and what is about to enter one."""
METRIC = 64
"""Of our routes: it wins over those of an operator or a routing daemon (1024)."""
TUNNEL_HOP_LIMIT = 64
"""Hop limit of outer packets, as the core has it (RFC 2473 6.3)."""
LOCAL_TABLE = 255

_LINK = Struct("=BxHiII")
_ADDRESS = Struct("=BBBBI")
_ROUTE = Struct("=8BI")
_TRAFFIC = Struct("=BxxxiIII")
_UP = 1
_LINK_NAME, _LINK_MTU, _LINK_INFORMATION, _KIND, _DATA = 3, 4, 18, 1, 2
_COLLECT_METADATA = 19
_ADDRESS_LOCAL, _ADDRESS_LIFETIMES, _ADDRESS_FLAGS = 2, 6, 8
_NO_DETECTION, _NO_PREFIX_ROUTE = 0x02, 0x200
_LIFETIMES = Struct("=IIII")
_FOREVER = 0xFFFFFFFF

_COMPATIBLE, _UNIVERSE, _UNICAST, _LOCAL = 252, 0, 1, 2
_DESTINATION, _OUT_INTERFACE, _PRIORITY, _TABLE = 1, 4, 6, 15
_ENCAPSULATION_KIND, _ENCAPSULATION = 21, 22
_IP6, _TUNNEL_DESTINATION, _TUNNEL_SOURCE, _TUNNEL_HOPS = 4, 2, 3, 4

_RULE_TO, _RULE_INTERFACE, _RULE_PRIORITY = 1, 3, 6
_RULE_TABLE, _RULE_ORIGIN, _RULE_PROTOCOL = 15, 21, 22
_TO_TABLE = 1

_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_TRAFFIC_KIND, _TRAFFIC_OPTIONS = 1, 2
_MATCHALL_ACTIONS = 2
_FLOWER_ACTIONS, _ETHER_TYPE = 3, 8
_SOURCE, _SOURCE_MASK = 14, 15
_OUTER_SOURCE, _OUTER_SOURCE_MASK, _OUTER_DESTINATION, _OUTER_DESTINATION_MASK = 31, 32, 33, 34
_ETHER_ALL, _ETHER_IPV6 = 0x0003, 0x86DD
_ACTION_KIND, _ACTION_OPTIONS, _GACT_PARAMETERS = 1, 2, 2
_DROP = nested(
    1,
    attribute(_ACTION_KIND, b"gact\0"),
    nested(_ACTION_OPTIONS, attribute(_GACT_PARAMETERS, Struct("=IIiii").pack(0, 0, 2, 0, 0))),
)
_WHOLE = b"\xff" * 16


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little"))


def _mask(length: int) -> bytes:
    return ((1 << 128) - (1 << 128 - length)).to_bytes(16, "big")


# -- the device ----------------------------------------------------------------------------------------------


def add_device(name: str) -> Request:
    """The one device of every tunnel (``external``), down; EEXIST if there is one of that name or kind."""
    information = nested(
        _LINK_INFORMATION,
        attribute(_KIND, b"ip6tnl"),
        nested(_DATA, attribute(_COLLECT_METADATA, b"")),
    )
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(_LINK_NAME, name.encode() + b"\0")
    return Request(NEW_LINK, CREATE | EXCLUSIVE, body + information)


def change_device(device: int, mtu: int) -> Request:
    """Up, with this MTU."""
    return Request(NEW_LINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, device, _UP, _UP) + _number(_LINK_MTU, mtu))


def remove_device(device: int) -> Request:
    """And with it every route and filter."""
    return Request(DELETE_LINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, device, 0, 0))


def device_is_ready(message: Message, mtu: int) -> bool:
    """Whether what the kernel says of the device is as :func:`change_device` left it."""
    flags = _LINK.unpack_from(message.body)[3]
    found = attributes(message.body, _LINK.size)
    return bool(flags & _UP) and int.from_bytes(found.get(_LINK_MTU, b""), "little") == mtu


def ask_device(device: int) -> Request:
    """What is known of it; ENODEV if there is none."""
    return Request(GET_LINK, 0, _LINK.pack(socket.AF_UNSPEC, 0, device, 0, 0))


def is_tunnel_device(message: Message) -> bool:
    """Whether it is one of every tunnel, and not a device of another kind."""
    information = attributes(attributes(message.body, _LINK.size).get(_LINK_INFORMATION, b""))
    return information.get(_KIND, b"").rstrip(b"\0") == b"ip6tnl" and _COLLECT_METADATA in attributes(
        information.get(_DATA, b"")
    )


def add_address(device: int, address: bytes) -> Request:
    """An address without a prefix, deprecated from the start so that nobody speaks from it by chance."""
    body = _ADDRESS.pack(socket.AF_INET6, 128, _NO_DETECTION, _UNIVERSE, device)
    body += attribute(_ADDRESS_LOCAL, address)
    body += _number(_ADDRESS_FLAGS, _NO_DETECTION | _NO_PREFIX_ROUTE)
    body += attribute(_ADDRESS_LIFETIMES, _LIFETIMES.pack(0, _FOREVER, 0, 0))
    return Request(NEW_ADDRESS, CREATE | EXCLUSIVE, body)


def remove_address(device: int, address: bytes) -> Request:
    """The other way."""
    body = _ADDRESS.pack(socket.AF_INET6, 128, 0, _UNIVERSE, device) + attribute(_ADDRESS_LOCAL, address)
    return Request(DELETE_ADDRESS, 0, body)


def addresses_of(device: int) -> Request:
    """For a dump: the IPv6 addresses; the kernel may list those of other devices too."""
    return Request(GET_ADDRESS, 0, _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, device))


def address_in(message: Message, device: int) -> bytes | None:
    """A global address of the device in a listing."""
    family, _, _, scope, index = _ADDRESS.unpack_from(message.body)
    if family != socket.AF_INET6 or index != device or scope != _UNIVERSE:
        return None
    found = attributes(message.body, _ADDRESS.size)
    return found.get(_ADDRESS_LOCAL) or found.get(1)


def device_of(message: Message) -> int | None:
    """The device that a notification of a link, an address or a filter is about; ``None`` for a rule of ours.

    -1 is none that we know of.
    """
    if message.kind in (NEW_RULE, DELETE_RULE):
        origin = attributes(message.body, _ROUTE.size).get(_RULE_ORIGIN)
        return None if origin == bytes((PROTOCOL,)) else -1
    # The index stands at the same place in all of them.
    return int.from_bytes(message.body[4:8], "little") if len(message.body) >= 8 else -1


def others_only(ports: Sequence[int]) -> bytes:
    """A program for a socket of notifications: no routes of other origin, nothing that ``ports`` did."""
    behind = range(5 + len(ports), 5, -1)
    return program(
        (LOAD_WORD, 0, 0, 12),
        *((IF_EQUAL, skipped, 0, word(port)) for skipped, port in zip(behind, ports, strict=True)),
        (LOAD_HALF, 0, 0, 4),
        (IF_EQUAL, 1, 0, NEW_ROUTE << 8),
        (IF_EQUAL, 0, 2, DELETE_ROUTE << 8),
        (LOAD_OCTET, 0, 0, 16 + 5),
        (IF_EQUAL, 0, 1, PROTOCOL),
        LET_THROUGH,
        KEEP_BACK,
    )


# -- routes --------------------------------------------------------------------------------------------------


class Route(NamedTuple):
    """Where a prefix goes: to a device, through a tunnel if it has ends (source, destination)."""

    prefix: bytes
    length: int
    device: int
    tunnel: tuple[bytes, bytes] | None = None


def add_route(route: Route, table: int, *, local: bool = False) -> Request:
    """Install or replace a route; ``local``: what is for the prefix is for this host."""
    body = _route_head(route.prefix, route.length, table, _LOCAL if local else _UNICAST)
    body += _number(_OUT_INTERFACE, route.device)
    if route.tunnel is not None:
        source, destination = route.tunnel
        body += attribute(_ENCAPSULATION_KIND, _IP6.to_bytes(2, "little"))
        body += nested(
            _ENCAPSULATION,
            attribute(_TUNNEL_DESTINATION, destination),
            attribute(_TUNNEL_SOURCE, source),
            attribute(_TUNNEL_HOPS, bytes((TUNNEL_HOP_LIMIT,))),
        )
    return Request(NEW_ROUTE, CREATE | REPLACE, body)


def remove_route(prefix: bytes, length: int, table: int) -> Request:
    """Remove our route; ESRCH if there is none."""
    return Request(DELETE_ROUTE, 0, _route_head(prefix, length, table, 0))


def remove_own_address(address: bytes, device: int) -> Request:
    """The route that the kernel makes for an address of its own, so that it is routed like any other."""
    body = _ROUTE.pack(socket.AF_INET6, 128, 0, 0, _COMPATIBLE, 0, _UNIVERSE, _LOCAL, 0)
    body += attribute(_DESTINATION, address) + _number(_OUT_INTERFACE, device)
    return Request(DELETE_ROUTE, 0, body + _number(_TABLE, LOCAL_TABLE))


def _route_head(prefix: bytes, length: int, table: int, kind: int) -> bytes:
    return (
        _ROUTE.pack(socket.AF_INET6, length, 0, 0, _COMPATIBLE, PROTOCOL, _UNIVERSE, kind, 0)
        + attribute(_DESTINATION, prefix)
        + _number(_PRIORITY, METRIC)
        + _number(_TABLE, table)
    )


def routes_of(table: int) -> Request:
    """For a dump: our routes in a table. A kernel that does not select lists all of them."""
    body = _ROUTE.pack(socket.AF_INET6, 0, 0, 0, 0, PROTOCOL, 0, 0, 0) + _number(_TABLE, table)
    return Request(GET_ROUTE, 0, body)


def route_in(message: Message, table: int) -> Route | None:
    """Our route in a listing or a notification; ``None`` if it is another's."""
    family, length, _, _, _, origin, _, _, _ = _ROUTE.unpack_from(message.body)
    if family != socket.AF_INET6 or origin != PROTOCOL:
        return None
    found = attributes(message.body, _ROUTE.size)
    if int.from_bytes(found.get(_TABLE, b""), "little") != table:
        return None
    if int.from_bytes(found.get(_PRIORITY, b""), "little") != METRIC:
        return None
    tunnel = None
    if _ENCAPSULATION in found:
        ends = attributes(found[_ENCAPSULATION])
        tunnel = ends.get(_TUNNEL_SOURCE, b""), ends.get(_TUNNEL_DESTINATION, b"")
    device = int.from_bytes(found.get(_OUT_INTERFACE, b""), "little")
    return Route(found.get(_DESTINATION, bytes(16)), length, device, tunnel)


# -- filters -------------------------------------------------------------------------------------------------


class Filter(NamedTuple):
    """Packets of a tunnel: outer source and destination, and where the inner source lies. ``None`` is any."""

    outer_source: bytes | None
    outer_destination: bytes | None
    prefix: bytes | None = None
    length: int = 0
    drops: bool = False
    """Dropped rather than let through."""


def add_clsact(device: int) -> Request:
    """Where filters hang; EEXIST if it is there."""
    body = _TRAFFIC.pack(socket.AF_UNSPEC, device, _CLSACT_HANDLE, _CLSACT, 0)
    return Request(NEW_QUEUE, CREATE | EXCLUSIVE, body + attribute(_TRAFFIC_KIND, b"clsact\0"))


def drop_everything(device: int, preference: int) -> Request:
    """What no filter before it lets out of a tunnel; EEXIST if it is there."""
    return Request(
        NEW_FILTER,
        CREATE | EXCLUSIVE,
        _traffic(device, INGRESS, preference, 1, _ETHER_ALL)
        + attribute(_TRAFFIC_KIND, b"matchall\0")
        + nested(_TRAFFIC_OPTIONS, nested(_MATCHALL_ACTIONS, _DROP)),
    )


def add_filter(device: int, side: int, preference: int, handle: int, wanted: Filter) -> Request:
    """A filter under a handle of ours; EEXIST if the handle is taken.

    One that lets through needs no action: with a match the search ends, and the packet goes its way.
    """
    keys = [attribute(_ETHER_TYPE, _ETHER_IPV6.to_bytes(2, "big"))]
    if wanted.prefix is not None:
        keys += [attribute(_SOURCE, wanted.prefix), attribute(_SOURCE_MASK, _mask(wanted.length))]
    if wanted.outer_source is not None:
        keys += [attribute(_OUTER_SOURCE, wanted.outer_source), attribute(_OUTER_SOURCE_MASK, _WHOLE)]
    if wanted.outer_destination is not None:
        keys.append(attribute(_OUTER_DESTINATION, wanted.outer_destination))
        keys.append(attribute(_OUTER_DESTINATION_MASK, _WHOLE))
    if wanted.drops:
        keys.append(nested(_FLOWER_ACTIONS, _DROP))
    return Request(
        NEW_FILTER,
        CREATE | EXCLUSIVE,
        _traffic(device, side, preference, handle)
        + attribute(_TRAFFIC_KIND, b"flower\0")
        + nested(_TRAFFIC_OPTIONS, *keys),
    )


def remove_filter(device: int, side: int, preference: int, handle: int) -> Request:
    """Remove a filter by its handle, all of that preference with handle 0; ENOENT if there is none."""
    kind = attribute(_TRAFFIC_KIND, b"flower\0")
    return Request(DELETE_FILTER, 0, _traffic(device, side, preference, handle) + kind)


def _traffic(device: int, side: int, preference: int, handle: int, protocol: int = _ETHER_IPV6) -> bytes:
    return _TRAFFIC.pack(socket.AF_UNSPEC, device, handle, side, preference << 16 | socket.htons(protocol))


def filters_of(device: int, side: int, preference: int) -> Request:
    """For a dump: the filters of one preference."""
    return Request(GET_FILTER, 0, _traffic(device, side, preference, 0))


def filter_in(message: Message, device: int, side: int, preference: int) -> tuple[int, Filter] | None:
    """A filter in a listing, with its handle; ``None`` if it is another's, or only the head of a list."""
    _, index, handle, parent, about = _TRAFFIC.unpack_from(message.body)
    if (index, parent, about >> 16) != (device, side, preference) or not handle:
        return None
    found = attributes(message.body, _TRAFFIC.size)
    if found.get(_TRAFFIC_KIND) != b"flower\0":
        return None
    keys = attributes(found.get(_TRAFFIC_OPTIONS, b""))
    mask = keys.get(_SOURCE_MASK, b"")
    length = int.from_bytes(mask, "big").bit_count()
    whole = {
        key: keys.get(key) if keys.get(about) == _WHOLE else None
        for key, about in (
            (_OUTER_SOURCE, _OUTER_SOURCE_MASK),
            (_OUTER_DESTINATION, _OUTER_DESTINATION_MASK),
        )
    }
    return handle, Filter(
        whole[_OUTER_SOURCE],
        whole[_OUTER_DESTINATION],
        keys.get(_SOURCE) if mask == _mask(length) else None,
        length,
        _FLOWER_ACTIONS in keys,
    )


# -- rules ---------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """Which packets look into a table: what comes in by an interface, is for an address, of a protocol."""

    priority: int
    table: int
    interface: str | None = None
    to: bytes | None = None
    protocol: int | None = None


def add_rule(rule: Rule) -> Request:
    """A rule; EEXIST if it is there."""
    return Request(NEW_RULE, CREATE | EXCLUSIVE, _rule(rule))


def remove_rule(rule: Rule) -> Request:
    """Remove it; ENOENT if there is none."""
    return Request(DELETE_RULE, 0, _rule(rule))


def _rule(rule: Rule) -> bytes:
    length = 0 if rule.to is None else 128
    body = _ROUTE.pack(socket.AF_INET6, length, 0, 0, _COMPATIBLE, 0, 0, _TO_TABLE, 0)
    body += _number(_RULE_PRIORITY, rule.priority) + _number(_RULE_TABLE, rule.table)
    body += attribute(_RULE_ORIGIN, bytes((PROTOCOL,)))
    if rule.to is not None:
        body += attribute(_RULE_TO, rule.to)
    if rule.interface is not None:
        body += attribute(_RULE_INTERFACE, rule.interface.encode() + b"\0")
    if rule.protocol is not None:
        body += attribute(_RULE_PROTOCOL, bytes((rule.protocol,)))
    return body
