"""The home registration of one mobile node (RFC 6275 11.7.1, 11.7.3, 11.8): what to send, and when.

Covered: first registration, refresh, move, de-registration at home and away, retransmission, refusals,
Binding Refresh Request and Advice, Binding Error. Not covered: packets and protection (``mobile_node``),
registrations with correspondents.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from ..binding.messages import (
    ACCEPTED,
    LIFETIME_UNIT,
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    ErrorStatus,
    MobileNetworkPrefix,
    OptionType,
    Status,
    UpdateFlag,
    mobile_network_prefix_option,
    refresh_advice,
)
from ..effects import Event
from ..mobility import Option
from ..wire import Refused, text

__all__ = ["Binding", "Registration", "SendUpdate", "State"]

FIRST_TIMEOUT = 1.5
"""InitialBindackTimeoutFirstReg in seconds (RFC 6275 13)."""
INITIAL_TIMEOUT = 1.0
"""INITIAL_BINDACK_TIMEOUT in seconds (RFC 6275 12)."""
LONGEST_TIMEOUT = 32.0
"""MAX_BINDACK_TIMEOUT in seconds (RFC 6275 12)."""
REFRESH_SHARE = 0.95
"""Part of the granted lifetime after which the binding is refreshed; what the reference mobile node does."""


class State(Enum):
    """What the registration waits for."""

    IDLE = "idle"
    REGISTERING = "registering"
    REGISTERED = "registered"
    DEREGISTERING = "deregistering"
    REFUSED = "refused"


class SendUpdate(NamedTuple):
    """Send ``update`` from ``care_of_address`` with a home address option, or from home (``None``)."""

    care_of_address: bytes | None
    update: BindingUpdate


class Binding(NamedTuple):
    """What the home agent last acknowledged; times are seconds on the injected clock."""

    care_of_address: bytes
    expires: float


Step = SendUpdate | Event


class Registration:
    """The state machine: every input returns what follows from it, in order.

    ``sequence`` is the number of the last Binding Update (16 bits). ``may_be_bound`` tells that the home
    agent may hold a binding, acknowledged or not. ``key_management`` sets K (RFC 6275 6.1.7).
    """

    def __init__(
        self,
        home_address: bytes,
        *,
        lifetime: int,
        sequence: int,
        link_local: bool = False,
        prefixes: tuple[MobileNetworkPrefix, ...] = (),
        refused_delay: float = 420.0,
        key_management: bool = False,
    ) -> None:
        self.state = State.IDLE
        self.binding: Binding | None = None
        self.sequence = sequence & 0xFFFF
        self.may_be_bound = False
        self._home_address = home_address
        self._lifetime = max(1, lifetime // LIFETIME_UNIT)
        self._flags = int(UpdateFlag.ACKNOWLEDGE | UpdateFlag.HOME_REGISTRATION)
        if link_local:
            self._flags |= UpdateFlag.LINK_LOCAL
        if key_management:
            self._flags |= UpdateFlag.KEY_MANAGEMENT
        if prefixes:
            self._flags |= UpdateFlag.MOBILE_ROUTER
        self._prefix_options = tuple(map(mobile_network_prefix_option, prefixes))
        self._refused_delay = refused_delay
        self._care_of_address: bytes | None = None
        self._deadline: float | None = None
        self._timeout = 0.0
        self._attempt = 0
        self._sent_at = 0.0

    def register(self, care_of_address: bytes, now: float) -> list[Step]:
        """Bind the home address to ``care_of_address``: first registration, refresh or move."""
        self._care_of_address = care_of_address
        return self._begin(State.REGISTERING, INITIAL_TIMEOUT if self.binding else FIRST_TIMEOUT, now)

    def deregister(self, now: float, care_of_address: bytes | None = None) -> list[Step]:
        """End the binding: from the home link, or while still at ``care_of_address``."""
        self._care_of_address = care_of_address
        return self._begin(State.DEREGISTERING, INITIAL_TIMEOUT, now)

    def suspend(self) -> None:
        """There is no link: nothing can be sent, but the home agent still has its binding."""
        self.state = State.IDLE
        self._deadline = None

    def acknowledged(self, answer: BindingAcknowledgement, now: float) -> list[Step]:
        """A Binding Acknowledgement for the home address; :class:`Refused` if it answers nothing of ours."""
        if self.state not in (State.REGISTERING, State.DEREGISTERING):
            raise Refused("unexpected_acknowledgement")
        if answer.status == Status.SEQUENCE_OUT_OF_WINDOW:
            return self._out_of_window(answer, now)
        if answer.sequence != self.sequence:
            raise Refused("stale_acknowledgement")
        fields: dict[str, object] = {
            "status": answer.status,
            "sequence": answer.sequence,
            "rtt_ms": round((now - self._sent_at) * 1000, 3),
            "attempt": self._attempt,
            "lifetime": answer.lifetime * LIFETIME_UNIT,
        }
        steps: list[Step] = [Event("binding_acknowledged", fields)]
        if self.state is State.DEREGISTERING:
            return steps + self._deregistered(answer)
        if answer.status >= ACCEPTED:
            return steps + self._refused(answer, now)
        if not answer.lifetime:
            # RFC 6275 6.1.8: zero lifetime means that the binding is gone.
            steps += self._deregistered(answer)
            self.state, self._deadline = State.REFUSED, now + self._refused_delay
            return steps
        self._accepted(answer, now)
        return steps

    def refresh_requested(self, now: float) -> list[Step]:
        """A Binding Refresh Request (RFC 6275 11.7.4); :class:`Refused` without a binding to refresh."""
        if self.state is not State.REGISTERED or self._care_of_address is None:
            raise Refused("unexpected_refresh_request")
        return self.register(self._care_of_address, now)

    def error(self, report: BindingError, now: float) -> list[Step]:
        """A Binding Error from the home agent (RFC 6275 11.3.6)."""
        steps: list[Step] = [Event("binding_error", {"status": report.status})]
        if report.home_address != self._home_address:
            raise Refused("binding_error_home_address")
        if (
            report.status == ErrorStatus.UNKNOWN_BINDING
            and self.state is State.REGISTERED
            and self._care_of_address is not None
        ):
            self.binding = None
            steps += self.register(self._care_of_address, now)
        return steps

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` has something to do."""
        if self.binding is None:
            return self._deadline
        if self._deadline is None:
            return self.binding.expires
        return min(self._deadline, self.binding.expires)

    def on_timer(self, now: float) -> list[Step]:
        """Retransmit, refresh or expire, whatever is due."""
        steps: list[Step] = []
        if self.binding is not None and now >= self.binding.expires:
            self.binding = None
            steps.append(Event("binding_expired", {}))
            if self.state is State.DEREGISTERING:
                # The home agent let go by itself: nothing is left to take back.
                self.state, self._deadline, self.may_be_bound = State.IDLE, None, False
                steps.append(Event("deregistration_unanswered", {}))
        if self._deadline is None or now < self._deadline:
            return steps
        if self.state in (State.REGISTERING, State.DEREGISTERING):
            self._timeout = min(self._timeout * 2, LONGEST_TIMEOUT)
            return steps + self._send(now)
        if self._care_of_address is not None:
            steps += self.register(self._care_of_address, now)
        return steps

    def _begin(self, state: State, timeout: float, now: float) -> list[Step]:
        self.state = state
        self._timeout = timeout
        self._attempt = 0
        return self._send(now)

    def _send(self, now: float) -> list[Step]:
        # RFC 6275 11.8: a retransmission carries a new sequence number.
        self.sequence = self.sequence + 1 & 0xFFFF
        self._attempt += 1
        self._sent_at = now
        self._deadline = now + self._timeout
        ending = self.state is State.DEREGISTERING
        self.may_be_bound = True
        address = self._care_of_address
        stated = address or self._home_address
        options = (Option(OptionType.ALTERNATE_CARE_OF_ADDRESS, stated), *self._prefix_options)
        lifetime = 0 if ending else self._lifetime
        update = BindingUpdate(self.sequence, self._flags, lifetime, options)
        fields: dict[str, object] = {
            "sequence": self.sequence,
            "attempt": self._attempt,
            "lifetime": lifetime * LIFETIME_UNIT,
            "care_of_address": text(stated),
        }
        return [SendUpdate(address, update), Event("binding_update_sent", fields)]

    def _out_of_window(self, answer: BindingAcknowledgement, now: float) -> list[Step]:
        # RFC 6275 11.7.3: here the sequence number is the last one that the home agent accepted.
        if 0 < (self.sequence - answer.sequence & 0xFFFF) < 0x8000:
            raise Refused("stale_acknowledgement")
        self.sequence = answer.sequence
        fields: dict[str, object] = {"status": answer.status, "sequence": answer.sequence}
        return [Event("sequence_out_of_window", fields), *self._send(now)]

    def _accepted(self, answer: BindingAcknowledgement, now: float) -> None:
        granted = answer.lifetime * LIFETIME_UNIT
        refresh = granted * REFRESH_SHARE
        advice = refresh_advice(answer.options)
        if advice and advice < granted:
            # RFC 6275 6.2.4: only an interval shorter than the lifetime counts.
            refresh = min(refresh, float(advice))
        self.state = State.REGISTERED
        # RFC 6275 11.7.3: counted from when the Binding Update left, not from the answer.
        self.binding = Binding(self._care_of_address or self._home_address, self._sent_at + granted)
        self._deadline = max(self._sent_at + refresh, now)

    def _deregistered(self, answer: BindingAcknowledgement) -> list[Step]:
        self.state = State.IDLE
        self.binding = None
        self.may_be_bound = False
        self._deadline = None
        if answer.status >= ACCEPTED:
            return [Event("refused", {"status": answer.status, "deregistration": True})]
        return [Event("deregistered", {"status": answer.status})]

    def _refused(self, answer: BindingAcknowledgement, now: float) -> list[Step]:
        self.state = State.REFUSED
        self.binding = None
        self.may_be_bound = False
        self._deadline = now + self._refused_delay
        return [Event("refused", {"status": answer.status, "retry_after": self._refused_delay})]
