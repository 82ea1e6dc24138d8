"""What secure aggregation says between coordinator and sites, as plain data, and the statements that sites sign."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from csasn.errors import ProtocolError
from csasn.identity import verify
from csasn.study import threshold

KEY_PURPOSE, UPLOAD_PURPOSE, SURVIVORS_PURPOSE = "secagg-key", "secagg-upload", "secagg-survivors"
DIGEST_BYTES = 32
Sign = Callable[[str, bytes], str]  # purpose, statement -> signature (hex)


class KeysMissingError(ProtocolError):
    """This site holds no keys of the epoch: all sites have to agree on new ones."""


@dataclass(frozen=True)
class Roster:
    """The sites of a study in order, with their identities (hex), and what the study says of survivors.

    `max_partial` is how many rounds may be without the whole membership.
    """

    identities: Mapping[str, str]
    min_sites: int
    max_partial: int

    @property
    def sites(self) -> tuple[str, ...]:
        """Names in roster order."""
        return tuple(self.identities)

    @property
    def threshold(self) -> int:
        """t: so many shares make a secret."""
        return threshold(len(self.identities))

    def index(self, site: str) -> int:
        """The place of a site, counted from 1."""
        return self.sites.index(site) + 1

    def sign_of(self, site: str, peer: str) -> int:
        """σ: with which sign `site` adds the mask that it shares with `peer`."""
        return 1 if self.index(site) < self.index(peer) else -1

    def others(self, site: str) -> tuple[str, ...]:
        """All sites but one."""
        return tuple(name for name in self.sites if name != site)


@dataclass(frozen=True)
class SignedKey:
    """A site's X25519 key of an epoch (32 bytes), and its identity's signature (hex)."""

    public: bytes
    signature: str


@dataclass(frozen=True)
class KeySet:
    """The keys of an epoch, those of all sites, in roster order; the epoch is the attempt in which they were asked for."""

    epoch: int
    keys: tuple[SignedKey, ...]

    @property
    def digest(self) -> bytes:
        """H over all keys, for the transcript."""
        return hashlib.sha256(b"".join(key.public for key in self.keys)).digest()


@dataclass(frozen=True)
class EpochContext:
    """What the keys of an epoch are for."""

    study_hash: str
    membership_hash: str
    run: str
    epoch: int

    @property
    def digest(self) -> bytes:
        """c: H of the canonical JSON."""
        facts = [self.study_hash, self.membership_hash, self.run, self.epoch]
        return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).digest()


def check_keys(keys: KeySet, context: EpochContext, roster: Roster) -> None:
    """Refuses keys that are not one of each site, signed by it for this very epoch.

    Raises:
        ProtocolError: too few or too many, of another epoch, or two are the same.
        TrustError: a signature is not valid.
    """
    publics = [key.public for key in keys.keys]
    if keys.epoch != context.epoch or len(publics) != len(roster.identities) or len(set(publics)) < len(publics):
        raise ProtocolError(f"the keys of epoch {keys.epoch} are not one of each of the {len(roster.identities)} sites")
    for (site, identity), key in zip(roster.identities.items(), keys.keys, strict=True):
        verify(identity, KEY_PURPOSE, context.digest + key.public, key.signature, site)


@dataclass(frozen=True)
class Sealing:
    """What goes with a masked upload: a blob for each other site and the hash of each shared secret, both in roster order, and the
    site's signature (hex). Without an upload there is no more than the signature."""

    blobs: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    signature: str

    def digest(self, payload_digest: bytes) -> bytes:
        """d: what is signed together with the transcript; `payload_digest` is `hash_payload` of upload and counts."""
        return hashlib.sha256(b"".join((payload_digest, *self.blobs, *self.hashes))).digest()


@dataclass(frozen=True)
class Witness:
    """That a site uploaded something of digest d under a transcript: its signature (hex) over both."""

    digest: bytes
    signature: str

    def check(self, site: str, identity: str, transcript: bytes) -> None:
        """Refuses a signature that is not the site's.

        Raises:
            TrustError: it is not valid.
        """
        verify(identity, UPLOAD_PURPOSE, transcript + self.digest, self.signature, site)


@dataclass(frozen=True)
class Survivors:
    """U in roster order with a witness of each, and, where U is not everybody, signatures (hex) of sites that committed to it."""

    sites: tuple[str, ...]
    witnesses: tuple[Witness, ...]
    confirmations: Mapping[str, str]

    @classmethod
    def of(cls, sites: Sequence[str], witnesses: Mapping[str, Witness]) -> Self:
        """Before anybody confirmed."""
        return cls(tuple(sites), tuple(witnesses[site] for site in sites), {})

    def statement(self, transcript: bytes) -> bytes:
        """What a site signs in confirming."""
        return transcript + json.dumps(list(self.sites), separators=(",", ":")).encode()


def hash_payload(parts: Sequence[memoryview | bytes]) -> bytes:
    """H(y) | H(z), of what is there."""
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def hash_secret(secret: bytes) -> bytes:
    """What the coordinator recognises a shared secret by, once t sites revealed their shares."""
    return hashlib.sha256(b"csasn secret v1" + secret).digest()
