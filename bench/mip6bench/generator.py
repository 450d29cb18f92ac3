"""Binding Updates as Ethernet frames over a packet socket, and the acknowledgements that come back.

A process of its own inside the generator's namespace. Everything is sealed before the clock starts; every
acknowledgement is opened afterwards, and counts only when it accepts. Not covered: a network stack (the
kernel's is switched off on this interface), the emulator.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import NamedTuple

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.parameters import AssociationParameters, MobileNodeParameters
from mip6ha.tables import derived_keys

from .workload import FIRST_HOME_ADDRESS, FIRST_SPI, HOME_AGENT, Sender, randomness

__all__ = ["MOBILE_NODES", "generate", "generate_rounds"]

MOBILE_NODES = 1_000
_ROUNDS = 7
_UPDATES_EACH = 3
_OUTSTANDING = 64
_SINGLES = 300
_ETHERTYPE = 0x86DD
_ANSWER_LIMIT = 2.0
_BUFFER = 16 << 20
# <asm-generic/socket.h>; Python does not name them.
_SNDBUFFORCE, _RCVBUFFORCE = 32, 33


class _Peer(NamedTuple):
    """A mobile node: what seals its updates, what opens its acknowledgements."""

    sender: Sender
    opens: SecurityAssociation


def _peers(secret: bytes) -> list[_Peer]:
    random, protection, peers = randomness(4), transform("aes-gcm-16"), []
    for index in range(MOBILE_NODES):
        home_address = (FIRST_HOME_ADDRESS + index).to_bytes(16, "big")
        inbound, outbound = (
            AssociationParameters(
                spi, direction, Use.BINDING, protection, derived_keys(secret, home_address, spi, protection)
            )
            for spi, direction in (
                (FIRST_SPI + 2 * index, Direction.IN),
                (FIRST_SPI + 2 * index + 1, Direction.OUT),
            )
        )
        opens = SecurityAssociation(
            spi=outbound.spi,
            direction=Direction.IN,
            use=Use.BINDING,
            home_address=home_address,
            transform=protection,
            keys=outbound.keys,
        )
        node = MobileNodeParameters(home_address, "", (inbound, outbound))
        peers.append(_Peer(Sender(node, random), opens))
    return peers


class _Link:
    """The generator's end of the link."""

    def __init__(self, interface: str, station: bytes) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE))
        self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _BUFFER)
        self._socket.bind((interface, 0))
        self._socket.setblocking(False)
        own = self._socket.getsockname()[4]
        self._head = station + own + _ETHERTYPE.to_bytes(2, "big")

    def frames(self, packets: Sequence[bytes]) -> list[bytes]:
        """``packets`` ready to be sent."""
        return [self._head + packet for packet in packets]

    def exchange(self, frames: Sequence[bytes], outstanding: int) -> tuple[float, list[bytes]]:
        """Send all with at most ``outstanding`` unanswered: (seconds to the last answer, answers)."""
        link, sent = self._socket, 0
        answers: list[bytes] = []
        start = last = perf_counter()
        while len(answers) < len(frames):
            while sent < len(frames) and sent - len(answers) < outstanding:
                link.send(frames[sent])
                sent += 1
            try:
                frame = link.recv(2048)
            except BlockingIOError:
                if not select.select([link], [], [], _ANSWER_LIMIT)[0]:
                    break
                continue
            # Not what this end sent itself, nor neighbour discovery: only packets with a routing header.
            if frame[20] == ipv6.ROUTING and frame[:6] != self._head[:6]:
                answers.append(frame[14:])
                last = perf_counter()
        return last - start, answers


def _accepted(answers: Sequence[bytes], peers: dict[bytes, _Peer]) -> int:
    count = 0
    for answer in answers:
        parsed = ipv6.parse(answer)
        peer = peers[parsed.logical_destination]
        _, octets = esp.unprotect(peer.opens, parsed.payload)
        message = messages.parse(octets, HOME_AGENT, parsed.logical_destination)
        count += type(message) is BindingAcknowledgement and not message.status
    return count


class _Generator:
    """Every mobile node, behind one link. ``station`` is the MAC address to send to, as hexadecimal."""

    def __init__(self, interface: str, station: str, secret: bytes) -> None:
        self.link = _Link(interface, bytes.fromhex(station))
        self.peers = _peers(secret)
        self.known = {peer.opens.home_address: peer for peer in self.peers}

    def run(self, updates: int, outstanding: int) -> tuple[float, int]:
        """So many Binding Updates of each: (answers a second, how many of the answers accept)."""
        packets = [peer.sender.update() for _ in range(updates) for peer in self.peers]
        seconds, answers = self.link.exchange(self.link.frames(packets), outstanding)
        return len(answers) / seconds if answers else 0.0, _accepted(answers, self.known)


def generate_rounds(interface: str, station: str, secret: bytes) -> None:
    """Register everybody, then for each line of standard input a round of refreshes: its rate as a line."""
    generator = _Generator(interface, station, secret)
    updates = 1
    for _ in sys.stdin:
        rate, accepted = generator.run(updates, _OUTSTANDING)
        if accepted != updates * MOBILE_NODES:
            raise RuntimeError(f"{accepted} of {updates * MOBILE_NODES} were accepted")
        print(rate, flush=True)
        updates = _UPDATES_EACH


def generate(interface: str, station: str, secret: bytes) -> None:
    """Measure, and print the figures as JSON."""
    generator = _Generator(interface, station, secret)
    link, peers, known, run = generator.link, generator.peers, generator.known, generator.run
    registrations_per_s, registered = run(1, _OUTSTANDING)
    rates, accepted = [], 0
    for _ in range(_ROUNDS):
        rate, count = run(_UPDATES_EACH, _OUTSTANDING)
        rates.append(rate)
        accepted += count
    trips = []
    for peer in peers[:_SINGLES]:
        seconds, answers = link.exchange(link.frames([peer.sender.update()]), 1)
        accepted += _accepted(answers, known)
        trips.append(seconds * 1e3)
    _, burst = run(1, MOBILE_NODES)
    expected = _ROUNDS * _UPDATES_EACH * MOBILE_NODES + _SINGLES
    if registered != MOBILE_NODES or accepted != expected:
        raise RuntimeError(f"{registered} of {MOBILE_NODES} registered, {accepted} of {expected} refreshed")
    print(
        json.dumps(
            {
                "tun_bu_per_s": median(rates),
                "tun_registrations_per_s": registrations_per_s,
                "tun_round_trip_ms": median(trips),
                "tun_burst_of_1000_answered": burst,
            }
        )
    )
