"""The rounds: equal bits however they came about, and what travels in them."""

from dataclasses import replace

import numpy as np
import pytest

from csasn.federated.messages import Answer, Kind
from csasn.report.report import build_report
from csasn.training import train_locally
from server.run_directory import finished_rounds


def test_the_same_study_and_seed_give_the_same_bits_twice(federate):
    first, second = federate("first"), federate("second")
    first.run()
    second.run()
    assert first.state_hash() == second.state_hash()


def test_another_seed_gives_other_bits(federate):
    first, second = federate("first"), federate("second", seed=2)
    first.run()
    second.run()
    assert first.state_hash() != second.state_hash()


@pytest.mark.parametrize("bits", [16, 32])
def test_permuting_the_sites_changes_nothing(federate, bits):
    given = federate("given", federation={"upload_bits": bits})
    permuted = federate("permuted", federation={"upload_bits": bits})
    changed = permuted.study.federation.model_copy(update={"sites": tuple(reversed(permuted.study.federation.sites))})
    permuted = type(given)(
        permuted.study.model_copy(update={"federation": changed}), permuted.sites_folder, permuted.path.with_name("turned")
    )
    given.run()
    permuted.run()
    assert given.study.federation.sites != permuted.study.federation.sites
    assert given.state_hash() == permuted.state_hash()


def test_a_resumed_run_gives_the_same_bits(federate):
    undisturbed = federate("undisturbed", federation={"rounds": 3})
    undisturbed.run()

    class KilledError(Exception):
        pass

    def kill(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 2 and site == "centerB":
            raise KilledError
        return answer

    disturbed = federate("disturbed", tamper=kill, federation={"rounds": 3})
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = federate("disturbed")
    resumed.run()
    assert resumed.state_hash() == undisturbed.state_hash()
    attempts = [event["attempt"] for event in resumed.events("train-started")]
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize("secure", [False, True])
def test_a_round_killed_between_its_event_and_its_checkpoint_is_in_the_report_once(federate, monkeypatch, secure):
    """Whichever of the two is first: the second one is not reached."""
    study = {"federation": {"secure_aggregation": secure}}
    undisturbed = federate("undisturbed", **study)
    undisturbed.run()

    class KilledError(Exception):
        pass

    disturbed, done = federate("disturbed", **study), []
    directory, save, event = disturbed.directory, disturbed.directory.save, disturbed.directory.event

    def killed_before_the_second(write):
        done.append(write)
        if len(done) == 2:
            raise KilledError

    def save_state(state):
        if state.round == 1:
            killed_before_the_second(save)
        save(state)

    def write_event(name, /, **facts):
        if name == "round-finished":
            killed_before_the_second(event)
        event(name, **facts)

    monkeypatch.setattr(directory, "save", save_state)
    monkeypatch.setattr(directory, "event", write_event)
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = federate("disturbed")
    resumed.run()
    report = build_report(resumed.study, resumed.directory.membership, "local", resumed.directory.events(), "complete")
    assert [row["round"] for row in report["rounds"]] == [1, 2]
    assert [row["participants"] for row in report["rounds"]] == [list(resumed.study.federation.sites)] * 2
    assert [event["round"] for event in finished_rounds(resumed.directory.events())] == [1, 2]
    assert resumed.state_hash() == undisturbed.state_hash()


def test_a_worker_that_lost_its_memory_gets_the_whole_model_and_gives_the_same_bits(federate):
    undisturbed = federate("undisturbed", federation={"rounds": 3})
    undisturbed.run()

    def forget(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 2 and site == "centerB":
            disturbed.restart_worker(site)
        return answer

    disturbed = federate("disturbed", tamper=forget, federation={"rounds": 3})
    disturbed.run()
    sent = [
        request
        for site, request in disturbed.requests
        if site == "centerB" and request.header.round == 3 and request.kind is Kind.TRAIN
    ]
    assert [request.model.whole is not None for request in sent] == [False, True]
    assert disturbed.state_hash() == undisturbed.state_hash()


def test_a_scale_that_is_too_small_widens_fourfold_and_repeats(federate, monkeypatch):
    monkeypatch.setattr("csasn.federated.quantise.FIRST_RANGE", 1e-5)
    federation = federate("run", federation={"rounds": 1, "max_attempts": 12})
    federation.run()
    repeated = federation.events("round-repeated")
    assert repeated
    assert set(repeated[0]["absent"].values()) == {"scale too small"}
    ranges = [request.ranges[0] for site, request in federation.requests if request.kind is Kind.TRAIN and site == "centerA"]
    np.testing.assert_allclose(np.diff(np.log(ranges)), np.log(4))


def test_another_attempt_at_a_round_is_answered_without_training_again(federate, monkeypatch):
    """And to the bits of sites that were restarted after each answer, and so train again."""
    monkeypatch.setattr("csasn.federated.quantise.FIRST_RANGE", 1e-5)
    trained = []
    monkeypatch.setattr("client.worker.train_locally", lambda *given: trained.append(1) or train_locally(*given))
    warm = federate("warm", federation={"max_attempts": 12})
    warm.run()
    num_repeated = len(warm.events("round-repeated"))
    assert num_repeated
    assert len(trained) == 3 * 2

    def restart(site, request, answer):
        restarted.restart_worker(site)
        return answer

    restarted = federate("restarted", tamper=restart, federation={"max_attempts": 12})
    restarted.run()
    assert len(trained) == 3 * 2 + 3 * (2 + num_repeated)
    assert restarted.state_hash() == warm.state_hash()


def test_the_whole_model_travels_once_and_steps_after_that(federate):
    federation = federate("run", federation={"rounds": 3})
    federation.run()
    forms = [(r.kind, r.model.whole is not None) for site, r in federation.requests if site == "centerA" and r.model]
    assert forms == [(Kind.TRAIN, True), (Kind.TRAIN, False), (Kind.TRAIN, False), (Kind.VALIDATE, False), (Kind.FINISH, True)]


def test_the_last_model_is_finished_where_the_study_says_last(federate):
    federation = federate("run", model_selection="last")
    finished = federation.run()
    assert finished.round == 2
    assert finished.model.tobytes() == federation.directory.load().model.tobytes()


def test_the_best_model_on_validation_cases_is_finished_where_the_study_says_best(federate):
    federation = federate("run", federation={"rounds": 4})
    finished = federation.run()
    scores = {event["round"]: event["macro_auroc"] for event in federation.events("evaluated") if event["round"] > 0}
    assert scores[finished.round] == max(scores.values())


def test_answers_are_exactly_update_and_counts_with_what_seals_them():
    assert set(Answer.__dataclass_fields__) == {"counts", "update_P", "sealing", "num_bytes"}


def test_eight_bits_follow_sixteen_and_halve_the_upload(federate):
    sixteen, eight = federate("sixteen", federation={"rounds": 4}), federate("eight", federation={"rounds": 4, "upload_bits": 8})
    sizes = []

    def weigh(site, request, answer):
        if request.kind is Kind.TRAIN and site == "centerA":
            sizes.append(answer.update_P.dtype.itemsize)
        return answer

    eight.tamper = weigh
    sixteen.run()
    eight.run()
    assert sizes == [2, 1, 1, 1]
    first, last = sixteen.contract.state.read(sixteen.network), sixteen.directory.load().model
    apart = np.linalg.norm(eight.directory.load().model - last) / np.linalg.norm(last - first)
    assert apart < 0.35


def test_a_request_that_comes_again_is_answered_with_the_same_bytes_and_without_training(federate, monkeypatch):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    _, request = [r for r in federation.requests if r[1].kind is Kind.TRAIN and r[0] == "centerB"][-1]
    monkeypatch.setattr("client.worker.train_locally", lambda *_: pytest.fail("trained again"))
    federation.restart_worker("centerB")
    once, again = (federation._worker("centerB").answer(request) for _ in range(2))
    assert (once.update_P == again.update_P).all()
    assert (once.counts == again.counts).all()
    other = replace(request, header=replace(request.header, attempt=request.header.attempt + 1))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        federation._worker("centerB").answer(other)


def test_what_a_site_keeps_of_one_run_does_not_reach_another(federate):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    _, request = [r for r in federation.requests if r[1].kind is Kind.TRAIN and r[0] == "centerB"][-1]
    worker = federation._worker("centerB")
    first = worker.answer(request)
    again = worker.answer(replace(request, header=replace(request.header, run="another")))
    assert (first.update_P == again.update_P).all()  # nothing is left over, and no statistics are, from the run that is over
    assert len(list(worker.folder.glob("run-*"))) == 2
