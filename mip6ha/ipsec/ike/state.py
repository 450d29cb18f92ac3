"""An IKE SA as octets, so that another member goes on with it (RFC 6311 is what the peer may see of that).

Covered: the record with its version, times relative to now since members share no clock, a schema, and that
what was decoded can be used. Not covered: keys of children (they are with their ESP SAs), fragments that have
not all come, how the octets travel.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ...wire import Malformed
from .sa import ChildSa, IkeSa, Pending, State
from .transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Protection

__all__ = ["FORMAT", "decode", "encode"]

FORMAT = 1
"""The version of the record's layout; a member refuses one that it does not know."""


class _Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: Annotated[int, Meta(ge=0)]
    ike_sa: IkeSa


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


def _shifted(ike_sa: IkeSa, seconds: float) -> IkeSa:
    """A copy whose times are so much later."""

    def child(each: ChildSa) -> ChildSa:
        return replace(each, rekey_at=each.rekey_at + seconds, expires_at=each.expires_at + seconds)

    pending: Pending | None = ike_sa.pending
    if pending is not None:
        pending = replace(pending, retransmit_at=pending.retransmit_at + seconds)
    return replace(
        ike_sa,
        pending=pending,
        children={spi: child(each) for spi, each in ike_sa.children.items()},
        rekey_at=ike_sa.rekey_at + seconds,
        expires_at=ike_sa.expires_at + seconds,
        probe_at=ike_sa.probe_at + seconds,
        resume_at=ike_sa.resume_at + seconds,
    )


def encode(ike_sa: IkeSa, now: float) -> bytes:
    """The octets of an IKE SA; they hold its keys."""
    return _encoder.encode(_Record(FORMAT, _shifted(ike_sa, -now)))


def decode(octets: bytes, now: float) -> IkeSa:
    """The IKE SA in ``octets``; :class:`Malformed` if anything in it is not as it must be."""
    try:
        record = _decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # The text of the error may quote what was found there, and that may be a key.
        raise Malformed("ike_state_schema") from None
    if record.format != FORMAT:
        raise Malformed("ike_state_format")
    _check(record.ike_sa)
    return _shifted(record.ike_sa, now)


def _check(ike_sa: IkeSa) -> None:
    agreed = ike_sa.state not in (State.INITIATED, State.CLOSED)
    if agreed != (ike_sa.keys is not None) or not any(ike_sa.spi):
        raise Malformed("ike_state_keys")
    if ike_sa.keys is not None:
        if (
            ike_sa.encryption not in ENCRYPTIONS
            or ike_sa.prf not in PRFS
            or ike_sa.group not in GROUPS
            or (ike_sa.integrity and ike_sa.integrity not in INTEGRITIES)
        ):
            raise Malformed("ike_state_algorithm")
        keys, suite = ike_sa.keys, ike_sa.suite
        try:
            Protection(suite, keys.ei, keys.ai)
            Protection(suite, keys.er, keys.ar)
        except ValueError:
            raise Malformed("ike_state_keys") from None
        if {len(keys.d), len(keys.pi), len(keys.pr)} != {suite.prf.key_size}:
            raise Malformed("ike_state_keys")
    for spi, child in ike_sa.children.items():
        known = child.encryption in ENCRYPTIONS and (child.integrity in INTEGRITIES or not child.integrity)
        if spi != child.spi_in or not known:
            raise Malformed("ike_state_child")
