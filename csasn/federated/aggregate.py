"""Sums of uploads, and the step that a sum stands for: exact integers, so the order of sites never matters."""

from collections.abc import Sequence

import numpy as np

from csasn.errors import ProtocolError
from csasn.federated.quantise import Floats32, Floats64, SignedIntegers, largest_magnitude
from csasn.model.segments import Segment
from csasn.trust.membership import WEIGHT_UNITS


def check_bound(upload_P: SignedIntegers, largest: int) -> None:
    """Refuses an upload with a value beyond what the weight of its site allows.

    Raises:
        ProtocolError: a value is beyond ±`largest`.
    """
    if upload_P.size and max(int(upload_P.max()), -int(upload_P.min())) > largest:
        raise ProtocolError(f"the update holds values beyond ±{largest}, what the weight of the site allows")


def add_integers(total: SignedIntegers | None, part: SignedIntegers) -> SignedIntegers:
    """Σ with one more site's integers, modulo 2^bits of their own type. It holds any sum of uploads by construction
    (`check_bound`), and masks cancel in it.

    They are added as they arrive, so that a coordinator never holds more than one upload; integers add up alike in any order.
    """
    return part.copy() if total is None else np.add(total, part, out=total)


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
