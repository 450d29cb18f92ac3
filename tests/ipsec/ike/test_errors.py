"""Every notify error of RFC 7296 3.10.1: who gets it, what is left standing. docs/ike.md has the table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Header,
    Payload,
    build_clear,
    open_encrypted,
    parse_chain,
    parse_header,
    seal,
)
from mip6ha.ipsec.ike.numbers import Exchange, Notification, PayloadKind, Protocol
from mip6ha.ipsec.ike.parameters import Limits
from mip6ha.ipsec.ike.payloads import (
    Delete,
    KeyPayload,
    Notify,
    build_delete,
    build_key_payload,
    build_notify,
    parse_notify,
)
from mip6ha.ipsec.ike.proposals import Offer, build_proposals, esp_offer, ike_offer, offered
from mip6ha.ipsec.ike.sa import State
from mip6ha.ipsec.ike.selectors import TrafficSelector, build_selectors
from mip6ha.ipsec.ike.transforms import GROUPS, Protection
from mip6ha.wire import address

from ...octets import HOME_ADDRESS
from .world import (
    AES_GCM,
    ESP_GCM,
    HA,
    MN,
    Closed,
    InstallChild,
    SendDatagram,
    World,
    parameters_of,
    payload,
    peer_of,
    signalling,
)

ANY = (bytes(16), b"\xff" * 16)
NONCE = Payload(PayloadKind.NONCE, b"n" * 32)


def connected(**changes: object) -> World:
    world = World(ha=parameters_of("ha", **changes))
    world.connect()
    assert world.mn.sa
    assert world.ha.sa
    return world


def answers(world: World, octets: bytes) -> list[SendDatagram]:
    """What the home agent answers to a datagram of the mobile node's address."""
    effects = world.deliver(world.ha, SendDatagram(MN, HA, octets))
    while world.ha.endpoint.next_deadline() == float("-inf"):
        effects += world.do(world.ha, world.ha.endpoint.on_timer(world.now))
    return [each for each in effects if isinstance(each, SendDatagram)]


def ask(world: World, exchange: int, *payloads: Payload) -> dict[Notification, Notify]:
    """Put a request under the keys of the mobile node; the notifies in the home agent's answer."""
    ours = world.ha.sas(*State)[0]
    keys = ours.keys
    assert keys is not None
    header = Header(ours.spi_i, ours.spi_r, exchange, True, False, ours.expected_id)
    outwards = Protection(ours.suite, keys.ei, keys.ai)
    [answer] = answers(world, seal(header, payloads, outwards, world.random.randbytes))
    chain = parse_chain(answer.octets, HEADER_SIZE, answer.octets[16])
    assert chain.encrypted is not None
    inner = open_encrypted(answer.octets, chain.encrypted, Protection(ours.suite, keys.er, keys.ar))
    return notifies(parse_chain(inner, 0, chain.encrypted.first).payloads)


def notifies(payloads: tuple[Payload, ...]) -> dict[Notification, Notify]:
    found = [parse_notify(each.body) for each in payloads if each.kind == PayloadKind.NOTIFY]
    return {Notification(each.kind): each for each in found}


def in_clear(answer: SendDatagram) -> dict[Notification, Notify]:
    header, first = parse_header(answer.octets)
    assert header.response
    return notifies(parse_chain(answer.octets, HEADER_SIZE, first).payloads)


def child(*offers: Offer, spi: bytes = b"spi!", home: bytes = HOME_ADDRESS, group: int = 0) -> list[Payload]:
    """SA, Nonce, perhaps KE, and selectors of another tunnel."""
    proposals = offered(offers or (ESP_GCM,), Protocol.ESP, spi)
    key = [Payload(PayloadKind.KEY_EXCHANGE, key_payload(group))] if group else []
    return [
        Payload(PayloadKind.SA, build_proposals(proposals)),
        NONCE,
        *key,
        Payload(PayloadKind.TS_INITIATOR, build_selectors([TrafficSelector(0, 0, 65535, home, home)])),
        Payload(PayloadKind.TS_RESPONDER, build_selectors([TrafficSelector(0, 0, 65535, *ANY)])),
    ]


def key_payload(group: int) -> bytes:
    return build_key_payload(KeyPayload(group, GROUPS[group].generate(lambda size: b"\x11" * size).public))


def first_request(offer: Offer = AES_GCM, group: int = 31, *more: Payload, version: int = 0x20) -> bytes:
    """IKE_SA_INIT of a stranger."""
    header = Header(b"stranger", bytes(8), Exchange.IKE_SA_INIT, True, False, 0, version)
    proposals = offered((offer,), Protocol.IKE, b"")
    return build_clear(
        header,
        [
            Payload(PayloadKind.SA, build_proposals(proposals)),
            Payload(PayloadKind.KEY_EXCHANGE, key_payload(group)),
            NONCE,
            *more,
        ],
    )


def rekey_of(spi: bytes) -> Payload:
    return Payload(PayloadKind.NOTIFY, build_notify(Notify(Notification.REKEY_SA, b"", Protocol.ESP, spi)))


UNKNOWN = Payload(99, b"what is this", critical=True)


# 1


def test_unsupported_critical_payload_in_the_clear() -> None:
    world = World()
    [answer] = answers(world, first_request(AES_GCM, 31, UNKNOWN))
    assert in_clear(answer)[Notification.UNSUPPORTED_CRITICAL_PAYLOAD].data == b"\x63"
    assert not world.ha.endpoint.ike_sas
    # One that says that it may be skipped is skipped.
    [answer] = answers(world, first_request(AES_GCM, 31, UNKNOWN._replace(critical=False)))
    assert Notification.UNSUPPORTED_CRITICAL_PAYLOAD not in in_clear(answer)


@pytest.mark.parametrize("exchange", [Exchange.CREATE_CHILD_SA, Exchange.INFORMATIONAL])
def test_unsupported_critical_payload_under_protection(exchange: Exchange) -> None:
    world = connected()
    before = set(world.ha.installed)
    told = ask(world, exchange, *(child() if exchange == Exchange.CREATE_CHILD_SA else []), UNKNOWN)
    assert told[Notification.UNSUPPORTED_CRITICAL_PAYLOAD].data == b"\x63"
    assert world.ha.sa.state is State.ESTABLISHED
    assert set(world.ha.installed) == before


# 4


def test_invalid_ike_spi() -> None:
    world = connected()
    header = Header(b"nobody's", b"nor this", Exchange.INFORMATIONAL, True, False, 7)
    [answer] = answers(world, build_clear(header, []))
    assert list(in_clear(answer)) == [Notification.INVALID_IKE_SPI]
    sent, _ = parse_header(answer.octets)
    assert (sent.spi_i, sent.spi_r, sent.message_id) == (header.spi_i, header.spi_r, 7)
    # A response is never answered, so that two ends cannot go on for ever (2.21.4).
    assert not answers(world, build_clear(header._replace(response=True), []))
    assert not answers(world, answer.octets)


def test_invalid_ike_spi_ends_nothing() -> None:
    """2.21.4: it is not protected, and so is a hint at most."""
    world = connected()
    ours = world.mn.sa
    header = Header(ours.spi_i, ours.spi_r, Exchange.INFORMATIONAL, False, True, ours.next_id)
    lie = Payload(PayloadKind.NOTIFY, build_notify(Notify(Notification.INVALID_IKE_SPI)))
    world.deliver(world.mn, SendDatagram(HA, MN, build_clear(header, [lie])))
    assert world.mn.sa.state is State.ESTABLISHED
    assert not world.mn.all(Closed)


# 5


@pytest.mark.parametrize("version", [0x30, 0x31, 0xF0])
def test_invalid_major_version(version: int) -> None:
    world = World()
    [answer] = answers(world, first_request(version=version))
    assert list(in_clear(answer)) == [Notification.INVALID_MAJOR_VERSION]
    assert parse_header(answer.octets)[0].version == 0x20
    assert not world.ha.endpoint.ike_sas


def test_a_lower_version_gets_nothing_and_a_minor_one_is_the_same() -> None:
    world = World()
    assert not answers(world, first_request(version=0x10))
    assert answers(world, first_request(version=0x2F))


# 7


@pytest.mark.parametrize(
    "wrong",
    [
        Payload(PayloadKind.NONCE, b"short"),
        Payload(PayloadKind.DELETE, b"\x03\x04\x00\x05"),
        Payload(PayloadKind.NOTIFY, b"\x03"),
        Payload(PayloadKind.SA, b"\x00\x00\x00\x04"),
        Payload(PayloadKind.ID_INITIATOR, b"\x02\0\0\0a"),
    ],
    ids=lambda each: PayloadKind(each.kind).name,
)
def test_invalid_syntax(wrong: Payload) -> None:
    """2.21.3: under protection it is said, and ends the IKE SA."""
    world = connected()
    assert list(ask(world, Exchange.INFORMATIONAL, wrong)) == [Notification.INVALID_SYNTAX]
    assert [each.reason for each in world.ha.all(Closed)] == ["invalid_syntax"]
    assert not world.ha.installed


def test_invalid_syntax_in_the_clear_gets_nothing() -> None:
    """2.21.1: a stranger could use it, and an end that is sound does not make it."""
    world = World()
    assert not answers(world, first_request(AES_GCM, 31, NONCE))
    assert not answers(world, first_request()[:-1])
    assert not world.ha.endpoint.ike_sas


# 9


@pytest.mark.parametrize("difference", [-1, 1, 2, 1000])
def test_invalid_message_id_is_never_sent(difference: int) -> None:
    """2.3: it must not be in a response; what is out of the window gets nothing."""
    world = connected()
    ours = world.ha.sa
    assert ours.keys is not None
    expected, last = ours.expected_id, ours.last_response
    header = Header(ours.spi_i, ours.spi_r, Exchange.INFORMATIONAL, True, False, expected + difference)
    octets = seal(header, [], Protection(ours.suite, ours.keys.ei, ours.keys.ai), world.random.randbytes)
    # The one before is a retransmission, and gets the very same octets again.
    assert [each.octets for each in answers(world, octets)] == (list(last) if difference == -1 else [])
    assert world.ha.sa.expected_id == expected


# 14


def test_no_proposal_chosen_for_an_ike_sa() -> None:
    world = World()
    [answer] = answers(world, first_request(ike_offer([(28, None)], [7], [31])))
    assert list(in_clear(answer)) == [Notification.NO_PROPOSAL_CHOSEN]
    assert not world.ha.endpoint.ike_sas


def test_no_proposal_chosen_for_the_first_child() -> None:
    """1.2: the IKE SA stands without it."""
    chacha = esp_offer([(28, None)])
    mn = peer_of("mn", children=(signalling(chacha, role="mn"),))
    world = World(mn=parameters_of("mn", mn))
    world.connect()
    assert world.mn.sa.state is world.ha.sa.state is State.ESTABLISHED
    assert not world.mn.installed
    assert not world.ha.installed
    assert world.ha.endpoint.counters["no_proposal_chosen"] == 1


def test_no_proposal_chosen_for_another_child() -> None:
    world = connected()
    told = ask(world, Exchange.CREATE_CHILD_SA, *child(esp_offer([(28, None)])))
    assert list(told) == [Notification.NO_PROPOSAL_CHOSEN]
    assert world.ha.sa.state is State.ESTABLISHED


def test_no_proposal_chosen_for_the_next_ike_sa() -> None:
    world = connected()
    proposals = offered((ike_offer([(28, None)], [7], [31]),), Protocol.IKE, b"next-spi")
    told = ask(
        world,
        Exchange.CREATE_CHILD_SA,
        Payload(PayloadKind.SA, build_proposals(proposals)),
        NONCE,
        Payload(PayloadKind.KEY_EXCHANGE, key_payload(31)),
    )
    assert list(told) == [Notification.NO_PROPOSAL_CHOSEN]
    assert world.ha.sa.state is State.ESTABLISHED


# 17


def test_invalid_ke_payload_for_an_ike_sa() -> None:
    world = World()
    both = ike_offer([(20, 128)], [5], [19, 31])
    [answer] = answers(world, first_request(both, 19))
    assert in_clear(answer)[Notification.INVALID_KE_PAYLOAD].data == (31).to_bytes(2, "big")
    assert not world.ha.endpoint.ike_sas


def test_invalid_ke_payload_for_a_child() -> None:
    pfs = esp_offer([(20, 128)], group=[31])
    both = esp_offer([(20, 128)], group=[19, 31])
    ha = peer_of("ha", children=(signalling(role="ha"), payload(pfs, role="ha")))
    world = World(ha=parameters_of("ha", ha))
    world.connect()
    told = ask(world, Exchange.CREATE_CHILD_SA, *child(both, group=19))
    assert told[Notification.INVALID_KE_PAYLOAD].data == (31).to_bytes(2, "big")
    assert world.ha.sa.state is State.ESTABLISHED


# 24


def test_authentication_failed_at_the_responder() -> None:
    world = World(mn=parameters_of("mn", peer_of("mn", psk=b"a wrong secret")))
    world.connect()
    assert not world.mn.sas()
    assert not world.ha.sas()
    assert not world.ha.all(InstallChild)
    assert world.ha.endpoint.counters["authentication_failed"] >= 1
    assert [each.reason for each in world.mn.all(Closed)]


def test_authentication_failed_for_who_is_not_known() -> None:
    """An identity that is not known and a key that is wrong look alike from outside (2.21.2)."""
    seen = []
    for change in ({"psk": b"a wrong secret"}, {"local": Identity.parse("nobody@example.org")}):
        world = World(mn=parameters_of("mn", peer_of("mn", **change)))
        world.connect()
        assert not world.ha.sas()
        last = world.ha.all(SendDatagram)[-1].octets
        seen.append((len(last), parse_header(last)[0].exchange))
    assert seen[0] == seen[1]


def test_authentication_failed_at_the_initiator() -> None:
    """2.21.2: the responder believes that all is well, and is told otherwise."""
    other = Identity.parse("elsewhere.example.org")
    world = World(ha=parameters_of("ha", peer_of("ha", local=other)))
    world.connect()
    assert not world.mn.sas()
    assert not world.ha.sas()
    assert not world.ha.installed
    assert not world.mn.all(InstallChild)


# 34, 37, 39, 9, 11: never sent; and whatever a peer says in a response


@pytest.mark.parametrize("number", [1, 14, 17, 34, 35, 37, 38, 39, 43, 44, 45, 8191, 16383])
def test_any_error_from_the_peer_costs_the_exchange_alone(number: int) -> None:
    """Also those that are never sent here, and those that nobody has defined yet (3.10.1)."""
    world = connected()
    installed = set(world.mn.installed)
    world.meddle = lambda _: []
    world.do(world.mn, world.mn.endpoint.create_child(world.mn.sa.spi, "payload", world.now))
    ours = world.mn.sa
    assert ours.keys is not None
    assert ours.pending is not None
    header = Header(ours.spi_i, ours.spi_r, Exchange.CREATE_CHILD_SA, False, True, ours.pending.message_id)
    error = Payload(PayloadKind.NOTIFY, build_notify(Notify(number)))
    octets = seal(header, [error], Protection(ours.suite, ours.keys.er, ours.keys.ar), world.random.randbytes)
    world.deliver(world.mn, SendDatagram(HA, MN, octets))
    assert world.mn.sa.state is State.ESTABLISHED
    assert set(world.mn.installed) == installed


# 35


def test_no_additional_sas() -> None:
    world = connected(limits=Limits(children=1))
    assert list(ask(world, Exchange.CREATE_CHILD_SA, *child())) == [Notification.NO_ADDITIONAL_SAS]
    assert len(world.ha.installed) == 1
    # To replace one is not to have one more.
    spi = world.ha.child.spi_out.to_bytes(4, "big")
    assert Notification.NO_ADDITIONAL_SAS not in ask(world, Exchange.CREATE_CHILD_SA, rekey_of(spi), *child())


# 36


def test_internal_address_failure() -> None:
    """RFC 5026: no home address is assigned where the configuration does not say so; the IKE SA stands."""
    wish = peer_of("mn", request_address=True, home_addresses=())
    world = World(mn=parameters_of("mn", wish))
    world.connect()
    assert world.ha.endpoint.counters["internal_address_failure"] == 1
    assert world.ha.sa.state is State.ESTABLISHED
    granted = World(mn=parameters_of("mn", wish), ha=parameters_of("ha", peer_of("ha", assign=True)))
    granted.connect()
    assert granted.mn.sa.home_addresses == (HOME_ADDRESS,)


# 38


def test_ts_unacceptable() -> None:
    world = connected()
    stranger = address("2001:db8:a::bad")
    assert list(ask(world, Exchange.CREATE_CHILD_SA, *child(home=stranger))) == [Notification.TS_UNACCEPTABLE]
    assert world.ha.sa.state is State.ESTABLISHED
    assert len(world.ha.installed) == 1


# 43


def test_temporary_failure() -> None:
    """2.25: the one end re-keys the IKE SA while the other asks for a child."""
    world = connected()
    world.meddle = lambda _: []
    world.do(world.ha, world.ha.endpoint.rekey(world.ha.sa.spi, world.now))
    assert list(ask(world, Exchange.CREATE_CHILD_SA, *child())) == [Notification.TEMPORARY_FAILURE]
    assert len(world.ha.installed) == 1


# 44


def test_child_sa_not_found() -> None:
    world = connected()
    told = ask(world, Exchange.CREATE_CHILD_SA, rekey_of(b"gone"), *child())
    assert list(told) == [Notification.CHILD_SA_NOT_FOUND]
    assert world.ha.sa.state is State.ESTABLISHED


# Deletes


def test_a_child_deleted_twice_in_one_message() -> None:
    world = connected()
    spi = world.ha.child.spi_out.to_bytes(4, "big")
    delete = Payload(PayloadKind.DELETE, build_delete(Delete(Protocol.ESP, (spi, spi))))
    assert not ask(world, Exchange.INFORMATIONAL, delete, delete)
    assert not world.ha.installed


# The table


def test_the_table_names_every_error_and_its_tests() -> None:
    page = (Path(__file__).parents[3] / "docs" / "ike.md").read_text()
    section = page.split("## Errors")[1].split("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if re.match(r"\| \d+ ", line)]
    errors = {int(row[0]): row[1].strip() for row in rows}
    of_rfc_7296 = {each for each in Notification if each < Notification.INITIAL_CONTACT and each != 40}
    assert errors == {int(each): f"`{each.name}`" for each in of_rfc_7296}
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row[-1])}
    assert named <= set(globals())
    here = {name for name in globals() if name.startswith("test_")}
    assert here - named == {
        "test_a_child_deleted_twice_in_one_message",
        "test_the_table_names_every_error_and_its_tests",
    }
