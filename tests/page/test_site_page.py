"""A hospital's own page: what left, when and how large, in plain words, by its ledger; and that one was touched, if it was."""

import signal
import time

import httpx
import pytest

from chromium import Chromium
from client.page.leaving import Leaving
from client.page.source import site_source
from csasn.privacy.ledger import LEDGER_FILE, Contents, Ledger, Occasion
from csasn.report.page_server import PagePlace, page_served
from csasn.site import find_site

READY = Contents((), ("ready/transcript", "ready/public", "ready/signature"), 342, "a" * 64)
COUNTS = Contents((("arrays/counts", "<i8", (71,)),), ("sealing/view", "sealing/signature"), 665, "b" * 64)
UPDATE = Contents((*COUNTS.arrays, ("arrays/update", "<u4", (900,))), COUNTS.values, 525_023, "c" * 64)
PLAIN = Contents(UPDATE.arrays, (), 524_000, "d" * 64)
LINES = (
    (Occasion("small-1", 0, 1, "hello"), READY, "sent", "", "how many cases of each class that it is ready, with a key"),
    (Occasion("small-1", 0, 1, "collect"), COUNTS, "sent", "", "the masked answer counts over its cases, masked 665"),
    (Occasion("small-1", 1, 2, "train"), READY, "sent", "", "training in round 1 that it is ready, with a key for this question"),
    (Occasion("small-1", 1, 2, "collect"), UPDATE, "sent", "", "a change of the model and counts over its cases, masked 525,023"),
    (
        Occasion("small-1", 2, 3, "train"),
        PLAIN,
        "sent",
        "",
        "training in round 2 a change of the model and counts over its cases 524,000",
    ),
    (
        Occasion("small-1", 3, 4, "train"),
        Contents(num_bytes=90),
        "sent",
        "its disk is full",
        "why it does not answer: its disk is full",
    ),
    (Occasion("small-1", 4, 5, "train"), Contents(), "refused", "beyond the limit", "nothing: beyond the limit –"),
    (Occasion(kind=""), Contents(), "withdrawn", "consent by letter", "a patient withdrew: consent by letter"),
)


@pytest.fixture
def site(tmp_path, write_small_hospitals, monkeypatch):
    write_small_hospitals(tmp_path / "h", ("centerA",), federation={"sites": ["centerA"], "min_sites": 1})
    monkeypatch.chdir(tmp_path / "h")
    found = find_site("centerA")
    found.run_folder.mkdir(parents=True)
    return found


@pytest.fixture
def ledger(site):
    ledger = Ledger(site.run_folder / LEDGER_FILE)
    for occasion, contents, outcome, why, _ in LINES:
        ledger.append(occasion, contents, outcome, why)
    return ledger


def test_before_anything_has_left_the_page_says_so(site, visit):
    text = visit(site_source(site)).text()
    assert "Nothing has left yet: there is no ledger." in text
    assert "not running" in text


def test_each_line_of_the_ledger_stands_there_in_plain_words_the_newest_first(site, ledger, visit):
    text = visit(site_source(site)).text()
    for *_, words in LINES:
        assert words in text
    assert text.index("a patient withdrew") < text.index("that it is ready")
    assert "6 messages have left, 1.00 MiB in all, in 1 run." in text
    assert "only counts and update" in text
    assert "1 answer was refused by this site itself." in text
    assert "The ledger has 8 lines, and its chain is whole" in text


def test_what_leaves_while_somebody_looks_is_read_once(site, ledger):
    leaving = Leaving(site.run_folder)
    first = list(leaving.read())
    ledger.append(Occasion("small-1", 5, 6, "train"), PLAIN)
    assert [entry.count for entry in leaving.read()] == list(range(1, 10))
    assert list(leaving.read())[:8] == first


@pytest.mark.parametrize("when", ["before", "while somebody looks"])
def test_a_ledger_that_was_touched_is_told_and_nothing_after_that_line_is_shown(site, ledger, visit, when):
    source = site_source(site)
    if when != "before":
        source.show()
    path = site.run_folder / LEDGER_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'"bytes":524000', b'"bytes":5')
    path.write_bytes(b"".join(lines) if when == "before" else b"".join(lines[:1] + lines[2:]))
    text = visit(source).text()
    if when == "before":
        assert "ledger.jsonl line 5: its text does not fit its hash, so it was edited" in text
        assert "The ledger has 4 lines, whole up to there" in text
    else:
        assert "ledger.jsonl line 2: it says that it is line 3" in text
    assert "consent by letter" not in text


def test_a_coordinators_word_in_a_ledger_is_text_alone(site, ledger, visit):
    ledger.append(Occasion("<b>run</b>", 1, 1, "<i>kind</i>"), Contents(), "refused", "<script>x</script>")
    page = visit(site_source(site)).get().text
    assert "&lt;script&gt;x" in page
    assert "<i>kind" not in page


def test_a_sites_page_has_no_metrics(site, visit):
    assert visit(site_source(site)).get("/metrics").status_code == 404


@pytest.mark.slow
def test_the_page_of_a_site_goes_on_in_a_browser_and_axe_finds_no_fault(site, ledger):
    said = []
    with page_served(site_source(site), PagePlace.of("127.0.0.1:0", option="--at"), said.append), Chromium() as chromium:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            chromium.open(said[0].removeprefix("page: "), width=width, dark=dark)
            chromium.value("document.querySelectorAll('.scroll').forEach((box) => { box.style.background = 'none' })")
            assert chromium.faults() == []
            assert chromium.value("document.documentElement.scrollWidth") == width
        ledger.append(Occasion("small-1", 5, 6, "train"), PLAIN)
        chromium.until("document.getElementById('left').textContent.includes('training in round 5')")
        assert "7 messages have left" in chromium.value("document.getElementById('whole').textContent")


@pytest.mark.slow
def test_client_page_shows_it_until_ctrl_c_which_is_no_error(site, ledger, start_command):
    process = start_command("client", "page", "--site", "centerA", "--at", "127.0.0.1:0")
    url = process.stdout.readline().removeprefix("page: ").strip()
    assert "6 messages have left" in httpx.get(url).text
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert (process.returncode, err) == (0, "")
