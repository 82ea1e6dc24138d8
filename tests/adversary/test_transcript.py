"""T is of everything that a site reads: whoever is told something else alone shares no mask with the others."""

import dataclasses
import itertools
from dataclasses import fields, is_dataclass, make_dataclass, replace

import numpy as np
import pytest
from flwr.app import Message

from adversary.light import LightSites
from client.worker.worker import SiteWorker
from csasn import wire
from csasn.federated import messages
from csasn.federated.messages import NOT_IN_TRANSCRIPT, Answer, Header, ModelUpdate, Ready, Step, Train, Weighting, transcript
from server.flower.runtime import _identify

STEP = Step(np.array([3, -4], np.int16), np.array([0.25]), 64)
KINDS = ["hello", "survey", "measure", "train", "validate", "finish"]
NO_MODEL = ("hello", "survey")


@pytest.fixture
def sites(tmp_path):
    return LightSites(3, tmp_path)


def question_of(sites, kind, accepted=None):
    return getattr(sites, kind)() if kind in NO_MODEL else getattr(sites, kind)(1, accepted=accepted)


# ---- a walk over every leaf


def leaves(value, path=()):
    """(path, change) of every leaf: of an array its first element, its last, its type and its shape."""
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name), (*path, (type(value).__name__, field.name)))
    else:
        for what, other in others(value):
            yield path, what, other


def others(value):
    """Values that differ from this one a little."""
    if isinstance(value, np.ndarray):
        yield from others_of_array(value)
    elif value is None:
        yield "a value", b"\1" * 32
    elif isinstance(value, bytes):
        yield "none", None
        yield "a bit", bytes([value[0] ^ 1]) + value[1:]
    elif isinstance(value, str):
        yield "a character", value[:-1] + ("0" if value[-1:] != "0" else "1")
        yield "longer", value + "0"
    else:
        yield "more", value + 1
        yield "another type", int(value) if isinstance(value, float) else float(value)


def others_of_array(array):
    for place in {0, array.size - 1} if array.size else ():
        changed = array.copy()
        at = np.unravel_index(place, array.shape)
        changed[at] = np.nextafter(changed[at], np.inf) if array.dtype.kind == "f" else changed[at] + 1
        yield f"element {place}", changed
    yield "shape", array.reshape(*array.shape, 1)
    yield "type", array.astype("<f4" if array.dtype != np.float32 else "<f8")
    yield "one more", np.concatenate([array, np.ones((1, *array.shape[1:]), array.dtype)])


def with_leaf(value, path, other):
    if not path:
        return other
    (_, name), *rest = path
    return replace(value, **{name: with_leaf(getattr(value, name), rest, other)})


def is_left_out(path):
    return any(f"{kind}.{name}" in NOT_IN_TRANSCRIPT for kind, name in path)


def cases(question):
    return [
        (f"{path[-1][0]}.{path[-1][1]}: {what}", path, with_leaf(question, path, other)) for path, what, other in leaves(question)
    ]


def of_every_form(sites, kind):
    question = question_of(sites, kind)
    if kind in NO_MODEL:
        return [question]
    by_step = replace(question, model=ModelUpdate(question.model.state_hash, step=STEP))
    history = np.arange(12).reshape(2, 3, 2)
    return [question, by_step, replace(question, accepted=b"\2" * 32, weighting=replace(question.weighting, history_R3K=history))]


@pytest.mark.parametrize("kind", KINDS)
def test_each_leaf_of_a_question_is_in_its_transcript_or_named_as_left_out(sites, kind):
    walked = set()
    for question in of_every_form(sites, kind):
        for what, path, changed in cases(question):
            walked.add(path)
            same = transcript(changed) == transcript(question)
            assert same == is_left_out(path), what
    found = {f"{owner}.{name}" for path in walked for owner, name in path[-1:]}
    header = {f"Header.{field.name}" for field in fields(Header)}
    assert header <= found
    if kind not in NO_MODEL:
        assert {f"Weighting.{field.name}" for field in fields(Weighting)} | {"ModelUpdate.state_hash", "ModelUpdate.whole"} <= found
        assert any(name.endswith(".accepted") for name in found)


def test_what_is_left_out_is_a_short_list_with_reasons():
    assert set(NOT_IN_TRANSCRIPT) == {"Header.run", "Header.attempt", "ModelUpdate.whole", "ModelUpdate.step"}
    assert all(len(why) > 20 for why in NOT_IN_TRANSCRIPT.values())


@pytest.mark.parametrize("kind", KINDS)
def test_whether_a_site_carries_on_is_in_the_transcript(sites, kind):
    question = question_of(sites, kind)
    assert transcript(question, carried=True) != transcript(question, carried=False)


def test_questions_of_all_kinds_about_one_model_have_transcripts_of_their_own(sites):
    assert len({transcript(question_of(sites, kind), carried) for kind in KINDS for carried in (True, False)}) == 2 * len(KINDS)


@pytest.mark.parametrize("owner", [Header, Weighting, ModelUpdate, Train])
def test_a_field_that_is_added_to_a_message_is_in_the_transcript(sites, owner):
    grown = make_dataclass(owner.__name__, [("temperature", float, dataclasses.field(default=0.0))], bases=(owner,), frozen=True)

    def with_temperature(value, temperature):
        if type(value) is owner:
            kept = {field.name: getattr(value, field.name) for field in fields(value)}
            return grown(**kept, temperature=temperature)
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **{k: with_temperature(v, temperature) for k, v in inner.items() if is_dataclass(v)})

    question = replace(sites.train(1), accepted=b"\3" * 32)
    plain, warm, warmer = (with_temperature(question, degree) for degree in (0.0, 1.0, 2.0))
    assert len({transcript(plain), transcript(warm), transcript(warmer), transcript(question)}) == 4


@pytest.fixture
def _known_to_flower():
    _identify(1)


@pytest.mark.usefixtures("_known_to_flower")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accepted", [None, b"\4" * 32], ids=["none", "one"])
def test_a_question_has_the_same_transcript_on_both_sides_of_the_wire(prepared, kind, accepted):
    question = messages.Survey(prepared.request("hello").header) if kind == "survey" else prepared.request(kind)
    if kind not in NO_MODEL:
        awkward = np.array([-0.0, 5e-324, 1 / 3])
        weighting = replace(question.weighting, omega_K=awkward)
        question = replace(question, accepted=accepted, weighting=weighting)
    message = Message(wire.request_to_records(question), dst_node_id=1, message_type=wire.MESSAGE_TYPES[question.kind])
    assert transcript(wire.request_from_message(message)) == transcript(question)


# ---- one site is told something else


def answers_under_any_keys(names, say, readies, fallback, question):
    """Everything that sites answer to collects under each of the transcripts, with keys of all."""
    keys = {name: readies[name].key if isinstance(readies.get(name), Ready) else fallback[name].key for name in names}
    digests = {ready.transcript for ready in readies.values() if isinstance(ready, Ready)}
    return [
        say(name, messages.Collect(question.header, question.kind, digest, tuple(keys.values())))
        for name, digest in itertools.product(names, digests)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", [0, 2])
def test_where_one_site_is_told_something_else_no_site_sends_its_answer(sites, kind, who):
    question = question_of(sites, kind)
    fallback = sites.ask(question_of(sites, "finish" if kind in NO_MODEL else "hello"))
    told = sites.names[who]
    for what, path, changed in cases(question):
        readies = {name: sites.say(name, changed if name == told else question) for name in sites.names}
        replies = answers_under_any_keys(sites.names, sites.say, readies, fallback, question)
        sent = [reply for reply in replies if isinstance(reply, Answer)]
        if is_left_out(path):
            assert len(sent) == 3, what
            sites = LightSites(3, sites.folder / f"next{len(what)}{path[-1][1]}")  # the diary has it now
            fallback = sites.ask(question_of(sites, "finish" if kind in NO_MODEL else "hello"))
        else:
            assert sent == [], what


CHANGES = {
    "ranges": lambda q: replace(q, ranges=q.ranges * 2),
    "the round": lambda q: replace(q, header=replace(q.header, round=1)),
    "accepted": lambda q: replace(q, accepted=b"\5" * 32),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nor_do_real_sites_that_train(prepared, tmp_path, change):
    question = replace(prepared.request("train"), accepted=None)
    assert question.header.round == 2
    workers = {
        name: SiteWorker(prepared.contract.study, prepared.contract.membership, prepared.federation.sites[name], tmp_path / name,
                         prepared.signer(name))
        for name in prepared.names
    }  # fmt: skip
    readies = {
        name: worker.answer(CHANGES[change](question) if name == "centerB" else question) for name, worker in workers.items()
    }
    assert all(isinstance(ready, Ready) for ready in readies.values())

    def say(name, request):
        try:
            return workers[name].answer(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no answer
            return error

    replies = answers_under_any_keys(prepared.names, say, readies, {}, question)
    assert len(replies) == 6
    assert not any(isinstance(reply, Answer) for reply in replies)
    again = {name: worker.answer(question) for name, worker in workers.items()}
    assert all(isinstance(reply, Answer) for reply in answers_under_any_keys(prepared.names, say, again, {}, question))
