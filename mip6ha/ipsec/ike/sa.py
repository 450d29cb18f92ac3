"""The state of an IKE SA and of its children: plain data, complete, with no key object of any library in it.

Covered: what one end knows between two datagrams, with the types that a schema needs, so that it can be
written out and go on elsewhere (``state``). Not covered: what happens to it (the exchanges), parameters.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, field

from ..policy import Mode, Use
from .keymat import IkeKeys
from .selectors import TrafficSelector
from .transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Suite

__all__ = [
    "Address",
    "ChildSa",
    "Handshake",
    "IkeSa",
    "Pending",
    "Rival",
    "State",
    "Task",
    "TaskKind",
]

_U32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
_Spi = Annotated[int, Meta(ge=256, le=0xFFFFFFFF)]
_IkeSpi = Annotated[bytes, Meta(min_length=8, max_length=8)]
_IpAddress = Annotated[bytes, Meta(min_length=4, max_length=16)]
_MessageId = Annotated[int, Meta(ge=0, le=1 << 32)]

Address = tuple[_IpAddress, Annotated[int, Meta(ge=0, le=0xFFFF)]]
"""Octets of an IP address, and a UDP port."""


class State(StrEnum):
    """Where an IKE SA is in its life."""

    INITIATED = "initiated"
    """Our IKE_SA_INIT request is out."""
    HALF_OPEN = "half-open"
    """Keys are made, the other end has not authenticated."""
    ESTABLISHED = "established"
    REKEYED = "rekeyed"
    """Another IKE SA has taken its children; only its deletion is to come."""
    REFUSED = "refused"
    """The responder did not prove who it is; it is about to be told."""
    CLOSED = "closed"
    """Nothing is left but the last response, for whom it did not reach."""


class TaskKind(StrEnum):
    """What one end asks of the other, one exchange each."""

    INITIATE = "initiate"
    AUTHENTICATE = "authenticate"
    CREATE_CHILD = "create-child"
    REKEY_CHILD = "rekey-child"
    DELETE_CHILD = "delete-child"
    REKEY = "rekey"
    DELETE = "delete"
    PROBE = "probe"
    SYNCHRONISE = "synchronise"
    REJECT = "reject"
    """Tell a responder that its AUTH was not believed (2.21.2)."""


class Task(NamedTuple):
    """An exchange to begin. ``child`` names a child of the parameters, ``spi`` one that exists (inbound)."""

    kind: TaskKind
    child: str = ""
    spi: int = 0


class Rival(NamedTuple):
    """What the peer made of the SA that we are re-keying too (2.8.1): who has the lowest nonce gives way."""

    nonce: bytes
    """The lower of the two nonces of its exchange."""
    spi: bytes
    """Our SPI of the SA that came out of it."""


class Pending(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Our request that has no response yet, and what its response will need."""

    task: Task
    message_id: _MessageId
    datagrams: tuple[bytes, ...]
    attempts: int
    retransmit_at: float
    nonce: bytes = b""
    private: bytes = b""
    group: int = 0
    spi: bytes = b""
    rival: Rival | None = None
    gone: tuple[int, ...] = ()
    """SPIs of the peer that it deleted before its response, which made them, came here."""

    def __repr__(self) -> str:
        return f"<Pending {self.task.kind} {self.message_id}>"


class Handshake(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What the AUTH payloads will cover (2.15); gone once both ends have authenticated."""

    request: bytes
    response: bytes = b""
    nonce_i: bytes = b""
    nonce_r: bytes = b""
    cookie: bytes = b""
    rounds: int = 0
    digest: bytes = b""

    def __repr__(self) -> str:
        return "<Handshake>"


class ChildSa(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A pair of ESP SAs; ``spi_in`` is the SPI that we receive with. The keys are with who installed it."""

    name: str
    use: Use
    mode: Mode
    spi_in: _Spi
    spi_out: _Spi
    encryption: tuple[int, int | None]
    integrity: int
    group: int
    esn: bool
    local: tuple[TrafficSelector, ...]
    remote: tuple[TrafficSelector, ...]
    rekey_at: float
    expires_at: float
    home_address: bytes = b""
    replaced: bool = False
    """A successor exists; it is there to receive what is under way until it is deleted."""


class IkeSa(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One IKE SA. ``initiator`` is whether we began it; times are monotonic seconds."""

    spi_i: _IkeSpi
    spi_r: _IkeSpi
    initiator: bool
    peer: str
    state: State
    local: Address
    remote: Address
    encryption: tuple[int, int | None] = (0, None)
    integrity: int = 0
    prf: int = 0
    group: int = 0
    keys: IkeKeys | None = None
    iv_counter: int | None = None
    next_id: _MessageId = 0
    """The message id of our next request."""
    expected_id: _MessageId = 0
    """The message id of the peer's next request."""
    last_response: tuple[bytes, ...] = ()
    pending: Pending | None = None
    waiting: tuple[Task, ...] = ()
    handshake: Handshake | None = None
    identity: tuple[int, bytes] = (0, b"")
    """Who the peer is, as it has proved."""
    peer_hashes: tuple[int, ...] = ()
    fragments: bool = False
    message_id_sync: bool = False
    mobike: bool = False
    nat_here: bool = False
    nat_there: bool = False
    encapsulate: bool = False
    """ESP goes in UDP."""
    home_addresses: tuple[bytes, ...] = ()
    """What the mobile node among the two ends may use as home addresses."""
    children: dict[_U32, ChildSa] = field(default_factory=dict)
    rekey_at: float = float("inf")
    expires_at: float = float("inf")
    probe_at: float = float("inf")
    resume_at: float = float("inf")
    """When what TEMPORARY_FAILURE has put off is tried again (2.25)."""
    wanted_group: int = 0
    """What INVALID_KE_PAYLOAD asked for, until the request goes out again."""
    successor: bytes = b""
    predecessor: bytes = b""
    """Our SPI of the IKE SA whose place this one takes if its own re-key does not (2.8.2)."""
    generation: Annotated[int, Meta(ge=0)] = 0
    """Grows by one with each change."""

    def __repr__(self) -> str:
        return f"<IkeSa {self.spi.hex()} {self.state} {self.peer!r}>"

    @property
    def spi(self) -> bytes:
        """Our own SPI, which names this SA here."""
        return self.spi_i if self.initiator else self.spi_r

    @property
    def suite(self) -> Suite:
        """What was agreed on."""
        return Suite(
            ENCRYPTIONS[self.encryption],
            INTEGRITIES[self.integrity] if self.integrity else None,
            PRFS[self.prf],
            GROUPS[self.group],
        )

    def live_children(self) -> list[ChildSa]:
        """Those that have no successor."""
        return [each for each in self.children.values() if not each.replaced]
