"""What a kernel that makes the packets is told; the packets themselves are in ``test_mobile_node``."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from mip6ha import icmpv6, mobility
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement, BindingError, BindingUpdate, ErrorStatus
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ICMPV6, MOBILITY
from mip6ha.mobile.effects import (
    AnnounceAddress,
    AtHome,
    DropCareOfAddress,
    Event,
    LeaveHome,
    RemoveTunnel,
    SendMessage,
    SetTunnel,
    SignallingEffect,
    SolicitRouter,
    UseCareOfAddress,
)
from mip6ha.mobile.signalling import Signalling

from .test_mobile_node import PLAIN, kinds, pair
from .timeline import (
    CARE_OF_1,
    CARE_OF_2,
    CORRESPONDENT,
    FOREIGN_1,
    FOREIGN_2,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    HOME_ROUTER,
    ROUTER_1,
    ROUTER_2,
    advertised,
    seeded,
)


def made(*uses: Use) -> Signalling:
    associations = tuple(each for index, use in enumerate(uses) for each in pair(use, 0x2000 + 2 * index))
    return Signalling(replace(PLAIN, associations=associations), seeded("signalling"), Counter())


def arrives(node: Signalling, prefix: bytes, router: bytes, now: float) -> list[SignallingEffect]:
    effects = node.carrier(True, now)
    return effects + node.advertisement(router, 255, advertised(prefix, router), now)


def says(
    node: Signalling, body: messages.Body, now: float, to: bytes = HOME_ADDRESS
) -> list[SignallingEffect]:
    octets = messages.build(body, HOME_AGENT, to)
    return node.receive(MOBILITY, octets, HOME_AGENT, to, now)


def accept(node: Signalling, now: float) -> list[SignallingEffect]:
    return says(node, BindingAcknowledgement(0, 0, node.registration.sequence, 15), now)


def sent(effects: list[SignallingEffect]) -> list[SendMessage]:
    return [effect for effect in effects if isinstance(effect, SendMessage)]


def test_a_message_goes_from_the_home_address_by_the_care_of_address() -> None:
    node = made()
    (message,) = sent(arrives(node, FOREIGN_1, ROUTER_1, 0.0))
    assert (message.protocol, message.care_of_address) == (MOBILITY, CARE_OF_1)
    assert isinstance(messages.parse(message.octets, HOME_ADDRESS, HOME_AGENT), BindingUpdate)


def test_the_tunnel_is_there_before_the_acknowledgement_is_told() -> None:
    node = made()
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    effects = accept(node, 0.1)
    assert effects[0] == SetTunnel(HOME_ADDRESS, CARE_OF_1)
    assert isinstance(effects[1], Event)
    assert effects[1].name == "binding_acknowledged"
    # A refresh changes nothing.
    assert kinds(node.on_timer(57.1)) == [SendMessage]
    assert kinds(accept(node, 57.2)) == []


def test_the_tunnel_ends_before_its_address_and_begins_after_the_next_one() -> None:
    node = made()
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    accept(node, 0.0)
    effects = arrives(node, FOREIGN_2, ROUTER_2, 1.0)
    order = [SolicitRouter, UseCareOfAddress, SendMessage]
    assert kinds(effects) == [RemoveTunnel, DropCareOfAddress, *order]
    assert UseCareOfAddress(CARE_OF_2, ROUTER_2) in effects
    assert kinds(accept(node, 1.1)) == [SetTunnel]
    effects = node.carrier(False, 2.0)
    assert kinds(effects) == [RemoveTunnel, DropCareOfAddress]
    # Back where the home agent still thinks it is.
    assert kinds(arrives(node, FOREIGN_2, ROUTER_2, 3.0)) == [*order, SetTunnel]


def test_at_home_there_is_no_tunnel_and_no_care_of_address() -> None:
    node = made()
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    accept(node, 0.0)
    effects = arrives(node, HOME_PREFIX, HOME_ROUTER, 1.0)
    assert kinds(effects) == [RemoveTunnel, DropCareOfAddress, SolicitRouter, AtHome, SendMessage]
    (message,) = sent(effects)
    assert message.care_of_address is None
    assert kinds(accept(node, 1.1)) == [AnnounceAddress]
    assert kinds(arrives(node, FOREIGN_1, ROUTER_1, 2.0))[0] is LeaveHome


def test_a_binding_that_expires_or_is_unknown_ends_the_tunnel() -> None:
    node = made()
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    accept(node, 0.0)
    assert RemoveTunnel(HOME_ADDRESS) in node.on_timer(60.0)
    accept(node, 60.0)
    error = BindingError(ErrorStatus.UNKNOWN_BINDING, HOME_ADDRESS)
    assert RemoveTunnel(HOME_ADDRESS) in says(node, error, 61.0, CARE_OF_1)


def test_prefixes_are_asked_for_where_that_is_protected() -> None:
    node = made(Use.BINDING, Use.PREFIX)
    arrives(node, FOREIGN_1, ROUTER_1, 0.0)
    (message,) = sent(accept(node, 0.0))
    assert (message.protocol, message.care_of_address) == (ICMPV6, CARE_OF_1)
    body = message.octets[4:6] + bytes(2)
    kind = icmpv6.MOBILE_PREFIX_ADVERTISEMENT
    for source, reason in ((CORRESPONDENT, 1), (HOME_AGENT, 1)):
        octets = icmpv6.message(kind, 0, body, source, HOME_ADDRESS)
        effects = node.receive(ICMPV6, octets, source, HOME_ADDRESS, 0.1)
        assert node.counters["mobile_prefix_advertisement_address"] == reason
    assert [effect.name for effect in effects if isinstance(effect, Event)] == ["mobile_prefix_advertisement"]


@pytest.mark.parametrize(
    ("octets", "source", "reason"),
    [
        (messages.build(BindingAcknowledgement(0, 0, 0, 1), CORRESPONDENT, HOME_ADDRESS), CORRESPONDENT,
         "mobility_source"),
        (messages.build(BindingAcknowledgement(0, 0, 0, 1), HOME_AGENT, HOME_ADDRESS), HOME_AGENT,
         "unexpected_acknowledgement"),
        (messages.build(BindingUpdate(0, 0, 0, ()), HOME_AGENT, HOME_ADDRESS), HOME_AGENT,
         "unexpected_mobility_message"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_counted(octets: bytes, source: bytes, reason: str) -> None:
    node = made()
    assert node.receive(MOBILITY, octets, source, HOME_ADDRESS, 0.0) == []
    assert node.counters == {reason: 1}
    assert mobility.message_type(octets) is not None
