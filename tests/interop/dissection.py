"""What tshark reads in a capture of IKE when it has the keys."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL = 34, 35, 36, 37
# What tshark puts into its tree where something is wrong, or cannot be right.
_BAD = ("_ws.malformed", "isakmp.enc.decrypted.error")
_FIRST_PAYLOAD = 33
# The name that Wireshark looks for in its configuration directory.
TABLE = "ikev2_decryption_table"

GCM_128 = ("AES-GCM-128 with 16 octet ICV [RFC5282]", "NONE [RFC4306]")


@dataclass(frozen=True)
class Message:
    """An IKE message as tshark sees it.

    ``payloads``: the types in it, those that were encrypted behind 46 or 53. ``fields``: tshark's own, in
    their order.
    """

    spis: tuple[str, str]
    exchange: int
    identifier: int
    from_initiator: bool
    response: bool
    port: int
    payloads: tuple[int, ...]
    notifications: tuple[int, ...]
    fields: tuple[tuple[str, str], ...]


def key_line(spis: tuple[str, str], keys: Mapping[str, bytes], algorithms: tuple[str, str] = GCM_128) -> str:
    """A line of Wireshark's table for an IKE SA."""
    encryption, integrity = algorithms
    named = [keys.get(name, b"").hex() for name in ("ei", "er", "ai", "ar")]
    return f'{spis[0]},{spis[1]},{named[0]},{named[1]},"{encryption}",{named[2]},{named[3]},"{integrity}"'


def fields_of(tree: Any) -> Iterator[tuple[str, str]]:
    """Every field of tshark's tree in its order."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str):
                    yield name, each
                else:
                    yield name, ""
                    yield from fields_of(each)


def _tshark(path: Path, table: Sequence[str], *arguments: str) -> str:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / TABLE).write_text("".join(f"{line}\n" for line in table))
        done = subprocess.run(
            ["tshark", "-r", str(path), *arguments],
            env=os.environ | {"WIRESHARK_CONFIG_DIR": directory},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def messages(path: Path, table: Sequence[str] = ()) -> list[Message]:
    """Every IKE message of a capture, decrypted with the keys in ``table``.

    Fails where tshark finds something malformed, or has anything to say of an IKE message.
    """
    packets = json.loads(_tshark(path, table, "-Y", "isakmp", "-T", "json", "--no-duplicate-keys"))
    found = []
    for packet in packets:
        layers = packet["_source"]["layers"]
        fields = tuple(fields_of({"isakmp": layers["isakmp"]}))
        names = {name for name, _ in fields} | set(layers)
        bad = [name for name in names if name.startswith(_BAD)]
        bad += [value for name, value in fields if name == "_ws.expert.message"]
        assert not bad, f"frame {layers['frame']['frame.number']}: {bad} {fields}"
        found.append(_message(layers, fields))
    return found


def _message(layers: Mapping[str, Any], fields: tuple[tuple[str, str], ...]) -> Message:
    def first(name: str) -> str:
        return next(value for key, value in fields if key == name)

    flags = int(first("isakmp.flags"), 16)
    return Message(
        (first("isakmp.ispi").replace(":", ""), first("isakmp.rspi").replace(":", "")),
        int(first("isakmp.exchangetype")),
        int(first("isakmp.messageid"), 16),
        bool(flags & 0x08),
        bool(flags & 0x20),
        int(layers["udp"]["udp.dstport"]),
        tuple(
            kind
            for key, value in fields
            # Below are the parts of an SA payload.
            if key == "isakmp.typepayload" and (kind := int(value)) >= _FIRST_PAYLOAD
        ),
        tuple(int(value) for key, value in fields if key == "isakmp.notify.msgtype"),
        fields,
    )
