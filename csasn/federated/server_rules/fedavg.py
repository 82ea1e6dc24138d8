"""FedAvg (McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017, algorithm 1):
the model moves by the mean update, weighted by the sites' shares."""

from typing import ClassVar

from csasn.federated.messages import Step
from csasn.federated.server_rules.rule import Memory, ServerRule, StepForm


class FedAvg(ServerRule):
    """w ← w + mean. The step is the summed integers themselves: nothing is rounded, nothing is remembered."""

    words: ClassVar[str] = "the model moves by the mean of the sites' updates"

    def step(self, summed: Step, memory: Memory, form: StepForm) -> tuple[Step, Memory]:  # noqa: ARG002 - neither is needed
        """The sum as it is."""
        return summed, {}


FEDAVG = FedAvg()
