"""FedProx (Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, eq. 2).

A site minimises F_k(w) + μ/2 ‖w - w_r‖², where w_r is the model that it received. The second term enters as its gradient
μ(w - w_r), on trainable parameters, never on buffers.
"""

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor

from csasn.learning.objectives.objective import LocalObjective, gradients_of
from csasn.platform.configuration import validate
from csasn.study import Federation


class FedProx(LocalObjective):
    """The proximal term of strength μ; with 0 it is FedAvg's objective."""

    proximal_mu: Annotated[float, Field(ge=0)] = 0.0

    def configured(self, federation: Federation) -> Self:
        """With the study's `proximal_mu`, a key of its own."""
        options = {**federation.local_options, "proximal_mu": federation.proximal_mu}
        return validate(type(self), options, "federation.local_options")

    def add_gradient(self, parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        """μ(w - w_r); nothing at all without μ."""
        if self.proximal_mu:
            add_proximal_gradient(parameters, received, self.proximal_mu)


@torch.no_grad()
def add_proximal_gradient(parameters: Sequence[Tensor], received: Sequence[Tensor], mu: float) -> None:
    """Adds μ(w - w_r) to each parameter's gradient, fused over the tensors; the difference first, so that it is 0 where w = w_r."""
    torch._foreach_add_(gradients_of(parameters), torch._foreach_sub(list(parameters), list(received)), alpha=mu)


FEDPROX = FedProx()
