"""The numbers of IKEv2's registry that are spoken here (RFC 7296 3, and the RFCs named at each).

Not covered: transforms (``transforms``), and whatever is only ever skipped.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "COOKIE_MAXIMUM",
    "FIRST_STATUS",
    "MAJOR_VERSION",
    "NATT_PORT",
    "PORT",
    "ConfigurationKind",
    "Exchange",
    "MobileAttribute",
    "Notification",
    "PayloadKind",
    "Protocol",
]

MAJOR_VERSION = 2
PORT = 500
NATT_PORT = 4500
COOKIE_MAXIMUM = 64
"""Octets of a cookie at most (2.6)."""


class Exchange(IntEnum):
    """3.1; RFC 7296 knows these four."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37


class PayloadKind(IntEnum):
    """3.2; RFC 7383 for the encrypted fragment."""

    NONE = 0
    SA = 33
    KEY_EXCHANGE = 34
    ID_INITIATOR = 35
    ID_RESPONDER = 36
    CERTIFICATE = 37
    CERTIFICATE_REQUEST = 38
    AUTHENTICATION = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR_ID = 43
    TS_INITIATOR = 44
    TS_RESPONDER = 45
    ENCRYPTED = 46
    CONFIGURATION = 47
    EAP = 48
    FRAGMENT = 53


class Protocol(IntEnum):
    """3.3.1; zero stands in notifies that speak of no SA."""

    NONE = 0
    IKE = 1
    AH = 2
    ESP = 3


class Notification(IntEnum):
    """3.10.1: below 16384 an error, from there on a status."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    IPCOMP_SUPPORTED = 16387
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    HTTP_CERT_LOOKUP_SUPPORTED = 16392
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    NON_FIRST_FRAGMENTS_ALSO = 16395
    MOBIKE_SUPPORTED = 16396  # RFC 4555
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    REDIRECT_SUPPORTED = 16406  # RFC 5685
    REDIRECT = 16407
    REDIRECTED_FROM = 16408
    CHILDLESS_IKEV2_SUPPORTED = 16418  # RFC 6023
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420  # RFC 6311
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421
    IKEV2_MESSAGE_ID_SYNC = 16422
    IPSEC_REPLAY_COUNTER_SYNC = 16423
    FRAGMENTATION_SUPPORTED = 16430  # RFC 7383
    SIGNATURE_HASH_ALGORITHMS = 16431  # RFC 7427


FIRST_STATUS = 16384


class ConfigurationKind(IntEnum):
    """3.15."""

    REQUEST = 1
    REPLY = 2
    SET = 3
    ACKNOWLEDGE = 4


class MobileAttribute(IntEnum):
    """3.15.1, and RFC 5026 7.2: the attributes of a home address assignment."""

    INTERNAL_IP6_ADDRESS = 8
    MIP6_HOME_PREFIX = 16
