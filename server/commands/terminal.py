"""What came of a run or a survey, for a terminal."""

from pathlib import Path

from rich.console import Console

from csasn.report.survey import survey_tables
from csasn.report.tables import report_tables
from csasn.report.types import Json, Report, SurveyReport


def read_report(report: Json) -> Report | SurveyReport:
    """What report.json or survey.json holds."""
    return SurveyReport.of_json(report) if "tables" in report else Report.of_json(report)


def show_report(report: Report | SurveyReport, folder: Path, console: Console) -> None:
    """The tables of report.json or survey.json, where all else is, and the page to open."""
    is_survey = isinstance(report, SurveyReport)
    console.print(survey_tables(report) if isinstance(report, SurveyReport) else report_tables(report))
    names = "survey.json" if is_survey else "report.json, curves.png, model.safetensors"
    console.print(f"status {report.status}; everything is in [bold]{folder}[/bold]: {names}", highlight=False)
    if (page := folder / ("survey.html" if is_survey else "report.html")).exists():
        console.print(f"open {page}", highlight=False, markup=False, soft_wrap=True)
