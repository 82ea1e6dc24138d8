"""`csasn predict`: no file is dropped, no name vanishes, and a decision that is not the most probable class is explained."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from csasn.errors import ConfigurationError, DataError
from csasn.finished.prediction import ImagePrediction, find_images, prediction_facts, prediction_rows
from csasn.finished.weights import Prediction
from csasn.report.predictions import prediction_table

CLASSES = ("benign", "PTC", "FTC", "MTC")
LONG = Path("/archive/a hospital/2024/[thyroid]/IM_0000000000000000001234")


def item(decision, *probabilities, path=LONG):
    return ImagePrediction(path, Prediction(decision, dict(zip(CLASSES, probabilities, strict=True))))


def printed(items, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(prediction_table(items, CLASSES, "for research"))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 160])
def test_names_and_figures_are_whole_however_narrow_the_terminal(width):
    text = printed([item("PTC", 0.1, 0.7, 0.125, 0.075)], width)
    cells = "".join(line.split("┃" if "┃" in line else "│")[1].strip() for line in text.splitlines() if line.startswith("│"))
    assert cells.replace(" ", "") == str(LONG).replace(" ", "")
    assert all(figure in text for figure in ("0.100", "0.700", "0.125", "0.075", "PTC"))
    assert max(map(len, text.splitlines())) <= width


def test_a_decision_for_another_class_than_the_most_probable_is_explained():
    plain, other = item("PTC", 0.1, 0.7, 0.1, 0.1), item("FTC", 0.2, 0.5, 0.2, 0.1)
    assert "*" not in printed([plain], 160)
    text = " ".join(printed([plain, other], 160).split())
    assert "FTC*" in text
    assert "decided FTC, though another class is more probable: rare classes count more in a decision, see the model card" in text


def test_csv_and_json_hold_every_file_with_all_that_is_known_of_it():
    fault = ImagePrediction(Path("b.png"), None, DataError("the image is damaged", "export it again"))
    items = [replace(item("FTC", 0.2, 0.5, 0.2, 0.1, path=Path("a,b.png")), notes=("its pixels were not square",)), fault]
    text = io.StringIO()
    csv.writer(text).writerows(prediction_rows(items, CLASSES))
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["image"] for row in rows] == ["a,b.png", "b.png"]
    assert (rows[0]["decision"], rows[0]["most_probable"], float(rows[0]["p_PTC"]), rows[0]["error"]) == ("FTC", "PTC", 0.5, "")
    assert rows[0]["notes"] == "its pixels were not square"
    assert "its pixels were not square" in " ".join(printed(items, 200).split())
    assert (rows[1]["decision"], rows[1]["p_PTC"], rows[1]["error"]) == ("", "", "the image is damaged")
    facts = [prediction_facts(one) for one in items]
    assert (facts[0]["most_probable"], facts[0]["notes"]) == ("PTC", ["its pixels were not square"])
    assert facts[1] == {"image": "b.png", "error": "the image is damaged"}


def test_every_file_of_a_folder_is_looked_at_whatever_its_name(tmp_path):
    names = ["A.PNG", "IM_0001", "deep/er/b.dcm", "notes.txt"]
    for name in [*names, ".hidden", ".cache/c.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])] == sorted(names)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigurationError, match="no file found"):
        find_images([empty])
