"""The tensors of packages of weights (csasn/model/packages.py), by timm's names."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from csasn.model.onnx_tensors import read_tensors

TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage


def rename_lite0(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensor names as timm's: blocks are numbered through there and by stage here."""
    blocks = [(stage, block) for stage, depth in enumerate(LITE0_DEPTHS) for block in range(depth)]
    renamed = {}
    for key, value in source.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match:
            stage, block = blocks[int(match[1])]
            part = (STAGES if stage else FIRST_STAGE)[match[2]]
            renamed[f"blocks.{stage}.{block}.{part}.{match[3]}"] = value
        else:
            part, _, tensor = key.partition(".")
            renamed[f"{TOP[part]}.{tensor}"] = value
    return renamed


DINOV2_TOP = {
    "backbone.embeddings.cls_token": "cls_token",
    "backbone.embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "backbone.layernorm.": "norm.",
}
DINOV2_BLOCK = {
    "attention.output.dense.": "attn.proj.", "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
    "norm1.": "norm1.", "norm2.": "norm2.", "mlp.": "mlp.",
}  # fmt: skip
QKV = ("query", "key", "value")
POSITIONS = ("/backbone/embeddings/Concat_6", "/backbone/embeddings/Reshape_1")  # of the class token, and of the patches


def rename_dinov2(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the backbone in an ONNX graph of transformers' Dinov2 as timm's: query, key and value as one; weights of
    linear layers, which lie transposed there, as rows of outputs; positions of class token and patches as one. What is behind the
    backbone is left out."""
    named = {
        f"{name[1:].removesuffix('/MatMul').replace('/', '.')}.weight" if name.endswith("/MatMul") else name: tensor
        for name, tensor in source.items()
    }
    renamed = {"pos_embed": torch.cat([source[name] for name in POSITIONS], dim=1)}
    for name, tensor in named.items():
        rows = tensor.T.contiguous() if name not in source else tensor
        for theirs, ours in DINOV2_TOP.items():
            if name.startswith(theirs):
                renamed[ours + name.removeprefix(theirs)] = rows
        if block := re.fullmatch(r"backbone\.encoder\.layer\.(\d+)\.(.+)", name):
            for theirs, ours in DINOV2_BLOCK.items():
                if block[2].startswith(theirs):
                    renamed[f"blocks.{block[1]}.{ours}{block[2].removeprefix(theirs)}"] = rows
            if together := re.fullmatch(r"attention\.attention\.query\.(\w+)", block[2]):
                parts = [named[name.replace(".query.", f".{part}.")] for part in QKV]
                renamed[f"blocks.{block[1]}.attn.qkv.{together[1]}"] = torch.cat(
                    [part.T if part.ndim == 2 else part for part in parts]
                )
    return renamed


READERS: Mapping[str, Callable[[Path], dict[str, Tensor]]] = {
    ".pth": lambda path: rename_lite0(torch.load(path, map_location="cpu", weights_only=True)),
    ".onnx": lambda path: rename_dinov2(read_tensors(path)),
}
