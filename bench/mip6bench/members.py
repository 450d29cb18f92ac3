"""A process that is one member of a set of two: the core, a socket to the other member, a real clock.

It does what ``bench/mip6bench/failover.py`` tells it on standard input, a word and a number a line, and
answers each line with one of JSON. The garbage collector is set as the daemon sets it. Covered: HARP between
the two, registrations made in the process itself. Not covered: a dataplane, losses.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from os import sysconf
from pathlib import Path
from time import monotonic, perf_counter, process_time

from mip6ha.effects import Effect, SendPacket, SendToMember, TakeOver
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.member import Member
from mip6ha.parameters import AssociationParameters, GroupParameters, PeerParameters
from mip6ha.wire import address

from .workload import TRANSFORM, Sender, home_agent_parameters, keys, mobile_nodes, randomness

__all__ = ["SocketPair", "serve", "spare_collections"]

_ADDRESSES = {1: address("2001:db8:e::1"), 2: address("2001:db8:e::2")}
_FIRST_SPI = 0x300
_CHUNK = 1_000
_BUFFER = 4 << 20
_LONGEST = 65536
_BATCH = 256


class SocketPair:
    """Two connected sockets that keep packets apart."""

    def __init__(self) -> None:
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self.ends:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)

    def close(self) -> None:
        """In this process."""
        for end in self.ends:
            end.close()


def _group(identity: int) -> GroupParameters:
    random, other = randomness(40), 3 - identity
    directed = {1: keys(random), 2: keys(random)}
    out, into = (
        AssociationParameters(_FIRST_SPI + sender, direction, Use.HARP, TRANSFORM, directed[sender])
        for sender, direction in ((identity, Direction.OUT), (other, Direction.IN))
    )
    peer = PeerParameters(other, _ADDRESSES[other], (out, into))
    return GroupParameters(1, identity, _ADDRESSES[identity], (peer,), start_wait=0.2)


def spare_collections() -> None:
    """As the daemon does it: no collection looks at what lives long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 5, 1 << 30)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    """The largest resident set since the last :func:`_forget_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class _Process:
    """The member, and what it has spent since the last ``mark``."""

    def __init__(self, identity: int, size: int, descriptor: int) -> None:
        gc.collect()
        self._before = _resident()
        self._socket = socket.socket(fileno=descriptor)
        self._other = _ADDRESSES[3 - identity]
        self._random = randomness(identity)
        self._nodes = tuple(mobile_nodes(size, randomness(size)))
        parameters = home_agent_parameters(self._nodes)
        self._member = Member(parameters, _group(identity), self._random.randbytes, monotonic())
        self.started = False
        self._octets = self._messages = self._answers = 0
        self._processor = process_time()
        self._began_serving: float | None = None
        spare_collections()
        self.mark()

    def mark(self, _: int = 0) -> dict[str, float]:
        """What was spent since the last mark; the next one begins here."""
        spent = {
            "processor_s": process_time() - self._processor,
            "octets": self._octets,
            "messages": self._messages,
            "peak_mib": _peak() / (1 << 20),
            "bytes_per_context": (_resident() - self._before) / len(self._nodes),
        }
        _forget_peak()
        self._octets = self._messages = 0
        self._processor = process_time()
        return spent

    def start(self, _: int) -> dict[str, float]:
        """Take part, until this member is active or has all that the active one has."""
        begun = monotonic()
        self.started = True
        self._perform(self._member.start(begun))
        return self.settle(begun=begun)

    def settle(self, _: int = 0, begun: float | None = None) -> dict[str, float]:
        """Wait until this member is active or has all that the active one has."""
        begun = monotonic() if begun is None else begun
        machine = self._member.machine
        while not (machine.serves or machine.eligible):
            self.step()
        return {"seconds": monotonic() - begun}

    def register(self, _: int) -> dict[str, float]:
        """Have every mobile node register here."""
        member, random = self._member, self._random
        for start in range(0, len(self._nodes), _CHUNK):
            packets = [Sender(node, random).update() for node in self._nodes[start : start + _CHUNK]]
            for packet in packets:
                self._perform(member.receive(packet, monotonic()))
            self.step(wait=0.0)
        if self._answers != len(self._nodes):
            raise RuntimeError(f"{self._answers} of {len(self._nodes)} were answered: {member.counters}")
        return {}

    def take_over(self, used: int) -> dict[str, float]:
        """Wait for the silence of the active member; from its being noticed until one update is answered.

        ``used`` Binding Updates of that mobile node, the last one, came before.
        """
        update = Sender(self._nodes[-1], self._random, used).update()
        self._began_serving = None
        while self._began_serving is None:
            self.step()
        answers, begun = self._answers, perf_counter()
        now = monotonic()
        self._perform(self._member.receive(update, now))
        self._perform(self._member.flush(now))
        if self._answers != answers + 1:
            raise RuntimeError(f"the new active member did not answer: {self._member.counters}")
        answered = perf_counter() - begun
        return {"timer_ms": self._began_serving * 1e3, "answer_ms": answered * 1e3}

    def step(self, wait: float | None = None) -> None:
        """One round of inputs, as the daemon takes them; ``wait`` seconds at most for the first."""
        member = self._member
        deadline = member.next_deadline()
        if wait is None:
            wait = 1.0 if deadline is None else max(0.0, deadline - monotonic())
        if select.select([self._socket], [], [], wait)[0]:
            self._hear()
        deadline = member.next_deadline()
        if deadline is not None and deadline <= monotonic():
            begun = perf_counter()
            effects = member.on_timer(monotonic())
            if any(type(effect) is TakeOver for effect in effects):
                self._began_serving = perf_counter() - begun
            self._perform(effects)

    def _hear(self) -> None:
        member = self._member
        with suppress(BlockingIOError):
            for _ in range(_BATCH):
                packet = self._socket.recv(_LONGEST)
                if not packet:
                    sys.exit("the other member is gone")
                self._perform(member.receive_member(self._other, packet, monotonic()))
        self._perform(member.flush(monotonic()))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if type(effect) is SendToMember:
                self._octets += len(effect.packet)
                self._messages += 1
                # A full socket loses packets as a network does.
                with suppress(BlockingIOError):
                    self._socket.send(effect.packet)
            elif type(effect) is SendPacket:
                self._answers += 1


def serve(identity: int, size: int, descriptor: int) -> None:
    """Be member ``identity`` for ``size`` mobile nodes, until standard input ends."""
    process = _Process(identity, size, descriptor)
    commands: dict[str, Callable[[int], dict[str, float]]] = {
        "mark": process.mark,
        "start": process.start,
        "settle": process.settle,
        "register": process.register,
        "take_over": process.take_over,
    }
    print("{}", flush=True)
    while True:
        # Between commands it goes on being a member.
        if process.started and not select.select([sys.stdin], [], [], 0)[0]:
            process.step(wait=0.002)
            continue
        line = sys.stdin.readline()
        if not line:
            return
        command, number = line.split()
        print(json.dumps(commands[command](int(number))), flush=True)
