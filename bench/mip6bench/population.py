"""What a population of bindings costs: memory, refreshes, first registrations, expiry.

Each size lives in a process of its own (``serve``), so that memory is what that population took and no
other. All populations exist at the same time and are measured in turn, so that whatever slows the machine
slows all of them.

``bytes_per_binding`` is the growth of the resident set between "everything imported" and "everything
registered", divided by the number of mobile nodes. It counts, per mobile node: the parameters (name, keys,
two SAs), the two SAs with replay window and counters in the SAD, the binding with its place in the heap, and
its share of every table; in all sizes also the ciphers that are kept (a bounded number, which is why
small populations look expensive), and whatever the allocator lost on the way. ``bytes_per_binding_aged`` is
the same after every replay window was filled, as after 1,024 refreshes.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from os import sysconf
from pathlib import Path
from statistics import median
from time import perf_counter

from mip6ha.node import HomeAgent

from .core import microseconds
from .workload import LIFETIME, Sender, home_agent, mobile_nodes, randomness

__all__ = ["SIZES", "STEPS", "population_figures", "resident", "serve"]

SIZES = (1_000, 10_000, 100_000)
_ROUNDS = 40
STEPS = _ROUNDS + 1 + 2 * len(SIZES)
"""How often :func:`population_figures` reports progress."""
_CHUNK = 1_000
_IDLE_CALLS = 10_000


def resident() -> int:
    """Octets of memory that this process has, garbage aside."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * sysconf("SC_PAGE_SIZE")


def serve(size: int) -> None:
    """Be the population: register, tell memory and cost, then answer each line of standard input.

    Answers are lines of JSON. ``refresh``: microseconds each for one chunk in random order; ``expire``: the
    cost of the timer when nothing is due, and of every binding ending at once.
    """
    random = randomness(size)
    before = resident()
    nodes = tuple(mobile_nodes(size, random))
    home = home_agent(nodes, random, 0.0)
    registration = []
    for start in range(0, size, _CHUNK):
        packets = [Sender(node, random).update() for node in nodes[start : start + _CHUNK]]
        begun = perf_counter()
        for packet in packets:
            home.receive(packet, 0.0)
        registration.append((perf_counter() - begun) / len(packets) * 1e6)
        del packets
    assert home.counters == {"registrations": size}, home.counters
    registered = resident()
    for association in home.associations.database:
        if association.window is not None:
            association.window.bitmap = (1 << association.window.size) - 1
    aged = resident()
    _answer(
        bytes_per_binding=(registered - before) / size,
        bytes_per_binding_aged=(aged - before) / size,
        first_registration_us=median(registration),
    )
    senders = [Sender(node, random, used=1) for node in nodes]
    order: list[Sender] = []
    for line in sys.stdin:
        if line.strip() == "refresh":
            if len(order) < _CHUNK:
                order = random.sample(senders, len(senders))
            chunk, order = order[:_CHUNK], order[_CHUNK:]
            packets = [sender.update() for sender in chunk]
            _answer(us=microseconds(home, packets, 1.0))
        else:
            _answer(**_expire(home, size))


def _all_due(home: HomeAgent, now: float) -> None:
    """The timer fires for a batch at a time."""
    while (deadline := home.next_deadline()) is not None and deadline <= now:
        home.on_timer(now)


def _expire(home: HomeAgent, size: int) -> dict[str, float]:
    # First the repeated announcements of each home address: after them nothing is due for an hour.
    _all_due(home, 2.0)
    _all_due(home, 4.0)
    begun = perf_counter()
    for _ in range(_IDLE_CALLS):
        home.next_deadline()
        home.on_timer(5.0)
    idle = (perf_counter() - begun) / _IDLE_CALLS * 1e6
    begun = perf_counter()
    _all_due(home, 2.0 + LIFETIME)
    expiry = (perf_counter() - begun) / size * 1e6
    assert home.counters["expiries"] == size, home.counters
    return {"idle_timer_us": idle, "expiry_us": expiry}


def _answer(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


class _Population:
    """A process that serves ``size`` bindings."""

    def __init__(self, size: int) -> None:
        command = [sys.executable, sys.argv[0], "--population", str(size)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, question: str) -> dict[str, float]:
        """Ask, and wait for the figures."""
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        return self.answer()

    def answer(self) -> dict[str, float]:
        """The next line of figures."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a population ended early")
        figures: dict[str, float] = json.loads(line)
        return figures

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def _population(size: int) -> Iterator[_Population]:
    population = _Population(size)
    try:
        yield population
    finally:
        population.close()


def population_figures(step: Callable[[], None]) -> dict[str, object]:
    """Every figure of this module, as objects keyed by the number of bindings."""
    figures: dict[str, dict[str, float]] = {}

    def note(size: int, **values: float) -> None:
        for name, value in values.items():
            figures.setdefault(f"{name}", {})[str(size)] = value

    with ExitStack() as stack:
        populations = {}
        for size in SIZES:
            # One after the other: registering is measured too.
            populations[size] = stack.enter_context(_population(size))
            note(size, **populations[size].answer())
            step()
        refreshes: dict[int, list[float]] = {size: [] for size in SIZES}
        for repeat in range(_ROUNDS + 1):
            for size, population in populations.items():
                spent = population.ask("refresh")["us"]
                if repeat:
                    refreshes[size].append(spent)
            step()
        for size, population in populations.items():
            note(size, bu_refresh_us_by_bindings=median(refreshes[size]))
            note(size, **population.ask("expire"))
            step()
    return dict(figures)
