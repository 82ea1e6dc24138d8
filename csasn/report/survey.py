"""survey.json: what a survey counted, for programs and people. Documented in csasn/SPEC.md; keys may be added, none changes."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from csasn import __version__
from csasn.data.survey_tables import SMALLEST_SUM
from csasn.platform.plain_text import plain
from csasn.report.events import Event, Failed, Outcome, last
from csasn.report.report import seen_by_coordinator
from csasn.report.types import Engine, Status, SurveyReport
from csasn.study import Study
from csasn.trust.membership import Membership

HIDDEN = "hidden"
MEANING = (
    f"{HIDDEN}: fewer than {SMALLEST_SUM} cases over all sites, or none, or a count that would give such a number away; "
    "or more: some sites hide their own part"
)


def survey_status(events: Sequence[Event]) -> Status:
    """complete; else stopped or failed before the sums were there."""
    if last(events, Outcome):
        return "complete"
    return "failed" if events and isinstance(events[-1], Failed) else "stopped"


def build_survey(study: Study, membership: Membership, engine: Engine, events: Sequence[Event]) -> SurveyReport:
    """What came of a survey, from its events, oldest first."""
    outcome = last(events, Outcome)
    return SurveyReport(
        schema_version=1,
        study=study.name,
        study_hash=study.study_hash,
        membership_hash=membership.membership_hash,
        code_version=__version__,
        engine=engine,
        secure_aggregation=study.federation.secure_aggregation,
        coordinator_saw=seen_by_coordinator(study),
        classes=study.classes,
        sites=membership.sites,
        smallest_sum=SMALLEST_SUM,
        tables=outcome.tables if outcome else (),
        status=survey_status(events),
    )


def survey_tables(survey: SurveyReport) -> Group:
    """For a terminal: the tables of a survey, one below the other."""
    if not survey.tables:
        return Group(Text("nothing is counted yet"))
    grid = Grid(box=None, padding=(0, 2, 0, 0))
    grid.add_column("", overflow="fold")
    grid.add_column("cases", justify="right", no_wrap=True)
    grid.add_column("sites that\nhide theirs", justify="right", no_wrap=True)
    for table in survey.tables:
        if len(table.rows) > 1:
            grid.add_row(Text(f"\n{table.title}", style="bold"))
        for row in table.rows:
            more = " or more" if row.hiding_sites else ""
            count = HIDDEN if row.count is None else f"{row.count}{more}"
            grid.add_row(Text(f"  {plain(row.name)}"), count, str(row.hiding_sites or ""))
    return Group(grid, Text(f"\n{MEANING}"))
