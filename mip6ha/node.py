"""The home agent: the whole way of a packet, on one page.

``receive`` -> open ESP -> parse -> register -> forward -> answer. Every input returns effects, which the
edge carries out in their order. Covered: RFC 6275 8.4 and 10 with IPsec as in RFC 4877, RFC 3963 networks.
Not covered: route optimisation as a correspondent node, multicast, IPv4 (RFC 5555).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from . import icmpv6, ipv6, udp
from .associations import Associations
from .binding import messages
from .binding.cache import Binding, BindingCache, State
from .binding.messages import (
    BindingUpdate,
    MessageType,
    MobileNetworkPrefix,
    Status,
    UpdateFlag,
)
from .binding.registration import Action, Before, Outcome, RegistrationPolicy, Registrations
from .discovery import Discovery
from .effects import (
    AnnounceAddress,
    DefendAddress,
    Effect,
    EndProbe,
    Event,
    ExtendPayload,
    ProbeAddress,
    RecallPayload,
    ReleaseAddress,
    RemoveTunnel,
    ReserveSequences,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    UnroutePrefix,
)
from .forwarding import Forwarding
from .ipsec import esp
from .ipsec.ike.endpoint import IkeEndpoint
from .ipsec.ike.numbers import NATT_PORT, PORT
from .ipsec.policy import Mode
from .ipsec.sad import SecurityAssociation
from .ipv6 import ESP, FRAGMENT, ICMPV6, IPV6, MOBILITY, NO_NEXT_HEADER, UDP, Packet
from .lending import Lending, PayloadCounted, PayloadNews
from .mobile_nodes import MobileNodes
from .mobility import message_type
from .negotiation import Negotiation
from .parameters import HomeAgentParameters, MobileNodeParameters
from .refusals import Refusals
from .signalling import Signalling
from .views import binding_view
from .wire import Malformed, Refused, text

__all__ = ["HomeAgent"]

# What is counted on already, although the packet that asked for it is dropped.
_KEPT = frozenset((ReserveSequences, ExtendPayload, RecallPayload))

_ERROR_TYPES = frozenset(
    (icmpv6.DESTINATION_UNREACHABLE, icmpv6.PACKET_TOO_BIG, icmpv6.TIME_EXCEEDED, icmpv6.PARAMETER_PROBLEM)
)


class HomeAgent:
    """One home agent address with its mobile nodes.

    ``random`` yields that many random octets; ``now`` is always the same monotonic clock, in seconds.
    ``counters`` counts what happened by name; every drop has its reason there. ``associations`` is given
    where their numbers are shared with others.
    """

    def __init__(
        self,
        parameters: HomeAgentParameters,
        random: Callable[[int], bytes],
        now: float,
        associations: Associations | None = None,
    ) -> None:
        self.parameters = parameters
        self.address = parameters.address
        self.counters: Counter[str] = Counter()
        self.cache = BindingCache()
        physical = not parameters.virtual_home_link
        self.registrations = Registrations(
            self.cache,
            RegistrationPolicy(
                address=parameters.address,
                home_prefixes=parameters.home_prefixes,
                probes=physical and parameters.duplicate_address_detection,
                announces=physical,
                max_lifetime=parameters.max_lifetime,
                max_bindings=parameters.max_bindings,
                refresh_request=parameters.refresh_request,
            ),
        )
        self.associations = associations or Associations(
            parameters.address, random, parameters.sequence_floor
        )
        self.forwarding = Forwarding(
            parameters.address, self.cache, self.associations, parameters.link_mtu, self.counters
        )
        self.signalling = Signalling(
            parameters.address, self.associations, self.counters, parameters.refresh_advice
        )
        self.lending = Lending(
            self.associations,
            self.cache,
            self.forwarding,
            self.counters,
            now,
            wanted=parameters.lends_payload,
        )
        self._discovery = Discovery(parameters, self.cache, self.signalling, self.counters)
        self._refusals = Refusals(parameters.address, self.cache, self.counters, now)
        self.negotiation: Negotiation | None = None
        if parameters.ike is not None:
            endpoint = IkeEndpoint(parameters.ike, random, now, wall=parameters.wall)
            negotiation = Negotiation(
                parameters,
                endpoint,
                self.associations,
                self.counters,
                tunnelled=self._tunnelled,
                discarded=self.lending.recall,
            )
            self.negotiation = negotiation
            self.forwarding.encapsulation = negotiation.encapsulation
            self.signalling.follows = negotiation.serves
        self.mobile_nodes = MobileNodes(
            parameters.mobile_nodes, self.associations, self.forwarding, self.signalling
        )
        self._reassembler = ipv6.Reassembler()
        self.frozen = ""
        """Why signalling is refused for the moment (a drop reason), empty when it is not."""

    def collect_changes(self, changed: list[bytes]) -> None:
        """Put the home address of each mobile node whose context changes into ``changed``, from now on."""
        self.signalling.changed = changed
        if self.negotiation is not None:
            self.negotiation.changed = changed

    # -- inputs ------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Own the home agent address and the anycast addresses of discovery."""
        return [self.associations.reservation(), *self.prepare(), *self.own()]

    def prepare(self) -> list[Effect]:
        """Everything of :meth:`start` that may be done before this home agent is the one that serves."""
        return [DefendAddress(self.address), *map(DefendAddress, sorted(self._discovery.anycast))]

    def own(self) -> list[Effect]:
        """Tell the home link that the home agent address is here."""
        return [AnnounceAddress(self.address)] if self.registrations.policy.announces else []

    def receive(self, packet: bytes, now: float) -> list[Effect]:
        """Process one IPv6 packet that was routed here. Whatever is in it, nothing is half-applied."""
        effects: list[Effect] = []
        try:
            if packet[24:40] == self.address:
                self._deliver(packet, now, effects)
            else:
                self._intercept(packet, now, effects)
        except Refused as refused:
            effects[:] = [effect for effect in effects if type(effect) in _KEPT]
            self._refusals.drop(refused, packet, now, effects)
        return effects

    def address_conflict(self, address: bytes, now: float) -> list[Effect]:
        """Another node answered for an address under duplicate address detection."""
        effects: list[Effect] = []
        for binding in self.registrations.probing(address):
            outcome = self.registrations.conflict(binding)
            effects += [EndProbe(defended) for defended in binding.defended]
            self._refuse(binding.home_address, binding.source, outcome, effects)
        return effects

    def payload_news(self, news: PayloadNews, now: float) -> list[Effect]:
        """What the dataplane says of payload that it was lent."""
        effects: list[Effect] = []
        self.lending.hear(news, now, effects)
        return effects

    def ask_ike(self, home_address: bytes, what: str, now: float) -> tuple[bool, list[Effect]]:
        """See :meth:`Negotiation.ask`."""
        effects: list[Effect] = []
        found = self.negotiation is not None and self.negotiation.ask(home_address, what, now, effects)
        return found, effects

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` is due; ``None``: never."""
        deadline = self.cache.next_deadline()
        if self.negotiation is None:
            return deadline
        other = self.negotiation.endpoint.next_deadline()
        return other if deadline is None else deadline if other is None else min(deadline, other)

    def on_timer(self, now: float) -> list[Effect]:
        """Do what the clock asks for."""
        return [effect for effects in self.timeouts(now) for effect in effects]

    def timeouts(self, now: float) -> Iterator[list[Effect]]:
        """As :meth:`on_timer`, the effects of each mobile node for themselves."""
        for binding, outcome in self.registrations.due(now):
            effects: list[Effect] = []
            action = outcome.action
            if action is Action.BIND:
                effects += [EndProbe(address) for address in binding.defended]
                self._bind(binding, outcome, effects)
            elif action is Action.EXPIRE:
                self.counters["expiries"] += 1
                self.withdraw(binding, outcome.before, effects)
                self._report("binding_expired", binding, effects)
            elif action is Action.ANNOUNCE:
                effects += [AnnounceAddress(address) for address in binding.defended]
            else:
                self.counters["refresh_requests"] += 1
                self.signalling.ask_refresh(binding, effects)
            yield effects
        if self.negotiation is not None and not self.frozen:
            yield from self.negotiation.timeouts(now)

    def reconfigure(self, mobile_nodes: tuple[MobileNodeParameters, ...], now: float) -> list[Effect]:
        """Serve exactly these mobile nodes from now on; those that stay as they were notice nothing."""
        changes = self.mobile_nodes.configure(mobile_nodes)
        return self.replace(changes | self.mobile_nodes.unconfigured())

    def replace(
        self, changes: Mapping[bytes, MobileNodeParameters | None], *, gently: bool = False
    ) -> list[Effect]:
        """Serve some home addresses from now on as is said for each, ``None``: no longer.

        With ``gently`` a mobile node that has the right SAs already keeps its registration.
        """
        effects: list[Effect] = []
        served = self.mobile_nodes
        changes = served.changed(changes, gently=gently)
        # First all that goes: a mobile node may get an SPI that was another one's.
        before = {
            home_address: self._dismiss(home_address, effects, stays=wanted is not None)
            for home_address, wanted in changes.items()
            if home_address in served
        }
        for home_address, wanted in changes.items():
            if wanted is not None:
                served.admit(wanted, before.get(home_address, ()))
        return effects

    def stop(self, now: float) -> list[Effect]:
        """Let go of every address, tunnel and route."""
        effects: list[Effect] = []
        for binding in self.cache:
            if binding.state is not State.UNBOUND:
                self.withdraw(binding, Before(binding.state, prefixes=binding.prefixes), effects)
        effects += [ReleaseAddress(address) for address in sorted(self._discovery.anycast)]
        effects.append(ReleaseAddress(self.address))
        return effects

    # -- what people read --------------------------------------------------------------------------

    def bindings(self, now: float) -> Iterator[dict[str, object]]:
        """Every registration, JSON-ready, made as it is asked for; what comes meanwhile may be left out."""
        return (
            binding_view(binding, self.name_of(binding.home_address), now)
            for binding in list(self.cache)
            if binding.state is not State.UNBOUND
        )

    def security_associations(self) -> Iterator[dict[str, object]]:
        """Every SA without its keys, JSON-ready, made as it is asked for."""
        return self.associations.view()

    def status(self, now: float) -> dict[str, object]:
        """The home agent in a few figures."""
        return {
            "home_agent": text(self.address),
            "mobile_nodes": len(self.mobile_nodes),
            "bindings": self.cache.registered,
            "security_associations": len(self.associations.database),
        }

    # -- packets to the home agent -----------------------------------------------------------------

    def _deliver(self, packet: bytes, now: float, effects: list[Effect]) -> None:
        parsed = ipv6.parse(packet)
        if parsed.next_header == FRAGMENT:
            whole = self._reassembler.add(packet, parsed, now)
            if whole is None:
                return
            packet, parsed = whole, ipv6.parse(whole)
            if parsed.next_header == FRAGMENT:
                raise Malformed("nested_fragment", parsed.offset)
        if parsed.routing is not None:
            raise Refused("routing_header_not_for_us")
        next_header, payload = parsed.next_header, parsed.payload
        if next_header == ESP:
            self._open(parsed, payload, now, effects)
        elif next_header == IPV6:
            self.forwarding.decapsulate(payload, parsed, None, effects)
        elif next_header == MOBILITY:
            self._unprotected_mobility(parsed, payload, now, effects)
        elif next_header == ICMPV6:
            self._icmp(parsed, payload, now, effects)
        elif next_header == UDP and self.negotiation is not None:
            self._datagram(self.negotiation, parsed, payload, now, effects)
        else:
            self._refusals.check_home_address_option(parsed)
            if next_header == NO_NEXT_HEADER:
                raise Refused("no_next_header")
            # RFC 8200 4: point at the next header field, which is the fixed header's in the simple case.
            raise Malformed("unknown_next_header", 6, parameter_problem=1)

    def _open(self, parsed: Packet, payload: bytes, now: float, effects: list[Effect]) -> None:
        """ESP: find the SA, check who speaks before any cryptography, open, check the selector."""
        association = self.associations.inbound(esp.spi(payload))
        if association is None:
            raise Refused("unknown_spi")
        home_address = association.home_address
        if association.mode is Mode.TUNNEL:
            if not self.cache.is_at(home_address, parsed.source):
                raise Refused("reverse_tunnel_source")
            if association.lent and association.ahead:
                # Farther ahead than what is lent, so that the dataplane never saw it.
                counted = PayloadCounted(home_address, False, association.spi, association.ahead)
                self.lending.hear(counted, now, effects)
            next_header, inner = esp.unprotect(association, payload)
            if next_header != IPV6:
                raise Refused("selector_mismatch")
            self.forwarding.decapsulate(inner, parsed, association, effects)
            self.lending.lend(home_address, now, effects)
            return
        if self.frozen:
            raise Refused(self.frozen)
        # The SA is this home address's: a home address option for anybody else is a lie (RFC 6275 5.1).
        if (parsed.home_address or parsed.source) != home_address:
            raise Refused("home_address_not_of_sa")
        next_header, octets = esp.unprotect(association, payload)
        kind = message_type(octets) if next_header == MOBILITY else octets[0] if octets else None
        if not association.selector.matches(next_header, kind):
            raise Refused("selector_mismatch")
        if next_header == MOBILITY:
            try:
                message = messages.parse(octets, home_address, self.address)
            except messages.UnknownMessage:
                raise
            except Malformed as bad:
                # No pointer of a Parameter Problem leads into what is encrypted.
                raise Refused(bad.reason) from None
            if type(message) is not BindingUpdate:
                raise Refused("unexpected_message")
            self._binding_update(home_address, parsed, message, now, effects)
        else:
            icmp = icmpv6.parse(octets, home_address, self.address)
            if icmp.type != icmpv6.MOBILE_PREFIX_SOLICITATION:
                raise Refused("unexpected_message")
            self._discovery.prefixes(home_address, parsed, icmp, effects)

    def _datagram(
        self, negotiation: Negotiation, parsed: Packet, payload: bytes, now: float, effects: list[Effect]
    ) -> None:
        """UDP: IKE, and ESP in UDP (RFC 7296 2.23, RFC 3948)."""
        self._refusals.check_home_address_option(parsed)
        datagram = udp.parse(payload, parsed.source, parsed.destination)
        if datagram.destination_port == NATT_PORT and udp.is_esp(datagram.payload):
            if udp.is_keep_alive(datagram.payload):
                self.counters["nat_keep_alives"] += 1
            else:
                self._open(parsed, datagram.payload, now, effects)
            return
        if datagram.destination_port not in (PORT, NATT_PORT):
            raise Refused("udp_port")
        if self.frozen:
            raise Refused(self.frozen)
        negotiation.receive(parsed.source, datagram, now, effects)

    def _unprotected_mobility(self, parsed: Packet, octets: bytes, now: float, effects: list[Effect]) -> None:
        source = parsed.logical_source
        if message_type(octets) == MessageType.BINDING_UPDATE:
            self._authenticated_update(source, parsed, octets, now, effects)
            return
        self._refusals.check_home_address_option(parsed)
        try:
            messages.parse(octets, source, self.address)
        except messages.UnknownMessage:
            raise
        except Malformed as bad:
            raise Malformed(bad.reason, parsed.offset + bad.offset, bad.parameter_problem) from None
        raise Refused("unexpected_message")

    def _authenticated_update(
        self, home_address: bytes, parsed: Packet, octets: bytes, now: float, effects: list[Effect]
    ) -> None:
        """A Binding Update without IPsec: by RFC 4285 where that is configured, else dropped (10.3.1)."""
        peer = self.signalling.authentications.get(home_address)
        if peer is None:
            raise Refused("unprotected_binding_update")
        if self.frozen:
            raise Refused(self.frozen)
        if not ipv6.is_routable_unicast(parsed.source):
            raise Refused("unanswerable_source")
        try:
            message = messages.parse(octets, home_address, self.address)
        except Malformed as bad:
            raise Refused(bad.reason) from None
        if type(message) is not BindingUpdate:
            raise Refused("unexpected_message")
        status = peer.check(octets, message, parsed.source, home_address)
        if status is Status.ACCEPTED:
            self._binding_update(home_address, parsed, message, now, effects)
        elif self._refusals.allow(now):
            refusal = Outcome(Action.REFUSE, status, message.sequence)
            self._refuse(home_address, parsed.source if parsed.home_address else None, refusal, effects)

    # -- registrations -----------------------------------------------------------------------------

    def _binding_update(
        self, home_address: bytes, parsed: Packet, message: BindingUpdate, now: float, effects: list[Effect]
    ) -> None:
        if not ipv6.is_routable_unicast(parsed.source):
            # 9.5.4: the answer would go there.
            raise Refused("unanswerable_source")
        router = message.flags & UpdateFlag.MOBILE_ROUTER
        known = self.mobile_nodes.get(home_address)
        authorized = known.prefixes if known is not None and router else ()
        suspended = known is not None and known.suspended
        outcome = self.registrations.update(
            home_address, parsed.source, message, authorized, now, suspended=suspended
        )
        action = outcome.action
        if message.flags & UpdateFlag.KEY_MANAGEMENT and action in (Action.BIND, Action.END):
            self._follow(home_address, parsed.source, now, effects)
        if action is Action.BIND:
            binding = self.cache.entry(home_address)
            self._bind(binding, outcome, effects)
        elif action is Action.REFUSE:
            self._refuse(home_address, parsed.source if parsed.home_address else None, outcome, effects)
        elif action is Action.WAIT:
            self.signalling.note(home_address)
        elif action is Action.PROBE:
            # Not answered yet, but the replay window is another.
            self.signalling.note(home_address)
            binding = self.cache.entry(home_address)
            effects += [ProbeAddress(address) for address in binding.defended]
            self._report("probing", binding, effects)
        elif action is Action.END:
            binding = self.cache.entry(home_address)
            self.withdraw(binding, outcome.before, effects)
            self.counters["deregistrations"] += 1
            via = parsed.source if parsed.home_address else None
            self.signalling.answer(home_address, via, outcome, binding, effects)
            self._report("deregistered", binding, effects, at_home=parsed.home_address is None)

    def _follow(self, home_address: bytes, care_of_address: bytes, now: float, effects: list[Effect]) -> None:
        if self.negotiation is not None:
            self.negotiation.follow(home_address, care_of_address, now, effects)

    def _bind(self, binding: Binding, outcome: Outcome, effects: list[Effect]) -> None:
        """Forwarding first, then the claim on the home link, then the answer. A refresh only answers."""
        before = outcome.before
        moved = before.state is State.BOUND
        if not self.forward(binding, before, effects):
            self.counters["refreshes"] += 1
            self.signalling.answer(binding.home_address, binding.source, outcome, binding, effects)
            return
        if not moved:
            for address in binding.defended:
                effects += self._claim(address)
        self.counters["moves" if moved else "registrations"] += 1
        self.signalling.answer(binding.home_address, binding.source, outcome, binding, effects)
        self._report("moved" if moved else "registered", binding, effects)

    def end_probes(self) -> list[Effect]:
        """Give up every registration that waits for duplicate address detection; nobody was told of it."""
        effects: list[Effect] = []
        for binding in self.cache:
            if binding.state is State.PROBING:
                self.withdraw(binding, Before(State.PROBING), effects)
                self.cache.give_up(binding)
        return effects

    def forward(self, binding: Binding, before: Before, effects: list[Effect]) -> bool:
        """Make forwarding that of ``binding``, which was ``before``; whether anything is different."""
        bound_before, old_care_of_address, old_prefixes = before
        if bound_before is not State.BOUND:
            old_care_of_address, old_prefixes = None, ()
        prefixes = binding.prefixes
        if binding.care_of_address == old_care_of_address and prefixes == old_prefixes:
            return False
        effects += [UnroutePrefix(*old) for old in old_prefixes if old not in prefixes]
        home_address = binding.home_address
        effects += [RoutePrefix(*new, home_address) for new in prefixes if new not in old_prefixes]
        self.lending.follow(binding, effects)
        protected = self.forwarding.is_protected(home_address)
        effects.append(SetTunnel(home_address, binding.care_of_address, protected))
        return True

    def _claim(self, address: bytes) -> list[Effect]:
        if self.registrations.policy.announces:
            return [DefendAddress(address), AnnounceAddress(address)]
        return [DefendAddress(address)]

    def _refuse(
        self, home_address: bytes, via: bytes | None, outcome: Outcome, effects: list[Effect]
    ) -> None:
        status = int(outcome.status)
        self.counters[f"refused_{status}"] += 1
        self.signalling.answer(home_address, via, outcome, self.cache.get(home_address), effects)
        effects.append(Event("registration_refused", {"home_address": text(home_address), "status": status}))

    def withdraw(self, binding: Binding, before: Before, effects: list[Effect]) -> None:
        """Undo what :meth:`_bind`, or the probe before it, asked for."""
        if before.state is State.PROBING:
            effects += [EndProbe(address) for address in binding.defended]
        elif before.state is State.BOUND:
            self.lending.recall(binding.home_address, effects)
            effects.append(RemoveTunnel(binding.home_address))
            effects += [UnroutePrefix(*prefix) for prefix in before.prefixes]
            effects += [ReleaseAddress(address) for address in binding.defended]

    def _tunnelled(
        self, home_address: bytes, care_of_address: bytes | None, now: float, effects: list[Effect]
    ) -> None:
        """A client's tunnel came, moved or went: it is bound as long as it has one."""
        known = self.mobile_nodes.get(home_address)
        if known is None or not known.client:
            return
        binding = self.cache.entry(home_address)
        before = Before(binding.state, binding.care_of_address, binding.prefixes)
        if care_of_address is None:
            self.withdraw(binding, before, effects)
            self.cache.end(binding)
            self._report("disconnected", binding, effects)
            return
        self.cache.bind(binding, care_of_address, now)
        if self.forward(binding, before, effects):
            if before.state is not State.BOUND:
                effects += self._claim(home_address)
            self._report("connected", binding, effects)

    # -- ICMPv6 ------------------------------------------------------------------------------------

    def _icmp(self, parsed: Packet, octets: bytes, now: float, effects: list[Effect]) -> None:
        icmp = icmpv6.parse(octets, parsed.logical_source, parsed.destination)
        if icmp.type in _ERROR_TYPES:
            self.forwarding.tunnel_error(icmp, now, effects)
            self.lending.heed(effects)
            return
        if icmp.type == icmpv6.MOBILE_PREFIX_SOLICITATION:
            home_address = parsed.home_address
            if home_address is None or self.associations.demands(home_address, ICMPV6, icmp.type):
                raise Refused("unprotected_prefix_solicitation")
            self._discovery.prefixes(home_address, parsed, icmp, effects)
            return
        self._refusals.check_home_address_option(parsed)
        if icmp.type == icmpv6.ECHO_REQUEST and ipv6.is_routable_unicast(parsed.source):
            self.counters["echo_requests"] += 1
            effects.append(SendPacket(icmpv6.echo_reply(icmp, self.address, parsed.source)))
        else:
            raise Refused("unexpected_message")

    # -- packets to mobile nodes, and from them ----------------------------------------------------

    def _intercept(self, packet: bytes, now: float, effects: list[Effect]) -> None:
        destination = packet[24:40]
        if destination in self._discovery.anycast:
            self._discovery.home_agents(packet, effects)
            return
        binding = self.cache.get(destination)
        if binding is None or not binding.is_bound:
            binding = self.cache.behind(destination)
            if binding is None or not binding.is_bound:
                raise Refused("no_binding")
        if self.lending.give_back(binding.home_address, packet, effects):
            return
        self.forwarding.encapsulate(binding, packet, now, effects)
        self.lending.lend(binding.home_address, now, effects)

    # -- mobile nodes ------------------------------------------------------------------------------

    def _dismiss(
        self, home_address: bytes, effects: list[Effect], *, stays: bool
    ) -> tuple[SecurityAssociation, ...]:
        """End the service of a mobile node; its SAs as they were. Its sequence number is forgotten with
        them, unless it stays under other parameters.
        """
        binding = self.cache.get(home_address)
        if binding is not None:
            before = Before(binding.state, binding.care_of_address, binding.prefixes)
            self.withdraw(binding, before, effects)
            if stays:
                self.cache.end(binding)
            else:
                self.cache.forget(binding)
        if self.negotiation is not None:
            self.negotiation.forget(home_address)
        return self.mobile_nodes.dismiss(home_address, stays=stays)

    def prefixes_of(self, home_address: bytes) -> tuple[MobileNetworkPrefix, ...]:
        """The mobile network prefixes that are forwarded for a home address."""
        binding = self.cache.get(home_address)
        return binding.prefixes if binding is not None and binding.is_bound else ()

    def name_of(self, home_address: bytes) -> str:
        """The configured name of a mobile node, empty where there is none."""
        known = self.mobile_nodes.get(home_address)
        return known.name if known is not None else ""

    def _report(self, name: str, binding: Binding, effects: list[Effect], **more: object) -> None:
        fields: dict[str, object] = {
            "home_address": text(binding.home_address),
            "care_of_address": text(binding.care_of_address),
            "sequence": binding.sequence,
        }
        effects.append(Event(name, fields | more))
