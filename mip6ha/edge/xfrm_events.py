"""What the kernel announces about states and policies: NETLINK_XFRM notifications.

Covered: installation, removal, expiry and counters of states, the same of policies, overruns. Not covered:
requests for negotiation (acquire), NAT mappings, migrations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .netlink_messages import Conversation, Message, attributes
from .socket_filter import AND, IF_EQUAL, KEEP_BACK, LET_THROUGH, LOAD_HALF, LOAD_WORD, program, word
from .xfrm_layout import (
    A_POLICY,
    A_STATE,
    A_USAGE,
    DELETE_POLICY,
    DELETE_STATE,
    EVENT_ID,
    EXPIRE,
    FLUSH_POLICIES,
    FLUSH_STATES,
    GROUP_EVENTS,
    GROUP_EXPIRE,
    GROUP_POLICY,
    GROUP_STATE,
    NEW_EVENT,
    NEW_POLICY,
    NEW_STATE,
    POLICY_EXPIRE,
    POLICY_SIZE,
    PROTOCOL,
    STATE_ID,
    STATE_SIZE,
    UPDATE_POLICY,
    UPDATE_STATE,
    Usage,
)
from .xfrm_policy import InstalledPolicy
from .xfrm_state import Counters, InstalledState, StateId

__all__ = [
    "Announcement",
    "Counted",
    "Expired",
    "Flushed",
    "Installed",
    "PolicyExpired",
    "PolicyInstalled",
    "PolicyRemoved",
    "Removed",
    "XfrmEvents",
    "counted",
    "not_by",
    "others_only",
    "policy_in",
    "removals_by",
    "removed_state",
    "state_in",
]

_BY_TIMER = 16


class Installed(NamedTuple):
    """A state was installed or changed."""

    state: InstalledState


class Removed(NamedTuple):
    """A state was removed; ``installed`` is how it was, and where its counters ended."""

    id: StateId
    installed: InstalledState


class Expired(NamedTuple):
    """A state reached its soft limit, or its hard one: then it is removed."""

    id: StateId
    reqid: int
    usage: Usage
    hard: bool


class Counted(NamedTuple):
    """The counters of a state, as asked for or announced. ``window`` is the size of its replay window."""

    id: StateId
    reqid: int
    counters: Counters
    window: int
    usage: Usage
    by_timer: bool = False


class PolicyInstalled(NamedTuple):
    """A policy was installed or changed."""

    policy: InstalledPolicy


class PolicyRemoved(NamedTuple):
    """A policy was removed; ``None`` if the kernel does not say which."""

    policy: InstalledPolicy | None


class PolicyExpired(NamedTuple):
    """A policy reached its soft or hard limit."""

    policy: InstalledPolicy
    hard: bool


class Flushed(NamedTuple):
    """Somebody removed every state (of a protocol), or every policy."""

    policies: bool


Announcement = (
    Installed | Removed | Expired | Counted | PolicyInstalled | PolicyRemoved | PolicyExpired | Flushed
)


def state_in(body: bytes) -> InstalledState:
    """The state in the body of a message."""
    return InstalledState.decoded(body, attributes(body, STATE_SIZE))


def policy_in(body: bytes) -> InstalledPolicy:
    """The policy in the body of a message."""
    return InstalledPolicy.decoded(body, attributes(body, POLICY_SIZE))


def counted(body: bytes) -> Counted:
    """The counters in the body of a message."""
    source, flags, reqid = EVENT_ID.unpack_from(body, STATE_ID.size)
    found = attributes(body, STATE_ID.size + EVENT_ID.size)
    counters, window = Counters.decoded(found)
    usage = Usage.decoded(found[A_USAGE]) if A_USAGE in found else Usage()
    return Counted(StateId.decoded(body, source), reqid, counters, window, usage, bool(flags & _BY_TIMER))


def _removed(body: bytes) -> Removed:
    found = attributes(body, STATE_ID.size)
    # Algorithms and counters stand beside the state, not in it.
    installed = InstalledState.decoded(found[A_STATE], found)
    return Removed(installed.state.id, installed)


def removed_state(body: bytes) -> tuple[StateId, Counters]:
    """Which state somebody removed, and where its counters stood then."""
    removed = _removed(body)
    return removed.id, removed.installed.counters


def _policy_removed(body: bytes) -> PolicyRemoved:
    found = attributes(body, 64)
    # Type and templates stand beside the policy, not in it.
    return PolicyRemoved(InstalledPolicy.decoded(found[A_POLICY], found) if A_POLICY in found else None)


def _announcement(message: Message) -> Announcement | None:
    kind, body = message
    if kind in (NEW_STATE, UPDATE_STATE):
        return Installed(state_in(body))
    if kind == DELETE_STATE:
        return _removed(body)
    if kind == EXPIRE:
        # It comes without algorithms and counters.
        found = InstalledState.decoded(body, {})
        return Expired(found.state.id, found.state.reqid, found.usage, bool(body[STATE_SIZE]))
    if kind == NEW_EVENT:
        return counted(body)
    if kind in (NEW_POLICY, UPDATE_POLICY):
        return PolicyInstalled(policy_in(body))
    if kind == DELETE_POLICY:
        return _policy_removed(body)
    if kind == POLICY_EXPIRE:
        policy = InstalledPolicy.decoded(body, attributes(body, POLICY_SIZE + 8))
        return PolicyExpired(policy, bool(body[POLICY_SIZE]))
    if kind in (FLUSH_STATES, FLUSH_POLICIES):
        return Flushed(kind == FLUSH_POLICIES)
    return None


# Where it stands in a notification.
_KIND_AT, _PORT_AT, _COUNTED_REQID_AT = 4, 12, 16 + STATE_ID.size + 20


def not_by(port: int) -> bytes:
    """What this socket did not cause."""
    return program(
        (LOAD_WORD, 0, 0, _PORT_AT),
        (IF_EQUAL, 0, 1, word(port)),
        KEEP_BACK,
        LET_THROUGH,
    )


def removals_by(port: int) -> bytes:
    """Only states that this socket removed."""
    return program(
        (LOAD_WORD, 0, 0, _PORT_AT),
        (IF_EQUAL, 0, 3, word(port)),
        (LOAD_HALF, 0, 0, _KIND_AT),
        (IF_EQUAL, 0, 1, DELETE_STATE << 8),
        LET_THROUGH,
        KEEP_BACK,
    )


def others_only(port: int, reqids: range) -> bytes:
    """What this socket did not cause; counters only of states with these reqids, 2^16 of them."""
    return program(
        (LOAD_WORD, 0, 0, _PORT_AT),
        (IF_EQUAL, 5, 0, word(port)),
        (LOAD_HALF, 0, 0, _KIND_AT),
        (IF_EQUAL, 0, 4, NEW_EVENT << 8),
        (LOAD_WORD, 0, 0, _COUNTED_REQID_AT),
        (AND, 0, 0, word(0xFFFF0000)),
        (IF_EQUAL, 1, 0, word(reqids.start)),
        KEEP_BACK,
        LET_THROUGH,
    )


class XfrmEvents:
    """What the kernel announces about states, policies, counters and expiry, whoever caused it.

    ``buffer`` is how many octets may wait. Who listens to counters makes the kernel announce those of every
    state, every two packets. ``program`` keeps something back. Not to be mixed with :class:`Xfrm`: each has
    a socket of its own.
    """

    def __init__(
        self,
        buffer: int = 1 << 20,
        groups: Iterable[int] = (GROUP_EXPIRE, GROUP_STATE, GROUP_POLICY, GROUP_EVENTS),
        program: bytes = b"",
    ) -> None:
        self._conversation = Conversation(PROTOCOL, groups, buffer)
        if program:
            self._conversation.attach_filter(program)

    def close(self) -> None:
        """Give up the socket."""
        self._conversation.close()

    def fileno(self) -> int:
        """For a reactor: readable when something was announced."""
        return self._conversation.fileno()

    def read(self) -> list[Announcement]:
        """What has been announced since, without waiting.

        Raises :class:`~.netlink_messages.Overrun` when some of it was lost: then only a comparison of all
        that is installed helps.
        """
        found = (_announcement(message) for message in self._conversation.notifications())
        return [each for each in found if each is not None]
