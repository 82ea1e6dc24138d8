"""The multi-task loss with masked labels and global class weights.

B images, K classes. For each task t with weight v_t and labelled images S_t:

    loss = Σ_t v_t · 1/|S_t| · Σ_{i in S_t} ω[class_i] · CE(f_t(x_i) + a_t, y_ti)

Dividing by |S_t| and not by the sum of the weights matters: with the latter, ω cancels at a site that holds one class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from csasn.federated.weighting import ClassWeights
from csasn.study import MALIGNANCY, SUBTYPE, Study


@dataclass(frozen=True)
class LossTerms:
    """Constants of a round: task weights v, ω (K,) and the logit adjustment of each task (num values,)."""

    task_weights: Mapping[str, float]
    omega_K: Tensor
    adjustments: Mapping[str, Tensor]

    @classmethod
    def of(cls, study: Study, weights: ClassWeights, device: torch.device | None = None) -> Self:
        """Terms for a study; malignancy is adjusted by the log odds of its summed priors, descriptors are not adjusted.

        A weighting that acts on the decision leaves the loss as it is.
        """
        task_weights = {name: task.weight for name, task in study.tasks.items()}
        if study.class_weighting.acts_on == "decision":
            return cls(task_weights, torch.ones(len(study.classes), device=device), {})
        adjustments = {SUBTYPE: torch.as_tensor(weights.adjustment_K, dtype=torch.float32, device=device)}
        if MALIGNANCY in study.tasks:
            share = float(weights.prior_K[list(study.malignant_classes)].sum())
            adjustments[MALIGNANCY] = weights.tau * torch.tensor([1 - share, share], dtype=torch.float32, device=device).log()
        omega_K = torch.as_tensor(weights.omega_K, dtype=torch.float32, device=device)
        return cls(task_weights, omega_K, adjustments)


def count_labelled(labels: Mapping[str, Tensor]) -> dict[str, int]:
    """|S_t|: the number of labelled images of each task in a batch; a missing label is -1."""
    return {task: int((labels_B >= 0).sum()) for task, labels_B in labels.items()}


def multitask_loss(
    logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], terms: LossTerms, num_labelled: Mapping[str, int] | None = None
) -> Tensor:
    """The loss of a batch, or of one part of it.

    Args:
        logits: per task (B, num values).
        labels: per task (B,), -1 where missing.
        terms: the round's constants.
        num_labelled: |S_t| of the whole batch where `logits` is a part of it, so that the parts' losses add up to the batch's.
    """
    counts = num_labelled or count_labelled(labels)
    classes_B = labels[SUBTYPE]
    omega_B = torch.where(classes_B >= 0, terms.omega_K[classes_B.clamp(min=0)], 1.0)
    total = logits[SUBTYPE].new_zeros(())
    for task, weight in terms.task_weights.items():
        adjusted = logits[task].float() + terms.adjustments.get(task, 0.0)
        losses_B = F.cross_entropy(adjusted, labels[task], reduction="none", ignore_index=-1)
        total = total + weight * (omega_B * losses_B).sum() / max(counts[task], 1)
    return total
