"""strongSwan with SAs in the kernel, as mobile node and home agent would have them (RFC 4877)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from netnslab.strongswan import Kernel, Settings

from ..interop.charon import Charon
from ..interop.network import BEHIND_THEM, BEHIND_US, OURS, THEIRS, Capture, Network, eventually
from ..interop.ours import SECRET, Ours, configuration, peer

pytestmark = pytest.mark.interop
SECRETS = {"ike-1": {"secret": '"a secret for two"'}}
MOBILITY, ESP = 135, 50


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as found:
        yield found


@pytest.fixture(scope="module")
def charon(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charon]:
    made = Charon(network.theirs, tmp_path_factory.mktemp("charon") / "charon", Kernel.NETLINK)
    yield made
    assert made.stop() == 0


@pytest.fixture
def pair(
    network: Network, charon: Charon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Charon, Charon]]:
    made = Charon(network.ours, tmp_path_factory.mktemp("charon") / "charon", Kernel.NETLINK)
    yield made, charon
    assert made.stop() == 0


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


@pytest.fixture(scope="module")
def ours(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    text = configuration(OURS, "ha.example")
    selectors = f'local = ["{OURS}/128[{MOBILITY}]"]\nremote = ["home-address[{MOBILITY}]"]'
    mobile = peer("mn", THEIRS, child=f'use = "signalling"\n{selectors}')
    home_addresses = f'home_addresses = ["{BEHIND_THEM}"]\n'
    text += mobile.replace("[[peer.child]]", f"{home_addresses}[[peer.child]]")
    made = Ours(network.ours, tmp_path_factory.mktemp("ours"), text)
    yield made
    assert made.stop() == 0


@pytest.mark.parametrize("we_begin", [False, True])
def test_transport_mode_with_our_endpoint(
    ours: Ours, charon: Charon, network: Network, we_begin: bool
) -> None:
    """What its kernel has is what we negotiated: a mobile node's signalling, with the keys we derived."""
    child = {
        "mode": "transport_proxy",
        "local_ts": f"{BEHIND_THEM}/128[{MOBILITY}]",
        "remote_ts": f"{OURS}/128[{MOBILITY}]",
    }
    secret = {"ike-1": {"secret": f"0x{SECRET.hex()}"}}
    charon.load({"mobile": connection(THEIRS, OURS, ("mn.example", "ha.example"), child)}, secret)
    if we_begin:
        ours.ask("initiate", "mn")
        eventually(lambda: ours.ike_sas("mn"))
    else:
        charon.initiate(child="signalling")
    (found,) = ours.ike_sas("mn")[0]["children"]
    assert (found["mode"], found["remote"]) == ("transport", [f"{BEHIND_THEM}/128[{MOBILITY}]"])
    states = network.theirs.run("ip", "xfrm", "state").split("\nsrc ")
    assert len(states) == 2
    for source, destination, spi in ((BEHIND_THEM, OURS, "spi_in"), (OURS, BEHIND_THEM, "spi_out")):
        (state,) = (each for each in states if f"{source} dst {destination}" in each)
        assert f"spi 0x{found[spi]}" in state
        assert "mode transport" in state
        assert f"0x{ours.esp_keys()[found[spi]][0].hex()}" in state
    policies = network.theirs.run("ip", "xfrm", "policy").replace("mobility-header", str(MOBILITY))
    assert f"src {BEHIND_THEM}/128 dst {OURS}/128 proto {MOBILITY}" in policies
    ours.ask("delete", "mn")
    eventually(lambda: not network.theirs.run("ip", "xfrm", "state"))
    assert not charon.associations()
