"""What the kernel dataplane says over netlink reads back as what it meant."""

from __future__ import annotations

from struct import unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.edge import kernel_messages as messages
from mip6ha.edge.kernel_messages import INGRESS, Filter, Route, Rule
from mip6ha.edge.netlink import PROTOCOL
from mip6ha.edge.netlink_messages import Message, Request, attributes
from mip6ha.wire import address

ADDRESSES = st.binary(min_size=16, max_size=16)
AGENT = address("2001:db8:a::1")
HOME = address("2001:db8:a::100")
CARE_OF = address("2001:db8:b::42")


@given(ADDRESSES, st.integers(0, 128), st.integers(1, 1 << 31), st.none() | st.tuples(ADDRESSES, ADDRESSES))
def test_a_route_reads_back(
    prefix: bytes, length: int, device: int, tunnel: tuple[bytes, bytes] | None
) -> None:
    route = Route(prefix, length, device, tunnel)
    request = messages.add_route(route, 13501)
    assert messages.route_in(Message(request.kind, request.body), 13501) == route
    assert messages.route_in(Message(request.kind, request.body), 13502) is None


@given(ADDRESSES, st.integers(0, 128), ADDRESSES, st.integers(1, 1 << 31), st.booleans())
def test_a_filter_reads_back(prefix: bytes, length: int, care_of: bytes, handle: int, drops: bool) -> None:
    wanted = Filter(care_of, AGENT, prefix, length, drops)
    request = messages.add_filter(7, INGRESS, 1000, handle, wanted)
    message = Message(request.kind, request.body)
    assert messages.filter_in(message, 7, INGRESS, 1000) == (handle, wanted)
    assert messages.filter_in(message, 8, INGRESS, 1000) is None
    assert messages.filter_in(message, 7, INGRESS, 1001) is None


def test_routes_of_others_are_not_ours() -> None:
    body = bytearray(messages.add_route(Route(HOME, 128, 3), 254).body)
    body[5] = 3
    assert messages.route_in(Message(24, bytes(body)), 254) is None


@pytest.mark.parametrize(
    "rule",
    [Rule(13497, 13757, "mip6ha", AGENT), Rule(13499, 13757, None, AGENT, 41), Rule(13501, 13501)],
)
def test_a_rule_says_all_that_it_is(rule: Rule) -> None:
    for request in (messages.add_rule(rule), messages.remove_rule(rule)):
        assert request.body[1] == (128 if rule.to else 0)
        found = attributes(request.body, 12)
        assert found.get(1) == rule.to
        assert found.get(3) == (rule.interface.encode() + b"\0" if rule.interface else None)
        assert (found[6], found[15]) == tuple(each.to_bytes(4, "little") for each in rule[:2])
        assert found.get(22) == (bytes((rule.protocol,)) if rule.protocol else None)
        assert found[21] == bytes((PROTOCOL,))


def run(program: bytes, packet: bytes) -> int:
    """What a classic BPF program of the few instructions that are used returns."""
    at = value = 0
    while True:
        code, when, otherwise, constant = unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return constant
        if code == 0x15:
            at += when if value == constant else otherwise
        else:
            value = int.from_bytes(packet[constant : constant + {0x20: 4, 0x28: 2, 0x30: 1}[code]], "big")


def notification(request: Request, port: int) -> bytes:
    head = (16 + len(request.body)).to_bytes(4, "little") + request.kind.to_bytes(2, "little")
    return head + bytes(6) + port.to_bytes(4, "little") + request.body


def test_own_changes_and_routes_of_others_are_kept_back() -> None:
    program = messages.others_only((4709, 4711, 4710))
    route = messages.add_route(Route(HOME, 128, 3), 254)
    foreign = Request(route.kind, 0, route.body[:5] + b"\3" + route.body[6:])
    gone = messages.remove_route(HOME, 128, 254)
    rule = messages.add_rule(Rule(1, 2))
    for request, port, heard in (
        (route, 4711, False),
        (route, 4712, True),
        (gone, 0, True),
        (foreign, 4712, False),
        (rule, 4712, True),
        (rule, 4711, False),
        (rule, 4709, False),
        (rule, 4710, False),
    ):
        assert bool(run(program, notification(request, port))) is heard


def test_a_notification_tells_what_it_is_about() -> None:
    filters = messages.add_filter(7, INGRESS, 1000, 5, Filter(CARE_OF, AGENT, HOME, 128))
    assert messages.device_of(Message(filters.kind, filters.body)) == 7
    own = messages.add_address(9, AGENT)
    assert messages.device_of(Message(own.kind, own.body)) == 9
    rule = messages.add_rule(Rule(1, 2))
    assert messages.device_of(Message(rule.kind, rule.body)) is None
    foreign = Message(rule.kind, rule.body.replace(bytes((5, 0, 21, 0, PROTOCOL)), bytes((5, 0, 21, 0, 2))))
    assert messages.device_of(foreign) == -1
