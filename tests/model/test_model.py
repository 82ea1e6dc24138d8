"""csasn/model: the network against its equations in NumPy, its switches, its seeds.

B images, C channels, H x W positions, D features.
"""

from math import erf

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from csasn.model.attention import CascadedAttention, ChannelAttention, SpatialAttention
from csasn.model.backbones import Branch
from csasn.model.heads import MultiscaleClassifier, TaskHeads
from csasn.model.network import build_network
from csasn.model.profiles import image_size, profile_of
from model_scene import images, study

SOME = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
EXACT = {"rtol": 0, "atol": 1e-6}  # of float64; what is found is near 1e-15
SWITCHES = ("efficientnet", "vit", "channel_attention", "spatial_attention", "attention_residual", "multiscale")


def doubles(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module, seed):
    """The module in float64, every parameter drawn anew, so that no term hides behind a zero or a one."""
    module = module.double().eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64) * 0.5)
    return module


def arrays(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


# ---- the equations in NumPy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def channel_attention(x_BCHW, w, prefix=""):
    def mlp(v_BC):
        hidden = np.maximum(v_BC @ w[f"{prefix}mlp.0.weight"].T + w[f"{prefix}mlp.0.bias"], 0)
        return hidden @ w[f"{prefix}mlp.2.weight"].T + w[f"{prefix}mlp.2.bias"]

    gate_BC = sigmoid(mlp(x_BCHW.mean(axis=(2, 3))) + mlp(x_BCHW.max(axis=(2, 3))))
    return x_BCHW * gate_BC[:, :, None, None]


def spatial_attention(x_BCHW, w, prefix=""):
    kernel_277, bias = w[f"{prefix}conv.weight"][0], w[f"{prefix}conv.bias"][0]
    pooled_B2HW = np.stack([x_BCHW.mean(axis=1), x_BCHW.max(axis=1)], axis=1)
    padded = np.pad(pooled_B2HW, ((0, 0), (0, 0), (3, 3), (3, 3)))
    gate_BHW = np.empty((x_BCHW.shape[0], *x_BCHW.shape[2:]))
    for i in range(gate_BHW.shape[1]):
        for j in range(gate_BHW.shape[2]):
            gate_BHW[:, i, j] = (padded[:, :, i : i + 7, j : j + 7] * kernel_277).sum(axis=(1, 2, 3)) + bias
    return x_BCHW * sigmoid(gate_BHW)[:, None]


def classifier(x_BC, w, num_branches):
    y_BD = x_BC @ w["skip.weight"].T + w["skip.bias"]
    for b in range(num_branches):
        z = x_BC @ w[f"branches.{b}.0.weight"].T + w[f"branches.{b}.0.bias"]
        z = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + 1e-5)
        z = z * w[f"branches.{b}.1.weight"] + w[f"branches.{b}.1.bias"]
        z = z * (1 + np.vectorize(erf)(z / np.sqrt(2))) / 2
        y_BD = y_BD + z @ w[f"branches.{b}.4.weight"].T
    return y_BD


@SOME
@given(SEEDS, st.integers(1, 3), st.sampled_from([4, 16, 40]), st.integers(1, 9), st.integers(1, 9))
def test_channel_attention_equals_its_equation(seed, b, c, h, w):
    module, x_BCHW = randomised(ChannelAttention(c), seed), doubles(b, c, h, w, seed=seed + 1)
    np.testing.assert_allclose(module(x_BCHW).detach(), channel_attention(x_BCHW.numpy(), arrays(module)), **EXACT)


@SOME
@given(SEEDS, st.integers(1, 3), st.sampled_from([1, 5, 16]), st.integers(1, 9), st.integers(1, 9))
def test_spatial_attention_equals_its_equation(seed, b, c, h, w):
    module, x_BCHW = randomised(SpatialAttention(), seed), doubles(b, c, h, w, seed=seed + 1)
    np.testing.assert_allclose(module(x_BCHW).detach(), spatial_attention(x_BCHW.numpy(), arrays(module)), **EXACT)


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_cascaded_attention_is_channel_then_spatial_then_the_residual(channel, spatial, residual):
    module = randomised(CascadedAttention(32, channel=channel, spatial=spatial, residual=residual), 3)
    x_BCHW = doubles(2, 32, 5, 4)
    expected, w = x_BCHW.numpy(), arrays(module)
    if channel:
        expected = channel_attention(expected, w, "channel.")
    if spatial:
        expected = spatial_attention(expected, w, "spatial.")
    if residual and (channel or spatial):
        expected = x_BCHW.numpy() + expected
    np.testing.assert_allclose(module(x_BCHW).detach(), expected, **EXACT)


def test_channel_attention_reduces_by_sixteen_and_keeps_one_hidden_unit():
    assert ChannelAttention(2176).mlp[0].weight.shape == (136, 2176)
    assert ChannelAttention(7).mlp[0].weight.shape == (1, 7)


@SOME
@given(SEEDS, st.integers(1, 4), st.sampled_from([(), (8,), (16, 8, 4)]))
def test_multiscale_classifier_equals_its_equation(seed, b, widths):
    module, x_BC = randomised(MultiscaleClassifier(12, 6, widths, dropout=0.5), seed), doubles(b, 12, seed=seed + 1)
    np.testing.assert_allclose(module(x_BC).detach(), classifier(x_BC.numpy(), arrays(module), len(widths)), **EXACT)


def test_dropout_of_the_classifier_acts_in_training_only():
    module, x_BC = MultiscaleClassifier(12, 6, (16, 8), dropout=0.5), torch.ones(1, 12)
    assert torch.equal(module.eval()(x_BC), module(x_BC))
    assert not torch.equal(module.train()(x_BC), module(x_BC))


def test_each_head_is_a_linear_map_of_the_same_features():
    module, x_BD = randomised(TaskHeads(5, {"subtype": 4, "margin": 3}), 1), doubles(2, 5)
    found = module(x_BD)
    assert list(found) == ["subtype", "margin"]
    for task, logits in found.items():
        w = arrays(module.heads[task])
        np.testing.assert_allclose(logits.detach(), x_BD.numpy() @ w["weight"].T + w["bias"], **EXACT)


# ---- the branches


def test_vit_tokens_fold_back_to_the_map_row_by_row():
    branch = Branch("test_vit", 64).eval()
    x_B1HW = images(2, 64)
    with torch.no_grad():
        tokens_BTC, map_BCHW = branch.net.forward_features(branch.normalise(x_B1HW)), branch(x_B1HW)
    assert map_BCHW.shape == (2, 64, 4, 4)
    for i in range(4):
        for j in range(4):
            assert torch.equal(map_BCHW[:, :, i, j], tokens_BTC[:, 1 + 4 * i + j])  # token 0 is the class token


def test_a_patch_of_the_image_lands_at_its_place_in_the_vit_map():
    branch = Branch("test_vit", 64).eval()
    branch.net.blocks = nn.Sequential()  # without attention a token knows its own patch only
    with torch.no_grad():
        plain = branch(torch.zeros(1, 1, 64, 64))
        for i, j in [(0, 0), (0, 3), (2, 1), (3, 0)]:
            spotted = torch.zeros(1, 1, 64, 64)
            spotted[:, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16] = 0.7
            changed = (branch(spotted) - plain).abs().sum(dim=(0, 1)) > 1e-4
            assert changed.nonzero().tolist() == [[i, j]]


@pytest.mark.parametrize(
    "make", [lambda: Branch("test_efficientnet", 32), lambda: Branch("test_vit", 32)], ids=["efficientnet", "vit"]
)
def test_a_branch_normalises_grey_images_as_it_was_pretrained(make):
    branch = make()
    config = branch.net.default_cfg
    x_B1HW = images(2, 32)
    expected = (x_B1HW.numpy() - np.reshape(config["mean"], (3, 1, 1))) / np.reshape(config["std"], (3, 1, 1))
    np.testing.assert_allclose(branch.normalise(x_B1HW), expected, rtol=1e-5, atol=1e-6)
    assert not {"mean", "std"} & set(branch.state_dict())


def test_the_fused_map_is_the_efficientnet_map_beside_the_pooled_vit_map():
    network = build_network(study(image_size=64)).eval()
    x_B1HW = images(2, 64)
    with torch.no_grad():
        fused, left, right = network.forward_features(x_B1HW), network.efficientnet(x_B1HW), network.vit(x_B1HW)
    assert (left.shape, right.shape, fused.shape) == ((2, 256, 2, 2), (2, 64, 4, 4), (2, 320, 2, 2))
    pooled = right.numpy().reshape(2, 64, 2, 2, 2, 2).mean(axis=(3, 5))
    np.testing.assert_array_equal(fused[:, :256], left)
    np.testing.assert_allclose(fused[:, 256:], pooled, rtol=1e-5, atol=1e-6)


def test_the_forward_pass_is_map_attention_mean_classifier_heads():
    network = randomised_head(build_network(study(image_size=64))).eval()
    x_B1HW = images(2, 64)
    with torch.no_grad():
        found, fused = network(x_B1HW), network.forward_features(x_B1HW).numpy().astype(np.float64)
    w = arrays(network.attention)
    attended = fused + spatial_attention(channel_attention(fused, w, "channel."), w, "spatial.")
    features = classifier(attended.mean(axis=(2, 3)), arrays(network.classifier), 3)
    for task, logits in found.items():
        head = arrays(network.heads.heads[task])
        np.testing.assert_allclose(logits, features @ head["weight"].T + head["bias"], rtol=1e-4, atol=1e-4)


def randomised_head(network):
    """LayerNorm and biases start at one and zero: drawn anew, as training would leave them."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in (network.attention, network.classifier, network.heads):
            for parameter in part.parameters():
                if parameter.ndim == 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=random))
    return network


# ---- profiles and switches


@pytest.mark.parametrize(
    ("profile", "size", "channels", "side", "millions"),
    [("csasn-b2-vitb", 224, 1408 + 768, 7, 94.7), ("csasn-lite", 96, 1280 + 192, 3, 9.6), ("csasn-test", 64, 256 + 64, 2, 0.5)],
)
def test_profile_has_its_size_its_map_and_its_heads(profile, size, channels, side, millions):
    chosen = study(profile=profile, image_size=None)
    assert image_size(chosen.model) == profile_of(chosen.model).image_size == size
    network = build_network(chosen).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(millions * 1e6, abs=1e5)
    seen = []
    network.attention.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        logits = network(images(1, size))
    assert seen == [(1, channels, side, side)]
    assert {task: tuple(values.shape) for task, values in logits.items()} == {
        "subtype": (1, 4),
        "malignancy": (1, 2),
        "margin": (1, 3),
    }
    assert all(bool(values.isfinite().all()) for values in logits.values())


@pytest.mark.parametrize("size", [32, 48, 80])
def test_other_image_sizes_fit(size):
    network = build_network(study(image_size=size)).eval()
    with torch.no_grad():
        assert network(images(2, size))["subtype"].shape == (2, 4)


CHANNELS = {"efficientnet": 64, "vit": 256}
PREFIXES = {
    "efficientnet": "efficientnet.",
    "vit": "vit.",
    "channel_attention": "attention.channel.",
    "spatial_attention": "attention.spatial.",
    "multiscale": "classifier.branches.",
}


@pytest.mark.parametrize(
    "off",
    [(switch,) for switch in SWITCHES]
    + [("channel_attention", "spatial_attention"), ("channel_attention", "spatial_attention", "attention_residual", "multiscale")],
    ids="+".join,
)
def test_a_switched_off_part_is_absent_and_the_rest_trains(off):
    network = build_network(study(image_size=64, dropout=0.0, **dict.fromkeys(off, False))).train()
    names = list(dict(network.named_parameters()))
    for switch, prefix in PREFIXES.items():
        assert any(name.startswith(prefix) for name in names) == (switch not in off)
    logits = network(images(2, 64))
    assert {task: values.shape[1] for task, values in logits.items()} == {"subtype": 4, "malignancy": 2, "margin": 3}
    sum(values.square().mean() for values in logits.values()).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    assert network.classifier.skip.in_features == CHANNELS.get(off[0], 320)


def test_plain_concatenation_is_a_linear_map_of_the_mean_fused_features():
    off = ("channel_attention", "spatial_attention", "multiscale")
    network = build_network(study(image_size=64, **dict.fromkeys(off, False))).eval()
    with torch.no_grad():
        found = network(images(2, 64))["subtype"]
        fused = network.forward_features(images(2, 64)).mean(dim=(2, 3))
        expected = network.heads.heads["subtype"](F.linear(fused, network.classifier.skip.weight, network.classifier.skip.bias))
    torch.testing.assert_close(found, expected)


def test_the_residual_of_attention_can_be_switched_off():
    with_residual, without = (build_network(study(attention_residual=on)).eval() for on in (True, False))
    x_BCHW = torch.randn(1, 320, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(with_residual.attention(x_BCHW) - x_BCHW, without.attention(x_BCHW))


# ---- seeds and frozen parameters


def test_equal_seeds_give_equal_weights_and_another_seed_gives_others():
    one, again, other = (build_network(study(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    for name in ("efficientnet.net.conv_stem.weight", "vit.net.pos_embed", "classifier.skip.weight", "heads.heads.margin.weight"):
        assert not torch.equal(one[name], other[name])


def test_weights_do_not_depend_on_the_state_of_torchs_generator_nor_change_it():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = build_network(study()).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    second = build_network(study()).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_position_embedding_and_patch_projection_are_frozen_where_the_vit_is_pretrained():
    pretrained = {"source": "file", "path": "vit.safetensors", "sha256": "0" * 64}
    network = build_network(study(initial_weights={"vit": pretrained}))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"vit.net.pos_embed", "vit.net.patch_embed.proj.weight", "vit.net.patch_embed.proj.bias"}


@pytest.mark.parametrize("weights", [{}, {"efficientnet": {"source": "hub"}}], ids=["none", "efficientnet"])
def test_nothing_is_frozen_where_the_vit_is_random(weights):
    assert all(parameter.requires_grad for parameter in build_network(study(initial_weights=weights)).parameters())
