"""What a report says in plain words, as templates/verdict.html and summary.html need it: what of which class, site, baseline."""

from collections.abc import Sequence

from markupsafe import Markup

from csasn import NOTICE
from csasn.report.events import Event, Failed
from csasn.report.marked import Marked, listed
from csasn.report.rates import STILL, few_cases, small_classes, whose_cases
from csasn.report.types import Report
from csasn.report.verdict import Names, alone, losses, tiles

ENGINES = {
    "local": "in a simulation on one machine, from a folder for each site",
    "flower": "in a simulation on Flower's runtime, from a folder for each site",
    "deployment": "at the sites themselves, each of which kept its images and labels",
}


def summary(report: Report, events: Sequence[Event], marked: Marked) -> dict[str, object]:
    """The values that the templates name, over and above the report itself."""
    failed = [index for index, event in enumerate(events) if isinstance(event, Failed)]
    few = {name: marked.count("final", "per_class", name, "support") for name in few_cases(report)}
    named = Names(report)
    return {
        "notice": report.notice or NOTICE,
        "engines": ENGINES,
        "named": named,
        "one_of": lambda names: listed([named(name) for name in names], "or"),
        "tiles": tiles(report),
        "losses": losses(report),
        "small": small_classes(report),
        "still": STILL,
        "error": failed[-1] if failed else None,
        "whose": whose_cases(report.absent_at_finish),
        "beaten": _beaten(report, marked),
        "few_names": set(few),
        "few": [Markup("{} ({})").format(name, support) for name, support in few.items()],
        "listed": listed,
    }


def _beaten(report: Report, marked: Marked) -> list[Markup]:
    """The sites whose own model the federated one is above by macro AUROC, each with what its own reaches and, where it is known,
    the difference of both on the same cases."""
    ours = report.final.macro_auroc if report.final else None
    told = []
    for name, result, place in alone(report):
        if ours is not None and result.macro_auroc is not None and result.macro_auroc < ours:
            gain = Markup("; {}").format(marked.at(*place).gain("gains", "macro_auroc")) if result.gains else ""
            told.append(Markup("{} ({}{})").format(name, marked.rate(*place, "macro_auroc"), gain))
    return told
