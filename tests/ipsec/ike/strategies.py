"""Hypothesis strategies: the payloads of IKEv2 as the codecs accept them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

from mip6ha.ipsec.ike.message import Payload
from mip6ha.ipsec.ike.numbers import PayloadKind
from mip6ha.ipsec.ike.payloads import Authentication, Certificate, Configuration, Delete, KeyPayload, Notify
from mip6ha.ipsec.ike.proposals import Proposal, Transform
from mip6ha.ipsec.ike.selectors import TrafficSelector
from mip6ha.wire import Malformed

T = TypeVar("T")


def parses_or_is_malformed(parse: Callable[[bytes], T], octets: bytes) -> T | None:
    """What ``parse`` makes of ``octets``; ``None`` where it says at which of them it gave up."""
    try:
        return parse(octets)
    except Malformed as error:
        if not 0 <= error.offset <= len(octets):
            raise AssertionError(f"{error} of {len(octets)}") from error
        return None


U8, U16 = st.integers(0, 0xFF), st.integers(0, 0xFFFF)
OCTETS = st.binary(max_size=60)
SPI = st.binary(min_size=4, max_size=4)

TRANSFORMS = st.builds(Transform, st.integers(1, 5), U16, st.none() | U16, st.just(True))
PROPOSALS = st.lists(
    st.builds(
        Proposal,
        st.integers(1, 255),
        st.integers(1, 3),
        st.sampled_from([b"", b"12345678", b"1234"]),
        st.lists(TRANSFORMS, max_size=6).map(tuple),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


@st.composite
def selectors(draw: st.DrawFn) -> TrafficSelector:
    size = draw(st.sampled_from([4, 16]))
    first, last = sorted(draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    ports = draw(st.just((0, 65535)) | st.just((65535, 0)) | st.tuples(U16, U16).map(sorted).map(tuple))
    return TrafficSelector(draw(U8), *ports, first, last)


SELECTORS = st.lists(selectors(), min_size=1, max_size=4).map(tuple)
KEYS = st.builds(KeyPayload, U16, OCTETS)
CERTIFICATES = st.builds(Certificate, U8, OCTETS)
AUTHENTICATIONS = st.builds(Authentication, U8, OCTETS)
NOTIFIES = st.builds(Notify, U16, OCTETS, st.just(0), st.just(b"")) | st.builds(
    Notify, U16, OCTETS, st.just(3), SPI
)
DELETES = st.just(Delete(1)) | st.builds(
    Delete, st.sampled_from([2, 3]), st.lists(SPI, min_size=1, max_size=5).map(tuple)
)
CONFIGURATIONS = st.builds(
    Configuration,
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 0x7FFF), OCTETS), max_size=4).map(tuple),
)
_CLEAR = [kind for kind in PayloadKind if kind not in (0, PayloadKind.ENCRYPTED, PayloadKind.FRAGMENT)]
PAYLOADS = st.lists(
    st.builds(Payload, st.sampled_from(_CLEAR).map(int) | st.integers(54, 255), OCTETS, st.booleans()),
    max_size=6,
).map(tuple)
