"""Who asks a live page without a browser."""

import asyncio
import re
from threading import Event as Flag

import httpx

from csasn.report.live_page import Access, LivePage

TOKEN = "a-token-of-a-test"
ACCESS = Access(TOKEN, frozenset({"127.0.0.1", "localhost", "::1"}), "csasn-page-8085", secure=False)


class Visitor:
    """Who asks a page of this process; each answer is a whole one."""

    def __init__(self, source, access=ACCESS):
        self.closing = Flag()
        self.page = LivePage(source, self.closing)
        self._app = self.page.app(access)

    def get(self, path="/", *, bearer=TOKEN, method="GET", host="127.0.0.1:8085", **headers):
        async def ask():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8085") as client:
                allowed = {"authorization": f"Bearer {bearer}"} if bearer else {}
                return await client.request(method, path, headers={"host": host, **allowed, **headers})

        return asyncio.run(ask())

    def text(self):
        """The words of the page."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.get().text))
