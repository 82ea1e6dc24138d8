"""A site's personal model. It stays at the site, and nothing that leaves the site follows from it.

`heads`: the finished model with heads of its own (fine-tuned heads, as in Collins et al., "Exploiting shared representations for
personalized federated learning", ICML 2021, algorithm 1, line 8, here once, at the end).

`ditto`: a model v_k beside the global one (Li et al., "Ditto: fair and robust federated learning through personalization", ICML
2021, algorithm 1). In each round site k, which received w_r, takes as many steps from its last v_k as from w_r, towards

    min over v of  F_k(v) + λ/2 ‖v - w_r‖²

With λ = 0 it is a model of the site's own cases alone; the larger λ, the nearer v_k stays to w_r.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.data.cases import SiteData
from csasn.learning.loss import LossTerms
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.objectives.objective import LocalObjective
from csasn.learning.training import LocalPlan, num_epoch_images, num_epoch_steps, train_locally
from csasn.model.network import Csasn
from csasn.model.state import read_tensors, statistics_of, write_tensors
from csasn.study import Study

HEAD_EPOCHS = 10
Tensors = Mapping[str, NDArray[np.float32]]


class _HeadsAlone(nn.Module):
    """A network of which the heads alone train: everything before them evaluates, and is no part of this module."""

    def __init__(self, network: Csasn) -> None:
        super().__init__()
        self.heads = network.heads
        self._features = network.eval().forward_classifier  # a method, so that its network is not registered here

    def forward(self, image_B1HW: Tensor, known: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        with torch.no_grad():
            features_BD = self._features(image_B1HW, known)
        with torch.autocast(features_BD.device.type, enabled=False):
            logits: dict[str, Tensor] = self.heads(features_BD)
        return logits


def tune_heads(network: Csasn, data: SiteData, study: Study, terms: LossTerms, site: str, micro_batch: int | None = None) -> None:
    """Trains the heads in place on the training cases of a site, ten epochs at the rate of the first round; all else is fixed,
    normalisation statistics too.

    Raises:
        TrainingError: the loss is not finite.
    """
    steps = HEAD_EPOCHS * num_epoch_steps(num_epoch_images(data, study), study.optimiser.batch_size)
    plan = LocalPlan(f"personal/{site}", 1, LocalObjective(), num_steps=steps, micro_batch=micro_batch)
    train_locally(_HeadsAlone(network), data, study, terms, plan)


def train_ditto(network: nn.Module, data: SiteData, study: Study, terms: LossTerms, plan: LocalPlan, last: Tensors) -> Tensors:
    """v_k after a round: all tensors that training moves, by name, normalisation statistics among them.

    The network holds w_r, and v_k afterwards. `plan` is that of the global model, `last` is v_k before the round, empty where there
    is none yet: it begins at w_r.

    Raises:
        TrainingError: the loss is not finite.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    received = [parameter.detach().clone() for parameter in trained.values()]
    write_tensors(network, last)
    objective = FedProx(proximal_mu=study.federation.personal_lambda)
    beside = replace(plan, site=f"personal/{plan.site}", objective=objective, corrections=(), received=received)
    train_locally(network, data, study, terms, beside)
    return read_tensors(network, [*trained, *statistics_of(network)])
