"""IKEv2 in the place of manual keys: what the daemons' configurations get, what was seen of it on the wire.

Covered: a pre-shared key made anew for every run, the checks of a mobile node whose IKE SA goes along with
it. Not covered: everything that is the same with manual keys (``handover_checks``).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .daemons import toml_text
from .dissection import BINDING_UPDATE, IkeSeen, Tshark
from .handover_checks import Recording, judge, read_captures
from .scenario import Check, Outcome

__all__ = ["HOME_AGENT", "MOBILE_NODE", "checks", "examine", "negotiate", "new_secret"]

HOME_AGENT, MOBILE_NODE = "ha.lab.example", "mn1@lab.example"
IDENTITIES = frozenset((HOME_AGENT, MOBILE_NODE))
SECRET_SIZE = 32
KEY_NAME = "shared"
IKE_SA_INIT = 34
AWAY = ("foreign1", "foreign2")


def new_secret() -> str:
    """A pre-shared key in hexadecimal digits."""
    return secrets.token_hex(SECRET_SIZE)


def negotiate(
    configuration: Path,
    own: str,
    uses: Sequence[str],
    secret: str,
    *,
    key_log: Path | None = None,
    child_lifetime: int | None = None,
) -> None:
    """Have a daemon whose only mobile node has no SAs negotiate them; its key file gets the secret."""
    (other,) = IDENTITIES - {own}
    peer = {"identity": other, "keys": KEY_NAME, "uses": list(uses)}
    ike: dict[str, object] = {"identity": own}
    ike |= {} if key_log is None else {"key_log": str(key_log)}
    ike |= {} if child_lifetime is None else {"child_lifetime": child_lifetime}
    text = toml_text([("[mobile_node.ike]", peer), ("[ike]", ike)])
    configuration.write_text(f"{configuration.read_text()}\n{text}")
    keys = configuration.with_suffix(".keys")
    keys.write_text(f"{keys.read_text()}\n{toml_text([(f'[{KEY_NAME}]', {'secret': secret})])}")


def examine(recording: Recording) -> Outcome:
    """What ``handover`` is held against, and that IKE was spoken once, before the first Binding Update."""
    wire = read_captures(recording)
    tshark = Tshark(recording.directory / "wireshark")
    seen = {link: tshark.ike(recording.captures[link]) for link in AWAY}
    outcome = judge(recording, wire)
    first = min((each.time for each in seen["foreign1"]), default=None)
    updates = [each.frame.time for each in wire.messages(BINDING_UPDATE, links=["foreign1"])]
    outcome.figures["ike_messages_by_link"] = {link: len(messages) for link, messages in seen.items()}
    outcome.figures["ike_ms"] = round((min(updates) - first) * 1000, 3) if updates and first else None
    outcome.checks += checks(seen, recording.events, outcome.figures["ike_ms"])
    return outcome


def checks(
    seen: dict[str, list[IkeSeen]], events: Sequence[dict[str, Any]], ike_ms: float | None
) -> list[Check]:
    """What the mobile node's links and its events have to show."""
    every = [message for messages in seen.values() for message in messages]
    initial = sum(each.exchange == IKE_SA_INIT for each in seen["foreign1"])
    protected = [each for each in every if each.exchange != IKE_SA_INIT]
    opened = sum(each.opened for each in protected)
    malformed = sum(each.malformed for each in every)
    established = sum(event["event"] == "ike_established" for event in events)
    closed = sum(event["event"] == "ike_closed" for event in events)
    after_move = len(seen["foreign2"])
    return [
        Check("IKE before the first BU, ms", ike_ms is not None and ike_ms > 0, ike_ms, "above 0"),
        Check("tshark: IKE_SA_INIT on foreign link 1", initial == 2, initial, 2),
        Check("tshark: IKE messages after the move", after_move == 0, after_move, 0),
        Check("tshark: IKE messages decrypted", opened == len(protected) > 0, opened, len(protected)),
        Check(f"tshark: malformed, of {len(every)} IKE messages", malformed == 0 < len(every), malformed, 0),
        Check("IKE SAs established", established == 1, established, 1),
        Check("IKE SAs closed before the end", closed == 0, closed, 0),
    ]
