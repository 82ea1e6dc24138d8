"""A run goes on under another membership: from its last accepted round, with what is counted anew."""

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from csasn.data.cases import TEST
from csasn.federated.messages import Kind
from csasn.report.events import finished_rounds
from kills import KilledError, kill_at
from server.run.run_directory import BEST

FOUR, FIVE = ("centerA", "centerB", "centerC", "centerD"), ("centerA", "centerB", "centerC", "centerD", "centerE")
THREE = ("centerA", "centerC", "centerD")
ROUNDS = 3
AT = Kind.TRAIN, 2


@pytest.fixture(scope="module")
def begun(tmp_path_factory, write_small_hospitals, local_federation):
    """begun(at, secure, model_selection) -> hospitals, and the folder of a run of four that was killed `at` (kind, round)."""

    @cache
    def make(at, secure, model_selection):
        folder = tmp_path_factory.mktemp("begun")
        study = {"sites": list(FOUR), "rounds": ROUNDS, "secure_aggregation": secure}
        write_small_hospitals(folder / "hospitals", sites=FIVE, num_cases=12, federation=study, model_selection=model_selection)
        run = local_federation(folder / "hospitals", folder / "run", tamper=kill_at(*at))
        with pytest.raises(KilledError):
            run.run()
        return folder / "hospitals", folder / "run"

    return make


@pytest.fixture
def changed(begun, local_federation, tmp_path):
    """changed(at, sites, secure, name, model_selection, tamper) -> that run, which goes on with `sites`."""

    def make(at, sites, secure=False, name="run", model_selection="last", **tamper):
        hospitals, run = begun(at, secure, model_selection)
        shutil.copytree(run, tmp_path / name)
        before = local_federation(hospitals, tmp_path / name)
        before.change(*sites)
        before.directory.close()
        return local_federation(hospitals, tmp_path / name, **tamper)

    return make


@pytest.mark.parametrize("sites", [THREE, FIVE])
def test_rounds_go_on_where_they_were_and_are_of_the_new_membership_alone(changed, sites):
    """Masked or plain, with the same bits."""
    runs = [changed(AT, sites, secure, name) for secure, name in ((False, "plain"), (True, "masked"))]
    for run in runs:
        before = run.directory.load()
        finished = run.run()
        rounds = finished_rounds(run.directory.events())
        assert [set(each.participants) for each in rounds] == [set(FOUR)] + [set(sites)] * 2
        assert before.round == 1
        assert {site for site, _ in run.requests} == set(sites)
        hello = run.events("hello")[-1]
        assert (hello["round"], tuple(hello["sites"])) == (1, sites)
        cases = sum(len(run.workers[site].learner.load_data().cases(TEST)) for site in sites)
        assert finished.counts["confusion"].sum() == cases
    assert runs[0].state_hash() == runs[1].state_hash()
    for site in set(sites) & set(FOUR):
        before, after = sorted((runs[1].path / "sites" / site).glob("study-*"), key=lambda path: path.stat().st_ctime)
        kept, others = ([path.name for path in folder.iterdir()] for folder in (before, after))
        secret = ("pending", "left-")
        assert not [name for name in kept if name.startswith(secret)], "an answer and its key, or what it left over, is kept"
        assert len({name[:4] for name in others if name.startswith(secret)}) == len(secret)


def test_the_model_is_trained_on_from_where_it_was(changed):
    """The first question of the new membership about a model is about the one that the old membership made."""
    run = changed(AT, THREE)
    before = run.directory.load().model.copy()
    run.run()
    asked = next(request for _, request in run.requests if request.kind is Kind.MEASURE)
    np.testing.assert_array_equal(asked.model.whole, before)
    assert asked.accepted is None


def test_killed_anywhere_after_the_change_it_ends_with_the_same_bits(changed, local_federation, begun, tmp_path):
    expected = changed(AT, THREE, name="whole")
    expected.run()
    for number, at in enumerate([(Kind.HELLO, 1), (Kind.MEASURE, 1), (Kind.TRAIN, 2)]):
        killed = changed(AT, THREE, name=f"killed-{number}", tamper=kill_at(*at))
        with pytest.raises(KilledError):
            killed.run()
        resumed = local_federation(begun(AT, False, "last")[0], tmp_path / f"killed-{number}")
        resumed.run()
        assert resumed.state_hash() == expected.state_hash(), at


@pytest.mark.parametrize("at", [(Kind.HELLO, 0), (Kind.FINISH, ROUNDS)])
def test_a_site_can_leave_before_the_first_round_and_after_the_last(changed, at):
    run = changed(at, THREE)
    finished = run.run()
    assert finished.chosen.round == ROUNDS
    assert {site for site, request in run.requests if request.kind is Kind.FINISH} == set(THREE)


def test_a_model_that_others_chose_is_not_the_one_in_the_end_where_nothing_was_shown_since(changed, begun):
    """As in plain mode, where evaluations that lack a site are withheld."""
    run = changed((Kind.TRAIN, 3), THREE, model_selection="best")
    run.coordinator.run(run.beginning)
    state = replace(run.directory.load(), best_round=1)
    shutil.copy(begun((Kind.TRAIN, 3), False, "best")[1] / BEST, run.path / BEST)
    assert run.directory.load(BEST).membership_hash != state.membership_hash
    assert run.coordinator.finish(state).chosen.round == ROUNDS
    run.directory.close()


def test_what_was_reached_on_validation_cases_of_others_chooses_no_model(changed):
    run = changed((Kind.TRAIN, 3), THREE)
    assert run.directory.load().best_score > -1
    run.run()
    evaluated = [event["macro_auroc"] for event in run.events("evaluated")]
    assert run.directory.load().best_score == max(evaluated[-2:])
    assert not run.events("totals-changed")
