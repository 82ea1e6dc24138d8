"""The state of a network as one float32 vector: the shared part, which updates move, then the fixed part.

Shared are the trainable parameters and, with `batchnorm: shared`, the running statistics. Updates leave the fixed part as it is:
frozen parameters, and with `fixbn` and `silo` the running statistics, which are measured anew for each model
(csasn/learning/normalisation.py).
`num_batches_tracked` is no part of it. A local objective with controls (csasn/learning/objectives/) adds one to each trainable
parameter, behind all of them in the shared part; no network holds them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.errors import ModelError
from csasn.model.segments import CONTROL, Segment, segments_of
from csasn.platform.canonical import canonical

Vector = NDArray[np.float32]
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class StateLayout:
    """Names and places of all tensors in the state vector; `shared` come first, the last `num_controls` of them controls."""

    shared: tuple[Segment, ...]
    fixed: tuple[Segment, ...]
    num_controls: int = 0

    @classmethod
    def of(cls, network: nn.Module, batchnorm: str, *, controls: bool = False) -> Self:
        """The layout of a network, tensors sorted by name within each part."""
        shared = {name: tuple(p.shape) for name, p in network.named_parameters() if p.requires_grad}
        floats = {name: tuple(t.shape) for name, t in network.state_dict().items() if t.is_floating_point()}
        if batchnorm == "shared":
            shared |= {name: floats[name] for name in statistics_of(network)}
        first = segments_of(shared)
        if controls:
            first += segments_of({CONTROL + name: shape for name, shape in shared.items()}, start=first[-1].stop)
        fixed = segments_of({n: s for n, s in floats.items() if n not in shared}, start=first[-1].stop)
        return cls(first, fixed, len(shared) if controls else 0)

    @property
    def weights(self) -> tuple[Segment, ...]:
        """Those of `shared` that a network holds."""
        return self.shared[: len(self.shared) - self.num_controls]

    @property
    def num_shared(self) -> int:
        """P: number of values that updates move, controls among them."""
        return self.shared[-1].stop

    @property
    def size(self) -> int:
        """P + Q: number of values of the whole state."""
        return self.fixed[-1].stop if self.fixed else self.num_shared

    def read(self, network: nn.Module) -> Vector:
        """The network's state as a vector (P + Q,); controls are 0."""
        tensors = network.state_dict()
        vector = np.zeros(self.size, np.float32)
        for segment in self.weights + self.fixed:
            vector[segment.start : segment.stop] = tensors[segment.name].detach().cpu().contiguous().numpy().ravel()
        return vector

    @torch.no_grad()
    def write(self, network: nn.Module, vector: Vector) -> None:
        """Loads a state vector into the network; a variance that rounding made negative becomes 0.

        Raises:
            ModelError: the vector has another size, or is not finite.
        """
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ModelError(
                f"state vector of {vector.size} values does not fit, expected {self.size} finite ones", "another study?"
            )
        tensors = network.state_dict()
        for segment in self.weights + self.fixed:
            values = torch.tensor(vector[segment.start : segment.stop]).reshape(segment.shape)
            tensors[segment.name].copy_(values.clamp(min=0) if segment.name.endswith("running_var") else values)

    def put(self, vector: Vector, tensors: Mapping[str, Vector]) -> None:
        """Writes tensors by name into a state vector, in place."""
        for segment in self.shared + self.fixed:
            if segment.name in tensors:
                vector[segment.start : segment.stop] = tensors[segment.name].ravel()

    def hash(self, vector: Vector) -> str:
        """SHA-256 (hex) over the canonical bytes of names and shapes, and little-endian float32 bytes."""
        digest = hashlib.sha256(canonical([[s.name, s.shape] for s in self.shared + self.fixed]))
        digest.update(np.ascontiguousarray(vector, dtype="<f4").data)
        return digest.hexdigest()


def normalisation_layers(network: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """The BatchNorm layers that train, in the order of their names; those of a frozen branch keep their statistics."""
    layers = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    found = {name: layer for name, layer in layers if layer.weight.requires_grad}
    yield from sorted(found.items())


def statistics_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the running statistics of the layers that train."""
    return tuple(f"{layer}.{name}" for layer, _ in normalisation_layers(network) for name in STATISTICS)


def read_tensors(network: nn.Module, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Copies of tensors by name."""
    tensors = network.state_dict()
    return {name: tensors[name].detach().cpu().numpy().copy() for name in names}


@torch.no_grad()
def write_tensors(network: nn.Module, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Loads tensors by name."""
    tensors: dict[str, Tensor] = network.state_dict()
    for name, array in values.items():
        tensors[name].copy_(torch.from_numpy(array))
