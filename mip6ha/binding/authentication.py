"""Signalling without IPsec: the MN-HA Mobility Message Authentication option (RFC 4285).

Covered: checking it in a Binding Update and adding it to a Binding Acknowledgement (subtype 1, HMAC-SHA1
cut to 96 bits), replay protection with the Mobility Message Replay Protection option where the mobile node
uses it. Not covered: MN-AAA authentication (subtype 2), confidentiality, and all other messages.

Where the RFC leaves room: its "care-of address" is taken as RFC 6275 6.2.7 defines the one of route
optimisation, that of the Alternate Care-of Address option before the source, and a Binding Acknowledgement
repeats the one of its update. There is no time of day in here, so that a timestamp counts as fresh when it is
greater than the last one accepted; with a mismatch the upper half that goes back is that of the last one. The
replay protection option is required (status 145) from the first time on that a mobile node sends it.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hmac import HMAC

from ..mobility import Option
from ..wire import UNSPECIFIED, Refused, checksum
from . import messages
from .messages import BindingAcknowledgement, BindingUpdate, OptionType, Status, alternate_care_of_address

__all__ = ["MessageAuthentication", "authentication_data"]

_MN_HA = 1
_LENGTH = 12
# RFC 4285 5: type, length, subtype and SPI stand before the authentication data.
_HEAD = 7
# The options of a Binding Update begin behind its frame and fixed fields.
_UPDATE_OPTIONS = 12
_MOBILITY = 135


def authentication_data(key: bytes, care_of_address: bytes, home_address: bytes, covered: bytes) -> bytes:
    """The 12 octets that authenticate a Mobility Header (RFC 4285 5.1).

    ``covered`` is the Mobility Header up to the end of the option's SPI; its checksum counts as zero.
    """
    code = HMAC(key, hashes.SHA1())
    code.update(care_of_address + home_address + covered[:4] + b"\0\0" + covered[6:])
    return code.finalize()[:_LENGTH]


class MessageAuthentication:
    """The mobility security association of one mobile node, with its replay state.

    ``timestamp`` is the last accepted one (64 bits, NTP format), 0 before the first. The care-of address of
    the last update that verified is kept for its answer, which may have to wait.
    """

    __slots__ = ("_answered", "_care_of_address", "_key", "spi", "timestamp")

    def __init__(self, spi: int, key: bytes) -> None:
        self.spi = spi
        self._key = key
        self.timestamp = 0
        self._answered = 0
        self._care_of_address = UNSPECIFIED

    def __repr__(self) -> str:
        return f"<MessageAuthentication 0x{self.spi:08x}>"

    def is_made_of(self, spi: int, key: bytes) -> bool:
        """Whether these are its parameters."""
        return self.spi == spi and bytes_eq(self._key, key)

    def check(self, octets: bytes, message: BindingUpdate, source: bytes, home_address: bytes) -> Status:
        """Whether ``octets``, whose content is ``message``, come from the mobile node, and are new.

        Statuses 144 (timestamp not greater than the last), 145 (no timestamp although there was one
        before) and 146 (wrong SPI or authentication data), else 0; only then the timestamp is taken in.
        :class:`Refused` without the option, or where anything stands behind it.
        """
        care_of_address = alternate_care_of_address(message.options) or source
        at = _option_at(octets)
        if int.from_bytes(octets[at + 3 : at + _HEAD], "big") != self.spi:
            return Status.AUTHENTICATION_FAILED
        covered, data = octets[: at + _HEAD], octets[at + _HEAD : at + 2 + octets[at + 1]]
        if not bytes_eq(authentication_data(self._key, care_of_address, home_address, covered), data):
            return Status.AUTHENTICATION_FAILED
        self._care_of_address = care_of_address
        timestamp = 0
        for kind, value in message.options:
            if kind == OptionType.MESSAGE_IDENTIFICATION:
                timestamp = int.from_bytes(value, "big")
                break
        else:
            if self.timestamp:
                return Status.MESSAGE_ID_REQUIRED
        if timestamp <= self.timestamp and self.timestamp:
            # RFC 4285 6: the lower half goes back, with the upper half of this side's time.
            self._answered = self.timestamp >> 32 << 32 | timestamp & 0xFFFFFFFF
            return Status.ID_MISMATCH
        self.timestamp = self._answered = timestamp
        return Status.ACCEPTED

    def build(
        self, message: BindingAcknowledgement, source: bytes, home_address: bytes, destination: bytes
    ) -> bytes:
        """The Mobility Header of ``message`` from ``source``, the home agent, with the option as its last.

        ``destination`` stands for the care-of address where the update's own is not to be trusted.
        """
        failed = message.status == Status.AUTHENTICATION_FAILED
        care_of_address = destination if failed else self._care_of_address
        options = message.options
        if self._answered:
            options = (*options, Option(OptionType.MESSAGE_IDENTIFICATION, self._answered.to_bytes(8, "big")))
        head = bytes((_MN_HA,)) + self.spi.to_bytes(4, "big")
        options = (*options, Option(OptionType.AUTHENTICATION, head + bytes(_LENGTH)))
        octets = messages.build(message._replace(options=options), source, home_address)
        end = octets.rindex(head + bytes(_LENGTH)) + len(head)
        data = authentication_data(self._key, care_of_address, home_address, octets[:end])
        octets = octets[:4] + b"\0\0" + octets[6:end] + data + octets[end + _LENGTH :]
        sum_ = checksum(source, home_address, _MOBILITY, octets)
        return octets[:4] + sum_.to_bytes(2, "big") + octets[6:]


def _option_at(octets: bytes) -> int:
    """Where the MN-HA option begins in a parsed Binding Update; it must be the last one (RFC 4285 5)."""
    end = 8 + octets[1] * 8
    offset, found = _UPDATE_OPTIONS, 0
    while offset < end:
        kind = octets[offset]
        if not kind:
            offset += 1
            continue
        if kind != 1:
            if found:
                raise Refused("authentication_option_not_last")
            if kind == OptionType.AUTHENTICATION and octets[offset + 2] == _MN_HA:
                found = offset
        offset += 2 + octets[offset + 1]
    if not found:
        raise Refused("unprotected_binding_update")
    return found
