"""Message ids, retransmission, lost and doubled datagrams (RFC 7296 2.1 to 2.3), and who may be believed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.ipsec.ike.effects import SendDatagram
from mip6ha.ipsec.ike.message import Payload, build_clear, parse_header
from mip6ha.ipsec.ike.numbers import Exchange, Notification, PayloadKind
from mip6ha.ipsec.ike.sa import State
from mip6ha.ipsec.ike.turn import notify

from .tampering import changed, forged, opened
from .world import CALM, HA, MN, World, parameters_of

INFORMATIONAL = Exchange.INFORMATIONAL


def connected() -> World:
    world = World()
    world.connect()
    world.sent.clear()
    return world


def answers(world: World, datagram: SendDatagram) -> list[SendDatagram]:
    """What the home agent sends on a datagram, which goes nowhere."""
    effects = world.ha.endpoint.receive(datagram.octets, datagram.local, datagram.remote, world.now)
    return [each for each in effects if isinstance(each, SendDatagram)]


def test_a_request_is_sent_again_octet_for_octet_and_ever_later() -> None:
    world = World()
    world.ha.down = True
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(300)
    assert len(world.sent) == CALM.attempts
    assert len({each.octets for each in world.sent}) == 1
    assert not world.mn.endpoint.ike_sas
    assert world.mn.endpoint.counters == {"request_retransmitted": 5, "peer_unreachable": 1}


def test_back_off() -> None:
    world = connected()
    world.ha.down = True
    moments = []
    world.meddle = lambda datagram: moments.append(world.now) or []
    world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now))
    world.run(300)
    gaps = [after - before for before, after in pairwise(moments)]
    assert all(2**n <= gap <= 2**n * 1.1 for n, gap in enumerate(gaps))
    assert len(gaps) == CALM.attempts - 1
    assert not world.mn.installed


def test_the_same_request_gets_the_same_octets() -> None:
    """In IKE_SA_INIT, IKE_AUTH and everything after, and nothing is done twice."""
    world = World()
    for _ in range(4):
        world.meddle = lambda datagram: [datagram] * 3
        world.connect() if not world.mn.endpoint.ike_sas else rekey_child(world)
    for node in (world.mn, world.ha):
        by_request: dict[tuple[object, ...], set[bytes]] = {}
        for each in world.sent:
            header, _ = parse_header(each.octets)
            if each.local[0] == node.address[0] and header.response:
                key = (header.spi_i, header.exchange, header.initiator, header.message_id)
                by_request.setdefault(key, set()).add(each.octets)
        assert all(len(octets) == 1 for octets in by_request.values())
    world.check()
    assert world.ha.endpoint.counters["answered_again"] > 0
    assert len(world.ha.installed) == 1


def rekey_child(world: World) -> None:
    world.do(world.mn, world.mn.endpoint.rekey_child(world.mn.sa.spi, world.mn.child.spi_in, world.now))
    world.run()


def test_an_older_request_or_a_later_one_gets_nothing() -> None:
    world = connected()
    rekey_child(world)
    old = [each for each in world.sent if each.local == MN]
    assert answers(world, old[-1])
    before = world.ha.endpoint.export_state(world.ha.sa.spi, world.now)
    for datagram in (old[0], forged(world.mn, INFORMATIONAL, [], message_id=5)):
        assert not answers(world, datagram)
    assert world.ha.endpoint.counters["message_id"] == 2
    assert world.ha.endpoint.export_state(world.ha.sa.spi, world.now) == before


def test_a_retransmission_is_believed_only_under_protection() -> None:
    world = connected()
    rekey_child(world)
    last = [each for each in world.sent if each.local == MN][-1]
    forged_octets = last.octets[:-1] + bytes([last.octets[-1] ^ 1])
    assert not answers(world, last._replace(octets=forged_octets))
    assert world.ha.endpoint.counters["ike_integrity"] == 1


def test_a_response_that_nobody_waits_for() -> None:
    world = connected()
    rekey_child(world)
    response = [each for each in world.sent if each.local == HA][-1]
    world.deliver(world.mn, response)
    assert world.mn.endpoint.counters["unexpected_response"] == 1
    # Nor one to another exchange under the same message id.
    world.ha.down = True
    world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now))
    strange = forged(
        world.ha, Exchange.CREATE_CHILD_SA, [], message_id=world.mn.sa.next_id - 1, response=True
    )
    world.deliver(world.mn, strange)
    assert world.mn.endpoint.counters["unexpected_response"] == 2
    assert world.mn.sa.pending is not None


def test_a_message_is_no_answer_to_itself() -> None:
    """Reflected, it has the wrong direction (2.2), and other keys anyway."""
    world = connected()
    world.ha.down = True
    world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now))
    sent = world.sent[-1]
    world.deliver(world.mn, SendDatagram(sent.remote, sent.local, sent.octets))
    assert world.mn.endpoint.counters["unknown_ike_spi"] + world.mn.endpoint.counters["wrong_direction"] == 1


def test_nothing_in_the_clear_is_believed() -> None:
    world = connected()
    header, _ = parse_header(forged(world.mn, INFORMATIONAL, []).octets)
    delete = Payload(PayloadKind.DELETE, b"\x01\0\0\0")
    assert not answers(world, SendDatagram(MN, HA, build_clear(header, [delete])))
    assert world.ha.endpoint.counters == {"unprotected": 1}
    assert world.ha.sa


@pytest.mark.parametrize("exchange", [Exchange.IKE_AUTH, 38, 43])
def test_an_exchange_out_of_place(exchange: int) -> None:
    world = connected()
    assert not answers(world, forged(world.mn, exchange, []))
    assert world.ha.endpoint.counters == {"unexpected_exchange": 1}
    assert world.ha.sa.expected_id == 2


def test_nothing_but_authentication_on_a_half_open_ike_sa() -> None:
    world = World()
    world.meddle = lambda datagram: [] if parse_header(datagram.octets)[0].exchange == 35 else [datagram]
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(0.5)
    [mine], [its] = world.mn.sas(State.HALF_OPEN), world.ha.sas(State.HALF_OPEN)
    mine.state = its.state = State.ESTABLISHED
    early = forged(world.mn, INFORMATIONAL, [], message_id=1)
    its.state = State.HALF_OPEN
    assert not answers(world, early)
    assert world.ha.endpoint.counters == {"unexpected_exchange": 1}


def test_a_message_id_is_never_used_twice() -> None:
    world = World(seed=5)
    world.loss, world.duplicates, world.jitter = 0.2, 0.2, 0.5
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(60)
    for _ in range(10):
        for node in (world.mn, world.ha):
            if node.sas():
                world.do(node, node.endpoint.rekey_child(node.sas()[-1].spi, 0, world.now))
                world.do(node, node.endpoint.probe(node.sas()[-1].spi, world.now))
        world.run(30)
    requests: dict[tuple[bytes, bytes, int], set[bytes]] = {}
    for each in world.sent:
        header, _ = parse_header(each.octets)
        if not header.response and header.exchange != Exchange.IKE_SA_INIT:
            requests.setdefault((each.local[0], header.spi_i, header.message_id), set()).add(each.octets)
    assert requests
    assert all(len(octets) == 1 for octets in requests.values())


def test_ivs_never_repeat_under_one_key() -> None:
    world = connected()
    for _ in range(20):
        rekey_child(world)
    for node in (world.mn, world.ha):
        sent = {each.octets for each in world.sent if each.local[0] == node.address[0]}
        assert len({octets[32:40] for octets in sent}) == len(sent)


def test_the_end_of_the_message_ids() -> None:
    world = connected()
    world.mn.sa.next_id = world.ha.sa.expected_id = 0xFFFFFFFF
    world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now))
    world.run()
    assert world.mn.sa
    world.do(world.mn, world.mn.endpoint.probe(world.mn.sa.spi, world.now))
    assert not world.mn.sas()


def test_silence_is_asked_about_and_then_the_end() -> None:
    timing = replace(CALM, probe_interval=20.0)
    world = World(parameters_of("mn", timing=timing), parameters_of("ha"))
    world.connect()
    world.sent.clear()
    world.run(100)
    assert {each[0] for each in world.exchanges()} == {INFORMATIONAL}
    assert 8 <= len(world.sent) <= 10
    world.ha.down = True
    world.run(100)
    assert not world.mn.sas()
    assert world.mn.endpoint.counters["peer_unreachable"] == 1


def test_one_request_at_a_time() -> None:
    world = connected()
    spi = world.mn.sa.spi
    for _ in range(3):
        world.do(world.mn, world.mn.endpoint.probe(spi, world.now))
        world.do(world.mn, world.mn.endpoint.create_child(spi, "payload", world.now))
    assert len(world.sent) == 1
    world.run()
    # Asked for twice, done once.
    assert [each[2] for each in world.exchanges()] == [2, 2, 3, 3]
    world.check()


def test_large_messages_come_in_fragments() -> None:
    small = parameters_of("mn", fragment_size=200)
    world = World(small, parameters_of("ha", fragment_size=150))
    world.connect()
    world.check()
    assert all(len(each.octets) <= 200 for each in world.sent if parse_header(each.octets)[0].exchange != 34)
    assert world.exchanges().count((35, False, 1)) > 1
    assert world.exchanges().count((35, True, 1)) > 1
    # A retransmitted request is answered once, not once a fragment (RFC 7383 2.6.1).
    requests = [each for each in world.sent if parse_header(each.octets)[0][2:5] == (35, True, False)]
    count = len(
        [each for each in world.sent if each.local == HA and parse_header(each.octets)[0].exchange == 35]
    )
    found = [one for each in requests for one in answers(world, each)]
    assert len(found) == count
    assert world.ha.endpoint.counters["retransmitted_fragment"] == len(requests) - 1


def test_fragments_that_were_lost_are_sent_again() -> None:
    for seed in range(5):
        world = World(
            parameters_of("mn", fragment_size=150), parameters_of("ha", fragment_size=150), seed=seed
        )
        world.loss, world.jitter = 0.1, 0.1
        world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
        world.run(120)
        world.loss = 0.0
        world.run(120)
        world.check()
        assert world.mn.sas()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.3]))
def test_whatever_the_link_does_both_ends_agree_in_the_end(seed: int, loss: float, duplicates: float) -> None:
    world = World(parameters_of("mn", fragment_size=300), seed=seed)
    world.loss, world.duplicates, world.jitter = loss, duplicates, 0.4
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(30)
    for _ in range(8):
        world.stir()
    world.settle()
    # Six attempts may all be lost, and then the end is known on that side.
    given_up = sum(node.endpoint.counters["peer_unreachable"] for node in (world.mn, world.ha))
    assert world.mn.sas() or given_up


def test_an_unknown_payload_is_passed_over_unless_it_is_critical() -> None:
    world = connected()
    [found] = answers(world, forged(world.mn, INFORMATIONAL, [Payload(200, b"?")]))
    assert opened(world.ha, found)[1] == ()
    strange = forged(world.mn, INFORMATIONAL, [Payload(200, b"?", critical=True)], message_id=3)
    [found] = answers(world, strange)
    expected = notify(Notification.UNSUPPORTED_CRITICAL_PAYLOAD, b"\xc8")
    assert opened(world.ha, found)[1] == (expected,)
    assert world.ha.sa


def test_a_request_with_a_surplus_payload_is_bad_syntax_and_the_end() -> None:
    world = connected()
    nonce = Payload(PayloadKind.NONCE, bytes(32))
    world.meddle = lambda datagram: (
        [changed(world.mn, datagram, lambda payloads: [*payloads, nonce])]
        if datagram.local == MN
        else [datagram]
    )
    rekey_child(world)
    assert world.ha.endpoint.counters["repeated_payload"] == 1
    assert not world.ha.sas()
    assert not world.mn.sas()
    assert not world.mn.installed
