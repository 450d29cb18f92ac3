"""The peer is elsewhere: by a Binding Update with K, by MOBIKE, behind a NAT that changed its mind."""

from __future__ import annotations

from mip6ha.ipsec.ike.effects import Changed, MoveChild, SendDatagram
from mip6ha.ipsec.ike.nat import digest
from mip6ha.ipsec.ike.numbers import Exchange, Notification, PayloadKind
from mip6ha.ipsec.ike.payloads import parse_notify
from mip6ha.ipsec.ike.turn import notify

from .tampering import forged, opened
from .world import ELSEWHERE, HA, MN, World


def connected() -> World:
    world = World()
    world.connect()
    world.sent.clear()
    return world


def test_the_ike_sa_follows_the_binding() -> None:
    world = connected()
    world.mn.address = (ELSEWHERE, 500)
    effects = world.do(world.ha, world.ha.endpoint.peer_moved(world.ha.sa.spi, ELSEWHERE, world.now))
    [moved] = [each for each in effects if isinstance(each, MoveChild)]
    assert moved.installation.remote == (ELSEWHERE, 500)
    assert moved.installation.local == HA
    assert isinstance(effects[-1], Changed)
    world.do(world.mn, world.mn.endpoint.moved(world.mn.sa.spi, ELSEWHERE, world.now))
    world.do(world.ha, world.ha.endpoint.rekey(world.ha.sa.spi, world.now))
    world.run()
    world.check()
    assert {each.local for each in world.sent} == {HA, (ELSEWHERE, 500)}
    assert world.ha.sa.remote == (ELSEWHERE, 500)


def test_a_binding_that_stays_changes_nothing() -> None:
    world = connected()
    assert not world.ha.endpoint.peer_moved(world.ha.sa.spi, MN[0], world.now)
    assert not world.mn.endpoint.moved(world.mn.sa.spi, MN[0], world.now)


def test_an_address_that_nobody_vouches_for_gets_an_answer_and_no_more() -> None:
    """RFC 7296 2.11: the response goes to where the request came from; nothing follows from that."""
    world = connected()
    sent = forged(world.mn, Exchange.INFORMATIONAL, [])
    effects = world.ha.endpoint.receive(sent.octets, (ELSEWHERE, 4000), HA, world.now)
    [answer] = [each for each in effects if isinstance(each, SendDatagram)]
    assert answer.remote == (ELSEWHERE, 4000)
    assert world.ha.sa.remote == MN


def update(world: World, at: tuple[bytes, int]) -> list[object]:
    """What charon sends when it has another address (RFC 4555 3.5)."""
    ike_sa = world.mn.sa
    payloads = [
        notify(Notification.UPDATE_SA_ADDRESSES),
        notify(Notification.NAT_DETECTION_SOURCE_IP, digest(ike_sa.spi_i, ike_sa.spi_r, at)),
        notify(Notification.NAT_DETECTION_DESTINATION_IP, digest(ike_sa.spi_i, ike_sa.spi_r, HA)),
        notify(Notification.COOKIE2, b"returned"),
    ]
    sent = forged(world.mn, Exchange.INFORMATIONAL, payloads)
    return list(world.ha.endpoint.receive(sent.octets, at, HA, world.now))


def test_mobike() -> None:
    world = connected()
    world.ha.sa.mobike = True
    effects = update(world, (ELSEWHERE, 4500))
    assert world.ha.sa.remote == (ELSEWHERE, 4500)
    assert not world.ha.sa.encapsulate
    [moved] = [each for each in effects if isinstance(each, MoveChild)]
    assert moved.installation.remote == (ELSEWHERE, 4500)
    [answer] = [each for each in effects if isinstance(each, SendDatagram)]
    found = {
        parse_notify(each.body).kind: parse_notify(each.body).data
        for each in opened(world.ha, answer)[1]
        if each.kind == PayloadKind.NOTIFY
    }
    assert found[Notification.COOKIE2] == b"returned"
    ike_sa = world.ha.sa
    expected = digest(ike_sa.spi_i, ike_sa.spi_r, (ELSEWHERE, 4500))
    assert found[Notification.NAT_DETECTION_DESTINATION_IP] == expected


def test_no_mobike_where_it_was_not_agreed_on() -> None:
    world = connected()
    effects = update(world, (ELSEWHERE, 4500))
    assert world.ha.sa.remote == MN
    assert not any(isinstance(each, MoveChild) for each in effects)


def test_a_nat_that_gives_another_port() -> None:
    world = connected()
    world.ha.sa.nat_there = True
    sent = forged(world.mn, Exchange.INFORMATIONAL, [])
    forgery = sent.octets[:-1] + bytes([sent.octets[-1] ^ 1])
    world.ha.endpoint.receive(forgery, (MN[0], 6000), HA, world.now)
    assert world.ha.sa.remote == MN
    effects = world.ha.endpoint.receive(sent.octets, (MN[0], 5000), HA, world.now)
    assert world.ha.sa.remote == (MN[0], 5000)
    assert any(isinstance(each, MoveChild) for each in effects)
    # An old one, replayed from anywhere, moves nothing.
    world.ha.endpoint.receive(sent.octets, (ELSEWHERE, 1), HA, world.now)
    assert world.ha.sa.remote == (MN[0], 5000)


def test_a_replay_that_no_message_id_counts_moves_nothing_and_is_no_sign_of_life() -> None:
    """Message id 0 of RFC 6311 is answered whenever it comes; that is all."""
    world = connected()
    ike_sa = world.ha.sa
    ike_sa.nat_there = True
    ike_sa.probe_at = world.now + 1
    sync = notify(Notification.IKEV2_MESSAGE_ID_SYNC, b"nnnn" + bytes(8))
    sent = forged(world.mn, Exchange.INFORMATIONAL, [sync], message_id=0)
    effects = world.ha.endpoint.receive(sent.octets, (ELSEWHERE, 1), HA, world.now)
    [answer] = [each for each in effects if isinstance(each, SendDatagram)]
    assert answer.remote == (ELSEWHERE, 1)
    assert (ike_sa.remote, ike_sa.probe_at) == (MN, world.now + 1)


def test_a_cookie_of_a_size_that_it_cannot_have_is_not_returned() -> None:
    for size, count in ((7, 0), (8, 1), (64, 1), (65, 0), (60_000, 0)):
        world = connected()
        sent = forged(world.mn, Exchange.INFORMATIONAL, [notify(Notification.COOKIE2, bytes(size))])
        effects = world.ha.endpoint.receive(sent.octets, MN, HA, world.now)
        [answer] = [each for each in effects if isinstance(each, SendDatagram)]
        assert len(opened(world.ha, answer)[1]) == count
