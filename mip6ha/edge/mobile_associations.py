"""A mobile node's states and policies in the kernel: home address option, type 2 routing header, ESP.

Covered: signalling in transport mode at home and away, payload in tunnel mode, care-of addresses that change,
numbers that are never used twice. Not covered: negotiation; what is sent (``mobile_kernel``).

The kernel counts what it sends. So each outbound state begins above all that may have been used, and may send
no more than is reserved on stable storage: then the kernel removes it. Long before more is reserved.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..ipsec import policy as uses
from ..ipsec.sad import counter_limit
from ..mobile.parameters import EmulatorParameters
from ..mobile.protection import RESERVATION
from ..parameters import AssociationParameters
from . import xfrm
from .errors import Unusable
from .mobile_policies import REQIDS, MobilePolicies, PolicyKey, is_ours, reqid
from .netlink_messages import Failure, Overrun, Request
from .xfrm import Xfrm
from .xfrm_events import Expired, XfrmEvents
from .xfrm_layout import GROUP_EXPIRE, Limits, Mode
from .xfrm_policy import Policy
from .xfrm_state import Counters, Protection, State, StateFlag

__all__ = ["KernelAssociations", "remove_own"]


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
    """One SA. Outbound numbers run from above ``start`` to ``limit``; ``counters`` are the inbound ones."""

    parameters: AssociationParameters
    state: State
    installed: bool = False
    start: int = 0
    limit: int = 0
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
        self._policies: dict[PolicyKey, Policy] = {}
        self._associations = [self._association(given) for given in parameters.associations]
        self._floor = parameters.sequence_floor
        try:
            self._kernel = Xfrm()
            self.events = XfrmEvents(groups=(GROUP_EXPIRE,))
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
        each.start = each.limit
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
        for each in associations:
            if not each.installed:
                continue
            each.installed = False
            if not each.outbound:
                stood = self._kernel.counters(each.state.id)
                each.counters = stood.counters if stood is not None else each.counters
            requests.append(xfrm.remove(each.state.id))
        return requests

    def read_events(self) -> None:
        """States that have used half of what is reserved for them get more."""
        try:
            expired = {each.id: each.hard for each in self.events.read() if isinstance(each, Expired)}
        except Overrun:
            self._counters["xfrm_events_lost"] += 1
            expired = {
                each.state.id: self._kernel.state(each.state.id) is None for each in self._associations
            }
        requests = []
        for each in self._associations:
            hard = expired.get(each.state.id)
            if hard is None or not each.outbound or not each.installed:
                continue
            if hard:
                self._counters["reservation_used_up"] += 1
                requests += self._install(each)
            elif self._extend(each):
                requests.append(xfrm.update(each.limited()))
        self._change(requests)

    def _change(self, requests: Sequence[Request]) -> None:
        try:
            failures: list[Failure] = self._kernel.carry_out(requests)
        except Overrun:
            self._counters["xfrm_answers_lost"] += 1
            return
        for failure in failures:
            self._counters[f"xfrm_{str(failure).split()[0]}"] += 1
