"""What the coordinator sends: requests <-> Flower records."""

from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from csasn.errors import ProtocolError
from csasn.federated.messages import (
    AboutModel,
    Collect,
    Finish,
    Header,
    Hello,
    Kind,
    Measure,
    ModelUpdate,
    Moments,
    Request,
    Step,
    Survey,
    Train,
    Validate,
    Weighting,
)
from csasn.federated.secagg.keys import SignedKey
from csasn.wire.keys import (
    ACCEPTED,
    ARRAYS,
    ARRIVED_UNITS,
    ATTEMPT,
    HEADER,
    HISTOGRAM,
    HISTORY,
    KEY_SIGNATURES,
    KEYS,
    MEMBERSHIP_HASH,
    MESSAGE_TYPES,
    MOMENTS,
    NUMBER,
    OF,
    OMEGA,
    RANGES,
    ROUND,
    RUN,
    STATE_HASH,
    STEP_SIZES,
    STEP_SUM,
    STUDY_HASH,
    TEMPERATURE,
    TRANSCRIPT,
    VERSION,
    WHOLE,
)
from csasn.wire.values import (
    INTEGERS,
    STATES,
    AnyArray,
    read_array,
    read_arrays,
    read_bytes,
    read_config,
    read_count,
    read_floats,
    read_integers,
    read_list,
    read_number,
    read_sums,
    read_text,
    to_record,
)

_HEAD = frozenset({VERSION, STUDY_HASH, MEMBERSHIP_HASH, NUMBER, ROUND, RUN, ATTEMPT})
_ABOUT_MODEL = frozenset({STATE_HASH, ARRIVED_UNITS, STEP_SIZES, OMEGA, HISTOGRAM, HISTORY, ACCEPTED})
_KNOWN = {
    Kind.HELLO: _HEAD,
    Kind.SURVEY: _HEAD,
    Kind.MEASURE: _HEAD | _ABOUT_MODEL,
    Kind.TRAIN: _HEAD | _ABOUT_MODEL | {RANGES},
    Kind.VALIDATE: _HEAD | _ABOUT_MODEL,
    Kind.FINISH: _HEAD | _ABOUT_MODEL | {TEMPERATURE},
    Kind.COLLECT: _HEAD | {OF, TRANSCRIPT, KEYS, KEY_SIGNATURES},
}


def request_to_records(request: Request) -> RecordDict:
    """A request as Flower records. What is not of the model's size stands in the header, since Flower transfers each array by two
    requests of its own; an empty list is left out, since Flower cannot count its bytes."""
    head = request.header
    header = ConfigRecord({
        VERSION: head.version, STUDY_HASH: head.study_hash, MEMBERSHIP_HASH: head.membership_hash, NUMBER: head.number,
        ROUND: head.round, RUN: head.run, ATTEMPT: head.attempt,
    })  # fmt: skip
    arrays: dict[str, AnyArray] = {}
    if isinstance(request, AboutModel):
        arrays = _write_model(request, header)
    if isinstance(request, Train):
        header[RANGES] = request.ranges.tolist()
    if isinstance(request, Finish):
        header[TEMPERATURE] = request.temperature
    if isinstance(request, Collect):
        header[OF], header[TRANSCRIPT] = request.of.value, request.transcript
        header[KEYS] = [key.public for key in request.keys]
        header[KEY_SIGNATURES] = [key.signature for key in request.keys]
    return RecordDict({HEADER: header, ARRAYS: to_record(arrays)})


def _write_model(request: AboutModel, header: ConfigRecord) -> dict[str, AnyArray]:
    """Writes model and weighting into the header, but for the arrays of the model's size, which it gives."""
    arrays: dict[str, AnyArray] = {}
    header[STATE_HASH] = request.model.state_hash
    if request.model.whole is not None:
        arrays[WHOLE] = request.model.whole
    step = request.model.step
    if isinstance(step, Moments):
        arrays[MOMENTS] = step.sum_M
    elif step is not None:
        header[ARRIVED_UNITS] = step.arrived_units
        header[STEP_SIZES] = step.sizes.tolist()
        arrays[STEP_SUM] = step.sum_P
    if request.accepted is not None:
        header[ACCEPTED] = request.accepted
    weighting = request.weighting
    header[OMEGA] = weighting.omega_K.tolist()
    header[HISTOGRAM] = weighting.histogram_K.tolist()
    if weighting.history_R3K.size:
        header[HISTORY] = weighting.history_R3K.ravel().tolist()
    return arrays


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
    if unknown := set(header) - _KNOWN[kind]:
        raise ProtocolError(f"{len(unknown)} unknown keys in the header of {kind}")
    if unknown := set(arrays) - ({WHOLE, STEP_SUM, MOMENTS} if OMEGA in _KNOWN[kind] else set()):
        raise ProtocolError(f"{len(unknown)} unknown arrays in the request to {kind}")
    return _READERS[kind](_header(header), header, arrays)


def study_of_message(message: Message) -> str:
    """The hash of the study that a message is about, whatever else it holds; empty where it names none."""
    with suppress(ProtocolError, KeyError):
        return read_text(read_config(message.content, HEADER), STUDY_HASH)
    return ""


def _header(header: ConfigRecord) -> Header:
    return Header(
        study_hash=read_text(header, STUDY_HASH),
        membership_hash=read_text(header, MEMBERSHIP_HASH),
        number=read_count(header, NUMBER),
        round=read_count(header, ROUND),
        run=read_text(header, RUN),
        attempt=read_count(header, ATTEMPT),
        version=read_count(header, VERSION),
    )


def _open(records: RecordDict, names: set[str]) -> tuple[ConfigRecord, ArrayRecord]:
    if set(records) != names:
        raise ProtocolError(f"the message holds {len(records)} records, expected {' and '.join(sorted(names))}")
    return read_config(records, HEADER), read_arrays(records)


def _about_model(header: ConfigRecord, arrays: ArrayRecord) -> tuple[ModelUpdate, Weighting, bytes | None]:
    return _model(header, arrays), _weighting(header), read_bytes(header, ACCEPTED) if ACCEPTED in header else None


def _model(header: ConfigRecord, arrays: ArrayRecord) -> ModelUpdate:
    whole = read_array(arrays, WHOLE, STATES, 1).astype(np.float32, copy=False) if WHOLE in arrays else None
    if len({WHOLE, STEP_SUM, MOMENTS} & set(arrays)) > 1:
        raise ProtocolError("the message holds several of a whole model, a step and moments, expected one of them at most")
    step: Step | Moments | None = None
    if MOMENTS in arrays:
        step = Moments(read_array(arrays, MOMENTS, INTEGERS, 1).astype(np.int64, copy=False))
    if STEP_SUM in arrays:
        step = Step(read_sums(arrays, STEP_SUM), read_floats(header, STEP_SIZES), read_count(header, ARRIVED_UNITS))
    elif {STEP_SIZES, ARRIVED_UNITS} & set(header):
        raise ProtocolError("the message holds sizes of a step, and no step")
    return ModelUpdate(read_text(header, STATE_HASH), whole, step)


def _weighting(header: ConfigRecord) -> Weighting:
    omega_K, histogram_K = read_floats(header, OMEGA), read_integers(header, HISTOGRAM)
    history = read_integers(header, HISTORY) if HISTORY in header else np.zeros(0, np.int64)
    if not omega_K.size or history.size % (3 * omega_K.size):
        raise ProtocolError(f"{HISTORY} has {history.size} counts, expected 3 a class and round")
    return Weighting(omega_K, histogram_K, history.reshape(-1, 3, omega_K.size))


def _collect(head: Header, header: ConfigRecord) -> Collect:
    publics, signatures = read_list(header, KEYS, bytes), read_list(header, KEY_SIGNATURES, str)
    if len(publics) != len(signatures):
        raise ProtocolError(f"{len(publics)} keys with {len(signatures)} signatures")
    of = read_text(header, OF)
    if of not in set(Kind) - {Kind.COLLECT}:
        raise ProtocolError(f"{OF} names no question")
    return Collect(head, Kind(of), read_bytes(header, TRANSCRIPT), tuple(map(SignedKey, publics, signatures)))


_Reader = Callable[[Header, ConfigRecord, ArrayRecord], Request]
_READERS: Mapping[Kind, _Reader] = {
    Kind.HELLO: lambda head, *_: Hello(head),
    Kind.SURVEY: lambda head, *_: Survey(head),
    Kind.MEASURE: lambda head, header, arrays: Measure(head, *_about_model(header, arrays)),
    Kind.TRAIN: lambda head, header, arrays: Train(head, *_about_model(header, arrays), read_floats(header, RANGES)),
    Kind.VALIDATE: lambda head, header, arrays: Validate(head, *_about_model(header, arrays)),
    Kind.FINISH: lambda head, header, arrays: Finish(head, *_about_model(header, arrays), read_number(header, TEMPERATURE)),
    Kind.COLLECT: lambda head, header, _: _collect(head, header),
}
