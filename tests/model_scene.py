"""Studies and images for tests of the network."""

import torch

from csasn.platform.configuration import validate
from csasn.study import Study

TASKS = {"subtype": {}, "malignancy": {"weight": 0.5}, "margin": {"values": ["smooth", "lobulated", "irregular"]}}


def study(seed=1, tasks=None, batchnorm="silo", **model):
    values = {
        "name": "small",
        "classes": ["benign", "PTC", "FTC", "MTC"],
        "malignant": ["PTC", "FTC", "MTC"],
        "tasks": tasks or TASKS,
        "model": {"profile": "csasn-test", "image_size": 32, **model},
        "federation": {"sites": ["centerA"], "batchnorm": batchnorm},
        "seed": seed,
    }
    return validate(Study, values, "study.yaml")


def images(num, size, seed=0):
    return torch.rand(num, 1, size, size, generator=torch.Generator().manual_seed(seed))
