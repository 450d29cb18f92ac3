"""Lines of Wireshark's key files: who has them reads every message of the IKE SA, every packet of a child.

Covered: the text of a line of ``ikev2_decryption_table`` and of ``esp_sa``. Not covered: writing it anywhere;
nothing does unless an operator asked for it.
"""

from __future__ import annotations

from ..algorithms import Keys
from .keymat import IkeKeys
from .transforms import Suite

__all__ = ["esp_line", "line"]

# Wireshark's own names of algorithms; those that it cannot decrypt are not here.
_ENCRYPTIONS = {
    "aes-cbc-128": "AES-CBC-128 [RFC3602]",
    "aes-cbc-192": "AES-CBC-192 [RFC3602]",
    "aes-cbc-256": "AES-CBC-256 [RFC3602]",
    "aes-gcm-16-128": "AES-GCM-128 with 16 octet ICV [RFC5282]",
    "aes-gcm-16-192": "AES-GCM-192 with 16 octet ICV [RFC5282]",
    "aes-gcm-16-256": "AES-GCM-256 with 16 octet ICV [RFC5282]",
}
_INTEGRITIES = {
    "hmac-sha2-256-128": "HMAC_SHA2_256_128 [RFC4868]",
    "hmac-sha2-384-192": "HMAC_SHA2_384_192 [RFC4868]",
    "hmac-sha2-512-256": "HMAC_SHA2_512_256 [RFC4868]",
}
# Wireshark's names once more, for ESP: by the name of the transform.
_ESP = {
    "aes-gcm-16": ("AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
    "aes-cbc+hmac-sha2-256-128": ("AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
    "aes-cbc+hmac-sha2-384-192": ("AES-CBC [RFC3602]", "HMAC-SHA-384-192 [RFC4868]"),
    "aes-cbc+hmac-sha2-512-256": ("AES-CBC [RFC3602]", "HMAC-SHA-512-256 [RFC4868]"),
}
_NO_INTEGRITY = "NONE [RFC4306]"


def line(suite: Suite, keys: IkeKeys, spi_i: bytes, spi_r: bytes) -> str | None:
    """One line without its end; ``None`` where Wireshark knows no such algorithm."""
    encryption = _ENCRYPTIONS.get(suite.encryption.name)
    if encryption is None:
        return None
    integrity = _INTEGRITIES[suite.integrity.name] if suite.integrity else _NO_INTEGRITY
    return ",".join(
        (
            spi_i.hex(),
            spi_r.hex(),
            keys.ei.hex(),
            keys.er.hex(),
            f'"{encryption}"',
            keys.ai.hex(),
            keys.ar.hex(),
            f'"{integrity}"',
        )
    )


def esp_line(transform: str, keys: Keys, spi: int) -> str | None:
    """One line without its end for one SA; ``transform`` is its name in ``algorithms``."""
    names = _ESP.get(transform)
    if names is None:
        return None
    encryption, integrity = (f"0x{key.hex()}" if key else "" for key in (keys.encryption, keys.integrity))
    columns = ("IPv6", "*", "*", f"0x{spi:08x}", names[0], encryption, names[1], integrity)
    return ",".join(f'"{column}"' for column in columns)
