"""Key exchange groups: vectors, agreement of two ends, and values that are no members (RFC 6989)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mip6ha.ipsec.ike.groups import GROUPS, Group
from mip6ha.wire import Refused

from .recorded import KE, NAMES, Recording

_hex = bytes.fromhex
ECP = {19: ec.SECP256R1(), 20: ec.SECP384R1(), 21: ec.SECP521R1()}
PRIMES = {
    19: 2**256 - 2**224 + 2**192 + 2**96 - 1,
    20: 2**384 - 2**128 - 2**96 + 2**32 - 1,
    21: 2**521 - 1,
}
MODP = {14: (2048, 124476), 15: (3072, 1690314), 16: (4096, 240904)}


@pytest.fixture(params=GROUPS.values(), ids=lambda group: group.name)
def group(request: pytest.FixtureRequest) -> Group:
    return request.param


def test_both_ends_agree(group: Group) -> None:
    ours, theirs = group.generate(os.urandom), group.generate(os.urandom)
    assert len(ours.public) == len(theirs.public) == group.public_size
    assert ours.public != theirs.public
    assert ours.shared(theirs.public) == theirs.shared(ours.public)


def test_another_member_goes_on_with_the_private_value(group: Group) -> None:
    ours, theirs = group.generate(os.urandom), group.generate(os.urandom)
    resumed = group.resume(ours.private)
    assert resumed.public == ours.public
    assert resumed.shared(theirs.public) == ours.shared(theirs.public)


def test_the_value_comes_from_the_randomness_that_is_given(group: Group) -> None:
    assert group.generate(bytes).public == group.generate(bytes).public
    assert group.generate(bytes).public != group.generate(lambda size: b"\xff" * size).public


def test_secrets_stay_out_of_sight(group: Group) -> None:
    ours = group.generate(os.urandom)
    assert repr(ours) == "KeyExchange(<hidden>)"
    assert group.name in repr(group)


def test_a_value_of_the_wrong_size(group: Group) -> None:
    ours, theirs = group.generate(os.urandom), group.generate(os.urandom).public
    for wrong in (b"", theirs[:1], theirs[:-1], theirs + b"\0", b"\0" + theirs, b"\x04" + theirs, theirs * 2):
        with pytest.raises(Refused, match="invalid_ke"):
            ours.shared(wrong)


def test_a_value_of_zeros(group: Group) -> None:
    with pytest.raises(Refused, match="invalid_ke"):
        group.generate(os.urandom).shared(bytes(group.public_size))


@pytest.mark.parametrize("name", NAMES)
def test_charon_sends_values_of_our_sizes(name: str) -> None:
    recording = Recording(name)
    group = recording.suite.group
    for message in recording.messages[:2]:
        body = message.payloads()[KE]
        assert int.from_bytes(body[:2], "big") == group.id
        assert len(body[4:]) == group.public_size
        assert len(group.generate(os.urandom).shared(body[4:])) == len(
            recording.secrets("shared Diffie Hellman secret")[0]
        )


def test_x25519_of_rfc_7748_6_1() -> None:
    ours = GROUPS[31].resume(_hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert ours.public == _hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    assert ours.shared(_hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")) == _hex(
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


@pytest.mark.parametrize(
    "low",
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_x25519_refuses_points_of_low_order(low: str) -> None:
    with pytest.raises(Refused, match="invalid_ke"):
        GROUPS[31].generate(os.urandom).shared(_hex(low))


def test_ecp_256_of_rfc_5903_8_1() -> None:
    ours = GROUPS[19].resume(_hex("c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433"))
    theirs = GROUPS[19].resume(_hex("c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53"))
    assert ours.public == _hex(
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3"
    )
    assert theirs.public == _hex(
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab"
    )
    secret = _hex("d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de")
    assert ours.shared(theirs.public) == theirs.shared(ours.public) == secret


@pytest.mark.parametrize("number", ECP)
def test_ecp_agrees_with_the_library_itself(number: int) -> None:
    theirs = ec.generate_private_key(ECP[number])
    numbers, size = theirs.public_key().public_numbers(), GROUPS[number].public_size // 2
    ours = GROUPS[number].generate(os.urandom)
    x, y = (int.from_bytes(each, "big") for each in (ours.public[:size], ours.public[size:]))
    point = ec.EllipticCurvePublicNumbers(x, y, ECP[number]).public_key()
    public = numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
    assert ours.shared(public) == theirs.exchange(ec.ECDH(), point)


@pytest.mark.parametrize("number", ECP)
def test_ecp_refuses_what_is_not_on_the_curve(number: int) -> None:
    group, prime = GROUPS[number], PRIMES[number]
    size = group.public_size // 2
    ours, theirs = group.generate(os.urandom), group.generate(os.urandom)
    x, y = (int.from_bytes(each, "big") for each in (theirs.public[:size], theirs.public[size:]))
    assert ours.shared(x.to_bytes(size, "big") + (prime - y).to_bytes(size, "big")) == ours.shared(
        theirs.public
    )
    largest = (1 << 8 * size) - 1
    for point in ((x, y ^ 1), (x ^ 1, y), (y, x), (0, 0), (x, 0), (x, prime), (prime, y), (largest, largest)):
        with pytest.raises(Refused, match="invalid_ke"):
            ours.shared(b"".join(coordinate.to_bytes(size, "big") for coordinate in point))


def pi(bits: int) -> int:
    """floor(2^bits * pi) by Machin's formula."""

    def arctangent(inverse: int) -> int:
        term = total = (1 << bits + 64) // inverse
        sign, odd = -1, 3
        while term:
            term //= inverse * inverse
            total += sign * (term // odd)
            sign, odd = -sign, odd + 2
        return total

    return 4 * (4 * arctangent(5) - arctangent(239)) >> 64


@pytest.mark.parametrize("number", MODP)
def test_modp_is_the_power_of_two_modulo_the_prime_of_rfc_3526(number: int) -> None:
    bits, offset = MODP[number]
    prime = 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi(bits - 130) + offset)
    # Nobody mistypes both offset and digits into a safe prime (Fermat's test with base 3).
    assert pow(3, prime - 1, prime) == pow(3, prime // 2 - 1, prime // 2) == 1
    ours, theirs = GROUPS[number].generate(os.urandom), GROUPS[number].generate(os.urandom)
    exponent = int.from_bytes(ours.private, "big")
    assert exponent.bit_length() >= 320
    assert int.from_bytes(ours.public, "big") == pow(2, exponent, prime)
    peer = int.from_bytes(theirs.public, "big")
    assert ours.shared(theirs.public) == pow(peer, exponent, prime).to_bytes(bits // 8, "big")


@pytest.mark.parametrize("number", MODP)
def test_modp_refuses_what_gives_the_secret_away(number: int) -> None:
    bits, offset = MODP[number]
    prime = 2**bits - 2 ** (bits - 64) - 1 + 2**64 * (pi(bits - 130) + offset)
    ours = GROUPS[number].generate(os.urandom)
    for value in (0, 1, prime - 1, prime, prime + 1, 2**bits - 1):
        with pytest.raises(Refused, match="invalid_ke"):
            ours.shared(value.to_bytes(bits // 8, "big"))
    assert ours.shared((prime - 2).to_bytes(bits // 8, "big"))


def test_a_modp_secret_keeps_its_leading_zeros() -> None:
    # RFC 7296 2.14: padded to the length of the prime.
    group = GROUPS[14]
    assert group.resume(b"\1").public == bytes(255) + b"\2"
    assert group.resume(b"\2").shared(bytes(255) + b"\2") == bytes(255) + b"\4"


def test_the_library_s_warning_about_modp_is_not_the_operator_s() -> None:
    program = "import mip6ha.ipsec.ike.groups as g, os; g.GROUPS[14].generate(os.urandom)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
