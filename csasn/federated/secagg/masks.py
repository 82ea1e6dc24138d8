"""Keystreams that hide an array of integers, added to it in place.

PRG(s) is the keystream of AES-256 in counter mode under the key s, from block 0, read as little-endian integers of the array's
type. A seed hides one array alone: two arrays under one seed show their difference.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 17  # of keystream at a time, which stay in the processor's cache
CIPHER_BLOCK = 16


@dataclass(frozen=True)
class Mask:
    """PRG(seed), added with `sign` +1 or -1."""

    seed: bytes
    sign: int


def add_masks(values: NDArray[np.signedinteger], masks: Sequence[Mask], num_threads: int = 1) -> None:
    """Adds every mask to contiguous `values` in place, modulo 2^bits of their type; each thread takes a part of the array."""
    flat = values.reshape(-1).view(f"<u{values.itemsize}")
    share = -(-flat.nbytes // num_threads // BLOCK_BYTES) * BLOCK_BYTES or BLOCK_BYTES
    starts = range(0, flat.nbytes, share)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(lambda start: _add_part(flat, masks, start, min(start + share, flat.nbytes)), starts))


def _add_part(flat: NDArray[np.unsignedinteger], masks: Sequence[Mask], start: int, stop: int) -> None:
    """The masks of bytes start:stop of the array, where `start` is at a block of the cipher."""
    counter = (start // CIPHER_BLOCK).to_bytes(CIPHER_BLOCK, "big")
    streams = [Cipher(AES(mask.seed), CTR(counter)).encryptor() for mask in masks]
    zeros, keystream = bytes(BLOCK_BYTES), np.empty(BLOCK_BYTES + CIPHER_BLOCK, np.uint8)
    for place in range(start, stop, BLOCK_BYTES):
        size = min(BLOCK_BYTES, stop - place)
        part = flat[place // flat.itemsize : (place + size) // flat.itemsize]
        for stream, mask in zip(streams, masks, strict=True):
            stream.update_into(zeros[:size] if size < BLOCK_BYTES else zeros, keystream.data)
            (np.add if mask.sign > 0 else np.subtract)(part, keystream[:size].view(flat.dtype), out=part)
