"""A small grid over small hospitals, and predictions as if they had been trained."""

import numpy as np
import yaml

from csasn.measures.cases import Cases, Classes
from server.evidence.predictions import Predictions

CLASSES = Classes(("benign", "PTC", "FTC"), malignant=(1, 2), rare=(2,))
SEEDS = (1, 2)
STATIC = {"class_weighting.mode": "static", "class_weighting.tau": 1.0}
GRID = {
    "study": "hospitals/study.yaml",
    "seeds": list(SEEDS),
    "rare": ["FTC"],
    "variants": {
        "fedprox": {},
        "diverging": {"optimiser.learning_rate": 1e20},
        "pooled": {"central": "pooled"},
        "without_centerB": {"leave_out": "centerB"},
        "decided": {"decided_from": "fedprox"} | STATIC,
        "decided_from_failed": {"decided_from": "diverging"} | STATIC,
    },
    "comparisons": [
        {"of": "fedprox", "against": "pooled", "metrics": ["macro_auroc", "recall.FTC"], "at_equal_rare_recall": True},
        {"of": "without_centerB", "against": "fedprox", "cases": "centerB"},
        {"of": "fedprox", "against": "diverging"},
    ],
}


def write_grid(folder, **changes):
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(GRID | changes, sort_keys=False))
    return path


def drawn_predictions(num_cases, seed=0, skill=1.0, places=None):
    random = np.random.default_rng(seed)
    labels = np.arange(num_cases) % 3
    logits = random.normal(0, 1, (num_cases, 3)) + skill * np.eye(3)[labels]
    cases = Cases(
        labels, logits.argmax(axis=1), logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), np.array([-0.1, -0.4, -2])
    )
    return Predictions(cases, labels * 0 + np.arange(num_cases) // 100, np.arange(num_cases) if places is None else places)
