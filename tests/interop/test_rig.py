"""The rig itself: charon talks to charon, and tshark reads it with the keys of charon's log."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from netnslab.certificates import Authority, new_ecdsa_key, new_rsa_key
from netnslab.strongswan import Settings, values

from .charon import Charon
from .dissection import (
    CREATE_CHILD_SA,
    GCM_128,
    IKE_AUTH,
    IKE_SA_INIT,
    INFORMATIONAL,
    Message,
    key_line,
    messages,
)
from .network import BEHIND_THEM, BEHIND_US, OURS, THEIRS, Capture, Network, eventually

CBC_128 = ("AES-CBC-128 [RFC3602]", "HMAC_SHA2_256_128 [RFC4868]")
SECRETS = {"ike-1": {"secret": '"a secret for two"'}}
FRAGMENT, ENCRYPTED, DELETE = 53, 46, 42


def connection(
    local: str, remote: str, names: tuple[str, str], auth: str = "psk", **more: object
) -> Settings:
    return {
        "local_addrs": local,
        "remote_addrs": remote,
        "proposals": "aes128gcm16-prfsha256-x25519",
        "local": {"auth": auth, "id": names[0]},
        "remote": {"auth": auth, "id": names[1]},
        **more,
    }


@pytest.fixture(scope="module")
def pair(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Charon, Charon]]:
    directory = tmp_path_factory.mktemp("rig")
    first, second = Charon(network.ours, directory / "a"), Charon(network.theirs, directory / "b")
    yield first, second
    assert (first.stop(), second.stop()) == (0, 0)


def connect(pair: tuple[Charon, Charon], auth: str = "psk", **more: object) -> None:
    """Load the same connection into both."""
    names = "a.example", "b.example"
    pair[0].load({"rig": connection(OURS, THEIRS, names, auth, **more)}, SECRETS)
    pair[1].load({"rig": connection(THEIRS, OURS, names[::-1], auth, **more)}, SECRETS)


def decrypted(capture: Capture, charon: Charon, algorithms: tuple[str, str], before: int) -> list[Message]:
    """The messages of a capture; ``before``: how many IKE SAs there had been."""
    path = capture.close()
    spis = dict.fromkeys(each.spis for each in messages(path) if int(each.spis[1], 16))
    lines = [
        key_line(pair, keys, algorithms) for pair, keys in zip(spis, charon.keys()[before:], strict=True)
    ]
    return messages(path, lines)


def test_without_a_child(pair: tuple[Charon, Charon], capture: Capture) -> None:
    connect(pair, childless="force")
    before = len(pair[0].keys())
    pair[0].initiate(ike="rig")
    (association,) = pair[1].associations().values()
    assert (association["state"], association["remote-id"]) == ("ESTABLISHED", "a.example")
    pair[0].control("--rekey", "--ike", "rig")
    eventually(lambda: {each["state"] for each in pair[0].associations().values()} == {"ESTABLISHED"})
    pair[0].control("--terminate", "--ike", "rig")
    assert not pair[1].associations()
    found = decrypted(capture, pair[0], GCM_128, before)
    assert [each.exchange for each in found[::2]] == [
        IKE_SA_INIT,
        IKE_AUTH,
        CREATE_CHILD_SA,
        INFORMATIONAL,
        INFORMATIONAL,
    ]
    assert found[-2].payloads == (ENCRYPTED, DELETE)
    assert found[-2].spis != found[0].spis
    assert pair[0].keys() == pair[1].keys()


def test_a_tunnel_without_the_kernel(pair: tuple[Charon, Charon], network: Network, capture: Capture) -> None:
    """kernel-libipsec: ESP in UDP, from a TUN device."""
    before = len(pair[0].keys())
    names = "a.example", "b.example"
    child = {"mode": "tunnel", "esp_proposals": "aes128gcm16"}
    for charon, here, there, local, remote, ids in (
        (pair[0], OURS, THEIRS, BEHIND_US, BEHIND_THEM, names),
        (pair[1], THEIRS, OURS, BEHIND_THEM, BEHIND_US, names[::-1]),
    ):
        selectors = {"local_ts": f"{local}/128", "remote_ts": f"{remote}/128"}
        settings = connection(
            here,
            there,
            ids,
            proposals="aes128-sha256-prfsha256-modp2048",
            children={"net": {**child, **selectors}},
        )
        charon.load({"rig": settings}, SECRETS)
    pair[0].initiate(child="net")
    (association,) = pair[1].associations().values()
    (installed,) = association["child-sas"].values()
    assert (installed["state"], installed["mode"], installed["local-ts"]) == (
        "INSTALLED",
        "TUNNEL",
        [f"{BEHIND_THEM}/128"],
    )
    with network.theirs.inside():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with network.ours.inside():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with closing(receiver), closing(sender):
        receiver.settimeout(5)
        receiver.bind((BEHIND_THEM, 7))
        sender.bind((BEHIND_US, 0))
        sender.sendto(b"through the tunnel", (BEHIND_THEM, 7))
        assert receiver.recvfrom(100)[0] == b"through the tunnel"
    pair[0].control("--terminate", "--ike", "rig")
    found = decrypted(capture, pair[0], CBC_128, before)
    assert {each.port for each in found} == {500, 4500}
    assert b"through the tunnel" not in capture.path.read_bytes()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_certificates_in_fragments(pair: tuple[Charon, Charon], capture: Capture, kind: str) -> None:
    authority = Authority()
    for charon, (here, there), names in (
        (pair[0], (OURS, THEIRS), ("a.example", "b.example")),
        (pair[1], (THEIRS, OURS), ("b.example", "a.example")),
    ):
        key = new_rsa_key() if kind == "rsa" else new_ecdsa_key()
        certificate = authority.issue(names[0], key, more_names=100)
        settings = connection(here, there, names, "pubkey", childless="force")
        charon.load({"rig": settings}, keys={"own": (key, certificate)}, authorities=(authority.certificate,))
    before = len(pair[0].keys())
    pair[0].initiate(ike="rig")
    pair[0].control("--terminate", "--ike", "rig")
    found = decrypted(capture, pair[0], GCM_128, before)
    assert sum(FRAGMENT in each.payloads and each.exchange == IKE_AUTH for each in found) >= 4


def test_who_is_not_trusted_is_told_apart(pair: tuple[Charon, Charon]) -> None:
    connect(pair, childless="force")
    pair[1].load(
        {"rig": connection(THEIRS, OURS, ("b.example", "a.example"), childless="force")},
        {"ike-1": {"secret": '"another secret"'}},
    )
    assert "AUTH_FAILED" in pair[0].initiate(ike="rig", check=False)
    assert not pair[0].associations()


def test_nothing_stays_behind() -> None:
    network = Network()
    names = {network.ours.name, network.theirs.name}
    processes = []

    def fail() -> None:
        with network:
            processes.append(network.ours.start("sleep", "1000", output=Path("/dev/null")))
            assert names <= namespaces()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [each.returncode for each in processes] == [-signal.SIGTERM]
    assert not names & namespaces()


def namespaces() -> set[str]:
    return set(subprocess.check_output(["ip", "netns"], text=True).split())


def test_what_swanctl_prints_is_read() -> None:
    children = "{net-1 {local-ts=[::/0[udp] 2001:db8::/64] n=1}}"
    line = f"{{c {{id=7 name=CN=a, O=b c state=UP child-sas {children} x=}} d {{y=2}}}}"
    assert values(line) == {
        "c": {
            "id": "7",
            "name": "CN=a, O=b c",
            "state": "UP",
            "child-sas": {"net-1": {"local-ts": ["::/0[udp]", "2001:db8::/64"], "n": "1"}},
            "x": "",
        },
        "d": {"y": "2"},
    }
