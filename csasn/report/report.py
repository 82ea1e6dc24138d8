"""report.json: what came of a run, for programs and people. Documented in csasn/SPEC.md; keys may be added, none changes."""

from collections.abc import Iterable, Mapping, Sequence

from csasn import __version__
from csasn.finished.weights import NOTICE
from csasn.measures.blocks import Integers
from csasn.measures.counts import ClassMetrics, Floats, macro_auroc_interval, metrics_from_counts, resample_aurocs
from csasn.measures.curves import CalibrationBin, calibration_error, precision_recall_curve, reliability, roc_curve
from csasn.measures.intervals import METHODS, auroc_interval, balanced_accuracy_interval, wilson
from csasn.platform.randomness import generator
from csasn.report.used import used_data
from csasn.study import Study
from csasn.trust.membership import Membership

Event = Mapping[str, object]
SEEN_PLAIN = "each site's update and counts (secure aggregation is off)"
SEEN_MASKED = "sums over all sites alone, of updates and of counts; who answered, and when"
ROUND_KEYS = ("absent", "participants", "attempts", "clipped_share", "bytes_up", "bytes_down", "seconds", "class_weights")
METRIC_KEYS = ("loss", "macro_auroc", "balanced_accuracy", "recall")
CONCLUSIVE_CASES = 10  # test cases of a class; of fewer nothing is to be concluded
SHOWN_CASES = 5  # training cases of a class; fewer are not shown


def final_metrics(study: Study, counts: Mapping[str, Integers], current_round: int) -> dict[str, object]:
    """Metrics of summed test counts, with intervals, curves and calibration."""
    metrics = metrics_from_counts(counts)
    resampled = resample_aurocs(counts["scores"], generator(study.seed, "interval"))
    reliabilities = [reliability(histogram_2B) for histogram_2B in counts["scores"]]
    errors = [error for bins in reliabilities if (error := calibration_error(bins)) is not None]
    return {
        "macro_auroc": metrics.macro_auroc,
        "macro_auroc_ci95": _pair(macro_auroc_interval(counts["scores"], resampled)),
        "balanced_accuracy": metrics.balanced_accuracy,
        "balanced_accuracy_ci95": _pair(balanced_accuracy_interval(counts["confusion"])),
        "macro_f1": metrics.macro_f1,
        "ece": sum(errors) / len(errors) if errors else None,
        "intervals": METHODS,
        "per_class": {
            name: _rates(item) | _intervals(counts, c, resampled[c]) | _curves(counts["scores"][c], reliabilities[c])
            for c, (name, item) in enumerate(zip(study.classes, metrics.per_class, strict=True))
        },
        "malignancy_auroc": metrics.malignancy_auroc,
        "confusion": [list(row) for row in metrics.confusion],
        "round": current_round,
    }


def _rates(item: ClassMetrics) -> dict[str, object]:
    rates: dict[str, object] = {"recall": item.recall, "precision": item.precision, "f1": item.f1, "auroc": item.auroc}
    return rates | {"support": item.support, "conclusive": item.support >= CONCLUSIVE_CASES}


def _intervals(counts: Mapping[str, Integers], c: int, resampled_S: Floats | None) -> dict[str, object]:
    confusion_KK = counts["confusion"]
    hits, support, decided = int(confusion_KK[c, c]), int(confusion_KK[c].sum()), int(confusion_KK[:, c].sum())
    return {
        "recall_ci95": _pair(wilson(hits, support)),
        "precision_ci95": _pair(wilson(hits, decided)),
        "auroc_ci95": _pair(auroc_interval(counts["scores"][c], resampled_S)),
    }


def _curves(histogram_2B: Integers, bins: tuple[CalibrationBin, ...]) -> dict[str, object]:
    """Curves and calibration of a class; for drawing, so to six decimals."""
    return {
        "roc": _rounded(roc_curve(histogram_2B)),
        "precision_recall": _rounded(precision_recall_curve(histogram_2B)),
        "ece": calibration_error(bins),
        "reliability": _rounded([(item.probability, item.share, item.num_cases) for item in bins] or None),
    }


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    return list(interval) if interval else None


def _rounded(rows: Sequence[tuple[float, ...]] | None) -> list[list[float]] | None:
    return None if rows is None else [[round(value, 6) for value in row] for row in rows]


def build_report(study: Study, membership: Membership, engine: str, events: Sequence[Event], status: str) -> dict[str, object]:
    """The report of a run from its events.

    Args:
        study: the run's study.
        membership: its roster.
        engine: local, flower or deployment.
        events: the run's events, oldest first; of a round told twice, after a crash, the last counts.
        status: complete, degraded, incomplete, stopped or failed.
    """
    outcome, finish = _last(events, "outcome"), _last(events, "finish")
    trained = {str(event["name"]): event["final"] for event in events if event["event"] == "baseline"}
    baselines = {name: trained[name] for name in sorted(trained, key=lambda name: (name != "pooled", name))}
    rounds = [_round(number, events) for number in _rounds(events)]
    return {
        "schema_version": 1,
        "notice": NOTICE,
        "study": study.name,
        "study_hash": study.study_hash,
        "membership_hash": membership.membership_hash,
        "code_version": __version__,
        "engine": engine,
        "seed": study.seed,
        "profile": study.model.profile,
        "about": study.about.model_dump(mode="json") if study.about else None,
        "classes": list(study.classes),
        "secure_aggregation": study.federation.secure_aggregation,
        "coordinator_saw": SEEN_MASKED if study.federation.secure_aggregation else SEEN_PLAIN,
        "sites": {member.site: {"weight": member.weight_units / 64} for member in membership.members},
        "training_cases": _training_cases(study, events),
        "data": used_data(_last(events, "hello"), SHOWN_CASES),
        "withdrawn": finish.get("withdrawn") if finish else None,
        "rounds": rounds,
        "totals": _totals(rounds, events),
        "absent_at_finish": finish["absent"] if finish else None,
        "final": outcome["final"] if outcome else None,
        "state_hash": outcome["state_hash"] if outcome else None,
        "weights_sha256": outcome.get("weights_sha256") if outcome else None,
        "adjustment": outcome.get("adjustment") if outcome else None,
        "baselines": baselines,
        "status": status,
    }


def run_status(events: Sequence[Event]) -> str:
    """complete; degraded if a round or the end lacked a site; incomplete if metrics were withheld; stopped before the outcome."""
    outcome = _last(events, "outcome")
    if outcome is None:
        return "failed" if events and events[-1]["event"] == "failed" else "stopped"  # a failed run may have gone on
    if outcome["final"] is None or any(event["event"] == "evaluation-withheld" for event in events):
        return "incomplete"
    finish = _last(events, "finish")
    partial = any((_last(events, "round-finished", number) or {}).get("absent") for number in _rounds(events))
    return "degraded" if partial or (finish and finish["absent"]) else "complete"


def _training_cases(study: Study, events: Sequence[Event]) -> dict[str, int | None]:
    """Training cases of each class over all sites; None where they are too few to show, or were not counted yet."""
    counted = _last(events, "hello")
    histogram = counted["histogram"] if counted else [0] * len(study.classes)
    assert isinstance(histogram, list)
    return {name: int(n) if int(n) >= SHOWN_CASES else None for name, n in zip(study.classes, histogram, strict=True)}


def _totals(rounds: Sequence[Event], events: Iterable[Event]) -> dict[str, object]:
    """Sums over the accepted rounds; in how many an attempt failed, in how many a site is missing."""
    repeated = {event["round"] for event in events if event["event"] == "round-repeated"}
    facts: dict[str, object] = {"rounds": len(rounds), "repeated_rounds": len(repeated)}
    facts["partial_rounds"] = sum(bool(row["absent"]) for row in rounds)
    sizes = {key: sum(int(str(row[key])) for row in rounds) for key in ("bytes_up", "bytes_down")}
    return facts | sizes | {"seconds": round(sum(float(str(row["seconds"])) for row in rounds), 3)}


def _rounds(events: Iterable[Event]) -> list[int]:
    return sorted({int(str(event["round"])) for event in events if event["event"] == "round-finished"})


def _round(number: int, events: Sequence[Event]) -> dict[str, object]:
    """One round; its metrics are those of the model that came of it, counted at the start of the next exchange."""
    finished = _last(events, "round-finished", number) or {}
    evaluated = _last(events, "evaluated", number) or {}
    started = _last(events, "train-started", number) or {}
    facts = {key: finished.get(key) for key in ROUND_KEYS} | {key: evaluated.get(key) for key in METRIC_KEYS}
    return {"round": number, **facts, "class_weights": started.get("class_weights")}


def _last(events: Sequence[Event], kind: str, number: int | None = None) -> Event | None:
    found = [event for event in events if event["event"] == kind and (number is None or event["round"] == number)]
    return found[-1] if found else None
