"""Switches of the IPv6 stack, changed with a way back.

Covered: setting, remembering what was before, in memory and on disk, so that a clean stop restores it even
when a process in between was killed. Not covered: switches outside net.ipv6.
"""

from __future__ import annotations

import json
from pathlib import Path

from .errors import Unusable
from .storage import write_atomically

__all__ = ["Switches", "switch"]

_ROOT = Path("/proc/sys/net/ipv6")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/net")


def switch(name: str, value: str) -> None:
    """Set one switch (``conf/eth0/proxy_ndp``) for good; raises :class:`Unusable`."""
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        raise Unusable(f"{_ROOT / name}: {error.strerror}") from None


def _value(name: str) -> str:
    try:
        return (_ROOT / name).read_text().strip()
    except OSError as error:
        raise Unusable(f"{_ROOT / name}: {error.strerror}") from None


class Switches:
    """Changed switches and their former values; ``record`` is the file that outlives the process.

    What the record says holds for one network namespace of one boot, otherwise it is old and forgotten.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._place = f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"
        self._former: dict[str, str] = {}
        try:
            kept = json.loads(record.read_text())
            if kept["place"] == self._place:
                self._former = {str(name): str(value) for name, value in kept["former"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass

    def set(self, name: str, value: str) -> None:
        """Set a switch until :meth:`restore`."""
        former = _value(name)
        if former == value:
            return
        if name not in self._former:
            self._former[name] = former
            write_atomically(self._record, json.dumps({"place": self._place, "former": self._former}))
        switch(name, value)

    def enable_forwarding(self) -> None:
        """Forward between all interfaces, until :meth:`restore`.

        ``all`` writes through to every interface, so that each one's own value must be kept as well.
        """
        if _value("conf/all/forwarding") == "1":
            return
        for path in sorted(_ROOT.glob("conf/*/forwarding")):
            name = str(path.relative_to(_ROOT))
            if name != "conf/all/forwarding":
                self._former.setdefault(name, _value(name))
        self.set("conf/all/forwarding", "1")

    def restore(self) -> None:
        """Put the former values back; a switch whose interface has gone is no error."""
        # `all` first, for it overwrites the others.
        for name in sorted(self._former, key=lambda name: "/all/" not in name):
            try:
                (_ROOT / name).write_text(self._former[name])
            except OSError:
                continue
        self._former = {}
        self._record.unlink(missing_ok=True)
