"""The key log: keys of IKE SAs in a file that Wireshark reads (its ``ikev2_decryption_table``).

Covered: a file for its owner alone, a warning that nobody overlooks. Not covered: what a line says
(``ipsec.ike.keylog``). Nothing is ever written unless the configuration names a file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.logger import Logger

from .errors import Unusable

__all__ = ["KeyLog"]


class KeyLog:
    """Appends lines to ``path``; :class:`Unusable` if that is a link, or others may read it."""

    log = Logger()

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise Unusable(f"key log {path}: {error.strerror}") from None
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
            os.close(self._file)
            raise Unusable(f"key log {path}: is not a file of its own user's alone (mode 0600)")
        self.log.warn(
            "THE KEYS OF ALL IKE SAs ARE WRITTEN TO {path}: who reads it reads every IKE message, and makes "
            "the keys of their children. For debugging only: remove key_log, and the file, afterwards.",
            path=path,
        )

    def write(self, line: str) -> None:
        """One line, at once."""
        os.write(self._file, f"{line}\n".encode())

    def close(self) -> None:
        """Write no more; the file stays."""
        os.close(self._file)
