"""What came of a run or a survey, for a terminal."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from csasn.report.survey import survey_tables
from csasn.report.tables import report_tables


def show_report(report: Mapping[str, object], folder: Path, console: Console) -> None:
    """The tables of report.json or survey.json, where all else is, and the page to open."""
    is_survey = "tables" in report
    console.print(survey_tables(report) if is_survey else report_tables(report))
    names = "survey.json" if is_survey else "report.json, curves.png, model.safetensors"
    console.print(f"status {report['status']}; everything is in [bold]{folder}[/bold]: {names}", highlight=False)
    if (page := folder / ("survey.html" if is_survey else "report.html")).exists():
        console.print(f"open {page}", highlight=False, markup=False, soft_wrap=True)
