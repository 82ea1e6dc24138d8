"""csasn/data/cases.py and csasn/data/cache.py: a site's data set, and its cache of decoded images."""

import json
import os
import random
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import ExplicitVRLittleEndian

from csasn.data import cache as cache_module
from csasn.data.cases import TEST, TRAIN, VALIDATION, SiteData, count_training_cases, load_site_data
from csasn.errors import DataError, StorageError
from csasn.pictures import images as images_module
from csasn.site import Policy, Site
from csasn.study import Federation, Study, Task

SIZE = 32
CLASSES = ("benign", "PTC", "FTC", "MTC")
STUDY = Study(
    name="thyroid",
    classes=CLASSES,
    malignant=("PTC", "FTC", "MTC"),
    tasks={"subtype": Task(), "malignancy": Task(), "margin": Task(values=("smooth", "irregular"))},
    federation=Federation(sites=("centerA",)),
)


class Hospital:
    """A site in a folder; tests write its manifest: rows of (case, image, label, split, margin). Images come at first mention."""

    def __init__(self, folder: Path, minimum_cases: int = 1) -> None:
        self.images, self.manifest, self.cache = folder / "images", folder / "manifest.csv", folder / "state" / "cache"
        self.images.mkdir()
        places = {"manifest": str(self.manifest), "images": str(self.images), "state": str(folder / "state")}
        self.site = Site(site="centerA", policy=Policy(minimum_cases=minimum_cases), **places)

    def picture(self, name: str, seed: int | None = None) -> None:
        noise = np.random.default_rng(zlib.crc32(name.encode()) if seed is None else seed).integers(0, 256, (40, 50), np.uint8)
        path = self.images / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).save(path)

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            if not (self.images / row[1]).exists():
                self.picture(row[1])
        padded = [",".join([*row, "", ""][:5]) for row in rows]
        self.manifest.write_text("\n".join(["case_id,image,label,split,margin", *padded]))

    def load(self, study: Study = STUDY, size: int = SIZE) -> SiteData:
        return load_site_data(study, self.site, size)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital(tmp_path)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from here on."""
    names: list[str] = []
    read = images_module.read_image

    def counted(path: Path, frame: int | None = None) -> images_module.Picture:
        names.append(path.name)
        return read(path, frame)

    monkeypatch.setattr(cache_module, "read_image", counted)
    return names


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content is hashed from here on."""
    names: list[str] = []
    digest = images_module.hash_file

    def counted(path: Path) -> str:
        names.append(path.name)
        return digest(path)

    monkeypatch.setattr(cache_module, "hash_file", counted)
    return names


def rows_of(num_cases: int, labels: Sequence[str] = CLASSES) -> list[tuple[str, ...]]:
    """Two images a case, classes in turn."""
    return [
        (f"case{case:03}", f"{case}_{image}.png", labels[case % len(labels)], "", "irregular" if image else "")
        for case in range(num_cases)
        for image in range(2)
    ]


def fault(action: Callable[[], object], kind: type[DataError | StorageError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    assert "case0" not in caught.value.message + caught.value.hint
    assert ".png" not in caught.value.message + caught.value.hint
    return caught.value.message


def test_images_labels_cases_and_splits_agree(hospital: Hospital) -> None:
    rows = rows_of(24)
    hospital.write(rows)
    data = hospital.load()
    assert data.images_NHW.shape == (48, SIZE, SIZE)
    assert data.images_NHW.dtype == np.uint8
    np.testing.assert_array_equal(data.case_N, np.arange(48) // 2)
    np.testing.assert_array_equal(data.class_C, np.arange(24) % 4)
    np.testing.assert_array_equal(data.labels_N["subtype"], data.class_C[data.case_N])
    np.testing.assert_array_equal(data.labels_N["malignancy"], data.labels_N["subtype"] > 0)
    np.testing.assert_array_equal(data.labels_N["margin"], np.where(np.arange(48) % 2, 1, -1))
    assert {array.dtype for array in (data.case_N, data.class_C, *data.labels_N.values())} == {np.dtype(np.int64)}
    assert data.split_C.dtype == np.int8
    assert [len(data.cases(split)) for split in (TRAIN, VALIDATION, TEST)] == [16, 4, 4]
    np.testing.assert_array_equal(data.images_of(5), [10, 11])
    for number, row in enumerate(rows):
        pixels = np.asarray(Image.open(hospital.images / row[1]))
        np.testing.assert_array_equal(data.images_NHW[number], images_module.letterbox(pixels, SIZE))
    assert data.notes == ()


def test_every_image_belongs_to_the_case_that_lists_it(hospital: Hospital) -> None:
    hospital.write(
        [("a", "1.png", "PTC"), ("b", "2.png", "benign"), ("b", "3.png", "benign"), ("b", "4.png", "benign"), ("c", "5.png", "")]
    )
    data = hospital.load()
    assert [data.images_of(case).tolist() for case in range(3)] == [[0], [1, 2, 3], [4]]
    for case in range(3):
        assert set(data.case_N[data.images_of(case)]) == {case}


def test_the_order_of_rows_changes_nothing_and_decodes_nothing(hospital: Hospital, decoded: list[str]) -> None:
    rows = rows_of(12)
    hospital.write(rows)
    first = hospital.load()
    hospital.write(random.Random(1).sample(rows, len(rows)))
    second = hospital.load()
    assert len(decoded) == 24
    np.testing.assert_array_equal(first.images_NHW, second.images_NHW)
    for name in ("case_N", "split_C", "class_C"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_splits_of_the_manifest_win_and_cases_without_one_train(hospital: Hospital) -> None:
    hospital.write(
        [
            ("a", "1.png", "PTC", "test"),
            ("b", "2.png", "PTC", ""),
            ("c", "3.png", "PTC", "validation"),
            ("d", "4.png", "PTC", "train"),
        ]
    )
    data = hospital.load()
    assert data.split_C.tolist() == [TEST, TRAIN, VALIDATION, TRAIN]
    assert "cases without a split, where others name one, so that they train: 1" in data.notes


def test_unlabelled_cases_are_masked_and_train(hospital: Hospital) -> None:
    hospital.write([*rows_of(4), ("x", "x.png", "", "", "smooth"), ("y", "y.png", "")])
    data = hospital.load()
    assert data.class_C[-2:].tolist() == [-1, -1]
    assert data.split_C[-2:].tolist() == [TRAIN, TRAIN]
    assert [data.labels_N[task][-2:].tolist() for task in STUDY.tasks] == [[-1, -1], [-1, -1], [0, -1]]
    assert "cases without a class: 2" in data.notes


def test_training_cases_are_counted_from_the_manifest_alone(hospital: Hospital) -> None:
    hospital.write([*rows_of(24), ("x", "x.png", "", "", "smooth"), ("y", "y.png", "")])
    for path in hospital.images.iterdir():
        path.unlink()
    assert count_training_cases(STUDY, hospital.site) == 16 + 1  # y has no label for any task
    assert not hospital.cache.exists()


def test_a_site_with_one_class_works_and_says_what_it_lacks(hospital: Hospital) -> None:
    hospital.write(rows_of(6, ["PTC"]))
    data = hospital.load()
    assert [len(data.cases(split)) for split in (TRAIN, VALIDATION, TEST)] == [4, 1, 1]
    for split in ("training", "validation", "test"):
        assert f"no {split} case of MTC" in data.notes
        assert f"no {split} case of PTC" not in data.notes


def test_a_rare_class_without_a_validation_case_is_noted(hospital: Hospital) -> None:
    hospital.write([*rows_of(12, ["benign", "PTC", "FTC"]), ("z", "z.png", "MTC")])
    assert set(hospital.load().notes) == {"no validation case of MTC", "no test case of MTC"}


def test_too_few_training_cases_are_refused(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, minimum_cases=10)
    hospital.write(rows_of(8))
    message = "manifest.csv has 8 labelled training cases, expected at least 10"
    for action in (hospital.load, lambda: count_training_cases(STUDY, hospital.site)):
        assert fault(action) == message
    hospital.write([("a", "1.png", "PTC", "test")])
    assert fault(hospital.load) == "manifest.csv has no labelled training case, expected at least 10"
    hospital.write([("a", "1.png", "")])
    assert "no labelled training case" in fault(hospital.load)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("case0a", "1.png", "PTC", "train"), ("case0b", "2.png", "PTC", "test")], "of a case in another split"),
        ([("case0a", "1.png", "PTC", "train"), ("case0b", "2.png", "FTC", "train")], "of a case of another class"),
        (
            [("case0a", "1.png", "PTC", "train", "smooth"), ("case0b", "2.png", "PTC", "train", "irregular")],
            "of a case with another margin",
        ),
    ],
)
def test_one_picture_in_two_cases_that_differ_is_refused(hospital: Hospital, rows: Sequence[Sequence[str]], problem: str) -> None:
    for name in ("1.png", "2.png"):
        hospital.picture(name, seed=1)
    hospital.write(rows)
    assert fault(hospital.load) == f"manifest.csv row 3, column image: shows the same picture as row 2, {problem}"
    assert "same picture" in fault(hospital.load)  # from the cache as well


def test_other_duplicates_are_noted_even_in_another_format(hospital: Hospital) -> None:
    for name in ("1.png", "2.png", "3.png"):
        hospital.picture(name, seed=1)
    with Image.open(hospital.images / "3.png") as picture:
        picture.convert("RGB").save(hospital.images / "3.png")
    hospital.write([("a", "1.png", "PTC", "train"), ("b", "2.png", "PTC", "train"), ("a", "3.png", "PTC", "train")])
    notes = [note for note in hospital.load().notes if "picture" in note]
    assert notes == [
        "row 3 shows the same picture as row 2 of another case",
        "row 4 shows the same picture as row 2 of the same case",
    ]


def test_many_duplicates_are_counted(hospital: Hospital) -> None:
    for number in range(15):
        hospital.picture(f"{number}.png", seed=1)
    hospital.write([("a", f"{number}.png", "PTC", "train") for number in range(15)])
    notes = [note for note in hospital.load().notes if "picture" in note]
    assert len(notes) == 11
    assert notes[-1] == "rows that show the same picture as another, beyond these ten: 4"


def test_faults_of_images_name_their_rows(hospital: Hospital) -> None:
    hospital.write(rows_of(8))
    (hospital.images / "0_0.png").unlink()
    (hospital.images / "1_0.png").unlink()
    assert fault(hospital.load) == ("manifest.csv rows 2, 4, column image: the image does not exist")
    hospital.picture("0_0.png")
    (hospital.images / "1_0.png").write_bytes(b"text")
    Image.new("L", (20, 16)).save(hospital.images / "2_0.png")
    message = fault(hospital.load)
    assert "row 4, column image: the image is damaged" in message
    assert "row 6, column image: the image has no contrast" in message
    assert not list(hospital.cache.glob("*.npy"))
    assert not list(hospital.cache.glob("*.tmp"))


# The cache


def test_a_second_load_neither_decodes_nor_hashes(hospital: Hospital, decoded: list[str], hashed: list[str]) -> None:
    hospital.write(rows_of(8))
    first = hospital.load()
    assert len(decoded) == len(hashed) == 16
    second = hospital.load()
    assert len(decoded) == len(hashed) == 16
    np.testing.assert_array_equal(first.images_NHW, second.images_NHW)
    assert isinstance(second.images_NHW, np.memmap)
    assert not second.images_NHW.flags.writeable


def test_frames_of_one_clip_are_told_apart_in_the_cache(hospital: Hospital, decoded: list[str]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 50), np.uint8)
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.3"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    set_pixel_data(dataset, frames, "MONOCHROME2", 8, generate_instance_uid=False)
    dataset.save_as(hospital.images / "clip.dcm", enforce_file_format=True)
    rows = [f"a,clip.dcm{frame},PTC" for frame in ("", "#1", "#5")]
    for lines, num_decoded in ((rows[:2], 2), (rows, 3)):
        hospital.manifest.write_text("\n".join(["case_id,image,label", *lines]))
        data = hospital.load()
        assert len(decoded) == num_decoded
    for number, frame in enumerate((2, 0, 4)):
        np.testing.assert_array_equal(data.images_NHW[number], images_module.letterbox(frames[frame], SIZE))
    hospital.manifest.write_text("case_id,image,label\na,clip.dcm#1,PTC\nb,clip.dcm,FTC\na,clip.dcm#3,PTC")
    assert fault(hospital.load) == "manifest.csv row 4, column image: shows the same picture as row 3, of a case of another class"


def test_only_new_and_changed_images_are_decoded_and_gone_ones_are_dropped(hospital: Hospital, decoded: list[str]) -> None:
    hospital.write(rows_of(8))
    old = hospital.load().images_NHW
    decoded.clear()
    hospital.picture("3_1.png", seed=5)
    hospital.write([*rows_of(8)[2:], ("zzz", "new.png", "PTC")])
    new = hospital.load().images_NHW
    assert sorted(decoded) == ["3_1.png", "new.png"]
    assert new.shape == (15, SIZE, SIZE)
    np.testing.assert_array_equal(np.delete(old, 7, 0)[2:], np.delete(new, 5, 0)[:-1])
    assert len(list(hospital.cache.glob("*.npy"))) == 1


def test_a_touched_or_renamed_file_is_hashed_but_not_decoded(hospital: Hospital, decoded: list[str], hashed: list[str]) -> None:
    rows = rows_of(4)
    hospital.write(rows)
    hospital.load()
    decoded.clear(), hashed.clear()
    os.utime(hospital.images / "0_0.png", ns=(1, 1))
    (hospital.images / "1_0.png").rename(hospital.images / "moved.png")
    hospital.write([("case001", "moved.png", "PTC") if row[1] == "1_0.png" else row for row in rows])
    hospital.load()
    assert decoded == []
    assert sorted(hashed) == ["0_0.png", "moved.png"]
    hospital.load()
    assert len(hashed) == 2


def test_a_change_that_keeps_size_and_time_is_seen(hospital: Hospital) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50), np.uint8)).save(hospital.images / "1.png", compress_level=0)
    hospital.write([("a", "1.png", "PTC")])
    old = hospital.load().images_NHW.copy()
    status = (hospital.images / "1.png").stat()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (40, 50), np.uint8)).save(hospital.images / "1.png", compress_level=0)
    os.utime(hospital.images / "1.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (hospital.images / "1.png").stat().st_size == status.st_size
    assert not np.array_equal(old, hospital.load().images_NHW)


def test_another_image_size_or_preprocessing_rebuilds(
    hospital: Hospital, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.write(rows_of(4))
    hospital.load()
    assert hospital.load(size=48).images_NHW.shape == (8, 48, 48)
    assert len(decoded) == 16
    monkeypatch.setattr(cache_module, "PREPROCESSING_VERSION", 99)
    hospital.load(size=48)
    assert len(decoded) == 24


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "gone", "index", "entries", "index gone", "other file"])
def test_a_damaged_cache_is_rebuilt_silently(hospital: Hospital, decoded: list[str], damage: str) -> None:
    hospital.write(rows_of(4))
    whole = hospital.load().images_NHW.copy()
    (pixels,) = hospital.cache.glob("*.npy")
    index = hospital.cache / "index.json"
    content = bytearray(pixels.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    match damage:
        case "truncate" | "flip" | "empty":
            pixels.write_bytes({"truncate": content[:-10], "flip": content, "empty": b""}[damage])
        case "gone":
            pixels.unlink()
        case "index":
            index.write_text(index.read_text()[:-50])
        case "entries":
            value = json.loads(index.read_text())
            index.write_text(json.dumps(value | {"entries": value["entries"][1:]}))
        case "index gone":
            index.unlink()
        case "other file":
            value = json.loads(index.read_text())
            index.write_text(json.dumps(value | {"file": "../../manifest.csv"}))
    decoded.clear()
    np.testing.assert_array_equal(hospital.load().images_NHW, whole)
    assert len(decoded) == 8
    decoded.clear()
    np.testing.assert_array_equal(hospital.load().images_NHW, whole)
    assert decoded == []


def test_the_cache_is_private_and_names_nothing(hospital: Hospital) -> None:
    hospital.write([("SECRETCASE", "SECRETIMAGE.png", "PTC")])
    hospital.load()
    assert hospital.cache.stat().st_mode & 0o777 == 0o700
    for path in hospital.cache.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert b"SECRET" not in path.read_bytes()
        assert "SECRET" not in path.name


def test_leavings_of_a_killed_process_are_removed(hospital: Hospital) -> None:
    hospital.write(rows_of(4))
    hospital.load()
    for name in (".images-1.npy.abc.tmp", "images-0.npy"):
        (hospital.cache / name).write_bytes(b"leavings")
    hospital.load()
    assert sorted(path.suffix for path in hospital.cache.iterdir()) == ["", ".json", ".npy"]


def test_progress_reaches_the_total(hospital: Hospital) -> None:
    hospital.write(rows_of(4))
    for expected in ([(done, 8) for done in range(1, 9)], [(8, 8)]):
        calls: list[tuple[int, int]] = []
        load_site_data(STUDY, hospital.site, SIZE, lambda done, total, calls=calls: calls.append((done, total)))
        assert calls == expected


def test_processes_that_load_at_once_agree(hospital: Hospital, tmp_path: Path) -> None:
    hospital.write(rows_of(40))
    (tmp_path / "site.json").write_text(hospital.site.model_dump_json())
    (tmp_path / "study.json").write_text(STUDY.model_dump_json())
    script = (
        "import hashlib, sys; from pathlib import Path; from csasn.data.cases import load_site_data\n"
        "from csasn.site import Site; from csasn.study import Study\n"
        "site, study = (kind.model_validate_json(Path(path).read_bytes()) for kind, path in zip((Site, Study), sys.argv[1:]))\n"
        f"print(hashlib.sha256(load_site_data(study, site, {SIZE}).images_NHW.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "site.json"), str(tmp_path / "study.json")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(outputs) == 1
    assert len(list(hospital.cache.glob("*.npy"))) == 1


def test_a_full_disk_is_a_storage_error_and_the_old_cache_stays_whole(
    hospital: Hospital, decoded: list[str], tmp_path: Path
) -> None:
    hospital.write(rows_of(4))
    hospital.load()
    before = {path.name: path.read_bytes() for path in hospital.cache.iterdir()}
    hospital.write(rows_of(100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        message = fault(hospital.load, StorageError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith("cannot write images-")
    assert {path.name: path.read_bytes() for path in hospital.cache.iterdir()} == before
    decoded.clear()
    assert len(hospital.load().images_NHW) == 200
    assert len(decoded) == 192
