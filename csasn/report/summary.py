"""What a report says in plain words, as templates/summary.html needs it: what is said of which class, site and baseline."""

from collections.abc import Sequence

from markupsafe import Markup

from csasn import NOTICE
from csasn.report.events import Event, Failed
from csasn.report.figures import results_of
from csasn.report.marked import Marked, listed
from csasn.report.rates import STILL, few_cases, inconclusive, small_classes, whose_cases
from csasn.report.types import Report, Result

ENGINES = {
    "local": "in a simulation on one machine, from a folder for each site",
    "flower": "in a simulation on Flower's runtime, from a folder for each site",
    "deployment": "at the sites themselves, each of which kept its images and labels",
}


def summary(report: Report, events: Sequence[Event], marked: Marked) -> dict[str, object]:
    """The values that the template names, over and above the report itself."""
    failed = [index for index, event in enumerate(events) if isinstance(event, Failed)]
    few = {name: marked.count("final", "per_class", name, "support") for name in few_cases(report)}
    return {
        "notice": report.notice or NOTICE,
        "engines": ENGINES,
        "small": small_classes(report),
        "still": STILL,
        "error": failed[-1] if failed else None,
        "whose": whose_cases(report.absent_at_finish),
        "extremes": _extremes(report.final) if report.final else (),
        "gains": _gains(report, marked),
        "few": [Markup("{} ({})").format(name, support) for name, support in few.items()],
        "listed": listed,
    }


def _extremes(final: Result) -> tuple[str, ...]:
    """The classes that are found most and least often, of those with enough test cases to say so; none where all are alike."""
    known = {name: row.recall for name, row in final.per_class.items() if row.recall is not None and not inconclusive(row)}
    if len(set(known.values())) < 2:
        return ()
    return max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])


def _gains(report: Report, marked: Marked) -> list[tuple[str, list[Markup]]] | None:
    """Which sites alone the federated model is better than by macro AUROC, and which not; None where nothing can be compared."""
    ours = report.final.macro_auroc if report.final else None
    alone = {name: told for name, told in results_of(report).items() if told[1][0] == "baselines" and name != "pooled"}
    if ours is None or not alone:
        return None
    sides: dict[bool, list[Markup]] = {True: [], False: []}
    for name, (result, place) in alone.items():
        if result.macro_auroc is not None:
            sides[ours > result.macro_auroc].append(Markup("{} ({})").format(name, marked.rate(*place, "macro_auroc")))
    return [(words, sides[better]) for words, better in (("better than", True), ("not better than", False)) if sides[better]]
