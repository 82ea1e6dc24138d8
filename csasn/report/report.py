"""report.json: what came of a run, for programs and people. Documented in csasn/SPEC.md; keys may be added, none changes."""

from collections.abc import Iterable, Mapping, Sequence

from csasn import __version__
from csasn.membership import Membership
from csasn.metrics import Integers, macro_auroc_interval, metrics_from_counts
from csasn.randomness import generator
from csasn.study import Study

Event = Mapping[str, object]
SEEN_PLAIN = "each site's update and counts (secure aggregation is off)"
SEEN_MASKED = "sums over the sites alone: of updates over those who took part, of counts over all of them; who answered, and when"
ROUND_KEYS = ("absent", "participants", "attempts", "clipped_share", "bytes_up", "bytes_down", "seconds", "class_weights")
METRIC_KEYS = ("loss", "macro_auroc", "balanced_accuracy", "recall")


def final_metrics(study: Study, counts: Mapping[str, Integers], current_round: int) -> dict[str, object]:
    """Metrics of summed test counts, with the interval of the macro AUROC."""
    metrics = metrics_from_counts(counts)
    interval = macro_auroc_interval(counts["scores"], generator(study.seed, "interval"))
    per_class = {
        name: {"recall": m.recall, "precision": m.precision, "f1": m.f1, "auroc": m.auroc, "support": m.support}
        for name, m in zip(study.classes, metrics.per_class, strict=True)
    }
    return {
        "macro_auroc": metrics.macro_auroc,
        "macro_auroc_ci95": list(interval) if interval else None,
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "per_class": per_class,
        "malignancy_auroc": metrics.malignancy_auroc,
        "confusion": [list(row) for row in metrics.confusion],
        "round": current_round,
    }


def build_report(study: Study, membership: Membership, engine: str, events: Sequence[Event], status: str) -> dict[str, object]:
    """The report of a run from its events.

    Args:
        study: the run's study.
        membership: its roster.
        engine: local, flower or deployment.
        events: the run's events, oldest first; of a round told twice, after a crash, the last counts.
        status: complete, degraded, incomplete, stopped or failed.
    """
    outcome = _last(events, "outcome")
    trained = {str(event["name"]): event["final"] for event in events if event["event"] == "baseline"}
    baselines = {name: trained[name] for name in sorted(trained, key=lambda name: (name != "pooled", name))}
    return {
        "schema_version": 1,
        "study_hash": study.study_hash,
        "code_version": __version__,
        "engine": engine,
        "seed": study.seed,
        "profile": study.model.profile,
        "classes": list(study.classes),
        "secure_aggregation": study.federation.secure_aggregation,
        "coordinator_saw": SEEN_MASKED if study.federation.secure_aggregation else SEEN_PLAIN,
        "sites": {member.site: {"weight": member.weight_units / 64} for member in membership.members},
        "rounds": [_round(number, events) for number in _rounds(events)],
        "final": outcome["final"] if outcome else None,
        "state_hash": outcome["state_hash"] if outcome else None,
        "baselines": baselines,
        "status": status,
    }


def run_status(events: Sequence[Event]) -> str:
    """complete; degraded if a round was partial; incomplete if metrics were withheld; stopped before the outcome."""
    outcome = _last(events, "outcome")
    if outcome is None:
        return "failed" if events and events[-1]["event"] == "failed" else "stopped"  # a failed run may have gone on
    if outcome["final"] is None or any(event["event"] == "evaluation-withheld" for event in events):
        return "incomplete"
    partial = any(event["event"] == "round-finished" and event["absent"] for event in events)
    return "degraded" if partial else "complete"


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
