"""The tensors of an ONNX file, without the package onnx: what is needed of protobuf's wire format fits on a page.

Numbers of fields are those of onnx.proto. For files whose SHA-256 is known and was compared: what such a file does not hold is not
read.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GRAPH, NODE, INITIALISER = 7, 1, 5  # of ModelProto and GraphProto
DIMS, NAME, RAW_DATA = 1, 8, 9  # of TensorProto
NODE_INPUT, NODE_NAME = 1, 3
SIZES = {1: 8, 5: 4}  # bytes of wire types of one size
VARINT, LENGTH_GIVEN = 0, 2


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The float32 initialisers of the graph by name. One that the exporter left without a name of its own, as it does where it
    folds a transposition into it, has that of the node that takes it."""
    (graph,) = (value for number, value in _fields(memoryview(path.read_bytes())) if number == GRAPH)
    parts = [(number, list(_fields(value))) for number, value in _fields(graph) if number in (NODE, INITIALISER)]
    takers: dict[str, str] = {}
    for node in (fields for number, fields in parts if number == NODE):
        name = next((_text(value) for number, value in node if number == NODE_NAME), "")
        takers |= {_text(value): name for number, value in node if number == NODE_INPUT}
    tensors = dict(_tensor(fields) for number, fields in parts if number == INITIALISER)
    return {takers[name] if name.startswith("onnx::") else name: tensor for name, tensor in tensors.items()}


def _tensor(fields: list[tuple[int, memoryview]]) -> tuple[str, Tensor]:
    shape = [_varint(value, 0)[0] for number, value in fields if number == DIMS]
    last = dict(fields)
    return _text(last[NAME]), torch.from_numpy(np.frombuffer(last[RAW_DATA], "<f4").reshape(shape).copy())


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            end = _varint(message, place)[1]
        elif kind == LENGTH_GIVEN:
            size, place = _varint(message, place)
            end = place + size
        else:
            end = place + SIZES[kind]
        yield number, message[place:end]
        place = end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The number at `place`, seven bits a byte, lowest first; and the place behind it."""
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


def _text(value: memoryview) -> str:
    return bytes(value).decode()
