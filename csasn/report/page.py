"""report.html: a run for people who would rather read than parse. One file, which asks for no other, and holds no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from csasn.platform.storage import write_atomically
from csasn.report import figures
from csasn.report.card import card_sections
from csasn.report.events import Event, Waiting
from csasn.report.marked import Marked
from csasn.report.rates import inconclusive
from csasn.report.rendering import render
from csasn.report.summary import summary
from csasn.report.svg import draw
from csasn.report.types import Report

CARD_KEYS = {"study", "training_cases", "totals", "absent_at_finish"}  # that reports of 0.1.0 lack
MAX_TROUBLES = 200  # shown
TROUBLES = {
    "round-repeated": "a round was repeated",
    "exchange-repeated": "an exchange was repeated",
    "evaluation-withheld": "metrics were withheld",
    "waiting": "sites were waited for",
    "round-undone": "a round was undone",
    "totals-changed": "the number of validation cases changed",
    "ledger-marked": "a site's ledger does not go on from what was seen of it",
    "link-lost": "the line to Flower was lost",
    "stopped": "the run was stopped",
    "failed": "the run failed",
}


@dataclass(frozen=True)
class Trouble:
    """An event out of the ordinary: its line, what it was, and what is told of it, each with the site it is about, if any."""

    index: int
    words: str
    told: tuple[tuple[str, Markup], ...]


def write_page(report: Report, events: Sequence[Event], path: Path) -> None:
    """Writes the page of a report.

    Args:
        report: sections whose keys an older report lacks are left out.
        events: those of the run directory, oldest first.
        path: the file.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render_page(report, events).encode())


def render_page(report: Report, events: Sequence[Event]) -> str:
    """The page as text."""
    marked = Marked({**report.as_json(), "events": [event.as_json() for event in events]})
    results = figures.results_of(report)
    return render(
        "report.html",
        report=report,
        final=report.final,
        marked=marked,
        methods={name: marked.at(*place) for name, (_, place) in results.items()},
        differences={name: marked.at(*place) for name, (result, place) in results.items() if report.final and result.gains},
        results={name: result for name, (result, _) in results.items()},
        comparison=draw(figures.comparison_charts(report)),
        round_charts=draw(figures.round_charts(report)),
        weight_charts=draw(figures.weight_charts(report)),
        traffic_charts=draw(figures.traffic_charts(report)),
        class_charts={name: draw(charts) for name, charts in figures.class_charts(report).items()},
        troubles=_troubles(events, marked),
        max_troubles=MAX_TROUBLES,
        inconclusive=inconclusive,
        card=card_sections(report) if report.model_fields_set >= CARD_KEYS else (),
        **summary(report, events, marked),
    )


def _troubles(events: Sequence[Event], marked: Marked) -> list[Trouble]:
    """The events out of the ordinary, oldest first."""
    return [
        Trouble(index, TROUBLES[event.event], tuple(_told(marked.at("events", index))))
        for index, event in enumerate(events)
        if event.event in TROUBLES and not (isinstance(event, Waiting) and not event.sites)  # the end of waiting
    ]


def _told(event: Marked) -> list[tuple[str, Markup]]:
    """What an event says of each site, and why."""
    told = [(site, event.text(key, site)) for key in ("absent", "sites") for site in event.names(key)]
    about = str(event.find("site") or "")
    told += [(about, event.text(key)) for key in ("why", "how", "error") if event.find(key)]
    if event.find("before") is not None:
        counted = [_counts(event.at(key)) for key in ("before", "now")]
        told.append(("", Markup("{} of each class before, {} in round {}").format(*counted, event.count("round"))))
    return told


def _counts(numbers: Marked) -> Markup:
    return Markup(", ").join(numbers.count(index) for index in range(len(numbers.items())))
