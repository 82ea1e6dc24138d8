"""Canonical bytes, transcripts, keys and masked answers are those of vectors that were made without our code.

tests/vectors/make_secagg.py makes them.
"""

import json
import subprocess
import sys
from dataclasses import fields, make_dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from csasn import errors
from csasn.federated import messages
from csasn.federated.messages import NOT_IN_TRANSCRIPT, transcript
from csasn.federated.secagg.keys import Roster, SignedKey, check_keys, share_seeds, sign_key, view_of
from csasn.federated.secagg.sealing import Sealer, Sealing, check_sealing
from csasn.platform.canonical import canonical

FOLDER = Path(__file__).parent.parent / "vectors"
VECTORS = json.loads((FOLDER / "secagg.json").read_text())
FACTS = VECTORS["facts"]
T, VIEW = bytes.fromhex(FACTS["transcript"]), bytes.fromhex(FACTS["view"])
ROSTER = Roster(FACTS["identities"])


def value_of(tree):
    kind, *parts = tree
    if kind == "array":
        return np.frombuffer(bytes.fromhex(parts[2]), parts[0]).reshape(parts[1])
    if kind == "object":
        name, given = parts[0], {key: value_of(item) for key, item in parts[1]}
        known = getattr(messages, name, None)
        of_ours = known is not None and {field.name for field in fields(known)} == set(given)
        return (known if of_ours else make_dataclass(name, list(given)))(**given)
    read = {
        "none": lambda: None, "truth": lambda given: given, "whole": int, "float": float.fromhex, "text": str,
        "bytes": bytes.fromhex,
        "list": lambda items: [value_of(item) for item in items],
        "map": lambda pairs: {value_of(key): value_of(item) for key, item in pairs},
    }  # fmt: skip
    return read[kind](*parts)


def keys_of(given):
    return tuple(SignedKey(bytes.fromhex(key["public"]), key["signature"]) for key in given)


KEYS = keys_of(FACTS["keys"])


def test_the_script_makes_these_vectors():
    made = subprocess.run([sys.executable, FOLDER / "make_secagg.py"], check=True, capture_output=True, text=True)
    assert made.stdout == (FOLDER / "secagg.json").read_text()


@pytest.mark.parametrize("case", VECTORS["canonical"], ids=lambda case: str(case["value"])[:60])
def test_canonical_bytes_are_those_of_the_vectors(case):
    assert canonical(value_of(case["value"]), NOT_IN_TRANSCRIPT).hex() == case["bytes"]


def test_no_two_values_share_their_bytes():
    found = [case["bytes"] for case in VECTORS["canonical"]]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("dtype", [">i2", ">i8", ">f4", ">f8"])
def test_the_order_of_bytes_in_memory_does_not_matter(dtype):
    little, big = np.arange(5).astype(dtype.replace(">", "<")), np.arange(5).astype(dtype)
    assert canonical(little) == canonical(big)
    assert canonical(np.arange(6).reshape(2, 3).T) == canonical(np.array([[0, 3], [1, 4], [2, 5]]))


@pytest.mark.parametrize(
    "value", [{1, 2}, 1j, np.int64(1), object(), int, lambda: 0, bytearray(b"a")], ids=lambda value: type(value).__name__
)
def test_a_value_of_another_type_has_no_canonical_bytes(value):
    with pytest.raises(TypeError, match="has no canonical bytes"):
        canonical([value])


def test_a_number_in_an_array_and_a_list_of_one_have_other_bytes():
    assert canonical(np.array(5)) != canonical(np.array([5]))


@pytest.mark.parametrize("case", VECTORS["questions"], ids=lambda case: case["kind"])
def test_transcripts_are_those_of_the_vectors(case):
    question = value_of(case["question"])
    assert isinstance(question, messages.Question)
    assert question.kind == case["kind"]
    assert transcript(question, case["carried"]).hex() == case["transcript"]


def test_whole_and_step_are_two_forms_of_one_question():
    of = {case["transcript"]: 0 for case in VECTORS["questions"]}
    assert len(of) == len(VECTORS["questions"]) - 1


def test_the_view_and_keys_are_those_of_the_vectors():
    check_keys(KEYS, T, ROSTER)
    assert view_of(T, KEYS) == VIEW
    for answer, key in zip(VECTORS["wholes"][0]["answers"], KEYS, strict=True):
        assert sign_key(bytes.fromhex(answer["private"]), T, lambda purpose, _: purpose).public == key.public


@pytest.mark.parametrize("case", VECTORS["seeds"], ids=lambda case: f"{case['site']}-{case['peer']}")
def test_seeds_are_those_of_the_vectors(case):
    private = next(bytes.fromhex(a["private"]) for a in VECTORS["wholes"][0]["answers"] if a["site"] == case["site"])
    seeds = share_seeds(private, case["site"], VIEW, KEYS, ROSTER)[case["peer"]]
    assert (seeds.update.hex(), seeds.counts.hex()) == (case["update"], case["counts"])


@pytest.mark.parametrize("whole", VECTORS["wholes"], ids=lambda whole: f"{whole['bits']} bits")
@pytest.mark.parametrize("place", range(3))
def test_masked_answers_and_their_signatures_are_those_of_the_vectors(whole, place):
    case, bits = whole["answers"][place], whole["bits"]
    update = None if bits is None else np.array(case["x"], f"<i{bits // 8}")
    counts = np.array(case["counts"], "<i8")
    sealer = Sealer(case["site"], ROSTER, bytes.fromhex(case["private"]), T)
    sealing = sealer.seal(KEYS, update, counts, lambda *_: case["signature"])
    assert sealing == Sealing(VIEW, case["signature"])
    assert counts.tolist() == case["z"]
    assert bits is None or update.tolist() == case["y"]
    check_sealing(sealing, update, counts, case["site"], ROSTER.identities[case["site"]])


@pytest.mark.parametrize("whole", VECTORS["wholes"], ids=lambda whole: f"{whole['bits']} bits")
def test_the_sum_of_masked_answers_is_that_of_the_answers(whole):
    def added(name, dtype):
        return sum(np.array(answer[name], dtype) for answer in whole["answers"])

    assert added("z", "<i8").tolist() == whole["sum_of_counts"] == added("counts", "<i8").tolist()
    if whole["bits"]:
        dtype = f"<i{whole['bits'] // 8}"
        assert np.array(added("y", dtype), dtype).tolist() == whole["sum"] == added("x", "<i8").tolist()


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["name"])
def test_keys_are_refused_as_in_the_vectors(case):
    first = VECTORS["wholes"][1]["answers"][0]
    sealer = Sealer(first["site"], ROSTER, bytes.fromhex(first["private"]), T)
    with pytest.raises(getattr(errors, case["error"])) as refused:
        sealer.seal(keys_of(case["keys"]), None, np.zeros(3, "<i8"), partial(pytest.fail, "it signed"))
    assert case["phrase"] in refused.value.message
