"""The values of a message: written as Flower keeps them, and read with their type, shape and size checked first."""

from collections.abc import Mapping
from io import BytesIO
from math import prod
from tokenize import TokenError
from typing import TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.federated.quantise import SignedIntegers
from csasn.wire.keys import ARRAYS

MAX_NPY_HEADER = 512
AnyArray = NDArray[np.generic]
T = TypeVar("T")
INTEGERS, STATES, SUMS = ("<i8",), ("<f4",), ("<i2", "<i4", "|i1", "<i8")


def size_bytes(records: RecordDict) -> int:
    """Bytes of a message's records, their serialised form included.

    Raises:
        ProtocolError: a record holds an empty list, whose bytes Flower cannot count, or a value of no type that it knows.
    """
    try:
        return sum(len(name) + record.count_bytes() for name, record in records.items())
    except (IndexError, ValueError):
        raise ProtocolError("a record holds an empty list, or a value that no message has") from None


def to_record(arrays: Mapping[str, AnyArray]) -> ArrayRecord:
    """Arrays by name as Flower keeps them."""
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def read_arrays(records: RecordDict) -> ArrayRecord:
    """The arrays of a message."""
    arrays = records[ARRAYS]
    if not isinstance(arrays, ArrayRecord):
        raise ProtocolError(f"record {ARRAYS} holds no arrays")
    return arrays


def read_config(records: RecordDict, name: str) -> ConfigRecord:
    """A record of values."""
    record = records[name]
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record {name} holds no values")
    return record


def read_text(record: ConfigRecord, key: str) -> str:
    """A text."""
    return _value(record, key, str, "text")


def read_bytes(record: ConfigRecord, key: str) -> bytes:
    """Bytes."""
    return _value(record, key, bytes, "bytes")


def _value(record: ConfigRecord, key: str, kind: type[T], what: str) -> T:
    value = record.get(key)
    if not isinstance(value, kind):
        raise ProtocolError(f"{key} is missing, or not {what}")
    return value


def read_count(record: ConfigRecord, key: str) -> int:
    """A whole number, not negative."""
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolError(f"{key} is missing, or not a count")
    return value


def read_number(record: ConfigRecord, key: str) -> float:
    """A number."""
    return _value(record, key, float, "a number")


def read_floats(record: ConfigRecord, key: str) -> NDArray[np.float64]:
    """A list of numbers as an array."""
    return np.array(read_list(record, key, float), np.float64)


def read_integers(record: ConfigRecord, key: str) -> NDArray[np.int64]:
    """A list of whole numbers as an array."""
    return np.array(read_list(record, key, int), np.int64)


def read_list(record: ConfigRecord, key: str, kind: type[T]) -> list[T]:
    """A list of values of one type."""
    value = record.get(key)
    if not isinstance(value, list) or any(type(part) is not kind for part in value):
        raise ProtocolError(f"{key} is missing, or no list of {kind.__name__}")
    return cast(list[T], list(value))


def read_array(arrays: ArrayRecord, name: str, dtypes: tuple[str, ...], num_axes: int) -> AnyArray:
    """One array, its type and number of axes checked before its bytes are read."""
    if name not in arrays:
        raise ProtocolError(f"array {name} is missing")
    packed = arrays[name]
    expected = [np.dtype(dtype) for dtype in dtypes]
    if packed.dtype not in [str(dtype) for dtype in expected] or len(packed.shape) != num_axes:
        raise ProtocolError(f"array {name} is {packed.dtype[:20]} of {len(packed.shape)} axes, expected {dtypes[0]} of {num_axes}")
    return read_npy(packed, expected, name)


def read_npy(packed: Array, expected: list[np.dtype[np.generic]], name: str) -> AnyArray:
    """The array in place, without a copy: its .npy header must say what the message says, and its bytes be exactly as many."""
    file = BytesIO(packed.data[:MAX_NPY_HEADER])
    try:
        if npy.read_magic(file) != (1, 0):
            raise ValueError
        shape, fortran_order, dtype = npy.read_array_header_1_0(file, max_header_size=MAX_NPY_HEADER)
    except (ValueError, EOFError, SyntaxError, TypeError, TokenError) as error:
        raise ProtocolError(f"array {name} cannot be read") from error
    size = prod(shape) * dtype.itemsize
    if (
        dtype not in expected
        or shape != tuple(packed.shape)
        or len(packed.data) != file.tell() + size
        or (fortran_order and len(shape) > 1)
    ):
        raise ProtocolError(f"array {name} is not what its description says")
    return np.frombuffer(packed.data, dtype, offset=file.tell()).reshape(shape)


def read_sums(arrays: ArrayRecord, name: str) -> SignedIntegers:
    """Integers of an update."""
    return cast(SignedIntegers, read_array(arrays, name, SUMS, 1))
