"""strongSwan's charon in a network namespace, without systemd.

Covered: its configuration from Python values, start, commands, what it says of its SAs, its log with the
keys for tshark, clean stop. Not covered: what it is told to do.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from netnslab.certificates import PrivateKey, pem, write_key
from netnslab.strongswan import CONTROL, DAEMON, PLUGINS, Kernel, Settings, text, values

from .network import Namespace, eventually, stop

_DUMP = re.compile(r"^\d\d\[\w+\] +\d+: ((?:[0-9A-F]{2} )+)", re.M)


class Charon:
    """A running charon; ``settings`` are added to those of its daemon."""

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        kernel: Kernel = Kernel.LIBIPSEC,
        settings: Settings | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._uri = f"unix://{directory / 'vici'}"
        self._log = directory / "log"
        # kernel-netlink also knows addresses and routes, for whoever has the SAs.
        load = [*PLUGINS, *dict.fromkeys((kernel, Kernel.NETLINK))]
        daemon = {
            "load": " ".join(load),
            "plugins": {"vici": {"socket": self._uri}},
            # 4: with keys.
            "filelog": {"log": {"path": self._log, "default": 1, "ike": 4, "chd": 4, "flush_line": "yes"}},
            "journal": {"default": -1},
            "retransmit_timeout": 0.5,
            "retransmit_tries": 3,
            "retransmit_base": 1.5,
            **(settings or {}),
        }
        configuration = directory / "strongswan.conf"
        configuration.write_text(text({"charon-systemd": daemon}))
        self.process = namespace.start(
            DAEMON,
            output=directory / "output",
            environment={"STRONGSWAN_CONF": str(configuration)},
        )
        eventually(self._is_there)

    def _is_there(self) -> bool:
        assert self.process.poll() is None, (self._directory / "output").read_text()
        return (self._directory / "vici").exists()

    def stop(self) -> int:
        """End it cleanly: it deletes its IKE SAs first. Its exit status."""
        return stop(self.process)

    def load(
        self,
        connections: Settings,
        secrets: Settings | None = None,
        keys: Mapping[str, tuple[PrivateKey, x509.Certificate]] | None = None,
        authorities: tuple[x509.Certificate, ...] = (),
        revocations: tuple[x509.CertificateRevocationList, ...] = (),
    ) -> None:
        """Take these connections and credentials in place of all that were loaded before."""
        directory = self._directory
        for folder in ("x509", "x509ca", "x509crl", "private"):
            (directory / folder).mkdir(exist_ok=True)
            for old in (directory / folder).iterdir():
                old.unlink()
        for name, (key, certificate) in (keys or {}).items():
            write_key(directory / "private" / f"{name}.pem", key)
            (directory / "x509" / f"{name}.pem").write_bytes(pem(certificate))
        for number, authority in enumerate(authorities):
            (directory / "x509ca" / f"{number}.pem").write_bytes(pem(authority))
        for number, crl in enumerate(revocations):
            (directory / "x509crl" / f"{number}.pem").write_bytes(pem(crl))
        configuration = directory / "swanctl.conf"
        configuration.write_text(text({"connections": connections, "secrets": secrets or {}}))
        self.control("--load-all", "--clear", "--file", str(configuration))

    def control(self, *arguments: str, check: bool = True) -> str:
        """A command of swanctl."""
        done = subprocess.run(
            [CONTROL, *arguments, "--uri", self._uri], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, (
            f"{arguments}: {done.stdout}{done.stderr}{self.log()[-3000:]}"
        )
        return done.stdout

    def initiate(self, *, ike: str | None = None, child: str | None = None, check: bool = True) -> str:
        """Negotiate an IKE SA, or a child with its IKE SA where there is none."""
        what = ("--child", child) if child else ("--ike", ike or "")
        return self.control("--initiate", *what, "--timeout", "10", check=check)

    def associations(self) -> dict[str, dict[str, Any]]:
        """The IKE SAs by their unique id; ``child-sas`` in them."""
        return {
            found["uniqueid"]: {"name": name, **found}
            for line in self.control("--list-sas", "--raw").splitlines()
            if line.startswith("list-sa event ")
            for name, found in values(line.removeprefix("list-sa event ")).items()
        }

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def keys(self) -> list[dict[str, bytes]]:
        """The keys of each IKE SA in the order of negotiation: ``ei er``, and ``ai ar`` without an AEAD."""
        found: list[dict[str, bytes]] = []
        log = self.log()
        for match in re.finditer(r"^\d\d\[IKE\] Sk_(\w+) secret => .*\n", log, re.M):
            name, octets = match[1], b""
            if name == "d":
                found.append({})
            position = match.end()
            while dump := _DUMP.match(log, position):
                octets += bytes.fromhex(dump[1])
                position = log.index("\n", position) + 1
            found[-1][name] = octets
        return found
