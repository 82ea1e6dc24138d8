"""FedDyn's half at the server (Acar et al., "Federated learning based on dynamic regularization", ICLR 2021, algorithm 1).

    h ← h - α mean,   w ← w + mean - h / α

where mean is that of the sites' updates, weighted by their shares. With d = -h / α, the sum of all means so far, α is not needed.
"""

from typing import ClassVar, Self

from csasn.errors import ConfigurationError
from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.rule import Memory, ServerRule
from csasn.study import Federation


class FedDynRule(ServerRule):
    """d ← d + mean,   w ← w + mean + d;   d starts at 0, and anew where sites begin anew with what they remember."""

    follows_sites: ClassVar[bool] = True

    def configured(self, federation: Federation) -> Self:
        """Refuses any other local objective."""
        if federation.local_objective != "feddyn":
            raise ConfigurationError(
                f"server_rule feddyn with local_objective {federation.local_objective}, expected feddyn: its other half",
                "write local_objective: feddyn in the study",
            )
        return super().configured(federation)

    def move(self, mean_P: Floats32, memory: Memory) -> tuple[Floats32, Memory]:
        """mean + d, and d."""
        drift_P = memory["drift"] + mean_P if memory else mean_P
        return mean_P + drift_P, {"drift": drift_P}


FEDDYN_RULE = FedDynRule()
