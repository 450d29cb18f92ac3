"""The tunnels of mobile nodes in the kernel: what is wanted, what is installed, and the difference.

Covered: for each home address and each mobile network prefix a route through the tunnel device and a filter
for what comes back; addresses that are routed to the daemon; finding what is different by hand or left by a
killed process. Not covered: the device and the rules (``tunnel_device``), payload ESP (``kernel_ipsec``).

Nothing is sent for what is installed already. Whatever belongs to somebody else is left alone: a route is
ours by its origin and by its device or its tunnel's source, a filter by its preference.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .kernel_messages import (
    DELETE_ROUTE,
    INGRESS,
    NEW_ROUTE,
    Filter,
    Route,
    add_filter,
    add_route,
    device_of,
    filter_in,
    filters_of,
    remove_filter,
    remove_route,
    route_in,
    routes_of,
)
from .netlink_messages import Conversation, Failure, Message, Overrun, Request

__all__ = ["Comparison", "KernelTunnels"]

Key = tuple[bytes, int]
"""A prefix and its length; a home address has 128."""

_WHOLE = 128
_STEP = 128
_ALREADY = frozenset((errno.EEXIST, errno.ESRCH, errno.ENOENT))


class _Change(NamedTuple):
    request: Request
    key: Key
    about: str


class Comparison:
    """What a comparison has found so far: ``repaired`` counts by kind."""

    def __init__(self, *, leftovers: bool) -> None:
        self.leftovers = leftovers
        self.repaired: Counter[str] = Counter()
        self.touched: set[Key] = set()


class KernelTunnels:
    """Wanted and installed routes and filters of one home agent address.

    ``device`` is the tunnel device's index and ``tun`` that of the daemon's; both may be set anew. After
    ``suspect`` was set, only a comparison tells what is installed. ``all_narrow`` leaves everything that goes
    out to the daemon.
    """

    def __init__(
        self,
        kernel: Conversation,
        address: bytes,
        table: int,
        preference: int,
        counters: Counter[str],
    ) -> None:
        self.device = self.tun = 0
        self.suspect = self.all_narrow = False
        self._kernel = kernel
        self._address = address
        self._table = table
        self._preference = preference
        self._counters = counters
        self._here: set[bytes] = set()
        self._care_of: dict[bytes, bytes] = {}
        self._owner: dict[Key, bytes] = {}
        self._behind: dict[bytes, set[Key]] = {}
        self._protected: set[bytes] = set()
        self._narrow: set[bytes] = set()
        self._routes: dict[Key, Route] = {}
        self._filters: dict[Key, tuple[int, bytes]] = {}
        self._stray: list[int] = []
        self._handle = 1
        self._dirty: dict[Key, None] = {}
        self._comparison: Comparison | None = None

    # -- what is wanted ----------------------------------------------------------------------------

    def bring_here(self, address: bytes, *, here: bool = True) -> None:
        """Route an address to the daemon, as long as there is no tunnel for it; or no longer."""
        (self._here.add if here else self._here.discard)(address)
        self._dirty[address, _WHOLE] = None

    def tunnel(self, home_address: bytes, care_of_address: bytes | None, *, protected: bool = False) -> None:
        """The tunnel of a home address and of the prefixes behind it, or none.

        One that is ``protected`` is the daemon's, both ways: nothing gets through here without ESP.
        """
        if care_of_address is None:
            self._care_of.pop(home_address, None)
        else:
            self._care_of[home_address] = care_of_address
        if protected:
            self._protected.add(home_address)
        else:
            self._protected.discard(home_address)
        self._touch(home_address)

    def care_of(self, home_address: bytes) -> bytes | None:
        """Where the tunnel of a home address ends, if it has one."""
        return self._care_of.get(home_address)

    def add_prefix(self, prefix: bytes, length: int, home_address: bytes) -> None:
        """Route a mobile network prefix as its mobile router's home address."""
        self.remove_prefix(prefix, length)
        self._owner[prefix, length] = home_address
        self._behind.setdefault(home_address, set()).add((prefix, length))

    def remove_prefix(self, prefix: bytes, length: int) -> None:
        """No longer."""
        key = prefix, length
        self._dirty[key] = None
        owner = self._owner.pop(key, None)
        if owner is not None:
            behind = self._behind[owner]
            behind.discard(key)
            if not behind:
                del self._behind[owner]

    def set_narrow(self, care_of_addresses: set[bytes]) -> None:
        """Leave what goes to these care-of addresses to the daemon: it fragments, the kernel does not."""
        changed = self._narrow ^ care_of_addresses
        self._narrow = set(care_of_addresses)
        if changed:
            for home_address, care_of_address in self._care_of.items():
                if care_of_address in changed:
                    self._touch(home_address)

    def _touch(self, home_address: bytes) -> None:
        self._dirty[home_address, _WHOLE] = None
        for key in self._behind.get(home_address, ()):
            self._dirty[key] = None

    def _wanted(self, key: Key) -> tuple[Route | None, bytes | None]:
        """The route of a key, and the care-of address that its filter lets through."""
        owner = self._owner.get(key)
        care_of_address = None
        home_address = key[0] if owner is None and key[1] == _WHOLE else owner
        if home_address is not None and home_address not in self._protected:
            care_of_address = self._care_of.get(home_address)
        narrow = self.all_narrow or care_of_address in self._narrow
        if care_of_address is not None and not narrow:
            return Route(*key, self.device, (self._address, care_of_address)), care_of_address
        if care_of_address is not None or owner is not None or key[0] in self._here:
            return Route(*key, self.tun), care_of_address
        return None, None

    # -- changes -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make the kernel what is wanted, as far as is known what it has."""
        if not self._dirty and not self._stray:
            return
        changes = [
            _Change(remove_filter(self.device, INGRESS, self._preference, handle), (b"", 0), "delete_filter")
            for handle in self._stray
        ]
        self._stray = []
        if self._comparison is not None:
            self._comparison.touched.update(self._dirty)
        for key in self._dirty:
            self._differ(key, changes)
        self._dirty = {}
        if not changes:
            return
        try:
            failures = self._kernel.send([each.request for each in changes])
        except Overrun:
            self._counters["netlink_overrun"] += 1
            self.suspect = True
            return
        for failure in failures:
            self._note(failure, changes[failure.index])

    def _differ(self, key: Key, changes: list[_Change]) -> None:
        route, care_of_address = self._wanted(key)
        if route != self._routes.get(key):
            if route is None:
                changes.append(_Change(remove_route(*key, self._table), key, "delete_route"))
                del self._routes[key]
            else:
                changes.append(_Change(add_route(route, self._table), key, "add_route"))
                self._routes[key] = route
        known = self._filters.get(key)
        if care_of_address == (known[1] if known else None):
            return
        if care_of_address is not None:
            # Before the old one goes, so that nothing that was allowed before and after is ever dropped.
            wanted = Filter(care_of_address, self._address, *key)
            self._handle += 1
            request = add_filter(self.device, INGRESS, self._preference, self._handle, wanted)
            changes.append(_Change(request, key, "add_filter"))
            self._filters[key] = self._handle, care_of_address
        else:
            del self._filters[key]
        if known is not None:
            request = remove_filter(self.device, INGRESS, self._preference, known[0])
            changes.append(_Change(request, key, "delete_filter"))

    def _note(self, failure: Failure, change: _Change) -> None:
        # Something is not as it was believed to be.
        self.suspect = True
        if failure.code not in _ALREADY:
            name = errno.errorcode.get(failure.code, str(failure.code))
            self._counters[f"netlink_{change.about}_{name}"] += 1

    def concerns(self, message: Message) -> bool:
        """Whether a notification is about a route of ours, or about one of the devices."""
        if message.kind in (NEW_ROUTE, DELETE_ROUTE):
            return route_in(message, self._table) is not None
        return device_of(message) in (self.device, self.tun, None)

    # -- comparison --------------------------------------------------------------------------------

    def forget_installed(self) -> None:
        """The device has gone, and everything on it."""
        self._dirty |= dict.fromkeys((*self._routes, *self._filters))
        self._routes.clear()
        self._filters.clear()

    def compare(self, dumps: Conversation, found: Comparison) -> Iterator[None]:
        """Find out what the kernel has and repair the difference, a little with each step.

        What changes meanwhile is left for the next time. Without ``found.leftovers`` what nobody wants stays
        where it is: it may yet be wanted. ``OSError`` or :class:`Overrun` where the kernel cannot say.
        """
        self.flush()
        self._comparison = found
        try:
            routes: dict[Key, Route] = {}
            for index, message in enumerate(dumps.dump(routes_of(self._table).kind, self._routes_body())):
                route = route_in(message, self._table)
                if route is not None and self._is_ours(route):
                    routes[route.prefix, route.length] = route
                if index % _STEP == _STEP - 1:
                    yield
            filters: dict[int, Filter] = {}
            request = filters_of(self.device, INGRESS, self._preference)
            for index, message in enumerate(dumps.dump(request.kind, request.body)):
                listed = filter_in(message, self.device, INGRESS, self._preference)
                if listed is not None:
                    filters[listed[0]] = listed[1]
                if index % _STEP == _STEP - 1:
                    yield
            self._handle = max((self._handle, *filters))
            yield
            keys = self._take_routes(routes, found)
            keys |= self._take_filters(filters, found)
            for index, key in enumerate(keys):
                self._judge(key, found)
                if index % _STEP == _STEP - 1:
                    self.flush()
                    yield
            self.flush()
        finally:
            self._comparison = None

    def _routes_body(self) -> bytes:
        return routes_of(self._table).body

    def _is_ours(self, route: Route) -> bool:
        if route.tunnel is not None:
            return route.tunnel[0] == self._address
        return route.device in (self.tun, self.device)

    def _take_routes(self, routes: dict[Key, Route], found: Comparison) -> set[Key]:
        """Believe what was found; the keys to look at."""
        keys = (routes.keys() | self._routes.keys()) - found.touched
        for key in keys:
            if key in routes:
                self._routes[key] = routes[key]
            else:
                self._routes.pop(key, None)
        return keys

    def _take_filters(self, filters: dict[int, Filter], found: Comparison) -> set[Key]:
        """The same for filters, those that have no place here, and the wrong ones, aside."""
        keys = self._filters.keys() - found.touched
        for key in keys:
            handle, care_of_address = self._filters[key]
            if filters.get(handle) != Filter(care_of_address, self._address, *key):
                del self._filters[key]
        known = {handle for handle, _ in self._filters.values()}
        for handle, each in filters.items():
            if handle in known:
                continue
            key = each.prefix or b"", each.length
            fits = (
                each.outer_source is not None
                and each == Filter(each.outer_source, self._address, *key)
                and key not in self._filters
            )
            if fits and key not in found.touched and each.outer_source is not None:
                self._filters[key] = handle, each.outer_source
                keys.add(key)
            elif key not in found.touched and found.leftovers:
                self._stray.append(handle)
                found.repaired["filter"] += 1
        return keys

    def _judge(self, key: Key, found: Comparison) -> None:
        if key in found.touched:
            return
        route, care_of_address = self._wanted(key)
        if route is None and not found.leftovers:
            return
        if route != self._routes.get(key):
            found.repaired["route"] += 1
            self._dirty[key] = None
        known = self._filters.get(key)
        if care_of_address != (known[1] if known else None):
            found.repaired["filter"] += 1
            self._dirty[key] = None

    def clear(self) -> None:
        """Remove everything that is installed."""
        self._here.clear()
        self._care_of.clear()
        self._protected.clear()
        self._owner.clear()
        self._behind.clear()
        self._dirty |= dict.fromkeys((*self._routes, *self._filters))
        self.flush()
