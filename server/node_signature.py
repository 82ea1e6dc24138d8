"""Whether a fleet request is signed by an enrolled node, told from its headers, before a byte of its body is read.

Flower's SuperLink checks the same signature, but after it has taken the whole body into memory: without this, a stranger could fill
it. The signature covers the time alone, so that somebody who breaks TLS could use one again for five minutes.
"""

import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

KEY, SIGNATURE, TIMESTAMP = b"flwr-public-key", b"flwr-signature", b"flwr-timestamp"
TOLERANCE_S = 330.0  # a little more than SuperLink's own, which decides
LOOK_S = 2.0  # how old what is known of enrolments may be

NodeKeys = Callable[[], Collection[str]]


class NodeSignatures:
    """Knows the nodes of the sites that are enrolled now; `keys` gives their lines in OpenSSH's form."""

    def __init__(self, keys: NodeKeys) -> None:
        self._keys = keys
        self._known: dict[bytes, EllipticCurvePublicKey] = {}
        self._looked = float("-inf")

    def accepts(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether these headers carry a signature of an enrolled node over a time not long ago."""
        try:
            key = self._nodes().get(b64decode(headers[KEY], validate=True))
            signed_at = datetime.fromisoformat(headers[TIMESTAMP].decode("ascii"))
            if key is None or abs((datetime.now(UTC) - signed_at).total_seconds()) > TOLERANCE_S:
                return False
            key.verify(b64decode(headers[SIGNATURE], validate=True), headers[TIMESTAMP], ECDSA(SHA256()))
        except (KeyError, ValueError, TypeError, Base64Error, InvalidSignature):
            return False
        return True

    def _nodes(self) -> dict[bytes, EllipticCurvePublicKey]:
        """Public keys by the PEM text that Flower sends."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            loaded = [load_ssh_public_key(line.encode()) for line in self._keys()]
            nodes = [key for key in loaded if isinstance(key, EllipticCurvePublicKey)]
            self._known = {key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo): key for key in nodes}
        return self._known
