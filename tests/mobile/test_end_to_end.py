"""The emulator and the home agent on real packets: register, talk, move, talk, go home, talk."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from .namespaces import HOME_ADDRESS, HOME_AGENT, World, command, eventually, world
from .programs import Talk, configure, happens, start, start_home_agent

pytestmark = pytest.mark.netns

_SECRET = "0f0e0d0c0b0a09080706050403020100a0a1a2a3"


@pytest.mark.parametrize("payload", [False, True], ids=["plain-tunnel", "esp-tunnel"])
def test_away_and_home_again(tmp_path: Path, payload: bool) -> None:
    with world(tmp_path) as place:
        configure(place, uses=("signalling", "payload") if payload else ("signalling",))
        start_home_agent(place)
        talk = Talk(place)
        process = start(place)
        happens(place, "started", 0)
        count = 0
        for link in ("one", "two"):
            place.plug(link)
            count = happens(place, "binding_acknowledged", count)
            assert eventually(talk.works) == b"hello from " + HOME_ADDRESS.encode()
            # Through the home agent: nothing that the correspondent saw names the foreign link.
            assert talk.works() == b"hello from " + HOME_ADDRESS.encode()
        # Longer than the tunnel takes: both senders are told, and send fragments.
        large = bytes(1430)
        assert eventually(lambda: talk.works(large)) == large + b" from " + HOME_ADDRESS.encode()
        place.plug("home")
        count = happens(place, "deregistered", count)
        assert eventually(talk.works) == b"hello from " + HOME_ADDRESS.encode()
        place.plug("one")
        happens(place, "binding_acknowledged", count)
        assert eventually(talk.works) == b"hello from " + HOME_ADDRESS.encode()
        talk.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        acknowledged = [event for event in place.events() if event["event"] == "binding_acknowledged"]
        assert [event["attempt"] for event in acknowledged] == [1] * len(acknowledged)
        assert place.events()[-1]["event"] == "stopped"
        assert nothing_is_left(place)


def nothing_is_left(place: World) -> bool:
    left = command(f"ip -n {place.mobile} -6 rule") + command(f"ip -n {place.mobile} -6 neigh show proxy")
    left += command(f"ip -n {place.mobile} -6 route show table all")
    return "proto 136" not in left and "mn0" not in left


def test_a_killed_emulator_leaves_what_the_next_one_cleans(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        configure(place)
        forwarding = f"ip netns exec {place.mobile} sysctl -n net.ipv6.conf.all.forwarding"
        start_home_agent(place)
        place.plug("one")
        first = start(place)
        count = happens(place, "binding_acknowledged", 0)
        first.kill()
        first.wait()
        assert not nothing_is_left(place)
        second = start(place)
        happens(place, "leftovers_removed", count)
        # The first one's sequence numbers are not used again, so the home agent sees no replay.
        happens(place, "binding_acknowledged", count)
        assert command(forwarding).strip() == "1"
        second.send_signal(signal.SIGTERM)
        assert second.wait(5) == 0
        assert nothing_is_left(place)
        assert command(forwarding).strip() == "0"


def test_a_care_of_address_in_use_is_not_taken(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        configure(place, mobile_node="care_of_dad = true\n")
        start_home_agent(place)
        start(place)
        happens(place, "started", 0)
        begun = time.monotonic()
        place.plug("one")
        count = happens(place, "care_of_address", 0)
        assert time.monotonic() - begun > 1.0
        taken = str(place.events()[count - 1]["address"]).replace("2001:db8:b", "2001:db8:d")
        command(f"ip -n {place.router} addr add {taken}/64 dev two nodad")
        place.plug("two")
        happens(place, "care_of_address_conflict", count)


def test_a_mobile_network_shares_the_tunnel(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        configure(place, prefixes='"2001:db8:f::/64"')
        start_home_agent(place)
        command(f"ip -n {place.mobile} addr add 2001:db8:f::1/64 dev lo nodad")
        command(f"ip -n {place.router} route add 2001:db8:f::/64 via {HOME_AGENT}")
        place.plug("one")
        start(place)
        happens(place, "binding_acknowledged", 0)
        talk = Talk(place, "2001:db8:f::1")
        assert eventually(talk.works) == b"hello from 2001:db8:f::1"
        talk.close()


def test_a_stop_deregisters_where_that_is_wanted(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        configure(place, mobile_node="deregister_at_stop = true\n")
        start_home_agent(place)
        place.plug("one")
        process = start(place)
        count = happens(place, "binding_acknowledged", 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
        happens(place, "deregistered", count)
        assert nothing_is_left(place)


def test_many_mobile_nodes(tmp_path: Path) -> None:
    pool = (
        'first_home_address = "2001:db8:a::1:0"\ncount = 300\nfirst_spi = 65536\nencryption = "aes-gcm-16"\n'
        f'secret = "{_SECRET}"\n'
    )
    with world(tmp_path) as place:
        for name in ("ha.toml", "load.toml"):
            (tmp_path / name).touch(0o600)
        (tmp_path / "ha.toml").write_text(
            f'[home_agent]\naddress = "{HOME_AGENT}"\nhome_link = "eth0"\n'
            'home_prefixes = ["2001:db8:a::/64"]\n'
            f'duplicate_address_detection = false\ncontrol_socket = "{tmp_path}/ha.sock"\n'
            f'state_dir = "{tmp_path}/ha-state"\n[[mobile_node_pool]]\n{pool}'
        )
        (tmp_path / "load.toml").write_text(
            f'[load]\nhome_agent = "{HOME_AGENT}"\ncare_of_prefix = "2001:db8:e::/64"\nlifetime = 600\n'
            f'state_dir = "{tmp_path}/load-state"\n{pool}'
        )
        start_home_agent(place)
        place.plug("one")
        command(f"ip netns exec {place.mobile} sysctl -qw net.ipv6.conf.eth0.accept_ra=0")
        command(f"ip -n {place.mobile} addr add 2001:db8:b::2/64 dev eth0 nodad")
        command(f"ip -n {place.mobile} route replace default via 2001:db8:b::ff dev eth0 metric 1")
        command(f"ip -n {place.router} route add 2001:db8:e::/64 via 2001:db8:b::2")
        for burst in ([], ["--burst"]):
            process = place.start(
                place.mobile,
                *("-m", "mip6ha.mobile_cli", "load", "-c", f"{tmp_path}/load.toml"),
                *("--json", f"{tmp_path}/load.json", *burst),
            )
            assert process.wait(30) == 0
            report = json.loads((tmp_path / "load.json").read_text())
            assert report["ok"]
            assert [phase["phase"] for phase in report["phases"]] == [
                "register",
                "refresh",
                "move",
                "deregister",
            ]
            assert {phase["accepted"] for phase in report["phases"]} == {300}
        assert "2001:db8:e::" not in command(f"ip -n {place.mobile} -6 route")
