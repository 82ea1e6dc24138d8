"""What the coordinator sends: requests <-> Flower records."""

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from csasn.errors import ProtocolError
from csasn.federated.messages import Accepted, Header, ModelUpdate, Request, Step, Weighting
from csasn.federated.secagg.messages import KeySet, SignedKey, Survivors, Witness
from csasn.wire.keys import (
    ACCEPTED_ATTEMPT,
    ACCEPTED_SITES,
    ARRAYS,
    ARRIVED_UNITS,
    ATTEMPT,
    BLOBS,
    CONFIRMATIONS,
    CONFIRMED,
    EPOCH,
    HEADER,
    HEADER_KEYS,
    HISTOGRAM,
    HISTORY,
    KEY_SIGNATURES,
    KEYS,
    MEMBERSHIP_HASH,
    MESSAGE_TYPES,
    OMEGA,
    RANGES,
    ROUND,
    RUN,
    STATE_HASH,
    STEP_SIZES,
    STEP_SUM,
    STUDY_HASH,
    SURVIVORS,
    WHOLE,
    WITNESS_SIGNATURES,
    WITNESSES,
)
from csasn.wire.values import (
    STATES,
    AnyArray,
    read_array,
    read_arrays,
    read_config,
    read_count,
    read_floats,
    read_integers,
    read_list,
    read_sums,
    read_text,
    to_record,
)


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
    return RecordDict({HEADER: header, ARRAYS: to_record(arrays)})


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
            read_text(header, STUDY_HASH),
            read_text(header, MEMBERSHIP_HASH),
            read_text(header, RUN),
            read_count(header, ROUND),
            read_count(header, ATTEMPT),
        ),
        model=_model(header, arrays) if STATE_HASH in header else None,
        weighting=_weighting(header) if OMEGA in header else None,
        accepted=_accepted(header) if ACCEPTED_ATTEMPT in header else None,
        ranges=read_floats(header, RANGES) if RANGES in header else None,
        keys=_keys(header) if EPOCH in header else None,
        survivors=_survivors(header) if SURVIVORS in header else None,
        blobs=tuple(read_list(header, BLOBS, bytes)) if BLOBS in header else (),
    )


def _open(records: RecordDict, names: set[str]) -> tuple[ConfigRecord, ArrayRecord]:
    if set(records) != names:
        raise ProtocolError(f"the message holds {len(records)} records, expected {' and '.join(sorted(names))}")
    return read_config(records, HEADER), read_arrays(records)


def _model(header: ConfigRecord, arrays: ArrayRecord) -> ModelUpdate:
    whole = read_array(arrays, WHOLE, STATES, 1).astype(np.float32, copy=False) if WHOLE in arrays else None
    step = None
    if STEP_SUM in arrays:
        step = Step(read_sums(arrays, STEP_SUM), read_floats(header, STEP_SIZES), read_count(header, ARRIVED_UNITS))
    if (whole is None) == (step is None):
        raise ProtocolError("the message holds a whole model and a step, or neither, expected one")
    return ModelUpdate(read_text(header, STATE_HASH), whole, step)


def _weighting(header: ConfigRecord) -> Weighting:
    omega_K, histogram_K = read_floats(header, OMEGA), read_integers(header, HISTOGRAM)
    history = read_integers(header, HISTORY) if HISTORY in header else np.zeros(0, np.int64)
    if not omega_K.size or history.size % (3 * omega_K.size):
        raise ProtocolError(f"{HISTORY} has {history.size} counts, expected 3 a class and round")
    return Weighting(omega_K, histogram_K, history.reshape(-1, 3, omega_K.size))


def _accepted(header: ConfigRecord) -> Accepted:
    return Accepted(
        read_count(header, ACCEPTED_ATTEMPT), tuple(read_list(header, ACCEPTED_SITES, str) if ACCEPTED_SITES in header else ())
    )


def _keys(header: ConfigRecord) -> KeySet:
    publics, signatures = read_list(header, KEYS, bytes), read_list(header, KEY_SIGNATURES, str)
    if len(publics) != len(signatures):
        raise ProtocolError(f"{len(publics)} keys with {len(signatures)} signatures")
    return KeySet(read_count(header, EPOCH), tuple(map(SignedKey, publics, signatures)))


def _survivors(header: ConfigRecord) -> Survivors:
    sites, digests = read_list(header, SURVIVORS, str), read_list(header, WITNESSES, bytes)
    signatures = read_list(header, WITNESS_SIGNATURES, str)
    confirmed, confirmations = (read_list(header, key, str) if key in header else [] for key in (CONFIRMED, CONFIRMATIONS))
    if not len(sites) == len(digests) == len(signatures) or len(confirmed) != len(confirmations):
        raise ProtocolError(f"{len(sites)} survivors with {len(signatures)} signatures, {len(confirmations)} confirmations")
    return Survivors(tuple(sites), tuple(map(Witness, digests, signatures)), dict(zip(confirmed, confirmations, strict=True)))
