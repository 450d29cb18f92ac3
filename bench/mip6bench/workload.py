"""What every measurement works on: a home agent with many mobile nodes, and packets from them.

Covered: mobile nodes with one pair of transport mode SAs under AES-GCM-16, their Binding Updates, sealed
by the same ESP code that the emulator uses. Not covered: measuring.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from mip6ha import ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingUpdate, UpdateFlag
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.ipv6 import ESP, MOBILITY
from mip6ha.mobility import Option
from mip6ha.node import HomeAgent
from mip6ha.parameters import AssociationParameters, HomeAgentParameters, HomePrefix, MobileNodeParameters
from mip6ha.wire import address

__all__ = [
    "FIRST_HOME_ADDRESS",
    "FIRST_SPI",
    "HOME_AGENT",
    "LIFETIME",
    "TRANSFORM",
    "Sender",
    "home_agent",
    "home_agent_parameters",
    "keys",
    "mobile_nodes",
    "randomness",
]

HOME_AGENT = address("2001:db8:a::1")
LIFETIME = 3600
"""Seconds that every Binding Update asks for."""

_HOME_PREFIX = HomePrefix(address("2001:db8:a::"), 64)
FIRST_HOME_ADDRESS = int.from_bytes(address("2001:db8:a::1:0"), "big")
_FIRST_CARE_OF_ADDRESS = int.from_bytes(address("2001:db8:b::1:0"), "big")
FIRST_SPI = 0x10000
_FLAGS = UpdateFlag.ACKNOWLEDGE | UpdateFlag.HOME_REGISTRATION
TRANSFORM = transform("aes-gcm-16")
_KEY_LENGTH = 20


def randomness(seed: int) -> Random:
    """Repeatable octets: nothing here is a secret."""
    return Random(seed)


def keys(random: Random) -> Keys:
    """Keys for one SA under :data:`TRANSFORM`."""
    return Keys(random.randbytes(_KEY_LENGTH))


def mobile_nodes(
    count: int, random: Random, uses: tuple[Use, ...] = (Use.BINDING,)
) -> Iterator[MobileNodeParameters]:
    """``count`` mobile nodes, each with a pair of SAs under keys of its own for each of ``uses``."""
    for index in range(count):
        spi = FIRST_SPI + index * 2 * len(uses)
        associations = []
        for use in uses:
            for direction in (Direction.IN, Direction.OUT):
                associations.append(AssociationParameters(spi, direction, use, TRANSFORM, keys(random)))
                spi += 1
        home_address = (FIRST_HOME_ADDRESS + index).to_bytes(16, "big")
        yield MobileNodeParameters(home_address, f"mn{index}", tuple(associations))


def home_agent_parameters(
    nodes: tuple[MobileNodeParameters, ...], sequence_floor: int = 0
) -> HomeAgentParameters:
    """Parameters to serve ``nodes`` on a physical home link, without waiting for DAD."""
    return HomeAgentParameters(
        address=HOME_AGENT,
        home_prefixes=(_HOME_PREFIX,),
        mobile_nodes=nodes,
        duplicate_address_detection=False,
        max_lifetime=LIFETIME,
        max_bindings=max(1, len(nodes)),
        sequence_floor=sequence_floor,
    )


def home_agent(nodes: tuple[MobileNodeParameters, ...], random: Random, now: float) -> HomeAgent:
    """A home agent that serves ``nodes``."""
    return HomeAgent(home_agent_parameters(nodes), random.randbytes, now)


class Sender:
    """The other end of one mobile node: its outbound SAs and its sequence number.

    ``used`` counts the Binding Updates that another sender has already sent for it.
    """

    __slots__ = ("_associations", "_random", "care_of_address", "home_address", "sequence")

    def __init__(self, node: MobileNodeParameters, random: Random, used: int = 0) -> None:
        self.home_address = node.home_address
        index = int.from_bytes(node.home_address, "big") - FIRST_HOME_ADDRESS
        self.care_of_address = (_FIRST_CARE_OF_ADDRESS + index).to_bytes(16, "big")
        self.sequence = used
        self._random = random
        self._associations = {
            each.use: SecurityAssociation(
                spi=each.spi,
                direction=Direction.OUT,
                use=each.use,
                home_address=node.home_address,
                transform=each.transform,
                keys=each.keys,
                to_home_agent=True,
            )
            for each in node.associations
            if each.direction is Direction.IN
        }
        for association in self._associations.values():
            association.sequence = used

    def update(self, lifetime: int = LIFETIME) -> bytes:
        """The next Binding Update as a packet, with Alternate Care-of Address; ``lifetime`` in seconds."""
        self.sequence = self.sequence + 1 & 0xFFFF
        option = Option(messages.OptionType.ALTERNATE_CARE_OF_ADDRESS, self.care_of_address)
        update = BindingUpdate(self.sequence, _FLAGS, lifetime // messages.LIFETIME_UNIT, (option,))
        octets = messages.build(update, self.home_address, HOME_AGENT)
        sealed = self._seal(Use.BINDING, MOBILITY, octets)
        return ipv6.build(self.care_of_address, HOME_AGENT, ESP, sealed, home_address=self.home_address)

    def tunnelled(self, packet: bytes) -> bytes:
        """``packet`` in the reverse tunnel, protected where the mobile node has SAs for payload."""
        if Use.PAYLOAD in self._associations:
            sealed = self._seal(Use.PAYLOAD, ipv6.IPV6, packet)
            return ipv6.build(self.care_of_address, HOME_AGENT, ESP, sealed)
        return ipv6.build(self.care_of_address, HOME_AGENT, ipv6.IPV6, packet)

    def _seal(self, use: Use, next_header: int, octets: bytes) -> bytes:
        return esp.protect(self._associations[use], next_header, octets, self._random.randbytes)
