"""FedYogi: as FedAdam, but v grows and falls by at most (1 - β₂) mean² in a round, so that it does not forget large updates at once
(Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2; Zaheer et al., NeurIPS 2018)."""

import numpy as np

from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.adaptive import Adaptive, Decay


class FedYogi(Adaptive):
    """v ← v - (1 - β₂) mean² sign(v - mean²)."""

    beta2: Decay = 0.99

    def second_moment(self, second_P: Floats32, square_P: Floats32) -> Floats32:
        """Towards mean², in steps of its own size."""
        return np.asarray(second_P - (1 - self.beta2) * square_P * np.sign(second_P - square_P))


FEDYOGI = FedYogi()
