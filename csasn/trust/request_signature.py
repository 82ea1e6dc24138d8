"""The signature under what a site asks of the coordinator's own routes: who asks is known before a byte of the body is read.

    statement = for each of method, route, time, content: its length in 4 bytes, big-endian, and its ASCII bytes

`time` is the site's, in milliseconds since 1970 UTC; `content` the SHA-256, in hex, of the body, or of the query of a GET. The
signature is the identity's for the purpose `front-request`. It does not bind the answer, which TLS protects, nor name the
coordinator: another coordinator at which a site is enrolled with the same key could show it to this one for five minutes.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn.errors import TrustError
from csasn.trust.identity import public_hex, sign, verify

PURPOSE = "front-request"
IDENTITY, TIME, CONTENT, SIGNATURE = "csasn-identity", "csasn-time", "csasn-content", "csasn-signature"
HEADERS = {IDENTITY: r"[0-9a-f]{64}", TIME: r"[0-9]{13}", CONTENT: r"[0-9a-f]{64}", SIGNATURE: r"[0-9a-f]{128}"}
TOLERANCE_S = 300.0  # of the time, either way


@dataclass(frozen=True)
class SignedRequest:
    """What the headers of a request claim; `verify` tells whether it is so."""

    method: str
    route: str
    identity: str
    time_ms: int
    content_sha256: str
    signature: str

    @property
    def time_s(self) -> float:
        """When it was signed, in seconds since 1970."""
        return self.time_ms / 1000

    def verify(self, whose: str, now_s: float) -> None:
        """Refuses a signature that the identity did not make, or not within five minutes of now.

        Raises:
            TrustError: it is so.
        """
        if abs(now_s - self.time_s) > TOLERANCE_S:
            raise TrustError(f"a request of {whose} was signed {now_s - self.time_s:.0f} s ago", "set its clock by NTP")
        statement = request_statement(self.method, self.route, self.time_ms, self.content_sha256)
        verify(self.identity, PURPOSE, statement, self.signature, whose)


def sign_request(key: Ed25519PrivateKey, method: str, route: str, content: bytes, now_s: float) -> dict[str, str]:
    """The headers of a request; `content` is its body, or the query of a GET."""
    time_ms, digest = int(now_s * 1000), hashlib.sha256(content).hexdigest()
    signature = sign(key, PURPOSE, request_statement(method, route, time_ms, digest))
    return {IDENTITY: public_hex(key), TIME: f"{time_ms}", CONTENT: digest, SIGNATURE: signature}


def read_signed(method: str, route: str, headers: Mapping[str, str]) -> SignedRequest | None:
    """What these headers (lower case) claim; None where one of the four is absent, or is no such value."""
    if any(not re.fullmatch(form, headers.get(name, "")) for name, form in HEADERS.items()):
        return None
    return SignedRequest(method, route, headers[IDENTITY], int(headers[TIME]), headers[CONTENT], headers[SIGNATURE])


def request_statement(method: str, route: str, time_ms: int, content_sha256: str) -> bytes:
    """The bytes that are signed."""
    parts = [part.encode("ascii") for part in (method, route, f"{time_ms}", content_sha256)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
