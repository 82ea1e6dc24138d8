"""csasn/model/initial_weights.py: from the package, from a file and from the hub; what does not fit is refused."""

import hashlib
import os

import huggingface_hub
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from csasn.errors import ModelError
from csasn.model.initial_weights import initial_network
from csasn.model.network import build_network
from csasn.model.onnx_tensors import read_tensors
from csasn.model.package_tensors import rename_dinov2, rename_lite0
from csasn.model.packages import LITE0, VIT_SMALL
from csasn.model.timm_import import import_timm
from csasn.platform.configuration import validate
from csasn.study import Study

timm = import_timm()


def study(profile="csasn-test", image_size=32, **branches):
    values = {
        "name": "small",
        "classes": ["benign", "PTC"],
        "model": {"profile": profile, "image_size": image_size, "initial_weights": branches},
        "federation": {"sites": ["centerA"]},
    }
    return validate(Study, values, "study.yaml")


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def export(path, tensors):
    """The file's entry of a study, as an operator would export it."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return {"source": "file", "path": str(path), "sha256": sha256_of(path)}


def refusal(chosen):
    with pytest.raises(ModelError) as caught:
        initial_network(chosen)
    return caught.value


# ---- the package


def package_path():
    assert LITE0.path is not None
    return LITE0.path


@pytest.fixture(scope="module")
def package_tensors():
    return torch.load(str(package_path()), map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def lite_network():
    return initial_network(study("csasn-lite", efficientnet={"source": "package", "sha256": sha256_of(package_path())}))


def test_the_package_fits_timms_model_to_the_last_tensor(package_tensors):
    expected = {name: tensor.shape for name, tensor in timm.create_model("tf_efficientnet_lite0").state_dict().items()}
    renamed = rename_lite0(package_tensors)
    assert {name: tensor.shape for name, tensor in renamed.items()} == expected
    assert len(renamed) == len(package_tensors)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_var", "bn1.running_var"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.running_mean", "blocks.0.0.bn2.running_mean"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn0.bias", "blocks.1.1.bn1.bias"),
        ("_blocks.4._bn1.weight", "blocks.2.1.bn2.weight"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
        ("_blocks.15._bn2.running_var", "blocks.6.0.bn3.running_var"),
        ("_conv_head.weight", "conv_head.weight"),
        ("_bn1.weight", "bn2.weight"),
    ],
)
def test_a_tensor_of_the_package_is_found_at_its_place_in_the_branch(theirs, ours, package_tensors, lite_network):
    loaded = lite_network.efficientnet.net.state_dict()[ours]
    assert loaded.numel() > 1
    assert torch.equal(loaded, package_tensors[theirs])


def test_the_package_reaches_every_tensor_of_the_branch_and_none_beyond_it(lite_network, package_tensors):
    plain = build_network(study("csasn-lite")).state_dict()
    own = lite_network.state_dict()
    renamed = rename_lite0(package_tensors)
    for name, tensor in own.items():
        if name.startswith("efficientnet.net."):
            assert torch.equal(tensor, renamed[name.removeprefix("efficientnet.net.")]), name
        else:
            assert torch.equal(tensor, plain[name]), name


def test_the_loaded_branch_computes_what_timms_model_does(lite_network, package_tensors):
    reference = timm.create_model("tf_efficientnet_lite0")
    reference.load_state_dict(rename_lite0(package_tensors), strict=True)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    branch = lite_network.eval().efficientnet
    with torch.no_grad():
        expected = reference.eval().forward_features(((image - 0.5) / 0.5).expand(-1, 3, -1, -1))
        torch.testing.assert_close(branch(image), expected, rtol=1e-4, atol=1e-4)


def test_a_package_with_another_sha256_is_refused_and_both_are_named():
    expected = "0" * 64
    error = refusal(study("csasn-lite", efficientnet={"source": "package", "sha256": expected}))
    assert expected in error.message
    assert sha256_of(package_path()) in error.message
    assert error.hint


@pytest.mark.parametrize(("branch", "name"), [("efficientnet", "test_efficientnet"), ("vit", "test_vit")])
def test_a_branch_for_which_there_is_no_package_is_refused(branch, name):
    error = refusal(study(**{branch: {"source": "package"}}))
    assert error.message == f"no package ships weights of {name}"
    assert "source: file" in error.hint


# ---- the ViT of a package, in an ONNX graph


def test_the_tensors_of_an_onnx_file_are_those_that_the_package_onnx_reads():
    tensors = read_tensors(VIT_SMALL.path)
    graph = onnx.load(VIT_SMALL.path).graph
    takers = {name: node.name for node in graph.node for name in node.input}
    expected = {t.name if not t.name.startswith("onnx::") else takers[t.name]: t for t in graph.initializer}
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor.numpy(), onnx.numpy_helper.to_array(expected[name]))


def test_the_vit_of_the_package_computes_what_its_graph_does():
    """Positions are resampled as the graph does it, bicubic without antialiasing; timm's own way differs by 2 % of the norm."""
    renamed = rename_dinov2(read_tensors(VIT_SMALL.path))
    grid = renamed["pos_embed"][:, 1:].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(16, 16), mode="bicubic").permute(0, 2, 3, 1).reshape(1, 256, 384)
    net = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=224).eval()
    net.load_state_dict(renamed | {"pos_embed": torch.cat([renamed["pos_embed"][:, :1], grid], dim=1)}, strict=True)
    model = onnx.load(VIT_SMALL.path)
    (last,) = (node.output[0] for node in model.graph.node if "backbone.layernorm.bias" in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = net.forward_features(image).numpy()
    np.testing.assert_allclose(found, session.run([last], {"input_image": image.numpy()})[0], atol=1e-4)


def test_the_package_reaches_the_vit_and_freezes_what_shows_the_image():
    network = initial_network(study("csasn-small", vit={"source": "package"}, image_size=112))
    own, renamed = network.vit.net.state_dict(), rename_dinov2(read_tensors(VIT_SMALL.path))
    assert own.keys() == renamed.keys()
    assert [name for name in own if not torch.equal(own[name], renamed[name])] == ["pos_embed"]  # of another grid
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"vit.net.pos_embed", "vit.net.patch_embed.proj.weight", "vit.net.patch_embed.proj.bias"}


# ---- a file


def test_without_initial_weights_the_network_is_the_random_one():
    one, other = initial_network(study()).state_dict(), build_network(study()).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("num_classes", [0, 1000], ids=["without-head", "with-head"])
def test_an_efficientnet_file_loads_whatever_its_head(num_classes, tmp_path):
    source = timm.create_model("test_efficientnet", num_classes=num_classes).state_dict()
    chosen = study(efficientnet=export(tmp_path / "net.safetensors", source))
    own, plain = initial_network(chosen).state_dict(), build_network(chosen).state_dict()
    for name, tensor in own.items():
        if name.startswith("efficientnet."):
            assert torch.equal(tensor, source[name.removeprefix("efficientnet.net.")]), name
        else:
            assert torch.equal(tensor, plain[name]), name


def test_both_branches_load_from_their_own_files(tmp_path):
    left = timm.create_model("test_efficientnet").state_dict()
    right = timm.create_model("test_vit", img_size=32).state_dict()
    network = initial_network(study(efficientnet=export(tmp_path / "a", left), vit=export(tmp_path / "b", right)))
    assert torch.equal(network.efficientnet.net.conv_stem.weight, left["conv_stem.weight"])
    for name, tensor in network.vit.net.state_dict().items():
        assert torch.equal(tensor, right[name]), name


def test_a_vit_file_of_another_image_size_loads_with_its_positions_resampled(tmp_path):
    source = timm.create_model("test_vit").state_dict()  # 160 pixels: a grid of 10 x 10
    ramp = torch.arange(10.0).repeat_interleave(10).reshape(1, 100, 1).expand(1, 100, 64)  # grows from row to row
    source["pos_embed"] = torch.cat([torch.full((1, 1, 64), -3.0), ramp], dim=1)
    network = initial_network(study(vit=export(tmp_path / "vit.safetensors", source)))
    own = network.vit.net.state_dict()
    assert own["pos_embed"].shape == (1, 5, 64)
    assert torch.equal(own["pos_embed"][:, 0], source["pos_embed"][:, 0])
    grid_22C = own["pos_embed"][0, 1:].reshape(2, 2, 64)
    torch.testing.assert_close(grid_22C[:, 0], grid_22C[:, 1])
    assert bool((grid_22C[1] - grid_22C[0] > 3).all())
    assert grid_22C.mean().item() == pytest.approx(4.5, abs=0.1)
    for name in own.keys() - {"pos_embed"}:
        assert torch.equal(own[name], source[name]), name


def test_a_file_with_another_sha256_is_refused_and_both_are_named(tmp_path):
    entry = export(tmp_path / "net.safetensors", timm.create_model("test_efficientnet").state_dict())
    error = refusal(study(efficientnet=entry | {"sha256": "a" * 64}))
    assert error.message == f"net.safetensors has SHA-256 {entry['sha256']}, expected {'a' * 64}"
    assert error.hint


@pytest.mark.parametrize(
    ("branch", "other"),
    [
        ("efficientnet", "test_vit"),
        ("vit", "test_efficientnet"),
        ("vit", "vit_tiny_patch16_224"),
        ("efficientnet", "test_efficientnet_gn"),
    ],
)
def test_a_file_of_another_architecture_is_refused(branch, other, tmp_path):
    error = refusal(study(**{branch: export(tmp_path / "net.safetensors", timm.create_model(other).state_dict())}))
    assert error.message.startswith(f"initial weights do not fit test_{branch}: ")
    assert error.hint == "is it the same model?"


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_a_file_with_one_tensor_amiss_is_refused_and_the_tensor_named(change, tmp_path):
    tensors = timm.create_model("test_efficientnet").state_dict()
    if change == "missing":
        name = "bn1.running_mean"
        del tensors[name]
    elif change == "extra":
        name = "bn1.another"
        tensors[name] = torch.zeros(2)
    else:
        name = "conv_stem.weight"
        tensors[name] = tensors[name][..., :2]
    error = refusal(study(efficientnet=export(tmp_path / "net.safetensors", tensors)))
    assert error.message == f"initial weights do not fit test_efficientnet: 1 tensors differ, first {name}"


def test_position_embeddings_that_fill_no_square_are_refused(tmp_path):
    tensors = timm.create_model("test_vit").state_dict()
    tensors["pos_embed"] = tensors["pos_embed"][:, :-1]
    assert "first pos_embed" in refusal(study(vit=export(tmp_path / "vit.safetensors", tensors))).message


def test_a_missing_file_is_refused(tmp_path):
    error = refusal(study(vit={"source": "file", "path": str(tmp_path / "absent.safetensors"), "sha256": "0" * 64}))
    assert "absent.safetensors" in error.message
    assert error.hint == "check model.initial_weights"


def test_a_file_that_is_not_safetensors_is_refused_without_the_librarys_text(tmp_path):
    path = tmp_path / "net.safetensors"
    torch.save(timm.create_model("test_efficientnet").state_dict(), path)
    error = refusal(study(efficientnet={"source": "file", "path": str(path), "sha256": sha256_of(path)}))
    assert (error.message, error.hint) == ("net.safetensors is not a safetensors file", "export the weights again")


# ---- the hub


@pytest.mark.parametrize(("branch", "name"), [("efficientnet", "test_efficientnet"), ("vit", "test_vit")])
def test_without_a_hub_the_error_names_the_model_and_what_to_use_instead(branch, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read from the environment at import only
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", os.fspath(tmp_path))
    error = refusal(study(**{branch: {"source": "hub"}}))
    assert error.message == f"cannot fetch {name} from the hub: LocalEntryNotFoundError"
    assert error.hint == "use source: file, or package"
