"""One life of a member: a process between its start and its end, and what carries out its effects.

Covered: inputs in the order the edge gives them, effects one by one (a crash may come between any two),
timers. Not covered: judging what happened (``checker``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mip6ha.effects import (
    AnnounceAddress,
    ClaimTerm,
    Effect,
    Event,
    ReserveSequences,
    SendPacket,
    SendToMember,
    StandDown,
    StoreTerm,
    TakeOver,
)
from mip6ha.lending import PayloadNews
from mip6ha.member import Member

from .dataplane import Dataplane
from .host import Arrival, Seat

if TYPE_CHECKING:
    from .world import World

__all__ = ["Life"]

_PAUSED = 0.05
"""Seconds."""


class Life:
    """A running member. ``takeovers`` are its terms and when it took them.

    ``knows_since`` is the last takeover without all state in the line of active members that its own state
    comes from: of what was before that it need not know anything.
    """

    def __init__(self, world: World, seat: Seat) -> None:
        group = seat.group
        self.world = world
        self.seat = seat
        self.number = seat.lives
        self.started_at = world.now
        self.alive = True
        self.takeovers: dict[int, float] = {}
        self.knows_since = float("inf")
        self.lease_until = float("inf")
        self._armed: float | None = None
        self._flushing = self._commanded = False
        now = self._input_at = seat.host.clock()
        self.idled = False
        self.member = Member(
            replace(group.parameters, sequence_floor=seat.floor),
            group.settings[seat.identity],
            world.random.randbytes,
            now,
            seat.term,
        )
        self.dataplane = Dataplane(self)

    def __repr__(self) -> str:
        return f"{self.seat}.{self.number}"

    @property
    def serves(self) -> bool:
        """Whether it believes to be the one that serves."""
        return self.alive and self.member.machine.serves

    def end(self) -> None:
        """The process is gone."""
        self.alive = False
        self.seat.owns = False
        self.seat.life = None

    # -- inputs ------------------------------------------------------------------------------------

    def start(self) -> None:
        """See :meth:`Member.start`."""
        self._after(self.member.start(self.seat.host.clock()))

    def stop(self) -> None:
        """See :meth:`Member.stop`."""
        self.perform(self.member.stop(self.seat.host.clock()))

    def take(self, arrival: Arrival) -> None:
        """A packet is read from a socket."""
        _, datagram, identity, bringer = arrival
        checker = self.world.checker
        checker.before_step(self)
        member, now = self.member, self.seat.host.clock()
        self.idled = now - self._input_at > 1.5 * self.seat.group.plan.interval
        self._input_at = now
        if identity:
            judge = checker.before_message(self, datagram, bringer)
            effects = member.receive_member(self.seat.group.addresses[identity], datagram.octets, now)
            checker.after_message(self, datagram, bringer, judge, effects)
        else:
            seen = checker.packets.before_packet(self, datagram)
            effects = member.receive(datagram.octets, now)
            checker.packets.after_packet(self, datagram, bringer, seen)
        if not identity or checker.is_for(self, datagram):
            datagram.arrived = True
        self.perform(effects)
        batch = self.world.plan.batch
        if not self.alive:
            return
        if not batch:
            self.perform(member.flush(now))
        elif not self._flushing:
            self._flushing = True
            self.world.at(batch, self._flush)
        if self.alive:
            self._settle()

    def _flush(self) -> None:
        self._flushing = False
        if self.alive and not self.seat.host.paused:
            self._after(self.member.flush(self.seat.host.clock()))

    def on_timer(self, at: float | None = None) -> None:
        """The clock reached the deadline that was asked for."""
        if not self.alive or self.seat.host.paused or (at is not None and at != self._armed):
            return
        self.world.checker.before_step(self)
        now = self._input_at = self.seat.host.clock()
        self._armed = None
        self._after(self.member.on_timer(now if at is None else max(now, at)))

    def payload_news(self, news: PayloadNews) -> None:
        """See :meth:`Member.payload_news`."""
        if self._reads(self.payload_news, news):
            self._flushed(self.member.payload_news(news, self.seat.host.clock()))

    def _reads(self, later: Callable[..., None], *arguments: Any) -> bool:
        """Whether the process runs; what the kernel says waits as long as it is paused."""
        if self.alive and self.seat.host.paused:
            self.world.at(_PAUSED, later, *arguments)
        return self.alive and not self.seat.host.paused

    def _flushed(self, effects: list[Effect]) -> None:
        self.perform(effects)
        if self.alive:
            self._after(self.member.flush(self.seat.host.clock()))

    def switchover(self) -> None:
        """An operator wants this member to be the active one."""
        said, effects = self.member.switchover(self.seat.host.clock())
        self.world.log("command", self, f"switchover {said}")
        self._after(effects)

    def switchback(self) -> None:
        """An operator wants another member to be the active one."""
        said, effects = self.member.switchback(self.seat.host.clock())
        self.world.log("command", self, f"switchback {said}")
        self._commanded = True
        self._after(effects)
        self._commanded = False

    def claim_answered(self, term: int, granted: bool, lease_until: float) -> None:
        """See :meth:`Member.claim_answered`."""
        if not self.alive or self.seat.host.paused:
            return
        self.world.checker.before_step(self)
        if granted:
            self.lease_until = lease_until
        effects = self.member.claim_answered(term, granted, lease_until, self.seat.host.clock())
        self._after(effects)

    def lease_renewed(self, lease_until: float) -> None:
        """See :meth:`Member.lease_renewed`."""
        if self.serves and not self.seat.host.paused:
            self.lease_until = max(self.lease_until, lease_until)
            self.member.lease_renewed(lease_until, self.seat.host.clock())
            self._settle()

    # -- effects -----------------------------------------------------------------------------------

    def _after(self, effects: list[Effect]) -> None:
        self.perform(effects)
        if self.alive:
            self._settle()

    def _settle(self) -> None:
        self.world.checker.after_step(self)
        deadline = self.member.next_deadline()
        if deadline is not None and deadline != self._armed:
            self._armed = deadline
            when = self.seat.host.when(deadline)
            self.world.at(max(0.0, when - self.world.now), self.on_timer, deadline)

    def perform(self, effects: list[Effect]) -> None:
        """Carry out effects in their order, unless the process ends before."""
        world, host, seat = self.world, self.seat.host, self.seat
        if any(type(effect) is TakeOver for effect in effects):
            world.checker.takeover_effects(self, effects)
        for effect in effects:
            if host.trap is not None:
                host.trap -= 1
                if host.trap < 0:
                    host.crash(f"before {type(effect).__name__}")
            if not self.alive:
                return
            kind = type(effect)
            if seat.group.plan.lends:
                self.dataplane.carry_out(effect)
            if kind is SendToMember:
                world.send_to_member(self, effect.address, effect.packet)  # type: ignore[union-attr]
            elif kind is SendPacket:
                if not seat.group.plan.lends or not self.dataplane.take_back(effect.packet):  # type: ignore[union-attr]
                    world.send_from_home_agent(self, effect.packet)  # type: ignore[union-attr]
            elif kind is Event:
                if effect.name == "switch_begins" and not self._commanded:  # type: ignore[union-attr]
                    world.checker.yields(self)
                world.log(effect.name, self, effect.fields)  # type: ignore[union-attr]
            elif isinstance(effect, StoreTerm | ReserveSequences):
                if host.trap_storage:
                    host.crash(f"before {type(effect).__name__} was written")
                    return
                if isinstance(effect, StoreTerm):
                    seat.term = effect.term
                else:
                    seat.floor = max(seat.floor, effect.limit)
            elif kind is TakeOver:
                world.checker.took_over(self)
                seat.owns = True
            elif kind is StandDown:
                world.log("stands down", self)
                world.arbiter.release(self)
                seat.owns = False
                self.dataplane.end()
            elif isinstance(effect, AnnounceAddress):
                if effect.address == seat.group.address:
                    world.announce(seat)
            elif isinstance(effect, ClaimTerm):
                world.arbiter.claim(self, effect.term, effect.instead_of)
