"""The one table of HARP's code points.

Covered: MH types and mobility option types of the messages between home agents. The draft never got
numbers from IANA, so all but the Home Agent Switch (RFC 5142) are this project's, in ranges that
IANA has not assigned, and a configuration may set others. Not covered: the fields' own values,
which the draft fixes (``messages``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..binding.messages import MessageType, OptionType

__all__ = ["DEFAULT", "Numbers"]

_MESSAGES = ("state_synchronization", "control", "hello", "home_agent_switch")
# RFC 6275 6.1 and 6.2: what binding registration uses may not mean anything else.
_TAKEN_MESSAGES = frozenset(MessageType) - {MessageType.HOME_AGENT_SWITCH}
_TAKEN_OPTIONS = frozenset((0, 1)) | frozenset(OptionType)


@dataclass(frozen=True, slots=True)
class Numbers:
    """MH types, then mobility option types; ``ValueError`` for one out of range or used twice.

    ``term`` and what follows it are extensions that the draft lacks.
    """

    state_synchronization: int = 240
    control: int = 241
    hello: int = 242
    home_agent_switch: int = 12
    ip_address: int = 240
    binding_cache_information: int = 241
    synchronization_status: int = 242
    aaa_information: int = 243
    term: int = 244
    context: int = 245
    synchronized_members: int = 246
    digest: int = 247
    incarnation: int = 248

    def __post_init__(self) -> None:
        messages: dict[int, str] = dict.fromkeys(_TAKEN_MESSAGES, "binding registration")
        options: dict[int, str] = dict.fromkeys(_TAKEN_OPTIONS, "binding registration")
        for field in fields(self):
            number = getattr(self, field.name)
            space = messages if field.name in _MESSAGES else options
            if not 0 <= number <= 255:
                raise ValueError(f"{field.name} is {number}: a type has 8 bits, 0..255")
            if number in space:
                raise ValueError(f"{field.name} is {number}, which {space[number]} uses")
            space[number] = field.name


DEFAULT = Numbers()
"""The numbers that apply unless a configuration says otherwise."""
