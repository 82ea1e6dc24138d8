"""A question that is asked again, once its answer is gone from disk, hides the same numbers or is refused.

Two whole sums of one question whose parts differ at one site alone would show what that site changed: all of its update where
training had failed the first time.
"""

import numpy as np
import pytest

from adversary.light import LightSites, total
from csasn.federated.messages import Answer

ALONE = "alpha"


@pytest.fixture
def sites(tmp_path):
    return LightSites(4, tmp_path)


@pytest.mark.parametrize("killed", [False, True])
def test_the_same_collect_gives_the_same_bytes(sites, killed):
    question = sites.train()
    readies = sites.ask(question)
    first = sites.collect(question, readies)
    for name in sites.names if killed else ():
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


def difference(sites, question, before, what="update_P"):
    """What a second whole sum of a question adds to the first, None where a site refuses to be in it."""
    answers = sites.both(question)
    return total(answers, what) - before if all(isinstance(answer, Answer) for answer in answers.values()) else None


def failed_at_one(sites, question):
    """The sum in which one site's training failed, as where its memory was too small just then, and what it comes to otherwise."""
    learner = sites.worker(ALONE).learner
    learner.fails = True
    whole = total(sites.both(question))
    learner.fails = False
    return whole, learner.work(question, None, None, None).update_P


def test_what_failed_at_one_site_and_is_worked_on_again_is_in_no_second_sum(sites):
    question = sites.train()
    whole, alone = failed_at_one(sites, question)
    sites.ask(sites.hello(), [ALONE])  # it no longer holds that answer
    assert not np.array_equal(difference(sites, question, whole), alone)


def test_nor_where_that_site_was_brought_back_from_a_backup(sites):
    backup = sites.copy_of(ALONE)
    question = sites.train()
    whole, alone = failed_at_one(sites, question)
    sites.bring_back(ALONE, backup)
    assert not np.array_equal(difference(sites, question, whole), alone)


def test_cases_that_were_added_are_not_told_under_the_number_of_an_earlier_answer(sites, monkeypatch):
    whole = total(sites.both(sites.hello()), "counts")
    sites.ask(sites.validate(), [ALONE])
    monkeypatch.setattr(sites.worker(ALONE).learner, "count_classes", lambda: np.array([5 + len(ALONE) + 1]))
    assert difference(sites, sites.hello(), whole, "counts") is None  # else one more case, each day under number 1


def test_a_site_that_works_again_adds_nothing_to_a_second_sum(sites):
    question = sites.train()
    whole = total(sites.both(question))
    sites.ask(sites.hello(), [ALONE])
    added = difference(sites, question, whole)
    assert added is None or not added.any()
