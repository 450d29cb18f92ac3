"""A member of a redundant home agent set in this process.

Covered: packets and IKE messages from and to the other members, taking over and standing down, terms on
stable storage, planned switches on request, handing over before a stop. Not covered: who becomes active and
why (``member``), what terms an arbiter grants (``arbiter``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall

from ..effects import (
    ClaimTerm,
    Effect,
    Event,
    SendIkeToMember,
    SendToMember,
    StandDown,
    StoreTerm,
    TakeOver,
    WriteJournal,
)
from ..failover.states import Role
from ..harp.messages import ControlStatus
from ..ipsec.ike.numbers import PORT
from ..member import Member
from ..parameters import GroupParameters, HomeAgentParameters
from .control import Request, Unwilling
from .ike_socket import IkeSocket, Received
from .ike_views import ike_sa
from .journal import JournalFiles, journal_key
from .member_socket import MemberSocket, RawReader, UnprotectedSocket
from .mobile_link import CarrierEvents, SocketReader
from .service import HomeAgentService

if TYPE_CHECKING:
    from .arbiter import Arbiter

__all__ = ["MemberService"]

# Seconds. How often the virtual MAC address is shown to switches, which forget it after minutes.
_ASSERT_EVERY = 1.0
# How long what still comes after standing down is passed on.
_PASS_ON = 0.5
# How long a planned switch may take, on request and at a stop.
_SWITCH_PATIENCE = 3.0
_STOP_PATIENCE = 1.0
# How long changes wait to be written together. Nothing waits for them.
_JOURNAL_DELAY = 0.02


class MemberService(HomeAgentService):
    """One member of one group; the configuration has a group."""

    _member: Member

    def _make_core(self, parameters: HomeAgentParameters) -> None:
        group = self._configuration.group
        if group is None:
            raise ValueError("the configuration has no group")
        self._waiting: list[tuple[bool, Deferred[None]]] = []
        self._passes_on_until = 0.0
        member = Member(parameters, group, os.urandom, time.monotonic(), self._state.term())
        self._core = self._member = member
        self._home_agent = member.home_agent
        self._carry_out |= {
            SendToMember: self._send_to_member,
            StoreTerm: self._store_term,
            TakeOver: self._take_over,
            StandDown: self._stand_down,
        }
        edge = self._configuration.edge
        if edge.journal:
            key = edge.journal_secret or journal_key(self._state.path)
            kept = member.contexts.keep(_JOURNAL_DELAY)
            answers = kept.has_written, kept.has_stored, self._journal_failed
            self._journal = JournalFiles(self._state.path, key, self._reactor, answers)
            self._closers.append(self._journal.close)
            self._carry_out[WriteJournal] = self._journal.append
        self._open_sockets(group)
        self._arbiter = self._call_arbiter(group)
        if self._dataplane.home_link is not None:
            self._watch(self._dataplane.home_link.name)
        loop: Any = LoopingCall(self._assert_ownership)
        loop.clock = self._reactor
        loop.start(_ASSERT_EVERY, now=False)
        self._closers.append(loop.stop)

    def _begin(self) -> list[Effect]:
        effects = super()._begin()
        if self._configuration.edge.journal:
            # What other members have counts for more; alone, this one cannot know what they accepted.
            restored = self._journal.read(alone=False)
            effects += self._member.restore(restored.contexts, time.monotonic())
            self._journal.begin()
        return effects

    def _assert_ownership(self) -> None:
        # Who yields has its place until it hears the new term, but the home link may have heard it before.
        if self._member.machine.role is Role.ACTIVE:
            self._dataplane.assert_ownership()

    def _open_sockets(self, group: GroupParameters) -> None:
        peers = tuple(peer.address for peer in group.peers)
        self._members = MemberSocket(group.address, peers, self._dataplane.counters)
        self._closers.append(self._members.close)
        unprotected = UnprotectedSocket(group.address)
        self._closers.append(unprotected.close)
        self._from_members = RawReader(self._members, self._heard, self._settle, self._reactor)
        self._read(self._from_members)
        if group.ike is not None:
            self._ike = IkeSocket(group.address, PORT, self._dataplane.counters)
            self._closers.append(self._ike.close)
            self._carry_out[SendIkeToMember] = self._send_ike
            self._read(RawReader(self._ike, self._negotiate, self._settle, self._reactor))
        dropped = self._member.receive_unprotected
        self._read(RawReader(unprotected, lambda _: dropped(), lambda: None, self._reactor))

    def _watch(self, home_link: str) -> None:
        """A member that cannot reach the home link is of no use there, if another one can."""
        carrier = CarrierEvents(home_link, self._carrier_changed)
        self._closers.append(carrier.socket.close)
        self._read(SocketReader(carrier.socket, carrier.ready, self._reactor))
        carrier.look()

    def _call_arbiter(self, group: GroupParameters) -> Arbiter | None:
        membership = self._configuration.membership
        if membership is None or membership.arbiter is None:
            return None
        # HTTP takes a while to import, and few need it.
        from .arbiter import Arbiter  # noqa: PLC0415

        arbiter = Arbiter(
            membership.arbiter,
            group.group,
            group.identity,
            self._reactor,
            answered=self._answered,
            renewed=self._renewed,
        )
        self._closers.append(arbiter.close)
        self._carry_out[ClaimTerm] = lambda effect: arbiter.claim(effect.term, effect.instead_of)
        return arbiter

    # -- inputs ------------------------------------------------------------------------------------

    def _heard(self, found: tuple[bytes, bytes]) -> None:
        source, packet = found
        self._input(lambda: self._member.receive_member(source, packet, time.monotonic()))

    def _negotiate(self, found: Received) -> None:
        payload, source, _ = found
        self._input(lambda: self._member.receive_member_ike(payload, source, time.monotonic()))

    def _received(self, packet: bytes) -> None:
        dataplane = self._dataplane
        # What is on its way when a member stands down still comes here.
        if not dataplane.owns and time.monotonic() < self._passes_on_until and dataplane.pass_on(packet):
            dataplane.counters["passed_on"] += 1
        else:
            super()._received(packet)

    def _timed(self) -> None:
        # A HELLO that waits to be read is one that was heard in time.
        self._from_members.read()
        super()._timed()

    def _carrier_changed(self, up: bool) -> None:
        self._member.home_link(up, time.monotonic())
        if up or not self._dataplane.owns:
            self._settle()
            return
        refused, effects = self._member.switchback(time.monotonic())
        self._log("home_link_lost", {"reason_to_stay": refused} if refused else {})
        self._perform(effects)
        self._settle()

    def _answered(self, term: int, granted: bool, lease_until: float) -> None:
        until = lease_until - self._dataplane.lease_margin
        self._input(lambda: self._member.claim_answered(term, granted, until, time.monotonic()))
        if granted and not self._dataplane.owns and self._arbiter is not None:
            # It has changed its mind meanwhile.
            self._arbiter.release()
        self._settle()

    def _renewed(self, lease_until: float) -> None:
        self._member.lease_renewed(lease_until - self._dataplane.lease_margin, time.monotonic())
        super()._settle()

    def _settle(self) -> None:
        self._input(lambda: self._member.flush(time.monotonic()))
        super()._settle()

    def _journal_failed(self, why: str) -> None:
        self._input(lambda: self._member.journal_failed(why, time.monotonic()))

    # -- effects -----------------------------------------------------------------------------------

    def _store_term(self, effect: StoreTerm) -> None:
        self._store("store the term", lambda: self._state.store_term(effect.term))

    def _send_to_member(self, effect: SendToMember) -> None:
        self._members.send(effect.address, effect.packet)

    def _send_ike(self, effect: SendIkeToMember) -> None:
        self._ike.send(effect.datagram, self._member.group.address, (effect.address, effect.port))

    def _take_over(self, effect: Effect) -> None:
        self._dataplane.carry_out(effect)
        self._outcome(active=True)

    def _stand_down(self, effect: StandDown) -> None:
        self._dataplane.carry_out(effect)
        if self._arbiter is not None:
            self._arbiter.release()
        if effect.succeeded:
            self._passes_on_until = time.monotonic() + _PASS_ON
        self._outcome(active=False)

    def _ike_sas(self) -> Iterator[dict[str, object]]:
        keys = self._member.keys
        own = () if keys is None else tuple(keys.endpoint.ike_sas.values())
        return chain(super()._ike_sas(), map(ike_sa, own))

    # -- planned switches --------------------------------------------------------------------------

    def _commands(self) -> Mapping[str, Callable[[Request], object]]:
        return {**super()._commands(), "switchover": self._switch_over, "switchback": self._switch_back}

    def _switch_over(self, request: Request) -> Deferred[Any]:
        refused, effects = self._member.switchover(time.monotonic())
        return self._switch(refused, effects, active=True)

    def _switch_back(self, request: Request) -> Deferred[Any]:
        to = request.get("to")
        if to is not None and not isinstance(to, int):
            raise Unwilling("to is the number of a member")
        refused, effects = self._member.switchback(time.monotonic(), to)
        return self._switch(refused, effects, active=False)

    def _switch(self, refused: str, effects: list[Effect], *, active: bool) -> Deferred[Any]:
        """Carry a switch out that was begun; fires with what came of it."""
        if refused:
            raise Unwilling(refused)
        begun = time.monotonic()
        outcome = self._wait(_SWITCH_PATIENCE, active=active)
        self._perform(effects)
        self._settle()

        def told(_: object) -> dict[str, object]:
            status = self._member.status(time.monotonic())
            known = {name: status[name] for name in ("group", "member", "role", "term", "active")}
            return known | {"seconds": round(time.monotonic() - begun, 6)}

        return outcome.addCallback(told)

    def _wait(self, patience: float, *, active: bool) -> Deferred[None]:
        """Fires when this member takes over, or stands down; fails with :class:`Unwilling`."""
        outcome: Deferred[None] = Deferred()
        waiting = (active, outcome)
        self._waiting.append(waiting)

        def give_up() -> None:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                outcome.errback(Unwilling(f"no answer within {patience:g} seconds"))

        self._reactor.callLater(patience, give_up)
        return outcome

    def _outcome(self, *, active: bool | None = None, refused: str = "") -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            wanted, outcome = each
            if refused:
                outcome.errback(Unwilling(refused))
            elif wanted is active:
                # When every effect is carried out, so that the answer tells how it is.
                self._reactor.callLater(0, outcome.callback, None)
            else:
                self._waiting.append(each)

    def _event(self, effect: Event) -> None:
        super()._event(effect)
        if effect.name == "switch_refused":
            status = effect.fields["status"]
            known = next((each.name for each in ControlStatus if each == status), f"status {status}")
            self._outcome(refused=f"the active member refused: {known.lower().replace('_', ' ')}")
        elif effect.name == "switch_failed":
            self._outcome(refused=f"the switch failed: {effect.fields['reason']}")

    # -- stop --------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[Any]:  # noqa: N802
        """Hand over to the best standby if there is one, then stop."""
        if not self.running:
            return succeed(None)
        refused, effects = ("failed", []) if self.failed else self._member.switchback(time.monotonic())
        if refused:
            self._log("not_handed_over", {"reason": refused})
            return super().stopService()
        handed_over = self._wait(_STOP_PATIENCE, active=False)
        self._perform(effects)
        self._settle()
        stop = super().stopService
        return handed_over.addErrback(lambda failure: failure.trap(Unwilling)).addCallback(lambda _: stop())
