"""The only part of the coordinator that faces the network: TLS, the routes that an enrolled site needs, and two of its own.

Flower's SuperLink answers control and runtime requests from anybody, so it listens on loopback in plain HTTP and this stands
before it. A request is passed only if its method and its path, byte for byte, are in `PASSED`; anything else is 404 with an empty
body. Only the headers that the fleet protocol uses are passed, either way, and no query. Bodies stream in blocks of 256 KiB, so
that no copy of a model is made; a peer has to move each block within `idle_timeout_s`, and `min_rate` bytes a second in the long
run.

A fleet request is passed only with the signature of an enrolled node (server/front/node_signature.py), and while that node has not
more under way than it may (server/front/allowance.py). The front does not withstand a flood that fills its line, and its operator
sees what it sees.
"""

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.front.allowance import Allowance, Hold
from server.front.connections import Connections
from server.front.listener import Listener, LiveCertificate, Waiting, cut_idle, find_open, most_connections, open_listener
from server.front.own_routes import OWN, Facts, FindSite, OwnRoutes, hello
from server.front.paced_request import PacedRequest, unavailable

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
PULL = ("POST", "/v1/fleet/pull-object")
HEALTH = ("GET", "/health")

REQUEST_HEADERS = frozenset({b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type"})
RESPONSE_HEADERS = frozenset({b"content-encoding", b"content-length", b"content-type", b"retry-after"})
FLOWER_HEADER = b"flwr-"  # the key of the node, its signature and time, versions

HEALTH_AT_ONCE = 8  # requests for health, of an address
NODE_AT_ONCE = 16  # requests of a node; Flower's SuperNode has 2 pushes, 2 pulls, a poll and a heartbeat under way at most
PULLS_AT_ONCE = 4  # of a node: SuperLink makes the whole answer in memory before the front sees its length

FindNode = Callable[[Mapping[str, str]], str | None]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrontSettings:
    """Where the front listens, what it shows, and what it allows; SuperLink is at `superlink_port` of 127.0.0.1."""

    host: str
    port: int
    superlink_port: int
    certificate: Path  # the server's, followed by any in between
    key: Path
    max_body_bytes: int = 512 << 20
    max_node_bytes: int = 512 << 20  # of the bodies that one node has under way, and as many of answers
    max_head_bytes: int = 16 << 10
    max_connections: int = 256
    connections_per_address: int = 64  # sites of several hospitals may come from one proxy; one has about eight open
    credits_per_minute: int = 240  # for own routes, each site; and each address, for what strangers may ask
    min_rate: float = 4096.0  # bytes a second, of each body: two uploads at once over a line of 64 kbit/s
    handshake_timeout_s: float = 5.0  # of TLS
    head_timeout_s: float = 15.0
    idle_timeout_s: float = 60.0
    superlink_timeout_s: float = 120.0
    stop_timeout_s: int = 10


@dataclass(frozen=True)
class Office:
    """Whom the front asks: whose node and which site signed a request, and what to answer to facts and to strangers."""

    find_node: FindNode
    find_site: FindSite
    facts: Facts
    hello: Callable[[], Mapping[str, object]] = hello


class Front:
    """The front as an ASGI application; `vouch` is told the addresses at which an enrolled site signed."""

    def __init__(self, settings: FrontSettings, office: Office, vouch: Callable[[str], None] = lambda _: None) -> None:
        self._settings, self._office, self._vouch = settings, office, vouch
        self._own = OwnRoutes(office.facts, office.find_site, office.hello, settings.credits_per_minute)
        self._up = Allowance(NODE_AT_ONCE, settings.max_node_bytes, unavailable)
        self._down = Allowance(PULLS_AT_ONCE, settings.max_node_bytes, unavailable)
        self._health = Allowance(HEALTH_AT_ONCE, 0, unavailable)
        # a connection for each request: a restarted SuperLink never leaves a dead one behind
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._superlink = httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=limits)
        self._timeout = httpx.Timeout(settings.superlink_timeout_s, connect=5.0).as_dict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request and logs it: method, route, status, bytes, seconds, site; never a body, a query or an unknown path.

        Polls that succeed are not in the log: sites make five a second, which fill a disk in time.
        """
        request = PacedRequest(scope, receive, send, self._settings.idle_timeout_s, self._settings.min_rate)
        begin = time.monotonic()
        try:
            with suppress(ClientDisconnect):
                await self._answer_or_refuse(request)
        finally:
            name = " ".join(request.route) if request.route in PASSED | OWN else "other"
            figures = (request.status, request.received, request.sent, time.monotonic() - begin)
            level = logging.DEBUG if request.route == POLL and request.status == 200 else logging.INFO
            signer = f", {request.signer}" if request.signer else ""
            log.log(level, "%s %d, %d bytes in, %d out, %.2f s%s", name, *figures, signer)

    async def _answer_or_refuse(self, request: PacedRequest) -> None:
        try:
            await self._answer(request)
        except HTTPException as refusal:
            if not request.status:  # else uvicorn cuts the connection of an answer without an end
                await request.refuse(refusal)

    async def _answer(self, request: PacedRequest) -> None:
        if sum(len(name) + len(value) for name, value in request.headers.raw) > self._settings.max_head_bytes:
            raise HTTPException(431)
        if request.route == HEALTH:
            with self._health.admit(request.address) as hold:
                await self._pass(request, hold, hold)
        elif request.route in PASSED:
            await self._pass_of_node(request)
        elif request.route in OWN:
            await self._own.answer(request)
            if request.signer:
                self._vouch(request.address)
        else:
            raise HTTPException(404)

    async def _pass_of_node(self, request: PacedRequest) -> None:
        site = self._office.find_node(request.headers)
        if site is None:
            raise HTTPException(401)
        request.signer = site
        self._vouch(request.address)
        with self._up.admit(site) as up, self._down.admit(site) if request.route == PULL else nullcontext(up) as down:
            await self._pass(request, up, down)

    async def _pass(self, request: PacedRequest, hold_up: Hold, hold_down: Hold) -> None:
        """Hands a request on, and its answer back; `hold_up` and `hold_down` count the bytes of either."""
        method, path = request.route
        content = request.blocks(self._settings.max_body_bytes) if method == "POST" else None
        if content is not None and request.length:
            hold_up(request.length)
        passed = httpx.Request(
            method,
            f"http://127.0.0.1:{self._settings.superlink_port}{path}",
            headers=_only(REQUEST_HEADERS, request.headers.raw),
            content=None if content is None else _held(content, request, hold_up),
            extensions={"timeout": self._timeout},
        )
        try:
            response = await self._superlink.handle_async_request(passed)
            try:
                if request.route == HEALTH and response.status_code != 200:
                    raise unavailable()
                if request.route == PULL:
                    hold_down(int(response.headers.get("content-length", "0")))
                answer = StreamingResponse(response.aiter_raw(), response.status_code)
                answer.raw_headers = _only(RESPONSE_HEADERS, response.headers.raw)
                await request.answer(answer)
            finally:
                await response.aclose()
        except httpx.TransportError:
            raise unavailable() from None


async def _held(content: AsyncIterator[bytes], request: PacedRequest, hold: Hold) -> AsyncIterator[bytes]:
    """The blocks, each of which is held before it goes on: a body that does not say how long it is counts as it comes."""
    async for block in content:
        hold(request.received)
        yield block


def _only(names: frozenset[bytes], headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if name in names or name.startswith(FLOWER_HEADER)]


async def _watch(
    server: uvicorn.Server, certificate: LiveCertificate, settings: FrontSettings, connections: Connections, listener: Listener
) -> None:
    """Each second: takes up a new certificate, cuts who waits too long, and sooner when it is the end."""
    waiting: Waiting = {}
    while True:
        await asyncio.sleep(1)
        certificate.renew()
        listener.keep_spare()
        secured, _ = find_open(server.server_state.connections)
        connections.cut_unfinished(secured, settings.handshake_timeout_s)
        waiting = cut_idle(server.server_state.connections, waiting, 0.0 if server.should_exit else settings.head_timeout_s)


async def _serve(server: uvicorn.Server, listener: Listener, watch: Coroutine[None, None, None]) -> None:
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch)
        await server.serve(sockets=[listener])
        watching.cancel()


def run_front(settings: FrontSettings, office: Office) -> None:
    """Serves until SIGTERM or SIGINT, then finishes open requests for `stop_timeout_s`; call it from the main thread.

    Raises:
        ConfigurationError: the certificate or key cannot be used, or the address and port cannot be had.
    """
    certificate = LiveCertificate(settings.certificate, settings.key)
    connections = Connections(settings.connections_per_address, most_connections(settings.max_connections))
    server = uvicorn.Server(
        uvicorn.Config(
            Front(settings, office, connections.vouch),
            http=H11Protocol,
            ws="none",
            lifespan="off",
            ssl_context_factory=lambda *_: certificate.context,
            h11_max_incomplete_event_size=settings.max_head_bytes,
            timeout_graceful_shutdown=settings.stop_timeout_s,
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
        )
    )
    connections.find_busy = lambda: find_open(server.server_state.connections)[1]
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn raises the signal again when it has ended
    try:
        with open_listener(settings.host, settings.port, connections) as listener:
            asyncio.run(_serve(server, listener, _watch(server, certificate, settings, connections, listener)))
    finally:
        signal.signal(signal.SIGTERM, previous)
