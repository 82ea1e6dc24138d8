"""Whose enrolled node signed a fleet request, told from its headers, before a byte of its body is read.

Flower's SuperLink checks the same signature, but after it has taken the whole body into memory: without this, a stranger could fill
it. The signature covers the time alone, so that somebody who breaks TLS could use one again for five minutes.
"""

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

KEY, SIGNATURE, TIMESTAMP = "flwr-public-key", "flwr-signature", "flwr-timestamp"
TOLERANCE_S = 330.0  # a little more than SuperLink's own, which decides
LOOK_S = 2.0  # how old what is known of enrolments may be

NodeKeys = Callable[[], Mapping[str, str]]


class NodeSignatures:
    """Knows the nodes of the sites that are enrolled now; `keys` gives their lines in OpenSSH's form, by site."""

    def __init__(self, keys: NodeKeys) -> None:
        self._keys = keys
        self._known: dict[bytes, tuple[str, EllipticCurvePublicKey]] = {}
        self._looked = float("-inf")

    def find(self, headers: Mapping[str, str]) -> str | None:
        """The site whose node signed these headers at a time not long ago; None for a stranger."""
        try:
            site, key = self._nodes()[b64decode(headers[KEY], validate=True)]
            signed_at = datetime.fromisoformat(headers[TIMESTAMP])
            if abs((datetime.now(UTC) - signed_at).total_seconds()) > TOLERANCE_S:
                return None
            key.verify(b64decode(headers[SIGNATURE], validate=True), headers[TIMESTAMP].encode("ascii"), ECDSA(SHA256()))
        except (KeyError, ValueError, TypeError, Base64Error, InvalidSignature):
            return None
        return site

    def _nodes(self) -> dict[bytes, tuple[str, EllipticCurvePublicKey]]:
        """Site and public key by the PEM text that Flower sends."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            loaded = {site: load_ssh_public_key(line.encode()) for site, line in self._keys().items()}
            nodes = {site: key for site, key in loaded.items() if isinstance(key, EllipticCurvePublicKey)}
            self._known = {
                key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo): (site, key) for site, key in nodes.items()
            }
        return self._known
