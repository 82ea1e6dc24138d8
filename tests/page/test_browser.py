"""The page in a real browser: it goes on by itself and loses nobody's place, for eyes, ears, keyboards, telephones and the dark."""

import io
import json

import pytest
from PIL import Image

from chromium import Chromium
from csasn.report import live_page
from csasn.report.page_server import PagePlace, page_served
from page_scene import events_of, receipt_line, study_of, write_events, write_run
from server.page.sources import run_source, study_source

pytestmark = pytest.mark.slow
STUDY = study_of(4, 20)
EVENTS = events_of(STUDY, 12)
PLAIN = "document.querySelectorAll('.scroll').forEach((box) => { box.style.background = 'none' });"  # axe passes over gradients
LATER = events_of(STUDY, 13)[len(events_of(STUDY, 12)) :]


@pytest.fixture(scope="module")
def chromium():
    with Chromium() as browser:
        yield browser


@pytest.fixture
def served(tmp_path, monkeypatch):
    """served(source) -> the address of its page, which looks often."""
    monkeypatch.setattr(live_page, "LEAST_S", 0.1)
    monkeypatch.setattr(live_page, "TICK_S", 0.1)
    open_pages = []

    def serve(source):
        said = []
        page = page_served(source, PagePlace.of("127.0.0.1:0"), said.append)
        page.__enter__()
        open_pages.append(page)
        return said[0].removeprefix("page: ")

    serve.close = lambda: open_pages.pop().__exit__(None, None, None)
    yield serve
    while open_pages:
        serve.close()


@pytest.fixture
def run(tmp_path):
    path = write_run(tmp_path / "run", STUDY, EVENTS)
    (path / "received.jsonl").write_text("".join(f"{receipt_line(site, 31)}\n" for site in STUDY.federation.sites))
    return path


def sources(tmp_path, coordinator):
    """A page of each kind: before the run, under way and in trouble, large, ended, and of a coordinator."""
    yield run_source("to-come", tmp_path / "nothing")
    waiting = {"event": "waiting", "time": "2026-11-30T13:00:00+00:00", "sites": {"centerD": "its disk is full"}}
    yield run_source("thyroid-live", write_run(tmp_path / "waiting", STUDY, [*EVENTS, waiting]))
    large = study_of(16, 60)
    yield run_source("large", write_run(tmp_path / "large", large, events_of(large, 40)))
    failed = {"event": "failed", "time": "2026-11-30T13:00:00+00:00", "error": "round 13: too few sites"}
    path = write_run(tmp_path / "failed", STUDY, [*EVENTS, failed])
    (path / "report.json").write_text(json.dumps({"status": "failed"}))
    yield run_source("failed", path)
    yield study_source(coordinator)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)], ids=["wide", "dark", "phone"])
def test_axe_finds_no_fault_and_nothing_is_wider_than_the_screen(chromium, served, tmp_path, coordinator, width, dark):
    for source in sources(tmp_path, coordinator):
        chromium.open(served(source), width=width, dark=dark)
        chromium.value(PLAIN)
        assert chromium.faults() == []
        assert chromium.value("document.documentElement.scrollWidth") == width
        picture = Image.open(io.BytesIO(chromium.picture())).convert("RGB")
        assert (sum(picture.getpixel((2, 2))) < 120) == dark


def test_axe_finds_the_faults_that_it_is_there_for(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)))
    chromium.value(PLAIN + "document.querySelector('caption').style.color = '#eee'; document.documentElement.lang = ''")
    assert {name for name, *_ in chromium.faults()} >= {"color-contrast", "html-has-lang"}


def test_it_goes_on_without_being_loaded_again_and_keeps_places_and_focus(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)), width=390, height=400)
    chromium.value("window.same = true; document.querySelector('details').open = true")
    chromium.value("box = document.querySelector('#rounds .scroll'); box.focus(); box.scrollTo(120, 40)")
    before = chromium.value("document.getElementById('trust').firstElementChild.dataset.same = 'kept'")
    assert before == "kept"
    write_events(run, LATER)
    chromium.until("document.getElementById('status').textContent.includes('round 14 of 20')")
    chromium.until("document.querySelectorAll('#answers tr').length === 13")
    assert chromium.value("window.same")
    assert chromium.value("document.querySelector('#reasons details').open")
    assert chromium.value("[document.activeElement.scrollLeft, document.activeElement.scrollTop]") == [120, 40]
    assert chromium.value("document.activeElement.parentElement.id") == "rounds"
    assert chromium.value("document.getElementById('trust').firstElementChild.dataset.same") == "kept"
    assert chromium.value("document.getElementById('line').hidden")


def test_the_token_is_gone_from_the_address_and_no_script_reads_it(chromium, served, run):
    url = served(run_source("thyroid-live", run))
    chromium.open(url)
    assert chromium.value("location.search") == ""
    assert chromium.value("document.cookie") == ""
    assert chromium.value("document.documentElement.outerHTML").find(url.partition("token=")[2]) == -1
    assert chromium.value("fetch('/').then((answer) => answer.status)") == 200


def test_it_asks_nobody_but_its_own_program_and_its_policy_holds(chromium, served, run):
    url = served(run_source("thyroid-live", run))
    chromium.asked.clear()
    chromium.logged.clear()
    chromium.open(url)
    own = url.partition("?")[0]
    assert {address.partition("?")[0] for address in chromium.asked} <= {
        own,
        *(own + name for name in ("live.css", "live.js", "events")),
    } | {"data:,"}
    assert chromium.logged == []
    chromium.value(
        "document.body.insertAdjacentHTML('beforeend', '<p id=x style=\"color:red\" onclick=\"window.ill=1\">x</p>'); x.click()"
    )
    assert chromium.value("window.ill") is None
    assert chromium.value("getComputedStyle(x).color") != "rgb(255, 0, 0)"
    assert chromium.value("fetch('http://127.0.0.2:9/').then(() => 'sent', () => 'refused')") == "refused"


def test_when_its_program_ends_the_page_says_so_and_keeps_what_was_seen(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)))
    served.close()
    chromium.until("!document.getElementById('line').hidden")
    assert "has ended" in chromium.value("document.getElementById('line').textContent")
    assert "round 13 of 20" in chromium.value("document.getElementById('status').textContent")


def test_without_a_script_the_state_is_shown_and_loaded_anew(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)), script=False)
    assert "round 13 of 20" in chromium.value("document.getElementById('status').textContent")
    assert chromium.value("document.querySelector('meta[http-equiv=refresh]').content") == "10"
    assert chromium.value("document.querySelectorAll('#answers tr').length") == 12


def test_the_keyboard_reaches_each_box_that_scrolls_and_shows_where_it_is(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)))
    reached, focused = [], "document.activeElement"
    for _ in range(8):
        chromium.press("Tab")
        reached.append(chromium.value(f"{focused}.ariaLabel || {focused}.getAttribute('aria-labelledby') || {focused}.tagName"))
        assert reached[-1] == "BODY" or chromium.value(f"getComputedStyle({focused}).outlineStyle") == "solid"
    assert [name for name in reached if name != "BODY"][:5] == [
        "sites",
        "h-answers",
        "SUMMARY",
        "h-rounds",
        "approvals and ledgers",
    ]


def test_a_screen_reader_is_told_of_the_status_line_alone_and_finds_each_table_named(chromium, served, run):
    chromium.open(served(run_source("thyroid-live", run)))
    assert chromium.value("[...document.querySelectorAll('[aria-live], [role=status], [role=alert]')].map((e) => e.id)") == [
        "line",
        "status",
    ]
    assert "left" not in chromium.value("document.getElementById('status').textContent")
    assert chromium.value("[...document.querySelectorAll('table')].every((t) => t.caption && t.caption.textContent.trim())")
    assert chromium.value("[...document.querySelectorAll('th')].every((t) => ['row', 'col'].includes(t.scope))")
    levels = chromium.value("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
    assert levels == [1, 2, 2, 2, 2, 2, 2]
