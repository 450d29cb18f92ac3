"""Deliberate faults of the product, for tests only: each must be found by the simulation.

They replace functions of the product while a seed runs (``observe.everywhere``); the product has no switch
for any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from mip6ha import replica
from mip6ha.associations import Associations
from mip6ha.effects import Effect
from mip6ha.exchange import StateExchange
from mip6ha.failover.context import AssociationState
from mip6ha.failover.machine import Machine
from mip6ha.harp.hello import Neighbor
from mip6ha.harp.messages import Hello
from mip6ha.harp.sync import Replication
from mip6ha.ipsec.policy import Direction
from mip6ha.ipsec.sad import SecurityAssociation, counter_limit
from mip6ha.node import HomeAgent
from mip6ha.numbering import SharedAssociations

from .observe import everywhere

__all__ = ["MUTANTS", "mutated"]


def _answer_first(stack: ExitStack) -> None:
    """Acknowledgements do not wait for the standbys."""
    stack.enter_context(patch.object(Replication, "hold", lambda *_: False))


def _no_blocks(stack: ExitStack) -> None:
    """Numbers are used without a reservation: a new active member goes on at the last one it has heard of."""

    def protect(
        self: SharedAssociations,
        association: SecurityAssociation,
        next_header: int,
        payload: bytes,
        effects: list[Effect],
    ) -> bytes:
        association.limit = counter_limit(association.transform, esn=association.esn)
        self._reserved = max(self._reserved, association.limit)
        octets = Associations.protect(self, association, next_header, payload, effects)
        association.reserved = association.confirmed = association.sequence
        return octets

    stack.enter_context(patch.object(SharedAssociations, "protect", protect))


def _serves_on(stack: ExitStack) -> None:
    """An active member that hears of a higher term goes on under its own."""
    learn = Machine.learn

    def ignore(self: Machine, term: int, now: float) -> bool:
        return False if self.serves else learn(self, term, now)

    stack.enter_context(patch.object(Machine, "learn", ignore))


def _takes_stale_state(stack: ExitStack) -> None:
    """State under a lower term than the one known is applied, whoever's it is."""
    original: Callable[..., None] = StateExchange._check

    def check(self: StateExchange, identity: int, reply: Any, *, answers: bool) -> None:
        if self._machine.serves:
            term = max(reply.term or 0, self._machine.term)
            original(self, identity, reply._replace(term=term), answers=answers)

    stack.enter_context(patch.object(StateExchange, "_check", check))


def _no_window(stack: ExitStack) -> None:
    """Inbound windows are not in the record."""
    original: Callable[[SecurityAssociation], AssociationState] = replica._association_state

    def state(association: SecurityAssociation) -> AssociationState:
        whole = original(association)
        return whole if whole.outbound else replace(whole, counter=0, limit=0, bitmap=b"")

    stack.enter_context(everywhere(original, state))


def _no_horizon(stack: ExitStack) -> None:
    """What may have been accepted in tunnels since the last record is not in the record."""
    original: Callable[[SecurityAssociation], AssociationState] = replica._association_state

    def state(association: SecurityAssociation) -> AssociationState:
        whole = original(association)
        return whole if whole.outbound else replace(whole, limit=whole.counter if whole.limit else 0)

    stack.enter_context(everywhere(original, state))


def _binding_alone(stack: ExitStack) -> None:
    """The binding of a record is applied, its security associations only when there are none yet."""
    original: Callable[..., list[Effect]] = replica.install

    def install(home_agent: HomeAgent, context: Any, now: float) -> list[Effect]:
        return replica.install_binding(home_agent, context.home_address, context.binding, now)

    stack.enter_context(everywhere(original, install))


def _outbound_late(stack: ExitStack) -> None:
    """Of a record's security associations the outbound ones are left as they are."""
    original: Callable[..., list[Effect]] = replica.install

    def install(home_agent: HomeAgent, context: Any, now: float) -> list[Effect]:
        database = home_agent.associations.database
        before = {
            each.spi: each.reserved
            for each in database.of(context.home_address)
            if each.direction is Direction.OUT
        }
        kept = tuple(
            replace(each, counter=before.get(each.spi, 0)) if each.outbound else each
            for each in context.associations
        )
        return original(home_agent, replace(context, associations=kept), now)

    stack.enter_context(everywhere(original, install))


def _pushes_first(stack: ExitStack) -> None:
    """An active member sends its records to whoever appears before it has heard what that one has."""
    appear = Replication.appear

    def unguarded(self: Replication[Any], identifier: int, now: float = 0.0, **_: bool) -> None:
        appear(self, identifier, now)

    stack.enter_context(patch.object(Replication, "appear", unguarded))


def _believes_all(stack: ExitStack) -> None:
    """Whatever passes ESP is believed to be from now."""

    def prove(self: Neighbor, hello: Hello, own: int) -> bool:
        self.proved = True
        return True

    stack.enter_context(patch.object(Neighbor, "prove", prove))


def _lends_unheard(stack: ExitStack) -> None:
    """Inbound numbers are lent to the dataplane before the other members know of them."""
    original = SharedAssociations.lend_more

    def lend_more(
        self: SharedAssociations, association: SecurityAssociation, *arguments: Any
    ) -> tuple[int, int] | None:
        found = original(self, association, *arguments)
        if found is not None and association.direction is Direction.IN:
            self.wanting.pop(association.home_address)
            association.confirmed = association.reserved
        return found

    stack.enter_context(patch.object(SharedAssociations, "lend_more", lend_more))


def _keeps_its_window(stack: ExitStack) -> None:
    """What was lent comes back as if nothing of it had been used."""

    def take_back(self: SharedAssociations, association: SecurityAssociation) -> None:
        association.reserved = association.confirmed = association.limit
        association.lent = 0

    stack.enter_context(patch.object(SharedAssociations, "take_back", take_back))


MUTANTS: dict[str, Callable[[ExitStack], None]] = {
    "ack-before-replication": _answer_first,
    "no-block-reservation": _no_blocks,
    "no-fencing": _serves_on,
    "stale-state": _takes_stale_state,
    "no-window": _no_window,
    "no-horizon": _no_horizon,
    "binding-alone": _binding_alone,
    "outbound-late": _outbound_late,
    "pushes-first": _pushes_first,
    "believes-all": _believes_all,
    "lends-unheard": _lends_unheard,
    "keeps-its-window": _keeps_its_window,
}


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """The product with a fault, or as it is where ``name`` is empty."""
    with ExitStack() as stack:
        if name:
            MUTANTS[name](stack)
        yield
