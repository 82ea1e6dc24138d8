"""Sums of uploads, and the step that a sum stands for: exact integers, so the order of sites never matters."""

from collections.abc import Iterator, Sequence

import numpy as np

from csasn.errors import ProtocolError
from csasn.federated.messages import Step
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


def apply_step_(state: Floats32, step: Step, segments: Sequence[Segment]) -> None:
    """Moves `state` (P + Q,) in place, as the underscore says, since a copy is a whole model: the one function with which
    coordinator and sites go from round to round."""
    for part, move in _moves(step, segments):
        state[part] += move


def mean_update(step: Step, segments: Sequence[Segment]) -> Floats32:
    """What a step moves (P,): of the sum of updates, their mean."""
    return np.concatenate([move for _, move in _moves(step, segments)])


def largest_moves(step: Step, segments: Sequence[Segment]) -> Floats64:
    """The largest |move| of each tensor, from the largest integer of it: rounding keeps the order."""
    integers = [largest_magnitude(step.sum_P[segment.start : segment.stop]) for segment in segments]
    return (np.array(integers) * _factors(step)).astype(np.float32).astype(np.float64)


def _factors(step: Step) -> Floats64:
    """Δ / Σ p of the sites that arrived, of each tensor."""
    return np.asarray(step.sizes * WEIGHT_UNITS / step.arrived_units)


def _moves(step: Step, segments: Sequence[Segment]) -> Iterator[tuple[slice, Floats32]]:
    """The place of each tensor, and x · Δ / Σ p there."""
    for segment, factor in zip(segments, _factors(step), strict=True):
        yield segment.part, np.multiply(step.sum_P[segment.part], factor, dtype=np.float64).astype(np.float32)
