"""Members that meet, or meet again: who says what first, and where the home link leads."""

from __future__ import annotations

from mip6ha.failover.machine import Machine
from mip6ha.harp.messages import Hello, StateRequest

from ..node.world import HOME_AGENT
from .world import INTERVAL, START_WAIT, Said, World, mobile_node


def apart() -> World:
    """Both sides serve, and the messages of before are forgotten."""
    world = World(mobile_node()).registered()
    world.split(1)
    world.run(0.2)
    assert world.serving == [1, 2]
    world.said.clear()
    return world


def of(said: list[Said], source: int) -> list[type]:
    return [type(each.message) for each in said if each.source == source]


def test_home_link_is_told_again_when_another_one_stopped_serving() -> None:
    world = apart()
    announced = world.planes[2].announced
    announced.clear()
    world.cut.clear()
    world.run(3 * INTERVAL)
    assert world.serving == [2]
    # The other one may have said to switches that the address is there.
    assert announced.count(HOME_AGENT) == 1
    world.run(1.0)
    assert announced.count(HOME_AGENT) == 1


def test_who_asks_a_newcomer_for_its_state_says_hello_first() -> None:
    world = apart()
    world.cut.clear()
    world.run(INTERVAL + 2 * world.delay)
    heard = of(world.said, 2)
    assert heard.index(Hello) < heard.index(StateRequest)
    world.run(0.05)
    # Nothing had to be asked for twice.
    assert not any(member.counters["harp_request_of_absent_member"] for member in world.members.values())
    requests = [
        each.message for each in world.said if each.source == 2 and type(each.message) is StateRequest
    ]
    assert len({each.identifier for each in requests}) == len(requests)
    world.same_everywhere()


def test_member_that_took_long_to_start_listens_as_long_as_any() -> None:
    machine = Machine(
        1, (0, bytes(16)), {}, interval=INTERVAL, factor=3, start_wait=START_WAIT, term=0, now=5.0
    )
    machine.listen(7.0)
    assert machine.claim_at(7.0) == 7.0 + START_WAIT
