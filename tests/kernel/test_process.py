"""The home agent as a process on the kernel dataplane: damage, a kill, a clean stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mip6ha import ipv6
from mip6ha.ipsec.policy import Use
from mip6ha.wire import text

from ..node.world import CARE_OF_1, CARE_OF_2, HOME_AGENT, MobileNode
from .agent import CORRESPONDENT, is_quiet, received
from .network import HOME_ADDRESS, Wire, neighbour, tunnelled

PATIENCE = 20.0
CONFIGURATION = """
[home_agent]
address = "2001:db8:a::1"
home_link = "home"
home_prefixes = ["2001:db8:a::/64"]
tun_name = "mip6test"
control_socket = "ha.sock"
state_dir = "state"
dataplane = "kernel"
duplicate_address_detection = false
journal = {journal}

[[mobile_node]]
home_address = "2001:db8:a::100"
"""
ASSOCIATION = """
[[mobile_node.sa]]
use = "{use}"
direction = "{direction}"
spi = {spi}
encryption = "aes-gcm-16"
encryption_key = "{key}"
"""


class Process:
    """``mip6ha run`` in the wire's namespace."""

    def __init__(self, wire: Wire, directory: Path, node: MobileNode, journal: str) -> None:
        self.wire = wire
        self.directory = directory
        self.node = node
        self.process: subprocess.Popen[bytes] | None = None
        associations = (
            ASSOCIATION.format(
                use=each.use.value,
                direction=each.direction.value,
                spi=each.spi,
                key=each.keys.encryption.hex(),
            )
            for each in node.parameters.associations
        )
        configuration = directory / "ha.toml"
        configuration.write_text(CONFIGURATION.format(journal=journal) + "".join(associations))
        configuration.chmod(0o600)

    def start(self) -> None:
        with (self.directory / "log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.wire.name, sys.executable, "-m", "mip6ha"),
                    *("run", "-c", str(self.directory / "ha.toml"), "--log-format", "json"),
                ],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.directory / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [each for each in found if each["event"] == name]

    def wait(self, condition: Callable[[], object]) -> float:
        """Until it holds; how many seconds that took."""
        begun = time.monotonic()
        while not condition():
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < begun + PATIENCE, (self.directory / "log").read_text()
            time.sleep(0.005)
        return time.monotonic() - begun

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def show(self, what: str) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.directory / "ha.sock"))
            connection.sendall(json.dumps({"command": what}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                return json.loads(stream.readline())["result"]

    def register(self, source: bytes = CARE_OF_1) -> None:
        self.wire.send(self.node.update(source))
        while True:
            packet = self.wire.receive()
            if packet[24:40] == source:
                break
        assert self.node.open(packet)


@pytest.fixture
def agent(wire: Wire, tmp_path: Path) -> Iterator[Process]:
    yield from running(wire, tmp_path, MobileNode("2001:db8:a::100", Use.BINDING, Use.PREFIX))


def running(wire: Wire, directory: Path, node: MobileNode, journal: str = "true") -> Iterator[Process]:
    # The address is the home agent's now, and nobody's before.
    wire.ip("addr del 2001:db8:a::1/64 dev home", "addr add 2001:db8:a::2/64 dev home nodad")
    wire.ip("addr add fe80::1/64 dev home nodad", "route replace default dev home")
    wire.ip(*(neighbour(text(each)) for each in (CARE_OF_1, CARE_OF_2, CORRESPONDENT)))
    process = Process(wire, directory, node, journal)
    process.start()
    try:
        process.wait(lambda: process.events("ready"))
        yield process
    finally:
        if process.process is not None and process.process.poll() is None:
            process.end(signal.SIGTERM)
        wire.ip("addr del 2001:db8:a::2/64 dev home", "addr add 2001:db8:a::1/64 dev home nodad")
        wire.ip("addr del fe80::1/64 dev home", "route replace default dev home")


def goes_down(wire: Wire, care_of_address: bytes = CARE_OF_1) -> bool:
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    try:
        return received(wire).destination == care_of_address
    except AssertionError:
        return False


def goes_up(wire: Wire, care_of_address: bytes = CARE_OF_1) -> bool:
    inner = tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up")
    wire.send(ipv6.build(care_of_address, HOME_AGENT, ipv6.IPV6, inner))
    return not is_quiet(wire)


def test_a_mobile_node_registers_moves_and_is_forwarded(wire: Wire, agent: Process) -> None:
    agent.register()
    assert goes_down(wire)
    assert goes_up(wire)
    before = agent.show("counters")["netlink_messages"]
    agent.register()
    assert agent.show("counters")["netlink_messages"] == before
    agent.register(CARE_OF_2)
    assert agent.show("counters")["netlink_messages"] == before + 3
    assert goes_down(wire, CARE_OF_2)
    assert goes_up(wire, CARE_OF_2)
    assert not goes_up(wire, CARE_OF_1)
    assert agent.show("counters").get("tunnelled_out", 0) == 0
    assert agent.show("status")["dataplane"] == "kernel"
    assert agent.end(signal.SIGTERM) == 0
    left = wire.ip("route show table all proto 135", "rule show", "link show", "addr show")
    assert "135" not in left
    assert "mip6" not in left


@pytest.fixture
def protected(wire: Wire, tmp_path: Path) -> Iterator[Process]:
    node = MobileNode("2001:db8:a::100", Use.BINDING, Use.PREFIX, Use.PAYLOAD)
    # What the journal has to know first would be late.
    yield from running(wire, tmp_path, node, "false")


def test_payload_that_needs_esp_never_goes_without(wire: Wire, protected: Process) -> None:
    node = protected.node
    protected.register()
    plain = tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down")
    wire.send(plain)
    sealed = wire.receive()
    while sealed[24:40] != CARE_OF_1:
        sealed = wire.receive()
    inner = bytearray(node.inner(sealed))
    inner[7] += 1
    assert inner == plain
    packet = tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up")
    wire.send(node.tunnel(packet, use=Use.PAYLOAD))
    assert received(wire).source == HOME_ADDRESS
    # Without ESP, and ESP that was there before.
    assert not goes_up(wire)
    wire.send(node.tunnel(packet, use=Use.PAYLOAD))
    again = node.tunnel(packet, use=Use.PAYLOAD)
    assert received(wire).source == HOME_ADDRESS
    wire.send(again)
    assert received(wire).source == HOME_ADDRESS
    wire.send(again)
    assert is_quiet(wire)
    assert protected.show("counters")["replayed"] == 1


def listed(wire: Wire) -> list[str]:
    """The states and policies there are, a line each."""
    found = wire.ip("xfrm state").splitlines() + wire.ip("xfrm policy").splitlines()
    return [line for line in found if line.startswith("src")]


def down(wire: Wire, node: MobileNode) -> int:
    """The number under which a packet came down."""
    wire.send(tunnelled(CORRESPONDENT, HOME_ADDRESS, b"down"))
    sealed = wire.receive()
    while sealed[24:40] != CARE_OF_1 or sealed[6] != ipv6.ESP:
        sealed = wire.receive()
    assert node.inner(sealed)[24:40] == HOME_ADDRESS
    return int.from_bytes(sealed[44:48], "big")


def up(wire: Wire, node: MobileNode, count: int = 1) -> int:
    """How many of so many packets went up, one every few milliseconds."""
    passed = 0
    for index in range(count):
        wire.send(node.tunnel(tunnelled(HOME_ADDRESS, CORRESPONDENT, b"up"), use=Use.PAYLOAD))
        try:
            while True:
                passed += wire.receive(0.002 if index < count - 1 else 0.3)[8:24] == HOME_ADDRESS
        except AssertionError:
            pass
    return passed


def lent(wire: Wire, process: Process) -> int:
    """Let payload pass until the kernel has it; how often it had it by then."""
    for _ in range(200):
        down(wire, process.node)
        up(wire, process.node)
        if len(listed(wire)) == 5:
            break
    assert len(listed(wire)) == 5
    return int(process.show("counters")["payload_lent"])


HARM = {
    "false": (("association", "xfrm state deleteall reqid 1744830464"),),
    "true": (("association", "xfrm state flush"), ("payload_policy", "xfrm policy flush")),
}


@pytest.mark.parametrize("journal", HARM)
def test_payload_under_esp_is_the_kernels_after_its_first_packets(
    wire: Wire, tmp_path: Path, journal: str
) -> None:
    node = MobileNode("2001:db8:a::100", Use.BINDING, Use.PREFIX, Use.PAYLOAD)
    for protected in running(wire, tmp_path, node, journal):
        events = partial(protected.events, "kernel_repaired")
        protected.register()
        assert lent(wire, protected) == 1
        # The numbers that the daemon had kept, and then more than was lent in the beginning.
        assert up(wire, node, 64) == 64
        before = protected.show("counters")
        assert up(wire, node, 200) == 200
        numbers = [down(wire, node) for _ in range(100)]
        assert numbers == list(range(numbers[0], numbers[0] + 100))
        counters = protected.show("counters")
        for name in ("tunnelled_in", "tunnelled_out"):
            assert counters[name] == before[name]
        for kind, command in HARM[journal]:
            repaired = len(events())
            wire.ip(command)
            protected.wait(lambda: len(events()) > repaired)  # noqa: B023 - waited for at once
            assert events()[-1][kind]
            assert protected.show("counters")[f"repaired_{kind}"]
            # Higher numbers than any that was used, and nothing twice: the mobile node's window would tell.
            assert down(wire, node) > numbers[-1]
            # What was lent counts as seen: some of the next numbers are refused, and no more.
            assert up(wire, node, 260) >= 100
            lent(wire, protected)
        protected.wire.send(node.update(lifetime=0))
        protected.wait(lambda: listed(wire) == [])
        assert protected.end(signal.SIGTERM) == 0
        assert listed(wire) == []


DAMAGE = {
    "route": ("route del 2001:db8:a::100/128 dev mip6", ""),
    "filter": ("link show", "filter del dev mip6 ingress pref 1000"),
    "rule": ("rule del pref 13499", ""),
    "address": ("addr del 2001:db8:a::1/128 dev mip6", ""),
    "device": ("link del mip6", ""),
}


def test_what_is_damaged_by_hand_is_repaired_soon(wire: Wire, agent: Process) -> None:
    agent.register()
    for kind, (command, traffic) in DAMAGE.items():
        before = len(agent.events("kernel_repaired"))
        wire.ip(command)
        if traffic:
            wire.tc(traffic)
        # Within a second, where nobody else wants the processor.
        assert agent.wait(lambda before=before: len(agent.events("kernel_repaired")) > before) < 3.0
        assert goes_down(wire), kind
        assert goes_up(wire), kind
        assert kind in agent.events("kernel_repaired")[-1]
        assert agent.show("counters")[f"repaired_{kind}"]


def test_the_kernel_goes_on_while_the_daemon_is_killed_and_started(wire: Wire, agent: Process) -> None:
    agent.register()
    assert goes_down(wire)
    agent.end(signal.SIGKILL)
    ready = len(agent.events("ready"))
    agent.start()
    sent = lost = 0
    until = time.monotonic() + 1.0
    while len(agent.events("ready")) == ready or time.monotonic() < until:
        assert time.monotonic() < until + PATIENCE
        sent += 2
        lost += not goes_down(wire)
        lost += not goes_up(wire)
    assert sent > 10
    assert lost == 0
    assert len(agent.show("bindings")) == 1
    assert agent.show("counters")["netlink_messages"] < 30
    agent.register(CARE_OF_2)
    assert goes_down(wire, CARE_OF_2)
