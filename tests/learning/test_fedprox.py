"""The proximal term of local training, against its equation and an independent loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.learning.loss import multitask_loss
from csasn.learning.objectives.fedprox import add_proximal_gradient
from csasn.learning.training import load_images, load_labels
from csasn.model.network import build_network
from csasn.model.state import normalisation_layers
from training_scene import LinearNetwork, assert_equal_states, seen_batches, state, study, synthetic, terms_of, train

SOME = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
CPU = torch.device("cpu")


@SOME
@given(SEEDS, st.floats(0, 10))
def test_proximal_gradient_is_the_gradient_of_half_mu_times_the_squared_distance(seed, mu):
    random = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (1, 2, 3, 3), ()]
    parameters = [torch.randn(shape, generator=random, dtype=torch.float64, requires_grad=True) for shape in shapes]
    received = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    loss_gradients = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    penalty = mu / 2 * sum((w - w_r).square().sum() for w, w_r in zip(parameters, received, strict=True))
    expected = [own + of_penalty for own, of_penalty in zip(loss_gradients, torch.autograd.grad(penalty, parameters), strict=True)]
    for parameter, own in zip(parameters, loss_gradients, strict=True):
        parameter.grad = own.clone()
    add_proximal_gradient(parameters, received, mu)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-12)
        assert not parameter.grad.requires_grad


def independent_fedprox(network, batches, data, chosen, mu, rate):
    """The same minimisation, with the penalty in the loss, its gradient by autograd, and torch's AdamW."""
    terms = terms_of(chosen)
    received = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=chosen.optimiser.weight_decay, foreach=False)
    for batch in batches:
        indices = np.array(batch)
        penalty = sum((w - w_r).square().sum() for w, w_r in zip(network.parameters(), received, strict=True))
        loss = multitask_loss(network(load_images(data, indices, CPU)), load_labels(data, indices, CPU), terms)
        optimiser.zero_grad()
        (loss + mu / 2 * penalty).backward()
        optimiser.step()


@pytest.mark.parametrize("mu", [0.0, 0.01, 3.0])
def test_fedprox_equals_an_independent_loop_with_the_penalty_in_the_loss(mu):
    data = synthetic(num_cases=20, side=8)
    chosen = study(federation={"local_epochs": 3}, optimiser={"learning_rate": 0.01, "schedule": "constant", "weight_decay": 0.1})
    ours, theirs = LinearNetwork(), LinearNetwork()
    start = state(ours)
    batches = seen_batches(ours, data)
    result = train(ours, data, chosen, mu=mu)
    assert result.num_steps == len(batches) == 9
    independent_fedprox(theirs, batches, data, chosen, mu, rate=0.01)
    for name, found in ours.state_dict().items():
        torch.testing.assert_close(found, theirs.state_dict()[name], rtol=1e-5, atol=1e-6)
        assert (found - start[name]).abs().max() > 1e-3


def test_a_larger_mu_stays_closer_to_the_received_model():
    data, chosen = synthetic(num_cases=20, side=8), study(federation={"local_epochs": 5})
    distances = []
    for mu in (0.0, 1.0, 100.0):
        network = LinearNetwork()
        start = state(network)
        train(network, data, chosen, mu=mu)
        distances.append(sum(float((tensor - start[name]).square().sum()) for name, tensor in network.state_dict().items()))
    assert distances[0] > distances[1] > distances[2]


def test_the_proximal_gradient_is_exactly_zero_at_the_received_model():
    """Adam divides by the gradient's size: a rounding error of μw would be a full step where the loss has next to no gradient."""
    parameter = torch.linspace(-3, 3, 101).requires_grad_()
    parameter.grad = torch.full((101,), 1e-9)
    add_proximal_gradient([parameter], [parameter.detach().clone()], 50.0)
    assert torch.equal(parameter.grad, torch.full((101,), 1e-9))


def test_mu_zero_adds_nothing():
    parameters = [torch.tensor([1.0, -2.0], requires_grad=True)]
    parameters[0].grad = torch.tensor([0.3, 0.4])
    add_proximal_gradient(parameters, [torch.tensor([5.0, 5.0])], 0.0)
    assert torch.equal(parameters[0].grad, torch.tensor([0.3, 0.4]))


def test_the_proximal_term_never_touches_buffers():
    """It is zero in the first step, so both forward passes of two steps are the same whatever μ: only the last step may differ."""
    data, chosen, states = synthetic(), study(), []
    for mu in (0.0, 50.0):
        network = build_network(chosen)
        parameters, start = dict(network.named_parameters()), state(network)
        train(network, data, chosen, mu=mu, num_steps=2)
        states.append(state(network))
    buffers = start.keys() - parameters.keys()
    assert len(buffers) == 3 * len(list(normalisation_layers(network)))
    assert all(not torch.equal(states[0][name], start[name]) for name in buffers)
    assert_equal_states(*({name: found[name] for name in buffers} for found in states))
    assert not any(torch.equal(states[0][name], states[1][name]) for name in ("classifier.skip.weight", "vit.net.pos_embed"))
