"""Mobile nodes that signal by RFC 4285: what a timestamp has shut out stays out on every member."""

from __future__ import annotations

from typing import Any

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import Status
from mip6ha.ipv6 import MOBILITY
from mip6ha.parameters import AuthenticationParameters, MobileNodeParameters

from ..binding import signed
from ..node.world import HOME_AGENT, MobileNode
from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS
from .world import World

_START = 0xE0000000 << 32


def plain() -> MobileNode:
    node = MobileNode(HOME_ADDRESS)
    node.parameters = MobileNodeParameters(
        HOME_ADDRESS, "plain", authentication=AuthenticationParameters(signed.SPI, signed.KEY)
    )
    return node


def update(sequence: int, **fields: Any) -> bytes:
    octets = signed.update(sequence, **fields)
    return ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, MOBILITY, octets, home_address=HOME_ADDRESS)


def status(world: World, packet: bytes) -> int:
    before = len(world.answers)
    world.receive(packet)
    world.until(lambda: len(world.answers) > before)
    parsed = ipv6.parse(world.answers[-1].packet)
    message = messages.parse(parsed.payload, HOME_AGENT, HOME_ADDRESS)
    return int(message.status)  # type: ignore[union-attr]


def test_a_replayed_update_after_a_takeover() -> None:
    world = World(plain()).settle()
    # Half the numbers of Binding Updates later only the timestamp tells an old one.
    for count, sequence in enumerate((1, 0x7000, 0xE000)):
        assert status(world, update(sequence, timestamp=_START + count)) == Status.ACCEPTED
    world.run(0.05)
    world.kill(world.active)
    world.until(lambda: world.serving)
    assert status(world, update(1, timestamp=_START)) == Status.ID_MISMATCH
    assert status(world, update(2)) == Status.MESSAGE_ID_REQUIRED
    assert status(world, update(0xE001, timestamp=_START + 3)) == Status.ACCEPTED


def test_a_timestamp_that_only_the_other_side_of_a_split_saw() -> None:
    world = World(plain()).settle()
    assert status(world, update(1, timestamp=_START)) == Status.ACCEPTED
    world.run(0.05)
    old, new = world.active, world.standby
    world.split(old)
    world.until(lambda: new in world.serving)
    world.receive(update(2, timestamp=_START + 5), old)
    world.cut.clear()
    world.run(0.3)
    world.settle()
    peer = world.member(new).home_agent.signalling.authentications[HOME_ADDRESS]
    assert peer.timestamp == _START + 5


def test_timestamps_never_go_back() -> None:
    world = World(plain()).settle()
    assert status(world, update(1, timestamp=_START)) == Status.ACCEPTED
    world.run(0.05)
    peer = world.member(world.standby).home_agent.signalling.authentications[HOME_ADDRESS]
    assert peer.timestamp == _START
    peer.timestamp = _START + 9
    assert status(world, update(2, timestamp=_START + 1)) == Status.ACCEPTED
    world.run(0.05)
    assert peer.timestamp == _START + 9
