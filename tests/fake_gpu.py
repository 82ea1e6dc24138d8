"""The real training step and evaluation on tensors without values, on a device that is no CPU and on which nothing computes: an
operation on tensors of two devices raises as it does on a GPU. Run by itself, since torch takes on such a device for good.

Prints a line a case: its name, and what was raised, or "passed". A CPU build of torch cannot pretend CUDA itself, whose autograd
asks for the driver; so autocast to bfloat16, the fork of the GPU's random state and fused SGD are not run. A tensor tells 1.
"""

import sys
import types
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from csasn.data.cases import TEST
from csasn.federated.weighting import class_weights
from csasn.learning.evaluation import labelled_logits
from csasn.learning.loss import LossTerms
from csasn.learning.normalisation import is_measured, measure_moments
from csasn.learning.objectives.fedprox import FedProx
from csasn.learning.personal import tune_heads
from csasn.learning.training import LocalPlan, train_locally
from csasn.model.network import build_network
from training_scene import study, synthetic

DEVICE = "fakegpu"
PLANTED = "an adjustment on the CPU"  # what has to be found
CHANGES = {
    "flip": True,
    "shift": 0.1,
    "rotation_deg": 5.0,
    "gain": 0.2,
    "depth_gain": 0.2,
    "speckle": 0.2,
    "shadow": 0.3,
    "blur": 1.0,
}
ON_LOSS = {"mode": "dynamic", "acts_on": "loss"}
CASES = {
    "csasn-test": {"model": {"profile": "csasn-test", "image_size": 32}},
    "csasn-lite": {"model": {"profile": "csasn-lite", "image_size": 64}},
    "csasn-small": {"model": {"profile": "csasn-small", "image_size": 112}},
    "csasn-b2-vitb": {"model": {"profile": "csasn-b2-vitb", "image_size": 224}},
    "weighted loss": {"class_weighting": ON_LOSS, "loss": {"ldam_margin": 0.5, "focal_gamma": 1.0, "label_smoothing": 0.1}},
    "mixup": {"loss": {"mixup": 0.4}},
    "augmentation": {"augmentation": CHANGES},
    "layer rates": {"optimiser": {"batch_size": 8, "layer_decay": 0.8}},
    "group normalisation": {"federation": {"batchnorm": "group"}},
    "mirrored": {"model": {"test_flip": True}},
    PLANTED: {},
}


class OneForEachNumber(TorchFunctionMode):
    """What leaves the device for Python is 1."""

    def __torch_function__(self, function, kinds, args=(), kwargs=None):
        if function in (Tensor.__float__, Tensor.__int__, Tensor.item):
            return 1.0 if function is not Tensor.__int__ else 1
        if function is Tensor.numpy:
            assert args[0].device.type == "cpu"
            return np.ones(tuple(args[0].shape), np.float64 if args[0].is_floating_point() else np.int64)
        if function in (torch.as_tensor, torch.tensor) and (device := (kwargs or {}).get("device")) is not None:
            return function(*args, **kwargs | {"device": "cpu"}).to(device)  # of numbers, which are nowhere yet
        return function(*args, **(kwargs or {}))


def there(tensor):
    """A tensor of the same form on the device."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=DEVICE)


def on_device(network):
    """The network, whose tensors have no values, with its tensors there."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(there(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = there(buffer)
    return network


def run(changes, planted):
    chosen = study(**{"optimiser": {"batch_size": 8}, **changes})
    data = synthetic(num_cases=10, side=chosen.model.image_size)
    with torch.device("meta"):
        network = build_network(chosen)
    with FakeTensorMode(allow_non_fake_inputs=True), OneForEachNumber():
        on_device(network)
        weights = class_weights(chosen.class_weighting, np.array([20, 30, 15]), [])
        terms = LossTerms.of(chosen, weights, torch.device(DEVICE))
        if planted:
            terms = replace(terms, adjustments={"subtype": torch.zeros(3)})
        train_locally(network, data, chosen, terms, LocalPlan("centerA", 1, FedProx(proximal_mu=0.1), num_steps=1, micro_batch=3))
        if is_measured(chosen, network):
            measure_moments(network, data, chosen, "centerA", 1)
        logits_CK, _ = labelled_logits(network, data, TEST, chosen)
        assert logits_CK.shape == (2, 3)
        network.finish_subtype_logits(weights.offset_K, 1.5)
        tune_heads(network, data, chosen, terms, "centerA")


if __name__ == "__main__":
    _setup_privateuseone_for_python_backend(DEVICE)
    module = getattr(torch, DEVICE, None) or types.ModuleType(DEVICE)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    if not hasattr(torch, DEVICE):
        torch._register_device_module(DEVICE, module)
    for name in sys.argv[1:] or CASES:
        try:
            run(CASES[name], planted=name == PLANTED)
            print(f"{name}: passed", flush=True)
        except Exception as error:  # noqa: BLE001 - it is what is asked for
            print(f"{name}: {type(error).__name__}: {error}".splitlines()[0], flush=True)
