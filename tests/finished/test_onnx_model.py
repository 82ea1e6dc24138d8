"""csasn/finished/onnx.py: ONNX answers as torch does, and files that were changed, or are another model's, are refused."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from command_line import run_quietly
from csasn.errors import ConfigurationError, ModelError
from csasn.finished.description import DESCRIPTION, FILES, GRAPH, GRAPH_WEIGHTS, read_description, write_description
from csasn.finished.onnx import OnnxModel, export_onnx, load_onnx, measure_parity
from csasn.finished.prediction import load_classifier
from csasn.finished.weights import load_model, predict_case, save_model
from csasn.model.network import build_network
from csasn.model.profiles import image_size
from csasn.model.state import normalisation_layers
from csasn.phantom.probes import draw_probes, probe_batches
from csasn.platform.configuration import validate
from csasn.platform.storage import file_sha256
from csasn.study import Study

pytestmark = pytest.mark.xdist_group("onnx")  # what its tests share is made once, not by each process

CLASSES = ("benign", "PTC", "FTC")
ADJUSTMENT = np.log([0.7, 0.2, 0.1]) / 2
NUM_FLIPS = 100
GROUP = {"federation": {"sites": ["centerA"], "batchnorm": "group"}}
SINGLE = {
    "efficientnet alone": {"profile": "csasn-test", "image_size": 32, "vit": False},
    "vit alone": {"profile": "csasn-test", "image_size": 48, "efficientnet": False},
    "both sides": {"profile": "csasn-test", "image_size": 32, "test_flip": True},
}


def make_study(**changes):
    values = {
        "name": "small",
        "classes": list(CLASSES),
        "malignant": ["PTC", "FTC"],
        "tasks": {"subtype": {}, "malignancy": {}, "margin": {"values": ["smooth", "ill-defined", "irregular", "lobulated"]}},
        "model": {"profile": "csasn-test", "image_size": 32},
        "federation": {"sites": ["centerA"]},
        **changes,
    }
    return validate(Study, values, "study.yaml")


def network_of(study):
    """A network of random weights with statistics measured on pictures of the phantom, as after training.

    Where statistics do not fit weights and images, rounding grows from layer to layer until torch itself is far from float64 (at
    B2's size by 28 in logits of 1,600, with statistics of plain noise), and no two programs agree.
    """
    network = build_network(study)
    random = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape, generator=random))
        for _, layer in normalisation_layers(network):
            layer.momentum = 1.0
        pictures_NSS = draw_probes(np.random.default_rng(6), 16, image_size(study.model))
        network.train()(torch.from_numpy(pictures_NSS)[:, None] / 255)
    return network.eval()


def export(folder, study):
    """The model saved as safetensors, and exported from there; the parity that was found."""
    (folder / "torch").mkdir(parents=True)
    (folder / "onnx").mkdir()
    save_model(folder / "torch", study, network_of(study), 7, ADJUSTMENT, "averaged over rounds")
    network, info = load_model(folder / "torch")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parity = export_onnx(folder / "onnx", network, info, probe_batches(info.image_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training
    return parity


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export(folder, make_study())
    return folder


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A model of the same shapes with GroupNorm."""
    folder = tmp_path_factory.mktemp("grouped")
    export(folder, make_study(**GROUP))
    return folder


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the exported model, to be spoilt."""
    return shutil.copytree(exported / "onnx", tmp_path / "copy")


def pictures(num, size, seed=0):
    return draw_probes(np.random.default_rng(seed), num, size)


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_onnx(path)
    assert caught.value.hint
    return caught.value.message


# ---- parity


@pytest.mark.parametrize("model", ["exported", "grouped"])
def test_onnxruntime_answers_as_torch_does_for_batches_of_any_size(model, request):
    check_answers(request.getfixturevalue(model))


@pytest.mark.parametrize("variant", list(SINGLE))
def test_onnxruntime_answers_as_torch_does_for_a_single_branch_and_for_both_sides_of_an_image(variant, tmp_path):
    parity = export(tmp_path, make_study(model=SINGLE[variant]))
    assert 0 < parity.probability < 1e-5
    assert 0 < parity.logit < 1e-4
    check_answers(tmp_path)


def check_answers(folder):
    """Every output of both forms, by a session of the test's own."""
    network, info = load_model(folder / "torch")
    session = onnxruntime.InferenceSession(folder / "onnx" / GRAPH, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["probabilities", "logits_subtype", "logits_malignancy", "logits_margin"]
    for num in (1, 2, 5):
        images = (pictures(num, info.image_size, num)[:, None] / 255).astype(np.float32)
        found = dict(zip(names, session.run(None, {"image": images}), strict=True))
        with torch.no_grad():
            expected = {task: logits.double().numpy() for task, logits in network(torch.from_numpy(images)).items()}
        probabilities = softmax(expected["subtype"] + ADJUSTMENT, axis=1)
        assert np.abs(found["probabilities"] - probabilities).max() < 1e-5
        assert np.ptp(probabilities) > 0.01
        for task, logits in expected.items():
            np.testing.assert_allclose(found[f"logits_{task}"], logits, rtol=1e-4, atol=1e-4 * max(1, np.abs(logits).max()))


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["csasn-lite", "csasn-b2-vitb"])
def test_onnxruntime_answers_as_torch_does_at_full_size(profile, tmp_path):
    parity = export(tmp_path, make_study(model={"profile": profile}))
    print(f"{profile}: probabilities within {parity.probability:.1e}, logits within {parity.logit:.1e}")
    assert parity.probability < 1e-5
    check_answers(tmp_path)


def test_both_forms_predict_the_same_for_a_case_of_several_images(exported):
    for num in (1, 3):
        images = pictures(num, 32, seed=num)
        one, other = (predict_case(*load_classifier(exported / form), images) for form in ("torch", "onnx"))
        assert one.decision == other.decision
        assert other.probabilities == pytest.approx(one.probabilities, abs=1e-5)
        assert sum(other.probabilities.values()) == pytest.approx(1, abs=1e-12)


def test_an_export_that_answers_otherwise_is_refused(exported, tmp_path, monkeypatch):
    """The network is moved between writing the graph and comparing: by little more than is allowed."""
    network, info = load_model(exported / "torch")
    monkeypatch.setattr("csasn.finished.onnx._write_graph", lambda path, *_: copy_graph(exported, path, network))
    with pytest.raises(ModelError, match="does not answer as torch does"):
        export_onnx(tmp_path, network, info, probe_batches(info.image_size))


def copy_graph(exported, path, network):
    for name in FILES["onnx"]:
        shutil.copy(exported / "onnx" / name, path.with_name(name))
    with torch.no_grad():
        network.heads.heads["subtype"].bias[0] += 3e-4


def test_parity_is_of_the_worst_output(exported):
    network, info = load_model(exported / "torch")
    model, _ = load_onnx(exported / "onnx")
    before = measure_parity(network, model, info, probe_batches(info.image_size))
    with torch.no_grad():
        network.heads.heads["margin"].bias[3] += 0.5
    after = measure_parity(network, model, info, probe_batches(info.image_size))
    assert after.probability == before.probability < 1e-5
    assert 0.01 < after.logit < 0.51


# ---- what is written


def test_the_description_says_how_to_use_the_model(exported):
    info = read_description(exported / "onnx")
    source = read_description(exported / "torch")
    assert info.format == "onnx"
    assert info.files == {name: file_sha256(exported / "onnx" / name) for name in (GRAPH, GRAPH_WEIGHTS)}
    assert set(os.listdir(exported / "onnx")) == {DESCRIPTION, GRAPH, GRAPH_WEIGHTS}
    assert info.classes == CLASSES
    assert info.tasks["malignancy"] == ("benign", "malignant")
    assert info.weights_sha256 == source.weights_sha256
    assert (info.study_hash, info.image_size, info.statistics) == (source.study_hash, 32, "averaged over rounds")
    assert "divided by 255" in info.preprocessing


def test_the_graph_is_valid_and_tells_nothing_of_the_machine_that_made_it(exported):
    onnx.checker.check_model(exported / "onnx" / GRAPH, full_check=True)
    graph = onnx.load(exported / "onnx" / GRAPH, load_external_data=False)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {item.key for item in graph.metadata_props} == {"notice", "study_hash", "weights_sha256"}
    data = (exported / "onnx" / GRAPH).read_bytes()
    assert not any(place.encode() in data for place in (sys.prefix, str(Path(__file__).parents[2]), "site-packages", ".py"))


# ---- what is refused


@pytest.mark.parametrize("name", [DESCRIPTION, GRAPH, GRAPH_WEIGHTS])
def test_a_flipped_byte_is_refused_wherever_it_is(copy, name):
    whole = (copy / name).read_bytes()
    random = np.random.default_rng(3)
    for place in {0, len(whole) - 1, *random.integers(0, len(whole), NUM_FLIPS).tolist()}:
        spoilt = bytearray(whole)
        spoilt[place] ^= int(random.integers(1, 256))
        (copy / name).write_bytes(spoilt)
        refusal(copy)
    (copy / name).write_bytes(whole)
    load_onnx(copy)


@pytest.mark.parametrize("name", [GRAPH, GRAPH_WEIGHTS])
def test_a_missing_file_is_refused_and_named(copy, name):
    (copy / name).unlink()
    assert refusal(copy).startswith(f"cannot read {name}")


def test_another_models_graph_is_refused_though_its_hashes_and_shapes_fit(copy, grouped):
    for name in FILES["onnx"]:
        shutil.copy(grouped / "onnx" / name, copy / name)
    assert "do not belong together" in refusal(copy)
    rehash(copy)
    assert refusal(copy) == f"{GRAPH} is not the model of {DESCRIPTION}"


def rehash(folder, **changes):
    """Writes the description again, as a program would that knows how."""
    files = {name: file_sha256(folder / name) for name in FILES["onnx"]}
    write_description(folder, read_description(folder).model_copy(update={"files": files, **changes}))


def test_a_file_that_is_no_graph_is_refused_though_its_hash_fits(copy):
    (copy / GRAPH).write_bytes(b"\x08\x0anot a graph")
    rehash(copy)
    assert "not a graph that onnxruntime can run" in refusal(copy)


def test_each_form_is_loaded_by_its_own_function(exported, tmp_path):
    with pytest.raises(ModelError, match="this is no ONNX model"):
        load_onnx(exported / "torch")
    with pytest.raises(ModelError, match="for predicting alone"):
        load_model(exported / "onnx")
    assert isinstance(load_classifier(exported / "onnx" / GRAPH)[0], OnnxModel)


# ---- the command


run = partial(run_quietly, "csasn")


def test_predict_takes_both_forms_and_says_the_same(exported, tmp_path):
    for number, square in enumerate(pictures(3, 40)):
        Image.fromarray(square).save(tmp_path / f"{number}.png")
    found = {}
    for form in ("torch", "onnx"):
        done = run("predict", exported / form, tmp_path, "--json")
        assert done.returncode == 0, done.stderr
        found[form] = json.loads(done.stdout)["predictions"]
    assert len(found["torch"]) == 3
    for one, other in zip(found["torch"], found["onnx"], strict=True):
        assert (other["image"], other["decision"]) == (one["image"], one["decision"])
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-5)


def test_export_writes_onnx_and_says_how_near_it_is(exported, tmp_path):
    done = run("export", exported / "torch", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "answers as torch does: probabilities within" in done.stdout
    assert done.stderr == ""
    assert set(os.listdir(tmp_path / "out")) == {DESCRIPTION, GRAPH, GRAPH_WEIGHTS}


def test_export_as_safetensors_copies_the_model_to_the_byte(exported, tmp_path):
    done = run("export", exported / "torch", "--out", tmp_path / "out", "--format", "safetensors")
    assert done.returncode == 0, done.stderr
    for name in os.listdir(exported / "torch"):
        assert (tmp_path / "out" / name).read_bytes() == (exported / "torch" / name).read_bytes()


@pytest.mark.parametrize("packages", ["onnx onnxscript onnxruntime", "onnxruntime"])
def test_without_the_extra_the_command_says_what_to_install_and_leaves_nothing(exported, tmp_path, packages):
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({packages.split()!r})); sys.argv[0] = 'csasn'\n"
        "from csasn.commands.cli import main; main()"
    )
    command = [sys.executable, "-P", "-c", program, "export", exported / "torch", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == ConfigurationError.exit_code, done.stderr
    assert "onnxruntime" in done.stderr
    assert "pip install 'csasn-federated[export]'" in done.stderr
    assert os.listdir(tmp_path) == []


def test_an_onnx_model_cannot_be_explained_or_exported_again_and_that_is_said(exported, tmp_path):
    done = run("export", exported / "onnx", "--out", tmp_path / "out")
    assert done.returncode == 5
    assert "hint: name the folder of its model.safetensors" in done.stderr
