"""The page of a coordinator, and that of a simulation."""

from pathlib import Path

from csasn.report.live_page import Shown, Source
from server.office.studies import Studies
from server.page.sections import Sections
from server.page.view import state_of, view_of_run, view_of_study

TEMPLATE = "page.html"


def study_source(folder: Path) -> Source:
    """The page of the coordinator whose folder is `folder`: of its first study, with where the others stand.

    Raises:
        ConfigurationError: it is none.
    """
    studies, sections = Studies(folder), Sections()

    def show() -> Shown:
        first, *others = studies.all()
        return sections.show(view_of_study(first, others))

    return Source(
        studies.all()[0].study.name,
        TEMPLATE,
        lambda: tuple(state_of(each.path, each.run_path) for each in studies.all()),
        show,
    )


def run_source(name: str, path: Path) -> Source:
    """The page of a simulation, whose run directory may not be there yet."""
    sections = Sections()
    return Source(name, TEMPLATE, lambda: state_of(path, path), lambda: sections.show(view_of_run(path)))
