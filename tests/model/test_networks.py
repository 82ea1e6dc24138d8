"""Any two networks of timm, by name: CNNs, transformers, hybrids, windows, in either place."""

import re

import pytest
import torch

from csasn.errors import ModelError
from csasn.model.backbones import Branch
from csasn.model.network import build_network
from csasn.model.profiles import NAMED_BYTES, branch_networks, profile_of
from csasn.platform.configuration import validate
from csasn.study import Study
from model_scene import images, study

FAMILIES = {  # channels and side of the map of 96 pixels
    "test_resnet": (96, 3),
    "test_convnext": (64, 3),
    "test_nfnet": (192, 3),
    "test_mambaout": (256, 3),  # channels last
    "test_maxvit": (128, 3),  # of windows, channels first
    "test_vit": (64, 6),
    "test_vit_relpos": (96, 6),  # no class token
    "deit_tiny_distilled_patch16_224": (192, 6),  # two of them
    "vit_tiny_r_s16_p8_224": (192, 3),  # a CNN before the ViT
    "mobilenetv3_small_050": (1024, 3),  # a layer between pooling and head
    "efficientvit_b0": (128, 3),  # a head that cannot do without pooling
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_any_family_is_a_map_that_knows_where_things_are(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)  # of random weights some few tell nothing of places
        branch = Branch(name, 96).eval()
    spotted = torch.zeros(1, 1, 96, 96)
    spotted[..., 70:90, 6:26] = 1.0  # below, on the left
    with torch.no_grad():
        plain, changed = branch(torch.zeros(1, 1, 96, 96)), branch(spotted)
    assert (branch.num_channels, branch.side) == FAMILIES[name]
    assert plain.shape == (1, branch.num_channels, branch.side, branch.side)
    moved_HW = (changed - plain).abs().sum(dim=(0, 1))
    assert moved_HW[-1, 0] > moved_HW[0, -1]


@pytest.mark.parametrize(("left", "right"), [("test_vit", "test_resnet"), ("test_mambaout", "test_maxvit")])
def test_any_two_networks_stand_in_either_place_and_train(left, right):
    network = build_network(study(efficientnet=left, vit=right, image_size=96, dropout=0.0)).train()
    logits = network(images(2, 96))
    sum(values.square().mean() for values in logits.values()).backward()
    for branch in (network.efficientnet, network.vit):
        assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in branch.parameters())


def test_a_name_replaces_the_profiles_network_and_true_keeps_it():
    chosen = study(efficientnet="resnet10t", vit=True)
    assert branch_networks(chosen.model) == {"efficientnet": "resnet10t", "vit": "test_vit"}
    assert profile_of(chosen.model).weights_bytes == profile_of(study().model).weights_bytes + NAMED_BYTES
    again = validate(Study, chosen.model_dump(mode="json"), "study.yaml")
    assert again == chosen
    assert again.study_hash != study().study_hash


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("resnet18_", "timm has no network resnet18_", "did you mean resnet18"),
        ("vit_smal_patch14_dinov2", "timm has no network", "did you mean vit_small_patch14_dinov2"),
        ("zzz", "timm has no network zzz", r"see timm\.list_models\(\)"),
        ("vit_small_patch14_dinov2.mine", "timm has no weights", "it knows vit_small_patch14_dinov2 with lvd142m"),
    ],
)
def test_an_unknown_name_is_refused_where_it_is_built_with_near_ones(name, says, hint):
    with pytest.raises(ModelError, match=says) as caught:
        build_network(study(vit=name))
    assert re.match(hint, str(caught.value.hint))


@pytest.mark.parametrize(
    ("name", "size", "fits"),
    [
        ("test_vit", 50, "32 or 48 or 64 or 160"),
        ("test_maxvit", 112, "96 or 128 or 160"),
        ("eva02_tiny_patch14_224", 64, "56 or 70 or 224"),
    ],
)
def test_an_image_size_that_does_not_fit_is_refused_with_those_that_do(name, size, fits):
    with pytest.raises(ModelError, match=f"{name} gives no map of images of {size} pixels") as caught:
        build_network(study(vit=name, image_size=size))
    assert str(caught.value.hint).endswith(f": {fits}")


def test_a_network_that_gives_several_maps_of_tokens_is_refused():
    with pytest.raises(ModelError, match="crossvit_tiny_240 gives no map"):
        Branch("crossvit_tiny_240", 240)


def test_a_network_with_other_batch_normalisation_is_refused():
    with pytest.raises(ModelError, match="levit_128s has batch normalisation other than of maps"):
        build_network(study(vit="levit_128s", image_size=96))


def test_a_network_larger_than_its_messages_is_refused():
    with (
        torch.device("meta"),
        pytest.raises(ModelError, match="vit_large_patch16_224 has 1156 MiB of weights, expected at most 400"),
    ):
        build_network(study(vit="vit_large_patch16_224"))


def test_positions_and_patches_are_frozen_where_a_pretrained_vit_stands_in_the_first_place():
    network = build_network(study(efficientnet="test_vit", initial_weights={"efficientnet": {"source": "hub"}}))
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {f"efficientnet.net.{name}" for name in ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")}
