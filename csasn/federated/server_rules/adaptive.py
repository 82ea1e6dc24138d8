"""What FedAdagrad, FedAdam and FedYogi share (Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2): each weight
of the model moves by its mean update over the size that its updates have had."""

from abc import abstractmethod
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.rule import Memory, ServerRule

Decay = Annotated[float, Field(ge=0, lt=1)]


class Adaptive(ServerRule):
    """m ← β₁ m + (1 - β₁) mean,   v ← v'(v, mean²),   w ← w + η m / (√v + τ);   m starts at 0, v at τ².

    η is `learning_rate`, about how far a weight goes in a round; τ bounds how far one with small updates does. v' is what the three
    differ in.
    """

    words: ClassVar[str] = "each weight moves by the mean of the sites' updates, over the size that its own have had"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    beta1: Decay = 0.9
    tau: Annotated[float, Field(ge=1e-8)] = 1e-3  # τ² of far less is 0 in float32

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """η m / (√v + τ), and m and v."""
        first_P = self.beta1 * memory.get("first", np.zeros_like(mean_P)) + (1 - self.beta1) * mean_P
        second_P = self.second_moment(memory.get("second", np.full_like(mean_P, self.tau**2)), np.square(mean_P))
        size_P: Floats32 = np.sqrt(second_P) + np.float32(self.tau)
        return np.float32(self.learning_rate) * first_P / size_P, {"first": first_P, "second": second_P}

    @abstractmethod
    def second_moment(self, second_P: Floats32, square_P: Floats32) -> Floats32:
        """v' (P,), from v of the round before and mean²."""
