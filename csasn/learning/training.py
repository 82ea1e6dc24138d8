"""Local training on one site's cases: their loss, with the term of the local objective (csasn/learning/objectives/)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.data.cases import TRAIN, SiteData
from csasn.errors import TrainingError
from csasn.learning.augmentation import augment
from csasn.learning.loss import LossTerms, count_labelled, multitask_loss
from csasn.learning.mixup import Target, mix
from csasn.learning.objectives.objective import LocalObjective, gradients_of
from csasn.learning.rates import layer_groups, learning_rate
from csasn.learning.sampling import balanced_cases
from csasn.model.state import normalisation_layers
from csasn.platform.randomness import derive_seed, generator
from csasn.recipe import Augmentation
from csasn.study import Study

Indices = NDArray[np.int64]
OPTIMISERS: Mapping[str, type[torch.optim.AdamW | torch.optim.SGD]] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class LocalPlan:
    """One site's part of one round; `num_steps` None means the study's local epochs.

    The rate follows from `round`, randomness from `number`, that of the question, or the round where nothing was asked twice.
    `corrections` are added to the gradients of the trainable parameters in each step. `received` are those of the model that the
    objective compares with, where training begins elsewhere.
    """

    site: str
    round: int
    objective: LocalObjective
    num_steps: int | None = None
    micro_batch: int | None = None
    number: int | None = None
    corrections: Sequence[Tensor] = ()
    received: Sequence[Tensor] = ()

    @property
    def draws(self) -> int:
        """What tells the randomness of this training from that of another."""
        return self.round if self.number is None else self.number


@dataclass(frozen=True)
class LocalResult:
    """What training did: mean loss over its steps, how many, and the sum of their learning rates."""

    loss: float
    num_steps: int
    total_rate: float


def num_epoch_images(data: SiteData, study: Study) -> int:
    """How many images an epoch goes through: see `epoch_batches`."""
    cases = data.cases(TRAIN)
    if study.unit == "patient":
        return len(np.unique(data.patients_of(cases)))
    return len(cases) if study.images_per_case == "one" else sum(len(data.images_of(int(case))) for case in cases)


def num_epoch_steps(num_images: int, batch_size: int) -> int:
    """Optimiser steps of an epoch."""
    return -(-num_images // batch_size)


def epoch_batches(data: SiteData, study: Study, random: np.random.Generator, balanced: bool = False) -> Iterator[Indices]:
    """Image indices of an epoch's batches, of nearly equal size: each training case once, or each of its images.

    Where the study's unit is the patient, one case of each, drawn anew in each epoch. If `balanced`, as many of them by class.
    """
    cases = random.permutation(data.cases(TRAIN))
    if study.unit == "patient":
        _, first = np.unique(data.patients_of(cases), return_index=True)  # of a random order: any of the patient's cases
        cases = random.permutation(cases[first])  # they were in the order of patients
    if balanced:
        cases = balanced_cases(data, cases, random)
    if study.images_per_case == "one":
        images = np.array([random.choice(data.images_of(int(case))) for case in cases], dtype=np.int64)
    else:
        images = random.permutation(np.concatenate([data.images_of(int(case)) for case in cases]))
    yield from np.array_split(images, num_epoch_steps(len(images), study.optimiser.batch_size))


def load_images(data: SiteData, indices: Indices, device: torch.device) -> Tensor:
    """Images (B, 1, S, S) in 0..1 on the device."""
    return _as_images(data.images_NHW[indices], device)


def load_maps(data: SiteData, indices: Indices, device: torch.device) -> dict[str, Tensor]:
    """Known maps (B, C, h, w) of frozen branches on the device."""
    return _as_maps(data.maps_N, indices, device)


def load_changed(
    data: SiteData, indices: Indices, settings: Augmentation, random: np.random.Generator, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of a training batch as augmentation leaves them, and the known maps: of a view of each, where views are held."""
    if data.views:
        rows = data.views.draw(indices, random)
        return _as_images(data.views.images_MHW[rows], device), _as_maps(data.views.maps_M, rows, device)
    images_B1HW = load_images(data, indices, device)
    if settings.changes_images:
        images_B1HW = augment(images_B1HW, settings, random)
    return images_B1HW, load_maps(data, indices, device)


def _as_images(images_BHW: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images_BHW)).to(device, non_blocking=True)[:, None].float() / 255


def _as_maps(maps: Mapping[str, np.ndarray], indices: Indices, device: torch.device) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values[indices]).to(device, non_blocking=True).float() for name, values in maps.items()}


def run_network(network: nn.Module, images_B1HW: Tensor, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits of each task; maps that are known are not computed again."""
    logits: dict[str, Tensor] = network(images_B1HW, known) if known else network(images_B1HW)
    return logits


def load_labels(data: SiteData, indices: Indices, device: torch.device) -> dict[str, Tensor]:
    """Labels (B,) of each task on the device, -1 where missing."""
    return {task: torch.from_numpy(labels_N[indices]).to(device) for task, labels_N in data.labels_N.items()}


def train_locally(
    network: nn.Module, data: SiteData, study: Study, terms: LossTerms, plan: LocalPlan, on_step: Callable[[], None] | None = None
) -> LocalResult:
    """Trains the network in place, from the state it holds.

    All randomness derives from (study seed, site, number): a repeated question gives the same update at equal thread counts.

    Raises:
        TrainingError: the loss is not finite.
    """
    device = next(network.parameters()).device
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    received = plan.received or [parameter.detach().clone() for parameter in parameters]
    rate = learning_rate(study.optimiser, plan.round, study.federation.rounds)
    groups = layer_groups(network, parameters, study.optimiser.layer_decay, rate)
    optimiser = OPTIMISERS[study.optimiser.kind](groups, lr=rate, weight_decay=study.optimiser.weight_decay, fused=True)
    random = generator(study.seed, "train", plan.site, plan.draws)
    losses, total_rate = [], 0.0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(study.seed, "dropout", plan.site, plan.draws) % 2**63)
        network.train()
        if not study.federation.trains_by_batches(plan.round):
            for _, layer in normalisation_layers(network):
                layer.eval()
        for indices in _batches(data, study, plan, random):
            optimiser.zero_grad()
            losses.append(_accumulate_gradient(network, data, indices, study, terms, plan, random))
            if not np.isfinite(losses[-1]):
                raise TrainingError(
                    f"loss is {losses[-1]} at step {len(losses)} of round {plan.round}, expected a finite number",
                    "lower optimiser.learning_rate in the study",
                )
            plan.objective.add_gradient(parameters, received)
            if plan.corrections:
                torch._foreach_add_(gradients_of(parameters), list(plan.corrections))
            optimiser.step()
            total_rate += optimiser.param_groups[0]["lr"]
            if on_step:
                on_step()
    return LocalResult(float(np.mean(losses)), len(losses), total_rate)


def _batches(data: SiteData, study: Study, plan: LocalPlan, random: np.random.Generator) -> Iterator[Indices]:
    balanced = study.sampling == "balanced"
    if plan.num_steps is None:
        for _ in range(study.federation.local_epochs):
            yield from epoch_batches(data, study, random, balanced)
        return
    left = plan.num_steps
    while left:
        for batch in epoch_batches(data, study, random, balanced):
            if left:
                left -= 1
                yield batch


def _accumulate_gradient(
    network: nn.Module,
    data: SiteData,
    indices: Indices,
    study: Study,
    terms: LossTerms,
    plan: LocalPlan,
    random: np.random.Generator,
) -> float:
    """The loss of a batch, its gradient left in the parameters; micro batches add up to the same gradient in less memory."""
    device = terms.omega_K.device
    images_B1HW, maps = load_changed(data, indices, study.augmentation, random, device)
    labels = load_labels(data, indices, device)
    targets: list[Target] = [(1.0, labels)]
    if study.loss.mixup:
        images_B1HW, targets = mix(images_B1HW, labels, study.loss.mixup, random)
    num_labelled = count_labelled(labels)
    num_parts = -(-len(indices) // (plan.micro_batch or len(indices)))
    ends = [len(indices) * part // num_parts for part in range(num_parts + 1)]  # of nearly equal size, as the batches are
    total = 0.0
    for part in map(slice, ends, ends[1:]):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            given = images_B1HW[part].contiguous(memory_format=torch.channels_last)
            logits = run_network(network, given, {name: known[part] for name, known in maps.items()})
        losses = [
            share * multitask_loss(logits, {task: values[part] for task, values in of.items()}, terms, num_labelled)
            for share, of in targets
        ]
        loss = torch.stack(losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total
