"""What cannot be configured is said before anything runs."""

from __future__ import annotations

import pytest

from mip6ha.ipsec.ike.parameters import Parameters, Scope
from mip6ha.ipsec.ike.selectors import ANY_PORT, TrafficSelector

from ...octets import HOME_ADDRESS, HOME_AGENT
from .world import AES_GCM, parameters_of, peer_of


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"psk": None}, "a pre-shared key, or"),
        ({"psk": b""}, "is not empty"),
        ({"remote": None}, "for one identity"),
        ({"chain": (bytes(0x4001),)}, "more than 16384 octets"),
    ],
)
def test_a_peer_that_cannot_be(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        peer_of("ha", **changes)


def test_parameters_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="same name"):
        Parameters(proposals=(AES_GCM,), peers=(peer_of("ha"), peer_of("ha")))
    with pytest.raises(ValueError, match="no proposal"):
        parameters_of("ha", proposals=())


def test_a_scope_is_on_the_home_addresses_or_where_it_says() -> None:
    homes = (HOME_ADDRESS, HOME_AGENT)
    assert Scope(135, 5).selectors(homes) == tuple(TrafficSelector(135, 5, 5, each, each) for each in homes)
    assert Scope(135).selectors(()) == ()
    assert Scope(58, 146).selectors(homes[:1]) == (
        TrafficSelector(58, 0x9200, 0x92FF, HOME_ADDRESS, HOME_ADDRESS),
    )
    everywhere = Scope(0, None, bytes(16), b"\xff" * 16)
    assert everywhere.selectors(()) == (TrafficSelector(0, *ANY_PORT, bytes(16), b"\xff" * 16),)


def test_secrets_are_not_shown() -> None:
    peer = peer_of("ha")
    assert peer.psk is not None
    assert peer.psk.decode() not in repr(parameters_of("ha", peer))


def test_peers_and_children_by_name() -> None:
    parameters = parameters_of("ha")
    peer = parameters.peer("mn")
    assert peer is not None
    assert parameters.peer("nobody") is None
    assert peer.child("signalling") is peer.children[0]
    assert peer.child("nothing") is None
