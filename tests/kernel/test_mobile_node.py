"""A mobile node whose kernel makes the packets, with a home agent: each judges the other's."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import cast

import pytest

from ..mobile.namespaces import HOME_ADDRESS, World, batch, command, eventually, inside, world
from ..mobile.programs import Talk, bound, configure, happens, start, start_home_agent

KERNEL = 'dataplane = "kernel"\n'
HELLO = b"hello from " + HOME_ADDRESS.encode()
UNTOUCHED = "001d0d0c0b0a09080706050403020100a0a1a2a3"


def ip(place: World, what: str) -> str:
    return command(f"ip -n {place.mobile} -d {what}")


def is_clean(place: World) -> bool:
    """Whether nothing of the emulator is there."""
    found = "".join(
        ip(place, what)
        for what in ("-6 rule", "-6 route show table all", "-6 addr", "link", "xfrm state", "xfrm policy")
    )
    return not re.search(r"proto 136|group 136|mn0|2001:db8:a::100|reqid|13620", found)


def care_of_addresses(place: World) -> set[str]:
    """Those that headers are made with and demanded for."""
    return set(re.findall(r"coa (\S+)", ip(place, "xfrm state")))


def number(place: World, spi: int) -> int:
    """The last number that an outbound state has used."""
    listed = ip(place, f"xfrm state list spi {spi}")
    return int(re.findall(r"oseq 0x([0-9a-f]+)", listed)[0], 16)


def statistics(place: World) -> dict[str, int]:
    """What IPsec refused, without zeros."""
    lines = command(f"ip netns exec {place.mobile} cat /proc/net/xfrm_stat").splitlines()
    return {name: int(count) for name, count in map(str.split, lines) if int(count)}


def flush(place: World) -> None:
    """Take away all states and policies; they are there again within a second."""
    after = len(place.events())
    batch(place.mobile, "xfrm state flush", "xfrm policy flush", "xfrm policy flush ptype sub")
    flushed = time.time()
    position = happens(place, "kernel_repaired", after) - 1
    event = place.events()[position]
    assert cast(float, event["time"]) - flushed < 1
    assert {name: event[name] for name in ("header_state", "state")} == {"header_state": 2, "state": 6}


@pytest.mark.parametrize(
    ("transform", "uses", "home_agent"),
    [
        ("aes-gcm-16", ("binding", "prefix"), ""),
        ("aes-cbc+hmac-sha2-256-128", ("payload", "signalling", "prefix"), ""),
        ("aes-gcm-16", ("payload", "signalling", "prefix"), KERNEL),
    ],
    ids=["gcm", "cbc-payload", "gcm-payload-between-kernels"],
)
def test_away_and_home_again(tmp_path: Path, transform: str, uses: tuple[str, ...], home_agent: str) -> None:
    with world(tmp_path) as place:
        configure(place, uses=uses, transform=transform, mobile_node=KERNEL, home_agent=home_agent)
        start_home_agent(place)
        talk = Talk(place)
        process = start(place)
        count = happens(place, "started", 0)
        for link in ("one", "two"):
            place.plug(link)
            count = happens(place, "binding_acknowledged", count)
            address = next(
                str(event["address"]) for event in place.events()[::-1] if event["event"] == "care_of_address"
            )
            assert care_of_addresses(place) == {address}
            assert eventually(talk.works) == HELLO
            if link == "one":
                happens(place, "mobile_prefix_advertisement", 0)
                if "payload" in uses:
                    flush(place)
                    assert eventually(talk.works) == HELLO
                    assert care_of_addresses(place) == {address}
        # Longer than the tunnel takes: both senders are told, and send fragments.
        large = bytes(1430)
        assert eventually(lambda: talk.works(large)) == large + b" from " + HOME_ADDRESS.encode()
        if "payload" in uses:
            assert number(place, 0x2000) > 0
            # Nothing went beside the SA.
            assert re.search(r"RX: .*\n\s+0\s+0\s", command(f"ip -n {place.mobile} -s link show mn0-t"))
        place.plug("home")
        count = happens(place, "deregistered", count)
        assert eventually(talk.works) == HELLO
        assert care_of_addresses(place) == set()
        assert "mode tunnel" not in ip(place, "xfrm state") + ip(place, "xfrm policy")
        assert "ptype sub" not in ip(place, "xfrm policy")
        place.plug("one")
        happens(place, "binding_acknowledged", count)
        assert eventually(talk.works) == HELLO
        talk.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        acknowledged = [event for event in place.events() if event["event"] == "binding_acknowledged"]
        assert [event["attempt"] for event in acknowledged] == [1] * len(acknowledged)
        assert place.events()[-1]["event"] == "stopped"
        assert is_clean(place)
        assert statistics(place) == {}


def test_a_killed_emulator_leaves_what_the_next_one_cleans(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        # Somebody else's, which stay.
        foreign = f"ip -n {place.mobile} xfrm"
        ends = "src 2001:db8:a::100 dst 2001:db8:a::1"
        key = f"aead rfc4106(gcm(aes)) 0x{UNTOUCHED} 128"
        command(f"{foreign} state add {ends} proto esp spi 0x9999 reqid 7 mode transport {key}")
        command(f"{foreign} policy add {ends} proto udp dport 9 dir out priority 13600 action block")
        others = ip(place, "xfrm state") + ip(place, "xfrm policy")
        configure(place, uses=("signalling", "payload"), mobile_node=KERNEL + "deregister_at_stop = true\n")
        start_home_agent(place)
        place.plug("one")
        first = start(place)
        count = happens(place, "binding_acknowledged", 0)
        used = number(place, 0x1000)
        first.kill()
        first.wait()
        assert care_of_addresses(place)
        second = start(place)
        count = happens(place, "leftovers_removed", count)
        left = place.events()[count - 1]
        assert left["leftover_states_removed"] == 6
        assert left["leftover_devices_removed"] == 2
        count = happens(place, "binding_acknowledged", count)
        # So that the home agent sees no replay.
        assert number(place, 0x1000) > used + 1
        second.send_signal(signal.SIGTERM)
        assert second.wait(5) == 0
        happens(place, "deregistered", count)
        assert ip(place, "xfrm state") + ip(place, "xfrm policy") == others
        command(f"{foreign} state delete {ends} proto esp spi 0x9999")
        command(f"{foreign} policy delete {ends} proto udp dport 9 dir out")
        assert is_clean(place)


def test_a_mobile_network_shares_the_tunnel_and_its_protection(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        networks = '"2001:db8:f::/64"'
        configure(
            place,
            uses=("signalling", "payload"),
            home_agent=KERNEL,
            mobile_node=KERNEL,
            prefixes=networks,
        )
        start_home_agent(place)
        # A host of the mobile network, behind the mobile router.
        host = place.namespace("host")
        batch(
            place.mobile,
            f"link add lan type veth peer name host netns {host}",
            "addr add 2001:db8:f::1/64 dev lan nodad",
            "link set lan up",
        )
        batch(
            host,
            "addr add 2001:db8:f::2/64 dev host nodad",
            "link set host up",
            "route add default via 2001:db8:f::1",
        )
        batch(place.router, "route add 2001:db8:f::/64 via 2001:db8:a::1")
        place.plug("one")
        start(place)
        happens(place, "binding_acknowledged", 0)
        for source, namespace in (("2001:db8:f::1", place.mobile), ("2001:db8:f::2", host)):
            talk = Talk(place, source, namespace)
            assert eventually(talk.works) == b"hello from " + source.encode()
            talk.close()
        # Neither of which is in the way of what stays here.
        receiver = inside(place.mobile, lambda: bound(HOME_ADDRESS, 9))
        sender = inside(host, lambda: bound("2001:db8:f::2", 9))
        sender.sendto(b"here", (HOME_ADDRESS, 9))
        assert receiver.recv(10) == b"here"
        receiver.sendto(b"there", ("2001:db8:f::2", 9))
        assert sender.recv(10) == b"there"
        receiver.close()
        sender.close()
        assert statistics(place) == {}
