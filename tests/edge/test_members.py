"""Two members of a set as processes: who owns the addresses, and that nothing is left."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mip6ha import ipv6

from .redundant import HOME, HOME_AGENT, PATIENCE, RedundantSet

pytestmark = pytest.mark.netns

VIRTUAL = "02:00:5e:00:02:07"
INTERFACE = "mip6ha-v7"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedundantSet]:
    made = RedundantSet(tmp_path)
    try:
        made.open()
        made.configure()
        yield made
    finally:
        made.close()


def port(world: RedundantSet, link_layer: str = VIRTUAL) -> str:
    """The port of the home link's switch that an address was last heard on."""
    for line in world.switch.run("bridge", "fdb", "show", "br", "home").splitlines():
        if line.startswith(link_layer):
            return line.split()[2]
    return ""


def resolved(world: RedundantSet, address: str) -> str:
    """The link-layer address that the neighbour finds for an address, asked anew."""
    world.neighbour.run("ip", "-6", "neigh", "flush", "all")
    probe = f"import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'', ('{address}', 9))"
    world.neighbour.run(sys.executable, "-c", probe)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        found = re.search(r"lladdr (\S+)", world.neighbour.run("ip", "-6", "neigh", "show", address))
        if found:
            return found[1]
        time.sleep(0.02)
    return ""


def test_a_killed_active_member_is_replaced(world: RedundantSet) -> None:
    active, standby = world.start()
    # Whose preference and start are the same: whoever was first.
    assert (active.member, standby.role) == (1, "standby")
    assert world.mobile_node.register() == 0
    standby.wait(lambda: len(standby.show("bindings")) == 1)
    assert resolved(world, HOME_AGENT) == resolved(world, HOME) == VIRTUAL
    assert port(world) == "home1"
    assert active.namespace.rules() == {"home", INTERFACE, "all"}
    assert standby.namespace.rules() == {"home", INTERFACE}
    assert HOME in standby.namespace.routes()

    active.end(signal.SIGKILL)
    standby.wait(lambda: standby.role == "active")
    assert port(world) == "home2"
    # What it left is harmless: it neither answers nor attracts frames.
    assert INTERFACE in active.namespace.links()
    assert resolved(world, HOME_AGENT) == resolved(world, HOME) == VIRTUAL
    assert port(world) == "home2"
    assert world.mobile_node.register() == 0
    assert standby.show("status")["degraded"] is True

    active.start_ready()
    active.wait(lambda: bool(active.show("status")["eligible"]))
    assert active.show("counters")["leftover_virtual_link_removed"] == 1
    assert active.namespace.rules() == {"home", INTERFACE}
    assert port(world) == "home2"
    for member in (active, standby):
        assert member.end(signal.SIGTERM) == 0
        assert member.namespace.rules() == member.namespace.routes() == set()
        assert member.namespace.links() == {"lo", "home", "sync"}


def test_planned_switches_on_request(world: RedundantSet) -> None:
    first, second = world.start()
    assert world.mobile_node.register() == 0
    wrong = first.command("switchover")
    assert wrong.returncode == 1
    assert "this member is active, not a standby" in wrong.stderr

    there = second.command("switchover")
    assert (there.returncode, there.stderr) == (0, "")
    assert re.match(r"group 7: member 2 is active, term \d+, after \d+\.\d ms\n", there.stdout)
    assert (first.role, second.role) == ("standby", "active")
    assert port(world) == "home2"
    assert world.mobile_node.register() == 0
    first.wait(lambda: "all" not in first.namespace.rules())
    second.wait(lambda: bool(first.show("status")["eligible"]))

    nobody = second.command("switchback", "--to", "9")
    assert nobody.returncode == 1
    assert "no such member is synchronised" in nobody.stderr
    back = second.command("switchback", "--to", "1")
    assert back.returncode == 0
    assert "member 2 is standby" in back.stdout
    assert (first.role, second.role) == ("active", "standby")
    assert world.mobile_node.register() == 0
    shown = first.command("show", "status").stdout
    assert "active" in shown
    assert "2001:db8:e::2" in shown


@pytest.mark.parametrize("more", ["", 'virtual_mac = "off"\n'], ids=["virtual-mac", "own-mac"])
def test_a_planned_switch_loses_nothing(world: RedundantSet, more: str) -> None:
    world.configure(more)
    _, second = world.start()
    node = world.mobile_node
    assert node.register() == 0
    with node.traffic() as traffic:
        assert second.command("switchover").returncode == 0
    assert second.role == "active"
    assert traffic.sent > 100
    assert traffic.lost == (set(), set())


def test_a_stop_hands_over_first(world: RedundantSet) -> None:
    world.configure("realtime = true\n")
    active, standby = world.start()
    assert standby.process is not None
    granted = os.sched_getscheduler(standby.process.pid) == os.SCHED_RR
    locked = "VmLck:\t       0 kB" not in Path(f"/proc/{standby.process.pid}/status").read_text()
    # Where it is not allowed that is told, and everything else works.
    assert granted == ("no real-time priority" not in standby.log)
    assert locked == ("memory is not locked" not in standby.log)
    assert world.mobile_node.register() == 0
    assert active.end(signal.SIGTERM) == 0
    assert standby.role == "active"
    told = [event["event"] for event in active.events() if event["event"] != "switch_complete"]
    assert told[-3:] == ["switch_begins", "higher_term", "stopped"]
    assert world.mobile_node.register() == 0
    # Nobody is left to hand over to.
    assert standby.end(signal.SIGTERM) == 0


def test_without_a_virtual_mac_address_neighbours_are_told(world: RedundantSet) -> None:
    world.configure('virtual_mac = "off"\n')
    active, standby = world.start()
    macs = {
        member: member.namespace.run("cat", "/sys/class/net/home/address").strip()
        for member in (active, standby)
    }
    assert world.mobile_node.register() == 0
    assert resolved(world, HOME_AGENT) == macs[active]
    assert resolved(world, HOME) == macs[active]
    active.end(signal.SIGKILL)
    standby.wait(lambda: standby.role == "active")

    def told() -> bool:
        return macs[standby] in world.neighbour.run("ip", "-6", "neigh", "show", HOME)

    standby.wait(told)
    assert world.mobile_node.register() == 0
    assert INTERFACE not in standby.namespace.links()


def test_what_comes_without_esp_or_from_nobody_is_counted(world: RedundantSet) -> None:
    active, _ = world.start()
    for protocol in (ipv6.MOBILITY, ipv6.ESP):
        world.members[2].namespace.run(
            sys.executable,
            "-c",
            f"import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_RAW, {protocol})\n"
            "s.sendto(bytes((59, 1, 242, 0)) + bytes(12), ('2001:db8:e::1', 0))",
        )
    world.neighbour.run("ip", "route", "add", "2001:db8:e::/64", "via", "2001:db8:a::f1")
    world.neighbour.run(
        sys.executable,
        "-c",
        f"import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_RAW, {socket.IPPROTO_ESP})\n"
        "s.sendto(bytes(40), ('2001:db8:e::1', 0))",
    )
    expected = {"harp_unprotected", "harp_unknown_spi", "harp_from_nobody"}
    active.wait(lambda: expected <= set(active.show("counters")))
    assert active.role == "active"


def test_a_term_that_cannot_be_stored_is_not_served_under(world: RedundantSet) -> None:
    reader, writer = os.pipe()
    active, standby = world.start(logs={2: writer})
    os.close(writer)
    assert standby.process is not None
    resource.prlimit(standby.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    active.end(signal.SIGKILL)
    assert standby.process.wait(PATIENCE) == 1
    with os.fdopen(reader) as told:
        log = told.read()
    assert "cannot store the term: File too large" in log
    assert "internal_error" not in log
    assert "Traceback" not in log
    assert port(world) == "home1"
    assert standby.namespace.rules() == standby.namespace.routes() == set()
    assert standby.namespace.links() == {"lo", "home", "sync"}


def test_a_full_disk_stops_nobody(world: RedundantSet, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    try:
        path = world.members[2].configuration
        path.write_text(path.read_text().replace(f"{path.parent}/state", str(disk)))
        active, standby = world.start()
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as filler:
            filler.write(bytes(1 << 20))
        active.end(signal.SIGKILL)
        standby.wait(lambda: standby.role == "active")
        assert standby.end(signal.SIGTERM) == 0
    finally:
        world.members[2].stop()
        subprocess.run(["umount", str(disk)], check=True)


def test_one_process_in_two_sets(world: RedundantSet) -> None:
    """Each of two hosts is preferred in one set, and takes the other one over as well."""
    world.second_set()
    first, second = world.members[1], world.members[2]
    for member in (first, second):
        member.start_ready()
    roles = {(first, 7): "active", (first, 8): "standby", (second, 7): "standby", (second, 8): "active"}

    def settled() -> bool:
        return all(member.role_in(group) == role for (member, group), role in roles.items())

    first.wait(settled)
    assert port(world) == "home1"
    assert port(world, "02:00:5e:00:02:08") == "home2"
    assert resolved(world, "2001:db8:a::2") == "02:00:5e:00:02:08"
    first.end(signal.SIGKILL)
    second.wait(lambda: second.role_in(7) == second.role_in(8) == "active")
    assert port(world) == port(world, "02:00:5e:00:02:08") == "home2"
    assert resolved(world, HOME_AGENT) == VIRTUAL
    assert second.end(signal.SIGTERM) == 0
    assert second.namespace.links() == {"lo", "home", "sync"}
    assert second.namespace.rules() == set()


def test_who_loses_the_home_link_hands_over(world: RedundantSet) -> None:
    active, standby = world.start()
    assert world.mobile_node.register() == 0
    world.switch.run("ip", "link", "set", "home1", "down")
    standby.wait(lambda: standby.role == "active")
    assert world.mobile_node.register() == 0
    assert active.named("home_link_lost") == 1
    # With the other's gone as well there is no better place.
    world.switch.run("ip", "link", "set", "home2", "down")
    standby.wait(lambda: standby.named("home_link_lost") == 1)
