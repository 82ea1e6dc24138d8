"""Who answered in which round, who was waited for, and what the time went to: as the events say it."""

import json
from datetime import timedelta

import pytest

from page_scene import BEGIN, events_of, study_of
from reports import told
from server.page.rounds import tell_rounds

SITES = ("centerA", "centerB", "centerC")
DISK = "its disk is full or cannot be written"


def rows_of(*events):
    """Rounds of events that are given as (seconds, kind, facts)."""
    times = ((BEGIN + timedelta(seconds=seconds)).isoformat() for seconds, *_ in events)
    lines = [{"event": kind, "time": time, **facts} for time, (_, kind, facts) in zip(times, events, strict=True)]
    return tell_rounds(SITES, told(lines))


def reply(seconds, site, said="answered", current=1, kind="train"):
    return seconds, "reply", {"kind": kind, "round": current, "site": site, "said": said}


def finished(seconds, participants=SITES, current=1, **facts):
    return seconds, "round-finished", {"round": current, "participants": participants, **facts}


STARTED = (0, "train-started", {"round": 1})


def test_each_answer_has_its_seconds_and_who_has_yet_to_answer_has_none():
    (row,) = rows_of(STARTED, reply(7, "centerA"), reply(9, "centerC"))
    assert row.finished is None
    assert {site: answer.seconds for site, answer in row.answers.items()} == {"centerA": 7, "centerB": None, "centerC": 9}


def test_who_was_waited_for_is_known_with_the_reason_also_after_the_answer():
    waiting = (5, "waiting", {"sites": {"centerB": DISK}})
    (row,) = rows_of(STARTED, waiting, reply(7, "centerA"), (8, "waiting", {"sites": {}}), reply(9, "centerB"), reply(9, "centerC"))
    assert {site for site, answer in row.answers.items() if answer.waited} == {"centerB"}
    assert (row.answers["centerB"].seconds, row.answers["centerB"].why) == (9, DISK)


def test_a_site_that_wants_the_whole_model_first_is_not_waited_for():
    (row,) = rows_of(STARTED, reply(2, "centerA", "needs the whole model"), reply(7, "centerA"))
    assert (row.answers["centerA"].seconds, row.answers["centerA"].waited) == (7, False)


def test_a_round_without_a_site_says_so_and_why():
    (row,) = rows_of(STARTED, reply(7, "centerA"), finished(9, ("centerA", "centerC"), absent={"centerB": "late"}))
    assert (row.answers["centerB"].said, row.answers["centerB"].why) == ("missing", "late")
    assert row.answers["centerC"].said == "answered"  # of an event that was lost


def test_the_parts_of_a_masked_round_are_what_its_events_hold():
    ready = [reply(7, "centerA", "ready"), reply(9, "centerB", "ready"), reply(12, "centerC", "ready")]
    answered = [reply(13, "centerC"), reply(14, "centerA"), reply(17, "centerB")]
    measured = [(20, "measure-started", {"round": 1}), reply(21, "centerA", kind="measure"), (25, "train-started", {"round": 2})]
    first, second = rows_of(STARTED, *ready, *answered, finished(18.5), *measured, reply(31, "centerA", "ready", 2))
    assert first.parts == {"sites": 12, "masks": 5, "sum": 1.5}
    assert second.parts == {"before": 6.5}
    assert second.answers["centerA"].seconds == 6


def test_a_plain_round_takes_no_time_for_masks():
    (row,) = rows_of(STARTED, reply(7, "centerA"), reply(9, "centerB"), finished(10, ("centerA", "centerB")))
    assert row.parts == {"sites": 9, "masks": 0, "sum": 1}


def test_a_round_that_is_asked_again_counts_its_attempts_and_begins_anew():
    (row,) = rows_of(STARTED, reply(7, "centerA"), (60, "train-started", {"round": 1}), reply(64, "centerB"))
    assert row.attempts == 2
    assert {site: answer.seconds for site, answer in row.answers.items()} == {"centerA": None, "centerB": 4, "centerC": None}


def test_a_round_that_was_undone_is_marked():
    undone = (20, "round-undone", {"round": 1, "why": "worse"})
    (row,) = rows_of(STARTED, finished(10), undone)
    assert row.undone


@pytest.mark.parametrize("half", [1, 7, 40, 90])
def test_rounds_so_far_are_those_of_any_beginning_of_the_events(half):
    study = study_of(4, 12)
    events = told(events_of(study, 12))
    before, after = tell_rounds(study.federation.sites, events[:half]), tell_rounds(study.federation.sites, events)
    done = [row for row in before if row.finished]
    assert json.dumps([vars(row) for row in done], default=str) == json.dumps(
        [vars(row) for row in after[: len(done)]], default=str
    )
    assert len(after) == 13
