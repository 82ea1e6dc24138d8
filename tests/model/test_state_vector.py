"""csasn/model/state.py: the state of a network as one vector, its segments, its hash."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from csasn.errors import ModelError
from csasn.model.network import build_network
from csasn.model.state import StateLayout, normalisation_layers, read_tensors, statistics_of, write_tensors
from model_scene import images, study

SOME = settings(deadline=None, max_examples=25)


def frozen_network(batchnorm="silo"):
    pretrained = {"source": "file", "path": "vit.safetensors", "sha256": "0" * 64}
    network = build_network(study(initial_weights={"vit": pretrained}))
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for _, layer in normalisation_layers(network):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=random))
            layer.running_var.copy_(torch.rand(layer.num_features, generator=random) + 0.5)
            layer.num_batches_tracked.fill_(3)
    return network, StateLayout.of(network, batchnorm)


NETWORK, LAYOUT = frozen_network()


@pytest.mark.parametrize("batchnorm", ["silo", "shared"])
def test_what_is_written_is_read_back_and_every_tensor_is_in_its_place(batchnorm):
    network, layout = frozen_network(batchnorm)
    vector = np.random.default_rng(1).uniform(0.1, 1, layout.size).astype(np.float32)
    layout.write(network, vector)
    assert np.array_equal(layout.read(network), vector)
    tensors = network.state_dict()
    for segment in layout.shared + layout.fixed:
        expected = vector[segment.start : segment.stop].reshape(segment.shape)
        assert np.array_equal(tensors[segment.name].numpy(), expected)


def test_reading_into_another_network_makes_it_equal():
    network, layout = frozen_network()
    other = build_network(study(seed=9, initial_weights={"vit": {"source": "hub"}})).eval()
    layout.write(other, layout.read(network))
    with torch.no_grad():
        for task, logits in network.eval()(images(2, 32)).items():
            assert torch.equal(other(images(2, 32))[task], logits)


@pytest.mark.parametrize("batchnorm", ["silo", "shared"])
def test_segments_are_sorted_by_name_without_gaps_and_cover_the_float_state(batchnorm):
    network, layout = frozen_network(batchnorm)
    for part in (layout.shared, layout.fixed):
        assert [segment.name for segment in part] == sorted(segment.name for segment in part)
    everything = layout.shared + layout.fixed
    assert [segment.start for segment in everything] == [0, *(segment.stop for segment in everything[:-1])]
    assert layout.num_shared == layout.shared[-1].stop
    assert layout.size == everything[-1].stop == sum(t.numel() for t in network.state_dict().values() if t.is_floating_point())


@pytest.mark.parametrize("batchnorm", ["silo", "shared"])
def test_running_statistics_are_shared_only_where_the_study_says_so(batchnorm):
    network, layout = frozen_network(batchnorm)
    trainable = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    statistics = set(read_tensors(network, statistics_of(network)))
    assert len(frozen) == 3
    assert len(statistics) == 2 * len(dict(normalisation_layers(network))) > 0
    shared = {segment.name for segment in layout.shared}
    assert shared == (trainable | statistics if batchnorm == "shared" else trainable)
    assert {segment.name for segment in layout.fixed} == (frozen | statistics) - shared


def test_without_frozen_parameters_and_with_shared_statistics_nothing_is_fixed():
    layout = StateLayout.of(build_network(study()), "shared")
    assert layout.fixed == ()
    assert layout.size == layout.num_shared


def test_num_batches_tracked_is_no_part_of_the_state():
    network, layout = frozen_network()
    assert not any("num_batches_tracked" in segment.name for segment in layout.shared + layout.fixed)
    layout.write(network, np.zeros(layout.size, np.float32))
    assert {int(layer.num_batches_tracked) for _, layer in normalisation_layers(network)} == {3}


@SOME
@given(st.integers(0, LAYOUT.size - 1))
@example(0)
@example(LAYOUT.size - 1)
def test_hash_changes_with_any_value(index):
    vector = LAYOUT.read(NETWORK)
    other = vector.copy()
    other[index] = np.nextafter(vector[index], np.float32(np.inf))
    assert LAYOUT.hash(vector) == LAYOUT.hash(vector.copy())
    assert LAYOUT.hash(other) != LAYOUT.hash(vector)


def test_hash_changes_with_names_and_shapes():
    one, other = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)
    layouts = [StateLayout.of(one, "silo"), StateLayout.of(other, "silo"), StateLayout.of(nn.Sequential(one), "silo")]
    vector = np.arange(6, dtype=np.float32)
    assert len({layout.hash(vector) for layout in layouts}) == 3


def test_hash_is_of_little_endian_float32_whatever_the_array():
    vector = LAYOUT.read(NETWORK)
    assert LAYOUT.hash(vector.astype(">f4")) == LAYOUT.hash(np.repeat(vector, 2)[::2]) == LAYOUT.hash(vector)


def test_a_vector_of_another_size_is_refused():
    for wrong in (np.zeros(LAYOUT.size + 1), np.zeros(LAYOUT.num_shared), np.zeros((1, LAYOUT.size))):
        with pytest.raises(ModelError, match=f"of {wrong.size} values does not fit, expected {LAYOUT.size}"):
            LAYOUT.write(NETWORK, wrong.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused_and_nothing_is_written(value):
    before = LAYOUT.read(NETWORK)
    vector = np.zeros(LAYOUT.size, np.float32)
    vector[LAYOUT.size // 2] = value
    with pytest.raises(ModelError, match="finite"):
        LAYOUT.write(NETWORK, vector)
    assert np.array_equal(LAYOUT.read(NETWORK), before)


def test_a_negative_variance_becomes_zero_and_nothing_else_is_clamped():
    network, layout = frozen_network("shared")
    layout.write(network, np.full(layout.size, -0.5, np.float32))
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            assert bool((tensor == (0 if name.endswith("running_var") else -0.5)).all()), name


def test_running_statistics_are_read_as_copies_and_written_back():
    network, _ = frozen_network()
    kept = read_tensors(network, statistics_of(network))
    before = {name: values.copy() for name, values in kept.items()}
    write_tensors(network, {name: np.ones_like(values) for name, values in kept.items()})
    assert all(np.array_equal(kept[name], before[name]) for name in kept)
    assert all(bool((network.state_dict()[name] == 1).all()) for name in kept)
    write_tensors(network, kept)
    assert all(np.array_equal(network.state_dict()[name].numpy(), before[name]) for name in kept)


def test_normalisation_layers_come_in_the_order_of_their_names():
    names = [name for name, _ in normalisation_layers(NETWORK)]
    assert names == sorted(names)
    assert len(names) == sum(isinstance(module, nn.BatchNorm2d) for module in NETWORK.modules()) > 5
