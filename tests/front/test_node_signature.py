"""A fleet request is an enrolled site's by its node's signature over the time, as Flower's own client makes it, else nobody's."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from server.front.node_signature import KEY, SIGNATURE, TIMESTAMP, NodeSignatures

NODE, STRANGER = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())


def line(key):
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def headers(key=NODE, late_s=0.0, signer=None):
    stamp = (datetime.now(UTC) - timedelta(seconds=late_s)).isoformat()
    return {
        KEY: b64encode(public_key_to_bytes(key.public_key())).decode(),
        TIMESTAMP: stamp,
        SIGNATURE: b64encode(sign_message(signer or key, stamp.encode())).decode(),
    }


@pytest.fixture
def signatures():
    return NodeSignatures(lambda: {"centerA": line(NODE)})


@pytest.mark.parametrize("late_s", [0.0, 290.0, -290.0])
def test_an_enrolled_node_is_accepted_as_long_as_superlink_would_accept_it(signatures, late_s):
    assert signatures.find(headers(late_s=late_s)) == "centerA"


@pytest.mark.parametrize(
    "made",
    [
        dict,
        lambda: headers(STRANGER),
        lambda: headers(signer=STRANGER),
        lambda: headers(late_s=400),
        lambda: headers(late_s=-400),
        lambda: headers() | {TIMESTAMP: datetime.now(UTC).isoformat()},
        lambda: headers() | {TIMESTAMP: "2026-01-01T00:00:00"},
        lambda: headers() | {TIMESTAMP: "\xff"},
        lambda: headers() | {SIGNATURE: "???"},
        lambda: headers() | {SIGNATURE: ""},
        lambda: headers() | {KEY: "???"},
    ],
)
def test_anything_else_is_not(signatures, made):
    assert signatures.find(made()) is None


def test_a_site_that_enrols_or_is_revoked_is_known_within_seconds(monkeypatch):
    lines, now = {}, [0.0]
    signatures = NodeSignatures(lambda: lines)
    monkeypatch.setattr("server.front.node_signature.time.monotonic", lambda: now[0])
    assert signatures.find(headers()) is None
    lines["centerB"] = line(NODE)
    now[0] = 3.0
    assert signatures.find(headers()) == "centerB"
    lines.clear()
    now[0] = 6.0
    assert signatures.find(headers()) is None
