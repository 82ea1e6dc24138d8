"""The mean of the models of the rounds under exponential weights (Polyak & Juditsky, "Acceleration of stochastic approximation by
averaging", 1992; the weights as in Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017, eq. 1)."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from csasn.federated.aggregate import mean_update
from csasn.federated.messages import Step
from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.rule import LEFT_OVER, Memory, ServerRule, StepForm, quantise_step


class Averaged(ServerRule):
    """w ← w + mean, as FedAvg; after the last round the model becomes the mean v of those of the rounds:

        v ← β v + (1 - β) w,   v = w before round 1

    Remembered is d = w - v, so that d ← β (d + mean), and the last move is mean - d; β is `decay`. That is a step like any other:
    sites evaluate the mean as they evaluate each model before it, and a model that was evaluated is released.
    """

    words: ClassVar[str] = "as fedavg, and in the end the mean of the models of the last rounds"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.8

    def step(self, summed: Step, memory: Memory, form: StepForm) -> tuple[Step, Memory]:
        """As any rule's, but the last one moves to the mean and leaves nothing to remember."""
        if not form.last:
            return super().step(summed, memory, form)
        mean_P = mean_update(summed, form.segments)
        _, after = self.move(mean_P, memory)
        left_over_P = memory.get(LEFT_OVER, np.zeros_like(mean_P))
        return quantise_step(mean_P - after["ahead"], left_over_P, form)[0], {}

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """The mean update, and d."""
        return mean_P, {"ahead": np.float32(self.decay) * (memory.get("ahead", np.zeros_like(mean_P)) + mean_P)}


AVERAGED = Averaged()
