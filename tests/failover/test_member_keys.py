"""Members negotiate the SAs between them: both at once, re-keys, restarts, loss, refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from cryptography import x509

from mip6ha.group_config import IKE_LIMITS, IKE_TIMING, member_child
from mip6ha.harp.messages import Hello, StateAcknowledge
from mip6ha.ipsec.ike.certificates import Trust
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import PORT, Exchange
from mip6ha.ipsec.ike.parameters import Parameters, Peer, Timing
from mip6ha.ipsec.ike.proposals import esp_offer
from mip6ha.ipsec.ike.sa import IkeSa, State
from mip6ha.ipsec.sad import counter_limit
from mip6ha.member_keys import MemberKeys

from ..ipsec.ike.authorities import NOW, End, root
from ..ipsec.ike.world import AES_GCM
from ..node.world import CARE_OF_1, CARE_OF_2, GCM
from .world import INTERVAL, START_WAIT, Exchanged, World, every_pair, member_address, mobile_node

OFFER = esp_offer([(20, 128)], group=[0, 31])


def who(identity: int) -> Identity:
    return Identity.parse(f"ha{identity}.example")


def secret(identity: int, other: int) -> dict[str, Any]:
    return {"psk": b"of %d and %d, for nobody else" % (min(identity, other), max(identity, other))}


def negotiating(
    members: int = 2,
    timing: Timing = IKE_TIMING,
    credentials: Callable[[int, int], dict[str, Any]] = secret,
    **changes: Any,
) -> Callable[[int], Parameters]:
    """What the endpoints of ``members`` are told."""

    def parameters(identity: int) -> Parameters:
        own = member_address(identity)
        peers = tuple(
            Peer(
                f"member {other}",
                who(identity),
                who(other),
                (member_child(own, member_address(other), (OFFER,)),),
                (member_address(other), PORT),
                **credentials(identity, other),
            )
            for other in range(1, members + 1)
            if other != identity
        )
        return Parameters((AES_GCM,), peers, timing, IKE_LIMITS, **({"mobike": False} | changes))

    return parameters


def made(*nodes: Any, members: int = 2, timing: Timing = IKE_TIMING, **settings: Any) -> World:
    return World(*nodes, members=members, ike=negotiating(members, timing), **settings)


def keys(world: World, identity: int) -> MemberKeys:
    found = world.members[identity].keys
    assert found is not None
    return found


def established(world: World, identity: int) -> list[IkeSa]:
    return [
        each for each in keys(world, identity).endpoint.ike_sas.values() if each.state is State.ESTABLISHED
    ]


def spis(world: World, identity: int, other: int) -> tuple[set[int], set[int]]:
    """The SPIs that a member receives with from another one, and sends to it with."""
    found = world.members[identity].channel.associations.database.of(member_address(other))
    inbound = {each.spi for each in found if each.window is not None}
    return inbound, {each.spi for each in found} - inbound


def hear_each_other(world: World, one: int, other: int) -> bool:
    """Whether what either sends with is something that the other one has."""
    (in_one, out_one), (in_other, out_other) = spis(world, one, other), spis(world, other, one)
    return bool(out_one and out_other) and out_one <= in_other and out_other <= in_one


def is_tidy(world: World) -> bool:
    """One IKE SA with one child between any two."""
    return all(
        len(established(world, one)) == len(world.members) - 1
        and spis(world, one, other) == spis(world, other, one)[::-1]
        and len(spis(world, one, other)[0]) == 1
        for one in world.members
        for other in world.members
        if one != other
    )


def lossy(world: World, seed: int, share: float) -> None:
    random = Random(seed)
    world.lose = lambda said: random.random() < share
    world.lose_ike = lambda exchanged: random.random() < share
    world.late = lambda said: 0.003 * random.random()


def both_at_once(world: World) -> None:
    for identity in world.members:
        for path in keys(world, identity)._paths.values():
            path.begin_at = world.now


def test_two_that_start_together_need_four_messages() -> None:
    world = made()
    assert not world.said
    assert {member.counters["harp_no_sa_with_member"] for member in world.members.values()} == {1}
    world.settle()
    assert [(each.source, parse_header(each.octets)[0].exchange) for each in world.exchanged] == [
        (1, Exchange.IKE_SA_INIT),
        (2, Exchange.IKE_SA_INIT),
        (1, Exchange.IKE_AUTH),
        (2, Exchange.IKE_AUTH),
    ]
    assert is_tidy(world)
    assert keys(world, 1).protection(2) == "negotiated"


def test_three_members() -> None:
    world = made(mobile_node(), members=3).registered()
    world.run(2.0)
    assert is_tidy(world)
    world.same_everywhere()
    assert not world.names("member_failed")


@pytest.mark.parametrize("seed", range(8))
def test_both_begin_at_once(seed: int) -> None:
    world = made(delay=0.002)
    both_at_once(world)
    random = Random(seed)
    # Whatever order the messages come in, and whichever of them are lost.
    share = 0.3 * (seed % 2)
    world.lose_ike = lambda exchanged: random.random() < share
    world.until(lambda: hear_each_other(world, 1, 2))
    world.run(1.0)
    world.lose_ike = lambda exchanged: False
    world.run(4.0)
    assert is_tidy(world)
    assert len(world.serving) == 1
    world.notices.clear()
    world.run(5.0)
    assert not world.notices


@pytest.mark.parametrize("identity", [1, 2])
@pytest.mark.parametrize("away", [0.0, 0.005, 0.02, 0.2, 3.0])
def test_a_member_that_was_restarted_is_heard_again(identity: int, away: float) -> None:
    world = made(mobile_node()).registered()
    world.kill(identity)
    world.run(away)
    world.start(identity)
    begun = world.now
    world.until(lambda: hear_each_other(world, 1, 2))
    # A HELLO may still be under way.
    assert world.now - begun < 4 * INTERVAL
    world.settle()
    world.run(3.0)
    assert is_tidy(world)
    world.same_everywhere()


@pytest.mark.parametrize("seed", range(6))
def test_restarts_on_a_link_that_loses_and_reorders(seed: int) -> None:
    world = made(mobile_node(), hello_interval=0.1, start_wait=1.0).registered()
    lossy(world, seed, 0.2)
    random = Random(seed)
    for _ in range(4):
        identity = random.choice([1, 2])
        world.kill(identity)
        world.run(random.random())
        world.start(identity)
        begun = world.now
        world.until(lambda: hear_each_other(world, 1, 2))
        assert world.now - begun < 1.5
        world.run(1.0 + random.random())
    world.lose = lambda said: False
    world.lose_ike = lambda exchanged: False
    world.settle()
    world.run(30.0)
    assert is_tidy(world)
    world.same_everywhere()


@pytest.mark.parametrize("count", range(1, 9))
def test_killed_in_the_middle_of_ike(count: int) -> None:
    world = made(mobile_node())
    both_at_once(world)
    world.until(lambda: len(world.exchanged) >= count)
    victim = world.exchanged[-1].destination
    world.kill(victim)
    world.run(0.004)
    world.start(victim)
    begun = world.now
    world.until(lambda: hear_each_other(world, 1, 2))
    assert world.now - begun < 1.0
    world.settle().run(0.05)
    assert world.register(world.nodes[0]).status == 0
    world.run(20.0)
    assert is_tidy(world)
    world.same_everywhere()


def trouble(world: World, random: Random) -> None:
    """One thing that happens to a set."""
    identity, other = random.sample(world.identities, 2)
    match random.randrange(6):
        case 0 | 1 | 2:
            if identity in world.members:
                world.kill(identity)
            world.run(random.choice([0.0, 0.3]) * random.random())
            world.start(identity)
        case 3:
            world.cut |= {(identity, other), (other, identity)}
        case 4:
            world.cut.add((identity, other))
        case _:
            both_at_once(world)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_they_hear_each_other_again(seed: int) -> None:
    random = Random(seed)
    timing = replace(
        IKE_TIMING, child_lifetime=random.choice([0.7, 3.0, 100.0]), ike_lifetime=random.choice([2.0, 1000.0])
    )
    world = made(mobile_node(), members=3, timing=timing, hello_interval=0.05, start_wait=0.5)
    lossy(world, seed, 0.2)
    for _ in range(12):
        world.run(1.5 * random.random())
        trouble(world, random)
        if random.random() < 0.3:
            world.cut.clear()
    world.cut.clear()
    lossy(world, seed, 0.0)
    world.until(lambda: all(hear_each_other(world, *pair) for pair in every_pair(world.members)), 1.0)
    world.settle()
    world.run(20.0)
    world.notices.clear()
    world.run(5.0)
    assert {each.name for each in world.notices} <= {"harp_ike_closed"}
    world.until(lambda: is_tidy(world), 1.0)
    world.same_everywhere()


@pytest.mark.parametrize("late", [0.0, 0.01])
def test_re_keys_during_replication(late: float) -> None:
    nodes = [mobile_node(index) for index in range(5)]
    timing = replace(IKE_TIMING, child_lifetime=0.5, ike_lifetime=1.7)
    world = made(*nodes, timing=timing).registered()
    # Who reads HARP before IKE, say: neither comes before the other for certain.
    world.late_ike = lambda exchanged: late
    used = spis(world, 1, 2)[0]
    first = established(world, 1)[0].spi
    for step in range(1000):
        answered = len(world.answers)
        world.receive(nodes[step % 5].update((CARE_OF_1, CARE_OF_2)[step % 2]))
        world.run(0.005)
        assert len(world.answers) > answered
        used |= spis(world, 1, 2)[0]
    assert len(used) > 8
    assert established(world, 1)[0].spi != first
    assert not world.names("member_failed")
    counted = world.members[1].counters + world.members[2].counters
    assert not {name for name in counted if name.startswith("harp_")} - {
        "harp_no_sa_with_member",
        "harp_not_proved",
    }
    world.run(0.1)
    world.same_everywhere()


def test_a_key_is_replaced_before_its_numbers_run_out() -> None:
    world = made(mobile_node()).registered()
    path = keys(world, 1)._paths[2]
    assert path.sending is not None
    worn = path.sending.outbound
    worn.sequence = int(0.76 * counter_limit(GCM, esn=False))
    worn.limit = worn.sequence + 1000
    world.run(4 * INTERVAL)
    assert path.sending.outbound.spi != worn.spi
    assert path.sending.outbound.sequence < 100
    assert is_tidy(world)
    assert not world.names("member_failed")


@pytest.mark.parametrize("manual", [True, False])
def test_a_failure_is_found_as_fast_as_with_manual_keys(manual: bool) -> None:
    world = World(mobile_node()).registered() if manual else made(mobile_node()).registered()
    world.run(5 * INTERVAL - world.now % INTERVAL)
    world.kill(1)
    took = world.until(lambda: world.serving == [2])
    assert took <= 4 * INTERVAL


@pytest.mark.parametrize("manual", [True, False])
def test_a_member_alone_serves_after_the_same_time(manual: bool) -> None:
    world = World(start=False) if manual else made(start=False)
    world.start(2)
    begun = world.now
    world.until(lambda: world.serving)
    assert world.now - begun == pytest.approx(START_WAIT)


def test_a_member_that_is_spoken_to_by_ike_listens_longer() -> None:
    world = made(start=False)
    world.lose_ike = lambda exchanged: exchanged.destination == 1
    world.start(1)
    world.start(2)
    begun = world.now
    # Somebody is there, who may be active and have state, and cannot be heard yet.
    world.until(lambda: world.members[2].machine.serves)
    assert world.now - begun >= 2 * START_WAIT


@pytest.mark.parametrize("away", [1.0, 15.0, 60.0])
def test_a_cut_that_ends(away: float) -> None:
    timing = replace(IKE_TIMING, child_lifetime=40.0)
    world = made(mobile_node(), timing=timing).registered()
    world.split(1)
    world.run(away)
    assert world.serving == [1, 2]
    world.cut.clear()
    begun = world.now
    world.until(lambda: hear_each_other(world, 1, 2) and len(world.serving) == 1)
    assert world.now - begun < 1.0
    world.settle()
    world.run(20.0)
    assert is_tidy(world)
    world.same_everywhere()


def test_one_direction_only() -> None:
    world = made(mobile_node()).registered()
    world.cut.add((1, 2))
    world.run(5.0)
    world.cut.clear()
    world.until(lambda: hear_each_other(world, 1, 2) and world.is_settled())
    world.run(20.0)
    assert is_tidy(world)


def test_what_was_held_back_before_a_restart_is_not_opened() -> None:
    world = made(mobile_node()).registered()
    held = []
    world.lose = lambda said: said.source == 2 and not held.append(said)  # type: ignore[func-returns-value]
    world.receive(world.nodes[0].update(CARE_OF_2))
    world.until(lambda: any(isinstance(said.message, StateAcknowledge) for said in held))
    world.lose = lambda said: False
    world.kill(2)
    world.start(2)
    world.settle()
    for said in held:
        world.refuses(2, 1, said.packet, "unknown_spi")


def test_older_ike_sas_of_a_restarted_member_are_forgotten() -> None:
    # Member 1 begins too: it has something with member 2, so it does not say that this is the first contact.
    world = made(mobile_node()).registered()
    before = established(world, 1)[0].spi
    world.kill(2)
    world.lose_ike = lambda exchanged: exchanged.source == 2 and parse_header(exchanged.octets)[0].initiator
    world.start(2)
    world.until(world.is_settled)
    assert before not in keys(world, 1).endpoint.ike_sas
    assert is_tidy(world)


def refused(world: World, reason: str) -> None:
    """No HARP goes on, both serve alone, the reason is counted and told once."""
    world.run(5.0)
    assert world.serving == [1, 2]
    assert not world.said
    counted = world.members[1].counters + world.members[2].counters
    assert counted[f"harp_{reason}"] > 2
    assert len(world.names("harp_authentication_failed")) <= 2
    assert world.names("harp_authentication_failed")
    # One attempt in half a second and member at most, each with six messages at most.
    assert len(world.exchanged) < 5.0 / 0.5 * 2 * 6


def test_another_secret() -> None:
    refused(
        World(ike=negotiating(credentials=lambda one, _: {"psk": b"the secret of member %d" % one})),
        "authentication_failed",
    )


def certified(authority: End, ends: dict[int, End]) -> Callable[[int, int], dict[str, Any]]:
    def credentials(identity: int, other: int) -> dict[str, Any]:
        end = ends[identity]
        return {"private_key": end.key, "chain": (end.der,), "trust": Trust((authority.certificate,))}

    return credentials


def issued(authority: End, identity: int, **options: Any) -> End:
    return authority.issue("", names=[x509.DNSName(f"ha{identity}.example")], **options)


def test_certificates() -> None:
    authority = root()
    ends = {each: issued(authority, each) for each in (1, 2)}
    world = World(
        mobile_node(),
        ike=negotiating(credentials=certified(authority, ends)),
        agent={"wall": lambda: NOW},
    ).registered()
    assert is_tidy(world)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"end": NOW - timedelta(hours=1)}, "certificate_expired"),
        ({"identity": 3}, "certificate_name"),
        ({"authority": True}, "certificate_untrusted"),
    ],
)
def test_a_certificate_that_is_refused(wrong: dict[str, Any], reason: str) -> None:
    authority = root()
    issuer = root("Another") if wrong.pop("authority", False) else authority
    ends = {1: issued(authority, 1), 2: issued(issuer, wrong.pop("identity", 2), **wrong)}
    world = World(
        ike=negotiating(credentials=certified(authority, ends)),
        agent={"wall": lambda: NOW},
    )
    refused(world, reason)


def test_strangers_and_nats() -> None:
    world = made(mobile_node()).registered()
    member = world.members[1]
    counted = member.counters.copy()
    stranger = bytes(15) + b"\x07", PORT
    assert member.receive_member_ike(world.exchanged[0].octets, stranger, world.now) == []
    assert dict(member.counters - counted) == {"harp_ike_from_nobody": 1}
    member.receive_unprotected()
    assert member.counters["harp_unprotected"] == 1

    behind = World(ike=negotiating(encapsulate=True))
    behind.run(3.0)
    assert not behind.said
    assert behind.members[1].counters["harp_ike_behind_nat"] > 0


def test_octets_that_are_no_ike() -> None:
    world = made(mobile_node()).registered()
    random = Random(1)
    before = spis(world, 1, 2)
    for each in list(world.exchanged):
        for _ in range(50):
            octets = bytearray(each.octets)
            octets[random.randrange(len(octets))] ^= 1 << random.randrange(8)
            world.receive_member_ike(each.source, each.destination, bytes(octets))
            world.receive_member_ike(
                each.source, each.destination, bytes(octets[: random.randrange(len(octets))])
            )
    world.run(1.0)
    assert spis(world, 1, 2) == before
    assert not world.names("member_failed")
    assert world.register(world.nodes[0], CARE_OF_2).status == 0


def test_a_member_that_has_stopped_says_nothing() -> None:
    world = made().settle()
    member = world.members[2]
    world.carry_out(2, member.stop(world.now))
    said = len(world.exchanged)
    assert member.next_deadline() is None
    world.receive_member_ike(1, 2, world.exchanged[0].octets)
    assert member.on_timer(world.now) == []
    assert len(world.exchanged) == said
    # Who has left is told by HELLO, not found out by silence.
    took = world.until(lambda: not world.members[1].neighbors[2].is_alive(world.now))
    assert took < 2 * INTERVAL
    assert world.messages(Hello, 2)[-1].lifetime == 0


def test_what_is_lost_is_said_again_soon() -> None:
    world = made(start=False)
    lost: list[Exchanged] = []
    world.lose_ike = lambda exchanged: len(lost) < 3 and not lost.append(exchanged)  # type: ignore[func-returns-value]
    world.start(1)
    world.start(2)
    assert world.until(lambda: hear_each_other(world, 1, 2)) < 1.0
