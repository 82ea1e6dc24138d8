"""Rounds in which a site fails, lies, stays away or has little to give, and what is kept of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import LocalFederation, write_hospitals
from csasn.errors import ConfigurationError, ProtocolError, QuorumError, StorageError, TrainingError
from csasn.federated.class_weightings.dynamic import difficulty_target
from csasn.federated.messages import Absence, Kind, Ready, Reason, transcript
from csasn.federated.secagg.keys import SignedKey
from csasn.federated.weighting import ClassWeights
from csasn.study import read_study
from reports import read_lines


def test_a_failed_answer_is_asked_for_again_in_the_same_attempt(federate, undisturbed):
    failed = []

    def fail_once(site, request, answer):
        if request.kind is Kind.TRAIN and site == "centerA" and not failed:
            failed.append(site)
            return Absence(Reason.FAILED, text="the site's app ended, code 8")
        return answer

    disturbed = federate("disturbed", tamper=fail_once)
    disturbed.run()
    assert disturbed.state_hash() == undisturbed().state_hash()
    assert [event["attempts"] for event in disturbed.events("round-finished")] == [1, 1]


SITES = ("centerA", "centerB", "centerC")


def lose(site_lost, in_round):
    return lambda site, request, answer: (
        None if site == site_lost and request.kind is Kind.TRAIN and request.header.round == in_round else answer
    )


def test_a_lost_site_makes_a_partial_round_that_is_named(federate):
    federation = federate("run", tamper=lose("centerC", 2), federation={"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34})
    finished = federation.run()
    second = federation.events("round-finished")[1]
    assert second["participants"] == ["centerA", "centerB"]
    assert second["absent"] == {"centerC": "no answer within the deadline"}
    assert finished.counts


def test_counts_are_never_shown_for_fewer_than_the_whole_membership(federate):
    federation = federate("run", tamper=lose("centerC", 2), federation={"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34})
    federation.run()
    assert [event["round"] for event in federation.events("evaluated")] == [0, 2, 3]
    assert [event["round"] for event in federation.events("evaluation-withheld")] == [1]
    assert len(federation.directory.load().history) == 3
    assert "clipped_share" not in federation.events("round-finished")[1]


def test_a_partial_round_averages_over_the_weights_that_arrived(federate):
    """Leaving a site out of round 1 equals a federation whose other sites share the same proportions."""
    federation = federate("run", tamper=lose("centerC", 1), federation={"rounds": 1, "min_sites": 2, "max_partial_rounds": 1.0})
    before = federation.contract.state.read(federation.network)
    federation.run()
    sums, units = 0, federation.contract.membership.weight_units
    full = federate("full", federation={"rounds": 1})
    uploads = {}
    full.tamper = lambda site, request, answer: uploads.setdefault((site, request.kind), answer)
    full.run()
    sums = sum(uploads[site, Kind.TRAIN].update_P.astype(np.int64) for site in ("centerA", "centerB"))
    state = federation.contract.state
    sizes = np.concatenate([np.full(s.stop - s.start, 0.05 / (2**15 - 1 - 3)) for s in state.shared])
    expected = before[: state.num_shared] + (sums * (sizes * 64 / (units["centerA"] + units["centerB"]))).astype(np.float32)
    np.testing.assert_allclose(federation.directory.load().model[: state.num_shared], expected, rtol=0, atol=1e-9)


def test_too_few_sites_stop_the_run_with_their_reasons(federate):
    federation = federate("run", tamper=lose("centerC", 1), federation={"max_attempts": 2})
    with pytest.raises(
        QuorumError,
        match=r"round 1: 2 sites answered in the last of 2 attempts, nothing was summed; centerC: no answer within the deadline",
    ):
        federation.run()
    assert len(federation.events("round-repeated")) == 2


class Silent:
    """What a federation's sites say, but that from `site` nothing comes to questions that `to` is true of: no answer, no absence.

    `left_open` are the questions that the coordinator went on from without a word of it.
    """

    def __init__(self, federation, site, to):
        self.federation, self.site, self.to = federation, site, to
        self.left_open, self._open = [], None
        federation.coordinator.sites.exchange = self

    def send(self, requests, deadlines_s):
        if self.site in requests and self._open is not None:
            self.left_open.append(self._open)
        self._open = requests.get(self.site, self._open)
        first = {site: request for site, request in requests.items() if site == self.site}  # it is heard before the others
        return self.federation.send(first | requests, deadlines_s)

    def receive(self):
        for site, reply in self.federation.receive():
            if site == self.site and self.to(self._open):
                continue
            self._open = None if site == self.site else self._open
            yield site, reply


def test_a_site_that_stayed_away_is_asked_again_but_not_waited_for(federate):
    """From round 1 to the end of round 2 not a word comes from it: each goes on with the answers of the others all the same."""
    allowed = {"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.7}
    federation = federate("run", tamper=lose("centerC", 1), federation=allowed)
    asked = {(Kind.MEASURE, 1), (Kind.TRAIN, 2)}
    silent = Silent(federation, "centerC", to=lambda request: (request.kind, request.header.round) in asked)
    federation.run()
    assert {(request.kind, request.header.round) for request in silent.left_open} == asked
    finished = federation.events("round-finished")
    assert [event["participants"] for event in finished] == [list(SITES[:2]), list(SITES[:2]), list(SITES)]
    assert finished[1]["absent"] == {"centerC": "no answer within the deadline"}


def test_a_site_that_stayed_away_is_waited_for_where_too_few_are_left_without_it(federate):
    """It needs a minute to start again: attempts that do not wait for it would all be over before."""
    away = iter([True, True, False])

    def tamper(site, request, answer):
        lost = site == "centerC" and request.kind is Kind.TRAIN and request.header.round == 1 and next(away)
        return None if lost else answer

    federation = federate("run", tamper=tamper, federation={"rounds": 1})
    silent = Silent(federation, "centerC", to=lambda _: False)
    federation.run()
    assert silent.left_open == []
    assert len(federation.events("round-repeated")) == 2
    assert federation.events("round-finished")[0]["participants"] == list(SITES)


def spoil(change):
    def tamper(site, request, answer):
        if request.kind is Kind.TRAIN and site == "centerB":
            return change(answer)
        return answer

    return tamper


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answer: replace(answer, update_P=answer.update_P[:-1]), r"the update has shape"),
        (lambda answer: replace(answer, update_P=answer.update_P.astype(np.int64)), r"of int64, expected"),
        (
            lambda answer: replace(answer, update_P=np.full_like(answer.update_P, 32767)),
            r"beyond ±\d+, what the weight of the site allows",
        ),
        (lambda answer: replace(answer, update_P=np.full_like(answer.update_P, -32768)), r"beyond"),
        (lambda answer: replace(answer, update_P=None), r"holds no update"),
        (lambda answer: replace(answer, counts=answer.counts[1:]), r"counts have \d+ values"),
        (lambda answer: replace(answer, counts=-1 - answer.counts), r"are negative"),
        (lambda answer: Ready(bytes(32), SignedKey(bytes(32), "a" * 128)), r"a Ready came in place of an answer to train"),
    ],
)
def test_an_answer_that_breaks_the_contract_never_counts(federate, change, reason):
    federation = federate("run", tamper=spoil(change), federation={"max_attempts": 1})
    with pytest.raises(QuorumError, match=r"centerB: answer breaks the contract: .*" + reason):
        federation.run()
    assert federation.directory.load().round == 0


def site_log(caplog):
    """What the workers wrote of failed work."""
    return [
        record.getMessage() for record in caplog.records if record.name == "client.worker.worker" and record.levelname == "ERROR"
    ]


def test_an_update_that_is_not_finite_is_a_count_of_its_site_and_its_log_says_so(federate, monkeypatch, caplog):
    federation = federate("run")
    read = type(federation.contract.state).read

    def poisoned(layout, network):
        vector = read(layout, network)
        vector[7] = np.nan
        return vector

    federation.coordinator.hello(federation.beginning())
    monkeypatch.setattr(type(federation.contract.state), "read", poisoned)
    with pytest.raises(TrainingError, match=r"^3 sites could not train; each site's own log says which"):
        federation.run()
    assert len(site_log(caplog)) == 3
    assert all("the update holds values that are not finite" in line for line in site_log(caplog))
    assert federation.directory.load().round == 0


def test_a_loss_that_becomes_nan_stops_the_run_and_the_sites_logs_say_what_to_lower(federate, caplog):
    federation = federate("run", optimiser={"learning_rate": 1e6, "batch_size": 4})
    with pytest.raises(TrainingError, match=r"^(1 site|\d sites) could not train; each site's own log says which$"):
        federation.run()
    assert any("train failed: " in line and "learning_rate" in line for line in site_log(caplog))


def fail_at(federation, site, kind, error):
    """The work of one site on questions of a kind fails."""
    learner = federation._worker(site).learner
    honest = learner.work

    def work(question, *given):
        if question.kind is kind:
            raise error
        return honest(question, *given)

    learner.work = work


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Kind.TRAIN, "^1 site could not train; each site's own log says which$"),
        (Kind.VALIDATE, "^1 site could not evaluate the model; each site's own log says which$"),
        (Kind.FINISH, "^1 site could not evaluate the model; each site's own log says which$"),
    ],
)
def test_of_work_that_failed_the_coordinator_learns_how_many_and_not_who(federate, caplog, secure, kind, says):
    federation = federate("run", federation={"rounds": 1, "secure_aggregation": secure})
    fail_at(federation, "centerB", kind, ValueError("a case of Jane Doe"))
    with pytest.raises(TrainingError, match=says) as error:
        federation.run()
    told = str(error.value) + (federation.path / "events.jsonl").read_text()
    assert "Jane" not in told + caplog.text
    assert site_log(caplog) == [f"{kind} failed: unexpected ValueError"]
    assert "centerB: " not in told
    assert not [event for event in read_lines(federation.path) if event.get("absent")]


def test_work_that_failed_leaves_what_was_left_over_as_it_was(federate):
    federation = federate("run", federation={"rounds": 3})

    def spoil_round_2(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 1 and site == "centerC":
            fail_at(federation, "centerB", Kind.TRAIN, ValueError())
        return answer

    federation.tamper = spoil_round_2
    with pytest.raises(TrainingError, match="1 site could not train"):
        federation.run()
    accepted, kept = federation.directory.load().accepted, federation.workers["centerB"].kept
    others = [path for path in kept.folder.glob("left-*") if accepted.hex() not in path.name]
    before = kept.left(accepted)
    assert before.residual_P.any()
    (after,) = [kept.left(bytes.fromhex(path.stem.removeprefix("left-"))) for path in others]
    assert after.residual_P.tobytes() == before.residual_P.tobytes()


def test_class_weights_that_do_not_follow_from_their_sums_are_refused(federate, caplog):
    federation = federate("run", federation={"max_attempts": 1})
    exchange = federation.send

    def lie(requests, deadlines_s):
        false = {site: lying(request) if request.kind is Kind.TRAIN else request for site, request in requests.items()}
        return exchange(false, deadlines_s)

    def lying(request):
        return replace(request, weighting=replace(request.weighting, omega_K=request.weighting.omega_K * 1.01))

    federation.send = lie
    with pytest.raises(QuorumError, match="centerA: refuses what it was sent"):
        federation.run()
    assert "do not follow from their sums" in caplog.text


@pytest.mark.parametrize(
    ("reason", "stops"), [(reason, reason in (Reason.VERSION, Reason.CONTENTS, Reason.BROKEN)) for reason in Reason]
)
def test_a_refusal_stops_at_once_and_every_other_reason_is_tried_again(federate, monkeypatch, reason, stops):
    """`at` 0 is what a site says that answered nothing yet, and refuses the number as too high."""
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.01)
    said = []

    def tamper(site, request, answer):
        if request.kind is Kind.HELLO and site == "centerB" and len(said) < 3:
            said.append(site)
            return Absence(reason)
        return answer

    federation = federate("run", tamper=tamper)
    if stops:
        with pytest.raises(QuorumError, match=f"^hello: 2 sites answered, nothing was summed; centerB: {reason.value}$"):
            federation.coordinator.hello(federation.beginning())
        assert len(said) == 1
    else:
        federation.coordinator.hello(federation.beginning())
        assert len(said) == 3
    federation.directory.close()


def test_a_request_of_another_study_is_refused(federate):
    federation, other = federate("run"), federate("other", seed=2)
    worker = other._worker("centerA")
    federation.run()
    _, request = federation.requests[-1]
    with pytest.raises(ProtocolError, match="the request is of study"):
        worker.answer(request)
    other.directory.close()


def test_error_feedback_goes_on_from_the_accepted_question_alone_and_all_but_that_and_the_one_before_is_deleted(federate):
    """Whose answers were in the sum is in no message: centerC, whose answer was lost, goes on from what it left over then."""
    federation = federate("run", tamper=lose("centerC", 2), federation={"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34})
    began = []

    def spy(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 3:
            began.append((site, request.accepted))
        return lose("centerC", 2)(site, request, answer)

    federation.tamper = spy
    federation.run()
    assert {site for site, _ in began} == set(SITES)
    (accepted,) = {accepted for _, accepted in began}
    second = [r for site, r in federation.requests if r.kind is Kind.TRAIN and r.header.round == 2]
    assert accepted == transcript(second[0])
    for site in SITES:
        kept = federation.workers[site].kept
        last_two = {f"left-{digest.hex()}.safetensors" for digest in (federation.directory.load().accepted, accepted)}
        assert {path.name for path in kept.folder.glob("left-*")} == last_two


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(federate, monkeypatch):
    federation = federate("run")
    save = federation.directory.save

    def full(state):
        if state.round == 2:
            raise StorageError("cannot write latest.safetensors: no space left on device")
        save(state)

    federation.directory.save = full
    with pytest.raises(StorageError, match="no space left"):
        federation.run()
    assert federation.directory.load().round == 1


def rewrite_manifest(federation, site, change):
    """Changes a site's manifest; `change` takes header and rows and gives lines."""
    path = Path(federation.sites[site].manifest)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join(change(header, rows)) + "\n")


def test_a_site_with_one_class_takes_part_and_feels_the_class_weights(federate):
    federation = federate("run", class_weighting={"acts_on": "loss"}, federation={"rounds": 3})
    rewrite_manifest(federation, "centerB", lambda header, rows: [header, *(row for row in rows if row.endswith("benign"))])
    federation.run()
    assert all(event["participants"] == ["centerA", "centerB", "centerC"] for event in federation.events("round-finished"))
    worker, (_, request) = federation.workers["centerB"], [r for r in federation.requests if r[1].kind is Kind.TRAIN][-1]
    updates = []
    for more, omega in enumerate((np.ones(3), np.array([1.5, 1, 1])), 1):
        worker.learner.check_weighting = lambda given, omega=omega: ClassWeights(omega, np.ones(3) / 3, np.zeros(3), np.zeros(3))
        header = replace(request.header, number=request.header.number + more)
        updates.append(worker.answer(replace(request, header=header)).update_P)
    assert (updates[0] != updates[1]).any()


def test_a_class_without_a_validation_case_works_and_is_never_called_difficult(federate):
    federation = federate("run", federation={"rounds": 3, "loss_guard": None})  # few cases, on which round 1 triples the loss

    def never_validate_ftc(header, rows):
        splits = ["train" if row.endswith("FTC") else ("validation", "test", "train")[int(row[1:4]) % 7 // 3] for row in rows]
        return [header + ",split", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True))]

    for site in federation.sites:
        rewrite_manifest(federation, site, never_validate_ftc)
    federation.run()
    assert all(event["recall"]["FTC"] is None and event["macro_auroc"] is not None for event in federation.events("evaluated"))
    assert all("no validation case of FTC" in worker.learner.load_data().notes for worker in federation.workers.values())
    history = federation.directory.load().history
    assert all(difficulty_target(sums)[2] == 1 for sums in history)


def test_out_of_gpu_memory_a_site_trains_the_round_anew_with_fewer_images_at_once(federate, monkeypatch, caplog):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    _, request = [r for r in federation.requests if r[1].kind is Kind.TRAIN and r[0] == "centerB"][-1]
    learner = federation._worker("centerB").learner
    weights, most = learner.check_weighting(request.weighting), 5
    model = federation.contract.state.read(federation.network)
    forward = learner.network.forward

    def small(images, *known):
        if learner.network.training and len(images) > most:
            raise torch.OutOfMemoryError
        return forward(images, *known)

    monkeypatch.setattr(learner.network, "forward", small)
    work = learner.work(request, model, weights, None)
    assert learner.micro_batch <= most
    assert f"set micro_batch: {learner.micro_batch} in the site file" in caplog.text
    federation.restart_worker("centerB")
    modest = federation._worker("centerB").learner
    modest.micro_batch = learner.micro_batch
    same = modest.work(request, model, weights, None)
    assert (work.update_P == same.update_P).all()  # nothing of the broken attempts is left
    most = 0
    with pytest.raises(ConfigurationError, match="too small for one image"):
        learner.work(request, model, weights, None)


GUARDED = {"rounds": 3, "loss_guard": 2.0}


def spoils(model_of_round, times):
    """The model of a round looks a hundred times worse on validation cases to centerB, as often as said."""
    left = [times]

    def tamper(site, request, answer):
        about = request.header.round - (request.kind is Kind.TRAIN)
        if site == "centerB" and request.kind in (Kind.TRAIN, Kind.VALIDATE) and about == model_of_round and left[0]:
            left[0] -= 1
            counts = answer.counts.copy()
            counts[9] += 100 << 16  # the summed loss stands behind the confusion matrix
            counts[9] *= 100
            return replace(answer, counts=counts)
        return answer

    return tamper


def test_the_first_trained_model_is_compared_with_nothing_since_random_weights_do_no_worse_than_chance(federate):
    federation = federate("run", tamper=spoils(1, 1), federation=GUARDED | {"rounds": 2})
    federation.run()
    assert federation.events("round-undone") == []
    assert federation.directory.load().best_loss < 10  # that of the model after it


@pytest.mark.parametrize("spoilt", [2, 3])
def test_a_round_that_makes_the_model_much_worse_is_undone_once_and_trained_anew(federate, spoilt):
    """Also the last one, whose model is evaluated after all rounds."""
    federation = federate("run", tamper=spoils(spoilt, 1), federation=GUARDED)
    finished = federation.run()
    (undone,) = federation.events("round-undone")
    assert undone["round"] == spoilt
    assert "was the best so far" in undone["why"]
    rounds = [event["round"] for event in federation.events("round-finished")]
    assert rounds == sorted([1, 2, 3, spoilt])
    hashes = [event["state_hash"] for event in federation.events("round-finished") if event["round"] == spoilt]
    assert len(set(hashes)) == 2  # trained with other randomness
    state = federation.directory.load()
    assert (state.round, state.undone, state.validated) == (3, spoilt, True)
    assert len(state.history) == 4  # of each model once, and not of the one that was taken back
    assert finished.counts
    trained = [(r.header.round, r.header.number) for site, r in federation.requests if r.kind is Kind.TRAIN and site == "centerA"]
    numbers = [number for _, number in trained]
    assert numbers == sorted(set(numbers))
    assert [current for current, _ in trained].count(spoilt) == 2


def test_a_round_that_makes_the_model_much_worse_twice_stops_the_run(federate):
    federation = federate("run", tamper=spoils(2, 2), federation=GUARDED)
    with pytest.raises(TrainingError, match=r"validation loss .* after round 2, .* was the best so far, also after the round was"):
        federation.run()
    assert len(federation.events("round-undone")) == 1


def test_without_a_guard_nothing_is_undone(federate):
    federation = federate("run", tamper=spoils(2, 1), federation=GUARDED | {"loss_guard": None})
    federation.run()
    assert federation.events("round-undone") == []
    assert [event["round"] for event in federation.events("round-finished")] == [1, 2, 3]


@pytest.fixture(scope="module")
def undone(tmp_path_factory):
    """The state hash of a run whose second round was undone, and that nobody killed."""
    folder = tmp_path_factory.mktemp("undone")
    study = read_study(write_hospitals(folder / "hospitals", federation=GUARDED))
    federation = LocalFederation(study, folder / "hospitals/sites", folder / "run", tamper=spoils(2, 1))
    federation.run()
    return federation.state_hash()


@pytest.mark.parametrize("killed_at", ["before the checkpoint", "before the next round", "in the next round"])
def test_a_run_killed_about_an_undone_round_goes_on_to_the_same_bits(federate, undone, monkeypatch, killed_at):
    """And does not take the round back a second time, or give up."""

    class KilledError(Exception):
        pass

    # the model is as bad when it is looked at again: the site has its answer on disk
    spoil, spoilt = spoils(2, 9), federate("disturbed", federation=GUARDED)
    directory, save = spoilt.directory, spoilt.directory.save

    def tamper(site, request, answer):
        if directory.load() is not None and directory.load().undone:
            if killed_at == "in the next round" and site == "centerB":
                raise KilledError
            return answer
        return spoil(site, request, answer)

    def killed(state):
        if state.undone and killed_at == "before the checkpoint":
            raise KilledError
        save(state)
        if state.undone and killed_at == "before the next round":
            raise KilledError

    spoilt.tamper = tamper
    monkeypatch.setattr(directory, "save", killed)
    with pytest.raises(KilledError):
        spoilt.run()
    resumed = federate("disturbed")
    again = spoils(2, 9)
    resumed.tamper = lambda site, request, answer: answer if resumed.directory.load().undone else again(site, request, answer)
    resumed.run()
    assert resumed.state_hash() == undone
    state = resumed.directory.load()
    assert (state.round, state.undone, len(state.history)) == (3, 2, 4)
