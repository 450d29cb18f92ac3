"""What this kernel can do for a home agent, found by trying it in a network namespace that nobody sees.

Covered: everything that the kernel dataplane needs. Not covered: versions and configuration files, which say
little about a kernel. Trying loads the modules that it needs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from struct import Struct

from ..ipsec.algorithms import Keys
from . import xfrm
from .esp_steering import EspSteering
from .netlink_messages import CREATE, EXCLUSIVE, Conversation, Request, attribute, nested
from .xfrm_layout import Mode, Selector
from .xfrm_policy import Direction, Policy, PolicyType
from .xfrm_state import Protection, State, StateFlag

__all__ = ["KernelFeatures", "kernel_features"]

_NEW_NETWORK_NAMESPACE = 0x40000000
_NETLINK_ROUTE = 0
_NEW_LINK, _NEW_ROUTE, _NEW_QUEUE, _NEW_FILTER = 16, 24, 36, 44
_LINK = Struct("=BxHiII")
_ROUTE = Struct("=8BI")
_TRAFFIC = Struct("=BxxxiIII")
_LINK_NAME, _LINK_LOWER, _LINK_INFORMATION, _KIND, _DATA = 3, 5, 18, 1, 2
_PEER, _COLLECT_METADATA = 1, 19
_UP = 1
# Route attributes, and those of the encapsulation.
_DESTINATION, _OUT_INTERFACE, _ENCAPSULATION_KIND, _ENCAPSULATION = 1, 4, 21, 22
_IP6, _TUNNEL_DESTINATION, _TUNNEL_SOURCE = 4, 2, 3
# tc: the queue "clsact", its ingress, and a filter of flower on IPv6 with a tunnel's source, that drops.
_CLSACT, _CLSACT_PARENT, _INGRESS = 0xFFFF0000, 0xFFFFFFF1, 0xFFFFFFF2
_TC_KIND, _TC_OPTIONS = 1, 2
_FLOWER_ACTIONS, _FLOWER_ETHER_TYPE, _FLOWER_TUNNEL_SOURCE, _FLOWER_TUNNEL_MASK = 3, 8, 31, 32
_ACTION_KIND, _ACTION_OPTIONS, _GACT_PARAMETERS = 1, 2, 2
_DROP = Struct("=IIiii").pack(0, 0, 2, 0, 0)
_ETHER_IPV6 = 0x86DD
_FILTER_PRIORITY = 1

_HERE = bytes.fromhex("20010db8000000000000000000000001")
_THERE = bytes.fromhex("20010db8000000000000000000000002")


@dataclass(frozen=True, slots=True)
class KernelFeatures:
    """Each is empty where the kernel has it, otherwise why not: an ``errno`` and the kernel's words."""

    esp: str
    """ESP for IPv6 with AES-GCM and with AES-CBC and HMAC-SHA256, both with extended sequence numbers."""
    mip6: str
    """Home address options and type 2 routing headers."""
    sub_policies: str
    """Policies of Mobile IPv6 beside those of IPsec."""
    tunnel: str
    """One IPv6 tunnel device for every tunnel (external mode), and routes that say which."""
    source_filter: str
    """cls_flower: which inner addresses may come from which care-of address."""
    steering: str
    """cls_u32 and act_mirred: which ESP packets the kernel opens, by SPI, source and sequence number."""
    macvlan: str
    """An interface with another MAC address on the home link; a redundant set needs it."""

    @property
    def forwarding(self) -> tuple[str, ...]:
        """What a home agent's kernel dataplane lacks to forward payload that is not protected."""
        return tuple(
            f"{name} ({why})"
            for name, why in (("tunnel", self.tunnel), ("source_filter", self.source_filter))
            if why
        )

    @property
    def offload(self) -> tuple[str, ...]:
        """What the kernel dataplane of a home agent lacks for protected payload: the daemon has it then."""
        return tuple(
            f"{name} ({why})" for name, why in (("esp", self.esp), ("steering", self.steering)) if why
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What the kernel dataplanes of home agent and mobile node lack, as ``name (why)``."""
        outcomes = {each.name: getattr(self, each.name) for each in fields(self)}
        del outcomes["macvlan"]
        return tuple(f"{name} ({why})" for name, why in outcomes.items() if why)


def kernel_features() -> KernelFeatures:
    """Try everything. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN: without them everything counts as missing."""
    found: list[KernelFeatures] = []
    # A network namespace belongs to a thread, and ends with it.
    thread = threading.Thread(target=lambda: found.append(_try_all()))
    thread.start()
    thread.join()
    return found[0]


def _try_all() -> KernelFeatures:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK_NAMESPACE):
        why = f"no network namespace to try it in: {errno.errorcode.get(ctypes.get_errno(), '?')}"
        return KernelFeatures(*[why] * len(fields(KernelFeatures)))
    return KernelFeatures(
        *(_outcome(trial) for trial in (_esp, _mip6, _sub_policies, _tunnel, _flower, _steering, _macvlan))
    )


def _outcome(trial: Callable[[], None]) -> str:
    try:
        trial()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        return f"{name}: {error.strerror}" if error.strerror else name
    return ""


def _xfrm(*requests: Request) -> None:
    kernel = xfrm.Xfrm()
    try:
        for failure in kernel.carry_out(requests):
            raise OSError(failure.code, failure.text or os.strerror(failure.code))
    finally:
        kernel.close()


def _esp() -> None:
    transforms = {
        "aes-gcm-16": Keys(bytes(20)),
        "aes-cbc+hmac-sha2-256-128": Keys(bytes(16), bytes(32)),
    }
    _xfrm(
        *(
            xfrm.install(
                State(
                    _HERE,
                    _THERE,
                    socket.IPPROTO_ESP,
                    Mode.TRANSPORT,
                    spi=0x1000 + number,
                    protection=Protection(name, keys),
                    flags=StateFlag.ESN,
                    window=64,
                )
            )
            for number, (name, keys) in enumerate(transforms.items())
        )
    )


def _mip6() -> None:
    _xfrm(
        *(
            xfrm.install(
                State(
                    _HERE,
                    _THERE,
                    protocol,
                    Mode.ROUTE_OPTIMIZATION,
                    selector=Selector.between(_HERE, _THERE),
                    care_of_address=_HERE,
                )
            )
            for protocol in (socket.IPPROTO_DSTOPTS, socket.IPPROTO_ROUTING)
        )
    )


def _sub_policies() -> None:
    _xfrm(xfrm.install_policy(Policy(Selector.between(_HERE, _THERE), Direction.IN, 1, PolicyType.SUB)))


def _route(*requests: Request) -> None:
    kernel = Conversation(_NETLINK_ROUTE)
    try:
        for failure in kernel.send(requests):
            raise OSError(failure.code, failure.text or os.strerror(failure.code))
    finally:
        kernel.close()


def _link(kind: str, name: str, *data: bytes, lower: int = 0) -> Request:
    information = nested(_LINK_INFORMATION, attribute(_KIND, kind.encode()), nested(_DATA, *data))
    below = attribute(_LINK_LOWER, lower.to_bytes(4, "little")) if lower else b""
    body = _LINK.pack(socket.AF_UNSPEC, 0, 0, _UP, _UP) + _name(name) + below + information
    return Request(_NEW_LINK, CREATE | EXCLUSIVE, body)


def _name(name: str) -> bytes:
    return attribute(_LINK_NAME, name.encode() + b"\0")


def _tunnel() -> None:
    _route(_link("ip6tnl", "outer", attribute(_COLLECT_METADATA, b"")))
    interface = socket.if_nametoindex("outer")
    _route(
        Request(
            _NEW_ROUTE,
            CREATE,
            _ROUTE.pack(socket.AF_INET6, 128, 0, 0, 254, 3, 0, 1, 0)
            + attribute(_DESTINATION, _THERE)
            + attribute(_OUT_INTERFACE, interface.to_bytes(4, "little"))
            + attribute(_ENCAPSULATION_KIND, _IP6.to_bytes(2, "little"))
            + nested(
                _ENCAPSULATION, attribute(_TUNNEL_DESTINATION, _THERE), attribute(_TUNNEL_SOURCE, _HERE)
            ),
        )
    )


def _flower() -> None:
    interface = socket.if_nametoindex("lo")
    action = nested(
        1, attribute(_ACTION_KIND, b"gact\0"), nested(_ACTION_OPTIONS, attribute(_GACT_PARAMETERS, _DROP))
    )
    _route(
        Request(
            _NEW_QUEUE,
            CREATE | EXCLUSIVE,
            _TRAFFIC.pack(socket.AF_UNSPEC, interface, _CLSACT, _CLSACT_PARENT, 0)
            + attribute(_TC_KIND, b"clsact\0"),
        ),
        Request(
            _NEW_FILTER,
            CREATE | EXCLUSIVE,
            _TRAFFIC.pack(
                socket.AF_UNSPEC, interface, 0, _INGRESS, _FILTER_PRIORITY << 16 | socket.htons(_ETHER_IPV6)
            )
            + attribute(_TC_KIND, b"flower\0")
            + nested(
                _TC_OPTIONS,
                attribute(_FLOWER_TUNNEL_SOURCE, _THERE),
                attribute(_FLOWER_TUNNEL_MASK, b"\xff" * 16),
                attribute(_FLOWER_ETHER_TYPE, _ETHER_IPV6.to_bytes(2, "big")),
                nested(_FLOWER_ACTIONS, action),
            ),
        ),
    )


def _steering() -> None:
    kernel = Conversation(_NETLINK_ROUTE)
    steering = EspSteering(kernel, socket.if_nametoindex("lo"), _HERE)
    try:
        for failure in [*steering.open(), *kernel.send(steering.steer(0x1000, _THERE, 1, 1))]:
            raise OSError(failure.code, failure.text or os.strerror(failure.code))
    finally:
        kernel.close()


def _macvlan() -> None:
    _route(_link("veth", "below", nested(_PEER, bytes(_LINK.size), _name("peer"))))
    _route(_link("macvlan", "above", lower=socket.if_nametoindex("below")))
