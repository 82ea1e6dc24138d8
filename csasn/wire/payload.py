"""A message's records as they will be sent, in plain data: what the gate judges, the ledger records and the coordinator's receipts
repeat."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.lib import format as npy

from csasn.errors import ProtocolError
from csasn.platform.canonical import canonical
from csasn.wire.keys import LEDGER
from csasn.wire.values import AnyArray, read_npy

NUMPY = "numpy.ndarray"


@dataclass(frozen=True)
class OutgoingArray:
    """An array of an outgoing message. `dtype` is NumPy's, such as <i2; `values` is None unless the bytes are exactly the array."""

    record: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    values: AnyArray | None


@dataclass(frozen=True)
class Outgoing:
    """A message as it will be sent, in plain data: records by name and type, every array, every other value by (record, key)."""

    records: Mapping[str, str]
    arrays: tuple[OutgoingArray, ...]
    values: Mapping[tuple[str, str], object]
    num_bytes: int
    sha256: str


def describe(records: RecordDict) -> Outgoing:
    """What these records hold, whoever made them. Arrays are read in place."""
    payload = {name: record for name, record in records.items() if name != LEDGER}
    arrays = [
        OutgoingArray(record, name, _numpy_type(packed.dtype), tuple(packed.shape), _exact_values(packed))
        for record, packs in payload.items()
        if isinstance(packs, ArrayRecord)
        for name, packed in packs.items()
    ]
    values = {
        (name, key): value
        for name, record in payload.items()
        if not isinstance(record, ArrayRecord)
        for key, value in record.items()
    }
    num_bytes, sha256 = measure_payload(records)
    return Outgoing({name: type(record).__name__ for name, record in payload.items()}, tuple(arrays), values, num_bytes, sha256)


def measure_payload(records: RecordDict) -> tuple[int, str]:
    """Bytes and SHA-256 (hex) of all records but the ledger's, in one form on both sides: records, and keys within, by name.

    A record is [name, type]; an array [key, type, shape, form, bytes] and then its bytes; another value [key, value]: the canonical
    bytes of each.
    """
    digest, num_bytes = hashlib.sha256(), 0
    for part in _payload_parts(records):
        digest.update(part)
        num_bytes += len(part)
    return num_bytes, digest.hexdigest()


def _payload_parts(records: RecordDict) -> Iterator[bytes]:
    for name, record in sorted(records.items()):
        if name == LEDGER:
            continue
        yield canonical([name, type(record).__name__])
        for key, value in sorted(record.items()):
            if isinstance(value, Array):
                yield canonical([key, value.dtype, list(value.shape), value.stype, len(value.data)])
                yield value.data
            else:
                yield canonical([key, value])


def _numpy_type(name: str) -> str:
    """NumPy's own name of a type, or what the message says where it names none."""
    try:
        return np.dtype(name).str
    except (TypeError, ValueError, SyntaxError):
        return name


def _exact_values(packed: Array) -> AnyArray | None:
    """The array in place, None unless the bytes are those of its .npy form and none besides."""
    try:
        values = read_npy(packed, [np.dtype(packed.dtype)], "")
    except (ProtocolError, TypeError, ValueError, SyntaxError):
        return None
    header = BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(values))
    return values if packed.stype == NUMPY and packed.data.startswith(header.getvalue()) else None
