"""A branch as a feature map: images in 0..1 in, (B, C, H, W) out, normalised as the branch was pretrained."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from csasn.model.timm_import import import_timm


class Branch(nn.Module):
    """A timm network of any family without its head, as a map: (B, 1, S, S) -> (B, C, h, w).

    A convolutional network gives its map before pooling. Of a transformer patch tokens are folded back to a map, and class tokens
    are dropped. The constants of normalisation are no part of the state.
    """

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        timm = import_timm()
        sized = timm.get_pretrained_cfg(name).fixed_input_size  # position embeddings or windows of one size
        net = timm.create_model(name, num_classes=0, **({"img_size": image_size} if sized else {"global_pool": ""}))
        self.net: nn.Module = net
        self.is_map = not sized
        self.num_channels: int = net.num_features
        self.num_prefix_tokens: int = getattr(net, "num_prefix_tokens", 0)
        self.grid: tuple[int, int] | None = net.patch_embed.grid_size if hasattr(net, "num_prefix_tokens") else None
        self.register_buffer("mean", torch.tensor(net.default_cfg["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(net.default_cfg["std"])[:, None, None], persistent=False)

    def normalise(self, image_B1HW: Tensor) -> Tensor:
        """Grey (B, 1, H, W) in 0..1 -> normalised (B, 3, H, W)."""
        return (image_B1HW - self.get_buffer("mean")) / self.get_buffer("std")

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """The feature map."""
        x_B3HW = self.normalise(image_B1HW)
        features: Tensor = self.net(x_B3HW) if self.is_map else self.net.forward_features(x_B3HW)  # type: ignore[operator]  # timm is not typed
        if features.ndim == 3:
            return self._fold(features)
        return features if self.is_map else features.permute(0, 3, 1, 2)  # windows leave the channels last

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
        assert self.grid is not None
        return tokens_BTC[:, self.num_prefix_tokens :].transpose(1, 2).reshape(tokens_BTC.shape[0], -1, *self.grid)
