"""The front's own routes: facts, and an echo by which a site measures its link.

`GET /csasn/facts` tells anybody the coordinator's version and clock, and nothing else. The others want a site's signature
(csasn/trust/request_signature.py) over what is asked: verified before the body is read, whose hash then has to be the one signed.
"""

import asyncio
import hashlib
import logging
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from csasn import __version__
from csasn.errors import CsasnError, ProtocolError, TrustError
from csasn.trust.facts import ECHO_ROUTE, FACTS_ROUTE, MAX_FACTS_BYTES
from server.front.allowance import Allowance
from server.front.paced_request import BLOCK_BYTES, PacedRequest, unavailable
from server.front.site_signature import Signer

OWN = frozenset({(method, path) for method in ("GET", "POST") for path in (FACTS_ROUTE, ECHO_ROUTE)})
HELLO = ("GET", FACTS_ROUTE)
MAX_ECHO_BYTES = 64 << 20
CREDIT_BYTES = 8 << 20  # a request to an own route costs one credit, and one more for each of these
REQUESTS_AT_ONCE = 4  # to own routes, of a site, or of an address whose site is unknown

Facts = Callable[[bytes, Signer], Mapping[str, object]]
FindSite = Callable[[str, str, Mapping[str, str]], Signer | None]
log = logging.getLogger(__name__)


def hello() -> Mapping[str, object]:
    """What anybody may know: a site's clock has to agree with this one, or its signatures are refused."""
    return {"software_version": __version__, "time": datetime.now(UTC).isoformat()}


@dataclass
class Spending:
    """What each peer has had of its credits in this minute."""

    credits_per_minute: int
    minute: int = 0
    spent: Counter[str] = field(default_factory=Counter)

    def charge(self, peer: str, size_bytes: int = 0) -> None:
        """Takes what a request costs.

        Raises:
            HTTPException: there is not so much left.
        """
        minute = int(time.monotonic() // 60)
        if minute != self.minute:
            self.minute, self.spent = minute, Counter()
        self.spent[peer] += 1 + size_bytes // CREDIT_BYTES
        if self.spent[peer] > self.credits_per_minute:
            raise HTTPException(429, headers={"retry-after": "60"})


class OwnRoutes:
    """Answers the own routes. `find_site` tells who signed, `facts` what a site may know after what it said."""

    def __init__(
        self, facts: Facts, find_site: FindSite, hello: Callable[[], Mapping[str, object]], credits_per_minute: int
    ) -> None:
        self._facts, self._find_site, self._hello = facts, find_site, hello
        self._spending = Spending(credits_per_minute)
        self._under_way = Allowance(REQUESTS_AT_ONCE, 0, lambda: HTTPException(429, headers={"retry-after": "5"}))
        self._noise = os.urandom(BLOCK_BYTES)
        self._of_sites = {
            ("POST", FACTS_ROUTE): self._exchange_facts,
            ("GET", ECHO_ROUTE): self._send_noise,
            ("POST", ECHO_ROUTE): self._measure,
        }

    async def answer(self, request: PacedRequest) -> None:
        """Answers a request to a route in `OWN`; credits are an address's, or a site's once it has signed."""
        if request.route == HELLO:
            self._spending.charge(request.address)
            with self._under_way.admit(request.address):
                await request.answer(JSONResponse(self._hello()))
            return
        signer = self._find_site(*request.route, request.headers)
        if signer is None:
            self._spending.charge(request.address)
            raise HTTPException(401)
        request.signer = signer.site
        with self._under_way.admit(f"site {signer.site}"):
            await request.answer(await self._of_sites[request.route](request, signer))

    async def _exchange_facts(self, request: PacedRequest, signer: Signer) -> Response:
        self._spending.charge(f"site {signer.site}")
        said = b"".join([block async for block in request.blocks(MAX_FACTS_BYTES)])
        _check_content(signer, hashlib.sha256(said).hexdigest())
        try:
            return JSONResponse(await asyncio.to_thread(self._facts, said, signer))
        except (ProtocolError, TrustError) as error:
            log.warning("facts of %s refused: %s", signer.site, error.message)
            raise HTTPException(400) from None
        except CsasnError as error:
            log.warning("no facts to show: %s", error.message)
            raise unavailable() from None

    async def _send_noise(self, request: PacedRequest, signer: Signer) -> Response:
        query: bytes = request.scope["query_string"]
        _check_content(signer, hashlib.sha256(query).hexdigest())
        asked = re.fullmatch(rb"bytes=(\d{1,8})", query)
        if not asked or int(asked[1]) > MAX_ECHO_BYTES:
            raise HTTPException(400)
        size = int(asked[1])
        self._spending.charge(f"site {signer.site}", size)
        headers = {"content-length": str(size)}
        return StreamingResponse(self._noise_of(size), headers=headers, media_type="application/octet-stream")

    async def _noise_of(self, size: int) -> AsyncIterator[bytes]:
        for sent in range(0, size, BLOCK_BYTES):
            yield self._noise[: size - sent]

    async def _measure(self, request: PacedRequest, signer: Signer) -> Response:
        self._spending.charge(f"site {signer.site}", request.length or MAX_ECHO_BYTES)
        digest = hashlib.sha256()
        async for block in request.blocks(MAX_ECHO_BYTES):
            digest.update(block)
        _check_content(signer, digest.hexdigest())
        return JSONResponse({"sha256": digest.hexdigest(), "bytes": request.received})


def _check_content(signer: Signer, found: str) -> None:
    if found != signer.content_sha256:
        log.warning("a request of %s has another content than was signed", signer.site)
        raise HTTPException(401)
