"""The personal model: against a plain loop, where it wins, and that it stays at the site and changes nothing that leaves it."""

import stat
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from client.report.page import render_site_report
from client.report.site_report import make_site_report
from client.worker.personal import PERSONAL, find_personal, train_personal
from csasn.data.cases import TRAIN, load_site_data
from csasn.errors import TrainingError
from csasn.federated.messages import Finish, Train
from csasn.federated.weighting import class_weights
from csasn.learning.evaluation import case_logits
from csasn.learning.loss import LossTerms, multitask_loss
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.personal import HEAD_EPOCHS, train_ditto, tune_heads
from csasn.learning.training import LocalPlan, epoch_batches, load_images, load_labels
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.model.profiles import image_size
from csasn.platform.checkpoint import load_arrays
from csasn.platform.randomness import generator
from csasn.study import Federation
from server.run.outcome import write_outcome
from training_scene import state, study, synthetic, terms_of

CPU = torch.device("cpu")
RATE = {"learning_rate": 0.02}


def test_heads_are_trained_as_by_a_plain_loop_and_nothing_else_moves():
    data, chosen = synthetic(num_cases=15), study(optimiser=RATE)
    network, theirs = build_network(chosen), build_network(chosen).eval()
    start = state(network)
    tune_heads(network, data, chosen, terms_of(chosen), "centerA")
    optimiser = torch.optim.AdamW(theirs.heads.parameters(), lr=0.02, weight_decay=chosen.optimiser.weight_decay)
    random = generator(chosen.seed, "train", "personal/centerA", 1)
    for _ in range(HEAD_EPOCHS):
        for indices in epoch_batches(data, chosen, random):
            loss = multitask_loss(theirs(load_images(data, indices, CPU)), load_labels(data, indices, CPU), terms_of(chosen))
            theirs.zero_grad()
            loss.backward()
            optimiser.step()
    for name, found in network.state_dict().items():
        if name.startswith("heads."):
            torch.testing.assert_close(found, theirs.state_dict()[name], rtol=1e-3, atol=1e-4)
            assert (found - start[name]).abs().max() > 1e-2
        else:
            assert torch.equal(found, start[name]), name


def test_where_another_site_calls_the_classes_otherwise_own_heads_decide_better():
    """Of one site the classes are those of another in a circle: a model that serves the other is wrong here."""
    data = synthetic(num_cases=30, images_per_case=(1,))
    bright = (60 * data.class_C[data.case_N] + 40).astype(np.uint8)
    data = replace(data, images_NHW=np.broadcast_to(bright[:, None, None], data.images_NHW.shape).copy())
    turned = {task: (labels + 1) % (3 if task == "subtype" else 2) for task, labels in data.labels_N.items()}
    chosen = study(optimiser={"learning_rate": 0.05})
    network, cases = build_network(chosen), data.cases(TRAIN)
    right = []
    for trained in (replace(data, labels_N=turned), data):
        tune_heads(network, trained, chosen, terms_of(chosen), "centerA")
        right.append((case_logits(network, data, cases).argmax(axis=1) == data.class_C[cases]).mean())
    assert right[0] < 0.4
    assert right[1] > 0.9


def federation_of(kind):
    return {"secure_aggregation": True, "rounds": 3, "personal": kind}


@pytest.fixture(scope="module")
def run_study(tmp_path_factory, write_small_hospitals, local_federation):
    """run_study(kind of personal model) -> a finished federation and what came of it."""

    def run(kind):
        folder = tmp_path_factory.mktemp(kind)
        write_small_hospitals(folder / "hospitals", federation=federation_of(kind))
        federation = local_federation(folder / "hospitals", folder / "run")
        return federation, federation.run()

    return run


@pytest.fixture(scope="module")
def plain(run_study):
    """The same without personal models."""
    return run_study("none")


@pytest.fixture(scope="module", params=["heads", "ditto"])
def kept(request, run_study):
    """A finished federation with personal models, and the files in which they are."""
    federation, finished = run_study(request.param)
    return federation, finished, {site: path_of(federation, site) for site in federation.sites}


def path_of(federation, site):
    (path,) = (federation.path / "sites" / site).glob(f"study-*/{PERSONAL}")
    return path


def test_a_personal_model_is_kept_for_its_owner_and_nothing_that_leaves_a_site_changes(plain, kept):
    (federation, finished, paths), (without, finished_without) = kept, plain
    assert federation.state_hash() == without.state_hash()
    for block, values in finished.counts.items():
        np.testing.assert_array_equal(values, finished_without.counts[block])
    assert federation.contract.counts == without.contract.counts
    assert not list(without.path.glob(f"sites/*/*/{PERSONAL}"))
    heads = []
    for path in paths.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        arrays, facts = load_arrays(path)
        assert (facts["study_hash"], facts["round"]) == (federation.study.study_hash, finished.chosen.round)
        heads.append(arrays["heads.heads.subtype.weight"])
    assert not np.array_equal(heads[0], heads[1])


def test_killed_while_the_study_runs_and_ends_every_site_keeps_the_same_personal_model(federate, kept):
    """A worker dies with what it had of round 2. In the end each dies with the coordinator, and the file of one that had not got to
    it by then is written afterwards."""
    undisturbed, _, paths = kept
    forgot = []

    class KilledError(Exception):
        pass

    def kill(site, request, answer):
        if isinstance(request, Train) and (site, request.header.round) == ("centerA", 2) and not forgot:
            forgot.append(site)
            disturbed.restart_worker(site)
            next((disturbed.path / "sites" / site).glob("study-*/pending.safetensors")).unlink()
        if isinstance(request, Finish) and site == "centerB":
            raise KilledError
        return answer

    disturbed = federate("disturbed", tamper=kill, federation=federation_of(undisturbed.study.federation.personal))
    with pytest.raises(KilledError):
        disturbed.run()
    assert forgot
    assert not list((disturbed.path / "sites" / "centerC").glob(f"study-*/{PERSONAL}"))
    resumed = federate("disturbed")
    resumed.run()
    assert {site: path_of(resumed, site).read_bytes() for site in paths} == {s: path.read_bytes() for s, path in paths.items()}


@pytest.mark.parametrize(("kind", "step"), [("heads", "tune_heads"), ("ditto", "train_ditto")])
def test_a_site_whose_personal_model_cannot_be_trained_answers_as_ever(federate, monkeypatch, plain, kind, step):
    def broken(*_):
        raise TrainingError("loss is nan", "")

    monkeypatch.setattr(f"client.worker.personal.{step}", broken)
    federation = federate("run", federation=federation_of(kind))
    assert federation.run().counts
    assert federation.state_hash() == plain[0].state_hash()
    assert not list(federation.path.glob(f"sites/*/*/{PERSONAL}"))


def test_a_round_of_ditto_at_a_site_begins_at_the_received_model_and_not_at_the_trained_one(federate):
    federation = federate("run", federation={"personal": "ditto", "rounds": 1, "batchnorm": "frozen"})
    federation.run()
    network, chosen, site = initial_network(federation.study), federation.study, federation.sites["centerA"]
    data = load_site_data(chosen, site, image_size(chosen.model))
    weights = class_weights(chosen.class_weighting, federation.directory.load().histogram_K, [])
    plan = LocalPlan("centerA", 1, FedProx(), number=1)
    expected = train_ditto(network, data, chosen, LossTerms.of(chosen, weights), plan, {})
    kept, _ = load_arrays(path_of(federation, "centerA"))
    for name in expected.keys() - {"heads.heads.subtype.bias"}:  # which holds what class weights move
        np.testing.assert_array_equal(kept[name], expected[name])


def test_ditto_trains_from_what_it_left_over_and_where_one_round_fails_from_the_round_before(monkeypatch):
    chosen = study(federation={"personal": "ditto"})
    network, data = build_network(chosen), synthetic(num_cases=15)
    start, plan = state(network), LocalPlan("centerA", 1, FedProx())

    def round_from(memory, number):
        network.load_state_dict(start)
        return train_personal(network, data, chosen, terms_of(chosen), replace(plan, number=number), memory)

    first = round_from({}, 1)
    second, anew = round_from(first, 2), round_from({}, 2)
    assert first.keys() == second.keys() == {f"personal.{name}" for name in start if not name.endswith("num_batches_tracked")}
    assert any(not np.array_equal(second[name], anew[name]) for name in first)
    monkeypatch.setattr("client.worker.personal.train_ditto", Mock(side_effect=TrainingError("loss is nan", "")))
    assert round_from(second, 3) == second


def test_the_site_s_report_sets_the_personal_model_beside_the_finished_one(kept):
    federation, finished, paths = kept
    directory = type(federation.directory)(federation.path)
    write_outcome(directory, federation.contract, federation.network, finished)
    directory.close()
    site = federation.sites["centerA"]
    before = make_site_report(site, federation.path, train_alone=False)
    assert before.personal is None
    assert "personal model" not in render_site_report(before)
    place = site.run_folder / paths["centerA"].parent.name / PERSONAL
    place.parent.mkdir(parents=True)
    place.write_bytes(paths["centerA"].read_bytes())
    report = make_site_report(site, federation.path, train_alone=False)
    assert report.federated.confusion_KK.tolist() == before.federated.confusion_KK.tolist()
    assert report.personal.confusion_KK.sum() == report.federated.confusion_KK.sum()
    for name, gain in report.personal_gains.items():
        measured = [tested.measures[name].value for tested in (report.personal, report.federated)]
        assert gain.value == (None if None in measured else pytest.approx(measured[0] - measured[1]))
    page = render_site_report(report)
    assert "The personal model of this site" in page
    assert ("trained beside the federated one" in page) == (federation.study.federation.personal == "ditto")
    assert find_personal(site, federation.study, finished.chosen.round + 1) is None


def test_a_study_without_personal_models_is_what_it_was():
    federation = Federation(sites=("a", "b"))
    assert "personal" not in federation.model_dump()
    assert "personal_lambda" not in federation.model_dump()
    assert Federation(sites=("a", "b"), personal="none") == federation
