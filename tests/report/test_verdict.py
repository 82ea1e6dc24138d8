"""What report.html says first: what was found of what, in amber where it is bad, in words that need no other."""

import html
import re

import numpy as np
import pytest

from csasn.measures.cases import Cases
from csasn.measures.counts import count_cases
from csasn.report.comparison import cases_of, gains_over
from csasn.report.elapsed import elapsed
from csasn.report.marked import per_hundred
from csasn.study import Federation, Study
from page_reader import check_page
from reports import (
    HELLO,
    MEMBERSHIP,
    STUDY,
    build_report,
    ending,
    final_metrics,
    finished_round,
    render_page,
    render_survey_page,
    told,
)
from sample_reports import sample_events, sample_report

FOUR, TWO = ("benign", "PTC", "FTC", "MTC"), ("benign", "malignant")
FIRST_USES = {
    "PTC": "PTC (papillary thyroid carcinoma)",
    "FTC": "FTC (follicular thyroid carcinoma)",
    "MTC": "MTC (medullary thyroid carcinoma)",
    "AUROC": "AUROC (explained below)",
    "ECE": "ECE): how far probabilities lie from the share that comes true",
    "ω": "ω omega, the weight of a class",
    "F1": "F1 recall and precision in one number",
    "ROC": "ROC, the receiver operating characteristic",
    "Sensitivity": "Sensitivity is the share of cancers that it calls cancer",
    "Specificity": "Specificity is the share of benign cases that it calls benign",
}


def report_of_confusion(confusion, classes, malignant=None):
    """A whole report whose model decided so."""
    study = Study(
        name="s",
        classes=classes,
        malignant=classes[1:] if malignant is None else malignant,
        federation=Federation(sites=("centerA", "centerB")),
    )
    cells = [(true, decided) for true, row in enumerate(confusion) for decided, number in enumerate(row) for _ in range(number)]
    class_N, decision_N = np.array(cells).T
    logits_NK = np.eye(len(classes))[decision_N]
    final = final_metrics(study, count_cases(logits_NK, logits_NK, class_N, study.malignant_classes), 3)
    return sample_report(classes=classes) | {"final": final, "baselines": {}, "malignant": list(study.malignant)}


def checked(report):
    return check_page(render_page(report, sample_events(report)), report, sample_events(report))


def in_order(report):
    """The page's text as it is read, without the style."""
    text = re.sub(r"<style>.*?</style>", " ", render_page(report, sample_events(report)), flags=re.DOTALL)
    text = re.sub(r"</?(span|strong|small|code|a)\b[^>]*>", "", text)  # within a sentence
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def tiles_of(page):
    """The tiles of a page: what is named, the numbers, the words, and how it is coloured."""
    found = []
    for element in page.elements:
        if element.attributes.get("class", "").startswith("tile "):
            name, told_ = element.children
            numbers = " of ".join(child.all_text() for child in told_.children[0].children)
            share = [child.all_text() for child in told_.children if "data-of" in child.attributes]
            found.append((name.text, numbers, *share, element.attributes["class"].removeprefix("tile ")))
    return found


@pytest.mark.parametrize(
    ("confusion", "classes", "expected"),
    [
        (
            [[90, 4, 4, 2], [10, 80, 5, 5], [2, 3, 10, 0], [5, 20, 12, 0]],
            FOUR,
            [
                ("Cancers found", "135 of 152", "89", "good"),
                ("Benign cases cleared", "90 of 100", "90", "good"),
                ("FTC (follicular thyroid carcinoma) found", "10 of 15", "67", "good"),
                ("MTC (medullary thyroid carcinoma) found", "0 of 37", "none"),
            ],
        ),
        (
            [[1, 7], [299, 1]],
            TWO,
            [("Cancers found", "1 of 300", "1", "half"), ("Benign cases cleared", "1 of 8", "13", "half")],
        ),
        (
            [[0, 5], [1, 299]],
            TWO,
            [("Cancers found", "299 of 300", "99", "good"), ("Benign cases cleared", "0 of 5", "none")],
        ),
        (
            [[5, 0, 0], [0, 0, 7], [0, 0, 0]],
            ("polyp", "cyst", "stone"),
            [("polyp found", "5 of 5", "100", "good"), ("cyst found", "0 of 7", "none"), ("stone found", "0 of 0", "unknown")],
        ),
    ],
)
def test_the_verdict_follows_from_the_confusion_matrix(confusion, classes, expected):
    page = checked(report_of_confusion(confusion, classes, () if "polyp" in classes else None))
    assert tiles_of(page) == expected


def test_a_class_that_is_never_found_is_said_in_words():
    never = "It never finds MTC: none of 37 test cases."
    assert never in in_order(report_of_confusion([[90, 4, 4, 2], [10, 80, 5, 5], [2, 3, 10, 0], [5, 20, 12, 0]], FOUR))
    assert "It never finds" not in in_order(
        report_of_confusion([[90, 4, 4, 2], [10, 80, 5, 5], [2, 3, 10, 0], [5, 20, 11, 1]], FOUR)
    )


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(0, 9, 0), (9, 9, 100), (1, 1000, 1), (999, 1000, 99), (1, 8, 13), (5, 1000, 1), (2, 3, 67)]
)
def test_so_many_of_a_hundred(part, whole, shown):
    assert per_hundred(part, whole) == shown


def test_a_study_of_another_organ_gets_no_carcinoma_of_the_thyroid():
    report = sample_report()
    assert "papillary thyroid" in in_order(report)
    assert "thyroid carcinoma" not in in_order(report | {"about": {"organ": "gallbladder"}})


# ---- against one site alone


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        ({"value": -0.03, "ci95": [-0.05, -0.005]}, "-0.030 (-0.050 to -0.005); more than chance explains"),
        ({"value": -0.03, "ci95": [-0.07, 0.01]}, "-0.030 (-0.070 to +0.010); that may be chance"),
        ({"value": -0.03, "ci95": None}, "-0.030; whether that is chance is not known"),
        (None, "How the two differ case by case is not known"),
    ],
)
def test_below_one_site_s_own_model_has_its_own_sentence_with_the_paired_difference(gain, says):
    report = sample_report()
    report["baselines"]["single/centerD"]["gains"] = gain and {"macro_auroc": gain}
    checked(report)
    text = in_order(report).partition("In plain words Wh")[0]
    assert text.count("is better than the federated one") == 1
    assert (
        "The model of centerD alone is better than the federated one, by macro AUROC (explained below) 0.890 against 0.860" in text
    )
    assert says in text


def test_above_every_site_there_is_no_such_sentence():
    report = sample_report()
    del report["baselines"]["single/centerD"]
    assert "better than the federated one" not in in_order(report)


def test_paired_differences_stand_in_a_table_and_are_the_report_s():
    page = checked(sample_report())
    for name in ("pooled", "single/centerA"):
        for measure in ("macro_auroc", "balanced_accuracy", "sensitivity", "specificity"):
            for part in ("value", "ci95.0", "ci95.1"):
                assert f"baselines.{name}.gains.{measure}.{part}" in page.places()


def test_gains_are_of_the_same_cases():
    study = Study(name="s", classes=FOUR, malignant=FOUR[1:], federation=Federation(sites=("a", "b")))
    random = np.random.default_rng(1)
    class_N = np.repeat(np.arange(4), (40, 20, 9, 6))
    sharp_NK = random.normal(size=(75, 4)) + 2 * np.eye(4)[class_N]
    blunt_NK = sharp_NK + random.normal(size=(75, 4))
    federated, other = (cases_of(logits, class_N, np.zeros(4)) for logits in (sharp_NK, blunt_NK))
    assert {
        (gain.value, gain.ci95) for name, gain in gains_over(study, federated, federated).items() if name in ("macro_auroc",)
    } == {(0.0, (0.0, 0.0))}
    gains = gains_over(study, federated, other)
    right = {name: sensitivity_and_specificity(cases) for name, cases in (("of", federated), ("other", other))}
    for number, name in enumerate(("sensitivity", "specificity")):
        assert gains[name].value == pytest.approx(right["of"][number] - right["other"][number])
    metrics = [
        final_metrics(study, count_cases(logits, logits, class_N, study.malignant_classes), 1) for logits in (sharp_NK, blunt_NK)
    ]
    for name in ("macro_auroc", "balanced_accuracy"):
        assert gains[name].value == pytest.approx(metrics[0][name] - metrics[1][name], abs=2e-3)  # there from histograms
        assert gains[name].ci95[0] < gains[name].value < gains[name].ci95[1]
    assert set(gains_over(study.model_copy(update={"malignant": ()}), federated, other)) == {"macro_auroc", "balanced_accuracy"}


def sensitivity_and_specificity(cases: Cases):
    called = cases.decision_N > 0
    return called[cases.class_N > 0].mean(), 1 - called[cases.class_N == 0].mean()


# ---- order, words, and what is not there


def test_the_matrix_comes_before_any_curve_and_the_verdict_before_all():
    text = render_page(sample_report(), sample_events(sample_report()))
    places = [text.index(part) for part in ('id="verdict"', '<nav class="contents"', 'id="summary"', 'class="heat"', "<figure")]
    assert places == sorted(places)
    assert "<details><summary>The curves of each class" in text
    assert text.index("<details><summary>The curves of each class") < text.index("ROC of benign")


def test_rows_of_the_matrix_have_shares():
    page = checked(sample_report())
    shares = {
        e.attributes["data-key"]
        for e in page.elements
        if e.attributes.get("data-of", "").endswith(".support") and e.within("confusion")
    }
    assert shares == {f"final.confusion.{row}.{column}" for row in range(4) for column in range(4)}


def test_no_term_is_used_before_it_is_explained():
    text = in_order(sample_report())
    for term, expected in FIRST_USES.items():
        first = re.search(rf"\b{term}", text).start()
        assert text[first:].startswith(expected), text[first:][:80]


def test_what_is_withheld_has_no_tile_and_no_difference():
    report = sample_report("incomplete")
    report["baselines"] = sample_report()["baselines"]
    page = checked(report)
    assert tiles_of(page) == []
    assert not [place for place in page.places() if place.startswith("final") or ".gains." in place]
    assert "withheld" in in_order(report).partition("Contents")[0]


def test_a_deployment_has_no_comparison_and_says_how_a_hospital_finds_out():
    report = sample_report() | {"engine": "deployment", "baselines": {}}
    page = checked(report)
    assert "comparison" not in {e.attributes.get("id") for e in page.elements}
    assert "#comparison" not in {e.attributes.get("href") for e in page.elements}
    assert "client report --site NAME --train-alone" in in_order(report)
    assert "final.macro_f1" in page.places()
    assert "comparison" in {e.attributes.get("id") for e in checked(sample_report()).elements}


def test_the_page_says_why_no_site_has_a_part_and_whose_cases_these_are():
    report = sample_report()
    assert "Each site masked its numbers" in in_order(report)
    assert "The coordinator saw the counts of each site" in in_order(report | {"secure_aggregation": False})
    drawn = report | {"about": report["about"] | {"population": "phantoms, no patients"}}
    assert "phantoms, no patients" in in_order(drawn).partition("The verdict")[0]


@pytest.mark.parametrize("page", ["report", "survey"])
def test_every_table_scrolls_by_itself_and_by_keyboard_and_every_head_says_of_what(page):
    if page == "report":
        report = sample_report("degraded")
        text = render_page(report, sample_events(report))
        read = check_page(text, report, sample_events(report))
    else:
        from page_reader import Page

        text = render_survey_page(sample_survey())
        read = Page(text)
    tables = [element for element in read.elements if element.tag == "table"]
    assert tables
    for table in tables:
        assert table.parent.attributes["class"] == "scroll"
        assert table.parent.attributes["tabindex"] == "0"
        assert table.parent.attributes["aria-label"]
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", text)
    heads = [element for element in read.elements if element.tag == "th"]
    assert {element.attributes.get("scope") for element in heads} == {"col", "row"}
    assert all(element.all_text().strip() for element in heads)


def sample_survey():
    return {
        "schema_version": 1, "study": "s", "study_hash": "ab", "membership_hash": "cd", "code_version": "1", "engine": "local",
        "secure_aggregation": True, "coordinator_saw": "sums", "classes": list(FOUR), "sites": ["centerA", "centerB"],
        "smallest_sum": 10, "status": "complete",
        "tables": [{"of": "cases", "title": "Cases", "rows": [{"name": "all", "count": 120, "hiding_sites": 0}]}],
    }  # fmt: skip


# ---- where the time went


def test_the_time_of_a_run_is_all_told():
    def at(minute, event, **facts):
        return {"event": event, "time": f"2026-11-27T22:{minute:02}:00.000+00:00", **facts}

    events = [
        at(0, "hello-started"),
        at(2, "waiting", sites={"north": "away"}),
        at(3, "reply", kind="train", round=1, site="south", said="ready"),
        at(12, "waiting", sites={}),
        at(13, "failed"),
        at(33, "train-started", round=2),
        at(34, "outcome"),
        at(39, "run-finished"),
    ]
    spent = elapsed(told(events)).as_json()
    assert spent == {"whole": 2340, "working": 240, "waiting": 600, "stopped": 1200, "baselines": 300}
    assert elapsed(told([{"event": "stopped"}])) is None
    report = sample_report() | {"elapsed": spent}
    assert "39.0 min passed: 4.0 min of work" in in_order(report)


def test_hospitals_that_came_and_went_and_what_a_study_went_on_from_are_told():
    """And not that every site took part in every round."""
    first, second = HELLO | {"sites": ["centerA", "centerZ"], "membership_hash": "1"}, HELLO | {"sites": ["centerA", "centerB"]}
    one, two = finished_round(1) | {"participants": ["centerA", "centerZ"]}, finished_round(2)
    ancestor = {"study": "small", "rounds": 7} | dict.fromkeys(("study_hash", "membership_hash", "state_hash"), "a" * 64)
    events = [
        {"event": "continued", "lineage": [ancestor]},
        first,
        one,
        second | {"membership_hash": "2", "round": 1},
        two,
        *ending(),
    ]
    report = build_report(STUDY, MEMBERSHIP, "local", events, "complete")
    text = " ".join(" ".join(e.text for e in check_page(render_page(report, events), report, events).elements).split())
    assert "from the beginning centerA and centerZ; after rounds centerA and centerB." in text  # numbers are elements of their own
    assert "It goes on from the model of after rounds." in text
    assert "Every site took part" not in text
