"""State synchronisation towards other members: what each lacks, what is under way, what waits for it.

Covered: group commit, a bounded number of messages in flight, retransmission, resynchronisation while changes
go on, and effects that wait until every synchronised standby has the generation they belong to.
Not covered: the content of a record, who is active, liveness (``failover``, ``member``).

Records are read at the moment they are sent, so a mobile node that changes often is still sent once, and
what is retransmitted is always the latest generation.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Generic, TypeVar

from .messages import StateAcknowledge, StateEntry, StateReply, SynchronizationStatus, entry_size
from .parts import LARGEST_ENTRY, in_parts

__all__ = ["LARGEST_ENTRY", "Peer", "Progress", "Record", "Replication"]

Held = TypeVar("Held")
Record = tuple[StateEntry, tuple[int, int]]
"""An entry ready to send, and its version: (term, generation)."""

_LATE = 64
"""Messages to one member that were sent again and may still be acknowledged."""
_ROOM = 1960
"""Octets for entries in one message of at most 2048, its frame and own options left out."""


class Progress(Enum):
    """How far a member has what we have."""

    ABSENT = "absent"
    """Not heard."""
    SYNCHRONIZING = "synchronizing"
    """Being brought up to date: it acknowledges what changes, but lacks some of what was before."""
    SYNCHRONIZED = "synchronized"
    """Has all that there is, or will have before an effect of it is seen."""


class _Message:
    __slots__ = ("deadline", "versions")

    def __init__(self, versions: dict[bytes, tuple[int, int]], deadline: float) -> None:
        self.versions = versions
        self.deadline = deadline


class Peer:
    """Replication towards one member.

    ``dirty`` are home addresses whose latest generation it was not sent, ``backlog`` the ones still to go for
    its request ``answering``. ``owed`` are those it must have acknowledged before it has everything: what it
    asked for, and what changed while nothing waited for it. ``late`` are messages that were sent again, whose
    acknowledgement may still come. ``is_mute``: it acknowledges nothing, so nothing waits for it.
    ``pulled`` says that it told us what it had, ``pushed`` that it was told all. Until it has told, one of
    ``pull_first`` is sent nothing: it may have accepted what nobody else knows, and our record would
    replace its own.
    """

    def __init__(self, identifier: int, timeout: float) -> None:
        self.identifier = identifier
        self.bit = 1 << identifier
        self.progress = Progress.ABSENT
        # Taken from the front: a plain dict searches through what was taken before.
        self.dirty: OrderedDict[bytes, None] = OrderedDict()
        self.owed: set[bytes] = set()
        self.in_flight: dict[tuple[int, tuple[bytes, ...]], _Message] = {}
        self.late: dict[tuple[int, tuple[bytes, ...]], dict[bytes, tuple[int, int]]] = {}
        self.backlog: deque[bytes] | None = None
        self.answering: int | None = None
        self.pulled = self.pushed = False
        self.pull_first = False
        self.appeared = 0.0
        self.timeout = timeout
        self.is_mute = False
        self.waiting_since: float | None = None

    def lacks(self, home_address: bytes) -> bool:
        """Whether the latest generation of a record is yet to be acknowledged."""
        return home_address in self.dirty or any(
            home_address in message.versions for message in self.in_flight.values()
        )

    def clear(self) -> None:
        """Forget everything: it is gone, and asks again when it is back."""
        self.progress = Progress.ABSENT
        self.dirty.clear()
        self.owed.clear()
        self.in_flight.clear()
        self.late.clear()
        self.backlog = self.answering = None
        self.pulled = self.pushed = False
        self.is_mute = False
        self.waiting_since = None


class _Waiting(Generic[Held]):
    """Effects that wait for ``version``, and for whom: one bit a member."""

    __slots__ = ("effects", "members", "version")

    def __init__(self, version: tuple[int, int], members: int, effects: list[Held]) -> None:
        self.version = version
        self.members = members
        self.effects = effects


def _counts(peer: Peer) -> bool:
    return peer.progress is not Progress.ABSENT and not peer.is_mute


def _waits_since(peer: Peer) -> float | None:
    return peer.appeared if peer.pull_first and not peer.pulled else peer.waiting_since


class Replication(Generic[Held]):
    """Replication of records to a set of members.

    ``record`` yields the current record of a home address (``None``: there is none). Times are seconds:
    ``timeout`` is the first retransmission, doubled up to ``longest``; a member that acknowledges nothing for
    ``patience`` no longer counts as synchronised. ``window`` bounds the messages in flight to one member.
    """

    def __init__(
        self,
        members: tuple[int, ...],
        record: Callable[[bytes], Record | None],
        *,
        timeout: float = 0.02,
        longest: float = 1.0,
        patience: float = 1.0,
        window: int = 8,
    ) -> None:
        self._record = record
        self._timeout = timeout
        self._longest = longest
        self._patience = patience
        self._window = window
        self.peers = {identifier: Peer(identifier, timeout) for identifier in members}
        self._held: dict[bytes, list[_Waiting[Held]]] = {}
        self.holding = 0
        self._identifier = 0

    # -- what changes ------------------------------------------------------------------------------

    def change(self, home_address: bytes) -> None:
        """A record changed: every member that is there gets it."""
        for peer in self.peers.values():
            if peer.progress is not Progress.ABSENT:
                peer.dirty[home_address] = None
                if peer.is_mute:
                    peer.owed.add(home_address)

    def hold(self, home_address: bytes, version: tuple[int, int], effects: list[Held]) -> bool:
        """Keep ``effects`` until every member that is there has ``version``; ``False`` if there is none."""
        members = 0
        for peer in self.peers.values():
            if peer.progress is not Progress.ABSENT and not peer.is_mute:
                members |= peer.bit
        before = self._held.get(home_address)
        if before is not None:
            before.append(_Waiting(version, members, effects))
        elif members:
            self._held[home_address] = [_Waiting(version, members, effects)]
        else:
            return False
        self.holding += 1
        return True

    def abandon(self) -> list[Held]:
        """Stop waiting for anybody and return what was held, oldest first for each mobile node."""
        held = [effect for entries in self._held.values() for each in entries for effect in each.effects]
        self._held.clear()
        self.holding = 0
        return held

    # -- members come and go -----------------------------------------------------------------------

    def appear(self, identifier: int, now: float = 0.0, *, pull_first: bool = False) -> None:
        """A member is heard that was absent."""
        peer = self.peers[identifier]
        peer.clear()
        peer.appeared, peer.pull_first = now, pull_first
        peer.progress = Progress.SYNCHRONIZING
        peer.timeout = self._timeout

    def vanish(self, identifier: int) -> list[Held]:
        """A member failed; what waited for it alone may go."""
        self.peers[identifier].clear()
        return self._release_all(identifier)

    def doubt(self, identifier: int) -> None:
        """A member no longer has all: it asks for everything again."""
        peer = self.peers[identifier]
        if peer.progress is Progress.SYNCHRONIZED:
            peer.progress = Progress.SYNCHRONIZING
            peer.pushed = False

    def mute(self, identifier: int) -> list[Held]:
        """A member is there but acknowledges nothing: until it does, nothing waits for it."""
        self.doubt(identifier)
        peer = self.peers[identifier]
        peer.is_mute = True
        peer.owed.update(peer.dirty, *(message.versions for message in peer.in_flight.values()))
        return self._release_all(identifier)

    @property
    def alone(self) -> bool:
        """Whether there is nobody to wait for."""
        return not any(map(_counts, self.peers.values()))

    def trust(self, identifier: int) -> None:
        """A member is known to have all without being told (it was active until now)."""
        self.peers[identifier].pushed = True

    def settle(self) -> list[int]:
        """Members that have caught up since the last call: they count as synchronised from now on."""
        caught_up = []
        for peer in self.peers.values():
            if (
                peer.progress is Progress.SYNCHRONIZING
                and peer.pulled
                and peer.pushed
                and not peer.owed
                and peer.backlog is None
            ):
                peer.progress = Progress.SYNCHRONIZED
                # From now on it may take over, so that everything waits for it again.
                peer.is_mute = False
                caught_up.append(peer.identifier)
        return caught_up

    def synchronized(self) -> tuple[int, ...]:
        """The members that have every acknowledged generation."""
        return tuple(
            peer.identifier for peer in self.peers.values() if peer.progress is Progress.SYNCHRONIZED
        )

    def is_flushed(self, identifier: int) -> bool:
        """Whether a member has acknowledged everything that there is."""
        peer = self.peers[identifier]
        return peer.progress is Progress.SYNCHRONIZED and not peer.dirty and not peer.in_flight

    # -- messages ----------------------------------------------------------------------------------

    def withdraw(self, identifier: int) -> None:
        """A member wants no answer any more."""
        peer = self.peers[identifier]
        if peer.answering is not None:
            self.appear(identifier, peer.appeared)

    def answer(self, identifier: int, request: int, home_addresses: Iterable[bytes]) -> None:
        """A member asked for the state of ``home_addresses``. A repeated request changes nothing."""
        peer = self.peers[identifier]
        if peer.answering == request:
            return
        peer.answering = request
        peer.backlog = deque(home_addresses)
        peer.pushed = False

    def acknowledge(self, identifier: int, message: StateAcknowledge, now: float) -> list[Held]:
        """Take in a SS-ACK; what waited for it and may go now."""
        peer = self.peers[identifier]
        homes = tuple(home_address for _, home_address in message.statuses)
        key = message.identifier, homes
        sent = peer.in_flight.pop(key, None)
        if sent is not None:
            versions = sent.versions
            peer.timeout = self._timeout
        elif key in peer.late:
            # Its way is longer than our patience: what it says holds, and answers what was sent again.
            versions = peer.late.pop(key)
            for other, again in list(peer.in_flight.items()):
                if again.versions and all(versions.get(each) == new for each, new in again.versions.items()):
                    del peer.in_flight[other]
        else:
            return []
        peer.is_mute = False
        peer.waiting_since = now if peer.in_flight else None
        if not homes and message.identifier == peer.answering:
            peer.pushed = True
        released: list[Held] = []
        for status, home_address in message.statuses:
            if status == SynchronizationStatus.SUCCESS:
                # Who was gone for a moment may repeat its request: then an old acknowledgement looks like
                # one of now. What somebody waits for was sent under an identifier of its own besides.
                if message.identifier != peer.answering:
                    self._release(identifier, home_address, versions[home_address], released)
                if home_address in peer.owed and not peer.lacks(home_address):
                    peer.owed.discard(home_address)
            else:
                # It cannot hold this record: nothing may wait for it, nor may it take over.
                released += self.mute(identifier)
        return released

    def poll(self, term: int, now: float, most: int = 16) -> list[tuple[int, StateReply]]:
        """Messages to send now, ``most`` of them a member: (member, message)."""
        out: list[tuple[int, StateReply]] = []
        for peer in self.peers.values():
            if peer.progress is Progress.ABSENT or (peer.pull_first and not peer.pulled):
                continue
            self._retransmit(peer, now)
            for _ in range(most):
                if len(peer.in_flight) >= self._window:
                    break
                message = self._next_message(peer, term)
                if message is None:
                    break
                reply, versions = message
                key = (reply.identifier, tuple(versions))
                peer.in_flight[key] = _Message(versions, now + peer.timeout)
                if peer.waiting_since is None:
                    peer.waiting_since = now
                out += [(peer.identifier, each) for each in in_parts(reply)]
        return out

    def next_deadline(self) -> float | None:
        """When a retransmission is due."""
        return min(
            (message.deadline for peer in self.peers.values() for message in peer.in_flight.values()),
            default=None,
        )

    def stalled(self, now: float) -> list[int]:
        """Members that have acknowledged nothing, or not told what they have, for too long."""
        return [
            peer.identifier
            for peer in self.peers.values()
            if _counts(peer) and (since := _waits_since(peer)) is not None and now - since > self._patience
        ]

    def _retransmit(self, peer: Peer, now: float) -> None:
        late = [key for key, message in peer.in_flight.items() if message.deadline <= now]
        if not late:
            return
        peer.timeout = min(peer.timeout * 2, self._longest)
        for key in late:
            message = peer.in_flight[key]
            if message.versions:
                del peer.in_flight[key]
                peer.late[key] = message.versions
                if len(peer.late) > _LATE:
                    del peer.late[next(iter(peer.late))]
                for home_address in message.versions:
                    peer.dirty[home_address] = None
            else:
                # The end of an answer: ask for it to be sent again in its turn.
                del peer.in_flight[key]
                peer.backlog = deque()

    def _next_message(self, peer: Peer, term: int) -> tuple[StateReply, dict[bytes, tuple[int, int]]] | None:
        """Changes first, for somebody waits for them; then what the answer to a request still lacks."""
        entries: list[StateEntry] = []
        versions: dict[bytes, tuple[int, int]] = {}
        room, size = _ROOM, 0
        dirty = peer.dirty
        # Records are of like size: where one more of the last one's does not fit, none is made in vain.
        while dirty and room >= size:
            home_address = next(iter(dirty))
            record = self._record(home_address)
            if record is not None:
                size = entry_size(record[0])
                room -= size
                if room < 0 and entries:
                    break
                entries.append(record[0])
                versions[home_address] = record[1]
            del dirty[home_address]
        if entries:
            self._identifier = self._identifier + 1 & 0xFFFF
            return StateReply(self._identifier, True, tuple(entries), term), versions
        backlog, answering = peer.backlog, peer.answering
        if backlog is None or answering is None:
            return None
        while backlog and room >= size:
            home_address = backlog.popleft()
            record = self._record(home_address)
            if record is None:
                continue
            size = entry_size(record[0])
            room -= size
            if room < 0 and entries:
                backlog.appendleft(home_address)
                break
            entries.append(record[0])
            versions[home_address] = record[1]
            peer.owed.add(home_address)
        if not entries:
            # The end mark: an answer without entries. It waits until all before it is acknowledged, but
            # not for what has changed since: that would never end where much changes.
            if peer.owed:
                return None
            peer.backlog = None
        return StateReply(answering, True, tuple(entries), term), versions

    # -- waiting effects ---------------------------------------------------------------------------

    def _release(
        self, identifier: int, home_address: bytes, version: tuple[int, int], released: list[Held]
    ) -> None:
        entries = self._held.get(home_address)
        if entries is None:
            return
        others = ~self.peers[identifier].bit
        for each in entries:
            if each.version <= version:
                each.members &= others
        while entries and not entries[0].members:
            released += entries.pop(0).effects
            self.holding -= 1
        if not entries:
            del self._held[home_address]

    def _release_all(self, identifier: int) -> list[Held]:
        released: list[Held] = []
        endless = (1 << 64, 0)
        for home_address in list(self._held):
            self._release(identifier, home_address, endless, released)
        return released
