"""How weights on the decision do, by rule and τ, on predictions that a grid kept: they move no score, so no training is needed.

    python tests/evidence/decisions.py tests/evidence/recipe/predictions.npz lr_002 > tests/evidence/decisions.md

Test cases of the tuning draw are parted many times: as many of each class as the federation has validation cases drive the weights
for ten rounds, the rest are decided. Then the ceiling: the best τ, and the best offsets of all, chosen on the cases that they are
measured on. K classes.
"""

import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np

from csasn.federated.class_weightings.dynamic import step_difficulty
from csasn.federated.weighting import HIGHEST, LOWEST, class_prior, class_sums
from csasn.measures.cases import Cases, Classes, Floats, case_weights, confusion, confusion_at_recall, decision_measures
from csasn.platform.randomness import generator
from server.evidence.predictions import load_predictions

CLASSES = Classes(("benign", "PTC", "FTC", "MTC"), malignant=(1, 2, 3), rare=(2, 3))
TRAINING, VALIDATION = np.array([260, 530, 61, 23]), np.array([75, 144, 17, 8])  # cases of the benchmark
PRIOR = class_prior(TRAINING)
ROUNDS, PARTINGS = 10, 40
BELIEF = 5  # cases; how slowly "as often" believes few counts
SHOWN = ("rare_recall", "macro_f1", "balanced_accuracy", "benign_specificity")
Rule = Callable[[Floats, np.ndarray, Floats], Floats]


def as_often(omega_K: Floats, sums_3K: np.ndarray, prior_K: Floats) -> Floats:
    """Moves a quarter of the way to where each class is decided as often as it occurs."""
    tp, fp, fn = sums_3K
    move_K = -np.log((tp + fp + BELIEF) / (tp + fn + BELIEF)) / 4
    return np.clip(omega_K * np.exp(move_K), LOWEST, HIGHEST)


RULES: dict[str, Rule] = {
    "static": lambda omega_K, _, __: omega_K,
    "dynamic": step_difficulty,
    "as often": as_often,
}


def adjustment_of(cases: Cases, rule: Rule, tau: float) -> Floats:
    """τ log π - log ω after ten rounds of the rule on these cases."""
    omega_K, once_1N = np.ones(len(PRIOR)), np.ones((1, len(cases.class_N)))
    for _ in range(ROUNDS):
        chosen = cases.decided(tau * np.log(PRIOR) - np.log(omega_K))
        counts_KK = confusion(chosen.class_N, chosen.decision_N, len(PRIOR), once_1N)[0].astype(np.int64)
        omega_K = rule(omega_K, class_sums(counts_KK), PRIOR)
    return tau * np.log(PRIOR) - np.log(omega_K)


def measured(confusion_1KK: Floats) -> Floats:
    """(measures,) what is shown."""
    found = decision_measures(confusion_1KK, CLASSES)
    return np.array([found[name][0] for name in SHOWN])


def compare(cases: Cases, rule: Rule, tau: float, seed: int) -> tuple[Floats, Floats]:
    """(measures,) of one parting, and their differences from static weights shifted to the same rare recall."""
    random = generator(seed, "parting")
    members = [random.permutation(np.flatnonzero(cases.class_N == c)) for c in range(len(PRIOR))]
    driving = cases.chosen(np.concatenate([m[:n] for m, n in zip(members, VALIDATION, strict=True)]))
    rest = cases.chosen(np.concatenate([m[n:] for m, n in zip(members, VALIDATION, strict=True)]))
    weights_1N = case_weights(rest.class_N, np.ones((1, len(rest.class_N))), TRAINING / TRAINING.sum())
    chosen = rest.decided(adjustment_of(driving, rule, tau))
    found = measured(confusion(chosen.class_N, chosen.decision_N, len(PRIOR), weights_1N))
    static = rest.decided(tau * np.log(PRIOR))
    return found, found - measured(confusion_at_recall(static, CLASSES.rare, found[:1], weights_1N))


def ceiling(cases: Cases) -> tuple[Floats, Floats]:
    """(measures,) with the best macro F1 that one τ reaches, and that any offsets reach, when chosen on these cases themselves."""
    weights_1N = case_weights(cases.class_N, np.ones((1, len(cases.class_N))), TRAINING / TRAINING.sum())

    def best(offsets: Iterable[Floats]) -> Floats:
        decisions = (cases.decided(-offset_K).decision_N for offset_K in offsets)
        found = [measured(confusion(cases.class_N, decision_N, len(PRIOR), weights_1N)) for decision_N in decisions]
        return max(found, key=lambda values: float(values[SHOWN.index("macro_f1")]))

    any_offsets = product(np.arange(-0.6, 1.0, 0.1), [0.0], np.arange(0, 2.6, 0.2), np.arange(0, 3.6, 0.3))
    return best(-tau * np.log(PRIOR) for tau in np.arange(0, 1.3, 0.05)), best(np.array(offset_K) for offset_K in any_offsets)


def main(path: str, variant: str) -> None:
    """Prints the table of the variant's seeds, in Markdown."""
    kept = {name: found.cases for name, found in load_predictions(Path(path)).items() if name.rpartition("-")[0] == variant}
    models = list(kept.values())
    header = [name.replace("_", " ") for name in SHOWN] + [f"{name.replace('_', ' ')} less static" for name in SHOWN[1:]]
    lines = [
        f"Trained models: {len(models)}; partings of their cases: {PARTINGS} each. Means, and in brackets the middle 90 % of",
        "differences from static weights at the same recall of FTC and MTC. Made by tests/evidence/decisions.py.",
        "",
        "| τ | rule | " + " | ".join(header) + " |",
        "|" + "---|" * (len(header) + 2),
    ]
    for tau in (0.0, 0.25, 0.5, 0.75, 1.0):
        for name, rule in RULES.items():
            pairs = [compare(cases, rule, tau, seed) for cases in models for seed in range(PARTINGS)]
            found, gained = (np.stack(values) for values in zip(*pairs, strict=True))
            cells = [f"{value:.3f}" for value in found.mean(axis=0)]
            low, high = np.percentile(gained, [5, 95], axis=0)
            if name != "static":
                cells += [f"{gained[:, i].mean():+.3f} ({low[i]:+.3f} to {high[i]:+.3f})" for i in range(1, len(SHOWN))]
            lines.append(f"| {tau:g} | {name} | " + " | ".join(cells + [""] * (len(header) - len(cells))) + " |")
    lines += [
        "",
        "The ceiling, where one τ, or the offsets of all classes, are chosen on the very cases that they are measured on:",
        "",
        "| model | chosen | " + " | ".join(header[: len(SHOWN)]) + " |",
        "|" + "---|" * (len(SHOWN) + 2),
    ]
    for model, cases in kept.items():
        for name, values in zip(("one τ", "all offsets"), ceiling(cases), strict=True):
            lines.append(f"| {model} | {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
