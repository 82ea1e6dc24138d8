"""Cascaded channel and spatial attention (CBAM: Woo et al., ECCV 2018, eq. 1-3).

B images, C channels, H x W positions.
"""

import torch
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """x · σ(MLP(mean_HW x) + MLP(max_HW x)), one MLP C -> C/reduction -> C for both."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        gate_BC = torch.sigmoid(self.mlp(x_BCHW.mean(dim=(2, 3))) + self.mlp(x_BCHW.amax(dim=(2, 3))))
        return x_BCHW * gate_BC[:, :, None, None]


class SpatialAttention(nn.Module):
    """x · σ(conv7x7([mean_C x; max_C x]))."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pooled_B2HW = torch.cat([x_BCHW.mean(dim=1, keepdim=True), x_BCHW.amax(dim=1, keepdim=True)], dim=1)
        return x_BCHW * torch.sigmoid(self.conv(pooled_B2HW))


class CascadedAttention(nn.Module):
    """Channel, then spatial attention, then a residual around both; each part can be switched off."""

    def __init__(self, channels: int, *, channel: bool = True, spatial: bool = True, residual: bool = True) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels) if channel else nn.Identity()
        self.spatial = SpatialAttention() if spatial else nn.Identity()
        self.residual = residual and (channel or spatial)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        attended_BCHW: Tensor = self.spatial(self.channel(x_BCHW))
        return x_BCHW + attended_BCHW if self.residual else attended_BCHW
