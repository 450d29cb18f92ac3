"""The context of a mobile node: its binding and its SAs as one record that moves whole.

Covered: what stands in it, its version, encoding and decoding with a schema. Not covered: where it comes
from and where it goes (``member``), how it travels (``harp.sync``).

A context decodes whole or not at all: the schema checks types, :func:`decode` checks meaning.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from ..ipsec.algorithms import by_name
from ..ipsec.policy import Direction, Use
from ..wire import Malformed

__all__ = ["FORMAT", "AssociationState", "BindingState", "Context", "Version", "decode", "encode"]

FORMAT = 1
"""The version of the record's layout; a member refuses one that it does not know."""

_Address = Annotated[bytes, Meta(min_length=16, max_length=16)]
_U8 = Annotated[int, Meta(ge=0, le=0xFF)]
_U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
_U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_U64 = Annotated[int, Meta(ge=0)]


class Version(NamedTuple):
    """Which of two contexts of one mobile node is newer: the later term, then the later generation.

    ``generation`` grows by one with each change and is never reset.
    """

    term: int
    generation: int


class BindingState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A binding cache entry. ``remaining`` is the lifetime left in milliseconds when this was encoded.

    Relative, because members share no clock. ``lifetime`` is what was granted, in units of 4 s. ``fenced``:
    later sequence numbers may have been accepted (see :class:`~mip6ha.binding.cache.Binding`).
    """

    bound: bool
    ended: bool
    sequence: Annotated[int, Meta(ge=-1, le=0xFFFF)]
    care_of_address: _Address
    source: _Address
    flags: _U16
    status: _U8
    lifetime: _U16
    remaining: _U64
    prefixes: tuple[tuple[_Address, Annotated[int, Meta(ge=1, le=128)]], ...]
    fenced: bool


class AssociationState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One SA. ``counter`` is outbound the last number reserved, inbound the top of the window.

    ``limit`` matters inbound in tunnel mode: the highest number that the sender of this record accepts
    before it announces more. ``bitmap`` is the window below ``counter``, network order.
    """

    spi: Annotated[int, Meta(ge=256, le=0xFFFFFFFF)]
    outbound: bool
    use: str
    transform: str
    encryption: bytes
    integrity: bytes
    esn: bool
    size: Annotated[int, Meta(ge=64, le=65536)]
    counter: _U64
    limit: _U64
    bitmap: bytes

    def __repr__(self) -> str:
        return f"AssociationState(0x{self.spi:08x}, {self.use}, keys hidden)"

    @property
    def direction(self) -> Direction:
        """Seen from the home agent."""
        return Direction.OUT if self.outbound else Direction.IN


class Context(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything that a home agent must know to serve a mobile node as if it had always done so.

    ``timestamp`` is the last one accepted by RFC 4285 (64 bits, NTP format), 0 for none. One that is ``gone``
    is of a mobile node that is served no longer: it has nothing but its version. ``ike`` are its IKE SAs,
    each as ``ipsec.ike.state`` writes it: their children are among ``associations``.
    """

    format: int
    home_address: _Address
    term: _U63
    generation: Annotated[int, Meta(ge=1, le=1 << 62)]
    name: str
    binding: BindingState | None
    associations: tuple[AssociationState, ...]
    timestamp: _U64
    gone: bool
    ike: tuple[bytes, ...]

    @property
    def version(self) -> Version:
        """For comparison with another record of the same mobile node."""
        return Version(self.term, self.generation)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Context)


def encode(context: Context) -> bytes:
    """The octets of a context; they hold keys."""
    return _encoder.encode(context)


def decode(octets: bytes) -> Context:
    """The context in ``octets``; :class:`Malformed` if anything in it is not as it must be."""
    try:
        context = _decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The text of the error may quote what was found there, and that may be a key.
        raise Malformed("context_schema") from None
    if context.format != FORMAT:
        raise Malformed("context_format")
    spis = set()
    for each in context.associations:
        try:
            transform, use = by_name(each.transform), Use(each.use)
        except ValueError:
            raise Malformed("context_algorithm") from None
        if (
            len(each.encryption) not in transform.encryption_lengths
            or len(each.integrity) != transform.integrity_length
            or use is Use.HARP
        ):
            raise Malformed("context_keys")
        if len(each.bitmap) * 8 > each.size + 7:
            raise Malformed("context_window")
        spis.add((each.outbound, each.spi))
    if len(spis) != len(context.associations):
        raise Malformed("context_spi")
    binding = context.binding
    if binding is not None and (binding.bound != bool(binding.lifetime) or binding.sequence < 0):
        raise Malformed("context_binding")
    if context.gone and (binding is not None or context.associations or context.timestamp):
        raise Malformed("context_gone")
    return context
