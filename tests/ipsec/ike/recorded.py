"""IKE SAs between two charons, with the secrets that charon logged: vectors that none of this code made.

Payloads are walked here once more, so that the package's codec is not needed to test what stands below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mip6ha.ipsec.ike.transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Protection, Suite

VECTORS = Path(__file__).parents[2] / "vectors" / "ike"
NAMES = sorted(path.stem for path in VECTORS.glob("*.json"))
WITH_CHILDREN = [name for name in NAMES if name.startswith("psk-")]
WITH_CERTIFICATES = [name for name in NAMES if not name.startswith("psk-")]

SA, KE, IDI, IDR, CERT, AUTH, NONCE, ENCRYPTED = 33, 34, 35, 36, 37, 39, 40, 46
IKE_AUTH, CREATE_CHILD_SA = 35, 36

_ENCRYPTIONS = {
    "aes128gcm16": (20, 128),
    "aes192gcm16": (20, 192),
    "aes256gcm16": (20, 256),
    "chacha20poly1305": (28, None),
    "aes128": (12, 128),
    "aes192": (12, 192),
    "aes256": (12, 256),
}
_INTEGRITIES = {"sha256": 12, "sha384": 13, "sha512": 14}
_PRFS = {"prfsha256": 5, "prfsha384": 6, "prfsha512": 7}
_GROUPS = {
    "x25519": 31,
    "ecp256": 19,
    "ecp384": 20,
    "ecp521": 21,
    "modp2048": 14,
    "modp3072": 15,
    "modp4096": 16,
}


def suite(proposal: str) -> Suite:
    """What charon's notation stands for."""
    encryption, *others = proposal.split("-")
    integrity = others[0] if others[0] in _INTEGRITIES else None
    prf, group = others[-2:]
    return Suite(
        ENCRYPTIONS[_ENCRYPTIONS[encryption]],
        INTEGRITIES[_INTEGRITIES[integrity]] if integrity else None,
        PRFS[_PRFS[prf]],
        GROUPS[_GROUPS[group]],
    )


class Message(NamedTuple):
    octets: bytes

    @property
    def spis(self) -> tuple[bytes, bytes]:
        return self.octets[:8], self.octets[8:16]

    @property
    def exchange(self) -> int:
        return self.octets[18]

    @property
    def from_initiator(self) -> bool:
        return bool(self.octets[19] & 0x08)

    @property
    def is_response(self) -> bool:
        return bool(self.octets[19] & 0x20)

    def payloads(self) -> dict[int, bytes]:
        """Bodies by type, of those in clear; one of each type is enough here."""
        return dict(payloads(self.octets[16], self.octets[28:]))

    def opened(self, protection: Protection) -> dict[int, bytes]:
        """The same for those inside the Encrypted payload that is the whole message."""
        assert self.octets[16] == ENCRYPTED
        return dict(payloads(self.octets[28], protection.open(self.octets[:32], self.octets[32:])))


def payloads(kind: int, octets: bytes) -> Iterator[tuple[int, bytes]]:
    while kind:
        length = int.from_bytes(octets[2:4], "big")
        yield kind, octets[4:length]
        kind, octets = octets[0], octets[length:]
    assert not octets


class Recording:
    def __init__(self, name: str) -> None:
        stored = json.loads((VECTORS / f"{name}.json").read_text())
        self.suite = suite(stored["proposals"])
        self.child: str | None = stored.get("esp")
        self.psk = bytes.fromhex(stored.get("psk", ""))
        self.authority = bytes.fromhex(stored.get("authority", ""))
        self.certificates = [bytes.fromhex(each) for each in stored.get("certificates", [])]
        self.messages = [Message(bytes.fromhex(each)) for each in stored["messages"]]
        self._log = [(name, bytes.fromhex(value)) for name, value in stored["log"]]

    def secrets(self, name: str) -> list[bytes]:
        """What charon logged under a name, in order."""
        return [value for each, value in self._log if each == name]

    def exchange(self, kind: int) -> list[Message]:
        return [message for message in self.messages if message.exchange == kind]

    def protection(self, *, of_initiator: bool, number: int = 0) -> Protection:
        """What protects one direction of the first IKE SA, with charon's keys."""
        side = "i" if of_initiator else "r"
        integrity = self.secrets(f"Sk_a{side} secret")
        return Protection(
            self.suite,
            self.secrets(f"Sk_e{side} secret")[number],
            integrity[number] if integrity else b"",
        )
