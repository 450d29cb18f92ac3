"""R2, and what R5 says of state: what is applied is what was exported, whole, and newer.

Covered: every export, installation and takeover of a run. Not covered: how they are heard of (``observe``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from mip6ha.failover.context import BindingState, Context, Version, decode, encode
from mip6ha.node import HomeAgent

from . import observe
from .life import Life
from .network import Datagram
from .violation import Violation, ahead

if TYPE_CHECKING:
    from .world import Group

__all__ = ["Records"]


class Records:
    """``delivering`` is the message that a member is being given at the moment."""

    def __init__(self) -> None:
        self.delivering: Datagram | None = None
        self._lives: dict[int, Life] = {}
        self._exported: dict[tuple[int, bytes, Version], set[bytes]] = {}
        self._installed: dict[tuple[Life, bytes], Version] = {}

    def born(self, life: Life) -> None:
        """A life begins."""
        self._lives[id(life.member.home_agent)] = life

    def took_over(self, life: Life) -> None:
        """All contexts that a member has not changed itself are such as somebody sent."""
        for home_address in life.seat.group.by_home_address:
            version = life.member.contexts.version(home_address)
            if version is not None and self._installed.get((life, home_address)) == version:
                self._compare(life, home_address, version)

    def exported(self, home_agent: HomeAgent, context: Context) -> None:
        """A member reads one of its records, to send it."""
        life = self._lives.get(id(home_agent))
        if life is not None:
            key = life.seat.group.plan.number, context.home_address, context.version
            self._exported.setdefault(key, set()).add(_lasting(context))

    def installing(self, home_agent: HomeAgent, context: Context) -> None:
        """R2 and R5: a member is about to take in a record."""
        life = self._lives.get(id(home_agent))
        if life is None:
            return
        group = life.seat.group
        known = self._exported.get((group.plan.number, context.home_address, context.version), ())
        if _lasting(context) not in known:
            raise Violation("R2", f"{life} applies what nobody exported: {_named(group, context)}")
        had = life.member.contexts.version(context.home_address)
        if had is not None and context.version <= had:
            raise Violation("R5", f"{life} replaces {had} by the older {context.version}")
        if self.delivering is not None and not life.member.machine.serves:
            datagram = self.delivering
            if datagram.term < life.member.machine.term:
                raise Violation(
                    "R5",
                    f"{life} at term {life.member.machine.term:#x} applies what {datagram.sender} sent under "
                    f"{datagram.term:#x}",
                )

    def installed(self, home_agent: HomeAgent, context: Context) -> None:
        """R2: what is there now is what came, whole."""
        life = self._lives.get(id(home_agent))
        if life is None:
            return
        self._installed[life, context.home_address] = context.version
        now = life.seat.host.clock()
        here = observe.export(home_agent, context.home_address, context.version, now)
        if _lasting(here) != _lasting(context):
            raise Violation("R2", f"{life} applied {_named(life.seat.group, context)} in part")

    def bound(self, home_agent: HomeAgent, home_address: bytes, state: BindingState | None) -> None:
        """A member took in a binding: it holds what was acknowledged until then."""
        life = self._lives.get(id(home_agent))
        if life is None or state is None:
            return
        mobile_node = life.seat.group.by_home_address[home_address]
        for ack in mobile_node.acks:
            # When nobody has it any more, what has its number was made of replays.
            if ahead(state.sequence, ack.sequence) and ack.is_held:
                ack.holders.add(life)

    def _compare(self, life: Life, home_address: bytes, version: Version) -> None:
        group = life.seat.group
        known = self._exported.get((group.plan.number, home_address, version), ())
        here = observe.export(life.member.home_agent, home_address, version, life.seat.host.clock())
        binding = here.binding
        if binding is not None and not binding.bound and not binding.ended:
            # Its lifetime is over by now: only the rest can be compared.
            known = {_lasting(_unbound(decode(each))) for each in known}
        if _lasting(here) not in known:
            raise Violation("R2", f"{life} takes over with a context that nobody sent: {_named(group, here)}")


def _unbound(context: Context) -> Context:
    binding = context.binding
    if binding is None:
        return context
    return replace(context, binding=replace(binding, bound=False, ended=False, lifetime=0, prefixes=()))


def _lasting(context: Context) -> bytes:
    """A record without what only tells the time."""
    binding = context.binding
    if binding is not None:
        context = replace(context, binding=replace(binding, remaining=0))
    return encode(context)


def _named(group: Group, context: Context) -> str:
    return f"{group.by_home_address[context.home_address]} {context.version}"
