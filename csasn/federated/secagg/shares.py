"""Shamir's secret sharing, t of n (Shamir, "How to share a secret", CACM 1979), by pycryptodome over GF(2^128).

A secret of 32 bytes is shared in two halves; the share of site i, counted from 1, has the index i. Fewer than t shares say nothing,
and nothing here tells whether a share is right: the coordinator compares the hash of what comes out.
"""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

HALF = 16


def split(secret: bytes, threshold: int, num_sites: int) -> list[bytes]:
    """Shares of 32 bytes for the sites 1 to n; the coefficients come from the operating system."""
    halves = [Shamir.split(threshold, num_sites, secret[start : start + HALF], ssss=False) for start in (0, HALF)]
    return [first[1] + second[1] for first, second in zip(*halves, strict=True)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from exactly t shares by index."""
    halves = ([(index, share[start : start + HALF]) for index, share in shares.items()] for start in (0, HALF))
    return b"".join(Shamir.combine(half, ssss=False) for half in halves)
