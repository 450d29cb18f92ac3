"""TOML tables that people write: loading, errors that name file and key, and the tables for keys and SAs.

Covered: what the configurations of the home agent and of the mobile node share. Not covered: what either
of them means. Key material never gets into an error, nor does any value that looks like it.
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from .binding.messages import MobileNetworkPrefix
from .ipsec.algorithms import ENCRYPTION, INTEGRITY, Keys, Transform, transform
from .ipsec.policy import Direction, Use
from .ipsec.replay import DEFAULT_WINDOW
from .ipv6 import is_routable_unicast
from .parameters import AssociationParameters

__all__ = [
    "Address",
    "ConfigError",
    "HexKey",
    "InterfaceName",
    "KeyFile",
    "KeyName",
    "Prefix",
    "Problems",
    "ProtectionTable",
    "SecurityAssociationTable",
    "Spi",
    "Table",
    "derived_keys",
    "integer",
    "key_path",
    "load_toml",
    "validate",
]

Location = Sequence[str | int]

# Keys whose value no error ever shows: key material belongs there, or may end up there by mistake.
_SECRET = {"encryption", "encryption_key", "integrity", "integrity_key", "key", "keys", "secret"}


class ConfigError(Exception):
    """A configuration is not usable; one line for everything that is wrong with it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class Problems:
    """Collects what is wrong with one file, so that all of it is told at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def add(self, location: Location, wrong: str, allowed: str) -> None:
        """``location`` is the way to the key; neither text may hold key material."""
        where = f"{key_path(location)}: " if location else ""
        self._lines.append(f"{self._path}: {where}{wrong}; allowed: {allowed}")

    def refuse(self) -> None:
        """Raises :class:`ConfigError` if there was any problem."""
        if self._lines:
            raise ConfigError(self._lines)


def key_path(location: Location) -> str:
    """How people read the way to a key: ``mobile_node[2].sa[0].spi``, entries counted from 0."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." * bool(text) + (step if re.fullmatch(r"[A-Za-z0-9_-]+", step) else ascii(step))
    return text


def load_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; :class:`ConfigError` if there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}; allowed: a TOML file that can be read"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8; allowed: a TOML file"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: {error}; allowed: TOML"]) from None


class Table(BaseModel):
    """A table with known keys only; each field's description says what is allowed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )


_T = TypeVar("_T", bound=Table)


def _wrong(text: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{wrong}", {"wrong": text})


def _address(value: object) -> bytes:
    try:
        return IPv6Address(value if isinstance(value, str) else "").packed
    except ValueError:
        raise _wrong("is not an IPv6 address") from None


def _unicast(value: object) -> bytes:
    octets = _address(value)
    if not is_routable_unicast(octets):
        raise _wrong("is not a routable unicast address")
    return octets


def _prefix(value: object) -> MobileNetworkPrefix:
    try:
        network = IPv6Network(value if isinstance(value, str) and "/" in value else "")
    except ValueError as error:
        host = "host bits" in str(error)
        raise _wrong("has bits behind its length" if host else "is not an IPv6 prefix") from None
    return MobileNetworkPrefix(network.network_address.packed, network.prefixlen)


def _within(low: int, high: int, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong("is not an integer")
    if not low <= value <= high:
        raise _wrong("is out of range")
    return value


def integer(low: int, high: int) -> Any:
    """The annotation of an integer from ``low`` to ``high``."""
    return BeforeValidator(partial(_within, low, high))


def _hexadecimal(value: object) -> bytes:
    try:
        return bytes.fromhex(value if isinstance(value, str) else "?")
    except ValueError:
        raise _wrong("is not hexadecimal") from None


def _interface(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[^\s/:]{1,15}", value) or value in {".", ".."}:
        raise _wrong("is not the name of an interface")
    return value


Address = Annotated[bytes, BeforeValidator(_unicast)]
Prefix = Annotated[MobileNetworkPrefix, BeforeValidator(_prefix)]
InterfaceName = Annotated[str, BeforeValidator(_interface)]
KeyName = str
HexKey = Annotated[bytes, BeforeValidator(_hexadecimal)]
Encryption = Literal["aes-gcm-16", "chacha20-poly1305", "aes-cbc", "null"]
Integrity = Literal["hmac-sha2-256-128", "hmac-sha2-384-192", "hmac-sha2-512-256", "hmac-sha1-96"]
Spi = Annotated[int, integer(256, 0xFFFFFFFF)]

# What members of a redundant set say to each other has its own table.
_MOBILE_NODE_USES = tuple(use for use in Use if use is not Use.HARP)

SPI_ALLOWED = "256 to 4294967295"
ENCRYPTION_ALLOWED = ", ".join(ENCRYPTION)
INTEGRITY_ALLOWED = f"{', '.join(INTEGRITY)} with encryption aes-cbc or null, absent otherwise"


def _names(values: Iterable[str]) -> str:
    return ", ".join(values) or "none"


def _model_at(model: type[BaseModel], location: Location) -> tuple[type[BaseModel] | None, str | None]:
    """The table that holds the last key of ``location``, and that key."""
    table: type[BaseModel] | None = model
    key: str | None = None
    for step in location:
        if key is not None and table is not None and not isinstance(step, int):
            inner = _tables_in(table.model_fields[key].annotation) if key in table.model_fields else []
            if not inner:
                break
            table = inner[0]
        if isinstance(step, str):
            key = step
    return table, key


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _tables_in(argument)]


def _shown(value: object) -> str:
    # Whatever might be a key that got under the wrong name stays hidden.
    if not isinstance(value, str | int | float) or re.search(r"[0-9A-Fa-f]{16}", str(value)):
        return ""
    return f" ({value[:60]!r})" if isinstance(value, str) else f" ({value})"


def _explain(problems: Problems, model: type[BaseModel], error: ErrorDetails) -> None:
    location = error["loc"]
    table, key = _model_at(model, location)
    if error["type"] == "extra_forbidden":
        problems.add(location, "unknown key", _names(table.model_fields if table else ()))
        return
    field = table.model_fields.get(key or "") if table else None
    allowed = (field.description if field else None) or "see the documentation"
    if error["type"] == "missing":
        problems.add(location, "is missing", allowed)
        return
    wrong = error["ctx"]["wrong"] if error["type"] == "refused" else "is not allowed"
    shown = "" if field is None or key in _SECRET else _shown(error["input"])
    problems.add(location, wrong + shown, allowed)


def validate(model: type[_T], data: dict[str, Any], path: Path) -> _T:
    """``data``, read from ``path``, as a ``model``; :class:`ConfigError` names every fault."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = Problems(path)
        for detail in error.errors(include_url=False):
            _explain(problems, model, detail)
        problems.refuse()
        raise


class KeyTable(Table):
    """One named entry of a key file; which keys it needs depends on who names it."""

    encryption: HexKey = Field(b"", description="hexadecimal digits")
    integrity: HexKey = Field(b"", description="hexadecimal digits")
    secret: HexKey = Field(b"", description="hexadecimal digits")
    key: HexKey = Field(b"", description="hexadecimal digits")


class KeyFile:
    """Key material by name, from a file that only its owner may read."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._tables: dict[str, KeyTable] = {}
        if path is None:
            return
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}; allowed: a TOML file of mode 0600"]) from None
        if mode & 0o077:
            raise ConfigError([f"{path}: has mode {mode:04o}; allowed: 0600, no access for group or others"])
        problems = Problems(path)
        for name, content in load_toml(path).items():
            if not isinstance(content, dict):
                problems.add([name], "is not a table", "[name] with " + _names(KeyTable.model_fields))
                continue
            try:
                self._tables[name] = KeyTable.model_validate(content)
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    known = detail["type"] != "extra_forbidden"
                    problems.add(
                        [name, *detail["loc"]],
                        "is not hexadecimal" if known else "unknown key",
                        "hexadecimal digits" if known else _names(KeyTable.model_fields),
                    )
        problems.refuse()

    def named(self, name: str, location: Location, problems: Problems, key: str = "keys") -> KeyTable | None:
        """The entry ``name``; ``None`` and a problem with ``key`` at ``location`` if there is none."""
        found = self._tables.get(name)
        if found is None:
            where = (
                f"a name in {self.path}: {_names(self._tables)}"
                if self.path
                else "a name, with keys_file set"
            )
            problems.add([*location, key], "names no keys", where)
        return found


class ProtectionTable(Table):
    """An SA with manual keys, whatever it is for.

    ``direction`` is seen from the side whose configuration it stands in.
    """

    direction: Annotated[Direction, BeforeValidator(lambda value: _choice(Direction, value))] = Field(
        description=", ".join(Direction)
    )
    spi: Spi = Field(description=SPI_ALLOWED)
    encryption: Encryption = Field(description=ENCRYPTION_ALLOWED)
    integrity: Integrity | None = Field(None, description=INTEGRITY_ALLOWED)
    encryption_key: HexKey | None = Field(None, description="hexadecimal digits, or keys")
    integrity_key: HexKey | None = Field(None, description="hexadecimal digits, or keys")
    keys: KeyName | None = Field(None, description="a name in keys_file")
    esn: bool = Field(False, description="true, false")
    window: Annotated[int, integer(64, 65536)] = Field(DEFAULT_WINDOW, description="64 to 65536")

    def protection(
        self, use: Use, key_file: KeyFile, location: Location, problems: Problems
    ) -> AssociationParameters | None:
        """The SA with its keys, for ``use``; ``None`` after a problem was added."""
        protection = protection_of(self.encryption, self.integrity, location, problems)
        keys = self._keys(key_file, location, problems)
        if protection is None or keys is None:
            return None
        named = self.keys is not None
        fits = True
        for name, given, lengths in (
            ("encryption", keys.encryption, protection.encryption_lengths),
            ("integrity", keys.integrity, (protection.integrity_length,)),
        ):
            if len(given) not in lengths:
                fits = False
                salt = (
                    ", the 4 octets of the salt at its end included"
                    if protection.counter_iv and given
                    else ""
                )
                problems.add(
                    [*location, "keys" if named else f"{name}_key"],
                    f"has {len(given)} octets for {name}",
                    f"{' or '.join(map(str, lengths))} octets for {protection.name}{salt}",
                )
        if not fits:
            return None
        return AssociationParameters(self.spi, self.direction, use, protection, keys, self.esn, self.window)

    def _keys(self, key_file: KeyFile, location: Location, problems: Problems) -> Keys | None:
        if self.keys is None:
            return Keys(self.encryption_key or b"", self.integrity_key or b"")
        if self.encryption_key is not None or self.integrity_key is not None:
            problems.add(
                [*location, "keys"], "stands beside a key", "keys, or encryption_key and integrity_key"
            )
            return None
        entry = key_file.named(self.keys, location, problems)
        return None if entry is None else Keys(entry.encryption, entry.integrity)


class SecurityAssociationTable(ProtectionTable):
    """An SA between a mobile node and its home agent."""

    use: Annotated[Use, BeforeValidator(lambda value: _choice(Use, value, _MOBILE_NODE_USES))] = Field(
        description=", ".join(_MOBILE_NODE_USES)
    )

    def parameters(
        self, key_file: KeyFile, location: Location, problems: Problems
    ) -> AssociationParameters | None:
        """The SA with its keys; ``None`` after a problem was added."""
        return self.protection(self.use, key_file, location, problems)


_E = TypeVar("_E", Use, Direction)


def _choice(kind: type[_E], value: object, among: Collection[_E] | None = None) -> _E:
    try:
        chosen = kind(str(value))
    except ValueError:
        chosen = None
    if chosen is None or (among is not None and chosen not in among):
        raise _wrong("is not one of the choices")
    return chosen


def protection_of(
    encryption: str, integrity: str | None, location: Location, problems: Problems
) -> Transform | None:
    """The transform of those names; ``None`` after a problem was added."""
    try:
        return transform(encryption, integrity)
    except ValueError as error:
        problems.add([*location, "integrity"], str(error), INTEGRITY_ALLOWED)
        return None


def derived_keys(secret: bytes, home_address: bytes, spi: int, protection: Transform) -> Keys:
    """The keys of one SA of a pool: HKDF-SHA256 of the secret with home address and SPI as its info.

    The encryption key, of the shortest length that ``protection`` takes, stands before the integrity key.
    """
    cut = protection.encryption_lengths[0]
    length = cut + protection.integrity_length
    octets = HKDF(SHA256(), length, salt=None, info=home_address + spi.to_bytes(4, "big")).derive(secret)
    return Keys(octets[:cut], octets[cut:])
