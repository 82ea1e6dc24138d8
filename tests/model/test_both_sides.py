"""`model.test_flip`: whatever decides by a network sees an image and its mirror. B images, S pixels a side."""

import numpy as np
import pytest
import torch

from csasn.data.cases import TRAIN
from csasn.finished.saliency import gradcam, rollout
from csasn.learning.evaluation import case_logits
from csasn.learning.frozen_maps import with_frozen_maps
from csasn.learning.normalisation import apply_moments, measure_moments
from csasn.model.network import build_network
from training_scene import study, synthetic


def pair(**model):
    """The same network without and with it, its weights drawn anew so that its maps are not nearly flat."""
    plain, both = (build_network(study(model={"test_flip": flip, **model})) for flip in (False, True))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    both.load_state_dict(plain.state_dict())
    return plain, both


def pictures(num=3, seed=0):
    return torch.rand(num, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_logits_of_every_task_are_the_mean_over_image_and_mirror():
    plain, both = (network.eval() for network in pair())
    images = pictures()
    found, here, there = both(images), plain(images), plain(images.flip(-1))
    for task in ("subtype", "malignancy"):
        torch.testing.assert_close(found[task], (here[task] + there[task]) / 2)
        assert (here[task] - there[task]).abs().max() > 1e-3
        torch.testing.assert_close(both(images.flip(-1))[task], found[task])


def test_training_sees_the_image_alone():
    plain, both = (network.train() for network in pair(dropout=0.0))
    images = pictures()
    assert torch.equal(plain(images)["subtype"], both(images)["subtype"])


def test_cases_are_decided_by_both_sides_also_with_kept_maps_of_a_frozen_branch():
    plain, both = pair(frozen=["vit"])
    data = synthetic()
    chosen = study(model={"test_flip": True, "frozen": ["vit"]})
    cases = data.cases(TRAIN)
    known = with_frozen_maps(both, data, chosen)
    assert known.maps_N
    found = case_logits(both, known, cases)
    np.testing.assert_allclose(found, case_logits(both, data, cases), rtol=1e-5, atol=1e-5)
    assert np.abs(found - case_logits(plain, data, cases)).max() > 1e-3
    pixels = data.images_NHW[data.images_of(int(cases[0]))]
    np.testing.assert_allclose(both.subtype_logits(pixels).mean(axis=0), found[0], rtol=1e-5, atol=1e-5)


def test_statistics_are_measured_on_both_sides():
    """One batch: a network whose statistics are those of images and mirrors. Each side is normalised by itself."""
    plain, both = pair()
    data = synthetic(images_per_case=(1,))
    chosen = study(optimiser={"batch_size": 100})
    mirrored = synthetic(images_per_case=(1,))
    mirrored.images_NHW[:] = data.images_NHW[:, :, ::-1]
    one, other = (measure_moments(plain, each, chosen, "centerA") for each in (data, mirrored))
    found = measure_moments(both, data, chosen, "centerA")
    assert found["num"] == one["num"] + other["num"]
    assert np.array_equal(found["moments"], one["moments"] + other["moments"])
    few = measure_moments(both, data, study(optimiser={"batch_size": 2}), "centerA", num_cases=3)
    assert few["num"] == 8  # two batches of two
    apply_moments(both, found)


@pytest.mark.parametrize("way", ["gradcam", "rollout"])
def test_what_a_model_looks_at_in_a_mirror_is_the_mirror_of_what_it_looks_at(way):
    plain, both = (network.eval() for network in pair())
    image = pictures(1, seed=4)

    def look(network, at):
        return gradcam(network, at, 1) if way == "gradcam" else rollout(network, at)

    found = look(both, image)
    np.testing.assert_allclose(look(both, image.flip(-1)), found[:, ::-1], atol=1e-4)
    assert np.abs(look(plain, image.flip(-1)) - look(plain, image)[:, ::-1]).max() > 1e-3
    assert found.max() == 1
