"""Which mobile nodes a home agent serves, and what follows for their SAs and their payload.

Covered: what is configured and what another member said, SAs that come and go with a mobile node, what its
signalling and its payload must be protected by. Not covered: registrations (``node``).
"""

from __future__ import annotations

from collections.abc import Mapping

from .associations import Associations
from .binding.authentication import MessageAuthentication
from .binding.messages import MessageType
from .forwarding import Forwarding
from .ipsec.policy import Mode
from .ipsec.sad import SecurityAssociation
from .ipv6 import MOBILITY
from .parameters import MobileNodeParameters
from .signalling import Signalling

__all__ = ["Changes", "MobileNodes"]

Changes = dict[bytes, MobileNodeParameters | None]
"""What becomes of home addresses; ``None``: it is served no longer."""


class MobileNodes:
    """The mobile nodes that are served, by home address; ``configured`` are those of the configuration."""

    def __init__(
        self,
        configured: tuple[MobileNodeParameters, ...],
        associations: Associations,
        forwarding: Forwarding,
        signalling: Signalling,
    ) -> None:
        self._associations = associations
        self._forwarding = forwarding
        self._signalling = signalling
        self._served: dict[bytes, MobileNodeParameters] = {}
        self._configured = {each.home_address: each for each in configured}
        for each in configured:
            self.admit(each)

    def __len__(self) -> int:
        return len(self._served)

    def __contains__(self, home_address: bytes) -> bool:
        return home_address in self._served

    def get(self, home_address: bytes) -> MobileNodeParameters | None:
        """What is known of a mobile node, ``None`` if it is not served."""
        return self._served.get(home_address)

    def configure(self, mobile_nodes: tuple[MobileNodeParameters, ...]) -> Changes:
        """Take note of what is configured now; what that changes, which is not done."""
        before = self._configured
        self._configured = {mobile_node.home_address: mobile_node for mobile_node in mobile_nodes}
        changes: Changes = {
            home_address: mobile_node
            for home_address, mobile_node in self._configured.items()
            if before.get(home_address) != mobile_node
        }
        changes |= {each: None for each in before if each not in self._configured}
        return changes

    def unconfigured(self) -> Changes:
        """The end of every mobile node that is served and not configured."""
        return {each: None for each in self._served if each not in self._configured}

    def changed(self, changes: Mapping[bytes, MobileNodeParameters | None], *, gently: bool) -> Changes:
        """What of ``changes`` is to be done; with ``gently`` not what would only make the same SAs anew."""
        if not gently:
            return dict(changes)
        for home_address, wanted in changes.items():
            if wanted is not None and self._associations.are_made_of(home_address, wanted.associations):
                self._serve(wanted)
        return {each: wanted for each, wanted in changes.items() if self._served.get(each) != wanted}

    def admit(self, mobile_node: MobileNodeParameters, before: tuple[SecurityAssociation, ...] = ()) -> None:
        """Serve a mobile node; ``before`` are the SAs that it had under other parameters."""
        home_address = mobile_node.home_address
        self._associations.admit(home_address, mobile_node.associations, before)
        modes = {each.use.mode for each in mobile_node.associations}
        self._demand(mobile_node, tunnel_mode=Mode.TUNNEL in modes)
        self._serve(mobile_node)

    def dismiss(self, home_address: bytes, *, stays: bool) -> tuple[SecurityAssociation, ...]:
        """End the service of a mobile node, which may stay under other parameters; its SAs as they were."""
        if not stays:
            self._signalling.authentications.pop(home_address, None)
        self._forwarding.demand_protection(home_address, demanded=False)
        del self._served[home_address]
        return self._associations.dismiss(home_address)

    def know(self, home_address: bytes, name: str, modes: set[Mode]) -> None:
        """Serve a mobile node whose SAs were put into the database from elsewhere, in these modes."""
        if home_address not in self._served:
            self._serve(self._configured.get(home_address) or MobileNodeParameters(home_address, name))
        self._demand(self._served[home_address], tunnel_mode=Mode.TUNNEL in modes)

    def _demand(self, mobile_node: MobileNodeParameters, *, tunnel_mode: bool) -> None:
        self._forwarding.demand_protection(
            mobile_node.home_address, demanded=tunnel_mode, negotiated=mobile_node.negotiated
        )

    def _serve(self, mobile_node: MobileNodeParameters) -> None:
        home_address = mobile_node.home_address
        self._served[home_address] = mobile_node
        authentications = self._signalling.authentications
        known, wanted = authentications.pop(home_address, None), mobile_node.authentication
        # Where there is an SA for updates, nothing less will do.
        if wanted is None or self._associations.demands(home_address, MOBILITY, MessageType.BINDING_UPDATE):
            return
        if known is None or not known.is_made_of(wanted.spi, wanted.key):
            known = MessageAuthentication(wanted.spi, wanted.key)
        authentications[home_address] = known
