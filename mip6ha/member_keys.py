"""The SAs with other members, from IKEv2 instead of manual keys.

Covered: the endpoint at the member's own address, its children as SAs of the channel, both ends that begin
at once, re-keys, peers that were restarted. Not covered: the protocol (``ipsec.ike``), UDP sockets, NATs
between members.

One rule gets a member out of every state: whoever hears nothing from a peer begins an IKE SA with it,
whatever SAs there are. Those stay in use until the new ones are. The rest is tidying up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from .channel import Channel
from .effects import Effect, Event, SendIkeToMember
from .harp.hello import Neighbor
from .ipsec.algorithms import Keys, by_name
from .ipsec.ike import effects as ike
from .ipsec.ike.endpoint import IkeEndpoint
from .ipsec.ike.numbers import PORT
from .ipsec.ike.parameters import Parameters
from .ipsec.ike.sa import Address, ChildSa, State
from .ipsec.policy import Direction
from .ipsec.sad import SecurityAssociation, counter_limit
from .parameters import GroupParameters, PeerParameters

__all__ = ["MemberKeys"]

_NEVER = float("inf")
# Seconds.
_LONGEST_PATIENCE = 0.3
"""How long a member that was just started lets a peer of a lower number begin, at most."""
_SPACING = 0.5
"""Between two beginnings with one peer, at least."""
_GRACE = 1.0
"""How long there may be two IKE SAs with one peer."""
_WORN = 0.75
"""What part of its sequence numbers a key may spend before it is replaced."""
_WORN_AGAIN = 10.0
# What the endpoint tells, and this module in its own words or not at all.
_UNTOLD = frozenset(("ike_sa_established", "ike_sa_closed", "child_installed", "child_deleted"))


class _Pair:
    """Both SAs of a child.

    ``line`` numbers IKE SAs as they were established; a re-keyed one keeps its number, and one start of a
    peer never has those of another. ``confirmed``: the peer has the pair for certain.
    """

    __slots__ = ("child", "confirmed", "inbound", "line", "outbound")

    def __init__(
        self,
        child: ChildSa,
        inbound: SecurityAssociation,
        outbound: SecurityAssociation,
        line: int,
        *,
        confirmed: bool,
    ) -> None:
        self.child = child
        self.inbound = inbound
        self.outbound = outbound
        self.line = line
        self.confirmed = confirmed


class _Path:
    """What there is with one peer."""

    __slots__ = (
        "attempt",
        "begin_at",
        "begun",
        "lines",
        "pairs",
        "peer",
        "sending",
        "tidy_at",
        "via",
        "worn_at",
    )

    def __init__(self, peer: PeerParameters) -> None:
        self.peer = peer
        self.pairs: list[_Pair] = []
        """Oldest first."""
        self.lines: dict[bytes, int] = {}
        """The established IKE SAs by our SPI, and their lines."""
        self.sending: _Pair | None = None
        self.via: _Pair | None = None
        """What the last message came by."""
        self.attempt = b""
        """Our SPI of the IKE SA that we have begun and is not established yet."""
        self.begin_at = _NEVER
        self.begun = float("-inf")
        self.tidy_at = _NEVER
        self.worn_at = float("-inf")

    @property
    def due(self) -> float:
        """When to begin an IKE SA."""
        return _NEVER if self.attempt else max(self.begin_at, self.begun + _SPACING)


class MemberKeys:
    """Negotiates with the peers of ``parameters``. ``greet`` says HELLO to one, which is to answer."""

    def __init__(
        self,
        group: GroupParameters,
        parameters: Parameters,
        channel: Channel,
        neighbors: Mapping[int, Neighbor],
        *,
        random: Callable[[int], bytes],
        now: float,
        wall: Callable[[], datetime],
        counters: Counter[str],
        greet: Callable[[int, list[Effect]], None],
    ) -> None:
        self.endpoint = IkeEndpoint(parameters, random, now, wall=wall)
        self._group = group
        self._associations = channel.associations
        self._neighbors = neighbors
        self._counters = counters
        self._greet = greet
        names = {each.name for each in parameters.peers}
        self._paths = {each.identity: _Path(each) for each in group.peers if each.name in names}
        self._by_name = {path.peer.name: path for path in self._paths.values()}
        self._by_address = {path.peer.address: path for path in self._paths.values()}
        self._pairs: dict[int, _Pair] = {}
        self._line = 0
        self._told: set[tuple[object, ...]] = set()

    # -- inputs ------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Of two that start together the lower number begins."""
        for identity, path in self._paths.items():
            lower = self._group.identity < identity
            path.begin_at = now if lower else now + min(self._quiet(path), _LONGEST_PATIENCE)

    def receive(self, datagram: bytes, source: Address, now: float, effects: list[Effect]) -> None:
        """An IKE message to port 500 of our address."""
        path = self._by_address.get(source[0])
        if path is None:
            self._counters["harp_ike_from_nobody"] += 1
            return
        # Somebody may be there, so a member that starts listens longer.
        self._neighbors[path.peer.identity].suspected = True
        wanted = self.endpoint.receive(datagram, source, (self._group.address, PORT), now)
        self._perform(wanted, now, effects)

    def heard(self, identity: int, spi: int, now: float, effects: list[Effect]) -> None:
        """A message from a peer was opened by the SA with ``spi``."""
        path, pair = self._paths.get(identity), self._pairs.get(spi)
        if path is None or pair is None:
            return
        path.begin_at = now + self._quiet(path)
        path.via = pair
        if not pair.confirmed:
            pair.confirmed = True
            self._choose(path, effects)
        if path.attempt:
            begun = self.endpoint.ike_sas.get(path.attempt)
            # Once the peer may have taken it for established it must become so.
            if begun is not None and begun.state is State.INITIATED:
                self._perform(self.endpoint.delete(path.attempt, now), now, effects)

    def outdate(self, identity: int, effects: list[Effect], *, restarted: bool = False) -> None:
        """What came last is from this start of a peer: older SAs may be from one before.

        Nothing that somebody has held back since then is opened any more. Where the peer is known to have
        been ``restarted``, what was begun with the one before ends too.
        """
        path = self._paths.get(identity)
        if path is None or path.via is None:
            return
        line = path.via.line
        if restarted and path.attempt:
            self.endpoint.forget(path.attempt)
            path.attempt = b""
        for spi in [spi for spi, each in path.lines.items() if each < line]:
            # It knows nothing of them, so there is nobody to tell.
            self.endpoint.forget(spi)
            del path.lines[spi]
        for pair in [each for each in path.pairs if each.line < line]:
            self._drop(path, pair, effects)

    def next_deadline(self) -> float:
        """When :meth:`on_timer` is due."""
        own = min((min(each.due, each.tidy_at) for each in self._paths.values()), default=_NEVER)
        deadline = self.endpoint.next_deadline()
        return own if deadline is None else min(own, deadline)

    def on_timer(self, now: float, effects: list[Effect]) -> None:
        """Do what is due."""
        deadline = self.endpoint.next_deadline()
        if deadline is not None and deadline <= now:
            self._perform(self.endpoint.on_timer(now), now, effects)
        for path in self._paths.values():
            if path.due <= now:
                self._begin(path, now, effects)
            if path.tidy_at <= now:
                self._tidy(path, now, effects)
            self._replace_worn(path, now, effects)

    # -- what there is -----------------------------------------------------------------------------

    def protection(self, identity: int) -> str:
        """Where the SAs with a peer come from, in a word."""
        path = self._paths.get(identity)
        if path is None:
            return "manual"
        return "negotiated" if path.pairs else "none"

    # -- what is begun -----------------------------------------------------------------------------

    def _quiet(self, path: _Path) -> float:
        """Silence that is no accident, and no failure yet."""
        return max(1.5, self._group.failure_factor - 1) * self._neighbors[path.peer.identity].interval

    def _begin(self, path: _Path, now: float, effects: list[Effect]) -> None:
        path.begun = now
        wanted = self.endpoint.initiate(path.peer.name, (self._group.address, PORT), now)
        path.attempt = next(each.ike_sa.spi for each in wanted if isinstance(each, ike.Changed))
        self._perform(wanted, now, effects)

    def _tidy(self, path: _Path, now: float, effects: list[Effect]) -> None:
        """Both ends have begun, or one end again: all but one IKE SA end."""
        if len(set(path.lines.values())) < 2:
            path.tidy_at = _NEVER
            return
        # What is in the middle of something, or what nobody answers for, takes more than once.
        path.tidy_at = now + _GRACE
        kept = path.sending.line if path.sending is not None else max(path.lines.values(), default=0)
        for spi in [spi for spi, line in path.lines.items() if line != kept]:
            self._perform(self.endpoint.delete(spi, now), now, effects)

    def _replace_worn(self, path: _Path, now: float, effects: list[Effect]) -> None:
        pair = path.sending
        if pair is None or path.worn_at + _WORN_AGAIN > now:
            return
        outbound = pair.outbound
        if outbound.sequence > _WORN * counter_limit(outbound.transform, esn=outbound.esn):
            path.worn_at = now
            spi = pair.inbound.spi
            for each in list(path.lines):
                if spi in self.endpoint.ike_sas[each].children:
                    self._perform(self.endpoint.rekey_child(each, spi, now), now, effects)

    # -- effects of the endpoint -------------------------------------------------------------------

    def _perform(self, wanted: list[ike.Effect], now: float, effects: list[Effect]) -> None:
        for each in wanted:
            match each:
                case ike.SendDatagram():
                    self._send(each, effects)
                case ike.Established():
                    self._established(each, now, effects)
                case ike.InstallChild():
                    self._install(each, effects)
                case ike.RemoveChild(_, child):
                    pair = self._pairs.get(child.spi_in)
                    if pair is not None:
                        self._drop(self._by_address[pair.inbound.home_address], pair, effects)
                case ike.Closed():
                    self._closed(each, effects)
                case ike.Notice(name, fields) if name not in _UNTOLD:
                    self._tell(f"harp_{name}", effects, fields, fields.get("reason", fields.get("error")))
        for path in self._paths.values():
            # What has a successor by now, or is one of two and gives way, will soon be gone at the other end.
            self._choose(path, effects)
        counted = self.endpoint.counters
        for name, number in counted.items():
            self._counters[f"harp_{name}"] += number
        counted.clear()

    def _send(self, effect: ike.SendDatagram, effects: list[Effect]) -> None:
        if effect.local[1] != PORT:
            # It goes to port 4500, and its ESP would come in UDP.
            self._counters["harp_ike_behind_nat"] += 1
            return
        effects.append(SendIkeToMember(*effect.remote, effect.octets))

    def _established(self, effect: ike.Established, now: float, effects: list[Effect]) -> None:
        ike_sa, path = effect.ike_sa, self._by_name[effect.ike_sa.peer]
        before = path.lines.get(effect.replaces) if effect.replaces is not None else None
        if before is None:
            self._line += 1
            before = self._line
            self._told.clear()
            effects.append(Event("harp_ike_established", _about(path, ike_sa.spi)))
            # One end only, or each might end what the other one keeps.
            if self._group.identity < path.peer.identity and path.lines:
                path.tidy_at = now + _GRACE
        path.lines[ike_sa.spi] = before
        if path.attempt == ike_sa.spi:
            path.attempt = b""
        path.begin_at = now + self._quiet(path)

    def _closed(self, effect: ike.Closed, effects: list[Effect]) -> None:
        spi, path = effect.ike_sa.spi, self._by_name.get(effect.ike_sa.peer)
        if path is None:
            return
        begun = path.attempt == spi
        if begun:
            path.attempt = b""
        fields = _about(path, spi) | {"reason": effect.reason}
        if path.lines.pop(spi, None) is None:
            # It never was more than an attempt, of which there may be many, or one of two successors.
            if begun and effect.reason != "deleted":
                self._tell("harp_ike_failed", effects, fields, effect.reason)
        elif effect.reason != "rekeyed":
            effects.append(Event("harp_ike_closed", fields))

    def _tell(self, name: str, effects: list[Effect], fields: dict[str, object], reason: object) -> None:
        """Once; then it is only counted, until an IKE SA is established."""
        key = name, fields.get("member", fields.get("peer")), reason
        if key not in self._told:
            self._told.add(key)
            effects.append(Event(name, fields))

    def _install(self, effect: ike.InstallChild, effects: list[Effect]) -> None:
        installation = effect.installation
        child, path = installation.child, self._by_name[installation.peer]

        def made(spi: int, direction: Direction, keys: Keys) -> SecurityAssociation:
            return SecurityAssociation(
                spi=spi,
                direction=direction,
                use=child.use,
                home_address=path.peer.address,
                transform=by_name(installation.transform),
                keys=keys,
                esn=child.esn,
            )

        inbound = made(child.spi_in, Direction.IN, effect.inbound)
        outbound = made(child.spi_out, Direction.OUT, effect.outbound)
        pair = _Pair(child, inbound, outbound, path.lines[effect.ike_spi], confirmed=effect.initiator)
        self._associations.install(inbound, effects)
        self._pairs[inbound.spi] = pair
        path.pairs.append(pair)
        self._choose(path, effects)
        if effect.initiator and effect.replaces is None:
            # Now, and not only in an interval: by this the peer knows that the pair is there.
            self._greet(path.peer.identity, effects)

    def _drop(self, path: _Path, pair: _Pair, effects: list[Effect]) -> None:
        del self._pairs[pair.inbound.spi]
        path.pairs.remove(pair)
        self._associations.discard(path.peer.address, Direction.IN, pair.inbound.spi)
        if path.via is pair:
            path.via = None
        self._choose(path, effects)

    def _choose(self, path: _Path, effects: list[Effect]) -> None:
        """Send with the newest pair that the peer has for certain; what else there is only receives."""
        chosen, before = _best(path.pairs), path.sending
        if chosen is before:
            return
        if before is not None:
            self._associations.discard(path.peer.address, Direction.OUT, before.outbound.spi)
        if chosen is not None:
            self._associations.install(chosen.outbound, effects)
        path.sending = chosen


def _best(pairs: list[_Pair]) -> _Pair | None:
    """What to send with. A successor that is not confirmed waits while there is something before it."""
    lasting = [each for each in pairs if not each.child.replaced] or pairs
    confirmed = [each for each in lasting if each.confirmed]
    if confirmed:
        return confirmed[-1]
    if not lasting:
        return None
    older = pairs[: pairs.index(lasting[-1])]
    return next((each for each in reversed(older) if each.confirmed), lasting[-1])


def _about(path: _Path, spi: bytes) -> dict[str, object]:
    return {"member": path.peer.identity, "ike_sa": spi.hex()}
