"""``mip6ha ike`` in a network namespace: its configuration, its events, what it is asked to do."""

from __future__ import annotations

import csv
import json
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from netnslab.certificates import PrivateKey, pem, write_key

from mip6ha.edge import control

from .network import Namespace, eventually, stop

ROOT = Path(__file__).parents[2]
# Seconds for Python to start, in User-Mode Linux on a busy machine too.
START = 60.0
SECRET = b"a secret for two ends"


class Ours:
    """A running endpoint of ours; ``text`` is its configuration."""

    def __init__(self, namespace: Namespace, directory: Path, text: str) -> None:
        self.directory = directory
        (directory / "ike.toml").write_text(text)
        keys = directory / "secrets"
        keys.touch(mode=0o600)
        keys.write_text(f'[psk]\nsecret = "{SECRET.hex()}"\n')
        self._log = directory / "log"
        self.process = namespace.start(
            *(sys.executable, "-m", "mip6ha", "ike", "run", "-c", str(directory / "ike.toml")),
            output=self._log,
            environment={"PYTHONPATH": str(ROOT)},
        )
        eventually(self._is_ready, START)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        return bool(self.events("ready"))

    def stop(self) -> int:
        """Its exit status."""
        return stop(self.process)

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """What it has said so far under a name, with these fields."""
        lines = self._log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [each for each in found if each["event"] == name and fields.items() <= each.items()]

    def says(self, name: str, count: int = 1, **fields: object) -> dict[str, Any]:
        """The last of ``count`` events, which may be still to come."""
        try:
            return eventually(lambda: self.events(name, **fields)[count - 1 :])[-1]
        except AssertionError:
            raise AssertionError(f"no {name} {fields}:\n{self.log()[-5000:]}") from None

    def ask(self, what: str, *about: str) -> Any:
        """``mip6ha ike ask``."""
        arguments = dict(zip(("peer", "child"), about, strict=False))
        return control.ask(self.directory / "control", what, arguments)

    def ask_first(self, what: str, *about: str, meanwhile: Callable[[], object]) -> None:
        """Ask for something that is done before what comes on the wire ``meanwhile`` is looked at."""
        request = {"command": what, **dict(zip(("peer", "child"), about, strict=False))}
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "control"))
            with connection.makefile("rwb") as stream:
                # Once it has answered, the connection is one that it reads.
                stream.write(b'{"command": "counters"}\n')
                stream.flush()
                stream.readline()
                self.process.send_signal(signal.SIGSTOP)
                try:
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    meanwhile()
                finally:
                    self.process.send_signal(signal.SIGCONT)
                assert json.loads(stream.readline())["ok"]

    def ike_sas(self, peer: str) -> list[dict[str, Any]]:
        """The established IKE SAs with a peer."""
        return [each for each in self.ask("sas") if (each["peer"], each["state"]) == (peer, "established")]

    def log(self) -> str:
        return self._log.read_text()

    def key_log(self) -> list[str]:
        """Lines for tshark."""
        return (self.directory / "keys" / "ikev2_decryption_table").read_text().splitlines()

    def esp_keys(self) -> dict[str, tuple[bytes, bytes]]:
        """Keys for encryption and integrity by SPI in hexadecimal."""
        lines = (self.directory / "keys" / "esp_sa").read_text().splitlines()
        rows = [[each.removeprefix("0x") for each in row] for row in csv.reader(lines)]
        return {row[3]: (bytes.fromhex(row[5]), bytes.fromhex(row[7])) for row in rows}


def configuration(address: str, identity: str, *, certificate: bool = False) -> str:
    """The table [ike]; files of :func:`write_credentials` where there are certificates."""
    lines = [
        "[ike]",
        f'identity = "{identity}"',
        f'address = "{address}"',
        'keys_file = "secrets"',
        'control_socket = "control"',
        'key_log = "keys"',
        "retransmit_ms = 500",
    ]
    if certificate:
        lines += ['certificate = "own.pem"', 'private_key = "own.key"', 'trust_anchors = ["anchor.pem"]']
        lines += ['revocation_lists = ["crl.pem"]']
    return "\n".join(lines) + "\n"


def peer(name: str, address: str, *, psk: bool = True, child: str = "") -> str:
    """A table [[peer]] for NAME.example; ``child``: one for these lines."""
    lines = ["[[peer]]", f'name = "{name}"', f'identity = "{name}.example"', f'address = "{address}"']
    lines += ['keys = "psk"'] * psk
    if child:
        lines += ["[[peer.child]]", 'name = "net"', child]
    return "\n".join(lines) + "\n"


def write_credentials(
    directory: Path,
    key: PrivateKey,
    certificate: x509.Certificate,
    anchor: x509.Certificate,
    crl: x509.CertificateRevocationList,
) -> None:
    """The files that ``configuration`` names."""
    directory.mkdir(parents=True, exist_ok=True)
    write_key(directory / "own.key", key)
    (directory / "own.pem").write_bytes(pem(certificate))
    (directory / "anchor.pem").write_bytes(pem(anchor))
    (directory / "crl.pem").write_bytes(pem(crl))
