"""What captures show without keys: frames, outer protocols, numbers that ESP uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from netnslab.packets import (
    Captured,
    EspNumbers,
    Outer,
    Reuse,
    address,
    esp_numbers,
    is_ike,
    outer,
    read_pcap,
    reuse,
    write_pcap,
)

HOME_AGENT, NODE = address("2001:db8:a::1"), address("2001:db8:b::5")
ETHERNET = bytes.fromhex("02000000000a0200000000bb86dd")


def packet(next_header: int, payload: bytes, source: bytes = HOME_AGENT, destination: bytes = NODE) -> bytes:
    return (
        b"`\0\0\0"
        + len(payload).to_bytes(2, "big")
        + bytes((next_header, 64))
        + source
        + destination
        + payload
    )


def esp(sequence: int, iv: int, spi: int = 0x2001) -> bytes:
    return spi.to_bytes(4, "big") + sequence.to_bytes(4, "big") + iv.to_bytes(8, "big") + bytes(24)


def captured(octets: bytes, at: float = 1.0) -> Captured:
    return Captured(at, ETHERNET + octets)


ROUTING = bytes((50, 2, 2, 1)) + bytes(20)
OPTIONS = bytes((50, 2, 1, 4)) + bytes(20)
FRAGMENT = bytes((17, 0, 0, 0)) + bytes(4)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (packet(41, bytes(40)), Outer(41, 40)),
        (packet(43, ROUTING + esp(1, 1)), Outer(50, 64)),
        (packet(60, OPTIONS + esp(1, 1)), Outer(50, 64)),
        (packet(44, FRAGMENT + bytes(8)), Outer(17, 48)),
        (packet(0, bytes((43, 0)) + bytes(6) + ROUTING + esp(1, 1)), Outer(50, 72)),
        (packet(43, b"\x32\x02"), Outer(59, 40)),
    ],
)
def test_extension_headers_are_walked(octets: bytes, expected: Outer) -> None:
    assert outer(octets) == expected


def test_numbers_of_esp_are_in_the_clear() -> None:
    assert esp_numbers(packet(43, ROUTING + esp(7, 0x0102))) == EspNumbers(0x2001, 7, bytes(6) + b"\x01\x02")
    assert esp_numbers(packet(17, bytes(40))) is None
    assert esp_numbers(packet(50, bytes(15))) is None


def udp(source: int, destination: int, payload: bytes) -> bytes:
    return packet(17, source.to_bytes(2, "big") + destination.to_bytes(2, "big") + bytes(4) + payload)


MARKER = bytes(4)


def test_esp_in_udp_and_ike_are_told_apart() -> None:
    inside = udp(4500, 4500, esp(7, 0x0102))
    assert esp_numbers(inside) == EspNumbers(0x2001, 7, bytes(6) + b"\x01\x02")
    assert not is_ike(inside)
    assert esp_numbers(udp(4500, 4500, MARKER + bytes(28))) is None
    assert is_ike(udp(4500, 60000, MARKER + bytes(28)))
    assert is_ike(udp(500, 500, bytes(28)))


def test_keep_alives_and_other_datagrams_are_neither() -> None:
    for each in (udp(4500, 4500, b"\xff"), udp(4000, 4000, esp(1, 1)), packet(17, bytes(7))):
        assert not is_ike(each)
        assert esp_numbers(each) is None
    assert not is_ike(packet(58, bytes(8)))


def test_capture_files_come_back_as_they_were(tmp_path: Path) -> None:
    frames = [captured(packet(50, esp(each, each)), 1e9 + each / 1e6) for each in range(5)]
    path = tmp_path / "it.pcap"
    write_pcap(path, frames)
    found = list(read_pcap(path))
    assert [each.frame for each in found] == [each.frame for each in frames]
    assert [each.time for each in found] == pytest.approx([each.time for each in frames], abs=1e-6)
    assert (found[0].sender.hex(), found[0].source, found[0].destination) == (
        "0200000000bb",
        HOME_AGENT,
        NODE,
    )


@pytest.mark.parametrize("cut", [1, 12, 60, 100])
def test_capture_that_is_still_being_written_ends_where_it_is_whole(tmp_path: Path, cut: int) -> None:
    frames = [captured(packet(50, esp(each, each))) for each in range(3)]
    path = tmp_path / "it.pcap"
    write_pcap(path, frames)
    path.write_bytes(path.read_bytes()[:-cut])
    assert [each.frame for each in read_pcap(path)] == [each.frame for each in frames[:2]]


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "it.pcap"
    path.write_bytes(b"")
    assert not list(read_pcap(path))
    path.write_bytes(bytes(24))
    with pytest.raises(ValueError, match="no little-endian Ethernet capture"):
        list(read_pcap(path))


def test_other_protocols_than_ipv6_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "it.pcap"
    arp = Captured(1.0, bytes(12) + b"\x08\x06" + bytes(60))
    write_pcap(path, [arp, captured(packet(50, esp(1, 1)))])
    assert len(list(read_pcap(path))) == 1


def test_numbers_used_once_are_no_reuse() -> None:
    frames = [captured(packet(50, esp(each, each))) for each in range(9)]
    assert reuse(frames, HOME_AGENT) == Reuse(9, 0, 0)
    assert reuse(frames, HOME_AGENT).total == 0


def test_reuse_is_counted_by_spi() -> None:
    frames = [
        captured(packet(50, esp(1, 1))),
        captured(packet(50, esp(1, 2))),
        captured(packet(50, esp(2, 1))),
        captured(packet(50, esp(1, 1, 0x2003))),
    ]
    assert reuse(frames, HOME_AGENT) == Reuse(4, 1, 1)
    assert reuse([*frames, frames[0]], HOME_AGENT).total == 4


def test_reuse_is_that_of_the_sources_asked_for() -> None:
    frames = [captured(packet(50, esp(1, 1), NODE, HOME_AGENT))] * 2
    assert reuse(frames, HOME_AGENT) == Reuse(0, 0, 0)
    assert reuse(frames, NODE, HOME_AGENT) == Reuse(2, 1, 1)
