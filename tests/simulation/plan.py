"""What a seed means: how many members, groups and mobile nodes, which settings, clocks and network.

Covered: everything that is fixed before the run. Not covered: what goes wrong when (``faults``), which the
same random source decides on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["CALM", "ClockPlan", "GroupPlan", "Plan", "Quality", "plan"]


@dataclass(frozen=True, slots=True)
class Quality:
    """One way through the network: probabilities, and delays in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    shortest: float = 0.0002
    longest: float = 0.005


CALM = Quality(0.0, 0.005, 0.0002, 0.005)
"""What the network is like when nothing more goes wrong."""
_QUALITIES = (
    Quality(0.0, 0.0, 0.0002, 0.001),
    CALM,
    Quality(0.01, 0.01, 0.0002, 0.02),
    Quality(0.05, 0.02, 0.001, 0.1),
    Quality(0.02, 0.05, 0.0002, 0.2),
)


@dataclass(frozen=True, slots=True)
class ClockPlan:
    """A host's clock: what it shows at the beginning, and how much faster than true it runs."""

    offset: float
    drift: float


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """A redundant set: its members' hosts, its mobile nodes, its settings. Times are seconds."""

    number: int
    hosts: tuple[int, ...]
    mobile_nodes: int
    with_payload: int
    payload_interval: float
    interval: float
    synchronous: bool
    preempt: bool
    arbiter: bool
    extensions: bool
    probing: bool
    lifetime: int
    transform: tuple[str, str | None]
    esn: bool
    hold_down: float
    sites: int
    lends: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A run: ``duration`` seconds, of which faults happen in the first ``faulty``.

    ``fault_gap`` is the mean time between faults, ``replay_gap`` that between an attacker's packets,
    ``batch`` how long a host collects inputs before it flushes.
    """

    seed: int
    duration: float
    faulty: float
    clocks: tuple[ClockPlan, ...]
    groups: tuple[GroupPlan, ...]
    quality: Quality
    fault_gap: float
    replay_gap: float
    batch: float

    @property
    def settle(self) -> float:
        """How long after the last fault everything must be in order again."""
        return 6.0 + 30 * max(group.interval for group in self.groups)

    @property
    def is_plain_draft(self) -> bool:
        """Whether members speak nothing but the draft: then most rules cannot hold."""
        return not self.groups[0].extensions


def plan(seed: int, minutes: float) -> Plan:
    """The plan of a seed; one in ten is short and fast."""
    random = Random(f"plan {seed}")
    fast = seed % 10 == 7
    draft = seed % 25 == 24
    duration = 60 * minutes
    if fast:
        duration = min(duration, 12.0)
    hosts = random.choices((2, 3, 4, 5), (40, 35, 15, 10))[0]
    count = 1 if draft else random.choices((1, 2), (75, 25))[0]
    interval = 0.01 if fast else random.choice((0.2, 0.25, 0.3, 0.4, 0.5))
    if not fast and hosts > 3:
        interval = 0.5
    groups = tuple(
        _group(random, number, hosts, interval, draft=draft, lends=(seed + number) % 3 == 0)
        for number in range(1, count + 1)
    )
    settle = 6.0 + 30 * interval
    if fast:
        # The tail is long compared with so short a run: it is added.
        duration += settle
    return Plan(
        seed=seed,
        duration=duration,
        faulty=max(2.0, duration - settle - 14.0),
        clocks=tuple(ClockPlan(random.uniform(0, 1e6), random.uniform(-1e-4, 1e-4)) for _ in range(hosts)),
        groups=groups,
        quality=_QUALITIES[0] if draft else random.choice(_QUALITIES[:3] if fast else _QUALITIES),
        fault_gap=random.choice((1.0, 2.0, 4.0)) if fast else random.choice((2.0, 4.0, 8.0)),
        replay_gap=random.choice((0.1, 0.3, 1.0)),
        batch=random.choice((0.0, 0.0, 0.0005)),
    )


def _group(
    random: Random, number: int, hosts: int, interval: float, *, draft: bool, lends: bool
) -> GroupPlan:
    members = tuple(range(hosts))
    if number > 1 and hosts > 2 and random.random() < 0.5:
        members = tuple(sorted(random.sample(members, random.randint(2, hosts))))
    mobile_nodes = random.choices((3, 12, 40, 150), (30, 45, 20, 5))[0]
    arbiter = not draft and number == 1 and random.random() < 0.2
    return GroupPlan(
        number=number,
        hosts=members,
        mobile_nodes=mobile_nodes,
        with_payload=min(mobile_nodes, random.choice((0, 2, 5))),
        payload_interval=random.choice((0.3, 0.6, 1.5)),
        interval=interval,
        synchronous=random.random() < 0.88,
        preempt=not draft and random.random() < 0.3,
        arbiter=arbiter,
        extensions=not draft,
        probing=random.random() < 0.2,
        lifetime=random.choice((20, 40, 120)),
        transform=random.choice(
            (("aes-gcm-16", None),) * 4
            + (("chacha20-poly1305", None), ("aes-cbc", "hmac-sha2-256-128"), ("null", "hmac-sha2-256-128"))
        ),
        esn=random.random() < 0.2,
        hold_down=random.choice((0.5, 1.0, 3.0)),
        sites=random.choice((1, 2, 2)),
        # A kernel goes on while the process is paused, past its lease too.
        lends=lends and not draft and not arbiter,
    )
