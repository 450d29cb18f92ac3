"""The home agent as a process: what it sets up, and that nothing of it is left."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mip6ha.edge.storage import StoredNumber

from .conftest import CONFIGURATION, HomeAgentProcess, Namespace

pytestmark = pytest.mark.netns

ANYCAST = "2001:db8:a:0:fdff:ffff:ffff:fffe"
OWN = {"2001:db8:a::1", ANYCAST}

MOBILE_NODE = """
[[mobile_node]]
home_address = "2001:db8:a::100"
authentication = { spi = 256, key = "000102030405060708090a0b0c0d0e0f" }
"""

SWITCHES = ("conf.all.forwarding", "conf.home.forwarding", "conf.peer.forwarding")


def test_start_sets_up_and_a_clean_stop_leaves_nothing(namespace: Namespace, agent: HomeAgentProcess) -> None:
    before = {name: namespace.switch(name) for name in SWITCHES}
    links = namespace.links()
    agent.start_ready()
    assert namespace.routes() == OWN
    assert namespace.links() == links | {"mip6test"}
    assert namespace.switch("conf.all.forwarding") == "1"
    assert stat.S_IMODE((agent.directory / "ha.sock").stat().st_mode) == 0o600
    assert agent.end(signal.SIGTERM) == 0
    assert namespace.routes() == set()
    assert namespace.links() == links
    assert {name: namespace.switch(name) for name in SWITCHES} == before
    assert not (agent.directory / "ha.sock").exists()
    assert not (agent.directory / "state" / "switches").exists()


ECHO = """
import socket, sys
echo = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
echo.settimeout(5)
echo.sendto(bytes((128, 0, 0, 0, 0, 7, 0, 1)) + b"mip6", (sys.argv[1], 0))
while True:
    answer, source = echo.recvfrom(2048)
    if answer[0] == 129:
        print(source[0], answer[8:].decode())
        break
"""


def test_a_neighbour_resolves_and_reaches_the_home_agent(
    namespace: Namespace, agent: HomeAgentProcess
) -> None:
    neighbour = f"{namespace.name}-n"
    subprocess.run(["ip", "netns", "add", neighbour], check=True)
    try:
        namespace.run("ip", "link", "set", "peer", "netns", neighbour)
        other = Namespace(neighbour)
        other.run("ip", "link", "set", "peer", "up")
        other.run("ip", "address", "add", "2001:db8:a::5/64", "dev", "peer", "nodad")
        namespace.run("ip", "-6", "route", "add", "2001:db8:a::/64", "dev", "home")
        agent.start_ready()
        assert other.run(sys.executable, "-c", ECHO, "2001:db8:a::1") == "2001:db8:a::1 mip6\n"
        entry = other.run("ip", "-6", "neigh", "show", "2001:db8:a::1")
        assert "lladdr" in entry
        assert "router" not in entry
        assert agent.end(signal.SIGTERM) == 0
    finally:
        subprocess.run(["ip", "netns", "delete", neighbour], check=False)


def test_what_a_killed_process_left_is_cleaned_at_the_next_start(
    namespace: Namespace, agent: HomeAgentProcess
) -> None:
    before = {name: namespace.switch(name) for name in SWITCHES}
    agent.start_ready()
    agent.end(signal.SIGKILL)
    assert namespace.routes() == set()
    # As if somebody had made the TUN device persistent.
    namespace.run("ip", "tuntap", "add", "dev", "mip6test", "mode", "tun")
    agent.start_ready()
    assert agent.show("counters")["leftover_tun_removed"] == 1
    assert agent.end(signal.SIGTERM) == 0
    assert "mip6test" not in namespace.links()
    assert {name: namespace.switch(name) for name in SWITCHES} == before


def stored(path: Path) -> int:
    number = StoredNumber(path, "number")
    number.close()
    return number.value


def test_reserved_sequence_numbers_grow_over_a_kill(agent: HomeAgentProcess) -> None:
    reserved = agent.directory / "state" / "sequences"
    agent.start_ready()
    first = stored(reserved)
    agent.end(signal.SIGKILL)
    agent.start_ready()
    assert stored(reserved) > first > 0
    agent.end(signal.SIGTERM)
    reserved.write_text("no number")
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(15) == 1
    assert "sequences: holds no sequence number" in agent.log


def test_reload_takes_over_mobile_nodes_and_survives_a_broken_file(agent: HomeAgentProcess) -> None:
    agent.start_ready()
    assert agent.process is not None
    assert agent.show("status")["mobile_nodes"] == 0
    agent.configuration.write_text(CONFIGURATION + MOBILE_NODE)
    agent.process.send_signal(signal.SIGHUP)
    agent.wait(lambda: agent.show("status")["mobile_nodes"] == 1)
    agent.configuration.write_text(CONFIGURATION + "[[mobile_node]]\nhome_address = 7\n")
    agent.process.send_signal(signal.SIGHUP)
    agent.wait(lambda: any("mobile_node[0].home_address" in event for event in agent.events()))
    agent.configuration.write_text(CONFIGURATION)
    assert agent.show("status")["mobile_nodes"] == 1
    assert "000102030405060708090a0b0c0d0e0f" not in agent.log
    assert agent.end(signal.SIGTERM) == 0


def test_a_virtual_home_link_needs_no_answers(namespace: Namespace, agent: HomeAgentProcess) -> None:
    agent.configuration.write_text(CONFIGURATION.replace('home_link = "home"\n', ""))
    agent.start_ready()
    assert namespace.routes() == OWN
    assert agent.end(signal.SIGTERM) == 0
    assert namespace.routes() == set()


def test_two_home_agents_on_one_link_leave_each_other_alone(
    namespace: Namespace, agent: HomeAgentProcess, tmp_path: Path
) -> None:
    agent.start_ready()
    second = HomeAgentProcess(namespace, tmp_path / "second")
    second.directory.mkdir()
    content = CONFIGURATION.replace("a::", "b::").replace("mip6test", "mip6other")
    second.configuration.write_text(content)
    try:
        second.start_ready()
        assert namespace.routes() > OWN
        assert second.end(signal.SIGTERM) == 0
        assert namespace.routes() == OWN
    finally:
        for process in second.started:
            process.kill()
            process.wait()
    assert agent.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('home_link = "home"', 'home_link = "nowhere"', "home link nowhere: there is no such interface"),
        ('home_link = "home"', 'home_link = "lo"', "home link lo: is not an Ethernet interface"),
        ('"mip6test"', '"peer"', "TUN device peer: there is another kind of interface"),
        ('"ha.sock"', '"log"', "control socket"),
        ('"state"', '"log"', "state directory"),
    ],
)
def test_what_makes_a_start_impossible_is_told(
    namespace: Namespace, agent: HomeAgentProcess, old: str, new: str, told: str
) -> None:
    before = {name: namespace.switch(name) for name in SWITCHES}
    agent.configuration.write_text(CONFIGURATION.replace(old, new))
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(15) == 1
    assert told in agent.log
    assert "Traceback" not in agent.log
    assert namespace.routes() == set()
    assert {name: namespace.switch(name) for name in SWITCHES} == before


def test_a_second_process_with_the_same_files_does_not_start(agent: HomeAgentProcess) -> None:
    agent.start_ready()
    first = agent.process
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(15) == 1
    assert "another home agent runs with it" in agent.log
    agent.process = first
    assert agent.show("status")["home_agent"] == "2001:db8:a::1"
    assert agent.end(signal.SIGTERM) == 0


def test_the_control_socket_bounds_and_refuses(agent: HomeAgentProcess) -> None:
    agent.start_ready()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(agent.directory / "ha.sock"))
        stream = connection.makefile("rwb")
        for request, error in (
            (b'{"command": "reboot"}', "unknown command; allowed: bindings, sas, counters, status"),
            (b"[]", "a request is"),
            (b"\xff" * 10, "a request is"),
            (b"[" * 4000, "a request is"),
            (b'{"command": ["status"]}', "a request is"),
            (b"x" * 5000, "at most 4096 octets"),
        ):
            stream.write(request + b"\n")
            stream.flush()
            answer = json.loads(stream.readline())
            assert answer["ok"] is False
            assert error in answer["error"]
        assert stream.readline() == b""
    assert agent.show("bindings") == []
    assert agent.show("sas") == []
    assert agent.end(signal.SIGTERM) == 0


def test_people_get_tables(agent: HomeAgentProcess) -> None:
    agent.configuration.write_text(CONFIGURATION + MOBILE_NODE)
    agent.start_ready()
    for what, text in (("status", "2001:db8:a::1"), ("bindings", "no bindings"), ("counters", "counters")):
        result = subprocess.run(
            [sys.executable, "-m", "mip6ha", "show", what, "-c", str(agent.configuration)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        assert text in result.stdout
