"""UDP for IKE on real sockets, and the key log's file."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.selectreactor import SelectReactor

from mip6ha.edge.errors import Unusable
from mip6ha.edge.ike_keylog import KeyLogDirectory
from mip6ha.edge.ike_socket import IkeSockets, Received
from mip6ha.wire import address

LOOPBACK = address("::1")


class World:
    """Both ports on a reactor of their own, and a peer."""

    def __init__(self, stack: ExitStack) -> None:
        self.reactor = SelectReactor()
        self.counters: Counter[str] = Counter()
        self.messages: list[Received] = []
        self.packets: list[Received] = []
        self.peer = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self.peer.settimeout(5)
        self.peer.bind(("::1", 0))
        self.ports = free_port(), free_port()
        self.sockets = IkeSockets(
            self.messages.append,
            self.packets.append,
            lambda: None,
            self.counters,
            self.reactor,
            ports=self.ports,
        )
        stack.callback(self.sockets.close)

    def say(self, port: int, *payloads: bytes) -> None:
        for payload in payloads:
            self.peer.sendto(payload, ("::1", self.ports[port]))
        self.reactor.doIteration(0.1)


def free_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def test_both_ports(world: World) -> None:
    source = LOOPBACK, world.peer.getsockname()[1]
    world.say(0, b"\0\0\0\0 no marker here")
    assert world.messages == [Received(b"\0\0\0\0 no marker here", source, (LOOPBACK, world.ports[0]))]
    world.say(1, b"\xff", b"\0\0\0\0a message", b"\0\0\1\0a packet", b"")
    destination = LOOPBACK, world.ports[1]
    assert world.messages[1:] == [Received(b"a message", source, destination)]
    assert world.packets == [
        Received(b"\0\0\1\0a packet", source, destination),
        Received(b"", source, destination),
    ]
    assert world.counters == {"nat_keep_alive": 1}


def test_the_address_that_was_asked_answers(world: World) -> None:
    """RFC 7296 2.11: from a socket of all addresses too."""
    world.say(1, b"\0\0\0\0a message")
    [found] = world.messages
    world.sockets.send(b"an answer", found.destination, found.source)
    world.sockets.send_esp(b"\0\0\1\0a packet", found.destination[0], found.source)
    world.sockets.send(b"from the other", (LOOPBACK, world.ports[0]), found.source)
    got = [world.peer.recvfrom(100) for _ in range(3)]
    assert [payload for payload, _ in got] == [b"\0\0\0\0an answer", b"\0\0\1\0a packet", b"from the other"]
    assert [source[:2] for _, source in got] == [("::1", world.ports[n]) for n in (1, 1, 0)]


def test_what_cannot_be_sent_is_counted(world: World) -> None:
    world.sockets.send(b"?", (address("2001:db8::1"), world.ports[0]), (LOOPBACK, 9))
    assert world.counters.total() == 1
    assert next(iter(world.counters)).startswith("ike_send_E")


def test_a_port_that_is_taken(world: World) -> None:
    with pytest.raises(Unusable, match=f"UDP port {world.ports[1]} of ::: Address already in use"):
        IkeSockets(
            world.messages.append,
            world.packets.append,
            lambda: None,
            world.counters,
            world.reactor,
            ports=(free_port(), world.ports[1]),
        )
    # Neither is anything left of the first port, nor anything in the reactor.
    assert len(world.reactor.getReaders()) == 2 + len(SelectReactor().getReaders())


def test_a_key_log_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    before = os.umask(0)
    try:
        for line in ("one", "two"):
            log = KeyLogDirectory(path)
            log.ike(line)
            log.esp(f"esp {line}")
            log.close()
    finally:
        os.umask(before)
    assert (path / "ikev2_decryption_table").read_text() == "one\ntwo\n"
    assert (path / "esp_sa").read_text() == "esp one\nesp two\n"
    assert path.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in path.iterdir()} == {0o600}


def test_a_key_log_that_others_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "esp_sa").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable, match="esp_sa: Too many levels of symbolic links"):
        KeyLogDirectory(tmp_path)
    (tmp_path / "esp_sa").unlink()
    (tmp_path / "esp_sa").touch(mode=0o600)
    (tmp_path / "esp_sa").chmod(0o640)
    with pytest.raises(Unusable, match=r"esp_sa: .*mode 0600"):
        KeyLogDirectory(tmp_path)
    with pytest.raises(Unusable, match="No such file"):
        KeyLogDirectory(tmp_path / "nowhere" / "keys")
