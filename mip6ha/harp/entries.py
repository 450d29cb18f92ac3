"""One mobile node's state in a State Synchronization reply: its options, and how much room they take.

Covered: the Binding Cache Information option and the options that belong to it, with the fragments of
a context (``docs/harp.md``). It is the path of every replicated change and of every resync. Not
covered: the message around the entries (``messages``), and what a context holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from struct import Struct
from typing import NamedTuple

from ..binding.messages import MobileNetworkPrefix, OptionType, mobile_network_prefix_option
from ..mobility import Option
from ..wire import text
from .numbers import Numbers

__all__ = [
    "FRAGMENT",
    "IDENTIFIER",
    "INFORMATION",
    "MAX_LENGTH",
    "PREFIX",
    "Fault",
    "StateEntry",
    "entry_options",
    "entry_size",
    "packed",
    "read_entries",
    "whole",
]

MAX_LENGTH = 2048
"""Octets of the longest Mobility Header: its length field counts to 255 (RFC 6275 6.1.1)."""

INFORMATION = Struct(">16s16sHHH2x")
FRAGMENT = Struct(">BBQ")
PREFIX = int(OptionType.MOBILE_NETWORK_PREFIX)
IDENTIFIER = int(OptionType.MN_IDENTIFIER)

_FRAGMENT_ROOM = 244
"""Octets of a context in one fragment: with its 12 octets of header a whole number of 8-octet units."""

_AAA_ROOM = 255


class Fault(Exception):
    """An option that breaks a message's rules: the reason, and which of its options it is."""

    def __init__(self, reason: str, index: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.index = index


class StateEntry(NamedTuple):
    """One mobile node's state in an SS-REP: a Binding Cache Information option and what belongs to it.

    ``flags`` are the Binding Update's 16 flag bits, ``lifetime`` is what is left in units of 4 s (0: no
    binding), ``identifier`` the data of a Mobile Node Identifier option (RFC 4283), ``aaa`` AVPs as they
    came. Extensions: ``context``, put together from its fragments, and its ``generation``; a
    generation without a context travels as one empty fragment, generation 0 without one as none.
    """

    home_address: bytes
    care_of_address: bytes
    flags: int
    sequence: int
    lifetime: int
    prefixes: tuple[MobileNetworkPrefix, ...] = ()
    identifier: bytes | None = None
    aaa: bytes | None = None
    generation: int = 0
    context: bytes = b""


def read_entries(found: tuple[Option, ...], numbers: Numbers) -> tuple[StateEntry, ...]:
    """The entries among a message's options; raises :class:`Fault`, also for one left incomplete."""
    information = numbers.binding_cache_information
    starts = [index for index, option in enumerate(found) if option[0] == information]
    starts.append(len(found))
    belongs = (PREFIX, IDENTIFIER, numbers.aaa_information, numbers.context)
    for index in range(starts[0]):
        if found[index].type in belongs:
            raise Fault("option_without_binding", index)
    entries: list[StateEntry] = []
    seen: set[bytes] = set()
    for start, end in pairwise(starts):
        entry = _read_entry(found, start, end, numbers)
        if entry.home_address in seen:
            raise Fault("duplicate_home_address", start)
        seen.add(entry.home_address)
        entries.append(entry)
    return tuple(entries)


def _read_entry(found: tuple[Option, ...], start: int, end: int, numbers: Numbers) -> StateEntry:
    home_address, care_of_address, flags, sequence, lifetime = INFORMATION.unpack(found[start][1])
    prefixes: list[MobileNetworkPrefix] = []
    identifier: bytes | None = None
    aaa: bytes | None = None
    fragments: list[bytes] = []
    generation = expected = 0
    for index in range(start + 1, end):
        kind, data = found[index]
        if kind == numbers.context:
            number, count, version = FRAGMENT.unpack_from(data)
            if not fragments:
                generation, expected = version, count
            if number != len(fragments) or count != expected or number >= count or version != generation:
                raise Fault("context_fragment", index)
            fragments.append(data[FRAGMENT.size :])
        elif kind == PREFIX:
            if data[1] > 128:
                raise Fault("prefix_length", index)
            prefixes.append(MobileNetworkPrefix(data[2:], data[1]))
        elif kind == IDENTIFIER:
            if identifier is not None:
                raise Fault("repeated_option", index)
            identifier = data
        elif kind == numbers.aaa_information:
            aaa = data if aaa is None else aaa + data
    if len(fragments) != expected:
        raise Fault("context_incomplete", start)
    return StateEntry(
        home_address,
        care_of_address,
        flags,
        sequence,
        lifetime,
        tuple(prefixes),
        identifier,
        aaa,
        generation,
        b"".join(fragments),
    )


def whole(address: bytes) -> bytes:
    """``address``, or ``ValueError`` if it is none: ``struct`` would cut or fill it."""
    if len(address) != 16:
        raise ValueError("an IPv6 address has 16 octets")
    return address


def entry_options(entry: StateEntry, numbers: Numbers, *, extensions: bool) -> list[Option]:
    """The options of ``entry`` in their order; ``ValueError`` or ``struct.error`` for what fits in none."""
    (
        home_address,
        care_of_address,
        flags,
        sequence,
        lifetime,
        prefixes,
        identifier,
        aaa,
        generation,
        context,
    ) = entry
    data = INFORMATION.pack(whole(home_address), whole(care_of_address), flags, sequence, lifetime)
    items = [Option(numbers.binding_cache_information, data)]
    for prefix in prefixes:
        if len(prefix.prefix) != 16 or not 0 <= prefix.length <= 128:
            raise ValueError("a prefix has 16 octets and at most 128 bits")
        items.append(mobile_network_prefix_option(prefix))
    if identifier is not None:
        if len(identifier) < 2:
            raise ValueError("a mobile node identifier has a subtype and a value")
        items.append(Option(IDENTIFIER, identifier))
    if aaa is not None:
        kind = numbers.aaa_information
        items += [Option(kind, aaa[at : at + _AAA_ROOM]) for at in range(0, len(aaa) or 1, _AAA_ROOM)]
    if extensions and (context or generation):
        kind = numbers.context
        count = _fragments(context)
        for index in range(count):
            at = index * _FRAGMENT_ROOM
            head = FRAGMENT.pack(index, count, generation)
            items.append(Option(kind, head + context[at : at + _FRAGMENT_ROOM]))
    return items


def _fragments(context: bytes) -> int:
    return -(-len(context) // _FRAGMENT_ROOM) or 1


def _entry_octets(entry: StateEntry, extensions: bool) -> int:
    """Octets from an entry's first option, at 8n + 6, to the end of its last: no padding behind it."""
    # 6 + 2 + 40 ends at a multiple of 8, and so does every prefix: 4 of padding, 20 of option.
    end = 48 + 24 * len(entry.prefixes)
    if entry.identifier is not None:
        end += 2 + len(entry.identifier)
    if entry.aaa is not None:
        length = len(entry.aaa)
        end += length + 2 * (-(-length // _AAA_ROOM) or 1)
    if extensions and (entry.context or entry.generation):
        end += (4 - end) % 8 + 12 * _fragments(entry.context) + len(entry.context)
    return end - 6


def entry_size(entry: StateEntry, *, extensions: bool = True) -> int:
    """Octets that ``entry`` adds to an SS-REP in which another one follows, padding included.

    The sum over a message's entries and 32 is never less than the message's size.
    """
    return -(-_entry_octets(entry, extensions) // 8) * 8


def packed(
    entries: Iterable[StateEntry],
    term: int | None,
    room: int = MAX_LENGTH,
    *,
    extensions: bool = True,
) -> Iterator[tuple[StateEntry, ...]]:
    """Group ``entries``, in order, into as few SS-REP as hold them in ``room`` octets each.

    ``room`` is for the whole Mobility Header; the count is exact. ``ValueError``, when its turn
    comes, for an entry that fits in no message.
    """
    room = min(room, MAX_LENGTH) & ~7
    # The first entry's place: 6 octets of frame, 4 of fixed part, padding to 8n + 6, 16 with a Term.
    first = end = 30 if extensions and term is not None else 14
    group: list[StateEntry] = []
    for entry in entries:
        octets = _entry_octets(entry, extensions)
        if end + octets > room:
            if first + octets > room:
                raise ValueError(
                    f"the state of {text(entry.home_address)} takes {first + octets} octets of {room}"
                )
            yield tuple(group)
            group, end = [], first
        group.append(entry)
        end += -(-octets // 8) * 8
    if group:
        yield tuple(group)
