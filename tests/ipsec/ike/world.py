"""Endpoints, a link between them that loses, doubles and reorders, and a clock that is only a number."""

from __future__ import annotations

import heapq
import random as random_module
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

from mip6ha.ipsec.ike.effects import (
    Changed,
    Closed,
    Effect,
    Established,
    InstallChild,
    MoveChild,
    Notice,
    RemoveChild,
    SendDatagram,
)
from mip6ha.ipsec.ike.endpoint import IkeEndpoint
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.parameters import ChildPolicy, Parameters, Peer, Scope, Timing
from mip6ha.ipsec.ike.proposals import Offer, esp_offer, ike_offer
from mip6ha.ipsec.ike.sa import Address, ChildSa, IkeSa, State
from mip6ha.ipsec.policy import Use
from mip6ha.wire import address

from ...octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT

MN, HA = (CARE_OF_ADDRESS, 500), (HOME_AGENT, 500)
ELSEWHERE = address("2001:db8:d::7")
WALL = datetime(2026, 7, 1, tzinfo=UTC)
PSK = b"correct horse battery staple"
MN_ID, HA_ID = Identity.parse("mn@example.org"), Identity.parse("ha.example.org")
AES_GCM = ike_offer([(20, 128)], [5], [31])
AES_CBC = ike_offer([(12, 256)], [5], [19], [12])
ESP_GCM = esp_offer([(20, 128)], esn=[1, 0])
ESP_PFS = esp_offer([(20, 128)], group=[31, 19], esn=[1, 0])
ANY = (bytes(16), b"\xff" * 16)
# A clock without jitter makes timelines that a reader can follow.
CALM = Timing(jitter=0.0, probe_interval=None)

T = TypeVar("T")


def signalling(*offers: Offer, role: str, start: bool = True) -> ChildPolicy:
    """All of protocol 135 between the home address and the home agent, in transport mode."""
    home, agent = Scope(135), Scope(135, first=HOME_AGENT, last=HOME_AGENT)
    local, remote = (home, agent) if role == "mn" else (agent, home)
    return ChildPolicy("signalling", Use.SIGNALLING, offers or (ESP_GCM,), (local,), (remote,), start)


def payload(*offers: Offer, role: str, start: bool = False) -> ChildPolicy:
    """Everything of the home address through the tunnel."""
    home, rest = Scope(), Scope(0, None, *ANY)
    local, remote = (home, rest) if role == "mn" else (rest, home)
    return ChildPolicy("payload", Use.PAYLOAD, offers or (ESP_GCM,), (local,), (remote,), start)


def peer_of(role: str, **changes: object) -> Peer:
    """What the mobile node (``mn``) or the home agent (``ha``) knows of the other."""
    ours, theirs = (MN_ID, HA_ID) if role == "mn" else (HA_ID, MN_ID)
    base = Peer(
        name="ha" if role == "mn" else "mn",
        local=ours,
        remote=theirs,
        children=(signalling(role=role), payload(role=role)),
        address=HA if role == "mn" else MN,
        psk=PSK,
        home_addresses=(HOME_ADDRESS,),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def parameters_of(role: str, peer: Peer | None = None, **changes: object) -> Parameters:
    """Parameters with one peer."""
    base = Parameters(proposals=(AES_GCM, AES_CBC), peers=(peer or peer_of(role),), timing=CALM)
    return replace(base, **changes)  # type: ignore[arg-type]


@dataclass
class Node:
    """An endpoint at an address, and all that it asked for."""

    endpoint: IkeEndpoint
    address: Address
    effects: list[Effect] = field(default_factory=list)
    down: bool = False

    def all(self, kind: type[T]) -> list[T]:
        return [each for each in self.effects if isinstance(each, kind)]

    def sas(self, *states: State) -> list[IkeSa]:
        wanted = states or (State.ESTABLISHED,)
        return [each for each in self.endpoint.ike_sas.values() if each.state in wanted]

    @property
    def sa(self) -> IkeSa:
        [found] = self.sas()
        return found

    @property
    def child(self) -> ChildSa:
        [found] = self.sa.live_children()
        return found

    @property
    def installed(self) -> dict[int, InstallChild]:
        """What the SAD has, as the effects would have made it, by inbound SPI."""
        found: dict[int, InstallChild] = {}
        for each in self.effects:
            if isinstance(each, InstallChild):
                assert each.installation.child.spi_in not in found
                found[each.installation.child.spi_in] = each
            elif isinstance(each, RemoveChild):
                del found[each.child.spi_in]
        return found


class World:
    """The link and the clock. ``meddle`` sees each datagram and says what of it arrives."""

    def __init__(self, mn: Parameters | None = None, ha: Parameters | None = None, *, seed: int = 1) -> None:
        self.random = random_module.Random(seed)
        self.now = 1000.0
        self.latency = 0.01
        self.loss = self.duplicates = self.jitter = 0.0
        self.meddle: Callable[[SendDatagram], Iterable[SendDatagram]] | None = None
        self.sent: list[SendDatagram] = []
        self._under_way: list[tuple[float, int, SendDatagram]] = []
        self._count = 0
        self.nodes: list[Node] = []
        self.mn = self.add(mn or parameters_of("mn"), MN)
        self.ha = self.add(ha or parameters_of("ha"), HA)

    def add(self, parameters: Parameters, at: Address, iv_prefix: int = 0) -> Node:
        endpoint = IkeEndpoint(
            parameters, self.random.randbytes, self.now, wall=lambda: WALL, iv_prefix=iv_prefix
        )
        node = Node(endpoint, at)
        self.nodes.append(node)
        return node

    def do(self, node: Node, effects: list[Effect]) -> list[Effect]:
        """Carry out what an endpoint asked for."""
        node.effects += effects
        changed: set[int] = set()
        for each in effects:
            if isinstance(each, Changed):
                changed.add(id(each.ike_sa))
            if isinstance(each, SendDatagram):
                self.sent.append(each)
                for one in self.meddle(each) if self.meddle is not None else [each]:
                    self._put(one)
        return effects

    def _put(self, datagram: SendDatagram) -> None:
        copies = 2 if self.random.random() < self.duplicates else 1
        for _ in range(copies):
            if self.random.random() >= self.loss:
                self._count += 1
                arrival = self.now + self.latency + self.random.random() * self.jitter
                heapq.heappush(self._under_way, (arrival, self._count, datagram))

    def _node_at(self, address: bytes) -> Node | None:
        return next((each for each in self.nodes if each.address[0] == address and not each.down), None)

    def run(self, seconds: float = 5.0) -> None:
        """Let time go by."""
        end = self.now + seconds
        while True:
            moments: list[tuple[float, Node | None]] = []
            for node in self.nodes:
                at = node.endpoint.next_deadline()
                if at is not None and not node.down:
                    moments.append((at, node))
            if self._under_way:
                moments.append((self._under_way[0][0], None))
            if not moments:
                break
            at, due = min(moments, key=lambda each: each[0])
            if at > end:
                break
            self.now = max(self.now, at)
            if due is not None:
                self.do(due, due.endpoint.on_timer(self.now))
            else:
                _, _, datagram = heapq.heappop(self._under_way)
                receiver = self._node_at(datagram.remote[0])
                if receiver is not None:
                    self.deliver(receiver, datagram)
        self.now = end

    def deliver(self, node: Node, datagram: SendDatagram) -> list[Effect]:
        """Put a datagram into an endpoint now."""
        found = node.endpoint.receive(datagram.octets, datagram.local, datagram.remote, self.now)
        return self.do(node, found)

    def connect(self) -> None:
        """The mobile node's IKE SA with its children."""
        self.do(self.mn, self.mn.endpoint.initiate("ha", MN, self.now))
        self.run()

    def stir(self) -> None:
        """Have one end ask for something, whatever else is under way, and let a little time go by."""
        node = self.random.choice([self.mn, self.ha])
        endpoint = node.endpoint
        for ike_sa in node.sas():
            live, what = ike_sa.live_children(), self.random.randrange(5)
            if what == 0 and live:
                spi = self.random.choice(live).spi_in
                self.do(node, endpoint.rekey_child(ike_sa.spi, spi, self.now))
            elif what == 1:
                self.do(node, endpoint.rekey(ike_sa.spi, self.now))
            elif what == 2:
                name = self.random.choice(["payload", "signalling"])
                self.do(node, endpoint.create_child(ike_sa.spi, name, self.now))
            elif what == 3 and live:
                self.do(node, endpoint.delete_child(ike_sa.spi, live[-1].spi_in, self.now))
            else:
                self.do(node, endpoint.probe(ike_sa.spi, self.now))
        self.run(self.random.random() * 3)

    def settle(self) -> None:
        """The link is good again, and in the end both ends agree and are at rest."""
        self.loss = self.duplicates = 0.0
        self.run(300)
        if self.mn.sas() and self.ha.sas():
            self.check()
        for node in (self.mn, self.ha):
            assert all(each.pending is None and not each.waiting for each in node.sas())
            assert not node.endpoint.counters["ike_integrity"]
            assert not node.endpoint.counters["proposal_not_offered"]

    def exchanges(self) -> list[tuple[int, bool, int]]:
        """(exchange, is a response, message id) of all that was sent."""
        headers = [parse_header(each.octets)[0] for each in self.sent]
        return [(each.exchange, each.response, each.message_id) for each in headers]

    def check(self) -> None:
        """Both ends have the same children under the same keys, crosswise, and nothing half-done."""
        mn, ha = self.mn.installed, self.ha.installed
        assert {each.installation.child.spi_out for each in mn.values()} == set(ha)
        for each in mn.values():
            other = ha[each.installation.child.spi_out]
            assert each.inbound == other.outbound
            assert each.outbound == other.inbound
            assert each.installation.transform == other.installation.transform
            assert each.installation.child.spi_in == other.installation.child.spi_out
            assert each.installation.child.local == other.installation.child.remote
            assert each.installation.child.remote == other.installation.child.local
            assert each.installation.child.esn == other.installation.child.esn
        for node in (self.mn, self.ha):
            known = {spi for ike_sa in node.sas(State.ESTABLISHED, State.REKEYED) for spi in ike_sa.children}
            assert known == set(node.installed)


__all__ = [
    "Changed",
    "Closed",
    "Established",
    "InstallChild",
    "MoveChild",
    "Node",
    "Notice",
    "RemoveChild",
    "SendDatagram",
    "World",
]
