"""What stands in a message: which payload may and must (RFC 7296 1.2 to 1.4, appendix C), and it parsed.

Covered: the rules as a table, unknown payloads, the values of known ones. Everything is parsed before
anything is done. Not covered: what follows from it (the exchanges).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...wire import Malformed, Refused
from . import payloads as codec
from .message import Payload
from .numbers import Exchange, Notification, PayloadKind
from .payloads import Authentication, Certificate, Configuration, Delete, KeyPayload, Notify
from .proposals import Proposal, parse_proposals
from .selectors import TrafficSelector, parse_selectors

__all__ = ["RULES", "Contents", "UnsupportedCritical", "parse_contents"]

_K = PayloadKind
Rule = dict[int, tuple[int, int]]
_COMMON: Rule = {_K.NOTIFY: (0, 40), _K.VENDOR_ID: (0, 20)}
_CHILD: Rule = {_K.SA: (0, 1), _K.TS_INITIATOR: (0, 1), _K.TS_RESPONDER: (0, 1), _K.CONFIGURATION: (0, 1)}

RULES: dict[tuple[int, bool], Rule] = {
    # (exchange, is a response): payload -> (at least, at most)
    (Exchange.IKE_SA_INIT, False): {_K.SA: (1, 1), _K.KEY_EXCHANGE: (1, 1), _K.NONCE: (1, 1)},
    (Exchange.IKE_SA_INIT, True): {
        _K.SA: (1, 1),
        _K.KEY_EXCHANGE: (1, 1),
        _K.NONCE: (1, 1),
        _K.CERTIFICATE_REQUEST: (0, 10),
    },
    (Exchange.IKE_AUTH, False): {
        _K.ID_INITIATOR: (1, 1),
        _K.CERTIFICATE: (0, 10),
        _K.CERTIFICATE_REQUEST: (0, 10),
        _K.ID_RESPONDER: (0, 1),
        _K.AUTHENTICATION: (0, 1),
        **_CHILD,
    },
    (Exchange.IKE_AUTH, True): {
        _K.ID_RESPONDER: (1, 1),
        _K.CERTIFICATE: (0, 10),
        _K.AUTHENTICATION: (0, 1),
        _K.EAP: (0, 1),
        **_CHILD,
    },
    (Exchange.CREATE_CHILD_SA, False): {**_CHILD, _K.SA: (1, 1), _K.NONCE: (1, 1), _K.KEY_EXCHANGE: (0, 1)},
    (Exchange.CREATE_CHILD_SA, True): {**_CHILD, _K.SA: (1, 1), _K.NONCE: (1, 1), _K.KEY_EXCHANGE: (0, 1)},
    (Exchange.INFORMATIONAL, False): {_K.DELETE: (0, 10), _K.CONFIGURATION: (0, 1)},
    (Exchange.INFORMATIONAL, True): {_K.DELETE: (0, 10), _K.CONFIGURATION: (0, 1)},
}
for _rule in RULES.values():
    _rule.update(_COMMON)


class UnsupportedCritical(Refused):
    """An unknown payload says that it is critical (2.5); ``kind`` goes into the answer."""

    def __init__(self, kind: int) -> None:
        super().__init__("unsupported_critical_payload")
        self.kind = kind


@dataclass(slots=True)
class Contents:
    """All payloads of one message by what they are; ``None`` or empty where there is none.

    Identities are whole bodies, since AUTH covers those.
    """

    sa: tuple[Proposal, ...] | None = None
    key: KeyPayload | None = None
    id_initiator: bytes | None = None
    id_responder: bytes | None = None
    certificates: tuple[Certificate, ...] = ()
    authentication: Authentication | None = None
    nonce: bytes | None = None
    notifies: tuple[Notify, ...] = ()
    deletes: tuple[Delete, ...] = ()
    ts_initiator: tuple[TrafficSelector, ...] | None = None
    ts_responder: tuple[TrafficSelector, ...] | None = None
    configuration: Configuration | None = None

    def notify(self, kind: Notification) -> Notify | None:
        """The first notify of a kind."""
        return next((each for each in self.notifies if each.kind == kind), None)

    @property
    def error(self) -> Notify | None:
        """The first notify that is an error."""
        return codec.error_of(self.notifies)


_KNOWN = frozenset(PayloadKind)


def parse_contents(exchange: int, response: bool, payloads: Sequence[Payload]) -> Contents:
    """The contents of a message of an exchange, whole.

    :class:`UnsupportedCritical`; :class:`~...wire.Malformed` where a payload is bad, missing, repeated or out
    of place. A response that reports an error or asks for a cookie needs nothing else.
    """
    rule = RULES[exchange, response]
    groups: dict[int, list[bytes]] = {}
    for kind, body, critical in payloads:
        if kind in rule:
            groups.setdefault(kind, []).append(body)
        elif kind in _KNOWN:
            raise Malformed("unexpected_payload")
        elif critical:
            raise UnsupportedCritical(kind)
    notifies = tuple(codec.parse_notify(each) for each in groups.get(_K.NOTIFY, ()))
    partial = response and any(
        each.kind < Notification.INITIAL_CONTACT or each.kind == Notification.COOKIE for each in notifies
    )
    for kind, (least, most) in rule.items():
        count = len(groups.get(kind, ()))
        if count > most:
            raise Malformed("repeated_payload")
        if count < least and not partial:
            raise Malformed("missing_payload")

    def one(kind: int) -> bytes | None:
        found = groups.get(kind)
        return found[0] if found else None

    sa, key, nonce = one(_K.SA), one(_K.KEY_EXCHANGE), one(_K.NONCE)
    authentication, configuration = one(_K.AUTHENTICATION), one(_K.CONFIGURATION)
    ts_i, ts_r = one(_K.TS_INITIATOR), one(_K.TS_RESPONDER)
    return Contents(
        sa=None if sa is None else parse_proposals(sa),
        key=None if key is None else codec.parse_key_payload(key),
        id_initiator=_identity(one(_K.ID_INITIATOR)),
        id_responder=_identity(one(_K.ID_RESPONDER)),
        certificates=tuple(codec.parse_certificate(each) for each in groups.get(_K.CERTIFICATE, ())),
        authentication=None if authentication is None else codec.parse_authentication(authentication),
        nonce=None if nonce is None else codec.parse_nonce(nonce),
        notifies=notifies,
        deletes=tuple(codec.parse_delete(each) for each in groups.get(_K.DELETE, ())),
        ts_initiator=None if ts_i is None else parse_selectors(ts_i),
        ts_responder=None if ts_r is None else parse_selectors(ts_r),
        configuration=None if configuration is None else codec.parse_configuration(configuration),
    )


def _identity(body: bytes | None) -> bytes | None:
    if body is not None:
        codec.parse_identification(body)
    return body
