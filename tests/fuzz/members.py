"""Mutated messages between members, outside and inside ESP, against an active member and a standby.

Inside, a changed message is sealed again with the right key, so that what lies behind the cryptography is
reached: the message comes from a member that has gone mad. After each one every mobile node's state is either
what it was, or a whole context that stood in the message; the dataplane fits the bindings; and in the end a
mobile node that no message was about is served as ever.

``python -m tests.fuzz.members --rounds 1000 --first 5000`` looks for more.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from random import Random

from msgspec import structs

from mip6ha import replica
from mip6ha.failover.context import Context, Version, decode, encode
from mip6ha.harp import messages
from mip6ha.harp.messages import Body, Control, Hello, StateAcknowledge, StateReply, StateRequest
from mip6ha.ipsec.policy import Mode, Use
from mip6ha.ipsec.replay import DEFAULT_WINDOW
from mip6ha.ipv6 import MOBILITY
from mip6ha.wire import Malformed, checksum

from ..failover.world import World, member_address, mobile_node, plaintext
from ..node.world import CARE_OF_1, CARE_OF_2, A, H, L, R, prefix
from .home_agent import mutated

MUTATIONS_IN_A_ROUND = 250
_USED_UP = 1 << 31
_NETWORK = prefix("2001:db8:aa::/48")


class Round:
    """One seed's worth of hostility from one member to another."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.nodes = [
            mobile_node(0),
            mobile_node(1, Use.SIGNALLING, Use.PAYLOAD),
            mobile_node(2, prefixes=(_NETWORK,)),
        ]
        self.bystander = mobile_node(9)
        self.world = World(*self.nodes, self.bystander).settle()
        for node, flags in zip(self.nodes, (A | H, A | H | L, A | H | R), strict=True):
            self.world.register(node, flags=flags)
        self.world.register(self.bystander)
        self.world.run(0.05)
        # Member 1 is active: it attacks the standby, or is attacked.
        self.source, self.target = ((1, 2), (2, 1))[seed % 2]
        self.said = [
            each for each in self.world.said if (each.source, each.destination) == (self.source, self.target)
        ]
        self.found: Counter[str] = Counter()

    def run(self, mutations: int = MUTATIONS_IN_A_ROUND) -> Counter[str]:
        """Deliver that many; what the target counted, and how many contexts changed."""
        world, random = self.world, self.random
        for _ in range(mutations):
            packet, message = self.packet()
            if isinstance(message, Hello) and (message.floor or 0) > _USED_UP:
                # Who says that all numbers are used is believed, and then nothing can be sent.
                continue
            self.deliver(packet, message)
            if random.random() < 0.2:
                world.run(random.choice((0.001, 0.001, 0.02)))
                world.check()
        self.still_serves()
        return self.found + world.members[self.target].counters

    # -- what is sent ------------------------------------------------------------------------------

    def packet(self) -> tuple[bytes, Body | None]:
        """A changed packet, and the message in it if it still is one."""
        random = self.random
        if random.random() < 0.2:
            return mutated(random.choice(self.said).packet, random), None
        octets = self.octets()
        if random.random() < 0.75:
            octets = mutated(octets, random)
            if random.random() < 0.85 and len(octets) > 6:
                octets = self.framed(octets)
        next_header = MOBILITY if random.random() < 0.98 else random.randrange(256)
        packet = self.world.sealed(self.source, self.target, octets, next_header)
        try:
            ends = member_address(self.source), member_address(self.target)
            return packet, messages.parse(octets, *ends)
        except Malformed:
            return packet, None

    def framed(self, octets: bytes) -> bytes:
        """``octets`` with a frame that is right: type, length, checksum."""
        octets = octets[:2048]
        octets += bytes(-len(octets) % 8)
        octets = b"\x3b" + bytes((len(octets) // 8 - 1,)) + octets[2:4] + b"\0\0" + octets[6:]
        sum_ = checksum(member_address(self.source), member_address(self.target), MOBILITY, octets)
        return octets[:4] + sum_.to_bytes(2, "big") + octets[6:]

    def octets(self) -> bytes:
        """A message that a member could send now, or once did."""
        random = self.random
        if random.random() < 0.2:
            said = random.choice(self.said)
            return plaintext(self.source, self.target, said.packet)
        try:
            return messages.build(self.message(), member_address(self.source), member_address(self.target))
        except ValueError:
            # Too long, by what was put into a context.
            return bytes(8)

    def message(self) -> Body:
        random, world = self.random, self.world
        machine = world.members[self.target].machine
        term = machine.term + random.choice((0, 0, 0, 0, 0, 0, -256, 1, 256))
        asked = world.members[self.target].inquiries.asked(self.source)
        identifier = asked if asked is not None and random.random() < 0.7 else random.randrange(65536)
        match random.randrange(10):
            case 0:
                sequence = world.members[self.target].neighbors[self.source].sequence + 1 & 0xFFFF
                last = next(each.message for each in self.said if isinstance(each.message, Hello))
                assert isinstance(last, Hello)
                return last._replace(sequence=sequence, term=max(term, 0), active=random.random() < 0.3)
            case 1:
                homes = tuple(node.home_address for node in random.sample(self.nodes, random.randrange(3)))
                return StateRequest(random.randrange(65536), homes, random.randbytes(248))
            case 2:
                in_flight = list(world.members[self.target].replication.peers[self.source].in_flight)
                number, homes = random.choice(in_flight) if in_flight else (1, (self.nodes[0].home_address,))
                return StateAcknowledge(number, tuple((random.choice((0, 0, 128)), each) for each in homes))
            case 3:
                kind = random.randrange(5)
                status = random.choice((0, 129)) if kind in {1, 3} else 0
                return Control(kind, status, max(term, 0))
        count = random.choice((0, 1, 1, 1, 2, 3))
        entries = [self.entry(node.home_address) for node in random.sample(self.nodes, count)]
        return StateReply(identifier, random.random() < 0.8, tuple(entries), max(term, 0))

    def entry(self, home_address: bytes) -> messages.StateEntry:
        """The next generation of a mobile node's context, and it may be a strange one."""
        random = self.random
        record = self.world.members[self.target].contexts.record(home_address)
        assert record is not None
        known = record[0]
        context = self.changed(decode(known.context))
        octets = encode(context)
        if random.random() < 0.3:
            octets = mutated(octets, random)
        return known._replace(generation=context.generation, context=octets)

    def changed(self, context: Context) -> Context:
        random = self.random
        context = structs.replace(context, generation=context.generation + random.choice((1, 1, 1, 0)))
        binding = context.binding
        if binding is not None and random.random() < 0.7:
            binding = structs.replace(
                binding,
                sequence=binding.sequence + random.choice((0, 1, 1)) & 0xFFFF,
                care_of_address=random.choice((CARE_OF_1, CARE_OF_2)),
                flags=binding.flags ^ random.choice((0, 0, L)),
            )
            if random.random() < 0.2:
                binding = structs.replace(
                    binding, bound=False, ended=True, lifetime=0, remaining=0, prefixes=()
                )
            elif not binding.bound:
                binding = structs.replace(binding, bound=True, ended=False, lifetime=15, remaining=60_000)
            if random.random() < 0.05:
                # It says two things at once.
                binding = structs.replace(binding, bound=not binding.bound)
            context = structs.replace(context, binding=binding)
        if random.random() < 0.2:
            context = structs.replace(context, associations=context.associations[:1])
        return context

    # -- what must hold ----------------------------------------------------------------------------

    def states(self) -> dict[bytes, Context]:
        """Every mobile node as it would be replicated, without versions and what a clock changes."""
        member = self.world.members[self.target]
        agent = member.home_agent
        homes = {each.home_address for each in agent.cache}
        homes |= {each.home_address for each in agent.associations.database}
        version = Version(0, 1)
        return {each: replica.export(agent, each, version, self.world.now) for each in homes}

    def deliver(self, packet: bytes, message: Body | None) -> None:
        world = self.world
        member = world.members[self.target]
        before, versions = self.states(), {each: member.contexts.version(each) for each in self.states()}
        served = member.machine.serves
        world.receive_member(self.source, self.target, packet)
        entries = {each.home_address: each for each in getattr(message, "entries", ())}
        for home_address, state in self.states().items():
            old = before.get(home_address)
            if state == old and member.contexts.version(home_address) == versions.get(home_address):
                continue
            self.found["changed"] += 1
            entry = entries[home_address]
            if not entry.context:
                # From a member that is known for the draft alone: the binding, next to SAs as they were.
                assert member.neighbors[self.source].term is None
                assert state.associations == (old.associations if old is not None else ())
                continue
            for each in entries.values():
                assert not each.context or decode(each.context)
            context = decode(entry.context)
            if served:
                self.merged(old, context, state)
            else:
                assert _lasting(state) == _lasting(context)
                assert member.contexts.version(home_address) == context.version
        world.check()

    @staticmethod
    def merged(old: Context | None, context: Context, state: Context) -> None:
        """An active member's: the later binding, whole, and the SAs of one of both, counters ahead."""
        bindings = [_binding(each) for each in (old, context) if each is not None]
        assert _binding(state) in bindings
        keys = [_keys(each) for each in (old, context) if each is not None]
        assert _keys(state) in keys

    def still_serves(self) -> None:
        """The other member comes back with its wits; a mobile node that nothing was about notices nothing."""
        world = self.world
        world.kill(self.source)
        world.run(3.0)
        world.start(self.source)
        world.until(lambda: len(world.serving) == 1 and world.is_settled(), 300.0)
        # 174: a network that was made up may cover its care-of address.
        assert world.register(self.bystander, CARE_OF_2).status in {0, 174}
        world.run(0.1)
        world.check()


def _binding(context: Context) -> object:
    binding = context.binding
    if binding is None:
        return None
    return structs.replace(binding, remaining=0)


def _keys(context: Context) -> object:
    return {
        (each.spi, each.outbound, each.use, each.transform, each.encryption, each.integrity, each.esn)
        for each in context.associations
    }


def _lasting(context: Context) -> object:
    """What of a context does not depend on when it is looked at, nor on how a number is written."""
    associations = set()
    for each in context.associations:
        tunnel = Use(each.use).mode is Mode.TUNNEL
        size = each.size if tunnel else min(each.size, DEFAULT_WINDOW)
        seen = int.from_bytes(each.bitmap, "big") & (1 << size) - 1
        associations.add(
            structs.replace(
                each,
                size=0 if each.outbound else size,
                limit=each.limit if tunnel and not each.outbound else 0,
                bitmap=b"" if tunnel or each.outbound else seen.to_bytes(DEFAULT_WINDOW // 8, "big"),
            )
        )
    return _binding(context), associations


def rounds(first: int, count: int) -> Counter[str]:
    """The rounds of so many seeds together."""
    total: Counter[str] = Counter()
    for seed in range(first, first + count):
        try:
            total += Round(seed).run()
        except BaseException:
            print(f"seed {seed}: python -m tests.fuzz.members --first {seed} --rounds 1", file=sys.stderr)
            raise
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description="mutated messages against members of a set")
    parser.add_argument("--rounds", type=int, default=100, help="how many")
    parser.add_argument("--first", type=int, default=0, help="seed of the first round")
    chosen = parser.parse_args()
    for reason, count in rounds(chosen.first, chosen.rounds).most_common():
        print(f"{count:10} {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
