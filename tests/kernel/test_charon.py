"""strongSwan with SAs in the kernel, as mobile node and home agent would have them (RFC 4877)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ..interop.charon import Charon, Kernel, Settings
from ..interop.network import BEHIND_US, OURS, THEIRS, Capture, Network

pytestmark = pytest.mark.interop
SECRETS = {"ike-1": {"secret": '"a secret for two"'}}
MOBILITY, ESP = 135, 50


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as found:
        yield found


@pytest.fixture(scope="module")
def pair(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Charon, Charon]]:
    directory = tmp_path_factory.mktemp("charon")
    made = (
        Charon(network.ours, directory / "a", Kernel.NETLINK),
        Charon(network.theirs, directory / "b", Kernel.NETLINK),
    )
    yield made
    assert [each.stop() for each in made] == [0, 0]


def connection(local: str, remote: str, names: tuple[str, str], child: Settings) -> Settings:
    return {
        "local_addrs": local,
        "remote_addrs": remote,
        "proposals": "aes128gcm16-prfsha256-x25519",
        "local": {"auth": "psk", "id": names[0]},
        "remote": {"auth": "psk", "id": names[1]},
        "children": {"signalling": {"mode": "transport", "esp_proposals": "aes128gcm16", **child}},
    }


def test_transport_mode_on_a_home_address(
    pair: tuple[Charon, Charon], network: Network, tmp_path: Path
) -> None:
    """IKE runs between care-of address and home agent, the SA is the home address's: ``transport_proxy``."""
    for charon, here, there, names, local, remote in (
        (pair[0], OURS, THEIRS, ("mn.example", "ha.example"), BEHIND_US, THEIRS),
        (pair[1], THEIRS, OURS, ("ha.example", "mn.example"), THEIRS, BEHIND_US),
    ):
        child = {
            "mode": "transport_proxy",
            "local_ts": f"{local}/128[{MOBILITY}]",
            "remote_ts": f"{remote}/128[{MOBILITY}]",
        }
        charon.load({"mobile": connection(here, there, names, child)}, SECRETS)
    pair[0].initiate(child="signalling")
    (association,) = pair[1].associations().values()
    (child,) = association["child-sas"].values()
    assert child["state"] == "INSTALLED"
    # In brackets the protocol's name, as the system has it.
    (selector,) = child["remote-ts"]
    assert selector.startswith(f"{BEHIND_US}/128[")
    states = network.theirs.run("ip", "xfrm", "state")
    assert f"src {BEHIND_US} dst {THEIRS}" in states
    assert f"src {OURS}" not in states
    capture = Capture(network.theirs, tmp_path / "link.pcap")
    with network.theirs.inside():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY)
    with network.ours.inside():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY)
    # A Binding Update with padding in it. The kernel puts a checksum into octets 4 and 5.
    message = bytes((59, 3, 5, 0)) + bytes(8) + bytes((1, 18)) + b"not for the public"
    with closing(receiver), closing(sender):
        receiver.settimeout(5)
        receiver.bind((THEIRS, 0))
        sender.bind((BEHIND_US, 0))
        sender.sendto(message, (THEIRS, 0))
        received, source = receiver.recvfrom(100)
    assert (received[:4] + received[6:], source[0]) == (message[:4] + message[6:], BEHIND_US)
    octets = capture.close().read_bytes()
    assert b"not for the public" not in octets
    assert bytes((ESP, 64)) + socket.inet_pton(socket.AF_INET6, BEHIND_US) in octets
    pair[0].control("--terminate", "--ike", "mobile")
    assert not network.theirs.run("ip", "xfrm", "state")
