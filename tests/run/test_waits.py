"""Who the run waits for and since when, from its events alone."""

from datetime import datetime, timedelta

import pytest

from reports import told
from server.run.waits import expected_seconds, find_paces, find_waits

SITES = ("centerA", "centerB", "centerC")
BEGIN = datetime.fromisoformat("2026-11-29T12:00:00.000+00:00")


def events(*facts):
    """An event a second."""
    return told({"time": (BEGIN + timedelta(seconds=n)).isoformat(), **fact} for n, fact in enumerate(facts))


def said(site, word):
    return {"event": "reply", "site": site, "said": word, "kind": "train", "round": 1}


def waiting(**sites):
    return {"event": "waiting", "sites": sites}


def seconds(waits):
    return {site: (wait.since - BEGIN).total_seconds() for site, wait in waits.items()}


def test_all_sites_are_awaited_from_the_moment_that_they_are_asked():
    assert seconds(find_waits(SITES, events({"event": "train-started"}))) == dict.fromkeys(SITES, 0)


def test_who_is_ready_is_not_awaited_until_all_are_and_then_for_its_answer():
    begun = [{"event": "train-started"}, said("centerA", "ready"), said("centerB", "ready")]
    assert seconds(find_waits(SITES, events(*begun))) == {"centerC": 0}
    collected = [*begun, said("centerC", "ready"), said("centerA", "answered")]
    assert seconds(find_waits(SITES, events(*collected))) == {"centerB": 3, "centerC": 3}
    assert find_waits(SITES, events(*collected, said("centerB", "answered"), said("centerC", "answered"))) == {}


def test_a_site_that_is_absent_is_awaited_since_it_said_so_first_with_the_newest_reason():
    heard = [{"event": "train-started"}, said("centerA", "ready"), waiting(centerB="failed"), waiting(centerB="its disk is full")]
    waits = find_waits(SITES, events(*heard))
    assert seconds(waits) == {"centerB": 2, "centerC": 0}
    assert waits["centerB"].why == "its disk is full"
    assert str(waits["centerB"]).startswith("its disk is full, since ")
    assert waits["centerC"].why == ""


def test_a_site_that_came_back_is_no_longer_awaited():
    heard = [{"event": "train-started"}, waiting(centerB="failed"), said("centerB", "ready"), waiting()]
    assert "centerB" not in find_waits(SITES, events(*heard))


@pytest.mark.parametrize("end", ["round-finished", "failed", "outcome", "run-finished"])
def test_where_nothing_is_asked_nobody_is_awaited(end):
    assert find_waits(SITES, events({"event": "train-started"}, waiting(centerB="failed"), {"event": end, "round": 1})) == {}


def test_a_link_that_was_lost_gives_each_site_time_to_come_back():
    heard = [{"event": "train-started"}, said("centerA", "ready"), waiting(centerB="failed"), {"event": "link-lost"}]
    assert seconds(find_waits(SITES, events(*heard))) == {"centerB": 3, "centerC": 3}


def test_how_long_a_site_takes_is_what_its_last_round_took_it():
    heard = [
        {"event": "train-started"}, *(said(site, "ready") for site in SITES), said("centerA", "answered"),
        {"event": "measure-started"}, said("centerA", "ready"),
        {"event": "train-started"}, waiting(centerB="its disk is full"), said("centerA", "answered"), said("centerB", "answered"),
    ]  # fmt: skip
    assert find_paces(events(*heard)) == {"centerA": 2, "centerB": 2, "centerC": 3}


def test_a_site_with_nine_times_the_cases_is_expected_to_take_nine_times_as_long():
    units = {"centerA": 6, "centerB": 4, "centerC": 54}
    assert expected_seconds({}, units) == {}
    assert expected_seconds({"centerA": 60.0, "centerB": 10.0}, units) == {"centerA": 60, "centerB": 10, "centerC": 540}
    assert expected_seconds({"centerA": 60.0, "centerC": 99.0}, units)["centerC"] == 99
