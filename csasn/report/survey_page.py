"""survey.html: a survey for people. One file, which asks for no other, and holds no script."""

from pathlib import Path

from csasn.platform.storage import write_atomically
from csasn.report.charts import BarRow, RowChart, value_axis
from csasn.report.marked import Marked, listed
from csasn.report.rendering import render
from csasn.report.summary import ENGINES
from csasn.report.survey import HIDDEN
from csasn.report.svg import draw
from csasn.report.types import SurveyReport, SurveyRow, SurveyTable


def write_survey_page(survey: SurveyReport, path: Path) -> None:
    """Writes the page of a survey.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render_survey_page(survey).encode())


def render_survey_page(survey: SurveyReport) -> str:
    """The page as text."""
    marked = Marked(survey.as_json())
    charts = [_chart(table, marked.at("tables", number)) for number, table in enumerate(survey.tables)]
    return render(
        "survey.html",
        survey=survey,
        marked=marked,
        engine=ENGINES[survey.engine],
        charts=draw([chart for chart in charts if chart]),
        listed=listed,
        hidden=HIDDEN,
    )


def _chart(table: SurveyTable, marked: Marked) -> RowChart | None:
    """The bars of a table; nothing where all of it hides."""
    counts = [row.count for row in table.rows if row.count is not None]
    if not counts or len(table.rows) < 2:
        return None
    bars = [_bar(row, marked.at("rows", number)) for number, row in enumerate(table.rows)]
    return RowChart(table.title, "A bar for each count, as in the table of numbers.", value_axis("cases", counts, 0), bars)


def _bar(row: SurveyRow, marked: Marked) -> BarRow:
    note = HIDDEN if row.count is None else "or more" if row.hiding_sites else ""
    return BarRow(row.name, marked.key("name"), row.count, marked.key("count"), note)
