"""What stands on the way out of a hospital: an HTTP proxy that may want a login, and a balancer that ends TLS."""

import asyncio
import base64
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from csasn.trust.certificates import authority_pem, create_authority, create_server_certificate, create_server_key
from e2e.relay import Relay

Reach = Callable[[str, int], socket.socket]


class Proxy(Relay):
    """Passes CONNECT on, if `login` (USER:PASSWORD) comes with it; with `status` it answers that to all.

    What it was asked is in `asked`; `reach_address` opens the way on.
    """

    def __init__(self, listener: socket.socket, reach_address: Reach | None = None, login: str = "", status: int = 200) -> None:
        self.login, self.status, self.asked = login, status, list[str]()
        self.reach_address = reach_address or (lambda host, port: socket.create_connection((host, port), 20))
        super().__init__(listener, socket.socket)
        host = listener.getsockname()[0]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def reach(self, near: socket.socket) -> socket.socket:
        """The way on for a connection that came; an OSError where there is none."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := near.recv(4096)):
                raise OSError
            head += data
        line, *headers = head.decode().split("\r\n")
        self.asked.append(line)
        fields = {name.lower(): value for name, _, value in (header.partition(": ") for header in headers)}
        if self.login and fields.get("proxy-authorization") != f"Basic {base64.b64encode(self.login.encode()).decode()}":
            self._refuse(near, "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="hospital"\r\n')
        if self.status != 200:
            self._refuse(near, f"{self.status} No")
        host, _, port = line.split()[1].rpartition(":")
        try:
            far = self.reach_address(host.strip("[]"), int(port))
        except OSError:
            self._refuse(near, "503 Service Unavailable")
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return far

    def _refuse(self, near: socket.socket, status: str, more: str = "") -> None:
        near.sendall(f"HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n".encode())
        raise ConnectionRefusedError


class Balancer:
    """Ends TLS with a certificate of an authority of its own, keeps what passes, and goes on over TLS to the coordinator.

    It goes from `listen` to `target`, whose certificate is of `target_authority`. `folder` gets balancer.pem, the authority that
    sites have to trust, with the key beside it.
    """

    def __init__(
        self,
        folder: Path,
        listen: tuple[str, int],
        target: tuple[str, int],
        target_authority: Path,
        on: AbstractContextManager[None] | None = None,
    ) -> None:
        authority, key = create_authority("balancer of the hospitals"), create_server_key()
        (folder / "balancer.pem").write_bytes(authority_pem(authority) + key)
        (folder / "balancer.crt").write_bytes(create_server_certificate(authority, key, [listen[0]]))
        (folder / "balancer.key").write_bytes(key)
        self.seen = bytearray()
        self._listen, self._target, self._on = listen, target, on or nullcontext()
        self._near = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._near.load_cert_chain(folder / "balancer.crt", folder / "balancer.key")
        self._target_authority = target_authority
        self._loop, self._is_up = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins to listen; the coordinator's folder has to be there."""
        self._thread.start()
        assert self._is_up.wait(20)

    def close(self) -> None:
        """Ends it, and all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _run(self) -> None:
        with self._on:
            self._far = ssl.create_default_context(cafile=self._target_authority)
            server = self._loop.run_until_complete(asyncio.start_server(self._serve, *self._listen, ssl=self._near))
            self._is_up.set()
            self._loop.run_forever()
            server.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self, up: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            from_server, to_server = await asyncio.open_connection(*self._target, ssl=self._far)
            await asyncio.gather(self._pass(up, to_server), self._pass(from_server, down))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                self.seen += data
                target.write(data)
                await target.drain()
        with suppress(OSError):
            target.close()
