"""csasn/finished/weights.py: what is saved is loaded again bit for bit, and a file that was changed is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from csasn.errors import ModelError
from csasn.finished.description import read_description, write_description
from csasn.finished.weights import DESCRIPTION, NOTICE, WEIGHTS, load_model, predict_case, save_model
from csasn.model.network import build_network
from csasn.model.state import normalisation_layers
from csasn.platform.configuration import validate
from csasn.study import Study

SOME = settings(deadline=None, max_examples=20)
CLASSES = ("benign", "PTC", "FTC")
ADJUSTMENT = np.log([0.7, 0.2, 0.1]) / 2


def make_study(**changes):
    values = {
        "name": "small",
        "classes": list(CLASSES),
        "malignant": ["PTC", "FTC"],
        "tasks": {"subtype": {}, "margin": {"values": ["smooth", "irregular"]}},
        "model": {"profile": "csasn-test", "image_size": 32},
        "federation": {"sites": ["centerA"]},
        **changes,
    }
    return validate(Study, values, "study.yaml")


def network_of(study):
    """A network whose every value, running statistics included, is drawn anew."""
    network = build_network(study)
    random = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)
        for _, layer in normalisation_layers(network):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=random) * 0.1)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=random) + 0.5)
            layer.num_batches_tracked.fill_(17)
    return network.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    study = make_study()
    network = network_of(study)
    save_model(folder, study, network, 7, ADJUSTMENT, "averaged over rounds")
    return folder, study, network


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of the saved model, to be spoilt."""
    return shutil.copytree(saved[0], tmp_path / "copy")


def refusal(path):
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.hint
    return caught.value.message


def pictures(num=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, 32, 32)).astype(np.uint8)


# ---- round trip


def test_a_loaded_model_gives_the_same_logits_and_holds_the_same_state(saved):
    folder, study, network = saved
    loaded, info = load_model(folder)
    assert info.study == study
    assert (info.round, info.image_size, info.statistics, info.notice) == (7, 32, "averaged over rounds", NOTICE)
    assert info.adjustment == tuple(ADJUSTMENT.tolist())
    assert not loaded.training
    images = torch.from_numpy(pictures())[:, None].float() / 255
    with torch.no_grad():
        expected, found = network(images), loaded(images)
    assert list(found) == ["subtype", "margin"]
    assert all(torch.equal(found[task], expected[task]) for task in expected)
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("name", ["", WEIGHTS, DESCRIPTION])
def test_the_folder_or_either_file_may_be_named(saved, name):
    assert load_model(saved[0] / name)[1].round == 7


@pytest.mark.parametrize("rate", [1e-5, 3e-05, 1e-7, 2.5e-6, 0.001])
def test_any_learning_rate_survives_the_way_through_the_description(rate, tmp_path):
    """JSON writes 1e-05, which YAML reads as text."""
    study = make_study(optimiser={"learning_rate": rate})
    save_model(tmp_path, study, build_network(study), 1, np.array([0.0, -1e-07, -1e-05]), "none")
    _, info = load_model(tmp_path)
    assert info.study.optimiser.learning_rate == rate
    assert info.adjustment == (0.0, -1e-07, -1e-05)


def test_initial_weights_are_not_needed_to_load_a_finished_model(tmp_path):
    absent = {"source": "file", "path": str(tmp_path / "absent"), "sha256": "0" * 64}
    model = {"profile": "csasn-test", "image_size": 32, "initial_weights": {"vit": absent}}
    study = make_study(model=model)
    network = network_of(study)
    save_model(tmp_path, study, network, 1, ADJUSTMENT, "none")
    loaded, _ = load_model(tmp_path)
    assert torch.equal(loaded.vit.net.pos_embed, network.vit.net.pos_embed)


def test_the_description_is_readable_and_says_that_it_is_for_research_only(saved):
    description = json.loads((saved[0] / DESCRIPTION).read_text(encoding="utf-8"))
    assert description["notice"].startswith("for research only")
    assert description["study"]["classes"] == list(CLASSES)
    assert description["study_hash"] == saved[1].study_hash


# ---- changed files


@SOME
@given(st.data())
def test_a_flipped_bit_of_the_weights_is_refused(saved, tmp_path_factory, data):
    folder = shutil.copytree(saved[0], tmp_path_factory.mktemp("flipped") / "copy")
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[data.draw(st.integers(0, len(weights) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / WEIGHTS).write_bytes(weights)
    assert "do not belong together" in refusal(folder)


def test_weights_cut_short_are_refused(copy):
    (copy / WEIGHTS).write_bytes((copy / WEIGHTS).read_bytes()[:-1])
    assert "do not belong together" in refusal(copy)


def edit(folder, **changes):
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")) | changes
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {"round": 8},
        {"adjustment": [0.0, 0.0, 0.0]},
        {"adjustment": [0.0]},
        {"image_size": 64},
        {"notice": "cleared for diagnosis"},
        {"statistics": "exact"},
        {"code_version": "9.9.9"},
        {"study_hash": "0" * 64},
        {"description_sha256": "0" * 64},
        {"description_sha256": ""},
        {"weights_sha256": "0" * 64},
        {"preprocessing": "histogram equalisation"},
        {"format": "onnx"},
    ],
    ids=lambda changes: "-".join(f"{key}" for key in changes),
)
def test_an_edited_description_is_refused(copy, changes):
    edit(copy, **changes)
    assert refusal(copy) == f"{DESCRIPTION} was changed after it was written"


def test_an_edited_study_is_refused(copy):
    study = json.loads((copy / DESCRIPTION).read_text(encoding="utf-8"))["study"]
    edit(copy, study=study | {"classes": ["PTC", "benign", "FTC"]})
    assert refusal(copy) == f"{DESCRIPTION} was changed after it was written"


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"format_version": 1}, "format_version"),
        ({"round": "seven"}, "round"),
        ({"colour": "grey"}, "colour is not a known key"),
        ({"adjustment": [0.0, float("nan"), 0.0]}, "adjustment"),
    ],
)
def test_a_description_of_another_form_is_refused_and_the_key_named(copy, changes, phrase):
    edit(copy, **changes)
    assert phrase in refusal(copy)


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b'{"round": 1}', b"[" * 100_000])
def test_a_description_that_is_no_description_is_refused(copy, text):
    (copy / DESCRIPTION).write_bytes(text)
    assert DESCRIPTION in refusal(copy)


def test_a_reformatted_description_is_refused(copy):
    """It has one form, so that a changed byte is noticed without asking what it means: 1E-05 is the number 1e-05."""
    text = (copy / DESCRIPTION).read_text(encoding="utf-8")
    for changed in (
        text.replace(": ", ":"),
        text.rstrip("\n"),
        text + "\n",
        text.replace("0.02", "0.020"),
        text.replace("benign", "\\u0062enign"),
    ):
        assert changed != text
        (copy / DESCRIPTION).write_text(changed, encoding="utf-8")
        assert refusal(copy) == f"{DESCRIPTION} was changed after it was written"


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION])
def test_a_flipped_byte_is_refused_wherever_it_is(copy, name):
    whole = (copy / name).read_bytes()
    random = np.random.default_rng(3)
    for place in {0, len(whole) - 1, *random.integers(0, len(whole), 100).tolist()}:
        spoilt = bytearray(whole)
        spoilt[place] ^= int(random.integers(1, 256))
        (copy / name).write_bytes(spoilt)
        refusal(copy)


def test_a_letter_of_an_exponent_in_capitals_is_refused(tmp_path):
    study = make_study(optimiser={"learning_rate": 1e-05})
    save_model(tmp_path, study, build_network(study), 1, ADJUSTMENT, "none")
    text = (tmp_path / DESCRIPTION).read_text(encoding="utf-8")
    assert "1e-05" in text
    (tmp_path / DESCRIPTION).write_text(text.replace("1e-05", "1E-05"), encoding="utf-8")
    assert refusal(tmp_path) == f"{DESCRIPTION} was changed after it was written"


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"classes": ("PTC", "benign", "FTC")}, "classes are ['PTC', 'benign', 'FTC'], expected ['benign', 'PTC', 'FTC']"),
        ({"tasks": {"subtype": CLASSES}}, "tasks is"),
        ({"image_size": 64}, "image_size is 64, expected 32"),
        ({"adjustment": (0.0,)}, "number of adjustments is 1, expected 3"),
        ({"files": {}}, "files is []"),
        ({"study_hash": "0" * 64}, "was changed"),
    ],
    ids=["classes", "tasks", "size", "adjustment", "files", "study"],
)
def test_what_contradicts_the_study_is_refused_though_it_is_hashed(copy, changes, phrase):
    """Another program wrote it, which knows how to hash."""
    write_description(copy, read_description(copy).model_copy(update=changes))
    assert phrase in refusal(copy)


def test_the_description_carries_what_a_user_of_the_model_must_know(saved):
    info = read_description(saved[0])
    assert info.files == {WEIGHTS: info.weights_sha256}
    assert info.classes == CLASSES
    assert info.tasks == {"subtype": CLASSES, "margin": ("smooth", "irregular")}
    assert "divided by 255" in info.preprocessing
    assert info.code_version


def test_missing_files_are_refused_and_named(copy, tmp_path):
    (copy / WEIGHTS).unlink()
    assert refusal(copy).startswith(f"cannot read {WEIGHTS}")
    (copy / DESCRIPTION).unlink()
    assert f"no {DESCRIPTION} beside" in refusal(copy)
    assert f"no {DESCRIPTION} beside" in refusal(tmp_path / "absent" / WEIGHTS)


@pytest.mark.parametrize(
    "model",
    [
        {"profile": "csasn-test", "image_size": 32, "vit": False},
        {"profile": "csasn-test", "image_size": 64},
        {"profile": "csasn-test", "image_size": 32, "multiscale": False},
    ],
    ids=["without-vit", "other-size", "single-scale"],
)
def test_weights_of_another_architecture_are_refused_even_with_a_matching_hash(model, tmp_path):
    """The description is written for the study, the tensors are another network's."""
    study = make_study()
    save_model(tmp_path, study, build_network(make_study(model=model)), 1, ADJUSTMENT, "none")
    assert refusal(tmp_path) == f"{WEIGHTS} does not fit the model of {DESCRIPTION}"


def test_files_of_two_models_do_not_belong_together(copy, tmp_path):
    study = make_study(seed=2)
    save_model(tmp_path, study, build_network(study), 1, ADJUSTMENT, "none")
    shutil.copy(tmp_path / WEIGHTS, copy / WEIGHTS)
    assert "do not belong together" in refusal(copy)


def test_a_missing_tensor_is_refused_though_the_hash_fits(tmp_path):
    study = make_study()
    short = network_of(study)
    del short.classifier.skip._parameters["bias"]
    save_model(tmp_path, study, short, 1, ADJUSTMENT, "none")
    assert "classifier.skip.bias" not in load_file(tmp_path / WEIGHTS)
    assert refusal(tmp_path) == f"{WEIGHTS} does not fit the model of {DESCRIPTION}"


# ---- prediction


@SOME
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_probabilities_add_up_to_one_and_follow_from_the_mean_of_the_images_logits(saved, seed, num):
    _, _, network = saved
    loaded, info = load_model(saved[0])
    images = pictures(num, seed)
    prediction = predict_case(loaded, info, images)
    with torch.no_grad():
        each = [network(torch.from_numpy(image)[None, None].float() / 255)["subtype"][0].double().numpy() for image in images]
    logits_K = np.mean(each, axis=0)
    odds_K = np.exp(logits_K + ADJUSTMENT)
    assert list(prediction.probabilities) == list(CLASSES)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(list(prediction.probabilities.values()), odds_K / odds_K.sum(), rtol=1e-4, atol=1e-6)
    assert prediction.decision == CLASSES[int(logits_K.argmax())]


def test_the_decision_is_the_largest_unadjusted_logit_though_another_class_may_be_more_probable(saved):
    loaded, info = load_model(saved[0])
    with torch.no_grad():
        loaded.heads.heads["subtype"].weight.zero_()
        loaded.heads.heads["subtype"].bias.copy_(torch.tensor([0.0, 0.3, 0.1]))
    prediction = predict_case(loaded, info, pictures())
    assert prediction.decision == "PTC"
    assert max(prediction.probabilities, key=prediction.probabilities.get) == "benign"


def test_a_prediction_does_not_depend_on_the_order_of_the_images(saved):
    loaded, info = load_model(saved[0])
    images = pictures(4)
    one, other = predict_case(loaded, info, images), predict_case(loaded, info, images[::-1].copy())
    assert one.decision == other.decision
    assert other.probabilities == pytest.approx(one.probabilities, rel=1e-5)
