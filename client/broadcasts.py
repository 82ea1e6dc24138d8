"""What a site remembers of one broadcast to check the next: ranges follow from the step between, and the sums of ω go on.

It is in memory alone: a site that was started anew, or gets the whole model since it missed rounds, takes both as they come.
"""

from dataclasses import dataclass, replace

import numpy as np

from csasn.errors import ProtocolError
from csasn.federated.messages import Kind, Request, Weighting
from csasn.federated.quantise import WIDENING, Floats32, Floats64, first_ranges, next_ranges
from csasn.federated.segments import Segment

TOLERANCE = 1e-9
HINT = "nothing is sent; tell the coordinator, whose server may be tampered with"


@dataclass(frozen=True)
class Followed:
    """The ranges of the last request to train, the largest move of each tensor in the step since, and the sums of the last ω."""

    ranges: Floats64 | None = None
    largest: Floats64 | None = None
    weighting: Weighting | None = None

    def after_step(self, largest: Floats64) -> "Followed":
        """The model moved by the sum of the last round."""
        return replace(self, largest=largest)

    def after_whole(self) -> "Followed":
        """The model came whole: what led to it is not known."""
        return replace(self, ranges=None, largest=None)

    def check(self, request: Request, segments: tuple[Segment, ...], model: Floats32, max_widenings: int) -> "Followed":
        """What is remembered after `request`.

        Raises:
            ProtocolError: its ranges or the sums of its ω do not follow from what was seen before.
        """
        assert request.weighting is not None
        if self.weighting is not None and not _continues(self.weighting, request.weighting):
            raise ProtocolError("the sums of the class weights are others than those of the last broadcast", HINT)
        after = replace(self, weighting=request.weighting)
        if request.kind is not Kind.TRAIN or request.ranges is None:
            return after
        bases = self._bases(request.header.round, segments, model, max_widenings)
        widened = (base * WIDENING**times for base in bases for times in range(max_widenings))
        if bases and not any(np.allclose(request.ranges, ranges, rtol=TOLERANCE, atol=0) for ranges in widened):
            raise ProtocolError("the ranges of the tensors do not follow from the last step", HINT)
        return replace(after, ranges=request.ranges, largest=None)

    def _bases(self, current: int, segments: tuple[Segment, ...], model: Floats32, max_widenings: int) -> list[Floats64]:
        """Ranges before any widening in the round; of the round before, this site may have missed the last attempts."""
        if current == 1:
            return [first_ranges(segments, model)]
        if self.ranges is None:
            return []
        powers = [WIDENING**times for times in range(-max_widenings, max_widenings)]
        if self.largest is None:
            return [self.ranges * power for power in powers]
        return [next_ranges(self.largest, self.ranges * power) for power in powers]


def _continues(before: Weighting, after: Weighting) -> bool:
    """Whether the rounds that both know are the same; a coordinator that was killed may know one less than it said."""
    common = min(len(before.history_R3K), len(after.history_R3K))
    same_rounds = np.array_equal(before.history_R3K[:common], after.history_R3K[:common])
    return same_rounds and np.array_equal(before.histogram_K, after.histogram_K)
