"""Keys: what charon derived from the same secrets, nonces and SPIs."""

from __future__ import annotations

import pytest

from mip6ha.ipsec.ike.keymat import IkeKeys, child_keys, ike_keys, rekeyed_ike_keys
from mip6ha.ipsec.ike.transforms import PRFS

from .recorded import CREATE_CHILD_SA, KE, NAMES, NONCE, SA, WITH_CHILDREN, Recording


def logged(recording: Recording, number: int) -> IkeKeys:
    def key(name: str) -> bytes:
        found = recording.secrets(f"Sk_{name} secret")
        return found[number] if found else b""

    return IkeKeys(*(key(name) for name in IkeKeys._fields))


@pytest.mark.parametrize("name", NAMES)
def test_an_ike_sa_has_the_keys_that_charon_has(name: str) -> None:
    recording = Recording(name)
    request, response = recording.messages[:2]
    keys = ike_keys(
        recording.suite,
        request.payloads()[NONCE],
        response.payloads()[NONCE],
        recording.secrets("shared Diffie Hellman secret")[0],
        *response.spis,
    )
    assert keys == logged(recording, 0)
    assert all(keys[1:3]) is (recording.suite.integrity is not None)


def opened(recording: Recording) -> list[dict[int, bytes]]:
    """The CREATE_CHILD_SA exchanges: a child, then the IKE SA itself."""
    return [
        message.opened(recording.protection(of_initiator=message.from_initiator))
        for message in recording.exchange(CREATE_CHILD_SA)
    ]


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_a_rekeyed_ike_sa_has_the_keys_that_charon_has(name: str) -> None:
    recording = Recording(name)
    request, response = opened(recording)[-2:]
    keys = rekeyed_ike_keys(
        recording.suite.prf,
        logged(recording, 0).d,
        recording.suite,
        request[NONCE],
        response[NONCE],
        recording.secrets("shared Diffie Hellman secret")[1],
        # The proposal: its header, the SPI, transforms (RFC 7296 3.3.1).
        request[SA][8:16],
        response[SA][8:16],
    )
    assert keys == logged(recording, 1)
    # What follows under the new SA opens with them.
    last = recording.messages[-1]
    assert last.spis == (request[SA][8:16], response[SA][8:16])
    assert last.opened(recording.protection(of_initiator=last.from_initiator, number=1)) is not None


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_children_have_the_keys_that_charon_has(name: str) -> None:
    recording = Recording(name)
    first, second = recording.messages[0].payloads(), recording.messages[1].payloads()
    third, fourth = opened(recording)[:2]
    secrets = recording.secrets("DH secret")
    # Only a proposal with a group has a key exchange of its own for the second child.
    assert bool(secrets) is (KE in third)
    names = ("encryption initiator", "integrity initiator", "encryption responder", "integrity responder")
    for number, (nonce_i, nonce_r, shared) in enumerate(
        [(first[NONCE], second[NONCE], b""), (third[NONCE], fourth[NONCE], secrets[0] if secrets else b"")]
    ):
        found = [recording.secrets(f"{each} key") for each in names]
        expected = tuple(each[number] if each else b"" for each in found)
        sizes = len(expected[0]), len(expected[1])
        keys = child_keys(recording.suite.prf, logged(recording, 0).d, nonce_i, nonce_r, shared, *sizes)
        assert keys == expected


def test_keys_stay_out_of_sight() -> None:
    keys = child_keys(PRFS[5], b"d" * 32, b"i" * 32, b"r" * 32, b"", 20, 0)
    assert [len(key) for key in keys] == [20, 0, 20, 0]
    assert repr(IkeKeys(*(b"secret",) * 7)) == "IkeKeys(<hidden>)"
