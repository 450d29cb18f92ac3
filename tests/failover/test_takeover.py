"""After a takeover everything acknowledged is there, on the same SAs, and nothing old is accepted."""

from __future__ import annotations

import pytest

from mip6ha.harp.messages import StateReply
from mip6ha.ipsec.policy import Use

from ..node.world import CARE_OF_1, CARE_OF_2, CBC, CORRESPONDENT, A, H, MobileNode, R, echo, prefix
from .world import World, mobile_node, spi_and_number

_NETWORK = prefix("2001:db8:aa::/48")
_PAYLOAD = (Use.SIGNALLING, Use.PAYLOAD)


def taken_over(world: World) -> World:
    """The active member is gone, another one serves."""
    world.kill(world.active)
    world.until(lambda: world.serving)
    return world


def test_the_last_acknowledged_binding_is_there_and_the_next_refresh_accepted() -> None:
    world = World(mobile_node(0), mobile_node(1)).registered()
    for care_of_address in (CARE_OF_2, CARE_OF_1, CARE_OF_2):
        for node in world.nodes:
            assert world.register(node, care_of_address).status == 0
    old = [each.packet for each in world.answers[-2:]]
    taken_over(world)
    world.run(0.1)
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_2 for node in world.nodes}
    for node in world.nodes:
        answer = world.register(node, CARE_OF_2)
        assert (answer.status, answer.sequence) == (0, 5)
    for before, after in zip(old, world.answers[-2:], strict=True):
        (old_spi, old_number), (spi, number) = spi_and_number(before), spi_and_number(after.packet)
        assert spi == old_spi
        assert number > old_number


def test_numbers_on_the_same_sa_only_grow() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    numbers = []
    for _ in range(4):
        for _ in range(3):
            world.register(node)
            numbers.append(spi_and_number(world.answers[-1].packet))
        gone = world.active
        taken_over(world)
        world.run(0.1)
        world.start(gone)
        world.settle()
    assert len({spi for spi, _ in numbers}) == 1
    assert [number for _, number in numbers] == sorted({number for _, number in numbers})


@pytest.mark.parametrize("node", [mobile_node(0), mobile_node(0, protection=CBC)], ids=["gcm", "cbc"])
def test_replays_of_before_are_refused(node: MobileNode) -> None:
    world = World(node).settle()
    packets = [node.update(CARE_OF_1 if index % 2 else CARE_OF_2) for index in range(10)]
    for packet in packets:
        world.receive(packet)
        world.run(0.01)
    taken_over(world)
    before = world.snapshot(2)
    answers = len(world.answers)
    for packet in packets:
        world.receive(packet)
    assert world.members[2].counters["replayed"] == 10
    assert world.snapshot(2) == before
    assert len(world.answers) == answers


def test_a_binding_update_that_never_arrived_is_welcome_after_the_takeover() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    delayed = node.update(CARE_OF_2)
    taken_over(world)
    world.receive(delayed)
    world.run(0.05)
    assert node.open(world.answers[-1].packet).message.status == 0


def test_an_update_that_was_not_acknowledged_is_retried_with_success() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    world.lose = lambda said: type(said.message) is StateReply
    answers = len(world.answers)
    world.receive(node.update(CARE_OF_2))
    world.run(0.005)
    taken_over(world)
    world.lose = lambda said: False
    assert len(world.answers) == answers
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_1}
    assert world.register(node, CARE_OF_2).status == 0


def test_killed_between_the_standby_s_knowing_and_the_answer() -> None:
    world = World(mobile_node()).registered()
    node = world.nodes[0]
    answers = len(world.answers)
    world.receive(node.update(CARE_OF_2))
    world.run(1.5 * world.delay)
    taken_over(world)
    assert len(world.answers) == answers
    assert world.planes[2].tunnels == {node.home_address: CARE_OF_2}
    assert world.register(node, CARE_OF_2).status == 0


def test_a_mobile_router_keeps_its_networks() -> None:
    node = mobile_node(0, prefixes=(_NETWORK,))
    world = World(node).settle()
    world.register(node, flags=A | H | R)
    world.run(0.05)
    taken_over(world)
    assert world.planes[2].routes == {_NETWORK}
    inside = prefix("2001:db8:aa::5/128").prefix
    answers = len(world.answers)
    world.receive(echo(CORRESPONDENT, inside))
    assert len(world.answers) == answers + 1


def test_payload_without_esp_goes_on_at_once() -> None:
    world = taken_over(World(mobile_node()).registered())
    node = world.nodes[0]
    for packet in (
        echo(CORRESPONDENT, node.home_address),
        node.tunnel(echo(node.home_address, CORRESPONDENT)),
    ):
        answers = len(world.answers)
        world.receive(packet)
        assert len(world.answers) == answers + 1


def test_payload_under_esp_loses_at_most_the_horizon_and_replays_nothing() -> None:
    node = mobile_node(0, *_PAYLOAD)
    world = World(node).registered()
    inner = echo(node.home_address, CORRESPONDENT)

    def send(packet: bytes) -> bool:
        answers = len(world.answers)
        world.receive(packet)
        world.run(0.004)
        return len(world.answers) > answers

    packets = [node.tunnel(inner, use=Use.PAYLOAD) for _ in range(150)]
    assert sum(map(send, packets)) >= 148
    taken_over(world)
    assert not any(map(send, packets))
    after = [send(node.tunnel(inner, use=Use.PAYLOAD)) for _ in range(150)]
    assert after.index(True) <= 96
    assert all(after[after.index(True) :])
    assert world.members[2].counters["replayed"] >= 150


def test_home_addresses_are_announced_after_service_and_paced() -> None:
    world = World(*(mobile_node(index) for index in range(30)), announcements_per_second=500).registered()
    taken_over(world)
    plane = world.planes[2]
    assert plane.owns
    first = len(plane.announced)
    assert first <= 6
    world.run(0.03)
    assert len(plane.announced) < 30
    world.run(0.1)
    assert set(plane.announced) >= {node.home_address for node in world.nodes}


def test_the_mobile_node_gets_no_message() -> None:
    world = World(mobile_node()).registered()
    answers = len(world.answers)
    taken_over(world)
    world.run(2.0)
    assert len(world.answers) == answers


def test_whoever_does_not_serve_answers_nobody() -> None:
    world = World(mobile_node()).registered()
    before = world.snapshot(2)
    world.receive(world.nodes[0].update(), 2)
    world.receive(echo(CORRESPONDENT, world.nodes[0].home_address), 2)
    assert world.members[2].counters["not_active"] == 2
    assert world.snapshot(2) == before
