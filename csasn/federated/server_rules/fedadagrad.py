"""FedAdagrad: nothing is forgotten, so that steps become smaller from round to round (Reddi et al., "Adaptive federated
optimization", ICLR 2021, algorithm 2)."""

from csasn.federated.quantise import Floats32
from csasn.federated.server_rules.adaptive import Adaptive, Decay


class FedAdagrad(Adaptive):
    """v ← v + mean²; without momentum unless `beta1` is given, as in the paper's experiments."""

    beta1: Decay = 0.0

    def second_moment(self, second_P: Floats32, square_P: Floats32) -> Floats32:
        """The sum of all squares."""
        return second_P + square_P


FEDADAGRAD = FedAdagrad()
