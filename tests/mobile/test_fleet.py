"""Many mobile nodes against the home agent's core, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingUpdate
from mip6ha.effects import SendPacket
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, Transform, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.mobile.fleet import Fleet, Phase, PhaseReport, percentile
from mip6ha.node import HomeAgent
from mip6ha.parameters import (
    AssociationParameters,
    HomeAgentParameters,
    HomePrefix,
    MobileNodeParameters,
)
from mip6ha.tables import derived_keys

from .timeline import FOREIGN_1, HOME_AGENT, HOME_PREFIX, seeded

FIRST_SPI = 0x10000
GCM = transform("aes-gcm-16")
CBC = transform("aes-cbc", "hmac-sha2-256-128")
SECRET = bytes(range(32))
HOME_ADDRESSES = tuple(HOME_PREFIX[:14] + (0x1000 + index).to_bytes(2, "big") for index in range(20))


def keys(protection: Transform, home_address: bytes, spi: int) -> Keys:
    return derived_keys(SECRET, home_address, spi, protection)


def fleet(protection: Transform = GCM, **settings: object) -> Fleet:
    given: dict[str, object] = {
        "home_agent": HOME_AGENT,
        "home_addresses": HOME_ADDRESSES,
        "care_of_prefix": FOREIGN_1,
        "first_spi": FIRST_SPI,
        "protection": protection,
        "keys": lambda home_address, spi: keys(protection, home_address, spi),
        "random": seeded("fleet"),
        "lifetime": 600,
    }
    return Fleet(**{**given, **settings})  # type: ignore[arg-type]


def home_agent(protection: Transform = GCM) -> HomeAgent:
    nodes = []
    for index, home_address in enumerate(HOME_ADDRESSES):
        pair = tuple(
            AssociationParameters(
                FIRST_SPI + 2 * index + offset,
                direction,
                Use.SIGNALLING,
                protection,
                keys(protection, home_address, FIRST_SPI + 2 * index + offset),
            )
            for offset, direction in enumerate((Direction.IN, Direction.OUT))
        )
        nodes.append(MobileNodeParameters(home_address, f"pool-{index}", pair))
    prefixes = (HomePrefix(HOME_PREFIX, 64),)
    parameters = HomeAgentParameters(HOME_AGENT, prefixes, tuple(nodes), virtual_home_link=True)
    return HomeAgent(parameters, seeded("agent"), 0.0)


@dataclass
class Loop:
    """Runs phases against a home agent; ``lose`` packets towards it are lost at first."""

    fleet: Fleet
    agent: HomeAgent
    now: float = 0.0
    lose: int = 0
    outstanding: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.agent.start(self.now)

    def phase(self, phase: Phase, window: int = 7) -> PhaseReport:
        report = self.fleet.begin(phase, self.now)
        while not self.fleet.finished:
            packets = self.fleet.fill(window - self.fleet.outstanding, self.now)
            self.outstanding.append(self.fleet.outstanding)
            while packets:
                packets = self._exchange(packets)
            deadline = self.fleet.next_deadline()
            if not self.fleet.fill(0, self.now) and self.fleet.outstanding and deadline is not None:
                self.now = max(self.now, deadline)
                packets = self.fleet.on_timer(self.now)
                while packets:
                    packets = self._exchange(packets)
        return report

    def _exchange(self, packets: list[bytes]) -> list[bytes]:
        more = []
        for packet in packets:
            self.lose -= 1
            if self.lose >= 0:
                continue
            for effect in self.agent.receive(packet, self.now):
                if isinstance(effect, SendPacket):
                    more += self.fleet.receive(effect.packet, self.now)
        return more


def test_an_update_is_what_the_codecs_would_build() -> None:
    nodes = fleet()
    nodes.begin(Phase.REGISTER, 0.0)
    for index, packet in enumerate(nodes.fill(3, 0.0)):
        parsed = ipv6.parse(packet)
        home_address = HOME_ADDRESSES[index]
        care_of_address = FOREIGN_1[:8] + (index + 1).to_bytes(8, "big")
        assert (parsed.source, parsed.destination) == (care_of_address, HOME_AGENT)
        assert (parsed.home_address, parsed.next_header) == (home_address, ipv6.ESP)
        spi = FIRST_SPI + 2 * index
        receiver = SecurityAssociation(
            spi=spi,
            direction=Direction.IN,
            use=Use.SIGNALLING,
            home_address=home_address,
            transform=GCM,
            keys=keys(GCM, home_address, spi),
        )
        next_header, octets = esp.unprotect(receiver, parsed.payload)
        assert next_header == ipv6.MOBILITY
        update = messages.parse(octets, home_address, HOME_AGENT)
        assert isinstance(update, BindingUpdate)
        assert (update.sequence, update.flags, update.lifetime) == (1, 0xC000, 150)
        assert messages.alternate_care_of_address(update.options) == care_of_address
        assert octets == messages.build(update, home_address, HOME_AGENT)


@pytest.mark.parametrize("protection", [GCM, CBC], ids=lambda protection: protection.name)
def test_every_phase_against_a_home_agent(protection: Transform) -> None:
    loop = Loop(fleet(protection), home_agent(protection))
    addresses = set()
    for phase in (Phase.REGISTER, Phase.REFRESH, Phase.MOVE):
        report = loop.phase(phase)
        assert (report.accepted, report.retransmissions, report.unanswered) == (20, 0, 0)
        bindings = list(loop.agent.bindings(loop.now))
        assert len(bindings) == 20
        addresses |= {binding["care_of_address"] for binding in bindings}
    assert len(addresses) == 40
    assert loop.agent.counters["refreshes"] == 20
    assert loop.agent.counters["moves"] == 20
    assert loop.phase(Phase.DEREGISTER).accepted == 20
    assert not list(loop.agent.bindings(loop.now))
    assert max(loop.outstanding) == 7


def test_losses_are_retransmitted_and_told() -> None:
    loop = Loop(fleet(), home_agent(), lose=5)
    report = loop.phase(Phase.REGISTER)
    assert (report.accepted, report.retransmissions, report.sent) == (20, 5, 25)
    told = report.as_json()
    assert told["latency_ms"] == {"p50": 0.0, "p90": 1500.0, "p99": 1500.0, "max": 1500.0}
    assert told["statuses"] == {"0": 20}


def test_a_silent_home_agent_is_given_up() -> None:
    loop = Loop(fleet(retries=2), home_agent(), lose=10**6)
    report = loop.phase(Phase.REGISTER, window=20)
    assert (report.unanswered, report.sent, loop.now) == (20, 60, 1.5 + 3.0 + 6.0)
    assert report.as_json()["latency_ms"] == {"p50": None, "p90": None, "p99": None, "max": None}


def test_a_second_run_continues_above_the_first_in_both_sequence_spaces() -> None:
    agent = home_agent()
    first = fleet()
    Loop(first, agent).phase(Phase.REGISTER)
    second = fleet(sequence_floor=first.reserved)
    # The replay window of the answers is new, as after a restart.
    report = Loop(second, agent).phase(Phase.REGISTER)
    assert (report.accepted, dict(report.statuses)) == (20, {0: 20})
    assert agent.counters["replayed"] == 0


def test_out_of_window_is_retried_at_once() -> None:
    agent = home_agent()
    loop = Loop(fleet(), agent)
    for _ in range(70):
        loop.phase(Phase.REFRESH)
    report = Loop(fleet(sequence_floor=Fleet.RESERVATION), agent).phase(Phase.REFRESH)
    assert report.statuses == {0: 20, 135: 20}
    assert report.accepted == 20


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda packet: packet[:50], "not_an_answer"),
        (lambda packet: packet[:64] + bytes(4) + packet[68:], "unknown_spi"),
        (lambda packet: packet[:8] + FOREIGN_1 + packet[24:], "addresses"),
        (lambda packet: packet[:-1] + bytes((packet[-1] ^ 1,)), "bad_icv"),
    ],
)
def test_what_is_no_answer_is_dropped_and_counted(change: object, reason: str) -> None:
    nodes, agent = fleet(), home_agent()
    agent.start(0.0)
    report = nodes.begin(Phase.REGISTER, 0.0)
    (update,) = nodes.fill(1, 0.0)
    (answer,) = (effect.packet for effect in agent.receive(update, 0.0) if isinstance(effect, SendPacket))
    nodes.receive(change(answer), 0.1)  # type: ignore[operator]
    assert report.dropped == {reason: 1}
    nodes.receive(answer, 0.1)
    assert report.accepted == 1
    nodes.receive(answer, 0.2)
    assert report.dropped == {reason: 1, "replayed": 1}


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(100)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50.0, 90.0, 99.0, 99.0]
