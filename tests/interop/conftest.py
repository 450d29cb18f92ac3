"""Every test here runs against strongSwan, on a link of its own between two namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from netnslab.certificates import DAY, Authority, PrivateKey, new_ecdsa_key, new_rsa_key

from .charon import Charon
from .network import BEHIND_THEM, BEHIND_US, OURS, THEIRS, Capture, Network
from .ours import SECRET, Ours, configuration, peer, write_credentials

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid():
        pytest.fail("network namespaces need root; run as root, or leave these tests out: -m 'not interop'")
    with Network() as found:
        yield found


@pytest.fixture
def capture(network: Network, tmp_path: Path) -> Iterator[Capture]:
    made = Capture(network.ours, tmp_path / "link.pcap")
    yield made
    made.close()


@dataclass(frozen=True)
class Credentials:
    """Keys with certificates by the name of their owner, NAME.example."""

    authority: Authority
    owners: dict[str, tuple[PrivateKey, x509.Certificate]]


@pytest.fixture(scope="session")
def credentials() -> Credentials:
    """``large`` has a certificate of some kilobytes, ``revoked`` is in the CRL, ``old`` has expired."""
    authority = Authority()
    keys = {"ours": new_rsa_key(), "rsa": new_rsa_key()}
    owners = {}
    for name in ("ours", "curve", "rsa", "ecdsa", "large", "revoked", "old"):
        key = keys.get(name) or new_ecdsa_key()
        until = -DAY if name == "old" else DAY
        more_names = 100 if name == "large" else 0
        owners[name] = key, authority.issue(f"{name}.example", key, until=until, more_names=more_names)
    authority.revoke(owners["revoked"][1])
    return Credentials(authority, owners)


CHILD = f'use = "payload"\nlocal = ["{BEHIND_US}/128"]\nremote = ["{BEHIND_THEM}/128"]'


def run_ours(network: Network, directory: Path, credentials: Credentials, own: str) -> Ours:
    """Our endpoint, as ``own``.example, with all that the tests talk to as its peers."""
    authority = credentials.authority
    write_credentials(directory, *credentials.owners[own], authority.certificate, authority.revocations())
    text = configuration(OURS, f"{own}.example", certificate=True)
    text += "".join(peer(name, THEIRS, child=CHILD) for name in ("psk", "wrong"))
    text += peer("childless", THEIRS)
    for name in credentials.owners:
        text += peer(name, THEIRS, psk=False, child=CHILD) if name != own else ""
    return Ours(network.ours, directory, text)


@pytest.fixture(scope="module")
def ours(
    network: Network, tmp_path_factory: pytest.TempPathFactory, credentials: Credentials
) -> Iterator[Ours]:
    """With an RSA key."""
    made = run_ours(network, tmp_path_factory.mktemp("ours"), credentials, "ours")
    yield made
    assert made.stop() == 0, made.log()[-5000:]


@pytest.fixture(scope="module")
def charon(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charon]:
    """SAs in a TUN device; ESP always in UDP."""
    made = Charon(network.theirs, tmp_path_factory.mktemp("charon") / "charon")
    yield made
    assert made.stop() == 0


@dataclass(frozen=True)
class Talk:
    """Our endpoint and a charon on one link."""

    ours: Ours
    charon: Charon
    credentials: Credentials

    def load(
        self,
        who: str,
        ike: str = "aes128gcm16-prfsha256-x25519",
        esp: str | None = "aes128gcm16",
        secret: bytes = SECRET,
        own: str = "ours",
        **more: object,
    ) -> None:
        """Let charon be ``who``.example; ``esp`` ``None`` is without a child.

        Nothing is left of what a test before did not end.
        """
        for left in self.charon.associations():
            self.charon.control("--terminate", "--ike-id", left, "--force", check=False)
        owners, authority = self.credentials.owners, self.credentials.authority
        kind = "pubkey" if who in owners else "psk"
        children = {
            "net": {
                "mode": "tunnel",
                "esp_proposals": esp,
                "local_ts": f"{BEHIND_THEM}/128",
                "remote_ts": f"{BEHIND_US}/128",
            }
        }
        connection = {
            "local_addrs": THEIRS,
            "remote_addrs": OURS,
            "proposals": ike,
            "local": {"auth": kind, "id": f"{who}.example"},
            "remote": {"auth": kind, "id": f"{own}.example"},
            **({"childless": "force"} if esp is None else {"children": children}),
            **more,
        }
        self.charon.load(
            {"talk": connection},
            {} if who in owners else {"ike-1": {"secret": f"0x{secret.hex()}"}},
            {who: owners[who]} if who in owners else {},
            (authority.certificate,),
            (authority.revocations(),),
        )


@pytest.fixture(scope="module")
def talk(ours: Ours, charon: Charon, credentials: Credentials) -> Talk:
    return Talk(ours, charon, credentials)
