"""Packets of a reference implementation: read as tshark reads them, and said again to the octet.

tshark judges ESP's ICV and ICMPv6's checksum. It prints the Mobility Header's checksum without judging it, so
that one is summed up here over what tshark decrypted, between the addresses that it printed.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mip6ha import icmpv6, ipv6, mobility
from mip6ha.binding import messages
from mip6ha.binding.messages import (
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    Body,
    alternate_care_of_address,
)
from mip6ha.icmpv6 import Icmp
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, HOP_BY_HOP, ICMPV6, IPV6, MOBILITY, Packet
from mip6ha.wire import Refused, address, text

from .captured import CAPTURES, CBC_INTEGRITY_KEY, CBC_KEY, GCM_KEY, Fields, ipv6_packets, tshark
from .octets import HOME_ADDRESS, HOME_AGENT, mutations, reference_checksum

_USES = {
    0x2000: Use.BINDING,
    0x2001: Use.BINDING,
    0x2002: Use.PREFIX,
    0x2003: Use.PREFIX,
    0x2004: Use.PAYLOAD,
    0x2005: Use.PAYLOAD,
}
_EVERY = pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)


def _associations(path: Path) -> dict[int, SecurityAssociation]:
    if "gcm" in path.name:
        chosen, keys = transform("aes-gcm-16"), Keys(GCM_KEY)
    else:
        chosen, keys = transform("aes-cbc", "hmac-sha2-256-128"), Keys(CBC_KEY, CBC_INTEGRITY_KEY)
    return {
        spi: SecurityAssociation(
            spi=spi,
            direction=Direction.IN,
            use=use,
            home_address=HOME_ADDRESS,
            transform=chosen,
            keys=keys,
        )
        for spi, use in _USES.items()
    }


@pytest.fixture(scope="module")
def printed() -> dict[Path, dict[int, Fields]]:
    """What tshark prints of every capture."""
    return {path: tshark(path) for path in CAPTURES}


def _opened(path: Path) -> Iterator[tuple[int, bytes, Packet, int, bytes]]:
    """Frame number, packet, its headers, and the upper layer behind ESP; each SA's window runs along."""
    associations = _associations(path)
    for number, octets in ipv6_packets(path).items():
        parsed = ipv6.parse(octets)
        kind, payload = parsed.next_header, parsed.payload
        if kind == ESP:
            kind, payload = esp.unprotect(associations[esp.spi(payload)], payload)
        yield number, octets, parsed, kind, payload


def _flags(prefix: str, names: str, value: int, top: int) -> dict[str, list[str]]:
    return {prefix.format(name): [str(value >> top - n & 1)] for n, name in enumerate(names) if name != "-"}


def _mobility_fields(data: bytes, message: Body) -> Fields:
    """A Mobility Header in the names that tshark has for its fields."""
    fields = {
        "mip6.proto": ["59"],
        "mip6.hlen": [str(len(data) // 8 - 1)],
        "mip6.mhtype": [str(mobility.message_type(data))],
        "mip6.reserved": ["0x00"],
        "mip6.csum": [f"0x{data[4:6].hex()}"],
    }
    if isinstance(message, BindingUpdate):
        fields |= {"mip6.bu.seqnr": [str(message.sequence)], "mip6.bu.lifetime": [str(message.lifetime)]}
        fields |= _flags("mip6.bu.{}_flag", "ahlkm-pftb", message.flags, 15)
        fields |= _flags("mip6.nemo.bu.{}_flag", "r", message.flags, 10)
        found = alternate_care_of_address(message.options)
        if found is not None:
            fields["mip6.acoa.acoa"] = [text(found)]
    elif isinstance(message, BindingAcknowledgement):
        fields |= {"mip6.ba.seqnr": [str(message.sequence)], "mip6.ba.lifetime": [str(message.lifetime)]}
        fields["mip6.ba.status"] = [str(message.status)]
        fields |= _flags("mip6.ba.{}_flag", "k-ptb", message.flags, 7)
        fields |= _flags("mip6.nemo.ba.{}_flag", "r", message.flags, 6)
    else:
        assert isinstance(message, BindingError)
        fields |= {
            "mip6.be.status": [str(message.status)],
            "mip6.be.haddr": [text(message.home_address)],
        }
    return fields


def _prefix_fields(data: bytes, icmp: Icmp) -> Fields:
    """A Mobile Prefix Solicitation or Advertisement in tshark's names."""
    fields = {
        "icmpv6.type": [str(icmp.type)],
        "icmpv6.code": [str(icmp.code)],
        "icmpv6.checksum": [f"0x{data[2:4].hex()}"],
        "icmpv6.checksum.status": ["1"],
        "icmpv6.mip6.identifier": [str(int.from_bytes(icmp.body[:2], "big"))],
    }
    if icmp.type == icmpv6.MOBILE_PREFIX_ADVERTISEMENT:
        prefixes = icmpv6.parse_prefixes(icmp.body)
        fields |= {
            "icmpv6.mip6.flag": [f"0x{icmp.body[2:4].hex()}"],
            "icmpv6.opt.prefix": [text(one.prefix) for one in prefixes],
            "icmpv6.opt.prefix.length": [str(one.length) for one in prefixes],
            "icmpv6.opt.prefix.flag": [f"0x{one.flags:02x}" for one in prefixes],
            "icmpv6.opt.prefix.valid_lifetime": [str(one.valid) for one in prefixes],
            "icmpv6.opt.prefix.preferred_lifetime": [str(one.preferred) for one in prefixes],
        }
    return fields


def _header_fields(parsed: Packet) -> Fields:
    fields = {
        "ipv6.src": [text(parsed.source)],
        "ipv6.dst": [text(parsed.destination)],
        "ipv6.hlim": [str(parsed.hop_limit)],
        "ipv6.tclass": [f"0x{parsed.flow >> 20:08x}"],
        "ipv6.flow": [f"0x{parsed.flow & 0xFFFFF:06x}"],
    }
    if parsed.home_address is not None:
        fields["ipv6.opt.mipv6.home_address"] = [text(parsed.home_address)]
    if parsed.routing is not None:
        fields["ipv6.routing.type"] = ["2"]
        fields["ipv6.routing.segleft"] = ["1"]
        fields["ipv6.routing.mipv6.home_address"] = [text(parsed.routing)]
    return fields


# How tshark shows the octets of options, beside what they mean.
_OPTION_OCTETS = ("mip6.options.", "mip6.mobility_opt.", "mip6.padn")


@pytest.mark.tshark
@_EVERY
def test_headers_read_as_tshark_prints_them(path: Path, printed: dict[Path, dict[int, Fields]]) -> None:
    for number, octets in ipv6_packets(path).items():
        fields = printed[path][number]
        ours = _header_fields(ipv6.parse(octets))
        # The outermost header is the first one of the frame.
        assert {name: fields[name][:1] for name in ours} == ours, number
        for name in ("ipv6.opt.mipv6.home_address", "ipv6.routing.mipv6.home_address"):
            assert (name in fields) is (name in ours)


@pytest.mark.tshark
@_EVERY
def test_messages_read_as_tshark_prints_them(path: Path, printed: dict[Path, dict[int, Fields]]) -> None:
    compared = []
    for number, _, parsed, kind, payload in _opened(path):
        between = (parsed.logical_source, parsed.logical_destination)
        fields = printed[path][number]
        if kind == MOBILITY:
            ours = _mobility_fields(payload, messages.parse(payload, *between))
            theirs = {
                name: values
                for name, values in fields.items()
                if name.startswith("mip6.") and not name.startswith(_OPTION_OCTETS)
            }
            assert ours == theirs, number
            compared.append(number)
        elif kind == ICMPV6 and payload[0] in (146, 147):
            ours = _prefix_fields(payload, icmpv6.parse(payload, *between))
            assert {name: fields[name] for name in ours} == ours, number
            compared.append(number)
    wanted = [
        number
        for number, fields in printed[path].items()
        if "mip6.mhtype" in fields or fields.get("icmpv6.type", [""])[-1] in ("146", "147")
    ]
    assert compared == wanted


@pytest.mark.tshark
@_EVERY
def test_every_mobility_checksum_is_good(path: Path, printed: dict[Path, dict[int, Fields]]) -> None:
    packets = ipv6_packets(path)
    for number, fields in printed[path].items():
        if "mip6.mhtype" not in fields:
            continue
        if "esp.contained_data" in fields:
            data = bytes.fromhex(fields["esp.contained_data"][0].replace(":", ""))
        else:
            data = packets[number][-8 * (1 + int(fields["mip6.hlen"][0])) :]
        source = fields.get("ipv6.opt.mipv6.home_address", fields["ipv6.src"])[0]
        destination = fields.get("ipv6.routing.mipv6.home_address", fields["ipv6.dst"])[0]
        blank = data[:4] + b"\0\0" + data[6:]
        expected = reference_checksum(address(source), address(destination), 135, blank)
        assert int(fields["mip6.csum"][0], 16) == expected, number


@pytest.mark.tshark
@_EVERY
def test_esp_opens_as_tshark_opens_it_and_seals_to_the_same_octets(
    path: Path, printed: dict[Path, dict[int, Fields]]
) -> None:
    associations = _associations(path)
    opened = []
    for number, octets in ipv6_packets(path).items():
        parsed, fields = ipv6.parse(octets), printed[path][number]
        if parsed.next_header != ESP:
            continue
        packet = parsed.payload
        association = associations[esp.spi(packet)]
        assert fields["esp.spi"] == [f"0x{association.spi:08x}"]
        assert fields["esp.icv_good"] == ["1"]
        kind, payload = esp.unprotect(association, packet)
        assert association.window is not None
        assert fields["esp.sequence"] == [str(association.window.top)]
        assert fields["esp.protocol"] == [f"0x{kind:02x}"]
        assert bytes.fromhex(fields["esp.contained_data"][0].replace(":", "")) == payload
        chosen = association.transform
        plaintext = bytes.fromhex(fields["esp.decrypted_data"][0].replace(":", ""))
        iv = packet[8 : 8 + chosen.iv_length]
        assert chosen.seal(association.keys, packet[:8], b"", iv, plaintext) == packet
        with pytest.raises(Refused, match="replayed"):
            esp.unprotect(association, packet)
        opened.append(number)
    assert opened == [number for number, fields in printed[path].items() if "esp.spi" in fields]
    assert bool(opened) is ("esp" in path.name)


@_EVERY
def test_packets_and_messages_are_said_again_to_the_octet(path: Path) -> None:
    for number, octets, parsed, kind, payload in _opened(path):
        between = (parsed.logical_source, parsed.logical_destination)
        if kind == MOBILITY:
            assert messages.build(messages.parse(payload, *between), *between) == payload, number
        elif kind == ICMPV6:
            icmp = icmpv6.parse(payload, *between)
            assert icmpv6.message(*icmp, *between) == payload, number
            if icmp.type == icmpv6.MOBILE_PREFIX_ADVERTISEMENT:
                identifier, flags = int.from_bytes(icmp.body[:2], "big"), icmp.body[2]
                prefixes = icmpv6.parse_prefixes(icmp.body)
                assert icmpv6.mobile_prefix_advertisement(identifier, flags, prefixes) == icmp.body
        elif kind == IPV6:
            inner = ipv6.parse(payload)
            assert ipv6.parse(payload).payload == payload[inner.offset :]
        if octets[6] == HOP_BY_HOP:
            continue  # multicast listener reports: nothing here sends any
        if parsed.offset > 40 and parsed.home_address is None and parsed.routing is None:
            assert octets[40:48] == bytes((kind, 0, 4, 1, 4, 1, 1, 0))  # tunnel encapsulation limit
            continue
        assert (
            ipv6.build(
                parsed.source,
                parsed.destination,
                parsed.next_header,
                parsed.payload,
                hop_limit=parsed.hop_limit,
                flow=parsed.flow,
                home_address=parsed.home_address,
                routing=parsed.routing,
            )
            == octets
        ), number


def test_the_captures_hold_what_their_readme_says() -> None:
    found: Counter[str] = Counter()
    for path in CAPTURES:
        for _, _, parsed, kind, payload in _opened(path):
            between = (parsed.logical_source, parsed.logical_destination)
            found["hao"] += parsed.home_address is not None
            found["rh2"] += parsed.routing is not None
            found["esp"] += parsed.next_header == ESP
            if kind == MOBILITY:
                found[type(messages.parse(payload, *between)).__name__] += 1
            elif kind == ICMPV6:
                found[f"icmpv6 {payload[0]}"] += 1
            elif kind == IPV6:
                found["tunnelled"] += 1
    names = ("BindingUpdate", "BindingAcknowledgement", "BindingError", "icmpv6 146", "icmpv6 147")
    assert {name: found[name] for name in names} == {
        "BindingUpdate": 25,
        "BindingAcknowledgement": 25,
        "BindingError": 2,
        "icmpv6 146": 8,
        "icmpv6 147": 6,
    }
    assert len(CAPTURES) == 8
    assert found["hao"] == 25 - 3 + 8
    assert found["rh2"] == 25 - 3 + 6
    assert found["tunnelled"] > 200


@pytest.mark.tshark
@_EVERY
def test_router_advertisements_read_as_tshark_prints_them(
    path: Path, printed: dict[Path, dict[int, Fields]]
) -> None:
    seen = 0
    for number, _, parsed, kind, payload in _opened(path):
        if kind != ICMPV6 or payload[0] not in (134, 135, 136):
            continue
        fields = printed[path][number]
        icmp = icmpv6.parse(payload, parsed.source, parsed.destination)
        if icmp.type == icmpv6.ROUTER_ADVERTISEMENT:
            found = icmpv6.parse_router_advertisement(icmp)
            assert fields["icmpv6.nd.ra.router_lifetime"] == [str(found.lifetime)]
            assert fields["icmpv6.nd.ra.flag"] == [f"0x{found.flags:02x}"]
            assert fields["icmpv6.nd.ra.cur_hop_limit"] == [str(found.hop_limit)]
            assert fields["icmpv6.opt.prefix"] == [text(one.prefix) for one in found.prefixes]
            assert found.is_home_agent is (fields["icmpv6.nd.ra.flag.h"] == ["1"])
            assert found.source_link_layer is not None
            assert fields["icmpv6.opt.linkaddr"] == [found.source_link_layer.hex(":")]
        else:
            name = "icmpv6.nd.ns.target_address" if icmp.type == 135 else "icmpv6.nd.na.target_address"
            assert fields[name] == [text(icmpv6.parse_neighbor(icmp).target)]
        seen += 1
    assert seen > 3


def test_mutated_packets_are_read_or_refused() -> None:
    source = random.Random(9)
    seeds = {
        octets
        for path in CAPTURES
        for _, octets, parsed, kind, payload in _opened(path)
        if kind == MOBILITY or (kind == ICMPV6 and payload[0] in (134, 135, 136, 146, 147))
    }
    reasons = Counter[str]()
    for seed in sorted(seeds):
        for octets in mutations(seed, source.random, 80):
            try:
                parsed = ipv6.parse(octets)
                between = (parsed.logical_source, parsed.logical_destination)
                payload = parsed.payload
                if parsed.next_header == MOBILITY:
                    messages.parse(payload, *between)
                elif parsed.next_header == ICMPV6:
                    icmpv6.parse(payload, *between)
                elif parsed.next_header == ESP:
                    esp.spi(payload)
            except Refused as error:
                reasons[error.reason] += 1
            # And the parts behind the checksums, as if whoever made them had summed up well.
            with contextlib.suppress(Refused):
                messages.parse_body(mobility.Message(source.randrange(8), octets[70:]))
            with contextlib.suppress(Refused):
                icmpv6.parse_router_advertisement(Icmp(134, 0, octets[44:]))
            assert icmpv6.error(4, 0, 0, HOME_AGENT, octets) is None or len(octets) >= 40
    assert reasons["mobility_header_checksum"] > 100
    assert len(reasons) > 12
