"""A sealed journal of contexts, for a restart with nobody else to ask: its octets, and what they are worth.

Covered: segments and their records, sealing, reading with everything that can be wrong, how old a context is,
what of it may be used. Not covered: files (``edge.journal``), when something is written (``journaling``).

A segment is a header in the clear (magic, generation, salt), two marks, and records. Each is sealed with
AES-256-GCM under keys that are derived for this one segment, so that no nonce is ever used twice: a process
appends only to segments that it began itself. A record's nonce is its index, its place in the file is
authenticated with it: moved, repeated, left out or changed it does not open. A mark says how many records are
on stable storage, so that a file that was cut off is known from one whose last record was never finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Annotated, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta
from msgspec.structs import replace

from ..wire import Malformed
from .context import Context, decode

__all__ = ["Batch", "Moment", "Restored", "Segment", "SegmentWriter", "batch", "read", "restore"]

_MAGIC = b"mip6ha journal 1"
_HEADER = Struct(">16sQ16s")
_MARK = Struct(">Q24s")
_LENGTH = Struct(">I")
_COUNT = Struct(">Q")
_PLACE = Struct(">QI")
_FIRST = _HEADER.size + 2 * _MARK.size
_TAG = 16
_SALT = 16
_MOST = 1 << 24
"""Octets of a record, more than any that is written."""

_U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Moment(NamedTuple):
    """When something was, on clocks that a restart can compare: milliseconds.

    ``monotonic`` counts since the boot that ``boot`` names and cannot be set; ``wall`` is the time of day.
    """

    boot: str
    monotonic: int
    wall: int

    def since(self, earlier: Moment) -> int | None:
        """Milliseconds since another moment; ``None``: nobody knows.

        Within one boot the monotonic clock tells. After another one only the time of day does, and where that
        has gone back it tells nothing.
        """
        if self.boot == earlier.boot:
            return max(0, self.monotonic - earlier.monotonic)
        return self.wall - earlier.wall if self.wall >= earlier.wall else None


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Contexts that were written together, encoded. ``complete``: with it the segment stands for itself."""

    boot: str
    monotonic: _U63
    wall: _U63
    complete: bool
    contexts: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Batch({len(self.contexts)} contexts)"

    @property
    def moment(self) -> Moment:
        """When it was made."""
        return Moment(self.boot, self.monotonic, self.wall)


class Segment(NamedTuple):
    """What could be read of one segment. ``wrong`` says why not more, empty where nothing is wrong.

    A last record that was never finished is nothing wrong.
    """

    generation: int
    batches: list[Batch]
    wrong: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether everything is in it that was in those before."""
        return any(batch.complete for batch in self.batches)


class Restored(NamedTuple):
    """What a restart may use. ``wrong`` is what must be told, for each segment that has something."""

    contexts: list[Context]
    wrong: list[str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Batch)


class _Keys(NamedTuple):
    records: AESGCM
    marks: AESGCM


def _keys(key: bytes, generation: int, salt: bytes) -> _Keys:
    info = b"mip6ha journal" + _COUNT.pack(generation)
    octets = HKDF(algorithm=SHA256(), length=64, salt=salt, info=info).derive(key)
    return _Keys(AESGCM(octets[:32]), AESGCM(octets[32:]))


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


class SegmentWriter:
    """One segment that is being written: the octets, and where they belong.

    ``random`` yields that many random octets. Nothing may ever be appended to a segment by two of these.
    """

    def __init__(self, key: bytes, generation: int, random: Callable[[int], bytes]) -> None:
        salt = random(_SALT)
        self._keys = _keys(key, generation, salt)
        self._records = self._marks = 0
        self._end = _FIRST
        self.beginning = _HEADER.pack(_MAGIC, generation, salt) + self.mark(0)[1] + bytes(_MARK.size)
        """The octets that a segment begins with."""

    @property
    def records(self) -> int:
        """How many there are."""
        return self._records

    def record(self, batch: Batch) -> bytes:
        """The octets to append for a batch."""
        plain = _encoder.encode(batch)
        length = len(plain) + _TAG
        place = _PLACE.pack(self._end, length)
        sealed = self._keys.records.encrypt(_nonce(self._records), plain, place)
        self._records += 1
        self._end += _LENGTH.size + length
        return _LENGTH.pack(length) + sealed

    def mark(self, count: int) -> tuple[int, bytes]:
        """Where to write what, when ``count`` records are on stable storage."""
        number = self._marks
        self._marks += 1
        sealed = self._keys.marks.encrypt(_nonce(number), _COUNT.pack(count), None)
        return _HEADER.size + (number & 1) * _MARK.size, _MARK.pack(number, sealed)


def _marked(octets: bytes, keys: _Keys) -> int | None:
    """How many records must be there; ``None`` if no mark can be read."""
    found = []
    for slot in (0, 1):
        number, sealed = _MARK.unpack_from(octets, _HEADER.size + slot * _MARK.size)
        try:
            (count,) = _COUNT.unpack(keys.marks.decrypt(_nonce(number), sealed, None))
        except InvalidTag:
            continue
        if number & 1 == slot:
            found.append((number, count))
    return max(found)[1] if found else None


def read(octets: bytes, key: bytes) -> Segment:
    """A segment as far as it can be trusted; :class:`Malformed` if it is none, or not of this key."""
    if len(octets) < _FIRST or octets[: len(_MAGIC)] != _MAGIC:
        raise Malformed("journal_header")
    _, generation, salt = _HEADER.unpack_from(octets)
    keys = _keys(key, generation, salt)
    least = _marked(octets, keys)
    if least is None:
        raise Malformed("journal_key")
    batches: list[Batch] = []
    at, wrong = _FIRST, ""
    while at < len(octets):
        body = at + _LENGTH.size
        length = _LENGTH.unpack_from(octets, at)[0] if body <= len(octets) else 0
        if body > len(octets) or (_TAG <= length <= _MOST and body + length > len(octets)):
            # Begun and never finished. If it had been, the mark tells below.
            break
        try:
            place = _PLACE.pack(at, length)
            plain = keys.records.decrypt(_nonce(len(batches)), octets[body : body + length], place)
            batches.append(_decoder.decode(plain))
        except (InvalidTag, ValueError, msgspec.MsgspecError):
            wrong = f"record {len(batches)} is damaged"
            break
        at = body + length
    if not wrong and len(batches) < least:
        wrong = f"{least} records were stored, {len(batches)} are there"
    return Segment(generation, batches, wrong)


def restore(segments: Sequence[Segment], now: Moment, *, alone: bool = True) -> Restored:
    """The contexts in segments, the latest of each mobile node, as old as they are ``now``.

    Bindings whose lifetime is over, or of which nobody knows whether it is, are bound no longer; what they
    knew of sequence numbers stays. They are fenced unless nothing can have happened that is not here: written
    in this boot, whole, and ``alone`` (no other member may have served meanwhile).
    """
    ordered = sorted(segments, key=lambda each: each.generation)
    wrong = [f"segment {each.generation}: {each.wrong}" for each in ordered if each.wrong]
    first = max((index for index, each in enumerate(ordered) if each.is_complete), default=0)
    used = ordered[first:]
    expected = range(used[0].generation, used[0].generation + len(used)) if used else range(0)
    if [each.generation for each in used] != list(expected) or (used and not used[0].is_complete):
        wrong.append("a segment is missing")
    latest: dict[bytes, tuple[Context, Moment]] = {}
    unreadable: set[str] = set()
    for batch in (each for segment in used for each in segment.batches):
        for octets in batch.contexts:
            try:
                context = decode(octets)
            except Malformed as bad:
                # Of another version of this program.
                unreadable.add(bad.reason)
                continue
            latest[context.home_address] = context, batch.moment
    wrong += sorted(unreadable)
    exact = alone and not wrong
    contexts = [
        _aged(context, now.since(then), exact=exact and then.boot == now.boot)
        for context, then in latest.values()
    ]
    return Restored(contexts, wrong)


def _aged(context: Context, milliseconds: int | None, *, exact: bool) -> Context:
    binding = context.binding
    if binding is None:
        return context
    binding = replace(binding, fenced=binding.fenced or not exact)
    if binding.bound:
        remaining = 0 if milliseconds is None else binding.remaining - milliseconds
        if remaining > 0:
            binding = replace(binding, remaining=remaining)
        else:
            binding = replace(binding, bound=False, lifetime=0, remaining=0, prefixes=())
    return replace(context, binding=binding)


def batch(moment: Moment, contexts: Iterable[bytes], *, complete: bool) -> Batch:
    """A batch of contexts as they were at a moment."""
    return Batch(moment.boot, moment.monotonic, moment.wall, complete, tuple(contexts))
