"""Policies as the kernel keeps them: data, and both directions of encoding.

Covered: sub and main policies with templates. Not covered: IPv4, marks, interfaces, policies of sockets; the
conversation with the kernel (``xfrm``).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import IntEnum

from ..wire import UNSPECIFIED
from .netlink_messages import attribute
from .xfrm_layout import (
    A_POLICY_TYPE,
    A_TEMPLATES,
    FOREVER,
    POLICY,
    POLICY_ID,
    POLICY_TYPE,
    TEMPLATE,
    USAGE,
    Limits,
    Mode,
    Selector,
    Usage,
)

__all__ = [
    "ALLOW",
    "BLOCK",
    "Action",
    "Direction",
    "InstalledPolicy",
    "Policy",
    "PolicyId",
    "PolicyType",
    "Template",
]

_ANY_ALGORITHM = 0xFFFFFFFF


class Direction(IntEnum):
    """Which packets a policy is for, seen from the host."""

    IN = 0
    OUT = 1
    FORWARD = 2


class PolicyType(IntEnum):
    """Sub policies stand before main ones and are applied in addition: Mobile IPv6 beside IPsec."""

    MAIN = 0
    SUB = 1


class Action(IntEnum):
    """What happens to a packet that a policy selects."""

    ALLOW = 0
    BLOCK = 1


ALLOW, BLOCK = Action.ALLOW, Action.BLOCK


@dataclass(frozen=True, slots=True)
class Template:
    """A state that a policy asks for; ``optional`` is level "use"."""

    protocol: int
    mode: Mode
    reqid: int = 0
    source: bytes = UNSPECIFIED
    destination: bytes = UNSPECIFIED
    optional: bool = False
    spi: int = 0

    def encoded(self) -> bytes:
        """``struct xfrm_user_tmpl``."""
        return TEMPLATE.pack(
            self.destination,
            self.spi.to_bytes(4, "big"),
            self.protocol,
            socket.AF_INET6,
            self.source,
            self.reqid,
            self.mode,
            0,
            self.optional,
            *(_ANY_ALGORITHM, _ANY_ALGORITHM, _ANY_ALGORITHM),
        )

    @classmethod
    def decoded(cls, data: bytes, offset: int) -> Template:
        """The other way."""
        destination, spi, protocol, _, source, reqid, mode, _, optional, *_ = TEMPLATE.unpack_from(
            data, offset
        )
        return cls(
            protocol, Mode(mode), reqid, source, destination, bool(optional), int.from_bytes(spi, "big")
        )


PolicyId = tuple[Selector, Direction, PolicyType]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as one wants it. The lower the priority's number, the earlier it is asked."""

    selector: Selector
    direction: Direction
    priority: int
    type: PolicyType = PolicyType.MAIN
    templates: tuple[Template, ...] = ()
    action: Action = ALLOW
    limits: Limits = FOREVER

    @property
    def id(self) -> PolicyId:
        """What the kernel knows it by: another one of the same takes its place."""
        return self.selector, self.direction, self.type

    def encoded(self) -> bytes:
        """The body of a message that installs it."""
        body = b"".join(
            (
                self.selector.encoded(),
                self.limits.encoded(),
                bytes(USAGE.size),
                POLICY.pack(self.priority, 0, self.direction, self.action, 0, 0),
            )
        )
        if self.templates:
            body += attribute(A_TEMPLATES, b"".join(template.encoded() for template in self.templates))
        return body + policy_type(self.type)

    def name(self) -> bytes:
        """The body of a message that names it: ``struct xfrm_userpolicy_id`` and its type."""
        return self.selector.encoded() + POLICY_ID.pack(0, self.direction) + policy_type(self.type)


def policy_type(kind: PolicyType) -> bytes:
    """The attribute with the type of a policy."""
    return attribute(A_POLICY_TYPE, POLICY_TYPE.pack(kind, 0, 0))


@dataclass(frozen=True, slots=True)
class InstalledPolicy:
    """A policy as the kernel has it."""

    policy: Policy
    index: int
    usage: Usage

    @classmethod
    def decoded(cls, body: bytes, found: dict[int, bytes]) -> InstalledPolicy:
        """From the body of a message and its attributes."""
        priority, index, direction, action, _, _ = POLICY.unpack_from(body, 152)
        templates = found.get(A_TEMPLATES, b"")
        # The kernel leaves the type away where it knows only one.
        kind = PolicyType(found[A_POLICY_TYPE][0]) if A_POLICY_TYPE in found else PolicyType.MAIN
        policy = Policy(
            Selector.decoded(body),
            Direction(direction),
            priority,
            kind,
            tuple(Template.decoded(templates, at) for at in range(0, len(templates), TEMPLATE.size)),
            Action(action),
            Limits.decoded(body, 56),
        )
        return cls(policy, index, Usage.decoded(body, 120))
