"""One HTTP request at the front and its answer: blocks of bounded size, a peer that has to keep moving them, counts for the log.

A peer may make the front wait `idle_timeout_s` for a block, and in all `idle_timeout_s` and a second for each `min_rate` bytes that
it moved. Only waiting for the peer counts, so that a slow SuperLink is nobody's fault but its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

BLOCK_BYTES = 256 << 10  # what asyncio reads at once; at 64 KiB SuperLink works through four times as many
LINGER_S = 2.0  # a refused client may read the answer for so long before its connection ends

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """Ends a request with this status and no body."""

    def __init__(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = list(headers)


class Gone(Exception):  # noqa: N818
    """The client is not there any more, or too slow in the middle of its answer: its connection is cut."""


def unavailable() -> Refused:
    """503: what a site's SuperNode takes for a reason to try again, where most others end it."""
    return Refused(503, (b"retry-after", b"5"))


@dataclass
class Pace:
    """How long a peer made us wait in one direction, against what it moved."""

    patience_s: float
    min_rate: float
    waited_s: float = 0.0

    def left_s(self, moved_bytes: int) -> float:
        """How long it may still make us wait."""
        return min(self.patience_s, self.patience_s + moved_bytes / self.min_rate - self.waited_s)


class HttpExchange:
    """One request and its answer. `signer` is the site that signed it, once that is known."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, idle_timeout_s: float, min_rate: float) -> None:
        self.route: tuple[str, str] = (scope["method"], scope["raw_path"].decode("ascii"))
        self.query: bytes = scope["query_string"]
        self.headers: Headers = scope["headers"]
        self.address: str = scope["client"][0] if scope["client"] else ""
        self.signer = ""
        self.status = self.received = self.sent = 0
        self._receive, self._send = receive, send
        self._up, self._down = Pace(idle_timeout_s, min_rate), Pace(idle_timeout_s, min_rate)
        self._more = True

    @property
    def by_name(self) -> dict[bytes, bytes]:
        """The headers by their names in lower case."""
        return {name.lower(): value for name, value in self.headers}

    @property
    def length(self) -> int | None:
        """What the request says that its body has; h11 has seen to it that this is a number."""
        value = self.by_name.get(b"content-length")
        return None if value is None else int(value)

    def body(self, limit: int) -> AsyncIterator[bytes]:
        """The body in blocks; 408 ends one that is too slow, 413 one that is too long."""
        if self.length is not None and b"transfer-encoding" in self.by_name:
            raise Refused(400)  # two lengths: what a request smuggler sends
        if (self.length or 0) > limit:
            raise Refused(413)
        return self._blocks(limit)

    async def _blocks(self, limit: int) -> AsyncIterator[bytes]:
        while self._more:
            block, begin = bytearray(), time.monotonic()
            try:
                async with asyncio.timeout(self._up.left_s(self.received)):
                    while self._more and len(block) < BLOCK_BYTES:
                        block += await self._next()
            except TimeoutError:
                raise Refused(408) from None
            self._up.waited_s += time.monotonic() - begin
            self.received += len(block)
            if self.received > limit:
                raise Refused(413)
            yield bytes(block)

    async def start(self, status: int, headers: Headers) -> None:
        """Begins the answer."""
        self.status = status
        await self._in_time({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """Sends a part of the answer."""
        await self._in_time({"type": "http.response.body", "body": data, "more_body": True})
        self.sent += len(data)

    async def finish(self) -> None:
        """Ends the answer."""
        await self._in_time({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refusal: Refused) -> None:
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
            raise Gone
        self._more = message.get("more_body", False)
        return bytes(message.get("body", b""))

    async def _in_time(self, message: dict[str, object]) -> None:
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self._down.left_s(self.sent)):
                await self._send(message)
        except TimeoutError:
            raise Gone from None
        self._down.waited_s += time.monotonic() - begin
