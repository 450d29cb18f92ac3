"""The messages between home agents, and the Home Agent Switch, to and from octets.

Covered: State Synchronization, Home Agent Control, Home Agent Hello (draft-ietf-mip6-hareliability)
and the Home Agent Switch (RFC 5142, with the draft's I bit), with their options. A message comes out
whole or not at all; unknown options are skipped. Not covered: a mobile node's options in an SS-REP
(``entries``), whether an address is one of ours, and who may send what.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from .. import mobility
from ..binding.messages import OPTION_RULES, UnknownMessage
from ..mobility import Option, OptionRule
from ..wire import Malformed
from .entries import (
    FRAGMENT,
    IDENTIFIER,
    INFORMATION,
    MAX_LENGTH,
    PREFIX,
    Fault,
    StateEntry,
    entry_options,
    entry_size,
    packed,
    read_entries,
    whole,
)
from .numbers import DEFAULT, Numbers

__all__ = [
    "MAX_LENGTH",
    "Body",
    "Control",
    "ControlStatus",
    "ControlType",
    "Hello",
    "HomeAgentSwitch",
    "StateAcknowledge",
    "StateEntry",
    "StateReply",
    "StateRequest",
    "SynchronizationStatus",
    "build",
    "entry_size",
    "packed",
    "parse",
    "parse_body",
]


class ControlType(IntEnum):
    """What a Home Agent Control message asks or answers."""

    SWO_REQ = 0
    SWO_REP = 1
    SWB_REQ = 2
    SWB_REP = 3
    SW_COMP = 4


class ControlStatus(IntEnum):
    """Status of a switchover or switchback reply."""

    SUCCESS = 0
    UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    NOT_ACTIVE = 130
    NOT_STANDBY = 131
    NOT_IN_SAME_SET = 132


class SynchronizationStatus(IntEnum):
    """Status of one home address in an acknowledgement of state."""

    SUCCESS = 0
    UNSPECIFIED = 128
    MALFORMED = 129
    NOT_IN_SAME_SET = 130
    NO_SUCH_BINDING = 131


class Hello(NamedTuple):
    """HA-HELLO: a member shows that it lives.

    ``sequence`` counts modulo 2^16, ``preference`` is signed and higher is better (RFC 6275 7.4),
    ``lifetime`` is in seconds (0: leaving the set), ``interval`` in milliseconds. ``solicit`` (R) asks
    for an answer at once, ``virtual`` (V) says virtual switch. Extensions: ``term`` of the group,
    ``synchronized``, the ids of the standbys that have all of the active's state (``None``: not said),
    ``incarnation``, a number of 64 bits that the sender drew at its start, ``echo``, the receiver's
    as the sender last heard it (0: never), and ``floor``, the highest outbound sequence number that
    the sender may have used before its start.
    """

    sequence: int
    preference: int
    lifetime: int
    interval: int
    group: int
    active: bool
    solicit: bool
    virtual: bool
    term: int | None = None
    synchronized: tuple[int, ...] | None = None
    options: tuple[Option, ...] = ()
    incarnation: int | None = None
    echo: int = 0
    floor: int = 0


class StateRequest(NamedTuple):
    """SS-REQ: send the state of these home addresses; none, or the unspecified address, means all.

    Extension: ``digest`` sums up what the sender has, 255 octets at most, so that the answer can leave
    it out.
    """

    identifier: int
    home_addresses: tuple[bytes, ...] = ()
    digest: bytes = b""


class StateReply(NamedTuple):
    """SS-REP: state, asked for or not; ``acknowledge`` (A) demands an SS-ACK."""

    identifier: int
    acknowledge: bool
    entries: tuple[StateEntry, ...]
    term: int | None = None


class StateAcknowledge(NamedTuple):
    """SS-ACK: what became of each home address, as (:class:`SynchronizationStatus`, home address)."""

    identifier: int
    statuses: tuple[tuple[int, bytes], ...]


class Control(NamedTuple):
    """HA-CTRL: ``type`` is a :class:`ControlType`; only replies have a ``status``."""

    type: int
    status: int = 0
    term: int | None = None
    home_addresses: tuple[bytes, ...] = ()


class HomeAgentSwitch(NamedTuple):
    """Home Agent Switch (RFC 5142 4.1): move to one of these home agents, or re-key with it (I bit)."""

    addresses: tuple[bytes, ...]
    rekey: bool = False
    options: tuple[Option, ...] = ()


Body = Hello | StateRequest | StateReply | StateAcknowledge | Control | HomeAgentSwitch

_SYNCHRONIZATION = Struct(">BBH")
_CONTROL = Struct(">BB")
_HELLO = Struct(">HhHHBB2x")
_SWITCH = Struct(">BB")
_REQUEST, _REPLY, _ACKNOWLEDGE = range(3)
_REPLIES = (ControlType.SWO_REP, ControlType.SWB_REP)
# HELLO's flags; SS-REP's A and the switch's I are the highest bit too.
_HIGHEST, _SOLICIT, _VIRTUAL = 0x80, 0x40, 0x20

_ADDRESS = Struct(">xB16s")
_STATUS = Struct(">Bx16s")
_TERM = Struct(">Q")
_INCARNATION = Struct(">QQQ")


@lru_cache(maxsize=16)
def _rules(numbers: Numbers) -> dict[int, OptionRule]:
    # Alignments put every address and 64-bit number at a multiple of 8 octets (RFC 6275 6.2.1).
    return {
        numbers.ip_address: OptionRule(_ADDRESS.size, exact=True, align=8, at=4),
        numbers.binding_cache_information: OptionRule(INFORMATION.size, exact=True, align=8, at=6),
        numbers.synchronization_status: OptionRule(_STATUS.size, exact=True, align=8, at=4),
        numbers.aaa_information: OptionRule(0, exact=False),
        numbers.term: OptionRule(_TERM.size, exact=True, align=8, at=6),
        numbers.context: OptionRule(FRAGMENT.size, exact=False, align=8, at=4),
        numbers.synchronized_members: OptionRule(0, exact=False),
        numbers.digest: OptionRule(0, exact=False),
        numbers.incarnation: OptionRule(_INCARNATION.size, exact=True, align=8, at=6),
        PREFIX: OPTION_RULES[PREFIX],
        IDENTIFIER: OPTION_RULES[IDENTIFIER],
    }


def parse(data: bytes, source: bytes, destination: bytes, numbers: Numbers = DEFAULT) -> Body:
    """The message in a Mobility Header; :class:`Malformed`, or :class:`UnknownMessage` for its type."""
    return parse_body(mobility.parse(data, source, destination), numbers)


def parse_body(message: mobility.Message, numbers: Numbers = DEFAULT) -> Body:
    """The message in a checked frame; raises as :func:`parse` does.

    Every option is looked at before anything is returned. Offsets of faults count from the frame's end.
    """
    kind, body = message
    if kind == numbers.state_synchronization:
        fixed, read = _SYNCHRONIZATION.size, _read_synchronization
    elif kind == numbers.hello:
        fixed, read = _HELLO.size, _read_hello
    elif kind == numbers.control:
        fixed, read = _CONTROL.size, _read_control
    elif kind == numbers.home_agent_switch:
        fixed, read = _SWITCH.size + 16 * body[0], _read_switch
    else:
        raise UnknownMessage("unknown_mobility_header_type", 2)
    if len(body) < fixed:
        # RFC 6275 9.2: point at the Header Len field.
        raise Malformed("mobility_header_length", 1, parameter_problem=0)
    found = mobility.parse_options(body, fixed, _rules(numbers)) if len(body) > fixed else ()
    try:
        return read(body, found, numbers)
    except Fault as fault:
        raise Malformed(fault.reason, _option_at(body, fixed, fault.index)) from None


def _option_at(body: bytes, offset: int, index: int) -> int:
    """Where the option ``index`` of those that ``mobility.parse_options`` returned stands."""
    while True:
        kind = body[offset]
        if kind > 1:
            if not index:
                return offset
            index -= 1
        offset += 2 + body[offset + 1] if kind else 1


def _read_synchronization(body: bytes, found: tuple[Option, ...], numbers: Numbers) -> Body:
    kind, flags, identifier = _SYNCHRONIZATION.unpack_from(body)
    if kind == _REPLY:
        entries = read_entries(found, numbers)
        return StateReply(identifier, flags & _HIGHEST != 0, entries, _read_term(found, numbers))
    if kind == _REQUEST:
        return StateRequest(identifier, _read_addresses(found, numbers), _read_digest(found, numbers))
    if kind == _ACKNOWLEDGE:
        return StateAcknowledge(identifier, _read_statuses(found, numbers))
    raise Malformed("unknown_state_synchronization_type", 0)


def _read_control(body: bytes, found: tuple[Option, ...], numbers: Numbers) -> Body:
    kind, status = _CONTROL.unpack_from(body)
    if kind > ControlType.SW_COMP:
        raise Malformed("unknown_control_type", 0)
    if kind not in _REPLIES:
        status = 0
    return Control(kind, status, _read_term(found, numbers), _read_addresses(found, numbers))


def _read_hello(body: bytes, found: tuple[Option, ...], numbers: Numbers) -> Body:
    sequence, preference, lifetime, interval, group, flags = _HELLO.unpack_from(body)
    members: tuple[int, ...] | None = None
    incarnation: int | None = None
    echo = floor = 0
    others: list[Option] = []
    for index, option in enumerate(found):
        if option.type == numbers.synchronized_members:
            if members is not None:
                raise Fault("repeated_option", index)
            members = tuple(option.data)
        elif option.type == numbers.incarnation:
            if incarnation is not None:
                raise Fault("repeated_option", index)
            incarnation, echo, floor = _INCARNATION.unpack(option.data)
        elif option.type != numbers.term:
            others.append(option)
    return Hello(
        sequence,
        preference,
        lifetime,
        interval,
        group,
        flags & _HIGHEST != 0,
        flags & _SOLICIT != 0,
        flags & _VIRTUAL != 0,
        _read_term(found, numbers),
        members,
        tuple(others),
        incarnation,
        echo,
        floor,
    )


def _read_switch(body: bytes, found: tuple[Option, ...], numbers: Numbers) -> Body:
    count, flags = _SWITCH.unpack_from(body)
    start = _SWITCH.size
    addresses = tuple(body[at : at + 16] for at in range(start, start + 16 * count, 16))
    return HomeAgentSwitch(addresses, flags & _HIGHEST != 0, found)


def _read_term(found: tuple[Option, ...], numbers: Numbers) -> int | None:
    term: int | None = None
    wanted = numbers.term
    for index, (kind, data) in enumerate(found):
        if kind == wanted:
            if term is not None:
                raise Fault("repeated_option", index)
            (term,) = _TERM.unpack(data)
    return term


def _read_addresses(found: tuple[Option, ...], numbers: Numbers) -> tuple[bytes, ...]:
    addresses: dict[bytes, None] = {}
    for index, (kind, data) in enumerate(found):
        if kind == numbers.ip_address:
            length, address = _ADDRESS.unpack(data)
            if length > 128:
                raise Fault("prefix_length", index)
            if address in addresses:
                raise Fault("duplicate_home_address", index)
            addresses[address] = None
    return tuple(addresses)


def _read_digest(found: tuple[Option, ...], numbers: Numbers) -> bytes:
    digests = [(index, data) for index, (kind, data) in enumerate(found) if kind == numbers.digest]
    if len(digests) > 1:
        raise Fault("repeated_option", digests[1][0])
    return digests[0][1] if digests else b""


def _read_statuses(found: tuple[Option, ...], numbers: Numbers) -> tuple[tuple[int, bytes], ...]:
    statuses: dict[bytes, int] = {}
    for index, (kind, data) in enumerate(found):
        if kind == numbers.synchronization_status:
            status, address = _STATUS.unpack(data)
            if address in statuses:
                raise Fault("duplicate_home_address", index)
            statuses[address] = status
    return tuple((status, address) for address, status in statuses.items())


def build(
    message: Body,
    source: bytes,
    destination: bytes,
    numbers: Numbers = DEFAULT,
    *,
    extensions: bool = True,
) -> bytes:
    """The Mobility Header of ``message``; ``ValueError`` for what no message can carry.

    Without ``extensions`` it holds nothing that the draft lacks.
    """
    kind, write = _WRITERS[type(message)]
    try:
        fixed, items = write(message, numbers, extensions)
        body = mobility.options(fixed, items, _rules(numbers))
    except struct.error as error:
        raise ValueError(f"{type(message).__name__}: {error}") from None
    return mobility.build(getattr(numbers, kind), body, source, destination)


_Written = tuple[bytes, Iterable[Option]]


def _write_hello(message: Hello, numbers: Numbers, extensions: bool) -> _Written:
    flags = (
        (_HIGHEST if message.active else 0)
        | (_SOLICIT if message.solicit else 0)
        | (_VIRTUAL if message.virtual else 0)
    )
    items: list[Option] = []
    if extensions:
        items += _term(message.term, numbers)
        if message.synchronized is not None:
            items.append(Option(numbers.synchronized_members, bytes(message.synchronized)))
        if message.incarnation is not None:
            data = _INCARNATION.pack(message.incarnation, message.echo, message.floor)
            items.append(Option(numbers.incarnation, data))
    for option in message.options:
        if option.type in (0, 1, numbers.term, numbers.synchronized_members, numbers.incarnation):
            raise ValueError("Hello.options are those that have no field of their own")
    return _HELLO.pack(*message[:5], flags), [*items, *message.options]


def _write_request(message: StateRequest, numbers: Numbers, extensions: bool) -> _Written:
    fixed = _SYNCHRONIZATION.pack(_REQUEST, 0, message.identifier)
    items = _addresses(message.home_addresses, numbers)
    if extensions and message.digest:
        items.append(Option(numbers.digest, message.digest))
    return fixed, items


def _write_reply(message: StateReply, numbers: Numbers, extensions: bool) -> _Written:
    entries = message.entries
    _refuse_twice([entry.home_address for entry in entries])
    items = _term(message.term, numbers) if extensions else []
    for entry in entries:
        items += entry_options(entry, numbers, extensions=extensions)
    flags = _HIGHEST if message.acknowledge else 0
    return _SYNCHRONIZATION.pack(_REPLY, flags, message.identifier), items


def _write_acknowledge(message: StateAcknowledge, numbers: Numbers, extensions: bool) -> _Written:
    _refuse_twice([home_address for _, home_address in message.statuses])
    return _SYNCHRONIZATION.pack(_ACKNOWLEDGE, 0, message.identifier), [
        Option(numbers.synchronization_status, _STATUS.pack(status, whole(home_address)))
        for status, home_address in message.statuses
    ]


def _write_control(message: Control, numbers: Numbers, extensions: bool) -> _Written:
    kind = ControlType(message.type)
    if message.status and kind not in _REPLIES:
        raise ValueError(f"{kind.name} has no status")
    items = _term(message.term, numbers) if extensions else []
    return _CONTROL.pack(kind, message.status), [*items, *_addresses(message.home_addresses, numbers)]


def _write_switch(message: HomeAgentSwitch, numbers: Numbers, extensions: bool) -> _Written:
    fixed = _SWITCH.pack(len(message.addresses), _HIGHEST if message.rekey else 0)
    return fixed + b"".join(map(whole, message.addresses)), message.options


_WRITERS: dict[type[Body], tuple[str, Callable[..., _Written]]] = {
    Hello: ("hello", _write_hello),
    StateRequest: ("state_synchronization", _write_request),
    StateReply: ("state_synchronization", _write_reply),
    StateAcknowledge: ("state_synchronization", _write_acknowledge),
    Control: ("control", _write_control),
    HomeAgentSwitch: ("home_agent_switch", _write_switch),
}


def _refuse_twice(addresses: list[bytes] | tuple[bytes, ...]) -> None:
    if len(set(addresses)) != len(addresses):
        raise ValueError("a home address stands in a message once")


def _term(term: int | None, numbers: Numbers) -> list[Option]:
    return [] if term is None else [Option(numbers.term, _TERM.pack(term))]


def _addresses(addresses: tuple[bytes, ...], numbers: Numbers) -> list[Option]:
    _refuse_twice(addresses)
    return [Option(numbers.ip_address, _ADDRESS.pack(128, whole(address))) for address in addresses]
