"""Answers over the control socket: long ones come whole, and hold nothing up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from mip6ha.edge.control import Listing, UnixControl


class Port:
    def listenUNIX(self, path: str, factory: object, mode: int) -> Port:  # noqa: N802
        assert mode == 0o600
        return self


class Asked:
    """A conversation with a home agent that has ``count`` rows."""

    def __init__(self, directory: Path, count: int) -> None:
        self.made = 0
        self.count = count
        commands = {"rows": lambda _: Listing(self._rows()), "status": lambda _: {"is": "here"}}
        control = UnixControl(directory / "sock", commands, Port())
        conversation: Any = control.buildProtocol(None)
        conversation.setTimeout = lambda _: None
        self.transport = StringTransport()
        self.conversation = conversation
        conversation.makeConnection(self.transport)

    def _rows(self) -> Iterator[object]:
        for each in range(self.count):
            self.made += 1
            yield {"row": each}

    def ask(self, *commands: str) -> None:
        lines = [json.dumps({"command": each}).encode() for each in commands]
        self.conversation.dataReceived(b"\n".join(lines) + b"\n")

    def answers(self) -> list[Any]:
        return [json.loads(line)["result"] for line in self.transport.value().splitlines()]


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 100, 1000])
def test_a_listing_comes_piece_by_piece_and_is_one_answer(tmp_path: Path, count: int) -> None:
    asked = Asked(tmp_path, count)
    asked.ask("rows")
    pieces = 0
    while asked.transport.producer is not None:
        before = asked.made
        asked.transport.producer.resumeProducing()
        assert asked.made - before <= 50
        pieces += 1
    assert asked.answers() == [[{"row": each} for each in range(count)]]
    assert pieces == count // 50 + 1


def test_what_is_asked_meanwhile_is_answered_afterwards(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 120)
    asked.ask("rows", "status", "rows", "status")
    while asked.transport.producer is not None:
        asked.transport.producer.resumeProducing()
    found = asked.answers()
    assert [len(each) for each in found] == [120, 1, 120, 1]


def test_who_asks_too_much_meanwhile_is_not_heard_any_more(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 120)
    asked.ask("rows", *["status"] * 33)
    assert asked.transport.disconnecting


def test_who_goes_away_leaves_nothing_to_be_made(tmp_path: Path) -> None:
    asked = Asked(tmp_path, 1000)
    asked.ask("rows")
    producer: Any = asked.transport.producer
    producer.resumeProducing()
    producer.stopProducing()
    assert asked.made == 50
    producer.resumeProducing()
    assert asked.made == 50
