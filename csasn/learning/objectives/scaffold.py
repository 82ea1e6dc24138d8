"""SCAFFOLD (Karimireddy et al., "Stochastic controlled averaging for federated learning", ICML 2020, algorithm 1, option II).

Site k adds c - c_k to each gradient, c the mean of all c_k, and after K steps of rate η from w_r to w_k

    c_k ← c_k - c + (w_r - w_k) / (K η)

which is the mean of its gradients on the way: with c - c_k a site steps by an estimate of the gradient of all sites. c is a second
part of the shared state, which moves by the mean of what the c_k moved, as weights do; all sites take part in every round.

A step of AdamW is no gradient times η, so that (w_r - w_k) / (K η) would be of another unit than the gradients to which c - c_k is
added: the local optimiser is SGD. Its weight decay is a part of F_k, and so of c_k.
"""

from typing import ClassVar

import numpy as np

from csasn.errors import ConfigurationError
from csasn.learning.objectives.objective import LocalObjective, Vector
from csasn.study import Study


class Scaffold(LocalObjective):
    """The controls c_k, 0 at first; no options."""

    remembers: ClassVar[bool] = True
    controls: ClassVar[bool] = True

    def check(self, study: Study) -> None:
        """Refuses AdamW, rates by layer, and any rule of the server but the mean."""
        super().check(study)
        if study.optimiser.kind != "sgd":
            raise ConfigurationError(
                f"local_objective scaffold with optimiser.kind {study.optimiser.kind}, expected sgd: a control is the mean "
                "gradient, which an update tells of SGD alone",
                "write optimiser.kind: sgd, with a learning rate for it, in the study",
            )
        if study.optimiser.layer_decay != 1:
            raise ConfigurationError(
                f"local_objective scaffold with optimiser.layer_decay {study.optimiser.layer_decay}, expected 1: a control is told "
                "by one rate for all weights",
                "leave layer_decay out of the study",
            )
        if study.federation.server_rule != "fedavg":
            raise ConfigurationError(
                f"local_objective scaffold with server_rule {study.federation.server_rule}, expected fedavg: controls move by "
                "their mean alone",
                "write server_rule: fedavg in the study",
            )

    def correction(self, memory_P: Vector, control_P: Vector) -> Vector:
        """c - c_k."""
        return control_P - memory_P

    def remember(self, memory_P: Vector, control_P: Vector, update_P: Vector, total_rate: float) -> Vector:
        """c_k - c - (w_k - w_r) / (K η)."""
        return memory_P - control_P - update_P / np.float32(total_rate)


SCAFFOLD = Scaffold()
