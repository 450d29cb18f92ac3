"""Many mobile nodes that only register: Binding Updates out as fast as they can be made, answers in.

Covered: registration, refresh, move and de-registration away from home under one pair of ``signalling`` SAs
for each mobile node, retransmission (RFC 6275 11.8). Not covered: how many at a time (``edge.mobile_load``),
and everything else that a mobile node does (``mobile_node``): payload, coming home, errors.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from heapq import heappop, heappush
from struct import Struct

from ..binding.messages import ACCEPTED, LIFETIME_UNIT, MessageType, OptionType, Status, UpdateFlag
from ..ipsec import esp
from ..ipsec.algorithms import Keys, Transform
from ..ipsec.policy import Direction, Use
from ..ipsec.sad import SecurityAssociation
from ..ipv6 import DESTINATION_OPTIONS, ESP, HOME_ADDRESS_OPTION, MOBILITY, NO_NEXT_HEADER, ROUTING
from ..wire import Refused, checksum, verifies
from .registration import FIRST_TIMEOUT, INITIAL_TIMEOUT, LONGEST_TIMEOUT

__all__ = ["Fleet", "FleetNode", "Phase", "PhaseReport", "percentile"]

_FLAGS = int(UpdateFlag.ACKNOWLEDGE | UpdateFlag.HOME_REGISTRATION)
# A Binding Update with an Alternate Care-of Address option, and the frame around it, always the same size.
_UPDATE = Struct(">BBBBHHHHBBBB16s")
_UPDATE_UNITS = _UPDATE.size // 8 - 1
_PAD_N = 1
_HEADER = Struct(">IHBB16s16s")
_OPTION = Struct(">BBBBBBBB16s")
_ANSWER = Struct(">6xBBHH")
_HEAD = 40
_ROUTED = _HEAD + 24


class Phase(Enum):
    """What every mobile node does once."""

    REGISTER = "register"
    REFRESH = "refresh"
    MOVE = "move"
    DEREGISTER = "deregister"


def percentile(ordered: list[float], share: float) -> float:
    """The value below which ``share`` of an ordered list lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(slots=True)
class PhaseReport:
    """What one phase came to; times in seconds, latencies from a mobile node's first Binding Update."""

    phase: Phase
    count: int
    began: float
    ended: float = 0.0
    sent: int = 0
    retransmissions: int = 0
    accepted: int = 0
    unanswered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def settled(self) -> int:
        """Mobile nodes that have their answer, or have given up."""
        return len(self.latencies) + self.unanswered

    def as_json(self) -> dict[str, object]:
        """The figures; latencies in ms."""
        seconds = max(self.ended - self.began, 1e-9)
        ordered = sorted(self.latencies)
        shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        return {
            "phase": self.phase.value,
            "count": self.count,
            "accepted": self.accepted,
            "unanswered": self.unanswered,
            "seconds": round(seconds, 6),
            "per_second": round(len(ordered) / seconds, 1),
            "latency_ms": {
                name: round(percentile(ordered, share) * 1000, 3) if ordered else None
                for name, share in shares.items()
            },
            "binding_updates": self.sent,
            "retransmissions": self.retransmissions,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "dropped": dict(sorted(self.dropped.items())),
        }


class FleetNode:
    """One mobile node: what is ready to be sent, and what it waits for."""

    __slots__ = (
        "attempt",
        "began",
        "care_of_address",
        "head",
        "home_address",
        "inbound",
        "outbound",
        "pending",
        "sequence",
        "sum",
    )

    def __init__(
        self, home_address: bytes, outbound: SecurityAssociation, inbound: SecurityAssociation
    ) -> None:
        self.home_address = home_address
        self.outbound = outbound
        self.inbound = inbound
        self.care_of_address = b""
        self.head = b""
        self.sum = 0
        self.sequence = 0
        self.attempt = 0
        self.began = 0.0
        self.pending = False


class Fleet:
    """Runs one phase after the other: :meth:`begin`, then :meth:`fill`, :meth:`receive` and :meth:`on_timer`.

    ``keys`` gives the keys of (home address, SPI); SPIs count from ``first_spi`` as in the home agent's pool.
    ``sequence_floor`` as for every mobile node; one run sends at most :data:`RESERVATION` updates per node.
    """

    RESERVATION = 1 << 16

    def __init__(
        self,
        *,
        home_agent: bytes,
        home_addresses: Iterable[bytes],
        care_of_prefix: bytes,
        first_spi: int,
        protection: Transform,
        keys: Callable[[bytes, int], Keys],
        random: Callable[[int], bytes],
        lifetime: int,
        esn: bool = False,
        sequence_floor: int = 0,
        retries: int = 5,
    ) -> None:
        self.report: PhaseReport | None = None
        self._home_agent = home_agent
        self._care_of_prefix = care_of_prefix[:8]
        self._first_spi = first_spi
        self._random = random
        self._lifetime = max(1, lifetime // LIFETIME_UNIT)
        self._retries = retries
        self._round = 0
        self._units = 0
        self._first_timeout = INITIAL_TIMEOUT
        self._waiting: deque[FleetNode] = deque()
        self._outstanding = 0
        self._deadlines: list[tuple[float, int, int]] = []
        self._nodes: list[FleetNode] = []
        self.reserved = sequence_floor + self.RESERVATION
        for index, home_address in enumerate(home_addresses):
            pair = []
            for direction, spi in (
                (Direction.OUT, first_spi + 2 * index),
                (Direction.IN, first_spi + 2 * index + 1),
            ):
                pair.append(
                    SecurityAssociation(
                        spi=spi,
                        direction=direction,
                        use=Use.SIGNALLING,
                        home_address=home_address,
                        transform=protection,
                        keys=keys(home_address, spi),
                        esn=esn,
                        to_home_agent=direction is Direction.OUT,
                    )
                )
            node = FleetNode(home_address, *pair)
            node.outbound.sequence = sequence_floor
            node.outbound.limit = min(self.reserved, node.outbound.limit)
            # An earlier run cannot have got here, so the home agent finds it new.
            node.sequence = sequence_floor // self.RESERVATION * 64 & 0xFFFF
            self._nodes.append(node)

    def __len__(self) -> int:
        return len(self._nodes)

    def begin(self, phase: Phase, now: float) -> PhaseReport:
        """Start a phase: every mobile node has one Binding Update to get acknowledged."""
        if phase is Phase.MOVE:
            self._round += 1
        self._units = 0 if phase is Phase.DEREGISTER else self._lifetime
        self._first_timeout = FIRST_TIMEOUT if phase is Phase.REGISTER else INITIAL_TIMEOUT
        self._deadlines.clear()
        self._outstanding = 0
        for index, node in enumerate(self._nodes):
            node.pending = False
            self._prepare(node, index)
        self._waiting = deque(self._nodes)
        self.report = PhaseReport(phase, len(self._nodes), now, now)
        return self.report

    @property
    def outstanding(self) -> int:
        """Binding Updates that wait for their answer."""
        return self._outstanding

    @property
    def finished(self) -> bool:
        """Whether every mobile node has its answer or has given up."""
        return not self._waiting and not self._outstanding

    def fill(self, count: int, now: float) -> list[bytes]:
        """Up to ``count`` packets: the first Binding Updates of mobile nodes that have not yet sent one."""
        packets = []
        for _ in range(min(count, len(self._waiting))):
            node = self._waiting.popleft()
            node.attempt = 0
            node.began = now
            node.pending = True
            self._outstanding += 1
            packets.append(self._send(node, now))
        return packets

    def receive(self, packet: bytes, now: float) -> list[bytes]:
        """A packet from the home agent; what is to be sent at once because of it."""
        report = self.report
        if report is None:
            return []
        try:
            return self._answer(packet, report, now)
        except Refused as refused:
            report.dropped[refused.reason] += 1
            return []

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` may have something to do."""
        return self._deadlines[0][0] if self._deadlines else None

    def on_timer(self, now: float) -> list[bytes]:
        """Retransmissions that are due."""
        packets = []
        deadlines, report = self._deadlines, self.report
        while report is not None and deadlines and deadlines[0][0] <= now:
            _, index, sequence = heappop(deadlines)
            node = self._nodes[index]
            if not node.pending or node.sequence != sequence:
                continue
            if node.attempt > self._retries:
                node.pending = False
                self._outstanding -= 1
                report.unanswered += 1
                report.ended = now
                continue
            report.retransmissions += 1
            packets.append(self._send(node, now))
        return packets

    def _prepare(self, node: FleetNode, index: int) -> None:
        """Everything of the node's packets that does not change while it stays where it is."""
        host = (self._round << 32 | index + 1).to_bytes(8, "big")
        node.care_of_address = address = self._care_of_prefix + host
        node.head = _OPTION.pack(ESP, 2, 1, 2, 0, 0, HOME_ADDRESS_OPTION, 16, node.home_address)
        # RFC 1071: the sum with sequence number zero; the number is added to it later.
        octets = self._update(0, 0, address)
        node.sum = checksum(node.home_address, self._home_agent, MOBILITY, octets)

    def _update(self, sum_: int, sequence: int, address: bytes) -> bytes:
        kind, option = MessageType.BINDING_UPDATE, OptionType.ALTERNATE_CARE_OF_ADDRESS
        return _UPDATE.pack(
            NO_NEXT_HEADER,
            _UPDATE_UNITS,
            kind,
            0,
            sum_,
            sequence,
            _FLAGS,
            self._units,
            _PAD_N,
            0,
            option,
            16,
            address,
        )

    def _send(self, node: FleetNode, now: float) -> bytes:
        node.sequence = sequence = node.sequence + 1 & 0xFFFF
        timeout = min(self._first_timeout * 2**node.attempt, LONGEST_TIMEOUT)
        node.attempt += 1
        index = (node.outbound.spi - self._first_spi) // 2
        heappush(self._deadlines, (now + timeout, index, sequence))
        if self.report is not None:
            self.report.sent += 1
        octets = self._update((node.sum - sequence) % 0xFFFF, sequence, node.care_of_address)
        payload = node.head + esp.protect(node.outbound, MOBILITY, octets, self._random)
        fixed = (0x60000000, len(payload), DESTINATION_OPTIONS, 64, node.care_of_address, self._home_agent)
        return _HEADER.pack(*fixed) + payload

    def _answer(self, packet: bytes, report: PhaseReport, now: float) -> list[bytes]:
        if len(packet) < _ROUTED + 8 or packet[6] != ROUTING or packet[_HEAD] != ESP:
            raise Refused("not_an_answer")
        index, odd = divmod(int.from_bytes(packet[_ROUTED : _ROUTED + 4], "big") - self._first_spi, 2)
        if not odd or not 0 <= index < len(self._nodes):
            raise Refused("unknown_spi")
        node = self._nodes[index]
        if packet[8:24] != self._home_agent or packet[_HEAD + 8 : _ROUTED] != node.home_address:
            raise Refused("addresses")
        next_header, octets = esp.unprotect(node.inbound, packet[_ROUTED:])
        if next_header != MOBILITY or len(octets) < 12 or octets[2] != MessageType.BINDING_ACKNOWLEDGEMENT:
            raise Refused("not_an_acknowledgement")
        if not verifies(self._home_agent, node.home_address, MOBILITY, octets):
            raise Refused("mobility_header_checksum")
        status, _, sequence, _ = _ANSWER.unpack_from(octets)
        if not node.pending:
            raise Refused("unexpected_acknowledgement")
        if status == Status.SEQUENCE_OUT_OF_WINDOW:
            if 0 < (node.sequence - sequence & 0xFFFF) < 0x8000:
                raise Refused("stale_acknowledgement")
            report.statuses[status] += 1
            node.sequence = sequence
            return [self._send(node, now)]
        if sequence != node.sequence:
            raise Refused("stale_acknowledgement")
        node.pending = False
        self._outstanding -= 1
        report.statuses[status] += 1
        report.accepted += status < ACCEPTED
        report.latencies.append(now - node.began)
        report.ended = now
        return []
