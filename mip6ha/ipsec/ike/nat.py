"""NAT detection (RFC 7296 2.23): does each end see the addresses that the other one has?

Covered: the hashes, what follows from them. Not covered: keepalives: a mobile node's Binding Updates are more
frequent than a NAT forgets, and liveness checks do the rest.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes

from .contents import Contents
from .message import Payload
from .numbers import Notification
from .sa import Address, IkeSa
from .turn import Turn, notify

__all__ = ["detect", "digest", "notifies"]


def digest(spi_i: bytes, spi_r: bytes, address: Address) -> bytes:
    """The hash of an address and port under the SPIs of the message that it stands in."""
    # No security hangs on this SHA-1: RFC 7296 2.23 asks for it.
    code = hashes.Hash(hashes.SHA1())
    code.update(spi_i + spi_r + address[0] + address[1].to_bytes(2, "big"))
    return code.finalize()


def notifies(turn: Turn, ike_sa: IkeSa, spi_r: bytes) -> list[Payload]:
    """Both notifies; one that cannot hold makes the peer believe in a NAT, and send ESP in UDP."""
    source = digest(ike_sa.spi_i, spi_r, ike_sa.local)
    if turn.parameters.encapsulate:
        source = turn.random(len(source))
    return [
        notify(Notification.NAT_DETECTION_SOURCE_IP, source),
        notify(Notification.NAT_DETECTION_DESTINATION_IP, digest(ike_sa.spi_i, spi_r, ike_sa.remote)),
    ]


def detect(turn: Turn, ike_sa: IkeSa, spi_r: bytes, contents: Contents) -> None:
    """Note which end is behind a NAT, by the peer's notifies; without any, nothing is known of NATs."""
    sources = [each.data for each in contents.notifies if each.kind == Notification.NAT_DETECTION_SOURCE_IP]
    ours = contents.notify(Notification.NAT_DETECTION_DESTINATION_IP)
    if not sources or ours is None:
        return
    ike_sa.nat_there = digest(ike_sa.spi_i, spi_r, ike_sa.remote) not in sources
    ike_sa.nat_here = digest(ike_sa.spi_i, spi_r, ike_sa.local) != ours.data
    ike_sa.encapsulate = ike_sa.nat_there or ike_sa.nat_here or turn.parameters.encapsulate
