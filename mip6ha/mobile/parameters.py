"""What a mobile node is told: validated, frozen, plain data.

Covered: the parameters of the mobile node's core with the defaults of RFC 6275 12. Not covered: where they
come from (``mobile_config``), keys at rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..binding.messages import MobileNetworkPrefix
from ..ipsec.ike.parameters import Parameters as IkeParameters
from ..ipsec.policy import Use
from ..parameters import AssociationParameters

__all__ = ["REFUSED_DELAY", "EmulatorParameters"]

REFUSED_DELAY = 420.0
"""Seconds of silence after a refusal; what the reference mobile node does."""


def _long_ago() -> datetime:
    # No certificate is valid to who was told no date.
    return datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EmulatorParameters:
    """One mobile node.

    ``interface_identifier`` is the lower half of every care-of address (8 octets). ``lifetime`` is what a
    Binding Update asks for, in seconds. ``sequence_floor`` is the highest outbound ESP sequence number that
    may have been used before this start; ``link_mtu`` the MTU of the foreign links. ``ike`` are those of the
    IKE endpoint, if there is one: its first peer is the home agent. ``wall`` tells certificates the date.
    """

    home_address: bytes
    home_prefix_length: int
    home_agent: bytes
    interface_identifier: bytes
    associations: tuple[AssociationParameters, ...] = ()
    prefixes: tuple[MobileNetworkPrefix, ...] = ()
    lifetime: int = 60
    link_local: bool = False
    care_of_dad: bool = False
    refused_delay: float = REFUSED_DELAY
    link_mtu: int = 1500
    sequence_floor: int = 0
    ike: IkeParameters | None = None
    wall: Callable[[], datetime] = field(default=_long_ago, compare=False, repr=False)

    @property
    def negotiated(self) -> tuple[Use, ...]:
        """What is protected by SAs that come from IKE, and is not sent or taken without them."""
        return () if self.ike is None else tuple(each.use for each in self.ike.peers[0].children)
