"""A question that is asked again, once its answer is gone from disk, hides the same numbers or is refused.

Two whole sums of one question whose parts differ at one site alone would show what that site changed: all of its update where
training had failed the first time.
"""

import numpy as np
import pytest

from adversary.light import LightSites, total
from csasn.federated.messages import Absence, Answer, Reason

ALONE = "alpha"


@pytest.fixture
def sites(tmp_path):
    return LightSites(4, tmp_path)


def test_the_same_collect_gives_the_same_bytes(sites):
    question = sites.train()
    readies = sites.ask(question)
    first = sites.collect(question, readies)
    for name in sites.names:
        sites.kill(name)
    again = sites.collect(question, readies)
    assert all(np.array_equal(first[name].update_P, again[name].update_P) for name in sites.names)
    assert {name: first[name].sealing for name in sites.names} == {name: again[name].sealing for name in sites.names}


def test_a_question_that_is_asked_again_is_not_worked_on_again(sites, monkeypatch):
    question = sites.train()
    readies = sites.ask(question)
    for name in sites.names:
        sites.kill(name)
        monkeypatch.setattr(sites.worker(name).learner, "work", None)
    assert sites.ask(question) == readies


unnoticed = pytest.mark.xfail(strict=True, reason="a diary keeps T of what was answered, and not yet a digest of the answer")


@unnoticed
def test_what_came_to_nothing_at_one_site_and_is_worked_on_again_is_in_no_second_sum(sites):
    question = sites.train()
    sites.worker(ALONE).learner.fails = True  # its memory was too small just then
    failed = total(sites.both(question))
    sites.ask(sites.hello(), [ALONE])  # it no longer holds that answer
    sites.worker(ALONE).learner.fails = False
    alone = sites.worker(ALONE).learner.work(question, None, None, None).update_P
    answers = sites.both(question)
    if isinstance(answers[ALONE], Answer):
        assert not np.array_equal(total(answers) - failed, alone)  # that site's update, bare
    assert answers[ALONE] == Absence(Reason.NUMBER, 1)


def test_a_site_that_works_again_and_comes_to_the_same_answers_again(sites):
    question = sites.train()
    whole = total(sites.both(question))
    sites.ask(sites.hello(), [ALONE])
    assert np.array_equal(total(sites.both(question)), whole)


@unnoticed
def test_cases_that_were_added_are_not_told_under_the_number_of_an_earlier_answer(sites, monkeypatch):
    first = total(sites.both(sites.hello()), "counts")
    sites.ask(sites.validate(), [ALONE])
    monkeypatch.setattr(sites.worker(ALONE).learner, "count_classes", lambda: np.array([5 + len(ALONE) + 1]))
    answers = sites.both(sites.hello())
    if isinstance(answers[ALONE], Answer):
        assert total(answers, "counts")[0] - first[0] != 1  # one more case, at that site; and so on, each day under number 1
    assert answers[ALONE] == Absence(Reason.NUMBER, 1)
