"""Before its answer is masked a site says nothing that depends on its cases, whatever they do to the model.

One site is given two sets of cases and then one without a class, and asked the same: with an ordinary model, with models that make
its numbers overflow, and with ranges that clip all of an update.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.flower.app import reason_of_failure
from client.worker.worker import SiteWorker
from csasn import wire
from csasn.errors import TrainingError
from csasn.federated.messages import Absence, Answer, Collect, ModelUpdate, Ready, Reason
from csasn.federated.secagg.keys import SignedKey
from csasn.platform.canonical import canonical
from csasn.wire.values import size_bytes

WHO = "centerA"
DATA = ("its own", "of another hospital", "without a class", "of one class")
KINDS = ("hello", "measure", "train", "validate", "finish")


def without(folder, site, kept):
    """The path of a manifest with a site's cases of some classes alone."""
    rows = list(csv.reader(Path(site.manifest).read_text().splitlines()))
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w") as file:
        csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[2] in kept)])
    return str(folder / "manifest.csv")


class Cases:
    """One site, one identity, several sets of cases, each in a folder of its own."""

    def __init__(self, prepared, folder):
        self.prepared, self.contract, sites = prepared, prepared.contract, prepared.federation.sites
        own, other = sites[WHO], sites["centerC"]
        few, one = without(folder / "few", own, ("benign", "PTC")), without(folder / "one", own, ("benign",))
        some = {
            "its own": own,
            "of another hospital": own.model_copy(update={"manifest": other.manifest, "images": other.images}),
            "without a class": own.model_copy(update={"manifest": few}),
            "of one class": own.model_copy(update={"manifest": one}),
        }
        self.workers = {}
        for number, (name, site) in enumerate(some.items()):
            site = site.model_copy(update={"state": str(folder / f"state{number}")})  # noqa: PLW2901
            self.workers[name] = SiteWorker(
                self.contract.study, self.contract.membership, site, folder / f"worker{number}", prepared.signer(WHO)
            )
        self.numbers = dict.fromkeys(KINDS, 0)

    def say(self, request):
        return {name: reason_of_failure(lambda worker=worker: worker.answer(request)) for name, worker in self.workers.items()}

    def collect(self, question, ready):
        """The masked answers, against keys that the test makes for the other sites."""
        keys = []
        for name in self.contract.membership.sites:
            public = X25519PrivateKey.generate().public_key().public_bytes_raw()
            signature = self.prepared.signer(name)("secagg-key", canonical([ready.transcript, public]))
            keys.append(ready.key if name == WHO else SignedKey(public, signature))
        return Collect(question.header, question.kind, ready.transcript, tuple(keys))


@pytest.fixture(scope="module")
def cases(prepared, tmp_path_factory):
    return Cases(prepared, tmp_path_factory.mktemp("cases"))


def model_of(contract, plain, change):
    whole = change(plain.whole.copy())
    return ModelUpdate(contract.state.hash(whole), whole)


MODELS = {
    "an ordinary model": lambda whole: whole,
    "a model whose logits are not finite": lambda whole: np.full_like(whole, 1e30),
    "a model that overflows": lambda whole: whole * np.float32(1e12),
    "a model of zeros": np.zeros_like,
    "a model that overflows in one place": lambda whole: np.where(
        np.arange(whole.size) == whole.size // 2, np.float32(3e38), whole
    ),
}
QUESTIONS = [("hello", "")]
QUESTIONS += [(kind, model) for kind in KINDS[1:] for model in list(MODELS)[: 5 if kind == "train" else 3]]
QUESTIONS += [("train", "ranges that clip all"), ("train", "ranges that round all to nothing")]
RANGES = {"ranges that clip all": 1e-30, "ranges that round all to nothing": 1e30}


def ask(cases, kind, what):
    question = cases.prepared.request(kind)
    number = cases.numbers[kind] = cases.numbers[kind] + 1
    question = replace(question, header=replace(question.header, number=number, round=min(number, question.header.round)))
    if kind != "hello":
        change = MODELS.get(what, MODELS["an ordinary model"])
        question = replace(question, model=model_of(cases.contract, question.model, change), accepted=None)
    return replace(question, ranges=np.full_like(question.ranges, RANGES[what])) if what in RANGES else question


@pytest.mark.parametrize(("kind", "what"), QUESTIONS)
def test_that_a_site_is_ready_and_the_size_of_its_answer_do_not_depend_on_its_cases(cases, kind, what):
    question = ask(cases, kind, what)
    readies = cases.say(question)
    assert {type(reply) for reply in readies.values()} == {Ready}, readies
    assert len({ready.transcript for ready in readies.values()}) == 1
    assert sizes(readies.values()) == 1
    answers = {name: cases.workers[name].answer(cases.collect(question, ready)) for name, ready in readies.items()}
    assert {type(answer) for answer in answers.values()} == {Answer}
    shapes = {
        (a.counts.shape, a.counts.dtype, a.update_P is not None and (a.update_P.shape, a.update_P.dtype)) for a in answers.values()
    }
    assert shapes == {expected(cases.contract, question)}
    assert sizes(answers.values()) == 1
    unlike = {answer.counts.tobytes() for answer in answers.values()}
    assert len(unlike) == len(DATA)


def expected(contract, question):
    """What the study says of an answer, whatever a site's cases are."""
    upload = contract.upload(question.kind, question.header.round)
    return (contract.counts[question.kind].size,), np.dtype("int64"), upload is not None and ((upload[1],), upload[0])


@pytest.mark.parametrize(
    "error", [TrainingError("logits are not finite"), ValueError("a case"), MemoryError(), ZeroDivisionError()]
)
def test_where_one_set_of_cases_makes_training_fail_and_another_does_not_nobody_can_tell(cases, monkeypatch, error):
    def fails(*_):
        raise error

    question = ask(cases, "train", "an ordinary model")
    monkeypatch.setattr(cases.workers["of one class"].learner, "work", fails)
    readies = cases.say(question)
    assert {type(reply) for reply in readies.values()} == {Ready}
    assert sizes(readies.values()) == 1
    answers = {name: cases.workers[name].answer(cases.collect(question, ready)) for name, ready in readies.items()}
    assert sizes(answers.values()) == 1
    assert {answer.update_P.shape for answer in answers.values()} == {expected(cases.contract, question)[2][0]}


def sizes(replies):
    """How many different lengths the messages have, as they travel."""
    records = [wire.answer_to_records(reply) for reply in replies]
    return len({(size_bytes(record), str(sorted(record))) for record in records})


def failures(cases, kind, what):
    """Which sets of cases made a site fail, as nobody but the site itself knows."""
    question = ask(cases, kind, what)
    found = set()
    for name, ready in cases.say(question).items():
        counts = cases.workers[name].kept.pending(ready.transcript).counts
        found |= {name} if cases.contract.counts[question.kind].unpack(counts)["failed"][0] else set()
    return found


def test_these_models_do_fail_inside(cases):
    assert failures(cases, "train", "a model whose logits are not finite") == set(DATA)
    assert failures(cases, "train", "an ordinary model") == set()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_model_that_is_not_finite_is_refused_by_all_alike(cases, kind):
    question = cases.prepared.request(kind)
    broken = model_of(cases.contract, question.model, lambda whole: np.where(np.arange(whole.size) == 7, np.float32("nan"), whole))
    replies = cases.say(replace(question, model=broken, header=replace(question.header, number=3)))
    assert set(replies.values()) == {Absence(Reason.CONTENTS)}


def test_absences_are_words_of_a_closed_list_and_a_number():
    assert all(len(reason.value) < 60 and reason.value == reason.value.strip() for reason in Reason)
    one, other = (wire.answer_to_records(Absence(Reason.NUMBER, at, text="never sent")) for at in (3, 4))
    assert "never sent" not in str(one) + str(other)
