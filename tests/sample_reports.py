"""Reports with every documented key, made of formulas, for the pages that show them."""

from math import cos, sin

CLASSES = ("benign", "PTC", "FTC", "MTC")
SITES = ("centerA", "centerB", "centerC", "centerD")
SUPPORT = (412, 228, 17, 6)


def sample_report(status="complete", classes=CLASSES, sites=SITES, rounds=12):
    """A report of that status; `stopped` and `failed` have no test metrics, `incomplete` withheld ones."""
    partial = () if status == "complete" else (3, 7)
    final = None if status in ("stopped", "failed", "incomplete") else _final(classes, 0.86, rounds)
    alone = {f"single/{site}": _other(classes, 0.74 + 0.05 * (number % 4), rounds) for number, site in enumerate(sites)}
    told = [_round(number, classes, sites, number in partial, status) for number in range(1, rounds + 1)]
    return {
        "schema_version": 1,
        "study": "thyroid-sample",
        "study_hash": "849163918bdd81a06cf0c21c9fea0ad94d20983ea596ccbb355d6cd04c092fdd",
        "code_version": "0.1.0",
        "engine": "local",
        "seed": 1,
        "profile": "csasn-lite",
        "classes": list(classes),
        "malignant": list(classes[1:]),
        "secure_aggregation": True,
        "coordinator_saw": "sums over the sites alone",
        "sites": {site: {"weight": 1 / len(sites)} for site in sites},
        "rounds": told,
        "final": final,
        "state_hash": "d0aecff388c5dcca78adde49619fc3f3d4db1e7fc3d59488247cead1eb88f81d" if final else None,
        "weights_sha256": "5c3f9e0b7a" * 6 + "abcd" if final else None,
        "adjustment": [-0.5 - 0.4 * number for number in range(len(classes))] if final else None,
        "membership_hash": "1f0e3dad99908345f7439f8ffabdffc4" * 2,
        "baselines": {"pooled": _other(classes, 0.88, rounds), **alone} if final else {},
        "absent_at_finish": {sites[-1]: "no answer within the deadline"} if status == "incomplete" else {},
        "status": status,
        "about": {"organ": "thyroid", "modality": "ultrasound", "intended_use": None},
        "data": {split: _used(900 // (number + 1)) for number, split in enumerate(("train", "validation", "test"))},
        "training_cases": {name: 900 // (1 + number**2) if number < 3 else None for number, name in enumerate(classes)},
        "totals": {
            "rounds": rounds,
            "repeated_rounds": 1 if partial else 0,
            "partial_rounds": sum(number <= rounds for number in partial),
            "bytes_up": sum(row["bytes_up"] for row in told),
            "bytes_down": sum(row["bytes_down"] for row in told),
            "seconds": sum(row["seconds"] for row in told),
        },
        "elapsed": {"whole": 9315.25, "working": 815.25, "waiting": 8400.0, "stopped": 40.0, "baselines": 60.0},
        "notice": "for research only: not a medical device, not for diagnosis",
    }


def sample_events(report):
    """Events that fit the report: those of an ordinary start, and whatever went wrong."""
    events = [
        {"event": "hello", "time": "2026-11-27T22:05:56.955+00:00", "sites": list(report["sites"]), "histogram": [19, 16, 4, 3]}
    ]
    for row in report["rounds"]:
        time = f"2026-11-27T22:{10 + row['round'] % 50}:00.000+00:00"
        if row["absent"]:
            events.append({"event": "round-repeated", "time": time, "round": row["round"], "attempt": 4, "absent": row["absent"]})
        events.append({"event": "round-finished", "time": time, "round": row["round"], "absent": row["absent"]})
    last = {"stopped": {"event": "stopped"}, "failed": {"event": "failed", "error": "round 13: 2 sites answered, expected 3"}}
    return [*events, {"time": "2026-11-27T23:00:00.000+00:00", **last.get(report["status"], {"event": "run-finished"})}]


def _used(cases):
    images = {"images": 2 * cases, "images_used": 2 * cases - 7, "images_left_out": 7}
    return {"cases": cases, "cases_used": cases - 3, **images}


def _round(number, classes, sites, partial, status):
    missing, withheld = sites[-1], partial and status == "incomplete"
    growth = 1 - 1 / (1 + number)
    return {
        "round": number,
        "absent": {missing: "no answer within the deadline"} if partial else {},
        "participants": [site for site in sites if not (partial and site == missing)],
        "attempts": 2 if partial else 1,
        "clipped_share": None if partial else 0.001 * number,
        "bytes_up": 5_495_380 + 1000 * number,
        "bytes_down": 8_412_540 // (1 + (number > 1)),
        "seconds": 61.2 + 7 * sin(number),
        "class_weights": [1 + 0.3 * sin(0.1 * number * index) for index in range(len(classes))],
        "loss": None if withheld else 1.4 - growth / 2,
        "macro_auroc": None if withheld else 0.5 + 0.4 * growth,
        "balanced_accuracy": None if withheld else 0.25 + 0.5 * growth,
        "recall": None if withheld else {name: growth * (0.9 - 0.15 * (index % 6)) for index, name in enumerate(classes)},
    }


def _final(classes, quality, rounds):
    support = [SUPPORT[index % len(SUPPORT)] for index in range(len(classes))]
    per_class = {name: _class(index % 4, support[index], quality) for index, name in enumerate(classes)}
    confusion = [
        [_confused(row, column, support[row], len(classes)) for column in range(len(classes))] for row in range(len(classes))
    ]
    return {
        "macro_auroc": quality,
        "macro_auroc_ci95": [quality - 0.031, quality + 0.028],
        "balanced_accuracy": quality - 0.2,
        "balanced_accuracy_ci95": [quality - 0.26, quality - 0.15],
        "macro_f1": quality - 0.25,
        "ece": 0.061,
        "intervals": "95 %, by resampling histogram bins",
        "per_class": per_class,
        "malignancy_auroc": quality + 0.02,
        "malignancy": _malignancy(confusion),
        "confusion": confusion,
        "round": rounds,
    }


def _malignancy(confusion):
    """Where the first class is benign, and all others are not."""
    cancers, benign = sum(map(sum, confusion[1:])), sum(confusion[0])
    found, cleared = sum(sum(row[1:]) for row in confusion[1:]), confusion[0][0]
    return {
        "cancers": cancers,
        "found": found,
        "sensitivity": found / cancers,
        "sensitivity_ci95": [found / cancers - 0.02, found / cancers + 0.015],
        "benign": benign,
        "cleared": cleared,
        "specificity": cleared / benign,
        "specificity_ci95": [cleared / benign - 0.03, cleared / benign + 0.02],
    }


def _other(classes, quality, rounds):
    """A model to compare with, of the same cases."""
    value = 0.86 - quality
    names = ("macro_auroc", "balanced_accuracy", "sensitivity", "specificity")
    gains = {
        name: {"value": value / (1 + number), "ci95": [value / (1 + number) - 0.02, value / (1 + number) + 0.025]}
        for number, name in enumerate(names)
    }
    return {**_final(classes, quality, rounds), "gains": gains}


def _class(index, support, quality):
    recall, spread = quality - 0.2 * (index > 1), 1 / (support + 4) ** 0.5
    grid = [step / 32 for step in range(33)]
    return {
        "recall": recall,
        "recall_ci95": [max(0.0, recall - spread), min(1.0, recall + spread)],
        "precision": quality - 0.11 * index,
        "precision_ci95": [quality - 0.11 * index - 0.08, quality - 0.11 * index + 0.08],
        "f1": quality - 0.15 * index,
        "auroc": quality - 0.01 * index,
        "auroc_ci95": [quality - 0.01 * index - spread, min(1.0, quality + spread)],
        "support": support,
        "ece": 0.02 + 0.01 * index,
        "conclusive": support >= 10,
        "roc": [[x, x ** (1 / quality - 1)] for x in grid],
        "precision_recall": [[x, 1 - (1 - quality) * (1 + index) * x] for x in grid],
        "reliability": [[0.1 * bin_ + 0.05, (0.1 * bin_ + 0.05) ** (1.2 + 0.1 * index), 3 + int(40 * cos(bin_ / 7) ** 2)]
                        for bin_ in range(10) if bin_ != 6],
    }  # fmt: skip


def _confused(row, column, support, num_classes):
    wrong = support // (4 * num_classes)
    return support - wrong * (num_classes - 1) if row == column else wrong
