"""The TUN dataplane in a namespace: what each effect changes, and what the home link hears and says."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mip6ha import icmpv6, ipv6, udp
from mip6ha.config import EdgeConfiguration
from mip6ha.edge.dataplane import TunDataplane
from mip6ha.edge.errors import Unusable
from mip6ha.edge.ndp import HomeLink, conflict
from mip6ha.edge.netlink import KernelTables
from mip6ha.edge.tun import Tun
from mip6ha.effects import (
    AnnounceAddress,
    DefendAddress,
    EndProbe,
    ProbeAddress,
    ReleaseAddress,
    RemoveTunnel,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    UnroutePrefix,
)
from mip6ha.wire import UNSPECIFIED, address, text

from .conftest import Namespace

pytestmark = pytest.mark.netns

AGENT = address("2001:db8:a::1")
HOME = address("2001:db8:a::100")
CARE_OF = address("2001:db8:f::7")
LINK_LOCAL = address("fe80::100")
STATION = bytes.fromhex("02000000000a")


@pytest.fixture
def dataplane(inside: Namespace, tmp_path: Path) -> Iterator[TunDataplane]:
    built = TunDataplane(AGENT, EdgeConfiguration("home", "mip6test", tmp_path / "socket", tmp_path, None))
    yield built
    built.close()


@pytest.fixture
def peer(inside: Namespace) -> Iterator[socket.socket]:
    """The other end of the home link: sees every ICMPv6 frame, and may send."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD)) as station:
        station.bind(("peer", 0x86DD))
        station.settimeout(2)
        yield station


def neighbour_frame(peer: socket.socket, kind: int) -> tuple[bytes, bytes]:
    """The next frame with that ICMPv6 type: destination and packet."""
    while True:
        frame = peer.recv(2048)
        if frame[20] == ipv6.ICMPV6 and frame[54] == kind:
            return frame[:6], frame[14:]


def send(peer: socket.socket, packet: bytes) -> None:
    peer.send(b"\x33\x33" + packet[36:40] + STATION + b"\x86\xdd" + packet)


def heard(link: HomeLink) -> list[bytes]:
    """Every conflict that arrives within a moment."""
    found = []
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline:
        claimed = link.receive()
        if claimed:
            found.append(claimed)
        time.sleep(0.005)
    return found


def test_defending_and_releasing(inside: Namespace, dataplane: TunDataplane) -> None:
    for _ in range(2):
        dataplane.carry_out(DefendAddress(HOME))
    dataplane.carry_out(SetTunnel(HOME, CARE_OF))
    assert inside.routes() == set()
    dataplane.flush()
    assert inside.routes() == {"2001:db8:a::100"}
    dataplane.carry_out(RemoveTunnel(HOME))
    for _ in range(2):
        dataplane.carry_out(ReleaseAddress(HOME))
    dataplane.flush()
    assert inside.routes() == set()
    assert not dataplane.counters


def test_a_link_local_address_is_defended_but_not_routed(inside: Namespace, dataplane: TunDataplane) -> None:
    dataplane.carry_out(DefendAddress(LINK_LOCAL))
    dataplane.flush()
    assert inside.routes() == set()
    assert "33:33:ff:00:01:00" in inside.run("ip", "maddress", "show", "dev", "home")


def test_prefixes_of_a_mobile_network_are_routed(inside: Namespace, dataplane: TunDataplane) -> None:
    dataplane.carry_out(RoutePrefix(address("2001:db8:100::"), 56, HOME))
    dataplane.flush()
    assert inside.routes() == {"2001:db8:100::/56"}
    dataplane.carry_out(UnroutePrefix(address("2001:db8:100::"), 56))
    dataplane.flush()
    assert inside.routes() == set()


def test_a_packet_leaves_after_the_state_before_it(inside: Namespace, dataplane: TunDataplane) -> None:
    # To an address of this host, so that the packet can be seen to arrive.
    inside.run("ip", "address", "add", "2001:db8:a::9/128", "dev", "home", "nodad")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("2001:db8:a::9", 5000))
        receiver.settimeout(2)
        destination = address("2001:db8:a::9")
        dataplane.carry_out(DefendAddress(HOME))
        datagram = udp.build(HOME, destination, udp.Datagram(5000, 5000, b"x"))
        octets = ipv6.build(HOME, destination, ipv6.UDP, datagram)
        dataplane.carry_out(SendPacket(octets))
        assert inside.routes() == {"2001:db8:a::100"}
        assert receiver.recv(100) == b"x"


def test_what_is_routed_arrives_unchanged(inside: Namespace, dataplane: TunDataplane) -> None:
    dataplane.carry_out(DefendAddress(HOME))
    dataplane.flush()
    inside.run("ip", "address", "add", "2001:db8:a::9/128", "dev", "home", "nodad")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        sender.bind(("2001:db8:a::9", 5000))
        for number in range(1000):
            sender.sendto(number.to_bytes(2, "big"), ("2001:db8:a::100", 6000))
    # A burst waits in the device; nothing else was there before it.
    seen = []
    while (packet := dataplane.tun.read()) is not None:
        seen.append(int.from_bytes(ipv6.parse(packet).payload[8:], "big"))
    assert seen == list(range(1000))


def test_a_packet_that_the_kernel_refuses_is_counted(dataplane: TunDataplane) -> None:
    dataplane.carry_out(SendPacket(b"\0" * 40))
    assert dataplane.counters == {"tun_write_EINVAL": 1}


def test_an_announcement_overrides_and_is_no_router(dataplane: TunDataplane, peer: socket.socket) -> None:
    dataplane.carry_out(AnnounceAddress(HOME))
    destination, packet = neighbour_frame(peer, icmpv6.NEIGHBOR_ADVERTISEMENT)
    parsed = ipv6.parse(packet)
    message = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
    assert destination == bytes.fromhex("333300000001")
    assert parsed.source == AGENT
    assert parsed.hop_limit == 255
    assert icmpv6.parse_neighbor(message) == (HOME, 0x20)


def test_a_probe_hears_only_who_claims_the_address(dataplane: TunDataplane, peer: socket.socket) -> None:
    link = dataplane.home_link
    assert link is not None
    dataplane.carry_out(ProbeAddress(HOME))
    destination, packet = neighbour_frame(peer, icmpv6.NEIGHBOR_SOLICITATION)
    assert destination == bytes.fromhex("3333ff000100")
    assert packet[8:24] == UNSPECIFIED
    assert heard(link) == []
    advertisement = icmpv6.unsolicited_advertisement(HOME, HOME, STATION)
    send(peer, advertisement)
    assert heard(link) == [HOME]
    send(peer, icmpv6.duplicate_address_probe(HOME))
    assert heard(link) == [HOME]
    send(peer, icmpv6.unsolicited_advertisement(HOME, CARE_OF, STATION))
    assert heard(link) == []
    dataplane.carry_out(EndProbe(HOME))
    send(peer, advertisement)
    assert heard(link) == []
    assert not dataplane.counters


def test_a_probe_joins_and_leaves_the_solicited_node_group(
    inside: Namespace, dataplane: TunDataplane
) -> None:
    group = "33:33:ff:00:01:00"
    twin = address("2001:db8:b::100")
    for probed in (HOME, twin, HOME):
        dataplane.carry_out(ProbeAddress(probed))
    dataplane.carry_out(EndProbe(HOME))
    assert group in inside.run("ip", "maddress", "show", "dev", "home")
    dataplane.carry_out(EndProbe(twin))
    dataplane.carry_out(EndProbe(twin))
    assert group not in inside.run("ip", "maddress", "show", "dev", "home")
    assert not dataplane.counters


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packet: packet[:7] + b"\x40" + packet[8:],
        lambda packet: packet[:42] + b"\0\0" + packet[44:],
        lambda packet: packet[:50],
        lambda packet: ipv6.build(
            HOME,
            icmpv6.ALL_NODES,
            ipv6.ICMPV6,
            icmpv6.message(icmpv6.NEIGHBOR_SOLICITATION, 0, bytes(4) + HOME, HOME, icmpv6.ALL_NODES),
            hop_limit=255,
        ),
        lambda packet: b"",
    ],
    ids=["hop limit", "checksum", "truncated", "resolution", "empty"],
)
def test_what_claims_nothing(spoil: Callable[[bytes], bytes]) -> None:
    packet = icmpv6.unsolicited_advertisement(HOME, HOME, STATION)
    assert conflict(packet) == HOME
    assert conflict(spoil(packet)) is None


def test_many_changes_are_cheap_and_failures_have_names(inside: Namespace) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM):
        interface = socket.if_nametoindex("home")
    tables = KernelTables()
    addresses = [address(f"2001:db8:a::1:{number:x}") for number in range(1, 1001)]
    start = time.perf_counter()
    for one in addresses:
        tables.route(one, 128, interface)
    assert tables.flush() == []
    cost = (time.perf_counter() - start) / tables.changes
    assert tables.changes == 1000
    assert cost < 1e-3
    assert inside.routes() == {text(one) for one in addresses}
    for one in addresses:
        tables.route(one, 128, interface, add=False)
    tables.route(HOME, 128, 9999)
    assert tables.flush() == ["add_route_ENODEV"]
    assert inside.routes() == set()
    tables.close()


def test_a_device_that_another_process_has(inside: Namespace) -> None:
    counters: Counter[str] = Counter()
    tun = Tun("mip6test", 1500, counters)
    with pytest.raises(Unusable, match="TUN device mip6test: another process has it"):
        Tun("mip6test", 1500, counters)
    tun.close()
    assert "mip6test" not in inside.links()
