"""The few things that an arbiter needs of etcd, over its JSON gateway (etcd v3 API, HTTP).

Covered: leases, reading keys, one compare-and-swap; servers that do not answer are passed over. Not covered:
TLS and authentication, watches. Nothing here waits: everything is a coroutine on the reactor.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from io import BytesIO
from ipaddress import ip_address
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.task import deferLater
from twisted.web.client import URI, Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

__all__ = ["Etcd", "Held", "NoAnswer"]

_HEADERS = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"mip6ha"]})
_OK = 200
_IPV4 = 4


class NoAnswer(Exception):
    """No server answered; the text says what the last one did."""


class Held(NamedTuple):
    """A key's value, empty where there is none, and the revision of its last change (0: there is none)."""

    value: str
    revision: int


class _Endpoints:
    """An IAgentEndpointFactory. Twisted's own takes 0.3 s to notice that a connection was refused."""

    def __init__(self, reactor: Any, patience: float) -> None:
        self._reactor = reactor
        self._patience = patience

    def endpointForURI(self, uri: URI) -> Any:  # noqa: N802
        """For addresses directly, for names whatever they resolve to."""
        host = uri.host.decode()
        try:
            version = ip_address(host).version
        except ValueError:
            return HostnameEndpoint(self._reactor, host, uri.port, self._patience)
        kind = TCP4ClientEndpoint if version == _IPV4 else TCP6ClientEndpoint
        return kind(self._reactor, host, uri.port, self._patience)


class Etcd:
    """A client of the servers at ``endpoints`` (``http://host:port``), each given ``patience`` seconds."""

    def __init__(self, endpoints: tuple[str, ...], patience: float, reactor: Any) -> None:
        self._endpoints = list(endpoints)
        self._patience = patience
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor)
        factory: Any = _Endpoints(reactor, patience)
        self._agent = Agent.usingEndpointFactory(reactor, factory, pool=self._pool)

    def close(self) -> Deferred[Any]:
        """Close the connections that are kept."""
        closed: Deferred[Any] = self._pool.closeCachedConnections()
        return closed

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await deferLater(self._reactor, seconds)

    async def grant(self, seconds: int) -> tuple[str, float]:
        """A new lease: its id and how long it lasts, which may be longer."""
        answer = await self._ask("lease/grant", {"TTL": seconds})
        return str(answer["ID"]), float(answer["TTL"])

    async def keep_alive(self, lease: str) -> float:
        """Prolong a lease: how long it lasts from when that was asked, 0 if it has ended."""
        answer = await self._ask("lease/keepalive", {"ID": lease})
        return float(answer["result"].get("TTL", 0))

    async def revoke(self, lease: str) -> None:
        """End a lease, and every key that is attached to it."""
        await self._ask("lease/revoke", {"ID": lease})

    async def read(self, *keys: str) -> list[Held]:
        """What is held under keys, all at one moment."""
        requests = [{"requestRange": {"key": _encoded(key)}} for key in keys]
        answer = await self._ask("kv/txn", {"success": requests})
        found = []
        for response in answer["responses"]:
            pairs = response["response_range"].get("kvs", [])
            if pairs:
                value = b64decode(pairs[0].get("value", "")).decode("ascii", "replace")
                found.append(Held(value, int(pairs[0]["mod_revision"])))
            else:
                found.append(Held("", 0))
        return found

    async def replace(self, unchanged: dict[str, int], values: dict[str, tuple[str, str | None]]) -> bool:
        """Put values, some attached to a lease, if keys are still at the revision that was read."""
        compare = [
            {"key": _encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
            for key, revision in unchanged.items()
        ]
        puts = [
            {"requestPut": {"key": _encoded(key), "value": _encoded(value), "lease": lease or "0"}}
            for key, (value, lease) in values.items()
        ]
        answer = await self._ask("kv/txn", {"compare": compare, "success": puts})
        return bool(answer.get("succeeded", False))

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        wrong = "no endpoint"
        for _ in self._endpoints:
            try:
                return await self._within(self._post(f"{self._endpoints[0]}/v3/{path}", body))
            except CancelledError:
                raise
            except Exception as error:
                # Whatever it is, this server is of no use now.
                wrong = f"{self._endpoints[0]}: {_in_words(error)}"
            self._endpoints.append(self._endpoints.pop(0))
        raise NoAnswer(wrong)

    async def _within(self, asked: Any) -> Any:
        waiting = Deferred.fromCoroutine(asked)
        timer = self._reactor.callLater(self._patience, waiting.cancel)
        try:
            return await waiting
        except CancelledError:
            if timer.active():
                # Whoever waits for this cancelled it.
                raise
            raise NoAnswer(f"no answer within {self._patience:g} seconds") from None
        finally:
            if timer.active():
                timer.cancel()

    async def _post(self, url: str, body: dict[str, Any]) -> Any:
        producer: Any = FileBodyProducer(BytesIO(json.dumps(body).encode()))
        response = await self._agent.request(b"POST", url.encode(), _HEADERS, producer)
        octets = await readBody(response)
        if response.code != _OK:
            raise NoAnswer(f"status {response.code}")
        return json.loads(octets)


def _in_words(error: Exception) -> str:
    """What went wrong, in one line."""
    # Twisted's own errors of HTTP hold a list of failures, and show it as such.
    reasons = getattr(error, "reasons", None)
    if reasons:
        return _in_words(reasons[0].value)
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()
