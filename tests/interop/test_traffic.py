"""What was negotiated carries packets: charon's tunnel at one end, our ESP at the other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from mip6ha import ipv6, udp
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, by_name
from mip6ha.ipsec.ike.numbers import NATT_PORT
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.udp import Datagram
from mip6ha.wire import address

from ..captured import ipv6_packets
from .conftest import Talk
from .dissection import fields_of
from .network import BEHIND_THEM, BEHIND_US, OURS, THEIRS, Capture, Network, eventually
from .test_responder import agree, end

TRANSFORMS = [
    ("aes128gcm16", "aes-gcm-16"),
    ("aes256-sha384", "aes-cbc+hmac-sha2-384-192"),
]
ECHO = 7


def inner(source: str, destination: str, payload: bytes) -> bytes:
    between = address(source), address(destination)
    return ipv6.build(*between, ipv6.UDP, udp.build(*between, Datagram(ECHO, ECHO, payload)))


@pytest.mark.parametrize(("proposal", "transform"), TRANSFORMS)
def test_both_directions(
    talk: Talk, network: Network, capture: Capture, proposal: str, transform: str
) -> None:
    talk.load("psk", esp=proposal)
    talk.charon.initiate(child="net")
    spis, keys = agree(talk, "psk"), talk.ours.esp_keys()
    inbound, outbound = (
        SecurityAssociation(
            spi=int(spis[direction], 16),
            direction=direction,
            use=Use.PAYLOAD,
            home_address=address(BEHIND_THEM),
            transform=by_name(transform),
            keys=Keys(*keys[spis[direction]]),
        )
        for direction in (Direction.IN, Direction.OUT)
    )
    with network.theirs.inside():
        theirs = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with network.ours.inside():
        # Beside the port that the endpoint has.
        wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_UDP)
    with closing(theirs), closing(wire):
        theirs.settimeout(5)
        theirs.bind((BEHIND_THEM, ECHO))
        theirs.sendto(b"from strongSwan", (BEHIND_US, ECHO))
        eventually(lambda: talk.ours.ask("counters").get("esp_without_dataplane"))
        packet = esp.protect(outbound, ipv6.IPV6, inner(BEHIND_US, BEHIND_THEM, b"from us"), os.urandom)
        datagram = udp.build(address(OURS), address(THEIRS), Datagram(NATT_PORT, NATT_PORT, packet))
        wire.bind((OURS, 0))
        wire.sendto(datagram, (THEIRS, 0))
        assert theirs.recvfrom(100) == (b"from us", (BEHIND_US, ECHO, 0, 0))
    end(talk, "psk")
    [(next_header, opened)] = [esp.unprotect(inbound, each) for each in esp_to_us(capture)]
    # All but the flow label, which the system chose.
    assert next_header == ipv6.IPV6
    assert opened[4:] == inner(BEHIND_THEM, BEHIND_US, b"from strongSwan")[4:]


@pytest.mark.parametrize("proposal", [proposal for proposal, _ in TRANSFORMS])
def test_the_key_log_is_what_wireshark_wants(
    talk: Talk, network: Network, capture: Capture, proposal: str
) -> None:
    """With nothing but the directory as its configuration tshark opens IKE and ESP."""
    talk.load("psk", esp=proposal)
    talk.charon.initiate(child="net")
    spis = agree(talk, "psk")
    with network.theirs.inside():
        theirs = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    before = talk.ours.ask("counters").get("esp_without_dataplane", 0)
    with closing(theirs):
        theirs.bind((BEHIND_THEM, ECHO))
        theirs.sendto(b"for tshark", (BEHIND_US, ECHO))
        eventually(lambda: talk.ours.ask("counters").get("esp_without_dataplane", 0) > before)
    end(talk, "psk")
    options = ["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]
    printed = subprocess.run(
        [
            "tshark",
            "-r",
            capture.close(),
            *options,
            "-T",
            "json",
            "--no-duplicate-keys",
            "-Y",
            "isakmp || esp",
        ],
        env=os.environ | {"WIRESHARK_CONFIG_DIR": str(talk.ours.directory / "keys")},
        capture_output=True,
        check=True,
    ).stdout
    packets = [packet["_source"]["layers"] for packet in json.loads(printed)]
    [opened] = [packet["esp"] for packet in packets if "esp" in packet]
    fields = dict(fields_of({"esp": opened}))
    assert (fields["esp.spi"], fields["esp.icv_good"]) == (f"0x{spis['in']}", "1")
    assert b"for tshark".hex(":") in json.dumps(packets)
    encrypted = [packet["isakmp"] for packet in packets if "isakmp" in packet][2:]
    assert all("isakmp.enc.decrypted" in dict(fields_of({"isakmp": each})) for each in encrypted)


def esp_to_us(capture: Capture) -> Iterator[bytes]:
    """ESP packets in UDP. Nobody has filled in the checksum on a link that is in memory."""
    for octets in ipv6_packets(capture.close()).values():
        packet = ipv6.parse(octets)
        if packet.next_header == ipv6.UDP and packet.destination == address(OURS):
            port, payload = int.from_bytes(packet.payload[2:4], "big"), packet.payload[8:]
            if port == NATT_PORT and udp.is_esp(payload):
                yield payload
