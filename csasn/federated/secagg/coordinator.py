"""The coordinator's part: it checks what is signed, puts the secrets of one set of survivors together, and takes the masks away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.federated.secagg.masks import SEED_BYTES, Mask, add_masks
from csasn.federated.secagg.messages import DIGEST_BYTES, Roster, Sealing, Survivors, Witness, hash_payload, hash_secret
from csasn.federated.secagg.pairs import NONCE_BYTES, TAG_BYTES
from csasn.federated.secagg.shares import combine

Integers = NDArray[np.signedinteger]
MAX_TRIES = 500  # of t shares out of those that came, where a share is wrong


def blob_bytes(num_sites: int) -> int:
    """The size of one blob."""
    return NONCE_BYTES + num_sites * SEED_BYTES + TAG_BYTES


def shares_bytes(num_sites: int, num_survivors: int) -> int:
    """The size of what one site reveals."""
    return num_survivors * (1 + num_sites - num_survivors) * SEED_BYTES


def witness_upload(
    site: str, transcript: bytes, upload: Integers | None, counts: Integers, sealing: Sealing, roster: Roster
) -> Witness:
    """That this site sent this very answer.

    Raises:
        ProtocolError: blobs or hashes are not as many, or not as long, as they have to be.
        TrustError: the signature is not valid.
    """
    num_sites = len(roster.sites)
    num_blobs, num_hashes = (0, 0) if upload is None else (num_sites - 1, num_sites)
    if len(sealing.blobs) != num_blobs or any(len(blob) != blob_bytes(num_sites) for blob in sealing.blobs):
        raise ProtocolError(f"the answer holds {len(sealing.blobs)} blobs, expected {num_blobs} of {blob_bytes(num_sites)} bytes")
    if len(sealing.hashes) != num_hashes or any(len(digest) != DIGEST_BYTES for digest in sealing.hashes):
        raise ProtocolError(f"the answer holds {len(sealing.hashes)} hashes of secrets, expected {num_hashes} of {DIGEST_BYTES}")
    arrays = (counts,) if upload is None else (upload, counts)
    witness = Witness(sealing.digest(hash_payload([array.data for array in arrays])), sealing.signature)
    witness.check(site, roster.identities[site], transcript)
    return witness


def blobs_for(site: str, sealings: Mapping[str, Sealing], survivors: Survivors, roster: Roster) -> dict[str, bytes]:
    """The blobs that the other survivors made for one site."""
    senders = [name for name in survivors.sites if name != site]
    return {name: sealings[name].blobs[roster.others(name).index(site)] for name in senders}


@dataclass(frozen=True)
class Revealed:
    """The masks that do not cancel in the sum over U, to be taken away; and the sites of whom a share was wrong."""

    masks: tuple[Mask, ...]
    wrong: tuple[str, ...]


def recover(
    shares: Mapping[str, bytes], survivors: Sequence[str], hashes: Mapping[str, Sequence[bytes]], roster: Roster
) -> Revealed:
    """Puts together b of each survivor, and s of each survivor with each missing site.

    Args:
        shares: what sites revealed, at least t of them.
        survivors: U in roster order.
        hashes: of the secrets of each survivor, in roster order.
        roster: of the study.

    Raises:
        ProtocolError: fewer than t sites revealed shares that fit.
    """
    size = shares_bytes(len(roster.sites), len(survivors))
    wrong = {site for site, part in shares.items() if len(part) != size}
    shares = {site: part for site, part in shares.items() if site not in wrong}
    if len(shares) < roster.threshold:
        raise ProtocolError(f"{len(shares)} sites revealed their shares, expected {roster.threshold} at least")
    missing = [name for name in roster.sites if name not in survivors]
    masks, place = [], 0
    for survivor in survivors:
        for name in (survivor, *missing):
            right_first = sorted(shares, key=wrong.__contains__)
            pieces = {site: shares[site][place : place + SEED_BYTES] for site in right_first}
            seed, unfit = _combine(pieces, hashes[survivor][roster.index(name) - 1], roster)
            if seed is None:
                raise ProtocolError(f"the revealed shares of {survivor} fit no secret: it, or who revealed, sent wrong ones")
            wrong |= unfit
            masks.append(Mask(seed, -1 if name == survivor else -roster.sign_of(survivor, name)))
            place += SEED_BYTES
    return Revealed(tuple(masks), tuple(sorted(wrong)))


def unmask(sum_of_uploads: Integers, revealed: Revealed, num_threads: int = 1) -> None:
    """Σ_U y becomes Σ_U x, in place."""
    add_masks(sum_of_uploads, revealed.masks, num_threads)


def _combine(pieces: Mapping[str, bytes], expected: bytes, roster: Roster) -> tuple[bytes | None, set[str]]:
    """The secret of this hash from whichever t shares give it, and whose shares do not fit, looked for only if the first t fail."""

    def fits(sites: Sequence[str]) -> bytes | None:
        secret = combine({roster.index(site): pieces[site] for site in sites})
        return secret if hash_secret(secret) == expected else None

    first = tuple(pieces)[: roster.threshold]
    if (secret := fits(first)) is not None:
        return secret, set()
    tries = list(combinations(pieces, roster.threshold))
    Random(0).shuffle(tries)  # in order, thousands would hold a first share that is wrong before one does not
    for some in tries[:MAX_TRIES]:
        if (secret := fits(some)) is not None:
            return secret, {site for site in pieces if site not in some and fits((*some[1:], site)) is None}
    return None, set()
