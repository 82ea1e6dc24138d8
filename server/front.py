"""The only part of the coordinator that faces the network: TLS, the routes that an enrolled site needs, and two of its own.

Flower's SuperLink answers control and runtime requests from anybody, so it listens on loopback in plain HTTP and this stands
before it. A request is passed only if its method and its path, byte for byte, are in `PASSED`; anything else is 404 with an empty
body. Only the headers that the fleet protocol uses are passed, either way, and no query. Bodies stream in blocks of 64 KiB, so that
no copy of a model is made; a peer has to move each block within `idle_timeout_s`.

A fleet request is passed only with the signature of an enrolled node (server/node_signature.py). The front does not withstand a
flood from many addresses, and what its operator may see, it may see.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from csasn.errors import CsasnError, ProtocolError, TrustError
from csasn.facts import ECHO_ROUTE, FACTS_ROUTE, MAX_FACTS_BYTES
from server.listener import LiveCertificate, Waiting, cut_idle, open_listener

FLEET = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
PASSED = frozenset({("GET", "/health")} | {("POST", f"/v1/fleet/{name}") for name in FLEET})
POLL = ("POST", "/v1/fleet/pull-messages")
OWN = frozenset({(method, path) for method in ("GET", "POST") for path in (FACTS_ROUTE, ECHO_ROUTE)})

REQUEST_HEADERS = frozenset({b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type"})
RESPONSE_HEADERS = frozenset({b"content-encoding", b"content-length", b"content-type", b"retry-after"})
FLOWER_HEADER = b"flwr-"  # the key of the node, its signature and time, versions

BLOCK_BYTES = 64 << 10
MAX_ECHO_BYTES = 64 << 20
CREDIT_BYTES = 8 << 20  # a request to an own route costs one credit, and one more for each of these
LINGER_S = 2.0  # a refused client may read the answer for so long before its connection ends

Headers = list[tuple[bytes, bytes]]
Facts = Callable[[bytes], Mapping[str, object]]
Accepts = Callable[[Mapping[bytes, bytes]], bool]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrontSettings:
    """Where the front listens, what it shows, and what it allows; SuperLink is at `superlink_port` of 127.0.0.1."""

    host: str
    port: int
    superlink_port: int
    certificate: Path  # the server's, followed by any in between
    key: Path
    max_body_bytes: int = 1 << 30
    max_head_bytes: int = 16 << 10
    max_connections: int = 256
    credits_per_minute: int = 240  # for own routes, each address
    head_timeout_s: float = 15.0
    idle_timeout_s: float = 60.0
    superlink_timeout_s: float = 120.0
    stop_timeout_s: int = 10


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Ends a request with this status and no body."""

    def __init__(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = list(headers)


class _Gone(Exception):  # noqa: N818
    """The client is not there any more, or too slow in the middle of its answer: its connection is cut."""


def _unavailable() -> _Refused:
    return _Refused(503, (b"retry-after", b"5"))


class _Exchange:
    """One request and its answer, with what is counted for the log."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, idle_timeout_s: float) -> None:
        self.route: tuple[str, str] = (scope["method"], scope["raw_path"].decode("ascii"))
        self.query: bytes = scope["query_string"]
        self.headers: Headers = scope["headers"]
        self.address: str = scope["client"][0] if scope["client"] else ""
        self.status = self.received = self.sent = 0
        self._receive, self._send, self._idle_timeout_s = receive, send, idle_timeout_s
        self._more = True

    def body(self, limit: int) -> AsyncIterator[bytes]:
        """The body in blocks, none of which may take longer than the time-out; 408 and 413 end it."""
        headers = dict(self.headers)
        if b"content-length" in headers and b"transfer-encoding" in headers:
            raise _Refused(400)  # two lengths: what a request smuggler sends
        if int(headers.get(b"content-length", b"0")) > limit:
            raise _Refused(413)
        return self._blocks(limit)

    async def _blocks(self, limit: int) -> AsyncIterator[bytes]:
        while self._more:
            block = bytearray()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    while self._more and len(block) < BLOCK_BYTES:
                        block += await self._next()
            except TimeoutError:
                raise _Refused(408) from None
            self.received += len(block)
            if self.received > limit:
                raise _Refused(413)
            yield bytes(block)

    async def start(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._in_time({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        self.sent += len(data)
        await self._in_time({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._in_time({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refusal: _Refused) -> None:
        """An answer without a body. What the client still sends is thrown away for a moment, so that it gets to read the answer."""
        await self.start(refusal.status, [(b"content-length", b"0"), (b"connection", b"close"), *refusal.headers])
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._more:
                    await self._next()
        await self.finish()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        self._more = message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def _in_time(self, message: dict[str, object]) -> None:
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._send(message)
        except TimeoutError:
            raise _Gone from None


class Front:
    """The front as an ASGI application; `facts` takes what a site says of itself, or nothing, and gives what anybody may know.

    `accepts` tells by the headers of a fleet request whether it may pass.
    """

    def __init__(self, settings: FrontSettings, facts: Facts, accepts: Accepts) -> None:
        self._settings = settings
        self._facts, self._accepts = facts, accepts
        # a connection for each request: a restarted SuperLink never leaves a dead one behind
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._superlink = httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=limits)
        self._timeout = httpx.Timeout(settings.superlink_timeout_s, connect=5.0).as_dict()
        self._minute, self._spent = 0, Counter[str]()
        self._noise = os.urandom(BLOCK_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request and logs it: method, route, status, bytes and seconds, never a body, a query or an unknown path.

        Polls that succeed are not in the log: sites make five a second, which fill a disk in time.
        """
        exchange = _Exchange(scope, receive, send, self._settings.idle_timeout_s)
        begin = time.monotonic()
        try:
            try:
                await self._answer(exchange)
            except _Refused as refusal:
                if exchange.status:
                    raise _Gone from refusal
                await exchange.refuse(refusal)
        except _Gone:
            pass  # uvicorn cuts the connection of an answer without an end
        finally:
            known = exchange.route in PASSED | OWN
            name = " ".join(exchange.route) if known else "other"
            figures = (exchange.status, exchange.received, exchange.sent, time.monotonic() - begin)
            level = logging.DEBUG if exchange.route == POLL and exchange.status == 200 else logging.INFO
            log.log(level, "%s %d, %d bytes in, %d out, %.2f s", name, *figures)

    async def _answer(self, exchange: _Exchange) -> None:
        if sum(len(name) + len(value) for name, value in exchange.headers) > self._settings.max_head_bytes:
            raise _Refused(431)
        match exchange.route:
            case route if route in PASSED:
                await self._pass(exchange)
            case (_, path) if path == FACTS_ROUTE and exchange.route in OWN:
                self._charge(exchange, 0)
                await self._exchange_facts(exchange)
            case ("GET", path) if path == ECHO_ROUTE:
                await self._send_noise(exchange)
            case ("POST", path) if path == ECHO_ROUTE:
                await self._measure(exchange)
            case _:
                raise _Refused(404)

    async def _pass(self, exchange: _Exchange) -> None:
        method, path = exchange.route
        if method == "POST" and not self._accepts({name.lower(): value for name, value in exchange.headers}):
            raise _Refused(401)
        request = httpx.Request(
            method,
            f"http://127.0.0.1:{self._settings.superlink_port}{path}",
            headers=_only(REQUEST_HEADERS, exchange.headers),
            content=exchange.body(self._settings.max_body_bytes) if method == "POST" else None,
            extensions={"timeout": self._timeout},
        )
        try:
            response = await self._superlink.handle_async_request(request)
            try:
                if path == "/health" and response.status_code != 200:
                    raise _unavailable()
                await exchange.start(response.status_code, _only(RESPONSE_HEADERS, response.headers.raw))
                async for data in response.aiter_raw():
                    await exchange.write(data)
                await exchange.finish()
            finally:
                await response.aclose()
        except httpx.TransportError:
            raise _unavailable() from None

    async def _exchange_facts(self, exchange: _Exchange) -> None:
        said = b"".join([block async for block in exchange.body(MAX_FACTS_BYTES)]) if exchange.route[0] == "POST" else b""
        try:
            data = json.dumps(await asyncio.to_thread(self._facts, said)).encode()
        except (ProtocolError, TrustError) as error:
            log.warning("facts refused: %s", error.message)
            raise _Refused(400) from None
        except CsasnError as error:
            log.warning("no facts to show: %s", error.message)
            raise _unavailable() from None
        await self._reply(exchange, data)

    async def _send_noise(self, exchange: _Exchange) -> None:
        asked = re.fullmatch(rb"bytes=(\d{1,8})", exchange.query)
        if not asked or int(asked[1]) > MAX_ECHO_BYTES:
            raise _Refused(400)
        left = int(asked[1])
        self._charge(exchange, left)
        await exchange.start(200, [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % left)])
        while left:
            block = self._noise[:left]
            await exchange.write(block)
            left -= len(block)
        await exchange.finish()

    async def _measure(self, exchange: _Exchange) -> None:
        length = dict(exchange.headers).get(b"content-length")
        self._charge(exchange, int(length) if length else MAX_ECHO_BYTES)
        digest = hashlib.sha256()
        async for block in exchange.body(MAX_ECHO_BYTES):
            digest.update(block)
        await self._reply(exchange, json.dumps({"sha256": digest.hexdigest(), "bytes": exchange.received}).encode())

    async def _reply(self, exchange: _Exchange, data: bytes) -> None:
        await exchange.start(200, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))])
        await exchange.write(data)
        await exchange.finish()

    def _charge(self, exchange: _Exchange, size_bytes: int) -> None:
        """Takes what a request to an own route costs from the credits of its address in this minute."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._spent = minute, Counter()
        self._spent[exchange.address] += 1 + size_bytes // CREDIT_BYTES
        if self._spent[exchange.address] > self._settings.credits_per_minute:
            raise _Refused(429, (b"retry-after", b"60"))


def _only(names: frozenset[bytes], headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name in names or name.startswith(FLOWER_HEADER)]


async def _watch(server: uvicorn.Server, certificate: LiveCertificate, settings: FrontSettings) -> None:
    """Each second: takes up a new certificate, cuts who waits too long, and sooner when there are too many or it is the end."""
    waiting: Waiting = {}
    while True:
        await asyncio.sleep(1)
        certificate.renew()
        connections = server.server_state.connections
        hurry = server.should_exit or len(connections) >= settings.max_connections
        waiting = cut_idle(connections, waiting, 0.0 if hurry else settings.head_timeout_s)


async def _serve(server: uvicorn.Server, listener: socket.socket, watch: Coroutine[None, None, None]) -> None:
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch)
        await server.serve(sockets=[listener])
        watching.cancel()


def run_front(settings: FrontSettings, facts: Facts, accepts: Accepts) -> None:
    """Serves until SIGTERM or SIGINT, then finishes open requests for `stop_timeout_s`; call it from the main thread.

    Raises:
        ConfigurationError: the certificate or key cannot be used, or the address and port cannot be had.
    """
    certificate = LiveCertificate(settings.certificate, settings.key)
    server = uvicorn.Server(
        uvicorn.Config(
            Front(settings, facts, accepts),
            http=H11Protocol,
            ws="none",
            lifespan="off",
            ssl_context_factory=lambda *_: certificate.context,
            h11_max_incomplete_event_size=settings.max_head_bytes,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=settings.stop_timeout_s,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
        )
    )
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises the signal again when it has ended
    try:
        with open_listener(settings.host, settings.port) as listener:
            asyncio.run(_serve(server, listener, _watch(server, certificate, settings)))
    finally:
        signal.signal(signal.SIGTERM, previous)
