"""What a local objective is: a term that a site adds to the loss of its cases, by its gradient, and what it may remember for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.errors import ConfigurationError
from csasn.model.state import StateLayout
from csasn.platform.configuration import Configuration, validate
from csasn.platform.registry import LOCAL_OBJECTIVES, load
from csasn.study import Federation, Study

Vector = NDArray[np.float32]
WITH_MEMORY = ("fixbn", "silo", "group", "frozen")  # of batchnorm: what is trained is what is shared, and nothing else is shared


class LocalObjective(Configuration):
    """A local objective; its fields are the options that a study may give. This one adds nothing.

    One that `remembers` has a vector (P,) at each site from round to round, P trainable values, which never leaves it. With
    `controls` the mean of these over all sites is a second part of the shared state: what a site's own moved is a part of its
    update, and leaves the site within the masked sum alone.
    """

    remembers: ClassVar[bool] = False
    controls: ClassVar[bool] = False

    def configured(self, federation: Federation) -> Self:
        """This objective with the study's options.

        Raises:
            ConfigurationError: it has no such option, or not with that value.
        """
        return validate(type(self), federation.local_options, "federation.local_options")

    def check(self, study: Study) -> None:
        """Refuses a study that this objective cannot go together with.

        With masked sums every site goes on from what it remembers or none does; else one that lost it would bias every round after.

        Raises:
            ConfigurationError: it cannot.
        """
        federation, name = study.federation, study.federation.local_objective
        if self.remembers and not federation.secure_aggregation:
            raise ConfigurationError(
                f"local_objective {name} with secure_aggregation false, expected true: what a site remembers is carried on by "
                "all sites or by none, which masked sums alone can tell",
                "write secure_aggregation: true, which wants three sites or more, or local_objective: fedprox",
            )
        if self.remembers and federation.batchnorm not in WITH_MEMORY:
            raise ConfigurationError(
                f"local_objective {name} with batchnorm {federation.batchnorm}, expected {', '.join(WITH_MEMORY)}: what is "
                "remembered is of what is both trained and shared",
                f"write batchnorm: {WITH_MEMORY[0]} in the study",
            )

    def add_gradient(self, parameters: Sequence[Tensor], received: Sequence[Tensor]) -> None:
        """Adds the term's gradient to that of each trainable parameter, before each step of the optimiser; `received` are their
        values in the model that the site received. A parameter without a label in the batch has no gradient."""

    def correction(self, memory_P: Vector, control_P: Vector) -> Vector:
        """The part of the gradient (P,) that is the same in each step of a round; `control_P` is received, and all 0 without
        controls. For an objective that remembers."""
        raise NotImplementedError

    def remember(self, memory_P: Vector, control_P: Vector, update_P: Vector, total_rate: float) -> Vector:
        """What is remembered (P,) after a round whose training moved the weights by `update_P`, in steps whose learning rates add
        up to `total_rate`; a new array."""
        raise NotImplementedError


@dataclass(frozen=True)
class Remembered:
    """What an objective that remembers begins a round with; `control_P` is 0 without controls."""

    objective: LocalObjective
    layout: StateLayout
    memory_P: Vector
    control_P: Vector

    @classmethod
    def of(cls, objective: LocalObjective, layout: StateLayout, model: Vector, kept_P: Vector | None) -> Self | None:
        """From the received state and what the site kept, or from the mean of all sites where it kept nothing: then none did, and
        the mean stays what it is. None for an objective that remembers nothing."""
        if not objective.remembers:
            return None
        num_weights = layout.weights[-1].stop
        control_P = model[num_weights : layout.num_shared] if layout.num_controls else np.zeros(num_weights, np.float32)
        return cls(objective, layout, control_P if kept_P is None else kept_P, control_P)

    def corrections(self, network: nn.Module) -> tuple[Tensor, ...]:
        """The gradient that is added in each step of the round, of each trainable parameter in the order of the network's own."""
        places = {segment.name: segment for segment in self.layout.weights}
        vector = torch.from_numpy(self.objective.correction(self.memory_P, self.control_P))
        trained = [(places[name], parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
        return tuple(vector[at.start : at.stop].reshape(at.shape).to(parameter.device) for at, parameter in trained)

    def finish(self, update: Vector, total_rate: float) -> Vector:
        """What is remembered (P,) after the round. `update` is local less received state; its controls, where there are any, are
        filled in: what the memory moved."""
        num_weights = self.memory_P.size
        after_P = self.objective.remember(self.memory_P, self.control_P, update[:num_weights], total_rate)
        if self.layout.num_controls:
            update[num_weights:] = after_P - self.memory_P
        return after_P


def local_objective(federation: Federation) -> LocalObjective:
    """The objective that the study names, with its options.

    Raises:
        ConfigurationError: see `load` and `LocalObjective.configured`.
    """
    return load(LOCAL_OBJECTIVES, federation.local_objective, LocalObjective).configured(federation)


def gradients_of(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of each parameter, 0 where a head has no label in the batch."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
