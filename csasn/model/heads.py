"""The residual multiscale classifier and the heads, one a task.

B images, C features of the backbones, D features of the classifier.
"""

from collections.abc import Mapping

from torch import Tensor, nn


def _branch(num_in: int, width: int, num_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(num_in, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, num_out, bias=False)
    )


class MultiscaleClassifier(nn.Module):
    """skip(x) + Σ_w project_w(dropout(GELU(LayerNorm(Linear_w(x))))) over several widths w; without widths, the skip alone."""

    def __init__(self, num_in: int, num_out: int, widths: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.skip = nn.Linear(num_in, num_out)
        self.branches = nn.ModuleList(_branch(num_in, width, num_out, dropout) for width in widths)

    def forward(self, x_BC: Tensor) -> Tensor:
        """(B, C) -> (B, D)."""
        y_BD: Tensor = self.skip(x_BC)
        for branch in self.branches:
            y_BD = y_BD + branch(x_BC)
        return y_BD


class TaskHeads(nn.Module):
    """A linear head for each task: (B, D) -> {task: (B, number of its values)}."""

    def __init__(self, num_in: int, num_values: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({task: nn.Linear(num_in, count) for task, count in num_values.items()})

    def forward(self, x_BD: Tensor) -> dict[str, Tensor]:
        """(B, D) -> logits of each task."""
        return {task: head(x_BD) for task, head in self.heads.items()}
