"""`csasn explain`: a picture an image, which tells no name, and the share of saliency inside a phantom's nodules."""

import json
import os
from functools import partial

import numpy as np
import pytest
from PIL import Image

from command_line import run_quietly
from csasn.finished.saliency import Saliency
from csasn.finished.weights import NOTICE, Prediction, load_model, save_model
from csasn.model.network import build_network
from csasn.phantom.dataset import write_phantom
from csasn.phantom.saliency import saliency_in_nodule
from csasn.phantom.settings import PhantomSettings, SiteMix
from csasn.platform.configuration import validate
from csasn.report.saliency import draw_saliency
from csasn.site import find_site
from csasn.study import Study, read_study

MIXES = (SiteMix("centerB", (0.4, 0.3, 0.1, 0.2)), SiteMix("centerD", (0.4, 0.3, 0.1, 0.2)))
SQUARE = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)


run = partial(run_quietly, "csasn")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "demo"
    write_phantom(folder, PhantomSettings(num_cases=10, image_px=96, mixes=MIXES, num_workers=1))
    changes = ("model={profile: csasn-test, image_size: 64}", "federation={sites: [centerB, centerD]}")
    study = read_study(folder / "study.yaml", changes)
    (folder.parent / "model").mkdir()
    save_model(folder.parent / "model", study, build_network(study), 1, np.zeros(4), "none")
    return folder


def test_a_picture_is_drawn_of_each_image_and_a_broken_one_is_named_and_stops_no_other(phantom, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    images = phantom / "centerD/images"
    dicom = sorted((phantom / "centerB/images").iterdir())[0]
    done = run("explain", phantom.parent / "model", tmp_path / "broken.png", images, dicom, "--out", tmp_path / "out", "--json")
    assert done.returncode == 4
    assert "1 of" in done.stderr
    rows = json.loads(done.stdout)["images"]
    assert rows[0]["error"]
    assert rows[0]["image"].endswith("broken.png")
    assert rows[0]["picture"] is None
    assert [row["image"] for row in rows[1:]] == [*map(str, sorted(images.iterdir())), str(dicom)]
    assert sorted(os.listdir(tmp_path / "out")) == [row["picture"] for row in rows[1:]]
    for row in rows[1:]:
        with Image.open(tmp_path / "out" / row["picture"]) as picture:
            assert picture.format == "PNG"
            assert picture.size[0] > 1000
        assert (tmp_path / "out" / row["picture"]).stat().st_mode & 0o077 == 0


def test_no_name_of_a_file_leaks_into_the_pictures(phantom, tmp_path):
    secret = tmp_path / "Mustermann-4711.png"
    secret.write_bytes(sorted((phantom / "centerD/images").iterdir())[0].read_bytes())
    done = run("explain", phantom.parent / "model", secret, "--out", tmp_path / "out", env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "Mustermann" in done.stdout
    assert NOTICE in " ".join(done.stdout.split())  # the title is as wide as the table
    assert os.listdir(tmp_path / "out") == ["1.png"]
    assert b"Mustermann" not in (tmp_path / "out/1.png").read_bytes()


def test_a_folder_that_holds_something_is_left_alone(phantom, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    done = run("explain", phantom.parent / "model", phantom / "centerD/images", "--out", tmp_path)
    assert done.returncode == 9
    assert "not empty" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize(
    "arguments", [(), ("x.png",), ("--out", "o"), ("x.png", "--phantom", "d"), ("--phantom", "d", "--out", "o")], ids=" ".join
)
def test_arguments_that_do_not_go_together_are_refused_with_a_hint(phantom, arguments):
    done = run("explain", phantom.parent / "model", *arguments)
    assert done.returncode == 3
    assert "hint: " in done.stderr


def test_the_share_inside_the_nodule_is_what_the_library_says(phantom):
    model = phantom.parent / "model"
    done = run("explain", model, "--phantom", phantom, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sites = {name: find_site(name, folder=phantom / "sites") for name in ("centerB", "centerD")}
    shares = saliency_in_nodule(*load_model(model), phantom, sites)
    assert found["gradcam"] == pytest.approx(shares.gradcam, rel=1e-4)
    assert found["rollout"] == pytest.approx(shares.rollout, rel=1e-4)
    assert (found["area"], found["num_images"]) == (shares.area, shares.num_images)
    table = run("explain", model, "--phantom", phantom)
    assert f" {shares.rollout:.3f}".removeprefix(" 0") in table.stdout
    assert f" {shares.area:.3f}".removeprefix(" 0") in table.stdout


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def colourful(picture):
    return (picture.max(axis=2) - picture.min(axis=2) > 60).sum()


def test_a_picture_without_branches_or_mass_is_grey_but_for_its_bar(tmp_path):
    study = validate(Study, {"name": "s", "classes": ["a", "b"], "federation": {"sites": ["x"]}}, "study.yaml")
    prediction = Prediction("b", dict(zip(study.classes, (0.999, 0.001), strict=True)))
    spot = np.zeros((64, 64))
    spot[20:30, 20:30] = 1
    draw_saliency(SQUARE, Saliency(np.zeros((64, 64)), None), prediction, tmp_path / "grey.png", NOTICE)
    draw_saliency(SQUARE, Saliency(spot, spot), prediction, tmp_path / "spots.png", NOTICE)
    assert colourful(pixels(tmp_path / "grey.png")) < 2000 < colourful(pixels(tmp_path / "spots.png"))


def test_many_classes_with_long_names_and_dollars_are_drawn_and_the_decision_is_among_them(tmp_path):
    """A name between dollars would be set as a formula, and `$\\frac$` would be an error."""
    names = [f"$\\frac$ {number} " + "x" * 40 for number in range(30)]
    values = dict(zip(names, np.linspace(0.0, 2 / 30, 30), strict=True))
    draw_saliency(SQUARE, Saliency(None, None), Prediction(names[0], values), tmp_path / "first.png", NOTICE)
    draw_saliency(SQUARE, Saliency(None, None), Prediction(names[29], values), tmp_path / "last.png", NOTICE)
    assert pixels(tmp_path / "first.png").shape == pixels(tmp_path / "last.png").shape
    assert colourful(pixels(tmp_path / "last.png")) > 300 > colourful(pixels(tmp_path / "first.png"))
