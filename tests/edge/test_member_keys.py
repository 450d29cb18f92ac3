"""Two members of a set as processes that negotiate the SAs between them, and what happens to those."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .redundant import MemberProcess, RedundantSet

pytestmark = pytest.mark.netns


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedundantSet]:
    made = RedundantSet(tmp_path)
    try:
        made.open()
        yield made
    finally:
        made.close()


def established(member: MemberProcess) -> list[dict[str, Any]]:
    return [each for each in member.show("ike") if each["state"] == "established"]


def fails_over(world: RedundantSet) -> None:
    """A take-over, and a member that comes back, under SAs that nobody configured."""
    active, standby = world.start()
    for member in (active, standby):
        assert [each["keys"] for each in member.show("status")["members"]] == ["negotiated"]
        # Both may have begun; one IKE SA stays.
        member.wait(lambda member=member: len(established(member)) == 1)  # type: ignore[misc]
    assert world.mobile_node.register() == 0
    standby.wait(lambda: len(standby.show("bindings")) == 1)
    active.end(signal.SIGKILL)
    standby.wait(lambda: standby.role == "active")
    assert world.mobile_node.register() == 0
    active.start_ready()
    active.wait(lambda: bool(active.show("status")["eligible"]))
    assert active.show("bindings")
    # It was not alone for so long that it would have served.
    assert (active.role, standby.role) == ("standby", "active")
    assert standby.named("member_appeared") == 2
    assert world.mobile_node.register() == 0
    assert standby.end(signal.SIGTERM) == 0
    assert active.role == "active"
    assert world.mobile_node.register() == 0


def test_with_a_pre_shared_key(world: RedundantSet) -> None:
    world.configure(ike=world.secrets())
    fails_over(world)


def test_with_certificates(world: RedundantSet) -> None:
    world.configure(ike=world.certificates())
    fails_over(world)


def test_what_is_wrong_is_counted_and_told(world: RedundantSet) -> None:
    world.configure(ike=world.certificates())
    here, anchors = world.members[1], "anchor"
    # Of the same name, from an authority that member 1 does not know.
    kept = (here.directory / anchors).read_bytes()
    world.certificates()
    (here.directory / anchors).write_bytes(kept)
    for member in world.members.values():
        member.start_ready()
    here.wait(lambda: here.show("counters").get("harp_certificate_untrusted", 0) > 1)
    # As initiator and as responder.
    assert here.named("harp_authentication_failed") <= 2
    for member in world.members.values():
        member.wait(lambda member=member: member.role == "active")  # type: ignore[misc]
        assert not [name for name in member.show("counters") if name.startswith("contexts")]
        assert [each["keys"] for each in member.show("status")["members"]] == ["none"]
