"""What must outlive the process: small files, replaced atomically, and the lock that keeps a second one out.

Covered: the reserved ESP sequence number (a restart begins above it). Not covered: bindings, keys.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from .errors import Unusable

__all__ = ["StateDirectory", "write_atomically"]


def write_atomically(path: Path, text: str) -> None:
    """``path`` holds the old or the new text at any time, and the new one for good on return."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class StateDirectory:
    """The directory of one running home agent, locked as long as it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unusable(f"state directory {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Unusable(f"state directory {path}: another home agent runs with it") from None

    def close(self) -> None:
        """Let another process have the directory."""
        os.close(self._lock)

    def sequence_floor(self) -> int:
        """The highest reserved sequence number, 0 at the first start.

        :class:`Unusable` if it cannot be read: starting at 0 then would reuse numbers under the same keys.
        """
        path = self.path / "sequences"
        try:
            return int(path.read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            raise Unusable(
                f"{path}: holds no sequence number; remove it only together with all manual keys"
            ) from None

    def reserve_sequences(self, limit: int) -> None:
        """Put ``limit`` on stable storage; raises ``OSError``."""
        write_atomically(self.path / "sequences", f"{limit}\n")
