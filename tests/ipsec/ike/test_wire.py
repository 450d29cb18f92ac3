"""Messages on the wire: strongSwan's parsed and built again, ours read by tshark and scapy."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mip6ha.ipsec.ike import payloads
from mip6ha.ipsec.ike.contents import parse_contents
from mip6ha.ipsec.ike.effects import KeyLog
from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Payload,
    build_clear,
    build_payloads,
    open_encrypted,
    parse_chain,
    parse_header,
)
from mip6ha.ipsec.ike.numbers import Exchange, Notification, PayloadKind
from mip6ha.ipsec.ike.proposals import build_proposals, parse_proposals
from mip6ha.ipsec.ike.selectors import ANY_PORT, MOBILITY, build_selectors, parse_selectors

from ...captured import VECTORS, ipv6_packets
from ...octets import reference_checksum
from .recorded import NAMES, Recording
from .world import AES_CBC, AES_GCM, World, parameters_of

_CAPTURE = VECTORS / "strongswan-ikev2-transport.pcap"
_K = PayloadKind


def _rebuilt(parse: Callable[[bytes], object], build: Callable[..., bytes]) -> Callable[[bytes], bytes]:
    return lambda body: build(parse(body))


AGAIN: dict[int, Callable[[bytes], bytes]] = {
    _K.SA: _rebuilt(parse_proposals, build_proposals),
    _K.KEY_EXCHANGE: _rebuilt(payloads.parse_key_payload, payloads.build_key_payload),
    _K.ID_INITIATOR: lambda body: payloads.build_identification(*payloads.parse_identification(body)),
    _K.ID_RESPONDER: lambda body: payloads.build_identification(*payloads.parse_identification(body)),
    _K.CERTIFICATE: _rebuilt(payloads.parse_certificate, payloads.build_certificate),
    _K.CERTIFICATE_REQUEST: _rebuilt(payloads.parse_certificate, payloads.build_certificate),
    _K.AUTHENTICATION: _rebuilt(payloads.parse_authentication, payloads.build_authentication),
    _K.NONCE: payloads.parse_nonce,
    _K.NOTIFY: _rebuilt(payloads.parse_notify, payloads.build_notify),
    _K.DELETE: _rebuilt(payloads.parse_delete, payloads.build_delete),
    _K.TS_INITIATOR: _rebuilt(parse_selectors, build_selectors),
    _K.TS_RESPONDER: _rebuilt(parse_selectors, build_selectors),
}


def again(found: tuple[Payload, ...]) -> list[Payload]:
    """The same payloads, each from its value."""
    return [each._replace(body=AGAIN[each.kind](each.body)) for each in found]


def datagrams() -> list[bytes]:
    """IKE messages of the capture."""
    return [packet[48:] for packet in ipv6_packets(_CAPTURE).values() if packet[6] == 17]


def test_the_capture_is_said_again_to_the_octet() -> None:
    found = datagrams()
    exchanges = []
    for octets in found:
        # From IKE_AUTH on, charon is on port 4500 and has the non-ESP marker.
        octets = octets.removeprefix(bytes(4))
        header, first = parse_header(octets)
        exchanges.append((header.exchange, header.response, header.message_id))
        chain = parse_chain(octets, HEADER_SIZE, first)
        if header.exchange == Exchange.IKE_SA_INIT:
            assert build_clear(header, again(chain.payloads)) == octets
            contents = parse_contents(header.exchange, header.response, chain.payloads)
            assert contents.notify(Notification.FRAGMENTATION_SUPPORTED) is not None
            assert contents.key is not None
            assert (contents.key.group, len(contents.key.data)) == (31, 32)
        else:
            assert not chain.payloads
            assert chain.encrypted is not None
            assert chain.encrypted.kind == PayloadKind.ENCRYPTED
    assert exchanges == [
        (exchange, response, number)
        for number, exchange in enumerate((34, 35, 36))
        for response in (False, True)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_charon_said_under_protection_is_said_again_to_the_octet(name: str) -> None:
    recording = Recording(name)
    seen = set()
    for message in recording.messages:
        header, first = parse_header(message.octets)
        chain = parse_chain(message.octets, HEADER_SIZE, first)
        if chain.encrypted is None:
            inner = chain.payloads
            assert build_clear(header, again(inner)) == message.octets
        elif chain.encrypted.kind == PayloadKind.ENCRYPTED and message.spis == recording.messages[1].spis:
            protection = recording.protection(of_initiator=header.initiator)
            octets = open_encrypted(message.octets, chain.encrypted, protection)
            inner = parse_chain(octets, 0, chain.encrypted.first).payloads
            assert build_payloads(again(inner)) == octets
        else:
            continue
        contents = parse_contents(header.exchange, header.response, inner)
        seen.add((header.exchange, header.response))
        if contents.ts_initiator and name.startswith("psk-"):
            assert all(each.protocol in (0, MOBILITY) for each in contents.ts_initiator)
            assert all(each.ports == ANY_PORT for each in contents.ts_initiator)
    assert (Exchange.IKE_SA_INIT, True) in seen


def pcap(world: World, path: Path) -> None:
    """What was sent, as UDP in IPv6 in Ethernet."""
    frames = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, each in enumerate(world.sent):
        source, destination = each.local[0], each.remote[0]
        body = each.octets if each.local[1] == 500 else bytes(4) + each.octets
        udp = struct.pack(">HHHH", each.local[1], each.remote[1], 8 + len(body), 0)
        checksum = reference_checksum(source, destination, 17, udp + body) or 0xFFFF
        udp = udp[:6] + checksum.to_bytes(2, "big") + body
        frame = bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64)
        frame += source + destination + udp
        frames.append(struct.pack("<IIII", number, 0, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(frames))


@pytest.mark.tshark
@pytest.mark.parametrize("offer", [AES_GCM, AES_CBC], ids=["gcm", "cbc"])
@pytest.mark.parametrize("encapsulate", [False, True], ids=["500", "4500"])
def test_tshark_decrypts_ours_with_the_key_log_and_finds_nothing_wrong(
    tmp_path: Path, offer: object, encapsulate: bool
) -> None:
    ha = parameters_of("ha", proposals=(offer,), key_log=True, encapsulate=encapsulate)
    world = World(parameters_of("mn", proposals=(offer,)), ha)
    world.connect()
    child = world.mn.child.spi_in
    world.do(world.mn, world.mn.endpoint.rekey_child(world.mn.sa.spi, child, world.now))
    world.run()
    world.do(world.ha, world.ha.endpoint.rekey(world.ha.sa.spi, world.now))
    world.run()
    world.do(world.mn, world.mn.endpoint.delete(world.mn.sa.spi, world.now))
    world.run()
    pcap(world, tmp_path / "ours.pcap")
    (tmp_path / "wireshark").mkdir()
    lines = "".join(f"{each.line}\n" for each in world.ha.all(KeyLog))
    (tmp_path / "wireshark" / "ikev2_decryption_table").write_text(lines)
    command = ["tshark", "-n", "-r", str(tmp_path / "ours.pcap"), "-T", "json"]
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    printed = subprocess.run(command, check=True, capture_output=True, env=environment, text=True).stdout
    packets = json.loads(printed)
    assert len(packets) == len(world.sent)
    assert "_ws.malformed" not in printed
    assert "_ws.expert" not in printed.replace("udp.checksum", "")
    for packet in packets:
        text = json.dumps(packet)
        if '"isakmp.exchangetype": "34"' not in text:
            assert "isakmp.enc.decrypted" in text, "not decrypted"
    for shown in ("isakmp.notify.msgtype", "isakmp.ts", "isakmp.auth.method", "isakmp.delete"):
        assert shown in printed


def test_scapy_reads_ours() -> None:
    from scapy.contrib.ikev2 import IKEv2, IKEv2_KE, IKEv2_Nonce, IKEv2_Notify, IKEv2_SA

    world = World()
    world.connect()
    for sent in world.sent[:2]:
        found = IKEv2(sent.octets)
        header, first = parse_header(sent.octets)
        bodies = {each.kind: each.body for each in parse_chain(sent.octets, HEADER_SIZE, first).payloads}
        assert (found.init_SPI, found.resp_SPI) == (header.spi_i, header.spi_r)
        assert (found.exch_type, found.id, found.length) == (34, 0, len(sent.octets))
        assert found[IKEv2_SA].prop.proposal == 1
        assert bytes(found[IKEv2_KE].ke) == bodies[PayloadKind.KEY_EXCHANGE][4:]
        assert bytes(found[IKEv2_Nonce].nonce) == bodies[PayloadKind.NONCE]
        assert found[IKEv2_Notify].type == Notification.NAT_DETECTION_SOURCE_IP
        assert bytes(found) == sent.octets
