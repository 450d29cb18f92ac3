"""What an IKE SA costs who answers: processor time of a handshake, next to strongSwan's, and memory.

A handshake is IKE_SA_INIT and IKE_AUTH with a pre-shared key, x25519, AES-GCM-16-128 and one tunnel mode
child. ``ike_psk_responder_core_ms`` is :class:`IkeEndpoint` alone. The other two are whole programs,
``mip6ha ike`` and charon, each at the end of a link of two network namespaces and measured in turn: processor
time of all their threads, user and system, while the same initiator makes IKE SAs with it, one at a time.
Neither writes a log. charon has its SAs in itself (kernel-libipsec), ``mip6ha ike`` has them nowhere.
``bytes_per_ike_sa`` is the growth of the resident set with each established IKE SA and its child in the core,
without ESP. Not covered: certificates, which cost what the library's signatures cost.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, process_time, sleep

from mip6ha.ipsec.ike.effects import Effect, InstallChild, SendDatagram
from mip6ha.ipsec.ike.endpoint import IkeEndpoint
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.parameters import ChildPolicy, Limits, Parameters, Peer, Scope
from mip6ha.ipsec.ike.proposals import esp_offer, ike_offer
from mip6ha.ipsec.policy import Use
from mip6ha.wire import address, text

from .dataplane import INTERFACE, ip, lacks, network
from .population import resident

__all__ = ["STEPS", "ike_figures", "initiate", "serve"]

STEPS = 4
"""How often :func:`ike_figures` reports progress."""
_CHUNKS, _CHUNK = 9, 100
_POPULATION = 5_000
_WARMING, _MEASURED, _ROUNDS = 50, 250, 7
_SECRET = bytes(range(32))
_RESPONDER, _INITIATOR = Identity.parse("ha.example"), Identity.parse("mn.example")
_HOME_AGENT = address("2001:db8:1::1")
_LINK = address("2001:db8:1::2")
_CARE_OF = int.from_bytes(address("2001:db8:c000::2"), "big")
_HOME = int.from_bytes(address("2001:db8:a::1:0"), "big")
_HOME_PREFIX = (address("2001:db8:a::"), address("2001:db8:a::ffff:ffff:ffff:ffff"))
_EVERYWHERE = (bytes(16), b"\xff" * 16)
_UNLIMITED = Limits(source_rate=1e9, source_burst=1e9, sources=1 << 20)
_PATIENCE = 15.0
# From linux/in6.h: sources that a route makes local, not an address of an interface.
_IPV6_FREEBIND = 78
_CHARON, _SWANCTL = Path("/usr/sbin/charon-systemd"), "/usr/sbin/swanctl"


def _wall() -> datetime:
    return datetime.now(UTC)


def _home(number: int) -> bytes:
    return (_HOME + number).to_bytes(16, "big")


def _care_of(number: int) -> bytes:
    """Each in a /64 of its own: what a source may ask is limited."""
    return (_CARE_OF + (number << 64)).to_bytes(16, "big")


def _parameters(peers: tuple[Peer, ...]) -> Parameters:
    return Parameters((ike_offer([(20, 128)], [5], [31]),), peers, limits=_UNLIMITED, mobike=False)


def _child(local: tuple[bytes, bytes], remote: tuple[bytes, bytes]) -> ChildPolicy:
    offers = (esp_offer([(20, 128)]),)
    return ChildPolicy("payload", Use.PAYLOAD, offers, (Scope(0, None, *local),), (Scope(0, None, *remote),))


def _responder() -> IkeEndpoint:
    child = _child(_EVERYWHERE, _HOME_PREFIX)
    peer = Peer("everybody", _RESPONDER, _INITIATOR, (child,), psk=_SECRET)
    return IkeEndpoint(_parameters((peer,)), os.urandom, 0.0, wall=_wall)


def _initiator(count: int) -> IkeEndpoint:
    peers = tuple(
        Peer(
            str(number),
            _INITIATOR,
            _RESPONDER,
            (_child((_home(number), _home(number)), _EVERYWHERE),),
            address=(_HOME_AGENT, 500),
            psk=_SECRET,
        )
        for number in range(count)
    )
    return IkeEndpoint(_parameters(peers), os.urandom, 0.0, wall=_wall)


# The core


class _Core:
    """Initiator and responder in one process."""

    def __init__(self, count: int) -> None:
        self.responder = _responder()
        self._initiator = _initiator(count)
        self._first = b""
        self.spent = 0.0

    def handshake(self, number: int) -> None:
        """One IKE SA more at the responder; the initiator forgets all but its first."""
        initiator, responder = self._initiator, self.responder
        waiting = _sent(initiator.initiate(str(number), (_care_of(number), 500), 0.0))
        while waiting:
            datagram = waiting.pop(0)
            if datagram.remote[0] == _HOME_AGENT:
                begun = process_time()
                effects = _received(responder, datagram)
                self.spent += process_time() - begun
            else:
                effects = _received(initiator, datagram)
            waiting += _sent(effects)
        for spi in [each for each in initiator.ike_sas if each != self._first]:
            if self._first:
                initiator.forget(spi)
            self._first = self._first or spi


def _received(endpoint: IkeEndpoint, datagram: SendDatagram) -> list[Effect]:
    effects = endpoint.receive(datagram.octets, datagram.local, datagram.remote, 0.0)
    while endpoint.next_deadline() == float("-inf"):
        effects += endpoint.on_timer(0.0)
    return effects


def _sent(effects: list[Effect]) -> list[SendDatagram]:
    return [each for each in effects if isinstance(each, SendDatagram)]


def _core_figure() -> float:
    """Milliseconds of processor time per IKE SA."""
    core = _Core((_CHUNKS + 1) * _CHUNK)
    chunks = []
    for chunk in range(_CHUNKS + 1):
        core.spent = 0.0
        for number in range(chunk * _CHUNK, (chunk + 1) * _CHUNK):
            core.handshake(number)
        chunks.append(core.spent / _CHUNK * 1e3)
    assert len(core.responder.ike_sas) == (_CHUNKS + 1) * _CHUNK
    return median(chunks[1:])


def serve(size: int) -> None:
    """Be that many IKE SAs, and print what one takes."""
    core = _Core(size)
    # The first ones bring what all share.
    for number in range(_CHUNK):
        core.handshake(number)
    before = resident()
    for number in range(_CHUNK, size):
        core.handshake(number)
    grown = resident() - before
    assert len(core.responder.ike_sas) == size
    print(json.dumps(grown / (size - _CHUNK)))


def _memory_figure() -> float:
    command = [sys.executable, sys.argv[0], "--ike-population", str(_POPULATION)]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


# Whole programs


def initiate(count: int) -> None:
    """Make IKE SAs with whoever answers, a few first, then as many for each line of standard input."""
    endpoint = _initiator(count)
    sockets = {}
    for port in (500, 4500):
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        made.bind(("::", port))
        sockets[port] = made
    done = 0
    for line in sys.stdin:
        for number in range(done, done + int(line)):
            _handshake(endpoint, sockets, number)
        done += int(line)
        print(done, flush=True)


def _handshake(endpoint: IkeEndpoint, sockets: dict[int, socket.socket], number: int) -> None:
    begun = monotonic()
    effects = endpoint.initiate(str(number), (_care_of(number), 500), begun)
    while not any(isinstance(each, InstallChild) for each in effects):
        for datagram in _sent(effects):
            _send(sockets[datagram.local[1]], datagram)
        ready = select.select(list(sockets.values()), [], [], 0.2)[0]
        now = monotonic()
        if now > begun + _PATIENCE:
            raise RuntimeError(f"no IKE SA: {dict(endpoint.counters)}")
        effects = endpoint.on_timer(now)
        for each in ready:
            port = each.getsockname()[1]
            octets, ancillary, _, source = each.recvmsg(65536, socket.CMSG_SPACE(20))
            if port == 4500:
                octets = octets[4:]
            local = (ancillary[0][2][:16], port)
            effects += endpoint.receive(octets, (address(source[0]), source[1]), local, now)


def _send(through: socket.socket, datagram: SendDatagram) -> None:
    marker = bytes(4) if datagram.local[1] == 4500 else b""
    information = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, datagram.local[0] + bytes(4))
    remote = (text(datagram.remote[0]), datagram.remote[1])
    through.sendmsg([marker + datagram.octets], [information], 0, remote)


def _processor_time(process: int) -> float:
    """Seconds of all threads, from the scheduler's own count."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9


_OURS = """\
[ike]
identity = "ha.example"
address = "2001:db8:1::1"
keys_file = "secrets"
control_socket = "control"
proposals = ["aes-gcm-16-128 prf-hmac-sha2-256 x25519"]
probe_interval = 0
mobike = false

[[peer]]
name = "everybody"
identity = "mn.example"
keys = "psk"

[[peer.child]]
name = "payload"
use = "payload"
local = ["::/0"]
remote = ["2001:db8:a::/64"]
proposals = ["aes-gcm-16-128"]
"""

_THEIRS = """\
charon-systemd {
  load = random nonce openssl kdf hmac vici socket-default kernel-libipsec kernel-netlink
  install_routes = no
  journal { default = -1 }
  plugins { vici { socket = unix://DIRECTORY/vici } }
}
"""

_CONNECTION = """\
connections { bench {
  local_addrs = 2001:db8:1::1
  remote_addrs = ::/0
  proposals = aes128gcm16-prfsha256-x25519
  unique = never
  mobike = no
  rekey_time = 0
  local { auth = psk
    id = ha.example }
  remote { auth = psk
    id = mn.example }
  children { payload {
    mode = tunnel
    local_ts = ::/0
    remote_ts = 2001:db8:a::/64
    esp_proposals = aes128gcm16
    rekey_time = 0
  } }
} }
secrets { ike-bench { secret = 0xSECRET } }
"""


@contextmanager
def _running(namespace: str, directory: Path, command: list[str], **environment: str) -> Iterator[int]:
    """A program in a namespace: its process id."""
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await(path: Path, directory: Path) -> None:
    end = monotonic() + _PATIENCE
    while not path.exists():
        if monotonic() > end:
            raise RuntimeError(f"it did not start: {(directory / 'log').read_text().strip()}")
        sleep(0.05)


_Program = Callable[[str, Path], AbstractContextManager[int]]


@contextmanager
def _ours(namespace: str, directory: Path) -> Iterator[int]:
    (directory / "secrets").touch(mode=0o600)
    (directory / "secrets").write_text(f'[psk]\nsecret = "{_SECRET.hex()}"\n')
    (directory / "ike.toml").write_text(_OURS)
    command = [sys.executable, "-m", "mip6ha", "ike", "run", "-c", str(directory / "ike.toml")]
    with _running(namespace, directory, [*command, "--log-level", "error"]) as process:
        _await(directory / "control", directory)
        yield process


@contextmanager
def _theirs(namespace: str, directory: Path) -> Iterator[int]:
    configuration = directory / "strongswan.conf"
    configuration.write_text(_THEIRS.replace("DIRECTORY", str(directory)))
    (directory / "swanctl.conf").write_text(_CONNECTION.replace("SECRET", _SECRET.hex()))
    with _running(namespace, directory, [str(_CHARON)], STRONGSWAN_CONF=str(configuration)) as process:
        _await(directory / "vici", directory)
        load = [_SWANCTL, "--load-all", "--uri", f"unix://{directory / 'vici'}"]
        subprocess.run([*load, "--file", str(directory / "swanctl.conf")], capture_output=True, check=True)
        yield process


@contextmanager
def _link(name: str) -> Iterator[tuple[str, str]]:
    """The responder's namespace and the initiator's, which has every care-of address."""
    with network(name) as (responder, initiator):
        switch_on = f"echo 0 > /proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"
        ip("netns", "exec", initiator, "sh", "-c", switch_on)
        for namespace, own in ((responder, _HOME_AGENT), (initiator, _LINK)):
            ip("-n", namespace, "link", "set", "lo", "up")
            ip("-n", namespace, "addr", "add", f"{text(own)}/64", "dev", INTERFACE, "nodad")
        ip("-n", responder, "-6", "route", "add", "2001:db8:c000::/36", "via", text(_LINK), "dev", INTERFACE)
        ip("-n", initiator, "-6", "route", "add", "local", "2001:db8:c000::/36", "dev", "lo")
        yield responder, initiator


class _Measured:
    """A program that answers, and an initiator that asks it."""

    def __init__(self, stack: ExitStack, name: str, program: _Program, directory: Path) -> None:
        directory.mkdir()
        self._log = directory / "log"
        responder, initiator = stack.enter_context(_link(name))
        self._process = stack.enter_context(program(responder, directory))
        count = _WARMING + _ROUNDS * _MEASURED
        command = [sys.executable, sys.argv[0], "--ike-initiator", str(count)]
        self._asking = subprocess.Popen(
            ["ip", "netns", "exec", initiator, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        stack.callback(self._asking.communicate)
        stack.callback(self._asking.kill)
        self.more(_WARMING)

    def more(self, number: int) -> float:
        """Make so many IKE SAs: milliseconds of the program's processor time for each."""
        assert self._asking.stdin is not None
        assert self._asking.stdout is not None
        before = _processor_time(self._process)
        self._asking.stdin.write(f"{number}\n")
        if not self._asking.stdout.readline():
            raise RuntimeError(f"the handshakes ended: {self._log.read_text().strip()[-2000:]}")
        return (_processor_time(self._process) - before) / number * 1e3


def ike_figures(step: Callable[[], None]) -> dict[str, object]:
    """Every figure of this module; those of whole programs where there may be namespaces, and charon."""
    figures: dict[str, object] = {"ike_psk_responder_core_ms": _core_figure()}
    step()
    gc.collect()
    figures["bytes_per_ike_sa"] = _memory_figure()
    step()
    lack = lacks() or (None if _CHARON.exists() else f"{_CHARON} does not exist")
    if lack:
        print(f"ike: not measured next to strongSwan, {lack}", file=sys.stderr)
        return figures
    with tempfile.TemporaryDirectory(prefix="mip6bench") as name, ExitStack() as stack:
        programs: dict[str, _Program] = {"ike": _ours, "charon": _theirs}
        running = {key: _Measured(stack, key, each, Path(name) / key) for key, each in programs.items()}
        spent: dict[str, list[float]] = {key: [] for key in running}
        step()
        for _ in range(_ROUNDS):
            for key, each in running.items():
                spent[key].append(each.more(_MEASURED))
        step()
    return figures | {f"{key}_psk_responder_cpu_ms": median(each) for key, each in spent.items()}
