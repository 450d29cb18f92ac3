"""Octets made another way than the package makes them: the yardsticks of the codec tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from mip6ha.wire import Malformed, address

HOME_AGENT = address("2001:db8:a::1")
HOME_ADDRESS = address("2001:db8:a::100")
CARE_OF_ADDRESS = address("2001:db8:b::42")
CORRESPONDENT = address("2001:db8:c::2")


def reference_checksum(source: bytes, destination: bytes, next_header: int, data: bytes) -> int:
    """RFC 1071's loop over the pseudo-header of RFC 8200 8.1 and ``data``."""
    whole = source + destination + struct.pack(">IHBB", len(data), 0, 0, next_header) + data
    if len(whole) % 2:
        whole += b"\0"
    total = 0
    for (word,) in struct.iter_unpack(">H", whole):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(
    next_header: int,
    payload: bytes,
    *,
    source: bytes = CORRESPONDENT,
    destination: bytes = HOME_ADDRESS,
    hop_limit: int = 64,
) -> bytes:
    """A fixed IPv6 header and what follows it."""
    return (
        struct.pack(">IHBB", 6 << 28, len(payload), next_header, hop_limit) + source + destination + payload
    )


def extension(next_header: int, content: bytes) -> bytes:
    """An extension header around ``content``, which must fill it."""
    length, rest = divmod(len(content) + 2 - 8, 8)
    assert rest == 0, "content must fill the header"
    return bytes((next_header, length)) + content


def fragment(next_header: int, identification: int, offset: int, more: bool, piece: bytes) -> bytes:
    """A fragment header (``offset`` in octets) and its piece."""
    return struct.pack(">BBHI", next_header, 0, offset | more, identification) + piece


def mutations(seed: bytes, random: Callable[[], float], count: int) -> Iterator[bytes]:
    """``count`` variations of ``seed``: octets changed, cut off, doubled, put in."""

    def below(limit: int) -> int:
        return int(random() * limit)

    for _ in range(count):
        data = bytearray(seed)
        for _ in range(1 + below(4)):
            at = below(len(data) or 1)
            change = below(5)
            if change < 2 and data:
                data[at] = below(256)
            elif change == 2 and data:
                data[at] ^= 1 << below(8)
            elif change == 3:
                del data[at:]
            else:
                data[at:at] = bytes(data[at : at + 1 + below(16)])
        yield bytes(data)


def fault(call: Callable[[], object]) -> tuple[str, int, int | None]:
    """Reason, offset and parameter problem of the :class:`Malformed` that ``call`` must raise."""
    try:
        call()
    except Malformed as error:
        return error.reason, error.offset, error.parameter_problem
    raise AssertionError("nothing was refused")
