"""survey.json: what a survey counted, for programs and people. Documented in csasn/SPEC.md; keys may be added, none changes."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from csasn import __version__
from csasn.data.survey_tables import SMALLEST_SUM
from csasn.platform.plain_text import plain
from csasn.report.report import SEEN_MASKED, SEEN_PLAIN
from csasn.study import Study
from csasn.trust.membership import Membership

Event = Mapping[str, object]
HIDDEN = "hidden"
MEANING = (
    f"{HIDDEN}: fewer than {SMALLEST_SUM} cases over all sites, or none, or a count that would give such a number away; "
    "or more: some sites hide their own part"
)


def survey_status(events: Sequence[Event]) -> str:
    """complete; else stopped or failed before the sums were there."""
    if any(event["event"] == "outcome" for event in events):
        return "complete"
    return "failed" if events and events[-1]["event"] == "failed" else "stopped"


def build_survey(study: Study, membership: Membership, engine: str, events: Sequence[Event]) -> dict[str, object]:
    """What came of a survey, from its events.

    Args:
        study: the survey.
        membership: its roster.
        engine: local, flower or deployment.
        events: those of the run directory, oldest first.
    """
    outcome = next((event for event in reversed(events) if event["event"] == "outcome"), None)
    secure = study.federation.secure_aggregation
    return {
        "schema_version": 1,
        "study": study.name,
        "study_hash": study.study_hash,
        "membership_hash": membership.membership_hash,
        "code_version": __version__,
        "engine": engine,
        "secure_aggregation": secure,
        "coordinator_saw": SEEN_MASKED if secure else SEEN_PLAIN,
        "classes": list(study.classes),
        "sites": list(membership.sites),
        "smallest_sum": SMALLEST_SUM,
        "tables": outcome["tables"] if outcome else [],
        "status": survey_status(events),
    }


def survey_tables(survey: Mapping[str, object]) -> Group:
    """For a terminal: the tables of a survey, one below the other."""
    tables = survey["tables"]
    assert isinstance(tables, list)
    if not tables:
        return Group(Text("nothing is counted yet"))
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    grid.add_column("", overflow="fold")
    grid.add_column("cases", justify="right", no_wrap=True)
    grid.add_column("sites that\nhide theirs", justify="right", no_wrap=True)
    for table in tables:
        if len(table["rows"]) > 1:
            grid.add_row(Text(f"\n{table['title']}", style="bold"))
        for row in table["rows"]:
            more = " or more" if row["hiding_sites"] else ""
            count = HIDDEN if row["count"] is None else f"{row['count']}{more}"
            grid.add_row(Text(f"  {plain(row['name'])}"), count, str(row["hiding_sites"] or ""))
    return Group(grid, Text(f"\n{MEANING}"))
