"""The multi-task loss with masked labels and global class weights.

B images, K classes. For each task t with weight v_t and labelled images S_t:

    loss = Σ_t v_t · 1/|S_t| · Σ_{i in S_t} ω[class_i] · CE(f_t(x_i) + a_t, y_ti)

Dividing by |S_t| and not by the sum of the weights matters: with the latter, ω cancels at a site that holds one class. What the
study's `loss` puts in the place of CE is in csasn/SPEC.md, "Recipe".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from csasn.federated.weighting import ClassWeights
from csasn.study import MALIGNANCY, SUBTYPE, Study

SMALLEST_MISS = 1e-7  # of 1 - p, whose power has no slope at 0


@dataclass(frozen=True)
class LossTerms:
    """Constants of a round: task weights v, ω (K,), the logit adjustment of each task (num values,), and the changes of the loss:
    the margin of each task's values (num values,), the share of smoothed labels and the focal exponent."""

    task_weights: Mapping[str, float]
    omega_K: Tensor
    adjustments: Mapping[str, Tensor]
    margins: Mapping[str, Tensor] = field(default_factory=dict)
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0

    @classmethod
    def of(cls, study: Study, weights: ClassWeights, device: torch.device | None = None) -> Self:
        """Terms for a study; malignancy is adjusted by the log odds of its summed priors, descriptors are not adjusted.

        A weighting that acts on the decision leaves the loss as it is.
        """
        task_weights = {name: task.weight for name, task in study.tasks.items()}
        adjustments: dict[str, Tensor] = {}
        omega_K = torch.ones(len(study.classes), device=device)
        share = float(weights.prior_K[list(study.malignant_classes)].sum())
        if study.class_weighting.acts_on == "loss":
            adjustments[SUBTYPE] = torch.as_tensor(weights.adjustment_K, dtype=torch.float32, device=device)
            if MALIGNANCY in study.tasks:
                adjustments[MALIGNANCY] = weights.tau * torch.tensor([1 - share, share], dtype=torch.float32, device=device).log()
            omega_K = torch.as_tensor(weights.omega_K, dtype=torch.float32, device=device)
        margins: dict[str, Tensor] = {}
        if largest := study.loss.ldam_margin:
            margins[SUBTYPE] = ldam_margins(torch.as_tensor(weights.prior_K, device=device), largest)
            if MALIGNANCY in study.tasks:
                margins[MALIGNANCY] = ldam_margins(torch.tensor([1 - share, share], device=device), largest)
        return cls(task_weights, omega_K, adjustments, margins, study.loss.label_smoothing, study.loss.focal_gamma)


def ldam_margins(prior_K: Tensor, largest: float) -> Tensor:
    """m_c = largest · (min π / π_c)^¼ (K,): the rarest class of all sites together keeps the largest distance (Cao et al. 2019)."""
    return (largest * (prior_K.min() / prior_K) ** 0.25).float()


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
        total = total + weight * (omega_B * image_losses(adjusted, labels[task], terms, task)).sum() / max(counts[task], 1)
    return total


def image_losses(logits_BK: Tensor, labels_B: Tensor, terms: LossTerms, task: str) -> Tensor:
    """(B,) the loss of each image in one task from its logits, adjusted; 0 where the label is missing.

    With z = logits - m_y at the label y, p = softmax(z): (1 - p_y)^γ · [ (1 - ε) · -log p_y + ε · mean_k -log p_k ].
    """
    if (margins_K := terms.margins.get(task)) is not None:
        of_label_BK = F.one_hot(labels_B.clamp(min=0), logits_BK.shape[1])
        logits_BK = logits_BK - of_label_BK * margins_K
    smoothing, gamma = terms.label_smoothing, terms.focal_gamma
    losses_B = F.cross_entropy(logits_BK, labels_B, reduction="none", ignore_index=-1, label_smoothing=smoothing)
    if not gamma:
        return losses_B
    plain_B = F.cross_entropy(logits_BK, labels_B, reduction="none", ignore_index=-1) if smoothing else losses_B
    missed_B = (-torch.expm1(-plain_B)).clamp(min=SMALLEST_MISS)
    return missed_B**gamma * losses_B
