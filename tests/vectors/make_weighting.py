"""Makes weighting.json: `python make_weighting.py > weighting.json`.

Written from the equations of csasn/SPEC.md, "Class weighting", and not from the code under test, which it does not import.
Rational numbers are exact (fractions); roots, logarithms and exponentials carry 50 digits (decimal), so that every machine
prints the same text. The scale s of the normalisation is found from its exact breakpoints, not by bisection.
"""

import json
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 50

LOWEST, HIGHEST = Fraction(1, 2), Fraction(2)
STEP = Decimal("1.25").ln()


def decimal(number):
    return Decimal(number.numerator) / Decimal(number.denominator)


def prior(histogram):
    floored = [max(count, 10) for count in histogram]
    return [Fraction(count, sum(floored)) for count in floored]


def class_sums(confusion):
    classes = range(len(confusion))
    return [
        [confusion[c][c] for c in classes],
        [sum(confusion[t][c] for t in classes if t != c) for c in classes],
        [sum(confusion[c][d] for d in classes if d != c) for c in classes],
    ]


def has_enough_cases(sums, c):
    return sums[0][c] + sums[2][c] >= 5


def shrunk_f1(sums):
    columns = list(zip(*sums, strict=True))
    plain = [Fraction(2 * tp, 2 * tp + fp + fn) for c, (tp, fp, fn) in enumerate(columns) if has_enough_cases(sums, c)]
    mean = sum(plain) / len(plain) if plain else Fraction(0)
    return [(2 * tp + 10 * mean) / (2 * tp + fp + fn + 10) for tp, fp, fn in columns]


def target(sums):
    difficulty = [1 - value for value in shrunk_f1(sums)]
    known = [value for c, value in enumerate(difficulty) if has_enough_cases(sums, c)]
    if not known or sum(known) == 0:
        return [Decimal(1) for _ in difficulty]
    mean = sum(known) / len(known)
    return [decimal(value / mean).sqrt() if has_enough_cases(sums, c) else Decimal(1) for c, value in enumerate(difficulty)]


def normalise(weights, shares, lowest=LOWEST, highest=HIGHEST):
    """The mean Σ π clip(s w) is piecewise linear in s, with corners where a class meets a bound: walk to the piece that holds 1."""
    weights = [Fraction(weight) for weight in weights]

    def clipped(scale):
        return [min(max(scale * weight, lowest), highest) for weight in weights]

    def mean(scale):
        return sum(share * value for share, value in zip(shares, clipped(scale), strict=True))

    corners = sorted({bound / weight for weight in weights for bound in (lowest, highest)})
    left = max(corner for corner in corners if mean(corner) <= 1)
    right = min(corner for corner in corners if mean(corner) >= 1)
    if left >= right:
        return clipped(left)
    scale = left + (1 - mean(left)) * (right - left) / (mean(right) - mean(left))
    return clipped(scale)


def step(omega, sums, shares):
    moved = []
    for c, goal in enumerate(target(sums)):
        log_omega = decimal(Fraction(omega[c])).ln()
        move = min(max((goal.ln() - log_omega) / 4, -STEP), STEP)
        tp, decided = sums[0][c], sums[0][c] + sums[1][c]
        if decided and Fraction(tp, decided) < max(2 * shares[c], Fraction(1, 20)):
            move = min(move, Decimal(0))
        moved.append(Fraction((log_omega + move).exp()))
    return [Fraction(decimal(value)) for value in normalise(moved, shares)]  # 50 digits: the fractions would double each round


def history(histogram, rounds):
    omega, weights = [Fraction(1)] * len(histogram), []
    for sums in rounds:
        omega = step(omega, sums, prior(histogram))
        weights.append(omega)
    return weights


def balanced(histogram, beta):
    beta = Decimal(beta)  # the binary number that is nearest to what the study says
    raw = [(1 - beta) / (1 - beta ** max(count, 10)) for count in histogram]
    mean = sum(decimal(share) * value for share, value in zip(prior(histogram), raw, strict=True))
    return [value / mean for value in raw]


def adjustment(histogram, tau):
    return [Decimal(tau) * decimal(share).ln() for share in prior(histogram)]


def numbers(values):
    return [float(value) for value in values]


HISTOGRAMS = {
    "four classes": [1200, 2400, 90, 31],
    "a class below the floor": [500, 9, 60],
    "a class that no site has": [0, 40],
    "nobody has anything": [0, 0, 0],
    "at the floor": [10, 11, 9],
    "one class": [7],
    "a million": [1_000_000, 20, 3_000],
}

CONFUSIONS = {
    "four classes": [[150, 40, 6, 4], [30, 350, 15, 5], [2, 9, 4, 0], [1, 3, 0, 2]],
    "a class never decided": [[80, 20, 0], [15, 90, 0], [4, 8, 0]],
    "a class without cases": [[30, 5, 2], [7, 40, 3], [0, 0, 0]],
    "four cases are too few, five are enough": [[20, 3, 1], [2, 1, 1], [1, 2, 2]],
    "perfect": [[50, 0, 0], [0, 7, 0], [0, 0, 5]],
    "perfect but for a class with too few cases": [[50, 0, 0], [0, 7, 0], [0, 2, 1]],
    "all wrong": [[0, 12], [9, 0]],
    "one is perfect": [[60, 0, 0], [0, 14, 6], [0, 5, 15]],
    "two classes": [[90, 10], [4, 6]],
    "no case": [[0, 0], [0, 0]],
    "only one class is validated": [[10, 2], [0, 0]],
    "large": [[987_654, 12_346], [777, 99_223]],
}

NORMALISED = {
    "within bounds": ([1.0, 1.1, 0.9], [500, 300, 200]),
    "ones": ([1.0, 1.0, 1.0, 1.0], [1200, 2400, 90, 31]),
    "a scale is taken out": ([40.0, 44.0, 36.0], [500, 300, 200]),
    "a rare class at the upper bound": ([0.9, 1.0, 30.0], [900, 800, 20]),
    "a common class at the lower bound": ([0.01, 1.0, 1.2], [500, 300, 200]),
    "both bounds": ([0.01, 1.0, 1.1, 50.0], [300, 300, 300, 100]),
    "every class at a bound": ([0.001, 1000.0], [200, 100]),
    "far apart": ([1e-6, 1e6], [50, 50]),
    "one class": ([3.0], [20]),
}

STEPS = {
    "four classes": ([1.0, 1.0, 1.0, 1.0], "four classes", [1200, 2400, 90, 31]),
    "from unequal weights": ([0.9, 0.8, 2.0, 1.5], "four classes", [1200, 2400, 90, 31]),
    "a class never decided may rise": ([1.0, 1.0, 1.0], "a class never decided", [800, 850, 100]),
    "a class without cases goes back to its share": ([1.0, 0.8, 2.0], "a class without cases", [300, 400, 90]),
    "perfect": ([1.0, 1.0, 1.0], "perfect", [400, 60, 40]),
    "one is perfect": ([1.0, 1.0, 1.0], "one is perfect", [600, 200, 200]),
    "all wrong": ([1.0, 1.0], "all wrong", [12, 90]),
    "no case": ([0.8, 1.6], "no case", [300, 100]),
    "two classes": ([1.0, 1.0], "two classes", [1000, 100]),
}

IMPRECISE = [[400, 5, 150], [20, 180, 20], [150, 40, 30]]  # true positives, false positives, false negatives: class 1 cries wolf
AT_THE_THRESHOLD = [[30, 10, 14], [10, 10, 0], [4, 4, 12]]  # class 1, a quarter of the cases: precision exactly 2π

LEARNING = [
    [[0, 400, 0, 0], [0, 221, 0, 0], [200, 0, 15, 6]],
    [[90, 300, 0, 0], [110, 115, 4, 2], [110, 100, 15, 6]],
    [[120, 320, 2, 0], [70, 100, 6, 3], [80, 80, 13, 6]],
    [[140, 340, 3, 1], [50, 65, 13, 9], [60, 60, 12, 5]],
    [[150, 350, 5, 2], [35, 52, 18, 9], [50, 50, 10, 4]],
    [[150, 350, 6, 3], [34, 52, 17, 9], [50, 50, 9, 3]],
]

HISTORIES = {
    "six rounds": ([1200, 2400, 90, 31], LEARNING),
    "no round": ([1200, 2400, 90, 31], []),
    "the same round twenty times": ([1200, 2400, 90, 31], [LEARNING[0]] * 20),
    "imprecise for six rounds": ([500, 300, 200], [IMPRECISE] * 6),
    "two classes": ([300, 100], [[[70, 12], [8, 5], [5, 8]]] * 6),
}

SETTINGS = {
    "dynamic, on the decision, is the default": {},
    "dynamic, recall first": {"mode": "dynamic", "tau": 0.75},
    "dynamic, on the loss": {"acts_on": "loss"},
    "static": {"mode": "static", "tau": 1.0},
    "static, on the loss": {"mode": "static", "tau": 1.0, "acts_on": "loss"},
    "balanced": {"mode": "balanced"},
    "balanced, on the loss": {"mode": "balanced", "acts_on": "loss"},
    "balanced, smaller beta": {"mode": "balanced", "beta": 0.9},
    "balanced by zero beta is none": {"mode": "balanced", "beta": 0.0},
    "none": {"mode": "none", "tau": 1.0},
}


def by_settings(settings, histogram, rounds):
    mode, tau, beta = settings.get("mode", "dynamic"), settings.get("tau", 0.5), settings.get("beta", 0.999)
    omega = [1] * len(histogram)
    if mode == "dynamic" and rounds:
        omega = history(histogram, rounds)[-1]
    elif mode == "balanced":
        omega = balanced(histogram, beta)
    added = adjustment(histogram, tau if mode in ("dynamic", "static") else 0)
    offset = [0] * len(histogram)
    if settings.get("acts_on", "decision") == "decision":
        added = [value - decimal(Fraction(weight)).ln() for value, weight in zip(added, omega, strict=True)]
        offset = [-value for value in added]
    return {
        "omega": numbers(omega),
        "prior": numbers(prior(histogram)),
        "offset": numbers(offset),
        "adjustment": numbers(added),
    }


def accepted_steps():
    cases = {name: (omega, class_sums(CONFUSIONS[which]), histogram) for name, (omega, which, histogram) in STEPS.items()}
    cases["an imprecise class does not rise before normalising"] = ([1.0, 1.0, 1.0], IMPRECISE, [500, 300, 200])
    cases["precision at the threshold may rise"] = ([1.0, 1.0, 1.0], AT_THE_THRESHOLD, [500, 250, 250])
    return cases


def accepted():
    return {
        "class_prior": [{"name": n, "histogram": h, "output": numbers(prior(h))} for n, h in HISTOGRAMS.items()],
        "class_sums": [{"name": n, "confusion": c, "output": class_sums(c)} for n, c in CONFUSIONS.items()],
        "shrunk_f1": [
            {"name": n, "sums": class_sums(c), "output": numbers(shrunk_f1(class_sums(c)))} for n, c in CONFUSIONS.items()
        ],
        "difficulty_target": [
            {"name": n, "sums": class_sums(c), "output": numbers(target(class_sums(c)))} for n, c in CONFUSIONS.items()
        ],
        "normalise": [
            {"name": n, "weights": w, "prior": numbers(prior(h)), "output": numbers(normalise(w, prior(h)))}
            for n, (w, h) in NORMALISED.items()
        ],
        "step_difficulty": [
            {"name": n, "omega": w, "sums": s, "histogram": h, "output": numbers(step(w, s, prior(h)))}
            for n, (w, s, h) in accepted_steps().items()
        ],
        "history": [
            {"name": n, "histogram": h, "rounds": r, "output": [numbers(omega) for omega in history(h, r)]}
            for n, (h, r) in HISTORIES.items()
        ],
        "balanced_weights": [
            {"name": f"{n}, beta {beta}", "histogram": h, "beta": beta, "output": numbers(balanced(h, beta))}
            for n, h in HISTOGRAMS.items()
            for beta in (0.0, 0.9, 0.999)
        ],
        "class_weights": [
            {
                "name": n,
                "settings": s,
                "histogram": HISTORIES["six rounds"][0],
                "rounds": LEARNING,
                "output": by_settings(s, HISTORIES["six rounds"][0], LEARNING),
            }
            for n, s in SETTINGS.items()
        ],
    }


def refusal(name, function, phrase, **inputs):
    error = "ConfigurationError" if function == "settings" else "ProtocolError"
    return {"name": name, "function": function, **inputs, "error": error, "phrase": phrase}


def refused():
    """What must be refused; "nan" and "inf" are written as text, which JSON can carry."""
    no_counts, no_square = "is not a list of counts", "is not a square of counts"
    no_fit, no_weights = "do not fit 3 classes", "cannot be normalised"
    third, ones = [1 / 3] * 3, [1.0] * 3
    return [
        refusal("a negative count", "class_prior", no_counts, histogram=[20, -1]),
        refusal("no class", "class_prior", no_counts, histogram=[]),
        refusal("a table", "class_prior", no_counts, histogram=[[20, 30], [1, 2]]),
        refusal("halves of cases", "class_prior", no_counts, histogram=[20.5, 30.0]),
        refusal("not a number", "class_prior", no_counts, histogram=["nan", 30.0]),
        refusal("a negative count that would cancel", "class_sums", no_square, confusion=[[9, -1], [3, 9]]),
        refusal("not a square", "class_sums", no_square, confusion=[[9, 1, 0], [3, 9, 0]]),
        refusal("a list", "class_sums", no_square, confusion=[9, 1]),
        refusal("not a number", "normalise", no_weights, weights=[1.0, "nan", 1.0], prior=third),
        refusal("infinite", "normalise", no_weights, weights=[1.0, "inf", 1.0], prior=third),
        refusal("zero", "normalise", no_weights, weights=[1.0, 0.0, 1.0], prior=third),
        refusal("negative", "normalise", no_weights, weights=[1.0, -1.0, 1.0], prior=third),
        refusal("fewer than the classes", "normalise", no_weights, weights=[1.0, 1.0], prior=third),
        refusal("bounds above one", "normalise", no_weights, weights=ones, prior=third, bounds=[1.2, 2.0]),
        refusal("bounds below one", "normalise", no_weights, weights=ones, prior=third, bounds=[0.5, 0.9]),
        refusal("two rows", "step_difficulty", no_fit, omega=ones, sums=[[1, 1, 1], [1, 1, 1]], prior=third),
        refusal("two classes", "step_difficulty", no_fit, omega=ones, sums=[[1, 1], [1, 1], [1, 1]], prior=third),
        refusal("negative sums", "step_difficulty", no_fit, omega=ones, sums=[[1, 1, 1], [1, -1, 1], [1, 1, 1]], prior=third),
        refusal("weights not a number", "step_difficulty", no_weights, omega=[1.0, "nan", 1.0], sums=IMPRECISE, prior=third),
        refusal("a history of other classes", "class_weights", no_fit, histogram=[20, 30, 40], rounds=[[[1, 1], [1, 1], [1, 1]]]),
        refusal("a histogram that is negative", "class_weights", no_counts, histogram=[20, -30, 40], rounds=[]),
        refusal("an unknown mode", "settings", "mode is 'adaptive'", settings={"mode": "adaptive"}),
        refusal("tau above two", "settings", "tau is 2.5", settings={"tau": 2.5}),
        refusal("tau below zero", "settings", "tau is -0.1", settings={"tau": -0.1}),
        refusal("beta of one", "settings", "beta is 1.0", settings={"beta": 1.0}),
        refusal("an unknown key", "settings", "gamma is not a known key", settings={"gamma": 2.0}),
    ]


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(case, allow_nan=False) for case in cases) + "\n]"


if __name__ == "__main__":
    sections = ",\n".join(f'"{function}": {lines(cases)}' for function, cases in accepted().items())
    sys.stdout.write(f'{{"accepted": {{\n{sections}\n}},\n"refused": {lines(refused())}}}\n')
