"""What must outlive the process: small files, replaced atomically, and the lock that keeps a second one out.

Covered: the reserved ESP sequence number (a restart begins above it), the highest term of a redundant set.
Not covered: bindings (``journal``), keys.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from zlib import crc32

from .errors import Unusable

__all__ = ["StateDirectory", "StoredNumber", "write_atomically"]

# A disk writes so much wholly or not at all.
_SECTOR = 512
# Reserved beyond what is asked for, so that the disk is rarely waited for. A restart skips it.
_AHEAD = 1 << 18


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


class StoredNumber:
    """A number that only grows, in a file of two sectors that are written in turn.

    A write costs one wait for the disk and needs no new space, so that neither a full disk nor the journal of
    a file system stands between a member and its takeover. :class:`Unusable` if ``path`` holds no number.
    """

    def __init__(self, path: Path, meaning: str) -> None:
        self._path = path
        self.value = 0
        self._slot = 0
        try:
            octets = path.read_bytes()
        except FileNotFoundError:
            octets = b""
            write_atomically(path, (_sector(0) * 2).decode())
        except OSError as error:
            raise Unusable(f"{path}: {error.strerror}") from None
        found = {slot: _number(octets[slot * _SECTOR :][:_SECTOR]) for slot in (0, 1)}
        known = {slot: number for slot, number in found.items() if number is not None}
        if octets and not known:
            raise Unusable(f"{path}: holds no {meaning}; remove it only together with all manual keys")
        if known:
            newest = max(known, key=lambda slot: known[slot])
            self.value, self._slot = known[newest], 1 - newest
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def raise_to(self, value: int) -> None:
        """Put ``value`` on stable storage unless a higher one is there; raises ``OSError``."""
        if value <= self.value:
            return
        octets = _sector(value)
        if os.pwrite(self._file, octets, self._slot * _SECTOR) != len(octets):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fdatasync(self._file)
        self.value, self._slot = value, 1 - self._slot

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _sector(value: int) -> bytes:
    digits = f"{value:020d}"
    return f"{digits} {crc32(digits.encode()):08x}".ljust(_SECTOR - 1).encode() + b"\n"


def _number(octets: bytes) -> int | None:
    digits, _, check = octets.decode("ascii", "replace").strip().partition(" ")
    if not digits.isdecimal() or check != f"{crc32(digits.encode()):08x}":
        return None
    return int(digits)


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
        self._numbers: dict[str, StoredNumber] = {}

    def close(self) -> None:
        """Let another process have the directory."""
        for number in self._numbers.values():
            number.close()
        os.close(self._lock)

    def sequence_floor(self) -> int:
        """The highest reserved sequence number, 0 at the first start.

        :class:`Unusable` if it cannot be read: starting at 0 then would reuse numbers under the same keys.
        """
        return self._number("sequences", "sequence number").value

    def reserve_sequences(self, limit: int) -> None:
        """Put ``limit`` on stable storage; raises ``OSError``."""
        number = self._number("sequences", "sequence number")
        if limit > number.value:
            number.raise_to(limit + _AHEAD)

    def term(self) -> int:
        """The highest term stored, 0 at the first start. :class:`Unusable` if it cannot be read."""
        return self._number("term", "term").value

    def store_term(self, term: int) -> None:
        """Put ``term`` on stable storage; raises ``OSError``."""
        self._number("term", "term").raise_to(term)

    def _number(self, name: str, meaning: str) -> StoredNumber:
        if name not in self._numbers:
            try:
                self._numbers[name] = StoredNumber(self.path / name, meaning)
            except OSError as error:
                raise Unusable(f"{self.path / name}: {error.strerror}") from None
        return self._numbers[name]
