"""Home registrations: which Binding Updates are accepted, and what becomes of the cache (RFC 6275 10.3).

Covered: home registration, refresh, move and de-registration with every status they can get, duplicate
address detection as a state with a deadline, mobile network prefixes (RFC 3963 6.2), lifetimes.
Not covered: authentication (done before), correspondent registrations, forwarding and messages (done after).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from ..ipv6 import is_routable_unicast
from ..wire import Refused
from .cache import Binding, BindingCache, State
from .messages import (
    LIFETIME_UNIT,
    BindingUpdate,
    MobileNetworkPrefix,
    Status,
    UpdateFlag,
    alternate_care_of_address,
    mobile_network_prefixes,
)

__all__ = ["Action", "Before", "HomePrefix", "Outcome", "RegistrationPolicy", "Registrations"]

PROBE_TIME = 1.0
"""RetransTimer: how long a single probe waits for an answer (RFC 4862 5.1)."""
MAX_NEIGHBOR_ADVERTISEMENT = 3
"""How often a home address is claimed, a RetransTimer apart (RFC 4861 10, 7.2.6)."""

_MAX_NESTING = 8


@dataclass(frozen=True, slots=True)
class HomePrefix:
    """A prefix of the home link; lifetimes in seconds (RFC 4861 4.6.2)."""

    prefix: bytes
    length: int
    valid: int = 2_592_000
    preferred: int = 604_800

    def covers(self, address: bytes) -> bool:
        """Whether ``address`` lies in the prefix."""
        different = int.from_bytes(address, "big") ^ int.from_bytes(self.prefix, "big")
        return not different >> 128 - self.length


@dataclass(frozen=True, slots=True)
class RegistrationPolicy:
    """What bounds a registration; times in seconds, ``refresh_request`` before expiry (0: never)."""

    address: bytes
    home_prefixes: tuple[HomePrefix, ...]
    probes: bool
    announces: bool
    max_lifetime: int
    max_bindings: int
    refresh_request: int


class Action(Enum):
    """What follows from a Binding Update, or from a deadline."""

    REFUSE = auto()
    """Answer with the status; nothing changed."""
    PROBE = auto()
    """Start duplicate address detection; the answer waits for it."""
    WAIT = auto()
    """Duplicate address detection still runs; the answer will carry the newer sequence number."""
    BIND = auto()
    """Forward to the new care-of address, defend the home address, answer."""
    END = auto()
    """Stop forwarding and defending, answer."""
    EXPIRE = auto()
    """Stop forwarding and defending; nobody asked."""
    ANNOUNCE = auto()
    """Repeat the claim to the home address."""
    ASK_REFRESH = auto()
    """Send a Binding Refresh Request."""


class Before(NamedTuple):
    """What a registration was before an outcome: this much may have to be undone."""

    state: State = State.UNBOUND
    care_of_address: bytes | None = None
    prefixes: tuple[MobileNetworkPrefix, ...] = ()


class Outcome(NamedTuple):
    """An action, with the status, sequence number and lifetime (units of 4 s) of the answer."""

    action: Action
    status: int = Status.ACCEPTED
    sequence: int = 0
    lifetime: int = 0
    before: Before = Before()


class Registrations:
    """The rules of home registration over one binding cache."""

    def __init__(self, cache: BindingCache, policy: RegistrationPolicy) -> None:
        self.cache = cache
        self.policy = policy

    def update(
        self,
        home_address: bytes,
        source: bytes,
        message: BindingUpdate,
        authorized: tuple[MobileNetworkPrefix, ...],
        now: float,
        *,
        suspended: bool = False,
    ) -> Outcome:
        """Process an authenticated Binding Update (10.3.1, 10.3.2) in the order the RFC gives.

        ``source`` is the packet's source address, ``authorized`` the prefixes this mobile node may bring;
        ``suspended`` when the operator has it served no longer: it may only de-register.
        :class:`Refused` for what gets no answer. On a refusal nothing has changed.
        """
        sequence, flags, units, options = message
        policy = self.policy
        binding = self.cache.get(home_address)
        if not flags & UpdateFlag.HOME_REGISTRATION:
            if binding is None or not binding.is_bound:
                raise Refused("not_a_home_registration")
            return _refusal(Status.REGISTRATION_TYPE_CHANGE_DISALLOWED, sequence)
        prefix = self._prefix_of(home_address)
        if prefix is None:
            return _refusal(Status.NOT_HOME_SUBNET, sequence)
        # 9.5.1: greater than the last accepted one, modulo 2^16.
        if (
            binding is not None
            and binding.sequence >= 0
            and not 0 < (sequence - binding.last_sequence) & 0xFFFF < 0x8000
        ):
            return _refusal(Status.SEQUENCE_OUT_OF_WINDOW, binding.last_sequence)
        care_of_address = (alternate_care_of_address(options) if options else None) or source
        if not units or care_of_address == home_address:
            return self._deregister(binding, sequence)
        if suspended:
            return _refusal(Status.ADMINISTRATIVELY_PROHIBITED, sequence)
        if not is_routable_unicast(care_of_address) or care_of_address == policy.address:
            return _refusal(Status.INVALID_CARE_OF_ADDRESS, sequence)
        registered = self._registered(home_address)
        if registered is not None and (registered.flags ^ flags) & UpdateFlag.MOBILE_ROUTER:
            return _refusal(Status.REGISTRATION_TYPE_CHANGE_DISALLOWED, sequence)
        prefixes: tuple[MobileNetworkPrefix, ...] = ()
        if flags & UpdateFlag.MOBILE_ROUTER:
            status, prefixes = _mobile_networks(mobile_network_prefixes(options), authorized)
            if status:
                return _refusal(status, sequence)
            if any(self.cache.holder(each) not in (None, binding) for each in prefixes):
                # Another mobile router has it: the route cannot lead to both.
                return _refusal(Status.FORWARDING_SETUP_FAILED, sequence)
        if self._loops(home_address, care_of_address, prefixes):
            return _refusal(Status.INVALID_CARE_OF_ADDRESS, sequence)
        if registered is None and self.cache.registered >= policy.max_bindings:
            return _refusal(Status.INSUFFICIENT_RESOURCES, sequence)

        # Everything is checked: from here on nothing fails.
        if binding is None:
            binding = self.cache.entry(home_address)
        before = Before(binding.state, binding.care_of_address, binding.prefixes)
        granted = min(units, max(1, policy.max_lifetime // LIFETIME_UNIT))
        status = Status.ACCEPTED
        if granted * LIFETIME_UNIT > prefix.valid:
            granted = max(1, prefix.valid // LIFETIME_UNIT)
            status = Status.ACCEPTED_PREFIX_DISCOVERY_NECESSARY
        probes = registered is None and policy.probes
        if probes:
            binding.probe(now + PROBE_TIME)
        binding.sequence, binding.source, binding.care_of_address = sequence, source, care_of_address
        binding.fenced = False
        # An existing registration keeps its L: what is defended does not change under way.
        if registered is not None:
            flags = flags & ~UpdateFlag.LINK_LOCAL | binding.flags & UpdateFlag.LINK_LOCAL
        else:
            self.cache.registered += 1
        binding.flags, binding.lifetime, binding.status, binding.ended = flags, granted, status, False
        if prefixes != binding.prefixes:
            self.cache.set_prefixes(binding, prefixes)
        if binding.state is State.PROBING:
            if not probes:
                return Outcome(Action.WAIT)
            self.cache.schedule(binding)
            return Outcome(Action.PROBE)
        return self._bind(binding, before, now)

    def probing(self, address: bytes) -> tuple[Binding, ...]:
        """Registrations that wait for their home address, or its link-local twin, to prove free."""
        return tuple(
            binding
            for binding in self.cache
            if binding.state is State.PROBING and address in binding.defended
        )

    def conflict(self, binding: Binding) -> Outcome:
        """Somebody else owns the probed address: the registration fails (10.3.1)."""
        self.cache.end(binding)
        return _refusal(Status.DUPLICATE_ADDRESS_DETECTION_FAILED, binding.sequence)

    def due(self, now: float) -> Iterator[tuple[Binding, Outcome]]:
        """What the clock brings: finished probes, expiries, repeated claims, requests to refresh."""
        for binding in self.cache.due(now):
            if binding.state is State.PROBING:
                yield binding, self._bind(binding, Before(State.PROBING), now)
            elif binding.expires <= now:
                before = Before(binding.state, binding.care_of_address, binding.prefixes)
                self.cache.end(binding)
                yield binding, Outcome(Action.EXPIRE, before=before)
            else:
                if binding.announce_at <= now:
                    binding.announcements -= 1
                    binding.announce_at = now + PROBE_TIME if binding.announcements else float("inf")
                    yield binding, Outcome(Action.ANNOUNCE)
                if binding.refresh_at <= now:
                    binding.refresh_at = float("inf")
                    yield binding, Outcome(Action.ASK_REFRESH)

    def _bind(self, binding: Binding, before: Before, now: float) -> Outcome:
        policy = self.policy
        if binding.state is not State.BOUND:
            binding.state, binding.unprobed = State.BOUND, None
            binding.probe_ends = float("inf")
            if policy.announces:
                binding.announcements = MAX_NEIGHBOR_ADVERTISEMENT - 1
                binding.announce_at = now + PROBE_TIME
        binding.expires = now + binding.lifetime * LIFETIME_UNIT
        if policy.refresh_request:
            binding.refresh_at = binding.expires - min(policy.refresh_request, binding.lifetime * 2)
        self.cache.schedule(binding)
        return Outcome(Action.BIND, binding.status, binding.sequence, binding.lifetime, before)

    def _deregister(self, binding: Binding | None, sequence: int) -> Outcome:
        # 10.3.2. A mobile node whose answer got lost repeats its de-registration: it is told again
        # that it succeeded, where the RFC's 133 would make it believe that something is wrong.
        if binding is None or (binding.state is State.UNBOUND and not binding.ended):
            return _refusal(Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE, sequence)
        before = Before(binding.state, binding.care_of_address, binding.prefixes)
        binding.sequence = sequence
        binding.ended, binding.fenced = True, False
        self.cache.end(binding)
        return Outcome(Action.END, Status.ACCEPTED, sequence, 0, before)

    def _loops(
        self, home_address: bytes, care_of_address: bytes, prefixes: tuple[MobileNetworkPrefix, ...]
    ) -> bool:
        """Whether tunnels to ``care_of_address`` lead back: another mobile node's home address, or, behind
        nested mobile routers, the own one or one of the ``prefixes`` behind it. Such a loop would feed
        itself, each round one header longer. Only an update can close one, so that each asks this.
        """
        for _ in range(_MAX_NESTING):
            if self._registered(care_of_address) is not None or care_of_address == home_address:
                return True
            if any(_covers(prefix, care_of_address) for prefix in prefixes):
                return True
            router = self.cache.behind(care_of_address)
            if router is None:
                return False
            if router.home_address == home_address:
                return True
            care_of_address = router.care_of_address
        return True

    def _registered(self, home_address: bytes) -> Binding | None:
        binding = self.cache.get(home_address)
        return binding if binding is not None and binding.state is not State.UNBOUND else None

    def _prefix_of(self, home_address: bytes) -> HomePrefix | None:
        for prefix in self.policy.home_prefixes:
            if prefix.covers(home_address):
                return prefix
        return None


def _refusal(status: Status, sequence: int) -> Outcome:
    return Outcome(Action.REFUSE, status, sequence)


def _mobile_networks(
    asked: tuple[MobileNetworkPrefix, ...], authorized: tuple[MobileNetworkPrefix, ...]
) -> tuple[Status, tuple[MobileNetworkPrefix, ...]]:
    """RFC 3963 6.2: explicit prefixes must be authorized ones, without any the configured ones count."""
    if not authorized:
        return Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED, ()
    for prefix in asked:
        host = int.from_bytes(prefix.prefix, "big") & (1 << 128 - min(prefix.length, 128)) - 1
        if not 0 < prefix.length <= 128 or host:
            return Status.INVALID_PREFIX, ()
        if prefix not in authorized:
            return Status.NOT_AUTHORIZED_FOR_PREFIX, ()
    return Status.ACCEPTED, tuple(dict.fromkeys(asked)) or authorized


def _covers(prefix: MobileNetworkPrefix, address: bytes) -> bool:
    different = int.from_bytes(prefix.prefix, "big") ^ int.from_bytes(address, "big")
    return not different >> 128 - prefix.length
