"""IKEv2 of a mobile node with its home agent: SAs on the home address, from wherever it is (RFC 4877 5, 7).

Covered: when IKE begins and begins anew, messages that wait for their SAs, the K flag (RFC 6275 6.1.7,
11.7.3), children into :class:`~.protection.Protection`, re-keys without a gap. Not covered: the protocol
(``ipsec.ike``), packets (``mobile_node``), home addresses by configuration payload (RFC 5026 4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .. import udp
from ..ipsec.ike import effects as ike
from ..ipsec.ike.endpoint import IkeEndpoint
from ..ipsec.ike.keylog import esp_line
from ..ipsec.ike.message import HEADER_SIZE, parse_chain, parse_header
from ..ipsec.ike.numbers import NATT_PORT, PORT, Notification, PayloadKind
from ..ipsec.ike.payloads import parse_notify
from ..ipsec.ike.sa import Address, ChildSa, IkeSa, State, TaskKind
from ..ipsec.policy import Use
from ..udp import Datagram
from ..wire import Malformed, text
from .effects import Event, LogKeys, SendMessage
from .protection import Protection

__all__ = ["KeyEffect", "KeyExchange"]

SILENCE = 3
"""Protected messages without any answer, after which the home agent is asked whether it has our IKE SA."""
INTERVAL = 1.0
"""Seconds between two beginnings from one address that nobody asked for."""
CHILD_INTERVAL = 2.0
"""Seconds from asking for a child until it may be asked for again."""

_UNDER_WAY = (State.INITIATED, State.HALF_OPEN)
_OPEN = (State.ESTABLISHED, State.REKEYED)
# What an effect of its own has said better.
_TOLD = frozenset(
    ("ike_sa_established", "ike_sa_rekeyed", "ike_sa_closed", "child_installed", "child_deleted")
)

KeyEffect = Event | LogKeys | SendMessage | ike.SendDatagram


class KeyExchange:
    """The endpoint's first peer is the home agent; ``encapsulation``: the ports of ESP in UDP, ours first."""

    def __init__(
        self,
        home_address: bytes,
        endpoint: IkeEndpoint,
        protection: Protection,
        counters: Counter[str],
    ) -> None:
        self.encapsulation: tuple[int, int] | None = None
        # One place to read them: IKE's reasons and those of everything else.
        endpoint.counters = counters
        self.endpoint = endpoint
        self._peer = endpoint.parameters.peers[0]
        self._home_address = home_address
        self._protection = protection
        self._counters = counters
        self._address: bytes | None = None
        self._waiting: dict[Use, SendMessage] = {}
        self._current: bytes | None = None
        self._followed: bytes | None = None
        self._begun_at = float("-inf")
        self._asked: dict[str, float] = {}
        self._unanswered = 0

    # Where we are.

    def at(self, address: bytes | None, now: float) -> list[KeyEffect]:
        """We are at a care-of address or at the home address, or nowhere."""
        self._address = address
        self._waiting.clear()
        self._unanswered = 0
        if address is None:
            return []
        effects: list[KeyEffect] = []
        for spi, ike_sa in list(self.endpoint.ike_sas.items()):
            young = now < self._begun_at + self.endpoint.parameters.timing.half_open
            if ike_sa.state in _OPEN or (ike_sa.state is State.HALF_OPEN and young):
                self._perform(self.endpoint.moved(spi, address, now), now, effects)
            elif ike_sa.state in _UNDER_WAY and ike_sa.local[0] != address:
                # The home agent knows nothing of us yet, or no more: it is begun again when it is needed.
                self.endpoint.forget(spi)
        return effects

    def acknowledged(self, address: bytes, followed: bool, now: float) -> list[KeyEffect]:
        """The home agent has bound us to ``address``; with K (``followed``) its IKE knows us there too."""
        if followed:
            self._followed = address
        elif self._followed != address and self._current is not None:
            # RFC 6275 11.7.3: its end of the IKE SA is where we were.
            self._counters["ike_not_followed"] += 1
            return self._begin(now)
        return []

    # What must be protected.

    def wait(self, message: SendMessage, use: Use, now: float) -> list[KeyEffect]:
        """Send a message as soon as there are SAs for it; a later one of the same use takes its place."""
        self._waiting[use] = message
        return [Event("awaits_sa", {"use": use.value}), *self.need(use, now)]

    def need(self, use: Use, now: float) -> list[KeyEffect]:
        """Have SAs for ``use``: begin IKE, or ask for the child."""
        ike_sa = self.endpoint.ike_sas.get(self._current or b"")
        if ike_sa is None or ike_sa.state is not State.ESTABLISHED:
            return self._begin(now)
        effects: list[KeyEffect] = []
        for policy in self._peer.children:
            if policy.use is use:
                self._ask(ike_sa, policy.name, now, effects)
        return effects

    def _ask(self, ike_sa: IkeSa, name: str, now: float, effects: list[KeyEffect]) -> None:
        there = any(each.name == name for each in ike_sa.live_children())
        if not there and self._asked.get(name, float("-inf")) + CHILD_INTERVAL <= now:
            self._asked[name] = now
            self._perform(self.endpoint.create_child(ike_sa.spi, name, now), now, effects)

    def spoken(self, now: float) -> list[KeyEffect]:
        """A message has left under negotiated SAs; after :data:`SILENCE` of them we ask what is the matter.

        ESP under an SA that the home agent lost gets no answer, IKE does (RFC 7296 1.5).
        """
        self._unanswered += 1
        effects: list[KeyEffect] = []
        spi = self._current
        if self._unanswered >= SILENCE and spi is not None:
            self._perform(self.endpoint.probe(spi, now), now, effects)
        return effects

    def heard(self) -> None:
        """Something came under our SAs."""
        self._unanswered = 0

    # Datagrams and time.

    def receive(self, source: bytes, destination: bytes, datagram: Datagram, now: float) -> list[KeyEffect]:
        """An IKE message to port 500 or 4500."""
        payload = datagram.payload
        if datagram.destination_port == NATT_PORT:
            payload = udp.unmarked(payload)
        remote, here = (source, datagram.source_port), (destination, datagram.destination_port)
        effects: list[KeyEffect] = []
        lost = self._is_lost(payload, remote)
        self._perform(self.endpoint.receive(payload, remote, here, now), now, effects)
        if lost and now >= self._begun_at + INTERVAL:
            effects += self._begin(now)
        return effects

    def _is_lost(self, payload: bytes, source: Address) -> bool:
        """Whether the home agent says that it has no such IKE SA as ours.

        Anybody could say so (RFC 7296 2.4): what there is stays until another IKE SA has authenticated.
        """
        ike_sa = self.endpoint.ike_sas.get(self._current or b"")
        if ike_sa is None or ike_sa.pending is None or source[0] != ike_sa.remote[0]:
            return False
        try:
            header, first = parse_header(payload)
            if not header.response or (header.spi_i, header.spi_r) != (ike_sa.spi_i, ike_sa.spi_r):
                return False
            chain = parse_chain(payload, HEADER_SIZE, first)
            if chain.encrypted is not None or header.message_id != ike_sa.pending.message_id:
                return False
            return any(
                each.kind == PayloadKind.NOTIFY
                and parse_notify(each.body).kind == Notification.INVALID_IKE_SPI
                for each in chain.payloads
            )
        except Malformed:
            return False

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` has something to do."""
        return self.endpoint.next_deadline()

    def on_timer(self, now: float) -> list[KeyEffect]:
        """Retransmissions, re-keys, liveness."""
        deadline = self.endpoint.next_deadline()
        effects: list[KeyEffect] = []
        if deadline is not None and deadline <= now:
            self._perform(self.endpoint.on_timer(now), now, effects)
        return effects

    def end(self, now: float) -> list[KeyEffect]:
        """We need no SAs any more, and say so."""
        effects: list[KeyEffect] = []
        self._current = None
        for spi, ike_sa in list(self.endpoint.ike_sas.items()):
            if ike_sa.state is State.ESTABLISHED:
                self._perform(self.endpoint.delete(spi, now), now, effects)
            elif ike_sa.state in _UNDER_WAY:
                self.endpoint.forget(spi)
        return effects

    # The IKE SA in use, and what takes its place.

    def _begin(self, now: float) -> list[KeyEffect]:
        """Begin an IKE SA from where we are, unless one is under way; the one in use stays until then."""
        address = self._address
        if address is None or any(each.state in _UNDER_WAY for each in self.endpoint.ike_sas.values()):
            return []
        self._begun_at = now
        effects: list[KeyEffect] = []
        self._perform(self.endpoint.initiate(self._peer.name, (address, PORT), now), now, effects)
        return effects

    def _perform(self, wanted: Sequence[ike.Effect], now: float, effects: list[KeyEffect]) -> None:
        for each in wanted:
            match each:
                case ike.SendDatagram():
                    if each.local[0] == self._address:
                        effects.append(each)
                    else:
                        self._counters["ike_without_address"] += 1
                case ike.InstallChild():
                    self._install(each, effects)
                case ike.RemoveChild():
                    self._remove(each.child, now, effects)
                case ike.MoveChild():
                    self._encapsulate(each.installation)
                case ike.Established():
                    self._established(each, now, effects)
                case ike.Closed():
                    self._closed(each, now, effects)
                case ike.Notice():
                    if each.name not in _TOLD:
                        effects.append(Event(each.name, each.fields))
                case ike.KeyLog():
                    effects.append(LogKeys(each.line))
        self._retire()

    def _established(self, effect: ike.Established, now: float, effects: list[KeyEffect]) -> None:
        ike_sa = effect.ike_sa
        effects.append(Event("ike_established", _about(ike_sa)))
        self._current = ike_sa.spi
        self._unanswered = 0
        if effect.replaces is not None:
            return
        self._followed = ike_sa.local[0]
        for spi, other in list(self.endpoint.ike_sas.items()):
            if other is ike_sa or other.state not in _OPEN:
                continue
            # It may still receive until the home agent has let go of it too.
            for child in other.children.values():
                self._protection.retire(child)
            self._perform(self.endpoint.delete(spi, now), now, effects)

    def _closed(self, effect: ike.Closed, now: float, effects: list[KeyEffect]) -> None:
        ike_sa = effect.ike_sa
        effects.append(Event("ike_closed", _about(ike_sa) | {"reason": effect.reason}))
        if ike_sa.spi != self._current:
            return
        self._current = None
        self._asked.clear()
        if self._address != self._home_address and now >= self._begun_at + INTERVAL:
            effects += self._begin(now)

    def _install(self, effect: ike.InstallChild, effects: list[KeyEffect]) -> None:
        installation = effect.installation
        child = installation.child
        self._protection.install(child, installation.transform, effect.inbound, effect.outbound)
        self._encapsulate(installation)
        if self.endpoint.parameters.key_log:
            for spi, keys in ((child.spi_in, effect.inbound), (child.spi_out, effect.outbound)):
                if line := esp_line(installation.transform, keys, spi):
                    effects.append(LogKeys(line, esp=True))
        fields = _child(child) | {"mode": child.mode.value, "transform": installation.transform}
        if effect.replaces is not None:
            fields["replaces"] = f"0x{effect.replaces:08x}"
        effects.append(Event("child_installed", fields))
        message = self._waiting.pop(child.use, None)
        if message is not None:
            effects.append(message)

    def _remove(self, child: ChildSa, now: float, effects: list[KeyEffect]) -> None:
        self._protection.discard(child)
        effects.append(Event("child_removed", _child(child)))
        ike_sa = self.endpoint.ike_sas.get(self._current or b"")
        if ike_sa is None or ike_sa.state is not State.ESTABLISHED:
            return
        # Where it has no successor: what the home agent has for us would wait for one.
        self._ask(ike_sa, child.name, now, effects)

    def _retire(self) -> None:
        """RFC 7296 2.8: who re-keys sends under the new child as soon as it has it."""
        for ike_sa in self.endpoint.ike_sas.values():
            pending = (ike_sa.pending.task,) if ike_sa.pending is not None else ()
            for task in (*pending, *ike_sa.waiting):
                child = ike_sa.children.get(task.spi)
                if task.kind is TaskKind.DELETE_CHILD and child is not None and child.replaced:
                    self._protection.retire(child)

    def _encapsulate(self, installation: ike.ChildInstallation) -> None:
        ports = installation.local[1], installation.remote[1]
        self.encapsulation = ports if installation.encapsulate else None


def _about(ike_sa: IkeSa) -> dict[str, object]:
    return {
        "peer": ike_sa.peer,
        "spi": ike_sa.spi.hex(),
        "local": _end(ike_sa.local),
        "remote": _end(ike_sa.remote),
    }


def _end(address: Address) -> str:
    return f"[{text(address[0])}]:{address[1]}"


def _child(child: ChildSa) -> dict[str, object]:
    return {
        "child": child.name,
        "use": child.use.value,
        "spi_in": f"0x{child.spi_in:08x}",
        "spi_out": f"0x{child.spi_out:08x}",
    }
