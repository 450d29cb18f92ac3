"""What a run with a redundant set left behind whose SAs come from IKEv2.

Covered: SPIs that nobody knew before, IKE messages as tshark decrypts them. Not covered: limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from .dissection import IkeSeen
from .packets import is_ike, write_pcap
from .redundant_set import SetRecording
from .scenario import Check
from .set_record import SetRecord

__all__ = ["CREATE_CHILD_SA", "IKE_AUTH", "IKE_SA_INIT", "INFORMATIONAL", "IkeRecord", "by_exchange"]

IKE_SA_INIT, IKE_AUTH, CREATE_CHILD_SA, INFORMATIONAL = 34, 35, 36, 37
_NAMES = {
    IKE_SA_INIT: "IKE_SA_INIT",
    IKE_AUTH: "IKE_AUTH",
    CREATE_CHILD_SA: "CREATE_CHILD_SA",
    INFORMATIONAL: "INFORMATIONAL",
}


class IkeRecord(SetRecord):
    """`spis` are those of the mobile node, `payload` those of its tunnel among them; in `quiet`, monotonic
    seconds, there must be no IKE.
    """

    def __init__(
        self, recording: SetRecording, spis: set[int], payload: set[int], quiet: tuple[float, float]
    ) -> None:
        super().__init__(recording)
        self.mobile_spis, self.payload_spis = spis, payload
        self.quiet = quiet

    @cached_property
    def ike(self) -> list[IkeSeen]:
        """Every IKE message of the core link, decrypted by tshark."""
        path: Path = self.directory / "ike.pcap"
        write_pcap(path, (each for each in self.frames["core"] if is_ike(each.packet)))
        return self._tshark.ike(path)

    def ike_messages(self) -> int:
        """IKE on any link from the fault until somebody was meant to speak it."""
        begin, end = self.quiet
        return sum(
            is_ike(each.packet) and begin <= self.monotonic(each.time) < end
            for frames in self.frames.values()
            for each in frames
        )

    def ike_between(self, begin: float, end: float) -> list[IkeSeen]:
        """The IKE messages of a time."""
        return [each for each in self.ike if begin <= self.monotonic(each.time) < end]

    def ike_checks(self) -> list[Check]:
        """What tshark makes of them, and that there was one IKE_SA_INIT for all."""
        protected = [each for each in self.ike if each.exchange != IKE_SA_INIT]
        opened = sum(each.opened for each in protected)
        malformed = sum(each.malformed for each in self.ike)
        initial = [each for each in self.ike if each.exchange == IKE_SA_INIT and not each.response]
        first = len({each.spi for each in initial})
        late = sum(self.monotonic(each.time) >= self.quiet[0] for each in initial)
        return [
            Check("IKE SAs begun by IKE_SA_INIT", first == 1, first, 1),
            Check("IKE_SA_INIT after the fault", late == 0, late, 0),
            Check("tshark: IKE messages decrypted", opened == len(protected) > 0, opened, len(protected)),
            Check(
                f"tshark: malformed, of {len(self.ike)} IKE messages",
                malformed == 0 < len(self.ike),
                malformed,
                0,
            ),
        ]


def by_exchange(messages: Iterable[IkeSeen]) -> dict[str, int]:
    """How many messages of each exchange."""
    return dict(Counter(_NAMES.get(each.exchange, str(each.exchange)) for each in messages))
