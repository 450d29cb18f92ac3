"""What two ends agree on, and what one does not let itself be talked into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike.numbers import Protocol
from mip6ha.ipsec.ike.proposals import (
    Kind,
    Offer,
    Proposal,
    Transform,
    accept,
    build_proposals,
    choose,
    esp_offer,
    ike_offer,
    offered,
    parse_proposals,
    without_groups,
)
from mip6ha.wire import Refused

from ...octets import fault
from .strategies import PROPOSALS, parses_or_is_malformed

GCM = ike_offer([(20, 128), (20, 256)], [5], [31, 19])
CBC = ike_offer([(12, 128)], [5], [31, 14], [12, 14])
ESP = esp_offer([(20, 128)], esn=[1, 0])
PFS = esp_offer([(20, 128)], group=[31, 0])


def ids(proposal: Proposal) -> dict[int, int]:
    return {each.kind: each.id for each in proposal.transforms}


@given(PROPOSALS)
def test_what_is_built_parses(proposals: tuple[Proposal, ...]) -> None:
    assert parse_proposals(build_proposals(proposals)) == proposals


@given(st.binary(max_size=80))
def test_anything_else_is_malformed(octets: bytes) -> None:
    parses_or_is_malformed(parse_proposals, octets)


def test_the_first_preference_of_ours_is_taken() -> None:
    theirs = offered([CBC, GCM], Protocol.IKE, b"")
    chosen = choose([GCM, CBC], theirs, Protocol.IKE)
    assert (chosen.number, ids(chosen)) == (2, {1: 20, 2: 5, 4: 31})
    assert chosen.chosen(Kind.ENCRYPTION).key_bits == 128
    assert chosen.chosen(Kind.INTEGRITY).id == 0
    assert ids(choose([CBC], theirs, Protocol.IKE)) == {1: 12, 2: 5, 3: 12, 4: 31}


def test_a_group_that_came_with_a_value_saves_a_round_trip_where_both_allow_it() -> None:
    theirs = offered([GCM], Protocol.IKE, b"")
    assert choose([GCM], theirs, Protocol.IKE, 19).chosen(Kind.GROUP).id == 19
    assert choose([GCM], theirs, Protocol.IKE, 14).chosen(Kind.GROUP).id == 31


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GCM, ike_offer([(20, 192)], [5], [31])),
        (GCM, ike_offer([(20, 128)], [6], [31])),
        (GCM, ike_offer([(20, 128)], [5], [14])),
        (GCM, CBC),
        (CBC, GCM),
        (CBC, ike_offer([(12, 128)], [5], [31], [13])),
        (CBC, ike_offer([(12, None)], [5], [31], [12])),
    ],
)
def test_nothing_in_common(ours: Offer, theirs: Offer) -> None:
    with pytest.raises(Refused, match="no_proposal_chosen"):
        choose([ours], offered([theirs], Protocol.IKE, b""), Protocol.IKE)
    with pytest.raises(Refused, match="no_proposal_chosen"):
        choose([ours], offered([ours], Protocol.ESP, b"abcd"), Protocol.IKE)


def test_what_is_not_understood_is_not_chosen() -> None:
    [good] = offered([GCM], Protocol.IKE, b"")
    # A transform type of RFC 9370 in it: 3.3.6 has the whole proposal refused.
    with pytest.raises(Refused):
        choose([GCM], [good._replace(transforms=(*good.transforms, Transform(6, 35)))], Protocol.IKE)
    strange = [each._replace(understood=each.kind != Kind.ENCRYPTION) for each in good.transforms]
    with pytest.raises(Refused):
        choose([GCM], [good._replace(transforms=tuple(strange))], Protocol.IKE)
    # An AEAD with a separate integrity algorithm is no AEAD that we have offered.
    with pytest.raises(Refused):
        choose([GCM], [good._replace(transforms=(*good.transforms, Transform(3, 12)))], Protocol.IKE)
    found = choose([GCM], [good._replace(transforms=(*good.transforms, Transform(3, 0)))], Protocol.IKE)
    assert ids(found) == {1: 20, 2: 5, 3: 0, 4: 31}


def test_perfect_forward_secrecy_is_demanded_offered_or_left_out() -> None:
    [with_group] = offered([esp_offer([(20, 128)], group=[31])], Protocol.ESP, b"abcd")
    [without] = offered([ESP], Protocol.ESP, b"abcd")
    demanded = esp_offer([(20, 128)], group=[31])
    assert ids(choose([demanded], [with_group], Protocol.ESP)) == {1: 20, 4: 31, 5: 0}
    with pytest.raises(Refused):
        choose([demanded], [without], Protocol.ESP)
    with pytest.raises(Refused):
        choose([ESP], [with_group], Protocol.ESP)
    assert ids(choose([PFS], [without], Protocol.ESP)) == {1: 20, 5: 0}
    assert ids(choose([ESP], without_groups([with_group]), Protocol.ESP)) == {1: 20, 5: 0}


def test_extended_sequence_numbers_are_the_first_choice_of_who_offers_them_first() -> None:
    assert choose([ESP], offered([ESP], Protocol.ESP, b"abcd"), Protocol.ESP).chosen(Kind.ESN).id == 1
    short = offered([esp_offer([(20, 128)])], Protocol.ESP, b"abcd")
    assert choose([ESP], short, Protocol.ESP).chosen(Kind.ESN).id == 0


def _changed(**changes: object) -> list[Proposal]:
    answer = Proposal(1, Protocol.IKE, b"", (Transform(1, 20, 128), Transform(2, 5), Transform(4, 31)))
    return [answer._replace(**changes)]  # type: ignore[arg-type]


def test_an_answer_that_was_offered_is_accepted() -> None:
    sent = offered([GCM, CBC], Protocol.IKE, b"")
    for offers in ([GCM], [CBC]):
        answer = choose(offers, sent, Protocol.IKE)
        assert accept(sent, [answer]) == answer


@pytest.mark.parametrize(
    "answer",
    [
        [],
        _changed() * 2,
        _changed(number=2),
        _changed(number=3),
        _changed(protocol=Protocol.ESP),
        _changed(transforms=(Transform(1, 20, 128), Transform(2, 5))),
        _changed(transforms=(Transform(1, 20, 128), Transform(2, 5), Transform(4, 31), Transform(4, 19))),
        _changed(transforms=(Transform(1, 20, 64), Transform(2, 5), Transform(4, 31))),
        _changed(transforms=(Transform(1, 3), Transform(2, 5), Transform(4, 31))),
        _changed(transforms=(Transform(1, 20, 128), Transform(2, 1), Transform(4, 31))),
        _changed(transforms=(Transform(1, 20, 128), Transform(2, 5), Transform(4, 1))),
        _changed(transforms=(Transform(1, 20, 128), Transform(2, 5), Transform(4, 0))),
        _changed(transforms=(Transform(1, 20, 128, understood=False), Transform(2, 5), Transform(4, 31))),
    ],
)
def test_a_downgrade_is_not_accepted(answer: list[Proposal]) -> None:
    with pytest.raises(Refused, match="proposal_not_offered"):
        accept(offered([GCM, CBC], Protocol.IKE, b""), answer)


def test_an_answer_without_integrity_is_none_where_that_was_offered() -> None:
    sent = offered([CBC], Protocol.IKE, b"")
    bare = Proposal(1, 1, b"", (Transform(1, 12, 128), Transform(2, 5), Transform(4, 31)))
    with pytest.raises(Refused):
        accept(sent, [bare])


@pytest.mark.parametrize(
    "build",
    [
        lambda: ike_offer([(20, 128), (12, 128)], [5], [31], [12]),
        lambda: ike_offer([(20, 128)], [5], [31], [12]),
        lambda: ike_offer([(12, 128)], [5], [31]),
        lambda: ike_offer([], [5], [31]),
        lambda: ike_offer([(20, 128)], [], [31]),
        lambda: ike_offer([(20, 128)], [5], []),
        lambda: ike_offer([(20, 128)], [5], [0]),
        lambda: esp_offer([(20, 128)], esn=[]),
        lambda: esp_offer([(12, 128)]),
    ],
)
def test_what_cannot_be_offered(build: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        build()  # type: ignore[operator]


def test_what_is_wrong_is_said() -> None:
    good = build_proposals(offered([GCM], Protocol.IKE, b""))
    assert fault(lambda: parse_proposals(b""))[0] == "truncated"
    assert fault(lambda: parse_proposals(b"\x01" + good[1:]))[0] == "proposal_structure"
    assert fault(lambda: parse_proposals(good + b"\0"))[0] == "proposal_structure"
    assert fault(lambda: parse_proposals(good[:4] + b"\0" + good[5:]))[0] == "proposal_structure"
    assert fault(lambda: parse_proposals(good[:8] + b"\0" + good[9:]))[0] == "transform_structure"
    assert fault(lambda: parse_proposals(b"\x02\0\0\x08\x01\x01\0\0" * 65))[0] == "proposal_structure"
    # A key length of variable length is not what RFC 7296 3.3.5 knows.
    broken = good.replace(b"\x80\x0e\x00\x80", b"\x00\x0e\x00\x00", 1)
    assert fault(lambda: parse_proposals(broken))[0] == "transform_attribute"


def test_an_unknown_attribute_is_noted() -> None:
    octets = bytes.fromhex("00000018 01010001 00000010 01000014 800e0080 80630001")
    [found] = parse_proposals(octets)
    assert found.transforms == (Transform(1, 20, 128, understood=False),)
    octets = bytes.fromhex("0000001a 01010001 00000012 01000014 800e0080 00630002 0001")
    [found] = parse_proposals(octets)
    assert found.transforms == (Transform(1, 20, 128, understood=False),)
