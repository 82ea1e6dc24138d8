"""Which enrolled site signed a request to an own route of the front, told from its headers, before a byte of its body is read.

An identity that no site enrolled with costs a look-up, and no arithmetic.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from csasn.errors import TrustError
from csasn.trust.request_signature import read_signed

LOOK_S = 1.0  # how old what is known of enrolments may be

Identities = Callable[[], Mapping[str, str]]


@dataclass(frozen=True)
class Signer:
    """The site that signed a request, when by its clock (seconds since 1970), and the SHA-256 (hex) of what it asks."""

    site: str
    time_s: float
    content_sha256: str


class SiteSignatures:
    """Knows the identities of the sites that are enrolled now; `identities` gives them in hex, by site."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._known: dict[str, str] = {}
        self._looked = float("-inf")

    def find(self, method: str, route: str, headers: Mapping[str, str]) -> Signer | None:
        """The site whose signature over method, route, time and content the headers carry; None for a stranger."""
        signed = read_signed(method, route, headers)
        site = self._sites().get(signed.identity) if signed else None
        if signed and site is not None:
            with suppress(TrustError):
                signed.verify(site, time.time())
                return Signer(site, signed.time_s, signed.content_sha256)
        return None

    def _sites(self) -> dict[str, str]:
        """Sites by identity."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._known = {identity: site for site, identity in self._identities().items()}
        return self._known
