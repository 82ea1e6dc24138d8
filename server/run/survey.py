"""What a survey leaves behind: what may be shown of its sums, and no other number of them (csasn/data/survey_tables.py)."""

from collections.abc import Mapping, Sequence

from csasn.data.survey_tables import shown
from csasn.measures.blocks import Integers
from csasn.platform.storage import write_json
from csasn.report.survey import build_survey
from server.run.run_directory import SURVEY, RunDirectory

PAGE = "survey.html"
Event = Mapping[str, object]


def tell_outcome(directory: RunDirectory, sums: Mapping[str, Integers]) -> None:
    """The event that ends a survey; the sums themselves are written nowhere."""
    directory.event("outcome", tables=shown(directory.study, sums))


def write_survey(directory: RunDirectory, engine: str, events: Sequence[Event]) -> dict[str, object]:
    """Writes survey.json and survey.html from the events so far; the survey."""
    from csasn.report.survey_page import write_survey_page

    survey = build_survey(directory.study, directory.membership, engine, events)
    write_json(directory.path / SURVEY, survey)
    write_survey_page(survey, directory.path / PAGE)
    return survey
