"""Updates as bounded integers, with stochastic rounding and error feedback.

A site of weight p (its public share) sends x = round((p·u + e) / Δ), clipped to ±floor(p L), where u is its update, e what earlier
rounds left over, Δ the step size of the tensor and L = 2^(bits-1) - 1 - n for n sites. So every sum of n sites fits in `bits` bits.
What is rounded or clipped off is the next e (error feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csasn.errors import TrainingError
from csasn.model.segments import CONTROL, Segment
from csasn.trust.membership import WEIGHT_UNITS

Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
SignedIntegers = NDArray[np.signedinteger]

BLOCK = 1 << 16  # values handled at a time, in buffers that stay in the processor's cache
FIRST_RANGE = 0.05  # of a parameter's update in round 1
FIRST_CONTROL_RANGE = 1.0  # of a control, which has the size of a gradient
HEADROOM = 4.0  # a site's update may pass the last step of the sum by this factor
_DTYPES: dict[int, np.dtype[np.signedinteger]] = {8: np.dtype("int8"), 16: np.dtype("<i2"), 32: np.dtype("<i4")}


def integer_type(bits: int) -> np.dtype[np.signedinteger]:
    """The little-endian integer type of an upload."""
    return _DTYPES[bits]


def bits_of_round(upload_bits: int, current_round: int) -> int:
    """Bits of a value in a round: round 1, whose ranges are guesses, has at least 16."""
    return max(upload_bits, 16) if current_round == 1 else upload_bits


def largest_sum(bits: int, num_sites: int) -> int:
    """L: the largest magnitude of a sum of all sites."""
    return (1 << (bits - 1)) - 1 - num_sites


def largest_upload(bits: int, num_sites: int, weight_units: int) -> int:
    """floor(p L): the largest magnitude that a site of weight `weight_units`/64 may send."""
    return largest_sum(bits, num_sites) * weight_units // WEIGHT_UNITS


@dataclass(frozen=True)
class Scale:
    """How one site writes an update as integers.

    `sizes` holds Δ of each of `segments`, `weight_units` is p in 1/64, `largest` is floor(p L), `dtype` the type of the upload.
    """

    segments: tuple[Segment, ...]
    sizes: Floats64
    weight_units: int
    largest: int
    dtype: np.dtype[np.signedinteger]


@dataclass(frozen=True)
class Quantised:
    """An upload x (P,), what it leaves over e (P,), and how many values were clipped."""

    integers_P: SignedIntegers
    residual_P: Floats32
    num_clipped: int


def quantise(update_P: Floats32, residual_P: Floats32, scale: Scale, random: np.random.Generator) -> Quantised:
    """The upload of one site.

    Args:
        update_P: local minus received weights; used up, since the left-over is written in its place.
        residual_P: the committed left-over e, already weighted.
        scale: how to write it.
        random: for stochastic rounding, derived from (study seed, site, number of the question).

    Raises:
        TrainingError: a value is not finite.
    """
    integers_P = np.empty(update_P.shape, scale.dtype)
    buffers = np.empty((3, BLOCK))
    num_clipped = 0
    for segment, step in zip(scale.segments, scale.sizes, strict=True):
        for start in range(segment.start, segment.stop, BLOCK):
            part = slice(start, min(start + BLOCK, segment.stop))
            wanted, rounded, kept = buffers[:, : part.stop - start]
            np.multiply(update_P[part], scale.weight_units / WEIGHT_UNITS, out=wanted, dtype=np.float64)
            wanted += residual_P[part]
            if not np.isfinite(wanted).all():
                raise TrainingError("the update holds values that are not finite", "lower optimiser.learning_rate in the study")
            random.random(out=rounded)
            rounded += np.divide(wanted, step, out=kept)
            np.floor(rounded, out=rounded)
            np.clip(rounded, -scale.largest, scale.largest, out=kept)
            num_clipped += int(np.count_nonzero(kept != rounded))
            integers_P[part] = kept
            kept *= step
            np.subtract(wanted, kept, out=update_P[part], casting="same_kind")
    return Quantised(integers_P, update_P, num_clipped)


def first_ranges(segments: Sequence[Segment], state: Floats32) -> Floats64:
    """Ranges of round 1: 0.05 for parameters, 1 for controls; running statistics may double, so theirs follow the initial state."""
    return np.array([_first_range(segment, state) for segment in segments])


def _first_range(segment: Segment, state: Floats32) -> float:
    if segment.is_statistic:
        return max(1.0, 2 * largest_magnitude(state[segment.start : segment.stop]))
    return FIRST_CONTROL_RANGE if segment.name.startswith(CONTROL) else FIRST_RANGE


def largest_magnitude(values: Floats32 | SignedIntegers) -> float:
    """max |v|, without a copy of the values."""
    return max(float(values.max()), -float(values.min()))


def next_ranges(largest: Floats64, ranges: Floats64, num_controls: int = 0) -> Floats64:
    """Ranges of the next round, from the largest move of each tensor in the last summed step alone: four times that, or that of the
    median tensor where it is more (in a bias of a few values the moves of sites can cancel), and at least a quarter of the last.
    Where values were clipped the largest move is near the range, so that the next one is nearly four times as wide. The last
    `num_controls` are of another unit, and have a median of their own."""
    parts = [part for part in np.split(largest, [len(largest) - num_controls]) if len(part)]
    widest = np.concatenate([np.maximum(part, np.median(part)) for part in parts])
    return np.asarray(np.maximum(HEADROOM * widest, ranges / 4))


def step_sizes(ranges: Floats64, bits: int, num_sites: int) -> Floats64:
    """Δ of each tensor: its range is what the largest sum stands for."""
    return ranges / largest_sum(bits, num_sites)
