"""Messages between home agents: layouts, whole or not at all, peers that know only the draft."""

from __future__ import annotations

import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import mobility
from mip6ha.binding.messages import MobileNetworkPrefix, UnknownMessage
from mip6ha.harp import messages
from mip6ha.harp.messages import (
    Body,
    Control,
    ControlType,
    Hello,
    HomeAgentSwitch,
    StateAcknowledge,
    StateEntry,
    StateReply,
    StateRequest,
    build,
    parse,
)
from mip6ha.harp.numbers import DEFAULT, Numbers
from mip6ha.mobility import Option
from mip6ha.wire import UNSPECIFIED, Malformed, address

from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, fault
from ..strategies import ADDRESSES
from .strategies import DRAFT, HELLOS, MESSAGES, REPLIES, UNKNOWN_OPTIONS

_PEER = address("2001:db8:a::2")
_BETWEEN = (HOME_AGENT, _PEER)
_HOME, _CARE_OF = HOME_ADDRESS.hex(), CARE_OF_ADDRESS.hex()
_ENTRY = StateEntry(HOME_ADDRESS, CARE_OF_ADDRESS, 0xC000, 7, 15)
_TERM = "01020000 f408 0000000000000063"

# Each message and its octets behind the checksum, written out from docs/harp.md.
_LAYOUTS: list[tuple[Body, int, str]] = [
    (
        Hello(0x1234, -2, 30, 10, 7, True, False, True),
        242,
        "1234 fffe 001e 000a 07 a0 0000 010400000000",
    ),
    (
        Hello(1, 5, 0, 10, 7, False, True, False, 99, (2, 3)),
        242,
        "0001 0005 0000 000a 07 40 0000 0102 0000 f408 0000000000000063 f6020203 01020000",
    ),
    (
        Hello(1, 5, 0, 10, 7, False, True, False, 99, (2, 3), (), 2**64 - 1, 5, 2**16),
        242,
        "0001 0005 0000 000a 07 40 0000 0102 0000 f408 0000000000000063 f6020203 0100 "
        "f818 ffffffffffffffff 0000000000000005 0000000000010000",
    ),
    (StateRequest(9), 240, "00 00 0009 010400000000"),
    (StateRequest(9, (HOME_ADDRESS,)), 240, f"00 00 0009 0100 f012 0080 {_HOME}"),
    (
        StateReply(9, True, (_ENTRY,)),
        240,
        f"01 80 0009 01020000 f128 {_HOME} {_CARE_OF} c000 0007 000f 0000",
    ),
    (
        StateReply(9, False, (_ENTRY._replace(generation=3, context=b"state"),), 99),
        240,
        f"01 00 0009 {_TERM} 010400000000 f128 {_HOME} {_CARE_OF} c000 0007 000f 0000"
        "01020000 f50f 00 01 0000000000000003 7374617465 010100",
    ),
    (
        StateReply(
            9,
            False,
            (
                _ENTRY._replace(
                    prefixes=(MobileNetworkPrefix(HOME_ADDRESS, 64),), identifier=b"\1mn@x", aaa=b"avps"
                ),
            ),
        ),
        240,
        f"01 00 0009 01020000 f128 {_HOME} {_CARE_OF} c000 0007 000f 0000"
        f"01020000 0612 0040 {_HOME} 0805 016d6e4078 f304 61767073 0101 00",
    ),
    (StateRequest(9, (), b"sum"), 240, "00 00 0009 f703 73756d 00"),
    (StateAcknowledge(9, ((131, HOME_ADDRESS),)), 240, f"02 00 0009 0100 f212 8300 {_HOME}"),
    (Control(ControlType.SWO_REP, 130), 241, "01 82"),
    (
        Control(ControlType.SW_COMP, 0, 99, (HOME_ADDRESS,)),
        241,
        f"04 00 010400000000 f408 0000000000000063 01020000 f012 0080 {_HOME}",
    ),
    (HomeAgentSwitch((), rekey=True), 12, "00 80"),
    (HomeAgentSwitch((_PEER,)), 12, f"01 00 {_PEER.hex()}"),
]


@pytest.mark.parametrize(("message", "kind", "expected"), _LAYOUTS)
def test_layouts_are_those_of_the_page(message: Body, kind: int, expected: str) -> None:
    octets = build(message, *_BETWEEN)
    assert octets[6:].hex() == expected.replace(" ", "")
    assert octets[:4] == bytes((59, len(octets) // 8 - 1, kind, 0))
    assert parse(octets, *_BETWEEN) == message


@given(MESSAGES, ADDRESSES, ADDRESSES)
def test_what_is_built_parses_to_the_same(message: Body, source: bytes, destination: bytes) -> None:
    assert parse(build(message, source, destination), source, destination) == message


@given(MESSAGES)
def test_other_numbers_carry_the_same(message: Body) -> None:
    other = Numbers(200, 201, 202, 203, 60, 61, 62, 63, 64, 65, 66, 67, 68)
    octets = build(message, *_BETWEEN, other)
    assert octets[2] in {200, 201, 202, 203}
    # An option of the default numbers' range would be known under one table only.
    assert parse(octets, *_BETWEEN, other) == message or getattr(message, "options", ())


@given(MESSAGES)
def test_every_number_and_address_is_aligned(message: Body) -> None:
    # Where the first multi-octet field stands in each option's data.
    fields = {240: 2, 241: 0, 242: 2, 244: 0, 245: 2, 6: 2}
    octets = build(message, *_BETWEEN)
    at = {240: 10, 241: 8, 242: 18, 12: 8 + 16 * octets[6]}[octets[2]]
    while at < len(octets):
        kind = octets[at]
        if kind in fields:
            assert (at + 2 + fields[kind]) % 8 == 0
        at += 1 if not kind else 2 + octets[at + 1]
    assert at == len(octets)


# --- peers that know only the draft, and peers that know more -----------------------------------


def without_extensions(message: Body) -> Body:
    if isinstance(message, Hello):
        return message._replace(term=None, synchronized=None, incarnation=None, echo=0, floor=0)
    if isinstance(message, StateReply):
        plain = tuple(entry._replace(generation=0, context=b"") for entry in message.entries)
        return message._replace(term=None, entries=plain)
    if isinstance(message, StateRequest):
        return message._replace(digest=b"")
    if isinstance(message, Control):
        return message._replace(term=None)
    return message


@given(MESSAGES)
def test_without_extensions_nothing_of_ours_is_sent(message: Body) -> None:
    octets = build(message, *_BETWEEN, extensions=False)
    assert octets == build(without_extensions(message), *_BETWEEN)
    assert parse(octets, *_BETWEEN) == without_extensions(message)


@given(MESSAGES.filter(lambda message: not isinstance(message, Hello)))
def test_a_peer_that_knows_only_the_draft_skips_our_extensions(message: Body) -> None:
    assert parse(build(message, *_BETWEEN), *_BETWEEN, DRAFT) == without_extensions(message)


@given(HELLOS)
def test_a_hello_keeps_what_it_does_not_know(hello: Hello) -> None:
    seen = parse(build(hello, *_BETWEEN), *_BETWEEN, DRAFT)
    assert isinstance(seen, Hello)
    ours = [DEFAULT.term] * (hello.term is not None)
    ours += [DEFAULT.synchronized_members] * (hello.synchronized is not None)
    ours += [DEFAULT.incarnation] * (hello.incarnation is not None)
    assert [option.type for option in seen.options] == ours + [option.type for option in hello.options]


def _frame(kind: int, fixed: bytes, *options: Option) -> bytes:
    """A message with these options, each at its place and nothing checked."""
    return mobility.build(kind, mobility.options(fixed, options, messages._rules(DEFAULT)), *_BETWEEN)


def _options_of(octets: bytes) -> tuple[Option, ...]:
    return mobility.parse_options(octets[6:], 4, messages._rules(DEFAULT))


_REPLY, _REQUEST, _ACKNOWLEDGE = (bytes((kind, 0, 0, 9)) for kind in (1, 0, 2))


@given(REPLIES, st.lists(st.tuples(st.integers(0, 30), UNKNOWN_OPTIONS), max_size=4))
def test_unknown_options_are_skipped_wherever_they_stand(
    reply: StateReply, extra: list[tuple[int, Option]]
) -> None:
    items = list(_options_of(build(reply, *_BETWEEN)))
    for at, option in extra:
        items.insert(at, option)
    fixed = struct.pack(">BBH", 1, 0x80 if reply.acknowledge else 0, reply.identifier)
    try:
        octets = _frame(240, fixed, *items)
    except ValueError:
        return  # longer than a Mobility Header
    assert parse(octets, *_BETWEEN) == reply


def test_reserved_bits_and_octets_are_ignored() -> None:
    octets = bytes.fromhex(f"01 ff 0009 01020000 f128 {_HOME} {_CARE_OF} c000 0007 000f ffff")
    assert parse(mobility.build(240, octets, *_BETWEEN), *_BETWEEN) == StateReply(9, True, (_ENTRY,))
    octets = bytes.fromhex("0001 0005 0000 000a 07 1f ffff 010400000000")
    hello = parse(mobility.build(242, octets, *_BETWEEN), *_BETWEEN)
    assert hello == Hello(1, 5, 0, 10, 7, False, False, False)
    octets = bytes.fromhex("00 82")
    assert parse(mobility.build(241, octets, *_BETWEEN), *_BETWEEN) == Control(ControlType.SWO_REQ)
    octets = bytes.fromhex(f"00 00 0009 0100 f012 ff00 {bytes(16).hex()}")
    assert parse(mobility.build(240, octets, *_BETWEEN), *_BETWEEN) == StateRequest(9, (UNSPECIFIED,))


def test_options_of_one_mobile_node_may_come_in_any_order() -> None:
    first, second = (_fragment(index, 2, 5, data) for index, data in enumerate((b"con", b"text")))
    octets = _frame(
        240,
        _REPLY,
        _INFORMATION,
        Option(8, b"\1mn"),
        first,
        Option(243, b"av"),
        _PREFIX,
        second,
        Option(243, b"ps"),
    )
    prefixes = (MobileNetworkPrefix(HOME_ADDRESS, 64),)
    whole = _ENTRY._replace(
        prefixes=prefixes, identifier=b"\1mn", aaa=b"avps", generation=5, context=b"context"
    )
    assert parse(octets, *_BETWEEN) == StateReply(9, False, (whole,))


# --- whole or not at all ------------------------------------------------------------------------

_INFORMATION = Option(241, HOME_ADDRESS + CARE_OF_ADDRESS + bytes.fromhex("c000 0007 000f 0000"))
_OTHER = Option(241, _PEER + CARE_OF_ADDRESS + bytes(8))
_PREFIX = Option(6, b"\0\x40" + HOME_ADDRESS)
_ADDRESS = Option(240, b"\0\x80" + HOME_ADDRESS)


def _fragment(index: int, count: int, generation: int = 5, data: bytes = b"part") -> Option:
    return Option(245, bytes((index, count)) + generation.to_bytes(8, "big") + data)


_BROKEN: dict[str, tuple[str, int, bytes, list[Option]]] = {
    "first fragment missing": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(1, 2)]),
    "middle fragment missing": (
        "context_fragment",
        240,
        _REPLY,
        [_INFORMATION, _fragment(0, 3), _fragment(2, 3)],
    ),
    "last fragment missing": ("context_incomplete", 240, _REPLY, [_INFORMATION, _fragment(0, 2)]),
    "last fragment with the next": (
        "context_incomplete",
        240,
        _REPLY,
        [_INFORMATION, _fragment(0, 2), _OTHER, _fragment(1, 2)],
    ),
    "fragments swapped": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(1, 2), _fragment(0, 2)]),
    "fragment twice": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(0, 2), _fragment(0, 2)]),
    "fragment too many": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(0, 1), _fragment(1, 1)]),
    "two contexts": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(0, 1), _fragment(0, 1)]),
    "two generations": (
        "context_fragment",
        240,
        _REPLY,
        [_INFORMATION, _fragment(0, 2), _fragment(1, 2, 6)],
    ),
    "two counts": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(0, 2), _fragment(1, 3)]),
    "no fragments at all": ("context_fragment", 240, _REPLY, [_INFORMATION, _fragment(0, 0)]),
    "context of nobody": ("option_without_binding", 240, _REPLY, [_fragment(0, 1), _INFORMATION]),
    "prefix of nobody": ("option_without_binding", 240, _REPLY, [_PREFIX, _INFORMATION]),
    "identifier of nobody": ("option_without_binding", 240, _REPLY, [Option(8, b"\1m")]),
    "AVPs of nobody": ("option_without_binding", 240, _REPLY, [Option(243, b"")]),
    "a binding twice": ("duplicate_home_address", 240, _REPLY, [_INFORMATION, _OTHER, _INFORMATION]),
    "two identifiers": (
        "repeated_option",
        240,
        _REPLY,
        [_INFORMATION, Option(8, b"\1m"), Option(8, b"\1m")],
    ),
    "prefix too long": ("prefix_length", 240, _REPLY, [_INFORMATION, Option(6, b"\0\x81" + bytes(16))]),
    "two terms": ("repeated_option", 240, _REPLY, [Option(244, bytes(8)), Option(244, bytes(8))]),
    "term too short": ("mobility_option_length", 240, _REPLY, [Option(244, bytes(7))]),
    "binding too long": ("mobility_option_length", 240, _REPLY, [Option(241, bytes(41))]),
    "fragment without generation": (
        "mobility_option_length",
        240,
        _REPLY,
        [_INFORMATION, Option(245, bytes(9))],
    ),
    "two incarnations": (
        "repeated_option",
        242,
        bytes(12),
        [Option(248, bytes(24)), Option(248, bytes(24))],
    ),
    "two digests": ("repeated_option", 240, _REQUEST, [Option(247, b"a"), Option(247, b"b")]),
    "asked for twice": ("duplicate_home_address", 240, _REQUEST, [_ADDRESS, _ADDRESS]),
    "address prefix too long": ("prefix_length", 240, _REQUEST, [Option(240, b"\0\x81" + bytes(16))]),
    "acknowledged twice": (
        "duplicate_home_address",
        240,
        _ACKNOWLEDGE,
        [Option(242, b"\0\0" + _PEER), Option(242, b"\x80\0" + _PEER)],
    ),
    "moved twice": ("duplicate_home_address", 241, b"\4\0", [_ADDRESS, _ADDRESS]),
    "two terms to control": (
        "repeated_option",
        241,
        b"\0\0",
        [Option(244, bytes(8)), Option(244, bytes(8))],
    ),
    "two terms in a hello": ("repeated_option", 242, bytes(12), [Option(244, bytes(8))] * 2),
    "members twice": ("repeated_option", 242, bytes(12), [Option(246, b"\1"), Option(246, b"\1")]),
    "no such synchronization": ("unknown_state_synchronization_type", 240, bytes((3, 0, 0, 9)), []),
    "no such control": ("unknown_control_type", 241, bytes((5, 0)), []),
    "hello cut off": ("mobility_header_length", 242, bytes(10), []),
    "switch without its addresses": ("mobility_header_length", 12, bytes((2, 0)) + bytes(16), []),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_nothing_of_a_broken_message_gets_through(case: str) -> None:
    reason, kind, fixed, items = _BROKEN[case]
    assert fault(partial(parse, _frame(kind, fixed, *items), *_BETWEEN))[0] == reason


def test_a_fault_points_at_its_option() -> None:
    octets = _frame(240, _REPLY, Option(99, b"?"), _INFORMATION, _fragment(0, 2), _fragment(0, 2))
    _, offset, _ = fault(partial(parse, octets, *_BETWEEN))
    # Counted from the frame's end, as the option walk does.
    body = octets[6:]
    assert body[offset : offset + 4] == bytes((245, 14, 0, 2))
    assert body.index(bytes((245, 14, 0, 2))) < offset


def test_a_switch_that_is_too_short_is_a_parameter_problem() -> None:
    octets = _frame(12, bytes((2, 0)) + bytes(16))
    assert fault(partial(parse, octets, *_BETWEEN)) == ("mobility_header_length", 1, 0)


@pytest.mark.parametrize("kind", [0, 5, 6, 13, 243])
def test_other_messages_are_unknown(kind: int) -> None:
    with pytest.raises(UnknownMessage):
        parse(_frame(kind, bytes(10)), *_BETWEEN)


def test_a_cut_loses_whole_options_or_is_refused() -> None:
    context = bytes(range(250)) * 2
    reply = StateReply(1, True, (_ENTRY._replace(generation=1, context=context),), 4)
    octets = build(reply, *_BETWEEN)
    left = [reply._replace(entries=()), reply._replace(entries=(_ENTRY,))]
    refused = 0
    for length in range(8, len(octets), 8):
        body = octets[6:length]
        try:
            assert parse(mobility.build(240, body, *_BETWEEN), *_BETWEEN) in left
        except Malformed:
            refused += 1
    # Only the cuts behind the Term and behind the binding leave a message.
    assert refused == len(octets) // 8 - 1 - len(left)


# --- our own misuse -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        StateReply(1, True, (_ENTRY, _ENTRY)),
        StateReply(1, True, (_ENTRY._replace(home_address=b"short"),)),
        StateReply(1, True, (_ENTRY._replace(care_of_address=b""),)),
        StateReply(1, True, (_ENTRY._replace(lifetime=0x10000),)),
        StateReply(1, True, (_ENTRY._replace(generation=-1),)),
        StateReply(1, True, (_ENTRY._replace(generation=1 << 64),)),
        StateReply(1, True, (_ENTRY._replace(identifier=b"\1"),)),
        StateReply(1, True, (_ENTRY._replace(identifier=bytes(256)),)),
        StateReply(1, True, (_ENTRY._replace(prefixes=(MobileNetworkPrefix(HOME_ADDRESS, 129),)),)),
        StateReply(1, True, (_ENTRY._replace(prefixes=(MobileNetworkPrefix(b"", 64),)),)),
        StateReply(0x10000, True, ()),
        StateReply(1, True, (), 1 << 64),
        StateRequest(1, (HOME_ADDRESS, HOME_ADDRESS)),
        StateRequest(1, (b"",)),
        StateAcknowledge(1, ((0, HOME_ADDRESS), (1, HOME_ADDRESS))),
        StateAcknowledge(1, ((256, HOME_ADDRESS),)),
        Control(5),
        Control(ControlType.SWO_REQ, 128),
        Control(ControlType.SWO_REP, 256),
        HomeAgentSwitch((b"",)),
        HomeAgentSwitch((HOME_AGENT,) * 128),
        HomeAgentSwitch((HOME_AGENT,) * 256),
        Hello(1, 40000, 1, 1, 1, True, False, False),
        Hello(1, 1, 1, 1, 256, True, False, False),
        Hello(1, 1, 1, 1, 1, True, False, False, None, (256,)),
        Hello(1, 1, 1, 1, 1, True, False, False, None, None, (Option(244, bytes(8)),)),
        Hello(1, 1, 1, 1, 1, True, False, False, None, None, (Option(1, bytes(8)),)),
    ],
)
def test_what_no_message_can_carry_is_a_value_error(message: Body) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each names its own fault
        build(message, *_BETWEEN)
