"""The page of a coordinator's study, and that of a simulation."""

from pathlib import Path

from csasn.report.live_page import Source
from server.office.enrolment import Enrolments
from server.office.study_folder import StudyFolder
from server.page.sections import Sections
from server.page.view import state_of, view_of_run, view_of_study

TEMPLATE = "page.html"


def study_source(folder: Path) -> Source:
    """The page of the study whose coordinator's folder is `folder`.

    Raises:
        ConfigurationError: it is none.
    """
    study_folder, sections = StudyFolder(Enrolments.open(folder)), Sections()
    return Source(
        study_folder.study.name,
        TEMPLATE,
        lambda: state_of(folder, study_folder.run_path),
        lambda: sections.show(view_of_study(study_folder)),
    )


def run_source(name: str, path: Path) -> Source:
    """The page of a simulation, whose run directory may not be there yet."""
    sections = Sections()
    return Source(name, TEMPLATE, lambda: state_of(path, path), lambda: sections.show(view_of_run(path)))
