"""The diary: what a site answered once it answers in no other form, and a coordinator that lost its place goes on by itself."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import client.worker.diary
from adversary.light import ROUNDS, LightSites, total
from client.worker.diary import FEW, highest_number
from csasn.errors import StorageError
from csasn.federated.messages import Absence, Answer, Kind, Ready, Reason

BOUND = 2 * ROUNDS + 10


@pytest.fixture
def sites(tmp_path):
    return LightSites(3, tmp_path)


AS_IT_IS, RESTARTED = (lambda sites: None), (lambda sites: [sites.kill(name) for name in sites.names])
each_state = pytest.mark.parametrize("happens", [AS_IT_IS, RESTARTED], ids=["as it is", "after a restart"])


def refused(sites, question, at):
    return sites.ask(question) == dict.fromkeys(sites.names, Absence(Reason.NUMBER, at))


@each_state
def test_a_lower_number_is_refused_with_the_number(sites, happens):
    sites.both(sites.train(5))
    happens(sites)
    assert refused(sites, sites.train(4), 5)
    assert all(isinstance(reply, Ready) for reply in sites.ask(sites.train(6)).values())


@each_state
@pytest.mark.parametrize("change", [{"model": "other"}, {"ranges": 2.0}, {"omega": 2.0}, {"current_round": 2}])
def test_other_contents_under_the_number_that_was_answered_are_refused(sites, happens, change):
    sites.both(sites.train(5))
    happens(sites)
    assert refused(sites, sites.train(5, **change), 5)


@each_state
def test_other_contents_are_welcome_before_anything_was_sent(sites, happens):
    sites.ask(sites.train(5))
    happens(sites)
    assert all(isinstance(reply, Answer) for reply in sites.both(sites.train(5, model="other")).values())


@pytest.mark.parametrize(
    ("kind", "bound"), [("hello", FEW), ("survey", FEW), ("measure", BOUND), ("train", BOUND), ("validate", FEW), ("finish", FEW)]
)
def test_a_number_above_the_bound_is_refused(sites, kind, bound):
    assert highest_number(Kind(kind), ROUNDS) == bound
    ask = getattr(sites, kind)
    assert refused(sites, ask(bound + 1), 0)
    assert all(isinstance(reply, Answer) for reply in sites.both(ask(bound)).values())
    assert refused(sites, ask(bound + 1), bound)


@pytest.mark.parametrize("kind", ["hello", "survey", "measure", "train", "validate", "finish"])
def test_a_collect_beside_the_diary_is_refused_too(sites, kind):
    ask = getattr(sites, kind)
    earlier = sites.ask(ask(1))
    request = sites.collecting(ask(1), earlier)
    copies = {name: sites.copy_of(name) for name in sites.names}
    later = ask(2)
    sites.both(later)
    diaries = {name: (sites.worker(name).kept.folder / "diary.json").read_bytes() for name in sites.names}
    for name in sites.names:
        sites.bring_back(name, copies[name])
        (sites.worker(name).kept.folder / "diary.json").write_bytes(diaries[name])  # the answer is back, the diary went on
        sites.kill(name)
        assert sites.say(name, request) == Absence(Reason.NUMBER, 2)


def test_a_site_that_is_restored_may_answer_again_but_the_others_keep_to_their_diaries(sites):
    copy = sites.copy_of("mid")
    sites.both(sites.train(5))
    sites.bring_back("mid", copy)
    replies = sites.ask(sites.train(4))
    assert replies["zeta"] == replies["alpha"] == Absence(Reason.NUMBER, 5)
    assert isinstance(replies["mid"], Ready)


def test_a_process_that_was_there_before_keeps_to_what_another_answered(sites):
    before = {name: sites.worker(name) for name in sites.names}
    sites.workers = {}
    sites.both(sites.train(5))
    sites.workers = before
    assert refused(sites, sites.train(4), 5)


@pytest.mark.parametrize("other", [{"number": 4}, {"number": 6}, {"number": 1}])
def test_a_collect_names_the_number_of_its_question(sites, other):
    question = sites.train(5)
    readies = sites.ask(question)
    replies = sites.collect(question, readies, header=replace(question.header, **other))
    assert not any(isinstance(reply, Answer) for reply in replies.values())


@pytest.mark.parametrize("of", [Kind.HELLO, Kind.SURVEY, Kind.VALIDATE, Kind.FINISH, Kind.COLLECT])
def test_a_collect_names_the_kind_of_its_question(sites, of):
    question = sites.train(1)
    readies = sites.ask(question)
    replies = sites.collect(question, readies, of=of)
    assert not any(isinstance(reply, Answer) for reply in replies.values())


def test_where_the_diary_cannot_be_written_nothing_leaves(sites, monkeypatch):
    question = sites.train(1)
    readies = sites.ask(question)

    def full(*_):
        raise StorageError("cannot write diary.json: no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(client.worker.diary, "write_json", full)
        assert sites.collect(question, readies) == dict.fromkeys(sites.names, Absence(Reason.DISK))
    expected = sum(sites.worker(name).learner.work(question, None, None, None).update_P for name in sites.names)
    assert np.array_equal(total(sites.collect(question, readies)), expected)  # unmasked in memory would have spoiled it


# ---- the coordinator goes on by itself


SECURE = {"secure_aggregation": True, "rounds": 3}
SMALL = {"federation": SECURE, "num_cases": 12}


class LostError(Exception):
    """The coordinator's machine is gone."""


def run_until(federate, when, before=None):
    """A run whose coordinator is gone once `when(site, request)` says so; its sites are as they are."""

    def tamper(site, request, reply):
        if when(site, request):
            raise LostError
        return reply

    federation = federate("lost", tamper=tamper, **SMALL)
    federation.workers = before.workers if before else {}
    with pytest.raises(LostError):
        federation.run()
    return federation


def go_on(before, federate):
    """Another coordinator over the same folders."""
    federation = federate("lost", **SMALL)
    federation.workers = before.workers
    federation.run()
    return federation


def trains(current_round):
    """Once the first site is ready for this round."""
    return lambda _, request: request.kind == "train" and request.header.round == current_round


def last_number(federation, kind):
    return max(request.header.number for _, request in federation.requests if request.kind == kind)


def test_a_coordinator_that_is_killed_as_it_collects_ends_with_the_same_bits(federate):
    def second_round(site, request):
        return request.kind == "collect" and request.of == "train" and request.header.number == 2 and site == "centerB"

    federation = go_on(run_until(federate, second_round), federate)
    whole = federate("lost-untouched", **SMALL)
    whole.run()
    assert last_number(federation, "train") == last_number(whole, "train") == 3
    assert federation.state_hash() == whole.state_hash()


def test_a_coordinator_that_begins_anew_is_told_the_numbers_and_finishes(federate):
    federation = run_until(federate, trains(3))
    shutil.rmtree(federation.path / "checkpoints")
    (federation.path / "checkpoints").mkdir()
    (federation.path / "events.jsonl").unlink()
    other = go_on(federation, federate)
    assert (last_number(other, "hello"), last_number(other, "train")) == (2, 5)  # hello 1, and train 1 and 2, were answered before
    assert [event["round"] for event in other.events("round-finished")] == [1, 2, 3]


def test_a_coordinator_that_is_restored_from_an_older_copy_finishes(federate, tmp_path):
    first = run_until(federate, trains(2))
    shutil.copytree(first.path / "checkpoints", tmp_path / "older")
    second = run_until(federate, trains(3), first)
    shutil.rmtree(second.path / "checkpoints")
    shutil.copytree(tmp_path / "older", second.path / "checkpoints")
    federation = go_on(second, federate)
    assert last_number(federation, "train") == 4  # the first site went on from round 2, so that it is asked under another number
    assert [event["round"] for event in federation.events("round-finished")][-2:] == [2, 3]
