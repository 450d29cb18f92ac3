"""The dataplane of kernels with IPv6 tunnels: the kernel forwards payload, the daemon decides.

Covered: tunnels, mobile network prefixes and the source check in the kernel, members of a set, adopting what
a killed process left, repairing what somebody else changed. Not covered: when to look for that
(``kernel_watch``), payload under ESP (``kernel_payload``). Signalling takes the same way as on the TUN
dataplane, and so does what goes to an address without a tunnel; neighbours, virtual MAC address and rules are
the same as well.

A standby has every route and filter installed. A gate in front of the tunnel device, one filter in either
direction, keeps what a switch floods from being forwarded twice; taking over removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from .. import icmpv6
from ..config import EdgeConfiguration
from ..effects import (
    ExtendPayload,
    LendPayload,
    NarrowPath,
    RecallPayload,
    RemoveTunnel,
    RoutePrefix,
    SendPacket,
    SetTunnel,
    UnroutePrefix,
)
from ..ipv6 import HEADER_LENGTH, IPV6, MINIMUM_MTU, build
from .dataplane import FIRST_TABLE, Report, Tell, TunDataplane
from .errors import Unusable
from .features import kernel_features
from .kernel_messages import NETLINK_ROUTE, add_rule, remove_rule
from .kernel_payload import KernelPayload
from .kernel_tunnels import Comparison, KernelTunnels
from .kernel_watch import KernelWatch
from .mobile_link import SocketReader
from .netlink import MAIN_TABLE
from .netlink_messages import Conversation, Message, Overrun
from .selection import Selection
from .tunnel_device import TunnelDevice

__all__ = ["KernelDataplane"]

# Seconds. How long what a killed process left may still be wanted: bindings come from a peer or a journal.
_GRACE = 5.0
# How long what is on its way is still forwarded after standing down (the mobile nodes are the same).
_LET_RUN_OUT = 0.5
# An error quotes the outer header and at least eight octets, or the kernel does not look at it; with less
# than an inner header it tells nobody else.
_QUOTED = HEADER_LENGTH + 8


class KernelDataplane(TunDataplane):
    """As :class:`TunDataplane`, with tunnels in the kernel. ``clock`` is monotonic, in seconds.

    ``offloads`` tells whether the kernel takes payload under ESP too; then effects that lend it are carried
    out, otherwise they do nothing.
    """

    _forwards_on = True
    # A process that is late cannot hold back what the kernel forwards by itself.
    lease_margin = 0.25

    def __init__(
        self,
        address: bytes,
        edge: EdgeConfiguration,
        anycast: frozenset[bytes] = frozenset(),
        *,
        clock: Callable[[], float],
    ) -> None:
        features = kernel_features()
        if features.forwarding:
            lacks = ", ".join(features.forwarding)
            raise Unusable(f"the kernel dataplane needs what this kernel lacks: {lacks}")
        self.offloads = not features.offload
        self._payload: KernelPayload | None = None
        self._tell: Tell | None = None
        self._soon: Callable[..., object] | None = None
        self._clock = clock
        self._narrow: dict[bytes, float] = {}
        self._leftovers_after = clock() + _GRACE
        self._shut_after = clock() + _GRACE
        super().__init__(address, edge, anycast)
        self._carry_out |= {
            SetTunnel: self._set_tunnel,
            RemoveTunnel: self._remove_tunnel,
            NarrowPath: self._narrow_path,
        }
        if self._payload is not None:
            self._carry_out |= {
                LendPayload: self._lend,
                ExtendPayload: self._payload.extend,
                RecallPayload: lambda effect: self._recall(effect.home_address),
            }

    def _prepare(self, edge: EdgeConfiguration, undo: ExitStack) -> Selection | None:
        # Of the selection's thread, which must not share a conversation.
        self._rules = Conversation(NETLINK_ROUTE)
        undo.callback(self._rules.close)
        selection = super()._prepare(edge, undo)
        group = edge.group or 0
        self.kernel = Conversation(NETLINK_ROUTE)
        undo.callback(self.kernel.close)
        self._dumps = Conversation(NETLINK_ROUTE)
        undo.callback(self._dumps.close)
        self._dumps.select_dumps()
        interfaces = self._interfaces() if group else []
        self.device = TunnelDevice(
            self.kernel,
            self._dumps,
            self._address,
            group,
            link_mtu=self.link_mtu,
            interfaces=interfaces,
            tun=edge.tun_name,
        )
        table = FIRST_TABLE + group if group else MAIN_TABLE
        self._tunnels = KernelTunnels(
            self.kernel, self._address, table, self.device.preference, self.counters
        )
        undo.callback(self.device.remove)
        made = self._ensure()
        if group and made & {"device", "gate"}:
            # Nobody's yet, or a standby's.
            self._set_gate(shut=True)
        self._tunnels.tun = self.tun.interface
        self._tunnels.all_narrow = self.link_mtu < MINIMUM_MTU + HEADER_LENGTH
        for _ in self._tunnels.compare(self._dumps, Comparison(leftovers=False)):
            pass
        undo.callback(self._tunnels.clear)
        if self.offloads:
            self._payload = self._open_payload(group)
            undo.callback(self._payload.close)
        return selection

    def _open_payload(self, group: int) -> KernelPayload:
        try:
            return KernelPayload(self.kernel, self._address, group, self.tun.interface, self.counters)
        except OSError as error:
            raise Unusable(f"payload in the kernel: {error.strerror}") from None

    def _switch_rules(self, *, selected: bool) -> None:
        super()._switch_rules(selected=selected)
        change = add_rule if selected else remove_rule
        self._rules.send([change(self.device.from_anywhere)])

    def _ensure(self) -> set[str]:
        made, failed = self.device.ensure()
        for failure in failed:
            self.counters[f"netlink_{failure}"] += 1
        self._tunnels.device = self.device.index
        if "device" in made:
            self._tunnels.forget_installed()
        return made

    # -- effects -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """See :class:`Dataplane`."""
        super().flush()
        self._tunnels.flush()
        if self._payload is not None and self._payload.has_lost and self._soon is not None:
            # Until the core hears of it, it gives back what comes to it.
            self._soon(0, self._pass_news)
        states = 0 if self._payload is None else self._payload.messages
        self.counters["netlink_messages"] = self.kernel.sent + self._tables.changes + states

    def _bring_here(self, address: bytes, *, here: bool = True) -> None:
        self._tunnels.bring_here(address, here=here)

    def _set_tunnel(self, effect: SetTunnel) -> None:
        self._tunnels.tunnel(effect.home_address, effect.care_of_address, protected=effect.protected)
        if self._payload is not None and effect.protected:
            self._payload.move(effect.home_address, effect.care_of_address)
        else:
            self._recall(effect.home_address)

    def _remove_tunnel(self, effect: RemoveTunnel) -> None:
        self._recall(effect.home_address)
        self._tunnels.tunnel(effect.home_address, None)

    def _lend(self, effect: LendPayload) -> None:
        care_of_address = self._tunnels.care_of(effect.home_address)
        if self._payload is not None and care_of_address is not None:
            self._payload.lend(effect, care_of_address)

    def _recall(self, home_address: bytes) -> None:
        if self._payload is not None:
            self._payload.recall(home_address)

    def _route(self, effect: RoutePrefix) -> None:
        self._tunnels.add_prefix(effect.prefix, effect.length, effect.home_address)

    def _unroute(self, effect: UnroutePrefix) -> None:
        self._tunnels.remove_prefix(effect.prefix, effect.length)

    def _narrow_path(self, effect: NarrowPath) -> None:
        """The kernel believes a Packet Too Big that quotes a tunnel packet; its source is told by the core.

        It tells the sources of what is longer than 1280 octets, but does not fragment a tunnel packet
        outside, as one has to that holds 1280 octets (RFC 2473 7.1): those are left to the core.
        """
        care_of_address = effect.care_of_address
        if effect.mtu < MINIMUM_MTU + HEADER_LENGTH:
            self._narrow[care_of_address] = self._clock() + effect.seconds
            self._tunnels.set_narrow(set(self._narrow))
        quoted = build(self._address, care_of_address, IPV6, bytes(HEADER_LENGTH))
        news = icmpv6.error(icmpv6.PACKET_TOO_BIG, 0, effect.mtu, care_of_address, quoted[:_QUOTED])
        if news is not None:
            self._send(SendPacket(news))

    # -- who owns the addresses --------------------------------------------------------------------

    def _own(self) -> None:
        super()._own()
        if self.device.shut:
            self._set_gate(shut=False)

    def _disown(self, *, at_once: bool = False) -> None:
        super()._disown()
        if at_once:
            self._set_gate(shut=True)
        if self._payload is not None:
            self._payload.stand_down(at_once=at_once)
        self._shut_after = self._clock() + _LET_RUN_OUT

    def _set_gate(self, *, shut: bool) -> None:
        for failure in self.device.set_gate(shut=shut):
            self.counters[f"netlink_{failure}"] += 1

    # -- looking after it --------------------------------------------------------------------------

    @property
    def ports(self) -> tuple[int, ...]:
        """The sockets by which this process changes the kernel itself."""
        own = (self.kernel.port, self._rules.port, self._tables.port)
        return own if self._selection is None else (*own, self._selected.port)

    @property
    def suspect(self) -> bool:
        """Whether something may not be as it should."""
        return self._tunnels.suspect or (self._payload is not None and self._payload.suspect)

    def doubt(self) -> None:
        """Somebody else has changed something."""
        self._tunnels.suspect = True

    def attend(self, reactor: Any, report: Report, tell: Tell) -> Callable[[], object]:
        """See :class:`Dataplane`."""
        watch = KernelWatch(self, reactor, lambda repaired: report("kernel_repaired", dict(repaired)))
        if self._payload is None:
            return watch.close
        self._tell, self._soon = tell, reactor.callLater
        source: Any = self._payload.events
        reader = SocketReader(source, self.hear, reactor)
        reactor.addReader(reader)

        def close() -> None:
            self._tell = self._soon = None
            reactor.removeReader(reader)
            watch.close()

        return close

    def hear(self) -> None:
        """Take what the kernel has announced about payload, and pass it on."""
        if self._payload is not None:
            self._payload.read_events()
            self._pass_news()

    def _pass_news(self) -> None:
        if self._payload is not None and self._tell is not None and (news := self._payload.news()):
            self._tell(news)

    def concerns(self, message: Message) -> bool:
        """Whether a notification is about something of ours."""
        return self._tunnels.concerns(message)

    def tend(self) -> None:
        """What only time brings: the gate shuts behind who does not serve, paths are tried again."""
        now = self._clock()
        if any(until <= now for until in self._narrow.values()):
            self._narrow = {each: until for each, until in self._narrow.items() if until > now}
            self._tunnels.set_narrow(set(self._narrow))
            self.flush()
        self._pass_news()
        if not self.owns and not self.device.shut and self._clock() >= self._shut_after:
            self._set_gate(shut=True)
            if self._selection is not None:
                self._selection.set(selected=False)

    def repair(self, report: Callable[[dict[str, int]], Any]) -> Iterator[None]:
        """Compare the kernel with what is wanted and repair the difference, a little with each step.

        ``report`` is told what was repaired, by kind, if anything was.
        """
        self._tunnels.suspect = False
        found = Comparison(leftovers=self._clock() >= self._leftovers_after)
        try:
            found.repaired.update(dict.fromkeys(self._ensure(), 1))
            yield from self._tunnels.compare(self._dumps, found)
            for _ in () if self._payload is None else self._payload.compare(self._dumps, found.repaired):
                self._pass_news()
                yield
        except (OSError, Overrun, Unusable):
            self.counters["repair_failed"] += 1
            self._tunnels.suspect = True
        self._pass_news()
        self.flush()
        if found.repaired:
            for kind, count in found.repaired.items():
                self.counters[f"repaired_{kind}"] += count
            report(dict(sorted(found.repaired.items())))
