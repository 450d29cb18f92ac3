"""The mobile node's core and the home agent's, joined in memory over a link that loses packets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mip6ha import ipv6
from mip6ha.effects import Effect, Event, SendPacket
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.mobile.effects import MobileEffect
from mip6ha.mobile.mobile_node import MobileNode
from mip6ha.mobile.parameters import EmulatorParameters
from mip6ha.node import HomeAgent
from mip6ha.parameters import (
    AssociationParameters,
    HomeAgentParameters,
    HomePrefix,
    MobileNodeParameters,
)

from .timeline import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    FOREIGN_1,
    FOREIGN_2,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    HOME_ROUTER,
    IDENTIFIER,
    ROUTER_1,
    ROUTER_2,
    advertised,
    seeded,
)

GCM = transform("aes-gcm-16")
CBC = transform("aes-cbc", "hmac-sha2-256-128")


def associations(uses: tuple[Use, ...], *, esn: bool = False) -> tuple[AssociationParameters, ...]:
    """As the home agent has them."""
    made = []
    for index, use in enumerate(uses):
        for offset, direction in enumerate((Direction.IN, Direction.OUT)):
            spi = 0x2000 + 2 * index + offset
            kind = CBC if use is Use.BINDING else GCM
            keys = Keys(bytes([spi & 0xFF]) * kind.encryption_lengths[0], bytes(kind.integrity_length))
            made.append(AssociationParameters(spi, direction, use, kind, keys, esn))
    return tuple(made)


def mirrored(given: AssociationParameters) -> AssociationParameters:
    direction = Direction.OUT if given.direction is Direction.IN else Direction.IN
    return replace(given, direction=direction)


class Internet:
    """Carries packets between the two cores; what neither owns ends in ``delivered``, by destination."""

    def __init__(self, *uses: Use, esn: bool = False, lifetime: int = 60, dad: bool = False) -> None:
        pairs = associations(uses, esn=esn)
        self.now = 0.0
        self.lose = 0
        self.delivered: list[bytes] = []
        self.events: list[str] = []
        self.agent = HomeAgent(
            HomeAgentParameters(
                HOME_AGENT,
                (HomePrefix(HOME_PREFIX, 64),),
                (MobileNodeParameters(HOME_ADDRESS, "mn", pairs),),
                duplicate_address_detection=dad,
            ),
            seeded("agent"),
            0.0,
        )
        self.node = MobileNode(
            EmulatorParameters(
                HOME_ADDRESS, 64, HOME_AGENT, IDENTIFIER, tuple(map(mirrored, pairs)), lifetime=lifetime
            ),
            seeded("node"),
        )
        self.agent.start(0.0)
        self.run(self.node.start())

    def run(self, effects: list[MobileEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Event):
                self.events.append(effect.name)
            elif isinstance(effect, SendPacket):
                self._from_node(effect.packet)

    def _from_node(self, packet: bytes) -> None:
        if packet[24:40] == HOME_ADDRESS:
            self.delivered.append(packet)
        elif self._arrives():
            self._to_agent(self.agent.receive(packet, self.now))

    def _to_agent(self, effects: list[Effect]) -> None:
        for effect in effects:
            if not isinstance(effect, SendPacket):
                continue
            if effect.packet[24:40] in (CARE_OF_1, CARE_OF_2, HOME_ADDRESS):
                if self._arrives():
                    self.run(self.node.receive(effect.packet, self.now))
            else:
                self.delivered.append(effect.packet)

    def _arrives(self) -> bool:
        self.lose -= 1
        return self.lose < 0

    def plug(self, prefix: bytes, router: bytes) -> None:
        self.run(self.node.carrier(True, self.now))
        self.run(self.node.advertisement(router, 255, advertised(prefix, router), self.now))

    def wait(self, until: float) -> None:
        """Let both cores' timers fire in their order."""
        while True:
            due = [(core.next_deadline(), core) for core in (self.node, self.agent)]
            times = [(at, core) for at, core in due if at is not None and at <= until]
            if not times:
                break
            self.now, core = min(times, key=lambda entry: entry[0])
            if core is self.node:
                self.run(self.node.on_timer(self.now))
            else:
                self._to_agent(self.agent.on_timer(self.now))
        self.now = until

    def talks(self) -> bool:
        """A datagram each way, by way of the home agent."""
        there = ipv6.build(HOME_ADDRESS, CORRESPONDENT, ipv6.UDP, bytes(24))
        back = ipv6.build(CORRESPONDENT, HOME_ADDRESS, ipv6.UDP, bytes(24))
        self.delivered.clear()
        self.run(self.node.receive(there, self.now))
        self._to_agent(self.agent.receive(back, self.now))
        # The home agent is a hop, which the kernel counts on the way out; this test has none.
        return [packet[8:] for packet in self.delivered] == [there[8:], back[8:]]


USES = [
    (Use.SIGNALLING,),
    (Use.BINDING, Use.PREFIX),
    (Use.SIGNALLING, Use.PAYLOAD),
    (Use.BINDING, Use.PREFIX, Use.RETURN_ROUTABILITY),
]


@pytest.mark.parametrize("uses", USES, ids="+".join)
@pytest.mark.parametrize("esn", [False, True], ids=["32-bit", "esn"])
def test_register_move_and_go_home(uses: tuple[Use, ...], esn: bool) -> None:
    world = Internet(*uses, esn=esn)
    world.plug(FOREIGN_1, ROUTER_1)
    assert world.talks()
    world.plug(FOREIGN_2, ROUTER_2)
    assert world.talks()
    world.plug(HOME_PREFIX, HOME_ROUTER)
    assert "deregistered" in world.events
    assert not list(world.agent.bindings(world.now))
    world.plug(FOREIGN_1, ROUTER_1)
    assert world.talks()
    assert ("mobile_prefix_advertisement" in world.events) == (Use.PREFIX in uses)


def test_a_binding_is_kept_by_refreshes() -> None:
    world = Internet(Use.SIGNALLING)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1000.0)
    assert world.talks()
    assert world.events.count("binding_acknowledged") == 1 + 1000 // 57
    assert "binding_expired" not in world.events


@pytest.mark.parametrize("losses", range(1, 5))
def test_losses_are_made_good_by_retransmission(losses: int) -> None:
    world = Internet(Use.SIGNALLING)
    world.lose = losses
    world.plug(FOREIGN_1, ROUTER_1)
    assert not world.talks()
    world.lose = losses - 1
    world.wait(30.0)
    assert world.talks()


def test_a_lost_acknowledgement_does_not_undo_a_refresh() -> None:
    world = Internet(Use.SIGNALLING)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(56.0)
    world.agent.counters.clear()
    real = world.node.receive
    world.node.receive = lambda packet, now: []  # type: ignore[method-assign]
    world.wait(57.5)
    world.node.receive = real  # type: ignore[method-assign]
    assert world.talks()
    world.wait(70.0)
    assert world.agent.counters["refreshes"] == 2
    assert world.talks()


def test_duplicate_address_detection_holds_the_first_answer_back() -> None:
    world = Internet(Use.SIGNALLING, dad=True)
    world.plug(FOREIGN_1, ROUTER_1)
    assert not world.talks()
    world.wait(2.0)
    assert world.talks()
    world.plug(FOREIGN_2, ROUTER_2)
    assert world.talks()


def test_a_home_agent_that_forgot_is_registered_with_again() -> None:
    world = Internet(Use.SIGNALLING)
    world.plug(FOREIGN_1, ROUTER_1)
    forgetful = Internet(Use.SIGNALLING)
    world.agent = forgetful.agent
    world.wait(60.0)
    assert world.talks()
