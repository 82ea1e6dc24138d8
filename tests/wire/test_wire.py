"""Flower records: what goes in comes out, and whatever is not ours is refused."""

import dataclasses

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn import wire
from csasn.errors import ProtocolError
from csasn.federated.messages import (
    Absence,
    Answer,
    Collect,
    Finish,
    Header,
    Hello,
    Kind,
    ModelUpdate,
    Ready,
    Reason,
    Step,
    Survey,
    Train,
    Validate,
    Weighting,
)
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.secagg.sealing import Sealing
from server.flower.runtime import _identify

HEADER = Header("a" * 64, "b" * 64, 4, 3, "run", 7)
WEIGHTING = Weighting(np.array([1.0, 0.9]), np.array([30, 20]), np.arange(12).reshape(2, 3, 2))
UNMOVED = Weighting(np.ones(2), np.array([3, 4]), np.zeros((0, 3, 2), int))
STEP = ModelUpdate("c" * 64, step=Step(np.arange(-3, 4, dtype="<i2"), np.array([0.1, 0.2]), 48))
WHOLE = ModelUpdate("c" * 64, whole=np.linspace(0, 1, 9, dtype=np.float32))
KEYS = (SignedKey(b"k" * 32, "a" * 128), SignedKey(b"l" * 32, "b" * 128))
ACCEPTED = bytes(range(32))
REQUESTS = [
    Hello(HEADER),
    Train(HEADER, WHOLE, WEIGHTING, None, np.array([0.05, 0.06])),
    Train(HEADER, STEP, WEIGHTING, ACCEPTED, np.array([0.05, 0.06])),
    Validate(HEADER, STEP, WEIGHTING, ACCEPTED),
    Finish(HEADER, WHOLE, WEIGHTING, ACCEPTED, 1.25),
    Train(HEADER, WHOLE, UNMOVED, None, np.array([0.05])),
    Survey(HEADER),
    *(Collect(HEADER, kind, ACCEPTED, KEYS) for kind in Kind if kind is not Kind.COLLECT),
]
COLLECT = REQUESTS[-1]


@pytest.fixture(autouse=True)
def _who():
    _identify(1)


def message_of(request, records=None):
    return Message(records or wire.request_to_records(request), dst_node_id=2, message_type=wire.MESSAGE_TYPES[request.kind])


def same(a, b):
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_comes_back_as_it_went(request_):
    message = message_of(request_)
    assert same(wire.request_from_message(message), request_)
    whole = request_.model.whole if hasattr(request_, "model") else None
    assert wire.size_bytes(message.content) > (0 if whole is None else whole.nbytes)


@pytest.mark.parametrize("dtype", ["<i2", "<i4"])
def test_an_answer_comes_back_as_it_went_with_its_size(dtype):
    answer = Answer(np.arange(5), np.arange(-4, 4, dtype=dtype))
    back = wire.answer_from_records(wire.answer_to_records(answer))
    assert same(dataclasses.replace(back, num_bytes=0), answer)
    assert back.num_bytes > answer.counts.nbytes + answer.update_P.nbytes


@pytest.mark.parametrize("update_P", [np.arange(-4, 4, dtype="<i2"), np.arange(-4, 4, dtype="|i1"), np.arange(-4, 4), None])
def test_what_seals_an_answer_comes_back_as_it_went(update_P):
    answer = Answer(np.arange(5), update_P, Sealing(b"v" * 32, "f" * 128))
    assert same(dataclasses.replace(wire.answer_from_records(wire.answer_to_records(answer)), num_bytes=0), answer)


def test_that_a_site_is_ready_comes_back_as_it_went():
    ready = Ready(ACCEPTED, KEYS[0])
    assert wire.answer_from_records(wire.answer_to_records(ready)) == ready


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("keys", [b"k" * 32], "1 keys with 2 signatures"),
        ("keys", ["k", "l"], "keys is missing, or no list of bytes"),
        ("key-signatures", [b"k", b"l"], "key-signatures is missing, or no list of str"),
        ("key-signatures", "ab", "key-signatures is missing, or no list of str"),
        ("transcript", "a" * 32, "transcript is missing, or not bytes"),
        ("of", "collect", "of names no question"),
        ("of", "shell", "of names no question"),
        ("of", 3, "of is missing, or not text"),
        ("number", -1, "number is missing, or not a count"),
        ("ranges", [0.5], "1 unknown keys in the header of collect"),
    ],
)
def test_a_request_to_collect_that_is_not_ours_is_refused(key, value, says):
    records = wire.request_to_records(COLLECT)
    records["header"][key] = value
    with pytest.raises(ProtocolError, match=says):
        wire.request_from_message(message_of(COLLECT, records))


READY = {"transcript": b"t", "public": b"k", "signature": "s"}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        (RecordDict({"ready": ConfigRecord({"public": b"k"})}), "record ready lacks keys"),
        (RecordDict({"ready": ConfigRecord(READY | {"more": 1})}), "record ready lacks keys, or holds unknown"),
        (RecordDict({"ready": ConfigRecord(READY | {"public": "k"})}), "public is missing, or not bytes"),
        (RecordDict({"ready": ConfigRecord(READY | {"signature": 5})}), "signature is missing, or not text"),
        (RecordDict({"ready": ConfigRecord(READY), "sealing": ConfigRecord({})}), "the answer holds 2 records"),
        (RecordDict({"sealing": ConfigRecord({"view": b"v", "signature": "s"})}), "the answer holds 1 records"),
        (RecordDict({"absence": ConfigRecord({"reason": "needs the whole model"})}), "record absence lacks keys"),
        (
            RecordDict({"absence": ConfigRecord({"reason": "failed", "at": 0, "text": "why"})}),
            "record absence lacks keys, or holds",
        ),
        (RecordDict({"absence": ConfigRecord({"reason": "failed", "at": -1})}), "at is missing, or not a count"),
        (RecordDict({"absence": ConfigRecord({"reason": "refused", "at": 0})}), "unknown reason of an absence"),
    ],
)
def test_a_word_in_place_of_an_answer_that_is_not_ours_is_refused(records, says):
    with pytest.raises(ProtocolError, match=says):
        wire.answer_from_records(records)


@pytest.mark.parametrize("changes", [{"view": "v"}, {"signature": b"s"}, {"note": "n"}])
def test_a_sealing_that_is_not_ours_is_refused(changes):
    records = wire.answer_to_records(Answer(np.arange(5), None, Sealing(b"v" * 32, "f" * 128)))
    for key, value in changes.items():
        records["sealing"][key] = value
    with pytest.raises(ProtocolError):
        wire.answer_from_records(records)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_and_a_number_come_back_as_they_went_and_no_text_with_them(reason):
    back = wire.answer_from_records(wire.answer_to_records(Absence(reason, 17, "the line of another")))
    assert back == Absence(reason, 17)


def broken(change):
    records = wire.request_to_records(REQUESTS[2])
    change(records)
    return message_of(REQUESTS[2], records)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.pop("header"), "the message holds 1 records"),
        (lambda r: r.__setitem__("more", ConfigRecord({})), "the message holds 3 records"),
        (lambda r: r["header"].__setitem__("shell", "rm"), "1 unknown keys"),
        (lambda r: r["header"].__setitem__("round", -1), "round is missing, or not a count"),
        (lambda r: r["header"].__setitem__("round", "3"), "round is missing, or not a count"),
        (lambda r: r["header"].pop("study-hash"), "study-hash is missing"),
        (lambda r: r["header"].__setitem__("number", True), "number is missing, or not a count"),
        (lambda r: r["header"].pop("version"), "version is missing"),
        (lambda r: r["header"].__setitem__("accepted", "a" * 64), "accepted is missing, or not bytes"),
        (lambda r: r["header"].__setitem__("accepted-sites", ["centerA"]), "1 unknown keys"),
        (lambda r: r["header"].pop("step-sizes"), "step-sizes is missing"),
        (lambda r: r["header"].__setitem__("ranges", [1, 2]), "ranges is missing, or no list of float"),
        (lambda r: r["header"].__setitem__("class-histogram", [True, False]), "class-histogram is missing, or no list of int"),
        (lambda r: r["arrays"].__setitem__("step-sum", Array(np.zeros(3, np.float32))), "step-sum is float32"),
        (lambda r: r["arrays"].__setitem__("step-sum", Array(np.zeros((3, 3), np.int16))), "of 2 axes, expected"),
        (lambda r: r["header"].__setitem__("class-history", [1, 2, 3]), "has 3 counts, expected 3 a class and round"),
        (lambda r: r["header"].__setitem__("class-weights", []), "expected 3 a class and round"),
        (
            lambda r: r["arrays"].__setitem__("whole-state", Array(np.zeros(3, np.float32))),
            "several of a whole model",
        ),
        (lambda r: r["arrays"].pop("step-sum"), "sizes of a step, and no step"),
        (lambda r: r["arrays"].__setitem__("images", Array(np.zeros(1, np.float32))), "1 unknown arrays"),
        (lambda r: r.__setitem__("arrays", ConfigRecord({})), "holds no arrays"),
    ],
)
def test_a_request_that_is_not_ours_is_refused(change, says):
    with pytest.raises(ProtocolError, match=says):
        wire.request_from_message(broken(change))


def packed(data, shape=(3,), dtype="int64"):
    return RecordDict({"arrays": ArrayRecord({"counts": Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)})})


def npy(array):
    return Array(array).data


@pytest.mark.parametrize(
    "records",
    [
        packed(b""),
        packed(b"\x93NUMPY\x01\x00"),
        packed(npy(np.arange(3))[:-1]),
        packed(npy(np.arange(3)) + b"\x00"),
        packed(npy(np.arange(4))),
        packed(npy(np.arange(3)), shape=(10**12,)),
        packed(npy(np.arange(3.0)), dtype="int64"),
        packed(npy(np.arange(3)).replace(b"(3,)", b"(9,)")),
        packed(b"\x80\x04pickle"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused(records):
    with pytest.raises(ProtocolError):
        wire.answer_from_records(records)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=300),
    shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    dtype=st.sampled_from(["int64", "<i8", "O"]),
)
def test_no_bytes_do_more_than_be_refused(data, shape, dtype):
    with pytest.raises(ProtocolError):
        wire.answer_from_records(packed(data, shape, dtype))


def test_an_answer_holds_update_and_counts_and_nothing_else():
    records = wire.answer_to_records(Answer(np.arange(5)))
    records["arrays"]["images"] = Array(np.zeros(3))
    with pytest.raises(ProtocolError, match="expected counts and update alone"):
        wire.answer_from_records(records)


def test_an_unknown_message_type_is_refused():
    with pytest.raises(ProtocolError, match=r"unknown message type 'query\.shell'"):
        wire.request_from_message(Message(RecordDict(), dst_node_id=2, message_type="query.shell"))
