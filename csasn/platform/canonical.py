"""One value, one string of bytes: what is hashed and what is signed.

Each value is its tag (1 byte), the length of its content (8 bytes, big-endian) and its content, so that no two values share their
bytes and no part runs into the next (csasn/SPEC.md, "Canonical bytes").
"""

import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canonical(value: object, leave_out: Collection[str] = ()) -> bytes:
    """The bytes of a value.

    Args:
        value: None, a truth value, number, text, bytes, array, list or tuple, mapping, or a dataclass of these.
        leave_out: fields of dataclasses, as "Class.field", that are no part of it.

    Raises:
        TypeError: a value of another type.
    """
    tag, content = _content(value, leave_out)
    return tag + len(content).to_bytes(8, "big") + content


def _content(value: object, leave_out: Collection[str]) -> tuple[bytes, bytes]:
    """The tag and content of a value; a truth value is an int to Python, so it comes first."""
    for kind, tag, write in _PLAIN:
        if isinstance(value, kind):
            return tag, write(value)
    if isinstance(value, Mapping):
        pairs = sorted((canonical(key, leave_out), canonical(item, leave_out)) for key, item in value.items())
        return b"m", b"".join(key + item for key, item in pairs)
    if isinstance(value, list | tuple):
        return b"l", b"".join(canonical(item, leave_out) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        kept = [field.name for field in fields(value) if f"{name}.{field.name}" not in leave_out]
        return b"o", canonical(name) + canonical({key: getattr(value, key) for key in kept}, leave_out)
    raise TypeError(f"a {type(value).__name__} has no canonical bytes")


def _array(array: NDArray[np.generic]) -> bytes:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return canonical(little.dtype.str) + canonical(list(array.shape)) + canonical(little.tobytes())


_PLAIN: tuple[tuple[type, bytes, Callable[[Any], bytes]], ...] = (
    (type(None), b"n", lambda _: b""),
    (bool, b"b", lambda truth: bytes([truth])),
    (int, b"i", lambda number: b"%d" % number),
    (float, b"f", lambda number: struct.pack(">d", number)),
    (str, b"s", lambda text: text.encode()),
    (bytes, b"y", lambda data: data),
    (np.ndarray, b"a", _array),
)
