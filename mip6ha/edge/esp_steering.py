"""Which ESP packets to the home agent's address the kernel opens: u32 filters on the TUN device.

Covered: deciding by SPI, source and sequence number, a range of numbers as prefixes of the sequence word,
telling only the difference, finding out what is missing or too much. Not covered: the states that open them
(``kernel_payload``); what no filter takes goes to the daemon.

Everything to the home agent's address leaves by the TUN device. What a filter takes there comes in again by
the same device, where a rule delivers it to this host. That is the horizon of an inbound SA: a number
above its limit never gets as far as the kernel's ESP, for there is no filter for it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from ..ipv6 import ESP
from .kernel_messages import (
    DELETE_FILTER,
    EGRESS,
    GET_FILTER,
    NEW_FILTER,
    add_clsact,
)
from .netlink_messages import (
    CREATE,
    EXCLUSIVE,
    Conversation,
    Failure,
    Message,
    Request,
    attribute,
    attributes,
    nested,
)

__all__ = ["EspSteering", "horizon", "words"]

# Numbers are given up by so many, and so many below the limit are the kernel's at least, if they were lent: a
# round number of filters, of which few change when the limit does.
_REACH = 2048
_WORD = 1 << 32

_PREFERENCE = 100
# Ours, of the 2,047 that filters of one side may have.
_TABLE = 0x68
_BUCKETS = 256
_HIGHEST_NODE = 0xFFF
_STEP = 128

_TRAFFIC = Struct("=BxxxiIII")
_ETHER_IPV6 = 0x86DD
_KIND, _OPTIONS = 1, 2
_HASH, _LINK, _DIVISOR, _SELECTOR, _ACTIONS = 2, 3, 4, 5, 7
# struct tc_u32_sel without its keys, and one of them.
_HEAD = Struct("=BBBxHHhh4s")
_KEY = Struct("=4s4sii")
_TERMINAL = 1
# Offsets in a packet of the fixed header with ESP right behind it.
_NEXT_HEADER_WORD, _SOURCE, _DESTINATION, _SPI, _SEQUENCE = 4, 8, 24, 40, 44
_ACTION_KIND, _ACTION_OPTIONS, _MIRRED_PARAMETERS = 1, 2, 2
_MIRRED = Struct("=IIiiiiI")
_STOLEN, _INGRESS_REDIRECT = 4, 3


class _Leaf(NamedTuple):
    """The packets of one filter: ``value`` and ``mask`` are of the sequence number's low 32 bits."""

    spi: int
    source: bytes
    value: int
    mask: int


def horizon(first: int, limit: int, due: int) -> int:
    """The lowest number up to ``limit`` that is steered, where ``first`` is the lowest one lent.

    Not above ``due``, the lowest one that can still be accepted: what comes later is the daemon's to judge.
    """
    return max(first, min(limit + 1 - _REACH, due) // _REACH * _REACH)


def words(first: int, last: int) -> list[tuple[int, int]]:
    """The low 32 bits of the numbers from ``first`` to ``last``, as few values and masks as possible."""
    if last - first >= _WORD - 1:
        return [(0, 0)]
    if first > last:
        return []
    low, high = first % _WORD, last % _WORD
    if low > high:
        return words(low, _WORD - 1) + words(0, high)
    found = []
    while low <= high:
        size = low & -low or _WORD
        while low + size - 1 > high:
            size >>= 1
        found.append((low, _WORD - size))
        low += size
    return found


# -- messages ------------------------------------------------------------------------------------------------


def _traffic(device: int, handle: int) -> bytes:
    about = _PREFERENCE << 16 | socket.htons(_ETHER_IPV6)
    return _TRAFFIC.pack(socket.AF_UNSPEC, device, handle, EGRESS, about)


def _change(kind: int, flags: int, device: int, handle: int, *options: bytes) -> Request:
    body = _traffic(device, handle) + attribute(_KIND, b"u32\0")
    return Request(kind, flags, body + nested(_OPTIONS, *options) if options else body)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little"))


def _match(offset: int, value: int, mask: int = _WORD - 1) -> bytes:
    return _KEY.pack(mask.to_bytes(4, "big"), (value & mask).to_bytes(4, "big"), offset, 0)


def _match_address(offset: int, address: bytes) -> list[bytes]:
    return [_match(offset + at, int.from_bytes(address[at : at + 4], "big")) for at in range(0, 16, 4)]


def _root(address: bytes) -> bytes:
    """ESP right behind the fixed header to our address: look into the table at the SPI's last octet.

    To our address only: what comes in again by the TUN device and is for another one would come back here.
    """
    keys = [_match(_NEXT_HEADER_WORD, ESP << 8, 0xFF00), *_match_address(_DESTINATION, address)]
    return _HEAD.pack(0, 0, len(keys), 0, 0, 0, _SPI, (_BUCKETS - 1).to_bytes(4, "big")) + b"".join(keys)


def _selector(leaf: _Leaf) -> bytes:
    keys = [_match(_SPI, leaf.spi), _match(_SEQUENCE, leaf.value, leaf.mask)]
    keys += _match_address(_SOURCE, leaf.source)
    return _HEAD.pack(_TERMINAL, 0, len(keys), 0, 0, 0, 0, bytes(4)) + b"".join(keys)


def _redirect(device: int) -> bytes:
    parameters = _MIRRED.pack(0, 0, _STOLEN, 0, 0, _INGRESS_REDIRECT, device)
    options = nested(_ACTION_OPTIONS, attribute(_MIRRED_PARAMETERS, parameters))
    return nested(1, attribute(_ACTION_KIND, b"mirred\0"), options)


def _bucket(spi: int) -> int:
    return _TABLE << 20 | spi % _BUCKETS << 12


def _add(device: int, handle: int, leaf: _Leaf) -> Request:
    options = (
        _number(_HASH, _bucket(leaf.spi)),
        attribute(_SELECTOR, _selector(leaf)),
        nested(_ACTIONS, _redirect(device)),
    )
    return _change(NEW_FILTER, CREATE | EXCLUSIVE, device, handle, *options)


def _remove(device: int, handle: int) -> Request:
    return _change(DELETE_FILTER, 0, device, handle)


def _open(device: int, address: bytes) -> list[Request]:
    """The table, and the one filter that looks into it."""
    root = _number(_LINK, _TABLE << 20), attribute(_SELECTOR, _root(address))
    return [
        _change(NEW_FILTER, CREATE | EXCLUSIVE, device, _TABLE << 20, _number(_DIVISOR, _BUCKETS)),
        # In the list that the kernel begins with, whatever its number.
        _change(NEW_FILTER, CREATE | EXCLUSIVE, device, 1, *root),
    ]


def _filter_in(message: Message, device: int) -> tuple[int, bytes, bytes] | None:
    """A filter of ours: its handle, its selector, and where it leads, to a table or a device."""
    _, index, handle, parent, about = _TRAFFIC.unpack_from(message.body)
    if (index, parent, about >> 16) != (device, EGRESS, _PREFERENCE):
        return None
    options = attributes(attributes(message.body, _TRAFFIC.size).get(_OPTIONS, b""))
    if _SELECTOR not in options:
        return None
    action = attributes(attributes(options.get(_ACTIONS, b"")).get(1, b""))
    parameters = attributes(action.get(_ACTION_OPTIONS, b"")).get(_MIRRED_PARAMETERS)
    if parameters is None:
        return handle, options[_SELECTOR], options.get(_LINK, b"")
    _, _, then, _, _, how, to = _MIRRED.unpack_from(parameters)
    leads = b"" if (then, how) != (_STOLEN, _INGRESS_REDIRECT) else to.to_bytes(4, "little")
    return handle, options[_SELECTOR], leads


# -- steering ------------------------------------------------------------------------------------------------


class EspSteering:
    """The filters of one TUN device, ``device`` by index. ``address`` is the home agent's."""

    def __init__(self, kernel: Conversation, device: int, address: bytes) -> None:
        self._kernel = kernel
        self._device = device
        self._address = address
        self._installed: dict[int, dict[_Leaf, int]] = {}
        self._leaves: dict[int, _Leaf] = {}

    def open(self) -> list[Failure]:
        """Begin with nothing steered; what went wrong."""
        self._installed.clear()
        self._leaves.clear()
        removal = _change(DELETE_FILTER, 0, self._device, 0)
        requests = [removal, add_clsact(self._device), *_open(self._device, self._address)]
        # There may be no filters yet, nor a place for them.
        harmless = {(0, errno.ENOENT), (0, errno.EINVAL), (1, errno.EEXIST)}
        return [each for each in self._kernel.send(requests) if (each.index, each.code) not in harmless]

    def steer(self, spi: int, source: bytes, first: int, limit: int) -> list[Request]:
        """What has these numbers of an SA opened by the kernel, and no others of it.

        What is to be steered still is so at every moment.
        """
        return self._become(spi, [_Leaf(spi, source, *word) for word in words(first, limit)])

    def release(self, spi: int) -> list[Request]:
        """What leaves an SA to the daemon."""
        return self._become(spi, [])

    def _become(self, spi: int, wanted: Sequence[_Leaf]) -> list[Request]:
        known = self._installed.setdefault(spi, {})
        requests = []
        for leaf in wanted:
            if leaf not in known:
                handle = known[leaf] = self._free_handle(spi)
                self._leaves[handle] = leaf
                requests.append(_add(self._device, handle, leaf))
        for leaf in known.keys() - set(wanted):
            handle = known.pop(leaf)
            del self._leaves[handle]
            requests.append(_remove(self._device, handle))
        if not known:
            del self._installed[spi]
        return requests

    def _free_handle(self, spi: int) -> int:
        first = _bucket(spi) + 1
        # With all of them taken the kernel refuses the last one again.
        taken = self._leaves
        return next(
            (each for each in range(first, first + _HIGHEST_NODE - 1) if each not in taken),
            first + _HIGHEST_NODE - 1,
        )

    # -- comparison --------------------------------------------------------------------------------

    def compare(self, dumps: Conversation, wrong: set[int]) -> Iterator[None]:
        """Find SPIs of which something is missing; remove what is too much, which counts as SPI -1.

        -1 is also what everything begins with: that is made anew, and with it everything else is missing.
        """
        right: set[int] = set()
        roots: list[tuple[bytes, bytes]] = []
        strays: list[int] = []
        request = Request(GET_FILTER, 0, _traffic(self._device, 0))
        for index, message in enumerate(dumps.dump(request.kind, request.body)):
            found = _filter_in(message, self._device)
            if found is not None and found[0] >> 20 != _TABLE:
                roots.append(found[1:])
            elif found is not None and found[0] not in self._leaves:
                strays.append(found[0])
            elif found is not None and found == self._expected(found[0]):
                right.add(found[0])
            if index % _STEP == _STEP - 1:
                yield
        yield
        if roots != [(_root(self._address), (_TABLE << 20).to_bytes(4, "little"))]:
            wrong |= {-1, *self._installed}
            self.open()
            return
        removals = [_remove(self._device, handle) for handle in strays if handle not in self._leaves]
        if removals and len(self._kernel.send(removals)) < len(removals):
            wrong.add(-1)
        yield
        # The kernel lists by position, and what changes meanwhile may hide others.
        for index, handle in enumerate(self._leaves.keys() - right):
            if handle in self._leaves and self._ask(dumps, handle) != self._expected(handle):
                wrong.add(self._leaves[handle].spi)
            if index % _STEP == _STEP - 1:
                yield

    def _expected(self, handle: int) -> tuple[int, bytes, bytes]:
        return handle, _selector(self._leaves[handle]), self._device.to_bytes(4, "little")

    def _ask(self, dumps: Conversation, handle: int) -> tuple[int, bytes, bytes] | None:
        body = _traffic(self._device, handle) + attribute(_KIND, b"u32\0")
        try:
            return _filter_in(dumps.ask(Request(GET_FILTER, 0, body)), self._device)
        except OSError:
            return None
