"""IKE SAs fail over with the rest of a context: nobody runs IKE again, and no response is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mip6ha import ipv6, udp
from mip6ha.binding import messages
from mip6ha.harp.messages import entry_size
from mip6ha.harp.parts import LARGEST_ENTRY
from mip6ha.ipsec import esp
from mip6ha.ipsec.ike.certificates import Trust
from mip6ha.ipsec.ike.effects import (
    Changed,
    Closed,
    Established,
    SendDatagram,
)
from mip6ha.ipsec.ike.numbers import Exchange
from mip6ha.ipsec.ike.parameters import Timing
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.policy import Use
from mip6ha.ipv6 import ESP, IPV6, MOBILITY, UDP
from mip6ha.numbering import HORIZON
from mip6ha.parameters import MobileNodeParameters
from mip6ha.udp import Datagram

from ..ipsec.ike.authorities import DAY, End, root
from ..ipsec.ike.world import WALL, parameters_of, payload, peer_of
from ..node.world import CARE_OF_1, CARE_OF_2, CORRESPONDENT, HOME_AGENT, A, H
from .negotiator import NEVER, Negotiator
from .world import Answer, World, home


class _Configured(World):
    """Every member knows one mobile node, which negotiates."""

    client = False

    def parameters(self, identity: int) -> Any:
        uses = (Use.PAYLOAD,) if self.client else (Use.SIGNALLING,)
        node = MobileNodeParameters(home(0), "mn0", negotiated=uses, client=self.client)
        return replace(super().parameters(identity), mobile_nodes=(node,))


class _ForClients(_Configured):
    """The same, and the mobile node knows nothing of Mobile IPv6."""

    client = True


def members(kind: type[World] = _Configured, timing: Timing = NEVER, **credentials: Any) -> World:
    peer = peer_of("ha", home_addresses=(home(0),), **credentials)
    ike = parameters_of("ha", peer, timing=timing)
    found = kind(agent={"ike": ike, "wall": lambda: WALL})
    found.run(1.0)
    assert found.serving == [1]
    return found


@pytest.fixture
def pair() -> World:
    return members()


@pytest.fixture
def node(pair: World) -> Negotiator:
    found = Negotiator(pair)
    found.begin()
    return found


def take_over(world: World) -> None:
    world.kill(world.active)
    world.until(lambda: world.serving)


def ike_sas(world: World, identity: int) -> list[IkeSa]:
    negotiation = world.member(identity).home_agent.negotiation
    assert negotiation is not None
    return [each for each in negotiation.endpoint.ike_sas.values() if each.state is State.ESTABLISHED]


def test_a_mobile_node_negotiates_and_registers(pair: World, node: Negotiator) -> None:
    assert node.exchanges() == [Exchange.IKE_SA_INIT, Exchange.IKE_AUTH]
    (answer,) = node.register()
    assert answer.status == 0
    assert answer.flags & 0x80, "K: the home agent's IKE follows"
    home_agent = pair.member(1).home_agent
    assert [each.use for each in home_agent.associations.database.of(home(0))] == [Use.SIGNALLING] * 2


def test_without_an_sa_a_binding_update_is_refused(pair: World) -> None:
    node = Negotiator(pair)
    octets = messages.build(messages.BindingUpdate(1, A | H, 15), home(0), HOME_AGENT)
    pair.receive(ipv6.build(CARE_OF_1, HOME_AGENT, MOBILITY, octets, home_address=home(0)))
    assert not node.run()
    assert pair.member(1).counters["unprotected_binding_update"] == 1


def test_the_standby_has_the_ike_sa_and_its_child(pair: World, node: Negotiator) -> None:
    (own,), (other,) = ike_sas(pair, 1), ike_sas(pair, 2)
    assert (own.spi_i, own.spi_r, own.keys) == (other.spi_i, other.spi_r, other.keys)
    assert own.generation == other.generation
    databases = [pair.member(each).home_agent.associations.database for each in (1, 2)]
    first, second = ({one.spi: one.keys for one in each.of(home(0))} for each in databases)
    assert first == second
    assert len(first) == 2


def test_no_response_leaves_before_the_standby_has_it(pair: World) -> None:
    node = Negotiator(pair)
    pair.cut.add((2, 1))
    node.do(node.endpoint.initiate("ha", (CARE_OF_1, 500), pair.now))
    # IKE_SA_INIT is nobody's state; what IKE_AUTH makes has to be acknowledged.
    begin = pair.now
    pair.until(lambda: len(pair.answers) == 1)
    node.listen()
    assert node.exchanges() == [Exchange.IKE_SA_INIT, Exchange.IKE_AUTH]
    pair.run(0.015)
    assert len(pair.answers) == 1
    assert ike_sas(pair, 2), "it has heard of it already"
    pair.cut.clear()
    node.run()
    assert node.ike_sa.state is State.ESTABLISHED
    assert pair.now - begin < 1


def test_after_a_takeover_nobody_runs_ike_again(pair: World, node: Negotiator) -> None:
    assert node.register()[0].status == 0
    before = len(node.sent)
    take_over(pair)
    (answer,) = node.register()
    assert answer.status == 0
    assert len(node.sent) == before
    assert not [each for each in pair.answers if _is_ike(each, pair.active)]


def _is_ike(answer: Answer, member: int) -> bool:
    return answer.member == member and ipv6.parse(answer.packet).next_header == UDP


def test_a_retransmitted_request_is_answered_with_the_same_octets(pair: World, node: Negotiator) -> None:
    node.do(node.endpoint.probe(node.ike_sa.spi, pair.now))
    node.run()
    last, answered = node.sent[-1], node.received[-1]
    take_over(pair)
    node.send(last)
    node.run()
    assert node.received[-1] == answered
    assert len(node.received) == 4


def test_what_the_dead_member_answered_last_is_not_done_again(pair: World, node: Negotiator) -> None:
    """The response to CREATE_CHILD_SA is lost with the member that sent it."""
    spi = node.child_spi()
    node.do(node.endpoint.rekey_child(node.ike_sa.spi, spi, pair.now))
    # Replicated and sent, but nobody hears it.
    pair.run(0.1)
    lost = pair.answers[-1].packet
    node._read = len(pair.answers)
    take_over(pair)
    node.send(node.sent[-1])
    node.run()
    assert ipv6.parse(lost).payload[8:] in node.received
    assert len(node.ike_sa.live_children()) == 1
    assert node.register()[0].status == 0


@pytest.mark.parametrize("rekeyed", [False, True])
def test_the_new_member_goes_on_under_the_same_ike_sa(pair: World, node: Negotiator, rekeyed: bool) -> None:
    if rekeyed:
        node.do(node.endpoint.rekey(node.ike_sa.spi, pair.now))
        node.run()
    before = node.ike_sa.spi
    take_over(pair)
    node.do(node.endpoint.probe(before, pair.now))
    node.run()
    assert node.ike_sa.pending is None
    old = node.child_spi()
    node.do(node.endpoint.rekey_child(before, old, pair.now))
    node.run()
    assert node.child_spi() != old
    assert node.register()[0].status == 0
    node.do(node.endpoint.rekey(before, pair.now))
    node.run()
    assert node.ike_sa.spi != before
    assert node.register()[0].status == 0
    assert Exchange.IKE_SA_INIT not in node.exchanges()[2:]


def test_the_new_member_may_ask_as_well(pair: World, node: Negotiator) -> None:
    take_over(pair)
    active = pair.member(pair.active)
    (own,) = ike_sas(pair, pair.active)
    found, effects = active.ask_ike(home(0), "rekey", pair.now)
    assert found
    pair.carry_out(pair.active, effects)
    pair.flush(pair.active)
    node.run()
    (now,) = ike_sas(pair, pair.active)
    assert now.spi != own.spi
    assert node.ike_sa.spi_i in {now.spi_i, now.spi_r}
    assert node.register()[0].status == 0


def test_the_ike_sa_follows_the_care_of_address(pair: World, node: Negotiator) -> None:
    assert node.register()[0].status == 0
    node.care_of_address = CARE_OF_2
    node.do(node.endpoint.moved(node.ike_sa.spi, CARE_OF_2, pair.now))
    assert node.register()[0].status == 0
    for identity in (1, 2):
        (own,) = ike_sas(pair, identity)
        assert own.remote == (CARE_OF_2, 500)
    node.do(node.endpoint.probe(node.ike_sa.spi, pair.now))
    node.run()
    assert node.ike_sa.pending is None


def test_a_deleted_ike_sa_is_gone_everywhere(pair: World, node: Negotiator) -> None:
    node.do(node.endpoint.delete(node.ike_sa.spi, pair.now))
    node.run()
    assert any(isinstance(each, Closed) for each in node.effects)
    assert not ike_sas(pair, 1)
    assert not ike_sas(pair, 2)
    for identity in (1, 2):
        assert not pair.member(identity).home_agent.associations.database.of(home(0))


def test_a_newcomer_gets_the_ike_sas_with_everything_else(pair: World, node: Negotiator) -> None:
    pair.kill(2)
    pair.run(0.5)
    node.do(node.endpoint.rekey(node.ike_sa.spi, pair.now))
    node.run()
    pair.start(2)
    pair.run(1.0)
    take_over(pair)
    assert node.register()[0].status == 0
    node.do(node.endpoint.probe(node.ike_sa.spi, pair.now))
    node.run()
    assert node.ike_sa.pending is None


def _credentials(authority: End, who: x509.GeneralName) -> dict[str, Any]:
    between = authority.authority("Between", begin=WALL - DAY, end=WALL + DAY)
    own = between.issue("", names=[who], begin=WALL - DAY, end=WALL + DAY)
    trust = Trust((authority.certificate,))
    return {"psk": None, "private_key": own.key, "chain": (own.der, between.der), "trust": trust}


def test_an_answer_that_is_longer_than_a_message_of_members_survives_too() -> None:
    """IKE_AUTH with a chain of certificates: its response is part of the state, and is sent in parts."""
    authority = root("A" * 60, key=rsa.generate_private_key(65537, 4096), begin=WALL - DAY, end=WALL + DAY)
    pair = members(**_credentials(authority, x509.DNSName("ha.example.org")))
    node = Negotiator(pair, **_credentials(authority, x509.RFC822Name("mn@example.org")))
    node.do(node.endpoint.initiate("ha", (CARE_OF_1, 500), pair.now))
    pair.until(lambda: node.listen() or len(node.sent) > 1)
    # The response is on its way when its sender dies, and nobody hears it.
    pair.until(lambda: len(pair.answers) > 1)
    lost = [ipv6.parse(each.packet).payload[8:] for each in pair.answers[1:]]
    assert sum(map(len, lost)) > 1500
    node._read = len(pair.answers)
    record = pair.member(1).contexts.record(home(0))
    assert record is not None
    assert entry_size(record[0]) > LARGEST_ENTRY
    take_over(pair)
    assert not node.received[1:]
    for each in node.sent[1:]:
        node.send(each)
    node.run()
    assert node.received[1:] == lost
    assert node.register()[0].status == 0


TUNNEL = (payload(role="mn", start=True),)


def _payload(node: Negotiator) -> list[bytes]:
    """What comes to the client through its tunnel, opened."""
    found = []
    while node._read < len(node.world.answers):
        parsed = ipv6.parse(node.world.answers[node._read].packet)
        node._read += 1
        if parsed.next_header == UDP:
            datagram = udp.parse(parsed.payload, parsed.source, parsed.destination)
            parsed = parsed._replace(next_header=ESP, payload=datagram.payload)
        if parsed.next_header == ESP:
            next_header, inner = esp.unprotect(node.inbound[esp.spi(parsed.payload)], parsed.payload)
            assert next_header == IPV6
            found.append(inner)
    return found


def _reverse(node: Negotiator, inner: bytes, ports: tuple[int, int] | None = None) -> None:
    sealed = esp.protect(node.outbound[-1], IPV6, inner, node.random)
    protocol = ESP
    if ports is not None:
        sealed = udp.build(node.care_of_address, HOME_AGENT, Datagram(*ports, sealed))
        protocol = UDP
    node.world.receive(ipv6.build(node.care_of_address, HOME_AGENT, protocol, sealed))


def _packets_until_one_is_taken(node: Negotiator, ports: tuple[int, int] | None) -> int:
    count = 0
    while node._read == len(node.world.answers):
        _reverse(node, UP, ports)
        count += 1
    inner = ipv6.parse(node.world.answers[-1].packet)
    assert (inner.source, inner.payload) == (home(0), b"up")
    return count


DOWN = ipv6.build(CORRESPONDENT, home(0), ipv6.NO_NEXT_HEADER, b"down")
UP = ipv6.build(home(0), CORRESPONDENT, ipv6.NO_NEXT_HEADER, b"up")


@pytest.mark.parametrize("encapsulate", [False, True])
def test_a_client_without_mobile_ipv6_has_a_tunnel_that_fails_over(encapsulate: bool) -> None:
    pair = members(_ForClients)
    node = Negotiator(pair, children=TUNNEL)
    if encapsulate:
        node.endpoint.reconfigure(replace(node.endpoint.parameters, encapsulate=True))
    node.begin()
    ports = (4500, 4500) if encapsulate else None
    most = 1
    for _ in range(2):
        pair.receive(DOWN)
        pair.run(0.05)
        inner = _payload(node)
        if not inner:
            # The new active member asks for its first numbers when it needs them.
            pair.receive(DOWN)
            pair.run(0.05)
            inner = _payload(node)
        assert ipv6.parse(inner[-1]).payload == b"down"
        assert _packets_until_one_is_taken(node, ports) <= most
        most = HORIZON + 1
        node._read = len(pair.answers)
        if len(pair.members) > 1:
            take_over(pair)
    # It has been dropped without ESP all the time.
    pair.receive(ipv6.build(node.care_of_address, HOME_AGENT, IPV6, UP))
    assert pair.member(pair.active).counters["unprotected_payload"] == 1


def test_a_client_that_disconnects_is_bound_no_longer() -> None:
    pair = members(_ForClients)
    node = Negotiator(pair, children=TUNNEL)
    node.begin()
    for identity in (1, 2):
        assert pair.member(identity).home_agent.cache.registered == 1
    node.do(node.endpoint.rekey_child(node.ike_sa.spi, node.child_spi(), pair.now))
    node.run()
    assert pair.member(1).home_agent.cache.registered == 1
    node.do(node.endpoint.delete(node.ike_sa.spi, pair.now))
    node.run()
    for identity in (1, 2):
        assert pair.member(identity).home_agent.cache.registered == 0
        assert not pair.planes[identity].tunnels
    pair.receive(DOWN)
    assert pair.member(1).counters["no_binding"] == 1


def test_no_payload_is_lost_while_the_home_agent_re_keys_its_child() -> None:
    pair = members(_ForClients, replace(NEVER, child_lifetime=1.0))
    node = Negotiator(pair, children=TUNNEL)
    node.begin()
    first = node.child_spi()
    node.delay = 0.01
    for _ in range(1500):
        pair.receive(DOWN)
        pair.run(0.001)
        node.listen()
    node.run()
    assert node.child_spi() != first
    assert node.lost == 0
    assert len(node.inner) == 1500


def test_every_change_is_announced_before_its_datagram(pair: World, node: Negotiator) -> None:
    kinds = [type(each) for each in node.effects]
    assert kinds.index(Changed) < kinds.index(SendDatagram)
    assert Established in kinds
