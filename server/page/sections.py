"""The sections of the page as HTML. Those that tell of finished rounds are large, and are made only when there is more to tell."""

from collections.abc import Hashable
from functools import partial

from markupsafe import Markup

from csasn.platform.plain_text import in_time
from csasn.report.figures import round_charts, traffic_charts, weight_charts
from csasn.report.live_page import Shown
from csasn.report.marked import MIB
from csasn.report.rendering import render_parts
from csasn.report.svg import draw
from server.office.status import now_doing, stage
from server.page.metrics import metrics_text
from server.page.rounds import PARTS
from server.page.view import View

OFTEN = ("status", "facts", "troubles", "others", "sites", "now", "trust")
SELDOM = ("curves", "answers_head", "answers", "reasons", "rounds")


class Sections:
    """Makes the sections of one view after another."""

    def __init__(self) -> None:
        self._known: Hashable = None
        self._seldom: dict[str, Markup] = {}

    def show(self, view: View) -> Shown:
        """What there is to see in `view`."""
        known = (view.study.study_hash if view.study else "", view.sites, view.num_told)
        if known != self._known:
            self._known, self._seldom = known, _made(view, SELDOM, **_of_rounds(view))
        facts = {"in_time": in_time, "stage": stage, "now_doing": partial(now_doing, where="above")}
        return Shown(_made(view, OFTEN, **facts) | self._seldom, lambda: metrics_text(view))


def _of_rounds(view: View) -> dict[str, object]:
    charts = [*round_charts(view), *weight_charts(view), *traffic_charts(view)] if view.rounds else []
    return {"charts": draw(charts), "results": {row.round: row for row in view.rounds}, "parts": PARTS, "mib": MIB}


def _made(view: View, names: tuple[str, ...], **facts: object) -> dict[str, Markup]:
    """The sections by the id of the place of each."""
    parts = render_parts("sections.html", names, view=view, **facts)
    return {name.replace("_", "-"): html for name, html in parts.items()}
