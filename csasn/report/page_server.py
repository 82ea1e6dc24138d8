"""Where a live page can be seen: at an address of this machine alone, or of a network, and then over TLS."""

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError, TLSVersion
from threading import Event as Flag
from threading import Thread

import uvicorn
from starlette.types import ASGIApp

from csasn.errors import ConfigurationError
from csasn.platform.storage import reason_of, write_atomically
from csasn.report.live_page import Access, LivePage, Source
from csasn.trust.certificates import certificate_names

LOOPBACK = ("localhost", "127.0.0.1", "::1")
END_WITHIN_S = 5


@dataclass(frozen=True)
class PagePlace:
    """Host and port at which the page is; `tls` are the files of its certificate, with those in between, and of the key."""

    host: str
    port: int
    tls: tuple[Path, Path] | None = None

    @classmethod
    def of(cls, address: str, tls: tuple[Path, Path] | None = None, option: str = "--page") -> "PagePlace":
        """The place that an operator named by `option`.

        Raises:
            ConfigurationError: it is none, or one that other machines reach, without TLS.
        """
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or int(port) >= 1 << 16:
            raise ConfigurationError(f"{option} is {address!r}, expected HOST:PORT", "as 127.0.0.1:8085")
        if tls is None and not _is_loopback(host):
            raise ConfigurationError(
                f"{option} is {address}, which other machines reach, and the page would travel in plain text",
                "name 127.0.0.1 and come by ssh -L 8085:127.0.0.1:8085, or give --page-tls CERT KEY",
            )
        return cls(host, int(port), tls)

    def names(self) -> tuple[str, ...]:
        """The names under which a browser may ask for the page."""
        return (*LOOPBACK, self.host, *(certificate_names(self.tls[0].read_bytes()) if self.tls else ()))


@contextmanager
def page_served(source: Source, place: PagePlace, say: Callable[[str], None], token_file: Path | None = None) -> Iterator[None]:
    """Shows the page as long as the block lasts, in a thread of its own, and says its address once. The token is another one each
    time; `token_file` holds it meanwhile, for programs that fetch metrics.

    Raises:
        ConfigurationError: nothing can listen there, or certificate and key cannot be used.
    """
    token, closing = secrets.token_urlsafe(24), Flag()
    context, listener = _context(place.tls), _listen(place)
    port = listener.getsockname()[1]
    access = Access(token, frozenset(place.names()), f"csasn-page-{port}", place.tls is not None)
    server = uvicorn.Server(_settings(LivePage(source, closing).app(access), context))
    serving = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    if token_file:
        write_atomically(token_file, token.encode(), 0o600)
    serving.start()
    shown = place.host if ":" not in place.host else f"[{place.host}]"
    say(f"page: {'https' if place.tls else 'http'}://{shown}:{port}/?token={token}")
    try:
        yield
    finally:
        closing.set()
        server.should_exit = True
        serving.join(END_WITHIN_S)
        if token_file:
            token_file.unlink(missing_ok=True)


def _settings(app: ASGIApp, context: SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app, ws="none", lifespan="off", proxy_headers=False, server_header=False, access_log=False, log_config=None,
        limit_concurrency=128, timeout_graceful_shutdown=END_WITHIN_S - 2,
        ssl_context_factory=(lambda *_: context) if context else None,
    )  # fmt: skip


def _context(tls: tuple[Path, Path] | None) -> SSLContext | None:
    if tls is None:
        return None
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.minimum_version = TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(*tls, password=lambda: "")  # nobody is asked for a passphrase
    except OSError as error:  # of ssl too, whose numbers are its own
        why = reason_of(error) if not isinstance(error, SSLError) else "they are no certificate and its key"
        hint = "expected PEM files: the certificate with those in between, and its key without a passphrase"
        raise ConfigurationError(f"--page-tls {tls[0]} {tls[1]}: {why}", hint) from None
    return context


def _listen(place: PagePlace) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise ConfigurationError(
            f"page at {place.host}:{place.port}: nothing can listen there: {reason_of(error)}",
            "name an address of this machine, and a port that is free",
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
