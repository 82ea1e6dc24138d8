"""Keys that are fresh for each question, and the seeds that two sites share under them.

The pairwise masks of Kursawe, Danezis and Kohlweiss (PETS 2011), with everybody present. A key is signed together with the
transcript of all that its site read, so that whoever was told something else shares no mask with the others.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from csasn.errors import ProtocolError
from csasn.platform.canonical import canonical
from csasn.trust.identity import Sign, verify

KEY_PURPOSE = "secagg-key"
KEY_BYTES, DIGEST_BYTES, SEED_BYTES = 32, 32, 32


@dataclass(frozen=True)
class Roster:
    """The sites of a membership in order, with their identities (hex)."""

    identities: Mapping[str, str]

    @property
    def sites(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(self.identities)

    def others(self, site: str) -> tuple[str, ...]:
        """All sites but one."""
        return tuple(name for name in self.sites if name != site)

    def sign_of(self, site: str, peer: str) -> int:
        """σ: with which sign `site` adds the mask that it shares with `peer`."""
        return 1 if self.sites.index(site) < self.sites.index(peer) else -1


@dataclass(frozen=True)
class SignedKey:
    """A site's X25519 key for one question (32 bytes), and its identity's signature (hex) over it and the transcript."""

    public: bytes
    signature: str


@dataclass(frozen=True)
class PairSeeds:
    """What two sites share under one view: the seed that hides the update, and the one that hides the counts."""

    update: bytes
    counts: bytes


def fresh_key() -> bytes:
    """A private key, from the operating system."""
    return os.urandom(KEY_BYTES)


def sign_key(private: bytes, transcript: bytes, sign: Sign) -> SignedKey:
    """The public half of a private key, signed with the transcript that it is for."""
    public = _public_of(private)
    return SignedKey(public, sign(KEY_PURPOSE, canonical([transcript, public])))


def check_keys(keys: Sequence[SignedKey], transcript: bytes, roster: Roster) -> None:
    """Refuses keys that are not one of each site, in roster order, signed by it under this very transcript.

    Raises:
        ProtocolError: too few or too many, or two are the same.
        TrustError: a signature is not valid.
    """
    if len(keys) != len(roster.sites) or len({key.public for key in keys}) < len(keys):
        raise ProtocolError(f"{len(keys)} keys came, expected a different one of each of the {len(roster.sites)} sites")
    for (site, identity), key in zip(roster.identities.items(), keys, strict=True):
        verify(identity, KEY_PURPOSE, canonical([transcript, key.public]), key.signature, site)


def view_of(transcript: bytes, keys: Sequence[SignedKey]) -> bytes:
    """V: the digest of a transcript and the keys of all sites; under one view masks cancel."""
    return hashlib.sha256(canonical(["csasn view v1", transcript, [key.public for key in keys]])).digest()


def share_seeds(private: bytes, site: str, view: bytes, keys: Sequence[SignedKey], roster: Roster) -> dict[str, PairSeeds]:
    """The seeds that this site shares with each other, from keys that `check_keys` let pass.

    Raises:
        ProtocolError: the key in this site's place is not its own, or a key is of small order.
    """
    publics = dict(zip(roster.sites, (key.public for key in keys), strict=True))
    if publics[site] != _public_of(private):
        raise ProtocolError("the key in this site's place is not its own")
    own, seeds = X25519PrivateKey.from_private_bytes(private), {}
    for peer in roster.others(site):
        try:
            shared = own.exchange(X25519PublicKey.from_public_bytes(publics[peer]))
        except ValueError:
            raise ProtocolError(f"the key of {peer} cannot be used") from None
        first, second = sorted((site, peer), key=roster.sites.index)
        update, counts = (_derive(shared, ["csasn mask v2", view, first, second, use]) for use in ("update", "counts"))
        seeds[peer] = PairSeeds(update, counts)
    return seeds


def _derive(secret: bytes, context: Sequence[object]) -> bytes:
    """HKDF-SHA256 (RFC 5869), without a salt."""
    return HKDF(SHA256(), SEED_BYTES, None, canonical(context)).derive(secret)


def _public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
