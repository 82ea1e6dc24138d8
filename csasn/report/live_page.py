"""A page that shows what goes on, read-only, to whoever has its token; sections that change are sent anew, by server-sent events.

Without its script it loads itself anew. It asks for nothing from elsewhere, and its policy lets it ask nobody. A request counts
only with the token, and under a name of this machine, so that no other site's page reaches it through a browser (DNS rebinding).
Whoever reads the terminal or the memory of this machine has the token; who watches the line has it where that is without TLS.
"""

import asyncio
import hmac
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass
from threading import Event as Flag
from urllib.parse import urlsplit

from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csasn.errors import CsasnError
from csasn.platform.command import where_of
from csasn.report.rendering import render

TICK_S = 0.5  # between two looks at whether something changed
LEAST_S = 2.0  # between two pages that are made, whatever changes
COARSE_S = 10.0  # after which a page is made anew, for what time alone changes
QUIET_S = 15.0  # after which a viewer is sent an empty line, so that no proxy takes the line for dead
MAX_VIEWERS = 32
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
REFUSED = "This page wants its token: open the address that its program printed on the terminal.\n"
MISDIRECTED = "This page is not known under that name: open the address that its program printed on the terminal.\n"
METRICS_TYPE = "text/plain; version=0.0.4"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """What there is to see now: HTML by the id of the element that holds it; and how it reads as metrics of Prometheus."""

    sections: Mapping[str, Markup]
    metrics: Callable[[], str] | None = None


@dataclass(frozen=True)
class Source:
    """What a page is made of. `state` is another value when `show` would show another thing, and costs next to nothing; `template`
    is the whole page, which gets `title`, `sections` and `version`."""

    title: str
    template: str
    state: Callable[[], Hashable]
    show: Callable[[], Shown]


@dataclass(frozen=True)
class Access:
    """Who may look: whoever has the token, under one of the names of this machine; `cookie` is the name of the one that keeps it,
    which says the port, since browsers do not."""

    token: str
    hosts: frozenset[str]
    cookie: str
    secure: bool

    def refusal(self, request: Request) -> Response | None:
        """Why a request is not answered, if it is not."""
        if _host_of(request.headers.get("host", "")) not in self.hosts:
            return PlainTextResponse(MISDIRECTED, 421)
        given = request.query_params.get("token") if request.scope["path"] == "/" else None
        if given is None:
            kind, _, credentials = request.headers.get("authorization", "").partition(" ")
            given = credentials.strip() if kind.lower() == "bearer" else request.cookies.get(self.cookie, "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return PlainTextResponse(REFUSED, 403)
        return None

    @property
    def keeping(self) -> str:
        """The header that has a browser keep the token."""
        return f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict" + "; Secure" * self.secure


class Guard:
    """Lets through who may look, and says in each answer what a browser may do with it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive)
        refusal = self._access.refusal(request)
        headers = dict(HEADERS)
        if refusal is None and scope["path"] == "/" and "token" in request.query_params:
            headers["set-cookie"] = self._access.keeping

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((name.encode(), value.encode()) for name, value in headers.items())]
            await send(message)

        await (refusal or self._app)(scope, receive, send_guarded)


class Latest:
    """What the source showed last, each section with the number of the page in which it changed."""

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, asyncio.Lock()
        self._name, self._number = secrets.token_hex(4), 0  # of this process: another one counts anew
        self._sections: dict[str, tuple[int, Markup]] = {}
        self._state: Hashable = None
        self._looked = self._made = -COARSE_S
        self.metrics: Callable[[], str] | None = None

    @property
    def version(self) -> str:
        """The page that is shown now."""
        return f"{self._name}.{self._number}"

    @property
    def sections(self) -> dict[str, Markup]:
        """All sections as they are now."""
        return {name: html for name, (_, html) in self._sections.items()}

    def since(self, version: str) -> dict[str, Markup]:
        """The sections that changed after that version; all of them where it is of another process."""
        name, _, number = version.rpartition(".")
        seen = int(number) if name == self._name and number.isdecimal() else 0
        return {id_: html for id_, (changed, html) in self._sections.items() if changed > seen}

    async def look(self) -> None:
        """Makes the page anew where that is due."""
        async with self._lock:
            now = time.monotonic()
            if now - self._looked < TICK_S / 2:
                return
            self._looked = now
            state = await asyncio.to_thread(self._source.state)
            if now - self._made > COARSE_S or (state != self._state and now - self._made >= LEAST_S):
                self._state, self._made = state, now
                await asyncio.to_thread(self._make)

    def _make(self) -> None:
        try:
            shown = self._source.show()
        except Exception as error:  # noqa: BLE001 - the boundary of this thread: the next look may be better, and no foreign text is told
            unexpected = f"unexpected {type(error).__name__} in {where_of(error)}"
            what = error.message if isinstance(error, CsasnError) else unexpected
            log.warning("the page cannot be made: %s", what)
            shown = Shown({"status": Markup("cannot be read: {}").format(what)}, self.metrics)
        self.metrics = shown.metrics
        self._number += 1
        for name, html in shown.sections.items():
            if name not in self._sections or self._sections[name][1] != html:
                self._sections[name] = self._number, html


class LivePage:
    """The routes of a page; once `closing` is set, viewers hear that it ends."""

    def __init__(self, source: Source, closing: Flag) -> None:
        self._source, self._closing, self._latest = source, closing, Latest(source)
        self._style, self._script = render("live.css"), render("live.js")
        self._viewers = 0

    def app(self, access: Access) -> ASGIApp:
        """The page as an ASGI application."""
        routes = {
            "/": self._page,
            "/events": self._events,
            "/metrics": self._metrics,
            "/live.css": lambda _: Response(self._style, media_type="text/css"),
            "/live.js": lambda _: Response(self._script, media_type="text/javascript"),
        }
        return Guard(Starlette(routes=[Route(path, answer) for path, answer in routes.items()]), access)

    async def _page(self, _: Request) -> Response:
        await self._latest.look()
        facts = {"title": self._source.title, "sections": self._latest.sections, "version": self._latest.version}
        return HTMLResponse(render(self._source.template, **facts))

    async def _metrics(self, _: Request) -> Response:
        await self._latest.look()
        metrics = self._latest.metrics
        if metrics is None:
            return PlainTextResponse("This page has no metrics.\n", 404)
        return PlainTextResponse(await asyncio.to_thread(metrics), media_type=METRICS_TYPE)

    async def _events(self, request: Request) -> Response:
        if self._viewers >= MAX_VIEWERS:
            return PlainTextResponse(f"{MAX_VIEWERS} viewers are looking already.\n", 503, {"retry-after": "60"})
        version = request.headers.get("last-event-id") or request.query_params.get("since", "")
        return StreamingResponse(self._changes(version), media_type="text/event-stream")

    async def _changes(self, version: str) -> AsyncIterator[str]:
        """What changes, as it does."""
        self._viewers += 1
        try:
            told = time.monotonic()
            while not self._closing.is_set():
                await self._latest.look()
                changed = self._latest.since(version)
                version = self._latest.version
                if changed or time.monotonic() - told > QUIET_S:
                    told = time.monotonic()
                    yield f"event: sections\nid: {version}\ndata: {json.dumps(changed)}\n\n" if changed else ":\n\n"
                await asyncio.sleep(TICK_S)
            yield "event: end\ndata:\n\n"
        finally:
            self._viewers -= 1


def _host_of(header: str) -> str:
    """The name in a Host header, without the port: a tunnel may have another."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
