"""What training leaves over is carried on by all sites or by none, and a failed training touches none of it."""

from dataclasses import replace

import numpy as np
import pytest

import client.worker.worker
from adversary.light import MOST, LightLearner, LightSites, total
from client.worker.kept import LeftOver
from client.worker.learner import Learner
from csasn.errors import TrainingError
from csasn.federated.messages import Absence, Answer, Ready, Reason
from reports import read_lines

NUM = 4
ALONE = "alpha"


class AddingLearner(LightLearner):
    """x = half of what training comes to + e, as in quantisation; e' is drawn for each question, and small enough for x's bound."""

    def work(self, question, model, weights, before):
        work = super().work(question, model, weights, None)
        if work.left is None:
            return work
        residual_P = np.zeros(self.contract.state.size) if before is None else before.residual_P
        left = LeftOver(np.remainder(work.left.residual_P, MOST // 2))
        return replace(work, update_P=work.update_P // 2 + residual_P.astype(np.int16), left=left)


@pytest.fixture
def sites(tmp_path):
    return LightSites(NUM, tmp_path, learner=AddingLearner)


def transcripts(readies):
    return {name: reply.transcript for name, reply in readies.items()}


def e_of(sites, name, transcript):
    return sites.worker(name).kept.left(transcript).residual_P.astype(np.int16)


def trained_once(sites):
    """T of a train question that all answered."""
    readies = sites.ask(sites.train(1))
    sites.collect(sites.train(1), readies)
    return readies[ALONE].transcript


def alone(sites, name, question):
    """What training comes to at a site that carries on nothing."""
    return AddingLearner(name, sites.contract, {}).work(question, None, None, None).update_P


def drops_what_it_left_over(sites, accepted):
    """One site alone is told of other accepted questions, so that what the first left over is gone there; the sum before that."""
    second = sites.train(2, accepted=accepted)
    readies = sites.ask(second)
    answers = sites.collect(second, readies)
    third = sites.ask(sites.train(3, accepted=readies[ALONE].transcript), [ALONE])[ALONE].transcript
    sites.ask(sites.validate(1, accepted=third), [ALONE])
    return second, total(answers)


class SteadyLearner(AddingLearner):
    """As where randomness matters little: the number of a question changes nothing."""

    def work(self, question, model, weights, before):
        return super().work(replace(question, header=replace(question.header, number=2)), model, weights, before)


def test_without_carried_in_the_transcript_two_sums_differ_by_what_one_site_left_over(tmp_path, monkeypatch):
    sites, plain = LightSites(NUM, tmp_path, learner=SteadyLearner), client.worker.worker.transcript
    monkeypatch.setattr(client.worker.worker, "transcript", lambda question, carried=False: plain(question))
    accepted = trained_once(sites)
    e_of_one = e_of(sites, ALONE, accepted)
    _, whole = drops_what_it_left_over(sites, accepted)
    assert np.array_equal(whole - total(sites.both(sites.train(3, accepted=accepted))), e_of_one)
    assert np.abs(e_of_one).max() > 0


def test_a_site_that_alone_dropped_what_it_left_over_is_in_no_second_sum(sites):
    accepted = trained_once(sites)
    second, _ = drops_what_it_left_over(sites, accepted)
    readies = sites.ask(second)
    assert readies[ALONE] == Absence(Reason.NUMBER, 2)  # another T under the number that it answered
    third = sites.train(3, accepted=accepted)
    readies = sites.ask(third)
    assert len(set(transcripts(readies).values())) == 2
    for name in sites.names:
        mine = {other: replace(ready, transcript=readies[name].transcript) for other, ready in readies.items()}
        replies = sites.collect(third, mine)
        assert not any(isinstance(reply, Answer) for reply in replies.values())


def test_after_that_all_begin_without_what_was_left_over(sites):
    drops_what_it_left_over(sites, trained_once(sites))
    question = sites.train(3, accepted=None)
    assert np.array_equal(total(sites.both(question)), sum(alone(sites, name, question) for name in sites.names))


@pytest.mark.parametrize("which", ["the last", "an older one", "none", "one that never was"])
def test_all_sites_carry_on_alike(sites, which):
    first = trained_once(sites)
    second = sites.train(2, accepted=first)
    last = sites.ask(second)[ALONE].transcript
    sites.collect(second, sites.ask(second))
    accepted = {"the last": last, "an older one": first, "none": None, "one that never was": b"\1" * 32}[which]
    residuals = {name: e_of(sites, name, accepted) for name in sites.names if which in ("the last", "an older one")}
    question = sites.train(3, accepted=accepted)
    readies = sites.ask(question)
    assert len(set(transcripts(readies).values())) == 1
    assert {name: bool(sites.worker(name).kept.left_path(accepted)) for name in sites.names} == dict.fromkeys(
        sites.names, bool(residuals)
    )
    expected = sum(alone(sites, name, question) + residuals.get(name, 0) for name in sites.names)
    assert np.array_equal(total(sites.collect(question, readies)), expected)


@pytest.mark.parametrize("kind", ["hello", "measure", "train", "validate", "finish"])
def test_what_a_question_left_over_is_gone_once_another_does_not_name_it(sites, kind):
    first = transcripts(sites.ask(sites.train(1)))
    assert all(sites.worker(name).kept.left_path(first[name]) for name in sites.names)
    sites.ask(sites.hello() if kind == "hello" else getattr(sites, kind)(1, **({"model": "other"} if kind == "train" else {})))
    assert not any(sites.worker(name).kept.left_path(first[name]) for name in sites.names)


def test_what_an_accepted_question_left_over_stays_until_two_later_ones_are_accepted(sites):
    """The round of the later one may be undone."""
    first = trained_once(sites)
    second = transcripts(sites.ask(sites.train(2, accepted=first)))[ALONE]
    sites.ask(sites.hello())
    sites.ask(sites.train(2, accepted=first))
    assert all(sites.worker(name).kept.left_path(first) and sites.worker(name).kept.left_path(second) for name in sites.names)
    third = transcripts(sites.ask(sites.train(3, accepted=second)))[ALONE]
    assert all(sites.worker(name).kept.left_path(first) for name in sites.names)
    sites.ask(sites.train(4, accepted=third))
    assert not any(sites.worker(name).kept.left_path(first) for name in sites.names)


def test_a_training_that_fails_leaves_what_was_left_over_untouched(sites):
    accepted = trained_once(sites)
    before = e_of(sites, ALONE, accepted)
    sites.worker(ALONE).learner.fails = True
    question = sites.train(2, accepted=accepted)
    readies = sites.ask(question)
    assert all(isinstance(ready, Ready) for ready in readies.values())
    sites.kill(ALONE)
    answers = sites.collect(question, readies)
    assert sites.contract.counts[question.kind].unpack(total(answers, "counts"))["failed"] == [1]
    assert np.array_equal(e_of(sites, ALONE, readies[ALONE].transcript), before)


def test_a_first_training_that_fails_leaves_nothing_over(sites):
    sites.worker(ALONE).learner.fails = True
    readies = sites.ask(sites.train(1))
    assert not e_of(sites, ALONE, readies[ALONE].transcript).any()


def test_a_left_over_that_is_damaged_counts_for_none(sites):
    accepted = trained_once(sites)
    path = next(sites.worker(ALONE).kept.folder.glob("left-*"))
    path.write_bytes(path.read_bytes()[:-3])
    sites.kill(ALONE)
    readies = sites.ask(sites.train(2, accepted=accepted))
    assert isinstance(readies[ALONE], Ready)  # and so the coordinator asks all to begin without


def test_training_that_diverges_leaves_what_was_left_over_finite_and_as_it_was(federate):
    federation = federate(federation={"secure_aggregation": True, "rounds": 2})
    federation.run()
    second = [request for _, request in federation.requests if request.kind == "train"][-1]
    worker = federation._worker("centerB")
    whole = np.full(federation.contract.state.size, 1e30, np.float32)
    model = replace(second.model, state_hash=federation.contract.state.hash(whole), whole=whole)
    accepted = next(iter(left_transcripts(worker)))
    exploding = replace(second, model=model, accepted=accepted, header=replace(second.header, number=3))
    ready = worker.answer(exploding)
    pending, left = worker.kept.pending(ready.transcript), worker.kept.left(ready.transcript)
    assert federation.contract.counts["train"].unpack(pending.counts)["failed"] == [1]
    assert len(np.unique(pending.update_P)) > 1000  # noise is summed in its place
    before = worker.kept.left(accepted)
    assert np.array_equal(left.residual_P, before.residual_P)
    assert np.isfinite(left.residual_P).all()
    assert left.residual_P.any()


def left_transcripts(worker):
    return [bytes.fromhex(path.stem.removeprefix("left-")) for path in worker.kept.folder.glob("left-*.safetensors")]


def test_a_run_in_which_one_site_cannot_train_stops_and_names_nobody(federate, monkeypatch):
    federation = federate(federation={"secure_aggregation": True})
    plain = Learner.work

    def work(learner, question, *rest):
        if learner.site.site == "centerB" and question.header.round == 2 and question.kind == "train":
            raise TrainingError("loss is nan at step 3 of round 2, expected a finite number")
        return plain(learner, question, *rest)

    monkeypatch.setattr(Learner, "work", work)
    with pytest.raises(TrainingError, match=r"^1 site could not train; each site's own log says which$") as stopped:
        federation.run()
    said = f"{stopped.value.message} {stopped.value.hint} {read_lines(federation.path)[-1]}"
    assert not any(site in said for site in federation.sites)
    assert len(federation.events("round-finished")) == 1
