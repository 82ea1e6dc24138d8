"""FedDyn: dynamic regularisation (Acar et al., "Federated learning based on dynamic regularization", ICLR 2021, algorithm 1).

Site k minimises F_k(w) - ⟨h_k, w⟩ + α/2 ‖w - w_r‖², where w_r is the model that it received, and then h_k ← h_k - α (w_k - w_r).
Where that is minimised, the new h_k is the gradient of F_k at w_k, so that nothing moves at a stationary point of the mean of all
F_k, which FedAvg misses by what sites drift apart. The server's half is csasn/federated/server_rules/feddyn.py.

The gradient goes through the study's optimiser. AdamW has the same minimum, but for its weight decay, which is no part of F_k.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from csasn.errors import ConfigurationError
from csasn.learning.objectives.fedprox import add_proximal_gradient
from csasn.learning.objectives.objective import LocalObjective, Vector
from csasn.study import Study


class FedDyn(LocalObjective):
    """The linear term h_k, 0 at first, and the proximal term of strength α."""

    remembers: ClassVar[bool] = True
    alpha: Annotated[float, Field(gt=0)] = 0.1

    def check(self, study: Study) -> None:
        """Refuses any other rule of the server."""
        super().check(study)
        if study.federation.server_rule != "feddyn":
            raise ConfigurationError(
                f"local_objective feddyn with server_rule {study.federation.server_rule}, expected feddyn: its other half",
                "write server_rule: feddyn in the study",
            )

    def add_gradient(self, parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        """α (w - w_r)."""
        add_proximal_gradient(parameters, received, self.alpha)

    def correction(self, memory_P: Vector, control_P: Vector) -> Vector:  # noqa: ARG002 - it has no controls
        """-h_k."""
        return -memory_P

    def remember(self, memory_P: Vector, control_P: Vector, update_P: Vector, total_rate: float) -> Vector:  # noqa: ARG002
        """h_k - α (w_k - w_r)."""
        return memory_P - np.float32(self.alpha) * update_P


FEDDYN = FedDyn()
