"""What a recording of the scenario ``handover`` shows, and the limits that it is held against.

Three views of the same run have to agree: the probe streams, what tshark reads in the captures, and the
events of the mobile node. Times in captures are turned into the monotonic clock with the timeline's offset.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dissection import BINDING_ACKNOWLEDGEMENT, BINDING_UPDATE, Frame, MobilityMessage, Tshark
from .probes import Phase, Stream, longest_gap, losses_by_phase
from .scenario import Check, Options, Outcome
from .timeline import Timeline

__all__ = ["Recording", "Wire", "examine", "judge", "read_captures"]

DAD_MS = 1000.0  # RFC 4862 5.1: RetransTimer, once
RESTORED_LIMIT = 5.0
PROBE_PORT = 4000
AWAY = ("foreign1", "foreign2")
ACCESS_LINKS = (*AWAY, "home")
# Seconds.
EDGE = 1.0


@dataclass(frozen=True, slots=True)
class Recording:
    """Everything that a run left for examination. `moves` is link -> (carrier down, carrier up),
    monotonic.
    """

    options: Options
    timeline: Timeline
    directory: Path
    captures: dict[str, Path]
    events: list[dict[str, Any]]
    streams: tuple[Stream, Stream]
    started: float
    silent: float
    moves: dict[str, tuple[float, float]]
    shown: dict[str, Any]
    left_behind: dict[str, list[str]]
    exit_status: dict[str, int]
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Message:
    """A Mobility Header, where it was seen and in which frame."""

    link: str
    frame: Frame
    mobility: MobilityMessage

    @property
    def deregisters(self) -> bool:
        """Whether it asks for the end of a binding, or answers that."""
        return self.mobility.lifetime == 0

    @property
    def accepts(self) -> bool:
        """Whether it is a BA that accepts (RFC 6275 6.1.8: below 128)."""
        status = self.mobility.status
        return self.mobility.kind == BINDING_ACKNOWLEDGEMENT and status is not None and status < 128


@dataclass(frozen=True, slots=True)
class Wire:
    """What tshark found, per link."""

    frames: dict[str, list[Frame]]

    def messages(self, *kinds: int, links: Iterable[str] | None = None) -> list[Message]:
        """Mobility Headers of some kinds (all without any) on some links (all without any)."""
        return [
            Message(link, frame, frame.mobility)
            for link in (self.frames if links is None else links)
            for frame in self.frames[link]
            if frame.mobility is not None and (not kinds or frame.mobility.kind in kinds)
        ]

    def probes(self, *links: str, after: float = 0.0) -> list[Frame]:
        """Probes on links, seen after a time."""
        return [
            frame
            for link in links
            for frame in self.frames[link]
            # An ICMPv6 error quotes one.
            if frame.udp_port == PROBE_PORT and frame.icmp_type is None and frame.time >= after
        ]


def examine(recording: Recording) -> Outcome:
    """Read the captures and judge the run."""
    return judge(recording, read_captures(recording))


def judge(recording: Recording, wire: Wire) -> Outcome:
    """Figures, checks, and what the report draws."""
    outcome = Outcome(streams=recording.streams)
    outcome.phases = _phases(recording)
    figures = outcome.figures
    figures["registration_ms"] = _registration_ms(wire)
    for link, name in (("foreign2", "handover"), ("home", "home")):
        outage, measured = _move_figures(recording, link, name)
        outcome.outages += (outage,)
        figures |= measured
    lost = {stream.name: losses_by_phase(stream, outcome.phases) for stream in recording.streams}
    figures["lost_packets"] = sum(len(stream.lost) for stream in recording.streams)
    figures["lost_packets_by_direction"] = {stream.name: len(stream.lost) for stream in recording.streams}
    figures["lost_packets_by_phase"] = lost
    figures["sent_packets"] = {stream.name: len(stream.samples) for stream in recording.streams}
    figures["duplicates"] = {stream.name: stream.duplicates for stream in recording.streams}
    figures["latency"] = {stream.name: stream.latency_summary() for stream in recording.streams}
    figures["signalling"] = _signalling(recording, wire)
    figures["deregistered"] = _deregistered(recording, wire)
    figures["home_agent_counters"] = recording.shown["counters"]
    outcome.checks = [
        *_protocol_checks(recording, wire, figures),
        *_traffic_checks(recording, outcome, wire),
        *_wire_checks(recording, wire),
        *_cleanliness_checks(recording),
    ]
    return outcome


def read_captures(recording: Recording) -> Wire:
    """Let tshark read every capture once."""
    tshark = Tshark(recording.directory / "wireshark")
    with ThreadPoolExecutor(max_workers=2) as pool:
        frames = pool.map(tshark.frames, recording.captures.values())
        return Wire(dict(zip(recording.captures, frames, strict=True)))


def _first_answer(wire: Wire, link: str, deregistration: bool) -> tuple[Message, Message] | None:
    """The first BU of a kind on a link, and the first BA after it that accepts it or a retransmission of
    it.
    """
    found = wire.messages(BINDING_UPDATE, links=[link])
    updates = [each for each in found if each.deregisters is deregistration]
    if not updates:
        return None
    sequences = {update.mobility.sequence for update in updates}
    for each in wire.messages(BINDING_ACKNOWLEDGEMENT, links=[link]):
        late = each.frame.time >= updates[0].frame.time
        if late and each.accepts and each.mobility.sequence in sequences:
            return updates[0], each
    return None


def _registration_ms(wire: Wire) -> float | None:
    pair = _first_answer(wire, "foreign1", deregistration=False)
    return round((pair[1].frame.time - pair[0].frame.time) * 1000, 3) if pair else None


def _signalling(recording: Recording, wire: Wire) -> list[dict[str, object]]:
    """Each exchange as it was on the mobile node's own link."""
    found: list[dict[str, object]] = []
    zero = recording.timeline.epoch_offset + recording.timeline.start
    for link in ACCESS_LINKS:
        pair = _first_answer(wire, link, deregistration=link == "home")
        if pair is not None:
            update, answer = pair
            found.append(
                {
                    "link": link,
                    "at_s": round(update.frame.time - zero, 3),
                    "update_to_acknowledgement_ms": round((answer.frame.time - update.frame.time) * 1000, 3),
                    "sequence": answer.mobility.sequence,
                    "status": answer.mobility.status,
                    "lifetime_s": answer.mobility.lifetime * 4,
                }
            )
    return found


def _phases(recording: Recording) -> tuple[Phase, ...]:
    """The parts of the run that losses are told by; each move is one without carrier and one until both
    directions work again.
    """
    # The endpoints start a little before the first mark and stop a little after the last one.
    start, name = recording.started - EDGE, "foreign1"
    # What was sent this long before the cable came out may have been lost with it.
    in_flight = recording.options.pace.in_flight
    phases = []
    for link, (down, up) in recording.moves.items():
        restored = max((_restored(stream, up) for stream in recording.streams), default=up)
        phases += [
            Phase(name, start, down - in_flight),
            Phase(f"no carrier before {link}", down - in_flight, up),
            Phase(f"moving to {link}", up, restored),
        ]
        start, name = restored, link
    return (*phases, Phase(name, start, recording.silent + EDGE))


def _restored(stream: Stream, moment: float) -> float:
    """When traffic arrived again after a moment; a fixed while later if it did not."""
    arrival = stream.first_arrival(moment)
    return arrival if arrival is not None else moment + RESTORED_LIMIT


def _usable(recording: Recording, link: str, after: float) -> float:
    """When the mobile node had its address on a link: from then on the time is the daemons' own."""
    name = "at_home" if link == "home" else "care_of_address"
    return min(
        (e["monotonic"] for e in recording.events if e["event"] == name and e["monotonic"] >= after),
        default=after,
    )


def _move_figures(recording: Recording, link: str, name: str) -> tuple[Phase, dict[str, Any]]:
    down, up = recording.moves[link]
    usable = _usable(recording, link, up)
    end = max(_restored(stream, usable) for stream in recording.streams)
    gaps = {stream.name: longest_gap(stream.arrivals, down, end + 1.0) for stream in recording.streams}
    own = {stream.name: _restored(stream, usable) - usable for stream in recording.streams}
    longest = max(gaps.values(), key=lambda gap: gap.since(up))

    def ms(value: float) -> float:
        return round(value * 1000, 3)

    return Phase(f"move to {link}", longest.start, longest.end), {
        f"{name}_outage_ms": ms(longest.since(up)),
        f"{name}_gap_ms": ms(max(gap.length for gap in gaps.values())),
        f"{name}_address_ms": ms(usable - up),
        f"{name}_own_ms": ms(max(own.values())),
        f"{name}_outage_by_direction_ms": {direction: ms(gap.since(up)) for direction, gap in gaps.items()},
        f"{name}_own_by_direction_ms": {direction: ms(share) for direction, share in own.items()},
    }


def _deregistered(recording: Recording, wire: Wire) -> bool:
    """All three agree: the mobile node, the BA on the wire, the home agent's empty cache."""
    told = any(event["event"] == "deregistered" for event in recording.events)
    answered = _first_answer(wire, "home", deregistration=True) is not None
    return told and answered and not recording.shown["bindings_at_home"]


def _protocol_checks(recording: Recording, wire: Wire, figures: dict[str, Any]) -> list[Check]:
    registration = figures["registration_ms"]
    dad = DAD_MS if recording.options.dad else 0.0
    pace = recording.options.pace
    limit = dad + pace.registration_limit_ms
    measured = registration is not None
    checks = [
        Check(
            "registration, BU to BA, ms",
            measured and dad <= registration < limit,
            registration,
            f"{dad:g} to {limit:g}",
        ),
    ]
    checks += [
        Check(
            f"{what}, ms",
            figures[name] < pace.own_share_limit_ms,
            figures[name],
            f"under {pace.own_share_limit_ms:g}",
        )
        for what, name in (
            ("hand-over's own share", "handover_own_ms"),
            ("return home's own share", "home_own_ms"),
        )
    ]
    checks.append(
        Check(
            "one binding while away",
            len(recording.shown["bindings"]) == 1,
            len(recording.shown["bindings"]),
            1,
        )
    )
    checks.append(Check("de-registered", figures["deregistered"], figures["deregistered"], True))
    return checks


def _traffic_checks(recording: Recording, outcome: Outcome, wire: Wire) -> list[Check]:
    checks = []
    steady = [phase for phase in outcome.phases if phase.name in ACCESS_LINKS]
    for stream in outcome.streams:
        direction = stream.name.replace("_", " ")
        for phase in steady:
            arrived, sent = stream.between(phase.start, phase.end)
            name = f"{direction} on {phase.name}: arrived, sent"
            checks.append(Check(name, sent > 0 and arrived == sent, [arrived, sent], "all"))
        checks.append(Check(f"{direction}: duplicates", stream.duplicates == 0, stream.duplicates, 0))
    away = wire.probes("foreign1", "foreign2")
    bare = sum(not frame.tunnelled for frame in away)
    checks.append(Check(f"away: probes outside the tunnel, of {len(away)}", bare == 0 < len(away), bare, 0))
    told = max((event["time"] for event in recording.events if event["event"] == "deregistered"), default=0.0)
    at_home = wire.probes("home", after=told + recording.options.pace.in_flight)
    tunnelled = sum(frame.tunnelled for frame in at_home)
    name = f"at home: probes in the tunnel, of {len(at_home)}"
    checks.append(Check(name, tunnelled == 0 < len(at_home), tunnelled, 0))
    return checks


def _wire_checks(recording: Recording, wire: Wire) -> list[Check]:
    both = wire.messages(BINDING_UPDATE, BINDING_ACKNOWLEDGEMENT)
    every = wire.messages()
    # On the home link a BU from away is seen again between home router and home agent.
    own = [each for each in both if each.link in AWAY or (each.link == "home" and each.deregisters)]
    updates = sum(each.mobility.kind == BINDING_UPDATE for each in own)
    answers = sum(each.mobility.kind == BINDING_ACKNOWLEDGEMENT for each in own)
    sent = sum(event["event"] == "binding_update_sent" for event in recording.events)
    got = sum(event["event"] == "binding_acknowledged" for event in recording.events)
    esp = [frame for frames in wire.frames.values() for frame in frames if frame.spi is not None]
    opened = sum(frame.opened for frame in esp)
    clear = sum(each.frame.spi is None for each in both)
    bad_icv = sum(each.frame.icv_good is False for each in both)
    bad_checksum = sum(not each.mobility.checksum_good for each in every)
    some = bool(both)
    return [
        Check("tshark: ESP frames decrypted and verified", opened == len(esp) > 0, opened, len(esp)),
        Check("tshark: BUs on the mobile node's links", updates == sent > 0, updates, sent),
        Check("tshark: BAs on the mobile node's links", answers >= got > 0, answers, got),
        Check(f"tshark: without ESP, of {len(both)} BUs and BAs", clear == 0 and some, clear, 0),
        Check(f"tshark: bad ICVs, of {len(both)} BUs and BAs", bad_icv == 0 and some, bad_icv, 0),
        Check(f"tshark: bad checksums, of {len(every)} MHs", bad_checksum == 0 and some, bad_checksum, 0),
    ]


def _cleanliness_checks(recording: Recording) -> list[Check]:
    checks = [
        Check(f"left behind in namespace {node}", not lines, lines, [])
        for node, lines in recording.left_behind.items()
    ]
    checks.append(
        Check(
            "exit status of the daemons",
            not any(recording.exit_status.values()),
            recording.exit_status,
            "all 0",
        )
    )
    checks.append(
        Check("packets lost by the captures", not any(recording.dropped.values()), recording.dropped, "all 0")
    )
    return checks
