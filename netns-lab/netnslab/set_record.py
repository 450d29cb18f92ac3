"""What a run with a redundant set left behind, read once, and the figures that all its scenarios have.

Covered: captures, logs, probe streams as facts. Not covered: limits (`set_checks` and each scenario).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from .dissection import BINDING_ACKNOWLEDGEMENT, BINDING_UPDATE, Frame, HelloSeen, Tshark
from .mobility_network import HOME_ADDRESS, HOME_AGENT
from .packets import (
    IPV6_IN_IPV6,
    UDP,
    Captured,
    Reuse,
    address,
    esp_numbers,
    is_ike,
    outer,
    read_pcap,
    reuse,
    write_pcap,
)
from .probes import Gap, Stream, longest_gap
from .redundant_network import member_address, member_name
from .redundant_set import SetRecording
from .roles import RoleSpan, role_spans, terms_served

__all__ = ["SetRecord", "lost", "milliseconds", "moving_payload"]

_PAYLOAD = "payload"
_HOME_AGENT, _HOME = address(HOME_AGENT), address(HOME_ADDRESS)


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)


def moving_payload(packet: bytes) -> bool:
    """Whether it carries what applications send: IPv6 in IPv6, or plain UDP, which may have ESP in it."""
    return outer(packet).protocol in (IPV6_IN_IPV6, UDP) and not is_ike(packet)


class SetRecord:
    """The record of one run; captures are read when they are first asked for."""

    def __init__(self, recording: SetRecording) -> None:
        self.set = recording
        self.options = recording.options
        self.directory = recording.directory
        self.timeline = recording.timeline
        self.events = recording.events
        self.streams = recording.streams
        self._tshark = Tshark(self.directory / "wireshark")
        self.mobile_spis = {each.spi for each in recording.keys.mobile}
        self.payload_spis = {each.spi for each in recording.keys.mobile if each.use == _PAYLOAD}

    # -- frames ------------------------------------------------------------------------------------

    @cached_property
    def frames(self) -> dict[str, list[Captured]]:
        """Every IPv6 frame of every captured link."""
        return {link: list(read_pcap(path)) for link, path in self.set.captures.items()}

    @cached_property
    def signalling(self) -> list[Frame]:
        """What the mobile node and its home agent said to each other, decrypted by tshark (core link)."""
        path = self.directory / "signalling.pcap"
        write_pcap(path, (each for each in self.frames["core"] if self._is_signalling(each)))
        return self._tshark.frames(path)

    @cached_property
    def hellos(self) -> list[HelloSeen]:
        """What the members said about themselves, decrypted by tshark (sync link)."""
        return self._tshark.hellos(self.set.captures["sync"])

    def _is_signalling(self, captured: Captured) -> bool:
        if _HOME_AGENT not in (captured.source, captured.destination) or moving_payload(captured.packet):
            return False
        numbers = esp_numbers(captured.packet)
        if numbers is None:
            return not is_ike(captured.packet)
        return numbers.spi not in self.payload_spis and not self.set.parameters.is_fleet(numbers.spi)

    def monotonic(self, epoch: float) -> float:
        """A capture's time on the timeline's clock."""
        return epoch - self.timeline.epoch_offset

    # -- facts -------------------------------------------------------------------------------------

    @cached_property
    def roles(self) -> list[RoleSpan]:
        """What each member was, and when."""
        spans: list[RoleSpan] = []
        served = terms_served(self.hellos)
        for identity, log in self.set.logs.items():
            ends = [at for stopped, at in self.set.stopped if stopped == identity]
            # That a member follows an active one is in no log, but in what it says.
            following = [
                {"time": hello.time, "role": "standby", "term": hello.term}
                for hello in self.hellos
                if hello.source == member_address(identity) and not hello.active and hello.term in served
            ]
            samples = [*log, *following]
            spans += role_spans(
                member_name(identity), samples, ends, self.timeline.epoch_offset, self.set.silent
            )
        return spans

    def logged(
        self, name: str, after: float, *, member: int | None = None
    ) -> tuple[float, dict[str, Any]] | None:
        """The first event of a name in the logs at or after a time (one member's, or any)."""
        found = []
        for identity, log in self.set.logs.items():
            if member in (None, identity):
                for entry in log:
                    at = self.monotonic(entry["time"])
                    if entry["event"] == name and at >= after:
                        found.append((at, entry))
        return min(found, key=lambda each: each[0], default=None)

    def reuse(self) -> dict[str, Reuse]:
        """What the home agent address used twice on the home link, and the members on theirs."""
        members = [address(member_address(identity)) for identity in self.set.logs]
        return {
            "mobile nodes": reuse(self.frames["home"], _HOME_AGENT),
            "members": reuse(self.frames["sync"], *members),
        }

    def ike_messages(self) -> int:
        """IKE on any link."""
        return sum(is_ike(each.packet) for frames in self.frames.values() for each in frames)

    def unasked(self, after: float) -> list[Frame]:
        """What the home agent said to the mobile node after a time and was not an answer.

        An answer is a Binding Acknowledgement with the sequence number of a Binding Update that went before.
        """
        asked: set[int] = set()
        found = []
        for frame in self.signalling:
            mobility = frame.mobility
            if frame.addresses[0] != HOME_AGENT:
                if mobility is not None and mobility.kind == BINDING_UPDATE:
                    asked.add(mobility.sequence)
            elif self.monotonic(frame.time) >= after:
                answers = mobility is not None and mobility.kind == BINDING_ACKNOWLEDGEMENT
                if not answers or mobility is None or mobility.sequence not in asked:
                    found.append(frame)
        return found

    def spis(self, start: float, end: float) -> set[int]:
        """SPIs between the mobile node and its home agent in a window."""
        found = set()
        for each in self.frames["core"]:
            if start <= self.monotonic(each.time) < end and (numbers := esp_numbers(each.packet)):
                found.add(numbers.spi)
        return found & self.mobile_spis

    def payload_from(self, identity: int, after: float) -> float | None:
        """When a member first sent a mobile node's payload after a time, in either direction.

        Members are told apart by the MAC address that their packets leave with.
        """
        mac = self.mac(identity)
        for each in self.frames["home"]:
            at = self.monotonic(each.time)
            if at >= after and each.sender == mac and self._is_payload(each):
                return at
        return None

    def payload_outside_esp(self) -> int:
        """How many tunnel packets passed the core link unprotected."""
        return sum(outer(each.packet).protocol == IPV6_IN_IPV6 for each in self.frames["core"])

    def mac(self, identity: int) -> bytes:
        """The MAC address of a member on the home link."""
        return bytes.fromhex(self.set.shown[f"mac {identity}"].replace(":", ""))

    def _is_payload(self, captured: Captured) -> bool:
        numbers = esp_numbers(captured.packet)
        return moving_payload(captured.packet) if numbers is None else numbers.spi in self.payload_spis

    def acknowledged(self) -> list[dict[str, Any]]:
        """What the mobile node was told is registered, in order."""
        return [event for event in self.events if event["event"] == "binding_acknowledged"]

    def answered_by(self, acknowledgement: dict[str, Any]) -> str | None:
        """Which member sent an acknowledgement that the mobile node got: the last one on the home link before
        it arrived.
        """
        names = {self.mac(identity): member_name(identity) for identity in self.set.logs}
        found = None
        for each in self.frames["home"]:
            if self.monotonic(each.time) > acknowledgement["monotonic"]:
                break
            numbers = esp_numbers(each.packet) if each.source == _HOME_AGENT else None
            if numbers and numbers.spi in self.mobile_spis - self.payload_spis:
                found = names.get(each.sender)
        return found

    # -- probes ------------------------------------------------------------------------------------

    def longest_gap(self, start: float, end: float, *, began_before: bool = True) -> tuple[str, Gap]:
        """The longest gap in a window, in the worse direction."""
        gaps = {
            stream.name: longest_gap(stream.arrivals, start, end, began_before=began_before)
            for stream in self.streams
        }
        name = max(gaps, key=lambda each: gaps[each].length)
        return name, gaps[name]

    def restored(self, moment: float) -> float | None:
        """When probes had arrived again in both directions after a moment."""
        arrivals = [stream.first_arrival(moment) for stream in self.streams]
        return None if None in arrivals else max(each for each in arrivals if each is not None)


def lost(streams: Iterable[Stream]) -> int:
    """How many probes never arrived."""
    return sum(len(stream.lost) for stream in streams)
