"""The emulator's core and the home agent's negotiate over links that lose, delay and reorder packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from mip6ha import ipv6, udp
from mip6ha.binding import messages
from mip6ha.binding.messages import BindingAcknowledgement
from mip6ha.effects import Effect
from mip6ha.ipsec.ike.message import Header, Payload, build_clear, parse_header
from mip6ha.ipsec.ike.numbers import NATT_PORT, PORT, Exchange, Notification, PayloadKind
from mip6ha.ipsec.ike.payloads import Notify, build_notify
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.policy import Use
from mip6ha.udp import Datagram

from .negotiating import LATENCY, TIMING, World, application, ike_message
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
)

FULL = (Use.SIGNALLING, Use.PREFIX, Use.PAYLOAD)
LINKS = ((FOREIGN_1, ROUTER_1, CARE_OF_1), (FOREIGN_2, ROUTER_2, CARE_OF_2))


def registered(*uses: Use, **settings: object) -> World:
    world = World(*uses, **settings)  # type: ignore[arg-type]
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1.0)
    assert world.care_of_address() == CARE_OF_1
    return world


def established(world: World) -> list[IkeSa]:
    return [each for each in world.endpoint.ike_sas.values() if each.state is State.ESTABLISHED]


def at_agent(world: World) -> list[IkeSa]:
    negotiation = world.agent.negotiation
    assert negotiation is not None
    return [each for each in negotiation.endpoint.ike_sas.values() if each.state is State.ESTABLISHED]


def handshakes(world: World) -> int:
    """IKE_SA_INIT messages, both ways."""
    return sum(exchange == Exchange.IKE_SA_INIT for exchange, _ in world.fate.ike)


def watch(world: World) -> list[bytes]:
    """Every packet between the two from now on."""
    seen: list[bytes] = []
    decide = world.fate.decide

    def noted(packet: bytes) -> float | None:
        if packet[24:40] != CORRESPONDENT:
            seen.append(packet)
        return decide(packet)

    world.fate.decide = noted
    return seen


# The beginning.


def test_ike_comes_before_the_first_binding_update() -> None:
    world = World(*FULL)
    seen = watch(world)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1.0)
    parsed = [ipv6.parse(packet) for packet in seen]
    assert [each.next_header for each in parsed[:6]] == [ipv6.UDP] * 4 + [ipv6.ESP, ipv6.UDP]
    assert parsed[4].home_address == HOME_ADDRESS
    # Nothing but IKE and ESP, ever.
    assert {each.next_header for each in parsed} == {ipv6.UDP, ipv6.ESP}
    assert {each.source for each in parsed} == {CARE_OF_1, HOME_AGENT}
    wanted = ["binding_update_sent", "ike_established", "child_installed", "binding_acknowledged"]
    assert [name for name in dict.fromkeys(world.names()) if name in wanted] == wanted
    assert [event.fields["use"] for event in world.named("child_installed")] == [*FULL]
    assert world.named("mobile_prefix_advertisement")
    assert world.talks()
    # IKE_SA_INIT, IKE_AUTH, and an exchange for each further child.
    assert len(world.fate.ike) == 8


def test_a_binding_update_leaves_with_the_response_that_brings_its_sa() -> None:
    world = World()
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1.0)
    (acknowledged,) = [at for at, event in world.events if event.name == "binding_acknowledged"]
    assert acknowledged == pytest.approx(6 * LATENCY)


def test_k_is_asked_for_and_granted() -> None:
    world = registered()
    (binding,) = world.agent.bindings(world.now)
    assert "key_management" in str(binding["flags"])
    assert world.node.counters["ike_not_followed"] == 0


def test_keys_are_in_no_event() -> None:
    world = registered(*FULL)
    ike_sa = established(world)[0]
    assert ike_sa.keys is not None
    told = repr(world.events)
    assert ike_sa.keys.d.hex() not in told
    for name in ("d", "ei", "er", "pi", "pr"):
        assert repr(getattr(ike_sa.keys, name)) not in told
    associations = world.agent.associations.database.of(HOME_ADDRESS)
    assert len(associations) == 6
    assert not any(repr(each.keys.encryption) in told for each in associations)


def test_only_the_latest_message_waits() -> None:
    world = World()
    world.fate.decide = lambda packet: None
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(20.0)
    assert len(world.named("binding_update_sent")) == 4
    world.fate.decide = lambda packet: LATENCY
    seen = watch(world)
    world.wait(30.0)
    assert len(world.named("binding_acknowledged")) == 1
    updates = [packet for packet in seen if ipv6.parse(packet).home_address]
    assert len(updates) == 1


def test_another_secret_gets_nothing_and_tries_again_at_the_pace_of_binding_updates() -> None:
    world = World(psk=b"something else entirely")
    seen = watch(world)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(100.0)
    assert not world.named("ike_established")
    assert len(world.named("ike_closed")) == 7
    updates = len(world.named("binding_update_sent"))
    assert handshakes(world) // 2 == updates == 7
    assert {ipv6.parse(packet).next_header for packet in seen} == {ipv6.UDP}


def test_it_goes_on_without_an_answer_until_there_is_one() -> None:
    world = World()
    world.fate.decide = lambda packet: None
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(500.0)
    assert len(world.named("ike_closed")) == 5
    world.fate.decide = lambda packet: LATENCY
    world.wait(70.0)
    assert world.talks()


# What must be protected.


def test_nothing_unprotected_is_taken() -> None:
    world = registered(*FULL)
    answer = BindingAcknowledgement(129, 0, world.node.registration.sequence, 0)
    octets = messages.build(answer, HOME_AGENT, HOME_ADDRESS)
    world.run(world.node.receive(_routed(octets), world.now))
    inner = application(CORRESPONDENT, HOME_ADDRESS)
    outer = ipv6.build(HOME_AGENT, CARE_OF_1, ipv6.IPV6, inner)
    world.run(world.node.receive(outer, world.now))
    assert world.node.counters["unprotected"] == 2
    assert not world.delivered


def _routed(octets: bytes) -> bytes:
    return ipv6.build(HOME_AGENT, CARE_OF_1, ipv6.MOBILITY, octets, routing=HOME_ADDRESS)


def test_payload_waits_for_its_child() -> None:
    world = World(*FULL)
    slow: Callable[[bytes], float | None] = lambda packet: LATENCY  # noqa: E731
    world.fate.decide = slow
    world.plug(FOREIGN_1, ROUTER_1)
    while not world.named("binding_acknowledged"):
        world.wait(LATENCY)
    seen = watch(world)
    world.run(world.node.receive(application(HOME_ADDRESS, CORRESPONDENT), world.now))
    assert not seen
    assert world.node.counters["no_sa_for_payload"] == 1
    world.wait(1.0)
    assert world.talks()


@pytest.mark.parametrize(
    ("source", "port", "reason"),
    [
        (CORRESPONDENT, PORT, "ike_source"),
        (HOME_AGENT, 501, "udp_port"),
    ],
)
def test_datagrams_that_are_not_for_ike(source: bytes, port: int, reason: str) -> None:
    world = registered()
    octets = udp.build(source, CARE_OF_1, Datagram(500, port, bytes(40)))
    world.run(world.node.receive(ipv6.build(source, CARE_OF_1, ipv6.UDP, octets), world.now))
    assert world.node.counters == {reason: 1}


def test_a_keep_alive_says_nothing() -> None:
    world = registered()
    octets = udp.build(HOME_AGENT, CARE_OF_1, Datagram(NATT_PORT, NATT_PORT, udp.KEEP_ALIVE))
    world.run(world.node.receive(ipv6.build(HOME_AGENT, CARE_OF_1, ipv6.UDP, octets), world.now))
    assert world.node.counters == {"nat_keep_alive": 1}


# Moving.


def test_a_move_takes_the_ike_sa_along() -> None:
    world = registered(*FULL)
    before = len(world.fate.ike)
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(1.0)
    assert world.care_of_address() == CARE_OF_2
    assert world.talks()
    assert len(world.fate.ike) == before
    (ours,), (theirs,) = established(world), at_agent(world)
    assert (ours.local[0], ours.remote[0]) == (CARE_OF_2, HOME_AGENT)
    assert (theirs.local[0], theirs.remote[0]) == (HOME_AGENT, CARE_OF_2)
    # Either end can go on from there.
    world.wait(TIMING.probe_interval or 0.0)
    assert len(world.fate.ike) > before
    assert world.node.counters["request_retransmitted"] == 0
    assert established(world) == [ours]
    assert at_agent(world) == [theirs]


def test_without_k_ike_begins_anew_from_the_new_address() -> None:
    world = registered(*FULL)
    (old,) = established(world)
    world.agent.signalling.follows = lambda home_address: False
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(1.0)
    assert world.node.counters["ike_not_followed"] == 1
    (ours,) = established(world)
    assert ours.spi != old.spi
    assert ours.local[0] == CARE_OF_2
    (theirs,) = at_agent(world)
    assert theirs.spi_i == ours.spi_i
    assert len(world.agent.associations.database.of(HOME_ADDRESS)) == 2 * len(FULL)
    assert world.talks()
    # And that is that.
    world.wait(200.0)
    assert established(world)[0].spi == ours.spi


def test_without_k_but_where_it_was_begun_nothing_is_begun() -> None:
    world = World()
    world.agent.signalling.follows = lambda home_address: False
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(200.0)
    assert handshakes(world) == 2


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_move_in_the_middle_of_the_handshake(after: int) -> None:
    world = World()
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(after * LATENCY + LATENCY / 2)
    world.unplug()
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(3.0)
    assert world.care_of_address() == CARE_OF_2
    assert world.talks()
    assert established(world)[0].local[0] == CARE_OF_2
    assert [each.remote[0] for each in at_agent(world)] == [CARE_OF_2]


def test_nothing_is_sent_from_an_address_that_is_gone() -> None:
    world = registered(*FULL, timing=replace(TIMING, probe_interval=5.0))
    world.unplug()
    seen = watch(world)
    world.wait(30.0)
    assert not [packet for packet in seen if packet[8:24] != HOME_AGENT]
    assert world.node.counters["ike_without_address"] > 1
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(5.0)
    assert world.talks()
    assert handshakes(world) == 2


def test_after_long_without_a_link_it_begins_anew() -> None:
    world = registered(*FULL, timing=replace(TIMING, probe_interval=5.0))
    world.unplug()
    world.wait(200.0)
    assert world.named("ike_closed")
    assert not established(world)
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(1.0)
    assert world.talks()
    assert [each.remote[0] for each in at_agent(world)] == [CARE_OF_2]


SHORT = replace(TIMING, ike_lifetime=37.0, child_lifetime=11.0, jitter=0.2)


def test_re_keys_while_moving() -> None:
    world = registered(*FULL, timing=SHORT)
    for step in range(60):
        prefix, router, care_of_address = LINKS[(step + 1) % 2]
        world.plug(prefix, router)
        world.wait(7.3)
        assert world.care_of_address() == care_of_address
        assert world.talks()
    assert handshakes(world) == 2
    assert len(world.named("ike_established")) > 10
    assert len(world.named("child_installed")) > 100
    assert "binding_expired" not in world.names()
    assert len(established(world)) == len(at_agent(world)) == 1
    # Of each child there is one, or two in the middle of a re-key.
    assert 2 * len(FULL) <= len(world.agent.associations.database.of(HOME_ADDRESS)) <= 4 * len(FULL)


SEEN_BY_THE_AGENT = replace(SHORT, ike_lifetime=1000.0, child_lifetime=1000.0)


@pytest.mark.parametrize("loss", [0.0, 0.1], ids=["no loss", "loss"])
def test_no_payload_is_lost_to_a_re_key(loss: float) -> None:
    """ESP always arrives here; IKE only sometimes."""
    timing = replace(SHORT, jitter=0.5, retransmit=0.3)
    world = registered(Use.SIGNALLING, Use.PAYLOAD, timing=timing, agent_timing=SEEN_BY_THE_AGENT)
    random = Random(7)
    world.fate.decide = lambda packet: (
        None if ike_message(packet) is not None and random.random() < loss else LATENCY
    )
    sent = 0
    world.delivered.clear()
    while world.now < 120.0:
        world.run(world.node.receive(application(HOME_ADDRESS, CORRESPONDENT), world.now))
        world.run_agent(world.agent.receive(application(CORRESPONDENT, HOME_ADDRESS), world.now))
        sent += 2
        world.wait(0.013)
    world.wait(1.0)
    assert len(world.delivered) == sent
    assert len(world.named("child_installed")) > 20


@pytest.mark.parametrize("seed", range(8))
def test_losses_and_reordering_are_made_good(seed: int) -> None:
    world = World(*FULL, timing=SHORT)
    random = Random(seed)

    def bad(packet: bytes) -> float | None:
        return None if random.random() < 0.2 else random.expovariate(1 / 0.05)

    world.fate.decide = bad
    for step in range(20):
        prefix, router, _ = LINKS[step % 2]
        world.plug(prefix, router)
        world.wait(random.uniform(0.01, 15.0))
    world.fate.decide = lambda packet: LATENCY
    world.wait(40.0)
    assert world.care_of_address() == CARE_OF_2
    assert world.talks()
    assert len(established(world)) == 1
    assert {each.spi_i for each in established(world)} <= {each.spi_i for each in at_agent(world)}


# The home agent has lost everything, or seems to have.


def test_a_home_agent_that_lost_everything_is_found_out_at_the_next_refresh() -> None:
    world = registered(*FULL)
    world.restart_agent()
    world.wait(80.0)
    assert world.care_of_address() == CARE_OF_1
    assert world.talks()
    refresh = next(at for at, event in world.events if event.name == "binding_update_sent" and at > 1.0)
    again = [at for at, event in world.events if event.name == "ike_established"][1]
    # Three Binding Updates without an answer, a question, and a handshake.
    assert again - refresh == pytest.approx(3.0 + 6 * LATENCY)
    world.wait(200.0)
    assert len(established(world)) == len(at_agent(world)) == 1
    assert world.talks()


def test_a_silent_home_agent_is_given_up_and_begun_with_again() -> None:
    world = registered(*FULL)
    world.fate.decide = lambda packet: None
    world.wait(300.0)
    assert not established(world)
    assert "binding_expired" in world.names()
    world.restart_agent()
    world.fate.decide = lambda packet: LATENCY
    world.wait(40.0)
    assert world.talks()


def test_a_short_outage_begins_nothing() -> None:
    world = registered(*FULL)
    world.wait(55.0)
    world.fate.decide = lambda packet: None
    world.wait(20.0)
    world.fate.decide = lambda packet: LATENCY
    world.wait(60.0)
    assert world.talks()
    assert handshakes(world) == 2
    assert not world.named("ike_closed")


def test_a_forged_invalid_spi_costs_a_handshake_and_breaks_nothing() -> None:
    world = registered(*FULL)
    (ours,) = established(world)
    seen = watch(world)
    # A question of ours is under way: without one there is nothing to answer.
    world.run(world.node.receive(_invalid_spi(ours, 99), world.now))
    assert not seen
    world.wait((TIMING.probe_interval or 0.0) - 1.0 + LATENCY / 2)
    while ours.pending is None:
        world.wait(LATENCY / 2)
    world.run(world.node.receive(_invalid_spi(ours, ours.pending.message_id), world.now))
    world.wait(5.0)
    assert handshakes(world) == 4
    assert len(established(world)) == len(at_agent(world)) == 1
    assert world.talks()


def _invalid_spi(ike_sa: IkeSa, message_id: int) -> bytes:
    header = Header(ike_sa.spi_i, ike_sa.spi_r, Exchange.INFORMATIONAL, False, True, message_id)
    payload = Payload(PayloadKind.NOTIFY, build_notify(Notify(Notification.INVALID_IKE_SPI)))
    octets = udp.build(HOME_AGENT, CARE_OF_1, Datagram(PORT, PORT, build_clear(header, [payload])))
    return ipv6.build(HOME_AGENT, CARE_OF_1, ipv6.UDP, octets)


def test_an_ike_sa_that_the_home_agent_ends_is_begun_again() -> None:
    world = registered(*FULL)
    world.wait(10.0)
    negotiation = world.agent.negotiation
    assert negotiation is not None
    effects: list[Effect] = []
    assert negotiation.ask(HOME_ADDRESS, "delete", world.now, effects)
    world.run_agent(effects)
    world.wait(1.0)
    assert [event.fields["reason"] for event in world.named("ike_closed")] == ["deleted_by_peer"]
    assert len(world.named("child_removed")) == len(FULL)
    assert world.talks()
    assert handshakes(world) == 4


# Home, and the end.


def test_going_home_and_leaving_again_keep_the_ike_sa() -> None:
    world = registered(*FULL, timing=SHORT)
    world.plug(HOME_PREFIX, HOME_ROUTER)
    world.wait(1.0)
    assert world.named("deregistered")
    assert world.care_of_address() is None
    (theirs,) = at_agent(world)
    assert theirs.remote[0] == HOME_ADDRESS
    count = len(world.fate.ike)
    # Re-keys of everything from there, and back.
    world.wait(60.0)
    assert len(world.fate.ike) > count
    (theirs,) = at_agent(world)
    assert theirs.remote[0] == HOME_ADDRESS
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(1.0)
    assert world.talks()
    assert handshakes(world) == 2
    assert world.node.counters["unknown_spi"] == 0


def test_at_home_from_the_start_nothing_is_begun() -> None:
    world = World(*FULL)
    world.plug(HOME_PREFIX, HOME_ROUTER)
    world.wait(100.0)
    assert not world.fate.ike


def test_a_mobile_node_that_leaves_ends_its_ike_sa() -> None:
    world = registered(*FULL)
    world.run(world.node.deregister(world.now))
    world.wait(1.0)
    assert not world.node.registration.may_be_bound
    assert not at_agent(world)
    assert not world.agent.associations.database.of(HOME_ADDRESS)
    world.run(world.node.stop())


# How it goes.


def test_esp_in_udp() -> None:
    world = World(*FULL, encapsulate=True)
    seen = watch(world)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1.0)
    before = len(seen)
    assert world.talks()
    payload = [ipv6.parse(packet) for packet in seen[before:]]
    assert [each.next_header for each in payload] == [ipv6.UDP, ipv6.UDP]
    for each in payload:
        datagram = udp.parse(each.payload, each.source, each.destination)
        assert (datagram.source_port, datagram.destination_port) == (NATT_PORT, NATT_PORT)
        assert udp.is_esp(datagram.payload)
    world.plug(FOREIGN_2, ROUTER_2)
    world.wait(1.0)
    assert world.talks()


def test_a_packet_in_esp_in_udp_fits_the_path() -> None:
    world = registered(*FULL, encapsulate=True)
    seen = watch(world)
    for length in range(1280, 1501):
        world.run(world.node.receive(application(HOME_ADDRESS, CORRESPONDENT, length), world.now))
    assert len(seen) > 100
    assert max(map(len, seen)) <= 1500
    assert ipv6.FRAGMENT not in {ipv6.parse(packet).next_header for packet in seen}
    assert world.node.counters["too_big"] > 0


def test_an_ike_message_that_is_too_large_goes_in_ipv6_fragments() -> None:
    world = World(fragment_size=60_000, identity="keyid:" + "5a" * 1800)
    seen = watch(world)
    world.plug(FOREIGN_1, ROUTER_1)
    world.wait(1.0)
    pieces = [packet for packet in seen if ipv6.parse(packet).next_header == ipv6.FRAGMENT]
    assert len(pieces) == 2
    assert max(map(len, pieces)) <= 1500
    assert world.care_of_address() == CARE_OF_1


def test_on_port_500_there_is_no_marker() -> None:
    world = World()
    seen = watch(world)
    world.plug(FOREIGN_1, ROUTER_1)
    message = ike_message(seen[0])
    assert message is not None
    header, _ = parse_header(message)
    assert header.exchange == Exchange.IKE_SA_INIT
