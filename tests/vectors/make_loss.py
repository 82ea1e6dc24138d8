"""Makes loss.json: `python make_loss.py > loss.json`.

Written from the equations of csasn/SPEC.md, "Loss", and not from the code under test, which it does not import: one image and one
value at a time, with the gradient by its closed formula. Numbers carry 50 digits (decimal), so that every machine prints the same.

    loss           = Σ_t v_t / |S_t| Σ_{i in S_t} ω[class_i] (log Σ_k exp(f_ik + a_k) - f_iy - a_y)
    d loss / d f_ik = v_t / |S_t| ω[class_i] (softmax(f_i + a)_k - [k = y_i]) where image i is labelled, 0 where it is not
"""

import json
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 50


def logits_of(draw, num_images, num_values, spread=3.0):
    return [[round(draw.uniform(-spread, spread), 3) for _ in range(num_values)] for _ in range(num_images)]


def image_weight(omega, classes, i):
    return Decimal(1) if classes[i] == -1 else Decimal(omega[classes[i]])


def evaluate(case):
    """Loss, and its gradient with respect to the logits of each task."""
    loss, gradients = Decimal(0), {}
    classes = case["labels"]["subtype"]
    for task, task_weight in case["task_weights"].items():
        labels, rows = case["labels"][task], case["logits"][task]
        num_labelled = case.get("num_labelled", {}).get(task, sum(1 for label in labels if label != -1))
        gradients[task] = [[Decimal(0)] * len(row) for row in rows]
        for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
            if label == -1:
                continue
            added = case["adjustments"].get(task, [0] * len(row))
            powers = [(Decimal(f) + Decimal(a)).exp() for f, a in zip(row, added, strict=True)]
            factor = Decimal(task_weight) / num_labelled * image_weight(case["omega"], classes, i)
            loss -= factor * (powers[label] / sum(powers)).ln()
            gradients[task][i] = [factor * (power / sum(powers) - (k == label)) for k, power in enumerate(powers)]
    return {
        "loss": float(loss),
        "gradients": {task: [[float(value) for value in row] for row in rows] for task, rows in gradients.items()},
    }


def cases():
    draw = random.Random(20250502)
    subtype_4 = logits_of(draw, 5, 4)
    adjusted = {"subtype": [-0.5, -0.2, -1.9, -2.4], "malignancy": [-0.55, -0.2]}
    three_tasks = {
        "task_weights": {"subtype": 1.0, "malignancy": 0.5, "margin": 0.25},
        "omega": [0.8, 0.9, 1.9, 1.4],
        "adjustments": adjusted,
        "logits": {"subtype": subtype_4, "malignancy": logits_of(draw, 5, 2), "margin": logits_of(draw, 5, 3)},
        "labels": {"subtype": [0, 1, 2, 3, -1], "malignancy": [0, 1, 1, 1, -1], "margin": [2, -1, -1, 0, 1]},
    }
    one_task = {"task_weights": {"subtype": 1.0}, "omega": [1.0] * 4, "adjustments": {}, "logits": {"subtype": subtype_4}}
    labels = {"subtype": [0, 1, 2, 3, 1]}
    part = {task: rows[:2] for task, rows in three_tasks["logits"].items()}
    part_labels = {task: rows[:2] for task, rows in three_tasks["labels"].items()}
    return {
        "plain cross entropy": {**one_task, "labels": labels},
        "weights of the classes": {**one_task, "labels": labels, "omega": [0.8, 0.9, 1.9, 1.4]},
        "a site of one class feels its weight": {**one_task, "labels": {"subtype": [2] * 5}, "omega": [0.8, 0.9, 1.9, 1.4]},
        "logit adjustment": {**one_task, "labels": labels, "adjustments": {"subtype": adjusted["subtype"]}},
        "task weight": {**one_task, "labels": labels, "task_weights": {"subtype": 0.3}},
        "labels missing": {**one_task, "labels": {"subtype": [0, -1, 2, -1, 1]}},
        "no label at all": {**one_task, "labels": {"subtype": [-1] * 5}},
        "three tasks, labels missing": three_tasks,
        "a task without labels": {**three_tasks, "labels": {**three_tasks["labels"], "margin": [-1] * 5}},
        "class missing, descriptor known": {
            **three_tasks,
            "labels": {"subtype": [-1] * 5, "malignancy": [-1] * 5, "margin": [0] * 5},
        },
        "part of a batch": {
            **three_tasks,
            "logits": part,
            "labels": part_labels,
            "num_labelled": {"subtype": 4, "malignancy": 4, "margin": 3},
        },
        "part of a batch without a label of a task": {
            **three_tasks,
            "logits": {task: rows[1:3] for task, rows in three_tasks["logits"].items()},
            "labels": {task: rows[1:3] for task, rows in three_tasks["labels"].items()},
            "num_labelled": {"subtype": 4, "malignancy": 4, "margin": 3},
        },
        "large logits": {**one_task, "labels": labels, "logits": {"subtype": logits_of(draw, 5, 4, spread=60.0)}},
        "two classes": {
            **one_task,
            "omega": [0.5, 2.0],
            "adjustments": {"subtype": [-0.1, -1.7]},
            "logits": {"subtype": logits_of(draw, 3, 2)},
            "labels": {"subtype": [0, 1, 1]},
        },
    }


def adjustments(histogram, malignant, tau):
    """τ log π for each class; for malignancy τ log of the summed priors of the benign and of the malignant classes."""
    floored = [max(count, 10) for count in histogram]
    prior = [Fraction(count, sum(floored)) for count in floored]
    share = sum(prior[c] for c in malignant)

    def scaled_log(value):
        return float(Decimal(tau) * (Decimal(value.numerator) / Decimal(value.denominator)).ln())

    result = {"subtype": [scaled_log(value) for value in prior]}
    return result | ({"malignancy": [scaled_log(1 - share), scaled_log(share)]} if malignant else {})


def terms():
    histogram = [1200, 2400, 90, 4]
    every = {"histogram": histogram, "malignant": [1, 2, 3]}
    inputs = {
        "default": {**every, "settings": {}, "tau": 0.5},
        "recall first": {**every, "settings": {"tau": 0.75}, "tau": 0.75},
        "static": {**every, "settings": {"mode": "static", "tau": 1.0}, "tau": 1.0},
        "balanced has none": {**every, "settings": {"mode": "balanced", "tau": 1.0}, "tau": 0},
        "none": {**every, "settings": {"mode": "none", "tau": 1.0}, "tau": 0},
        "a rare malignant class": {**every, "malignant": [3], "settings": {}, "tau": 0.5},
        "no malignancy task": {**every, "malignant": [], "settings": {}, "tau": 0.5},
    }
    return [
        {"name": name, **case, "output": adjustments(case["histogram"], case["malignant"], case["tau"])}
        for name, case in inputs.items()
    ]


def refused():
    plain = {"task_weights": {"subtype": 1.0}, "omega": [1.0, 1.0], "adjustments": {}}
    two_images = {"subtype": [[0.1, 0.2], [0.3, 0.4]]}
    return [
        {
            "name": "a label beyond the classes",
            **plain,
            "logits": two_images,
            "labels": {"subtype": [0, 2]},
            "error": "IndexError",
            "phrase": "out of bounds",
        },
        {
            "name": "a missing label that is not -1",
            **plain,
            "logits": two_images,
            "labels": {"subtype": [0, -2]},
            "error": "IndexError",
            "phrase": "out of bounds",
        },
        {
            "name": "a task without logits",
            **plain,
            "task_weights": {"subtype": 1.0, "margin": 1.0},
            "logits": two_images,
            "labels": {"subtype": [0, 1], "margin": [0, 1]},
            "error": "KeyError",
            "phrase": "margin",
        },
    ]


def lines(cases):
    return "[\n" + ",\n".join(json.dumps(case, allow_nan=False) for case in cases) + "\n]"


if __name__ == "__main__":
    losses = [{"name": name, **case, "output": evaluate(case)} for name, case in cases().items()]
    sys.stdout.write(
        f'{{"accepted": {{\n"loss": {lines(losses)},\n"terms": {lines(terms())}\n}},\n"refused": {lines(refused())}}}\n'
    )
