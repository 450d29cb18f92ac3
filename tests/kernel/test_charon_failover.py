"""strongSwan as a mobile node with SAs in its kernel, and a redundant set whose active member is killed.

charon negotiates from the care-of address; the kernel gives Binding Updates the home address option and ESP,
and opens what comes back behind a type 2 routing header. Not covered: payload, movement.
"""

from __future__ import annotations

import re
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from netnslab.injection import replay
from netnslab.packets import Captured, esp_numbers, outer, read_pcap
from netnslab.strongswan import Kernel
from netnslab.topology import NAMESPACE_DIRECTORY

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, BindingUpdate, UpdateFlag
from mip6ha.edge import control
from mip6ha.mobility import Option
from mip6ha.wire import address

from ..edge.redundant import (
    CARE_OF,
    HOME,
    HOME_AGENT,
    HOME_AGENT_IDENTITY,
    MOBILE_NODE_IDENTITY,
    MemberProcess,
    RedundantSet,
)
from ..interop.charon import Charon
from ..interop.network import Capture, Namespace, eventually

pytestmark = pytest.mark.interop

LINK = "home"
LIFETIME = 60
FLAGS = UpdateFlag.ACKNOWLEDGE | UpdateFlag.HOME_REGISTRATION
CONNECTION, CHILD = "mobile", "signalling"
# User-Mode Linux has one processor, on which other programs start meanwhile: without this a member that has
# to wait for them would be taken for dead.
PATIENT = "realtime = true\nfailure_factor = 10\n"
# What a mobile node has in its kernel besides ESP (RFC 6275 11.3.1); those policies come on top of charon's.
_MOBILE_IPV6 = (
    f"address add {HOME}/128 dev lo home nodad",
    *(
        f"xfrm state add src {source} dst {destination} proto {header} mode ro coa {CARE_OF}"
        f" sel src {source} dst {destination}"
        for source, destination, header in ((HOME, HOME_AGENT, "hao"), (HOME_AGENT, HOME, "route2"))
    ),
    *(
        f"xfrm policy add src {source} dst {destination} proto {ipv6.MOBILITY} dir {direction} ptype sub"
        f" tmpl proto {header} mode ro level use"
        for source, destination, direction, header in (
            (HOME, HOME_AGENT, "out", "hao"),
            (HOME_AGENT, HOME, "in", "route2"),
        )
    ),
)


class Agreed(NamedTuple):
    """An IKE SA by the home agent's SPI, and its child by the mobile node's SPIs in and out."""

    ike: str
    child: tuple[int, int]


@dataclass
class MobileNode:
    """The kernel of the neighbour's namespace, and charon in it."""

    namespace: Namespace
    charon: Charon
    messages: socket.socket
    sequence: int = 0

    def connect(self, secret: str) -> None:
        """Have charon negotiate: IKE on the care-of address, the SAs on the home address."""
        child = {
            "mode": "transport_proxy",
            "esp_proposals": "aes128gcm16",
            "local_ts": f"{HOME}/128[{ipv6.MOBILITY}]",
            "remote_ts": f"{HOME_AGENT}/128[{ipv6.MOBILITY}]",
            # It begins nothing by itself: what it did would be another IKE_SA_INIT.
            "close_action": "none",
            "dpd_action": "clear",
        }
        connection = {
            "local_addrs": CARE_OF,
            "remote_addrs": HOME_AGENT,
            "proposals": "aes128gcm16-prfsha256-x25519",
            "dpd_delay": "1s",
            # The kernel prefers another address towards the home agent. With MOBIKE charon would move there,
            # and its SAs with it, away from the home address.
            "mobike": "no",
            "local": {"auth": "psk", "id": MOBILE_NODE_IDENTITY},
            "remote": {"auth": "psk", "id": HOME_AGENT_IDENTITY},
            "children": {CHILD: child},
        }
        self.charon.load({CONNECTION: connection}, {"ike-1": {"secret": f"0x{secret}"}})
        self.charon.initiate(child=CHILD)

    def register(self) -> int | None:
        """One Binding Update: the status of its answer, ``None`` if there is none."""
        self.sequence += 1
        option = Option(messages.OptionType.ALTERNATE_CARE_OF_ADDRESS, address(CARE_OF))
        update = BindingUpdate(self.sequence, FLAGS, LIFETIME // 4, (option,))
        self.messages.send(messages.build(update, address(HOME), address(HOME_AGENT)))
        if not select.select([self.messages], [], [], 5)[0]:
            return None
        answer = messages.parse(self.messages.recv(2048), address(HOME_AGENT), address(HOME))
        assert isinstance(answer, BindingAcknowledgement)
        assert answer.sequence == self.sequence
        return answer.status

    def has(self) -> list[Agreed]:
        """What charon has that lives."""
        return [
            Agreed(
                each["responder-spi" if each.get("initiator") == "yes" else "initiator-spi"],
                (int(child["spi-in"], 16), int(child["spi-out"], 16)),
            )
            for each in self.charon.associations().values()
            if each["state"] == "ESTABLISHED"
            for child in each["child-sas"].values()
            if child["state"] == "INSTALLED"
        ]

    def refused(self) -> dict[str, int]:
        """What IPsec in the kernel has not taken, without zeros."""
        lines = self.namespace.run("cat", "/proc/net/xfrm_stat").splitlines()
        return {name: int(count) for name, count in map(str.split, lines) if int(count)}

    def states(self) -> set[int]:
        """The SPIs of ESP in the kernel."""
        listed = self.namespace.run("ip", "xfrm", "state", "list", "proto", "esp")
        return {int(each, 16) for each in re.findall(r"spi 0x([0-9a-f]+)", listed)}


def member_has(member: MemberProcess) -> list[Agreed]:
    """The same of a member of the set."""
    return [
        Agreed(each["spi"], (int(child["spi_out"], 16), int(child["spi_in"], 16)))
        for each in member.show("ike")
        if each["state"] == "established"
        for child in each["children"]
    ]


def agree(node: MobileNode, member: MemberProcess, before: Agreed | None = None) -> Agreed:
    """The IKE SA with its child that both ends have once nothing is going on, another than ``before``."""

    def settled() -> Agreed | None:
        found = member_has(member)
        if len(found) != 1 or found == [before] or node.has() != found:
            return None
        return found[0]

    return eventually(settled)


@contextmanager
def recorded(node: MobileNode, path: Path) -> Iterator[list[Captured]]:
    """What passes the mobile node's link while the block runs; the list is filled at its end."""
    frames: list[Captured] = []
    capture = Capture(node.namespace, path, LINK)
    try:
        yield frames
    finally:
        frames += read_pcap(capture.close())


def spoken(frames: list[Captured], destination: str) -> list[tuple[int, int]]:
    """SPI and number of what went under ESP to somebody, with the home address in a header before it."""
    numbers = []
    for each in frames:
        if each.destination == address(destination) and (found := esp_numbers(each.packet)) is not None:
            packet = ipv6.parse(each.packet)
            assert address(HOME) in (packet.home_address, packet.routing)
            numbers.append((found.spi, found.sequence))
    return numbers


def plain(frames: list[Captured]) -> int:
    """How many Mobility Headers anybody could read."""
    return sum(outer(each.packet).protocol == ipv6.MOBILITY for each in frames)


def plays_nothing_twice(node: MobileNode, member: MemberProcess, frames: list[Captured]) -> None:
    """What a member, or the one before it, has taken is refused when it comes again."""
    old = [each for each in frames if each.destination == address(HOME_AGENT) and esp_numbers(each.packet)]
    binding, before = member.show("bindings"), member.show("counters").get("replayed", 0)
    replay(NAMESPACE_DIRECTORY / node.namespace.name, LINK, old)
    member.wait(lambda: member.show("counters").get("replayed", 0) == before + len(old))
    assert [each["sequence"] for each in member.show("bindings")] == [each["sequence"] for each in binding]


def charon_goes_on(node: MobileNode, member: MemberProcess) -> None:
    """Liveness, another child, another IKE SA, each asked for by the mobile node."""
    log = len(node.charon.log())
    for words in ("sending DPD request", "parsed INFORMATIONAL response"):
        eventually(lambda words=words: words in node.charon.log()[log:])  # type: ignore[misc]
    before = agree(node, member)
    node.charon.control("--rekey", "--child", CHILD)
    child = agree(node, member, before)
    assert child.ike == before.ike
    assert not set(child.child) & set(before.child)
    assert node.register() == 0
    node.charon.control("--rekey", "--ike", CONNECTION)
    ike = agree(node, member, child)
    assert ike.ike != child.ike
    assert ike.child == child.child
    assert node.register() == 0


def the_home_agent_goes_on(node: MobileNode, member: MemberProcess) -> None:
    """Liveness, and another IKE SA, asked for by the member that took over."""
    log = len(node.charon.log())
    ask(member, "probe")
    eventually(lambda: "parsed INFORMATIONAL request" in node.charon.log()[log:])
    before = agree(node, member)
    ask(member, "rekey")
    ike = agree(node, member, before)
    assert ike.ike != before.ike
    assert ike.child == before.child
    assert node.register() == 0


def ask(member: MemberProcess, what: str) -> None:
    control.ask(member.directory / "sock", "ask-ike", {"home_address": HOME, "what": what})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedundantSet]:
    made = RedundantSet(tmp_path)
    try:
        made.open()
        made.configure(PATIENT, use="signalling")
        yield made
    finally:
        made.close()


@pytest.fixture
def node(world: RedundantSet, tmp_path: Path) -> Iterator[MobileNode]:
    namespace = Namespace(world.neighbour.name)
    namespace.ip(*_MOBILE_IPV6)
    with ExitStack() as undo:
        undo.callback(namespace.close)
        with namespace.inside():
            own = undo.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_RAW, ipv6.MOBILITY))
        own.bind((HOME, 0))
        own.connect((HOME_AGENT, 0))
        charon = Charon(namespace, tmp_path / "charon", Kernel.NETLINK)
        yield MobileNode(namespace, charon, own)
        assert charon.stop() == 0


def test_the_standby_goes_on_under_the_same_associations(
    world: RedundantSet, node: MobileNode, tmp_path: Path
) -> None:
    active, standby = world.start()
    with recorded(node, tmp_path / "before.pcap") as before:
        node.connect(world.mobile_node_secret)
        negotiated = agree(node, active)
        assert node.states() == set(negotiated.child)
        assert [node.register(), node.register()] == [0, 0]
    assert spoken(before, HOME_AGENT) == [(negotiated.child[1], 1), (negotiated.child[1], 2)]
    assert {spi for spi, _ in spoken(before, CARE_OF)} == {negotiated.child[0]}
    heard = max(number for _, number in spoken(before, CARE_OF))

    active.end(signal.SIGKILL)
    standby.wait(lambda: standby.role == "active")
    with recorded(node, tmp_path / "after.pcap") as after:
        assert node.register() == 0
    assert agree(node, standby) == negotiated
    assert spoken(after, HOME_AGENT) == [(negotiated.child[1], 3)]
    ((spi, number),) = spoken(after, CARE_OF)
    # The kernel would not have taken it otherwise.
    assert (spi, number > heard) == (negotiated.child[0], True)
    assert plain(before + after) == 0
    plays_nothing_twice(node, standby, [*before, *after])

    charon_goes_on(node, standby)
    the_home_agent_goes_on(node, standby)
    assert node.refused() == {}
    assert node.charon.log().count("generating IKE_SA_INIT") == 1
    node.charon.control("--terminate", "--ike", CONNECTION)
    # What is closed stays for a while, to answer its last request again.
    eventually(lambda: not member_has(standby))
    assert node.states() == set()
