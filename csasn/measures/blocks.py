"""Counts as named blocks of one vector of integers: the form in which they are summed over sites."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csasn.errors import ProtocolError

Integers = NDArray[np.int64]
Blocks = Mapping[str, Integers]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the blocks of a count vector, in order."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def size(self) -> int:
        """Number of integers of the vector."""
        return sum(int(np.prod(shape)) for _, shape in self.shapes)

    def pack(self, blocks: Blocks) -> Integers:
        """Blocks as one int64 vector."""
        if {name for name, _ in self.shapes} != set(blocks) or any(blocks[n].shape != s for n, s in self.shapes):
            raise ProtocolError("counts do not fit their layout", "the study at this site differs from the coordinator's")
        return np.concatenate([blocks[name].astype(np.int64).ravel() for name, _ in self.shapes])

    def unpack(self, vector: Integers) -> dict[str, Integers]:
        """The blocks of a vector.

        Raises:
            ProtocolError: the vector is not int64 of this layout's size.
        """
        if vector.shape != (self.size,) or vector.dtype != np.int64:
            raise ProtocolError(f"counts have {vector.size} values of {vector.dtype}, expected {self.size} of int64", "")
        ends = np.cumsum([int(np.prod(shape)) for _, shape in self.shapes])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}
