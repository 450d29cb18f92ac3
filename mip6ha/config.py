"""The home agent's TOML file, turned into validated, frozen parameters.

Covered: every key with its bounds, keys in the file or beside it, pools of mobile nodes, what two tables
must not both claim. Not covered: whether interfaces exist or the kernel can do it (``edge``).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from .binding.messages import MobileNetworkPrefix
from .group_config import GroupTable, Membership
from .harp.sync import LARGEST_ENTRY
from .ike_config import Credentials, IkeTable, MobileNodeIkeTable
from .ipsec.ike.parameters import Parameters as IkeParameters
from .ipsec.policy import Direction, Use
from .parameters import (
    AssociationParameters,
    AuthenticationParameters,
    GroupParameters,
    HomeAgentParameters,
    HomePrefix,
    MobileNodeParameters,
    OtherHomeAgent,
)
from .replica import largest_entry
from .tables import (
    ENCRYPTION_ALLOWED,
    INTEGRITY_ALLOWED,
    SPI_ALLOWED,
    Address,
    ConfigError,
    Encryption,
    HexKey,
    Integrity,
    InterfaceName,
    KeyFile,
    KeyName,
    Prefix,
    Problems,
    SecurityAssociationTable,
    Spi,
    Table,
    derived_keys,
    integer,
    key_path,
    load_toml,
    protection_of,
    validate,
)
from .wire import text

__all__ = [
    "ConfigError",
    "Configuration",
    "EdgeConfiguration",
    "KeyFile",
    "Problems",
    "SecurityAssociationTable",
    "Table",
    "derived_keys",
    "load",
    "load_toml",
    "validate",
]

DEFAULT_SOCKET = Path("/run/mip6ha.sock")
DEFAULT_STATE = Path("/var/lib/mip6ha")

_SECONDS = "0 to 4294967295 seconds"
_ADDRESS = "a routable unicast IPv6 address"
_PREFIX = "an IPv6 prefix such as 2001:db8:a::/64"
_REFRESH = "0 to 262140 seconds, 0 is none"
_BOOLEAN = "true, false"
_PATH = "a path"
_MINIMUM_SECRET = 16


@dataclass(frozen=True, slots=True)
class EdgeConfiguration:
    """What the edge needs to know. ``home_link`` ``None`` is a virtual home link (RFC 6275 10.4.1).

    ``link_mtu`` ``None`` takes over that of the home link. ``group`` is the id of the redundant set that the
    home agent is a member of; ``virtual_mac`` is that set's address on the home link. ``journal``: contexts
    are kept for a restart, sealed with ``journal_secret``, or with a key of its own in ``state_dir``.
    ``key_log`` is the directory where Wireshark finds the keys of IKE SAs.
    """

    home_link: str | None
    tun_name: str
    control_socket: Path
    state_dir: Path
    link_mtu: int | None
    group: int | None = None
    virtual_mac: bytes | None = None
    dataplane: str = "tun"
    journal: bool = False
    journal_secret: bytes | None = field(default=None, repr=False)
    key_log: Path | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """A home agent's parameters, its edge's, and what an operator may want to look at again.

    ``group`` and ``membership`` are those of a member of a redundant set, ``None`` for a home agent alone.
    """

    parameters: HomeAgentParameters
    edge: EdgeConfiguration
    warnings: tuple[str, ...] = ()
    group: GroupParameters | None = None
    membership: Membership | None = None


class _HomePrefixTable(Table):
    prefix: Prefix = Field(description=_PREFIX)
    valid: Annotated[int, integer(0, 0xFFFFFFFF)] = Field(2_592_000, description=_SECONDS)
    preferred: Annotated[int, integer(0, 0xFFFFFFFF)] = Field(604_800, description=_SECONDS)


class _OtherHomeAgentTable(Table):
    address: Address = Field(description=_ADDRESS)
    preference: Annotated[int, integer(-32768, 32767)] = Field(0, description="-32768 to 32767")


def _prefix_table(value: object) -> object:
    return {"prefix": value} if isinstance(value, str) else value


class _HomeAgentTable(Table):
    address: Address = Field(description=_ADDRESS)
    home_link: InterfaceName | None = Field(None, description="the name of an interface, or absent")
    home_prefixes: list[Annotated[_HomePrefixTable, BeforeValidator(_prefix_table)]] = Field(
        description=f"a list of at least one {_PREFIX[3:]}, or tables of prefix, valid, preferred",
        min_length=1,
    )
    dataplane: Literal["tun", "kernel"] = Field("tun", description="tun, kernel")
    tun_name: InterfaceName = Field("mip6ha", description="the name of an interface, 15 octets at most")
    duplicate_address_detection: bool = Field(True, description=_BOOLEAN)
    max_lifetime: Annotated[int, integer(4, 262_140)] = Field(3600, description="4 to 262140 seconds")
    max_bindings: Annotated[int, integer(1, 10_000_000)] = Field(100_000, description="1 to 10000000")
    refresh_advice: Annotated[int, integer(0, 262_140)] = Field(0, description=_REFRESH)
    refresh_request: Annotated[int, integer(0, 262_140)] = Field(0, description=_REFRESH)
    home_agents: list[_OtherHomeAgentTable] = Field([], description="a list of tables of address, preference")
    preference: Annotated[int, integer(-32768, 32767)] = Field(0, description="-32768 to 32767")
    link_mtu: Annotated[int, integer(1280, 65535)] | None = Field(None, description="1280 to 65535 octets")
    control_socket: str = Field(str(DEFAULT_SOCKET), description=_PATH)
    state_dir: str = Field(str(DEFAULT_STATE), description=_PATH)
    keys_file: str | None = Field(None, description=_PATH)
    journal: bool = Field(False, description=_BOOLEAN)
    journal_keys: KeyName | None = Field(None, description="a name in keys_file")


class _AuthenticationTable(Table):
    spi: Spi = Field(description=SPI_ALLOWED)
    key: HexKey | None = Field(None, description="hexadecimal digits, or keys")
    keys: KeyName | None = Field(None, description="a name in keys_file")

    def parameters(
        self, key_file: KeyFile, location: list[str | int], problems: Problems
    ) -> AuthenticationParameters | None:
        key = self.key
        if self.keys is not None:
            entry = key_file.named(self.keys, location, problems)
            if entry is None:
                return None
            key = entry.key
        if not key or len(key) < _MINIMUM_SECRET:
            name = "key" if self.keys is None else "keys"
            problems.add([*location, name], "is no key", f"at least {_MINIMUM_SECRET} octets")
            return None
        return AuthenticationParameters(self.spi, key)


class _MobileNodeTable(Table):
    home_address: Address = Field(description=_ADDRESS)
    name: str = Field("", description="any text")
    suspended: bool = Field(False, description=_BOOLEAN)
    mobile_network_prefixes: list[Prefix] = Field([], description=f"a list, each {_PREFIX}")
    authentication: _AuthenticationTable | None = Field(None, description="a table of spi and key or keys")
    ike: MobileNodeIkeTable | None = Field(None, description="a table [mobile_node.ike]")
    sa: list[SecurityAssociationTable] = Field([], description="[[mobile_node.sa]] tables")


class _PoolTable(Table):
    first_home_address: Address = Field(description=_ADDRESS)
    count: Annotated[int, integer(1, 1_000_000)] = Field(description="1 to 1000000")
    first_spi: Spi = Field(description=SPI_ALLOWED)
    name: str = Field("pool", description="any text")
    use: Literal["signalling"] = Field("signalling", description="signalling")
    encryption: Encryption = Field(description=ENCRYPTION_ALLOWED)
    integrity: Integrity | None = Field(None, description=INTEGRITY_ALLOWED)
    secret: HexKey | None = Field(None, description="hexadecimal digits, or keys")
    keys: KeyName | None = Field(None, description="a name in keys_file")
    esn: bool = Field(False, description=_BOOLEAN)


class _File(Table):
    home_agent: _HomeAgentTable = Field(description="a table [home_agent]")
    group: GroupTable | None = Field(None, description="a table [group]")
    ike: IkeTable | None = Field(None, description="a table [ike]")
    mobile_node: list[_MobileNodeTable] = Field([], description="[[mobile_node]] tables")
    mobile_node_pool: list[_PoolTable] = Field([], description="[[mobile_node_pool]] tables")


def load(path: Path) -> Configuration:
    """The configuration in a file; :class:`ConfigError` tells everything that is wrong with it."""
    data = load_toml(path)
    content = validate(_File, data, path)
    agent = content.home_agent
    key_file = KeyFile(path.parent / agent.keys_file if agent.keys_file is not None else None)
    problems = Problems(path)
    for position, prefix in enumerate(agent.home_prefixes):
        if prefix.preferred > prefix.valid:
            where: list[str | int] = ["home_agent", "home_prefixes", position, "preferred"]
            problems.add(where, "is longer than valid", f"0 to {prefix.valid} seconds")
    nodes = [
        (location, node)
        for expand in (_mobile_nodes, _pools)
        for location, node in expand(content, key_file, problems)
    ]
    _check_unique(agent.address, nodes, problems)
    group = content.group
    member = None if group is None else group.parameters(agent.address, key_file, path.parent, problems)
    if group is not None:
        _check_size(nodes, problems)
    if agent.dataplane == "kernel":
        _check_protection(nodes, problems)
    journal_secret = _journal_secret(agent, key_file, problems)
    own, secrets = _ike_secrets(content, path, key_file, problems)
    problems.refuse()
    mobile_nodes = tuple(node for _, node in nodes)
    warnings = (*_warnings(agent, nodes), *_exposed_keys(path, data))
    membership = None if group is None else group.membership()
    edge = _edge(agent, path, None if group is None else group.id, membership)
    log = None if content.ike is None else content.ike.key_log
    key_log = None if log is None else path.parent / log
    edge = replace(edge, journal=agent.journal, journal_secret=journal_secret, key_log=key_log)
    parameters = replace(_agent_parameters(agent, mobile_nodes), ike=_ike(content, own, secrets))
    return Configuration(parameters, edge, warnings, member, membership)


def _ike_secrets(
    content: _File, path: Path, key_file: KeyFile, problems: Problems
) -> tuple[Credentials | None, dict[bytes, bytes | None]]:
    """Our own credentials, and the secret with each mobile node that negotiates, by home address."""
    own = None if content.ike is None else content.ike.credentials(path.parent, ["ike"], problems)
    secrets: dict[bytes, bytes | None] = {}
    for position, node in enumerate(content.mobile_node):
        if node.ike is None:
            continue
        location: list[str | int] = ["mobile_node", position, "ike"]
        if own is None:
            problems.add(location, "needs a table [ike]", "our own identity there")
        elif node.sa:
            problems.add(location, "stands beside [[mobile_node.sa]]", "one of both")
        else:
            secrets[node.home_address] = node.ike.secret(own, key_file, location, problems)
    return own, secrets


def _ike(content: _File, own: Credentials | None, secrets: dict[bytes, bytes | None]) -> IkeParameters | None:
    """The IKE endpoint's parameters: a peer for each mobile node that negotiates."""
    if content.ike is None or own is None:
        return None
    address = content.home_agent.address
    # Names are for people and may be the same twice; a home address is one mobile node's.
    return content.ike.parameters(
        tuple(
            node.ike.peer(
                text(node.home_address), node.home_address, address, own, secrets[node.home_address]
            )
            for node in content.mobile_node
            if node.ike is not None
        )
    )


def _journal_secret(agent: _HomeAgentTable, key_file: KeyFile, problems: Problems) -> bytes | None:
    if agent.journal_keys is None:
        return None
    location: list[str | int] = ["home_agent", "journal_keys"]
    entry = key_file.named(agent.journal_keys, ["home_agent"], problems, key="journal_keys")
    if entry is None:
        return None
    if len(entry.secret) < _MINIMUM_SECRET:
        problems.add(location, "names no secret", f"one of at least {_MINIMUM_SECRET} octets")
    return entry.secret


def _check_protection(nodes: list[_Located], problems: Problems) -> None:
    """The kernel forwards all payload of a mobile node, or none."""
    for location, node in nodes:
        uses = {association.use for association in node.associations}
        if Use.RETURN_ROUTABILITY in uses and Use.PAYLOAD not in uses:
            problems.add(
                [*location, "sa"],
                f"protects {Use.RETURN_ROUTABILITY.value} but not {Use.PAYLOAD.value}",
                f"both, neither, or {Use.PAYLOAD.value} with dataplane kernel",
            )


def _check_size(nodes: list[_Located], problems: Problems) -> None:
    """What a set replicates of one mobile node must fit a message."""
    sizes: dict[tuple[object, ...], int] = {}
    for location, node in nodes:
        # Of a pool all are alike, and their names within a digit or so.
        kinds = tuple((each.direction, each.use, each.transform.name) for each in node.associations)
        shape = len(node.name.encode()), len(node.prefixes), kinds
        if shape not in sizes:
            sizes[shape] = largest_entry(node)
        if sizes[shape] > LARGEST_ENTRY:
            problems.add(
                location,
                f"takes {sizes[shape]} octets in a message between members",
                f"at most {LARGEST_ENTRY}: fewer mobile network prefixes or SAs",
            )


def _agent_parameters(
    agent: _HomeAgentTable, mobile_nodes: tuple[MobileNodeParameters, ...]
) -> HomeAgentParameters:
    parameters = HomeAgentParameters(
        address=agent.address,
        home_prefixes=tuple(
            HomePrefix(prefix.prefix.prefix, prefix.prefix.length, prefix.valid, prefix.preferred)
            for prefix in agent.home_prefixes
        ),
        mobile_nodes=mobile_nodes,
        virtual_home_link=agent.home_link is None,
        duplicate_address_detection=agent.duplicate_address_detection and agent.home_link is not None,
        max_lifetime=agent.max_lifetime,
        max_bindings=agent.max_bindings,
        refresh_advice=agent.refresh_advice,
        refresh_request=agent.refresh_request,
        preference=agent.preference,
        home_agents=tuple(OtherHomeAgent(other.address, other.preference) for other in agent.home_agents),
    )
    return parameters if agent.link_mtu is None else replace(parameters, link_mtu=agent.link_mtu)


def _edge(
    agent: _HomeAgentTable, path: Path, group: int | None, membership: Membership | None
) -> EdgeConfiguration:
    return EdgeConfiguration(
        agent.home_link,
        agent.tun_name,
        path.parent / agent.control_socket,
        path.parent / agent.state_dir,
        agent.link_mtu,
        group,
        None if membership is None else membership.virtual_mac,
        dataplane=agent.dataplane,
    )


_Located = tuple[list[str | int], MobileNodeParameters]


def _mobile_nodes(content: _File, key_file: KeyFile, problems: Problems) -> Iterator[_Located]:
    for position, node in enumerate(content.mobile_node):
        location: list[str | int] = ["mobile_node", position]
        associations = [
            association.parameters(key_file, [*location, "sa", index], problems)
            for index, association in enumerate(node.sa)
        ]
        authentication = None
        if node.authentication is not None:
            authentication = node.authentication.parameters(key_file, [*location, "authentication"], problems)
        yield (
            location,
            MobileNodeParameters(
                node.home_address,
                node.name or f"mobile_node[{position}]",
                tuple(association for association in associations if association is not None),
                tuple(node.mobile_network_prefixes),
                authentication,
                node.suspended,
                () if node.ike is None else node.ike.children,
                node.ike is not None and node.ike.client,
            ),
        )


def _pools(content: _File, key_file: KeyFile, problems: Problems) -> Iterator[_Located]:
    for position, pool in enumerate(content.mobile_node_pool):
        location: list[str | int] = ["mobile_node_pool", position]
        protection = protection_of(pool.encryption, pool.integrity, location, problems)
        secret = pool.secret
        if pool.keys is not None:
            entry = key_file.named(pool.keys, location, problems)
            if entry is None:
                continue
            secret = entry.secret
        if not secret or len(secret) < _MINIMUM_SECRET:
            name = "secret" if pool.keys is None else "keys"
            problems.add([*location, name], "is no secret", f"at least {_MINIMUM_SECRET} octets")
            continue
        if pool.first_spi + 2 * pool.count - 1 > 0xFFFFFFFF:
            room = 0x100000000 - 2 * pool.count
            problems.add([*location, "first_spi"], "leaves too few SPIs for count", f"256 to {room}")
            continue
        first = int.from_bytes(pool.first_home_address, "big")
        if first + pool.count > 1 << 128 or protection is None:
            continue
        for index in range(pool.count):
            home_address = (first + index).to_bytes(16, "big")
            pair = (
                AssociationParameters(
                    spi,
                    direction,
                    Use(pool.use),
                    protection,
                    derived_keys(secret, home_address, spi, protection),
                    pool.esn,
                )
                for spi, direction in (
                    (pool.first_spi + 2 * index, Direction.IN),
                    (pool.first_spi + 2 * index + 1, Direction.OUT),
                )
            )
            yield location, MobileNodeParameters(home_address, f"{pool.name}-{index}", tuple(pair))


def _check_unique(agent_address: bytes, nodes: list[_Located], problems: Problems) -> None:
    addresses: dict[bytes, list[str | int]] = {}
    inbound: dict[int, str] = {}
    told: set[tuple[str, str]] = set()

    def clash(location: list[str | int], key: str, wrong: str, allowed: str) -> None:
        # A pool may clash a thousand times over; once is enough.
        if (key_path(location), wrong) not in told:
            told.add((key_path(location), wrong))
            problems.add([*location, key], wrong, allowed)

    for location, node in nodes:
        key = "home_address" if location[0] == "mobile_node" else "first_home_address"
        if node.home_address == agent_address:
            clash(location, key, "is the home agent's own address", "another address of a home prefix")
        other = addresses.setdefault(node.home_address, location)
        if other is not location:
            clash(location, key, f"is also in {key_path(other)}", "one mobile node for each home address")
        for index, association in enumerate(node.associations):
            if association.direction is not Direction.IN:
                continue
            pooled = location[0] != "mobile_node"
            where = location if pooled else [*location, "sa", index]
            taken = inbound.setdefault(association.spi, key_path(where))
            if taken != key_path(where):
                spi = "first_spi" if pooled else "spi"
                clash(where, spi, f"is also in {taken}", "one inbound SA for each SPI")


def _warnings(agent: _HomeAgentTable, nodes: list[_Located]) -> Iterator[str]:
    prefixes: tuple[MobileNetworkPrefix, ...] = tuple(prefix.prefix for prefix in agent.home_prefixes)
    if not any(_covers(prefix, agent.address) for prefix in prefixes):
        yield "home_agent.address: is outside every home prefix"
    told: set[str] = set()
    for location, node in nodes:
        where = key_path(location)
        if where in told:
            continue
        if not any(_covers(prefix, node.home_address) for prefix in prefixes):
            told.add(where)
            yield f"{where}: is outside every home prefix; registrations will be refused with status 132"
        directions = {association.direction for association in node.associations}
        negotiates = node.authentication is not None or bool(node.negotiated)
        if not negotiates and directions != {Direction.IN, Direction.OUT}:
            told.add(where)
            yield f"{where}: has no pair of SAs, no ike and no authentication; it cannot register"


def _covers(prefix: MobileNetworkPrefix, address: bytes) -> bool:
    shift = 128 - prefix.length
    return int.from_bytes(prefix.prefix, "big") >> shift == int.from_bytes(address, "big") >> shift


def _exposed_keys(path: Path, data: dict[str, Any]) -> Iterator[str]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077 and _holds_keys(data):
        yield f"{path}: holds keys and has mode {mode:04o}; put them into keys_file or make the mode 0600"


def _holds_keys(value: object) -> bool:
    if isinstance(value, dict):
        secret = {"encryption_key", "integrity_key", "secret", "key"}
        return bool(secret & value.keys()) or any(map(_holds_keys, value.values()))
    return isinstance(value, list) and any(map(_holds_keys, value))
