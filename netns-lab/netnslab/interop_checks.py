"""What a recording with strongSwan as the client shows, and the limits that it is held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mip6ha.numbering import HORIZON

from .client_network import CARE_OF_ADDRESS
from .client_set import Seen
from .dissection import Frame, IkeSeen
from .failover_checks import EDGE, WATCHED, Takeover, takeover
from .ike_record import CREATE_CHILD_SA, INFORMATIONAL, IkeRecord, by_exchange
from .mobility_network import HOME_AGENT
from .packets import address, esp_numbers, write_pcap
from .probes import Phase, Stream, longest_gap
from .redundant_network import member_name
from .redundant_set import SetRecording
from .scenario import Check, Outcome
from .set_checks import begin, common_checks, one_server
from .set_record import milliseconds
from .strongswan import LogLine

__all__ = ["ClientRecord", "Story", "examine_asked", "examine_asking"]

# What charon says of ESP that it does not take.
_REJECTIONS = ("verification failed", "not belong to an installed SA", "discarding inbound IP packet")
_MESSAGE_ID_SYNC = 16422
# Seconds after the fault of which tshark reads every packet; before it, a tenth.
_READ = 0.3


@dataclass(frozen=True, slots=True)
class Story:
    """The story of a run, monotonic seconds. From `fault` to `asked` nobody has a reason to speak IKE; `seen`
    is what charon had, `log` what it said.
    """

    fault: float
    asked: float
    active: int
    seen: dict[str, Seen]
    log: list[LogLine]

    def spis(self, *names: str) -> set[int]:
        """SPIs of the children that charon had, of all or at some times."""
        return {spi for name, each in self.seen.items() if name in (names or self.seen) for spi in each.child}


class ClientRecord(IkeRecord):
    """A run without registrations: all ESP is payload."""

    def __init__(self, recording: SetRecording, story: Story) -> None:
        super().__init__(recording, story.spis(), story.spis(), (story.fault, story.asked))
        self.story = story

    @cached_property
    def signalling(self) -> list[Frame]:
        """The client's ESP around the fault, opened by tshark (core link)."""
        path = self.directory / "takeover.pcap"
        start, end = self.story.fault - _READ / 10, self.story.fault + _READ
        protected = (each for each in self.frames["core"] if esp_numbers(each.packet))
        write_pcap(path, (each for each in protected if start <= self.monotonic(each.time) < end))
        return self._tshark.frames(path)

    def sequences(self, start: float, end: float) -> list[int]:
        """The sequence numbers that the home agent used towards the client in a time."""
        source = address(HOME_AGENT)
        return [
            numbers.sequence
            for each in self.frames["core"]
            if each.source == source
            and start <= self.monotonic(each.time) < end
            and (numbers := esp_numbers(each.packet)) is not None
        ]


def examine_asking(record: ClientRecord) -> Outcome:
    """What holds where strongSwan asks, and the new active member answers."""
    story, outcome = record.story, _examine(record)
    requests = _answered(record, CARE_OF_ADDRESS, story.asked)
    rekeys, calls = _count(requests, CREATE_CHILD_SA), _count(requests, INFORMATIONAL)
    connected, child, ike = (story.seen[each] for each in ("connected", "child re-keyed", "IKE SA re-keyed"))
    outcome.figures |= {"answered_by_home_agent": by_exchange(requests)}
    outcome.checks += [
        Check("re-keys that the new active member answered", rekeys == 2, rekeys, 2),
        Check("liveness checks and deletes that it answered", calls >= 2, calls, "at least 2"),
        Check(
            "the child was re-keyed under the same IKE SA",
            child.ike == connected.ike,
            child.ike,
            connected.ike,
        ),
        Check("the IKE SA was re-keyed with its child", ike.child == child.child, ike.child, child.child),
    ]
    return outcome


def examine_asked(record: ClientRecord) -> Outcome:
    """The new active member asks, strongSwan answers."""
    story, outcome = record.story, _examine(record)
    requests = _answered(record, HOME_AGENT, story.asked)
    rekeys, calls = _count(requests, CREATE_CHILD_SA), _count(requests, INFORMATIONAL)
    synchronised = [each for each in requests if _MESSAGE_ID_SYNC in each.notifications]
    logged = record.logged("message_ids_synchronised", story.asked, member=story.active)
    own = _count(_answered(record, CARE_OF_ADDRESS, story.asked), CREATE_CHILD_SA)
    child, ike = story.seen["child re-keyed"], story.seen["IKE SA re-keyed"]
    outcome.figures |= {"answered_by_strongswan": by_exchange(requests)}
    outcome.checks += [
        Check("re-keys that strongSwan answered", (rekeys, own) == (2, 0), [rekeys, own], [2, 0]),
        Check("signs of life and deletes that it answered", calls >= 5, calls, "at least 5"),
        Check(
            "message ids synchronised (RFC 6311)",
            len(synchronised) == 1 and logged is not None,
            len(synchronised),
            1,
        ),
        Check("the child was re-keyed under the re-keyed IKE SA", child.ike == ike.ike, child.ike, ike.ike),
    ]
    return outcome


def _answered(record: ClientRecord, source: str, after: float) -> list[IkeSeen]:
    """The requests of one end after a time that the other one answered, each once."""
    messages = record.ike_between(after, float("inf"))
    answers = {
        (each.spi, each.identifier, each.exchange)
        for each in messages
        if each.response and each.source != source
    }
    requests = {
        # RFC 6311 4.1: a synchronisation of message ids has the id 0, which another request may have had.
        (each.spi, each.identifier, each.exchange, each.notifications): each
        for each in messages
        if not each.response and each.source == source
    }
    return [request for key, request in requests.items() if key[:3] in answers]


def _count(messages: Iterable[IkeSeen], exchange: int) -> int:
    return sum(each.exchange == exchange for each in messages)


def _examine(record: ClientRecord) -> Outcome:
    """What holds whoever asks after the fault."""
    recording, story, outcome = record.set, record.story, begin(record)
    fault = story.fault
    took = takeover(record, fault, story.active)
    outcome.outages = (Phase(f"{member_name(story.active)} takes over", took.gap.start, took.gap.end),)
    first, replayed = story.spis("connected"), recording.shown["replay"]
    before, after = record.spis(recording.started, fault), record.spis(fault + EDGE, story.asked)
    rejected = [each.text for each in story.log if any(words in each.text for words in _REJECTIONS)]
    old = record.sequences(recording.started, fault)
    new = record.sequences(took.service, story.asked) if took.service is not None else []
    outcome.figures = {
        "credentials": recording.options.credentials,
        **took.figures(),
        "outage_by_direction_ms": {
            each.name: milliseconds(_gap(each, fault, recording.silent)) for each in record.streams
        },
        "spis_unchanged": first == before == after,
        "replays_sent": replayed["sent"],
        "replays_accepted": replayed["sent"] - replayed["refused"],
        "rejected_by_strongswan": len(rejected),
        "last_sequence_before": max(old, default=None),
        "first_sequence_after": min(new, default=None),
        "ike_messages_after": by_exchange(record.ike_between(story.asked, float("inf"))),
        "echo": recording.shown["echo"],
    } | outcome.figures
    outcome.checks = [
        *_outage_checks(record, took),
        Check(
            "standby decided and served", took.service is not None, outcome.figures["takeover_ms"], "measured"
        ),
        Check("SPIs unchanged", first == before == after, sorted(map(hex, after)), sorted(map(hex, first))),
        Check(
            "strongSwan has the same SAs", _same(story), story.seen["after the fault"].child, sorted(first)
        ),
        Check("ESP that strongSwan rejected", not rejected, rejected[:3], []),
        Check(
            "numbers of the new active member are above",
            bool(old and new) and min(new) > max(old),
            outcome.figures["first_sequence_after"],
            f"above {outcome.figures['last_sequence_before']}",
        ),
        _replay_check(replayed),
        *_client_checks(recording, story),
        *record.ike_checks(),
        one_server(record),
        *common_checks(record, outcome),
    ]
    return outcome


def _gap(stream: Stream, fault: float, silent: float) -> float:
    return longest_gap(stream.arrivals, fault, min(fault + WATCHED, silent)).length


def _outage_checks(record: ClientRecord, took: Takeover) -> list[Check]:
    """The gap of each direction, and that nothing is lost when it is over.

    What the standby cannot know to be new it does not take: of the client's packets, up to the horizon.
    """
    pace = record.options.pace
    checks = []
    for stream in record.streams:
        from_client = stream.name.startswith("mn")
        limit = pace.outage_limit_ms + (HORIZON * pace.probe_interval * 1000 if from_client else 0.0)
        gap = longest_gap(stream.arrivals, took.fault, min(took.fault + WATCHED, record.set.silent))
        late = sum(each.sent >= gap.end for each in stream.lost)
        checks += [
            Check(
                f"outage, {stream.name}, ms",
                gap.length * 1000 <= limit,
                milliseconds(gap.length),
                f"at most {limit:g}",
            ),
            Check(f"probes lost after the outage, {stream.name}", late == 0, late, 0),
        ]
    return checks


def _same(story: Story) -> bool:
    before, after = story.seen["connected"], story.seen["after the fault"]
    return (before.ike, before.child) == (after.ike, after.child)


def _replay_check(replayed: dict[str, Any]) -> Check:
    accepted = replayed["sent"] - replayed["refused"]
    return Check(
        f"replays accepted, of {replayed['sent']}",
        accepted == 0 < replayed["sent"] and not replayed["changed"],
        accepted,
        0,
    )


def _client_checks(recording: SetRecording, story: Story) -> list[Check]:
    """What the home agent says of its client, and strongSwan of how it began."""
    bound = [each["care_of_address"] for each in recording.shown["replay"]["bindings"]]
    left = recording.shown["bindings at the end"]
    begun = sum("generating IKE_SA_INIT request" in each.text for each in story.log)
    sent, answered = recording.shown["echo"].split()[:2]
    return [
        Check("bindings after the fault", bound == [CARE_OF_ADDRESS], bound, [CARE_OF_ADDRESS]),
        Check("bindings at the end", not left, len(left), 0),
        Check("IKE_SA_INIT in strongSwan's log", begun == 1, begun, 1),
        Check("echoes after the re-keys", sent == answered, answered, sent),
    ]
