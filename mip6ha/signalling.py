"""What a home agent says to mobile nodes, under the protection that policy demands.

Covered: Binding Acknowledgement, Binding Refresh Request, Mobile Prefix Advertisement, their SA, the type 2
routing header. Not covered: when they are due (``node``), errors to anybody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from . import ipv6
from .associations import Associations
from .binding import messages
from .binding.authentication import MessageAuthentication
from .binding.cache import Binding
from .binding.messages import BindingAcknowledgement, BindingRefreshRequest, OptionType, UpdateFlag
from .binding.registration import Outcome
from .effects import Effect, SendPacket
from .ipsec.policy import Direction, Mode
from .ipv6 import ESP, MOBILITY
from .mobility import Option
from .wire import Refused

__all__ = ["Signalling"]


class Signalling:
    """Messages from the home agent ``address``. ``refresh_advice`` is in seconds, 0 for none.

    ``authentications`` holds the mobile nodes that signal without IPsec (RFC 4285). ``changed``, where
    somebody wants to know, collects the home addresses that were sent something: all that changes a
    context is answered.
    """

    def __init__(
        self, address: bytes, associations: Associations, counters: Counter[str], refresh_advice: int
    ) -> None:
        self._address = address
        self._associations = associations
        self._counters = counters
        self._advice = refresh_advice // messages.LIFETIME_UNIT
        self.authentications: dict[bytes, MessageAuthentication] = {}
        self.changed: list[bytes] | None = None
        self.follows: Callable[[bytes], bool] = lambda home_address: False
        """Whether IKE follows a home address to its care-of address: what K says."""

    def answer(
        self,
        home_address: bytes,
        via: bytes | None,
        outcome: Outcome,
        binding: Binding | None,
        effects: list[Effect],
    ) -> None:
        """The Binding Acknowledgement, to the update's source ``via`` (9.5.4), not to the care-of address:
        with a type 2 routing header, unless that is the home address or ``None``.
        """
        _, status, sequence, lifetime, _ = outcome
        options: tuple[Option, ...] = ()
        if self._advice and lifetime > self._advice:
            options = (Option(OptionType.BINDING_REFRESH_ADVICE, self._advice.to_bytes(2, "big")),)
        flags = 0
        if binding is not None and status < messages.ACCEPTED:
            asked = binding.flags
            flags = messages.acknowledgement_flags(
                key_management=bool(asked & UpdateFlag.KEY_MANAGEMENT) and self.follows(home_address),
                mobile_router=bool(asked & UpdateFlag.MOBILE_ROUTER),
            )
        message = BindingAcknowledgement(status, flags, sequence, lifetime, options)
        peer = self.authentications.get(home_address)
        if peer is None:
            octets = messages.build(message, self._address, home_address)
        else:
            octets = peer.build(message, self._address, home_address, via or home_address)
        self.send(home_address, via, MOBILITY, octets, effects)

    def ask_refresh(self, binding: Binding, effects: list[Effect]) -> None:
        """A Binding Refresh Request (6.1.2)."""
        octets = messages.build(BindingRefreshRequest(), self._address, binding.home_address)
        self.send(binding.home_address, binding.care_of_address, MOBILITY, octets, effects)

    def note(self, home_address: bytes) -> None:
        """The context of a home address changed."""
        if self.changed is not None:
            self.changed.append(home_address)

    def send(
        self, home_address: bytes, via: bytes | None, protocol: int, octets: bytes, effects: list[Effect]
    ) -> None:
        """Send a message, a Mobility Header or ICMPv6, under the SA that policy demands (RFC 4877 4).

        Where the SA is used up nothing is sent, and what was decided stands.
        """
        self.note(home_address)
        kind = octets[2] if protocol == MOBILITY else octets[0]
        association = self._associations.database.select(
            home_address, Direction.OUT, Mode.TRANSPORT, protocol, kind
        )
        if association is not None:
            try:
                octets = self._associations.protect(association, protocol, octets, effects)
            except Refused as refused:
                self._counters[refused.reason] += 1
                return
            protocol = ESP
        destination, routing = (via, home_address) if via and via != home_address else (home_address, None)
        effects.append(SendPacket(ipv6.build(self._address, destination, protocol, octets, routing=routing)))
