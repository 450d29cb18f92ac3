"""The emulator and the home agent as programs in those namespaces: configured, started, talked through."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Sequence

from .namespaces import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, World, eventually, inside

_SECRETS = {
    "aes-gcm-16": ("0d0c0b0a09080706050403020100a0a1a2a3", ""),
    "aes-cbc+hmac-sha2-256-128": ("0d0c0b0a09080706050403020100", "0102030405060708090a0b0c0d0e0f10" * 2),
}
_SPIS = {"binding": 0x1000, "signalling": 0x1000, "payload": 0x2000, "prefix": 0x3000}


def associations(*uses: str, at_mobile_node: bool, transform: str = "aes-gcm-16") -> str:
    """A pair of SAs for each use, as tables."""
    encryption, _, integrity = transform.partition("+")
    secret, authenticator = _SECRETS[transform]
    tables = []
    for use in uses:
        for offset, towards_agent in ((0, True), (1, False)):
            direction = "out" if towards_agent == at_mobile_node else "in"
            spi = _SPIS[use] + offset
            tables.append(
                f'[[mobile_node.sa]]\nuse = "{use}"\ndirection = "{direction}"\nspi = {spi}\n'
                f'encryption = "{encryption}"\nencryption_key = "{spi:04x}{secret}"\n'
            )
            if integrity:
                tables.append(f'integrity = "{integrity}"\nintegrity_key = "{authenticator}"\n')
    return "".join(tables)


def configure(
    place: World,
    *,
    uses: Sequence[str] = ("signalling",),
    transform: str = "aes-gcm-16",
    home_agent: str = "",
    mobile_node: str = "",
    prefixes: str = "",
) -> None:
    """Write ``ha.toml`` and ``mn.toml``, with these lines more in their first tables."""
    directory = place.directory
    networks = f"mobile_network_prefixes = [{prefixes}]\n"
    for name in ("ha.toml", "mn.toml"):
        (directory / name).touch(0o600)
    (directory / "ha.toml").write_text(
        f'[home_agent]\naddress = "{HOME_AGENT}"\nhome_link = "eth0"\nhome_prefixes = ["2001:db8:a::/64"]\n'
        f'tun_name = "ha0"\nduplicate_address_detection = false\ncontrol_socket = "{directory}/ha.sock"\n'
        f'state_dir = "{directory}/ha-state"\n{home_agent}'
        f'[[mobile_node]]\nname = "mn"\nhome_address = "{HOME_ADDRESS}"\n'
        + networks
        + associations(*uses, at_mobile_node=False, transform=transform)
    )
    (directory / "mn.toml").write_text(
        f'[mobile_node]\nhome_address = "{HOME_ADDRESS}"\nhome_agent = "{HOME_AGENT}"\ninterface = "eth0"\n'
        f'tun_name = "mn0"\nstate_dir = "{directory}/mn-state"\nevents = "{directory}/events.jsonl"\n'
        + mobile_node
        + networks
        + associations(*uses, at_mobile_node=True, transform=transform)
    )


def start(place: World) -> subprocess.Popen[bytes]:
    return place.start(place.mobile, "-m", "mip6ha.mobile_cli", "run", "-c", f"{place.directory}/mn.toml")


def start_home_agent(place: World) -> None:
    place.start(place.agent, "-m", "mip6ha", "run", "-c", f"{place.directory}/ha.toml")
    try:
        eventually((place.directory / "ha.sock").exists)
    except AssertionError:
        raise AssertionError((place.directory / "log").read_text()) from None


def happens(place: World, name: str, after: int) -> int:
    """Wait for an event of that name behind the first ``after``; how many events there were with it."""

    def happened() -> int | None:
        for position, event in enumerate(place.events()):
            if position >= after and event["event"] == name:
                return position + 1
        return None

    return eventually(happened)


def bound(host: str, port: int) -> socket.socket:
    """A datagram socket that waits only so long."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.bind((host, port))
    made.settimeout(0.2)
    return made


class Talk:
    """An echo server at the correspondent, a client at the mobile node, or in another ``namespace``."""

    def __init__(self, place: World, source: str = "::", namespace: str = "") -> None:
        self._server = inside(place.router, lambda: bound(CORRESPONDENT, 7))
        self.client = inside(namespace or place.mobile, lambda: bound(source, 0))
        self._thread = threading.Thread(target=self._echo, daemon=True)
        self._thread.start()

    def _echo(self) -> None:
        while True:
            try:
                data, sender = self._server.recvfrom(2048)
                self._server.sendto(data + b" from " + sender[0].encode(), sender)
            except TimeoutError:
                continue
            except OSError:
                return

    def works(self, data: bytes = b"hello") -> bytes | None:
        """One exchange; what the correspondent saw."""
        self.client.sendto(data, (CORRESPONDENT, 7))
        try:
            return self.client.recv(2048)
        except TimeoutError:
            return None

    def close(self) -> None:
        self._server.close()
        self._thread.join(2)
        self.client.close()
