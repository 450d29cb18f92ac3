"""IKEv2 in TOML: who we are and who the others are, with their credentials, proposals, children and times.

Covered: the tables that every program with IKE shares, and the file of the test program ``mip6ha ike``. Not
covered: what any of it means (``ipsec.ike.parameters``), whether addresses and ports are there (``edge``).
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from pydantic import Field

from .ike_texts import (
    CHILD_ALLOWED,
    CHILD_DEFAULT,
    IDENTITY_ALLOWED,
    IKE_ALLOWED,
    IKE_DEFAULT,
    MOBILE_NODE_USES,
    SCOPE_ALLOWED,
    ChildOffer,
    IdentityText,
    IkeOffer,
    MobileNodeUse,
    ScopeText,
    UseName,
)
from .ipsec.ike.certificates import Trust
from .ipsec.ike.identities import Identity
from .ipsec.ike.numbers import PORT
from .ipsec.ike.parameters import ChildPolicy, Limits, Parameters, Peer, Scope, Timing
from .ipsec.ike.proposals import Offer
from .ipsec.policy import Mode, Use, selector
from .tables import Address, KeyFile, KeyName, Problems, Table, integer, load_toml, validate

__all__ = [
    "ChildTable",
    "CredentialsTable",
    "IkeConfiguration",
    "IkeTable",
    "MobileNodeIkeTable",
    "PeerTable",
    "home_agent_child",
    "load",
]

DEFAULT_SOCKET = Path("/run/mip6ha-ike.sock")

_PATH = "a path"
_BOOLEAN = "true, false"
_ADDRESS = "a routable unicast IPv6 address"
_KEY_FILE = "an RSA or ECDSA key in PEM without a password, in a file of mode 0600"
_MINIMUM_SECRET = 16

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey
Location = list[str | int]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are, and by whose word we believe others. Without a private key there are only secrets."""

    identity: Identity
    private_key: PrivateKey | None = None
    chain: tuple[bytes, ...] = ()
    trust: Trust | None = None


class CredentialsTable(Table):
    """Our own identity and certificate, and whom we trust to name others."""

    identity: IdentityText = Field(description=IDENTITY_ALLOWED)
    certificate: str | None = Field(
        None, description="a path, of our certificate in PEM with its chain behind it"
    )
    private_key: str | None = Field(None, description=f"a path, of {_KEY_FILE}")
    trust_anchors: list[str] = Field([], description="a list of paths, of certificates in PEM")
    revocation_lists: list[str] = Field([], description="a list of paths, of CRLs in PEM")
    require_revocation_list: bool = Field(False, description=_BOOLEAN)

    def credentials(self, base: Path, location: Location, problems: Problems) -> Credentials:
        """What the files hold; paths start at ``base``. What cannot be had is missing, and a problem."""
        files = _Files(base, location, problems)
        chain = files.certificates(self.certificate, "certificate")
        key = files.private_key(self.private_key)
        if (self.private_key is None) != (self.certificate is None):
            which = "certificate" if self.certificate is None else "private_key"
            problems.add(
                [*location, which], "is missing", "a path: certificate and private_key belong together"
            )
        elif key is not None and chain and chain[0].public_key() != key.public_key():
            problems.add(
                [*location, "private_key"], "is not the certificate's", "the key of the first certificate"
            )
        anchors = [one for each in self.trust_anchors for one in files.certificates(each, "trust_anchors")]
        crls = [one for each in self.revocation_lists for one in files.revocations(each)]
        try:
            trust = Trust(tuple(anchors), tuple(crls), self.require_revocation_list) if anchors else None
        except ValueError as error:
            trust = None
            problems.add(
                [*location, "revocation_lists"], f"cannot be used: {error}", "whole CRLs of an authority"
            )
        octets = tuple(each.public_bytes(Encoding.DER) for each in chain)
        return Credentials(self.identity, key, octets, trust)


class _Files:
    """Reads the files that a table names, and tells what is wrong with them."""

    def __init__(self, base: Path, location: Location, problems: Problems) -> None:
        self._base = base
        self._location = location
        self._problems = problems

    def _read(self, name: str, key: str, allowed: str, parse: Callable[[bytes], _T]) -> _T | None:
        path = self._base / name
        try:
            return parse(path.read_bytes())
        except OSError as error:
            wrong = f"{path}: {error.strerror}"
        except (ValueError, TypeError, UnsupportedAlgorithm):
            wrong = f"{path}: is not that"
        self._problems.add([*self._location, key], wrong, allowed)
        return None

    def certificates(self, name: str | None, key: str) -> list[x509.Certificate]:
        """The certificates of a file, none for none."""
        if name is None:
            return []
        return self._read(name, key, "a file of certificates in PEM", x509.load_pem_x509_certificates) or []

    def revocations(self, name: str) -> list[x509.CertificateRevocationList]:
        """The CRL of a file."""
        found = self._read(name, "revocation_lists", "a file with a CRL in PEM", x509.load_pem_x509_crl)
        return [] if found is None else [found]

    def private_key(self, name: str | None) -> PrivateKey | None:
        """The private key of a file that nobody else may read."""
        if name is None:
            return None
        path = self._base / name
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
        if mode & 0o077:
            self._problems.add([*self._location, "private_key"], f"{path}: has mode {mode:04o}", _KEY_FILE)
            return None
        return self._read(name, "private_key", _KEY_FILE, _private_key)


def _private_key(octets: bytes) -> PrivateKey:
    key = load_pem_private_key(octets, None)
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise TypeError("neither RSA nor ECDSA")
    return key


class IkeTable(CredentialsTable):
    """What holds for all IKE SAs."""

    proposals: list[IkeOffer] = Field(IKE_DEFAULT, description=IKE_ALLOWED, min_length=1)
    ike_lifetime: Annotated[int, integer(10, 604_800)] = Field(14_400, description="10 to 604800 seconds")
    child_lifetime: Annotated[int, integer(10, 604_800)] = Field(3600, description="10 to 604800 seconds")
    probe_interval: Annotated[int, integer(0, 86_400)] = Field(
        60, description="0 to 86400 seconds, 0 is never"
    )
    retransmit_ms: Annotated[int, integer(50, 60_000)] = Field(1000, description="50 to 60000 milliseconds")
    attempts: Annotated[int, integer(1, 20)] = Field(6, description="1 to 20")
    cookie_threshold: Annotated[int, integer(0, 100_000)] = Field(32, description="0 to 100000")
    half_open: Annotated[int, integer(1, 100_000)] = Field(1000, description="1 to 100000")
    fragment_size: Annotated[int, integer(576, 65_000)] = Field(1232, description="576 to 65000 octets")
    encapsulate: bool = Field(False, description=_BOOLEAN)
    mobike: bool = Field(True, description=_BOOLEAN)
    key_log: str | None = Field(None, description="a path of a directory, or absent")

    def parameters(self, peers: tuple[Peer, ...]) -> Parameters:
        """The endpoint's parameters."""
        timing = Timing(
            ike_lifetime=float(self.ike_lifetime),
            child_lifetime=float(self.child_lifetime),
            probe_interval=float(self.probe_interval) or None,
            retransmit=self.retransmit_ms / 1000,
            attempts=self.attempts,
        )
        return Parameters(
            tuple(self.proposals),
            peers,
            timing,
            Limits(cookie_threshold=self.cookie_threshold, half_open=self.half_open),
            self.fragment_size,
            self.encapsulate,
            self.mobike,
            self.key_log is not None,
        )


_SECRET = "a name in keys_file, or absent where certificates speak"  # noqa: S105


class AuthenticationTable(Table):
    """Who a peer is, and how both ends prove it."""

    identity: IdentityText | None = Field(
        None, description=f"{IDENTITY_ALLOWED}; absent for all that certificates name"
    )
    keys: KeyName | None = Field(None, description=_SECRET)

    def secret(
        self,
        own: Credentials,
        key_file: KeyFile,
        location: Location,
        problems: Problems,
        table: str = "[ike]",
    ) -> bytes | None:
        """The pre-shared key; ``None`` where certificates speak, and after a problem was added.

        ``table`` is where our own ones stand.
        """
        if self.keys is None:
            if own.private_key is None or own.trust is None:
                allowed = f"{_SECRET}: certificate, private_key and trust_anchors in {table}"
                problems.add([*location, "keys"], "is missing", allowed)
            return None
        if self.identity is None:
            problems.add(
                [*location, "identity"], "is missing", f"{IDENTITY_ALLOWED}: a secret is for one peer"
            )
        entry = key_file.named(self.keys, location, problems)
        if entry is not None and len(entry.secret) < _MINIMUM_SECRET:
            allowed = f"at least {_MINIMUM_SECRET} octets as secret"
            problems.add([*location, "keys"], "names no secret", allowed)
        return None if entry is None else entry.secret


class ChildTable(Table):
    """A pair of SAs that may be negotiated."""

    name: str = Field(description="any text")
    use: UseName = Field(description=", ".join(Use))
    local: list[ScopeText] = Field(description=SCOPE_ALLOWED, min_length=1)
    remote: list[ScopeText] = Field(description=SCOPE_ALLOWED, min_length=1)
    proposals: list[ChildOffer] = Field(CHILD_DEFAULT, description=CHILD_ALLOWED, min_length=1)
    start: bool = Field(True, description=_BOOLEAN)

    def policy(self) -> ChildPolicy:
        """The child's policy."""
        return ChildPolicy(
            self.name, self.use, tuple(self.proposals), tuple(self.local), tuple(self.remote), self.start
        )


class PeerTable(AuthenticationTable):
    """Another end of the test program."""

    name: str = Field(description="any text")
    address: Address | None = Field(None, description=_ADDRESS)
    initiate: bool = Field(False, description=_BOOLEAN)
    home_addresses: list[Address] = Field([], description=f"a list, each {_ADDRESS}")
    assign: bool = Field(False, description=_BOOLEAN)
    request_address: bool = Field(False, description=_BOOLEAN)
    child: list[ChildTable] = Field([], description="[[peer.child]] tables")

    def check(self, location: Location, problems: Problems) -> None:
        """What no key says alone."""
        if self.initiate and self.address is None:
            problems.add([*location, "address"], "is missing", f"{_ADDRESS}: initiate needs it")
        names = [each.name for each in self.child]
        for index, name in enumerate(names):
            if name in names[:index]:
                problems.add([*location, "child", index, "name"], "is used twice", "one name for each child")

    def peer(self, own: Credentials, secret: bytes | None) -> Peer:
        """The peer, where there was no problem."""
        return Peer(
            self.name,
            own.identity,
            self.identity,
            tuple(each.policy() for each in self.child),
            None if self.address is None else (self.address, PORT),
            secret,
            own.private_key,
            own.chain,
            own.trust,
            tuple(self.home_addresses),
            assign=self.assign,
            request_address=self.request_address,
        )


class MobileNodeIkeTable(AuthenticationTable):
    """IKE with a mobile node: its identity is what its home address is tied to (RFC 4877 4)."""

    uses: list[MobileNodeUse] | None = Field(None, description=f"a list of {MOBILE_NODE_USES}", min_length=1)
    client: bool = Field(False, description=_BOOLEAN)
    proposals: list[ChildOffer] = Field(CHILD_DEFAULT, description=CHILD_ALLOWED, min_length=1)
    assign: bool = Field(False, description=_BOOLEAN)

    @property
    def children(self) -> tuple[Use, ...]:
        """What it may negotiate, each once."""
        if self.uses is not None:
            return tuple(dict.fromkeys(self.uses))
        return (Use.PAYLOAD,) if self.client else (Use.SIGNALLING, Use.PREFIX)

    def peer(
        self, name: str, home_address: bytes, home_agent: bytes, own: Credentials, secret: bytes | None
    ) -> Peer:
        """The mobile node as a home agent's peer."""
        children = tuple(home_agent_child(use, home_agent, tuple(self.proposals)) for use in self.children)
        return Peer(
            name,
            own.identity,
            self.identity,
            children,
            None,
            secret,
            own.private_key,
            own.chain,
            own.trust,
            (home_address,),
            assign=self.assign,
        )


def home_agent_child(use: Use, home_agent: bytes, offers: tuple[Offer, ...]) -> ChildPolicy:
    """The child for ``use`` as the home agent has it (RFC 4877 4.2 to 4.4).

    In tunnel mode its own end is everywhere, otherwise its address.
    """
    out, back = selector(use, to_home_agent=False), selector(use, to_home_agent=True)
    everywhere = use.mode is Mode.TUNNEL
    first, last = (bytes(16), b"\xff" * 16) if everywhere else (home_agent, home_agent)
    local = Scope(out.protocol or 0, out.type, first, last)
    return ChildPolicy(use.value, use, offers, (local,), (Scope(back.protocol or 0, back.type),))


class _IkeProgramTable(IkeTable):
    address: Address = Field(description=_ADDRESS)
    control_socket: str = Field(str(DEFAULT_SOCKET), description=_PATH)
    keys_file: str | None = Field(None, description=_PATH)


class _File(Table):
    ike: _IkeProgramTable = Field(description="a table [ike]")
    peer: list[PeerTable] = Field([], description="[[peer]] tables")


@dataclass(frozen=True, slots=True)
class IkeConfiguration:
    """What ``mip6ha ike`` runs with. ``initiate`` names the peers to begin with."""

    parameters: Parameters
    address: bytes
    control_socket: Path
    key_log: Path | None
    initiate: tuple[str, ...]


def load(path: Path) -> IkeConfiguration:
    """The configuration in a file; :class:`~.tables.ConfigError` tells everything that is wrong with it."""
    content = validate(_File, load_toml(path), path)
    table = content.ike
    key_file = KeyFile(path.parent / table.keys_file if table.keys_file is not None else None)
    problems = Problems(path)
    own = table.credentials(path.parent, ["ike"], problems)
    secrets = []
    for index, each in enumerate(content.peer):
        location: Location = ["peer", index]
        if each.name in (other.name for other in content.peer[:index]):
            problems.add([*location, "name"], "is used twice", "one name for each peer")
        each.check(location, problems)
        secrets.append(each.secret(own, key_file, location, problems))
    problems.refuse()
    peers = (each.peer(own, secret) for each, secret in zip(content.peer, secrets, strict=True))
    return IkeConfiguration(
        table.parameters(tuple(peers)),
        table.address,
        path.parent / table.control_socket,
        None if table.key_log is None else path.parent / table.key_log,
        tuple(each.name for each in content.peer if each.initiate),
    )
