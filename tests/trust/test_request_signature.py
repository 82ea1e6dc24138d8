"""What a site signs when it asks: the bytes, and that nothing else passes for it."""

import hashlib
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from csasn.trust.identity import public_hex
from csasn.trust.request_signature import CONTENT, HEADERS, IDENTITY, SIGNATURE, TIME, request_statement, sign_request
from server.front.site_signature import SiteSignatures

KEY, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
ROUTE = ("POST", "/csasn/facts")
BODY = b'{"site":"centerA"}'


@pytest.fixture
def signatures():
    return SiteSignatures(lambda: {"centerA": public_hex(KEY)})


def test_the_signed_bytes_are_those_of_the_specification():
    digest = hashlib.sha256(BODY).hexdigest()
    expected = b"\0\0\0\x04POST\0\0\0\x0c/csasn/facts\0\0\0\x0d1700000000123\0\0\0\x40" + digest.encode()
    assert request_statement("POST", "/csasn/facts", 1700000000123, digest) == expected
    headers = sign_request(KEY, "POST", "/csasn/facts", BODY, 1700000000.1234)
    assert headers[TIME] == "1700000000123"
    KEY.public_key().verify(bytes.fromhex(headers[SIGNATURE]), b"csasn front-request v1\0" + expected)


@pytest.mark.parametrize("late_s", [0, 290, -290])
def test_an_enrolled_site_is_known_by_its_signature(signatures, late_s):
    signer = signatures.find(*ROUTE, sign_request(KEY, *ROUTE, BODY, time.time() - late_s))
    assert (signer.site, signer.content_sha256) == ("centerA", hashlib.sha256(BODY).hexdigest())


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in HEADERS),
        {IDENTITY: public_hex(STRANGER)},
        {SIGNATURE: "0" * 128},
        {SIGNATURE: "x" * 128},
        {CONTENT: "0" * 64},
        {TIME: f"{int(time.time() * 1000) - 1}"},
        {TIME: "1e12"},
        {TIME: "-700000000123"},
    ],
)
def test_a_changed_header_is_a_strangers(signatures, changes):
    headers = sign_request(KEY, *ROUTE, BODY, time.time()) | changes
    assert signatures.find(*ROUTE, {name: value for name, value in headers.items() if value is not None}) is None


@pytest.mark.parametrize("late_s", [301, -301])
def test_a_signature_ends_after_five_minutes(signatures, late_s):
    assert signatures.find(*ROUTE, sign_request(KEY, *ROUTE, BODY, time.time() - late_s)) is None


@pytest.mark.parametrize("route", [("GET", "/csasn/facts"), ("POST", "/csasn/echo")])
def test_a_signature_is_good_for_its_route_alone(signatures, route):
    assert signatures.find(*route, sign_request(KEY, *ROUTE, BODY, time.time())) is None


def test_a_key_that_is_not_enrolled_is_a_strangers_and_a_new_site_is_known_soon(monkeypatch):
    known, now = {}, [0.0]
    monkeypatch.setattr("server.front.site_signature.time.monotonic", lambda: now[0])
    signatures = SiteSignatures(lambda: known)
    headers = sign_request(KEY, *ROUTE, BODY, time.time())
    assert signatures.find(*ROUTE, headers) is None
    known["centerB"] = public_hex(KEY)
    now[0] = 1.5
    assert signatures.find(*ROUTE, headers).site == "centerB"
    known.clear()
    now[0] = 3.0
    assert signatures.find(*ROUTE, headers) is None
