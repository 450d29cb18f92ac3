"""Replication on a clock of its own, told by hand: effects are words."""

from __future__ import annotations

from mip6ha.harp.messages import (
    StateAcknowledge,
    StateEntry,
    StateReply,
)
from mip6ha.harp.sync import Record, Replication

TERM = 0x101


def home(index: int) -> bytes:
    return b"\x20\x01" + index.to_bytes(14, "big")


class Sender:
    """Replication to members 2 and 3 on a clock of its own; effects are words."""

    def __init__(self, *members: int, size: int = 100, **settings: float | int) -> None:
        self.versions: dict[bytes, tuple[int, int]] = {}
        self.size = size
        self.now = 0.0
        self.replication: Replication[str] = Replication(
            members or (2,),
            self.record,
            **settings,  # type: ignore[arg-type]
        )

    def record(self, home_address: bytes) -> Record | None:
        version = self.versions.get(home_address)
        if version is None:
            return None
        entry = StateEntry(
            home_address, home_address, 0, 0, 1, generation=version[1], context=bytes(self.size)
        )
        return entry, version

    def change(self, index: int, *effects: str) -> bool:
        """A record changes, and ``effects`` wait; whether they do."""
        _, generation = self.versions.get(home(index), (TERM, 0))
        self.versions[home(index)] = version = (TERM, generation + 1)
        self.replication.change(home(index))
        return self.replication.hold(home(index), version, list(effects))

    def poll(self, seconds: float = 0.0) -> list[tuple[int, StateReply]]:
        self.now += seconds
        return self.replication.poll(TERM, self.now)

    def acknowledge(self, identity: int, message: StateReply, status: int = 0) -> list[str]:
        statuses = tuple((status, entry.home_address) for entry in message.entries)
        answer = StateAcknowledge(message.identifier, statuses)
        return self.replication.acknowledge(identity, answer, self.now)

    def synchronize(self, *members: int) -> Sender:
        """Bring members up to date, with whatever there is."""
        for identity in members or tuple(self.replication.peers):
            self.replication.appear(identity)
            self.replication.peers[identity].pulled = True
            self.replication.answer(identity, 1000 + identity, list(self.versions))
        self.drain()
        assert set(members or self.replication.peers) <= set(self.replication.synchronized())
        return self

    def drain(self) -> list[str]:
        """Acknowledge everything until nothing is left to send."""
        released = []
        while sent := self.poll():
            for identity, message in sent:
                released += self.acknowledge(identity, message)
            self.replication.settle()
        return released


def homes(message: StateReply) -> list[int]:
    return [int.from_bytes(entry.home_address[2:], "big") for entry in message.entries]
