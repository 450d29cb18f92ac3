"""Mutated IKE messages against an endpoint: strangers who have no keys, and peers who have.

Every message starts from one of a session between two endpoints, together with the state in which it met the
other end. A stranger changes the datagram. A peer changes what is inside, or the header, and seals it again
with the right keys, so that whatever lies behind the cryptography is reached. Each message meets an endpoint
that has just taken over that state, so that no mutation spoils the next.

``python -m tests.ipsec.ike.hostile --seconds 600 --seed 1`` runs until the time is up or something breaks;
``--seed`` with ``--rounds 1`` repeats a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from cryptography import x509

from mip6ha.ipsec.ike import state
from mip6ha.ipsec.ike.certificates import Trust
from mip6ha.ipsec.ike.effects import (
    Changed,
    Closed,
    Effect,
    Established,
    InstallChild,
    MoveChild,
    RemoveChild,
    SendDatagram,
)
from mip6ha.ipsec.ike.endpoint import IkeEndpoint
from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Header,
    Part,
    Payload,
    build_payloads,
    open_encrypted,
    parse_chain,
    parse_header,
    seal_part,
)
from mip6ha.ipsec.ike.numbers import PayloadKind
from mip6ha.ipsec.ike.parameters import Limits, Parameters
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.ike.transforms import Protection

from .authorities import End, root
from .world import (
    AES_CBC,
    AES_GCM,
    CALM,
    ESP_PFS,
    HA_ID,
    MN_ID,
    WALL,
    Node,
    World,
    payload,
    peer_of,
    signalling,
)

MESSAGES_IN_A_ROUND = 500
_INTERESTING = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    12,
    13,
    14,
    20,
    31,
    33,
    34,
    39,
    40,
    41,
    42,
    46,
    47,
    48,
    53,
    63,
    64,
    127,
    128,
    255,
)
_DAY = timedelta(days=1)


_NO_LIMIT = Limits(source_rate=1e9, source_burst=1e9)


def parameters(role: str, certificates: tuple[End, dict[str, End]] | None) -> Parameters:
    """Both children, each with a key exchange of its own; with certificates AES-CBC and small fragments."""
    changes: dict[str, object] = {
        "children": (signalling(ESP_PFS, role=role), payload(ESP_PFS, role=role, start=True))
    }
    if certificates is None:
        return Parameters((AES_GCM, AES_CBC), (peer_of(role, **changes),), timing=CALM, limits=_NO_LIMIT)
    authority, ends = certificates
    changes |= {
        "psk": None,
        "private_key": ends[role].key,
        "chain": (ends[role].der,),
        "trust": Trust((authority.certificate,)),
    }
    peer = peer_of(role, **changes)
    return Parameters((AES_CBC,), (peer,), timing=CALM, limits=_NO_LIMIT, fragment_size=576)


def _certificates() -> tuple[End, dict[str, End]]:
    validity = {"begin": WALL - _DAY, "end": WALL + _DAY}
    authority = root(**validity)
    names = {"mn": MN_ID, "ha": HA_ID}
    ends = {}
    for role, identity in names.items():
        text = identity.text
        name = x509.RFC822Name(text) if "@" in text else x509.DNSName(text)
        ends[role] = authority.issue(role, names=[name], **validity)
    return authority, ends


@dataclass(frozen=True)
class Situation:
    """A datagram, and the IKE SA's state at the end that it was for, ``None`` where it had none yet."""

    role: str
    parameters: Parameters
    datagram: SendDatagram
    state: bytes | None


class Session(World):
    """A session that takes note of what met what."""

    def __init__(self, certificates: tuple[End, dict[str, End]] | None) -> None:
        self._parameters = {role: parameters(role, certificates) for role in ("mn", "ha")}
        super().__init__(self._parameters["mn"], self._parameters["ha"])
        self.situations: list[Situation] = []

    def deliver(self, node: Node, datagram: SendDatagram) -> list[Effect]:
        header, _ = parse_header(datagram.octets)
        spi = header.spi_r if header.initiator else header.spi_i
        known = spi in node.endpoint.ike_sas
        role = "mn" if node is self.mn else "ha"
        before = node.endpoint.export_state(spi, self.now) if known else None
        self.situations.append(Situation(role, self._parameters[role], datagram, before))
        return super().deliver(node, datagram)

    def play(self) -> list[Situation]:
        """Everything that two ends do with each other; each exchange begun by either."""
        self.connect()
        for node in (self.mn, self.ha):
            node_sa, endpoint = node.sa, node.endpoint
            self.do(node, endpoint.rekey_child(node_sa.spi, node_sa.live_children()[0].spi_in, self.now))
            self.run()
            self.do(node, endpoint.probe(node_sa.spi, self.now))
            self.run()
            self.do(node, endpoint.rekey(node_sa.spi, self.now))
            self.run()
        node = self.mn
        self.do(node, node.endpoint.delete_child(node.sa.spi, node.sa.live_children()[0].spi_in, self.now))
        self.run()
        self.do(node, node.endpoint.create_child(node.sa.spi, "payload", self.now))
        self.run()
        self.do(node, node.endpoint.delete(node.sa.spi, self.now))
        self.run()
        self.check()
        return self.situations


_played: dict[bool, list[Situation]] = {}


def situations(*, with_certificates: bool) -> list[Situation]:
    if with_certificates not in _played:
        _played[with_certificates] = Session(_certificates() if with_certificates else None).play()
    return _played[with_certificates]


class Round:
    """So many mutations that follow from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.counters = Counter[str]()

    def run(self, messages: int = MESSAGES_IN_A_ROUND) -> Counter[str]:
        for _ in range(messages):
            situation = self._random.choice(situations(with_certificates=self._random.random() < 0.3))
            if self._random.random() < 0.3:
                self._stranger(situation)
            elif situation.datagram.octets[16] in (PayloadKind.ENCRYPTED, PayloadKind.FRAGMENT):
                self._peer(situation)
            else:
                self._beginner(situation)
        return self.counters

    def _endpoint(self, situation: Situation) -> IkeEndpoint:
        endpoint = IkeEndpoint(situation.parameters, self._random.randbytes, 0.0, wall=lambda: WALL)
        if situation.state is not None:
            endpoint.import_state(situation.state, 0.0)
        return endpoint

    def _give(self, endpoint: IkeEndpoint, situation: Situation, octets: bytes) -> list[Effect]:
        datagram = situation.datagram
        effects = endpoint.receive(octets, datagram.local, datagram.remote, 1.0)
        while endpoint.next_deadline() == float("-inf"):
            effects += endpoint.on_timer(1.0)
        self.counters.update(endpoint.counters)
        self.counters.update(type(each).__name__ for each in effects)
        for each in effects:
            if isinstance(each, SendDatagram):
                parse_header(each.octets)
        return effects

    def _stranger(self, situation: Situation) -> None:
        """Without keys nothing that is protected can be changed, nor an IKE SA that has keys."""
        octets = self._changed(situation.datagram.octets)
        if octets == situation.datagram.octets:
            return
        endpoint = self._endpoint(situation)
        before = {spi: endpoint.export_state(spi, 1.0) for spi in endpoint.ike_sas}
        effects = self._give(endpoint, situation, octets)
        protected = situation.datagram.octets[16] in (PayloadKind.ENCRYPTED, PayloadKind.FRAGMENT)
        if protected:
            after = {spi: endpoint.export_state(spi, 1.0) for spi in before}
            assert after == before
            harmful = (Changed, Established, Closed, InstallChild, RemoveChild, MoveChild)
            assert not [each for each in effects if isinstance(each, harmful) and octets[18] != 34]
            assert sum(isinstance(each, SendDatagram) for each in effects) <= 1

    def _beginner(self, situation: Situation) -> None:
        """IKE_SA_INIT is nobody's yet: whatever comes, there is at most a half-open IKE SA."""
        header, first = parse_header(situation.datagram.octets)
        content = self._changed_chain(first, situation.datagram.octets[HEADER_SIZE:])
        octets = bytearray(situation.datagram.octets[:HEADER_SIZE] + content[1])
        octets[16] = content[0]
        octets[24:28] = len(octets).to_bytes(4, "big")
        endpoint = self._endpoint(situation)
        effects = self._give(endpoint, situation, bytes(octets))
        assert len(endpoint.ike_sas) <= 1
        assert not [each for each in effects if isinstance(each, Established | InstallChild | RemoveChild)]
        self._check(endpoint)
        assert header.response or len([each for each in effects if isinstance(each, SendDatagram)]) <= 1

    def _peer(self, situation: Situation) -> None:
        """Who has the keys may say anything: it is answered, or ends the IKE SA; the books stay in order."""
        endpoint = self._endpoint(situation)
        octets = situation.datagram.octets
        header, first = parse_header(octets)
        [ike_sa] = endpoint.ike_sas.values()
        sealing, opening = self._protections(ike_sa, header)
        encrypted = parse_chain(octets, HEADER_SIZE, first).encrypted
        assert encrypted is not None
        if encrypted.kind == PayloadKind.FRAGMENT:
            numbers = octets[encrypted.start : encrypted.start + 4]
            content = sealing.open(octets[: encrypted.start + 4], octets[encrypted.start + 4 :])
        else:
            numbers, content = b"", open_encrypted(octets, encrypted, sealing)
        part = Part(encrypted.kind, *self._rearranged(encrypted.first, numbers, content))
        changed = self._changed_header(header)
        children = set(ike_sa.children)
        effects = self._give(endpoint, situation, seal_part(changed, part, sealing, self._random.randbytes))
        for each in effects:
            if isinstance(each, InstallChild):
                assert each.installation.child.spi_in not in children
                children.add(each.installation.child.spi_in)
            elif isinstance(each, RemoveChild):
                children.remove(each.child.spi_in)
        assert children == {spi for each in endpoint.ike_sas.values() for spi in each.children}
        self._check(endpoint)
        expected = not header.response and encrypted.kind == PayloadKind.ENCRYPTED and changed == header
        answers = [each.octets for each in effects if isinstance(each, SendDatagram)]
        if expected:
            answer, _ = parse_header(answers[0])
            assert answer.response
            assert (answer.message_id, answer.exchange) == (header.message_id, header.exchange)
            if answers[0][16] == PayloadKind.ENCRYPTED:
                opening.open(answers[0][:32], answers[0][32:])

    @staticmethod
    def _protections(ike_sa: IkeSa, header: Header) -> tuple[Protection, Protection]:
        keys = ike_sa.keys
        assert keys is not None
        of_initiator = Protection(ike_sa.suite, keys.ei, keys.ai)
        of_responder = Protection(ike_sa.suite, keys.er, keys.ar)
        return (of_initiator, of_responder) if header.initiator else (of_responder, of_initiator)

    @staticmethod
    def _check(endpoint: IkeEndpoint) -> None:
        """What goes on can be handed over, and time may pass."""
        for spi, ike_sa in endpoint.ike_sas.items():
            if ike_sa.state is not State.CLOSED:
                state.decode(endpoint.export_state(spi, 1.0), 1.0)
        endpoint.on_timer(1e6)

    # Mutations

    def _changed(self, octets: bytes) -> bytes:
        random, changed = self._random, bytearray(octets)
        kind = random.random()
        if kind < 0.1:
            return octets[: random.randrange(len(octets) + 1)]
        if kind < 0.2:
            return octets + random.randbytes(random.randrange(1, 40))
        if kind < 0.3 and len(changed) >= HEADER_SIZE:
            # The lengths agree, so that it gets further.
            at = random.randrange(HEADER_SIZE, len(changed) + 1)
            changed[at:at] = random.randbytes(random.randrange(1, 20))
            changed[24:28] = len(changed).to_bytes(4, "big")
        for _ in range(random.choice((1, 1, 2, 4))):
            if changed:
                at = random.randrange(len(changed))
                changed[at] = random.choice((random.choice(_INTERESTING), random.randrange(256)))
        return bytes(changed)

    def _changed_header(self, header: Header) -> Header:
        random, kind = self._random, self._random.random()
        if kind < 0.03:
            return header._replace(exchange=random.choice((34, 35, 36, 37, 38, 43, 240)))
        if kind < 0.06:
            return header._replace(
                message_id=(header.message_id + random.choice((-1, 1, 2, 1 << 31))) % (1 << 32)
            )
        if kind < 0.08:
            return header._replace(response=not header.response)
        if kind < 0.09:
            return header._replace(initiator=not header.initiator)
        if kind < 0.1:
            return header._replace(version=random.choice((0x10, 0x21, 0x2F, 0x30)))
        return header

    def _rearranged(self, first: int, numbers: bytes, content: bytes) -> tuple[int, bytes, bytes]:
        if numbers and self._random.random() < 0.3:
            numbers = self._changed(numbers)[:4].ljust(4, b"\0")
        return (first, numbers, self._changed(content)) if numbers else self._inside(first, content)

    def _inside(self, first: int, content: bytes) -> tuple[int, bytes, bytes]:
        kind, octets = self._changed_chain(first, content)
        return kind, b"", octets

    def _changed_chain(self, first: int, content: bytes) -> tuple[int, bytes]:
        """Other octets, or other payloads: fewer, more, in another order, unknown ones."""
        random = self._random
        if random.random() < 0.5 or not content:
            return (random.choice(_INTERESTING) if random.random() < 0.05 else first), self._changed(content)
        payloads = list(parse_chain(content, 0, first).payloads)
        for _ in range(random.choice((1, 1, 2, 3))):
            at = random.randrange(len(payloads) + 1)
            match random.randrange(6):
                case 0 if payloads:
                    del payloads[at % len(payloads)]
                case 1 if payloads:
                    payloads.insert(at, random.choice(payloads))
                case 2:
                    random.shuffle(payloads)
                case 3:
                    kind = random.choice((*_INTERESTING, 49, 50, 51, 99, 200))
                    body = random.randbytes(random.randrange(40))
                    payloads.insert(at, Payload(kind or 99, body, random.random() < 0.5))
                case 4 if payloads:
                    at %= len(payloads)
                    payloads[at] = payloads[at]._replace(body=self._changed(payloads[at].body))
                case 5:
                    payloads.insert(at, self._notify())
                case _:
                    pass
        return (payloads[0].kind if payloads else 0), build_payloads(payloads)

    def _notify(self) -> Payload:
        random = self._random
        kind = random.choice((*range(1, 48), *range(16384, 16435), random.randrange(1 << 16)))
        protocol, size = random.choice(((0, 0), (0, 0), (1, 8), (3, 4), (3, 0)))
        body = bytes((protocol, size)) + kind.to_bytes(2, "big") + random.randbytes(size)
        return Payload(PayloadKind.NOTIFY, body + random.randbytes(random.choice((0, 0, 1, 2, 4, 12, 20))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--rounds", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    end, total = time.monotonic() + options.seconds, Counter[str]()
    for seed in range(options.seed, options.seed + options.rounds):
        if time.monotonic() > end:
            break
        try:
            total += Round(seed).run()
        except Exception:
            print(f"round {seed}: stopped", file=sys.stderr)
            raise
    for name, count in sorted(total.items()):
        print(f"{count:9} {name}")


if __name__ == "__main__":
    main()
