"""Kept results, and tables that say what can be concluded from them."""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from csasn.errors import StorageError
from csasn.measures.cases import measure_names
from csasn.site import find_site
from grid_scene import CLASSES, drawn_predictions, write_grid
from server.evidence.cells import base_study, cells_of
from server.evidence.estimation import Estimate
from server.evidence.grid import read_grid
from server.evidence.picture import draw_comparisons
from server.evidence.predictions import load_predictions, save_predictions
from server.evidence.provenance import data_hash
from server.evidence.results import Record, Results, classes_of
from server.evidence.summary import check_comparisons, summarise
from server.evidence.tables import markdown

SVG = "{http://www.w3.org/2000/svg}"


def test_predictions_are_small_numbers_alone_and_read_back_in_order(tmp_path):
    predictions = drawn_predictions(1200)
    path = tmp_path / "p.npz"
    save_predictions(path, {"a-1": predictions})
    assert path.stat().st_size < 15_000
    with np.load(path, allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} <= {"u", "f"}
    again = load_predictions(path)["a-1"]
    np.testing.assert_array_equal(again.keys(), predictions.keys())
    np.testing.assert_array_equal(again.cases.decision_N, predictions.cases.decision_N)
    np.testing.assert_allclose(again.cases.log_probability_NK, predictions.cases.log_probability_NK, rtol=1e-3, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(StorageError, match="cannot be read as predictions"):
        load_predictions(path)


def test_one_file_holds_the_predictions_of_all_cells_and_its_bytes_follow_from_them_alone(tmp_path):
    drawn = {f"{name}-{seed}": drawn_predictions(60, seed) for name in ("b", "a") for seed in (2, 1)}
    save_predictions(tmp_path / "p.npz", drawn)
    again = load_predictions(tmp_path / "p.npz")
    assert again.keys() == drawn.keys()
    assert all(again[name].sha256() == drawn[name].sha256() == drawn[name].rounded().sha256() for name in drawn)
    assert drawn["a-1"].sha256() != drawn["a-2"].sha256()
    save_predictions(tmp_path / "q.npz", again)
    assert (tmp_path / "q.npz").read_bytes() == (tmp_path / "p.npz").read_bytes()


def test_a_record_without_its_own_predictions_counts_as_not_done(tmp_path, hospitals):
    grid = read_grid(write_grid(tmp_path, study=str(hospitals / "hospitals/study.yaml")))
    cell = next(cell for cell in cells_of(grid) if cell.variant == "pooled")
    results = Results(tmp_path / "grid", "grid", CLASSES)
    (tmp_path / "grid").mkdir()
    results.keep(cell, record_of(cell), drawn_predictions(60))
    again = Results(tmp_path / "grid", "grid", CLASSES)
    assert again.finished(cell).values.keys() == set(measure_names(CLASSES))
    save_predictions(tmp_path / "grid/predictions.npz", {"pooled-1": drawn_predictions(60, seed=1)})
    assert Results(tmp_path / "grid", "grid", CLASSES).finished(cell) is None
    (tmp_path / "grid/predictions.npz").unlink()
    assert Results(tmp_path / "grid", "grid", CLASSES).finished(cell) is None


def record_of(cell, **more):
    own = {"variant": cell.variant, "seed": cell.seed, "method": cell.method, "statistics": cell.statistics}
    return Record(**own, study_hash=cell.study.study_hash, data_hash="d", code_version="c", **more)


def test_the_hash_of_the_data_counts_manifests_and_pictures(tmp_path, hospitals):
    shutil.copytree(hospitals / "hospitals", tmp_path / "h")
    sites = {"centerA": find_site("centerA", folder=tmp_path / "h/sites")}
    before = data_hash(sites)
    picture = next((tmp_path / "h/centerA/images").iterdir())
    whole = picture.read_bytes()
    picture.write_bytes(whole + b"\0")
    assert data_hash(sites) != before
    picture.write_bytes(whole)
    assert data_hash(sites) == before


def summary_of(tmp_path, hospitals, skills, num_cases):
    """A grid of two variants whose predictions are drawn, as good as `skills` say, over the seeds 1 to 5."""
    pair = {"of": "good", "against": "bad", "metrics": ["macro_auroc", "brier", "recall.FTC"], "at_equal_rare_recall": True}
    pair["at_least"] = {"macro_auroc": 0.0, "macro_f1": -0.01, "recall.FTC": 0.9}
    variants = {"good": {"central": "pooled"}, "bad": {"central": "pooled", "optimiser.batch_size": 4}}
    path = write_grid(
        tmp_path, study=str(hospitals / "hospitals/study.yaml"), seeds=[1, 2, 3, 4, 5], variants=variants, comparisons=[pair]
    )
    grid = read_grid(path)
    cells = cells_of(grid)
    classes = classes_of(base_study(grid), grid.rare)
    check_comparisons(grid, cells, classes, ("centerA", "centerB"))
    (tmp_path / "grid").mkdir()
    results = Results(tmp_path / "grid", "grid", classes)
    for cell in cells:
        record = record_of(cell, device="cpu", saliency={"gradcam": 0.5, "rollout": None, "area": 0.1})
        results.keep(cell, record, drawn_predictions(num_cases, cell.seed, skills[cell.variant]))
    return summarise(grid, cells, results, ("centerA", "centerB"))


def table(summary, title):
    """The rows of a table of results.md, each by the names of its columns."""
    text = markdown(summary).partition(f"## {title}\n\n")[2].partition("\n\n")[0]
    columns, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return [dict(zip(columns, row, strict=True)) for row in rows]


def verdicts(summary, title="Comparisons", column="verdict"):
    return {row["measure"]: row[column] for row in table(summary, title)}


def test_a_difference_is_told_where_both_intervals_show_it(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    assert verdicts(summary) == dict.fromkeys(("macro AUROC", "brier", "recall FTC", "macro F1"), "better")
    assert verdicts(summary, "Comparisons at equal rare recall")["macro F1"] == "better"
    difference = summary.comparisons[0].differences["macro_auroc"]
    assert isinstance(difference, Estimate)
    assert len(difference.values) == 5
    good, bad = (item.measures["macro_auroc"].mean for item in summary.variants)
    assert difference.mean == pytest.approx(good - bad)
    assert summary.comparisons[0].differences["brier"].mean < 0
    text = markdown(summary)
    assert "| good | 0.500 | - | 0.100 |" in text
    assert "Origin: code c, data d, cpu." in text


def test_a_worse_variant_is_called_worse_and_an_equal_one_not_shown(tmp_path, hospitals):
    (tmp_path / "worse").mkdir()
    (tmp_path / "equal").mkdir()
    assert verdicts(summary_of(tmp_path / "worse", hospitals, {"good": 0.5, "bad": 1.5}, 300))["brier"] == "worse"
    assert set(verdicts(summary_of(tmp_path / "equal", hospitals, {"good": 1.0, "bad": 1.0}, 300)).values()) == {"not shown"}


@pytest.mark.parametrize(
    ("place", "says"), [("surely", "held, also by both intervals"), ("mean", "held by the mean"), ("above", "missed")]
)
def test_a_bar_is_held_by_both_intervals_or_by_the_mean_or_missed(tmp_path, hospitals, place, says):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    first = summary.comparisons[0]
    difference = first.differences["macro_f1"]
    lowest = min(difference.over_cases[0], difference.over_seeds[0])
    bar = {"surely": lowest, "mean": difference.mean, "above": difference.mean + 0.001}[place]
    moved = replace(summary, comparisons=(replace(first, asked=first.asked.model_copy(update={"at_least": {"macro_f1": bar}})),))
    found = verdicts(moved, column="bar")
    assert found["macro F1"] == f"{bar:+.3f}: {says}"
    assert found["brier"] == "-"


def test_the_picture_shows_each_difference_where_it_is(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 1.5, "bad": 0.5}, 300)
    tree = ElementTree.fromstring(draw_comparisons(summary))
    texts = {float(text.text): float(text.get("x")) for text in tree.iter(f"{SVG}text") if text.get("text-anchor") == "middle"}
    (low, first), (high, last) = min(texts.items()), max(texts.items())
    item = summary.comparisons[0]
    expected = [estimate.mean for estimate in (*item.differences.values(), *item.at_equal_rare_recall.values())]
    shown = [low + (float(circle.get("cx")) - first) / (last - first) * (high - low) for circle in tree.iter(f"{SVG}circle")][1:]
    assert shown == pytest.approx(np.clip(expected, low, high), abs=0.001)
    bars = [path for path in tree.iter(f"{SVG}path") if path.get("class") == "bar"]
    assert len(bars) == 1 + len(item.asked.at_least)
    assert draw_comparisons(replace(summary, comparisons=())) == ""


def test_results_of_other_data_are_not_compared(tmp_path, hospitals):
    (tmp_path / "one").mkdir()
    summary_of(tmp_path / "one", hospitals, {"good": 1.0, "bad": 0.0}, 60)
    path = tmp_path / "one/grid/results.json"
    facts = json.loads(path.read_text())
    for cell in facts["cells"]:
        if (cell["variant"], cell["seed"]) in (("good", 1), ("bad", 2)):
            cell["data_hash"] = "other"
    path.write_text(json.dumps(facts))
    grid = read_grid(tmp_path / "one/grid.yaml")
    classes = classes_of(base_study(grid), grid.rare)
    summary = summarise(grid, cells_of(grid), Results(path.parent, "grid", classes), ("centerA", "centerB"))
    assert summary.comparisons[0].seeds == (3, 4, 5)
    assert "of different code, data or devices" in markdown(summary)


def test_fewer_than_ten_cases_of_a_class_are_nothing_to_conclude_from(tmp_path, hospitals):
    summary = summary_of(tmp_path, hospitals, {"good": 2.5, "bad": 0.0}, 27)
    assert set(verdicts(summary).values()) == {"too few cases"}
    assert all(row["cases"] == "9*" and row["recall"].endswith("*") for row in table(summary, "Classes"))
