"""Where a model looks: Grad-CAM on the map of its EfficientNet branch, attention rollout through its ViT branch.

Grad-CAM: Selvaraju et al., ICCV 2017, eq. 1-2. Rollout: Abnar & Zuidema, ACL 2020, section 3. Both are hints for a person who looks
at the picture: neither proves what a decision came from, and a rollout is the same whatever was decided. With `test_flip` a map is
the mean of that of the image and that of its mirror, mirrored back.

Legend: S side of the image, C channels and h x w positions of a map, T tokens and E heads of the ViT, D numbers a head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from csasn.errors import ModelError
from csasn.model.network import Csasn
from csasn.study import SUBTYPE

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Saliency:
    """The maps of one image, (S, S) in 0..1 with their highest value 1; None where the model has no such branch."""

    gradcam: Floats | None
    rollout: Floats | None


@dataclass(frozen=True)
class SaliencyShares:
    """Mean share of each map's mass that lies inside the nodule, over `num_images` images; None without that branch.

    `area` is the mean share of the image that is nodule: what a map that knows nothing would get. A Grad-CAM is blank where nothing
    speaks for the class; these `num_blank` images are left out of its mean.
    """

    gradcam: float | None
    rollout: float | None
    area: float
    num_images: int
    num_blank: int = 0


def explain_square(network: Csasn, square: NDArray[np.uint8]) -> Saliency:
    """The maps of one letterboxed image (S, S); Grad-CAM asks for the class that the model decides for."""
    image = (torch.from_numpy(square.copy())[None, None].float() / 255).to(next(network.parameters()).device)
    with _evaluating(network), torch.no_grad():
        decision = int(network(image)[SUBTYPE][0].argmax())
    return Saliency(
        gradcam(network, image, decision) if network.efficientnet is not None else None,
        rollout(network, image) if network.vit is not None else None,
    )


def gradcam(network: Csasn, image_11SS: Tensor, class_index: int) -> Floats:
    """ReLU(Σ_C α_C A_C) with α_C = mean_hw ∂f/∂A_C, on the EfficientNet map A and the subtype logit f of a class.

    Bilinear to (S, S), highest value 1; all zeros where nothing in the map speaks for the class. The network stays as it was.

    Raises:
        ModelError: the model has no EfficientNet branch.
    """
    if network.efficientnet is None:
        raise ModelError("the model has no EfficientNet branch, which Grad-CAM looks at", "use attention rollout")
    return _enlarge(_both_ways(network, image_11SS, lambda image: _cam(network, image, class_index)), image_11SS.shape[-1])


def rollout(network: Csasn, image_11SS: Tensor) -> Floats:
    """Attention R = Ā_L ... Ā_1 with Ā = ½ (mean_E A + I), from each patch of the image to all, averaged.

    CSASN drops the class token and pools its patches evenly, so that all rows of patches count alike. Bilinear to (S, S), highest
    value 1. The network stays as it was.

    Raises:
        ModelError: the model has no ViT branch.
    """
    if network.vit is None or network.vit.grid is None:
        raise ModelError("the model has no ViT branch, which attention rollout goes through", "use Grad-CAM")
    return _enlarge(_both_ways(network, image_11SS, lambda image: _rolled(network, image)), image_11SS.shape[-1])


def _both_ways(network: Csasn, image_11SS: Tensor, map_of: Callable[[Tensor], Tensor]) -> Tensor:
    map_hw = map_of(image_11SS)
    return (map_hw + map_of(image_11SS.flip(-1)).flip(-1)) / 2 if network.test_flip else map_hw


def _cam(network: Csasn, image_11SS: Tensor, class_index: int) -> Tensor:
    assert network.efficientnet is not None
    with _evaluating(network):
        with torch.no_grad():
            known = {"efficientnet": network.efficientnet(image_11SS)}
            if network.vit is not None:
                known["vit"] = network.vit(image_11SS)
        map_1Chw = known["efficientnet"].detach().requires_grad_()
        with torch.enable_grad():
            logit = network(image_11SS, known | {"efficientnet": map_1Chw})[SUBTYPE][0, class_index]
        (gradient_1Chw,) = torch.autograd.grad(logit, map_1Chw)
    weight_1C11 = gradient_1Chw.double().mean(dim=(2, 3), keepdim=True)
    return torch.relu((weight_1C11 * map_1Chw.detach().double()).sum(dim=1))[0]


def _rolled(network: Csasn, image_11SS: Tensor) -> Tensor:
    assert network.vit is not None
    assert network.vit.grid is not None
    rolled_TT = roll_out(attention_layers(network, image_11SS))
    num_prefix = network.vit.num_prefix_tokens
    return rolled_TT[num_prefix:, num_prefix:].mean(dim=0).reshape(network.vit.grid)


def roll_out(layers_TT: list[Tensor]) -> Tensor:
    """The product of ½ (A + I) over layers, the first layer rightmost; each row adds up to 1."""
    rolled_TT = torch.eye(len(layers_TT[0]), dtype=torch.float64, device=layers_TT[0].device)
    for layer_TT in layers_TT:
        rolled_TT = (layer_TT @ rolled_TT + rolled_TT) / 2
    return rolled_TT


def attention_layers(network: Csasn, image_11SS: Tensor) -> list[Tensor]:
    """The attention (T, T) of each layer of the ViT branch for one image, averaged over heads: float64, rows add up to 1.

    timm computes attention inside one fused call, so it is computed again here, from queries and keys.
    """
    assert network.vit is not None
    layers: list[Tensor] = []
    attentions = [block.attn for block in network.vit.net.blocks]  # type: ignore[union-attr]  # timm is not typed
    hooks = [attention.qkv.register_forward_hook(_keep_attention(attention, layers)) for attention in attentions]
    try:
        with _evaluating(network), torch.no_grad():
            network.vit(image_11SS)
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def _keep_attention(attention: nn.Module, layers: list[Tensor]) -> Callable[[nn.Module, object, Tensor], None]:
    """A hook on the projection to queries, keys and values (1, T, 3 E D) that appends softmax(q kᵀ / √D), mean over E."""

    def keep(_: nn.Module, __: object, qkv_1TX: Tensor) -> None:
        heads = int(attention.num_heads)  # type: ignore[arg-type]  # timm is not typed
        query_ETD, key_ETD, _values = qkv_1TX[0].reshape(qkv_1TX.shape[1], 3, heads, -1).permute(1, 2, 0, 3)
        query_ETD, key_ETD = attention.q_norm(query_ETD), attention.k_norm(key_ETD)  # type: ignore[operator]
        scores_ETT = query_ETD.double() @ key_ETD.double().mT * attention.scale
        layers.append(scores_ETT.softmax(dim=-1).mean(dim=0))

    return keep


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Every module evaluates inside, and is what it was before behind it."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _enlarge(map_hw: Tensor, size: int) -> Floats:
    """A map that is not negative as (S, S) with highest value 1, or all zeros."""
    large = F.interpolate(map_hw[None, None], (size, size), mode="bilinear", align_corners=False)[0, 0].cpu().numpy()
    highest = float(large.max())
    return np.asarray(large / highest if highest > 0 else large, np.float64)
