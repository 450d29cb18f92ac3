"""An IKEv2 endpoint: datagrams and time in, effects out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime

from .effects import Effect
from .parameters import Parameters
from .sa import Address, IkeSa

__all__ = ["IkeEndpoint"]


class IkeEndpoint:
    """Both roles, for any number of peers.

    ``random(n)`` returns n octets nobody can guess; ``wall()`` the date, for certificates. ``iv_prefix`` are
    24 bits of member id and term, as in ``sad``. An IKE SA is named by our own SPI, a child by its inbound SPI.
    """

    def __init__(
        self,
        parameters: Parameters,
        random: Callable[[int], bytes],
        now: float,
        *,
        wall: Callable[[], datetime],
        iv_prefix: int = 0,
    ) -> None:
        self.parameters = parameters
        self.iv_prefix = iv_prefix
        self.counters: Counter[str] = Counter()
        self._ike_sas: dict[bytes, IkeSa] = {}

    @property
    def ike_sas(self) -> Mapping[bytes, IkeSa]:
        """Every IKE SA by our SPI."""
        return self._ike_sas

    def receive(self, datagram: bytes, source: Address, destination: Address, now: float) -> list[Effect]:
        """Take a datagram, without the non-ESP marker; ``counters`` count why one was dropped."""
        return []

    def next_deadline(self) -> float | None:
        """When :meth:`on_timer` wants to be called; the past where handshakes wait for their turn."""
        return None

    def on_timer(self, now: float) -> list[Effect]:
        """Do what is due."""
        return []

    def initiate(self, peer: str, local: Address, now: float) -> list[Effect]:
        """Begin an IKE SA with a peer of the parameters that has an address; ``KeyError`` if there is none."""
        return []

    def create_child(self, spi: bytes, name: str, now: float) -> list[Effect]:
        """Ask for another child of an IKE SA."""
        return []

    def rekey_child(self, spi: bytes, child: int, now: float) -> list[Effect]:
        """Replace a child before its time."""
        return []

    def delete_child(self, spi: bytes, child: int, now: float) -> list[Effect]:
        """End a child."""
        return []

    def rekey(self, spi: bytes, now: float) -> list[Effect]:
        """Replace an IKE SA before its time."""
        return []

    def delete(self, spi: bytes, now: float) -> list[Effect]:
        """End an IKE SA and its children; the peer is told."""
        return []

    def probe(self, spi: bytes, now: float) -> list[Effect]:
        """Ask whether the peer is alive."""
        return []

    def synchronise(self, spi: bytes, now: float) -> list[Effect]:
        """After a takeover, agree on message ids (RFC 6311); nothing where the peer knows nothing of it."""
        return []

    def peer_moved(self, spi: bytes, address: bytes, now: float) -> list[Effect]:
        """The peer is elsewhere, on the authority of a Binding Update with K (RFC 6275 11.7.1)."""
        return []

    def moved(self, spi: bytes, address: bytes, now: float) -> list[Effect]:
        """We are elsewhere; the peer learns it from the K flag."""
        return []

    def export_state(self, spi: bytes, now: float) -> bytes:
        """An IKE SA as octets; they hold keys."""
        return b""

    def import_state(self, octets: bytes, now: float) -> IkeSa:
        """Go on with an IKE SA that another member exported; ``Malformed`` if it is none."""
        raise NotImplementedError
