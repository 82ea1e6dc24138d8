"""The two branches as feature maps: images in 0..1 in, (B, C, H, W) out. Each normalises its input as it was pretrained."""

import torch
from torch import Tensor, nn

from csasn.model.timm_import import import_timm


class _Branch(nn.Module):
    """A timm model and the normalisation of its pretraining. The constants are no part of its state."""

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def normalise(self, image_B1HW: Tensor) -> Tensor:
        """Grey (B, 1, H, W) in 0..1 -> normalised (B, 3, H, W)."""
        return (image_B1HW - self.get_buffer("mean")) / self.get_buffer("std")


class EfficientNetBranch(_Branch):
    """EfficientNet without its pooling: (B, 1, S, S) -> (B, C, S/32, S/32)."""

    def __init__(self, name: str) -> None:
        net = import_timm().create_model(name, num_classes=0, global_pool="")
        super().__init__(net, net.default_cfg["mean"], net.default_cfg["std"])
        self.num_channels: int = net.num_features

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """The feature map."""
        features: Tensor = self.net(self.normalise(image_B1HW))
        return features


class VitBranch(_Branch):
    """ViT whose patch tokens are folded back to a map: (B, 1, S, S) -> (B, C, S/16, S/16); the class token is dropped."""

    def __init__(self, name: str, image_size: int) -> None:
        net = import_timm().create_model(name, num_classes=0, img_size=image_size)
        super().__init__(net, net.default_cfg["mean"], net.default_cfg["std"])
        self.num_channels: int = net.embed_dim
        self.num_prefix_tokens: int = net.num_prefix_tokens
        self.grid: tuple[int, int] = net.patch_embed.grid_size

    def forward(self, image_B1HW: Tensor) -> Tensor:
        """The feature map."""
        tokens_BTC: Tensor = self.net.forward_features(self.normalise(image_B1HW))  # type: ignore[operator]  # timm is not typed
        return tokens_BTC[:, self.num_prefix_tokens :].transpose(1, 2).reshape(tokens_BTC.shape[0], -1, *self.grid)
