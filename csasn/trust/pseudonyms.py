"""Keyed hashes in the place of identifiers: HMAC-SHA-256 (RFC 2104), cut to 96 bits, under a key that never leaves the site.

Without the key nobody can try patient numbers until one fits. Who has the key can: it is kept as the site's private keys are, and
who administers the machine can read it. The same key gives the same hashes in every import.
"""

import hmac
import secrets
from pathlib import Path

from csasn.errors import TrustError
from csasn.platform.canonical import canonical
from csasn.platform.storage import private_folder, write_new
from csasn.trust.identity import PRIVATE, read_private

KEY = "import.key"
KEY_BYTES, DIGITS = 32, 24
BRING_BACK = "bring it back with client restore; with a new key the same patients get other identifiers"


class Pseudonyms:
    """The hashes that one key gives. Each begins with the letter of its kind: a spreadsheet takes none for a number."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "Pseudonyms()"

    def patient(self, number: str) -> str:
        """Of a patient number."""
        return self._hash("patient", number)

    def case(self, *parts: str) -> str:
        """Of what tells a case from all others: the patient number first."""
        return self._hash("case", *parts)

    def image(self, uid: str) -> str:
        """Of a SOP Instance UID."""
        return self._hash("image", uid)

    def work(self, *parts: object) -> str:
        """Of an object and of all that decides what is made of it."""
        return self._hash("work", *parts)

    def accession(self, number: str) -> str:
        """Of an accession number."""
        return self._hash("accession", number)

    @property
    def mark(self) -> str:
        """What tells this key from another, and nothing of it."""
        return self._hash("mark")

    def _hash(self, kind: str, *parts: object) -> str:
        return kind[0] + hmac.digest(self._key, canonical((kind, parts)), "sha256").hex()[:DIGITS]


def load_pseudonyms(keys_folder: Path, *, make: bool = True) -> Pseudonyms:
    """The hashes of the key in `keys_folder`, which is made (0600) where there is none.

    Raises:
        TrustError: it is damaged, or others than its owner may read it; or it is missing and not to be made.
        StorageError: it cannot be written.
    """
    path = private_folder(keys_folder) / KEY
    if make and not path.exists():
        write_new(path, secrets.token_hex(KEY_BYTES).encode() + b"\n", PRIVATE)
    try:
        key = bytes.fromhex(read_private(path, BRING_BACK).decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise TrustError(f"{path} is damaged, expected {KEY_BYTES} bytes in hexadecimal digits", BRING_BACK)
    return Pseudonyms(key)
