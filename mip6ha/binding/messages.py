"""Mobility Header messages and options of RFC 6275, with the options of RFC 3963, 4283, 4285 and 5094.

Covered: parse and build of BRR, HoTI, CoTI, HoT, CoT, BU, BA, BE. Unknown options are kept as they
came and skipped by those who read. Not covered: processing, and messages of other RFCs, which
:func:`parse` refuses with :class:`UnknownMessage`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from .. import mobility
from ..mobility import Message, Option, OptionRule
from ..wire import Malformed

__all__ = [
    "ACCEPTED",
    "LIFETIME_UNIT",
    "OPTION_RULES",
    "BindingAcknowledgement",
    "BindingError",
    "BindingRefreshRequest",
    "BindingUpdate",
    "Body",
    "CareOfTest",
    "CareOfTestInit",
    "ErrorStatus",
    "HomeTest",
    "HomeTestInit",
    "MessageType",
    "MobileNetworkPrefix",
    "OptionType",
    "Status",
    "UnknownMessage",
    "UpdateFlag",
    "acknowledgement_flags",
    "alternate_care_of_address",
    "build",
    "flag_names",
    "mobile_network_prefix_option",
    "mobile_network_prefixes",
    "parse",
    "parse_body",
    "refresh_advice",
]

LIFETIME_UNIT = 4
"""Seconds per unit of every lifetime and refresh interval on the wire (RFC 6275 6.1.7)."""


class MessageType(IntEnum):
    """MH types (RFC 6275 6.1, RFC 5142, IANA)."""

    BINDING_REFRESH_REQUEST = 0
    HOME_TEST_INIT = 1
    CARE_OF_TEST_INIT = 2
    HOME_TEST = 3
    CARE_OF_TEST = 4
    BINDING_UPDATE = 5
    BINDING_ACKNOWLEDGEMENT = 6
    BINDING_ERROR = 7
    HOME_AGENT_SWITCH = 12


class OptionType(IntEnum):
    """Mobility option types."""

    BINDING_REFRESH_ADVICE = 2
    ALTERNATE_CARE_OF_ADDRESS = 3
    NONCE_INDICES = 4
    BINDING_AUTHORIZATION_DATA = 5
    MOBILE_NETWORK_PREFIX = 6
    MN_IDENTIFIER = 8
    AUTHENTICATION = 9
    MESSAGE_IDENTIFICATION = 10
    VENDOR_SPECIFIC = 19


OPTION_RULES: dict[int, OptionRule] = {
    OptionType.BINDING_REFRESH_ADVICE: OptionRule(2, exact=True, align=2),
    OptionType.ALTERNATE_CARE_OF_ADDRESS: OptionRule(16, exact=True, align=8, at=6),
    OptionType.NONCE_INDICES: OptionRule(4, exact=True, align=2),
    OptionType.BINDING_AUTHORIZATION_DATA: OptionRule(0, exact=False, align=8, at=2),
    OptionType.MOBILE_NETWORK_PREFIX: OptionRule(18, exact=True, align=8, at=4),
    OptionType.MN_IDENTIFIER: OptionRule(2, exact=False),
    OptionType.AUTHENTICATION: OptionRule(5, exact=False, align=4, at=1),
    OptionType.MESSAGE_IDENTIFICATION: OptionRule(8, exact=True, align=8, at=2),
    OptionType.VENDOR_SPECIFIC: OptionRule(5, exact=False, align=4, at=2),
}
"""Lengths and alignments (RFC 6275 6.2, RFC 3963 4.3, RFC 4283 3, RFC 4285 5 and 6, RFC 5094 3)."""


class UpdateFlag(IntEnum):
    """The 16 flag bits of a Binding Update (RFC 6275 6.1.7 and later RFCs).

    Not an ``IntFlag``: its operators cost a microsecond each, several times for every update.
    """

    ACKNOWLEDGE = 0x8000
    HOME_REGISTRATION = 0x4000
    LINK_LOCAL = 0x2000
    KEY_MANAGEMENT = 0x1000
    MAP = 0x0800
    MOBILE_ROUTER = 0x0400
    PROXY = 0x0200
    UDP_ENCAPSULATION = 0x0100


def flag_names(flags: int) -> list[str]:
    """The names of the flags that are set, for people."""
    return [flag.name.lower() for flag in UpdateFlag if flags & flag]


class Status(IntEnum):
    """Status of a Binding Acknowledgement (RFC 6275 6.1.8, RFC 3963 4.2, RFC 4285 7)."""

    ACCEPTED = 0
    ACCEPTED_PREFIX_DISCOVERY_NECESSARY = 1
    UNSPECIFIED = 128
    ADMINISTRATIVELY_PROHIBITED = 129
    INSUFFICIENT_RESOURCES = 130
    HOME_REGISTRATION_NOT_SUPPORTED = 131
    NOT_HOME_SUBNET = 132
    NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE = 133
    DUPLICATE_ADDRESS_DETECTION_FAILED = 134
    SEQUENCE_OUT_OF_WINDOW = 135
    EXPIRED_HOME_NONCE_INDEX = 136
    EXPIRED_CARE_OF_NONCE_INDEX = 137
    EXPIRED_NONCES = 138
    REGISTRATION_TYPE_CHANGE_DISALLOWED = 139
    MOBILE_ROUTER_OPERATION_NOT_PERMITTED = 140
    INVALID_PREFIX = 141
    NOT_AUTHORIZED_FOR_PREFIX = 142
    FORWARDING_SETUP_FAILED = 143
    ID_MISMATCH = 144
    MESSAGE_ID_REQUIRED = 145
    AUTHENTICATION_FAILED = 146
    INVALID_CARE_OF_ADDRESS = 174


ACCEPTED = 128
"""A status below this one accepts the Binding Update (RFC 6275 6.1.8)."""


class ErrorStatus(IntEnum):
    """Status of a Binding Error (RFC 6275 6.1.9)."""

    UNKNOWN_BINDING = 1
    UNKNOWN_MESSAGE = 2


class UnknownMessage(Malformed):
    """An MH type that nobody here knows: it asks for a Binding Error, status 2 (RFC 6275 9.2)."""


# Plain NamedTuples: parsing and building them is on the path of every registration.
class BindingRefreshRequest(NamedTuple):
    """BRR (6.1.2): please register again."""

    options: tuple[Option, ...] = ()


class HomeTestInit(NamedTuple):
    """HoTI (6.1.3)."""

    cookie: bytes
    options: tuple[Option, ...] = ()


class CareOfTestInit(NamedTuple):
    """CoTI (6.1.4)."""

    cookie: bytes
    options: tuple[Option, ...] = ()


class HomeTest(NamedTuple):
    """HoT (6.1.5)."""

    nonce_index: int
    cookie: bytes
    keygen_token: bytes
    options: tuple[Option, ...] = ()


class CareOfTest(NamedTuple):
    """CoT (6.1.6)."""

    nonce_index: int
    cookie: bytes
    keygen_token: bytes
    options: tuple[Option, ...] = ()


class BindingUpdate(NamedTuple):
    """BU (6.1.7): ``flags`` are :class:`UpdateFlag` bits, ``lifetime`` counts :data:`LIFETIME_UNIT`."""

    sequence: int
    flags: int
    lifetime: int
    options: tuple[Option, ...] = ()


class BindingAcknowledgement(NamedTuple):
    """BA (6.1.8): ``flags`` as on the wire (K 0x80, R 0x40), ``lifetime`` counts :data:`LIFETIME_UNIT`."""

    status: int
    flags: int
    sequence: int
    lifetime: int
    options: tuple[Option, ...] = ()


class BindingError(NamedTuple):
    """BE (6.1.9)."""

    status: int
    home_address: bytes
    options: tuple[Option, ...] = ()


Body = (
    BindingRefreshRequest
    | HomeTestInit
    | CareOfTestInit
    | HomeTest
    | CareOfTest
    | BindingUpdate
    | BindingAcknowledgement
    | BindingError
)

# MH type -> (layout of the fixed part behind the frame, message). `x` skips what is reserved.
_LAYOUTS: dict[int, tuple[Struct, Callable[..., Body]]] = {
    MessageType.BINDING_REFRESH_REQUEST: (Struct(">2x"), BindingRefreshRequest),
    MessageType.HOME_TEST_INIT: (Struct(">2x8s"), HomeTestInit),
    MessageType.CARE_OF_TEST_INIT: (Struct(">2x8s"), CareOfTestInit),
    MessageType.HOME_TEST: (Struct(">H8s8s"), HomeTest),
    MessageType.CARE_OF_TEST: (Struct(">H8s8s"), CareOfTest),
    MessageType.BINDING_UPDATE: (Struct(">HHH"), BindingUpdate),
    MessageType.BINDING_ACKNOWLEDGEMENT: (Struct(">BBHH"), BindingAcknowledgement),
    MessageType.BINDING_ERROR: (Struct(">Bx16s"), BindingError),
}
_TYPES: dict[object, int] = {message: kind for kind, (_, message) in _LAYOUTS.items()}


def parse(data: bytes, source: bytes, destination: bytes) -> Body:
    """The message in a Mobility Header between the logical addresses; raises :class:`Malformed`."""
    return parse_body(mobility.parse(data, source, destination))


def parse_body(message: Message) -> Body:
    """The message in a checked frame; :class:`Malformed`, or :class:`UnknownMessage` for its type."""
    kind, body = message
    layout = _LAYOUTS.get(kind)
    if layout is None:
        raise UnknownMessage("unknown_mobility_header_type", 2)
    fixed, known = layout
    size = fixed.size
    if len(body) < size:
        # RFC 6275 9.2: point at the Header Len field.
        raise Malformed("mobility_header_length", 1, parameter_problem=0)
    found = mobility.parse_options(body, size, OPTION_RULES) if len(body) > size else ()
    return known(*fixed.unpack_from(body), found)


def build(message: Body, source: bytes, destination: bytes) -> bytes:
    """The Mobility Header of ``message`` between the logical addresses, options aligned and padded."""
    kind = _TYPES[type(message)]
    body = _LAYOUTS[kind][0].pack(*message[:-1])
    return mobility.build(kind, mobility.options(body, message[-1], OPTION_RULES), source, destination)


def alternate_care_of_address(options: tuple[Option, ...]) -> bytes | None:
    """The address of the first Alternate Care-of Address option (6.2.5)."""
    for kind, data in options:
        if kind == OptionType.ALTERNATE_CARE_OF_ADDRESS:
            return data
    return None


def refresh_advice(options: tuple[Option, ...]) -> int | None:
    """The interval of a Binding Refresh Advice option in seconds (6.2.4)."""
    for kind, data in options:
        if kind == OptionType.BINDING_REFRESH_ADVICE:
            return int.from_bytes(data, "big") * LIFETIME_UNIT
    return None


class MobileNetworkPrefix(NamedTuple):
    """A prefix behind a mobile router (RFC 3963 4.3): 16 octets with the host part zero, length in bits."""

    prefix: bytes
    length: int


def mobile_network_prefixes(options: tuple[Option, ...]) -> tuple[MobileNetworkPrefix, ...]:
    """Every Mobile Network Prefix option (RFC 3963 4.3), as it came: the host part may be set."""
    kind = OptionType.MOBILE_NETWORK_PREFIX
    return tuple(MobileNetworkPrefix(data[2:18], data[1]) for type_, data in options if type_ == kind)


def mobile_network_prefix_option(prefix: MobileNetworkPrefix) -> Option:
    """The option that carries ``prefix``."""
    return Option(OptionType.MOBILE_NETWORK_PREFIX, bytes((0, prefix.length)) + prefix.prefix)


def acknowledgement_flags(*, key_management: bool = False, mobile_router: bool = False) -> int:
    """The flag octet of a Binding Acknowledgement: K (RFC 6275 6.1.8), R (RFC 3963 4.2)."""
    return (0x80 if key_management else 0) | (0x40 if mobile_router else 0)
