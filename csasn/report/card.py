"""The model card: what a clinical board must know of a model, from report.json, for every way in which a run can end."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import exp

from csasn.report.marked import MIB
from csasn.report.rates import STILL, few_cases, show_rate, small_classes
from csasn.report.rendering import render
from csasn.report.report import CONCLUSIVE_CASES, SHOWN_CASES
from csasn.report.types import Report


@dataclass(frozen=True)
class Section:
    """A part of the card in plain text: paragraphs, then rows of a name and what is said of it."""

    title: str
    paragraphs: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()


class _Card:
    """Takes what the template says, in order; each method gives the template nothing to show."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, list[str], list[tuple[str, str]]]] = []

    def section(self, title: str) -> str:
        self.parts.append((title, [], []))
        return ""

    def paragraph(self, caller: Callable[[], str]) -> str:
        self.parts[-1][1].append(" ".join(caller().split()))
        return ""

    def row(self, name: str, said: str) -> str:
        self.parts[-1][2].append((name, said))
        return ""


def card_sections(report: Report) -> tuple[Section, ...]:
    """The sections of the card, in order; what they say stands in templates/card.txt."""
    card = _Card()
    render(
        "card.txt",
        report=report,
        section=card.section,
        paragraph=card.paragraph,
        row=card.row,
        small=small_classes(report),
        few=few_cases(report),
        attendance=_attendance,
        show_rate=show_rate,
        sentence=lambda text: f"{text[:1].upper()}{text[1:]}.",
        exp=exp,
        still=STILL,
        mib=MIB,
        shown_cases=SHOWN_CASES,
        conclusive_cases=CONCLUSIVE_CASES,
    )
    return tuple(Section(title, tuple(paragraphs), tuple(rows)) for title, paragraphs, rows in card.parts)


def model_card(report: Report) -> str:
    """The card as Markdown; text that a site or a study brought shows as it is, and forms nothing."""
    card = render("card.md", study=report.study, sections=card_sections(report), escaped=_escaped)
    return f"{card.rstrip()}\n"


def _attendance(report: Report, site: str) -> str:
    """In how many rounds a site took part; in which it did not, and why."""
    missed: dict[str, list[str]] = {}
    for row in report.rounds:
        if site in row.absent:
            missed.setdefault(row.absent[site], []).append(f"round {row.round}")
    present = sum(site in row.participants for row in report.rounds)
    if reason := (report.absent_at_finish or {}).get(site):
        missed.setdefault(reason, []).append("the end")
    reasons = "".join(f"; absent in {', '.join(when)}: {reason}" for reason, when in missed.items())
    return f"{present} of {len(report.rounds)} rounds{reasons}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", " ".join(text.split()))
