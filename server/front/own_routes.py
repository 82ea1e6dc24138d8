"""The front's own routes: facts, and an echo by which a site measures its link.

`GET /csasn/facts` tells anybody the coordinator's version and clock, and nothing else. The others want a site's signature
(csasn/trust/request_signature.py) over what is asked: verified before the body is read, whose hash then has to be the one signed.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from csasn import __version__
from csasn.errors import CsasnError, ProtocolError, TrustError
from csasn.trust.facts import ECHO_ROUTE, FACTS_ROUTE, MAX_FACTS_BYTES
from server.front.allowance import Allowance
from server.front.site_signature import Signer
from server.run.http_exchange import BLOCK_BYTES, HttpExchange, Refused, unavailable

OWN = frozenset({(method, path) for method in ("GET", "POST") for path in (FACTS_ROUTE, ECHO_ROUTE)})
HELLO = ("GET", FACTS_ROUTE)
MAX_ECHO_BYTES = 64 << 20
CREDIT_BYTES = 8 << 20  # a request to an own route costs one credit, and one more for each of these
REQUESTS_AT_ONCE = 4  # to own routes, of a site, or of an address whose site is unknown

Facts = Callable[[bytes, Signer], Mapping[str, object]]
FindSite = Callable[[str, str, Mapping[bytes, bytes]], Signer | None]
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
            Refused: there is not so much left.
        """
        minute = int(time.monotonic() // 60)
        if minute != self.minute:
            self.minute, self.spent = minute, Counter()
        self.spent[peer] += 1 + size_bytes // CREDIT_BYTES
        if self.spent[peer] > self.credits_per_minute:
            raise Refused(429, (b"retry-after", b"60"))


class OwnRoutes:
    """Answers the own routes. `find_site` tells who signed, `facts` what a site may know after what it said."""

    def __init__(
        self, facts: Facts, find_site: FindSite, hello: Callable[[], Mapping[str, object]], credits_per_minute: int
    ) -> None:
        self._facts, self._find_site, self._hello = facts, find_site, hello
        self._spending = Spending(credits_per_minute)
        self._under_way = Allowance(REQUESTS_AT_ONCE, 0, lambda: Refused(429, (b"retry-after", b"5")))
        self._noise = os.urandom(BLOCK_BYTES)

    async def answer(self, exchange: HttpExchange) -> None:
        """Answers a request to a route in `OWN`; credits are an address's, or a site's once it has signed."""
        if exchange.route == HELLO:
            self._spending.charge(exchange.address)
            with self._under_way.admit(exchange.address):
                await self._reply(exchange, json.dumps(self._hello()).encode())
            return
        signer = self._find_site(*exchange.route, exchange.by_name)
        if signer is None:
            self._spending.charge(exchange.address)
            raise Refused(401)
        exchange.signer = signer.site
        with self._under_way.admit(f"site {signer.site}"):
            await self._answer_site(exchange, signer)

    async def _answer_site(self, exchange: HttpExchange, signer: Signer) -> None:
        match exchange.route:
            case ("POST", path) if path == FACTS_ROUTE:
                self._spending.charge(f"site {signer.site}")
                await self._exchange_facts(exchange, signer)
            case ("GET", _):
                await self._send_noise(exchange, signer)
            case _:
                await self._measure(exchange, signer)

    async def _exchange_facts(self, exchange: HttpExchange, signer: Signer) -> None:
        said = b"".join([block async for block in exchange.body(MAX_FACTS_BYTES)])
        _check_content(signer, hashlib.sha256(said).hexdigest())
        try:
            data = json.dumps(await asyncio.to_thread(self._facts, said, signer)).encode()
        except (ProtocolError, TrustError) as error:
            log.warning("facts of %s refused: %s", signer.site, error.message)
            raise Refused(400) from None
        except CsasnError as error:
            log.warning("no facts to show: %s", error.message)
            raise unavailable() from None
        await self._reply(exchange, data)

    async def _send_noise(self, exchange: HttpExchange, signer: Signer) -> None:
        _check_content(signer, hashlib.sha256(exchange.query).hexdigest())
        asked = re.fullmatch(rb"bytes=(\d{1,8})", exchange.query)
        if not asked or int(asked[1]) > MAX_ECHO_BYTES:
            raise Refused(400)
        left = int(asked[1])
        self._spending.charge(f"site {signer.site}", left)
        await exchange.start(200, [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % left)])
        while left:
            block = self._noise[:left]
            await exchange.write(block)
            left -= len(block)
        await exchange.finish()

    async def _measure(self, exchange: HttpExchange, signer: Signer) -> None:
        self._spending.charge(f"site {signer.site}", exchange.length or MAX_ECHO_BYTES)
        digest = hashlib.sha256()
        async for block in exchange.body(MAX_ECHO_BYTES):
            digest.update(block)
        _check_content(signer, digest.hexdigest())
        await self._reply(exchange, json.dumps({"sha256": digest.hexdigest(), "bytes": exchange.received}).encode())

    async def _reply(self, exchange: HttpExchange, data: bytes) -> None:
        await exchange.start(200, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))])
        await exchange.write(data)
        await exchange.finish()


def _check_content(signer: Signer, found: str) -> None:
    if found != signer.content_sha256:
        log.warning("a request of %s has another content than was signed", signer.site)
        raise Refused(401)
