"""A site's personal model: the finished model with heads of its own (fine-tuned heads, as in Collins et al., "Exploiting shared
representations for personalized federated learning", ICML 2021, algorithm 1, line 8, here once, at the end).

It stays at the site. Nothing that leaves the site follows from it.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from csasn.data.cases import SiteData
from csasn.learning.loss import LossTerms
from csasn.learning.objectives.objective import LocalObjective
from csasn.learning.training import LocalPlan, num_epoch_images, num_epoch_steps, train_locally
from csasn.model.network import Csasn
from csasn.study import Study

HEAD_EPOCHS = 10


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
