"""Label smoothing, focal loss and margins (csasn/learning/loss.py) against a plain implementation, by gradients. K classes.

The plain one takes one image at a time in float64 with `math` alone; its gradient is a central difference.
"""

from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.federated.weighting import class_weights
from csasn.learning.loss import LossTerms, count_labelled, image_losses, multitask_loss
from training_scene import study

SOME = settings(deadline=None, max_examples=30)
SEEDS = st.integers(0, 2**32 - 1)
MARGINS = (0.2, 0.9, 1.7)
WAYS = [
    pytest.param(*way, id=name)
    for name, way in {
        "smoothing": (0.2, 0.0, None),
        "focal": (0.0, 2.0, None),
        "focal-below-one": (0.0, 0.5, None),
        "margins": (0.0, 0.0, MARGINS),
        "all": (0.1, 1.5, MARGINS),
    }.items()
]


def plain(row, label, smoothing, gamma, margins):
    z = [value - (margins[k] if margins and k == label else 0.0) for k, value in enumerate(row)]
    highest = max(z)
    total = highest + log(sum(exp(value - highest) for value in z))
    log_p = [value - total for value in z]
    smooth = (1 - smoothing) * -log_p[label] + smoothing * sum(-value for value in log_p) / len(z)
    return (1 - exp(log_p[label])) ** gamma * smooth


def plain_gradient(row, label, *way, h=1e-5):
    moved = [[value + h * side * (k == j) for j, value in enumerate(row)] for k in range(len(row)) for side in (1, -1)]
    values = [plain(one, label, *way) for one in moved]
    return [(up - down) / (2 * h) for up, down in zip(values[::2], values[1::2], strict=True)]


def terms(smoothing=0.0, gamma=0.0, margins=None, omega=(1.0, 1.0, 1.0)):
    given_ = {} if margins is None else {"subtype": torch.tensor(margins)}
    return LossTerms({"subtype": 1.0}, torch.tensor(omega), {}, given_, smoothing, gamma)


def found(logits_BK, labels_B, given_terms):
    own = logits_BK.clone().requires_grad_()
    losses_B = image_losses(own, labels_B, given_terms, "subtype")
    losses_B.sum().backward()
    return losses_B.detach(), own.grad


@pytest.mark.parametrize(("smoothing", "gamma", "margins"), WAYS)
@SOME
@given(seed=SEEDS)
def test_loss_and_gradient_equal_the_plain_implementation(smoothing, gamma, margins, seed):
    random = torch.Generator().manual_seed(seed)
    logits_BK = 3 * torch.randn(4, 3, generator=random)
    labels_B = torch.randint(0, 3, (4,), generator=random)
    losses_B, gradient_BK = found(logits_BK, labels_B, terms(smoothing, gamma, margins))
    for row, label, loss, gradient in zip(logits_BK.tolist(), labels_B.tolist(), losses_B, gradient_BK, strict=True):
        assert float(loss) == pytest.approx(plain(row, label, smoothing, gamma, margins), rel=1e-4, abs=1e-6)
        expected = plain_gradient(row, label, smoothing, gamma, margins)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=3e-5)


@pytest.mark.parametrize(("smoothing", "gamma", "margins"), WAYS)
def test_an_image_without_a_label_gives_nothing_and_a_certain_one_gives_finite_gradients(smoothing, gamma, margins):
    logits_BK = torch.tensor([[1.0, 2.0, -1.0], [200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]])
    losses_B, gradient_BK = found(logits_BK, torch.tensor([-1, 0, 0]), terms(smoothing, gamma, margins))
    assert losses_B[0] == 0
    assert not gradient_BK[0].any()
    assert torch.isfinite(losses_B).all()
    assert torch.isfinite(gradient_BK).all()
    assert losses_B[2] > 100


@pytest.mark.parametrize(("smoothing", "gamma", "margins"), WAYS)
def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(smoothing, gamma, margins):
    random = torch.Generator().manual_seed(1)
    logits_BK, labels_B = torch.randn(7, 3, generator=random), torch.tensor([0, 2, -1, 1, 1, 2, 0])
    given_terms, labels = terms(smoothing, gamma, margins, (0.8, 0.9, 1.9)), {"subtype": labels_B}
    whole, parts = (logits_BK.clone().requires_grad_() for _ in range(2))
    multitask_loss({"subtype": whole}, labels, given_terms).backward()
    for part in (slice(0, 3), slice(3, 7)):
        counts = count_labelled(labels)
        multitask_loss({"subtype": parts[part]}, {"subtype": labels_B[part]}, given_terms, counts).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


def test_without_changes_the_loss_is_the_cross_entropy_to_the_bit():
    random = torch.Generator().manual_seed(2)
    logits_BK, labels_B = torch.randn(9, 3, generator=random), torch.randint(-1, 3, (9,), generator=random)
    expected = torch.nn.functional.cross_entropy(logits_BK, labels_B, reduction="none", ignore_index=-1)
    assert torch.equal(image_losses(logits_BK, labels_B, terms(), "subtype"), expected)


def test_margins_follow_from_the_counts_of_all_sites_with_the_largest_for_the_rarest_class():
    chosen = study(loss={"ldam_margin": 0.5, "focal_gamma": 2.0, "label_smoothing": 0.1})
    counts = np.array([800, 50, 50])
    found_terms = LossTerms.of(chosen, class_weights(chosen.class_weighting, counts, []))
    np.testing.assert_allclose(found_terms.margins["subtype"], 0.5 * (50 / counts) ** 0.25, rtol=1e-6)
    np.testing.assert_allclose(found_terms.margins["malignancy"], [0.5 * (100 / 800) ** 0.25, 0.5], rtol=1e-6)
    assert (found_terms.focal_gamma, found_terms.label_smoothing) == (2.0, 0.1)
    plain_terms = LossTerms.of(study(), class_weights(chosen.class_weighting, counts, []))
    assert (dict(plain_terms.margins), plain_terms.focal_gamma, plain_terms.label_smoothing) == ({}, 0.0, 0.0)
