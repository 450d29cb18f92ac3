"""Which policies and header states a mobile node wants in the kernel, by where it is.

Covered: signalling in transport mode, home address option and type 2 routing header, payload in tunnel mode
and what is not payload. Not covered: the SAs, changing the kernel (``mobile_associations``).
"""

from __future__ import annotations

import socket

from ..ipsec import policy as uses
from ..ipsec.policy import Use
from ..mobile.parameters import EmulatorParameters
from ..wire import UNSPECIFIED
from .xfrm_layout import Mode, Selector
from .xfrm_policy import Direction, Policy, PolicyId, PolicyType, Template
from .xfrm_state import State

__all__ = ["HEADERS", "REQIDS", "MobilePolicies", "is_ours", "reqid"]

_MOBILITY, _ICMPV6, _ESP = 135, socket.IPPROTO_ICMPV6, socket.IPPROTO_ESP
_HOME_ADDRESS_OPTION, _TYPE_2_ROUTING = socket.IPPROTO_DSTOPTS, socket.IPPROTO_ROUTING
_UPDATE, _SOLICITATION, _ADVERTISEMENT = 5, 146, 147
# Behind an extension header the kernel (6.1) takes an ICMPv6 message's type from that header's first octet,
# which is the number of what follows. No ICMPv6 type has this number.
_BEHIND_A_HEADER = _ICMPV6

# What is ours is known again by its reqid ("mn" and a number), and a policy that only allows by its priority.
REQIDS = range(0x6D6E0000, 0x6D6E0100)
HEADERS = REQIDS[0]
_SIGNALLING_PRIORITY, _ALLOW_PRIORITY, _PAYLOAD_PRIORITY = 13600, 13620, 13640
_HEADER_PRIORITY = 13600
_ORDER = {use: rank for rank, use in enumerate(Use)}


def reqid(use: Use, *, to_home_agent: bool) -> int:
    """What ties an SA of this use to its policies."""
    # At home the kernel does not see which Mobility Header it is, so that any SA for them must do.
    if use is Use.BINDING and not to_home_agent:
        use = Use.SIGNALLING
    return HEADERS + 1 + 2 * _ORDER[use] + to_home_agent


def is_ours(policy: Policy) -> bool:
    """Whether a policy is one of an emulator's."""
    if not policy.templates:
        return policy.priority == _ALLOW_PRIORITY
    return any(template.reqid in REQIDS for template in policy.templates)


class MobilePolicies:
    """Those of one mobile node."""

    def __init__(self, parameters: EmulatorParameters) -> None:
        self._home_address = parameters.home_address
        self._home_agent = parameters.home_agent
        self._networks = ((parameters.home_address, 128), *parameters.prefixes)
        self._uses = {(each.use, each.direction is uses.Direction.OUT) for each in parameters.associations}

    def at(self, care_of_address: bytes | None, *, tunnel: bool = False) -> dict[PolicyId, Policy]:
        """Those of a place, home without ``care_of_address``; ``tunnel``: applications' packets may leave."""
        wanted = self._signalling(away=care_of_address is not None)
        if care_of_address is not None:
            wanted += self._headers() + self._payload(care_of_address, outbound=False)
            if tunnel:
                wanted += self._payload(care_of_address, outbound=True)
        if any(use.mode is uses.Mode.TUNNEL for use, _ in self._uses):
            wanted += self._exceptions()
        found: dict[PolicyId, Policy] = {}
        for policy in wanted:
            # The first one counts: another of the same key would take its place in the kernel.
            found.setdefault(policy.id, policy)
        return found

    def header_states(self, care_of_address: bytes) -> list[State]:
        """What inserts the home address option and demands the type 2 routing header."""
        return [
            State(
                selector.source,
                selector.destination,
                protocol,
                Mode.ROUTE_OPTIMIZATION,
                reqid=HEADERS,
                selector=selector,
                care_of_address=care_of_address,
            )
            for selector, protocol in (
                (self._between(outbound=True), _HOME_ADDRESS_OPTION),
                (self._between(outbound=False), _TYPE_2_ROUTING),
            )
        ]

    def _signalling(self, *, away: bool) -> list[Policy]:
        """ESP in transport mode for messages of the kinds that there are SAs for."""
        found = []
        for use, outbound in sorted(
            (each for each in self._uses if each[0].mode is not uses.Mode.TUNNEL),
            key=lambda pair: (_ORDER[pair[0]], pair[1]),
        ):
            wanted = uses.selector(use, to_home_agent=outbound)
            kinds: list[int | None] = [wanted.type]
            if not outbound and use is Use.PREFIX:
                kinds.append(_BEHIND_A_HEADER)
            if not outbound and use is Use.BINDING and not away:
                kinds = [None]
            template = Template(_ESP, Mode.TRANSPORT, reqid(use, to_home_agent=outbound))
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
                (Template(header, Mode.ROUTE_OPTIMIZATION, HEADERS),),
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
        template = Template(_ESP, Mode.TUNNEL, reqid(Use.PAYLOAD, to_home_agent=outbound), *ends)
        if (Use.PAYLOAD, outbound) not in self._uses:
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
