"""What people read when an arbiter does not answer."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone, DNSLookupError
from twisted.python.failure import Failure
from twisted.web.client import RequestTransmissionFailed, ResponseNeverReceived

from mip6ha.edge.etcd import NoAnswer, _in_words


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResponseNeverReceived([Failure(ConnectionDone())]), "Connection was closed cleanly."),
        (
            RequestTransmissionFailed([Failure(DNSLookupError("no such host"))]),
            "DNS lookup failed: no such host.",
        ),
        (ResponseNeverReceived([Failure(ResponseNeverReceived([Failure(KeyError())]))]), "KeyError"),
        (NoAnswer("status 503"), "status 503"),
        (ValueError("one\ntwo"), "one"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_in_one_line(error: Exception, said: str) -> None:
    assert _in_words(error) == said
