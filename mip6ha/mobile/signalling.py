"""The mobile node's decisions: where it is, what it says to its home agent and what it hears from there.

Mobility Headers and ICMPv6 messages come in and go out as messages between home address and home agent.
Covered: RFC 6275 11 as far as a home agent needs it, explicit prefixes of RFC 3963. Not covered: what carries
and protects the messages, applications' packets (``mobile_node``, or a kernel); route optimisation, home
agent discovery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from .. import icmpv6, mobility
from ..binding import messages
from ..binding.messages import ACCEPTED, BindingAcknowledgement, BindingError, BindingRefreshRequest
from ..ipsec.policy import Direction, Use
from ..ipv6 import ICMPV6, MOBILITY
from ..wire import Malformed, Refused, text
from .effects import (
    AcknowledgedAt,
    AnnounceAddress,
    AtHome,
    DropCareOfAddress,
    EndProbe,
    Event,
    LeaveHome,
    ProbeAddress,
    RemoveTunnel,
    SendMessage,
    SetTunnel,
    SignallingEffect,
    SolicitRouter,
    UseCareOfAddress,
)
from .movement import Movement
from .parameters import EmulatorParameters
from .prefix_discovery import PrefixDiscovery
from .registration import Registration, SendUpdate, State, Step

__all__ = ["Signalling"]

_KEY_MANAGEMENT = messages.acknowledgement_flags(key_management=True)
_DAD_TIME = 1.0
"""RetransTimer x DupAddrDetectTransmits in seconds (RFC 4862 5.1)."""


class Signalling:
    """One mobile node with one interface. ``counters`` counts drops by reason.

    ``care_of_address`` is the one in use, ``at_home`` tells that none is needed.
    """

    def __init__(
        self, parameters: EmulatorParameters, random: Callable[[int], bytes], counters: Counter[str]
    ) -> None:
        self.counters = counters
        self.care_of_address: bytes | None = None
        self.at_home = False
        self._parameters = parameters
        self._home_address = home_address = parameters.home_address
        self._home_agent = parameters.home_agent
        self._movement = Movement(home_address, parameters.interface_identifier)
        self.registration = Registration(
            home_address,
            lifetime=parameters.lifetime,
            sequence=int.from_bytes(random(2), "big"),
            link_local=parameters.link_local,
            prefixes=parameters.prefixes,
            refused_delay=parameters.refused_delay,
            key_management=bool(parameters.negotiated),
        )
        self._discovery = PrefixDiscovery(random)
        # RFC 6275 11.4.2: never unprotected, so only where there is an SA for it.
        self._discovered = Use.PREFIX not in parameters.negotiated and not any(
            each.use is Use.PREFIX and each.direction is Direction.OUT for each in parameters.associations
        )
        self._probing: tuple[bytes, float] | None = None
        self._tunnel: bytes | None = None

    # Messages.

    def receive(
        self, protocol: int, octets: bytes, source: bytes, destination: bytes, now: float
    ) -> list[SignallingEffect]:
        """A message that policy lets through; ``destination`` is the routing header's where there was one."""
        try:
            if protocol == MOBILITY:
                message = mobility.parse(octets, source, destination)
                return self._mobility(message, source, destination, now)
            return self._prefixes_advertised(icmpv6.parse(octets, source, destination), source, destination)
        except Refused as refused:
            self.counters[refused.reason] += 1
            return []

    def _mobility(
        self, message: mobility.Message, source: bytes, destination: bytes, now: float
    ) -> list[SignallingEffect]:
        if source != self._home_agent:
            raise Refused("mobility_source")
        body = messages.parse_body(message)
        if isinstance(body, BindingError):
            return self._settled(self._carry_out(self.registration.error(body, now)))
        if destination != self._home_address:
            # RFC 6275 9.5.4, 11.7.4: these carry a routing header, or are sent to the home address.
            raise Refused("missing_routing_header")
        if isinstance(body, BindingAcknowledgement):
            return self._acknowledged(body, now)
        if isinstance(body, BindingRefreshRequest):
            return self._carry_out(self.registration.refresh_requested(now))
        raise Refused("unexpected_mobility_message")

    def _acknowledged(self, body: BindingAcknowledgement, now: float) -> list[SignallingEffect]:
        ending = self.registration.state is State.DEREGISTERING
        effects = self._carry_out(self.registration.acknowledged(body, now))
        # First of all: who reads of the acknowledgement may send.
        effects = self._settled([]) + effects
        state = self.registration.state
        if self._parameters.negotiated and body.status < ACCEPTED and state is not State.REFUSED:
            address = self.care_of_address or self._home_address
            effects.append(AcknowledgedAt(address, bool(body.flags & _KEY_MANAGEMENT)))
        if ending and state is State.IDLE and self.at_home:
            # RFC 6275 11.5.5: neighbours still have the home agent's link-layer address.
            effects.append(AnnounceAddress(self._home_address))
        if state is State.REGISTERED and not self._discovered:
            self._discovered = True
            effects.append(self._solicit_prefixes(self._discovery.begin(now)))
        return effects

    def _prefixes_advertised(
        self, icmp: icmpv6.Icmp, source: bytes, destination: bytes
    ) -> list[SignallingEffect]:
        if icmp.type != icmpv6.MOBILE_PREFIX_ADVERTISEMENT:
            raise Refused("unexpected_icmpv6")
        if source != self._home_agent or destination != self._home_address:
            raise Refused("mobile_prefix_advertisement_address")
        prefixes = self._discovery.advertised(icmp.body)
        described = [
            {
                "prefix": f"{text(prefix.prefix)}/{prefix.length}",
                "flags": prefix.flags,
                "valid": prefix.valid,
                "preferred": prefix.preferred,
            }
            for prefix in prefixes
        ]
        return [Event("mobile_prefix_advertisement", {"prefixes": described})]

    # Where the mobile node is.

    def carrier(self, up: bool, now: float) -> list[SignallingEffect]:
        """The link came or went."""
        effects: list[SignallingEffect] = [Event("carrier", {"up": up})]
        if self._movement.carrier(up, now):
            effects += self._moved(now)
        return effects + self._solicit(now)

    def advertisement(
        self, source: bytes, hop_limit: int, message: bytes, now: float
    ) -> list[SignallingEffect]:
        """An ICMPv6 message of type Router Advertisement (RFC 4861 6.1.2), its checksum verified."""
        try:
            if hop_limit != 255:
                raise Refused("advertisement_hop_limit")
            if source[0] != 0xFE or source[1] & 0xC0 != 0x80:
                raise Refused("advertisement_source")
            if len(message) < 16 or message[:2] != bytes((icmpv6.ROUTER_ADVERTISEMENT, 0)):
                raise Malformed("truncated_router_advertisement", len(message))
            icmp = icmpv6.Icmp(message[0], message[1], message[4:])
            content = icmpv6.parse_router_advertisement(icmp)
            if not self._movement.advertised(source, content, now):
                return []
        except Refused as refused:
            self.counters[refused.reason] += 1
            return []
        attachment = self._movement.attachment
        fields: dict[str, object] = {
            "router": text(source),
            "prefixes": [f"{text(prefix.prefix)}/{prefix.length}" for prefix in content.prefixes],
            "home": attachment is not None and attachment.at_home,
        }
        return [Event("router_advertisement", fields), *self._moved(now), *self._solicit(now)]

    def address_conflict(self, address: bytes, now: float) -> list[SignallingEffect]:
        """Somebody else uses the address that was probed (RFC 4862 5.4.5)."""
        if self._probing is None or self._probing[0] != address:
            return []
        self._probing = None
        return [EndProbe(address), Event("care_of_address_conflict", {"address": text(address)})]

    def _moved(self, now: float) -> list[SignallingEffect]:
        effects = self._forget_attachment()
        attachment = self._movement.attachment
        if attachment is None:
            return effects
        if attachment.at_home:
            self.at_home = True
            effects.append(AtHome(attachment.router))
            effects.append(Event("at_home", {"router": text(attachment.router)}))
            if self.registration.may_be_bound:
                return effects + self._carry_out(self.registration.deregister(now))
            return [*effects, AnnounceAddress(self._home_address)]
        if self._parameters.care_of_dad:
            self._probing = attachment.address, now + _DAD_TIME
            return [*effects, ProbeAddress(attachment.address)]
        return effects + self._use_care_of_address(now)

    def _use_care_of_address(self, now: float) -> list[SignallingEffect]:
        attachment = self._movement.attachment
        if attachment is None:
            return []
        self.care_of_address = address = attachment.address
        fields: dict[str, object] = {"address": text(address), "router": text(attachment.router)}
        return self._settled(
            [
                UseCareOfAddress(address, attachment.router),
                Event("care_of_address", fields),
                *self._carry_out(self.registration.register(address, now)),
            ]
        )

    def _forget_attachment(self) -> list[SignallingEffect]:
        effects: list[SignallingEffect] = []
        self.registration.suspend()
        self._discovery.stop()
        if self._probing is not None:
            effects.append(EndProbe(self._probing[0]))
            self._probing = None
        if self.care_of_address is not None:
            effects.append(DropCareOfAddress(self.care_of_address))
            self.care_of_address = None
        if self.at_home:
            self.at_home = False
            effects.append(LeaveHome())
        return self._settled([]) + effects

    def _solicit(self, now: float) -> list[SignallingEffect]:
        return [SolicitRouter()] if self._movement.solicits(now) else []

    # What is sent to the home agent.

    def _carry_out(self, steps: Sequence[Step]) -> list[SignallingEffect]:
        effects: list[SignallingEffect] = []
        for step in steps:
            if isinstance(step, SendUpdate):
                octets = messages.build(step.update, self._home_address, self._home_agent)
                effects.append(SendMessage(MOBILITY, octets, step.care_of_address))
            else:
                effects.append(step)
        return effects

    def _solicit_prefixes(self, body: bytes) -> SendMessage:
        kind = icmpv6.MOBILE_PREFIX_SOLICITATION
        octets = icmpv6.message(kind, 0, body, self._home_address, self._home_agent)
        return SendMessage(ICMPV6, octets, self.care_of_address)

    def _settled(self, effects: list[SignallingEffect]) -> list[SignallingEffect]:
        """With what becomes of the tunnel."""
        # RFC 6275 11.3.1: without a binding the home agent would drop what comes by it.
        binding, address = self.registration.binding, self.care_of_address
        tunnel = address if binding is not None and binding.care_of_address == address else None
        if tunnel == self._tunnel:
            return effects
        self._tunnel = tunnel
        if tunnel is None:
            return [*effects, RemoveTunnel(self._home_address)]
        return [*effects, SetTunnel(self._home_address, tunnel)]

    def deregister(self, now: float) -> list[SignallingEffect]:
        """End the binding while away from home (RFC 6275 11.7.1), before a stop."""
        if self.care_of_address is None or not self.registration.may_be_bound:
            return []
        return self._carry_out(self.registration.deregister(now, self.care_of_address))

    # Time.

    def start(self) -> list[SignallingEffect]:
        """Before the first carrier event."""
        return [Event("started", {"home_address": text(self._home_address)})]

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` has something to do."""
        deadlines = (
            self._movement.next_deadline(),
            self.registration.next_deadline(),
            self._discovery.next_deadline(),
            self._probing and self._probing[1],
        )
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def on_timer(self, now: float) -> list[SignallingEffect]:
        """Whatever is due: solicitations, retransmissions, refreshes, the end of DAD."""
        effects: list[SignallingEffect] = []
        if self._movement.expired(now):
            effects.append(Event("router_lost", {}))
            effects += self._moved(now)
        effects += self._solicit(now)
        if self._probing is not None and now >= self._probing[1]:
            effects.append(EndProbe(self._probing[0]))
            self._probing = None
            effects += self._use_care_of_address(now)
        effects += self._carry_out(self.registration.on_timer(now))
        body = self._discovery.on_timer(now)
        if body is not None and self.care_of_address is not None:
            effects.append(self._solicit_prefixes(body))
        return self._settled(effects)

    def stop(self) -> list[SignallingEffect]:
        """Release everything; the counters are in the last event."""
        counters = dict(sorted(self.counters.items()))
        return [*self._forget_attachment(), Event("stopped", {"counters": counters})]
