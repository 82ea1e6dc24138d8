"""One HTTP request at the front and its answer: blocks of bounded size, a peer that has to keep moving them, counts for the log.

A peer may make the front wait `idle_timeout_s` for a block, and in all `idle_timeout_s` and a second for each `min_rate` bytes that
it moved. Only waiting for the peer counts, so that a slow SuperLink is nobody's fault but its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

BLOCK_BYTES = 256 << 10  # what asyncio reads at once; at 64 KiB SuperLink works through four times as many
LINGER_S = 2.0  # a refused client may read the answer for so long before its connection ends


def unavailable() -> HTTPException:
    """503: what a site's SuperNode takes for a reason to try again, where most others end it."""
    return HTTPException(503, headers={"retry-after": "5"})


@dataclass
class Pace:
    """How long a peer made us wait in one direction, against what it moved."""

    patience_s: float
    min_rate: float
    waited_s: float = 0.0

    def left_s(self, moved_bytes: int) -> float:
        """How long it may still make us wait."""
        return min(self.patience_s, self.patience_s + moved_bytes / self.min_rate - self.waited_s)


class PacedRequest(Request):
    """One request and its answer. `signer` is the site that signed it, once that is known.

    `ClientDisconnect` says that the client is not there any more, or too slow in the middle of its answer: its connection is cut.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, idle_timeout_s: float, min_rate: float) -> None:
        super().__init__(scope, self._take)
        self.route: tuple[str, str] = (scope["method"], scope["raw_path"].decode("ascii"))
        self.address: str = self.client.host if self.client else ""
        self.signer = ""
        self.status = self.received = self.sent = 0
        self._from_peer, self._to_peer = receive, send
        self._up, self._down = Pace(idle_timeout_s, min_rate), Pace(idle_timeout_s, min_rate)
        self._more = True

    @property
    def length(self) -> int | None:
        """What the request says that its body has; h11 has seen to it that this is a number."""
        value = self.headers.get("content-length")
        return None if value is None else int(value)

    def blocks(self, limit: int) -> AsyncIterator[bytes]:
        """The body in blocks; 408 ends one that is too slow, 413 one that is too long."""
        if self.length is not None and "transfer-encoding" in self.headers:
            raise HTTPException(400)  # two lengths: what a request smuggler sends
        if (self.length or 0) > limit:
            raise HTTPException(413)
        return self._blocks(limit)

    async def _blocks(self, limit: int) -> AsyncIterator[bytes]:
        parts = self.stream()
        while self._more:
            block, begin = bytearray(), time.monotonic()
            try:
                async with asyncio.timeout(self._up.left_s(self.received)):
                    while self._more and len(block) < BLOCK_BYTES:
                        block += await anext(parts)
            except TimeoutError:
                raise HTTPException(408) from None
            self._up.waited_s += time.monotonic() - begin
            self.received += len(block)
            if self.received > limit:
                raise HTTPException(413)
            yield bytes(block)

    async def answer(self, response: Response) -> None:
        """Sends the answer, of which the peer has to take each part in time."""
        if isinstance(response, StreamingResponse):
            await response.stream_response(self._give)  # without Starlette's look at the peer, which would take from its body
        else:
            await response(self.scope, self.receive, self._give)

    async def refuse(self, refusal: HTTPException) -> None:
        """An answer without a body. What the client still sends is thrown away for a moment, so that it gets to read the answer."""
        headers = {"content-length": "0", "connection": "close", **(refusal.headers or {})}
        await self.answer(StreamingResponse(self._linger(), refusal.status_code, headers))

    async def _linger(self) -> AsyncIterator[bytes]:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._more:
                    await self._take()
        yield b""

    async def _take(self) -> Message:
        message = await self._from_peer()
        self._more = message.get("more_body", False)
        return message

    async def _give(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(self._down.left_s(self.sent)):
                await self._to_peer(message)
        except TimeoutError:
            raise ClientDisconnect from None
        self._down.waited_s += time.monotonic() - begin
        self.sent += len(message.get("body", b""))
