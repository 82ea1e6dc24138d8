"""Reports of runs that did not have to run."""

import numpy as np
from scipy.special import log_softmax

from csasn.measures.counts import count_cases
from csasn.platform.randomness import generator
from csasn.report.report import build_report, final_metrics, run_status
from csasn.study import Federation, Study
from csasn.trust.membership import Member, Membership

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
    facts = {"attempts": 1, "participants": [], "clipped_share": None, "seconds": 1.5, "bytes_up": 10, "bytes_down": 300}
    return {"event": "round-finished", "round": number, "absent": absent or {}, **facts}


def ending(final=None, absent=None):
    """The events of the end of a run."""
    model = {"state_hash": "5e" * 32, "weights_sha256": "3d" * 32, "round": 2, "adjustment": [-0.3, -0.2, -1.9]}
    outcome = {"event": "outcome", "final": final, **model}
    return [{"event": "finish", "round": 2, "absent": absent or {}}, outcome]


def report_of(*events, engine="local"):
    """The report of these events."""
    return build_report(STUDY, MEMBERSHIP, engine, events, run_status(events))


def whole_report(baselines=(), separation=1.5, engine="local"):
    """The report of a run that came to its end."""
    final = final_metrics(STUDY, counted(separation=separation), 2)
    trained = [{"event": "baseline", "name": name, "final": final} for name in baselines]
    return report_of(HELLO, finished_round(1), finished_round(2), *ending(final), *trained, engine=engine)
