"""report.html: a run for people who would rather read than parse. One file, which asks for no other, and holds no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from csasn.platform.storage import write_atomically
from csasn.report import figures
from csasn.report.card import card_sections
from csasn.report.marked import Marked, Report
from csasn.report.page_style import STYLE
from csasn.report.page_template import TEMPLATE
from csasn.report.rates import whose_cases
from csasn.report.summary import inconclusive, no_metrics, notice, summary

Event = Mapping[str, object]
CARD_KEYS = ("study", "training_cases", "totals", "absent_at_finish")  # that reports of 0.1.0 lack
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


@dataclass(frozen=True)
class Presence:
    """A site in a round: its number, in words whether it took part, and how it is drawn."""

    number: Markup
    words: str
    kind: str


@dataclass(frozen=True)
class Absence:
    """A site that was missing in a round, and why."""

    number: Markup
    site: str
    why: Markup


def write_page(report: Report, events: Sequence[Event], path: Path) -> None:
    """Writes the page of a report.

    Args:
        report: as of report.json; sections whose keys an older report lacks are left out.
        events: those of the run directory, oldest first.
        path: the file.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render_page(report, events).encode())


def render_page(report: Report, events: Sequence[Event]) -> str:
    """The page as text."""
    marked = Marked({**report, "events": list(events)})
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        marked=marked,
        style=Markup(STYLE),  # noqa: S704 - our own
        notice=notice(marked),
        whose=whose_cases(report.get("absent_at_finish")),
        missing=no_metrics(marked),
        summary=summary(marked),
        methods=figures.methods_of(marked),
        comparison=figures.comparison_charts(marked),
        round_charts=_drawn(figures.round_charts(marked)),
        weight_charts=_drawn(figures.weight_charts(marked)),
        traffic_charts=_drawn(figures.traffic_charts(marked)),
        class_figures=figures.class_figures(marked),
        shades=_shades(marked),
        presences={site: [_presence(marked, index, site) for index in _rounds(marked)] for site in marked.names("sites")},
        absences=_absences(marked),
        troubles=_troubles(marked),
        max_troubles=MAX_TROUBLES,
        few=inconclusive,
        card=card_sections(report) if set(CARD_KEYS) <= set(report) else (),
    )


def _drawn(charts: Sequence[Markup]) -> list[Markup]:
    return [chart for chart in charts if chart]


def _rounds(marked: Marked) -> range:
    return range(len(marked.items("rounds")))


def _shades(marked: Marked) -> list[list[float]]:
    """For each cell of the confusion matrix its share of the row, which is how dark it is drawn."""
    shades = []
    for row in range(len(marked.items("final", "confusion"))):
        counts = [marked.number("final", "confusion", row, column) or 0 for column in _columns(marked, row)]
        shades.append([count / (sum(counts) or 1) for count in counts])
    return shades


def _columns(marked: Marked, row: int) -> range:
    return range(len(marked.items("final", "confusion", row)))


def _presence(marked: Marked, index: int, site: str) -> Presence:
    number = marked.count("rounds", index, "round")
    if site in marked.names("rounds", index, "participants"):
        return Presence(number, "took part", "present")
    reason = marked.find("rounds", index, "absent", site)
    return Presence(number, f"absent: {reason or 'not told why'}", "absent")


def _absences(marked: Marked) -> list[Absence]:
    return [
        Absence(marked.count("rounds", index, "round"), site, marked.text("rounds", index, "absent", site))
        for index in _rounds(marked)
        for site in marked.names("rounds", index, "absent")
    ]


def _troubles(marked: Marked) -> list[Trouble]:
    """The events out of the ordinary, oldest first."""
    troubles = []
    for index, event in enumerate(marked.items("events")):
        words = TROUBLES.get(str(event.get("event"))) if isinstance(event, Mapping) else None
        if words and not _is_end_of_waiting(event):
            troubles.append(Trouble(index, words, tuple(_told(marked, index))))
    return troubles


def _is_end_of_waiting(event: object) -> bool:
    return isinstance(event, Mapping) and event.get("event") == "waiting" and not event.get("sites")


def _told(marked: Marked, index: int) -> list[tuple[str, Markup]]:
    """What an event says of each site, and why."""
    event = marked.at("events", index)
    told = [(site, event.text("absent", site)) for site in event.names("absent")]
    whys = isinstance(event.find("sites"), Mapping)
    told += [(site, event.text("sites", site) if whys else Markup()) for site in event.names("sites")]
    about = str(event.find("site") or "")
    told += [(about, event.text(key)) for key in ("why", "how", "error") if event.find(key)]
    if event.find("before") is not None:
        counted = [_counts(event.at(key)) for key in ("before", "now")]
        told.append(("", Markup("{} of each class before, {} in round {}").format(*counted, event.count("round"))))
    return told


def _counts(numbers: Marked) -> Markup:
    return Markup(", ").join(numbers.count(index) for index in range(len(numbers.items())))
