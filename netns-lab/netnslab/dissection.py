"""What tshark makes of the captures, given the keys: the second opinion on every packet of ours.

`write_wireshark_directory` makes a configuration directory that serves tshark and Wireshark alike
(``WIRESHARK_CONFIG_DIR``): the key file ``esp_sa``, the preferences that switch decryption on, and a
postdissector for the Mobility Header's checksum, which the dissector of Wireshark 4.0 prints but does not
verify.

Not covered: ChaCha20-Poly1305, which Wireshark 4.0 cannot decrypt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .topology import CommandFailed

__all__ = [
    "BINDING_ACKNOWLEDGEMENT",
    "BINDING_UPDATE",
    "HARP_DISSECTOR",
    "EspKey",
    "Frame",
    "HelloSeen",
    "IkeSeen",
    "MobilityMessage",
    "Tshark",
    "write_wireshark_directory",
]

BINDING_UPDATE, BINDING_ACKNOWLEDGEMENT = 5, 6
HARP_DISSECTOR = Path(__file__).resolve().parents[2] / "share" / "wireshark" / "harp.lua"
LIMIT = 60.0

# Our name of a transform -> Wireshark's, and whether the ICV belongs to the encryption (RFC 4106).
_ENCRYPTION = {
    "aes-gcm-16": "AES-GCM with 16 octet ICV [RFC4106]",
    "aes-cbc": "AES-CBC [RFC3602]",
    "null": "NULL",
}
_INTEGRITY = {
    "": "NULL",
    "hmac-sha2-256-128": "HMAC-SHA-256-128 [RFC4868]",
    "hmac-sha1-96": "HMAC-SHA-1-96 [RFC2404]",
}

_FIELDS = (
    "frame.time_epoch",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.nxt",
    "udp.dstport",
    "icmpv6.type",
    "esp.spi",
    "esp.icv_good",
    "mip6.mhtype",
    "mip6.bu.seqnr",
    "mip6.ba.seqnr",
    "mip6.bu.lifetime",
    "mip6.ba.lifetime",
    "mip6.ba.status",
    "mip6check.status",
)
_HELLO_FIELDS = ("frame.time_epoch", "ipv6.src", "harp.hello.active", "harp.term", "harp.hello.lifetime")
_IKE_FIELDS = (
    "frame.time_epoch",
    "isakmp.exchangetype",
    "isakmp.enc.decrypted",
    "_ws.malformed",
    "ipv6.src",
    "isakmp.flag_r",
    "isakmp.messageid",
    "isakmp.ispi",
    "isakmp.notify.msgtype",
)
_TRUE = ("1", "True")
_IPV6_IN_IPV6 = "41"


@dataclass(frozen=True, slots=True)
class EspKey:
    """One SA as tshark needs it. Keys are hexadecimal digits; a salt stands at the end of the encryption
    key.
    """

    spi: int
    encryption: str
    encryption_key: str
    integrity: str = ""
    integrity_key: str = ""


@dataclass(frozen=True, slots=True)
class MobilityMessage:
    """A Mobility Header as tshark prints it; lifetimes are in units of 4 s."""

    kind: int
    sequence: int
    lifetime: int
    status: int | None
    checksum_good: bool


@dataclass(frozen=True, slots=True)
class HelloSeen:
    """An HA-HELLO as it was on the wire; `time` is seconds since 1970, `lifetime` 0 says goodbye."""

    time: float
    source: str
    active: bool
    term: int | None
    lifetime: int


@dataclass(frozen=True, slots=True)
class IkeSeen:
    """An IKE message as it was on the wire; `opened`: tshark decrypted it.

    `spi` is the initiator's, in hexadecimal; `notifications` are the types of what it notifies of.
    """

    time: float
    exchange: int
    opened: bool
    malformed: bool
    source: str = ""
    response: bool = False
    identifier: int = 0
    spi: str = ""
    notifications: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """An IPv6 packet as tshark prints it, decrypted where the keys allow.

    `time` is seconds since 1970; `addresses` are those of all IPv6 headers, outermost first, source before
    destination; `icv_good` and `spi` are None outside ESP; `tunnelled` is IPv6 in IPv6.
    """

    time: float
    addresses: tuple[str, ...]
    tunnelled: bool
    udp_port: int | None
    icmp_type: int | None
    spi: int | None
    icv_good: bool | None
    mobility: MobilityMessage | None

    @property
    def opened(self) -> bool:
        """Whether tshark verified the ICV and saw what this project puts into ESP, or a tunnel's packet."""
        inside = self.mobility is not None or self.icmp_type is not None or len(self.addresses) > 2
        return self.icv_good is True and inside


def write_wireshark_directory(
    directory: Path, keys: Iterable[EspKey], dissectors: Iterable[Path] = ()
) -> None:
    """Write keys, preferences, the checksum plugin and further dissectors."""
    plugins = directory / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    for plugin in (Path(__file__).with_name("mh_checksum.lua"), *dissectors):
        shutil.copyfile(plugin, plugins / plugin.name)
    preferences = ["esp.enable_encryption_decode", "esp.enable_authentication_check"]
    (directory / "preferences").write_text("".join(f"{name}: TRUE\n" for name in preferences))
    key_file = directory / "esp_sa"
    key_file.touch(mode=0o600)
    key_file.write_text("".join(f"{esp_sa_line(key)}\n" for key in keys))


def esp_sa_line(key: EspKey) -> str:
    """One line of Wireshark's table of ESP SAs."""
    columns = (
        "IPv6",
        "*",
        "*",
        f"0x{key.spi:08x}",
        _ENCRYPTION[key.encryption],
        f"0x{key.encryption_key}" if key.encryption_key else "",
        _INTEGRITY[key.integrity],
        f"0x{key.integrity_key}" if key.integrity_key else "",
    )
    return ",".join(f'"{column}"' for column in columns)


class Tshark:
    """tshark with a configuration directory of this lab."""

    def __init__(self, directory: Path) -> None:
        self._environment = {**os.environ, "WIRESHARK_CONFIG_DIR": str(directory)}

    def frames(self, pcap: Path) -> list[Frame]:
        """Every IPv6 packet of a capture."""
        rows = self._rows(pcap, "ipv6", _FIELDS)
        return [_frame(dict(zip(_FIELDS, row, strict=True))) for row in rows]

    def hellos(self, pcap: Path) -> list[HelloSeen]:
        """Every HA-HELLO of a capture, decrypted, as the dissector of this project prints it."""
        rows = self._rows(pcap, "harp.hello.sequence && !icmpv6", _HELLO_FIELDS)
        return [
            HelloSeen(float(time), source, active in _TRUE, int(term) if term else None, int(lifetime))
            for time, source, active, term, lifetime in rows
        ]

    def ike(self, pcap: Path) -> list[IkeSeen]:
        """Every IKE message of a capture."""
        rows = self._rows(pcap, "isakmp && !icmpv6", _IKE_FIELDS)
        return [
            IkeSeen(
                float(time),
                int(exchange),
                bool(decrypted),
                bool(malformed),
                source,
                response in _TRUE,
                int(identifier, 0),
                spi,
                tuple(int(each) for each in notifications.split(",") if each),
            )
            for time, exchange, decrypted, malformed, source, response, identifier, spi, notifications in rows
        ]

    def _rows(self, pcap: Path, wanted: str, fields: Iterable[str]) -> list[list[str]]:
        argv = ["tshark", "-n", "-r", str(pcap), "-Y", wanted, "-T", "fields", "-E", "separator=/t"]
        for field in fields:
            argv += ["-e", field]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            env=self._environment,
            timeout=LIMIT,
            check=False,
            start_new_session=True,
        )
        if done.returncode:
            raise CommandFailed(f"tshark {pcap.name}: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]


def _number(text: str) -> int | None:
    """The last of the values of a field: the innermost header's."""
    return int(text.rpartition(",")[2], 0) if text else None


def _frame(row: dict[str, str]) -> Frame:
    sources, destinations = row["ipv6.src"].split(","), row["ipv6.dst"].split(",")
    return Frame(
        time=float(row["frame.time_epoch"]),
        addresses=tuple(address for pair in zip(sources, destinations, strict=True) for address in pair),
        tunnelled=_IPV6_IN_IPV6 in row["ipv6.nxt"].split(","),
        udp_port=_number(row["udp.dstport"]),
        icmp_type=_number(row["icmpv6.type"]),
        spi=_number(row["esp.spi"]),
        icv_good=row["esp.icv_good"] in _TRUE if row["esp.spi"] else None,
        mobility=_mobility(row) if row["mip6.mhtype"] else None,
    )


def _mobility(row: dict[str, str]) -> MobilityMessage:
    return MobilityMessage(
        kind=_number(row["mip6.mhtype"]) or 0,
        sequence=_number(row["mip6.bu.seqnr"] or row["mip6.ba.seqnr"]) or 0,
        lifetime=_number(row["mip6.bu.lifetime"] or row["mip6.ba.lifetime"]) or 0,
        status=_number(row["mip6.ba.status"]),
        checksum_good=row["mip6check.status"] == "Good",
    )
