"""The binding cache (RFC 6275 9.1) and its clock.

Covered: entries, lookup by home address and by mobile network prefix, one lazily kept deadline an entry.
Not covered: who may change an entry (``registration``).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from heapq import heappop, heappush
from typing import NamedTuple

from .messages import LIFETIME_UNIT, MobileNetworkPrefix, UpdateFlag

__all__ = ["Binding", "BindingCache", "State", "Unprobed"]


class State(Enum):
    """Where a home registration stands."""

    UNBOUND = "unbound"
    """No registration; the entry only remembers the last sequence number."""
    PROBING = "probing"
    """Accepted, waiting for duplicate address detection; nothing is forwarded yet."""
    BOUND = "bound"


class Unprobed(NamedTuple):
    """What an entry without a registration remembers, and has again when nothing comes of a new one."""

    sequence: int
    ended: bool
    fenced: bool
    care_of_address: bytes
    source: bytes
    flags: int
    status: int


class Binding:
    """What the home agent knows of one mobile node's registration.

    ``sequence`` is that of the last accepted Binding Update, -1 before the first: it outlives the
    registration as long as the replay state does; ``ended`` says that the last one ended it. ``fenced``:
    later ones may have been accepted that this home agent does not know of (it comes from a journal).
    ``source`` is the address the last update came from. ``lifetime`` is what was granted, in units of
    4 s. Moments are seconds on the injected clock, infinity for never: ``expires`` is the end of the
    registration, ``probe_ends`` that of duplicate address detection, ``refresh_at`` when to ask for a
    refresh, ``announce_at`` when to send the next of ``announcements`` unsolicited advertisements.
    ``unprobed`` is what was before duplicate address detection began: nobody was told of anything else.
    """

    __slots__ = (
        "announce_at",
        "announcements",
        "care_of_address",
        "ended",
        "expires",
        "fenced",
        "flags",
        "home_address",
        "lifetime",
        "prefixes",
        "probe_ends",
        "refresh_at",
        "sequence",
        "source",
        "state",
        "status",
        "unprobed",
        "wakes",
    )

    def __init__(self, home_address: bytes) -> None:
        self.home_address = home_address
        self.state = State.UNBOUND
        self.sequence = -1
        self.care_of_address = self.source = home_address
        self.flags = 0
        self.lifetime = 0
        self.status = 0
        self.ended = self.fenced = False
        self.prefixes: tuple[MobileNetworkPrefix, ...] = ()
        self.expires = self.probe_ends = self.announce_at = self.refresh_at = self.wakes = _NEVER
        self.announcements = 0
        self.unprobed: Unprobed | None = None

    def probe(self, until: float) -> None:
        """Duplicate address detection begins; to be called before anything of the new registration stands."""
        self.unprobed = Unprobed(
            self.sequence,
            self.ended,
            self.fenced,
            self.care_of_address,
            self.source,
            self.flags,
            self.status,
        )
        self.state = State.PROBING
        self.probe_ends = until

    @property
    def last_sequence(self) -> int:
        """The sequence number that the next Binding Update's must be greater than, modulo 2^16.

        Where it is fenced that is as far ahead as the modulus allows: nothing that may have been accepted
        before passes, and the mobile node goes on from there when it is told (status 135).
        """
        return self.sequence + _FENCE & 0xFFFF if self.fenced else self.sequence

    @property
    def is_bound(self) -> bool:
        """Whether packets are tunnelled."""
        return self.state is State.BOUND

    @property
    def deadline(self) -> float:
        """The next moment at which something is due."""
        if self.state is State.BOUND:
            return min(self.expires, self.announce_at, self.refresh_at)
        return self.probe_ends if self.state is State.PROBING else _NEVER

    @property
    def defended(self) -> tuple[bytes, ...]:
        """The addresses to defend on the home link: the home address, with L its link-local twin (10.4.1)."""
        if self.flags & UpdateFlag.LINK_LOCAL:
            return self.home_address, _LINK_LOCAL + self.home_address[8:]
        return (self.home_address,)


_NEVER = float("inf")
_LONGEST = 0xFFFF
_FENCE = 0x7FFF
_BATCH = 256
_LINK_LOCAL = bytes.fromhex("fe80000000000000")


class BindingCache:
    """Bindings by home address; mobile network prefixes by longest match.

    Each entry stands at most once in the heap: a refresh only moves its deadline, and the heap
    learns of it when the old one comes up.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, Binding] = {}
        self._heap: list[tuple[float, bytes]] = []
        self._prefixes: dict[tuple[int, int], Binding] = {}
        self._lengths: list[int] = []
        self.registered = 0
        """How many entries are not unbound."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._entries.values())

    def get(self, home_address: bytes) -> Binding | None:
        """The entry of a home address, bound or not."""
        return self._entries.get(home_address)

    def entry(self, home_address: bytes) -> Binding:
        """The entry of a home address, made when it is not there."""
        found = self._entries.get(home_address)
        if found is None:
            found = self._entries[home_address] = Binding(home_address)
        return found

    def forget(self, binding: Binding) -> None:
        """Drop an entry with its sequence number, as when its SAs are gone."""
        self.end(binding)
        del self._entries[binding.home_address]

    def end(self, binding: Binding) -> None:
        """End a registration; the sequence number stays."""
        if binding.state is not State.UNBOUND:
            self.registered -= 1
        binding.state, binding.unprobed = State.UNBOUND, None
        binding.lifetime = binding.announcements = 0
        binding.expires = binding.probe_ends = binding.announce_at = binding.refresh_at = _NEVER
        if binding.prefixes:
            self.set_prefixes(binding, ())

    def give_up(self, binding: Binding) -> None:
        """End duplicate address detection as if it had never begun."""
        before = binding.unprobed
        self.end(binding)
        if before is not None:
            binding.sequence, binding.ended, binding.fenced = before[:3]
            binding.care_of_address, binding.source, binding.flags, binding.status = before[3:]

    def is_at(self, home_address: bytes, care_of_address: bytes) -> bool:
        """Whether a home address is registered from a care-of address."""
        binding = self.get(home_address)
        return binding is not None and binding.is_bound and binding.care_of_address == care_of_address

    def behind(self, address: bytes) -> Binding | None:
        """The entry whose mobile network prefix covers ``address`` (RFC 3963), longest first."""
        number = int.from_bytes(address, "big")
        for length in self._lengths:
            found = self._prefixes.get((length, number >> 128 - length))
            if found is not None:
                return found
        return None

    def holder(self, prefix: MobileNetworkPrefix) -> Binding | None:
        """The entry that has exactly this mobile network prefix."""
        network, length = prefix
        return self._prefixes.get((length, int.from_bytes(network, "big") >> 128 - length))

    def set_prefixes(self, binding: Binding, prefixes: tuple[MobileNetworkPrefix, ...]) -> None:
        """Replace the prefixes of an entry in the longest-match table."""
        for prefix, length in binding.prefixes:
            self._prefixes.pop((length, int.from_bytes(prefix, "big") >> 128 - length), None)
        for prefix, length in prefixes:
            self._prefixes[length, int.from_bytes(prefix, "big") >> 128 - length] = binding
        binding.prefixes = prefixes
        self._lengths = sorted({length for length, _ in self._prefixes}, reverse=True)

    def bind(self, binding: Binding, care_of_address: bytes, now: float) -> None:
        """Bind without a Binding Update, for as long as a registration may last."""
        if binding.state is State.UNBOUND:
            self.registered += 1
        binding.state = State.BOUND
        binding.sequence = max(binding.sequence, 0)
        binding.care_of_address = binding.source = care_of_address
        binding.lifetime = _LONGEST
        self.prolong(binding, now + _LONGEST * LIFETIME_UNIT)

    def prolong(self, binding: Binding, expires: float) -> None:
        """An entry ends at ``expires``, and until then nothing else is due."""
        binding.expires = expires
        binding.announce_at = binding.refresh_at = _NEVER
        binding.announcements = 0
        self.schedule(binding)

    def schedule(self, binding: Binding) -> None:
        """Note that the deadline of ``binding`` changed; free when it only moved later."""
        deadline = binding.deadline
        if deadline < binding.wakes:
            binding.wakes = deadline
            heappush(self._heap, (deadline, binding.home_address))

    def next_deadline(self) -> float | None:
        """The earliest moment at which :meth:`due` may have something."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Binding]:
        """Entries whose deadline has come; whoever takes one moves its deadline before the next.

        Not more than a batch of them: when a hundred thousand end at once, packets go on in between.
        """
        heap = self._heap
        for _ in range(_BATCH):
            if not heap or heap[0][0] > now:
                return
            deadline, home_address = heappop(heap)
            binding = self._entries.get(home_address)
            if binding is None or binding.wakes != deadline:
                continue
            binding.wakes = _NEVER
            if binding.deadline <= now:
                yield binding
            self.schedule(binding)
