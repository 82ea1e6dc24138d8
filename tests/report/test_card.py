"""The model card, and the tables of the terminal: what they say is what report.json says."""

import re
import shlex
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from command_line import arguments
from csasn.report.rates import show_rate
from reports import (
    HELLO,
    MEMBERSHIP,
    STUDY,
    card_sections,
    ending,
    finished_round,
    metrics_tables,
    model_card,
    report_of,
    report_tables,
    whole_report,
)

LATE = "no answer within the deadline"
TITLES = (
    "Intended use", "How a case is decided", "Data", "Participation", "Results on test cases", "Classes not to be concluded from",
    "Calibration", "What the coordinator saw", "Which model this is", "How to reproduce",
)  # fmt: skip
BASELINES = ("pooled", "single/centerA", "single/centerB")


def rows_of(report, title):
    (section,) = [section for section in card_sections(report) if section.title == title]
    return dict(section.rows)


def words_of(report, title):
    (section,) = [section for section in card_sections(report) if section.title == title]
    return " ".join(section.paragraphs)


def shown(renderable, width=80):
    console = Console(file=StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


# ---- every end of a run


@pytest.mark.parametrize(
    ("events", "status", "says"),
    [
        ((), "stopped", "no model was finished"),
        ((HELLO, finished_round(1)), "stopped", "no model was finished"),
        ((HELLO, {"event": "failed"}), "failed", "no model was finished"),
        ((HELLO, finished_round(1), *ending(None, {"centerB": LATE})), "incomplete", "the metrics are withheld"),
    ],
)
def test_a_run_without_results_says_why(events, status, says):
    report = report_of(*events)
    assert report["status"] == status
    assert tuple(section.title for section in card_sections(report)) == TITLES
    assert says in words_of(report, "Results on test cases").lower()
    assert f"Status: {status}." in words_of(report, "Participation")
    assert not re.search(r"None|nan", model_card(report).replace("None:", ""))


def test_a_run_that_came_to_its_end_has_every_section():
    assert tuple(section.title for section in card_sections(whole_report())) == TITLES
    assert "Status: complete." in words_of(whole_report(), "Participation")


# ---- what it says


def test_results_are_those_of_the_report_with_intervals_and_support():
    report = whole_report(BASELINES)
    final, rows = report["final"], rows_of(report, "Results on test cases")
    low, high = final["macro_auroc_ci95"]
    assert rows["macro AUROC"] == f"{final['macro_auroc']:.3f} ({low:.2f}-{high:.2f})".replace("0.", ".")
    assert rows["balanced accuracy"].startswith(f"{final['balanced_accuracy']:.3f}"[1:])
    for name, row in final["per_class"].items():
        low, high = row["recall_ci95"]
        assert f"recall {row['recall']:.3f} ({low:.2f}-{high:.2f})".replace("0.", ".") in rows[f"class {name}"]
        assert rows[f"class {name}"].endswith(f"; {row['support']} test cases")
    assert [name for name in rows if name.startswith("baseline")] == [f"baseline {name}" for name in BASELINES]
    assert final["intervals"] in words_of(report, "Results on test cases")
    assert "400 cases that no site trained on" in words_of(report, "Results on test cases")


def test_the_card_says_by_what_probabilities_are_divided_before_the_largest_decides():
    decided = "How a case is decided"
    report = whole_report()
    for name, value in zip(report["classes"], report["adjustment"], strict=True):
        assert float(rows_of(report, decided)[f"class {name}"]) == pytest.approx(np.exp(value), abs=6e-4)
    assert "a rare class may be decided where a common one is more probable" in words_of(report, decided)
    plain = report | {"adjustment": [0.0, 0.0, -0.0]}
    assert rows_of(plain, decided) == {}
    assert "most probable" in words_of(plain, decided)
    older = {key: value for key, value in report.items() if key != "adjustment"}
    assert "Not known" in words_of(older, decided)
    assert "calibrated" not in words_of(report, decided)
    assert "logits are divided by 1.234" in words_of(report | {"temperature": 1.2341}, decided)


def test_data_are_sums_and_few_training_cases_are_not_shown():
    rows = rows_of(whole_report(), "Data")
    assert (rows["site centerA"], rows["site centerB"]) == ("weight 0.625", "weight 0.375")
    assert rows["class benign"].startswith("310 training cases, ")
    assert rows["class FTC"].startswith("fewer than 5 training cases, ")
    assert rows_of(report_of(), "Data")["class FTC"] == "unknown number of training cases, unknown number of test cases"


def test_a_class_of_few_test_cases_is_named_and_no_other():
    report = whole_report()
    said = words_of(report, "Classes not to be concluded from")
    assert f"FTC ({report['final']['per_class']['FTC']['support']})" in said
    assert "benign" not in said
    for row in report["final"]["per_class"].values():
        row["conclusive"] = True
    assert words_of(report, "Classes not to be concluded from").startswith("None:")


def test_participation_names_who_was_absent_when_and_why():
    rounds = [finished_round(1), finished_round(2, {"centerB": LATE}), finished_round(3, {"centerB": LATE})]
    rows = rows_of(report_of(HELLO, *rounds, *ending(None, {"centerB": "needs keys"})), "Participation")
    assert rows["site centerA"] == "3 of 3 rounds"
    assert rows["site centerB"] == f"1 of 3 rounds; absent in round 2, round 3: {LATE}; absent in the end: needs keys"


def test_calibration_and_hashes_are_those_of_the_report():
    report = whole_report()
    assert rows_of(report, "Calibration")["mean over classes"] == show_rate(report["final"]["ece"])
    hashes = {value for name, value in rows_of(report, "Which model this is").items() if name.startswith("SHA-256")}
    assert hashes == {STUDY.study_hash, MEMBERSHIP.membership_hash, "5e" * 32, "3d" * 32}
    assert "secure aggregation is off" in words_of(report, "What the coordinator saw")
    assert "not a medical device" in words_of(report, "Intended use")


@pytest.mark.parametrize(("engine", "baselines"), [("local", ()), ("local", BASELINES), ("flower", ()), ("deployment", ())])
def test_the_commands_to_reproduce_are_ones_that_the_programs_take(engine, baselines):
    rows = rows_of(whole_report(baselines, engine=engine), "How to reproduce")
    program, *words = shlex.split(re.split("[,;]", rows["train again"])[0])
    assert program == "server"
    taken = arguments("server", *words)
    assert str(taken["study"]) == "RUN/study.yaml"
    if engine != "deployment":
        assert (taken["engine"], taken["baselines"]) == (engine, bool(baselines))
    program, *words = shlex.split(rows["measure model.safetensors"].split(";")[0])
    assert program == "csasn"
    assert str(arguments("csasn", *words)["model"]) == "RUN"


def test_the_card_claims_what_the_study_says_and_nothing_else():
    plain = whole_report()
    said = model_card(plain)
    assert not re.search(r"thyroid|ultrasound|carcinoma|nodule|diagnos(e|is) of", said, re.IGNORECASE)
    assert set(rows_of(plain, "Intended use").values()) == {"not stated by the study"}
    about = {"organ": "gallbladder", "intended_use": "to sort polyps", "modality": None}
    rows = rows_of(plain | {"about": about}, "Intended use")
    assert (rows["organ"], rows["intended use"], rows["modality"]) == ("gallbladder", "to sort polyps", "not stated by the study")
    assert "not stated" in rows_of({key: value for key, value in plain.items() if key != "about"}, "Intended use")["organ"]


def test_the_card_says_how_many_cases_were_used():
    row = {"cases": 1910, "cases_used": 1862, "images": 3010, "images_used": 2950, "images_left_out": 60}
    report = whole_report() | {"data": {"train": row, "validation": row | {"images_left_out": 0}}}
    rows = rows_of(report, "Data")
    few = ", besides those of FTC, too few to be shown"
    assert rows["train cases"] == f"1862 of 1910 cases used, 2950 of 3010 images{few}; unreadable images left out: 60"
    assert rows["validation cases"] == "1862 of 1910 cases used, 2950 of 3010 images; unreadable images left out: 0"
    assert not [name for name in rows_of(whole_report() | {"data": None}, "Data") if name.endswith(" cases")]


# ---- Markdown


def test_text_of_a_site_or_study_forms_no_markup():
    reason = "<b>a|b</b> [x](http://y) `c` *d*"
    card = model_card(report_of(HELLO, finished_round(1, {"centerB": reason})))
    (line,) = [line for line in card.splitlines() if "site centerB" in line and "rounds" in line]
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert not re.search(r"(?<!\\)[<>`*\[\]]", line)
    assert re.sub(r"\\(.)", r"\1", line).endswith(f": {reason} |")


def test_the_card_of_a_whole_run_is_markdown_with_its_study_on_top():
    card = model_card(whole_report(BASELINES))
    assert card.startswith("# Model card: small\n\n## Intended use\n\nFor research only")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(TITLES)


# ---- tables


@pytest.mark.parametrize("separation", [1.5, 30.0])
def test_tables_fit_a_terminal_of_80_columns_without_a_folded_cell(separation):
    report = whole_report(BASELINES, separation)
    text = shown(report_tables(report))
    for name in (*STUDY.classes, *BASELINES, "federated"):
        assert re.search(rf"│ {name} +│", text), name
    assert max(map(len, text.splitlines())) <= 80


def test_a_table_marks_a_class_of_few_cases_and_shows_intervals_and_support():
    report = whole_report()
    text, row = shown(report_tables(report)), report["final"]["per_class"]["FTC"]
    (line,) = [line for line in text.splitlines() if line.startswith("│ FTC")]
    assert line.split("│")[2].strip() == show_rate(row["recall"], row["recall_ci95"])
    assert line.split("│")[6].strip() == f"{row['support']}*"
    assert "*: fewer than 10 cases" in text
    assert "400 cases" in text
    assert "*" not in next(line for line in text.splitlines() if line.startswith("│ benign"))


def test_tables_of_a_run_without_results_are_empty():
    text = shown(report_tables(report_of()))
    assert "Federated model" in text
    assert "no cases" in text
    assert "cases" in shown(metrics_tables(whole_report()["final"], "test cases of centerA"))


def test_rates_are_shown_to_three_places_and_intervals_to_two():
    assert show_rate(None) == show_rate(None, [0.1, 0.2]) == "-"
    assert show_rate(0.7144) == ".714"
    assert show_rate(1.0, [0.9449, 1.0]) == "1.000 (.94-1.0)"
    assert show_rate(0.0, [0.0, 0.5]) == ".000 (.00-.50)"


def test_who_took_part_together_and_what_a_study_went_on_from_are_told():
    """A site that joined was not absent before; one that left is named."""
    first, second = HELLO | {"sites": ["centerA", "centerZ"], "membership_hash": "1"}, HELLO | {"sites": ["centerA", "centerB"]}
    one, two = finished_round(1) | {"participants": ["centerA", "centerZ"]}, finished_round(2)
    ancestor = {"study": "small", "rounds": 7} | dict.fromkeys(("study_hash", "membership_hash", "state_hash"), "a" * 64)
    began = {"event": "continued", "lineage": [ancestor]}
    report = report_of(began, first, one, second | {"membership_hash": "2", "round": 1}, two, *ending())
    rows = rows_of(report, "Participation")
    assert (rows["site centerA"], rows["site centerB"]) == ("2 of 2 rounds", "1 of 2 rounds")
    assert (rows["from round 1"], rows["from round 2"]) == ("centerA, centerZ", "centerA, centerB")
    assert rows["goes on from"] == "study small (aaaaaaaaaaaa), its model of round 7"
