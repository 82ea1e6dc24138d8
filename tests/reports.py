"""Reports of runs that did not have to run; and what the product does with reports and events, on what their files hold."""

import numpy as np
from scipy.special import log_softmax

from csasn.measures.counts import count_cases
from csasn.platform.randomness import generator
from csasn.report import card, curves, page, survey, survey_page, tables
from csasn.report import report as report_module
from csasn.report.events import EVENT
from csasn.report.types import Report, Result, SurveyReport
from csasn.study import Federation, Study
from csasn.trust.membership import Member, Membership
from server.run import outcome
from server.run.run_directory import read_events

STUDY = Study(
    name="small",
    classes=("benign", "PTC", "FTC"),
    malignant=("PTC", "FTC"),
    federation=Federation(sites=("centerA", "centerB")),
)
MEMBERSHIP = Membership(
    study_hash=STUDY.study_hash,
    members=(Member(site="centerA", weight_units=40), Member(site="centerB", weight_units=24)),
)
BASELINES_OF_TWO = ("pooled", "single/centerA", "single/centerB")
HELLO = {"event": "hello", "histogram": [310, 190, 4]}


def counted(num_cases=400, separation=1.5, seed=1):
    """Counts of cases of a model better than chance; the last class has few."""
    random = generator(seed, "counted")
    classes_N = random.choice(3, num_cases, p=[0.6, 0.38, 0.02])
    logits_NK = random.normal(0, 1.5, (num_cases, 3))
    logits_NK[np.arange(num_cases), classes_N] += separation
    return count_cases(logits_NK, log_softmax(logits_NK, axis=1), classes_N, STUDY.malignant_classes)


def finished_round(number, absent=None):
    """The event of a round; `absent` {site: reason}."""
    participants = [site for site in STUDY.federation.sites if site not in (absent or {})]
    facts = {"attempts": 1, "participants": participants, "clipped_share": None, "seconds": 1.5, "bytes_up": 10, "bytes_down": 300}
    return {"event": "round-finished", "round": number, "absent": absent or {}, **facts}


def ending(final=None, absent=None):
    """The events of the end of a run."""
    model = {"state_hash": "5e" * 32, "weights_sha256": "3d" * 32, "round": 2, "adjustment": [-0.3, -0.2, -1.9]}
    outcome = {"event": "outcome", "final": final, **model}
    return [{"event": "finish", "round": 2, "absent": absent or {}}, outcome]


def told(events):
    """Events as they are read, of what their lines hold."""
    return [EVENT.validate_python(event) for event in events]


def read_lines(path):
    """What the lines of events.jsonl hold, in a run directory."""
    return [event.as_json() for event in read_events(path)]


def final_metrics(*arguments):
    return report_module.final_metrics(*arguments).as_json()


def build_report(study, membership, engine, events, status):
    return report_module.build_report(study, membership, engine, told(events), status).as_json()


def run_status(events):
    return report_module.run_status(told(events))


def write_report(directory, engine):
    return outcome.write_report(directory, engine).as_json()


def card_sections(report):
    return card.card_sections(Report.of_json(report))


def model_card(report):
    return card.model_card(Report.of_json(report))


def render_page(report, events):
    return page.render_page(Report.of_json(report), told(events))


def write_page(report, events, path):
    page.write_page(Report.of_json(report), told(events), path)


def draw_curves(report, path):
    curves.draw_curves(Report.of_json(report), path)


def report_tables(report):
    return tables.report_tables(Report.of_json(report))


def metrics_tables(final, title):
    return tables.metrics_tables(Result.of_json(final), title)


def build_survey(study, membership, engine, events):
    return survey.build_survey(study, membership, engine, told(events)).as_json()


def render_survey_page(counted):
    return survey_page.render_survey_page(SurveyReport.of_json(counted))


def report_of(*events, engine="local"):
    """What report.json holds after these events."""
    return build_report(STUDY, MEMBERSHIP, engine, events, run_status(events))


def whole_report(baselines=(), separation=1.5, engine="local"):
    """The report of a run that came to its end."""
    final = final_metrics(STUDY, counted(separation=separation), 2)
    trained = [{"event": "baseline", "name": name, "final": final} for name in baselines]
    return report_of(HELLO, finished_round(1), finished_round(2), *ending(final), *trained, engine=engine)
