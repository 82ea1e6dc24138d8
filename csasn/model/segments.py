"""Named tensors at their places in one flat vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

CONTROL = "control."  # before the name of a tensor: its control, which moves with it and is in no network


@dataclass(frozen=True)
class Segment:
    """Tensor `name` of `shape` lies at vector[start:stop]."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def part(self) -> slice:
        """Where it lies."""
        return slice(self.start, self.stop)

    @property
    def is_statistic(self) -> bool:
        """Whether it is a running statistic of normalisation, which is measured and not trained."""
        return self.name.endswith(("running_mean", "running_var"))


def segments_of(shapes: Mapping[str, tuple[int, ...]], start: int = 0) -> tuple[Segment, ...]:
    """Segments for tensors of these shapes, sorted by name, the first at `start`."""
    segments = []
    for name, shape in sorted(shapes.items()):
        stop = start + prod(shape)
        segments.append(Segment(name, shape, start, stop))
        start = stop
    return tuple(segments)
