"""100,000 mutated packets leave the home agent serving, with nothing half-applied."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha import ipv6
from mip6ha.ipsec import esp
from mip6ha.ipsec.policy import Use

from ..node.world import CARE_OF_1, HOME_AGENT, MobileNode, World
from .home_agent import PACKETS_IN_A_ROUND, Round

ROUNDS = 100_000 // PACKETS_IN_A_ROUND


@pytest.mark.fuzz
def test_a_hundred_thousand_mutated_packets() -> None:
    total = Counter[str]()
    for seed in range(ROUNDS):
        total += Round(seed).run()
    # It came everywhere: past the parser, past the cryptography, into the rules.
    for reason in [
        "bad_icv",
        "replayed",
        "selector_mismatch",
        "home_address_not_of_sa",
        "mobility_header_checksum",
        "mobility_option_length",
        "refused_132",
        "refused_133",
        "refused_135",
        "refused_139",
        "refused_140",
        "refused_174",
        "registrations",
        "refreshes",
        "moves",
        "deregistrations",
        "expiries",
        "prefix_advertisements",
        "tunnelled_in",
        "tunnelled_out",
        "overlapping_fragments",
        "tunnel_errors_relayed",
        "unprotected_payload",
        "binding_errors",
        "home_agent_discoveries",
        "path_mtu_updates",
    ]:
        assert total[reason], reason


def test_a_round_is_the_same_every_time() -> None:
    assert Round(7).run(300) == Round(7).run(300)


@given(st.binary(max_size=200))
def test_any_octets(data: bytes) -> None:
    world = World(MobileNode())
    world.receive(data)
    world.receive(data[:24] + HOME_AGENT + data[24:])


@given(st.integers(0, 255), st.binary(max_size=200), st.booleans())
def test_any_payload_of_a_good_header(next_header: int, payload: bytes, claimed: bool) -> None:
    node = MobileNode()
    world = World(node)
    home_address = node.home_address if claimed else None
    world.receive(ipv6.build(CARE_OF_1, HOME_AGENT, next_header, payload, home_address=home_address))


@given(st.sampled_from(Use), st.integers(0, 255), st.binary(max_size=120))
def test_any_plaintext_under_a_good_sa(use: Use, protocol: int, plaintext: bytes) -> None:
    node = MobileNode("2001:db8:a::100", *Use)
    world = World(node)
    node.register(world)
    octets = esp.protect(node.outbound[use], protocol, plaintext, node.random)
    for home_address in (node.home_address, None):
        world.receive(ipv6.build(CARE_OF_1, HOME_AGENT, 50, octets, home_address=home_address))
    node.register(world)
