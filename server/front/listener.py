"""What stands under the front: a TLS context that follows its files, a listening socket, and an end to connections that idle.

Connections are counted where they are accepted, before TLS (server/front/connections.py): asyncio would hold 1,000 of them for a
minute.
"""

import errno
import logging
import os
import resource
import socket
import ssl
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from csasn.errors import ConfigurationError
from server.front.connections import Connections

MOST_DESCRIPTORS = 1 << 16
SPARE_DESCRIPTORS = 64  # for all but connections: the listener, the log, files that facts are read from
SHED_AT_ONCE = 64  # connections that are refused between two turns of the event loop
log = logging.getLogger(__name__)


class LiveCertificate:
    """A TLS context that takes up its files again when they change; connections that are open keep what they have.

    Raises:
        ConfigurationError: the files cannot be read, do not fit, or the key is encrypted.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = _tls(*self._files)
        self._seen = self._stamp()

    def renew(self) -> None:
        """Takes up files that have changed; a pair that cannot be used is said once, and the old one stays."""
        with suppress(OSError):
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            try:
                _tls(*self._files)  # a pair that does not fit would leave the live context without a key
                self.context.load_cert_chain(*self._files, password="")
                log.info("the certificate was read anew")
            except (OSError, ConfigurationError):
                log.warning("the new certificate and key do not fit; the old ones stay in use")

    def _stamp(self) -> list[tuple[int, int]]:
        return [(status.st_ino, status.st_mtime_ns) for status in map(os.stat, self._files)]


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password="")  # an encrypted key fails here and asks nobody
    except OSError as error:
        reason = "they do not fit or are not PEM" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0).lower()
        raise ConfigurationError(f"cannot use {certificate.name} with {key.name}: {reason}", "make them with server init") from None
    return context


class Listener(socket.socket):
    """A listening socket that gives out only connections that `connections` admits, and closes the others before TLS.

    Out of descriptors it goes on: one is kept in hand, by which a connection is taken and closed.
    """

    connections: Connections
    _spare = -1

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection that is admitted."""
        for _ in range(SHED_AT_ONCE):
            try:
                connection, peer = super().accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._shed()
                continue
            if self.connections.admit(connection, peer[:2]):
                return connection, peer
            connection.close()
        raise ConnectionAbortedError  # for asyncio: nothing to take now; it comes back

    def keep_spare(self) -> None:
        """Takes a descriptor in hand, where there is none."""
        if self._spare < 0:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Closes the socket, and what it kept in hand."""
        self._drop_spare()
        super().close()

    def _shed(self) -> None:
        """Takes a connection and closes it; without one, BlockingIOError, which the system says only where a descriptor is free."""
        self._drop_spare()
        try:
            super().accept()[0].close()
        finally:
            self.keep_spare()

    def _drop_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1


def open_listener(host: str, port: int, connections: Connections) -> Listener:
    """A socket that listens at exactly this address; at `::` for IPv4 too.

    Raises:
        ConfigurationError: it is taken, or cannot be had on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        plain = socket.create_server((host, port), family=family, backlog=128, dualstack_ipv6=host == "::")
    except OSError as error:
        reason = (error.strerror or "no such address").lower()
        hint = "see with `ss -ltnp` what holds the port, or choose another address or port"
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}", hint) from None
    listener = Listener(family, socket.SOCK_STREAM, plain.proto, fileno=plain.detach())
    listener.connections = connections
    listener.keep_spare()
    return listener


def most_connections(wanted: int) -> int:
    """How many connections this process may have open, at most `wanted`: each needs a descriptor, and one more to SuperLink.

    The limit of descriptors is raised to what the system allows, which systemd and container engines set high and a shell 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    allowed = wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, (soft - SPARE_DESCRIPTORS) // 2))
    if allowed < wanted:
        log.warning("%d descriptors are allowed, which is enough for %d connections, not %d", soft, allowed, wanted)
    return allowed


Waiting = dict[tuple[H11Protocol, object], float]


def cut_idle(connections: Set[object], waiting: Waiting, patience_s: float) -> Waiting:
    """Cuts connections that have no request open and begin none in time; since when the others wait."""
    now = time.monotonic()
    found = [each for each in connections if isinstance(each, H11Protocol)]
    idle = [(each, each.cycle) for each in found if each.cycle is None or each.cycle.response_complete]
    waiting = {key: waiting.get(key, now) for key in idle}
    for (connection, _), since in waiting.items():
        if now - since > patience_s:
            connection.transport.abort()
    return waiting


def find_open(connections: Set[object]) -> tuple[set[tuple[str, int]], set[tuple[str, int]]]:
    """Address and port of the peers that have finished TLS, and of those whose request is open."""
    found = [each for each in connections if isinstance(each, H11Protocol) and each.client]
    secured = {each.client for each in found if each.client}
    return secured, {each.client for each in found if each.client and each.cycle and not each.cycle.response_complete}
