"""A mobile node's context, out of a home agent and into another one.

Covered: export, installation of a whole context, merging what a member that was cut off had accepted.
Not covered: who has the newer one (``member``), octets (``failover.context``).

Taking over uses what stands here and nothing else: there is no second way to install state.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from .binding.cache import Binding, State
from .binding.messages import LIFETIME_UNIT, MobileNetworkPrefix
from .binding.registration import Before
from .effects import DefendAddress, Effect, ReleaseAddress, SetTunnel
from .failover.context import FORMAT, AssociationState, BindingState, Context, Version, encode
from .harp.messages import StateEntry, entry_size
from .ipsec.algorithms import Keys, by_name
from .ipsec.policy import Direction, Mode, Use
from .ipsec.replay import DEFAULT_WINDOW, ReplayWindow
from .ipsec.sad import SecurityAssociation
from .node import HomeAgent
from .numbering import SharedAssociations
from .parameters import AssociationParameters, MobileNodeParameters
from .wire import Malformed

__all__ = ["export", "install", "largest_entry", "merge_counters", "newer_binding", "usable"]


def export(home_agent: HomeAgent, home_address: bytes, version: Version, now: float) -> Context:
    """The context of a mobile node as it is now."""
    binding = home_agent.cache.get(home_address)
    peer = home_agent.signalling.authentications.get(home_address)
    return Context(
        FORMAT,
        home_address,
        version.term,
        version.generation,
        home_agent.name_of(home_address),
        None if binding is None else _binding_state(binding, now),
        tuple([_association_state(each) for each in home_agent.associations.database.of(home_address)]),
        0 if peer is None else peer.timestamp,
        home_address not in home_agent.mobile_nodes,
        () if home_agent.negotiation is None else home_agent.negotiation.export(home_address, now),
    )


def _binding_state(binding: Binding, now: float) -> BindingState | None:
    # What waits for duplicate address detection was not acknowledged: it is nobody's state yet.
    last = binding.unprobed or binding
    if last.sequence < 0:
        return None
    bound = binding.state is State.BOUND
    return BindingState(
        bound,
        last.ended,
        last.sequence,
        last.care_of_address,
        last.source,
        last.flags,
        last.status,
        binding.lifetime if bound else 0,
        max(0, int((binding.expires - now) * 1000)) if bound else 0,
        binding.prefixes if bound else (),
        last.fenced,
    )


def _association_state(association: SecurityAssociation) -> AssociationState:
    window = association.window
    keys = association.keys
    if window is None:
        size, counter, limit, bitmap = 64, association.reserved, 0, b""
    elif association.mode is Mode.TUNNEL:
        # What was accepted lies below the limit, and all of that counts as seen elsewhere.
        size, counter, limit, bitmap = window.size, window.top, association.reserved, b""
    else:
        # A record has to fit a message. Who takes over has the narrower window: what is older counts as seen.
        size, counter, limit = min(window.size, DEFAULT_WINDOW), window.top, 0
        bits = window.bitmap & (1 << size) - 1
        bitmap = bits.to_bytes(bits.bit_length() + 7 >> 3, "big")
    return AssociationState(
        association.spi,
        window is None,
        association.use.value,
        association.transform.name,
        keys.encryption,
        keys.integrity,
        association.esn,
        size,
        counter,
        limit,
        bitmap,
    )


def _has_window(parameters: AssociationParameters) -> bool:
    return parameters.direction is Direction.IN and parameters.use.mode is Mode.TRANSPORT


def largest_entry(mobile_node: MobileNodeParameters) -> int:
    """Octets that a mobile node's state takes in a message when everything in it is as long as it can be."""
    home_address, prefixes = mobile_node.home_address, mobile_node.prefixes
    most = (1 << 64) - 1
    associations = tuple(
        AssociationState(
            each.spi,
            each.direction is Direction.OUT,
            each.use.value,
            each.transform.name,
            each.keys.encryption,
            each.keys.integrity,
            each.esn,
            65536,
            most,
            most,
            bytes(min(each.window, DEFAULT_WINDOW) + 7 >> 3) if _has_window(each) else b"",
        )
        for each in mobile_node.associations
    )
    binding = BindingState(
        True, True, 0xFFFF, home_address, home_address, 0xFFFF, 255, 0xFFFF, most, prefixes, True
    )
    name = mobile_node.name
    context = Context(FORMAT, home_address, most, most, name, binding, associations, most, False, ())
    entry = StateEntry(
        home_address, home_address, 0, 0, 0, prefixes, generation=most, context=encode(context)
    )
    return entry_size(entry)


def install(home_agent: HomeAgent, context: Context, now: float) -> list[Effect]:
    """Replace all that a home agent knows of a mobile node by ``context``, whole.

    The effects prepare forwarding. :class:`Malformed`, and then nothing has changed, if one of its SPIs
    belongs to another mobile node.
    """
    home_address = context.home_address
    owner = home_agent.associations.database
    negotiation = home_agent.negotiation
    ike = () if negotiation is None else negotiation.read(context.ike, now)
    for state in context.associations:
        taken = None if state.outbound else owner.inbound(home_agent.address, state.spi)
        if taken is not None and taken.home_address != home_address:
            raise Malformed("context_spi")
    if context.gone:
        return home_agent.replace({home_address: None})
    before = home_agent.forwarding.is_protected(home_address)
    effects: list[Effect] = []
    known = owner.of(home_address)
    if known and len(known) == len(context.associations) and all(map(_is_of, known, context.associations)):
        # The usual case by far: a mobile node's SAs stay, their counters move.
        for association, state in zip(known, context.associations, strict=True):
            _place(home_agent, association, state)
    else:
        owner.remove(home_agent.address, home_address)
        for state in context.associations:
            owner.add(home_agent.address, _association(home_agent, home_address, state))
        home_agent.mobile_nodes.know(
            home_address, context.name, {Use(state.use).mode for state in context.associations}
        )
    if isinstance(home_agent.associations, SharedAssociations):
        for state in context.associations:
            if state.outbound:
                home_agent.associations.note(state.counter, effects)
    if negotiation is not None:
        negotiation.install(home_address, ike, now)
    _not_before(home_agent, home_address, context.timestamp)
    effects += install_binding(home_agent, home_address, context.binding, now)
    binding, protected = home_agent.cache.get(home_address), home_agent.forwarding.is_protected(home_address)
    if protected != before and binding is not None and binding.is_bound:
        tunnel = SetTunnel(home_address, binding.care_of_address, protected)
        # It is another one, even if it leads to the same care-of address.
        effects += [tunnel] if tunnel not in effects else []
    return effects


def _not_before(home_agent: HomeAgent, home_address: bytes, timestamp: int) -> bool:
    """Accept nothing by RFC 4285 that is not newer than ``timestamp``; whether that was news."""
    peer = home_agent.signalling.authentications.get(home_address)
    if peer is None or timestamp <= peer.timestamp:
        return False
    peer.timestamp = timestamp
    return True


def _is_of(association: SecurityAssociation, state: AssociationState) -> bool:
    """Whether ``state`` is of this SA, and not of one that replaces it."""
    window, keys = association.window, association.keys
    return (
        association.spi == state.spi
        and (window is None) is state.outbound
        and (window is None or window.size == state.size)
        and keys.encryption == state.encryption
        and keys.integrity == state.integrity
        and association.esn is state.esn
        and association.transform.name == state.transform
        and association.use == state.use
    )


def usable(home_agent: HomeAgent, contexts: Iterable[Context]) -> list[Context]:
    """Those of a journal that a home agent may go on with, as it is configured now; others are counted."""
    counters = home_agent.counters
    found = []
    for context in contexts:
        if _is_configured(home_agent, context):
            found.append(context)
            counters["journal_bindings"] += context.binding is not None and context.binding.bound
        else:
            counters["journal_not_configured"] += 1
    counters["journal_contexts"] += len(found)
    return found


def _is_configured(home_agent: HomeAgent, context: Context) -> bool:
    """Whether a context is of a mobile node that is served, with SAs that this one has now, or may have."""
    known = home_agent.mobile_nodes.get(context.home_address)
    if context.gone or known is None:
        return False
    if known.negotiated:
        return all(Use(state.use) in known.negotiated for state in context.associations)
    own = home_agent.associations.database.of(context.home_address)
    return len(own) == len(context.associations) and all(
        _is_of(one, replace(state, size=one.window.size) if one.window is not None else state)
        for one, state in zip(own, context.associations, strict=True)
    )


def _place(home_agent: HomeAgent, association: SecurityAssociation, state: AssociationState) -> None:
    """Set the counters of an SA to those of its context."""
    association.ahead = 0
    if association.window is not None:
        association.window = ReplayWindow(state.size, state.counter, int.from_bytes(state.bitmap, "big"))
    shared = home_agent.associations
    if isinstance(shared, SharedAssociations):
        shared.place(association, state.counter if state.outbound else state.limit)


def _association(home_agent: HomeAgent, home_address: bytes, state: AssociationState) -> SecurityAssociation:
    association = SecurityAssociation(
        spi=state.spi,
        direction=state.direction,
        use=Use(state.use),
        home_address=home_address,
        transform=by_name(state.transform),
        keys=Keys(state.encryption, state.integrity),
        esn=state.esn,
        window=state.size,
    )
    _place(home_agent, association, state)
    return association


def install_binding(
    home_agent: HomeAgent, home_address: bytes, state: BindingState | None, now: float
) -> list[Effect]:
    """Replace the binding alone; the effects prepare forwarding."""
    cache = home_agent.cache
    effects: list[Effect] = []
    binding = cache.get(home_address)
    before = Before()
    defended: tuple[bytes, ...] = ()
    if binding is not None:
        before = Before(binding.state, binding.care_of_address, binding.prefixes)
        if before.state is State.BOUND and state is not None and state.bound:
            defended = binding.defended
        else:
            cache.end(binding)
            home_agent.withdraw(binding, before, effects)
            before = Before()
    if state is None:
        if binding is not None:
            cache.forget(binding)
        return effects
    if binding is None:
        binding = cache.entry(home_address)
    binding.sequence, binding.ended, binding.fenced = state.sequence, state.ended, state.fenced
    binding.care_of_address, binding.source = state.care_of_address, state.source
    binding.flags, binding.status, binding.lifetime = state.flags, state.status, state.lifetime
    if not state.bound:
        return effects
    if binding.state is not State.BOUND:
        binding.state = State.BOUND
        cache.registered += 1
    if state.prefixes != binding.prefixes:
        cache.set_prefixes(binding, tuple(MobileNetworkPrefix(*prefix) for prefix in state.prefixes))
    cache.prolong(binding, now + min(state.remaining / 1000, state.lifetime * LIFETIME_UNIT))
    home_agent.forward(binding, before, effects)
    # An end and a new beginning may have come as one: L may have changed.
    wanted = binding.defended
    if wanted != defended:
        effects += [ReleaseAddress(address) for address in defended if address not in wanted]
        effects += [DefendAddress(address) for address in wanted if address not in defended]
    return effects


def install_draft(home_agent: HomeAgent, entry: StateEntry, now: float) -> list[Effect]:
    """Take the binding of a peer that knows only the draft: a Binding Cache Information option."""
    bound = bool(entry.lifetime)
    state = BindingState(
        bound,
        not bound,
        entry.sequence,
        entry.care_of_address,
        entry.care_of_address,
        entry.flags,
        0,
        entry.lifetime,
        entry.lifetime * LIFETIME_UNIT * 1000,
        entry.prefixes if bound else (),
        False,
    )
    home_agent.mobile_nodes.know(entry.home_address, "", home_agent.associations.modes(entry.home_address))
    if not bound and not entry.sequence and entry.care_of_address == entry.home_address:
        # There never was a registration, so there is no last sequence number.
        return install_binding(home_agent, entry.home_address, None, now)
    return install_binding(home_agent, entry.home_address, state, now)


def newer_binding(binding: Binding | None, state: BindingState | None) -> bool:
    """Whether ``state`` came from a later Binding Update than ``binding`` (RFC 6275 9.5.1's order)."""
    if state is None:
        return False
    if binding is None or binding.sequence < 0:
        return True
    return 0 < (state.sequence - binding.sequence) & 0xFFFF < 0x8000


def merge_counters(home_agent: HomeAgent, context: Context) -> bool:
    """Take in what another member has used or seen; whether anything was new.

    Always safe: reservations only grow, windows only close.
    """
    changed = _not_before(home_agent, context.home_address, context.timestamp)
    shared = home_agent.associations
    if not isinstance(shared, SharedAssociations):
        return changed
    own = {
        (each.spi, each.direction): each for each in home_agent.associations.database.of(context.home_address)
    }
    for state in context.associations:
        association = own.get((state.spi, state.direction))
        if association is None:
            continue
        if association.window is None:
            if state.counter > association.reserved:
                changed = True
                shared.place(association, state.counter)
            continue
        if association.mode is Mode.TUNNEL:
            # Up to its horizon the other may have accepted anything.
            seen = ReplayWindow(state.size, state.limit, (1 << state.size) - 1)
        else:
            seen = ReplayWindow(state.size, state.counter, int.from_bytes(state.bitmap, "big"))
        changed |= association.window.merge(seen)
        if association.mode is Mode.TUNNEL and association.window.top > association.reserved:
            # Whoever is told next of this SA hears of the horizon alone.
            shared.place(association, association.window.top)
    return changed
