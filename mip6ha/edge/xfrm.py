"""The kernel's security associations and policies: NETLINK_XFRM on a plain socket.

Covered: installing, changing, removing, finding and dumping states and policies, counters, migration,
allocation of SPIs, what the kernel announces. Not covered: negotiation, flushing: what is not ours stays.

Changes are requests, sent many at a time by :meth:`Xfrm.carry_out`, which says which of them failed.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

from .netlink_messages import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Conversation,
    Failure,
    Message,
    Request,
    attribute,
)
from .xfrm_events import Counted, counted, policy_in, removals_by, removed_state, state_in
from .xfrm_layout import (
    A_MIGRATE,
    A_REPLAY_THRESHOLD,
    A_SOURCE,
    A_TIME_THRESHOLD,
    ALLOCATE_SPI,
    DELETE_POLICY,
    DELETE_STATE,
    EVENT_ID,
    GET_EVENT,
    GET_POLICY,
    GET_STATE,
    GROUP_STATE,
    MIGRATE,
    MIGRATION,
    NEW_EVENT,
    NEW_POLICY,
    NEW_STATE,
    PROTOCOL,
    UPDATE_POLICY,
    UPDATE_STATE,
    Mode,
    Selector,
)
from .xfrm_policy import Direction, InstalledPolicy, Policy, PolicyType
from .xfrm_state import Counters, InstalledState, State, StateId

__all__ = [
    "Migration",
    "Xfrm",
    "count",
    "install",
    "install_policy",
    "migrate",
    "remove",
    "remove_policy",
    "update",
    "update_policy",
]

_WITH_REPLAY, _WITH_USAGE, _BY_USER = 2, 4, 64


# -- requests ------------------------------------------------------------------------------------------------


def install(
    state: State,
    counters: Counters = Counters(),  # noqa: B008 - immutable
    *,
    event_after: int | None = None,
    event_after_tenths: int | None = None,
) -> Request:
    """A new state, its counters where they are to go on; EEXIST if there is one of that id.

    After ``event_after`` packets, or ``event_after_tenths`` of a second with at least one, the kernel
    announces :class:`~.xfrm_events.Counted`.
    """
    body = state.encoded(counters) + _thresholds(event_after, event_after_tenths)
    return Request(NEW_STATE, CREATE | EXCLUSIVE, body)


def update(state: State) -> Request:
    """Change care-of address, limits and selector of a state (ESRCH without it). Counters and keys stay."""
    return Request(UPDATE_STATE, REPLACE, state.encoded(Counters()))


def remove(identity: StateId) -> Request:
    """End a state; ESRCH if there is none."""
    return Request(DELETE_STATE, 0, _find(identity))


def count(
    identity: StateId,
    counters: Counters | None = None,
    window: int = 0,
    *,
    event_after: int | None = None,
    event_after_tenths: int | None = None,
) -> Request:
    """Set the counters of a state, whose window has this size, or when it announces them."""
    body = _event_id(identity, _BY_USER)
    if counters is not None:
        body += counters.encoded(window)
    return Request(NEW_EVENT, REPLACE, body + _thresholds(event_after, event_after_tenths))


def install_policy(policy: Policy) -> Request:
    """A new policy; EEXIST if there is one for the same selector, direction and type."""
    return Request(NEW_POLICY, CREATE | EXCLUSIVE, policy.encoded())


def update_policy(policy: Policy) -> Request:
    """A policy in the place of the one of the same selector, direction and type, if there is one."""
    return Request(UPDATE_POLICY, REPLACE, policy.encoded())


def remove_policy(policy: Policy) -> Request:
    """End the policy of that selector, direction and type; ENOENT if there is none."""
    return Request(DELETE_POLICY, 0, policy.name())


class Migration(NamedTuple):
    """New end points for the states that a tunnel policy's template asks for."""

    old_source: bytes
    old_destination: bytes
    new_source: bytes
    new_destination: bytes
    protocol: int = socket.IPPROTO_ESP
    mode: Mode = Mode.TUNNEL
    reqid: int = 0


def migrate(
    selector: Selector, direction: Direction, changes: Iterable[Migration], kind: PolicyType = PolicyType.MAIN
) -> Request:
    """Move a policy's templates and their states to other addresses at once (RFC 6275 10.5 calls for it)."""
    entries = b"".join(
        MIGRATION.pack(
            *(each.old_destination, each.old_source, each.new_destination, each.new_source),
            *(each.protocol, each.mode, 0, each.reqid, socket.AF_INET6, socket.AF_INET6),
        )
        for each in changes
    )
    policy = Policy(selector, direction, 0, kind)
    return Request(MIGRATE, 0, policy.name() + attribute(A_MIGRATE, entries))


def _find(identity: StateId) -> bytes:
    return identity.encoded() + attribute(A_SOURCE, identity.source)


def _event_id(identity: StateId, flags: int) -> bytes:
    return identity.encoded() + EVENT_ID.pack(identity.source, flags, 0)


def _thresholds(packets: int | None, tenths: int | None) -> bytes:
    return b"".join(
        attribute(kind, value.to_bytes(4, "little"))
        for kind, value in ((A_REPLAY_THRESHOLD, packets), (A_TIME_THRESHOLD, tenths))
        if value is not None
    )


# -- conversations -------------------------------------------------------------------------------------------


class Xfrm:
    """Changes and questions. ``OSError`` where the kernel has no XFRM.

    Every method may raise :class:`~.netlink_messages.Overrun`: then it is unknown what was done.
    """

    def __init__(self) -> None:
        self._conversation = Conversation(PROTOCOL)

    def close(self) -> None:
        """Give up the socket."""
        self._conversation.close()

    @property
    def port(self) -> int:
        """What the kernel calls the socket that changes are made by."""
        return self._conversation.port

    @property
    def messages(self) -> int:
        """How many requests were sent."""
        return self._conversation.sent

    def carry_out(self, requests: Sequence[Request]) -> list[Failure]:
        """Make changes in order, with as few system calls as possible; which failed, by their index."""
        return self._conversation.send(requests)

    def take_out(self, identities: Iterable[StateId]) -> dict[StateId, Counters]:
        """Remove states; where their counters stood in the end, of those that were there.

        Asking before would miss what is sent meanwhile, and afterwards there is nobody to ask: so it is
        heard from the announcement, which is made when a state can be used no more.
        """
        announced = Conversation(PROTOCOL, (GROUP_STATE,))
        try:
            announced.attach_filter(removals_by(self.port))
            self._conversation.send([remove(each) for each in identities])
            return dict(removed_state(message.body) for message in announced.notifications())
        finally:
            announced.close()

    def states(self) -> Iterator[InstalledState]:
        """Every state of IPv6, ours or not. Take all before asking for anything else.

        Without those that have no SPI yet: the kernel makes them where it waits for a negotiation, lets
        nobody remove them, and forgets them after 30 seconds.
        """
        for message in self._conversation.dump(GET_STATE):
            if message.body[212:214] == _INET6:
                found = state_in(message.body)
                if found.state.spi or found.state.protocol != socket.IPPROTO_ESP:
                    yield found

    def policies(self) -> Iterator[InstalledPolicy]:
        """Every policy of IPv6, sub and main, ours or not; not those of sockets."""
        return (
            policy_in(message.body)
            for message in self._conversation.dump(GET_POLICY)
            if message.body[40:42] == _INET6 and message.body[160] <= Direction.FORWARD
        )

    def state(self, identity: StateId) -> InstalledState | None:
        """One state."""
        answer = self._ask(Request(GET_STATE, 0, _find(identity)))
        return state_in(answer.body) if answer else None

    def policy(self, policy: Policy) -> InstalledPolicy | None:
        """The policy of that selector, direction and type."""
        answer = self._ask(Request(GET_POLICY, 0, policy.name()))
        return policy_in(answer.body) if answer else None

    def counters(self, identity: StateId) -> Counted | None:
        """Where the counters of a state stand."""
        answer = self._ask(Request(GET_EVENT, 0, _event_id(identity, _WITH_REPLAY | _WITH_USAGE)))
        return counted(answer.body) if answer else None

    def allocate_spi(self, state: State, low: int = 0x100, high: int = 0xFFFFFFFF) -> int:
        """A free SPI for a state to come, which holds it for 30 seconds or until :func:`update`.

        ``OSError`` if the range is used up.
        """
        body = state.head() + low.to_bytes(4, "little") + high.to_bytes(4, "little")
        return state_in(self._conversation.ask(Request(ALLOCATE_SPI, 0, body)).body).state.spi

    def clear(self, reqids: Container[int]) -> list[Failure]:
        """Remove every state with one of these reqids, and every policy with one in a template."""
        requests = [
            remove_policy(each.policy)
            for each in self.policies()
            if any(template.reqid in reqids for template in each.policy.templates)
        ]
        requests += [remove(each.state.id) for each in self.states() if each.state.reqid in reqids]
        return self.carry_out(requests)

    def _ask(self, request: Request) -> Message | None:
        try:
            return self._conversation.ask(request)
        except OSError as error:
            if error.errno in (errno.ESRCH, errno.ENOENT):
                return None
            raise


_INET6 = int(socket.AF_INET6).to_bytes(2, "little")
