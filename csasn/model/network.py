"""CSASN: the maps of two networks side by side, cascaded attention, multiscale classifier, one head a task.

    image (B, 1, S, S) ─┬─ EfficientNet ─ (B, C1, h, w) ─────────────────┐
                        └─ ViT ─ (B, C2, h', w') ─ pool to (h, w) ───────┴─ concat (B, C1+C2, h, w)
        ─ channel attention ─ spatial attention ─ + residual ─ mean over h, w ─ (B, C1+C2)
        ─ multiscale classifier ─ (B, D) ─ heads ─ {task: (B, values)}

After the paper CSASN (arXiv 2505.02211), whose layer sizes are not public: sizes here are ours, and in csasn/model/profiles.py.
The first branch is an EfficientNet and the second a ViT there; profile and study may name any two networks of timm.
"""

from collections.abc import Iterator, Mapping
from math import gcd
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from csasn.errors import ModelError
from csasn.model.attention import CascadedAttention
from csasn.model.backbones import Branch
from csasn.model.heads import MultiscaleClassifier, TaskHeads
from csasn.model.profiles import NAMED_BYTES, image_size, profile_of
from csasn.model.timm_import import import_timm
from csasn.platform.randomness import derive_seed
from csasn.recipe import Model
from csasn.study import MALIGNANCY, SUBTYPE, Study

MAX_GROUPS = 8


class Csasn(nn.Module):
    """The network of a study file's `model` section, with every part that is not switched off."""

    def __init__(self, model: Model, num_values: dict[str, int]) -> None:
        super().__init__()
        profile = profile_of(model)
        size = image_size(model)
        self.efficientnet = Branch(profile.efficientnet, size) if model.efficientnet else None
        self.vit = Branch(profile.vit, size) if model.vit else None
        channels = sum(branch.num_channels for branch in (self.efficientnet, self.vit) if branch)
        self.attention = CascadedAttention(
            channels, channel=model.channel_attention, spatial=model.spatial_attention, residual=model.attention_residual
        )
        widths = profile.widths if model.multiscale else ()
        self.classifier = MultiscaleClassifier(channels, profile.num_features, widths, model.dropout)
        self.heads = TaskHeads(profile.num_features, num_values)
        self.frozen = model.frozen
        self.test_flip = model.test_flip

    def train(self, mode: bool = True) -> Self:
        """As torch's, but a frozen branch keeps evaluating."""
        super().train(mode)
        for branch in self.frozen_branches().values():
            branch.eval()
        return self

    @property
    def side(self) -> int:
        """h = w of the fused map, which is that of the first branch."""
        first = self.efficientnet or self.vit
        assert first is not None
        return first.side

    def frozen_branches(self) -> dict[str, Branch]:
        """The frozen branches that are switched on."""
        branches = {"efficientnet": self.efficientnet, "vit": self.vit}
        return {name: branch for name, branch in branches.items() if branch is not None and name in self.frozen}

    def forward_features(self, image_B1HW: Tensor, known: Mapping[str, Tensor] | None = None) -> Tensor:
        """Grey images in 0..1 (B, 1, S, S) -> the fused map (B, C1+C2, h, w) before attention; `known` maps are not computed."""
        branches = {"efficientnet": self.efficientnet, "vit": self.vit}
        given = known or {}
        maps = [given[n] if n in given else branch(image_B1HW) for n, branch in branches.items() if branch is not None]
        return torch.cat([maps[0], *map(self.pool, maps[1:])], dim=1)

    def pool(self, map_BCHW: Tensor) -> Tensor:
        """A map at the size of the fused one."""
        return F.adaptive_avg_pool2d(map_BCHW, self.side)

    def forward(self, image_B1HW: Tensor, known: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Grey images in 0..1 (B, 1, S, S), and maps of frozen branches that are known -> {task: logits (B, values)}.

        With `test_flip`, and unless it trains, the mean over each image and its mirror: whatever decides by this network does.
        """
        logits = self._answer(image_B1HW, known)
        if self.training or not self.test_flip:
            return logits
        of_mirror = self._answer(image_B1HW.flip(-1), None)
        return {task: (logits[task] + of_mirror[task]) / 2 for task in logits}

    def _answer(self, image_B1HW: Tensor, known: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        features_BD = self.forward_classifier(image_B1HW, known)
        with torch.autocast(features_BD.device.type, enabled=False):
            logits: dict[str, Tensor] = self.heads(features_BD)
        return logits

    def forward_classifier(self, image_B1HW: Tensor, known: Mapping[str, Tensor] | None = None) -> Tensor:
        """Images, and maps that are known, as in `forward` -> what the heads are given (B, D)."""
        pooled_BC = self.attention(self.forward_features(image_B1HW, known)).mean(dim=(2, 3))
        with torch.autocast(pooled_BC.device.type, enabled=False):  # bf16 logits would tie scores that differ
            features_BD: Tensor = self.classifier(pooled_BC.float())
        return features_BD

    @torch.no_grad()
    def subtype_logits(self, images_NSS: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Letterboxed images (N, S, S) -> subtype logits f (N, K)."""
        images = torch.from_numpy(images_NSS)[:, None].to(next(self.parameters()).device).float() / 255
        logits_NK: Tensor = self(images)[SUBTYPE]
        return np.asarray(logits_NK.double().cpu().numpy())

    @torch.no_grad()
    def finish_subtype_logits(self, offset_K: NDArray[np.float64], temperature: float = 1.0) -> None:
        """Adds `offset_K` (K,) to the subtype logits of every image, then divides them by the temperature, by weight and bias of
        their head. Multiplied by 1 / T, since CPU and GPU do not divide alike."""
        head = self.heads.heads[SUBTYPE]
        weight_KD, bias_K = head.get_parameter("weight"), head.get_parameter("bias")
        bias_K.add_(torch.as_tensor(offset_K, dtype=bias_K.dtype, device=bias_K.device)).mul_(1 / temperature)
        weight_KD.mul_(1 / temperature)


def build_network(study: Study) -> Csasn:
    """The study's network with random weights from its seed; frozen parameters do not require gradients."""
    num_values = {SUBTYPE: len(study.classes), MALIGNANCY: 2}
    num_values = {task: num_values.get(task, len(settings.values)) for task, settings in study.tasks.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(study.seed, "initial weights") % 2**63)
        network = Csasn(study.model, num_values)
    if study.federation.batchnorm == "group":
        use_group_norm(network)
    _check_states(network, study.model)
    for parameter in _frozen(network, study.model):
        parameter.requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs know it for tensors only
    return network


def use_group_norm(network: nn.Module) -> None:
    """Replaces each BatchNorm by a GroupNorm of the same affine parameters and activation (Wu & He, ECCV 2018)."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm2d):
                groups = gcd(layer.num_features, MAX_GROUPS)
                norm = import_timm().layers.GroupNormAct(layer.num_features, groups, apply_act=False)
                norm.load_state_dict({"weight": layer.weight, "bias": layer.bias})
                norm.drop, norm.act = getattr(layer, "drop", nn.Identity()), getattr(layer, "act", nn.Identity())
                setattr(parent, name, norm)


def _check_states(network: Csasn, model: Model) -> None:
    """Refuses networks whose state is larger than the messages of a study, or has statistics that stay nowhere."""
    for key, branch in (("efficientnet", network.efficientnet), ("vit", network.vit)):
        name = getattr(model, key)
        if branch is None or not isinstance(name, str):
            continue
        size = sum(tensor.nbytes for tensor in branch.state_dict().values())
        if size > NAMED_BYTES:
            raise ModelError(
                f"{name} has {size >> 20} MiB of weights, expected at most {NAMED_BYTES >> 20}", "name a smaller network of timm"
            )
        if any(isinstance(layer, _BatchNorm) and not isinstance(layer, nn.BatchNorm2d) for layer in branch.modules()):
            raise ModelError(
                f"{name} has batch normalisation other than of maps, which a federation does not carry", "name another"
            )


def _frozen(network: Csasn, model: Model) -> Iterator[nn.Parameter]:
    """Frozen branches; of pretrained ones position embeddings and patch projection, which gradient inversion reads."""
    for branch in network.frozen_branches().values():
        yield from branch.parameters()
    weights = model.initial_weights
    for begun, source in ((network.efficientnet, weights.efficientnet.source), (network.vit, weights.vit.source)):
        if begun is not None and source != "random":
            for name, parameter in begun.named_parameters():
                if name.startswith(("net.pos_embed", "net.patch_embed")):
                    yield parameter
