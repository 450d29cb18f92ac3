"""Cost of packets in the core: a refresh against one AESGCM.decrypt, and payload through the tunnels.

Covered: ``HomeAgent.receive`` from a packet's octets to its effects, with few mobile nodes. Packets are
sealed before the clock starts; the garbage collector runs as in production. Every figure is the median of
repeats. Not covered: how figures change with the number of bindings (``population``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from time import perf_counter

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mip6ha import ipv6
from mip6ha.effects import SendPacket
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import HEADER_LENGTH, UDP
from mip6ha.node import HomeAgent
from mip6ha.wire import address

from .workload import Sender, home_agent, mobile_nodes, randomness

__all__ = ["PAYLOAD_STEPS", "REFRESH_STEPS", "microseconds", "payload_figures", "refresh_figures"]

_REPEATS = 25
REFRESH_STEPS = _REPEATS + 1
"""How often :func:`refresh_figures` reports progress: the first repeat only warms up."""
PAYLOAD_STEPS = 4
"""How often :func:`payload_figures` reports progress."""

_CORRESPONDENT = address("2001:db8:c::1")
_MOBILE_NODES = 100
_REFRESHES_EACH = 10
_PAYLOAD_PACKETS = 500
_OPENED = 1000
_OCTETS = 100


def microseconds(home: HomeAgent, packets: Sequence[bytes], now: float) -> float:
    """The time that :meth:`HomeAgent.receive` needs for one of ``packets``; each must be answered."""
    before = sum(home.counters.values())
    receive = home.receive
    start = perf_counter()
    for packet in packets:
        effects = receive(packet, now)
    spent = perf_counter() - start
    if type(effects[-1]) is not SendPacket or sum(home.counters.values()) - before != len(packets):
        raise RuntimeError(f"packets were not served as they should have been: {home.counters}")
    return spent / len(packets) * 1e6


def _open_100() -> Callable[[], float]:
    """Measures one AESGCM.decrypt of 100 octets of plaintext with ESP's 8 octets of associated data."""
    random = randomness(1)
    cipher, nonce, head = AESGCM(random.randbytes(16)), random.randbytes(12), random.randbytes(8)
    sealed = cipher.encrypt(nonce, random.randbytes(_OCTETS), head)

    def measure() -> float:
        decrypt = cipher.decrypt
        start = perf_counter()
        for _ in range(_OPENED):
            decrypt(nonce, sealed, head)
        return (perf_counter() - start) / _OPENED * 1e6

    return measure


def refresh_figures(step: Callable[[], None]) -> dict[str, object]:
    """A refresh from Binding Update to sealed Binding Acknowledgement, and its ratio to one decryption.

    The two are measured in turn, so that whatever slows the machine slows both.
    """
    random = randomness(2)
    nodes = tuple(mobile_nodes(_MOBILE_NODES, random))
    home = home_agent(nodes, random, 0.0)
    senders = [Sender(node, random) for node in nodes]
    for sender in senders:
        home.receive(sender.update(), 0.0)
    open_100 = _open_100()
    refreshes, openings, ratios = [], [], []
    for repeat in range(_REPEATS + 1):
        order = senders * _REFRESHES_EACH
        random.shuffle(order)
        packets = [sender.update() for sender in order]
        before = open_100()
        refresh = microseconds(home, packets, 1.0)
        opening = (before + open_100()) / 2
        if repeat:
            refreshes.append(refresh)
            openings.append(opening)
            ratios.append(refresh / opening)
        step()
    return {
        "bu_refresh_us": median(refreshes),
        "aesgcm_open_100_us": median(openings),
        "bu_refresh_ratio": median(ratios),
    }


def _inner(source: bytes, destination: bytes, size: int) -> bytes:
    return ipv6.build(source, destination, UDP, bytes(size - HEADER_LENGTH))


def _payload(use: tuple[Use, ...], size: int) -> Iterator[tuple[float, float]]:
    """(out, in) of each repeat for inner packets of ``size`` octets."""
    random = randomness(3)
    (node,) = mobile_nodes(1, random, use)
    home = home_agent((node,), random, 0.0)
    sender = Sender(node, random)
    home.receive(sender.update(), 0.0)
    towards = _inner(_CORRESPONDENT, node.home_address, size)
    away = _inner(node.home_address, _CORRESPONDENT, size)
    for _ in range(_REPEATS + 1):
        out = microseconds(home, [towards] * _PAYLOAD_PACKETS, 1.0)
        yield out, microseconds(home, [sender.tunnelled(away) for _ in range(_PAYLOAD_PACKETS)], 1.0)


def payload_figures(step: Callable[[], None]) -> dict[str, object]:
    """Microseconds a packet from the correspondent into the tunnel, and from the reverse tunnel to it."""
    out_us, in_us = {}, {}
    for name, uses in (("plain", (Use.BINDING,)), ("aes_gcm", (Use.BINDING, Use.PAYLOAD))):
        for size in (100, 1400):
            _, *measured = _payload(uses, size)
            out_us[f"{name}_{size}"] = median(out for out, _ in measured)
            in_us[f"{name}_{size}"] = median(in_ for _, in_ in measured)
            step()
    return {"tunnel_out_us": out_us, "tunnel_in_us": in_us}
