"""A mobile node's states and policies in the kernel: home address option, type 2 routing header, ESP.

Covered: signalling in transport mode at home and away, payload in tunnel mode, care-of addresses that change,
numbers that are never used twice, repairing what others remove or change. Not covered: what is wanted where
(``mobile_policies``); negotiation; what is sent, and when to look (``mobile_kernel``).

The kernel counts what it sends. So each outbound state begins above all that may have been used, and may send
no more than is reserved on stable storage: then the kernel removes it. Long before more is reserved.

Inbound numbers end with a state. Who removes one makes the kernel announce them; a flush does not, and then
those of the last look count. Either way all up to the highest is taken for heard.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace

from ..ipsec import policy as uses
from ..ipsec.sad import counter_limit
from ..mobile.parameters import EmulatorParameters
from ..mobile.protection import RESERVATION
from ..parameters import AssociationParameters
from ..wire import UNSPECIFIED
from . import xfrm
from .errors import Unusable
from .mobile_policies import REQIDS, MobilePolicies, is_ours, reqid
from .netlink_messages import Failure, Overrun, Request
from .xfrm import Xfrm
from .xfrm_events import Announcement, Expired, Installed, Removed, XfrmEvents, not_by
from .xfrm_layout import GROUP_EXPIRE, GROUP_POLICY, GROUP_STATE, Limits, Mode
from .xfrm_policy import Policy, PolicyId
from .xfrm_state import Counters, InstalledState, Protection, State, StateFlag, StateId

__all__ = ["KernelAssociations", "remove_own"]

# Every how many looks policies are looked at without news of them.
_WHOLE = 40


def remove_own(counters: Counter[str]) -> None:
    """Remove what a killed emulator left; nothing where the kernel has no XFRM."""
    try:
        kernel = Xfrm()
    except OSError:
        return
    try:
        policies = [xfrm.remove_policy(each.policy) for each in kernel.policies() if is_ours(each.policy)]
        states = [xfrm.remove(each.state.id) for each in kernel.states() if each.state.reqid in REQIDS]
        kernel.carry_out(policies + states)
    finally:
        kernel.close()
    for name, removed in (("policies", policies), ("states", states)):
        if removed:
            counters[f"leftover_{name}_removed"] += len(removed)


@dataclass(slots=True)
class _Association:
    """One SA. Outbound numbers run from above ``start`` to ``limit``; ``counters`` are the inbound ones.

    ``sent`` and ``counters`` are as last seen. ``installed`` is what should be so.
    """

    parameters: AssociationParameters
    state: State
    installed: bool = False
    start: int = 0
    limit: int = 0
    sent: int = 0
    counters: Counters = Counters()  # noqa: RUF009 - immutable

    @property
    def outbound(self) -> bool:
        return self.parameters.direction is uses.Direction.OUT

    @property
    def tunnel(self) -> bool:
        return self.parameters.use.mode is uses.Mode.TUNNEL

    def limited(self) -> State:
        """The state, with the packets that the present reservation has room for."""
        room = self.limit - self.start
        soft = max(1, room - RESERVATION // 2)
        return replace(self.state, limits=Limits(soft_packets=soft, hard_packets=room))

    def is_intact(self, found: InstalledState) -> bool:
        """Whether this is the state that was installed, and its numbers have only grown."""
        if self.outbound:
            return found.state == self.limited() and self.sent <= found.counters.sent <= self.limit
        return found.state == self.state and self.counters.received <= found.counters.received

    def remember(self, found: InstalledState) -> None:
        """Take note of the numbers of a state, if it has the keys of this one."""
        if found.state.protection != self.state.protection:
            return
        if self.outbound:
            self.sent = max(self.sent, found.counters.sent)
            self.limit = max(self.limit, self.sent)
        elif found.counters.received >= self.counters.received:
            self.counters = found.counters

    def close_window(self) -> None:
        """Take everything up to the highest number for heard: it is not known what else was."""
        self.counters = replace(self.counters, seen=(1 << self.state.window) - 1)


class KernelAssociations:
    """Those of one mobile node. ``reserve`` puts a number on stable storage before anything above is used.

    What the kernel refuses after :meth:`open` is counted in ``counters``.
    """

    def __init__(
        self, parameters: EmulatorParameters, reserve: Callable[[int], None], counters: Counter[str]
    ) -> None:
        self._home_address = parameters.home_address
        self._home_agent = parameters.home_agent
        self._wanted = MobilePolicies(parameters)
        self._reserve = reserve
        self._counters = counters
        self._care_of_address: bytes | None = None
        self._policies: dict[PolicyId, Policy] = {}
        self._associations = [self._association(given) for given in parameters.associations]
        self._floor = parameters.sequence_floor
        # Identities of states, and whether policies, that others have changed since the last look.
        self._touched: set[StateId] = set()
        self._suspect = False
        self._looks = 0
        try:
            self._kernel = Xfrm()
            groups = (GROUP_EXPIRE, GROUP_STATE, GROUP_POLICY)
            self.events = XfrmEvents(groups=groups, program=not_by(self._kernel.port))
        except OSError as error:
            raise Unusable(f"kernel dataplane: no XFRM: {error.strerror}") from None

    def _association(self, given: AssociationParameters) -> _Association:
        to_home_agent = given.direction is uses.Direction.OUT
        ends = (self._home_address, self._home_agent)
        state = State(
            *(ends if to_home_agent else ends[::-1]),
            socket.IPPROTO_ESP,
            Mode.TUNNEL if given.use.mode is uses.Mode.TUNNEL else Mode.TRANSPORT,
            given.spi,
            reqid(given.use, to_home_agent=to_home_agent),
            protection=Protection(given.transform.name, given.keys),
            flags=StateFlag.ESN if given.esn else StateFlag.NONE,
            window=given.window,
        )
        return _Association(given, state)

    def open(self) -> None:
        """Protect signalling, from now on; raises :class:`Unusable`."""
        for each in self._associations:
            each.start = each.limit = self._floor
        requests = [
            request for each in self._associations if not each.tunnel for request in self._install(each)
        ]
        for failure in self._kernel.carry_out([*requests, *self._policy_changes(None)]):
            raise Unusable(f"kernel dataplane: states or policies: {failure}")

    def close(self) -> None:
        """Remove everything of ours."""
        remove_own(Counter())
        self._kernel.close()
        self.events.close()

    # Where the mobile node is.

    def away(self, care_of_address: bytes) -> None:
        """Messages go from ``care_of_address`` and come to it; so does payload in tunnel mode."""
        states = self._wanted.header_states(care_of_address)
        change = xfrm.install if self._care_of_address is None else xfrm.update
        requests = [change(state) for state in states]
        moved = [each for each in self._associations if each.tunnel]
        requests += self._take_out(moved)
        for each in moved:
            ends = (care_of_address, self._home_agent)
            source, destination = ends if each.outbound else ends[::-1]
            each.state = replace(each.state, source=source, destination=destination)
            requests += self._install(each)
        self._change(requests + self._policy_changes(care_of_address))
        self._care_of_address = care_of_address

    def home(self) -> None:
        """Messages go as they are, and so does payload."""
        if self._care_of_address is None:
            return
        requests = self._policy_changes(None)
        requests += [xfrm.remove(state.id) for state in self._wanted.header_states(self._care_of_address)]
        requests += self._take_out([each for each in self._associations if each.tunnel])
        self._change(requests)
        self._care_of_address = None

    def set_tunnel(self, care_of_address: bytes) -> None:
        """Let applications' packets out, in tunnel mode where there are SAs for it."""
        self._change(self._policy_changes(care_of_address, tunnel=True))

    def remove_tunnel(self) -> None:
        """Undo :meth:`set_tunnel`."""
        self._change(self._policy_changes(self._care_of_address))

    def _policy_changes(self, care_of_address: bytes | None, *, tunnel: bool = False) -> list[Request]:
        """What makes the installed policies those of a place."""
        before, self._policies = self._policies, self._wanted.at(care_of_address, tunnel=tunnel)
        changed = [policy for key, policy in self._policies.items() if before.get(key) != policy]
        gone = [policy for key, policy in before.items() if key not in self._policies]
        return [*map(xfrm.update_policy, changed), *map(xfrm.remove_policy, gone)]

    # Numbers.

    def _install(self, each: _Association) -> list[Request]:
        each.installed = True
        if not each.outbound:
            return [xfrm.install(each.state, each.counters)]
        # Above all that an earlier state of this SA may have used: the kernel may have counted on meanwhile.
        each.start = each.sent = each.limit
        if not self._extend(each):
            each.installed = False
            return []
        return [xfrm.install(each.limited(), Counters(sent=each.start))]

    def _extend(self, each: _Association) -> bool:
        """Reserve more; ``False`` when the SA has no numbers left (RFC 4303 3.3.3)."""
        most = counter_limit(each.parameters.transform, esn=each.parameters.esn)
        limit = min(each.limit + RESERVATION, most)
        if limit <= each.limit:
            self._counters["sequence_exhausted"] += 1
            return False
        if limit > self._floor:
            self._reserve(limit)
            self._floor = limit
        each.limit = limit
        return True

    def _take_out(self, associations: Sequence[_Association]) -> list[Request]:
        """End states, the inbound ones so that their windows go on in those to come."""
        requests = []
        # The last numbers of what others have removed.
        self.read_events()
        for each in associations:
            if not each.installed:
                continue
            each.installed = False
            if not each.outbound:
                found = self._kernel.state(each.state.id)
                if found is not None:
                    each.remember(found)
                if found is None or _identity(each.state) in self._touched:
                    each.close_window()
            requests.append(xfrm.remove(each.state.id))
        return requests

    def read_events(self) -> None:
        """States that have used half of what is reserved for them get more; others' doings are noted."""
        expired: dict[StateId, bool] = {}
        try:
            for heard in self.events.read():
                if isinstance(heard, Expired):
                    expired[heard.id] = heard.hard
                else:
                    self._note(heard)
        except Overrun:
            self._counters["xfrm_events_lost"] += 1
            self._suspect = True
            expired = {
                each.state.id: self._kernel.state(each.state.id) is None for each in self._associations
            }
        requests = []
        for each in self._associations:
            hard = expired.get(each.state.id)
            if hard is None or not each.outbound or not each.installed:
                continue
            if not hard:
                if self._extend(each):
                    requests.append(xfrm.update(each.limited()))
            elif self._kernel.state(each.state.id) is None:
                self._counters["reservation_used_up"] += 1
                requests += self._install(each)
        self._change(requests)

    def _change(self, requests: Sequence[Request]) -> set[int]:
        """Which of them were not done, as far as is known, by index."""
        try:
            failures: list[Failure] = self._kernel.carry_out(requests)
        except Overrun:
            self._counters["xfrm_answers_lost"] += 1
            return set(range(len(requests)))
        for failure in failures:
            self._counters[f"xfrm_{str(failure).split()[0]}"] += 1
        return {failure.index for failure in failures}

    # What others do.

    def _note(self, heard: Announcement) -> None:
        match heard:
            case Removed(_, installed):
                identity = _identity(installed.state)
                self._touched.add(identity)
                for each in self._associations:
                    if _identity(each.state) == identity:
                        each.remember(installed)
            case Installed(installed):
                self._touched.add(_identity(installed.state))
            case _:
                self._suspect = True

    def look(self) -> Counter[str]:
        """Remember the numbers of states, and repair what others have removed or changed: how much, by kind.

        Policies are looked at when there was news, and now and then.
        """
        self.read_events()
        self._looks += 1
        touched, suspect = self._touched, self._suspect or not self._looks % _WHOLE
        self._touched, self._suspect = set(), False
        try:
            repairs = self._policy_repairs() if suspect else []
            repairs += self._state_repairs(touched)
        except (OSError, Overrun):
            self._counters["repair_failed"] += 1
            self._touched, self._suspect = touched, True
            return Counter()
        failed = self._change([request for _, request in repairs])
        repaired = Counter(kind for at, (kind, _) in enumerate(repairs) if kind and at not in failed)
        self._counters.update({f"repaired_{kind}": count for kind, count in repaired.items()})
        if failed:
            self._touched, self._suspect = touched, True
        return repaired

    def _policy_repairs(self) -> list[tuple[str, Request]]:
        there = {each.policy for each in self._kernel.policies()}
        stray = [policy for policy in there if is_ours(policy) and policy.id not in self._policies]
        wanted = [policy for policy in self._policies.values() if policy not in there]
        requests = [*map(xfrm.update_policy, wanted), *map(xfrm.remove_policy, stray)]
        return [("policy", request) for request in requests]

    def _state_repairs(self, touched: Container[StateId]) -> list[tuple[str, Request]]:
        there = {_identity(each.state): each for each in self._kernel.states()}
        repairs = []
        for each in self._associations:
            if not each.installed:
                continue
            identity = _identity(each.state)
            found = there.pop(identity, None)
            intact = found is not None and each.is_intact(found) and identity not in touched
            if found is not None:
                each.remember(found)
            if intact:
                continue
            each.close_window()
            repairs += _in_the_way(found) + [("state", request) for request in self._install(each)]
        away = self._care_of_address
        for state in self._wanted.header_states(away) if away is not None else ():
            found = there.pop(_identity(state), None)
            if found is None or found.state != state:
                repairs += [*_in_the_way(found), ("header_state", xfrm.install(state))]
        stray = [each.state.id for each in there.values() if each.state.reqid in REQIDS]
        return repairs + [("state", xfrm.remove(identity)) for identity in stray]


def _identity(state: State) -> StateId:
    """What the kernel knows a state by: with an SPI its source does not matter."""
    return state.id._replace(source=UNSPECIFIED) if state.spi else state.id


def _in_the_way(found: InstalledState | None) -> list[tuple[str, Request]]:
    return [("", xfrm.remove(found.state.id))] if found is not None else []
