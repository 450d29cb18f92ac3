"""Digests: they find what differs, in whatever order it came about."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mip6ha.failover.context import Version
from mip6ha.failover.digest import BUCKETS, Digest, bucket

from ..strategies import ADDRESSES

VERSIONS = st.builds(Version, st.integers(0, 2**63 - 1), st.integers(1, 2**62))
HELD = st.dictionaries(ADDRESSES, VERSIONS, max_size=30)


def digest(held: dict[bytes, Version]) -> Digest:
    each = Digest()
    for home_address, version in held.items():
        each.change(home_address, None, version)
    return each


def test_a_digest_fits_an_option() -> None:
    assert len(Digest().octets()) == 62 * 4 == BUCKETS * 4 <= 255


@given(HELD)
def test_the_order_of_changes_does_not_matter(held: dict[bytes, Version]) -> None:
    backwards = dict(reversed(held.items()))
    assert digest(held).octets() == digest(backwards).octets()
    assert not digest(held).differing(digest(backwards).octets())


@given(HELD, VERSIONS)
def test_only_the_last_version_counts(held: dict[bytes, Version], older: Version) -> None:
    each = Digest()
    for home_address in held:
        each.change(home_address, None, older)
    for home_address, version in held.items():
        each.change(home_address, older, version)
    assert each.octets() == digest(held).octets()
    for home_address, version in held.items():
        each.change(home_address, version, None)
    assert each.octets() == Digest().octets()


@given(HELD, HELD)
def test_every_difference_is_found_and_no_other(
    one: dict[bytes, Version], other: dict[bytes, Version]
) -> None:
    different = {each for each in {*one, *other} if one.get(each) != other.get(each)}
    found = digest(one).differing(digest(other).octets())
    assert found == {bucket(each) for each in different}
    assert found == digest(other).differing(digest(one).octets())


def test_without_a_digest_everything_differs() -> None:
    for octets in (b"", bytes(4), bytes(62 * 4 + 1)):
        assert Digest().differing(octets) == frozenset(range(BUCKETS))
