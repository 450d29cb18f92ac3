"""The contexts that a member has: their versions, what of them others lack, what others bring.

Covered: one version a mobile node, the digest over all, records to send, applying an active member's
generation, merging what a member that was cut off had accepted. Not covered: messages and roles (``member``).
"""

from __future__ import annotations

from collections.abc import Iterable

from . import replica
from .binding.messages import LIFETIME_UNIT
from .effects import AnnounceAddress, DefendAddress, Effect
from .failover.context import Context, Version, decode, encode
from .failover.digest import Digest, bucket
from .harp.messages import StateEntry
from .harp.sync import Record
from .journaling import Journal
from .node import HomeAgent
from .wire import Malformed

__all__ = ["Contexts"]


class Contexts:
    """Contexts of one member; ``now`` is the moment of the input that is being processed."""

    def __init__(self, home_agent: HomeAgent, now: float) -> None:
        self.now = now
        self._home_agent = home_agent
        self._versions: dict[bytes, Version] = {}
        self._digest = Digest()
        self.journal: Journal | None = None
        """Where contexts are kept for a restart, if they are."""

    def __len__(self) -> int:
        return len(self._versions)

    def version(self, home_address: bytes) -> Version | None:
        """The version of a mobile node's context, ``None`` before its first change."""
        return self._versions.get(home_address)

    def digest(self) -> bytes:
        """A sum over all versions, for another member."""
        return self._digest.octets()

    def lacking(self, wanted: Iterable[bytes], digest: bytes) -> list[bytes]:
        """What to send to a member that asks for ``wanted`` home addresses, or, with none, has ``digest``."""
        named = [each for each in wanted if any(each)]
        if named:
            return [each for each in named if each in self._versions]
        differing = self._digest.differing(digest)
        return [each for each in self._versions if bucket(each) in differing]

    def grow(self, home_address: bytes, term: int) -> Version:
        """A context changed here, under ``term``: its next generation."""
        old = self._versions.get(home_address)
        version = Version(term, old.generation + 1 if old else 1)
        self._set(home_address, old, version)
        return version

    def record(self, home_address: bytes) -> Record | None:
        """A context as it is now, ready to be sent, with its version."""
        version = self._versions.get(home_address)
        if version is None:
            return None
        context = replica.export(self._home_agent, home_address, version, self.now)
        binding = context.binding
        octets = encode(context)
        if binding is None:
            return StateEntry(
                home_address, home_address, 0, 0, 0, generation=version.generation, context=octets
            ), version
        entry = StateEntry(
            home_address,
            binding.care_of_address,
            binding.flags,
            binding.sequence,
            -(-binding.remaining // (1000 * LIFETIME_UNIT)),
            self._home_agent.prefixes_of(home_address),
            generation=version.generation,
            context=octets,
        )
        return entry, version

    def read(self, entry: StateEntry, *, draft: bool) -> Context | None:
        """The context in an entry, ``None`` where the sender knows only the draft; :class:`Malformed`.

        From anybody else a binding without its SAs is half of a context.
        """
        if draft and not entry.context and not entry.generation:
            return None
        context = decode(entry.context)
        if context.home_address != entry.home_address or context.generation != entry.generation:
            raise Malformed("context_of_another")
        return context

    def apply(self, context: Context, effects: list[Effect]) -> None:
        """Take a generation of the active member, whole, if it is newer than what is here."""
        home_address = context.home_address
        old = self._versions.get(home_address)
        if old is not None and context.version <= old:
            self._home_agent.counters["contexts_known"] += 1
            return
        effects += replica.install(self._home_agent, context, self.now)
        self._set(home_address, old, context.version)
        self._home_agent.counters["contexts_applied"] += 1

    def apply_draft(self, entry: StateEntry, effects: list[Effect]) -> None:
        """Take the binding of a peer that knows only the draft, next to SAs that are ours anyway."""
        binding = self._home_agent.cache.get(entry.home_address)
        if binding is not None and 0 < (binding.sequence - entry.sequence) & 0xFFFF < 0x8000:
            # There are no generations: an older Binding Update's came late.
            self._home_agent.counters["contexts_known"] += 1
            return
        old = self._versions.get(entry.home_address)
        effects += replica.install_draft(self._home_agent, entry, self.now)
        self._set(entry.home_address, old, Version(0, old.generation + 1 if old else 1))
        self._home_agent.counters["bindings_applied"] += 1

    def merge_draft(self, entry: StateEntry, effects: list[Effect]) -> bool:
        """Adopt, as the active member, the binding of a later Binding Update, from a peer of the draft."""
        binding = self._home_agent.cache.get(entry.home_address)
        never = not entry.lifetime and not entry.sequence
        last = binding.sequence if binding is not None else -1
        if never or (last >= 0 and not 0 < (entry.sequence - last) & 0xFFFF < 0x8000):
            return False
        count = len(effects)
        self.apply_draft(entry, effects)
        adopted = [each.address for each in effects[count:] if type(each) is DefendAddress]
        effects += map(AnnounceAddress, adopted)
        return True

    def merge(self, context: Context, term: int, effects: list[Effect]) -> bool:
        """Adopt, as the active member under ``term``, what somebody accepted and this one never heard of.

        A binding counts as newer by its Binding Update's sequence number, for its mobile node knows best; it
        becomes part of the present term. Counters are merged in any case. Of a mobile node that either side
        has removed, the later version counts. Whether anything changed.
        """
        home_address = context.home_address
        # A dataplane would not know what another member has accepted.
        self._home_agent.lending.recall(home_address, effects)
        own = self._versions.get(home_address)
        adopted: list[Effect] = []
        if own is None or context.version > own:
            # What is here was changed under a term of old, perhaps with nobody listening: it counts as well.
            here = None if own is None else replica.export(self._home_agent, home_address, own, self.now)
            adopted = replica.install(self._home_agent, context, self.now)
            self._set(home_address, own, context.version)
            changed = True
            if here is not None and not context.gone:
                binding = self._home_agent.cache.get(home_address)
                if replica.newer_binding(binding, here.binding):
                    adopted += replica.install_binding(self._home_agent, home_address, here.binding, self.now)
                replica.merge_counters(self._home_agent, here)
        elif home_address not in self._home_agent.mobile_nodes:
            # Removed here, later than this was made.
            changed = False
        else:
            changed = replica.newer_binding(self._home_agent.cache.get(home_address), context.binding)
            if changed:
                adopted = replica.install_binding(self._home_agent, home_address, context.binding, self.now)
            changed |= replica.merge_counters(self._home_agent, context)
        if changed:
            effects += adopted
            effects += [AnnounceAddress(each.address) for each in adopted if type(each) is DefendAddress]
            self.grow(home_address, term)
            self._home_agent.counters["contexts_merged"] += 1
        return changed

    def keep(self, delay: float) -> Journal:
        """Keep a journal from now on; changes wait ``delay`` seconds for others."""
        self.journal = Journal(self._encoded, lambda: self._versions, delay=delay)
        return self.journal

    def restore(self, contexts: Iterable[Context], effects: list[Effect]) -> int:
        """Take what a journal has, under the versions that it had; the highest term in it.

        Others may have accepted more since: what is bound is fenced until a later generation comes.
        """
        term = 0
        for context in replica.usable(self._home_agent, contexts):
            self.apply(context, effects)
            term = max(term, context.term)
        return term

    def _encoded(self, home_address: bytes) -> bytes | None:
        version = self._versions.get(home_address)
        if version is None:
            return None
        return encode(replica.export(self._home_agent, home_address, version, self.now))

    def _set(self, home_address: bytes, old: Version | None, new: Version) -> None:
        self._digest.change(home_address, old, new)
        self._versions[home_address] = new
        if self.journal is not None:
            self.journal.changed[home_address] = None
