"""A branch as a feature map: images in 0..1 in, (B, C, H, W) out, normalised as the branch was pretrained."""

from collections.abc import Iterator
from difflib import get_close_matches
from math import isqrt

import torch
from torch import Tensor, nn

from csasn.errors import ModelError
from csasn.model.timm_import import import_timm

STRIDES = (14, 16, 32)  # of nearly all networks: their multiples are tried where a size does not fit
_MISFITS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)  # what timm raises then


class Branch(nn.Module):
    """A timm network of any family without its head, as a map: (B, 1, S, S) -> (B, C, h, w).

    A convolutional network gives its map before pooling, with what stands between pooling and head where that can do without
    pooling. Of a transformer patch tokens are folded back to a map, and class tokens are dropped; where windows leave the channels
    last, they are turned. Channels and side of the map, `num_channels` and `side`, are read off one black image. The constants of
    normalisation are no part of the state.

    Raises:
        ModelError: timm has no such network, or it gives no map of images of this size; sizes that it takes are named.
    """

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        check_network(name)
        try:
            self._build(name, image_size)
        except _MISFITS as error:
            sizes = " or ".join(map(str, _sizes_that_fit(name, image_size)))
            raise ModelError(
                f"{name} gives no map of images of {image_size} pixels ({type(error).__name__})",
                f"set model.image_size to what fits it: {sizes}" if sizes else "name another network of timm",
            ) from None

    def _build(self, name: str, image_size: int) -> None:
        timm = import_timm()
        sized = timm.get_pretrained_cfg(name).fixed_input_size  # position embeddings or windows of one size
        try:
            net = timm.create_model(name, num_classes=0, **({"img_size": image_size} if sized else {"global_pool": ""}))
            self.is_map = not sized
        except AssertionError:  # its head wants pooling
            net, self.is_map = timm.create_model(name, num_classes=0), False
        embedding = getattr(getattr(net, "patch_embed", None), "proj", None)
        if isinstance(embedding, nn.Conv2d) and embedding.kernel_size == embedding.stride and image_size % embedding.stride[0]:
            raise ValueError("patches would leave out an edge of the image, of which timm says nothing")
        self.net: nn.Module = net
        self.num_prefix_tokens: int = getattr(net, "num_prefix_tokens", 0)
        self.register_buffer("mean", torch.tensor(net.default_cfg["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(net.default_cfg["std"])[:, None, None], persistent=False)
        net.eval()
        with torch.no_grad():
            x_B3HW = self.normalise(torch.zeros(1, 1, image_size, image_size))
            features_BCHW, map_BCHW = self._map(net.forward_features(x_B3HW)), self._map(self._features(x_B3HW))
        if map_BCHW.shape[2:] != features_BCHW.shape[2:]:  # a head that pools by convolution
            self.is_map, map_BCHW = False, features_BCHW
        net.train()
        self.num_channels, self.side = map_BCHW.shape[1:3]
        self.grid = (self.side, self.side) if hasattr(net, "num_prefix_tokens") and hasattr(net, "patch_embed") else None

    def normalise(self, image_B1HW: Tensor) -> Tensor:
        """Grey (B, 1, H, W) in 0..1 -> normalised (B, 3, H, W)."""
        return (image_B1HW - self.get_buffer("mean")) / self.get_buffer("std")

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """The feature map."""
        return self._map(self._features(self.normalise(image_B1HW)))

    def _features(self, x_B3HW: Tensor) -> Tensor:
        return self.net(x_B3HW) if self.is_map else self.net.forward_features(x_B3HW)  # type: ignore[no-any-return,operator]  # timm is not typed

    def _map(self, features: Tensor) -> Tensor:
        """Features as (B, C, h, w), h = w since images are square."""
        if features.ndim == 3:
            return self._fold(features)
        last = features.shape[1] == features.shape[2] != features.shape[3]
        return features.permute(0, 3, 1, 2) if last else features

    def layers_behind(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Each parameter with how many layers of the whole network lie behind its own: 1 in the last layer of the branch.

        Layers are those that timm tells apart, a block each.
        """
        matcher = self.net.group_matcher(coarse=False)  # type: ignore[operator]  # timm is not typed
        layers: dict[str, int] = import_timm().models.group_parameters(self.net, matcher, reverse=True)
        num_layers = 1 + max(layers.values())
        for name, parameter in self.net.named_parameters():
            yield parameter, num_layers - layers[name]

    def _fold(self, tokens_BTC: Tensor) -> Tensor:
        patches_BTC = tokens_BTC[:, self.num_prefix_tokens :]
        side = isqrt(patches_BTC.shape[1])
        return patches_BTC.transpose(1, 2).reshape(patches_BTC.shape[0], tokens_BTC.shape[2], side, side)


def check_network(name: str) -> None:
    """Refuses what timm does not have, by the names that are most like it.

    Raises:
        ModelError: there is no such network.
    """
    timm = import_timm()
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        near = get_close_matches(base, timm.list_models(), 3)
        raise ModelError(
            f"timm has no network {name}", f"did you mean {' or '.join(near)}?" if near else "see timm.list_models() for its names"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ModelError(f"timm has no weights {name}", f"it knows {base}{' with ' + ' or '.join(tags) if tags else ' alone'}")


def _sizes_that_fit(name: str, image_size: int) -> Iterator[int]:
    """Sizes near `image_size`, and the network's own, of which it gives a map."""
    own = import_timm().get_pretrained_cfg(name).input_size[-1]
    near = {image_size // stride * stride + more for stride in STRIDES for more in (0, stride)} | {own}
    for size in sorted(near - {0, image_size}):
        branch = Branch.__new__(Branch)
        nn.Module.__init__(branch)
        try:
            branch._build(name, size)
        except _MISFITS:
            continue
        yield size
