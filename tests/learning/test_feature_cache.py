"""Frozen branches: they never move, and their maps are computed once where no augmentation changes the images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csasn.data.beside import MOST, ROOM
from csasn.data.cache import forget_images
from csasn.data.cases import TRAIN, load_site_data
from csasn.data.manifest import read_manifest
from csasn.errors import TrainingError
from csasn.federated.weighting import class_weights
from csasn.learning.central import pool
from csasn.learning.evaluation import image_logits
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.loss import LossTerms
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.training import LocalPlan, load_changed, train_locally
from csasn.model.initial_weights import initial_network
from csasn.model.state import StateLayout
from csasn.platform.checkpoint import save_arrays
from csasn.platform.randomness import generator

STILL = {"flip": False, "shift": 0.0, "scale": 0.0, "rotation_deg": 0.0, "contrast": 0.0, "brightness": 0.0}
BOTH = ["efficientnet", "vit"]


def prepared(federate, frozen, **changes):
    federation = federate("run", model={"frozen": frozen}, **changes)
    federation.directory.close()
    study = federation.study
    data = load_site_data(study, federation.sites["centerA"], 32)
    return study, initial_network(study), data


def train(study, network, data):
    terms = LossTerms.of(study, class_weights(study.class_weighting, np.array([9, 9, 9]), []))
    train_locally(network, data, study, terms, LocalPlan("centerA", 1, FedProx(proximal_mu=0.01)))
    return network


@pytest.mark.parametrize("frozen", [["efficientnet"], ["vit"], BOTH])
def test_known_maps_give_the_network_that_images_give(federate, frozen):
    study, network, data = prepared(federate, frozen, augmentation=STILL)
    other = initial_network(study)
    known = with_frozen_maps(network, data, study)
    assert set(known.maps_N) == set(frozen)
    indices = np.arange(len(data.images_NHW))
    np.testing.assert_allclose(image_logits(network, known, indices), image_logits(network, data, indices), atol=2e-5)
    layout = StateLayout.of(network, "silo")
    trained = [layout.read(train(study, *pair)) for pair in ((network, known), (other, data))]
    moved = np.linalg.norm(trained[1] - layout.read(initial_network(study)))
    assert np.linalg.norm(trained[0] - trained[1]) < 0.02 * moved  # Adam enlarges differences of the last digit


@pytest.mark.parametrize("frozen", [["efficientnet"], ["vit"]])
def test_a_frozen_branch_never_moves_and_is_never_sent(federate, frozen):
    study, network, data = prepared(federate, frozen)
    branch = getattr(network, frozen[0])
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    train(study, network, data)
    assert all(torch.equal(before[name], tensor) for name, tensor in branch.state_dict().items())
    shared = {segment.name for segment in StateLayout.of(network, "shared").shared}
    assert not [name for name in shared if name.startswith(f"{frozen[0]}.")]


def test_augmentation_keeps_the_images(federate):
    study, network, data = prepared(federate, BOTH)
    assert with_frozen_maps(network, data, study) is data


FLIPS = STILL | {"flip": True}


@pytest.mark.parametrize("frozen", [["efficientnet"], ["vit"], BOTH])
def test_flips_have_two_views_the_image_and_its_mirror_with_the_maps_of_each(federate, frozen):
    study, network, data = prepared(federate, frozen, augmentation=FLIPS | {"frozen_views": 2})
    views = with_frozen_maps(network, data, study).views
    training = np.flatnonzero(data.split_C[data.case_N] == TRAIN)
    assert (views.places_N[training] == np.arange(len(training))).all()
    assert set(views.places_N) - set(range(len(training))) == {-1}
    images_THW = data.images_NHW[training]
    np.testing.assert_array_equal(views.images_MHW, np.concatenate([images_THW, images_THW[:, :, ::-1]]))
    with torch.no_grad():
        for name in frozen:
            given = torch.from_numpy(views.images_MHW)[:, None].float() / 255
            expected = network.pool(network.frozen_branches()[name](given))
            np.testing.assert_allclose(views.maps_M[name], expected, rtol=2e-3, atol=2e-3)  # float16


def test_training_takes_each_view_of_an_image_and_the_maps_of_that_view(federate, monkeypatch):
    study, network, data = prepared(federate, ["vit"], augmentation=STILL | {"contrast": 0.5, "flip": True, "frozen_views": 3})
    known = with_frozen_maps(network, data, study)
    assert len(np.unique(known.views.images_MHW, axis=0)) == len(known.views.images_MHW)
    training, seen = np.flatnonzero(known.views.places_N >= 0), set()
    for number in range(40):
        images, maps = load_changed(known, training, study.augmentation, generator(number, "x"), torch.device("cpu"))
        rows = [
            np.flatnonzero((known.views.images_MHW == image).all(axis=(1, 2)))
            for image in (images[:, 0] * 255).round().byte().numpy()
        ]
        rows = np.concatenate(rows)
        assert (rows % len(training) == np.arange(len(training))).all()
        np.testing.assert_array_equal(maps["vit"], known.views.maps_M["vit"][rows].astype(np.float32))
        seen |= set(rows)
    assert len(seen) == 3 * len(training)


def test_pooled_cases_have_the_maps_and_views_that_they_had_at_their_sites(federate):
    study, network, _ = prepared(federate, BOTH, augmentation=FLIPS | {"frozen_views": 2})
    sites = {name: load_site_data(study, site, 32) for name, site in federate("run").sites.items()}
    known = {name: with_frozen_maps(network, data, study) for name, data in sites.items()}
    together, start = pool(known), 0
    assert together.views.num == 2
    for name in sorted(known):
        data, num = known[name], len(known[name].images_NHW)
        here = np.arange(start, start + num)
        np.testing.assert_array_equal(together.images_NHW[here], data.images_NHW)
        assert all(np.array_equal(together.maps_N[branch][here], data.maps_N[branch]) for branch in BOTH)
        training = np.flatnonzero(data.views.places_N >= 0)
        assert ((together.views.places_N[here] >= 0) == (data.views.places_N >= 0)).all()
        for seed in range(4):  # the same views are drawn of the same images
            rows, own = (views.draw(at, np.random.default_rng(seed)) for views, at in (
                (together.views, training + start), (data.views, training)))  # fmt: skip
            np.testing.assert_array_equal(together.views.images_MHW[rows], data.views.images_MHW[own])
            assert all(np.array_equal(together.views.maps_M[b][rows], data.views.maps_M[b][own]) for b in BOTH)
        start += num
    assert start == len(together.images_NHW)


def test_views_are_drawn_again_to_the_same_bits_and_change_what_is_trained(federate):
    study, network, data = prepared(federate, BOTH, augmentation=FLIPS | {"frozen_views": 2})
    layout = StateLayout.of(network, "silo")
    one, again, still = (
        layout.read(train(study, (fresh := initial_network(study)), change(with_frozen_maps(fresh, data, study))))
        for change in (lambda known: known, lambda known: known, lambda known: replace(known, views=None))
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, still)


def test_maps_that_would_not_fit_in_memory_are_refused_before_they_are_computed(federate, monkeypatch):
    study, network, data = prepared(federate, BOTH, augmentation=FLIPS | {"frozen_views": 2})
    monkeypatch.setattr("csasn.learning.frozen_maps.MAX_BYTES", 1000)
    with pytest.raises(TrainingError, match=r"maps of frozen branches would take 0\.0 GiB of memory"):
        with_frozen_maps(network, data, study)


def test_a_study_without_views_has_the_hash_that_it_had(federate):
    plain, spoken = (federate(name, augmentation=values).study for name, values in (("a", {}), ("b", {"frozen_views": 0})))
    assert plain.study_hash == spoken.study_hash
    assert "frozen_views" not in plain.model_dump()["augmentation"]


def test_a_federation_of_frozen_branches_runs_and_never_computes_a_map_twice(federate, monkeypatch):
    federation = federate("run", model={"frozen": BOTH}, augmentation=STILL, federation={"rounds": 3})
    calls = []
    branch = type(federation.network.vit)  # of both
    forward = branch.forward
    monkeypatch.setattr(branch, "forward", lambda self, x: (calls.append(len(x)), forward(self, x))[1])
    finished = federation.run()
    probes = 2 * len(federation.workers)  # one image of each branch says whether what is kept is of it
    assert sum(calls) - probes == 2 * sum(len(worker.learner.load_data().images_NHW) for worker in federation.workers.values())
    assert finished.counts


def computed(monkeypatch, network):
    """Counts, from now on, the images that go through a branch, beside the one that says whose maps are kept."""
    seen, forward = [], type(network.vit).forward
    monkeypatch.setattr(type(network.vit), "forward", lambda self, x: (seen.append(len(x)), forward(self, x))[1])
    return lambda: sum(number for number in seen if number > 1)


def kept_files(federation):
    return sorted((Path(federation.sites["centerA"].state) / "cache").glob("images-*-*.safetensors"))


def test_a_second_start_computes_no_map_again_and_has_the_same_bits(federate, monkeypatch):
    study, network, data = prepared(federate, BOTH, augmentation=STILL)
    first = with_frozen_maps(network, data, study)
    count = computed(monkeypatch, network)
    second = with_frozen_maps(initial_network(study), load_site_data(study, federate("run").sites["centerA"], 32), study)
    assert count() == 0
    assert all(np.array_equal(first.maps_N[name], second.maps_N[name]) for name in BOTH)


def test_maps_that_are_kept_are_of_these_weights_and_these_images(federate, monkeypatch):
    study, network, data = prepared(federate, BOTH, augmentation=STILL)
    maps = with_frozen_maps(network, data, study).maps_N
    count, num = computed(monkeypatch, network), len(data.images_NHW)
    with torch.no_grad():
        network.vit.net.norm.weight[0] += 0.25
    changed = with_frozen_maps(network, data, study).maps_N
    assert count() == num  # the other branch's are kept
    assert np.array_equal(changed["efficientnet"], maps["efficientnet"])
    assert not np.array_equal(changed["vit"], maps["vit"])
    images_NHW = np.load(data.images_NHW.filename, mmap_mode="c")  # of the same file, changed in memory alone
    images_NHW[-1] = 255 - images_NHW[-1]
    again = with_frozen_maps(network, replace(data, images_NHW=images_NHW), study).maps_N
    assert count() == 3 * num
    np.testing.assert_array_equal(again["vit"][:-1], changed["vit"][:-1])
    assert not np.array_equal(again["vit"][-1], changed["vit"][-1])


def test_damaged_maps_are_computed_again(federate, monkeypatch):
    study, network, data = prepared(federate, ["vit"], augmentation=STILL)
    federation = federate("run")
    maps = with_frozen_maps(network, data, study).maps_N
    (file,) = kept_files(federation)
    assert file.stat().st_mode & 0o777 == 0o600
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 1
    for damaged in (bytes(held), held[:200], b"", b"no such file"):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(with_frozen_maps(network, data, study).maps_N["vit"], maps["vit"])


def test_maps_go_with_the_pixels_that_they_are_of(federate):
    study, network, data = prepared(federate, BOTH, augmentation=STILL)
    federation = federate("run")
    with_frozen_maps(network, data, study)
    site = federation.sites["centerA"]
    assert len(kept_files(federation)) == 2
    load_site_data(study, site, 32)
    assert len(kept_files(federation)) == 2
    row = read_manifest(Path(site.manifest), study, site.labels).rows[0]
    assert forget_images(Path(site.state) / "cache", [row.name]) == 1
    assert kept_files(federation) == []
    with_frozen_maps(network, data, study)  # whoever still holds the pixels that are gone leaves nothing behind
    assert kept_files(federation) == []


def test_a_full_disk_keeps_no_map_and_stops_nothing(federate, monkeypatch):
    study, network, data = prepared(federate, BOTH, augmentation=STILL)
    federation = federate("run")
    monkeypatch.setattr("csasn.platform.storage.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert set(with_frozen_maps(network, data, study).maps_N) == set(BOTH)
    assert kept_files(federation) == []


def test_pixels_that_go_while_maps_are_written_leave_none_behind(federate, monkeypatch):
    study, network, data = prepared(federate, BOTH, augmentation=STILL)
    federation = federate("run")
    pixels = Path(data.images_NHW.filename)
    monkeypatch.setattr("csasn.data.beside.save_arrays", lambda *given: (save_arrays(*given), pixels.unlink(missing_ok=True)))
    assert set(with_frozen_maps(network, data, study).maps_N) == set(BOTH)
    assert kept_files(federation) == []


def test_a_disk_that_is_nearly_full_is_left_to_the_rounds(federate, monkeypatch):
    study, network, data = prepared(federate, ["vit"], augmentation=STILL)
    federation = federate("run")
    size = with_frozen_maps(network, replace(data, images_NHW=np.array(data.images_NHW)), study).maps_N["vit"].nbytes
    for free, num_kept in ((ROOM * size - 1, 0), (ROOM * size, 1)):
        monkeypatch.setattr("csasn.data.beside.free_bytes", lambda _, free=free: free)
        assert set(with_frozen_maps(network, data, study).maps_N) == {"vit"}
        assert len(kept_files(federation)) == num_kept


def test_old_maps_make_room_for_new_ones(federate):
    study, network, data = prepared(federate, ["vit"], augmentation=STILL)
    federation = federate("run")
    for _ in range(MOST + 2):
        with torch.no_grad():
            network.vit.net.norm.weight[0] += 0.25
        with_frozen_maps(network, data, study)
    assert len(kept_files(federation)) == MOST
