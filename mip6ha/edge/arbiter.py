"""Terms from an arbiter: taken by compare-and-swap, held by a lease that must be renewed.

Covered: claiming a term, renewing, giving it back. Not covered: who claims and when (``member``), etcd's
protocol (``etcd``).

Two keys stand for a group: its highest term, which stays, and its active member, which is attached to that
member's lease. A term is only granted when the key of the active member has gone, so that the one before has
stopped serving: it counts its lease from when it *asked* for it, less a margin for the clocks, while etcd
counts from when it was asked. A planned switch need not wait, for the active member has agreed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..group_config import ArbiterConfiguration
from .etcd import Etcd, NoAnswer

__all__ = ["Arbiter"]

# Seconds. The core waits two for an answer before it claims anew.
_CLAIM_PATIENCE = 1.9
_REQUEST_PATIENCE = 0.5
_LOOK_AGAIN = 0.05
_LEAST_MARGIN = 0.1
_MARGIN = 0.05


class Arbiter:
    """One member's claims on the terms of one group.

    ``answered`` gets (term, granted, end of the lease), ``renewed`` the new end, both on the reactor's clock.
    """

    log = Logger()

    def __init__(
        self,
        configuration: ArbiterConfiguration,
        group: int,
        member: int,
        reactor: Any,
        *,
        answered: Callable[[int, bool, float], object],
        renewed: Callable[[float], object],
    ) -> None:
        self._seconds = configuration.lease
        self._name = str(member)
        self._term_key = f"{configuration.prefix}/{group}/term"
        self._active_key = f"{configuration.prefix}/{group}/active"
        self._answered = answered
        self._renewed = renewed
        self._reactor = reactor
        self._etcd = Etcd(configuration.endpoints, _REQUEST_PATIENCE, reactor)
        self._busy: Deferred[Any] | None = None
        self._lease: str | None = None
        self._silent = False
        self._released: Deferred[None] = succeed(None)

    def claim(self, term: int, instead_of: int | None = None) -> None:
        """Ask for a term; ``instead_of`` is the active member that agreed to give its own up."""
        self.release()
        self._run(self._claim(term, "" if instead_of is None else str(instead_of)))

    def release(self) -> None:
        """Serve no longer: nobody need wait for the lease to end."""
        if self._busy is not None:
            self._busy.cancel()
            self._busy = None
        lease, self._lease = self._lease, None
        if lease is not None:
            self._released = Deferred.fromCoroutine(self._revoke(lease))

    def close(self) -> Deferred[Any]:
        """Release; fires when etcd has been told, or cannot be."""
        self.release()
        return self._released.addCallback(lambda _: self._etcd.close())

    def _run(self, work: Any) -> None:
        self._busy = Deferred.fromCoroutine(work)
        self._busy.addErrback(self._ended)

    def _ended(self, failure: Failure) -> None:
        # Cancelled where it is no longer wanted.
        if not failure.check(CancelledError):
            self.log.failure("a fault of this program in talking to the arbiter", failure)

    async def _revoke(self, lease: str) -> None:
        try:
            await self._etcd.revoke(lease)
        except NoAnswer:
            # It ends by itself.
            return

    async def _claim(self, term: int, predecessor: str) -> None:
        give_up = self._reactor.seconds() + _CLAIM_PATIENCE
        known, until = 0, 0.0
        while until == 0.0 and self._reactor.seconds() < give_up:
            try:
                known, until = await self._try(term, predecessor)
            except NoAnswer as error:
                self._complain(error)
                await self._etcd.pause(_LOOK_AGAIN)
            if known >= term:
                break
            if not until:
                await self._etcd.pause(_LOOK_AGAIN)
        if until:
            self._run(self._renew())
        else:
            self._busy = None
            self.release()
        self._answered(term if until else known, bool(until), until)

    async def _try(self, term: int, predecessor: str) -> tuple[int, float]:
        """The highest term that is known, and the end of our lease if ``term`` was granted."""
        held, active = await self._etcd.read(self._term_key, self._active_key)
        known = int(held.value) if held.value.isdecimal() else 0
        if known >= term or active.value not in ("", predecessor):
            return known, 0.0
        asked = self._reactor.seconds()
        self._lease, seconds = await self._etcd.grant(self._seconds)
        unchanged = {self._term_key: held.revision, self._active_key: active.revision}
        values = {self._term_key: (str(term), None), self._active_key: (self._name, self._lease)}
        if await self._etcd.replace(unchanged, values):
            self._silent = False
            return term, _end(asked, seconds)
        lease, self._lease = self._lease, None
        await self._revoke(lease)
        return known, 0.0

    async def _renew(self) -> None:
        pause = self._seconds / 3
        while True:
            await self._etcd.pause(pause)
            pause = self._seconds / 10
            asked = self._reactor.seconds()
            try:
                seconds = await self._etcd.keep_alive(self._lease or "0")
                (active,) = await self._etcd.read(self._active_key)
            except NoAnswer as error:
                self._complain(error)
                continue
            if not seconds or active.value != self._name:
                # Ended, or another member was let in: the core stops when the time is over, if not before.
                return
            self._silent = False
            pause = self._seconds / 3
            self._renewed(_end(asked, seconds))

    def _complain(self, error: NoAnswer) -> None:
        if not self._silent:
            self._silent = True
            self.log.warn("the arbiter does not answer: {error}", error=str(error))


def _end(asked: float, seconds: float) -> float:
    return asked + seconds - max(_LEAST_MARGIN, _MARGIN * seconds)
