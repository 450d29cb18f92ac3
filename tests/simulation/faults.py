"""What goes wrong, decided on the way by the run's random source.

Covered: crashes between any two effects or before stable storage is written, restarts, pauses with and
without the clock, slow processes, cuts of the sync side and the home side one way or both, bad networks,
commands, floods. Not covered: attacks (``attacker``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mip6ha.ipsec.policy import Use

if TYPE_CHECKING:
    from .host import Host
    from .world import World

__all__ = ["Faults"]


class Faults:
    """One fault after another, several at a time, until ``over``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.over = False
        self._interval = min(group.plan.interval for group in world.groups)
        self._kinds: tuple[tuple[int, Callable[[], None]], ...] = (
            (14, self._crash),
            (12, self._trap),
            (3, self._trap_storage),
            (2, self._die),
            (8, self._pause),
            (4, self._slow),
            (14, self._cut_sync),
            (7, self._cut_home),
            (5, self._isolate),
            (5, self._bad_network),
            (12, self._command),
            (8, self._command_in_vain),
            (5, self._stop),
            (4, self._flood),
            (5, self._burst),
            (3, self._roll),
        )
        if any(group.plan.arbiter for group in world.groups):
            self._kinds += ((20, self._cut_arbiter),)
        if world.plan.is_plain_draft:
            self._kinds = ((10, self._draft_crash), (4, self._flood), (4, self._burst))

    def strike(self) -> None:
        """Something happens, and something else later."""
        world = self._world
        if self.over:
            return
        world.at(world.random.expovariate(1 / world.plan.fault_gap), self.strike)
        kinds = self._kinds
        world.random.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])[0]()

    # -- durations and victims ---------------------------------------------------------------------

    def _while(self, longest: float = 25.0) -> float:
        """Seconds: from less than one hello interval to many, short ones as often as long ones."""
        random = self._world.random
        return float(self._interval * 0.3 * (longest / 0.3) ** random.random())

    def _victim(self) -> Host:
        """A host; rather often one with an active member."""
        world = self._world
        active = [life.seat.host for group in world.groups for life in group.lives if life.serves]
        if active and world.random.random() < 0.5:
            return world.random.choice(active)
        return world.random.choice(world.hosts)

    def _later(self, delay: float, function: Callable[[], object]) -> None:
        def unless_over() -> None:
            if not self.over:
                function()

        self._world.at(delay, unless_over)

    # -- processes ---------------------------------------------------------------------------------

    def _crash(self) -> None:
        host = self._victim()
        host.crash("killed")
        self._later(self._while(), host.start)

    def _draft_crash(self) -> None:
        host = self._victim()
        if all(other.up for other in self._world.hosts):
            host.crash("killed")
            self._later(8 * self._interval + self._while(), host.start)

    def _trap(self) -> None:
        host = self._victim()
        if not host.up or host.trap is not None:
            return
        host.trap = self._world.random.randrange(40)
        self._restart_after_trap(host)

    def _trap_storage(self) -> None:
        host = self._victim()
        if host.up:
            host.trap_storage = True
            self._restart_after_trap(host)

    def _restart_after_trap(self, host: Host) -> None:
        """Whenever it crashed until then, it comes back."""
        self._later(self._while() + 3 * self._interval, host.start)

    def _die(self) -> None:
        """For good; but one host stays of every group."""
        host = self._victim()
        for seat in host.seats:
            if not any(other.host is not host and not other.host.gone for other in seat.group.seats):
                return
        host.gone = True
        host.crash("for good")

    def _stop(self) -> None:
        host = self._victim()
        host.stop()
        self._later(self._while(), host.start)

    def _roll(self) -> None:
        """Every host in turn, with or without time to catch up."""
        pace = self._interval * self._world.random.choice((3, 10, 25))
        stops = self._world.random.random() < 0.5
        for index, host in enumerate(self._world.hosts):
            self._later(index * pace, host.stop if stops else lambda host=host: host.crash("rolling"))  # type: ignore[misc]
            self._later(index * pace + self._interval * self._world.random.uniform(0.5, 6), host.start)

    def _pause(self) -> None:
        arbiter = any(group.plan.arbiter for group in self._world.groups)
        stops = not arbiter and self._world.random.random() < 0.4
        self._victim().pause(self._while(), stops_clock=stops)

    def _slow(self) -> None:
        host = self._victim()
        host.cost = self._world.random.choice((0.002, 0.01, 0.05, 0.2)) * min(1.0, self._interval / 0.2)
        self._world.log("slow", f"h{host.index}", f"{host.cost} s a packet")
        self._later(self._while(), lambda: setattr(host, "cost", 0.0))

    # -- links -------------------------------------------------------------------------------------

    def _cut(self, table: dict[object, int], paths: list[object], what: str) -> None:
        duration = self._while()
        self._world.log("cut", what, f"{paths} for {duration:.2f} s")
        for path in paths:
            table[path] = table.get(path, 0) + 1

        def heal() -> None:
            self._world.log("healed", what, paths)
            for path in paths:
                table[path] -= 1

        self._later(duration, heal)

    def _cut_sync(self) -> None:
        random, hosts = self._world.random, len(self._world.hosts)
        how = random.random()
        if how < 0.4:
            one, other = random.sample(range(hosts), 2)
            paths: list[object] = [(one, other)] if random.random() < 0.5 else [(one, other), (other, one)]
        elif how < 0.7:
            lonely = self._victim().index
            inwards, outwards = random.choice(((True, True), (True, True), (True, False), (False, True)))
            others = [each for each in range(hosts) if each != lonely]
            paths = [(each, lonely) for each in others if inwards]
            paths += [(lonely, each) for each in others if outwards]
        else:
            side = set(random.sample(range(hosts), random.randint(1, hosts - 1)))
            paths = [(a, b) for a in range(hosts) for b in range(hosts) if (a in side) != (b in side)]
        self._cut(self._world.network.sync_cuts, paths, "sync")  # type: ignore[arg-type]

    def _cut_home(self) -> None:
        random = self._world.random
        index = self._victim().index
        routers = random.choice(((0,), (1,), (0, 1)))
        ways = random.choice(((True, False), (True, False), (True,), (False,)))
        paths: list[object] = [(router, index, way) for router in routers for way in ways]
        self._cut(self._world.network.home_cuts, paths, "home")  # type: ignore[arg-type]

    def _isolate(self) -> None:
        """All links of a host at once."""
        hosts, index = len(self._world.hosts), self._victim().index
        sync: list[object] = [(index, each) for each in range(hosts) if each != index]
        sync += [(each, index) for each in range(hosts) if each != index]
        home: list[object] = [(router, index, way) for router in (0, 1) for way in (True, False)]
        state = self._world.random.getstate()
        self._cut(self._world.network.sync_cuts, sync, "sync")  # type: ignore[arg-type]
        # The same duration for both.
        self._world.random.setstate(state)
        self._cut(self._world.network.home_cuts, home, "home")  # type: ignore[arg-type]

    def _cut_arbiter(self) -> None:
        paths: list[object] = [self._victim().index]
        self._cut(self._world.network.arbiter_cuts, paths, "arbiter")  # type: ignore[arg-type]

    def _bad_network(self) -> None:
        network, random = self._world.network, self._world.random
        before = self._world.plan.quality
        network.quality = replace(
            before,
            loss=random.choice((0.05, 0.15, 0.3)),
            duplicate=random.choice((0.0, 0.1)),
            longest=random.choice((0.01, 0.05, 0.2)) * min(1.0, self._interval / 0.2),
        )
        self._world.log("network", network.quality)
        self._later(self._while(), lambda: setattr(network, "quality", before))

    # -- people ------------------------------------------------------------------------------------

    def _command(self) -> None:
        random = self._world.random
        group = random.choice(self._world.groups)
        lives = [life for life in group.lives if not life.seat.host.paused]
        if not lives:
            return
        life = random.choice(lives)
        if life.serves or random.random() < 0.2:
            life.switchback()
        else:
            life.switchover()

    def _command_in_vain(self) -> None:
        """The path between members, or one of them, goes at some moment of a planned switch."""
        self._command()
        harm = self._world.random.choice((self._cut_sync, self._cut_sync, self._isolate, self._crash))
        self._later(self._world.random.uniform(0, 0.2) * self._interval, harm)

    def _flood(self) -> None:
        """All mobile nodes of a group at once."""
        for mobile_node in self._world.random.choice(self._world.groups).mobile_nodes:
            mobile_node.refresh()

    def _burst(self) -> None:
        """More payload than the numbers that are replicated ahead."""
        for mobile_node in self._world.random.choice(self._world.groups).mobile_nodes:
            if Use.PAYLOAD in mobile_node.outbound:
                mobile_node.payload(self._world.random.choice((5, 40, 90)))
