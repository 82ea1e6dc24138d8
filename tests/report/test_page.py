"""report.html: every number on it is one of report.json or events.jsonl, for every way in which a run can end.

That of a run that was simulated is checked in tests/simulation.
"""

import copy
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import client
import csasn
from csasn.report import rendering
from page_reader import Page, check_page
from reports import card_sections, draw_curves, render_page, report_tables, write_page
from sample_reports import sample_events, sample_report

STATUSES = ("complete", "degraded", "incomplete", "stopped", "failed")
ODD = ("<b>", "a.b\\c", 'say "&amp;"', "{{ 7 }}")
NEW_KEYS = ("balanced_accuracy_ci95", "ece", "intervals", "malignancy")
NEW_CLASS_KEYS = ("recall_ci95", "precision_ci95", "auroc_ci95", "conclusive", "ece", "roc", "precision_recall", "reliability")


def checked(report, events=None):
    """The page, with every number on it held against the report."""
    events = sample_events(report) if events is None else events
    return check_page(render_page(report, events), report, events)


def words(page):
    """All text but the style, with the text of an element's children after its own."""
    return " ".join(" ".join(element.text for element in page.elements if element.tag != "style").split())


def as_of_old(report):
    """The report as version 0.1.0 wrote it, without the keys that came later."""
    old = copy.deepcopy(report)
    for key in (
        "about",
        "data",
        "training_cases",
        "totals",
        "notice",
        "study",
        "membership_hash",
        "weights_sha256",
        "absent_at_finish",
        "malignant",
        "elapsed",
    ):
        del old[key]
    for final in (old["final"], *old["baselines"].values()):
        for key in NEW_KEYS:
            del final[key]
        final.pop("gains", None)
        for row in final["per_class"].values():
            for key in NEW_CLASS_KEYS:
                del row[key]
    return old


def leaves(value, path=()):
    """Paths and values of all numbers."""
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(entry, (*path, str(key)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


@pytest.mark.parametrize("status", STATUSES)
def test_the_model_card_is_at_the_end_word_for_word(status):
    report = sample_report(status)
    page = checked(report)
    sections = [element.attributes["id"] for element in page.elements if element.tag == "section"]
    assert sections[-2:] == ["card", "hashes"]
    told = [
        e.all_text()
        for e in page.elements
        if e.parent and "card" in [i.attributes.get("id") for i in e.lineage()] and not e.children
    ]
    parts = [[s.title, *s.paragraphs, *(text for row in s.rows for text in row)] for s in card_sections(report)]
    assert told == ["Model card", "The whole card, as in MODEL_CARD.md", *(text for part in parts for text in part)]


@pytest.mark.parametrize("status", STATUSES)
def test_every_number_is_the_reports_in_every_status(status):
    page = checked(sample_report(status))
    assert f"status {status}" in {element.attributes.get("class") for element in page.elements}
    assert "not a medical device" in words(page)


def test_every_number_of_a_report_is_on_its_page():
    report = sample_report("degraded")
    keys = checked(report).places()
    drawn = ("roc", "precision_recall", "reliability")  # these as a whole
    beside = {"recall", "recall_ci95", "support", *drawn}  # what is shown of each class of a baseline
    for path, _ in leaves(report):
        part = path[: next((number + 1 for number, name in enumerate(path) if name in drawn), len(path))]
        if part[0] == "baselines" and (part[2] in ("confusion", "round") or (part[2] == "per_class" and part[4] not in beside)):
            continue
        if part[0] == "baselines" and part[2] == "malignancy" and part[3] in ("cancers", "found", "benign", "cleared"):
            continue
        if part[0] == "baselines" and part[2] == "per_class" and (part[4] in ("support", "reliability") or part[1] != "pooled"):
            continue
        assert ".".join(part) in keys, part


@pytest.mark.parametrize(
    "path",
    [
        ("final", "macro_auroc"),
        ("final", "per_class", "FTC", "recall_ci95", 1),
        ("final", "per_class", "MTC", "roc", 5, 1),
        ("final", "per_class", "PTC", "reliability", 2, 0),
        ("final", "confusion", 1, 2),
        ("baselines", "single/centerC", "balanced_accuracy_ci95", 0),
        ("rounds", 4, "recall", "PTC"),
        ("rounds", 4, "class_weights", 2),
        ("rounds", 4, "bytes_up"),
        ("sites", "centerD", "weight"),
        ("totals", "seconds"),
        ("study_hash",),
    ],
)
def test_the_check_notices_a_page_of_another_report(path):
    report = sample_report()
    text, place = render_page(report, sample_events(report)), report
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = "other" if isinstance(place[path[-1]], str) else place[path[-1]] * 1.05 + 1
    with pytest.raises(AssertionError):
        check_page(text, report, sample_events(report))


def test_the_check_notices_a_number_of_nowhere():
    report = sample_report()
    text = render_page(report, sample_events(report)).replace("<h2>Each class</h2>", "<h2>Each of 4 classes</h2>")
    with pytest.raises(AssertionError, match="without a place"):
        check_page(text, report, sample_events(report))


def test_names_are_shown_as_they_are_and_never_become_markup():
    report = sample_report("degraded", classes=ODD, sites=("<i>north</i>", "a.b", "c\\.d", "<script>"))
    report["rounds"][2]["absent"] = {"<script>": "<script>alert(1)</script>"}
    page = checked(report)
    assert not {"b", "i", "script"} & {element.tag for element in page.elements}
    assert {"<b>", "a.b\\c"} <= {element.all_text() for element in page.elements if element.tag == "th"}


def test_a_page_asks_for_nothing_and_runs_nothing():
    text = render_page(sample_report(), sample_events(sample_report()))
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    asked = [
        element.attributes[key]
        for element in page.elements
        for key in ("src", "href", "srcset", "data")
        if key in element.attributes
    ]
    sections = [element.attributes["id"] for element in page.elements if element.tag == "section"]
    assert asked == ["data:,", *(f"#{section}" for section in sections)]
    assert not {"script", "iframe", "object", "img", "use", "image"} & {element.tag for element in page.elements}
    assert not [key for element in page.elements for key in element.attributes if key.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_what_is_withheld_is_said_and_not_left_blank():
    page = checked(sample_report("incomplete"))
    assert "withheld" in words(page)
    assert "final.macro_auroc" not in page.places()
    assert "no test metrics" in words(checked(sample_report("stopped")))
    failed = [e.all_text() for e in checked(sample_report("failed")).elements if e.attributes.get("data-key", "").endswith("error")]
    assert set(failed) == {"round 13: 2 sites answered, expected 3"}


def test_a_run_that_stopped_before_a_round_has_a_page():
    report = sample_report("stopped", rounds=0)
    assert "No round was finished" in words(checked(report))
    assert "No round was finished" in words(checked(report, []))


def test_a_report_of_an_older_version_is_shown_as_far_as_it_goes():
    report = as_of_old(sample_report())
    page = checked(report)
    assert "final.macro_auroc_ci95.0" in page.places()
    assert not [key for key in page.places() if "roc." in key or key.startswith("totals")]
    assert "Nothing about MTC" in words(page)


def test_metrics_withheld_in_every_round_leave_no_empty_chart():
    report = sample_report("incomplete", rounds=2)
    for row in report["rounds"]:
        row.update(macro_auroc=None, balanced_accuracy=None, recall=None, loss=None)
    page = checked(report)
    assert "No validation metrics" in words(page)
    assert "Recall of each class" not in words(page)


def test_of_very_many_troubles_the_newest_are_shown_and_the_page_says_so():
    report = sample_report("failed")
    lost = [{"event": "link-lost", "time": f"2026-11-27T22:{number // 60:02}:{number % 60:02}.000+00:00"} for number in range(300)]
    page = checked(report, lost)
    rows = [element for element in page.elements if element.text == "the line to Flower was lost"]
    assert len(rows) == 200
    assert "events.299.time" in page.places()
    assert "The newest alone" in words(page)
    assert "The newest alone" not in words(checked(report, lost[:200]))


def test_what_was_out_of_the_ordinary_is_told_with_the_site_and_why():
    report = sample_report()
    odd = [
        {"event": "waiting", "sites": {"north": "no answer within the deadline"}},
        {"event": "waiting", "sites": {}},
        {"event": "round-undone", "round": 3, "why": "validation loss too high"},
        {"event": "totals-changed", "round": 4, "before": [12, 7], "now": [11, 7]},
        {"event": "ledger-marked", "site": "south", "how": "its ledger went back"},
    ]
    page = checked(report, [{"time": f"2026-11-27T22:00:0{number}.000+00:00", **event} for number, event in enumerate(odd)])
    text = words(page)
    for expected in ("sites were waited for", "a round was undone", "validation loss too high", "its ledger went back", "north"):
        assert expected in text
    shown = page.places()
    assert {"events.0.sites.north", "events.2.why", "events.3.before.0", "events.3.now.0", "events.4.how"} <= set(shown)
    assert not [place for place in shown if place.startswith("events.1.")]


def test_weights_that_are_one_up_to_rounding_have_a_chart(tmp_path):
    """Bisection leaves ω a rounding error away from 1 where nothing moves it, as with few validation cases."""
    report = sample_report(rounds=2)
    report["rounds"][0]["class_weights"], report["rounds"][1]["class_weights"] = [1.0] * 4, [0.9999999999999999] * 4
    checked(report)
    draw_curves(report, tmp_path / "curves.png")


def test_a_class_that_reads_like_a_formula_is_drawn_as_it_is(tmp_path):
    draw_curves(sample_report(classes=("benign", "$T_{1$", "FTC", "MTC")), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_where_a_site_was_missing_at_the_end_nothing_is_said_of_the_cases_of_all_sites():
    report = sample_report("degraded")
    assert "All on the same test cases, those of all sites, after" in words(checked(report))
    report["absent_at_finish"] = {"centerD": "no answer within the deadline"}
    said = words(checked(report))
    assert "On test cases of the sites that answered at the end, which it was not trained on" in said
    assert "any other on those of all sites: not the same cases, after" in said
    console = Console(width=160, file=StringIO())
    console.print(report_tables(report))
    shown = " ".join(console.file.getvalue().split())
    assert "Federated on test cases of the sites that answered at the end, others on those of all" in shown


def test_few_cases_and_guessing_are_named():
    report = sample_report()
    assert "Nothing about MTC" in words(checked(report))
    assert "nothing shows that it has learned" not in words(checked(report))
    report["final"]["macro_auroc_ci95"] = [0.49, 0.9]
    assert "nothing shows that it has learned" in words(checked(report))


def test_every_site_has_a_box_for_every_round_and_an_absent_one_its_reason():
    page = checked(sample_report("degraded"))
    boxes = [
        element for element in page.elements if element.tag == "li" and element.attributes.get("class") in ("present", "absent")
    ]
    assert len(boxes) == 4 * 12
    absent = [element.attributes["title"] for element in boxes if element.attributes["class"] == "absent"]
    assert absent == ["absent: no answer within the deadline"] * 2


def test_every_chart_has_a_title_a_description_and_named_axes():
    page = checked(sample_report())
    charts = [element for element in page.elements if element.tag == "svg" and element.attributes.get("role") == "img"]
    assert len(charts) == 2 + 4 * 3 + 4 + 2
    for chart in charts:
        tags = [child.tag for child in chart.children]
        assert tags[:2] == ["title", "desc"]
        labels = [e for e in page.elements if e.attributes.get("class") == "label" and chart in e.lineage()]
        assert labels
        assert all(label.text for label in labels)


def test_many_rounds_sites_and_classes_make_a_page_of_a_few_megabytes(tmp_path):
    classes, sites = [f"lesion {number}" for number in range(12)], [f"site{number}" for number in range(16)]
    report = sample_report("complete", classes, sites, rounds=300)
    write_page(report, sample_events(report), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    check_page(text, report, sample_events(report))
    assert len(text) < 4_000_000


def test_templates_and_schemas_come_with_the_package():
    report, site = Path(csasn.__file__).parent / "report", Path(client.__file__).parent / "report"
    for part in ("templates/report.html", "templates/style.css", "templates/card.txt", "schema/report.json", "schema/event.json"):
        assert (report / part).exists(), part
    assert (site / "templates/site_report.html").exists()


@pytest.mark.parametrize("editable", [True, False])
def test_code_without_templates_takes_those_of_what_is_installed(editable, monkeypatch, tmp_path):
    """As that of `flwr run .`, whose packer takes no .html."""

    class Installed:
        def read_text(self, _):
            source = {"url": "file:///home/some%20one/csasn", "dir_info": {"editable": True}}
            return json.dumps(source) if editable else None

        def locate_file(self, _):
            return Path("/venv/site-packages")

    monkeypatch.setattr(rendering.csasn, "__file__", str(tmp_path / "csasn/__init__.py"))
    monkeypatch.setattr(rendering, "distribution", lambda _: Installed())
    assert rendering._root() == Path("/home/some one/csasn" if editable else "/venv/site-packages")
