"""One turn of an endpoint: what an exchange may read and change, and the effects that it asks for.

Covered: the register of IKE SAs and SPIs, whom the parameters know, sealing and sending, the end of an IKE
SA. Not covered: exchanges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from typing import NamedTuple

from ...wire import Refused
from .effects import Changed, Closed, Effect, Notice, RemoveChild, SendDatagram
from .fragments import Reassembly, seal_within
from .identities import Identity
from .message import Header, Payload
from .numbers import Notification, PayloadKind, Protocol
from .parameters import Parameters, Peer
from .payloads import Notify, build_notify
from .sa import Address, ChildSa, IkeSa, State
from .transforms import Protection

__all__ = ["Directory", "Endpoints", "Register", "Rejection", "Turn", "notify"]

Random = Callable[[int], bytes]
_FEWEST_SPI = 256


class Rejection(Refused):
    """A request cannot be granted: the response carries this notify (3.10.1) and nothing has changed."""

    def __init__(self, kind: Notification, data: bytes = b"") -> None:
        super().__init__(kind.name.lower())
        self.kind = kind
        self.data = data

    @property
    def payload(self) -> Payload:
        """The notify."""
        return notify(self.kind, self.data)


def notify(kind: Notification, data: bytes = b"", spi: int | None = None) -> Payload:
    """A notify payload; with the SPI of a child where it speaks of one."""
    if spi is None:
        return Payload(PayloadKind.NOTIFY, build_notify(Notify(kind, data)))
    return Payload(PayloadKind.NOTIFY, build_notify(Notify(kind, data, Protocol.ESP, spi.to_bytes(4, "big"))))


class Directory:
    """The peers of the parameters, by name and by who they say that they are."""

    def __init__(self, parameters: Parameters) -> None:
        self.by_name = {each.name: each for each in parameters.peers}
        self._by_identity = {
            each.remote.normal(): each for each in parameters.peers if each.remote is not None
        }
        self._anyone = next((each for each in parameters.peers if each.remote is None), None)
        trusts = [each.trust for each in parameters.peers if each.psk is None and each.trust is not None]
        self.authorities = b"".join(dict.fromkeys(each.key_hashes() for each in trusts))
        """What CERTREQ says before it is known who asks (3.7)."""

    def find(self, identity: tuple[int, bytes]) -> Peer | None:
        """Who has this identity; one that is not listed may be vouched for by a certificate."""
        return self._by_identity.get(Identity(*identity).normal(), self._anyone)


class Register:
    """Every IKE SA by our SPI, and what must be unique or counted over all of them."""

    def __init__(self) -> None:
        self.ike_sas: dict[bytes, IkeSa] = {}
        self.half_open: set[bytes] = set()
        self.requests: dict[bytes, bytes] = {}
        """IKE_SA_INIT requests that made an IKE SA here, by digest: a duplicate makes no second one."""
        self.child_spis: dict[int, bytes] = {}
        self.by_identity: dict[Hashable, set[bytes]] = {}
        self.reassemblies: dict[tuple[bytes, bool], Reassembly] = {}
        self.touched: set[bytes] = set()
        """Whose deadlines may have changed."""

    def add(self, ike_sa: IkeSa) -> None:
        """Take in an IKE SA with all of its children."""
        self.ike_sas[ike_sa.spi] = ike_sa
        for spi in ike_sa.children:
            self.child_spis[spi] = ike_sa.spi
        if ike_sa.state in (State.ESTABLISHED, State.REKEYED):
            self.by_identity.setdefault(_normal(ike_sa), set()).add(ike_sa.spi)
        elif not ike_sa.initiator:
            self.half_open.add(ike_sa.spi)
            if ike_sa.handshake is not None:
                self.requests[ike_sa.handshake.digest] = ike_sa.spi
        self.touched.add(ike_sa.spi)

    def authenticated(self, ike_sa: IkeSa) -> None:
        """An IKE SA is no longer half-open."""
        self.half_open.discard(ike_sa.spi)
        self.by_identity.setdefault(_normal(ike_sa), set()).add(ike_sa.spi)

    def forget(self, ike_sa: IkeSa) -> None:
        """Nothing of this IKE SA is left."""
        spi = ike_sa.spi
        self.ike_sas.pop(spi, None)
        self.half_open.discard(spi)
        self.detach(ike_sa)
        if ike_sa.handshake is not None:
            self.requests.pop(ike_sa.handshake.digest, None)
        self.reassemblies.pop((spi, False), None)
        self.reassemblies.pop((spi, True), None)

    def detach(self, ike_sa: IkeSa) -> None:
        """An IKE SA has no children and is nobody's any more."""
        for spi in ike_sa.children:
            if self.child_spis.get(spi) == ike_sa.spi:
                del self.child_spis[spi]
        name = _normal(ike_sa)
        same = self.by_identity.get(name)
        if same is not None:
            same.discard(ike_sa.spi)
            if not same:
                del self.by_identity[name]


def _normal(ike_sa: IkeSa) -> Hashable:
    return Identity(*ike_sa.identity).normal()


class Endpoints(NamedTuple):
    """Between which addresses the datagram of this turn came: to us, from them."""

    local: Address
    remote: Address


class Turn:
    """What an exchange works with."""

    __slots__ = (
        "closing",
        "counters",
        "directory",
        "effects",
        "endpoints",
        "iv_prefix",
        "now",
        "parameters",
        "random",
        "register",
        "wall",
    )

    def __init__(
        self,
        register: Register,
        parameters: Parameters,
        directory: Directory,
        random: Random,
        *,
        counters: Counter[str],
        wall: Callable[[], datetime],
        iv_prefix: int,
        now: float,
    ) -> None:
        self.register = register
        self.parameters = parameters
        self.directory = directory
        self.random = random
        self.counters = counters
        self.wall = wall
        self.iv_prefix = iv_prefix
        self.now = now
        self.effects: list[Effect] = []
        self.endpoints: Endpoints | None = None
        self.closing = ""
        """Why the IKE SA ends once the response under way has been sealed."""

    def notice(self, name: str, ike_sa: IkeSa, **fields: object) -> None:
        """Tell the operator."""
        self.effects.append(Notice(name, {"ike_sa": ike_sa.spi.hex(), "peer": ike_sa.peer, **fields}))

    def new_spi(self) -> bytes:
        """An SPI for an IKE SA that no other has, and not zero."""
        while True:
            spi = self.random(8)
            if any(spi) and spi not in self.register.ike_sas:
                return spi

    def new_child_spi(self) -> int:
        """An SPI for a child that no other has."""
        while True:
            spi = int.from_bytes(self.random(4), "big")
            if spi >= _FEWEST_SPI and spi not in self.register.child_spis:
                return spi

    def fraction(self) -> float:
        """A random number from 0 to 1, for jitter."""
        return int.from_bytes(self.random(2), "big") / 0xFFFF

    def lifetime(self, seconds: float) -> tuple[float, float]:
        """When an SA made now is re-keyed and when it ends, with jitter so that no flood comes of it."""
        timing = self.parameters.timing
        soft = seconds * (1.0 - timing.jitter * self.fraction())
        return self.now + soft, self.now + seconds * (1.0 + timing.overtime)

    def seal(self, ike_sa: IkeSa, header: Header, payloads: Sequence[Payload]) -> tuple[bytes, ...]:
        """The datagrams of a protected message; the IV that it used is spent."""
        keys = ike_sa.keys
        if keys is None:
            raise ValueError("an IKE SA without keys protects nothing")
        key, integrity = (keys.ei, keys.ai) if ike_sa.initiator else (keys.er, keys.ar)
        protection = Protection(ike_sa.suite, key, integrity, self.iv_prefix, ike_sa.iv_counter)
        limit = self.parameters.fragment_size if ike_sa.fragments else None
        datagrams = seal_within(header, payloads, protection, self.random, limit)
        ike_sa.iv_counter = protection.counter
        return datagrams

    def opening(self, ike_sa: IkeSa) -> Protection | None:
        """What opens the peer's messages; ``None`` before there are keys."""
        keys = ike_sa.keys
        if keys is None:
            return None
        key, integrity = (keys.er, keys.ar) if ike_sa.initiator else (keys.ei, keys.ai)
        return Protection(ike_sa.suite, key, integrity)

    def send(self, ike_sa: IkeSa, datagrams: Sequence[bytes]) -> None:
        """To where the peer is."""
        self.effects += [SendDatagram(ike_sa.local, ike_sa.remote, each) for each in datagrams]

    def answer(self, ike_sa: IkeSa, datagrams: Sequence[bytes]) -> None:
        """To where the request came from (2.11)."""
        local, remote = self.endpoints or (ike_sa.local, ike_sa.remote)
        self.effects += [SendDatagram(local, remote, each) for each in datagrams]

    def answer_to(self, endpoints: Endpoints, octets: bytes) -> None:
        """To a stranger."""
        self.effects.append(SendDatagram(endpoints.local, endpoints.remote, octets))

    def changed(self, ike_sa: IkeSa) -> None:
        """The state is another one; it stands before the datagram that says so."""
        ike_sa.generation += 1
        self.register.touched.add(ike_sa.spi)
        last = self.effects[-1] if self.effects else None
        if not (isinstance(last, Changed) and last.ike_sa is ike_sa):
            self.effects.append(Changed(ike_sa))

    def remove_child(self, ike_sa: IkeSa, child: ChildSa) -> None:
        """A child is gone."""
        del ike_sa.children[child.spi_in]
        self.register.child_spis.pop(child.spi_in, None)
        self.effects.append(RemoveChild(ike_sa.spi, child))

    def close(self, ike_sa: IkeSa, reason: str, *, linger: bool = False) -> None:
        """An IKE SA is gone with its children. ``linger``: its last response may yet be asked for again."""
        if ike_sa.state is not State.CLOSED:
            for child in list(ike_sa.children.values()):
                self.remove_child(ike_sa, child)
            self.register.detach(ike_sa)
            self.effects.append(Closed(ike_sa, reason))
            self.notice("ike_sa_closed", ike_sa, reason=reason)
        ike_sa.state = State.CLOSED
        ike_sa.pending, ike_sa.waiting = None, ()
        ike_sa.rekey_at = ike_sa.probe_at = ike_sa.resume_at = float("inf")
        ike_sa.expires_at = self.now + self.parameters.timing.linger
        self.register.touched.add(ike_sa.spi)
        if not linger:
            self.register.forget(ike_sa)
