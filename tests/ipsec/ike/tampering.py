"""What a peer might send that has the keys and breaks the rules: opened, changed, and sealed again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Header,
    Payload,
    open_encrypted,
    parse_chain,
    parse_header,
    seal,
)
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.ike.transforms import Protection

from .world import Node, SendDatagram

_RANDOM = random.Random(99)


def protection(ike_sa: IkeSa, *, of_initiator: bool) -> Protection:
    """What protects one direction of an IKE SA."""
    keys = ike_sa.keys
    assert keys is not None
    key, integrity = (keys.ei, keys.ai) if of_initiator else (keys.er, keys.ar)
    return Protection(ike_sa.suite, key, integrity, 0xFFFFFF)


def of(node: Node, datagram: SendDatagram) -> IkeSa:
    """The IKE SA of a node that a datagram belongs to."""
    header, _ = parse_header(datagram.octets)
    return next(
        each
        for each in node.endpoint.ike_sas.values()
        if each.spi_i == header.spi_i and each.spi_r in (header.spi_r, bytes(8))
    )


def opened(node: Node, datagram: SendDatagram) -> tuple[Header, tuple[Payload, ...]]:
    """Header and payloads of a message that a node sent or got."""
    header, first = parse_header(datagram.octets)
    encrypted = parse_chain(datagram.octets, HEADER_SIZE, first).encrypted
    assert encrypted is not None
    sealed = protection(of(node, datagram), of_initiator=header.initiator)
    return header, parse_chain(
        open_encrypted(datagram.octets, encrypted, sealed), 0, encrypted.first
    ).payloads


def changed(
    node: Node, datagram: SendDatagram, change: Callable[[Sequence[Payload]], Sequence[Payload]]
) -> SendDatagram:
    """The same message with other payloads."""
    header, payloads = opened(node, datagram)
    sealed = protection(of(node, datagram), of_initiator=header.initiator)
    return datagram._replace(octets=seal(header, change(payloads), sealed, _RANDOM.randbytes))


def forged(
    node: Node,
    exchange: int,
    payloads: Sequence[Payload],
    *,
    message_id: int | None = None,
    response: bool = False,
) -> SendDatagram:
    """A message that ``node`` would have sent if it were of another mind; it does not count it."""
    [ike_sa] = [each for each in node.endpoint.ike_sas.values() if each.state is State.ESTABLISHED]
    number = ike_sa.next_id if message_id is None else message_id
    header = Header(ike_sa.spi_i, ike_sa.spi_r, exchange, ike_sa.initiator, response, number)
    sealed = protection(ike_sa, of_initiator=ike_sa.initiator)
    octets = seal(header, payloads, sealed, _RANDOM.randbytes)
    return SendDatagram(ike_sa.local, ike_sa.remote, octets)
