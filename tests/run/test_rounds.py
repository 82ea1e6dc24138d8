"""The rounds: equal bits however they came about, and what travels in them."""

from dataclasses import replace

import numpy as np
import pytest

from client.worker.learner import Learner
from csasn.federated.messages import AboutModel, Absence, Answer, Kind, ModelUpdate, Reason, transcript
from csasn.report.events import finished_rounds
from kills import KilledError, kill_at
from reports import build_report, read_lines


def test_the_same_study_and_seed_give_the_same_bits_twice(federate, undisturbed):
    second = federate("second")
    second.run()
    assert undisturbed().state_hash() == second.state_hash()


def test_another_seed_gives_other_bits(federate, undisturbed):
    second = federate("second", seed=2)
    second.run()
    assert undisturbed().state_hash() != second.state_hash()


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


def test_a_resumed_run_gives_the_same_bits(federate, undisturbed):
    disturbed = federate("disturbed", tamper=kill_at(Kind.TRAIN, 2, "centerB"), federation={"rounds": 3})
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = federate("disturbed")
    resumed.run()
    assert resumed.state_hash() == undisturbed(federation={"rounds": 3}).state_hash()
    attempts = [event["attempt"] for event in resumed.events("train-started")]
    assert attempts == sorted(set(attempts))


@pytest.mark.parametrize(("killed_at", "current_round"), [(Kind.HELLO, 0), (Kind.TRAIN, 1)])
def test_initial_weights_are_asked_for_where_no_checkpoint_is_and_never_again(federate, killed_at, current_round):
    """A run is resumed on a machine that need not have the package or file that they came from."""
    federation, begun = federate("run", tamper=kill_at(killed_at, current_round, "centerB")), []

    def initial():
        begun.append(1)
        return federation.beginning()

    with pytest.raises(KilledError):
        federation.coordinator.run(initial)
    federation.directory.close()
    resumed = federate("run")
    if killed_at is Kind.TRAIN:
        resumed.coordinator.run(lambda: pytest.fail("initial weights were asked for again"))
    else:
        resumed.coordinator.run(initial)
    resumed.directory.close()
    assert len(begun) == (1 if killed_at is Kind.TRAIN else 2)


@pytest.mark.parametrize("secure", [False, True])
def test_a_round_killed_between_its_event_and_its_checkpoint_is_in_the_report_once(federate, undisturbed, monkeypatch, secure):
    """Whichever of the two is first: the second one is not reached."""
    study = {"federation": {"secure_aggregation": secure}}
    expected = undisturbed(**study).state_hash()

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
    report = build_report(resumed.study, resumed.directory.membership, "local", read_lines(resumed.path), "complete")
    assert [row["round"] for row in report["rounds"]] == [1, 2]
    assert [row["participants"] for row in report["rounds"]] == [list(resumed.study.federation.sites)] * 2
    assert [event.round for event in finished_rounds(resumed.directory.events())] == [1, 2]
    assert resumed.state_hash() == expected


def test_a_worker_that_lost_its_memory_gets_the_whole_model_and_gives_the_same_bits(federate, undisturbed):

    def forget(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 2 and site == "centerB":
            disturbed.restart_worker(site)
        return answer

    disturbed = federate("disturbed", tamper=forget, federation={"rounds": 3})
    disturbed.run()
    sent = [
        request
        for site, request in disturbed.requests
        if site == "centerB" and request.header.round == 2 and request.kind is Kind.MEASURE
    ]
    assert [request.model.whole is not None for request in sent] == [False, True]
    assert disturbed.state_hash() == undisturbed(federation={"rounds": 3}).state_hash()


def test_ranges_that_are_too_small_widen_fourfold_a_round_until_little_is_clipped(federate, monkeypatch):
    monkeypatch.setattr("csasn.federated.quantise.FIRST_RANGE", 1e-5)
    federation = federate("run", federation={"rounds": 8})
    federation.run()
    rounds = federation.events("round-finished")
    assert [event["attempts"] for event in rounds] == [1] * 8
    clipped = [event["clipped_share"] for event in rounds]
    assert clipped[0] > 0.9
    assert clipped[-1] < 0.05
    ranges = [request.ranges[0] for site, request in federation.requests if request.kind is Kind.TRAIN and site == "centerA"]
    np.testing.assert_allclose(np.diff(np.log(ranges))[:3], np.log(4), atol=0.01)


def count_training(monkeypatch):
    """A list that grows with each training."""
    trained, train = [], Learner._train
    monkeypatch.setattr(Learner, "_train", lambda *given: trained.append(1) or train(*given))
    return trained


@pytest.mark.parametrize("restarted", [False, True])
def test_another_attempt_at_a_round_is_answered_without_training_again(federate, undisturbed, monkeypatch, restarted):
    """Also by workers that were restarted after each answer: what it came to is on disk."""
    expected = undisturbed().state_hash()
    trained, lost = count_training(monkeypatch), []

    def lose_twice(site, request, answer):
        if restarted:
            federation.restart_worker(site)
        if request.kind is Kind.TRAIN and request.header.round == 1 and site == "centerB" and len(lost) < 2:
            lost.append(site)
            return None
        return answer

    federation = federate("run", tamper=lose_twice)
    federation.run()
    assert len(federation.events("round-repeated")) == 2
    assert len(trained) == 3 * 2
    assert federation.state_hash() == expected


def test_the_whole_model_travels_once_and_steps_after_that(federate):
    """After the last step, every question is about a model that sites hold, unless an earlier one was chosen."""
    federation = federate("run", federation={"rounds": 3}, model_selection="last")
    federation.run()
    models = [(r.kind, r.model) for site, r in federation.requests if site == "centerA" and isinstance(r, AboutModel)]
    forms = [(kind, "whole" if m.whole is not None else "step" if m.step is not None else "hash") for kind, m in models]
    rounds = [(kind, "step") for _ in range(3) for kind in (Kind.TRAIN, Kind.MEASURE)]  # to its statistics, or to the next model
    assert forms == [(Kind.MEASURE, "whole"), *rounds, (Kind.VALIDATE, "step"), (Kind.FINISH, "hash")]


def test_the_last_model_is_finished_where_the_study_says_last(federate):
    federation = federate("run", model_selection="last")
    finished = federation.run()
    assert finished.chosen.round == 2
    assert finished.chosen.model.tobytes() == federation.directory.load().model.tobytes()


def test_the_best_model_on_validation_cases_is_finished_where_the_study_says_best(federate):
    federation = federate("run", federation={"rounds": 4})
    finished = federation.run()
    scores = {event["round"]: event["macro_auroc"] for event in federation.events("evaluated") if event["round"] > 0}
    assert scores[finished.chosen.round] == max(scores.values())


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


def last_training(federation, site="centerB"):
    """The last request to train that a site got, as one that holds no model gets it."""
    asked = [request for name, request in federation.requests if isinstance(request, AboutModel) and name == site]
    last = max(place for place, request in enumerate(asked) if request.kind is Kind.TRAIN)
    whole = asked[0].model.whole.copy()
    for request in asked[1 : last + 1]:
        federation.contract.move_(whole, request.model.step)
    return replace(asked[last], model=ModelUpdate(asked[last].model.state_hash, whole))


def test_a_question_that_comes_again_is_answered_with_the_same_bytes_and_without_training(federate, monkeypatch):
    """Whoever asks, and under whatever label: run and attempt are in nothing that an answer follows from."""
    federation = federate("run", tamper=kill_at(Kind.MEASURE, 1, "centerA"), federation={"rounds": 1})
    trained = count_training(monkeypatch)
    with pytest.raises(KilledError):
        federation.run()
    assert len(trained) == 3
    request = last_training(federation, "centerC")
    relabelled = replace(request, header=replace(request.header, run="another", attempt=request.header.attempt + 9))
    answers = []
    for question in (request, relabelled):
        federation.restart_worker("centerC")
        answers += [federation._worker("centerC").answer(question) for _ in range(2)]
    assert len(trained) == 3
    assert len({answer.update_P.tobytes() for answer in answers}) == len({answer.counts.tobytes() for answer in answers}) == 1


def test_a_number_that_was_answered_is_answered_to_no_other_question_and_a_later_one_is_trained_anew(federate, monkeypatch):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    request, worker = last_training(federation), federation._worker("centerB")
    other = replace(request, ranges=request.ranges * 2)
    assert transcript(other) != transcript(request)
    assert worker.answer(other) == Absence(Reason.NUMBER, 1)
    assert worker.answer(replace(other, header=replace(other.header, number=2, attempt=99))).update_P.any()
    assert worker.answer(request) == Absence(Reason.NUMBER, 2)
    federation.restart_worker("centerB")
    assert federation._worker("centerB").answer(request) == Absence(Reason.NUMBER, 2)


def test_a_coordinator_that_begins_anew_asks_later_questions_by_itself_and_comes_to_its_end(federate):
    """All of it is lost but study and membership: sites say where they are."""
    federation = federate("run")
    federation.run()
    for path in [*(federation.path / "checkpoints").iterdir(), federation.path / "events.jsonl"]:
        path.unlink()
    again = federate("run")
    again.run()
    assert [event["attempts"] for event in again.events("round-finished")] == [1, 1]
    assert again.directory.load().number == 4
    numbers = {(r.kind, r.header.number) for _, r in again.requests if r.kind not in (Kind.MEASURE, Kind.TRAIN)}
    # hello asks the same as before, and gets the same; its model has moved where validate and finish ask of it
    assert numbers == {(Kind.HELLO, 1)} | {(kind, number) for kind in (Kind.VALIDATE, Kind.FINISH) for number in (1, 2)}


def test_totals_that_change_between_rounds_are_told(federate, undisturbed):
    """Validation cases of a class are as many as before, unless a site changed its manifest: who, only the sites know."""
    assert undisturbed(federation={"rounds": 3}).events("totals-changed") == []

    def lie(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 3 and site == "centerB":
            blocks = federation.contract.counts[Kind.TRAIN].unpack(answer.counts.copy())
            blocks["confusion"][0, 0] += 1  # one more case of the first class, which is known for one
            blocks["scores"][0, 1, 0] += 1
            blocks["scores"][1:, 0, 0] += 1
            return replace(answer, counts=federation.contract.counts[Kind.TRAIN].pack(blocks))
        return answer

    federation = federate("run", tamper=lie, federation={"rounds": 3})
    federation.run()
    told = federation.events("totals-changed")
    assert [event["round"] for event in told] == [2, 3]  # it changed, and changed back
    assert np.subtract(told[0]["now"], told[0]["before"]).tolist() == [1, 0, 0]
    assert (told[1]["before"], told[1]["now"]) == (told[0]["now"], told[0]["before"])
