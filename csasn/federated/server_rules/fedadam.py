"""FedAdam: Adam at the server, without correction of its beginning (Reddi et al., "Adaptive federated optimization", ICLR 2021,
algorithm 2)."""

from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.adaptive import Adaptive, Decay


class FedAdam(Adaptive):
    """v ← β₂ v + (1 - β₂) mean²."""

    beta2: Decay = 0.99

    def second_moment(self, second_P: Floats32, square_P: Floats32) -> Floats32:
        """A mean that forgets."""
        return self.beta2 * second_P + (1 - self.beta2) * square_P


FEDADAM = FedAdam()
