"""timm, imported where torchvision is a CUDA build beside a CPU torch.

timm imports torchvision; such a torchvision fails to load because two of its operators are not registered. Declaring them is
enough, since nothing here calls them. Where torchvision imports by itself this does nothing.
"""

import sys
from types import ModuleType

import torch

_operators: list[torch.library.Library] = []  # a library's definitions live as long as it does


def import_timm() -> ModuleType:
    """The module timm."""
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        _declare_operators()
        import timm
    return timm


def _declare_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _operators.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm")]:
        del sys.modules[name]
