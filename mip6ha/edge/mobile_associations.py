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
from ..ipsec.policy import Use
from ..ipsec.sad import counter_limit
from ..mobile.parameters import EmulatorParameters
from ..mobile.protection import RESERVATION
from ..parameters import AssociationParameters
from ..wire import UNSPECIFIED
from . import xfrm
from .errors import Unusable
from .netlink_messages import Failure, Overrun, Request
from .xfrm import Xfrm
from .xfrm_events import Expired, XfrmEvents
from .xfrm_layout import GROUP_EXPIRE, Limits, Mode, Selector
from .xfrm_policy import Direction, InstalledPolicy, Policy, PolicyType, Template
from .xfrm_state import Counters, Protection, State, StateFlag

__all__ = ["KernelAssociations", "remove_own"]

_MOBILITY, _ICMPV6, _ESP = 135, socket.IPPROTO_ICMPV6, socket.IPPROTO_ESP
_HOME_ADDRESS_OPTION, _TYPE_2_ROUTING = socket.IPPROTO_DSTOPTS, socket.IPPROTO_ROUTING
_UPDATE, _SOLICITATION, _ADVERTISEMENT = 5, 146, 147
# Behind an extension header the kernel (6.1) takes an ICMPv6 message's type from that header's first octet,
# which is the number of what follows. No ICMPv6 type has this number.
_BEHIND_A_HEADER = _ICMPV6

# What is ours is known again by its reqid ("mn" and a number), and a policy that only allows by its priority.
_REQIDS = range(0x6D6E0000, 0x6D6E0100)
_HEADERS = _REQIDS[0]
_SIGNALLING_PRIORITY, _ALLOW_PRIORITY, _PAYLOAD_PRIORITY = 13600, 13620, 13640
_HEADER_PRIORITY = 13600
_ORDER = {use: rank for rank, use in enumerate(Use)}
_PolicyKey = tuple[Selector, Direction, PolicyType]


def _reqid(use: Use, *, to_home_agent: bool) -> int:
    # At home the kernel does not see which Mobility Header it is, so that any SA for them must do.
    if use is Use.BINDING and not to_home_agent:
        use = Use.SIGNALLING
    return _HEADERS + 1 + 2 * _ORDER[use] + to_home_agent


def _is_ours(installed: InstalledPolicy) -> bool:
    policy = installed.policy
    if not policy.templates:
        return policy.priority == _ALLOW_PRIORITY
    return any(template.reqid in _REQIDS for template in policy.templates)


def remove_own(counters: Counter[str]) -> None:
    """Remove what a killed emulator left; nothing where the kernel has no XFRM."""
    try:
        kernel = Xfrm()
    except OSError:
        return
    try:
        policies = [xfrm.remove_policy(each.policy) for each in kernel.policies() if _is_ours(each)]
        states = [xfrm.remove(each.state.id) for each in kernel.states() if each.state.reqid in _REQIDS]
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
        self._networks = ((parameters.home_address, 128), *parameters.prefixes)
        self._reserve = reserve
        self._counters = counters
        self._care_of_address: bytes | None = None
        self._policies: dict[_PolicyKey, Policy] = {}
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
            _ESP,
            Mode.TUNNEL if given.use.mode is uses.Mode.TUNNEL else Mode.TRANSPORT,
            given.spi,
            _reqid(given.use, to_home_agent=to_home_agent),
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
        states = self._header_states(care_of_address)
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
        requests += [xfrm.remove(state.id) for state in self._header_states(self._care_of_address)]
        requests += self._take_out([each for each in self._associations if each.tunnel])
        self._change(requests)
        self._care_of_address = None

    def set_tunnel(self, care_of_address: bytes) -> None:
        """Let applications' packets out, in tunnel mode where there are SAs for it."""
        self._change(self._policy_changes(care_of_address, tunnel=True))

    def remove_tunnel(self) -> None:
        """Undo :meth:`set_tunnel`."""
        self._change(self._policy_changes(self._care_of_address))

    def _header_states(self, care_of_address: bytes) -> list[State]:
        return [
            State(
                selector.source,
                selector.destination,
                protocol,
                Mode.ROUTE_OPTIMIZATION,
                reqid=_HEADERS,
                selector=selector,
                care_of_address=care_of_address,
            )
            for selector, protocol in (
                (self._between(outbound=True), _HOME_ADDRESS_OPTION),
                (self._between(outbound=False), _TYPE_2_ROUTING),
            )
        ]

    # Policies.

    def _policy_changes(self, care_of_address: bytes | None, *, tunnel: bool = False) -> list[Request]:
        """What makes the installed policies those of a place."""
        wanted = self._signalling(away=care_of_address is not None)
        if care_of_address is not None:
            wanted += self._headers() + self._payload(care_of_address, outbound=False)
            if tunnel:
                wanted += self._payload(care_of_address, outbound=True)
        if any(each.tunnel for each in self._associations):
            wanted += self._exceptions()
        before, self._policies = self._policies, {}
        for policy in wanted:
            # The first one counts: another of the same key would take its place in the kernel.
            self._policies.setdefault((policy.selector, policy.direction, policy.type), policy)
        changed = [policy for key, policy in self._policies.items() if before.get(key) != policy]
        gone = [policy for key, policy in before.items() if key not in self._policies]
        return [*map(xfrm.update_policy, changed), *map(xfrm.remove_policy, gone)]

    def _signalling(self, *, away: bool) -> list[Policy]:
        """ESP in transport mode for messages of the kinds that there are SAs for."""
        found = []
        for use, outbound in sorted(
            {(each.parameters.use, each.outbound) for each in self._associations if not each.tunnel},
            key=lambda pair: (_ORDER[pair[0]], pair[1]),
        ):
            wanted = uses.selector(use, to_home_agent=outbound)
            kinds: list[int | None] = [wanted.type]
            if not outbound and use is Use.PREFIX:
                kinds.append(_BEHIND_A_HEADER)
            if not outbound and use is Use.BINDING and not away:
                kinds = [None]
            template = Template(_ESP, Mode.TRANSPORT, _reqid(use, to_home_agent=outbound))
            found += [
                Policy(
                    self._between(outbound=outbound, protocol=wanted.protocol or 0, kind=kind),
                    Direction.OUT if outbound else Direction.IN,
                    _SIGNALLING_PRIORITY + _ORDER[use],
                    templates=(template,),
                )
                for kind in kinds
            ]
        return found

    def _headers(self) -> list[Policy]:
        """A home address option in what we say (RFC 6275 11.3.1), a routing header in what we hear."""
        return [
            Policy(
                self._between(outbound=direction is Direction.OUT, protocol=protocol, kind=kind),
                direction,
                _HEADER_PRIORITY,
                PolicyType.SUB,
                (Template(header, Mode.ROUTE_OPTIMIZATION, _HEADERS),),
            )
            for direction, header, protocol, kind in (
                (Direction.OUT, _HOME_ADDRESS_OPTION, _MOBILITY, _UPDATE),
                (Direction.OUT, _HOME_ADDRESS_OPTION, _ICMPV6, _SOLICITATION),
                (Direction.IN, _TYPE_2_ROUTING, _MOBILITY, None),
                (Direction.IN, _TYPE_2_ROUTING, _ICMPV6, _ADVERTISEMENT),
                (Direction.IN, _TYPE_2_ROUTING, _ICMPV6, _BEHIND_A_HEADER),
            )
        ]

    def _payload(self, care_of_address: bytes, *, outbound: bool) -> list[Policy]:
        """Tunnel mode for what leaves our networks, or for what comes to them."""
        ends = (care_of_address, self._home_agent) if outbound else (self._home_agent, care_of_address)
        directions = (Direction.OUT,) if outbound else (Direction.IN, Direction.FORWARD)
        template = Template(_ESP, Mode.TUNNEL, _reqid(Use.PAYLOAD, to_home_agent=outbound), *ends)
        if not any(each.tunnel and each.outbound is outbound for each in self._associations):
            return []
        anywhere = (UNSPECIFIED, 0)
        return [
            Policy(
                Selector(*here, *anywhere) if outbound else Selector(*anywhere, *here),
                direction,
                _PAYLOAD_PRIORITY,
                templates=(template,),
            )
            for here in self._networks
            for direction in directions
        ]

    def _exceptions(self) -> list[Policy]:
        """What is no payload, though it would be taken for it: messages, and what stays here."""
        wanted = [
            (self._between(outbound=outbound, protocol=protocol, kind=kind), direction)
            for outbound, direction, protocol, kind in (
                (True, Direction.OUT, _MOBILITY, None),
                (True, Direction.OUT, _ICMPV6, _SOLICITATION),
                (False, Direction.IN, _MOBILITY, None),
                (False, Direction.IN, _ICMPV6, _ADVERTISEMENT),
                (False, Direction.IN, _ICMPV6, _BEHIND_A_HEADER),
            )
        ]
        wanted += [
            (Selector(*source, *destination), direction)
            for source in self._networks
            for destination in self._networks
            for direction in Direction
        ]
        return [Policy(selector, direction, _ALLOW_PRIORITY) for selector, direction in wanted]

    def _between(self, *, outbound: bool, protocol: int = 0, kind: int | None = None) -> Selector:
        ends = (self._home_address, self._home_agent)
        return Selector.between(*(ends if outbound else ends[::-1]), protocol, kind)

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
