"""Rounds in which a site fails, lies, stays away or has little to give, and what is kept of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csasn.errors import ConfigurationError, ProtocolError, QuorumError, StorageError, TrainingError
from csasn.federated.messages import Absence, Kind, Reason
from csasn.weighting import ClassWeights, difficulty_target


def test_a_failed_answer_is_asked_for_again_in_the_same_attempt(federate):
    failed = []

    def fail_once(site, request, answer):
        if request.kind is Kind.TRAIN and site == "centerA" and not failed:
            failed.append(site)
            return Absence(Reason.FAILED, "the site's app ended, code 8")
        return answer

    undisturbed, disturbed = federate("undisturbed"), federate("disturbed", tamper=fail_once)
    undisturbed.run()
    disturbed.run()
    assert disturbed.state_hash() == undisturbed.state_hash()
    assert [event["attempts"] for event in disturbed.events("round-finished")] == [1, 1]


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
    assert finished.whole


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


def record_waits(federation):
    """The sites that each exchange waits for, in order, filled while the federation runs."""
    waited, exchange = [], federation.coordinator.sites.exchange

    def recorded(requests, patient, *rest):
        waited.append(list(patient))
        return exchange(requests, patient, *rest)

    federation.coordinator.sites.exchange = recorded
    return waited


def test_a_site_that_stayed_away_is_asked_again_but_not_waited_for(federate):
    federation = federate("run", tamper=lose("centerC", 1), federation={"rounds": 2, "min_sites": 2, "max_partial_rounds": 0.5})
    waited = record_waits(federation)
    federation.run()
    assert waited[1] == ["centerA", "centerB", "centerC"]
    assert waited[2] == ["centerA", "centerB"]
    assert federation.events("round-finished")[1]["participants"] == ["centerA", "centerB", "centerC"]


def test_a_site_that_stayed_away_is_waited_for_where_too_few_are_left_without_it(federate):
    """It needs a minute to start again: attempts that do not wait for it would all be over before."""
    away = iter([True, True, False])

    def tamper(site, request, answer):
        lost = site == "centerC" and request.kind is Kind.TRAIN and request.header.round == 1 and next(away)
        return None if lost else answer

    federation = federate("run", tamper=tamper, federation={"rounds": 1})
    waited = record_waits(federation)
    federation.run()
    assert waited[1:4] == [["centerA", "centerB", "centerC"]] * 3
    assert federation.events("round-finished")[0]["participants"] == ["centerA", "centerB", "centerC"]


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
    ],
)
def test_an_answer_that_breaks_the_contract_never_counts(federate, change, reason):
    federation = federate("run", tamper=spoil(change), federation={"max_attempts": 1})
    with pytest.raises(QuorumError, match=r"centerB: answer breaks the contract: .*" + reason):
        federation.run()
    assert federation.directory.load().round == 0


def test_an_update_that_is_not_finite_is_refused_at_the_site(federate, monkeypatch):
    federation = federate("run")
    read = type(federation.contract.state).read

    def poisoned(layout, network):
        vector = read(layout, network)
        vector[7] = np.nan
        return vector

    federation.coordinator.hello(federation.contract.state.read(federation.network))
    monkeypatch.setattr(type(federation.contract.state), "read", poisoned)
    with pytest.raises(TrainingError, match="the update holds values that are not finite"):
        federation.run()


def test_a_loss_that_becomes_nan_stops_the_run_and_says_what_to_lower(federate):
    federation = federate("run", optimiser={"learning_rate": 1e6, "batch_size": 4})
    with pytest.raises(TrainingError, match=r"round 1: \d sites answered, .*; center.: training failed: .*learning_rate"):
        federation.run()


def test_class_weights_that_do_not_follow_from_their_sums_are_refused(federate):
    federation = federate("run", federation={"max_attempts": 1})
    build = federation.coordinator._weighting
    federation.coordinator._weighting = lambda state: replace(build(state), omega_K=build(state).omega_K * 1.01)
    with pytest.raises(QuorumError, match="do not follow from their sums"):
        federation.run()


def test_a_request_of_another_study_is_refused(federate):
    federation, other = federate("run"), federate("other", seed=2)
    worker = other._worker("centerA")
    federation.run()
    _, request = federation.requests[-1]
    with pytest.raises(ProtocolError, match="the request is of study"):
        worker.answer(request)
    other.directory.close()


def test_error_feedback_commits_only_what_was_accepted(federate):
    federation = federate("run", tamper=lose("centerC", 2), federation={"rounds": 3, "min_sites": 2, "max_partial_rounds": 0.34})
    federation.run()
    third = [r for site, r in federation.requests if r.kind is Kind.TRAIN and r.header.round == 3]
    assert third[0].accepted.sites == ("centerA", "centerB")
    assert federation.workers["centerC"].state.settle(None, "centerC").attempt == federation.directory.load().accepted.attempt


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
        worker._check_weighting = lambda given, omega=omega: ClassWeights(omega, np.ones(3) / 3, np.zeros(3), np.zeros(3))
        header = replace(request.header, attempt=request.header.attempt + more)
        updates.append(worker.answer(replace(request, header=header)).update_P)
    assert (updates[0] != updates[1]).any()


def test_a_class_without_a_validation_case_works_and_is_never_called_difficult(federate):
    federation = federate("run", federation={"rounds": 3})

    def never_validate_ftc(header, rows):
        splits = ["train" if row.endswith("FTC") else ("validation", "test", "train")[int(row[1:4]) % 7 // 3] for row in rows]
        return [header + ",split", *(f"{row},{split}" for row, split in zip(rows, splits, strict=True))]

    for site in federation.sites:
        rewrite_manifest(federation, site, never_validate_ftc)
    federation.run()
    assert all(event["recall"]["FTC"] is None and event["macro_auroc"] is not None for event in federation.events("evaluated"))
    assert all("no validation case of FTC" in worker.data.notes for worker in federation.workers.values())
    history = federation.directory.load().history
    assert all(difficulty_target(sums)[2] == 1 for sums in history)


def test_out_of_gpu_memory_a_site_trains_the_round_anew_with_fewer_images_at_once(federate, monkeypatch, caplog):
    federation = federate("run", federation={"rounds": 1})
    federation.run()
    _, request = [r for r in federation.requests if r[1].kind is Kind.TRAIN and r[0] == "centerB"][-1]
    asked = replace(request, header=replace(request.header, run="small-memory"))
    worker = federation._worker("centerB")
    forward, most = worker.network.forward, 5

    def small(images, *known):
        if worker.network.training and len(images) > most:
            raise torch.OutOfMemoryError
        return forward(images, *known)

    monkeypatch.setattr(worker.network, "forward", small)
    answer = worker.answer(asked)
    assert worker.micro_batch <= most
    assert f"set micro_batch: {worker.micro_batch} in the site file" in caplog.text
    federation.restart_worker("centerB")
    modest = federation._worker("centerB")
    modest.micro_batch = worker.micro_batch
    same = modest.answer(replace(asked, header=replace(asked.header, run="modest")))
    assert (answer.update_P == same.update_P).all()  # nothing of the broken attempts is left
    most = 0
    with pytest.raises(ConfigurationError, match="too small for one image"):
        worker.answer(replace(asked, header=replace(asked.header, run="none")))
