"""IKE_SA_INIT and IKE_AUTH between two endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mip6ha.ipsec.ike.effects import Changed, Established, InstallChild, KeyLog, Notice, SendDatagram
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import HEADER_SIZE, Payload, build_clear, parse_chain, parse_header
from mip6ha.ipsec.ike.numbers import Notification, PayloadKind
from mip6ha.ipsec.ike.parameters import ChildPolicy, Limits, Scope
from mip6ha.ipsec.ike.payloads import Notify, build_notify, parse_notify
from mip6ha.ipsec.ike.proposals import esp_offer, ike_offer
from mip6ha.ipsec.ike.sa import State
from mip6ha.ipsec.ike.turn import notify
from mip6ha.ipsec.policy import Mode, Use

from ...octets import CORRESPONDENT, HOME_ADDRESS
from .tampering import changed
from .world import (
    AES_CBC,
    AES_GCM,
    CALM,
    ELSEWHERE,
    HA,
    MN,
    World,
    parameters_of,
    payload,
    peer_of,
    signalling,
)

INIT, AUTH, CREATE, INFORMATIONAL = 34, 35, 36, 37


def notifies(datagram: SendDatagram) -> list[int]:
    """Types of the notifies in the clear."""
    _, first = parse_header(datagram.octets)
    chain = parse_chain(datagram.octets, HEADER_SIZE, first)
    return [parse_notify(each.body).kind for each in chain.payloads if each.kind == PayloadKind.NOTIFY]


def test_two_round_trips_make_an_ike_sa_and_a_child() -> None:
    world = World()
    world.connect()
    assert world.exchanges() == [(INIT, False, 0), (INIT, True, 0), (AUTH, False, 1), (AUTH, True, 1)]
    world.check()
    child = world.mn.child
    assert (child.name, child.mode, child.esn) == ("signalling", Mode.TRANSPORT, True)
    assert child.home_address == world.ha.child.home_address == HOME_ADDRESS
    assert child.local[0].first == child.local[0].last == HOME_ADDRESS
    assert world.mn.sa.identity == tuple(Identity.parse("ha.example.org"))
    assert world.ha.sa.identity == tuple(Identity.parse("mn@example.org"))
    assert world.ha.sa.peer == "mn"
    assert not world.mn.endpoint.counters + world.ha.endpoint.counters


def test_state_is_told_before_the_response_that_speaks_of_it() -> None:
    world = World()
    world.connect()
    kinds = [type(each) for each in world.ha.effects if not isinstance(each, Notice)]
    assert kinds == [Changed, SendDatagram, Established, InstallChild, Changed, SendDatagram]


@pytest.mark.parametrize("encryption", [(20, 128), (20, 256), (28, None)])
@pytest.mark.parametrize("group", [31, 19, 20, 14])
def test_aead_suites(encryption: tuple[int, int | None], group: int) -> None:
    offer = ike_offer([encryption], [5], [group])
    world = World(parameters_of("mn", proposals=(offer,)), parameters_of("ha", proposals=(offer,)))
    world.connect()
    world.check()
    assert (world.ha.sa.encryption, world.ha.sa.group) == (encryption, group)


@pytest.mark.parametrize(("prf", "integrity"), [(5, 12), (6, 13), (7, 14)])
def test_cbc_suites(prf: int, integrity: int) -> None:
    offer = ike_offer([(12, 256)], [prf], [31], [integrity])
    child = esp_offer([(12, 128)], [integrity])
    mn = parameters_of("mn", peer_of("mn", children=(signalling(child, role="mn"),)), proposals=(offer,))
    ha = parameters_of("ha", peer_of("ha", children=(signalling(child, role="ha"),)), proposals=(offer,))
    world = World(mn, ha)
    world.connect()
    world.check()
    [installed] = world.ha.installed.values()
    assert installed.installation.transform.startswith("aes-cbc+hmac-sha2-")
    assert not world.ha.child.esn


def test_every_child_that_is_to_start_does() -> None:
    children = (signalling(role="mn"), payload(role="mn", start=True))
    world = World(parameters_of("mn", peer_of("mn", children=children)))
    world.connect()
    world.check()
    assert {each.name for each in world.mn.sa.live_children()} == {"signalling", "payload"}
    assert world.exchanges()[-1] == (CREATE, True, 2)


def test_an_ike_sa_without_a_child() -> None:
    children = (signalling(role="mn", start=False),)
    world = World(parameters_of("mn", peer_of("mn", children=children)))
    world.connect()
    assert not world.mn.sa.children
    assert world.ha.sa.state is State.ESTABLISHED
    world.do(world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "signalling", world.now))
    world.run()
    world.check()
    assert world.mn.child.name == "signalling"


def test_the_responder_wants_another_group() -> None:
    both = ike_offer([(20, 128)], [5], [31, 19])
    world = World(
        parameters_of("mn", proposals=(both,)),
        parameters_of("ha", proposals=(ike_offer([(20, 128)], [5], [19]),)),
    )
    world.connect()
    assert [each[:2] for each in world.exchanges()] == [(INIT, False), (INIT, True)] * 2 + [
        (AUTH, False),
        (AUTH, True),
    ]
    assert notifies(world.sent[1]) == [Notification.INVALID_KE_PAYLOAD]
    assert world.ha.sa.group == 19
    assert world.ha.endpoint.counters == {"invalid_ke_payload": 1}
    world.check()


def test_a_group_that_was_not_offered_is_not_used() -> None:
    """An INVALID_KE_PAYLOAD of somebody on the path cannot make it weaker."""
    world = World()
    world.ha.down = True
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    header, _ = parse_header(world.sent[0].octets)
    answer = header._replace(initiator=False, response=True)
    for group in (b"\x00\x02", b"\x00\x1f", b"", b"\x00\x13\x00"):
        refusal = build_clear(answer, [notify(Notification.INVALID_KE_PAYLOAD, group)])
        world.deliver(world.mn, SendDatagram(HA, MN, refusal))
    assert world.mn.endpoint.counters["group_not_offered"] == 4
    world.ha.down = False
    world.run()
    world.check()
    assert world.mn.sa.group == 31


def test_nothing_in_common() -> None:
    world = World(parameters_of("mn", proposals=(AES_GCM,)), parameters_of("ha", proposals=(AES_CBC,)))
    world.connect()
    assert notifies(world.sent[1]) == [Notification.NO_PROPOSAL_CHOSEN]
    assert not world.mn.endpoint.ike_sas
    assert not world.ha.endpoint.ike_sas
    assert world.ha.endpoint.counters == {"no_proposal_chosen": 1}


def test_cookies_past_a_threshold() -> None:
    world = World(ha=parameters_of("ha", limits=Limits(cookie_threshold=0)))
    world.connect()
    assert notifies(world.sent[1]) == [Notification.COOKIE]
    assert notifies(world.sent[2])[0] == Notification.COOKIE
    assert world.ha.endpoint.counters == {"cookie_demanded": 1}
    world.check()


def test_cookies_and_another_group() -> None:
    both = ike_offer([(20, 128)], [5], [31, 19])
    world = World(
        parameters_of("mn", proposals=(both,)),
        parameters_of(
            "ha", proposals=(ike_offer([(20, 128)], [5], [19]),), limits=Limits(cookie_threshold=0)
        ),
    )
    world.connect()
    world.check()
    assert world.ha.sa.group == 19


def test_a_responder_that_is_never_content_is_given_up() -> None:
    world = World()
    count = 0

    def cookie_again(datagram: SendDatagram) -> list[SendDatagram]:
        nonlocal count
        if datagram.local == MN:
            header, _ = parse_header(datagram.octets)
            answer = build_clear(
                header._replace(initiator=False, response=True), [notify(Notification.COOKIE, bytes([count]))]
            )
            count += 1
            return [SendDatagram(HA, MN, answer)]
        return [datagram]

    world.meddle = cookie_again
    world.do(world.mn, world.mn.endpoint.initiate("ha", MN, world.now))
    world.run(200)
    assert world.mn.endpoint.counters["too_many_rounds"] > 0
    assert not world.mn.sas(State.INITIATED, State.HALF_OPEN)


@pytest.mark.parametrize(
    ("mn", "ha", "reason"),
    [
        ({"psk": b"wrong"}, {}, "authentication_failed"),
        ({"local": Identity.parse("stranger@example.org")}, {}, "unknown_identity"),
    ],
)
def test_who_does_not_prove_to_be_known_gets_nothing(
    mn: dict[str, object], ha: dict[str, object], reason: str
) -> None:
    world = World(parameters_of("mn", peer_of("mn", **mn)), parameters_of("ha", peer_of("ha", **ha)))
    world.connect()
    assert world.ha.endpoint.counters[reason] == 1
    assert world.ha.endpoint.counters["authentication_failed"] >= 1
    assert not world.mn.sas()
    assert not world.ha.sas()
    assert not world.mn.installed
    assert not world.ha.installed
    world.run(60)
    assert not world.ha.endpoint.ike_sas


def test_a_home_agent_that_does_not_prove_to_be_one_is_told() -> None:
    """RFC 7296 2.21.2: the responder believes that all is well, until it hears otherwise."""
    impostor = peer_of("ha", local=Identity.parse("other.example.org"))
    world = World(ha=parameters_of("ha", impostor))
    world.connect()
    assert world.mn.endpoint.counters["unexpected_identity"] == 1
    assert world.exchanges()[-2:] == [(INFORMATIONAL, False, 2), (INFORMATIONAL, True, 2)]
    assert not world.mn.sas()
    assert not world.ha.sas()
    assert not world.ha.installed
    assert not world.mn.installed


def test_initial_contact_ends_what_was_before() -> None:
    world = World()
    world.connect()
    old = world.ha.child
    world.nodes.remove(world.mn)
    world.mn = world.add(parameters_of("mn"), MN)
    world.connect()
    world.check()
    assert old.spi_in not in world.ha.installed
    assert len(world.ha.sas()) == 1


def test_home_address_assignment() -> None:
    second = HOME_ADDRESS[:-1] + b"\x01"
    mn = peer_of("mn", home_addresses=(), request_address=True)
    ha = peer_of("ha", home_addresses=(second, HOME_ADDRESS), assign=True)
    world = World(parameters_of("mn", mn), parameters_of("ha", ha))
    world.connect()
    world.check()
    assert world.mn.sa.home_addresses == world.ha.sa.home_addresses == (second,)
    assert world.mn.child.home_address == second


def test_no_home_address_to_assign() -> None:
    mn = peer_of("mn", home_addresses=(), request_address=True)
    world = World(parameters_of("mn", mn))
    world.connect()
    assert world.ha.endpoint.counters == {"internal_address_failure": 1}
    assert world.mn.sa.home_addresses == ()
    assert not world.mn.sa.children
    world.check()


def test_a_home_address_that_is_not_ones_own() -> None:
    """RFC 4877 4: the identity has its home addresses, and no child on another's."""
    mn = peer_of("mn", home_addresses=(CORRESPONDENT,))
    world = World(parameters_of("mn", mn))
    world.connect()
    assert world.ha.endpoint.counters == {"ts_unacceptable": 1}
    assert world.mn.sas()
    assert not world.mn.installed
    assert not world.ha.installed


def test_one_of_several_home_addresses() -> None:
    ha = peer_of("ha", home_addresses=(CORRESPONDENT, HOME_ADDRESS))
    world = World(ha=parameters_of("ha", ha))
    world.connect()
    world.check()
    assert world.ha.child.home_address == HOME_ADDRESS


def test_no_transform_in_common_for_the_child() -> None:
    child = signalling(esp_offer([(28, None)]), role="ha")
    world = World(ha=parameters_of("ha", peer_of("ha", children=(child,))))
    world.connect()
    assert world.ha.endpoint.counters == {"no_proposal_chosen": 1}
    assert world.mn.sas()
    assert not world.mn.sa.children


def test_transport_mode_is_not_taken_for_a_tunnel() -> None:
    """RFC 7296 1.3.1: the responder may decline transport mode; here that is no child then."""
    tunnel = replace(payload(role="ha"), name="signalling")
    world = World(ha=parameters_of("ha", peer_of("ha", children=(tunnel,))))
    world.connect()
    assert world.mn.endpoint.counters["child_mode"] == 1
    assert not world.mn.installed
    assert not world.ha.installed


def test_eap_is_refused() -> None:
    """A request without AUTH asks for EAP (2.16)."""
    world = World()

    def drop(payloads: Sequence[Payload]) -> list[Payload]:
        return [each for each in payloads if each.kind != PayloadKind.AUTHENTICATION]

    def without_auth(datagram: SendDatagram) -> list[SendDatagram]:
        header, _ = parse_header(datagram.octets)
        if header.exchange == AUTH and not header.response:
            return [changed(world.mn, datagram, drop)]
        return [datagram]

    world.meddle = without_auth
    world.connect()
    assert world.ha.endpoint.counters["eap_refused"] == 1
    assert not world.mn.sas()
    assert not world.ha.sas()


def test_nat_between_them() -> None:
    """Another source address and port than the peer sees itself (2.23): ports 4500 and ESP in UDP."""
    world = World()
    outside = (ELSEWHERE, 40000)

    def translate(datagram: SendDatagram) -> list[SendDatagram]:
        if datagram.local[0] == MN[0]:
            port = 40000 if datagram.local[1] == 500 else 40001
            return [datagram._replace(local=(ELSEWHERE, port))]
        port = 500 if datagram.remote == outside else 4500
        return [datagram._replace(remote=(MN[0], port))]

    world.meddle = translate
    world.connect()
    world.check()
    mn, ha = world.mn.sa, world.ha.sa
    assert (mn.nat_here, mn.nat_there) == (True, False)
    assert (ha.nat_here, ha.nat_there) == (False, True)
    assert mn.encapsulate
    assert ha.encapsulate
    assert ha.remote == (ELSEWHERE, 40001)
    assert ha.local == (HA[0], 4500)
    [installed] = world.ha.installed.values()
    assert installed.installation.encapsulate
    assert installed.installation.remote == (ELSEWHERE, 40001)


def test_encapsulation_on_demand() -> None:
    world = World(ha=parameters_of("ha", encapsulate=True))
    world.connect()
    world.check()
    assert world.mn.sa.encapsulate
    assert world.ha.sa.encapsulate
    assert world.mn.sa.remote == (HA[0], 4500)


def test_the_key_log_is_silent_unless_asked_for() -> None:
    world = World()
    world.connect()
    assert not world.ha.all(KeyLog)
    world = World(ha=parameters_of("ha", key_log=True))
    world.connect()
    [log] = world.ha.all(KeyLog)
    keys = world.ha.sa.keys
    assert keys is not None
    assert keys.ei.hex() in log.line
    assert keys.ei.hex() not in repr(log)


def test_nothing_shows_a_key() -> None:
    world = World()
    world.connect()
    keys = world.ha.sa.keys
    assert keys is not None
    shown = repr(world.ha.sa) + repr(world.ha.effects) + repr(world.mn.effects) + repr(peer_of("mn"))
    for secret in (*keys, b"correct horse"):
        assert not secret or repr(secret)[2:-1] not in shown
    [installed] = world.ha.installed.values()
    assert repr(installed.inbound.encryption) not in shown


def test_lifetimes_have_jitter() -> None:
    timing = replace(CALM, jitter=0.1)
    moments = set()
    for seed in range(5):
        world = World(ha=parameters_of("ha", timing=timing), seed=seed)
        world.connect()
        lasts = world.ha.child.rekey_at - 1000
        assert 0.9 * timing.child_lifetime <= lasts <= timing.child_lifetime + 1
        moments.add(round(lasts, 3))
    assert len(moments) == 5


def test_a_mobile_node_without_a_home_address_has_no_child_on_one() -> None:
    world = World(parameters_of("mn", peer_of("mn", home_addresses=())))
    world.connect()
    assert world.mn.sas()
    assert not world.mn.installed
    assert "child_without_home_address" in [each.name for each in world.mn.all(Notice)]


def test_two_home_agents() -> None:
    """Members of a set protect HARP between their own addresses: no home address is in it."""
    one, other = (Scope(135, None, at[0], at[0]) for at in (MN, HA))
    peers = {
        role: peer_of(
            role,
            home_addresses=(),
            children=(ChildPolicy("harp", Use.HARP, (esp_offer([(20, 128)]),), (local,), (remote,)),),
        )
        for role, local, remote in (("mn", one, other), ("ha", other, one))
    }
    world = World(*(parameters_of(role, peers[role]) for role in ("mn", "ha")))
    world.connect()
    world.check()
    child = world.ha.child
    assert (child.use, child.mode, child.home_address) == (Use.HARP, Mode.TRANSPORT, b"")
    assert child.local[0].first == child.local[0].last == HA[0]


@pytest.mark.parametrize("kind", [Notification.REDIRECT, 16900, 40959])
def test_a_status_that_is_not_understood_is_passed_over(kind: int) -> None:
    world = World()
    status = Payload(PayloadKind.NOTIFY, build_notify(Notify(kind, b"\x02\x10" + HA[0])))

    def also(datagram: SendDatagram) -> list[SendDatagram]:
        # AUTH covers IKE_SA_INIT; what is under protection may be changed by who has the keys.
        if parse_header(datagram.octets)[0].exchange == INIT:
            return [datagram]
        return [changed(world.mn, datagram, lambda payloads: [*payloads, status])]

    world.meddle = also
    world.connect()
    world.check()
    assert world.mn.sas()


def test_a_first_message_changed_on_the_way_is_found_out() -> None:
    """2.15: AUTH covers IKE_SA_INIT, so whoever takes a proposal out of it has nothing of it."""
    world = World()

    def weaken(datagram: SendDatagram) -> list[SendDatagram]:
        header, first = parse_header(datagram.octets)
        if header.exchange == INIT and not header.response:
            chain = parse_chain(datagram.octets, HEADER_SIZE, first)
            cut = [each for each in chain.payloads if each.kind != PayloadKind.NOTIFY]
            return [datagram._replace(octets=build_clear(header, cut))]
        return [datagram]

    world.meddle = weaken
    world.connect()
    assert world.ha.endpoint.counters["authentication_failed"] == 1
    assert not world.mn.sas()
    assert not world.ha.sas()
