"""Payload under ESP in the kernel, with the numbers that the core lends: what is lent, told and repaired.

Covered: lending, extending, recalling, moving with numbers and windows, how far the kernel is, finding what
somebody else changed and what a killed process left. Not covered: when to lend (the core), which packets come
here (``esp_steering``), states and policies as data (``payload_associations``).

Whatever goes wrong with the payload of a home address ends all of it here, and the core is told: it has the
keys, and numbers that nobody used. What is ours is known by its reqid, of which a group has 65,536.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Sequence

from ..effects import ExtendPayload, LendPayload
from ..lending import PayloadCounted, PayloadLost, PayloadNews
from . import xfrm
from .esp_steering import EspSteering
from .netlink_messages import Conversation, Failure, Overrun, Request
from .payload_associations import LentPayload
from .payload_register import PayloadRegister
from .xfrm import Xfrm
from .xfrm_events import (
    Announcement,
    Counted,
    Expired,
    XfrmEvents,
    others_only,
)
from .xfrm_policy import Direction, PolicyId
from .xfrm_state import Counters, StateId

__all__ = ["KernelPayload"]

# "h", the group, and a number.
_REQIDS, _SHARE = 0x68000000, 1 << 16
_STEP = 128
_JUDGED = 16
_ALREADY = frozenset((errno.ESRCH, errno.ENOENT))


class KernelPayload:
    """What is lent to the kernel for the home agent ``address``, steered at the TUN device ``tun`` (index).

    ``kernel`` is for filters; ``OSError`` where the kernel has no XFRM or no such filters. After ``suspect``
    was set, only a comparison tells what is installed.
    """

    def __init__(
        self, kernel: Conversation, address: bytes, group: int, tun: int, counters: Counter[str]
    ) -> None:
        self.suspect = False
        self._filters = kernel
        self._address = address
        self._counters = counters
        self._reqids = range(_REQIDS + group * _SHARE, _REQIDS + (group + 1) * _SHARE)
        self._register = PayloadRegister(self._reqids)
        self._lost: dict[bytes, None] = {}
        self._counted: dict[bytes, dict[tuple[bool, int], int]] = {}
        self._missed = False
        self._leaving: dict[bytes, None] = {}
        self._steering = EspSteering(kernel, tun, address)
        for failure in self._steering.open():
            raise OSError(failure.code, failure.text)
        self._kernel = Xfrm()
        self._dumps = Xfrm()
        self._clear_leftovers()
        self.events = XfrmEvents(program=others_only(self._kernel.port, self._reqids))

    def _clear_leftovers(self) -> None:
        before = self._kernel.messages
        self._kernel.clear(self._reqids)
        # Two of them asked.
        if removed := self._kernel.messages - before - 2:
            self._counters["leftover_payload_removed"] += removed

    def close(self) -> None:
        """Leave nothing behind."""
        self._end(list(self._register.lent))
        for each in (self._kernel, self._dumps, self.events):
            each.close()

    @property
    def messages(self) -> int:
        """How many requests were sent, but those for filters."""
        return self._kernel.messages

    # -- effects -----------------------------------------------------------------------------------

    def lend(self, effect: LendPayload, care_of_address: bytes) -> None:
        """Have the kernel seal and open, instead of what it did for that home address before."""
        home_address = effect.home_address
        self.recall(home_address)
        reqid = self._register.begin()
        if reqid is None:
            self._counters["payload_refused_reqids"] += 1
            self._lost[home_address] = None
            return
        lent = self._register.lent[home_address] = LentPayload.of(
            effect, self._address, care_of_address, reqid
        )
        try:
            states = [each.install() for each in lent.associations.values()]
        except ValueError:
            # A transform that the kernel does not have.
            self._counters["payload_refused_transform"] += 1
            self._lose(home_address)
            return
        policies = [xfrm.install_policy(policy) for policy in lent.policies()]
        # States before what asks for them, and what opens before anything is steered to it.
        if not (self._install(home_address, states, policies) and self._steer(lent)):
            self._lose(home_address)

    def extend(self, effect: ExtendPayload) -> None:
        """Let an SA use more numbers."""
        home_address, outbound, spi, first, limit, step = effect
        lent = self._register.lent.get(home_address)
        each = None if lent is None else lent.associations.get((outbound, spi))
        if lent is None or each is None or home_address in self._leaving:
            return
        sent = 0
        if not each.goes_on_with(first):
            stood = self._kernel.counters(each.state.id)
            if stood is None:
                # It was used up or removed, which will be heard of or found.
                self.suspect = True
                return
            sent = stood.usage.packets
        failed = self._change(each.extend(first, limit, step, sent))
        if failed or not (outbound or self._steer(lent)):
            self._lose(home_address)

    def recall(self, home_address: bytes) -> None:
        """Leave the payload of a home address to the daemon."""
        self._lost.pop(home_address, None)
        if home_address in self._register.lent:
            self._end([home_address])

    def stand_down(self, *, at_once: bool = False) -> None:
        """Open nothing any more; the rest of what is lent goes in a moment (:meth:`compare`), for it is much.

        What still comes is sealed until then, with numbers that nobody else has, or not: ``at_once``.
        """
        if at_once:
            policies = [policy for _, policy in self._register.policies.values()]
            self._change([xfrm.remove_policy(each) for each in policies if each.direction is Direction.OUT])
        self._lost.clear()
        self._counted.clear()
        if self._register.lent:
            self._leaving = dict.fromkeys(self._register.lent)
            for lent in self._register.lent.values():
                lent.steered.clear()
            self._count("netlink_steering", self._steering.open())
            self.suspect = True

    def move(self, home_address: bytes, care_of_address: bytes) -> None:
        """Go on at another care-of address, where the counters of the states stand in the end."""
        lent = self._register.lent.get(home_address)
        if lent is None or lent.care_of_address == care_of_address or home_address in self._leaving:
            return
        associations = lent.associations.values()
        before = [each.state.id for each in associations]
        try:
            stood = self._kernel.take_out(before)
        except Overrun:
            stood = {}
        for identity in before:
            del self._register.states[identity]
        lent.move(care_of_address)
        counters = [stood.get(each) for each in before]
        states = [
            each.install(counted)
            for each, counted in zip(associations, counters, strict=True)
            if counted is not None and each.has_numbers(counted)
        ]
        policies = [xfrm.update_policy(policy) for policy in lent.policies()]
        complete = len(states) == len(before)
        if not (complete and self._install(home_address, states, policies) and self._steer(lent)):
            self._lose(home_address)

    # -- changes -----------------------------------------------------------------------------------

    def _install(self, home_address: bytes, states: list[Request], policies: list[Request]) -> bool:
        failed = self._change(states + policies)
        self._register.note(home_address, failed)
        return not failed

    def _steer(self, lent: LentPayload) -> bool:
        requests: list[Request] = []
        for each in lent.associations.values():
            if not each.lent.outbound:
                lent.steered.add(each.lent.spi)
                requests += self._steering.steer(each.lent.spi, lent.care_of_address, *each.steered())
        return self._filter(requests)

    def _end(self, home_addresses: Sequence[bytes]) -> None:
        """Inwards nothing comes any more, outwards nothing is sealed, and then nothing is there."""
        filters: list[Request] = []
        changes: list[Request] = []
        for home_address in home_addresses:
            lent, associations, policies = self._register.end(home_address)
            self._counted.pop(home_address, None)
            self._leaving.pop(home_address, None)
            for spi in lent.steered:
                filters += self._steering.release(spi)
            changes += [xfrm.remove_policy(policy) for policy in reversed(policies)]
            changes += [xfrm.remove(each.state.id) for each in associations]
        self._filter(filters)
        self._change(changes)

    def _lose(self, home_address: bytes) -> None:
        """End all of it, and tell."""
        if home_address not in self._leaving:
            self._lost[home_address] = None
        if home_address in self._register.lent:
            self._end([home_address])

    def _filter(self, requests: Sequence[Request]) -> bool:
        try:
            failures = self._filters.send(requests)
        except Overrun:
            self._counters["netlink_overrun"] += 1
            self.suspect = True
            return False
        return not self._count("netlink_steering", failures)

    def _change(self, requests: Sequence[Request]) -> Collection[int]:
        """Which of them failed, by their index; everything, where that is unknown."""
        try:
            return self._count("xfrm", self._kernel.carry_out(requests))
        except Overrun:
            self._counters["xfrm_answers_lost"] += 1
            self.suspect = True
            return range(len(requests))

    def _count(self, about: str, failures: Iterable[Failure]) -> set[int]:
        failed = [each for each in failures if each.code not in _ALREADY]
        for each in failed:
            self._counters[f"{about}_{errno.errorcode.get(each.code, str(each.code))}"] += 1
        return {each.index for each in failed}

    # -- what the kernel says ----------------------------------------------------------------------

    @property
    def has_lost(self) -> bool:
        """Whether the core has to hear that something is here no more."""
        return bool(self._lost)

    def news(self) -> list[PayloadNews]:
        """What the core has to hear, and did not yet."""
        counted, self._counted = self._counted, {}
        lost, self._lost = self._lost, {}
        found: list[PayloadNews] = [
            PayloadCounted(home_address, *about, number)
            for home_address, numbers in counted.items()
            for about, number in numbers.items()
        ]
        return found + [PayloadLost(each) for each in lost]

    def read_events(self) -> None:
        """Note how far the kernel is, what it removed, and whether others were here."""
        try:
            for each in self.events.read():
                self._hear(each)
        except Overrun:
            self._counters["xfrm_events_lost"] += 1
            self.suspect = self._missed = True

    def _hear(self, announced: Announcement) -> None:
        if isinstance(announced, Counted):
            if announced.id in self._register.states:
                self._told(announced.id, announced.counters)
        elif isinstance(announced, Expired):
            if announced.id in self._register.states:
                self._ask(announced.id)
        elif not self.suspect:
            self.suspect = self._register.concerns(announced)

    def _told(self, identity: StateId, counters: Counters) -> None:
        home_address, each = self._register.states[identity]
        lent = each.lent
        number = counters.sent if lent.outbound else counters.received
        # What is said of a state that was here before is not about these.
        if lent.first <= number <= lent.limit and home_address not in self._leaving:
            each.reached = number
            self._counted.setdefault(home_address, {})[lent.outbound, lent.spi] = number

    def _ask(self, identity: StateId) -> None:
        stood = self._kernel.counters(identity)
        if stood is not None:
            self._told(identity, stood.counters)
        else:
            self._counters["payload_used_up"] += 1
            self._lose(self._register.states[identity][0])

    # -- comparison --------------------------------------------------------------------------------

    def compare(self, dumps: Conversation, repaired: Counter[str]) -> Iterator[None]:
        """Find out what the kernel has, a little with each step, and end what is not as it should be.

        What seems to be missing is asked for again: it may have come meanwhile. ``OSError`` or
        :class:`Overrun` where the kernel cannot say.
        """
        self.suspect = False
        while leaving := list(self._leaving)[:_JUDGED]:
            self._end(leaving)
            yield
        missed, self._missed = self._missed, False
        found: set[StateId | PolicyId] = set()
        strays: dict[StateId | PolicyId, Request] = {}
        for index, installed in enumerate(self._dumps.states()):
            state = installed.state
            if self._register.has_state(state):
                found.add(state.id)
                if missed:
                    self._told(state.id, installed.counters)
            elif state.reqid in self._reqids:
                strays[state.id] = xfrm.remove(state.id)
            if index % _STEP == _STEP - 1:
                yield
        for index, listed in enumerate(self._dumps.policies()):
            policy = listed.policy
            if self._register.has_policy(policy):
                found.add(policy.id)
            elif self._register.claims(policy):
                strays[policy.id] = xfrm.remove_policy(policy)
            if index % _STEP == _STEP - 1:
                yield
        missing: set[int] = set()
        yield from self._steering.compare(dumps, missing)
        if -1 in missing:
            repaired["steering"] += 1
        # What expired is heard of there.
        self.read_events()
        for index, (home_address, lent) in enumerate(list(self._register.lent.items())):
            wrong = self._differences(lent, found, missing)
            # Somebody may have changed it meanwhile, here.
            if wrong and self._register.lent.get(home_address) is lent:
                repaired.update(wrong)
                self._lose(home_address)
            if index % _JUDGED == _JUDGED - 1:
                yield
        requests = [request for name, request in strays.items() if not self._register.is_installed(name)]
        if requests:
            failures = self._kernel.carry_out(requests)
            repaired += Counter(payload_leftover=len(requests) - len(failures))

    def _differences(
        self, lent: LentPayload, found: Container[StateId | PolicyId], missing: Container[int]
    ) -> Counter[str]:
        wrong: Counter[str] = Counter()
        for each in lent.associations.values():
            if each.state.id not in found:
                installed = self._kernel.state(each.state.id)
                wrong["association"] += installed is None or not self._register.has_state(installed.state)
            wrong["steering"] += not each.lent.outbound and each.lent.spi in missing
        for policy in lent.policies():
            if policy.id not in found:
                listed = self._kernel.policy(policy)
                wrong["payload_policy"] += listed is None or listed.policy != policy
        return +wrong
