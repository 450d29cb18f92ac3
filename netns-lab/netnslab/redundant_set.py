"""What the scenarios about a redundant set do alike: start members, register, send probes, cut, kill, stop.

Covered: the steps and the record of them. Not covered: their order (`scenarios`), what the record shows
(`set_record`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .capture import Captures
from .daemons import HomeAgentDaemon, MobileNodeDaemon, MobileNodeProgram, new_associations
from .dissection import HARP_DISSECTOR, write_wireshark_directory
from .fleet import Fleet
from .mobility_network import CORRESPONDENT, HOME_ADDRESS, write_mobile_node
from .probes import ProbePair, Stream
from .processes import ProcessFailed
from .redundant_network import (
    ACCESS_ROUTERS,
    SetKeys,
    SetParameters,
    member_name,
    new_keys,
    write_fleet,
    write_member,
)
from .routers import start_advertiser
from .scenario import Options, Run
from .state import network_state
from .timeline import Timeline

__all__ = ["CAPTURED", "TOOLS", "Negotiate", "RedundantSet", "SetRecording", "Took"]

TOOLS = {"dumpcap": "wireshark-common", "tshark": "tshark", "radvd": "radvd"}
# What the members send, what they say to each other, and what the mobile node sends and gets.
CAPTURED = ("home", "sync", "core")
SPI = 0x2000
SIGNALLING_LIMIT = 8.0
ROLE_LIMIT = 20.0
FLEET_LIMIT = 120.0
SETTLE = 0.3
POLL = 0.02


@dataclass(frozen=True, slots=True)
class Took:
    """Something that a member is asked for, from just before to just after, in monotonic seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SetRecording:
    """What a run left behind, as plain data, so that another process can examine it. Times are monotonic
    seconds.

    `logs` and `stopped` are by member, `captures` by link; `shown` is what was asked of the daemons, by a
    name that the scenario gives it; `exit_status` has only those that were stopped, not killed.
    """

    options: Options
    timeline: Timeline
    directory: Path
    parameters: SetParameters
    keys: SetKeys
    captures: dict[str, Path]
    logs: dict[int, list[dict[str, Any]]]
    events: list[dict[str, Any]]
    streams: tuple[Stream, ...]
    started: float
    silent: float
    stopped: list[tuple[int, float]]
    shown: dict[str, Any]
    left_behind: dict[str, list[str]]
    exit_status: dict[str, int]
    dropped: dict[str, int]


Negotiate = Callable[[Path, str], None]
"""Has a daemon negotiate its SAs: its configuration, its node."""


@dataclass(slots=True)
class RedundantSet:
    """A set of home agents, and the mobile node and correspondent that need it; what they leave is
    described by `SetRecording`.
    """

    run: Run
    parameters: SetParameters
    keys: SetKeys
    captures: Captures
    members: dict[int, HomeAgentDaemon]
    mobile_node: MobileNodeProgram
    probes: ProbePair
    started: float = 0.0
    silent: float = 0.0
    streams: tuple[Stream, ...] = ()
    stopped: list[tuple[int, float]] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)
    before: dict[str, set[str]] = field(default_factory=dict)
    left_behind: dict[str, list[str]] = field(default_factory=dict)
    exit_status: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @classmethod
    def prepare(
        cls,
        run: Run,
        parameters: SetParameters,
        uses: tuple[str, ...] = ("binding",),
        *,
        negotiate: Negotiate | None = None,
    ) -> RedundantSet:
        """Make keys and configuration files, and nothing run yet."""
        keys = new_keys(parameters.members, () if negotiate else new_associations(uses, SPI))
        configuration, events = write_mobile_node(
            run.report,
            run.work,
            keys.mobile,
            parameters.binding_lifetime,
            dataplane=run.options.mobile_dataplane,
        )
        if negotiate is not None:
            negotiate(configuration, "mn")
        mobile_node = MobileNodeDaemon(configuration, events, run.timeline)
        return cls.around(mobile_node, run, parameters, keys, negotiate)

    @classmethod
    def around(
        cls,
        mobile_node: MobileNodeProgram,
        run: Run,
        parameters: SetParameters,
        keys: SetKeys,
        negotiate: Negotiate | None = None,
    ) -> RedundantSet:
        """A set for a mobile node that is there already, with configuration files of its members."""
        parameters = replace(parameters, failure_factor=run.options.pace.failure_factor)
        write_wireshark_directory(run.report / "wireshark", keys.esp_keys(), (HARP_DISSECTOR,))
        members = {}
        for identity in range(1, parameters.members + 1):
            configuration, control_socket = write_member(
                run.report, run.work, identity, parameters, keys, dataplane=run.options.dataplane
            )
            if negotiate is not None:
                negotiate(configuration, member_name(identity))
            members[identity] = HomeAgentDaemon(configuration, control_socket, member_name(identity))
        return cls(
            run,
            parameters,
            keys,
            Captures(run.processes, run.network, run.report),
            members,
            mobile_node,
            ProbePair(run.processes, run.work, run.options.pace.probe_interval, first=True),
        )

    @property
    def emulator(self) -> MobileNodeDaemon:
        """The mobile node, where it is ours."""
        if not isinstance(self.mobile_node, MobileNodeDaemon):
            raise ProcessFailed("the mobile node is not the emulator")
        return self.mobile_node

    # -- beginning ---------------------------------------------------------------------------------

    def open_network(self) -> None:
        """Captures and routers."""
        self.captures.start(CAPTURED)
        for advertiser in ACCESS_ROUTERS:
            start_advertiser(self.run.processes, self.run.network, advertiser, self.run.work)
        self.run.timeline.add("network_up", f"namespaces {self.run.network.prefix}-*")

    def start_members(self) -> None:
        """Start one after the other; the first one is usually the active one."""
        for identity in self.members:
            node = member_name(identity)
            self.before[node] = network_state(self.run.network, node)
            self.shown[f"mac {identity}"] = self.run.network.execute(
                node, "cat", "/sys/class/net/eth0/address"
            ).strip()
            self.start_member(identity)
        self.wait_settled()

    def start_member(self, identity: int) -> None:
        """Start one member; returns when it listens to its control socket."""
        name = member_name(identity)
        self.members[identity].start(self.run.processes, self.run.network, name)
        self.run.timeline.add("member_started", name)

    def register(self, link: str = "foreign1") -> None:
        """Start the mobile node on a link and let it register."""
        self.before["mn"] = network_state(self.run.network, "mn")
        self.emulator.start(self.run.processes, self.run.network, "mn", first=True)
        self.plug(link)

    def plug(self, link: str) -> dict[str, Any]:
        """Put the mobile node's cable into a link, and wait until it is registered from there; the
        acknowledgement.
        """
        up = self.run.network.attach("mn", "eth0", link)
        self.run.timeline.add("carrier_up", f"cable into {link}", at=up)
        return self.wait_acknowledged(up)

    def load_fleet(self) -> None:
        """Register the other contexts, if there are to be any."""
        if self.parameters.contexts == 1:
            return
        configuration = write_fleet(self.run.report, self.run.work, self.parameters, self.keys)
        namespace = self.run.network.namespace("fleet")
        fleet = Fleet(self.run.processes, namespace, configuration, self.run.report, FLEET_LIMIT)
        report = fleet.register()
        self.shown["fleet"] = report
        self.run.timeline.add("fleet_registered", f"{report[0]['accepted']} mobile nodes")

    def start_probes(self) -> None:
        """Datagrams at the probes' interval in both directions, from here to `finish`."""
        namespace = self.run.network.namespace
        self.probes.start({"cn": (namespace("cn"), CORRESPONDENT), "mn": (namespace("mn"), HOME_ADDRESS)})
        self.started = time.monotonic()
        interval = self.run.options.pace.probe_interval * 1000
        self.run.timeline.add("probes_start", f"every {interval:g} ms in both directions")

    # -- waiting -----------------------------------------------------------------------------------

    def wait_acknowledged(self, after: float) -> dict[str, Any]:
        """The first acknowledgement at or after a time that accepts."""
        return self.emulator.wait_for(
            "binding_acknowledged",
            after=after,
            limit=SIGNALLING_LIMIT,
            matching=lambda event: bool(event["status"] < 128),
        )

    def wait_for_role(self, identity: int, role: str, limit: float = ROLE_LIMIT) -> dict[str, Any]:
        """Wait until a member has a role; returns its status."""
        return self.members[identity].wait_for(f"role {role}", lambda status: status["role"] == role, limit)

    def wait_synchronized(self, active: int, limit: float = ROLE_LIMIT) -> dict[str, Any]:
        """Wait until an active member has every other one that runs among its synchronised ones."""

        def ready(status: dict[str, Any]) -> bool:
            running = {each for each, member in self.members.items() if member.alive() and each != active}
            there = {each["member"] for each in status["members"] if each["progress"] == "synchronized"}
            return status["role"] == "active" and running <= there

        return self.members[active].wait_for("synchronised standbys", ready, limit)

    def wait_settled(self, limit: float = ROLE_LIMIT) -> int:
        """Wait until some member is active and has every other one synchronised; returns which.

        Who is active at first need not stay it: a busy machine may keep a member from its HELLOs.
        """
        end = time.monotonic() + limit
        while True:
            active = self.wait_for_any(self.members, "active", max(0.0, end - time.monotonic()))
            try:
                self.wait_synchronized(active, 1.0)
            except ProcessFailed:
                if time.monotonic() > end:
                    raise
            else:
                return active

    def wait_for_any(self, identities: Iterable[int], role: str, limit: float = ROLE_LIMIT) -> int:
        """Wait until one of some members has a role; returns which."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            for identity in identities:
                if self.members[identity].ask("status")["role"] == role:
                    return identity
            self.pause(POLL)
        raise ProcessFailed(f"no member is {role} after {limit:g} s")

    def pause(self, seconds: float) -> None:
        """Let time pass while events are read."""
        self.mobile_node.pause(seconds)

    # -- faults ------------------------------------------------------------------------------------

    def kill(self, identity: int) -> float:
        """SIGKILL; returns the time just before."""
        at = self.members[identity].kill()
        self.stopped.append((identity, at))
        self.run.timeline.add("fault", f"SIGKILL of {member_name(identity)}", at=at)
        return at

    def terminate(self, identity: int) -> Took:
        """SIGTERM, and wait for the end."""
        before = time.monotonic()
        self.run.timeline.add("stopping", f"SIGTERM to {member_name(identity)}", at=before)
        status = self.members[identity].stop()
        after = time.monotonic()
        self.stopped.append((identity, after))
        name = f"{member_name(identity)} stopped"
        self.exit_status[f"{name} {len(self.exit_status) + 1}"] = status
        self.run.timeline.add("member_stopped", f"{member_name(identity)}, exit status {status}", at=after)
        return Took(name, before, after)

    def cut(self, *cables: tuple[str, str]) -> float:
        """Take out cables (node, interface), all at once; returns the time just before."""
        times = [self.run.network.detach(*cable) for cable in cables]
        names = ", ".join(f"{node} {interface}" for node, interface in cables)
        self.run.timeline.add("fault", f"cut: {names}", at=times[0])
        return times[0]

    def heal(self, cables: Iterable[tuple[str, str, str]]) -> float:
        """Put cables (node, interface, link) back; returns the time just before the first."""
        times = [self.run.network.attach(*cable) for cable in cables]
        self.run.timeline.add("healed", at=times[0])
        return times[0]

    def cut_unseen(self, node: str, interface: str) -> float:
        """Cut a path behind the next switch: the node keeps its carrier. Returns the time just before."""
        at = self.run.network.isolate(node, interface)
        self.run.timeline.add("fault", f"nothing passes: {node} {interface}", at=at)
        return at

    def heal_unseen(self, node: str, interface: str, link: str) -> float:
        """End what `cut_unseen` did; returns the time just before."""
        at = self.run.network.rejoin(node, interface, link)
        self.run.timeline.add("healed", at=at)
        return at

    def command(self, identity: int, *words: str) -> Took:
        """What an operator types: ``mip6ha WORDS`` at a member."""
        before = time.monotonic()
        self.run.timeline.add(words[0], f"asked of {member_name(identity)}", at=before)
        said = self.members[identity].command(*words).strip()
        after = time.monotonic()
        self.run.timeline.add(f"{words[0]}_done", said, at=after)
        return Took(" ".join(words), before, after)

    def acknowledged(self) -> list[dict[str, Any]]:
        """What the mobile node was told is registered, in order."""
        self.emulator.read_events()
        return [event for event in self.emulator.events if event["event"] == "binding_acknowledged"]

    def unacknowledged(self) -> list[float]:
        """When Binding Updates were sent that were never acknowledged (monotonic times)."""
        known = {event["sequence"] for event in self.acknowledged()}
        return [
            event["monotonic"]
            for event in self.emulator.events
            if event["event"] == "binding_update_sent" and event["sequence"] not in known
        ]

    # -- end ---------------------------------------------------------------------------------------

    def silence(self) -> None:
        """Stop the probes."""
        self.probes.silence()
        self.silent = time.monotonic()
        self.run.timeline.add("probes_stop")
        self.pause(SETTLE)
        self.streams = self.probes.finish()

    def finish(self) -> None:
        """Ask the members a last time, stop everything in order, see what is left behind."""
        self._ask("status", "counters")
        self.exit_status["mn"] = self.mobile_node.stop()
        clean = {"mn"}
        # Standbys first: nobody takes over at the end, nor while a long answer is made.
        for identity in sorted(self.members, key=self._serves):
            member, node = self.members[identity], member_name(identity)
            if member.alive():
                self._ask("bindings", "sas", of=identity)
                self.terminate(identity)
                clean.add(node)
            member.tell(self.run.timeline, _of_interest)
        self.left_behind = {
            node: sorted(self.before[node] ^ network_state(self.run.network, node)) for node in clean
        }
        self.dropped = self.captures.stop()

    def recording(self) -> SetRecording:
        """What is to be examined, once everything is stopped."""
        return SetRecording(
            options=self.run.options,
            timeline=self.run.timeline,
            directory=self.run.report,
            parameters=self.parameters,
            keys=self.keys,
            captures={link: capture.path for link, capture in self.captures.links.items()},
            logs={identity: member.log() for identity, member in self.members.items()},
            events=self.mobile_node.events,
            streams=self.streams,
            started=self.started,
            silent=self.silent,
            stopped=self.stopped,
            shown=self.shown,
            left_behind=self.left_behind,
            exit_status=self.exit_status,
            dropped=self.dropped,
        )

    def _ask(self, *what: str, of: int | None = None) -> None:
        for identity, member in self.members.items():
            if of in (None, identity) and member.alive():
                for each in what:
                    self.shown[f"{member_name(identity)} {each}"] = member.ask(each)

    def _serves(self, identity: int) -> bool:
        status = self.shown.get(f"{member_name(identity)} status")
        return status is not None and status["role"] == "active"


def _of_interest(entry: dict[str, Any]) -> bool:
    """Not the fleet's registrations."""
    return entry.get("home_address") in (None, HOME_ADDRESS)
