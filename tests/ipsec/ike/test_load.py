"""Floods of strangers: cookies, limits, the queue of handshakes; who is established does not notice."""

from __future__ import annotations

from dataclasses import replace

from mip6ha.ipsec.ike.cookies import SECRET_LIFETIME, Cookies, SourceRates
from mip6ha.ipsec.ike.effects import SendDatagram
from mip6ha.ipsec.ike.message import build_clear, parse_header
from mip6ha.ipsec.ike.parameters import Limits
from mip6ha.ipsec.ike.sa import State

from ...octets import CARE_OF_ADDRESS, HOME_ADDRESS
from .world import CALM, HA, MN, World, parameters_of

OPEN = Limits(cookie_threshold=10**6, source_rate=10**6, source_burst=10**6)


def request(world: World) -> bytes:
    """An IKE_SA_INIT request that nobody waits for the answer of."""
    [sent] = [
        each for each in world.mn.endpoint.initiate("ha", MN, world.now) if isinstance(each, SendDatagram)
    ]
    return sent.octets


def source(number: int) -> tuple[bytes, int]:
    return number.to_bytes(8, "big") + bytes(8), 500


def ask(world: World, octets: bytes, at: tuple[bytes, int] = MN) -> list[SendDatagram]:
    effects = world.ha.endpoint.receive(octets, at, HA, world.now)
    return [each for each in effects if isinstance(each, SendDatagram)]


def test_half_open_ike_sas_are_limited() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, half_open=5, handshakes_per_turn=100)))
    for number in range(10):
        ask(world, request(world), source(number))
        world.ha.endpoint.on_timer(world.now)
    assert len(world.ha.sas(State.HALF_OPEN)) == 5
    assert world.ha.endpoint.counters == {"half_open_limit": 5}
    world.mn.down = True
    world.run(CALM.half_open + 1)
    assert not world.ha.endpoint.ike_sas
    ask(world, request(world))
    assert world.ha.endpoint.counters["half_open_limit"] == 5


def test_the_queue_of_handshakes_is_bounded_and_in_order() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, queue=6, handshakes_per_turn=2)))
    requests = [request(world) for _ in range(8)]
    for number, octets in enumerate(requests):
        assert not ask(world, octets, source(number))
    assert world.ha.endpoint.counters == {"handshake_queue_full": 2}
    assert world.ha.endpoint.next_deadline() == float("-inf")
    served = []
    while world.ha.endpoint.next_deadline() == float("-inf"):
        answers = [each for each in world.ha.endpoint.on_timer(world.now) if isinstance(each, SendDatagram)]
        assert len(answers) == 2
        served += [each.remote for each in answers]
    assert served == [source(number) for number in range(6)]


def test_a_request_that_waits_is_not_queued_twice() -> None:
    world = World()
    octets = request(world)
    ask(world, octets)
    ask(world, octets)
    assert world.ha.endpoint.counters == {"duplicate_request": 1}
    world.ha.endpoint.on_timer(world.now)
    assert len(world.ha.endpoint.ike_sas) == 1
    [first], [second] = ask(world, octets), ask(world, octets)
    assert first == second
    assert len(world.ha.endpoint.ike_sas) == 1


def test_who_is_established_is_served_while_a_flood_waits() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, queue=100, handshakes_per_turn=1)))
    world.connect()
    for number in range(100):
        ask(world, request(world), source(number))
    effects = world.mn.endpoint.rekey_child(world.mn.sa.spi, world.mn.child.spi_in, world.now)
    [sent] = [each for each in effects if isinstance(each, SendDatagram)]
    # At once, before any of those that came earlier.
    [answer] = ask(world, sent.octets)
    assert parse_header(answer.octets)[0].exchange == 36


def test_a_source_may_ask_so_often() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, source_rate=1.0, source_burst=3.0)))
    for number in range(5):
        # Anywhere in its /64.
        ask(world, request(world), (MN[0][:8] + number.to_bytes(8, "big"), 500))
    assert world.ha.endpoint.counters == {"source_rate": 2}
    ask(world, request(world), source(9))
    assert world.ha.endpoint.counters == {"source_rate": 2}
    world.now += 2
    ask(world, request(world))
    assert world.ha.endpoint.counters == {"source_rate": 2}


def test_a_cookie_costs_no_state() -> None:
    world = World(ha=parameters_of("ha", limits=Limits(cookie_threshold=0)))
    for number in range(50):
        assert ask(world, request(world), source(number))
    assert not world.ha.endpoint.ike_sas
    assert world.ha.endpoint.next_deadline() is None
    assert world.ha.endpoint.counters == {"cookie_demanded": 50}


def test_cookies_begin_with_the_queue_too() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, cookie_threshold=3)))
    for number in range(3):
        assert not ask(world, request(world), source(number))
    assert ask(world, request(world), source(3))
    assert world.ha.endpoint.counters == {"cookie_demanded": 1}


def test_a_flood_with_cookies_in_it_does_not_keep_a_mobile_node_out() -> None:
    world = World(ha=parameters_of("ha", limits=Limits(cookie_threshold=4, half_open=50)))
    for number in range(40):
        ask(world, request(world), source(number))
    world.connect()
    world.check()
    assert world.mn.sas()


def test_what_a_cookie_is_bound_to() -> None:
    world = World()
    cookies = Cookies(world.random.randbytes, 0.0)
    cookie = cookies.make(b"n" * 32, CARE_OF_ADDRESS, b"12345678", 0.0)
    assert cookies.holds(cookie, b"n" * 32, CARE_OF_ADDRESS, b"12345678", 1.0)
    assert not cookies.holds(cookie, b"m" * 32, CARE_OF_ADDRESS, b"12345678", 1.0)
    assert not cookies.holds(cookie, b"n" * 32, HOME_ADDRESS, b"12345678", 1.0)
    assert not cookies.holds(cookie, b"n" * 32, CARE_OF_ADDRESS, b"12345679", 1.0)
    for wrong in (b"", cookie[:1], cookie[:-1], cookie + b"\0", bytes(len(cookie))):
        assert not cookies.holds(wrong, b"n" * 32, CARE_OF_ADDRESS, b"12345678", 1.0)
    assert len(cookie) <= 64


def test_a_cookie_grows_old() -> None:
    world = World()
    for age, good in ((1.0, True), (SECRET_LIFETIME + 1, True), (2 * SECRET_LIFETIME + 2, False)):
        cookies = Cookies(world.random.randbytes, 0.0)
        cookie = cookies.make(b"n" * 32, CARE_OF_ADDRESS, b"12345678", 0.0)
        assert cookies.holds(cookie, b"n" * 32, CARE_OF_ADDRESS, b"12345678", age) is good
        # Nor does the next secret but one take it, when the secrets change one by one.
        cookies.make(b"n" * 32, CARE_OF_ADDRESS, b"12345678", age + SECRET_LIFETIME)
        cookies.make(b"n" * 32, CARE_OF_ADDRESS, b"12345678", age + 2 * SECRET_LIFETIME)
        assert not cookies.holds(cookie, b"n" * 32, CARE_OF_ADDRESS, b"12345678", age + 2 * SECRET_LIFETIME)


def test_rates_are_kept_for_so_many_sources() -> None:
    rates = SourceRates(1.0, 1.0, 10)
    for number in range(100):
        assert rates.take(source(number)[0], 0.0)
    assert len(rates) == 10
    assert not rates.take(source(99)[0], 0.0)


def test_no_more_ike_sas_than_allowed() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, ike_sas=1)))
    world.connect()
    ask(world, request(world), source(1))
    assert world.ha.endpoint.counters == {"ike_sa_limit": 1}


def test_errors_in_the_clear_are_limited_too() -> None:
    world = World(ha=parameters_of("ha", limits=replace(OPEN, source_rate=1.0, source_burst=2.0)))
    header, _ = parse_header(request(world))
    octets = build_clear(header._replace(spi_r=b"whatever", exchange=37), [])
    answered = [bool(ask(world, octets)) for _ in range(5)]
    assert answered == [True, True, False, False, False]
    assert world.ha.endpoint.counters == {"unknown_ike_spi": 5}
