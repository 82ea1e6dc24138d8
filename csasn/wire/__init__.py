"""Flower records <-> the dataclasses of csasn.federated.messages. Every message key stands here.

Whatever does not read as exactly one of our messages is a ProtocolError: missing or unknown record, key, type or shape.
"""

from collections.abc import Mapping
from io import BytesIO
from math import prod
from tokenize import TokenError
from typing import TypeVar, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray

from csasn.errors import ProtocolError
from csasn.federated.messages import (
    Absence,
    Accepted,
    Answer,
    Confirmation,
    Header,
    Kind,
    ModelUpdate,
    Reason,
    Reply,
    Request,
    Shares,
    Step,
    Weighting,
)
from csasn.federated.quantise import SignedIntegers
from csasn.federated.secagg.messages import KeySet, Sealing, SignedKey, Survivors, Witness
from csasn.privacy.receipt import Head

MESSAGE_TYPES = {
    Kind.KEYS: "query.keys",
    Kind.HELLO: "query.hello",
    Kind.TRAIN: "train",
    Kind.VALIDATE: "evaluate.validate",
    Kind.FINISH: "evaluate.finish",
    Kind.CONFIRM: "query.confirm",
    Kind.UNMASK: "query.unmask",
}
PLACE_MESSAGE = "query.place"  # in Flower's simulation alone: where in the roster does a node stand?

NO_LEDGER = 100  # code of Flower's error message, all that leaves a site that cannot write its ledger

HEADER, ARRAYS, ABSENCE, LEDGER = "header", "arrays", "absence", "ledger"
STUDY_HASH, MEMBERSHIP_HASH, RUN, ROUND, ATTEMPT = "study-hash", "membership-hash", "run", "round", "attempt"
STATE_HASH, ARRIVED_UNITS = "state-hash", "arrived-units"
ACCEPTED_ATTEMPT, ACCEPTED_SITES = "accepted-attempt", "accepted-sites"
WHOLE, STEP_SUM, STEP_SIZES = "whole-state", "step-sum", "step-sizes"
OMEGA, HISTOGRAM, HISTORY, RANGES = "class-weights", "class-histogram", "class-history", "ranges"
EPOCH, KEYS, KEY_SIGNATURES = "epoch", "keys", "key-signatures"
SURVIVORS, WITNESSES, WITNESS_SIGNATURES = "survivors", "witnesses", "witness-signatures"
CONFIRMED, CONFIRMATIONS, BLOBS = "confirmed", "confirmations", "blobs"
HEADER_KEYS = {
    *(STUDY_HASH, MEMBERSHIP_HASH, RUN, ROUND, ATTEMPT, STATE_HASH, ARRIVED_UNITS, ACCEPTED_ATTEMPT, ACCEPTED_SITES),
    *(STEP_SIZES, OMEGA, HISTOGRAM, HISTORY, RANGES, EPOCH, KEYS, KEY_SIGNATURES),
    *(SURVIVORS, WITNESSES, WITNESS_SIGNATURES, CONFIRMED, CONFIRMATIONS, BLOBS),
}
SEALING, KEY, CONFIRMATION, SHARES = "sealing", "key", "confirmation", "shares"  # records of an answer
SECRET_HASHES, PUBLIC, PIECES = "secret-hashes", "public", "pieces"
UPDATE, COUNTS = "update", "counts"
REASON, TEXT = "reason", "text"
LEDGER_COUNT, LEDGER_HASH, LEDGER_BEFORE = "ledger-count", "ledger-hash", "ledger-before"
PAYLOAD_SHA256, SIGNATURE = "payload-sha256", "signature"
PLACE = "place"

MAX_NPY_HEADER = 512
MAX_TEXT = 500  # characters of an absence
MAX_VALUE = 200  # characters of a value of the ledger record
Records = RecordDict
AnyArray = NDArray[np.generic]
T = TypeVar("T")
INTEGERS = ("<i8",)
STATES = ("<f4",)
SUMS = ("<i2", "<i4", "|i1", "<i8")


def request_to_records(request: Request) -> RecordDict:
    """A request as Flower records. What is not of the model's size stands in the header, since Flower transfers each array by two
    requests of its own; an empty list is left out, since Flower cannot count its bytes."""
    head = request.header
    header = ConfigRecord({
        STUDY_HASH: head.study_hash, MEMBERSHIP_HASH: head.membership_hash, RUN: head.run, ROUND: head.round, ATTEMPT: head.attempt,
    })  # fmt: skip
    arrays: dict[str, AnyArray] = {}
    if request.model is not None:
        header[STATE_HASH] = request.model.state_hash
        if request.model.whole is not None:
            arrays[WHOLE] = request.model.whole
        if (step := request.model.step) is not None:
            header[ARRIVED_UNITS] = step.arrived_units
            header[STEP_SIZES] = step.sizes.tolist()
            arrays[STEP_SUM] = step.sum_P
    if request.accepted is not None:
        header[ACCEPTED_ATTEMPT] = request.accepted.attempt
        if request.accepted.sites:
            header[ACCEPTED_SITES] = list(request.accepted.sites)
    if (weighting := request.weighting) is not None:
        header[OMEGA] = weighting.omega_K.tolist()
        header[HISTOGRAM] = weighting.histogram_K.tolist()
        if weighting.history_R3K.size:
            header[HISTORY] = weighting.history_R3K.ravel().tolist()
    if request.ranges is not None:
        header[RANGES] = request.ranges.tolist()
    _write_secrecy(request, header)
    return RecordDict({HEADER: header, ARRAYS: _to_record(arrays)})


def _write_secrecy(request: Request, header: ConfigRecord) -> None:
    if (keys := request.keys) is not None:
        header[EPOCH] = keys.epoch
        header[KEYS] = [key.public for key in keys.keys]
        header[KEY_SIGNATURES] = [key.signature for key in keys.keys]
    if (survivors := request.survivors) is not None:
        header[SURVIVORS] = list(survivors.sites)
        header[WITNESSES] = [witness.digest for witness in survivors.witnesses]
        header[WITNESS_SIGNATURES] = [witness.signature for witness in survivors.witnesses]
        if survivors.confirmations:
            header[CONFIRMED] = list(survivors.confirmations)
            header[CONFIRMATIONS] = list(survivors.confirmations.values())
    if request.blobs:
        header[BLOBS] = list(request.blobs)


def request_from_message(message: Message) -> Request:
    """The request in a Flower message.

    Raises:
        ProtocolError: it is not one of ours.
    """
    kinds = {value: kind for kind, value in MESSAGE_TYPES.items()}
    kind = kinds.get(message.metadata.message_type)
    if kind is None:
        raise ProtocolError(f"unknown message type {message.metadata.message_type[:40]!r}")
    header, arrays = _open(message.content, {HEADER, ARRAYS})
    if unknown := set(header) - HEADER_KEYS:
        raise ProtocolError(f"{len(unknown)} unknown keys in the header")
    if unknown := set(arrays) - {WHOLE, STEP_SUM}:
        raise ProtocolError(f"{len(unknown)} unknown arrays in the request")
    return Request(
        kind=kind,
        header=Header(
            _text(header, STUDY_HASH),
            _text(header, MEMBERSHIP_HASH),
            _text(header, RUN),
            _count(header, ROUND),
            _count(header, ATTEMPT),
        ),
        model=_model(header, arrays) if STATE_HASH in header else None,
        weighting=_weighting(header) if OMEGA in header else None,
        accepted=_accepted(header) if ACCEPTED_ATTEMPT in header else None,
        ranges=_floats(header, RANGES) if RANGES in header else None,
        keys=_keys(header) if EPOCH in header else None,
        survivors=_survivors(header) if SURVIVORS in header else None,
        blobs=tuple(_list(header, BLOBS, bytes)) if BLOBS in header else (),
    )


def answer_to_records(answer: Reply) -> RecordDict:
    """What a site sends back: {update, counts} with their sealing; a key, a signature or shares; or why it sends nothing."""
    match answer:
        case Absence(reason, text):
            return RecordDict({ABSENCE: ConfigRecord({REASON: reason.value, TEXT: text})})
        case SignedKey(public, signature):
            return RecordDict({KEY: ConfigRecord({PUBLIC: public, SIGNATURE: signature})})
        case Confirmation(signature):
            return RecordDict({CONFIRMATION: ConfigRecord({SIGNATURE: signature})})
        case Shares(data):
            return RecordDict({SHARES: ConfigRecord({PIECES: data})})
    arrays: dict[str, AnyArray] = {COUNTS: answer.counts}
    if answer.update_P is not None:
        arrays[UPDATE] = answer.update_P
    records = RecordDict({ARRAYS: _to_record(arrays)})
    if (sealing := answer.sealing) is not None:
        records[SEALING] = ConfigRecord({SIGNATURE: sealing.signature})
        if sealing.blobs:
            records[SEALING] = ConfigRecord({
                BLOBS: list(sealing.blobs), SECRET_HASHES: list(sealing.hashes), SIGNATURE: sealing.signature,
            })  # fmt: skip
    return records


def answer_from_records(records: RecordDict) -> Reply:
    """The answer in a site's records, whatever its ledger says (`head_from_records`).

    Raises:
        ProtocolError: it is not one of ours.
    """
    names = set(records) - {LEDGER}
    if names == {ABSENCE}:
        absence = _config(records, ABSENCE)
        try:
            return Absence(Reason(_text(absence, REASON)), _text(absence, TEXT)[:MAX_TEXT])
        except ValueError as error:
            raise ProtocolError("unknown reason of an absence") from error
    if names in ({KEY}, {CONFIRMATION}, {SHARES}):
        return _short_answer(names.pop(), records)
    if not {ARRAYS} <= names <= {ARRAYS, SEALING}:
        raise ProtocolError(f"the answer holds {len(names)} records, expected {ARRAYS} and {SEALING} alone")
    arrays = _arrays(records)
    if not set(arrays) <= {COUNTS, UPDATE}:
        raise ProtocolError(f"the answer holds {len(arrays)} arrays, expected {COUNTS} and {UPDATE} alone")
    counts = _int64(_array(arrays, COUNTS, INTEGERS, 1))
    update_P = _sums(arrays, UPDATE) if UPDATE in arrays else None
    return Answer(counts, update_P, _sealing(records) if SEALING in names else None, size_bytes(records))


def _short_answer(name: str, records: RecordDict) -> SignedKey | Confirmation | Shares:
    record = _config(records, name)
    if set(record) != {KEY: {PUBLIC, SIGNATURE}, CONFIRMATION: {SIGNATURE}, SHARES: {PIECES}}[name]:
        raise ProtocolError(f"record {name} lacks keys, or holds unknown ones")
    if name == SHARES:
        return Shares(_bytes(record, PIECES))
    signature = _text(record, SIGNATURE)
    return SignedKey(_bytes(record, PUBLIC), signature) if name == KEY else Confirmation(signature)


def _sealing(records: RecordDict) -> Sealing:
    record = _config(records, SEALING)
    if set(record) not in ({SIGNATURE}, {SIGNATURE, BLOBS, SECRET_HASHES}):
        raise ProtocolError(f"record {SEALING} lacks keys, or holds unknown ones")
    blobs, hashes = (tuple(_list(record, key, bytes)) if key in record else () for key in (BLOBS, SECRET_HASHES))
    return Sealing(blobs, hashes, _text(record, SIGNATURE))


def attach_head(records: RecordDict, head: Head) -> RecordDict:
    """`records` with the head of the site's ledger."""
    record = ConfigRecord({
        LEDGER_COUNT: head.count, LEDGER_HASH: head.hash, LEDGER_BEFORE: head.before, PAYLOAD_SHA256: head.sha256,
    })  # fmt: skip
    if head.signature:
        record[SIGNATURE] = head.signature
    return RecordDict({**records, LEDGER: record})


def head_from_records(records: RecordDict) -> Head:
    """The head of a site's ledger in its answer.

    Raises:
        ProtocolError: there is none, or it is not one of ours.
    """
    if LEDGER not in records:
        raise ProtocolError("the answer carries no head of the site's ledger")
    record = _config(records, LEDGER)
    if set(record) - {SIGNATURE} != {LEDGER_COUNT, LEDGER_HASH, LEDGER_BEFORE, PAYLOAD_SHA256}:
        raise ProtocolError("the record of the site's ledger lacks keys, or holds unknown ones")
    if any(isinstance(value, str) and len(value) > MAX_VALUE for value in record.values()):
        raise ProtocolError("the record of the site's ledger holds overlong values")
    return Head(
        count=_count(record, LEDGER_COUNT),
        hash=_text(record, LEDGER_HASH),
        before=_text(record, LEDGER_BEFORE),
        sha256=_text(record, PAYLOAD_SHA256),
        signature=_text(record, SIGNATURE) if SIGNATURE in record else "",
    )


def place_to_records(place: int) -> RecordDict:
    """A node's place in the roster, counted from 0."""
    return RecordDict({HEADER: ConfigRecord({PLACE: place})})


def place_from_records(records: RecordDict) -> int:
    """The place in a node's records.

    Raises:
        ProtocolError: it is not one of ours.
    """
    if set(records) != {HEADER}:
        raise ProtocolError(f"the answer holds {len(records)} records, expected {HEADER} alone")
    return _count(_config(records, HEADER), PLACE)


def size_bytes(records: RecordDict) -> int:
    """Bytes of a message's records, their serialised form included.

    Raises:
        ProtocolError: a record holds an empty list, whose bytes Flower cannot count, or a value of no type that it knows.
    """
    try:
        return sum(len(name) + record.count_bytes() for name, record in records.items())
    except (IndexError, ValueError):
        raise ProtocolError("a record holds an empty list, or a value that no message has") from None


def _to_record(arrays: Mapping[str, AnyArray]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def _open(records: RecordDict, names: set[str]) -> tuple[ConfigRecord, ArrayRecord]:
    if set(records) != names:
        raise ProtocolError(f"the message holds {len(records)} records, expected {' and '.join(sorted(names))}")
    return _config(records, HEADER), _arrays(records)


def _arrays(records: RecordDict) -> ArrayRecord:
    arrays = records[ARRAYS]
    if not isinstance(arrays, ArrayRecord):
        raise ProtocolError(f"record {ARRAYS} holds no arrays")
    return arrays


def _config(records: RecordDict, name: str) -> ConfigRecord:
    record = records[name]
    if not isinstance(record, ConfigRecord):
        raise ProtocolError(f"record {name} holds no values")
    return record


def _model(header: ConfigRecord, arrays: ArrayRecord) -> ModelUpdate:
    whole = _float32(_array(arrays, WHOLE, STATES, 1)) if WHOLE in arrays else None
    step = None
    if STEP_SUM in arrays:
        step = Step(_sums(arrays, STEP_SUM), _floats(header, STEP_SIZES), _count(header, ARRIVED_UNITS))
    if (whole is None) == (step is None):
        raise ProtocolError("the message holds a whole model and a step, or neither, expected one")
    return ModelUpdate(_text(header, STATE_HASH), whole, step)


def _weighting(header: ConfigRecord) -> Weighting:
    omega_K, histogram_K = _floats(header, OMEGA), _integers(header, HISTOGRAM)
    history = _integers(header, HISTORY) if HISTORY in header else np.zeros(0, np.int64)
    if not omega_K.size or history.size % (3 * omega_K.size):
        raise ProtocolError(f"{HISTORY} has {history.size} counts, expected 3 a class and round")
    return Weighting(omega_K, histogram_K, history.reshape(-1, 3, omega_K.size))


def _accepted(header: ConfigRecord) -> Accepted:
    return Accepted(_count(header, ACCEPTED_ATTEMPT), tuple(_list(header, ACCEPTED_SITES, str) if ACCEPTED_SITES in header else ()))


def _keys(header: ConfigRecord) -> KeySet:
    publics, signatures = _list(header, KEYS, bytes), _list(header, KEY_SIGNATURES, str)
    if len(publics) != len(signatures):
        raise ProtocolError(f"{len(publics)} keys with {len(signatures)} signatures")
    return KeySet(_count(header, EPOCH), tuple(map(SignedKey, publics, signatures)))


def _survivors(header: ConfigRecord) -> Survivors:
    sites, digests = _list(header, SURVIVORS, str), _list(header, WITNESSES, bytes)
    signatures = _list(header, WITNESS_SIGNATURES, str)
    confirmed, confirmations = (_list(header, key, str) if key in header else [] for key in (CONFIRMED, CONFIRMATIONS))
    if not len(sites) == len(digests) == len(signatures) or len(confirmed) != len(confirmations):
        raise ProtocolError(f"{len(sites)} survivors with {len(signatures)} signatures, {len(confirmations)} confirmations")
    return Survivors(tuple(sites), tuple(map(Witness, digests, signatures)), dict(zip(confirmed, confirmations, strict=True)))


def _text(record: ConfigRecord, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{key} is missing, or not text")
    return value


def _count(record: ConfigRecord, key: str) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ProtocolError(f"{key} is missing, or not a count")
    return value


def _bytes(record: ConfigRecord, key: str) -> bytes:
    value = record.get(key)
    if not isinstance(value, bytes):
        raise ProtocolError(f"{key} is missing, or not bytes")
    return value


def _floats(record: ConfigRecord, key: str) -> NDArray[np.float64]:
    return np.array(_list(record, key, float), np.float64)


def _integers(record: ConfigRecord, key: str) -> NDArray[np.int64]:
    return np.array(_list(record, key, int), np.int64)


def _list(record: ConfigRecord, key: str, kind: type[T]) -> list[T]:
    value = record.get(key)
    if not isinstance(value, list) or any(type(part) is not kind for part in value):
        raise ProtocolError(f"{key} is missing, or no list of {kind.__name__}")
    return cast(list[T], list(value))


def _array(arrays: ArrayRecord, name: str, dtypes: tuple[str, ...], num_axes: int) -> AnyArray:
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


def _sums(arrays: ArrayRecord, name: str) -> SignedIntegers:
    return cast(SignedIntegers, _array(arrays, name, SUMS, 1))


def _float32(array: AnyArray) -> NDArray[np.float32]:
    return array.astype(np.float32, copy=False)


def _int64(array: AnyArray) -> NDArray[np.int64]:
    return array.astype(np.int64, copy=False)
