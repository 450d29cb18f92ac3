"""What the kernel costs: single netlink requests, the home agent's dataplane, payload under ESP.

Covered: the project's own classes on a kernel that has all they need: this one, or User-Mode Linux where it
lacks something (``tools/kernel-run``), in a network namespace that ends with the measurement. Encoding
counts as well. Every figure is the median of rounds. Not covered: packets, and what announcements cost.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from mip6ha import effects
from mip6ha.config import EdgeConfiguration
from mip6ha.edge import kernel_messages, xfrm
from mip6ha.edge.features import kernel_features
from mip6ha.edge.kernel_dataplane import KernelDataplane
from mip6ha.edge.kernel_messages import INGRESS, NETLINK_ROUTE, Filter, Route
from mip6ha.edge.kernel_payload import KernelPayload
from mip6ha.edge.netlink_messages import Conversation, Failure, Request
from mip6ha.edge.xfrm import Xfrm
from mip6ha.edge.xfrm_layout import Mode, Selector
from mip6ha.edge.xfrm_policy import Direction, Policy
from mip6ha.edge.xfrm_state import Counters, Protection, State, StateFlag
from mip6ha.effects import Effect, ExtendPayload, LendPayload, LentAssociation
from mip6ha.wire import address

from .dataplane import ip
from .members import spare_collections
from .workload import FIRST_HOME_ADDRESS, FIRST_SPI, HOME_AGENT, TRANSFORM, keys, randomness

__all__ = ["STEPS", "kernel_figures", "measure"]

STEPS = 3
"""Rounds of :func:`kernel_figures`, each of which reports progress."""
Figures = dict[str, dict[str, float]]

_RUNNER = Path(__file__).resolve().parents[2] / "tools" / "kernel-run"
_RUN_LIMIT = 300
# Seconds: the kernel frees states after their removal, at the cost of those that are installed meanwhile.
_SETTLE = 2.0
_REQUESTS = 2000
_MOBILE_NODES = 2000
_PROTECTED = 1000
_TAKEOVERS = 10
_TABLE = 13500
_MTU = 1460
_HERE, _THERE = address("2001:db8:b::1"), address("2001:db8:b::2")
# Payload is lent 1,001 numbers at a time, which takes eight filters.
_FIRST, _SIZE, _WINDOW, _STEP = 1000, 1001, 64, 250


def kernel_figures(step: Callable[[], None]) -> dict[str, object]:
    """Microseconds, rates and netlink messages: medians of what :func:`measure` finds.

    Each round has a kernel of its own where that is User-Mode Linux: for some seconds after it has removed
    thousands of states every system call takes longer.
    """
    # First: what is measured is the kernel in there, not what else this machine does.
    where = ("--uml", "--first") if kernel_features().missing else ("--host",)
    command = [str(_RUNNER), *where, "--timeout", str(_RUN_LIMIT), "unshare", "--net"]
    rounds: list[Figures] = []
    for _ in range(STEPS):
        done = subprocess.run(
            [*command, sys.executable, sys.argv[0], "--kernel"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        rounds.append(json.loads(done.stdout))
        step()
    return {
        name: {key: median(each[name][key] for each in rounds) for key in values}
        for name, values in rounds[0].items()
    }


def measure() -> None:
    """Print the figures of a round as JSON; for a network namespace that nobody else uses."""
    ip("link", "add", "home", "type", "veth", "peer", "name", "far")
    ip("link", "add", "tun", "type", "dummy")
    for link in ("home", "far", "tun"):
        ip("link", "set", link, "up")
    spare_collections()
    figures: Figures = {"kernel_request_us": _request_us()}
    sleep(_SETTLE)
    for part in (_dataplane_figures(), _takeover_figures(), _payload_figures()):
        for name, values in part.items():
            figures.setdefault(name, {}).update(values)
    print(json.dumps(figures))


def _home_addresses(number: int) -> list[bytes]:
    return [(FIRST_HOME_ADDRESS + each).to_bytes(16, "big") for each in range(number)]


# -- single requests -----------------------------------------------------------------------------------------


def _send(send: Callable[[Sequence[Request]], Sequence[Failure]], requests: Iterable[Request]) -> float:
    """Microseconds for each of the requests, from making it; all of them must succeed."""
    start = perf_counter()
    sent = list(requests)
    failures = send(sent)
    spent = perf_counter() - start
    if failures:
        raise RuntimeError(f"the kernel refused a request: {failures[0]}")
    return spent / len(sent) * 1e6


def _request_us() -> dict[str, float]:
    """Microseconds of a request, 2,000 of a kind in a row; counters are asked for one by one."""
    secrets = keys(randomness(50))
    states = [
        State(
            *(_HERE, _THERE, socket.IPPROTO_ESP, Mode.TUNNEL, FIRST_SPI + number),
            protection=Protection(TRANSFORM.name, secrets),
            flags=StateFlag.ESN,
            window=_WINDOW,
        )
        for number in range(_REQUESTS)
    ]
    homes = _home_addresses(_REQUESTS)
    policies = [Policy(Selector.between(HOME_AGENT, each), Direction.OUT, 1) for each in homes]
    found: dict[str, float] = {}
    with closing(Xfrm()) as kernel:
        change = kernel.carry_out
        found["esp_install"] = _send(change, (xfrm.install(each) for each in states))
        counters = Counters(sent=_FIRST)
        found["counters_set"] = _send(change, (xfrm.count(each.id, counters, _WINDOW) for each in states))
        start = perf_counter()
        asked = [kernel.counters(each.id) for each in states]
        asked_at = perf_counter()
        dumped = list(kernel.states())
        end = perf_counter()
        if None in asked or len(dumped) != len(states):
            raise RuntimeError("the kernel does not have what was installed")
        found["counters_ask"] = (asked_at - start) / len(states) * 1e6
        found["esp_dump"] = (end - asked_at) / len(states) * 1e6
        found["esp_remove"] = _send(change, (xfrm.remove(each.id) for each in states))
        found["policy_install"] = _send(change, (xfrm.install_policy(each) for each in policies))
        found["policy_remove"] = _send(change, (xfrm.remove_policy(each) for each in policies))
    with closing(Conversation(NETLINK_ROUTE)) as routes:
        _send(routes.send, [kernel_messages.add_device("outer")])
        device = socket.if_nametoindex("outer")
        _send(routes.send, [kernel_messages.change_device(device, _MTU), kernel_messages.add_clsact(device)])
        tunnel = HOME_AGENT, _THERE
        found["route"] = _send(
            routes.send,
            (kernel_messages.add_route(Route(each, 128, device, tunnel), _TABLE) for each in homes),
        )
        wanted = (Filter(_THERE, HOME_AGENT, each, 128) for each in homes)
        found["filter"] = _send(
            routes.send,
            (
                kernel_messages.add_filter(device, INGRESS, 10, handle, each)
                for handle, each in enumerate(wanted, 1)
            ),
        )
        # There is one such device in a namespace: the dataplane's is next.
        _send(routes.send, [kernel_messages.remove_device(device)])
    return found


# -- comparisons ---------------------------------------------------------------------------------------------


def _compared(about: str, steps: Iterator[None]) -> Figures:
    """Milliseconds of a comparison and of its longest step, between two of which others have their turn."""
    spent = []
    done = False
    while not done:
        start = perf_counter()
        done = next(steps, steps) is steps
        spent.append((perf_counter() - start) * 1e3)
    return {
        "kernel_compare_ms": {about: sum(spent), f"{about}_longest_step": max(spent)},
        "kernel_compare_steps": {about: len(spent)},
    }


def _nothing_repaired(repaired: dict[str, int]) -> None:
    raise RuntimeError(f"a comparison found differences: {repaired}")


# -- the home agent's dataplane ------------------------------------------------------------------------------


class _Dataplane:
    """A kernel dataplane with a home link and a clock that stands still; ``group`` makes it a standby's."""

    def __init__(self, directory: Path, group: int | None = None) -> None:
        self.now = 0.0
        edge = EdgeConfiguration(
            *("home", "mip6bench", directory / "socket", directory, None), group, dataplane="kernel"
        )
        self.dataplane = KernelDataplane(HOME_AGENT, edge, clock=lambda: self.now)
        self.dataplane.flush()

    def close(self) -> None:
        self.dataplane.close()

    def change(self, *batches: Sequence[Effect]) -> tuple[float, float]:
        """Seconds and netlink messages of a batch; each is flushed on its own."""
        counters, carry_out, flush = self.dataplane.counters, self.dataplane.carry_out, self.dataplane.flush
        before = counters["netlink_messages"]
        start = perf_counter()
        for batch in batches:
            for effect in batch:
                carry_out(effect)
            flush()
        spent = perf_counter() - start
        sent = counters["netlink_messages"] - before
        if counters.keys() != {"netlink_messages"}:
            raise RuntimeError(f"the dataplane counted what it should not: {counters}")
        return spent / len(batches), sent / len(batches)


def _registration(home_address: bytes, care_of_address: bytes) -> tuple[Effect, ...]:
    return effects.SetTunnel(home_address, care_of_address), effects.DefendAddress(home_address)


def _dataplane_figures() -> Figures:
    """Changes a second and messages of each, and a comparison of 2,000 mobile nodes."""
    homes = _home_addresses(_MOBILE_NODES)
    at_first = [_registration(each, _HERE) for each in homes]
    rates: dict[str, float] = {}
    messages: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, closing(_Dataplane(Path(name))) as agent:

        def change(what: str, batches: Sequence[Sequence[Effect]]) -> None:
            seconds, messages[what] = agent.change(*batches)
            rates[what] = 1 / seconds

        change("registration", at_first)
        change("refresh", at_first)
        change("move", [_registration(each, _THERE) for each in homes])
        # Also look for what a killed process left.
        agent.now += 60
        compared = _compared("tunnels", agent.dataplane.repair(_nothing_repaired))
        change("end", [(effects.RemoveTunnel(each), effects.ReleaseAddress(each)) for each in homes])
    return {"kernel_changes_per_s": rates, "kernel_change_messages": messages, **compared}


def _takeover_figures() -> Figures:
    """Milliseconds and messages until a member with 2,000 mobile nodes forwards, without its last rule."""
    found = []
    with tempfile.TemporaryDirectory() as name, closing(_Dataplane(Path(name), group=1)) as member:
        member.change(*(_registration(each, _HERE) for each in _home_addresses(_MOBILE_NODES)))
        for _ in range(_TAKEOVERS):
            found.append(member.change((effects.TakeOver(),)))
            # That rule is another thread's.
            sleep(0.05)
            member.change((effects.StandDown(),))
            member.now += 60
            member.dataplane.tend()
            # Its messages are not those of the next one.
            member.dataplane.flush()
            sleep(0.05)
    seconds, messages = (median(each) for each in zip(*found, strict=True))
    return {"kernel_takeover": {"ms": seconds * 1e3, "messages": messages}}


# -- payload under ESP ---------------------------------------------------------------------------------------


def _payload_figures() -> Figures:
    """Microseconds and messages of each change to what is lent for 1,000 mobile nodes, and a comparison.

    Each is a mobile node's, but for standing down, which is everybody's.
    """
    homes = _home_addresses(_PROTECTED)
    spis = range(FIRST_SPI, FIRST_SPI + 2 * _PROTECTED, 2)
    secrets = keys(randomness(51))
    counters: Counter[str] = Counter()
    spent: dict[str, float] = {}
    messages: dict[str, float] = {}
    last = _FIRST + _SIZE - 1

    def lent(spi: int) -> tuple[LentAssociation, ...]:
        same = TRANSFORM.name, secrets, True, _WINDOW, _FIRST, last, _STEP
        return LentAssociation(False, spi, *same), LentAssociation(True, spi + 1, *same)

    lends = [LendPayload(home, lent(spi)) for home, spi in zip(homes, spis, strict=True)]

    def extensions(first: int, *, outbound: bool) -> list[ExtendPayload]:
        limit = first + _SIZE - 1
        return [
            ExtendPayload(home, outbound, spi + outbound, first, limit, _STEP)
            for home, spi in zip(homes, spis, strict=True)
        ]

    with closing(Conversation(NETLINK_ROUTE)) as kernel, closing(Conversation(NETLINK_ROUTE)) as dumps:
        dumps.select_dumps()
        payload = KernelPayload(kernel, HOME_AGENT, 0, socket.if_nametoindex("tun"), counters)

        def change(what: str, carry_out: Callable[[Any], None], changes: Sequence[object]) -> None:
            before = kernel.sent + payload.messages
            start = perf_counter()
            for each in changes:
                carry_out(each)
            spent[what] = (perf_counter() - start) / len(changes) * 1e6
            messages[what] = (kernel.sent + payload.messages - before) / len(changes)

        with closing(payload):
            repaired: Counter[str] = Counter()
            change("lend", lambda each: payload.lend(each, _HERE), lends)
            compared = _compared("payload", payload.compare(dumps, repaired))
            change("extend_out", payload.extend, extensions(last + 1, outbound=True))
            change("extend_out_elsewhere", payload.extend, extensions(10 * last, outbound=True))
            change("extend_in", payload.extend, extensions(last + 1, outbound=False))
            change("move", lambda home: payload.move(home, _THERE), homes)
            change("recall", payload.recall, homes)
            for what, at_once in (("stand_down", False), ("stand_down_at_once", True)):
                for each in lends:
                    payload.lend(each, _HERE)
                # The rest goes in steps of a comparison.
                change(what, lambda at_once: payload.stand_down(at_once=at_once), [at_once])
            if counters or +repaired or payload.news():
                raise RuntimeError(f"payload was not lent as it should have been: {counters} {repaired}")
    return {"kernel_payload_us": spent, "kernel_payload_messages": messages, **compared}
