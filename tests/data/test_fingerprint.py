"""csasn/data/fingerprint.py, its page of pictures, and what `client doctor` says of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file

from client.doctor import checks_data
from client.doctor.context import DoctorContext
from client.doctor.doctor import examine
from csasn.data import cache as cache_module
from csasn.data.cases import Records, load_records, load_site_data
from csasn.data.fingerprint import Fingerprint, take_fingerprint
from csasn.pictures.images import Picture, read_image
from csasn.pictures.picture_facts import measure
from csasn.recipe import Model
from csasn.site import Policy, Site
from csasn.study import Federation, Study, Task

STUDY = Study(
    name="thyroid",
    classes=("benign", "PTC"),
    malignant=("PTC",),
    tasks={"subtype": Task(), "malignancy": Task()},
    model=Model(profile="csasn-test", image_size=32),
    federation=Federation(sites=("centerA",)),
)


def noise(seed: int, height: int = 80, width: int = 100, mean: int = 70) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 8, (height, width)).clip(0, 255).astype(np.uint8)


def marked(picture: np.ndarray, kind: str) -> np.ndarray:
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    if kind == "text":
        pen.text((10, 10), "NAME 1961", fill=230, font=ImageFont.load_default(14))
    else:
        pen.line((60, 60, 72, 60), fill=240)
        pen.line((66, 54, 66, 66), fill=240)
    return np.asarray(image)


class Hospital:
    """A site in a folder: rows of (case, image, label, split, scanner) and their pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        (folder / "images").mkdir()
        places = {"manifest": str(folder / "manifest.csv"), "images": str(folder / "images"), "state": str(self.state)}
        self.site = Site(site="centerA", policy=Policy(minimum_cases=1), **places)

    def write(self, rows: Sequence[Sequence[str]], pictures: Sequence[np.ndarray]) -> None:
        for row, picture in zip(rows, pictures, strict=True):
            Image.fromarray(picture).save(self.folder / "images" / row[1])
        lines = [",".join([*row, "", ""][:5]) for row in rows]
        (self.folder / "manifest.csv").write_text("\n".join(["case_id,image,label,split,scanner", *lines]))

    def records(self) -> Records:
        return load_records(STUDY, self.site, 32)

    def fingerprint(self) -> Fingerprint:
        return take_fingerprint(STUDY, "centerA", self.records())


def examine_data(hospital: Hospital) -> dict[str, str]:
    """What `client doctor` says of the data, by check."""
    context = DoctorContext("centerA")
    vars(context).update(site=hospital.site, study=STUDY)
    return {one.check: "; ".join(one.lines()) for one in examine(context, lambda _: None, checks_data.DATA_CHECKS)}


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


def four_rows() -> tuple[list[tuple[str, ...]], list[np.ndarray]]:
    rows = [
        ("SECRETa", "SECRET1.png", "PTC", "train", "L14"),
        ("SECRETa", "SECRET2.png", "PTC", "train", "L14"),
        ("SECRETb", "SECRET3.png", "benign", "test"),
        ("SECRETc", "SECRET4.png", "", "train", r"_a$b\frac{$"),
    ]
    return rows, [noise(1), marked(noise(2), "text"), marked(noise(3, 90, 120), "caliper"), noise(1)]


def test_the_fingerprint_counts_what_the_manifest_and_the_images_hold(hospital: Hospital) -> None:
    hospital.write(*four_rows())
    found = hospital.fingerprint()
    assert (found.num_cases, found.num_images) == (3, 4)
    assert {name: (c.num_cases, c.num_images) for name, c in found.splits["train"].items()} == {
        "benign": (0, 0),
        "PTC": (1, 2),
        "unlabelled": (1, 1),
    }
    assert (found.splits["test"]["benign"].num_cases, found.images_per_case.most) == (1, 2)
    assert found.sizes == {"100 x 80": 3, "120 x 90": 1}
    assert (found.height.least, found.width.most) == (80, 120)
    assert {name: group.num_images for name, group in found.scanners.items()} == {"L14": 2, "unknown": 1, r"_a$b\frac{$": 1}
    assert (found.spacing_mm, found.num_without_spacing) == (None, 4)
    assert [(item.row, item.same_as) for item in found.duplicates] == [(5, 2)]
    assert (found.rows_with_text, found.rows_with_calipers) == ((3,), (4,))
    assert found.text_share == {"PTC": 0.5, "benign": 0, "unlabelled": 0}
    assert found.caliper_share == {"PTC": 0, "benign": 1, "unlabelled": 0}


def test_facts_agree_with_numpy(hospital: Hospital) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 75), np.uint8)
    facts = measure(Picture(pixels, (0.1, 0.2), "maker model"))
    assert (facts.height, facts.width, facts.spacing_mm, facts.device) == (60, 75, (0.1, 0.2), "maker model")
    assert facts.mean == pytest.approx(pixels.mean(), abs=1e-3)
    assert facts.deviation == pytest.approx(pixels.std(), abs=1e-3)
    np.testing.assert_allclose(facts.percentiles, np.percentile(pixels, (1, 50, 99)), atol=1)
    assert facts.black_share == pytest.approx((pixels == 0).mean(), abs=1e-5)
    assert facts.saturated_share == pytest.approx((pixels == 255).mean(), abs=1e-5)


def test_facts_come_from_the_cache_without_a_second_decode(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, pictures = four_rows()
    hospital.write(rows, pictures)
    first = hospital.records().images.facts
    monkeypatch.setattr(cache_module, "read_image", lambda *_: pytest.fail("decoded again"))
    assert hospital.records().images.facts == first
    (hospital.folder / "images/SECRET1.png").rename(hospital.folder / "images/moved.png")
    manifest = hospital.folder / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("SECRET1.png", "moved.png"))
    assert sorted(map(str, hospital.records().images.facts)) == sorted(map(str, first))


def test_the_scanner_of_a_real_dicom_object_is_its_maker_and_model() -> None:
    path = get_testdata_file("examples_rgb_color.dcm", download=False)
    assert path is not None
    assert read_image(Path(path)).device == "G.E. Medical Systems LOGIQ 700"


def many(share_PTC: int, share_benign: int) -> tuple[list[tuple[str, ...]], list[np.ndarray]]:
    """Twenty cases of each class, of which so many have calipers."""
    rows, pictures = [], []
    for label, num_marked in (("PTC", share_PTC), ("benign", share_benign)):
        for case in range(20):
            rows.append((f"{label}{case}", f"{label}{case}.png", label))
            plain = noise(len(rows))
            pictures.append(marked(plain, "caliper") if case < num_marked else plain)
    return rows, pictures


def test_calipers_in_one_class_are_noted_as_a_shortcut(hospital: Hospital) -> None:
    hospital.write(*many(18, 2))
    (note,) = hospital.fingerprint().notes
    assert note.startswith("suspected caliper marks on 90% of the images of PTC and 10% of benign: a model may learn")


@pytest.mark.parametrize("shares", [(8, 8), (10, 7), (20, 20), (0, 0)])
def test_calipers_alike_in_both_classes_are_no_shortcut(hospital: Hospital, shares: tuple[int, int]) -> None:
    hospital.write(*many(*shares))
    assert hospital.fingerprint().notes == ()


def test_doctor_writes_a_private_fingerprint_that_names_rows_alone(hospital: Hospital) -> None:
    hospital.write(*four_rows())
    said = examine_data(hospital)
    text = (hospital.state / "fingerprint.json").read_text()
    assert Fingerprint.model_validate_json(text) == hospital.fingerprint()
    assert "SECRET" not in text + "".join(said.values())
    for name in ("fingerprint.json", "fingerprint.png"):
        assert (hospital.state / name).stat().st_mode & 0o777 == 0o600
    with Image.open(hospital.state / "fingerprint.png") as page:
        assert page.format == "PNG"
        assert page.size[0] >= 1200
    assert "row 3 shows suspected burned-in text" in said["burned-in text"]
    assert "see fingerprint.png, and crop or mask what may name a patient" in said["burned-in text"]
    assert "row 4 shows suspected calipers" in said["calipers"]
    assert json.loads(text)["schema_version"] == 1


def test_doctor_shows_examples_where_nothing_is_suspected(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = four_rows()
    hospital.write(rows, [noise(seed) for seed in range(4)])
    shown = []
    monkeypatch.setattr(checks_data, "draw_fingerprint", lambda fingerprint, records, samples, path: shown.extend(samples))
    said = examine_data(hospital)
    assert [sample.row for sample in shown] == [2, 3, 4, 5]
    assert [said[check] for check in ("burned-in text", "calipers")] == [
        "✓ burned-in text: none suspected",
        "✓ calipers: none suspected",
    ]


def test_of_many_marks_text_and_calipers_are_both_shown_and_rows_are_counted(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["text"] * 15 + ["caliper"] * 15
    rows = [(f"case{n}", f"{n}.png", "PTC") for n in range(30)]
    hospital.write(rows, [marked(noise(n), kind) for n, kind in enumerate(kinds)])
    shown = []
    monkeypatch.setattr(checks_data, "draw_fingerprint", lambda fingerprint, records, samples, path: shown.extend(samples))
    said = examine_data(hospital)
    assert [sample.marks[0].kind for sample in shown].count("text") == 6
    assert len(shown) == 12
    assert "rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more show suspected burned-in text" in said["burned-in text"]


def test_training_says_nothing_of_marks(hospital: Hospital) -> None:
    hospital.write(*four_rows())
    assert not any("suspected" in note for note in load_site_data(STUDY, hospital.site, 32).notes)


def test_a_scanner_named_in_another_script_is_drawn_without_a_word(hospital: Hospital, recwarn: pytest.WarningsRecorder) -> None:
    hospital.write([("a", "a.png", "PTC", "", "東芝"), ("b", "b.png", "benign")], [noise(1), noise(2)])
    examine_data(hospital)
    assert [str(one.message) for one in recwarn] == []
