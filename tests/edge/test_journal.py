"""The journal's files, and home agents that are killed and go on from them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from mip6ha.edge import journal
from mip6ha.edge.errors import Unusable
from mip6ha.edge.journal import JournalFiles, journal_key
from mip6ha.effects import WriteJournal
from mip6ha.failover.context import Context, encode

from ..failover.test_journal import KEY, numbered
from .redundant import HOME, RedundantSet

PATIENCE = 10.0


class Answers:
    """A reactor as far as the journal needs one, and what it was told."""

    def __init__(self) -> None:
        self.told: Queue[tuple[str, Any]] = Queue()

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:  # noqa: N802
        function(*arguments)

    def until(self, name: str) -> Any:
        while True:
            kind, what = self.told.get(timeout=PATIENCE)
            if kind == name:
                return what

    def open(self, directory: Path, key: bytes = KEY) -> JournalFiles:
        return JournalFiles(
            directory,
            key,
            self,
            (
                lambda ticket: self.told.put(("written", ticket)),
                lambda ticket: self.told.put(("stored", ticket)),
                lambda why: self.told.put(("failed", why)),
            ),
        )


def write(ticket: int, *contexts: Context, begins: bool = False, completes: bool = False) -> WriteJournal:
    return WriteJournal(ticket, 0.0, tuple(map(encode, contexts)), begins, completes)


def sequences(files: JournalFiles) -> list[int]:
    return [each.binding.sequence for each in files.read(alone=True).contexts if each.binding is not None]


def segments(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.glob("journal.*"))


def test_written_stored_and_read(tmp_path: Path) -> None:
    answers = Answers()
    files = answers.open(tmp_path)
    assert sequences(files) == []
    files.begin()
    files.append(write(1, numbered(1), begins=True, completes=True))
    files.append(write(2, numbered(2)))
    assert answers.until("written") == 1
    while answers.until("stored") < 2:
        pass
    files.close()
    again = answers.open(tmp_path)
    assert sequences(again) == [2]
    assert stat.S_IMODE((tmp_path / "journal.1").stat().st_mode) == 0o600


def test_a_complete_segment_ends_those_before(tmp_path: Path) -> None:
    answers = Answers()
    files = answers.open(tmp_path)
    files.begin()
    files.append(write(1, numbered(1), begins=True, completes=True))
    files.append(write(2, numbered(2), begins=True))
    while answers.until("stored") < 2:
        pass
    assert segments(tmp_path) == ["journal.1", "journal.2"]
    files.append(write(3, numbered(3), completes=True))
    while answers.until("stored") < 3:
        pass
    assert segments(tmp_path) == ["journal.2"]
    files.close()
    # Nobody appends to what another one began.
    another = answers.open(tmp_path)
    another.begin()
    another.append(write(1, begins=True, completes=True))
    answers.until("stored")
    another.close()
    assert segments(tmp_path) == ["journal.3"]


def test_what_is_written_before_it_is_closed_is_there(tmp_path: Path) -> None:
    answers = Answers()
    files = answers.open(tmp_path)
    files.begin()
    files.append(write(1, begins=True, completes=True))
    for ticket in range(2, 200):
        files.append(write(ticket, numbered(ticket)))
    files.close()
    assert sequences(answers.open(tmp_path)) == [199]
    assert not [each for each in threading.enumerate() if each.name.startswith("journal")]


@pytest.mark.parametrize("damage", ["flipped", "short", "another", "empty"])
def test_damage_is_told_and_the_rest_is_used(tmp_path: Path, damage: str) -> None:
    answers = Answers()
    files = answers.open(tmp_path)
    files.begin()
    files.append(write(1, numbered(1), begins=True, completes=True))
    answers.until("stored")
    files.append(write(2, numbered(2)))
    answers.until("stored")
    files.close()
    path = tmp_path / "journal.1"
    octets = bytearray(path.read_bytes())
    if damage == "flipped":
        octets[-3] ^= 1
    elif damage == "short":
        del octets[-100:]
    elif damage == "empty":
        octets.clear()
    path.write_bytes(octets)
    said: list[dict[str, object]] = []
    again = answers.open(tmp_path, KEY[::-1] if damage == "another" else KEY)
    again.log = type("Log", (), {"warn": lambda _, text, **fields: said.append(fields)})()  # type: ignore[assignment]
    found = again.read(alone=True).contexts
    assert len(said) == 1
    assert [each.binding and each.binding.sequence for each in found] == (
        [1] if damage in ("flipped", "short") else []
    )
    assert all(each.binding is not None and each.binding.fenced for each in found)


def test_a_disk_that_is_full_leaves_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    files = answers.open(tmp_path)
    files.begin()
    files.append(write(1, numbered(1), begins=True, completes=True))
    answers.until("stored")
    whole = os.write
    monkeypatch.setattr(journal.os, "write", lambda file, octets: whole(file, octets[:5]))
    files.append(write(2, numbered(2)))
    assert answers.until("failed") == "No space left on device"
    assert segments(tmp_path) == []
    monkeypatch.undo()
    # Until it is begun anew nothing is written.
    files.append(write(3, numbered(3)))
    files.append(write(4, numbered(4), begins=True, completes=True))
    assert answers.until("stored") == 4
    files.close()
    assert sequences(answers.open(tmp_path)) == [4]


def test_a_key_of_its_own(tmp_path: Path) -> None:
    key = journal_key(tmp_path)
    assert len(key) == 32
    assert journal_key(tmp_path) == key
    path = tmp_path / "journal.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(Unusable, match="others can read it"):
        journal_key(tmp_path)
    path.chmod(0o600)
    for wrong in ("", "zz", "00" * 31):
        path.write_text(wrong)
        with pytest.raises(Unusable, match="holds no key"):
            journal_key(tmp_path)


# -- as processes --------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedundantSet]:
    made = RedundantSet(tmp_path, 1)
    try:
        made.open()
        made.configure()
        path = made.members[1].configuration
        alone = path.read_text().split("[group]")[0]
        path.write_text(alone.replace("[home_agent]", "[home_agent]\njournal = true"))
        yield made
    finally:
        made.close()


@pytest.mark.netns
def test_a_killed_home_agent_goes_on_where_it_was(world: RedundantSet) -> None:
    agent = world.members[1]
    agent.start_ready()
    assert world.mobile_node.register() == 0
    before = agent.show("bindings")
    for _ in range(2):
        agent.end(signal.SIGKILL)
        assert HOME not in agent.namespace.routes()
        agent.start_ready()
        after = agent.show("bindings")
        assert after[0]["care_of_address"] == before[0]["care_of_address"]
        assert after[0]["expires_in_s"] < before[0]["expires_in_s"]
        assert HOME in agent.namespace.routes()
        with world.mobile_node.traffic() as traffic:
            assert world.mobile_node.register(attempts=1) == 0
        # The first ones wait for the neighbour to resolve its address.
        assert max(traffic.lost[0], default=0) < traffic.sent / 2
    assert agent.show("status")["journal"] == "whole"
    secret = world._keys["update"]
    for path in (agent.directory / "state").iterdir():
        assert bytes.fromhex(secret) not in path.read_bytes()
        assert secret.encode() not in path.read_bytes()
    assert secret not in agent.log
    assert agent.end(signal.SIGTERM) == 0
    agent.start_ready()
    assert len(agent.show("bindings")) == 1


@pytest.mark.netns
def test_a_home_agent_on_a_full_disk_serves_without_a_journal(world: RedundantSet, tmp_path: Path) -> None:
    agent = world.members[1]
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    try:
        path = agent.configuration
        path.write_text(path.read_text().replace(f"{path.parent}/state", str(disk)))
        agent.start_ready()
        assert world.mobile_node.register() == 0
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as filler:
            filler.write(bytes(1 << 20))

        def told() -> bool:
            assert world.mobile_node.register() == 0
            return agent.named("journal_failed") > 0

        agent.wait(told)
        assert segments(disk) == ["journal.key"]
        assert world.mobile_node.register() == 0
        agent.end(signal.SIGKILL)
    finally:
        agent.stop()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.netns
def test_a_member_that_is_alone_goes_on_from_its_journal(tmp_path: Path) -> None:
    world = RedundantSet(tmp_path)
    try:
        world.open()
        world.configure()
        for member in world.members.values():
            path = member.configuration
            path.write_text(path.read_text().replace("[home_agent]", "[home_agent]\njournal = true"))
        active, standby = world.start()
        assert world.mobile_node.register() == 0
        standby.wait(lambda: bool(standby.show("bindings")))
        # Both write 20 ms later at most, and soon after that it does not matter who is asked.
        for member in (active, standby):
            state = member.directory / "state"
            member.wait(lambda state=state: "journal.1" in segments(state))  # type: ignore[misc]
        assert standby.end(signal.SIGTERM) == 0
        active.end(signal.SIGKILL)
        standby.start_ready()
        standby.wait(lambda: standby.role == "active")
        assert len(standby.show("bindings")) == 1
        assert HOME in standby.namespace.routes()
        # What it is told, with status 135, is that it has to go on behind the fence.
        node = world.mobile_node
        assert node.register(attempts=1) is None
        node._sequence = 1 + 0x7FFF
        assert node.register(attempts=1) == 0
        # The other one takes what this one has.
        active.start_ready()
        active.wait(lambda: bool(active.show("status")["eligible"]))
        assert len(active.show("bindings")) == 1
    finally:
        world.close()
