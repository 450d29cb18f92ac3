"""Payload that the dataplane opens and seals: SAs lent to it, number by number.

Covered: whose payload is lent and when, more numbers in time, taking it back. Not covered: which numbers may
be lent (``associations``, ``numbering``), how a dataplane does it.

Every mobile node's payload goes by the core first, so that taking over costs nothing, and is lent with its
next packets. The core keeps what it may use by then, for what is on its way, and lends the numbers that
follow: of a member of a set those that the others have acknowledged. So no number is ever both's, and after
a take-over, or when it is taken back, everything that was lent counts as used and as seen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from .associations import ALIGNMENT, Associations
from .binding.cache import Binding, BindingCache
from .effects import (
    Effect,
    ExtendPayload,
    LendPayload,
    LentAssociation,
    NarrowPath,
    RecallPayload,
    SendPacket,
)
from .forwarding import Forwarding
from .ipsec.policy import Direction, Mode, Use
from .ipsec.replay import DEFAULT_WINDOW
from .ipsec.sad import SecurityAssociation
from .rate import TokenBucket

__all__ = ["Lending", "PayloadCounted", "PayloadLost", "PayloadNews"]

_WIDEST = 4096
"""Inbound numbers lent at a time, at most: what a takeover may make the mobile node lose."""
_REPORTS = 4
"""How often the dataplane says how far it is while it uses up what it was lent."""
# Seconds. More inbound numbers are asked for at about this pace: less often costs more of them after a
# takeover, more often costs others more messages.
_TOO_OFTEN, _TOO_SELDOM = 0.02, 0.2
# Loans per second: each costs the kernel a cipher or two, and is nothing that payload waits for.
_RATE, _BURST = 100.0, 10.0
_MOST_RETURNED = 10_000
"""Packets that can have been on their way; the TUN device keeps 8,192."""
_PATIENCE, _RECOVERY = 1.0, 0.1
"""Seconds before it is tried again with a mobile node whose payload cannot be lent, or was lost."""


class PayloadCounted(NamedTuple):
    """How far a dataplane is with an SA: the last number sent, or the highest one accepted."""

    home_address: bytes
    outbound: bool
    spi: int
    number: int


class PayloadLost(NamedTuple):
    """Nothing is lent for a home address any more, though nobody called it back."""

    home_address: bytes


PayloadNews = PayloadCounted | PayloadLost


@dataclass(slots=True)
class _Share:
    """An SA that is lent: ``width`` inbound numbers at a time, more of them last at the time ``since``."""

    association: SecurityAssociation
    width: int = ALIGNMENT
    since: float = 0.0


@dataclass(slots=True)
class _Loan:
    """``offered`` is what the dataplane was told; if it ``waits`` it will be.

    ``returned`` counts packets that came here nevertheless.
    """

    offered: LendPayload
    shares: dict[tuple[bool, int], _Share]
    waits: bool
    returned: int = 0


class Lending:
    """What the dataplane has of one home agent's payload; nothing where that does not want any."""

    def __init__(
        self,
        associations: Associations,
        cache: BindingCache,
        forwarding: Forwarding,
        counters: Counter[str],
        now: float,
        *,
        wanted: bool,
    ) -> None:
        self._wanted = wanted
        self._associations = associations
        self._cache = cache
        self._forwarding = forwarding
        self._counters = counters
        self._loans: dict[bytes, _Loan] = {}
        self._bucket = TokenBucket(_RATE, _BURST, now)
        self._not_before: dict[bytes, float] = {}

    def __contains__(self, home_address: bytes) -> bool:
        return home_address in self._loans

    def lend(self, home_address: bytes, now: float, effects: list[Effect]) -> None:
        """A mobile node's payload went by the core: the next is the dataplane's, if that is possible."""
        if not self._wanted or not self._forwarding.is_protected(home_address):
            return
        if home_address in self._loans or self._not_before.get(home_address, now) > now:
            return
        payload = self._payload_of(home_address)
        binding = self._cache.get(home_address)
        if not payload or binding is None or not self._may_leave(binding, now):
            self._not_before[home_address] = now + _PATIENCE
            return
        # All of them are asked, so that what one lacks is on its way while others wait.
        ready = [self._associations.may_lend(each, effects) for each in payload]
        if not all(ready):
            return
        if not self._bucket.take(now):
            self._not_before[home_address] = now + 1 / _RATE
            return
        self._not_before.pop(home_address, None)
        loan: dict[tuple[bool, int], _Share] = {}
        lent = []
        for each in payload:
            share = _Share(each, since=now)
            outbound = each.direction is Direction.OUT
            loan[outbound, each.spi] = share
            first, limit = self._associations.lend(each, share.width)
            size = each.window.size if each.window is not None else DEFAULT_WINDOW
            lent.append(
                LentAssociation(
                    outbound,
                    each.spi,
                    each.transform.name,
                    each.keys,
                    each.esn,
                    size,
                    first,
                    limit,
                    0 if outbound else share.width // _REPORTS,
                )
            )
        offer = LendPayload(home_address, tuple(lent))
        waits = self._associations.lending_waits
        self._loans[home_address] = _Loan(offer, loan, waits)
        self._counters["payload_lent"] += 1
        effects.append(offer)

    def give_back(self, home_address: bytes, packet: bytes, effects: list[Effect]) -> bool:
        """Whether a packet to a mobile node is the dataplane's; it was on its way here when that was lent.

        Its number would be lower than those that are used by now, so that it might be taken for a replay. If
        too many come the dataplane does not do what it should.
        """
        loan = self._loans.get(home_address)
        if loan is None or loan.waits:
            return False
        loan.returned += 1
        if loan.returned > _MOST_RETURNED:
            self._counters["payload_not_taken"] += 1
            self.recall(home_address, effects)
            return False
        self._counters["payload_given_back"] += 1
        effects.append(SendPacket(packet))
        return True

    def hear(self, news: PayloadNews, now: float, effects: list[Effect]) -> None:
        """What a dataplane says: it gets more numbers in time, or payload comes here, to be lent anew."""
        if isinstance(news, PayloadCounted):
            self._count(news, now, effects)
        elif self._end(news.home_address):
            self._counters["payload_lost"] += 1
            self._not_before[news.home_address] = now + _RECOVERY

    def _count(self, counted: PayloadCounted, now: float, effects: list[Effect]) -> None:
        home_address, outbound, spi, number = counted
        loan = self._loans.get(home_address)
        share = None if loan is None else loan.shares.get((outbound, spi))
        if share is None:
            return
        more = self._associations.lend_more(share.association, number, share.width, effects)
        if more is None:
            return
        if not outbound:
            passed, share.since = now - share.since, now
            if passed < _TOO_OFTEN:
                share.width = min(2 * share.width, _WIDEST)
            elif passed > _TOO_SELDOM:
                share.width = max(share.width // 2, ALIGNMENT)
        step = 0 if outbound else share.width // _REPORTS
        effects.append(ExtendPayload(home_address, outbound, spi, *more, step))

    def let_go(self, effects: list[Effect]) -> list[Effect]:
        """What is still wanted of effects that have waited for others."""
        return [
            each
            for each in effects
            if not isinstance(each, LendPayload | ExtendPayload) or self._is_wanted(each)
        ]

    def _is_wanted(self, effect: LendPayload | ExtendPayload) -> bool:
        loan = self._loans.get(effect.home_address)
        if loan is None:
            return False
        if isinstance(effect, LendPayload):
            loan.waits &= loan.offered is not effect
            return loan.offered is effect
        share = loan.shares.get((effect.outbound, effect.spi))
        return share is not None and share.association.lent == effect.limit

    def recall(self, home_address: bytes, effects: list[Effect]) -> None:
        """Payload comes here again, both ways; nothing if it was not lent."""
        if self._end(home_address):
            effects.append(RecallPayload(home_address))

    def recall_all(self, effects: list[Effect]) -> None:
        """As :meth:`recall`, for everybody."""
        for home_address in list(self._loans):
            self.recall(home_address, effects)

    def heed(self, effects: list[Effect]) -> None:
        """Paths that have become narrow: no kernel fragments a tunnel packet outside (RFC 2473 7.1)."""
        for each in effects[:]:
            if type(each) is NarrowPath:
                for home_address in list(self._loans):
                    if self._cache.is_at(home_address, each.care_of_address):
                        self.recall(home_address, effects)

    def follow(self, binding: Binding, effects: list[Effect]) -> None:
        """Tunnel or networks of a mobile node are about to change: its loan goes along, if that can be."""
        if not self._is_plain(binding):
            self.recall(binding.home_address, effects)

    def end(self) -> None:
        """Nothing is lent any more, and the dataplane knows."""
        for home_address in list(self._loans):
            self._end(home_address)

    def _end(self, home_address: bytes) -> bool:
        loan = self._loans.pop(home_address, None)
        if loan is None:
            return False
        for share in loan.shares.values():
            self._associations.take_back(share.association)
        return True

    def _is_plain(self, binding: Binding) -> bool:
        """Whether a mobile node's payload is what policies of a kernel can tell from all other.

        One mobile router's network may lie in another one's, and ESP in UDP looks the same to them.
        """
        return not binding.prefixes and binding.home_address not in self._forwarding.encapsulation

    def _may_leave(self, binding: Binding, now: float) -> bool:
        return binding.is_bound and self._is_plain(binding) and not self._forwarding.is_narrow(binding, now)

    def _payload_of(self, home_address: bytes) -> list[SecurityAssociation]:
        """The SA that payload leaves by and those it comes by; none unless there are both, for all of it."""
        found = [each for each in self._associations.database.of(home_address) if each.mode is Mode.TUNNEL]
        if any(each.use is not Use.PAYLOAD for each in found):
            return []
        inbound = [each for each in found if each.direction is Direction.IN]
        outbound = [each for each in found if each.direction is Direction.OUT]
        return [outbound[0], *inbound] if inbound and outbound else []
