"""A site's keys: the identity (Ed25519) that signs what the site says, and the key (NIST P-384) of its Flower node.

Private halves are made at the site and never leave it. They lie there unencrypted, since a service starts without a person: whoever
administers the machine can read them.
"""

import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_curve_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from pydantic import AfterValidator, Field

from csasn.errors import KeptError, TrustError
from csasn.platform.configuration import Configuration
from csasn.platform.storage import private_folder, write_atomically, write_new

IDENTITY_KEY, NODE_KEY, NODE_PUBLIC = "identity.key", "node.key", "node.pub"
KEYS_FOLDER = "keys"  # of a simulated site, in its folder of the run
PRIVATE = 0o600
FINGERPRINT_DIGITS, GROUP = 32, 4  # 128 bits: another key with the same ones cannot be found
MAKE_KEYS = "make them with client keygen --site NAME, or bring them back with client restore"


def _canonical_node_key(line: str) -> str:
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected an OpenSSH public key of NIST P-384") from None
    if not isinstance(key, EllipticCurvePublicKey) or _node_line(key) != line:
        raise ValueError("expected an OpenSSH public key of NIST P-384, without a comment")
    return line


IdentityHex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
NodeKey = Annotated[str, Field(max_length=300), AfterValidator(_canonical_node_key)]
K = TypeVar("K")
Sign = Callable[[str, bytes], str]  # purpose, data -> signature (hex), as `sign` with a key


class PublicKeys(Configuration):
    """The public halves of a site: `identity` is 32 bytes in hex, `node_key` a line in OpenSSH's form."""

    identity: IdentityHex
    node_key: NodeKey

    @property
    def keys(self) -> set[str]:
        """Both, as text."""
        return {self.identity, self.node_key}

    @property
    def fingerprint(self) -> str:
        """What two people compare over the telephone."""
        return fingerprint(bytes.fromhex(self.identity))


def create_keys(folder: Path) -> PublicKeys:
    """Makes whichever of the two keys is missing in `folder` (0700), each exclusively and at 0600; the public halves.

    Raises:
        TrustError: both are there already, or the one that is there cannot be used.
        StorageError: they cannot be written.
    """
    private_folder(folder)
    if all((folder / name).exists() for name in (IDENTITY_KEY, NODE_KEY)):
        raise TrustError(f"{folder} holds keys already, which are not overwritten", "use them, or move them away for new ones")
    if not (folder / IDENTITY_KEY).exists():
        write_identity(folder, Ed25519PrivateKey.generate())
    if not (folder / NODE_KEY).exists():
        node = generate_curve_key(SECP384R1())
        write_new(folder / NODE_KEY, node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), PRIVATE)
    public = read_public_keys(folder)
    write_atomically(folder / NODE_PUBLIC, public.node_key.encode() + b"\n")
    return public


def set_node_key_aside(folder: Path) -> Path:
    """Renames the node's key to a name with the time, so that a new one can be made; the new name.

    Raises:
        TrustError: there is none.
    """
    path = folder / NODE_KEY
    if not path.exists():
        raise TrustError(f"{path} does not exist", MAKE_KEYS)
    aside = path.with_name(f"{NODE_KEY}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    path.rename(aside)
    return aside


def write_identity(folder: Path, identity: Ed25519PrivateKey) -> None:
    """Keeps an identity in `folder` (0700), exclusively and at 0600.

    Raises:
        StorageError: one is there already, or it cannot be written.
    """
    pem = identity.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(private_folder(folder) / IDENTITY_KEY, pem, PRIVATE)


def public_hex(identity: Ed25519PrivateKey) -> str:
    """The public half of an identity."""
    return identity.public_key().public_bytes_raw().hex()


def read_public_keys(folder: Path) -> PublicKeys:
    """The public halves of the private keys in `folder`.

    Raises:
        TrustError: see `load_identity`.
    """
    identity = load_identity(folder).public_key()
    node = load_key(load_ssh_private_key, read_private(folder / NODE_KEY, MAKE_KEYS))
    if not isinstance(node, EllipticCurvePrivateKey) or not isinstance(node.curve, SECP384R1):
        raise TrustError(f"{folder / NODE_KEY} holds no NIST P-384 key in OpenSSH's form", "bring it back with client restore")
    return PublicKeys(identity=identity.public_bytes_raw().hex(), node_key=_node_line(node.public_key()))


def load_identity(folder: Path) -> Ed25519PrivateKey:
    """The private half of the identity in `folder`.

    Raises:
        TrustError: it is missing, damaged, or others than its owner may read it.
    """
    key = load_key(load_pem_private_key, read_private(folder / IDENTITY_KEY, MAKE_KEYS))
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(f"{folder / IDENTITY_KEY} holds no Ed25519 key", "bring it back with client restore")
    return key


def load_key(load: Callable[[bytes, bytes | None], K], data: bytes, passphrase: bytes | None = None) -> K | None:
    """The key that `load` makes of the bytes of a file; None where they hold none, or `passphrase` does not open it."""
    try:
        return load(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def read_private(
    path: Path, hint: str, what: str = "a private key", remedy: str = "make new keys and have the old ones revoked"
) -> bytes:
    """The bytes of a file that holds `what`; `hint` says what to do where there is none, `remedy` where somebody may have read it.

    Raises:
        TrustError: it is missing or cannot be read, or others than its owner may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise TrustError(
                    f"{path} has mode {mode:04o}, so that others may read {what}; expected 0600",
                    f"chmod 600 {path}; if somebody may have read it, {remedy}",
                )
            return file.read()
    except OSError as error:
        raise KeptError(f"cannot read {path}: {(error.strerror or 'error').lower()}", hint) from None


def fingerprint(public: bytes) -> str:
    """The first 128 bits of SHA-256 in eight groups of four hexadecimal digits."""
    digits = hashlib.sha256(public).hexdigest()[:FINGERPRINT_DIGITS]
    return " ".join(digits[start : start + GROUP] for start in range(0, FINGERPRINT_DIGITS, GROUP))


def same_fingerprint(one: str, other: str) -> bool:
    """Whether two fingerprints are the same, however they were spaced and written."""
    plain = [re.sub(r"[\s:-]", "", text).lower() for text in (one, other)]
    return plain[0] == plain[1]


def sign(key: Ed25519PrivateKey, purpose: str, data: bytes) -> str:
    """The signature (hex) of `data` for one purpose; it says nothing for another."""
    return key.sign(_statement(purpose, data)).hex()


def verify(identity: str, purpose: str, data: bytes, signature: str, whose: str) -> None:
    """Refuses a signature that `identity` (hex) did not make over `data` for `purpose`; `whose` names the site in the error.

    Raises:
        TrustError: it is not valid.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(identity)).verify(bytes.fromhex(signature), _statement(purpose, data))
    except (InvalidSignature, ValueError):
        raise TrustError(
            f"the {purpose} signature of {whose} is not valid", f"it was changed on its way, or made with other keys: ask {whose}"
        ) from None


def _statement(purpose: str, data: bytes) -> bytes:
    assert re.fullmatch(r"[a-z][a-z-]*", purpose)
    return f"csasn {purpose} v1\0".encode() + data


def _node_line(key: EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
