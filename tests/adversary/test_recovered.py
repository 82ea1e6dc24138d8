"""Attacks that won against an earlier protocol, worked out to the end: each gives noise or a refusal.

The attacker is given the best case: what a site answers is the same whatever the question says, so that any two sums of the same
sites would differ by nothing, and any two of different sites by one site's update.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest

from adversary.light import ROUNDS, LightLearner, LightSites, total
from client.worker.kept import LEFT_OUT_OF_BACKUPS, PENDING_FILE
from csasn.federated.messages import Absence, Answer, ModelUpdate, Ready, Reason
from csasn.platform.storage import TEMPORARY
from secagg.scene import is_uniform

NUM, SIZE = 4, 1 << 14
VICTIM = "mid"


class SameLearner(LightLearner):
    """Comes to the same numbers in every question of a kind."""

    def work(self, question, model, weights, before):
        header = replace(question.header, number=1, round=1)
        same = replace(question, header=header, model=ModelUpdate("same"), weighting=FIRST.weighting)
        same = replace(same, ranges=FIRST.ranges) if hasattr(question, "ranges") else same
        return super().work(same, model, weights, None)


FIRST = LightSites(NUM, None).train(1)


@pytest.fixture
def sites(tmp_path):
    return LightSites(NUM, tmp_path, size=SIZE, learner=SameLearner)


@functools.cache
def secret(kind, what="update_P"):
    """What the victim answers to a question of this kind, bare."""
    contract = LightSites(NUM, None, size=SIZE).contract
    sites = LightSites(NUM, None, size=SIZE)
    return getattr(SameLearner(VICTIM, contract, {}).work(getattr(sites, kind)(1), None, None, None), what)


def looks_like(found, wanted):
    """Correlation, in standard deviations of what unrelated numbers show."""
    return abs(np.corrcoef(found.astype(float), wanted.astype(float))[0, 1]) * np.sqrt(len(wanted))


def is_noise(found, kind):
    return is_uniform(found) and looks_like(found, secret(kind)) < 5


def but(answers, *left_out):
    return {name: answer for name, answer in answers.items() if name not in left_out}


def other_form(sites, question, number):
    """The same question about a model that differs in the sign of a zero alone, and so in its hash; of another run."""
    twin = replace(question.model, state_hash="f" * 64, whole=-question.model.whole)
    return replace(question, model=twin, header=replace(question.header, number=number, run="another", attempt=99))


KINDS = ["train", "measure"]


# ---- 1. two sums of nearly the same question, one without a site


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_and_a_zero_with_a_sign_give_no_site_s_part(sites, kind):
    question = getattr(sites, kind)(1)
    whole = total(sites.both(question))
    answers = sites.both(other_form(sites, question, 2))
    assert not (whole - total(answers)).any()  # the attacker's best case: whole sums are the same
    assert is_noise(whole - total(but(answers, VICTIM)), kind)
    assert is_noise(answers[VICTIM].update_P, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_masks_hide_would_be_seen_without_them(sites, kind, monkeypatch):
    monkeypatch.setattr("csasn.federated.secagg.sealing.add_masks", lambda *_: None)
    question = getattr(sites, kind)(1)
    whole = total(sites.both(question))
    found = whole - total(but(sites.both(other_form(sites, question, 2)), VICTIM))
    assert np.array_equal(found, secret(kind))
    assert not is_noise(found, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_another_run_and_attempt_of_a_question_are_the_question_itself(sites, kind):
    question = getattr(sites, kind)(1)
    first = sites.both(question)
    again = sites.both(replace(question, header=replace(question.header, run="another", attempt=99)))
    assert all(np.array_equal(first[name].update_P, again[name].update_P) for name in sites.names)
    assert is_noise(total(first) - total(but(again, VICTIM)), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_form_under_the_same_number_is_refused(sites, kind):
    question = getattr(sites, kind)(1)
    sites.both(question)
    assert set(sites.ask(other_form(sites, question, 1)).values()) == {Absence(Reason.NUMBER, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_two_questions_do_not_add_up(sites, kind):
    question = getattr(sites, kind)(1)
    first, second = sites.both(question), sites.both(other_form(sites, question, 2))
    assert is_noise(total(but(first, VICTIM) | {VICTIM: second[VICTIM]}), kind)
    assert is_noise(first[VICTIM].update_P - second[VICTIM].update_P, kind)


# ---- 2. sites are told different things


TOLD = {
    "histogram": lambda w: replace(w, histogram_K=w.histogram_K + np.array([0, 1])),
    "class weights": lambda w: replace(w, omega_K=w.omega_K * 1.0000000001),
    "class sums": lambda w: replace(w, history_R3K=np.ones((1, 3, 2), np.int64)),
}


@pytest.mark.parametrize("what", TOLD)
@pytest.mark.parametrize("told", [[VICTIM], ["zeta", VICTIM]])
def test_sites_that_were_told_different_sums_answer_nothing(sites, what, told):
    plain = sites.train(1)
    other = replace(plain, weighting=TOLD[what](plain.weighting))
    readies = {name: sites.say(name, other if name in told else plain) for name in sites.names}
    assert all(isinstance(ready, Ready) for ready in readies.values())
    for digest in {ready.transcript for ready in readies.values()}:
        replies = sites.collect(plain, readies, transcript=digest)
        assert set(replies.values()) <= {Absence(Reason.CONTENTS), Absence(Reason.NEEDS_KEY)}


# ---- 3. refusals as oracles: see test_answers_say_nothing; here what the coordinator learns of failures


@pytest.mark.parametrize("failing", [[], [VICTIM], ["zeta", VICTIM], list(LightSites(NUM, None).names)])
@pytest.mark.parametrize("kind", ["measure", "train", "validate", "finish"])
def test_how_many_sites_failed_is_all_that_a_sum_says_of_it(sites, kind, failing):
    for name in failing:
        sites.worker(name).learner.fails = True
        sites.worker(name).learner.work = functools.partial(LightLearner.work, sites.worker(name).learner)
    question = getattr(sites, kind)(1)
    readies = sites.ask(question)
    assert all(isinstance(ready, Ready) for ready in readies.values())
    answers = sites.collect(question, readies)
    counts = sites.contract.counts[question.kind]
    assert counts.unpack(total(answers, "counts"))["failed"] == [len(failing)]
    assert counts.unpack(total(but(answers, VICTIM), "counts"))["failed"] not in range(NUM + 1)


# ---- 4. unlimited questions


@pytest.mark.parametrize("current_round", [ROUNDS + 1, 11, 5000, 0, -1])
def test_rounds_that_the_study_has_not_are_refused(sites, current_round):
    question = sites.train(10, current_round)
    assert set(sites.ask(question).values()) == {Absence(Reason.CONTENTS)}


def test_the_end_of_four_models_is_told_for_three_and_only_whole(sites):
    for number in (1, 2, 3):
        sites.both(sites.finish(number, model=f"model {number}"))
    assert set(sites.ask(sites.finish(4, model="model 4")).values()) == {Absence(Reason.NUMBER, 3)}
    assert set(sites.ask(sites.finish(3, model="model 4")).values()) == {Absence(Reason.NUMBER, 3)}


def test_nothing_but_4r_29_questions_is_answered(sites):
    answered = 0
    for kind in ("hello", "measure", "train", "validate", "finish"):
        for number in range(1, 40):
            question = getattr(sites, kind)(number)
            readies = sites.ask(question)
            if all(isinstance(ready, Ready) for ready in readies.values()):
                answered += all(isinstance(reply, Answer) for reply in sites.collect(question, readies).values())
    assert answered == 4 * ROUNDS + 29


def test_hello_is_not_answered_anew_in_each_run(sites):
    hello = sites.hello(1)
    first = sites.both(hello)
    for run in range(5):
        again = sites.both(replace(hello, header=replace(hello.header, run=f"run {run}", attempt=run)))
        assert all(np.array_equal(first[name].counts, again[name].counts) for name in sites.names)
    for number in (2, 3):
        sites.both(sites.hello(number))
    assert set(sites.ask(sites.hello(4)).values()) == {Absence(Reason.NUMBER, 3)}


def test_a_whole_model_of_another_run_resets_nothing(sites):
    sites.both(sites.train(3, 2))
    question = sites.train(1, 1)
    question = replace(question, header=replace(question.header, run="another", attempt=1))
    assert set(sites.ask(question).values()) == {Absence(Reason.NUMBER, 3)}


# ---- 5. a site that was brought back, and its backup


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before it was asked", "once it was ready"])
def test_a_site_that_was_brought_back_answers_under_fresh_masks_alone(sites, kind, when):
    question = getattr(sites, kind)(1)
    backup = sites.copy_of(VICTIM)
    readies = sites.ask(question)
    image = sites.copy_of(VICTIM)
    first = sites.collect(question, readies)
    sites.bring_back(VICTIM, backup if when == "before it was asked" else image)
    if when == "before it was asked":
        assert sites.collect(question, readies, [VICTIM]) == {VICTIM: Absence(Reason.NEEDS_KEY)}
        fresh = sites.ask(question)
        assert fresh[VICTIM].key.public != readies[VICTIM].key.public
        assert sites.collect(question, readies, [VICTIM]) == {VICTIM: Absence(Reason.CONTENTS)}  # under its old key
        again = sites.collect(question, fresh)
        assert set(but(again, VICTIM).values()) == {Absence(Reason.NUMBER, 1)}  # one sum a number
        assert is_noise(first[VICTIM].update_P - again[VICTIM].update_P, kind)
        assert is_noise(total(but(first, VICTIM)) + again[VICTIM].update_P, kind)
        later = sites.both(getattr(sites, kind)(2))
        assert all(isinstance(reply, Answer) for reply in later.values())
    else:
        again = sites.collect(question, readies, [VICTIM])
        assert np.array_equal(again[VICTIM].update_P, first[VICTIM].update_P)  # the same keys, the same bytes


def test_a_site_that_was_brought_back_alone_is_asked_anew_to_no_avail(sites):
    backup = sites.copy_of(VICTIM)
    first = sites.both(sites.train(1))
    sites.bring_back(VICTIM, backup)
    other = other_form(sites, sites.train(1), 1)
    readies = sites.ask(other)
    assert [name for name in sites.names if isinstance(readies[name], Ready)] == [VICTIM]
    mine = {name: readies.get(name) if name == VICTIM else replace(readies[VICTIM]) for name in sites.names}
    assert sites.collect(other, mine, [VICTIM]) == {VICTIM: Absence(Reason.CONTENTS)}
    assert is_noise(first[VICTIM].update_P, "train")


def files_with_keys(sites, name, privates):
    folder = sites.worker(name).kept.folder.parent
    return {
        path.name for path in folder.rglob("*") if path.is_file()
        for private in privates if private in path.read_bytes() or private.hex().encode() in path.read_bytes()
    }  # fmt: skip


@pytest.fixture
def privates(monkeypatch):
    """Every private key that a site drew."""
    import client.worker.worker

    drawn, plain = [], client.worker.worker.fresh_key
    monkeypatch.setattr(client.worker.worker, "fresh_key", lambda: drawn.append(plain()) or drawn[-1])
    return drawn


def test_what_a_backup_leaves_out_is_the_one_file_with_a_key(sites, privates):
    assert PENDING_FILE in LEFT_OUT_OF_BACKUPS
    for question in (sites.hello(), sites.measure(), sites.train(1), sites.train(2), sites.validate(), sites.finish()):
        sites.both(question)
        for name in sites.names:
            assert files_with_keys(sites, name, privates) == {PENDING_FILE}
    assert len(privates) == 6 * NUM


def test_nor_does_a_process_that_is_killed_while_it_writes_leave_another(sites, privates, monkeypatch):
    class KilledError(BaseException):
        pass

    def killed(path, *_):
        raise KilledError

    sites.worker(VICTIM)
    with monkeypatch.context() as patch:
        patch.setattr("csasn.platform.storage.os.replace", killed)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
        with pytest.raises(KilledError):
            sites.say(VICTIM, sites.hello())
    found = files_with_keys(sites, VICTIM, privates)
    assert found
    assert all(name.endswith(TEMPORARY) for name in found)  # which no backup takes


# ---- 6. two memberships: masking cannot help, so people are told before they approve


def test_what_masking_cannot_stop_is_the_difference_of_two_memberships(sites, tmp_path):
    three = LightSites(NUM - 1, tmp_path / "three", size=SIZE, learner=SameLearner)
    difference = total(sites.both(sites.hello()), "counts") - total(three.both(three.hello()), "counts")
    assert difference[0] == sites.worker("beta").learner.count_classes()[0]  # of the one hospital that is in one of them alone
