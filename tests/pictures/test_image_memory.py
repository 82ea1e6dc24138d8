"""csasn/data/: how much memory an image may take, told from its header, and what is said where there is less."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import image_memory
from csasn.data.cache import Source, load_images
from csasn.data.manifest import read_manifest
from csasn.errors import DataError
from csasn.pictures.images import read_image
from csasn.pictures.levels import to_uint8
from csasn.pictures.picture import MAX_FRAME_BYTES
from csasn.study import Federation, Study
from dicom_objects import CAPTURE, dicom, write
from image_faults import fault
from image_memory import COLOUR, COLOUR_ALPHA, GREY, GREY_ALPHA, MIB, PALETTE, png

STUDY = Study(name="thyroid", classes=("benign", "PTC"), federation=Federation(sites=("centerA",)))


def read_with(path: Path, more_mib: int) -> dict[str, object]:
    """What a process says of `path` that may take `more_mib` of memory beyond what it had before, and how much it took."""
    done = subprocess.run(
        [sys.executable, "-P", image_memory.__file__, str(path), str(more_mib)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("kind", "bits", "pixel_bytes"),
    [
        *((GREY, 16, 2), (PALETTE, 8, 4), (GREY_ALPHA, 8, 4), (GREY_ALPHA, 16, 4)),
        *((COLOUR, 16, 6), (COLOUR_ALPHA, 8, 4), (COLOUR_ALPHA, 16, 8)),
    ],
)
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, kind: int, bits: int, pixel_bytes: int) -> None:
    path = png(tmp_path / "bomb.png", 13_000, 13_000, kind, bits, whole=(kind, bits) == (GREY, 16))
    assert path.stat().st_size < 2 * MIB
    said = read_with(path, 100)
    assert said["message"] == f"the image would take {13_000**2 * pixel_bytes >> 20} MiB, expected at most 128 MiB a frame"
    assert said["hint"] == "export it at the resolution of the scanner"
    assert int(str(said["took_mib"])) < 20


@pytest.mark.parametrize(
    ("width", "height", "kind", "bits"),
    [(8192, 8192, GREY, 16), (8192, 4096, COLOUR, 8), (8192, 4096, PALETTE, 8), (11_585, 11_585, GREY, 8)],
)
def test_the_largest_picture_takes_a_bounded_amount(tmp_path: Path, width: int, height: int, kind: int, bits: int) -> None:
    said = read_with(png(tmp_path / "large.png", width, height, kind, bits), 1024)
    assert said.get("shape") == [height, width], said
    assert int(str(said["took_mib"])) < 512


def test_too_little_memory_is_an_error_of_ours(tmp_path: Path) -> None:
    said = read_with(png(tmp_path / "large.png", 8192, 8192), 60)
    assert said["message"] == "the image needs more memory than there is"
    assert said["hint"]


def test_a_dicom_object_is_bounded_by_what_its_colours_take(tmp_path: Path) -> None:
    small = dicom(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), "RGB", sop=CAPTURE)
    read_image(write(tmp_path, small))
    small.Rows, small.Columns = 4000, 4000
    assert fault(write(tmp_path, small)) == "the image would take 183 MiB, expected at most 128 MiB a frame"
    deep = dicom(np.arange(1200, dtype=np.uint16).reshape(30, 40), bits=16, sop=CAPTURE)
    deep.Rows, deep.Columns = 10_000, 10_000
    assert fault(write(tmp_path, deep)) == "the image would take 190 MiB, expected at most 128 MiB a frame"


def test_an_image_that_is_too_large_or_for_which_memory_ends_is_told_by_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = png(tmp_path / "SECRET.png", 13_000, 13_000, whole=False)
    with pytest.raises(DataError, match=r"^manifest\.csv row 7, column image: the image would take 322 MiB") as caught:
        load_images(tmp_path / "cache", [Source(7, path, None, "SECRET.png")], 32)
    assert "SECRET" not in caught.value.message + caught.value.hint

    def fail(*_: object) -> None:
        raise MemoryError

    for step in ("read_image", "measure", "letterbox"):
        with monkeypatch.context() as patch:
            patch.setattr(f"csasn.data.cache.{step}", fail)
            with pytest.raises(DataError, match=r"^manifest\.csv row 7, column image: the image needs more memory than there is$"):
                load_images(tmp_path / "cache", [Source(7, png(tmp_path / "SECRET.png", 64, 64), None, "SECRET.png")], 32)


def test_a_manifest_for_which_memory_ends_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("csasn.data.manifest.open_sheet", fail)
    (tmp_path / "manifest.csv").write_text("case_id,image,label\na,a.png,PTC\n")
    with pytest.raises(DataError, match=r"^manifest\.csv needs more memory than there is$") as caught:
        read_manifest(tmp_path / "manifest.csv", STUDY)
    assert caught.value.hint


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_scaling_in_strips_is_scaling_at_once(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << 16, (37, 11, 3)).astype(np.uint16)
    top = (1 << bits) - 1
    whole = ((np.minimum(values, top).astype(np.int64) * 255 + top // 2) // top).astype(np.uint8)
    for size in (1, 50, 1 << 20):
        monkeypatch.setattr("csasn.pictures.levels.STRIP", size)
        np.testing.assert_array_equal(to_uint8(values, bits), whole)


def test_the_limit_is_far_above_what_scanners_write() -> None:
    assert MAX_FRAME_BYTES >= 3840 * 2160 * 12
