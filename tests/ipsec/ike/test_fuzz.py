"""10,000 hostile IKE messages: from strangers, and from peers that have the keys."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike.contents import RULES, parse_contents
from mip6ha.ipsec.ike.fragments import open_fragment
from mip6ha.ipsec.ike.message import (
    HEADER_SIZE,
    Payload,
    build_payloads,
    open_encrypted,
    parse_chain,
    parse_header,
)
from mip6ha.ipsec.ike.transforms import ENCRYPTIONS, GROUPS, INTEGRITIES, PRFS, Protection, Suite
from mip6ha.wire import Refused

from .hostile import MESSAGES_IN_A_ROUND, Round, situations
from .recorded import NAMES, Recording

ROUNDS = 10_000 // MESSAGES_IN_A_ROUND
GCM = Protection(Suite(ENCRYPTIONS[20, 128], None, PRFS[5], GROUPS[31]), bytes(20))
CBC = Protection(Suite(ENCRYPTIONS[12, 256], INTEGRITIES[12], PRFS[5], GROUPS[19]), bytes(32), bytes(32))


@pytest.mark.fuzz
def test_ten_thousand_hostile_messages() -> None:
    total = Counter[str]()
    for seed in range(ROUNDS):
        total += Round(seed).run()
    # They came everywhere: past the parser, past the cryptography, into the exchanges.
    for reason in [
        "ike_length",
        "ike_version",
        "ike_integrity",
        "truncated",
        "payload_length",
        "trailing_octets",
        "repeated_payload",
        "missing_payload",
        "unexpected_payload",
        "unsupported_critical_payload",
        "nested_encryption",
        "fragment_number",
        "message_id",
        "unexpected_exchange",
        "unexpected_response",
        "unknown_ike_spi",
        "transform_structure",
        "proposal_structure",
        "no_proposal_chosen",
        "proposal_not_offered",
        "invalid_ke",
        "key_group",
        "selector_range",
        "delete_spi",
        "delete_length",
        "authentication_failed",
        "unknown_identity",
        "unexpected_identity",
        "child_incomplete",
        "child_refused",
        "rekey_refused",
        "answered_again",
        "Established",
        "Closed",
        "InstallChild",
        "RemoveChild",
    ]:
        assert total[reason], reason


def test_a_session_has_every_exchange_both_ways_and_fragments() -> None:
    for with_certificates in (False, True):
        met = {
            (parse_header(each.datagram.octets)[0].exchange, parse_header(each.datagram.octets)[0].response)
            for each in situations(with_certificates=with_certificates)
        }
        assert met == set(RULES)
    assert 53 in {each.datagram.octets[16] for each in situations(with_certificates=True)}


def parsed(octets: bytes) -> None:
    """All that is done with a datagram before anybody's keys are asked for, and then with the wrong ones."""
    header, first = parse_header(octets)
    chain = parse_chain(octets, HEADER_SIZE, first)
    if chain.encrypted is None:
        if (header.exchange, header.response) in RULES:
            parse_contents(header.exchange, header.response, chain.payloads)
        return
    for protection in (GCM, CBC):
        for opening in (open_encrypted, open_fragment):
            with pytest.raises(Refused):
                opening(octets, chain.encrypted, protection)


@pytest.mark.parametrize("name", NAMES)
def test_what_charon_sends_is_parsed(name: str) -> None:
    for message in Recording(name).messages:
        parsed(message.octets)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["psk-gcm", "psk-cbc", "rsa"])
@given(st.data())
def test_what_charon_might_have_sent_is_parsed_or_refused(name: str, data: st.DataObject) -> None:
    octets = bytearray(data.draw(st.sampled_from(Recording(name).messages)).octets)
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(octets)))
    with suppress(Refused):
        parsed(bytes(octets[:cut] if data.draw(st.booleans()) else octets))


@pytest.mark.fuzz
@given(
    exchange=st.sampled_from(sorted(RULES)),
    payloads=st.lists(
        st.builds(Payload, st.integers(1, 255), st.binary(max_size=60), st.booleans()), max_size=8
    ),
)
def test_any_payloads_are_parsed_or_refused(exchange: tuple[int, bool], payloads: list[Payload]) -> None:
    first = payloads[0].kind if payloads else 0
    with suppress(Refused):
        chain = parse_chain(build_payloads(payloads), 0, first)
        if chain.encrypted is None:
            assert list(chain.payloads) == payloads
        parse_contents(*exchange, chain.payloads)
