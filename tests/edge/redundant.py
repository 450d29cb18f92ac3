"""A home link, a path between members, members as processes, and a mobile node that is a few lines of script.

The mobile node's care-of address is behind the neighbour, who is also the router of the home link.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netnslab.certificates import Authority, new_ecdsa_key, pem, write_key
from netnslab.processes import answers
from pyroute2.netns import popns, pushns

from mip6ha import ipv6, udp
from mip6ha.binding import messages
from mip6ha.ipsec import algorithms, esp
from mip6ha.ipsec.policy import Direction, Use
from mip6ha.ipsec.sad import SecurityAssociation
from mip6ha.mobility import Option
from mip6ha.wire import address, text

from .conftest import PATIENCE, Namespace, asked

HOME_AGENT = "2001:db8:a::1"
ROUTER = "2001:db8:a::ff"
CARE_OF = "2001:db8:b::5"
HOME = "2001:db8:a::100"
# In IKE.
HOME_AGENT_IDENTITY, MOBILE_NODE_IDENTITY = "ha.example", "mn.example"
ROOT = Path(__file__).parents[2]

_CONFIGURATION = """
[home_agent]
address = "{home_agent}"
home_link = "home"
home_prefixes = ["2001:db8:a::/64"]
tun_name = "mip6test"
duplicate_address_detection = false
control_socket = "{directory}/sock"
state_dir = "{directory}/state"
keys_file = "keys"

[[mobile_node]]
home_address = "{home}"
{associations}
[group]
id = 7
member = {member}
address = "2001:db8:e::{member}"
hello_interval_ms = 20
start_wait_ms = {start_wait}
hold_down_ms = 50
{more}
"""
_ASSOCIATIONS = """
[[mobile_node.sa]]
use = "signalling"
direction = "in"
spi = 0x1000
encryption = "aes-gcm-16"
keys = "update"

[[mobile_node.sa]]
use = "signalling"
direction = "out"
spi = 0x1001
encryption = "aes-gcm-16"
keys = "answer"
"""
# What stands in their place.
_NEGOTIATION = """
[mobile_node.ike]
identity = "{mobile_node}"
keys = "mobile-node"
uses = ["{use}"]

[ike]
identity = "{home_agent}"
"""
_OTHER = """
[[group.peer]]
member = {peer}
address = "2001:db8:e::{peer}"
"""
_MANUAL = """
[[group.peer.sa]]
direction = "out"
spi = 0x3{member}{peer}
encryption = "aes-gcm-16"
keys = "harp-{member}-{peer}"

[[group.peer.sa]]
direction = "in"
spi = 0x3{peer}{member}
encryption = "aes-gcm-16"
keys = "harp-{peer}-{member}"
"""
# What stands in [group.ike] and in [group.peer.ike].
_SECRETS = (
    'identity = "ha{member}.example"\n',
    'identity = "ha{peer}.example"\nkeys = "ike"\n',
)
_CERTIFICATES = (
    'identity = "ha{member}.example"\n'
    'certificate = "chain"\nprivate_key = "key"\ntrust_anchors = ["anchor"]\n',
    'identity = "ha{peer}.example"\n',
)


class MemberProcess:
    """``mip6ha run`` of one member in its namespace."""

    def __init__(self, world: RedundantSet, member: int) -> None:
        self.member = member
        self.directory = world.directory / f"member{member}"
        self.directory.mkdir()
        self.namespace = Namespace(f"{world.name}-{member}")
        self.process: subprocess.Popen[bytes] | None = None
        self.configurations = [self.directory / "ha.toml"]

    @property
    def configuration(self) -> Path:
        return self.configurations[0]

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def start(self, log: int | None = None) -> None:
        """Start it with its log in a file, or to a descriptor."""
        words = [word for path in self.configurations for word in ("-c", str(path))]
        with (self.directory / "log").open("a") as file:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.namespace.name, sys.executable, "-m", "mip6ha"),
                    *("run", *words, "--log-format", "json"),
                ],
                stdout=file,
                stderr=file if log is None else log,
                cwd=ROOT,
            )

    def start_ready(self, log: int | None = None) -> None:
        socket_path = self.directory / "sock"
        socket_path.unlink(missing_ok=True)
        self.start(log)
        self.wait(lambda: answers(socket_path))

    def stop(self) -> None:
        """End it whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until ``condition`` holds; fails with the log when time is up."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process is None or self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def named(self, name: str) -> int:
        return sum(event["event"] == name for event in self.events())

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mip6ha", *words, "-c", str(self.configuration)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )

    def show(self, what: str, name: str = "sock") -> Any:
        return asked(self.directory / name, what)

    @property
    def role(self) -> str:
        return str(self.show("status")["role"])

    def role_in(self, group: int) -> str:
        """Its role in that of two sets, where there are two (:meth:`RedundantSet.second_set`)."""
        return str(self.show("status", "sock" if group == 7 else "sock8")["role"])


class RedundantSet:
    """Namespaces for members 1 to ``count``, and one for the neighbour; :meth:`close` removes them."""

    def __init__(self, directory: Path, count: int = 2) -> None:
        self.directory = directory
        self.name = f"mip6set-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        self.switch = Namespace(f"{self.name}-s")
        self.neighbour = Namespace(f"{self.name}-n")
        self._namespaces = [self.switch, self.neighbour]
        numbers = range(1, count + 1)
        self.members = {number: MemberProcess(self, number) for number in numbers}
        self._namespaces += [member.namespace for member in self.members.values()]
        self._mobile_node: MobileNode | None = None
        self._secret = secrets.token_hex(32)
        self.mobile_node_secret = secrets.token_hex(32)
        self._keys = {
            name: secrets.token_hex(20)
            for name in ("update", "answer", *(f"harp-{a}-{b}" for a in numbers for b in numbers if a != b))
        }

    def open(self) -> None:
        for space in self._namespaces:
            subprocess.run(["ip", "netns", "add", space.name], check=True)
            space.run("ip", "link", "set", "lo", "up")
            # With a tentative link-local address a kernel cannot resolve neighbours for what it forwards.
            space.run("sysctl", "-q", "net.ipv6.conf.default.accept_dad=0")
        for bridge in ("home", "sync"):
            self.switch.run("ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            self.switch.run("ip", "link", "set", bridge, "addrgenmode", "none", "up")
        for number, member in self.members.items():
            self._attach(member.namespace, "home", f"home{number}", f"2001:db8:a::f{number}/64")
            self._attach(member.namespace, "sync", f"sync{number}", f"2001:db8:e::{number}/64")
            member.namespace.run("ip", "-6", "route", "add", "default", "via", ROUTER)
        self._attach(self.neighbour, "home", "neighbour", f"{ROUTER}/64")
        self.neighbour.run("ip", "address", "add", f"{CARE_OF}/128", "dev", "lo")

    def _attach(self, space: Namespace, bridge: str, port: str, own: str) -> None:
        self.switch.run(
            *("ip", "link", "add", port, "type", "veth", "peer", "name", bridge, "netns", space.name)
        )
        self.switch.run("ip", "link", "set", port, "master", bridge, "up")
        space.run("ip", "link", "set", bridge, "up")
        space.run("ip", "address", "add", own, "dev", bridge, "nodad")

    def configure(
        self,
        more: str = "",
        start_wait: int = 300,
        arbiter: str = "",
        ike: tuple[str, str] | None = None,
        use: str | None = None,
    ) -> None:
        """With ``ike``, what :meth:`secrets` or :meth:`certificates` return, members negotiate their SAs.

        With ``use`` the mobile node negotiates its own, for that use and with ``mobile_node_secret``.
        """
        associations = _ASSOCIATIONS
        if use is not None:
            names = {"home_agent": HOME_AGENT_IDENTITY, "mobile_node": MOBILE_NODE_IDENTITY}
            associations = _NEGOTIATION.format(use=use, **names)
        for number, member in self.members.items():
            keys = member.directory / "keys"
            keys.touch(mode=0o600)
            keys.write_text("".join(f'[{name}]\nencryption = "{key}"\n' for name, key in self._keys.items()))
            with keys.open("a") as file:
                file.write(f'[ike]\nsecret = "{self._secret}"\n')
                file.write(f'[mobile-node]\nsecret = "{self.mobile_node_secret}"\n')
            content = _CONFIGURATION.format(
                home_agent=HOME_AGENT,
                home=HOME,
                associations=associations,
                directory=member.directory,
                member=number,
                start_wait=start_wait,
                more=more,
            )
            if ike is not None:
                content += f"\n[group.ike]\n{ike[0]}".format(member=number)
            peer_table = _OTHER + (_MANUAL if ike is None else f"\n[group.peer.ike]\n{ike[1]}")
            content += "".join(
                peer_table.format(member=number, peer=peer) for peer in self.members if peer != number
            )
            member.configuration.write_text(content + arbiter)

    def secrets(self) -> tuple[str, str]:
        """The tables of members with a pre-shared key."""
        return _SECRETS

    def certificates(self) -> tuple[str, str]:
        """The tables of members with certificates, which stand where these say."""
        authority = Authority()
        for number, member in self.members.items():
            key = new_ecdsa_key()
            write_key(member.directory / "key", key)
            (member.directory / "chain").write_bytes(pem(authority.issue(f"ha{number}.example", key)))
            (member.directory / "anchor").write_bytes(pem(authority.certificate))
        return _CERTIFICATES

    def second_set(self) -> None:
        """Another set with the other member preferred, in the same processes."""
        for number, member in self.members.items():
            member.namespace.run("ip", "address", "add", f"2001:db8:f::{number}/64", "dev", "sync", "nodad")
            content = member.configuration.read_text()
            other = member.directory / "second.toml"
            for old, new in (
                ("a::1", "a::2"),
                ("2001:db8:e::", "2001:db8:f::"),
                ("id = 7", "id = 8"),
                ("mip6test", "mip6second"),
                ('/sock"', '/sock8"'),
                ('/state"', '/state8"'),
            ):
                assert old in content
                content = content.replace(old, new)
            other.write_text(
                content.replace("hold_down_ms", f"preempt = true\npreference = {number}\nhold_down_ms")
            )
            member.configuration.write_text(
                member.configuration.read_text().replace(
                    "hold_down_ms", f"preempt = true\npreference = {9 - number}\nhold_down_ms"
                )
            )
            member.configurations.append(other)

    def start(self, logs: dict[int, int] | None = None) -> tuple[MemberProcess, MemberProcess]:
        """Start members 1 and 2; (active, standby) once the standby has all state."""
        for number, member in self.members.items():
            member.start_ready((logs or {}).get(number))
        for member in self.members.values():
            member.wait(lambda: any(each.role == "active" for each in self.members.values()))
        active = next(each for each in self.members.values() if each.role == "active")
        standby = next(each for each in self.members.values() if each is not active)
        standby.wait(lambda: bool(standby.show("status")["eligible"]))
        return active, standby

    @property
    def mobile_node(self) -> MobileNode:
        if self._mobile_node is None:
            self._mobile_node = MobileNode(self.neighbour, self._keys["update"], self._keys["answer"])
        return self._mobile_node

    def close(self) -> None:
        for member in self.members.values():
            member.stop()
        if self._mobile_node is not None:
            self._mobile_node.close()
        for space in self._namespaces:
            subprocess.run(["ip", "netns", "delete", space.name], check=False, stderr=subprocess.DEVNULL)


class MobileNode:
    """Registers from :data:`CARE_OF`, on raw packets; talks through the tunnel."""

    def __init__(self, namespace: Namespace, update: str, answer: str) -> None:
        transform = algorithms.transform("aes-gcm-16")
        home = address(HOME)
        self._out = SecurityAssociation(
            spi=0x1000,
            direction=Direction.OUT,
            use=Use.SIGNALLING,
            home_address=home,
            transform=transform,
            keys=algorithms.Keys(bytes.fromhex(update)),
        )
        self._in = SecurityAssociation(
            spi=0x1001,
            direction=Direction.IN,
            use=Use.SIGNALLING,
            home_address=home,
            transform=transform,
            keys=algorithms.Keys(bytes.fromhex(answer)),
        )
        self._sequence = 0
        pushns(namespace.name)
        try:
            self._sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
            self._listener.bind(("home", 0x86DD))
            # With somebody who takes them the kernel does not complain about tunnelled packets.
            self._tunnel = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_IPV6)
            self._tunnel.bind((CARE_OF, 0))
            self._correspondent = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self._correspondent.bind((ROUTER, 0))
        finally:
            popns()
        self._listener.settimeout(0.2)

    def close(self) -> None:
        for each in (self._sender, self._listener, self._tunnel, self._correspondent):
            each.close()

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Numbered packets both ways through the tunnel while the block runs, one each millisecond."""
        traffic = Traffic(self._tunnel, self._correspondent)
        thread = threading.Thread(target=traffic.run)
        thread.start()
        try:
            yield traffic
        finally:
            traffic.ends = True
            thread.join()

    def register(self, lifetime: int = 60, attempts: int = 25) -> int | None:
        """The status of the answer, ``None`` if there is none."""
        for _ in range(attempts):
            self._sequence += 1
            option = Option(messages.OptionType.ALTERNATE_CARE_OF_ADDRESS, address(CARE_OF))
            update = messages.BindingUpdate(self._sequence, 0xC000, lifetime // 4, (option,))
            octets = messages.build(update, address(HOME), address(HOME_AGENT))
            sealed = esp.protect(self._out, ipv6.MOBILITY, octets, os.urandom)
            packet = ipv6.build(
                address(CARE_OF), address(HOME_AGENT), ipv6.ESP, sealed, home_address=address(HOME)
            )
            self._sender.sendto(packet, (HOME_AGENT, 0))
            answered = self._answer()
            if answered is not None:
                return answered
        return None

    def _answer(self) -> int | None:
        while True:
            try:
                packet = self._listener.recv(2048)
            except TimeoutError:
                return None
            if packet[24:40] != address(CARE_OF) or packet[6] != ipv6.ROUTING:
                continue
            parsed = ipv6.parse(packet)
            if parsed.next_header != ipv6.ESP or text(parsed.logical_destination) != HOME:
                continue
            _, octets = esp.unprotect(self._in, parsed.payload)
            message = messages.parse(octets, address(HOME_AGENT), address(HOME))
            assert isinstance(message, messages.BindingAcknowledgement)
            if message.sequence == self._sequence:
                return int(message.status)


class Traffic:
    """Datagrams from a correspondent to the home address and back; what has not arrived is :attr:`lost`."""

    def __init__(self, tunnel: socket.socket, correspondent: socket.socket) -> None:
        self.ends = False
        self.sent = 0
        self._tunnel = tunnel
        self._correspondent = correspondent
        self._down: set[int] = set()
        self._up: set[int] = set()

    @property
    def lost(self) -> tuple[set[int], set[int]]:
        """Numbers lost towards the mobile node, and from it."""
        everything = set(range(self.sent))
        return everything - self._down, everything - self._up

    def run(self) -> None:
        for each in (self._tunnel, self._correspondent):
            each.setblocking(False)
        while not self.ends:
            self._send(self.sent)
            self.sent += 1
            time.sleep(0.001)
            self._take()
        deadline = time.monotonic() + 1
        while any(self.lost) and time.monotonic() < deadline:
            time.sleep(0.005)
            self._take()

    def _send(self, number: int) -> None:
        payload = number.to_bytes(4, "big")
        self._correspondent.sendto(payload, (HOME, 9))
        port = self._correspondent.getsockname()[1]
        ends = address(HOME), address(ROUTER)
        inner = ipv6.build(*ends, ipv6.UDP, udp.build(*ends, udp.Datagram(9, port, payload)))
        self._tunnel.sendto(inner, (HOME_AGENT, 0))

    def _take(self) -> None:
        for source, seen, offset in ((self._tunnel, self._down, 48), (self._correspondent, self._up, 0)):
            try:
                while True:
                    seen.add(int.from_bytes(source.recv(2048)[offset:], "big"))
            except BlockingIOError:
                pass
