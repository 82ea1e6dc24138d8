"""csasn/learning/normalisation.py: exact moments that add up over sites, and what applying them does to the finished model.

B images, C channels, H x W positions.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from csasn.data.cases import TEST, TRAIN, VALIDATION, SiteData
from csasn.errors import ProtocolError
from csasn.federated.weighting import class_weights
from csasn.learning.evaluation import image_logits
from csasn.learning.loss import LossTerms
from csasn.learning.normalisation import FIXED_POINT, apply_moments, measure_moments, moments_layout, num_measured
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.training import LocalPlan, train_locally
from csasn.model.network import build_network
from csasn.model.state import normalisation_layers, read_tensors, statistics_of
from csasn.platform.configuration import validate
from csasn.study import Study

SOME = settings(deadline=None, max_examples=20)
SEEDS = st.integers(0, 2**32 - 1)


def study(batch_size=100, image_size=32, **changes):
    values = {
        "name": "small",
        "classes": ["benign", "PTC"],
        "model": {"profile": "csasn-test", "image_size": image_size},
        "federation": {"sites": ["centerA", "centerB"]},
        "optimiser": {"batch_size": batch_size},
        **changes,
    }
    return validate(Study, values, "study.yaml")


def synthetic(num_cases=7, seed=0, side=32, images_per_case=1, splits=(TRAIN,)):
    """Blobs over noise: neighbouring pixels resemble each other, as in a picture, so that layers see different variances."""
    random = np.random.default_rng(seed)
    case_N = np.repeat(np.arange(num_cases), images_per_case)
    coarse = np.kron(random.integers(20, 200, (len(case_N), 4, 4)), np.ones((side // 4, side // 4), np.int64))
    images = (coarse + random.integers(0, 50, (len(case_N), side, side))).astype(np.uint8)
    class_C = np.arange(num_cases) % 2
    return SiteData(images, case_N, {"subtype": class_C[case_N]}, np.resize(splits, num_cases).astype(np.int8), class_C, ())


class OneLayer(nn.Module):
    """BatchNorm of known inputs: the image, its double and its negative."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x_B1HW):
        return self.norm(torch.cat([x_B1HW, 2 * x_B1HW, -x_B1HW], dim=1))


class TwoLayers(nn.Module):
    """A second BatchNorm, registered under an earlier name, that sees what the first one gives."""

    def __init__(self):
        super().__init__()
        self.z_first = nn.BatchNorm2d(1)
        self.a_second = nn.BatchNorm2d(2)
        self.fail = False

    def forward(self, x_B1HW):
        x_B1HW = self.z_first(x_B1HW).relu()
        if self.fail:
            raise RuntimeError("broken")
        return {"subtype": self.a_second(torch.cat([x_B1HW, x_B1HW + 3], dim=1)).mean(dim=(2, 3))}


def pixels(data, cases=None):
    images = data.images_NHW if cases is None else data.images_NHW[np.isin(data.case_N, cases)]
    return images.astype(np.float64) / 255


# ---- measuring


@SOME
@given(SEEDS, st.integers(1, 12), st.integers(1, 5))
def test_moments_are_sums_over_images_of_mean_and_mean_square_whatever_the_batches(seed, num_cases, batch_size):
    data = synthetic(num_cases, seed)
    found = measure_moments(OneLayer(), data, study(batch_size), "centerA")
    x_BHW = pixels(data)
    mean, square = x_BHW.mean(axis=(1, 2)).sum(), np.square(x_BHW).mean(axis=(1, 2)).sum()
    assert found["num"].tolist() == [num_cases]
    assert found["moments"].dtype == np.int64
    expected = np.array([[mean, 2 * mean, -mean], [square, 4 * square, square]])
    np.testing.assert_allclose(found["moments"] / FIXED_POINT, expected, rtol=1e-5, atol=num_cases / FIXED_POINT)


def test_moments_of_one_batch_equal_a_direct_computation_at_every_layer():
    data, chosen = synthetic(9, side=64), study(image_size=64)
    network = build_network(chosen)
    found = measure_moments(network, data, chosen, "centerA")
    inputs = {}
    for name, layer in normalisation_layers(network):
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.__setitem__(name, given[0].double()))
    for module in network.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        network(torch.from_numpy(data.images_NHW)[:, None].float() / 255)
    assert len(inputs) > 5
    start = 0
    for name, layer in normalisation_layers(network):
        x_BCHW = inputs[name].numpy()
        expected = np.stack([x_BCHW.mean(axis=(2, 3)).sum(axis=0), np.square(x_BCHW).mean(axis=(2, 3)).sum(axis=0)])
        channels = slice(start, start + layer.num_features)
        np.testing.assert_allclose(found["moments"][:, channels] / FIXED_POINT, expected, rtol=1e-3, atol=1e-3, err_msg=name)
        start += layer.num_features
    assert start == found["moments"].shape[1]


def test_one_image_of_each_training_case_is_measured_and_no_other():
    data = synthetic(10, images_per_case=3, splits=(TRAIN, VALIDATION, TRAIN, TEST))
    seen = []
    network = OneLayer()
    network.register_forward_pre_hook(lambda _, given: seen.extend((given[0][:, 0] * 255).round().to(torch.uint8).numpy()))
    found = measure_moments(network, data, study(batch_size=2), "centerA")
    known = {picture.tobytes(): case for picture, case in zip(data.images_NHW, data.case_N, strict=True)}
    assert sorted(known[picture.tobytes()] for picture in seen) == list(data.cases(TRAIN))
    assert int(found["num"][0]) == len(data.cases(TRAIN)) == 5


@pytest.mark.parametrize(("asked", "measured"), [(1, 4), (4, 4), (5, 7), (8, 10), (128, 10), (None, 10)])
def test_moments_of_some_cases_are_those_of_the_first_batches_that_make_them_up(asked, measured):
    data, chosen, seen = synthetic(10), study(batch_size=4), []
    network = OneLayer()
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0].double().mean(dim=(1, 2, 3)).sum().item()))
    found = measure_moments(network, data, chosen, "centerA", asked)
    assert found["num"].tolist() == [measured]
    assert found["moments"][0, 0] / FIXED_POINT == pytest.approx(sum(seen), abs=measured / FIXED_POINT)


@pytest.mark.parametrize("units", [(32, 32), (1, 7, 24, 32), (16, 16, 16, 16), (4,) * 16])
def test_sites_measure_512_cases_together_each_by_its_weight(units):
    assert [num_measured(of_site) for of_site in units] == [8 * of_site for of_site in units]
    assert sum(map(num_measured, units)) == 512


def test_equal_sites_measure_equal_integers_and_the_layout_fits():
    data, chosen = synthetic(9, images_per_case=2), study(batch_size=4)
    one, again = (measure_moments(build_network(chosen), data, chosen, "centerA") for _ in range(2))
    assert np.array_equal(one["moments"], again["moments"])
    layout = moments_layout(build_network(chosen))
    unpacked = layout.unpack(layout.pack(one))
    assert all(np.array_equal(unpacked[name], one[name]) for name in one)
    assert not np.array_equal(one["moments"], measure_moments(build_network(chosen), data, chosen, "centerB")["moments"])


def test_running_statistics_do_not_enter_the_measurement():
    data, chosen = synthetic(), study()
    plain, shifted = build_network(chosen), build_network(chosen)
    for _, layer in normalisation_layers(shifted):
        layer.running_mean.fill_(5)
        layer.running_var.fill_(0.01)
    one, other = (measure_moments(network, data, chosen, "centerA") for network in (plain, shifted))
    assert np.array_equal(one["moments"], other["moments"])


def test_parameters_are_untouched_and_dropout_is_off():
    data, chosen = synthetic(), study()
    network = build_network(chosen)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    training = []
    network.classifier.register_forward_pre_hook(lambda module, _: training.append(module.training))
    measure_moments(network, data, chosen, "centerA")
    assert training == [False]
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())


# ---- adding up


@SOME
@given(SEEDS, st.integers(1, 9), st.integers(1, 9))
def test_moments_of_two_sites_add_up_to_those_of_their_images_together(seed, first, second):
    sites = [synthetic(first, seed), synthetic(second, seed + 1)]
    together = SiteData(
        images_NHW=np.concatenate([site.images_NHW for site in sites]),
        case_N=np.arange(first + second),
        labels_N={},
        split_C=np.full(first + second, TRAIN, np.int8),
        class_C=np.zeros(first + second, np.int64),
        notes=(),
    )
    chosen = study(batch_size=3)
    parts = [measure_moments(OneLayer(), site, chosen, name) for site, name in zip(sites, ("centerA", "centerB"), strict=True)]
    whole = measure_moments(OneLayer(), together, chosen, "pooled")
    assert int(parts[0]["num"][0] + parts[1]["num"][0]) == int(whole["num"][0])
    assert np.abs(parts[0]["moments"] + parts[1]["moments"] - whole["moments"]).max() <= 1  # an image's float32 mean may differ


def test_layers_are_normalised_by_their_own_batch_so_that_sites_add_up_beyond_the_first_layer():
    sites = [synthetic(6, seed) for seed in (1, 2)]
    network, chosen = TwoLayers(), study()
    parts = [measure_moments(network, site, chosen, name) for site, name in zip(sites, ("centerA", "centerB"), strict=True)]
    expected = np.zeros((2, 3))
    for site in sites:
        x_BHW = pixels(site)
        y_BHW = np.maximum((x_BHW - x_BHW.mean()) / np.sqrt(x_BHW.var() + 1e-5), 0)
        for channel, z_BHW in enumerate((y_BHW, y_BHW + 3, x_BHW)):  # a_second before z_first
            expected[:, channel] += z_BHW.mean(axis=(1, 2)).sum(), np.square(z_BHW).mean(axis=(1, 2)).sum()
    np.testing.assert_allclose((parts[0]["moments"] + parts[1]["moments"]) / FIXED_POINT, expected, rtol=1e-4, atol=2e-4)


# ---- applying


def blocks(num, mean, square):
    moments = np.rint(np.array([mean, square]) * num * FIXED_POINT).astype(np.int64)
    return {"num": np.array([num]), "moments": moments}


def test_applying_sets_mean_and_population_variance_of_each_layer_by_name():
    network = TwoLayers()
    apply_moments(network, blocks(8, [1.0, -2.0, 0.5], [1.5, 7.0, 0.25]))
    np.testing.assert_allclose(network.a_second.running_mean, [1.0, -2.0], atol=1e-4)
    np.testing.assert_allclose(network.a_second.running_var, [0.5, 3.0], atol=1e-4)
    np.testing.assert_allclose(network.z_first.running_mean, [0.5], atol=1e-4)
    np.testing.assert_allclose(network.z_first.running_var, [0.0], atol=1e-4)


def test_after_one_batch_the_finished_model_evaluates_as_that_batch_normalised_itself():
    data, chosen = synthetic(9, side=64), study(image_size=64)
    network = build_network(chosen)
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, layer in normalisation_layers(network):
            layer.weight.copy_(torch.rand(layer.num_features, generator=random) + 0.5)
            layer.bias.copy_(torch.randn(layer.num_features, generator=random) * 0.2)
    images = torch.from_numpy(data.images_NHW)[:, None].float() / 255
    for module in network.modules():
        module.train(isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        expected = network(images)["subtype"].double().numpy()
    apply_moments(network, measure_moments(network, data, chosen, "centerA"))
    found = image_logits(network, data, np.arange(9))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)
    assert np.ptp(expected, axis=0).min() > 0.02


def test_a_trained_model_evaluates_to_finite_numbers_with_the_sums_of_two_sites():
    chosen = study(batch_size=4)
    sites = {name: synthetic(9, seed) for seed, name in enumerate(("centerA", "centerB"))}
    network = build_network(chosen)
    terms = LossTerms.of(chosen, class_weights(chosen.class_weighting, np.array([9, 9]), []))
    train_locally(network, sites["centerA"], chosen, terms, LocalPlan("centerA", 1, FedProx(proximal_mu=0.01)))
    measured = [measure_moments(network, data, chosen, name) for name, data in sites.items()]
    before = read_tensors(network, statistics_of(network))
    apply_moments(network, {name: measured[0][name] + measured[1][name] for name in measured[0]})
    after = read_tensors(network, statistics_of(network))
    for name, values in after.items():
        assert np.isfinite(values).all()
        assert not np.array_equal(values, before[name])
        assert (values >= 0).all() or name.endswith("running_mean")
    for data in sites.values():
        assert np.isfinite(image_logits(network, data, np.arange(9))).all()


@SOME
@given(SEEDS, st.integers(1, 30))
def test_the_error_of_fixed_point_is_small_beside_the_statistics(seed, num_cases):
    data, network = synthetic(num_cases, seed), OneLayer()
    apply_moments(network, measure_moments(network, data, study(), "centerA"))
    x_BHW = pixels(data)
    half = 0.5 / FIXED_POINT
    mean, variance = x_BHW.mean(), x_BHW.var()
    np.testing.assert_allclose(network.norm.running_mean, [mean, 2 * mean, -mean], rtol=1e-6, atol=1.01 * half)
    np.testing.assert_allclose(network.norm.running_var, [variance, 4 * variance, variance], rtol=1e-5, atol=6 * half)


# ---- refusing


@pytest.mark.parametrize("num", [0, -3])
def test_moments_of_no_image_are_refused(num):
    network = TwoLayers()
    with pytest.raises(ProtocolError, match=f"count {num} images"):
        apply_moments(network, {"num": np.array([num]), "moments": np.ones((2, 3), np.int64)})
    assert network.a_second.running_var.tolist() == [1, 1]


def test_a_negative_variance_is_refused_and_nothing_is_set():
    network = TwoLayers()
    with pytest.raises(ProtocolError, match="negative variance"):
        apply_moments(network, blocks(8, [1.0, 1.0, 0.0], [2.0, 0.9, 1.0]))
    assert network.a_second.running_mean.tolist() == [0, 0]


def test_a_variance_that_rounding_made_negative_is_zero():
    network = TwoLayers()
    apply_moments(network, {"num": np.array([1]), "moments": np.array([[FIXED_POINT, 0, 0], [FIXED_POINT - 1, 0, 0]])})
    assert network.a_second.running_var.tolist() == [0, 0]
    assert network.a_second.running_mean.tolist() == [1, 0]


def test_forward_hooks_are_gone_afterwards_even_after_an_error():
    network, data, chosen = TwoLayers(), synthetic(), study()
    measure_moments(network, data, chosen, "centerA")
    assert not any(module._forward_pre_hooks for module in network.modules())
    network.fail = True
    with pytest.raises(RuntimeError, match="broken"):
        measure_moments(network, data, chosen, "centerA")
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_site_without_a_training_image_of_its_own_changes_no_sum():
    data = replace(synthetic(6), split_C=np.array([TRAIN, TRAIN, TRAIN, TEST, VALIDATION, TEST], np.int8))
    found = measure_moments(OneLayer(), data, study(), "centerA")
    x_BHW = pixels(data, [0, 1, 2])
    assert found["moments"][0, 0] / FIXED_POINT == pytest.approx(x_BHW.mean(axis=(1, 2)).sum(), abs=1e-4)
