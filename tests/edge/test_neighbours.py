"""What the home link hears from us: answers to solicitations, and with which link-layer address."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from mip6ha import icmpv6, ipv6
from mip6ha.config import EdgeConfiguration
from mip6ha.edge import ndp
from mip6ha.edge.dataplane import TunDataplane
from mip6ha.effects import AnnounceAddress, DefendAddress, ProbeAddress, ReleaseAddress, StandDown, TakeOver
from mip6ha.wire import UNSPECIFIED, address

from .conftest import Namespace

pytestmark = pytest.mark.netns

AGENT = address("2001:db8:a::1")
HOME = address("2001:db8:a::100")
ANYCAST = address("2001:db8:a:0:fdff:ffff:ffff:fffe")
NEIGHBOUR = address("2001:db8:a::5")
STATION = bytes.fromhex("02000000000a")
OTHER_STATION = bytes.fromhex("02000000000b")
VIRTUAL = bytes.fromhex("02005e000207")
SOLICITED, OVERRIDE = 0x40, 0x20
_HOP_BY_HOP = 0


class Station:
    """The other end of the home link: sends solicitations, and sees every frame."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("peer", 3))
        self.socket.setblocking(False)

    def ask(
        self,
        target: bytes,
        *,
        source: bytes = NEIGHBOUR,
        to: bytes | None = None,
        option: bytes | None = STATION,
        hop_limit: int = 255,
        spoil: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """A Neighbor Solicitation; ``to`` is a link-layer address, with it the packet goes to the target."""
        destination = target if to else icmpv6.solicited_node(target)
        body = bytes(4) + target + (bytes((1, 1)) + option if option else b"")
        octets = icmpv6.message(icmpv6.NEIGHBOR_SOLICITATION, 0, body, source, destination)
        packet = ipv6.build(source, destination, ipv6.ICMPV6, spoil(octets), hop_limit=hop_limit)
        self.socket.send((to or b"\x33\x33" + destination[12:]) + OTHER_STATION + b"\x86\xdd" + packet)

    def heard(self) -> list[bytes]:
        """Frames that have come."""
        frames = []
        while True:
            try:
                frame, where = self.socket.recvfrom(2048)
            except BlockingIOError:
                return frames
            # The kernel reports the groups that were joined, from its own address.
            reports = frame[20] == _HOP_BY_HOP and frame[6:12] != VIRTUAL
            if where[2] != socket.PACKET_OUTGOING and not reports:
                frames.append(frame)


def serve(dataplane: TunDataplane) -> list[bytes]:
    """Let the home link answer what has come; conflicts."""
    assert dataplane.home_link is not None
    conflicts = []
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline:
        conflict = dataplane.home_link.receive()
        if conflict:
            conflicts.append(conflict)
    return conflicts


@pytest.fixture
def station(inside: Namespace) -> Iterator[Station]:
    made = Station()
    yield made
    made.socket.close()


@pytest.fixture
def dataplane(inside: Namespace, tmp_path: Path) -> Iterator[TunDataplane]:
    edge = EdgeConfiguration("home", "mip6test", tmp_path / "socket", tmp_path, None)
    built = TunDataplane(AGENT, edge, frozenset((ANYCAST,)))
    for each in (AGENT, HOME, ANYCAST):
        built.carry_out(DefendAddress(each))
    built.flush()
    yield built
    built.close()


@pytest.fixture
def member(inside: Namespace, tmp_path: Path, station: Station) -> Iterator[TunDataplane]:
    """The dataplane of a member of group 7, which does not serve."""
    edge = EdgeConfiguration("home", "mip6test", tmp_path / "socket", tmp_path, None, 7, VIRTUAL)
    built = TunDataplane(AGENT, edge)
    for each in (AGENT, HOME):
        built.carry_out(DefendAddress(each))
    built.flush()
    yield built
    built.close()


def own() -> bytes:
    with IPRoute() as kernel:
        (link,) = kernel.link("get", ifname="home")
    return bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))


def only_answer(station: Station) -> tuple[bytes, bytes, ipv6.Packet, icmpv6.NeighborMessage, bytes]:
    """Of the one answer: the frame's two addresses, the packet, what it says, the link-layer address told."""
    (frame,) = station.heard()
    parsed = ipv6.parse(frame[14:])
    assert parsed.hop_limit == 255
    message = icmpv6.parse(parsed.payload, parsed.source, parsed.destination)
    assert message.type == icmpv6.NEIGHBOR_ADVERTISEMENT
    assert message.body[20:22] == bytes((2, 1))
    return frame[:6], frame[6:12], parsed, icmpv6.parse_neighbor(message), message.body[22:]


@pytest.mark.parametrize("unicast", [False, True], ids=["resolution", "reachability"])
@pytest.mark.parametrize(
    ("target", "flags"), [(AGENT, SOLICITED | OVERRIDE), (HOME, SOLICITED | OVERRIDE), (ANYCAST, SOLICITED)]
)
def test_a_defended_address_is_answered_for(
    dataplane: TunDataplane, station: Station, target: bytes, flags: int, unicast: bool
) -> None:
    """RFC 6275 10.4.1; RFC 4861 7.2.4, and 7.2.7 for anycast addresses."""
    link_layer = own()
    station.ask(target, to=link_layer if unicast else None)
    assert serve(dataplane) == []
    to, by, packet, answer, told = only_answer(station)
    assert (to, by, told) == (STATION, link_layer, link_layer)
    assert (packet.source, packet.destination) == (AGENT, NEIGHBOUR)
    assert answer == (target, flags)
    assert dataplane.counters["solicitations_answered"] == 1


def test_without_the_option_the_frame_tells_where_to_answer(
    dataplane: TunDataplane, station: Station
) -> None:
    station.ask(HOME, option=None)
    serve(dataplane)
    assert only_answer(station)[0] == OTHER_STATION


def test_who_probes_a_defended_address_is_told_with_everybody(
    dataplane: TunDataplane, station: Station
) -> None:
    station.ask(HOME, source=UNSPECIFIED, option=None)
    assert serve(dataplane) == []
    to, _, packet, answer, _ = only_answer(station)
    assert (to, packet.destination) == (bytes.fromhex("333300000001"), icmpv6.ALL_NODES)
    assert answer == (HOME, OVERRIDE)


def test_two_who_probe_the_same_address_are_in_conflict(dataplane: TunDataplane, station: Station) -> None:
    probed = address("2001:db8:a::200")
    dataplane.carry_out(ProbeAddress(probed))
    station.heard()
    station.ask(probed, source=UNSPECIFIED, option=None)
    assert serve(dataplane) == [probed]
    assert station.heard() == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda station: station.ask(address("2001:db8:a::101")),
        lambda station: station.ask(HOME, hop_limit=254),
        lambda station: station.ask(HOME, spoil=lambda octets: octets[:2] + b"\0\0" + octets[4:]),
        lambda station: station.ask(HOME, spoil=lambda octets: octets[:20]),
        lambda station: station.ask(HOME, option=b"\0" * 14),
        lambda station: station.ask(HOME, source=UNSPECIFIED),
        lambda station: station.ask(HOME, source=UNSPECIFIED, option=None, to=own()),
        lambda station: station.ask(HOME, to=VIRTUAL),
    ],
    ids=[
        "other",
        "hop-limit",
        "checksum",
        "truncated",
        "option",
        "probe-option",
        "probe-unicast",
        "other-mac",
    ],
)
def test_what_is_not_answered(
    dataplane: TunDataplane, station: Station, ask: Callable[[Station], None]
) -> None:
    ask(station)
    assert serve(dataplane) == []
    assert station.heard() == []


def test_a_released_address_is_not_answered_for(dataplane: TunDataplane, station: Station) -> None:
    for _ in range(2):
        dataplane.carry_out(ReleaseAddress(HOME))
    station.ask(HOME)
    station.ask(AGENT)
    serve(dataplane)
    assert only_answer(station)[3].target == AGENT


def test_a_standby_is_silent_and_its_virtual_address_unused(member: TunDataplane, station: Station) -> None:
    for each in (AGENT, HOME):
        station.ask(each)
        station.ask(each, to=VIRTUAL)
    assert serve(member) == []
    time.sleep(1.2)
    # Neither does the kernel report groups, solicit routers or answer ARP with that address.
    assert [frame for frame in station.heard() if frame[6:12] == VIRTUAL] == []
    member.carry_out(StandDown())
    member.assert_ownership()
    assert station.heard() == []


def test_taking_over_is_one_frame(member: TunDataplane, station: Station) -> None:
    link_layer = own()
    station.heard()
    member.carry_out(TakeOver())
    member.carry_out(AnnounceAddress(AGENT))
    to, by, packet, answer, told = only_answer(station)
    assert (to, by, told) == (bytes.fromhex("333300000001"), VIRTUAL, VIRTUAL)
    assert (packet.source, answer) == (AGENT, (AGENT, OVERRIDE))
    for destination in (None, VIRTUAL):
        station.ask(HOME, to=destination)
        serve(member)
        _, by, _, _, told = only_answer(station)
        assert (by, told) == (VIRTUAL, VIRTUAL)
    member.assert_ownership()
    assert only_answer(station)[1] == VIRTUAL
    # Another member that says it has the address is seen.
    station.socket.send(
        b"\x33\x33\0\0\0\1" + VIRTUAL + b"\x86\xdd" + icmpv6.unsolicited_advertisement(AGENT, AGENT, VIRTUAL)
    )
    serve(member)
    assert member.counters["home_link_own_address_heard"] == 1
    member.carry_out(StandDown())
    station.ask(HOME)
    serve(member)
    assert station.heard() == []
    # What still comes goes to whoever has the address now, from our own one.
    packet_octets = ipv6.build(NEIGHBOUR, HOME, ipv6.UDP, bytes(8))
    assert member.pass_on(packet_octets)
    assert station.heard() == [VIRTUAL + link_layer + b"\x86\xdd" + packet_octets]


def test_what_comes_by_the_virtual_address_reaches_the_tun_device(
    inside: Namespace, member: TunDataplane, station: Station
) -> None:
    packet = ipv6.build(NEIGHBOUR, HOME, ipv6.UDP, b"\0\7\0\7\0\x08\0\0", hop_limit=9)
    for link_layer in (VIRTUAL, own()):
        station.socket.send(link_layer + STATION + b"\x86\xdd" + packet)
        # The kernel has taken one hop.
        assert member.tun.read() == packet[:7] + b"\x08" + packet[8:]
    # Locally and from other links only who serves attracts it.
    assert "mip6test" not in inside.run("ip", "-6", "route", "get", "2001:db8:a::100", check=False)
    member.carry_out(TakeOver())
    deadline = time.monotonic() + 2
    while "mip6test" not in inside.run("ip", "-6", "route", "get", "2001:db8:a::100", check=False):
        assert time.monotonic() < deadline
    assert inside.routes() == {"2001:db8:a::1", "2001:db8:a::100"}


@pytest.mark.parametrize("by", ["our own bound", "the kernel's memory"])
def test_many_groups_are_not_joined(
    inside: Namespace, dataplane: TunDataplane, station: Station, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    def takes_all() -> bool:
        (link,) = json.loads(inside.run("ip", "-details", "-json", "link", "show", "dev", "home"))
        return bool(link["allmulti"])

    if by == "our own bound":
        monkeypatch.setattr(ndp, "_MOST_GROUPS", 5)
    else:
        change = ndp.HomeLink._change_group

        def refuse(link: ndp.HomeLink, option: int, group: bytes) -> None:
            if option == socket.IPV6_JOIN_GROUP and len(link._joined) == 5:
                raise OSError(errno.ENOMEM, "")
            change(link, option, group)

        monkeypatch.setattr(ndp.HomeLink, "_change_group", refuse)
    many = [address(f"2001:db8:a::{number:x}") for number in range(0x300, 0x304)]
    for each in many:
        assert takes_all() == (each in many[3:])
        dataplane.carry_out(DefendAddress(each))
    assert takes_all()
    station.ask(many[-1])
    serve(dataplane)
    assert only_answer(station)[3].target == many[-1]
    dataplane.carry_out(ReleaseAddress(many[0]))
    assert takes_all()
    for each in many:
        dataplane.carry_out(ReleaseAddress(each))
    assert not takes_all()
    assert not {name for name in dataplane.counters if name.startswith("multicast")}
