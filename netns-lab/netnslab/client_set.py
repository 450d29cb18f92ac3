"""A redundant set with strongSwan as its client: the steps that the scenarios about it have in common.

Covered: starting both, connecting, what charon has from time to time, the fault. Not covered: their order
(`scenarios.interop`), what they show (`interop_checks`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import echo
from .client_network import CHILD, CONNECTION, Credentials, Suite, load, negotiate
from .mobility_network import CORRESPONDENT, HOME_ADDRESS
from .redundant_network import SetParameters, member_name, new_keys
from .redundant_set import CAPTURED, RedundantSet
from .replays import play, protected_before
from .scenario import Run
from .state import network_state
from .strongswan import Charon

__all__ = ["ClientSet", "Seen"]

# charon's own retransmissions: after 0.5, 0.75 and 1.125 s.
_RETRANSMISSION = {"retransmit_timeout": 0.5, "retransmit_base": 1.5, "retransmit_tries": 5}
# Packets of each SPI, the last ones before the fault.
_REPLAYS = 500
_ECHOES = 5
_AFTER = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """charon's IKE SA (SPIs of initiator and responder) and its child (SPIs in and out), at a monotonic
    time.
    """

    at: float
    ike: tuple[str, str]
    child: tuple[int, int]


@dataclass(slots=True)
class ClientSet:
    """`seen` is what charon had, by a name that the scenario gives it."""

    run: Run
    shared: RedundantSet
    charon: Charon
    credentials: Credentials
    suite: Suite
    seen: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def prepare(cls, run: Run, suite: Suite, *, child_lifetime: int | None = None) -> ClientSet:
        """Make credentials and configuration files, and nothing run yet."""
        credentials = Credentials.new(run.options.credentials)
        charon = Charon(run.report / "charon", run.work, run.timeline, _RETRANSMISSION)
        key_log = run.report / "wireshark"
        # Keys of earlier runs are of no use.
        (key_log / "ikev2_decryption_table").unlink(missing_ok=True)

        def member(configuration: Path, node: str) -> None:
            negotiate(configuration, credentials, key_log, child_lifetime=child_lifetime)

        parameters = SetParameters()
        shared = RedundantSet.around(charon, run, parameters, new_keys(parameters.members, ()), member)
        return cls(run, shared, charon, credentials, suite)

    def begin(self) -> None:
        """Captures, and the home address on the client."""
        network = self.run.network
        self.shared.captures.start(CAPTURED)
        network.execute("mn", "ip", "-6", "address", "add", f"{HOME_ADDRESS}/128", "dev", "lo", "nodad")
        self.shared.before["mn"] = network_state(network, "mn")
        self.run.timeline.add("network_up", f"namespaces {network.prefix}-*")

    def connect(self) -> None:
        """Start charon and have it begin: IKE_SA_INIT, IKE_AUTH, the tunnel."""
        self.charon.start(self.run.processes, self.run.network, "mn")
        load(self.charon, self.credentials, self.suite)
        self.charon.control("--initiate", "--child", CHILD, "--timeout", "10")
        self.note("connected")

    # -- what charon has ---------------------------------------------------------------------------

    def has(self) -> Seen | None:
        """The one IKE SA with the one child that charon has when nothing is going on."""
        found = [each for each in self.charon.associations() if each["state"] == "ESTABLISHED"]
        children = [
            child
            for each in found
            for child in each.get("child-sas", {}).values()
            if child["state"] == "INSTALLED"
        ]
        if len(found) != 1 or len(children) != 1:
            return None
        (ike_sa,), (child,) = found, children
        spis = int(child["spi-in"], 16), int(child["spi-out"], 16)
        return Seen(time.monotonic(), (ike_sa["initiator-spi"], ike_sa["responder-spi"]), spis)

    def note(self, name: str, new: Callable[[Seen], bool] = lambda seen: True, limit: float = 10.0) -> Seen:
        """Wait until charon has one of each, and what is `new`; it stands in `seen` then."""
        found: list[Seen] = []

        def there() -> bool:
            seen = self.has()
            if seen is not None and new(seen):
                found.append(seen)
            return bool(found)

        self.charon.wait_for(name, there, limit)
        self.seen[name] = found[0]
        self.run.timeline.add(
            name.replace(" ", "_"), f"child {found[0].child[0]:08x} {found[0].child[1]:08x}"
        )
        return found[0]

    def note_new_child(self, name: str, limit: float = 10.0) -> Seen:
        """Wait for another child than the one that was noted last."""
        last = list(self.seen.values())[-1]
        return self.note(name, lambda seen: seen.child != last.child, limit)

    def note_new_ike_sa(self, name: str) -> Seen:
        """Wait for another IKE SA than the one that was noted last."""
        last = list(self.seen.values())[-1]
        return self.note(name, lambda seen: seen.ike != last.ike)

    def rekey_child(self) -> None:
        """Have charon re-key its child."""
        self.charon.control("--rekey", "--child", CHILD)
        self.note_new_child("child re-keyed")

    def rekey_ike(self) -> None:
        """Have charon re-key the IKE SA."""
        self.charon.control("--rekey", "--ike", CONNECTION)
        self.note_new_ike_sa("IKE SA re-keyed")

    def disconnect(self) -> None:
        """Have charon delete the IKE SA."""
        self.charon.control("--terminate", "--ike", CONNECTION, "--timeout", "10")
        self.wait_gone()

    def wait_gone(self) -> None:
        """Wait until charon has no IKE SA."""
        self.charon.wait_for("end of the IKE SA", lambda: not self.charon.associations())
        self.run.timeline.add("disconnected")

    def wait_probed(self, after: float) -> None:
        """Wait until charon has asked whether the home agent is there, and has been answered."""
        for words in ("sending DPD request", "parsed INFORMATIONAL response"):
            self.charon.wait_for(words, lambda words=words: self.charon.says(words, after))  # type: ignore[misc]

    def echo(self) -> str:
        """Echo requests to the home address: how many were sent and answered, and the median in ms."""
        argv = [sys.executable, "-I", "-S", echo.__file__, "--local", CORRESPONDENT]
        argv += ["--remote", HOME_ADDRESS, "--count", str(_ECHOES)]
        said = self.run.network.execute("cn", *argv).strip()
        self.run.timeline.add("echo", said)
        return said

    # -- the set -----------------------------------------------------------------------------------

    def fail_over(self) -> tuple[float, int]:
        """Kill the active member, and wait until the standby serves: when, and who serves."""
        shared = self.shared
        active = shared.wait_settled()
        fault = shared.kill(active)
        shared.pause(_AFTER)
        shared.wait_for_role(3 - active, "active")
        return fault, 3 - active

    def replay(self, active: int, fault: float) -> dict[str, Any]:
        """Play the last of what came before the fault to the new active member."""
        sent = protected_before(self.shared, fault)
        return play(self.shared, active, (each for frames in sent.values() for each in frames[-_REPLAYS:]))

    def ask(self, active: int, what: str) -> None:
        """Have the active member begin an exchange, as ``mip6ha ask-ike`` does."""
        self.run.timeline.add("ask_ike", f"{what}, asked of {member_name(active)}")
        self.shared.members[active].ask("ask-ike", home_address=HOME_ADDRESS, what=what)
