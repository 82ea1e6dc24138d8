"""csasn/learning/loss.py against vectors of an independent implementation and against torch, by gradients.

Adam hides a constant scale of the loss, so a test that compared losses or trained weights would miss one: gradients are compared.
B images, K classes.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import ConfigurationError
from csasn.federated.weighting import class_weights
from csasn.learning.loss import LossTerms, count_labelled, multitask_loss
from csasn.platform.configuration import validate
from csasn.study import Study

VECTORS = Path(__file__).parents[1] / "vectors"
COMMITTED = json.loads((VECTORS / "loss.json").read_text(encoding="utf-8"))
ACCEPTED, REFUSED = COMMITTED["accepted"], COMMITTED["refused"]
FLOAT32 = {"rtol": 2e-5, "atol": 2e-7}
SOME = settings(deadline=None, max_examples=40)
SEEDS = st.integers(0, 2**32 - 1)
NUM_VALUES = {"subtype": 4, "malignancy": 2, "margin": 3}
OMEGA = (0.8, 0.9, 1.9, 1.4)


def named(vectors):
    return [pytest.param(vector, id=vector["name"]) for vector in vectors]


def terms_of(task_weights, omega=OMEGA, adjustments=None):
    as_tensors = {task: torch.tensor(values) for task, values in (adjustments or {}).items()}
    return LossTerms(task_weights, torch.tensor(omega), as_tensors)


def leaves(logits):
    return {task: torch.tensor(rows, dtype=torch.float32, requires_grad=True) for task, rows in logits.items()}


def gradients(logits, labels, terms, num_labelled=None):
    """(loss, gradient of each task's logits)."""
    own = {task: values.detach().clone().requires_grad_() for task, values in logits.items()}
    loss = multitask_loss(own, labels, terms, num_labelled)
    loss.backward()
    return float(loss.detach()), {task: values.grad for task, values in own.items()}


def plain_gradient(logits, labels, **options):
    own = logits.detach().clone().requires_grad_()
    F.cross_entropy(own, labels, **options).backward()
    return own.grad


def random_batch(seed, num_images, missing=0.3):
    random = torch.Generator().manual_seed(seed)
    logits = {task: 3 * torch.randn(num_images, k, generator=random) for task, k in NUM_VALUES.items()}
    labels = {task: torch.randint(0, k, (num_images,), generator=random) for task, k in NUM_VALUES.items()}
    hidden = {task: torch.rand(num_images, generator=random) < missing for task in NUM_VALUES}
    return logits, {task: torch.where(hidden[task], -1, labels[task]) for task in NUM_VALUES}


def study(malignant=(1, 2, 3), **class_weighting):
    classes = ["benign", "PTC", "FTC", "MTC"]
    tasks = {"subtype": {}} | ({"malignancy": {"weight": 0.5}} if malignant else {})
    values = {
        "name": "thyroid",
        "classes": classes,
        "malignant": [classes[c] for c in malignant],
        "tasks": tasks,
        "federation": {"sites": ["centerA"]},
        "class_weighting": {"acts_on": "loss"} | class_weighting,
    }
    return validate(Study, values, "study.yaml")


def study_terms(chosen, histogram):
    return LossTerms.of(chosen, class_weights(chosen.class_weighting, np.array(histogram), []))


# ---- vectors


def test_the_script_makes_the_committed_vectors_without_our_code_or_any_package():
    script = VECTORS / "make_loss.py"
    made = subprocess.run([sys.executable, "-I", "-S", script], capture_output=True, check=True, timeout=300, encoding="utf-8")
    assert made.stdout == (VECTORS / "loss.json").read_text(encoding="utf-8")


def inputs_of(vector):
    labels = {task: torch.tensor(values) for task, values in vector["labels"].items()}
    return leaves(vector["logits"]), labels, terms_of(vector["task_weights"], vector["omega"], vector["adjustments"])


@pytest.mark.parametrize("vector", named(ACCEPTED["loss"]))
def test_loss_and_gradients_equal_vector(vector):
    loss, found = gradients(*inputs_of(vector), vector.get("num_labelled"))
    assert loss == pytest.approx(vector["output"]["loss"], rel=1e-5, abs=1e-6)
    for task, expected in vector["output"]["gradients"].items():
        np.testing.assert_allclose(found[task].numpy(), expected, err_msg=task, **FLOAT32)


@pytest.mark.parametrize("vector", named(ACCEPTED["terms"]))
def test_logit_adjustments_equal_vector(vector):
    terms = study_terms(study(vector["malignant"], **vector["settings"]), vector["histogram"])
    assert set(terms.adjustments) == set(vector["output"])
    for task, expected in vector["output"].items():
        np.testing.assert_allclose(terms.adjustments[task].numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("vector", named(REFUSED))
def test_vector_is_refused_with_its_error(vector):
    error = {"IndexError": IndexError, "KeyError": KeyError}[vector["error"]]
    with pytest.raises(error, match=vector["phrase"]):
        multitask_loss(*inputs_of(vector))


# ---- against torch


@SOME
@given(SEEDS, st.integers(1, 9))
def test_one_task_without_weights_has_the_gradient_of_torch(seed, num_images):
    logits, labels = random_batch(seed, num_images, missing=0)
    _, found = gradients({"subtype": logits["subtype"]}, labels, terms_of({"subtype": 1.0}, [1.0] * 4))
    torch.testing.assert_close(found["subtype"], plain_gradient(logits["subtype"], labels["subtype"]))


@SOME
@given(SEEDS, st.integers(1, 9))
def test_weighted_gradient_is_torchs_weighted_sum_over_the_number_of_labelled_images(seed, num_images):
    logits, labels = random_batch(seed, num_images)
    _, found = gradients(logits, labels, terms_of({"subtype": 0.7}))
    summed = plain_gradient(logits["subtype"], labels["subtype"], weight=torch.tensor(OMEGA), ignore_index=-1, reduction="sum")
    expected = 0.7 * summed / max(count_labelled(labels)["subtype"], 1)
    torch.testing.assert_close(found["subtype"], expected)


@pytest.mark.parametrize("only", range(4))
def test_a_site_of_one_class_feels_its_weight_where_torchs_weighted_mean_would_not(only):
    logits, _ = random_batch(only, 6)
    labels = {"subtype": torch.full((6,), only)}
    plain = plain_gradient(logits["subtype"], labels["subtype"])
    _, found = gradients({"subtype": logits["subtype"]}, labels, terms_of({"subtype": 1.0}))
    torch.testing.assert_close(found["subtype"], OMEGA[only] * plain)
    weighted_mean = plain_gradient(logits["subtype"], labels["subtype"], weight=torch.tensor(OMEGA))
    torch.testing.assert_close(weighted_mean, plain)  # ω has cancelled
    assert not torch.allclose(found["subtype"], weighted_mean, rtol=0.05)


@SOME
@given(SEEDS, st.floats(0.25, 4))
def test_gradient_scales_with_omega_and_with_the_task_weight(seed, factor):
    logits, labels = random_batch(seed, 6)
    _, base = gradients(logits, labels, terms_of({"subtype": 1.0, "margin": 0.5}))
    _, heavier = gradients(logits, labels, terms_of({"subtype": 1.0, "margin": 0.5 * factor}))
    torch.testing.assert_close(heavier["margin"], factor * base["margin"])
    torch.testing.assert_close(heavier["subtype"], base["subtype"], rtol=0, atol=0)
    _, weighted = gradients(logits, labels, terms_of({"subtype": 1.0}, [factor * value for value in OMEGA]))
    torch.testing.assert_close(weighted["subtype"], factor * base["subtype"])


# ---- missing labels


@SOME
@given(SEEDS, st.integers(1, 9))
def test_an_image_without_a_label_gives_its_head_no_gradient(seed, num_images):
    logits, labels = random_batch(seed, num_images, missing=0.5)
    _, found = gradients(logits, labels, terms_of({"subtype": 1.0, "malignancy": 0.5, "margin": 0.25}))
    for task, labels_B in labels.items():
        rows_B = found[task].abs().sum(dim=1) > 0
        assert rows_B.tolist() == (labels_B >= 0).tolist()


def test_a_missing_label_counts_in_no_mean():
    logits, labels = random_batch(3, 4, missing=0)
    labels["margin"] = torch.tensor([2, -1, 0, -1])
    _, found = gradients(logits, labels, terms_of({"margin": 1.0}, [1.0] * 4))
    torch.testing.assert_close(found["margin"][[0, 2]], plain_gradient(logits["margin"][[0, 2]], torch.tensor([2, 0])))


def test_an_image_whose_class_is_missing_but_whose_descriptor_is_known_has_weight_one():
    logits, _ = random_batch(4, 3)
    labels = {"subtype": torch.tensor([-1, 2, -1]), "margin": torch.tensor([1, 1, 0])}
    _, found = gradients(logits, labels, terms_of({"margin": 1.0}))
    plain = plain_gradient(logits["margin"], labels["margin"])
    torch.testing.assert_close(found["margin"], torch.tensor([[1.0], [OMEGA[2]], [1.0]]) * plain)


def test_a_batch_without_any_label_has_zero_loss_and_zero_gradient():
    logits, labels = random_batch(5, 3, missing=1.1)
    loss, found = gradients(logits, labels, terms_of({"subtype": 1.0, "malignancy": 0.5, "margin": 0.25}))
    assert loss == 0
    assert all(not values.any() for values in found.values())


def test_labels_are_counted_task_by_task():
    labels = {"subtype": torch.tensor([0, -1, 3]), "margin": torch.tensor([-1, -1, -1])}
    assert count_labelled(labels) == {"subtype": 2, "margin": 0}


# ---- parts of a batch


@SOME
@given(SEEDS, st.integers(1, 12), st.integers(1, 5))
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(seed, num_images, part_size):
    logits, labels = random_batch(seed, num_images, missing=0.4)
    terms = terms_of({"subtype": 1.0, "malignancy": 0.5, "margin": 0.25}, adjustments={"subtype": [-0.5, -0.2, -1.9, -2.4]})
    whole_loss, whole = gradients(logits, labels, terms)
    counts, loss, parts = count_labelled(labels), 0.0, {task: [] for task in logits}
    for start in range(0, num_images, part_size):
        part = {task: values[start : start + part_size] for task, values in logits.items()}
        part_labels = {task: values[start : start + part_size] for task, values in labels.items()}
        part_loss, part_gradients = gradients(part, part_labels, terms, counts)
        loss += part_loss
        for task, values in part_gradients.items():
            parts[task].append(values)
    assert loss == pytest.approx(whole_loss, rel=1e-5, abs=1e-6)
    for task, values in parts.items():
        torch.testing.assert_close(torch.cat(values), whole[task])


def test_order_of_the_images_does_not_matter():
    logits, labels = random_batch(6, 8)
    terms, order = terms_of({"subtype": 1.0, "margin": 0.5}), torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    _, found = gradients(logits, labels, terms)
    _, moved = gradients({t: v[order] for t, v in logits.items()}, {t: v[order] for t, v in labels.items()}, terms)
    torch.testing.assert_close(moved["subtype"], found["subtype"][order])
    torch.testing.assert_close(moved["margin"], found["margin"][order])


# ---- logit adjustment


def fit(terms, counts_K, steps=400):
    """The logits that minimise the loss over images that all look alike, `counts_K` of each class."""
    labels = {"subtype": torch.repeat_interleave(torch.arange(len(counts_K)), torch.tensor(counts_K))}
    shared_K = torch.zeros(len(counts_K), requires_grad=True)
    for _ in range(steps):
        loss = multitask_loss({"subtype": shared_K.expand(len(labels["subtype"]), -1)}, labels, terms)
        (gradient_K,) = torch.autograd.grad(loss, shared_K)
        with torch.no_grad():
            shared_K -= 4 * gradient_K
    return shared_K.detach()


def test_full_logit_adjustment_takes_the_prior_out_of_the_decision():
    counts, histogram = [5, 12, 2, 1], [500, 1200, 200, 100]
    unadjusted_K = fit(study_terms(study((), mode="none"), histogram), counts)
    assert unadjusted_K.argmax() == 1  # what all images share says nothing, and yet the common class wins
    adjusted_K = fit(study_terms(study((), mode="static", tau=1.0), histogram), counts)
    np.testing.assert_allclose(adjusted_K - adjusted_K.mean(), 0, atol=1e-3)  # no class is preferred
    tilted_K = fit(study_terms(study((), mode="static", tau=1.0), histogram), [5, 11, 2, 2])
    assert tilted_K.argmax() == 3  # twice as frequent here as its prior says: decided, though still rare


def test_the_reported_probability_still_holds_the_prior():
    counts, histogram = [5, 12, 2, 1], [500, 1200, 200, 100]
    terms = study_terms(study((), mode="static", tau=0.5), histogram)
    reported_K = torch.softmax(fit(terms, counts) + terms.adjustments["subtype"], dim=0)
    np.testing.assert_allclose(reported_K, np.array(counts) / 20, atol=1e-3)


def test_malignancy_is_adjusted_by_the_summed_priors_of_its_classes():
    terms = study_terms(study(malignant=(1, 3), mode="static", tau=1.0), [600, 250, 100, 50])
    np.testing.assert_allclose(terms.adjustments["malignancy"].exp(), [0.7, 0.3], rtol=1e-6)
    np.testing.assert_allclose(terms.adjustments["subtype"].exp(), [0.6, 0.25, 0.1, 0.05], rtol=1e-6)


def test_malignancy_adjustment_enters_its_own_gradient_alone():
    logits, labels = random_batch(7, 6)
    weights, added = {"subtype": 1.0, "malignancy": 0.5}, torch.tensor([-0.1, -2.3])
    _, bare = gradients(logits, labels, terms_of(weights))
    _, adjusted = gradients(logits, labels, terms_of(weights, adjustments={"malignancy": added.tolist()}))
    _, shifted = gradients({**logits, "malignancy": logits["malignancy"] + added}, labels, terms_of(weights))
    torch.testing.assert_close(adjusted["malignancy"], shifted["malignancy"])
    moved_B = (adjusted["malignancy"] - bare["malignancy"]).abs().sum(dim=1) > 1e-5
    assert moved_B.tolist() == (labels["malignancy"] >= 0).tolist()
    torch.testing.assert_close(adjusted["subtype"], bare["subtype"], rtol=0, atol=0)


def test_a_study_without_malignancy_adjusts_the_subtype_alone():
    assert set(study_terms(study(malignant=()), [50, 40, 30, 20]).adjustments) == {"subtype"}


def test_terms_take_task_weights_and_omega_from_study_and_round():
    chosen = study(mode="balanced")
    weights = class_weights(chosen.class_weighting, np.array([900, 80, 40, 20]), [])
    terms = LossTerms.of(chosen, weights)
    assert dict(terms.task_weights) == {"subtype": 1.0, "malignancy": 0.5}
    np.testing.assert_allclose(terms.omega_K, weights.omega_K, rtol=1e-6)
    assert terms.omega_K.dtype == torch.float32


@pytest.mark.parametrize("mode", ["dynamic", "static", "balanced", "none"])
def test_a_weighting_of_the_decision_leaves_the_loss_alone(mode):
    chosen = study(mode=mode, acts_on="decision")
    hard_3K = np.array([[900, 800, 1, 1], [20, 10, 5, 5], [10, 20, 39, 19]])
    terms = LossTerms.of(chosen, class_weights(chosen.class_weighting, np.array([900, 800, 40, 20]), [hard_3K] * 3))
    batch = random_batch(11, 9)
    loss, found = gradients(*batch, terms)
    plain_loss, plain = gradients(*batch, terms_of({"subtype": 1.0, "malignancy": 0.5}, [1.0] * 4))
    assert loss == plain_loss
    assert all(torch.equal(found[task], plain[task]) for task in ("subtype", "malignancy"))


@pytest.mark.parametrize("malignant", [(), (0, 1, 2, 3)])
def test_a_malignancy_task_needs_benign_and_malignant_classes(malignant):
    values = study().model_dump(mode="json")
    values["malignant"] = [values["classes"][c] for c in malignant]
    with pytest.raises(ConfigurationError, match="needs malignant and benign classes"):
        validate(Study, values, "study.yaml")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_loss_is_computed_in_float32_whatever_the_logits_are(dtype):
    logits, labels = random_batch(8, 5)
    rounded = {task: values.to(dtype) for task, values in logits.items()}
    terms = terms_of({"subtype": 1.0, "margin": 0.5})
    loss = multitask_loss(rounded, labels, terms)
    in_float32 = multitask_loss({task: values.float() for task, values in rounded.items()}, labels, terms)
    assert loss.dtype in (torch.float32, torch.float64)
    assert float(loss) == pytest.approx(float(in_float32), rel=1e-6)
