"""Keys that two sites share: agreed by X25519, ratcheted from attempt to attempt, and what is derived for one attempt.

A key of a later attempt says nothing of an earlier one, so that who takes a site's state learns no mask of the past.
"""

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from csasn.errors import ProtocolError
from csasn.federated.secagg.messages import EpochContext, KeySet, Roster

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
MAX_STEPS = 1000


def derive(key: bytes, *info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) of 32 bytes, without a salt."""
    return HKDF(SHA256(), KEY_BYTES, None, b"".join(info)).derive(key)


def public_of(private: bytes) -> bytes:
    """The public half of an X25519 key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, site: str, keys: KeySet, context: EpochContext, roster: Roster) -> dict[str, bytes]:
    """K with each other site, from keys that `check_keys` let pass.

    Raises:
        ProtocolError: the key in the place of this site is another one, or a key is of small order.
    """
    publics = dict(zip(roster.sites, (key.public for key in keys.keys), strict=True))
    if publics[site] != public_of(private):
        raise ProtocolError("the key in this site's place is not its own", "tell the coordinator: its server may be tampered with")
    own, pairs = X25519PrivateKey.from_private_bytes(private), {}
    for peer in roster.others(site):
        first, second = sorted((site, peer), key=roster.index)
        try:
            shared = own.exchange(X25519PublicKey.from_public_bytes(publics[peer]))
        except ValueError:
            raise ProtocolError(f"the key of {peer} cannot be used") from None
        pairs[peer] = derive(shared, b"csasn pair v1", context.digest, publics[first], publics[second])
    return pairs


def ratchet(pairs: Mapping[str, bytes], steps: int) -> dict[str, bytes]:
    """The keys of so many attempts later.

    Raises:
        ProtocolError: it would be backwards, or more than 1000 steps.
    """
    if not 0 <= steps <= MAX_STEPS:
        raise ProtocolError(f"{steps} attempts from the last one that this site saw, expected 0 to {MAX_STEPS}")
    keys = dict(pairs)
    for _ in range(steps):
        keys = {peer: derive(key, b"csasn ratchet v1") for peer, key in keys.items()}
    return keys


def update_seed(key: bytes, transcript: bytes) -> bytes:
    """s: hides the update from everybody but the two sites, and is shared among all."""
    return derive(key, b"csasn update v1", transcript)


def counts_seed(key: bytes, transcript: bytes) -> bytes:
    """c: hides the counts; nobody else ever gets a share of it."""
    return derive(key, b"csasn counts v1", transcript)


def close_blob(key: bytes, transcript: bytes, sender: str, shares: bytes, nonce: bytes) -> bytes:
    """A peer's shares, encrypted and authenticated, the nonce in front."""
    return nonce + AESGCM(_blob_key(key, transcript, sender)).encrypt(nonce, shares, None)


def open_blob(key: bytes, transcript: bytes, sender: str, blob: bytes) -> bytes:
    """The shares that `sender` made for this site.

    Raises:
        ProtocolError: it is not what the sender wrote.
    """
    try:
        return AESGCM(_blob_key(key, transcript, sender)).decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise ProtocolError(f"the shares that came from {sender} are not what it sent") from None


def _blob_key(key: bytes, transcript: bytes, sender: str) -> bytes:
    return derive(key, b"csasn blob v1", transcript, sender.encode())
