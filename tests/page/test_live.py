"""What changes on the page is sent as it changes, and nothing else; a page of 200 rounds and 16 sites costs next to nothing."""

import asyncio
import json
import time
from threading import Thread

import httpx
import pytest

from csasn.errors import StorageError
from csasn.report import live_page
from csasn.report.live_page import Latest, Source
from csasn.report.page_server import PagePlace, page_served
from page_scene import events_of, study_of, write_events, write_run
from server.page.sources import run_source

STUDY = study_of(4, 20)
EVENTS = events_of(STUDY, 12)
DONE = next(number for number in range(len(EVENTS) - 1, 0, -1) if EVENTS[number]["event"] == "round-finished") + 1
COST_S = 1.0  # in which a page is made, at most
SHARE = 0.01  # of a core, while one viewer looks


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", STUDY, EVENTS[:DONE])


@pytest.fixture
def quick(monkeypatch):
    """Looks often, so that a test need not wait."""
    monkeypatch.setattr(live_page, "TICK_S", 0.05)
    monkeypatch.setattr(live_page, "LEAST_S", 0.05)


class Listening:
    """Hears the events of a page, in a thread of its own, until the page ends."""

    def __init__(self, url, since="", **headers):
        self.url, self.heard, self._headers = httpx.URL(url), [], headers
        self._since = since
        self._thread = Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        with httpx.Client(timeout=30) as client:
            client.get(self.url)
            with client.stream(
                "GET", self.url.copy_with(path="/events", query=f"since={self._since}".encode()), headers=self._headers
            ) as stream:
                told = {}
                for line in stream.iter_lines():
                    name, _, value = line.partition(": ")
                    if line:
                        told[name.rstrip(":")] = value
                    elif told:
                        self.heard.append(told)
                        told = {}

    def until(self, number, within_s=15):
        deadline = time.monotonic() + within_s
        while len(self.heard) < number:
            assert time.monotonic() < deadline, self.heard
            time.sleep(0.02)
        return [json.loads(told["data"]) for told in self.heard if told["event"] == "sections"]


def test_only_sections_that_change_are_sent_again(run, quick):
    said = []
    with page_served(run_source("thyroid-live", run), PagePlace.of("127.0.0.1:0"), said.append):
        listening = Listening(said[0].removeprefix("page: "))
        (first,) = listening.until(1)
        assert set(first) >= {"status", "facts", "troubles", "sites", "now", "answers", "rounds", "curves", "trust"}
        write_events(run, EVENTS[DONE : DONE + 1])
        _, second = listening.until(2)
        assert "round 13 of 20 is under way" in second["status"]
        assert {"answers", "rounds", "curves", "troubles", "trust"}.isdisjoint(second)
        write_events(run, EVENTS[DONE + 1 : DONE + 2])
        _, _, third = listening.until(3)
        assert set(third) <= {"facts", "troubles", "sites", "now"}
        assert "waiting !" in third["now"]
    assert listening.heard[-1]["event"] == "end"


def test_a_viewer_that_comes_back_gets_what_changed_meanwhile_and_of_another_process_all(run, quick):
    said = []
    with page_served(run_source("thyroid-live", run), PagePlace.of("127.0.0.1:0"), said.append):
        url = said[0].removeprefix("page: ")
        seen = httpx.get(url).text.partition('data-version="')[2].partition('"')[0]
        write_events(run, EVENTS[DONE : DONE + 1])
        (changed,) = Listening(url, seen).until(1)
        assert "status" in changed
        assert "trust" not in changed
        (again,) = Listening(url, "", **{"last-event-id": seen}).until(1)
        assert again == changed
        (whole,) = Listening(url, "abcdef01.7").until(1)
        assert "trust" in whole


def test_of_too_many_viewers_the_last_is_told(run, quick, monkeypatch):
    monkeypatch.setattr(live_page, "MAX_VIEWERS", 1)
    said = []
    with page_served(run_source("thyroid-live", run), PagePlace.of("127.0.0.1:0"), said.append):
        url = httpx.URL(said[0].removeprefix("page: "))
        Listening(url).until(1)
        with httpx.Client() as client:
            client.get(url)
            answer = client.get(url.copy_with(path="/events", query=None))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (StorageError("membership.json is no JSON"), "cannot be read: membership.json is no JSON"),
        (ValueError("a foreign text"), "cannot be read: unexpected ValueError in report/live_page.py"),
    ],
)
def test_a_folder_that_cannot_be_read_is_said_and_the_page_goes_on(fault, says, caplog):
    faults = [fault]

    def show():
        if faults:
            raise faults.pop()
        return live_page.Shown({"status": live_page.Markup("well")})

    latest = Latest(Source("page", "page.html", time.monotonic, show))
    latest._make()
    assert latest.sections["status"].startswith(says)
    assert "foreign" not in latest.sections["status"] + caplog.text
    latest._make()
    assert latest.sections["status"] == "well"


def test_the_page_is_made_anew_when_something_changes_and_else_seldom(monkeypatch):
    now, state, made = [100.0], ["a"], []
    monkeypatch.setattr(live_page.time, "monotonic", lambda: now[0])
    source = Source("page", "page.html", lambda: state[0], lambda: made.append(now[0]) or live_page.Shown({}))

    async def looks():
        latest = Latest(source)
        for tick in range(100):
            now[0] = 100.0 + tick / 2
            state[0] = "b" if tick >= 31 else "a"
            await latest.look()

    asyncio.run(looks())
    assert made == [100.0, 110.5, 115.5, 126.0, 136.5, 147.0]


def test_200_rounds_of_16_sites_are_made_within_a_second_and_watched_for_a_hundredth_of_a_core(tmp_path, monkeypatch):
    """A viewer at a coordinator whose rounds take a minute: each answer of a site is an event, and each round makes its sections
    anew."""
    study = study_of(16, 201)
    events = events_of(study, 201, under_way=False)
    begin = next(number for number, event in enumerate(events) if event.get("round") == 201)
    source = run_source("thyroid-live", write_run(tmp_path / "run", study, events[:begin]))
    source.show()  # templates are compiled once
    fresh = run_source("thyroid-live", tmp_path / "run")
    started = time.process_time()
    shown = fresh.show()
    assert time.process_time() - started < COST_S
    assert shown.sections["answers"].count("<tr>") == 200
    spent, renders = 0.0, 0
    for number, event in enumerate(events[begin:]):
        write_events(tmp_path / "run", [event])
        started = time.process_time()
        source.state()
        if number % 2 == 0 or event["event"] == "round-finished":  # events come a second apart, a page is made every other second
            source.show()
            renders += 1
        spent += time.process_time() - started
    started = time.process_time()
    for _ in range(120):
        source.state()
    for _ in range(4):
        source.show()
    spent += time.process_time() - started
    print(f"a page is made {renders + 4} times in a round of 60 s, for {spent:.3f} s of a core: {spent / 60:.2%}")
    assert spent < 60 * SHARE
