"""The key log: keys of IKE SAs and of their children, in the files that Wireshark looks for.

Covered: files for their owner alone, in a directory that ``WIRESHARK_CONFIG_DIR`` may name; a warning that
nobody overlooks. Not covered: what a line says (``ipsec.ike.keylog``). Nothing is ever written unless the
configuration names a directory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.logger import Logger

from .errors import Unusable

__all__ = ["KeyLogDirectory"]

_IKE, _ESP = "ikev2_decryption_table", "esp_sa"


class KeyLogDirectory:
    """Appends lines to files in ``path``; :class:`Unusable` if one is a link, or others may read it."""

    log = Logger()

    def __init__(self, path: Path) -> None:
        self._files: dict[str, int] = {}
        try:
            path.mkdir(mode=0o700, exist_ok=True)
            for name in (_IKE, _ESP):
                self._files[name] = _private(path / name)
        except OSError as error:
            self.close()
            raise Unusable(f"key log {error.filename}: {error.strerror}") from None
        except Unusable:
            self.close()
            raise
        self.log.warn(
            "THE KEYS OF ALL SAs ARE WRITTEN TO {path}: who reads it reads everything that they protect, now "
            "and later. For debugging only: remove key_log, and the directory, afterwards.",
            path=path,
        )

    def ike(self, line: str) -> None:
        """A line of an IKE SA, at once."""
        self._write(_IKE, line)

    def esp(self, line: str) -> None:
        """A line of an ESP SA, at once."""
        self._write(_ESP, line)

    def _write(self, name: str, line: str) -> None:
        os.write(self._files[name], f"{line}\n".encode())

    def close(self) -> None:
        """Write no more; the files stay."""
        while self._files:
            os.close(self._files.popitem()[1])


def _private(path: Path) -> int:
    made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    found = os.fstat(made)
    if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
        os.close(made)
        raise Unusable(f"key log {path}: is not a file of its own user's alone (mode 0600)")
    return made
