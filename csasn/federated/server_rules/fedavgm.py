"""FedAvgM: momentum at the server (Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
classification", 2019, section 3.3)."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.rule import Memory, ServerRule


class FedAvgM(ServerRule):
    """v ← β v + mean,   w ← w + η v;   β is `momentum`, η `learning_rate`, v starts at 0."""

    words: ClassVar[str] = "the model moves by the mean of the sites' updates, and goes on a part of the way that it went before"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    learning_rate: Annotated[float, Field(gt=0)] = 1.0

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """η v, and v."""
        velocity_P = np.float32(self.momentum) * memory.get("velocity", np.zeros_like(mean_P)) + mean_P
        return np.float32(self.learning_rate) * velocity_P, {"velocity": velocity_P}


FEDAVGM = FedAvgM()
