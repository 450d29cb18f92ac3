"""The tables that make a home agent a member of a redundant set.

Covered: ``[group]`` and what is in it, with bounds, keys, manual or from IKE, and what two tables must not
both claim. Not covered: whether addresses and the arbiter exist (``edge``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .harp.numbers import Numbers
from .ike_config import AuthenticationTable, Credentials, CredentialsTable
from .ike_texts import (
    CHILD_ALLOWED,
    CHILD_DEFAULT,
    IDENTITY_ALLOWED,
    IKE_ALLOWED,
    IKE_DEFAULT,
    ChildOffer,
    IkeOffer,
)
from .ipsec.ike.identities import Identity
from .ipsec.ike.numbers import PORT
from .ipsec.ike.parameters import ChildPolicy, Limits, Parameters, Peer, Scope, Timing
from .ipsec.ike.proposals import Offer
from .ipsec.policy import Direction, Use
from .ipv6 import MOBILITY
from .parameters import AssociationParameters, GroupParameters, PeerParameters
from .tables import Address, KeyFile, Problems, ProtectionTable, Table, integer, key_path

__all__ = ["IKE_LIMITS", "IKE_TIMING", "ArbiterConfiguration", "GroupTable", "Membership", "member_child"]

IKE_TIMING = Timing(probe_interval=10.0, retransmit=0.1, backoff=1.5, half_open=5.0, linger=5.0, retry=0.5)
"""Members are near each other and cannot wait: even the longest pause between two attempts is below 1 s."""
IKE_LIMITS = Limits(source_rate=200.0, source_burst=200.0)
"""All members may be in one /64, and nobody else gets an answer."""

_MEMBER = "1 to 255"
_ADDRESS = "a routable unicast IPv6 address"
_BOOLEAN = "true, false"
_NUMBER = "0 to 255, not in use for anything else"
_VIRTUAL_MAC = 'a unicast MAC address such as 02:00:5e:00:02:01, or "off"'
_ENDPOINT = "http://HOST:PORT of an etcd server"
_SECONDS = "10 to 604800 seconds"
_SA = "[[group.peer.sa]] tables, one in and one out"
_IKE = "a table [group.peer.ike]"
_VIRTUAL_MAC_PREFIX = bytes.fromhex("02005e0002")


@dataclass(frozen=True, slots=True)
class ArbiterConfiguration:
    """Where terms come from: etcd servers, seconds that a lease lasts, what the names of keys begin with."""

    endpoints: tuple[str, ...]
    lease: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Membership:
    """What the edge of a member needs to know besides the core's parameters.

    ``virtual_mac`` is ``None`` where neighbours see the interface's own.
    """

    virtual_mac: bytes | None
    arbiter: ArbiterConfiguration | None
    realtime: bool


def _mac(value: object) -> object:
    if value == "off":
        return value
    if isinstance(value, str) and re.fullmatch(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}", value):
        octets = bytes.fromhex(value.replace(":", ""))
        if any(octets) and not octets[0] & 1:
            return octets
    raise PydanticCustomError("refused", "{wrong}", {"wrong": "is not the MAC address of an interface"})


def _endpoint(value: object) -> object:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
            usable = parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/")
        except ValueError:
            usable = False
        if usable:
            return value.rstrip("/")
    raise PydanticCustomError("refused", "{wrong}", {"wrong": "is not an endpoint"})


class _PeerTable(Table):
    member: Annotated[int, integer(1, 255)] = Field(description=_MEMBER)
    address: Address = Field(description=_ADDRESS)
    sa: list[ProtectionTable] = Field([], description=_SA)
    ike: AuthenticationTable | None = Field(None, description=_IKE)

    def parameters(
        self, key_file: KeyFile, location: list[str | int], problems: Problems
    ) -> tuple[AssociationParameters, ...]:
        if self.ike is not None:
            if self.sa:
                problems.add([*location, "ike"], "stands beside [[group.peer.sa]]", "one of both")
            return ()
        if not self.sa:
            problems.add([*location, "sa"], "is missing", f"{_SA}, or {_IKE}")
            return ()
        found = [
            each.protection(Use.HARP, key_file, [*location, "sa", index], problems)
            for index, each in enumerate(self.sa)
        ]
        directions = sorted(each.direction for each in self.sa)
        if directions != [Direction.IN, Direction.OUT]:
            problems.add([*location, "sa"], "is no pair", "one SA in and one out")
        return tuple(each for each in found if each is not None)


class _ArbiterTable(Table):
    endpoints: list[Annotated[str, BeforeValidator(_endpoint)]] = Field(
        description=f"a list of at least one {_ENDPOINT}", min_length=1
    )
    lease_s: Annotated[int, integer(2, 600)] = Field(5, description="2 to 600 seconds")
    prefix: str = Field("mip6ha", description="any text", min_length=1)


class _NumbersTable(Table):
    state_synchronization: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    control: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    hello: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    home_agent_switch: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    ip_address: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    binding_cache_information: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    synchronization_status: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    aaa_information: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    term: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    context: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    synchronized_members: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)
    digest: Annotated[int, integer(0, 255)] | None = Field(None, description=_NUMBER)


def member_child(own: bytes, peer: bytes, offers: tuple[Offer, ...]) -> ChildPolicy:
    """The child for all that two members say to each other, between their own addresses."""
    local, remote = Scope(MOBILITY, None, own, own), Scope(MOBILITY, None, peer, peer)
    return ChildPolicy(Use.HARP.value, Use.HARP, offers, (local,), (remote,))


class _GroupIkeTable(CredentialsTable):
    proposals: list[IkeOffer] = Field(IKE_DEFAULT, description=IKE_ALLOWED, min_length=1)
    child_proposals: list[ChildOffer] = Field(CHILD_DEFAULT, description=CHILD_ALLOWED, min_length=1)
    ike_lifetime: Annotated[int, integer(10, 604_800)] = Field(14_400, description=_SECONDS)
    child_lifetime: Annotated[int, integer(10, 604_800)] = Field(3600, description=_SECONDS)

    def peer(
        self, address: bytes, peer: PeerParameters, who: Identity, own: Credentials, psk: bytes | None
    ) -> Peer:
        """Another member, for the member at ``address``."""
        return Peer(
            peer.name,
            own.identity,
            who,
            (member_child(address, peer.address, tuple(self.child_proposals)),),
            (peer.address, PORT),
            psk,
            own.private_key,
            own.chain,
            own.trust,
        )

    def parameters(self, peers: tuple[Peer, ...]) -> Parameters:
        """The endpoint's parameters."""
        ike, child = float(self.ike_lifetime), float(self.child_lifetime)
        timing = replace(IKE_TIMING, ike_lifetime=ike, child_lifetime=child)
        return Parameters(tuple(self.proposals), peers, timing, IKE_LIMITS, mobike=False)


class GroupTable(Table):
    """``[group]``."""

    id: Annotated[int, integer(0, 255)] = Field(description="0 to 255, the same on every member")
    member: Annotated[int, integer(1, 255)] = Field(description=_MEMBER)
    address: Address = Field(description=_ADDRESS)
    preference: Annotated[int, integer(-32768, 32767)] = Field(0, description="-32768 to 32767")
    hello_interval_ms: Annotated[int, integer(5, 60_000)] = Field(100, description="5 to 60000 milliseconds")
    failure_factor: Annotated[int, integer(2, 100)] = Field(3, description="2 to 100 intervals")
    start_wait_ms: Annotated[int, integer(10, 600_000)] = Field(1000, description="10 to 600000 milliseconds")
    sync: Literal["ack", "async"] = Field("ack", description="ack, async")
    preempt: bool = Field(False, description=_BOOLEAN)
    hold_down_ms: Annotated[int, integer(0, 600_000)] = Field(1000, description="0 to 600000 milliseconds")
    retransmission_ms: Annotated[int, integer(1, 60_000)] = Field(20, description="1 to 60000 milliseconds")
    announcements_per_second: Annotated[int, integer(1, 100_000)] = Field(1000, description="1 to 100000")
    extensions: bool = Field(True, description=_BOOLEAN)
    virtual_mac: Annotated[bytes | Literal["off"] | None, BeforeValidator(_mac)] = Field(
        None, description=_VIRTUAL_MAC
    )
    realtime: bool = Field(False, description=_BOOLEAN)
    peer: list[_PeerTable] = Field(description="at least one [[group.peer]] table", min_length=1)
    arbiter: _ArbiterTable | None = Field(None, description="a table [group.arbiter]")
    numbers: _NumbersTable = Field(_NumbersTable(), description="a table [group.numbers]")
    ike: _GroupIkeTable | None = Field(None, description="a table [group.ike]")

    def membership(self) -> Membership:
        """What is for the edge."""
        derived = _VIRTUAL_MAC_PREFIX + bytes((self.id,))
        virtual = None if self.virtual_mac == "off" else self.virtual_mac or derived
        arbiter = self.arbiter
        return Membership(
            virtual if isinstance(virtual, bytes) else None,
            None
            if arbiter is None
            else ArbiterConfiguration(tuple(arbiter.endpoints), arbiter.lease_s, arbiter.prefix),
            self.realtime,
        )

    def parameters(
        self, home_agent: bytes, key_file: KeyFile, base: Path, problems: Problems
    ) -> GroupParameters | None:
        """What is for the core; ``None`` after a problem was added. Paths start at ``base``."""
        self._check_unique(home_agent, problems)
        peers = tuple(
            PeerParameters(
                peer.member, peer.address, peer.parameters(key_file, ["group", "peer", position], problems)
            )
            for position, peer in enumerate(self.peer)
        )
        try:
            numbers = Numbers(**self.numbers.model_dump(exclude_none=True))
        except ValueError as error:
            problems.add(["group", "numbers"], str(error), _NUMBER)
            return None
        return GroupParameters(
            group=self.id,
            identity=self.member,
            address=self.address,
            peers=peers,
            preference=self.preference,
            hello_interval=self.hello_interval_ms / 1000,
            failure_factor=float(self.failure_factor),
            start_wait=self.start_wait_ms / 1000,
            synchronous=self.sync == "ack",
            preempt=self.preempt,
            hold_down=self.hold_down_ms / 1000,
            retransmission=self.retransmission_ms / 1000,
            announcements_per_second=self.announcements_per_second,
            arbiter=self.arbiter is not None,
            extensions=self.extensions,
            numbers=numbers,
            ike=self._ike(peers, key_file, base, problems),
        )

    def _ike(
        self, peers: tuple[PeerParameters, ...], key_file: KeyFile, base: Path, problems: Problems
    ) -> Parameters | None:
        """The endpoint's parameters, if SAs with any peer are negotiated."""
        own = None if self.ike is None else self.ike.credentials(base, ["group", "ike"], problems)
        found: dict[str, Peer] = {}
        identities = {} if own is None else {own.identity.normal(): "group.ike"}
        for position, (table, parameters) in enumerate(zip(self.peer, peers, strict=True)):
            if table.ike is None:
                continue
            location: list[str | int] = ["group", "peer", position, "ike"]
            if self.ike is None or own is None:
                problems.add(location, "needs a table [group.ike]", "our own identity there")
                continue
            secret = table.ike.secret(own, key_file, location, problems, "[group.ike]")
            who = table.ike.identity
            if who is None:
                if table.ike.keys is None:
                    # Not whoever has a certificate is a member.
                    problems.add([*location, "identity"], "is missing", IDENTITY_ALLOWED)
                continue
            where = key_path(location)
            if identities.setdefault(who.normal(), where) != where:
                taken = identities[who.normal()]
                problems.add([*location, "identity"], f"is also in {taken}", "one identity for each member")
            if secret is not None or (own.private_key is not None and own.trust is not None and own.chain):
                try:
                    found[parameters.name] = self.ike.peer(self.address, parameters, who, own, secret)
                except ValueError as error:
                    problems.add(location, str(error), "credentials that fit into a message")
        return self.ike.parameters(tuple(found.values())) if found and self.ike is not None else None

    def _check_unique(self, home_agent: bytes, problems: Problems) -> None:
        members: dict[int, str] = {self.member: "group"}
        addresses: dict[bytes, str] = {home_agent: "home_agent", self.address: "group"}
        inbound: dict[int, str] = {}
        if self.address == home_agent:
            problems.add(["group", "address"], "is the home agent's address", "an address of this host")
        for position, peer in enumerate(self.peer):
            location: list[str | int] = ["group", "peer", position]
            where = key_path(location)
            if members.setdefault(peer.member, where) != where:
                problems.add([*location, "member"], f"is also in {members[peer.member]}", "another number")
            if addresses.setdefault(peer.address, where) != where:
                problems.add(
                    [*location, "address"], f"is also in {addresses[peer.address]}", "another address"
                )
            for index, association in enumerate(peer.sa):
                if association.direction is not Direction.IN:
                    continue
                at = [*location, "sa", index]
                if inbound.setdefault(association.spi, key_path(at)) != key_path(at):
                    taken = inbound[association.spi]
                    problems.add([*at, "spi"], f"is also in {taken}", "one inbound SA for each SPI")
