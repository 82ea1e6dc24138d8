"""Sums of uploads, and the step that a sum stands for: exact integers, so the order of sites never matters."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.federated.quantise import (
    WEIGHT_UNITS,
    Floats32,
    Floats64,
    SignedIntegers,
    integer_type,
    largest_magnitude,
    largest_upload,
)
from csasn.federated.segments import Segment


def check_upload(upload_P: SignedIntegers, num_values: int, bits: int, num_sites: int, weight_units: int) -> None:
    """Refuses an upload that the study does not allow.

    Raises:
        ProtocolError: wrong type, wrong size, or a value beyond floor(p L).
    """
    dtype = integer_type(bits)
    if upload_P.dtype != dtype or upload_P.shape != (num_values,):
        raise ProtocolError(f"the update has shape {upload_P.shape} of {upload_P.dtype}, expected ({num_values},) of {dtype}")
    largest = largest_upload(bits, num_sites, weight_units)
    if num_values and max(int(upload_P.max()), -int(upload_P.min())) > largest:
        raise ProtocolError(f"the update holds values beyond ±{largest}, what the weight of the site allows")


def add_upload(sum_P: SignedIntegers | None, upload_P: SignedIntegers) -> SignedIntegers:
    """Σ x with one more site's x, in the upload's own type, which holds any sum of all sites by construction (`check_upload`).

    Uploads are added as they arrive, so that a coordinator never holds more than one; integers add up alike in any order.
    """
    return upload_P.copy() if sum_P is None else np.add(sum_P, upload_P, out=sum_P)


def sum_counts(counts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Σ of the sites' count vectors, in 2^64."""
    return np.asarray(np.sum([counts[site] for site in sorted(counts)], axis=0, dtype=np.int64))


def apply_step(
    state: Floats32, sum_P: SignedIntegers, segments: Sequence[Segment], sizes: Floats64, arrived_units: int
) -> Floats64:
    """Moves `state` (P + Q,) in place by the averaged update, sum · Δ / Σ p of the sites that arrived; the one function with which
    coordinator and sites go from round to round. Gives the largest |move| of each tensor."""
    largest = []
    for segment, size in zip(segments, sizes, strict=True):
        part = slice(segment.start, segment.stop)
        step = np.multiply(sum_P[part], size * WEIGHT_UNITS / arrived_units, dtype=np.float64).astype(np.float32)
        state[part] += step
        largest.append(largest_magnitude(step))
    return np.array(largest)
