"""Saliency against finite differences, against timm's own attention, on networks whose answer is known, on a phantom."""

import copy
import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from csasn.errors import DataError, ModelError, StorageError
from csasn.finished.saliency import attention_layers, explain_square, gradcam, roll_out, rollout
from csasn.finished.weights import load_model, save_model
from csasn.model.network import build_network
from csasn.phantom.dataset import redraw_case, write_phantom
from csasn.phantom.saliency import saliency_in_nodule
from csasn.phantom.settings import PhantomSettings, SiteMix
from csasn.pictures.images import letterbox
from csasn.platform.configuration import validate
from csasn.site import find_site
from csasn.study import Study, read_study
from variants import SWITCHES

SIZE = 64
CLASSES = ("benign", "PTC", "FTC", "MTC")
MIXES = (SiteMix("centerA", (0.4, 0.3, 0.1, 0.2)), SiteMix("centerC", (0.4, 0.3, 0.3, 0.0)))
PHANTOM = PhantomSettings(num_cases=10, image_px=96, mixes=MIXES, num_workers=1)


def make_study(batchnorm="silo", **model):
    values = {
        "name": "small",
        "classes": list(CLASSES),
        "model": {"profile": "csasn-test", **model},
        "federation": {"sites": ["centerA"], "batchnorm": batchnorm},
    }
    return validate(Study, values, "study.yaml")


def make_network(seed=0, batchnorm="silo", **model):
    """A network whose parameters are drawn anew, so that its maps are not nearly flat."""
    network = build_network(make_study(batchnorm, **model))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.1)
    return network.eval()


def image_of(seed=0):
    return torch.rand((1, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))


# ---- Grad-CAM


@pytest.mark.parametrize("switches", [name for name in SWITCHES if SWITCHES[name].get("efficientnet", True)])
def test_gradcam_equals_its_equation_with_weights_from_finite_differences(switches):
    network = make_network(1, **SWITCHES[switches])
    expected = [finite_gradcam(copy.deepcopy(network).double(), image_of(1), index) for index in range(4)]
    assert any(cam.any() for cam in expected)
    for index, cam in enumerate(expected):
        np.testing.assert_allclose(gradcam(network, image_of(1), index), cam, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def finite_gradcam(network, image, class_index):
    """α_C is the slope of the logit as the whole channel rises by ε, over the number of positions."""
    branches = {"efficientnet": network.efficientnet, "vit": network.vit}
    maps = {name: branch(image.double()) for name, branch in branches.items() if branch}
    map_1Chw, step = maps["efficientnet"], 1e-5
    cam_hw = torch.zeros(map_1Chw.shape[2:], dtype=torch.float64)
    for channel in range(map_1Chw.shape[1]):
        values = []
        for sign in (1, -1):
            moved = map_1Chw.clone()
            moved[:, channel] += sign * step
            values.append(network.heads.heads["subtype"](behind(network, maps | {"efficientnet": moved}))[0, class_index])
        cam_hw += (values[0] - values[1]) / (2 * step) / cam_hw.numel() * map_1Chw[0, channel]
    large = F.interpolate(cam_hw.clamp(min=0)[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    return large / large.max() if large.any() else large


def behind(network, maps):
    """The features before the heads, in the precision of the maps: `Csasn.forward` leaves off at float32."""
    fused = network.forward_features(torch.zeros(1), maps)
    return network.classifier(network.attention(fused).mean(dim=(2, 3)))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.integers(0, 3))
def test_maps_lie_in_0_to_1_and_reach_1_unless_blank(seed, class_index):
    network = make_network(seed)
    for found in (gradcam(network, image_of(seed), class_index), rollout(network, image_of(seed))):
        assert found.shape == (SIZE, SIZE)
        assert found.dtype == np.float64
        assert found.min() >= 0
        assert found.max() in (0, 1)


class Brightness(nn.Module):
    """A branch that sees nothing but how bright each cell of 8 pixels is, and how dark."""

    num_channels = 2

    def forward(self, image_B1HW):
        bright = F.avg_pool2d(image_B1HW, 8)
        return torch.cat([bright, 1 - bright], dim=1)


def brightness_network():
    """Class 1 is bright, class 0 is dark: logits are ± mean brightness."""
    network = build_network(make_study(vit=False, channel_attention=False, spatial_attention=False, multiscale=False))
    network.efficientnet = Brightness()
    network.classifier.skip = nn.Linear(2, 2, bias=False)
    network.heads.heads["subtype"] = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        network.classifier.skip.weight.copy_(torch.eye(2))
        network.heads.heads["subtype"].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, -1.0], [0.0, 0.0]]))
    return network.eval()


def planted(row, column):
    image = torch.full((1, 1, SIZE, SIZE), 0.0)
    image[..., row : row + 16, column : column + 16] = 1.0
    return image


@pytest.mark.parametrize(("row", "column"), [(0, 0), (16, 40), (48, 8)])
def test_gradcam_finds_a_planted_bright_square_for_the_class_that_is_bright(row, column):
    found = gradcam(brightness_network(), planted(row, column), 1)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[row : row + 16, column : column + 16] = True
    assert found[inside].min() > 0.25  # bilinear edges
    assert found[inside].max() == 1
    assert found[inside].sum() / found.sum() > 0.6
    outside_reach = np.ones((SIZE, SIZE), bool)
    outside_reach[max(0, row - 4) : row + 20, max(0, column - 4) : column + 20] = False
    assert not found[outside_reach].any()


def test_gradcam_of_the_dark_class_looks_everywhere_but_at_the_square():
    found = gradcam(brightness_network(), planted(16, 16), 0)
    assert found[20:28, 20:28].max() == 0
    assert found[48:, 48:].min() == 1


@pytest.mark.parametrize("class_index", [2, 3])
def test_gradcam_is_blank_where_nothing_speaks_for_the_class(class_index):
    assert not gradcam(brightness_network(), planted(16, 16), class_index).any()


# ---- attention rollout


def timm_attention(network, image):
    """What timm multiplies values with when it does not fuse, from its dropout's input."""
    found = []
    for block in network.vit.net.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, output: found.append(output[0].double().mean(dim=0)))
    with torch.no_grad():
        network.vit(image)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_attention_equals_that_of_timm_when_it_is_not_fused(seed):
    network = make_network(seed)
    layers = attention_layers(network, image_of(seed))
    expected = timm_attention(network, image_of(seed))
    assert len(layers) == len(expected) == 6
    for found, other in zip(layers, expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(found.sum(dim=1), torch.ones(len(found), dtype=torch.float64))


def test_rollout_equals_an_explicit_product():
    network = make_network(2)
    product = np.eye(17)
    for layer in timm_attention(network, image_of(2)):
        product = (0.5 * layer.numpy() + 0.5 * np.eye(17)) @ product
    np.testing.assert_allclose(roll_out(attention_layers(network, image_of(2))).numpy(), product, rtol=1e-5, atol=1e-7)
    expected = product[1:, 1:].mean(axis=0).reshape(4, 4)
    large = F.interpolate(torch.tensor(expected)[None, None], (SIZE, SIZE), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(rollout(network, image_of(2)), large / large.max(), rtol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(2, 12), st.integers(0, 2**16))
def test_rows_of_a_rollout_add_up_to_1(num_layers, num_tokens, seed):
    random = torch.Generator().manual_seed(seed)
    layers = [torch.randn((num_tokens, num_tokens), dtype=torch.float64, generator=random).softmax(1) for _ in range(num_layers)]
    rolled = roll_out(layers)
    torch.testing.assert_close(rolled.sum(dim=1), torch.ones(num_tokens, dtype=torch.float64))
    assert bool((rolled >= 0).all())


def test_the_first_layer_stands_rightmost():
    """The last layer's token 0 looks at token 1 alone, which in the first looked at token 2 alone: so token 2 is seen from 0."""
    first, last = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    first[1], last[0] = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0])
    assert roll_out([first, last])[0].tolist() == [0.5, 0.25, 0.25]


def test_rollout_finds_the_patch_that_all_others_look_at():
    """Queries are one constant; the key of a patch is large where the patch is bright."""
    network = build_network(make_study(efficientnet=False)).eval()
    attention = network.vit.net.blocks[0].attn
    bright, dark = planted(16, 32), torch.zeros((1, 1, SIZE, SIZE))
    kept = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach()))
    with torch.no_grad():
        network.vit(bright), network.vit(dark)
    hook.remove()
    direction = (kept[0] - kept[1])[0, 1 + 4 * 1 + 2]  # of the patch at row 1, column 2
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.bias.zero_()
        attention.qkv.bias[0] = 1.0
        attention.qkv.weight[attention.attn_dim] = 40 * direction / direction.norm()
    found = rollout(network, bright)
    assert found[24, 40] == pytest.approx(1, abs=1e-4)
    assert np.unravel_index(found.argmax(), found.shape)[0] // 16 == 1
    assert found[56, 8] < 0.7


# ---- both


@pytest.mark.parametrize("batchnorm", ["silo", "group"])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_it_was(batchnorm, training):
    network = make_network(3, batchnorm, frozen=["vit"])
    network.train(training)
    network.attention.eval()  # flags that no single call of train() would restore
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flags = [module.training for module in network.modules()]
    grads = [parameter.requires_grad for parameter in network.parameters()]
    gradcam(network, image_of(), 1)
    rollout(network, image_of())
    explain_square(network, np.arange(SIZE * SIZE, dtype=np.uint8).reshape(SIZE, SIZE))
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert [module.training for module in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == grads
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks for module in network.modules())
    assert all(block.attn.fused_attn for block in network.vit.net.blocks)


def test_hooks_are_removed_though_the_image_does_not_fit():
    network = make_network()
    with pytest.raises((RuntimeError, AssertionError)):
        rollout(network, torch.zeros((1, 2, SIZE, SIZE)))
    assert not any(module._forward_hooks for module in network.modules())


def test_it_works_where_gradients_are_switched_off():
    network = make_network(1)
    with torch.no_grad():
        inside = gradcam(network, image_of(1), 1)
    assert np.array_equal(inside, gradcam(network, image_of(1), 1))


def test_a_branch_that_is_switched_off_is_a_clear_error_or_none():
    square = np.zeros((SIZE, SIZE), np.uint8)
    square[10:20] = 200
    no_vit, no_efficientnet = make_network(vit=False), make_network(efficientnet=False)
    with pytest.raises(ModelError, match="no ViT branch"):
        rollout(no_vit, image_of())
    with pytest.raises(ModelError, match="no EfficientNet branch"):
        gradcam(no_efficientnet, image_of(), 0)
    assert explain_square(no_vit, square).rollout is None
    assert explain_square(no_efficientnet, square).gradcam is None


# ---- the share inside the nodule


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """Two sites of ten cases, one with PNG and one with DICOM files and stacks, and a model for them."""
    folder = tmp_path_factory.mktemp("saliency") / "demo"
    write_phantom(folder, PHANTOM)
    changes = ("model={profile: csasn-test, image_size: 64}", "federation={sites: [centerA, centerC]}")
    study = read_study(folder / "study.yaml", changes)
    (folder.parent / "model").mkdir()
    save_model(folder.parent / "model", study, build_network(study), 1, np.zeros(4), "none")
    return folder


def sites_of(folder):
    return {name: find_site(name, folder=folder / "sites") for name in ("centerA", "centerC")}


def loaded(folder):
    return load_model(folder.parent / "model")


class Oracle(nn.Module):
    """A branch that knows the nodule: a map of one channel that is 1 where the mask it was given is."""

    num_channels = 1

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def forward(self, image_B1HW):
        key = (image_B1HW[0, 0] * 255).round().to(torch.uint8).numpy().tobytes()
        return self.masks[key][None, None]


def test_a_map_of_the_mask_itself_lies_inside_and_a_flat_one_gets_the_area(phantom):
    _, info = loaded(phantom)
    masks = {}
    for site in ("centerA", "centerC"):
        for number in range(1, 11):
            for view in redraw_case(PHANTOM, site, f"{site[-1]}{number:04d}").views:
                for frame in view.drawing.frames:
                    mask = torch.from_numpy(letterbox(view.drawing.mask.astype(np.uint8) * 255, SIZE) == 255).float()
                    masks[letterbox(frame, SIZE).tobytes()] = mask
    network = brightness_network()
    network.classifier.skip = nn.Linear(1, 2, bias=False)
    for known, expected in ((masks, 1.0), ({key: torch.ones_like(mask) for key, mask in masks.items()}, None)):
        network.efficientnet = Oracle(known)
        with torch.no_grad():
            network.classifier.skip.weight.copy_(torch.tensor([[1.0], [0.0]]))
        shares = saliency_in_nodule(network, info, phantom, sites_of(phantom))
        assert shares.num_blank == 0
        assert shares.rollout is None
        assert shares.gradcam == pytest.approx(expected or shares.area, abs=1e-9)
        assert 0.02 < shares.area < 0.5


def test_shares_are_of_the_test_images_of_all_sites_and_no_more_than_asked_for(phantom):
    network, info = loaded(phantom)
    seen = []
    shares = saliency_in_nodule(network, info, phantom, sites_of(phantom), advance=lambda *done: seen.append(done))
    assert 0 <= shares.gradcam <= 1
    assert 0 <= shares.rollout <= 1
    assert shares.num_images > 6
    assert seen == [(number, shares.num_images) for number in range(1, shares.num_images + 1)]
    assert saliency_in_nodule(network, info, phantom, sites_of(phantom), max_images=3).num_images == 3
    one = {"centerC": sites_of(phantom)["centerC"]}
    assert saliency_in_nodule(network, info, phantom, one).num_images < shares.num_images


def test_a_model_without_a_branch_has_no_share_of_it(phantom):
    _, info = loaded(phantom)
    shares = saliency_in_nodule(make_network(vit=False), info, phantom, sites_of(phantom), max_images=2)
    assert shares.rollout is None
    shares = saliency_in_nodule(make_network(efficientnet=False), info, phantom, sites_of(phantom), max_images=2)
    assert (shares.gradcam, shares.num_blank) == (None, 0)


def test_images_of_another_phantom_are_refused_by_row_and_never_named(phantom, tmp_path):
    network, info = loaded(phantom)
    write_phantom(tmp_path / "other", replace(PHANTOM, seed=2))
    with pytest.raises(DataError, match=r"^manifest.csv row \d+, column image: is not the picture that the phantom") as caught:
        saliency_in_nodule(network, info, tmp_path / "other", sites_of(phantom))
    assert not any(name in str(caught.value) for name in ("A00", "C00", ".png", ".dcm"))
    with pytest.raises(StorageError, match="not the record of a phantom"):
        saliency_in_nodule(network, info, tmp_path, sites_of(phantom))


def test_cases_that_the_phantom_does_not_have_are_refused(phantom, tmp_path):
    network, info = loaded(phantom)
    folder = shutil.copytree(phantom, tmp_path / "demo")
    manifest = folder / "centerC/manifest.csv"
    manifest.write_text(manifest.read_text().replace("C00", "X00").replace("X0001-1.png", "C0001-1.png"))
    for image in (folder / "centerC/images").iterdir():
        image.rename(image.with_name(image.name.replace("C00", "X00") if image.name != "C0001-1.png" else image.name))
    with pytest.raises(DataError, match="is not the picture that the phantom"):
        saliency_in_nodule(network, info, folder, {"centerC": find_site("centerC", folder=folder / "sites")})


def test_without_a_test_image_there_is_nothing_to_measure(phantom, tmp_path):
    network, info = loaded(phantom)
    folder = shutil.copytree(phantom, tmp_path / "demo")
    with (folder / "centerC/manifest.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    with (folder / "centerC/manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([[*row, "split" if number == 0 else "train"] for number, row in enumerate(rows)])
    with pytest.raises(DataError, match="no test image"):
        saliency_in_nodule(network, info, folder, {"centerC": find_site("centerC", folder=folder / "sites")})
