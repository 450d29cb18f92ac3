"""IKEv2 on behalf of a home agent: negotiated SAs in its SAD, IKE SAs in its mobile nodes' contexts.

Covered: datagrams to and from the endpoint, children as SAs of a home address (RFC 4877 4, 5), the K flag,
whose IKE SA is whose, moving IKE SAs to another member. Not covered: the protocol (``ipsec.ike``), what a
mobile node may have (the endpoint's parameters), IKE between members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from . import ipv6, udp
from .associations import Associations
from .effects import Effect, Event, LogKeys, SendPacket
from .ipsec.algorithms import Keys, by_name
from .ipsec.ike import effects as ike
from .ipsec.ike import state
from .ipsec.ike.endpoint import IkeEndpoint
from .ipsec.ike.keylog import esp_line
from .ipsec.ike.numbers import NATT_PORT
from .ipsec.ike.sa import IkeSa, State, TaskKind
from .ipsec.policy import Direction, Use
from .ipsec.sad import SecurityAssociation
from .ipv6 import UDP
from .parameters import HomeAgentParameters
from .udp import Datagram
from .wire import text

__all__ = ["REQUESTS", "Negotiation"]

REQUESTS: Mapping[str, Callable[[IkeEndpoint, bytes, float], list[ike.Effect]]] = {
    "rekey": IkeEndpoint.rekey,
    "delete": IkeEndpoint.delete,
    "probe": IkeEndpoint.probe,
    "synchronise": IkeEndpoint.synchronise,
}
"""What an operator may ask of an IKE SA: another one, its end, a sign of life, RFC 6311's message ids."""

# What other members have to know of: before that a mobile node just begins again, and what is closed only
# answers for the last time.
_LASTING = frozenset((State.ESTABLISHED, State.REKEYED))


class Negotiation:
    """The endpoint at the home agent address.

    ``changed`` collects the home addresses whose IKE SAs have changed, where somebody wants to know; their
    contexts have to be with the standbys before the effects that came with the change. ``tunnelled`` is told
    where the other end of a home address's tunnel for payload is, ``None`` when the last one is gone, and
    ``discarded`` whose SAs are about to become fewer.
    """

    def __init__(
        self,
        parameters: HomeAgentParameters,
        endpoint: IkeEndpoint,
        associations: Associations,
        counters: Counter[str],
        *,
        tunnelled: Callable[[bytes, bytes | None, float, list[Effect]], None],
        discarded: Callable[[bytes, list[Effect]], None],
    ) -> None:
        self.endpoint = endpoint
        self._tunnelled = tunnelled
        self._discarded = discarded
        # One place to read them: IKE's reasons and those of everything else.
        endpoint.counters = counters
        self.changed: list[bytes] | None = None
        self.encapsulation: dict[bytes, tuple[int, int]] = {}
        """The UDP ports, ours and the mobile node's, of those whose ESP goes in UDP (RFC 3948)."""
        self._address = parameters.address
        self._associations = associations
        self._mtu = parameters.link_mtu
        self._identification = 0
        self._spis: dict[bytes, dict[bytes, None]] = {}

    # -- inputs ------------------------------------------------------------------------------------

    def receive(self, source: bytes, datagram: Datagram, now: float, effects: list[Effect]) -> None:
        """An IKE message to port 500 or 4500, from ``source``."""
        payload = datagram.payload
        if datagram.destination_port == NATT_PORT:
            payload = udp.unmarked(payload)
        here = self._address, datagram.destination_port
        self._perform(self.endpoint.receive(payload, (source, datagram.source_port), here, now), now, effects)

    def timeouts(self, now: float) -> Iterator[list[Effect]]:
        """What the clock asks for, the effects of each change of an IKE SA for themselves."""
        deadline = self.endpoint.next_deadline()
        if deadline is None or deadline > now:
            return
        part: list[ike.Effect] = []
        for each in self.endpoint.on_timer(now):
            if type(each) is ike.Changed and part:
                yield self._performed(part, now)
                part = []
            part.append(each)
        if part:
            yield self._performed(part, now)

    def ask(self, home_address: bytes, what: str, now: float, effects: list[Effect]) -> bool:
        """Have an exchange begun, one of :data:`REQUESTS`; whether there is an IKE SA for that."""
        begin = REQUESTS[what]
        spis = list(self._spis.get(home_address, ()))
        for spi in spis:
            self._perform(begin(self.endpoint, spi, now), now, effects)
        return bool(spis)

    def follow(self, home_address: bytes, care_of_address: bytes, now: float, effects: list[Effect]) -> None:
        """A Binding Update with K: the IKE SAs' peer is at the new care-of address (RFC 6275 10.3.1)."""
        for spi in self._spis.get(home_address, ()):
            self._perform(self.endpoint.peer_moved(spi, care_of_address, now), now, effects)

    def forget(self, home_address: bytes) -> None:
        """A mobile node is served no longer: its IKE SAs answer nothing more."""
        for spi in self._spis.pop(home_address, {}):
            self.endpoint.forget(spi)
        self.encapsulation.pop(home_address, None)

    # -- what there is -----------------------------------------------------------------------------

    def serves(self, home_address: bytes) -> bool:
        """Whether a home address has an IKE SA."""
        return home_address in self._spis

    # -- the context of a mobile node --------------------------------------------------------------

    def export(self, home_address: bytes, now: float) -> tuple[bytes, ...]:
        """The IKE SAs of a home address as octets, which hold keys."""
        return tuple([self.endpoint.export_state(spi, now) for spi in self._spis.get(home_address, ())])

    def read(self, states: tuple[bytes, ...], now: float) -> tuple[IkeSa, ...]:
        """The IKE SAs that :meth:`export` wrote; :class:`~.wire.Malformed` where one is none."""
        return tuple([state.decode(octets, now) for octets in states])

    def install(self, home_address: bytes, ike_sas: tuple[IkeSa, ...], now: float) -> None:
        """Replace the IKE SAs of a home address. Their children stand in the context as SAs of their own."""
        spis: dict[bytes, None] = {}
        for ike_sa in ike_sas:
            spis[ike_sa.spi] = None
            known = self.endpoint.ike_sas.get(ike_sa.spi)
            if known is None or known.generation != ike_sa.generation:
                self.endpoint.adopt(ike_sa, now)
                self._note_encapsulation(ike_sa)
        for spi in self._spis.pop(home_address, {}):
            if spi not in spis:
                self.endpoint.forget(spi)
        if spis:
            self._spis[home_address] = spis

    # -- effects -----------------------------------------------------------------------------------

    def _performed(self, wanted: list[ike.Effect], now: float) -> list[Effect]:
        effects: list[Effect] = []
        self._perform(wanted, now, effects)
        return effects

    def _perform(self, wanted: list[ike.Effect], now: float, effects: list[Effect]) -> None:
        for each in wanted:
            match each:
                case ike.SendDatagram():
                    self._send(each, effects)
                case ike.Changed():
                    self._note(each.ike_sa)
                    self._leave_replaced(each.ike_sa, effects)
                case ike.InstallChild():
                    self._install(each, effects)
                    self._tunnel(each.installation, now, effects)
                case ike.RemoveChild():
                    self._remove(each, now, effects)
                case ike.MoveChild():
                    self._encapsulate(each.installation)
                    self._tunnel(each.installation, now, effects)
                case ike.Established():
                    effects.append(Event("ike_established", _about(each.ike_sa)))
                case ike.Closed():
                    self._note(each.ike_sa)
                    effects.append(Event("ike_closed", _about(each.ike_sa) | {"reason": each.reason}))
                case ike.Notice():
                    effects.append(Event(each.name, each.fields))
                case ike.KeyLog():
                    effects.append(LogKeys(each.line))

    def _send(self, effect: ike.SendDatagram, effects: list[Effect]) -> None:
        (local, port), (remote, remote_port) = effect.local, effect.remote
        payload = udp.NON_ESP_MARKER + effect.octets if port == NATT_PORT else effect.octets
        octets = udp.build(local, remote, Datagram(port, remote_port, payload))
        packet = ipv6.build(local, remote, UDP, octets)
        if len(packet) <= self._mtu:
            effects.append(SendPacket(packet))
            return
        # To a peer that does not know fragments of IKE (RFC 7383).
        self._identification = self._identification + 1 & 0xFFFFFFFF
        effects += [SendPacket(piece) for piece in ipv6.fragments(packet, self._mtu, self._identification)]

    def _note(self, ike_sa: IkeSa) -> None:
        spi = ike_sa.spi
        for home_address in ike_sa.home_addresses:
            spis = self._spis.setdefault(home_address, {})
            changed = True
            if ike_sa.state in _LASTING:
                spis[spi] = None
            else:
                changed = spi in spis
                spis.pop(spi, None)
                if not spis:
                    del self._spis[home_address]
            if changed and self.changed is not None:
                self.changed.append(home_address)

    def _leave_replaced(self, ike_sa: IkeSa, effects: list[Effect]) -> None:
        """Send nothing more under a child that we have replaced: its peer forgets it with our Delete."""
        tasks = ike_sa.waiting if ike_sa.pending is None else (ike_sa.pending.task, *ike_sa.waiting)
        for task in tasks:
            child = ike_sa.children.get(task.spi) if task.kind is TaskKind.DELETE_CHILD else None
            if child is not None and child.replaced:
                self._discarded(child.home_address, effects)
                self._associations.discard(child.home_address, Direction.OUT, child.spi_out)

    def _install(self, effect: ike.InstallChild, effects: list[Effect]) -> None:
        installation = effect.installation
        child = installation.child
        transform = by_name(installation.transform)
        directed: tuple[tuple[int, Direction, Keys], ...] = (
            (child.spi_in, Direction.IN, effect.inbound),
            (child.spi_out, Direction.OUT, effect.outbound),
        )
        for spi, direction, keys in directed:
            self._associations.install(
                SecurityAssociation(
                    spi=spi,
                    direction=direction,
                    use=child.use,
                    home_address=child.home_address,
                    transform=transform,
                    keys=keys,
                    esn=child.esn,
                ),
                effects,
            )
            if self.endpoint.parameters.key_log and (line := esp_line(transform.name, keys, spi)):
                effects.append(LogKeys(line, esp=True))
        self._encapsulate(installation)

    def _tunnel(self, installation: ike.ChildInstallation, now: float, effects: list[Effect]) -> None:
        if installation.child.use is Use.PAYLOAD:
            self._tunnelled(installation.child.home_address, installation.remote[0], now, effects)

    def _remove(self, effect: ike.RemoveChild, now: float, effects: list[Effect]) -> None:
        child = effect.child
        self._discarded(child.home_address, effects)
        self._associations.discard(child.home_address, Direction.IN, child.spi_in)
        self._associations.discard(child.home_address, Direction.OUT, child.spi_out)
        left = self._associations.database.of(child.home_address)
        if child.use is Use.PAYLOAD and not any(each.use is Use.PAYLOAD for each in left):
            self._tunnelled(child.home_address, None, now, effects)

    def _encapsulate(self, installation: ike.ChildInstallation) -> None:
        home_address = installation.child.home_address
        if installation.encapsulate:
            self.encapsulation[home_address] = installation.local[1], installation.remote[1]
        else:
            self.encapsulation.pop(home_address, None)

    def _note_encapsulation(self, ike_sa: IkeSa) -> None:
        for home_address in ike_sa.home_addresses:
            if ike_sa.encapsulate:
                self.encapsulation[home_address] = ike_sa.local[1], ike_sa.remote[1]
            else:
                self.encapsulation.pop(home_address, None)


def _about(ike_sa: IkeSa) -> dict[str, object]:
    return {
        "peer": ike_sa.peer,
        "home_addresses": [text(address) for address in ike_sa.home_addresses],
        "remote": f"[{text(ike_sa.remote[0])}]:{ike_sa.remote[1]}",
        "spi": ike_sa.spi.hex(),
    }
