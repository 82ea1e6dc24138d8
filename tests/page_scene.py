"""A run as its events tell it, of any size, for the page that shows it: who answered when, who was waited for, what came of it."""

import json
from datetime import UTC, datetime, timedelta
from math import sin

from csasn.study import Federation, Study
from csasn.trust.membership import Member, Membership
from server.run.run_directory import RunDirectory

CLASSES = ("benign", "PTC", "FTC", "MTC")
BEGIN = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
ROUND_S = 60


def study_of(num_sites=4, rounds=20, name="thyroid-live"):
    sites = tuple(f"center{chr(ord('A') + number)}" for number in range(num_sites))
    return Study(
        name=name,
        classes=CLASSES,
        malignant=CLASSES[1:],
        federation=Federation(sites=sites, rounds=rounds, secure_aggregation=False, min_sites=2),
    )


def membership_of(study):
    sites = study.federation.sites
    members = tuple(Member(site=site, weight_units=64 // len(sites)) for site in sites)
    return Membership(study_hash=study.study_hash, members=members)


def events_of(study, rounds, *, under_way=True, begin=BEGIN):
    """The events of so many rounds of the study, and where asked of the beginning of one more: centerB is waited for now and then,
    the last site missing in every tenth round."""
    sites, events = (
        study.federation.sites,
        [{"event": "hello", "sites": list(study.federation.sites), "histogram": [90, 80, 20, 9]}],
    )
    times = [begin]
    for current in range(1, rounds + 1 + under_way):
        start = begin + timedelta(seconds=ROUND_S * current)
        told = list(_round(current, sites, done=current <= rounds))
        events += [event for _, event in told]
        times += [start + timedelta(seconds=seconds) for seconds, _ in told]
    return [{"time": time.isoformat(), **event} for time, event in zip(times, events, strict=True)]


def _round(current, sites, *, done):
    weights = [1 + 0.3 * sin(0.1 * current * index) for index in range(len(CLASSES))]
    yield 0, {"event": "train-started", "round": current, "attempt": current, "class_weights": weights}
    if current % 5 == 3:
        yield 5, {"event": "waiting", "sites": {"centerB": "its disk is full or cannot be written"}}
    answering = sites if done else sites[: len(sites) // 2]
    for number, site in enumerate(answering):
        missing = done and current % 10 == 7 and site == sites[-1]
        said = "no answer within the deadline" if missing else "answered"
        yield 10 + number, {"event": "reply", "kind": "train", "round": current, "site": site, "said": said}
    if done and current % 5 == 3:
        yield 40, {"event": "waiting", "sites": {}}
    if current > 1 and done:
        growth = 1 - 1 / (1 + current)
        recall = {name: growth * (0.9 - 0.15 * index) for index, name in enumerate(CLASSES)}
        reached = {"loss": 1.4 - growth / 2, "macro_auroc": 0.5 + 0.4 * growth, "balanced_accuracy": 0.25 + 0.5 * growth}
        yield 41, {"event": "evaluated", "round": current - 1, "recall": recall, **reached}
    if done:
        absent = {sites[-1]: "no answer within the deadline"} if current % 10 == 7 else {}
        facts = {"participants": [site for site in sites if site not in absent], "absent": absent, "train_loss": 1.2, "steps": 9}
        yield 45, {
            "event": "round-finished", "round": current, **facts, "bytes_up": 5_495_380, "bytes_down": 8_412_540, "seconds": 45.2,
        }  # fmt: skip


def write_events(folder, events):
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def write_run(folder, study, events):
    """A run directory with these events; its path."""
    RunDirectory.create(folder, study, membership_of(study))
    write_events(folder, events)
    return folder


def receipt_line(site, count, run="thyroid-live-1"):
    """A line of received.jsonl."""
    facts = {"round": 1, "attempt": 1, "kind": "train", "bytes": 1000, "sha256": "c" * 64, "signature": ""}
    return json.dumps({"site": site, "run": run, **facts, "count": count, "hash": f"{count:064x}", "before": f"{count - 1:064x}"})
