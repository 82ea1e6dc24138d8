"""What stands under the front: a TLS context that follows its files, a listening socket, and an end to connections that idle."""

import logging
import os
import socket
import ssl
import time
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol

from csasn.errors import ConfigurationError

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


def open_listener(host: str, port: int) -> socket.socket:
    """A socket that listens at exactly this address.

    Raises:
        ConfigurationError: it is taken, or cannot be had on this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        reason = (error.strerror or "no such address").lower()
        hint = "see with `ss -ltnp` what holds the port, or choose another address or port"
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}", hint) from None


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
