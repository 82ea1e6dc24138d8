"""What a survey leaves behind: what may be shown of its sums, and no other number of them (csasn/data/survey_tables.py)."""

from collections.abc import Mapping, Sequence

from csasn.data.survey_tables import shown
from csasn.measures.counts import Integers
from csasn.platform.storage import write_json
from csasn.report.events import Event
from csasn.report.survey import build_survey
from csasn.report.types import Engine, SurveyReport
from server.run.run_directory import SURVEY, RunDirectory

PAGE = "survey.html"


def tell_outcome(directory: RunDirectory, sums: Mapping[str, Integers]) -> None:
    """The event that ends a survey; the sums themselves are written nowhere."""
    directory.event("outcome", tables=shown(directory.study, sums))


def write_survey(directory: RunDirectory, engine: Engine, events: Sequence[Event]) -> SurveyReport:
    """Writes survey.json and survey.html from the events so far; the survey."""
    from csasn.report.survey_page import write_survey_page

    survey = build_survey(directory.study, directory.membership, engine, events)
    write_json(directory.path / SURVEY, survey.as_json())
    write_survey_page(survey, directory.path / PAGE)
    return survey
