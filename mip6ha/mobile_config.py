"""The mobile node's TOML files, turned into validated, frozen parameters.

Covered: ``mip6mn run`` and ``mip6mn load``. Not covered: whether interfaces exist or the kernel can do it
(``edge``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .ike_config import AuthenticationTable, Credentials, IkeTable, home_agent_child
from .ike_texts import (
    CHILD_ALLOWED,
    CHILD_DEFAULT,
    IDENTITY_ALLOWED,
    MOBILE_NODE_USES,
    ChildOffer,
    MobileNodeUse,
)
from .ipsec.algorithms import Transform
from .ipsec.ike.numbers import PORT
from .ipsec.ike.parameters import ChildPolicy, Peer
from .ipsec.ike.parameters import Parameters as IkeParameters
from .ipsec.policy import Use
from .mobile.parameters import REFUSED_DELAY, EmulatorParameters
from .parameters import AssociationParameters
from .tables import (
    ENCRYPTION_ALLOWED,
    INTEGRITY_ALLOWED,
    SPI_ALLOWED,
    Address,
    Encryption,
    HexKey,
    Integrity,
    InterfaceName,
    KeyFile,
    Prefix,
    Problems,
    SecurityAssociationTable,
    Spi,
    Table,
    integer,
    load_toml,
    protection_of,
    validate,
)

__all__ = ["LoadConfiguration", "MobileConfiguration", "MobileEdgeConfiguration", "load", "load_load"]

DEFAULT_STATE = Path("/var/lib/mip6mn")
STANDARD_OUTPUT = "-"

_ADDRESS = "a routable unicast IPv6 address"
_INTERFACE = "the name of an interface, 15 octets at most"
_BOOLEAN = "true, false"
_LIFETIME = "4 to 262140 seconds"
_KERNEL_USES = "binding, signalling, prefix, payload"
_MINIMUM_SECRET = 16


@dataclass(frozen=True, slots=True)
class MobileEdgeConfiguration:
    """What the edge needs to know. ``interface_identifier`` ``None`` is that of the interface's MAC.

    ``events`` ``None`` is standard output. ``key_log`` is the directory where Wireshark finds the keys.
    """

    interface: str
    dataplane: Literal["tun", "kernel"]
    tun_name: str
    home_prefix: str
    state_dir: Path
    events: Path | None
    interface_identifier: bytes | None
    deregister_at_stop: bool
    key_log: Path | None = None


@dataclass(frozen=True, slots=True)
class MobileConfiguration:
    """A mobile node's parameters and its edge's."""

    parameters: EmulatorParameters
    edge: MobileEdgeConfiguration


@dataclass(frozen=True, slots=True)
class LoadConfiguration:
    """Many emulated mobile nodes: the pool as the home agent has it, and where they are."""

    home_agent: bytes
    first_home_address: bytes
    count: int
    first_spi: int
    protection: Transform
    secret: bytes
    esn: bool
    care_of_prefix: bytes
    care_of_prefix_text: str
    tun_name: str
    lifetime: int
    state_dir: Path


class _HomeAgentIkeTable(AuthenticationTable):
    """IKE with the home agent: who it has to prove to be, and what both protect with its SAs (RFC 4877 4)."""

    uses: list[MobileNodeUse] = Field(
        [Use.SIGNALLING, Use.PREFIX], description=f"a list of {MOBILE_NODE_USES}", min_length=1
    )
    proposals: list[ChildOffer] = Field(CHILD_DEFAULT, description=CHILD_ALLOWED, min_length=1)

    def check(self, problems: Problems) -> None:
        """What no key says alone."""
        location: list[str | int] = ["mobile_node", "ike"]
        if self.identity is None:
            problems.add([*location, "identity"], "is missing", f"{IDENTITY_ALLOWED}: the home agent's")
        if Use.SIGNALLING not in self.uses and Use.BINDING not in self.uses:
            problems.add([*location, "uses"], "protects no Binding Updates", "signalling or binding in it")

    def peer(self, node: _MobileNodeTable, own: Credentials, secret: bytes | None) -> Peer:
        """The home agent as a mobile node's peer; what Binding Updates wait for is the first child."""
        ordered = sorted(dict.fromkeys(self.uses), key=list(Use).index)
        return Peer(
            "home agent",
            own.identity,
            self.identity,
            tuple(self._child(use, node.home_agent) for use in ordered),
            (node.home_agent, PORT),
            secret,
            own.private_key,
            own.chain,
            own.trust,
            (node.home_address,),
        )

    def _child(self, use: Use, home_agent: bytes) -> ChildPolicy:
        other = home_agent_child(use, home_agent, tuple(self.proposals))
        return replace(other, local=other.remote, remote=other.local)


class _MobileNodeTable(Table):
    home_address: Address = Field(description=_ADDRESS)
    home_prefix_length: Annotated[int, integer(1, 128)] = Field(64, description="1 to 128")
    home_agent: Address = Field(description=_ADDRESS)
    interface: InterfaceName = Field(description=_INTERFACE)
    dataplane: Literal["tun", "kernel"] = Field("tun", description="tun, kernel")
    tun_name: InterfaceName = Field("mip6mn", description=_INTERFACE)
    lifetime: Annotated[int, integer(4, 262_140)] = Field(60, description=_LIFETIME)
    link_local: bool = Field(False, description=_BOOLEAN)
    care_of_dad: bool = Field(False, description=_BOOLEAN)
    interface_identifier: HexKey | None = Field(None, description="16 hexadecimal digits")
    refused_delay: Annotated[int, integer(1, 86_400)] = Field(
        int(REFUSED_DELAY), description="1 to 86400 seconds"
    )
    deregister_at_stop: bool = Field(False, description=_BOOLEAN)
    mobile_network_prefixes: list[Prefix] = Field([], description="a list of IPv6 prefixes")
    state_dir: str = Field(str(DEFAULT_STATE), description="a path")
    events: str = Field(STANDARD_OUTPUT, description="a path, or - for standard output")
    keys_file: str | None = Field(None, description="a path")
    sa: list[SecurityAssociationTable] = Field([], description="[[mobile_node.sa]] tables")
    ike: _HomeAgentIkeTable | None = Field(None, description="a table [mobile_node.ike]")


class _File(Table):
    mobile_node: _MobileNodeTable = Field(description="a table [mobile_node]")
    ike: IkeTable | None = Field(None, description="a table [ike]")


def load(path: Path) -> MobileConfiguration:
    """The configuration in a file; :class:`~.tables.ConfigError` tells everything that is wrong with it."""
    content = validate(_File, load_toml(path), path)
    node = content.mobile_node
    problems = Problems(path)
    key_file = KeyFile(path.parent / node.keys_file if node.keys_file is not None else None)
    associations = _associations(node, key_file, problems)
    if node.interface_identifier is not None and len(node.interface_identifier) != 8:
        problems.add(["mobile_node", "interface_identifier"], "has a wrong length", "16 hexadecimal digits")
    if node.home_address == node.home_agent:
        problems.add(["mobile_node", "home_address"], "is the home agent's", "another address")
    if node.interface == node.tun_name:
        problems.add(["mobile_node", "tun_name"], "is the interface's", "another name")
    credentials = _credentials(content, path, key_file, problems)
    problems.refuse()
    parameters = EmulatorParameters(
        home_address=node.home_address,
        home_prefix_length=node.home_prefix_length,
        home_agent=node.home_agent,
        interface_identifier=node.interface_identifier or bytes(8),
        associations=associations,
        prefixes=tuple(node.mobile_network_prefixes),
        lifetime=node.lifetime,
        link_local=node.link_local,
        care_of_dad=node.care_of_dad,
        refused_delay=float(node.refused_delay),
        ike=_ike(content, credentials),
    )
    home = IPv6Network((node.home_address, node.home_prefix_length), strict=False)
    edge = MobileEdgeConfiguration(
        interface=node.interface,
        dataplane=node.dataplane,
        tun_name=node.tun_name,
        home_prefix=str(home),
        state_dir=path.parent / node.state_dir,
        events=None if node.events == STANDARD_OUTPUT else path.parent / node.events,
        interface_identifier=node.interface_identifier,
        deregister_at_stop=node.deregister_at_stop,
        key_log=_key_log(content, path),
    )
    return MobileConfiguration(parameters, edge)


def _credentials(
    content: _File, path: Path, key_file: KeyFile, problems: Problems
) -> tuple[Credentials, bytes | None] | None:
    """Our own credentials and the secret with the home agent; ``None`` without IKE."""
    node, own = content.mobile_node, content.ike
    location: list[str | int] = ["mobile_node", "ike"]
    if node.ike is None or own is None:
        if own is not None:
            problems.add(location, "is missing", "a table [mobile_node.ike] beside [ike]")
        elif node.ike is not None:
            problems.add(location, "needs a table [ike]", "our own identity there")
        return None
    if node.sa:
        problems.add(location, "stands beside [[mobile_node.sa]]", "one of both")
    if node.dataplane != "tun":
        problems.add(["mobile_node", "dataplane"], "does not go with [mobile_node.ike]", "tun")
    node.ike.check(problems)
    found = own.credentials(path.parent, ["ike"], problems)
    return found, node.ike.secret(found, key_file, location, problems)


def _ike(content: _File, credentials: tuple[Credentials, bytes | None] | None) -> IkeParameters | None:
    node = content.mobile_node
    if credentials is None or content.ike is None or node.ike is None:
        return None
    return content.ike.parameters((node.ike.peer(node, *credentials),))


def _key_log(content: _File, path: Path) -> Path | None:
    log = None if content.ike is None else content.ike.key_log
    return None if log is None else path.parent / log


def _associations(
    node: _MobileNodeTable, key_file: KeyFile, problems: Problems
) -> tuple[AssociationParameters, ...]:
    found = []
    taken: Counter[tuple[str, int]] = Counter()
    for index, table in enumerate(node.sa):
        location: list[str | int] = ["mobile_node", "sa", index]
        taken[table.direction, table.spi] += 1
        if taken[table.direction, table.spi] > 1:
            problems.add([*location, "spi"], "is used twice", "one SA for each SPI and direction")
        if node.dataplane == "kernel" and table.use == Use.RETURN_ROUTABILITY:
            problems.add([*location, "use"], "is not for the kernel dataplane", _KERNEL_USES)
        association = table.parameters(key_file, location, problems)
        if association is not None:
            found.append(association)
    return tuple(found)


class _LoadTable(Table):
    home_agent: Address = Field(description=_ADDRESS)
    first_home_address: Address = Field(description=_ADDRESS)
    count: Annotated[int, integer(1, 1_000_000)] = Field(description="1 to 1000000")
    first_spi: Spi = Field(description=SPI_ALLOWED)
    encryption: Encryption = Field(description=ENCRYPTION_ALLOWED)
    integrity: Integrity | None = Field(None, description=INTEGRITY_ALLOWED)
    secret: HexKey | None = Field(None, description="hexadecimal digits, or keys")
    keys: str | None = Field(None, description="a name in keys_file")
    esn: bool = Field(False, description=_BOOLEAN)
    care_of_prefix: Prefix = Field(description="an IPv6 prefix of 64 bits")
    tun_name: InterfaceName = Field("mip6load", description=_INTERFACE)
    lifetime: Annotated[int, integer(4, 262_140)] = Field(600, description=_LIFETIME)
    state_dir: str = Field(str(DEFAULT_STATE), description="a path")
    keys_file: str | None = Field(None, description="a path")


class _LoadFile(Table):
    load: _LoadTable = Field(description="a table [load]")


def load_load(path: Path, count: int | None = None) -> LoadConfiguration:
    """The configuration of a load run; :class:`~.tables.ConfigError` tells all that is wrong with it.

    ``count`` stands in for the file's.
    """
    table = validate(_LoadFile, load_toml(path), path).load
    count = table.count if count is None else count
    problems = Problems(path)
    key_file = KeyFile(path.parent / table.keys_file if table.keys_file is not None else None)
    protection = protection_of(table.encryption, table.integrity, ["load"], problems)
    secret = table.secret
    if table.keys is not None:
        entry = key_file.named(table.keys, ["load"], problems)
        secret = entry.secret if entry is not None else None
    if not secret or len(secret) < _MINIMUM_SECRET:
        name = "secret" if table.keys is None else "keys"
        problems.add(["load", name], "is no secret", f"at least {_MINIMUM_SECRET} octets")
    if table.care_of_prefix.length != 64:
        problems.add(["load", "care_of_prefix"], "has a wrong length", "an IPv6 prefix of 64 bits")
    if table.first_spi + 2 * count - 1 > 0xFFFFFFFF:
        room = 0x100000000 - 2 * count
        problems.add(["load", "first_spi"], "leaves too few SPIs for count", f"256 to {room}")
    problems.refuse()
    if protection is None or secret is None:
        raise AssertionError("problems were told")
    return LoadConfiguration(
        home_agent=table.home_agent,
        first_home_address=table.first_home_address,
        count=count,
        first_spi=table.first_spi,
        protection=protection,
        secret=secret,
        esn=table.esn,
        care_of_prefix=table.care_of_prefix.prefix,
        care_of_prefix_text=str(IPv6Network((table.care_of_prefix.prefix, 64))),
        tun_name=table.tun_name,
        lifetime=table.lifetime,
        state_dir=path.parent / table.state_dir,
    )
