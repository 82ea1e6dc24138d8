"""report.json: what came of a run, for programs and people. Documented in csasn/SPEC.md; keys may be added, none changes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby

import numpy as np

from csasn import NOTICE, __version__
from csasn.data.split import SPLITS, TRAIN
from csasn.measures.blocks import Integers
from csasn.measures.counts import (
    OWN,
    PAIRED,
    ClassMetrics,
    Floats,
    macro_auroc_interval,
    metrics_from_counts,
    resample_aurocs,
)
from csasn.measures.curves import calibration_error, precision_recall_curve, reliability, roc_curve
from csasn.measures.intervals import METHODS, auroc_interval, balanced_accuracy_interval, paired_difference, wilson
from csasn.model.packages import branch_starts
from csasn.platform.randomness import generator
from csasn.report.elapsed import elapsed
from csasn.report.events import (
    BaselineTrained,
    Continued,
    Evaluated,
    EvaluationWithheld,
    Event,
    Failed,
    Finish,
    Hello,
    Outcome,
    Repeated,
    RoundFinished,
    Started,
    finished_rounds,
    last,
    of_kind,
)
from csasn.report.types import (
    BranchStart,
    ClassResult,
    Engine,
    Malignancy,
    MembershipSpan,
    OwnStatistics,
    Report,
    Result,
    RoundResult,
    SiteWeight,
    Status,
    Totals,
    Used,
)
from csasn.study import Study
from csasn.trust.membership import Membership

SEEN_PLAIN = "each site's update and counts (secure aggregation is off)"
SEEN_MASKED = "sums over all sites alone, of updates and of counts; who answered, and when"
CONCLUSIVE_CASES = 10  # test cases of a class; of fewer nothing is to be concluded
SHOWN_CASES = 5  # training cases of a class; fewer are not shown


def final_metrics(study: Study, counts: Mapping[str, Integers], current_round: int) -> Result:
    """Metrics of summed test counts, with intervals, curves and calibration."""
    metrics = metrics_from_counts(counts)
    resampled = resample_aurocs(counts["scores"], generator(study.seed, "interval"))
    per_class = {
        name: _class_result(rates, counts, c, resampled[c])
        for c, (name, rates) in enumerate(zip(study.classes, metrics.per_class, strict=True))
    }
    errors = [row.ece for row in per_class.values() if row.ece is not None]
    return Result(
        macro_auroc=metrics.macro_auroc,
        macro_auroc_ci95=macro_auroc_interval(counts["scores"], resampled),
        balanced_accuracy=metrics.balanced_accuracy,
        balanced_accuracy_ci95=balanced_accuracy_interval(counts["confusion"]),
        macro_f1=metrics.macro_f1,
        ece=sum(errors) / len(errors) if errors else None,
        intervals=METHODS,
        per_class=per_class,
        malignancy_auroc=metrics.malignancy_auroc,
        malignancy=_malignancy(study, counts["confusion"]),
        confusion=metrics.confusion,
        round=current_round,
    )


def _malignancy(study: Study, confusion_KK: Integers) -> Malignancy | None:
    """Cancers found and benign cases cleared, by decisions alone; None where the study does not tell both apart."""
    is_malignant_K = np.isin(np.arange(len(study.classes)), study.malignant_classes)
    if is_malignant_K.all() or not is_malignant_K.any():
        return None
    cancers, benign = (confusion_KK[rows_K] for rows_K in (is_malignant_K, ~is_malignant_K))
    found, cleared = int(cancers[:, is_malignant_K].sum()), int(benign[:, ~is_malignant_K].sum())
    num_cancers, num_benign = int(cancers.sum()), int(benign.sum())
    return Malignancy(
        cancers=num_cancers,
        found=found,
        sensitivity=found / num_cancers if num_cancers else None,
        sensitivity_ci95=wilson(found, num_cancers),
        benign=num_benign,
        cleared=cleared,
        specificity=cleared / num_benign if num_benign else None,
        specificity_ci95=wilson(cleared, num_benign),
    )


def own_statistics(study: Study, counts: Mapping[str, Integers], current_round: int) -> OwnStatistics | None:
    """The same with statistics of the sites' own, beside the released ones; None where a model can have none."""
    own = {name.removeprefix(OWN): block for name, block in counts.items() if name.startswith(OWN)}
    if not own:
        return None
    more, fewer = counts[PAIRED[0]].tolist()
    difference, interval = paired_difference(more, fewer, int(own["confusion"].sum()))
    result = final_metrics(study, own, current_round)
    return OwnStatistics(result=result, accuracy_difference=difference, accuracy_difference_ci95=interval)


def _class_result(rates: ClassMetrics, counts: Mapping[str, Integers], c: int, resampled_S: Floats | None) -> ClassResult:
    """Rates of a class with their intervals; curves and calibration, for drawing, to six decimals."""
    histogram_2B, confusion_KK = counts["scores"][c], counts["confusion"]
    hits, decided = int(confusion_KK[c, c]), int(confusion_KK[:, c].sum())
    bins = reliability(histogram_2B)
    return ClassResult(
        recall=rates.recall,
        precision=rates.precision,
        f1=rates.f1,
        auroc=rates.auroc,
        support=rates.support,
        conclusive=rates.support >= CONCLUSIVE_CASES,
        recall_ci95=wilson(hits, rates.support),
        precision_ci95=wilson(hits, decided),
        auroc_ci95=auroc_interval(histogram_2B, resampled_S),
        roc=_rounded(roc_curve(histogram_2B)),
        precision_recall=_rounded(precision_recall_curve(histogram_2B)),
        ece=calibration_error(bins),
        reliability=tuple((round(item.probability, 6), round(item.share, 6), item.num_cases) for item in bins) or None,
    )


def _rounded(points: Sequence[tuple[float, float]] | None) -> tuple[tuple[float, float], ...] | None:
    return None if points is None else tuple((round(x, 6), round(y, 6)) for x, y in points)


def build_report(study: Study, membership: Membership, engine: Engine, events: Sequence[Event], status: Status) -> Report:
    """The report of a run from its events, oldest first; of a round told twice, after a crash, the last counts."""
    outcome, finish, hello = last(events, Outcome), last(events, Finish), last(events, Hello)
    trained = {event.name: event.final for event in of_kind(events, BaselineTrained)}
    rounds = round_results(events)
    return Report(
        schema_version=1,
        notice=NOTICE,
        study=study.name,
        study_hash=study.study_hash,
        membership_hash=membership.membership_hash,
        code_version=__version__,
        engine=engine,
        seed=study.seed,
        profile=study.model.profile,
        initial_weights={branch: BranchStart(**asdict(start)) for branch, start in branch_starts(study).items()},
        about=study.about.model_dump(mode="json") if study.about else None,
        classes=study.classes,
        malignant=study.malignant,
        secure_aggregation=study.federation.secure_aggregation,
        coordinator_saw=seen_by_coordinator(study),
        sites={member.site: SiteWeight(weight=member.weight_units / 64) for member in membership.members},
        lineage=began.lineage if (began := last(events, Continued)) else (),
        memberships=_memberships(events),
        training_cases=_training_cases(study, hello),
        data=_used_data(hello),
        withdrawn=finish.withdrawn if finish else None,
        rounds=rounds,
        totals=_totals(rounds, events),
        elapsed=elapsed(events),
        absent_at_finish=finish.absent if finish else None,
        final=outcome.final if outcome else None,
        own_statistics=outcome.own_statistics if outcome else None,
        state_hash=outcome.state_hash if outcome else None,
        weights_sha256=outcome.weights_sha256 if outcome else None,
        adjustment=outcome.adjustment if outcome else None,
        temperature=outcome.temperature if outcome else None,
        baselines={name: trained[name] for name in sorted(trained, key=lambda name: (name != "pooled", name))},
        status=status,
    )


def seen_by_coordinator(study: Study) -> str:
    """What the coordinator could see of the sites, in words."""
    return SEEN_MASKED if study.federation.secure_aggregation else SEEN_PLAIN


def run_status(events: Sequence[Event]) -> Status:
    """complete; degraded if a round or the end lacked a site; incomplete if metrics were withheld; stopped before the outcome."""
    outcome, finish = last(events, Outcome), last(events, Finish)
    if outcome is None:
        return "failed" if events and isinstance(events[-1], Failed) else "stopped"  # a failed run may have gone on
    if outcome.final is None or of_kind(events, EvaluationWithheld):
        return "incomplete"
    partial = any(finished.absent for finished in finished_rounds(events))
    return "degraded" if partial or (finish and finish.absent) else "complete"


def _memberships(events: Sequence[Event]) -> tuple[MembershipSpan, ...]:
    """Who took part together, oldest first; of a first exchange that was told twice, after a crash, the last counts."""
    spans = (MembershipSpan(membership_hash=e.membership_hash, after_round=e.round, sites=e.sites) for e in of_kind(events, Hello))
    return tuple(list(same)[-1] for _, same in groupby(spans, key=lambda span: span.membership_hash))


def _training_cases(study: Study, hello: Hello | None) -> dict[str, int | None]:
    """Training cases of each class over all sites; None where they are too few to show, or were not counted yet."""
    histogram = hello.histogram if hello else [0] * len(study.classes)
    return {name: number if number >= SHOWN_CASES else None for name, number in zip(study.classes, histogram, strict=True)}


def _used_data(hello: Hello | None) -> dict[str, Used] | None:
    """Cases and images by split; None before they were counted.

    Where a class has too few training cases to show, they are in no number here: beside those of the other classes, sums with them
    would tell how many they are.
    """
    if hello is None or hello.used is None:
        return None
    few = [number for number in hello.histogram if number < SHOWN_CASES]
    data = {}
    for number, (split, (cases, images), (lost, unread)) in enumerate(zip(SPLITS, hello.used, hello.left_out, strict=True)):
        hides = number == TRAIN and bool(few)
        shown = cases - sum(few) * hides
        data[split] = Used(
            cases=shown + lost,
            cases_used=shown,
            images=None if hides else images + unread,
            images_used=None if hides else images,
            images_left_out=unread,
        )
    return data


def _totals(rounds: Sequence[RoundResult], events: Sequence[Event]) -> Totals:
    repeated = {event.round for event in of_kind(events, Repeated) if event.event == "round-repeated"}
    return Totals(
        rounds=len(rounds),
        repeated_rounds=len(repeated),
        partial_rounds=sum(bool(row.absent) for row in rounds),
        bytes_up=sum(row.bytes_up for row in rounds),
        bytes_down=sum(row.bytes_down for row in rounds),
        seconds=round(sum(row.seconds for row in rounds), 3),
    )


def round_results(events: Sequence[Event]) -> tuple[RoundResult, ...]:
    """The rounds in order; metrics are those of the model that came of each, counted at the start of the next exchange."""
    weights = {event.round: event.class_weights for event in of_kind(events, Started) if event.event == "train-started"}
    evaluated = {event.round: event for event in of_kind(events, Evaluated)}
    return tuple(
        _round(finished, weights.get(finished.round), evaluated.get(finished.round))
        for finished in sorted(finished_rounds(events), key=lambda event: event.round)
    )


def _round(finished: RoundFinished, class_weights: tuple[float, ...] | None, evaluated: Evaluated | None) -> RoundResult:
    return RoundResult(
        round=finished.round,
        absent=finished.absent,
        participants=finished.participants,
        attempts=finished.attempts,
        clipped_share=finished.clipped_share,
        bytes_up=finished.bytes_up,
        bytes_down=finished.bytes_down,
        seconds=finished.seconds,
        class_weights=class_weights,
        loss=evaluated.loss if evaluated else None,
        macro_auroc=evaluated.macro_auroc if evaluated else None,
        balanced_accuracy=evaluated.balanced_accuracy if evaluated else None,
        recall=evaluated.recall if evaluated else None,
    )
