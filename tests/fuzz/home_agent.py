"""Mutated real packets against the home agent core.

Every packet starts from one that a reference implementation or the mobile node of these tests sent. It is
changed outside, or its plaintext is changed and sealed again with the right keys, so that what lies behind
the cryptography is reached too. After each packet the invariants of :meth:`World.check` hold; now and then
time passes; every so often each mobile node still gets what it asks for.

``python -m tests.fuzz.home_agent --seconds 600 --seed 1`` runs until the time is up or something breaks; it
then prints the seed of the round, which ``--seed`` with ``--rounds 1`` repeats.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import HomeTestInit, mobile_network_prefix_option
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Mode, Use
from mip6ha.ipv6 import ESP, ICMPV6, IPV6, MOBILITY
from mip6ha.mobility import Option
from mip6ha.parameters import AuthenticationParameters
from mip6ha.wire import address, checksum

from ..binding import signed
from ..captured import CAPTURES, ipv6_packets
from ..node.reference import HOME, signalling
from ..node.world import (
    CARE_OF_1,
    CARE_OF_2,
    CBC,
    CORRESPONDENT,
    HOME_AGENT,
    A,
    H,
    L,
    MobileNode,
    R,
    World,
    echo,
    prefix,
    sent,
)

PACKETS_IN_A_ROUND = 2000
_WIDE = prefix("2001:db8:aa::/48")
_ROUTER = address("2001:db8:e::1")
_ANYCAST = address("2001:db8:a:0:fdff:ffff:ffff:fffe")
_INTERESTING = (0, 1, 2, 7, 8, 16, 41, 43, 44, 50, 58, 59, 60, 127, 128, 135, 201, 254, 255)
_KINDS = {"cbc": "esp-cbc", "gcm": "esp-gcm", "tunnel": "esp-tunnel"}
CAPTURED = [
    packet
    for path in CAPTURES
    for packet in ipv6_packets(path).values()
    if packet[24:40] in {HOME_AGENT, HOME, _ANYCAST}
]
OPENED = [
    (found.protocol, found.octets)
    for kind, name in _KINDS.items()
    for link in ("home", "foreign")
    for _, found in signalling(f"umip-{name}-{link}.pcap", kind)
]


def mutated(data: bytes, random: Random) -> bytes:
    """``data`` with one to four changes: bits, octets, cuts, insertions, doublings, words of addresses."""
    octets = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(octets) + 1)
        match random.randrange(8):
            case 0 | 1 if at < len(octets):
                octets[at] ^= 1 << random.randrange(8)
            case 2 | 3 if at < len(octets):
                octets[at] = random.choice(_INTERESTING)
            case 4:
                del octets[at:]
            case 5:
                octets[at:at] = random.randbytes(random.randrange(1, 17))
            case 6:
                octets[at:at] = octets[at : at + random.randrange(1, 64)]
            case _:
                del octets[at : at + random.randrange(1, 17)]
    return bytes(octets)


class Round:
    """A home agent with mobile nodes of every kind, and one seed's worth of hostility."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        rr, prefixes = Use.RETURN_ROUTABILITY, (_WIDE,)
        self.nodes = [
            MobileNode("2001:db8:a::100", Use.BINDING, Use.PREFIX, Use.PAYLOAD, spi=0x2000),
            MobileNode("2001:db8:a::101", Use.SIGNALLING, rr, spi=0x3000, protection=CBC),
            MobileNode("2001:db8:a::102", Use.BINDING, spi=0x4000, prefixes=prefixes),
            MobileNode("2001:db8:f::103", Use.BINDING, spi=0x5000),
        ]
        # The home address of the captures is the first one's; the plain peer has its own.
        plain = MobileNode("2001:db8:a::104", Use.PAYLOAD, spi=0x6000)
        plain.parameters = plain.changed(authentication=AuthenticationParameters(signed.SPI, signed.KEY))
        self.world = World(
            *self.nodes,
            plain,
            seed=str(seed),
            duplicate_address_detection=bool(seed & 1),
            link_mtu=self.random.choice((1280, 1500)),
            refresh_request=10,
            refresh_advice=self.random.choice((0, 20)),
            max_bindings=self.random.choice((3, 1000)),
        )
        self.seeds: list[bytes] = []

    def run(self, packets: int = PACKETS_IN_A_ROUND) -> Counter[str]:
        """Feed that many packets; returns what the home agent counted."""
        world, random = self.world, self.random
        for number in range(packets):
            if random.random() < 0.02:
                self.pass_time()
            world.receive(self.packet())
            if number % 500 == 499:
                self.still_serves()
        self.still_serves()
        world.carry_out(world.agent.stop(world.now))
        plane = world.plane
        assert not any((plane.tunnels, plane.defended, plane.routes, plane.probed))
        return world.agent.counters

    def packet(self) -> bytes:
        """The next packet: sometimes an honest one, mostly a broken one."""
        random = self.random
        draw = random.random()
        if draw < 0.35:
            return mutated(random.choice(CAPTURED), random)
        if draw < 0.80:
            return self.resealed()
        honest = self.honest()
        if draw < 0.90:
            return honest
        if draw < 0.95 and len(honest) > 100:
            pieces = ipv6.fragments(honest, random.randrange(64, 1280), random.randrange(4))
            return mutated(random.choice(pieces), random) if random.random() < 0.5 else random.choice(pieces)
        return mutated(honest, random)

    def message(self, node: MobileNode) -> tuple[int, bytes]:
        """An upper-layer protocol and its octets, as ``node`` would send them inside ESP."""
        random = self.random
        home_address = node.home_address
        match random.randrange(8):
            case 3 | 4:
                return random.choice(OPENED)
            case 0:
                identifier = random.randbytes(4)
                return ICMPV6, icmpv6.message(146, 0, identifier, home_address, HOME_AGENT)
            case 1:
                return IPV6, self.inner(node)
            case 2:
                return MOBILITY, messages.build(HomeTestInit(bytes(8)), home_address, HOME_AGENT)
        fields: dict[str, Any] = {
            "lifetime": random.choice((0, 1, 15, 65535)),
            "flags": random.choice((A | H, A | H, A | H | R, A | H | L, A)),
            "alternate": random.choice((CARE_OF_1, CARE_OF_2, None, home_address, address("ff0e::1"))),
        }
        if random.random() < 0.3:
            fields["options"] = [
                mobile_network_prefix_option(_WIDE),
                Option(random.randrange(256), random.randbytes(random.randrange(20))),
            ]
        octets = messages.build(node.message(self.sequence(node), **fields), home_address, HOME_AGENT)
        return MOBILITY, octets

    def sequence(self, node: MobileNode) -> int:
        binding = self.world.agent.cache.get(node.home_address)
        last = max(binding.sequence, 0) if binding is not None else 0
        return last + self.random.choice((0, 1, 1, 1, 2, 0x7FFF, 0x8000)) & 0xFFFF

    def inner(self, node: MobileNode) -> bytes:
        random = self.random
        source = random.choice((node.home_address, CORRESPONDENT, address("2001:db8:aa::5")))
        packet = echo(source, CORRESPONDENT, random.randrange(64), flow=random.randrange(4) << 20)
        return mutated(packet, random) if random.random() < 0.5 else packet

    def resealed(self) -> bytes:
        """A changed message under the right key: the changes are what the home agent gets to see."""
        random = self.random
        node = random.choice(self.nodes)
        protocol, octets = self.message(node)
        octets = mutated(octets, random)
        if random.random() < 0.7 and protocol in {MOBILITY, ICMPV6} and len(octets) > 6:
            at = 4 if protocol == MOBILITY else 2
            octets = octets[:at] + b"\0\0" + octets[at + 2 :]
            if protocol == MOBILITY and random.random() < 0.7:
                octets += bytes(-len(octets) % 8)
                octets = octets[:1] + bytes((min(len(octets) // 8 - 1, 255),)) + octets[2:]
            sum_ = checksum(node.home_address, HOME_AGENT, protocol, octets)
            octets = octets[:at] + sum_.to_bytes(2, "big") + octets[at + 2 :]
        association = random.choice(list(node.outbound.values()))
        if random.random() < 0.9:
            kind = octets[2] if protocol == MOBILITY and len(octets) > 2 else octets[0] if octets else None
            mode = Mode.TUNNEL if protocol == IPV6 else Mode.TRANSPORT
            association = node.sending(mode, protocol, kind) or association
        if random.random() < 0.02:
            protocol = random.randrange(256)
        sealed = esp.protect(association, protocol, octets, random.randbytes)
        source = random.choice((CARE_OF_1, CARE_OF_1, CARE_OF_2, node.home_address, CORRESPONDENT))
        home_address = None if source == node.home_address else node.home_address
        if association.use in {Use.PAYLOAD, Use.RETURN_ROUTABILITY} and random.random() < 0.9:
            home_address = None
        return ipv6.build(source, HOME_AGENT, ESP, sealed, home_address=home_address)

    def honest(self) -> bytes:
        """A packet that nobody has tampered with, though not necessarily a welcome one."""
        random = self.random
        node = random.choice(self.nodes)
        source = random.choice((CARE_OF_1, CARE_OF_2))
        match random.randrange(9):
            case 0:
                return node.update(source, self.sequence(node))
            case 1:
                return node.home(self.sequence(node))
            case 2:
                return node.tunnel(self.inner(node), source)
            case 3:
                return echo(CORRESPONDENT, node.home_address, random.choice((8, 1200, 1400, 2000)))
            case 4:
                return echo(CORRESPONDENT, random.choice((HOME_AGENT, address("2001:db8:aa::5"))))
            case 5:
                body = random.randbytes(4)
                octets = icmpv6.message(144, 0, body, source, _ANYCAST)
                return ipv6.build(source, _ANYCAST, ICMPV6, octets)
            case 6:
                return self.error(node)
            case 7:
                octets = signed.update(
                    random.randrange(65536), timestamp=random.choice((None, 1, 2, 1 << 40))
                )
                return ipv6.build(
                    CARE_OF_1, HOME_AGENT, MOBILITY, octets, home_address=address("2001:db8:a::104")
                )
        return node.update(source, self.sequence(node), flags=random.choice((A | H | R, A | H | L)))

    def error(self, node: MobileNode) -> bytes:
        random = self.random
        outer = ipv6.build(HOME_AGENT, CARE_OF_1, IPV6, echo(CORRESPONDENT, node.home_address, 1400))
        quoted = mutated(outer, random) if random.random() < 0.5 else outer
        value = random.choice((0, 68, 1280, 1400, 0xFFFFFFFF)).to_bytes(4, "big")
        kind = random.choice((1, 2, 2, 3, 4))
        octets = icmpv6.message(kind, 0, value + quoted[:1232], _ROUTER, HOME_AGENT)
        return ipv6.build(_ROUTER, HOME_AGENT, ICMPV6, octets)

    def pass_time(self) -> None:
        random = self.random
        self.world.advance(random.choice((0.01, 0.5, 1.0, 5.0, 61.0)))
        if random.random() < 0.3:
            self.world.conflict(random.choice(self.nodes).home_address)
        if random.random() < 0.1:
            nodes = self.world.parameters.mobile_nodes
            self.world.carry_out(self.world.agent.reconfigure(nodes[random.randrange(2) :], self.world.now))
            self.world.carry_out(self.world.agent.reconfigure(nodes, self.world.now))
            self.world.check()

    def still_serves(self) -> None:
        """Regular updates still get their answers; those of the first three end bound."""
        world = self.world
        for node in self.nodes:
            # Back home first, where room is short or the type of the registration has to change.
            self.answered(node, node.home(self.next_sequence(node)))
        for node in self.nodes[:3]:
            answer = self.answered(node, node.update(CARE_OF_1, self.next_sequence(node)))
            assert answer.status < messages.ACCEPTED, answer
            assert world.plane.tunnels[node.home_address] == CARE_OF_1
            inner = echo(CORRESPONDENT, node.home_address, 64)
            (packet,) = sent(world.receive(inner))
            assert node.inner(packet) == inner
        assert self.answered(self.nodes[3], self.nodes[3].update()).status == 132

    def next_sequence(self, node: MobileNode) -> int:
        binding = self.world.agent.cache.get(node.home_address)
        return (binding.sequence if binding is not None else 0) + 1 & 0xFFFF

    def answered(self, node: MobileNode, packet: bytes) -> Any:
        found = self.world.receive(packet)
        return node.acknowledged(found if sent(found) else self.world.advance(1.0))


def rounds(seed: int, packets: int) -> Iterator[tuple[int, Counter[str]]]:
    """Rounds from ``seed`` on, each with the next seed."""
    while True:
        yield seed, Round(seed).run(packets)
        seed += 1


def main() -> int:
    parser = argparse.ArgumentParser(description="mutated packets against the home agent core")
    parser.add_argument("--seconds", type=float, default=60, help="when to stop")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round")
    parser.add_argument("--rounds", type=int, default=None, help="how many rounds at most")
    chosen = parser.parse_args()
    end = time.monotonic() + chosen.seconds
    seed, total = chosen.seed, Counter[str]()
    while time.monotonic() < end and (chosen.rounds is None or seed < chosen.seed + chosen.rounds):
        try:
            total += Round(seed).run()
        except BaseException:
            print(f"seed {seed}: python -m tests.fuzz.home_agent --seed {seed} --rounds 1", file=sys.stderr)
            raise
        seed += 1
    for reason, count in total.most_common():
        print(f"{count:10} {reason}")
    print(f"{(seed - chosen.seed) * PACKETS_IN_A_ROUND:10} packets, seeds {chosen.seed} to {seed - 1}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
