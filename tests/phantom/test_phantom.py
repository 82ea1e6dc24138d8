"""The phantom: equal settings give equal bytes, labels agree with what is drawn, and nothing foreign is overwritten."""

import csv
import hashlib
import os
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from csasn.errors import ConfigurationError, StorageError
from csasn.phantom.case import Drawing, draw
from csasn.phantom.contact_sheet import draw_contact_sheet, sheet_size
from csasn.phantom.dataset import read_settings, redraw_case, write_phantom
from csasn.phantom.nodule import CLASSES, DESCRIPTORS, Nodule, draw_nodule
from csasn.phantom.plane import Plane
from csasn.phantom.scanner import SCANNERS, transmission
from csasn.phantom.settings import DEFAULT_MIXES, PhantomSettings, SiteMix, case_plans, class_counts
from csasn.pictures.images import read_image
from csasn.platform.randomness import generator
from csasn.site import read_site
from csasn.study import read_study

SMALL = PhantomSettings(seed=5, num_cases=10, image_px=64, num_workers=1)
PLAIN = Nodule("solid", "isoechoic", "wider", "smooth", "none", "none", size_cm=1.6, aspect=0.75, length=1.1, level_db=0.0, side=1)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "demo"
    return out, write_phantom(out, SMALL)


def case_labels(settings: PhantomSettings, site: str) -> list[str]:
    return [plan.label for plan in case_plans(settings, site)]


def manifest(out: Path, site: str) -> list[dict[str, str]]:
    with (out / site / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in out.rglob("*") if path.is_file()}


def contrast(nodule: Nodule, site: str = "centerC", draws: int = 6) -> float:
    """Mean grey inside the nodule less that of a band around it."""
    values = []
    for index in range(draws):
        drawing = draw(generator(index, "contrast"), nodule, SCANNERS[site], "transverse", size_px=96)
        near = np.zeros_like(drawing.mask)
        rows, columns = np.nonzero(drawing.mask)
        near[max(rows.min() - 3, 0) : rows.max() + 4, max(columns.min() - 3, 0) : columns.max() + 4] = True
        values.append(drawing.image[drawing.mask].mean() - drawing.image[near & ~drawing.mask].mean())
    return float(np.mean(values))


def grey_below(drawing: Drawing) -> float:
    """Mean grey of the 20 rows under the nodule, within its middle columns."""
    rows, columns = np.nonzero(drawing.mask)
    quarter = int(np.ptp(columns)) // 4
    return float(drawing.image[rows.max() + 1 : rows.max() + 21, columns.min() + quarter : columns.max() - quarter].mean())


def test_files_do_not_depend_on_the_number_of_workers(phantom, tmp_path):
    out, _ = phantom
    steps: list[int] = []
    write_phantom(tmp_path / "two", replace(SMALL, num_workers=2), steps.append)
    assert digests(tmp_path / "two") == digests(out)
    assert sum(steps) == len(SCANNERS) * SMALL.num_cases


def test_another_seed_gives_other_pictures(phantom, tmp_path):
    out, _ = phantom
    write_phantom(tmp_path / "other", replace(SMALL, seed=4, num_cases=2))
    assert digests(tmp_path / "other")["centerC/images/C0001-1.png"] != digests(out)["centerC/images/C0001-1.png"]


@pytest.mark.parametrize("num_cases", [4, 10, 57, 240])
def test_each_class_with_a_share_has_cases_and_the_counts_add_up(num_cases):
    for mix in DEFAULT_MIXES:
        counts = class_counts(mix, num_cases)
        assert sum(counts.values()) == num_cases
        assert all((counts[label] > 0) == (share > 0) for label, share in zip(CLASSES, mix.shares, strict=True))
        assert all(abs(counts[label] - share * num_cases) <= 1 for label, share in zip(CLASSES, mix.shares, strict=True))


def test_rare_carcinomas_are_enriched_and_one_site_has_no_mtc():
    settings = PhantomSettings()
    total = sum((Counter(case_labels(settings, site)) for site in SCANNERS), Counter())
    assert min(total["FTC"], total["MTC"]) >= 0.08 * total.total()
    assert total["benign"] + total["PTC"] > 0.75 * total.total()
    assert [site for site in SCANNERS if "MTC" not in case_labels(settings, site)] == ["centerC"]


def test_the_order_of_cases_does_not_follow_the_class():
    labels = case_labels(PhantomSettings(), "centerA")
    halves = [Counter(labels[:120])["benign"], Counter(labels[120:])["benign"]]
    assert abs(halves[0] - halves[1]) < 30


def test_study_sites_and_manifests_agree(phantom):
    out, summary = phantom
    study = read_study(out / "study.yaml")
    assert (study.classes, study.federation.sites, study.descriptors) == (CLASSES, tuple(SCANNERS), DESCRIPTORS)
    for counts in summary.sites:
        site = read_site(out / "sites" / f"{counts.site}.yaml")
        assert Path(site.manifest) == (out / counts.site / "manifest.csv").resolve()
        rows = manifest(out, counts.site)
        assert {path.name for path in Path(site.images).iterdir()} == {row["image"] for row in rows}
        assert counts.images == {label: sum(row["label"] == label for row in rows) for label in CLASSES}
        assert counts.cases == class_counts(SMALL.mix(counts.site), SMALL.num_cases)
        assert f"| {counts.site} | {counts.cases['benign']} ({counts.images['benign']})" in (out / "CARD.md").read_text(
            encoding="utf-8"
        )


def test_descriptors_are_words_of_the_study_and_some_are_missing(phantom):
    out, _ = phantom
    study = read_study(out / "study.yaml")
    rows = [row for site in SCANNERS for row in manifest(out, site)]
    cells = [(name, row[name]) for row in rows for name in study.descriptors if name != "shape"]
    assert all(value == "" or value in study.descriptors[name] for name, value in cells)
    assert 0.03 < np.mean([value == "" for _, value in cells]) < 0.2
    assert not any(row["shape"] for row in rows if row["view"] == "longitudinal")
    assert {row["shape"] for row in rows if row["view"] == "transverse"} == {"", *DESCRIPTORS["shape"]}


def test_names_do_not_tell_the_class(phantom):
    out, _ = phantom
    for site in SCANNERS:
        for row in manifest(out, site):
            assert not any(label.lower() in (row["case_id"] + row["image"]).lower() for label in CLASSES)


def test_dicom_files_hold_the_drawing_in_a_region_with_centimetres(phantom):
    out, _ = phantom
    stacks = 0
    for row in manifest(out, "centerA") + manifest(out, "centerB"):
        site = "centerA" if row["case_id"].startswith("A") else "centerB"
        dataset = pydicom.dcmread(out / site / "images" / row["image"])
        region = dataset.SequenceOfUltrasoundRegions[0]
        assert (region.RegionSpatialFormat, region.RegionDataType, region.PhysicalUnitsXDirection) == (1, 1, 3)
        assert (dataset.Modality, dataset.PhotometricInterpretation, str(dataset.PatientName)) == (
            "US",
            "MONOCHROME2",
            "PHANTOM^SYNTHETIC",
        )
        frames = dataset.pixel_array if "NumberOfFrames" in dataset else dataset.pixel_array[None]
        stacks += len(frames) > 1
        down = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
        right = slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1)
        drawing = redraw_case(SMALL, site, row["case_id"]).views[int(row["image"][6]) - 1].drawing
        assert np.array_equal(frames[:, down, right], drawing.frames)
        assert region.PhysicalDeltaX == pytest.approx(drawing.spacing_cm, abs=1e-7)
        outside = frames[0].copy()
        outside[down, right] = 0
        assert outside.max() > 150  # decoration, which cropping must take off
    assert stacks > 0


def test_the_reader_of_images_gives_the_drawing_back(phantom):
    out, _ = phantom
    for site in ("centerA", "centerC"):
        row = manifest(out, site)[0]
        drawing = redraw_case(SMALL, site, row["case_id"]).views[0].drawing
        picture = read_image(out / site / "images" / row["image"])
        assert any(np.array_equal(picture.pixels_HW, frame) for frame in drawing.frames)
        if site == "centerA":
            assert picture.spacing_mm == pytest.approx((10 * drawing.spacing_cm,) * 2, abs=1e-6)


def test_a_redrawn_case_is_the_picture_on_disk_with_its_mask(phantom):
    out, _ = phantom
    row = manifest(out, "centerD")[0]
    view = redraw_case(read_settings(out), "centerD", row["case_id"]).views[0]
    assert np.array_equal(view.drawing.image, np.asarray(Image.open(out / "centerD" / "images" / row["image"])))
    assert view.drawing.mask.shape == (64, 64)
    assert 0 < view.drawing.mask.mean() < 0.8
    with pytest.raises(ConfigurationError, match="no such case"):
        redraw_case(SMALL, "centerD", "D0099")


def test_darkness_follows_echogenicity():
    levels = {"hyperechoic": 3.5, "isoechoic": 0.0, "hypoechoic": -9.0, "very hypoechoic": -16.0}
    greys = [contrast(replace(PLAIN, echogenicity=word, level_db=level)) for word, level in levels.items()]
    greys.append(contrast(replace(PLAIN, composition="cystic", echogenicity="anechoic")))
    assert all(brighter - darker > 7 for brighter, darker in pairwise(greys)), greys


def test_taller_nodules_are_drawn_taller():
    for shape, aspect in (("taller", 1.2), ("wider", 0.8)):
        nodule = replace(PLAIN, shape=shape, aspect=aspect, margin="irregular")
        for index in range(6):
            mask = draw(generator(index, "shape"), nodule, SCANNERS["centerA"], "transverse", size_px=96).mask
            height, width = np.ptp(np.nonzero(mask)[0]) + 1, np.ptp(np.nonzero(mask)[1]) + 1
            assert (height > width) == (shape == "taller")


def test_punctate_foci_are_bright_and_coarse_calcium_casts_a_shadow():
    dark = replace(PLAIN, echogenicity="very hypoechoic", level_db=-16.0)
    brightest, below = {}, {}
    for foci in ("none", "punctate", "macrocalcification"):
        nodule = replace(dark, foci=foci)
        drawings = [draw(generator(i, "foci"), nodule, SCANNERS["centerC"], "transverse", size_px=96) for i in range(8)]
        brightest[foci] = np.mean([np.quantile(drawing.image[drawing.mask], 0.995) for drawing in drawings])
        below[foci] = np.mean([grey_below(drawing) for drawing in drawings])
    assert brightest["punctate"] > brightest["none"] + 40
    assert below["macrocalcification"] < below["none"] - 5


def test_a_shadow_fills_in_with_depth_and_fluid_enhances():
    plane = Plane(96, 4.0)
    loss = np.zeros((96, 96), np.float32)
    loss[20:24, 44:52] = 120
    beam = transmission(loss, plane)
    assert beam[26, 48] < beam[90, 48] < 1
    assert beam[90, 5] == pytest.approx(1, abs=1e-3)
    assert transmission(np.full_like(loss, -2.6), plane)[-1, 48] > 2


def test_attributes_follow_the_rates_of_their_class():
    rng = generator(5, "rates")
    papillary = [draw_nodule(rng, "PTC") for _ in range(1500)]
    assert np.mean([nodule.shape == "taller" for nodule in papillary]) == pytest.approx(0.47, abs=0.04)
    assert np.mean([nodule.foci == "punctate" for nodule in papillary]) == pytest.approx(0.45, abs=0.04)
    assert np.mean([nodule.composition == "solid" for nodule in papillary]) == pytest.approx(0.92, abs=0.03)
    assert all((nodule.aspect > 1) == (nodule.shape == "taller") for nodule in papillary)


def test_an_equal_phantom_is_left_alone_and_another_needs_replace(phantom, tmp_path):
    out = tmp_path / "demo"
    tiny = PhantomSettings(num_cases=1, image_px=48, num_workers=1)
    assert write_phantom(out, tiny).written
    before = os.stat(out / "phantom.json").st_mtime_ns
    again = write_phantom(out, replace(tiny, num_workers=2))
    assert not again.written
    assert os.stat(out / "phantom.json").st_mtime_ns == before
    with pytest.raises(ConfigurationError, match="other settings"):
        write_phantom(out, replace(tiny, seed=9))
    assert write_phantom(out, replace(tiny, seed=9, replace=True)).written
    assert read_settings(out) == replace(tiny, seed=9)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "notes.txt").write_text("keep")
    with pytest.raises(StorageError, match="holds no phantom") as caught:
        write_phantom(tmp_path / "patients", SMALL)
    assert caught.value.hint
    tiny = PhantomSettings(num_cases=1, image_px=48, num_workers=1)
    write_phantom(tmp_path / "demo", tiny)
    (tmp_path / "demo" / "runs").mkdir()
    with pytest.raises(StorageError, match="runs"):
        write_phantom(tmp_path / "demo", replace(tiny, seed=2, replace=True))
    assert (tmp_path / "demo" / "phantom.json").exists()


def test_a_failure_leaves_nothing_half_written(tmp_path):
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left") as caught:
        write_phantom(tmp_path / "demo", PhantomSettings(num_cases=1, image_px=48, num_workers=1), fail)
    assert "free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"num_cases": 0}, {"image_px": 8}, {"seed": -1}, {"mixes": ()}, {"mixes": (SiteMix("centerX", (1.0, 0.0, 0.0, 0.0)),)}],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ConfigurationError):
        replace(SMALL, **change)
    with pytest.raises(ConfigurationError):
        replace(SMALL, mixes=(SiteMix("centerA", (0.5, 0.5, 0.5, 0.0)),))


def test_the_contact_sheet_has_the_promised_size(tmp_path):
    size = draw_contact_sheet(tmp_path / "sheet.png", seed=1, num_nodules=1, picture_px=64)
    assert size == sheet_size(1, 64) == Image.open(tmp_path / "sheet.png").size
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
