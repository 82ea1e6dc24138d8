"""csasn/data/left_out.py and csasn/platform/share.py: a broken file is left out, a share that is away is waited for."""

import csv
import errno
import io
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from client.doctor.checks_data import check_fingerprint, check_images
from client.doctor.checks_manifest import check_splits
from client.doctor.context import DoctorContext
from csasn.data import left_out as left_out_module
from csasn.data.cases import Records, load_records, site_data
from csasn.data.left_out import Tolerance
from csasn.errors import AwayError, DataError
from csasn.pictures.images import read_image
from csasn.platform import share as share_module
from csasn.platform.share import telling_progress, unreadable, wait_for_share
from csasn.site import find_site
from csasn.study import read_study
from dicom_objects import dicom, write

NUM_CASES, NUM_IMAGES = 68, 102  # every second case has two images
ALLOWED = 2  # 2 % of them
ALWAYS_EIO = Path("/proc/self/mem")  # a file whose first byte cannot be read: EIO, of the kernel itself


class Site:
    """One site on disk; rows are numbered as in its manifest, the header being row 1."""

    def __init__(self, study_file: Path) -> None:
        self.study = read_study(study_file)
        self.site = find_site("centerA", folder=study_file.parent / "sites")
        self.images = Path(self.site.images)
        with Path(self.site.manifest).open() as file:
            self.rows = dict(enumerate(csv.DictReader(file), 2))

    def load(self, advance=None) -> Records:
        return load_records(self.study, self.site, 32, advance)

    def path(self, row: int) -> Path:
        return self.images / self.rows[row]["image"]

    def damage(self, *rows: int) -> None:
        for row in rows:
            self.path(row).write_bytes(self.path(row).read_bytes()[:200])

    def policy(self, **values: object) -> None:
        self.site = self.site.model_copy(update={"policy": self.site.policy.model_copy(update=values)})

    def single(self, split: str) -> int:
        """The first row of a case with one image, in that split."""
        records = self.load()
        cases = [row.case for row in records.manifest.rows]
        return next(row.number for row in records.manifest.rows if cases.count(row.case) == 1 and records.splits[row.case] == split)

    def cached(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (Path(self.site.state) / "cache").iterdir()}


@pytest.fixture
def site(tmp_path: Path, write_small_hospitals) -> Site:
    made = Site(write_small_hospitals(tmp_path / "hospital", sites=("centerA",), num_cases=NUM_CASES))
    assert len(made.rows) == NUM_IMAGES
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out_module, "PAUSES_S", (0.01, 0.01))


# ---- broken files


def test_broken_images_up_to_the_share_are_left_out_named_by_row_and_counted(site: Site) -> None:
    gone = site.single("train")
    kept = next(
        row for row in site.rows if [other["case_id"] for other in site.rows.values()].count(site.rows[row]["case_id"]) == 2
    )
    site.damage(gone)
    site.path(kept).unlink()
    records = site.load()
    data = site_data(site.study, records)
    assert len(records.manifest.rows) == len(data.images_NHW) == NUM_IMAGES - 2
    assert len(data.split_C) == NUM_CASES - 1
    assert (records.left_out_32.sum(axis=0).tolist(), records.left_out_32[0, 0]) == ([1, 2], 1)
    assert (data.count_used() + data.left_out_32).sum(axis=0).tolist() == [NUM_CASES, NUM_IMAGES]
    (note,) = records.left_out
    assert note in data.notes
    assert note.startswith("left out: 2 images that cannot be read, with 1 case, which has no other (")
    assert f"row {gone}: the image is PNG, but damaged" in note
    assert f"row {kept}: the image does not exist" in note
    for row in (gone, kept):
        assert site.rows[row]["image"] not in note
        assert site.rows[row]["case_id"] not in note


def test_what_is_left_keeps_its_split_its_class_and_its_pixels(site: Site) -> None:
    before = site.load()
    pixels = {row.number: np.array(square) for row, square in zip(before.manifest.rows, before.images.images_NHW, strict=True)}
    test_case = site.single("test")
    site.damage(test_case, site.single("validation"))
    after = site.load()
    assert after.splits == {case: split for case, split in before.splits.items() if case in after.splits}
    assert after.manifest.classes == {case: before.manifest.classes[case] for case in after.splits}
    assert after.left_out_32.tolist() == [[0, 0], [1, 1], [1, 1]]
    for row, square in zip(after.manifest.rows, after.images.images_NHW, strict=True):
        assert (square == pixels[row.number]).all()


def test_a_case_keeps_the_class_that_only_its_broken_image_named(site: Site) -> None:
    lines = Path(site.site.manifest).read_text().splitlines()
    named, other = next(
        (row, row + 1) for row in site.rows if site.rows[row]["case_id"] == site.rows.get(row + 1, {}).get("case_id")
    )
    lines[other - 1] = lines[other - 1].rpartition(",")[0] + ","
    Path(site.site.manifest).write_text("\n".join(lines) + "\n")
    before = site.load().manifest.classes
    site.damage(named)
    assert site.load().manifest.classes == before


def test_above_the_share_the_site_stops_with_the_list_and_the_cache_stays(site: Site) -> None:
    site.load()
    before = site.cached()
    site.damage(*range(10, 22))
    with pytest.raises(DataError) as caught:
        site.load()
    assert not isinstance(caught.value, AwayError)
    rows = ", ".join(map(str, range(10, 20)))
    assert f"rows {rows} and 2 more, column image: the image is PNG, but damaged" in caught.value.message
    assert caught.value.message.endswith("; 12 of 102 images cannot be read, at most 2 may be left out")
    assert "max_unreadable_share" in caught.value.hint
    assert site.cached() == before


@pytest.mark.parametrize(("share", "num_images", "allowed"), [(0.02, 49, 0), (0.02, 50, 1), (0.29, 100, 29), (0.0, 1000, 0)])
def test_the_share_is_of_all_images_of_the_site(share: float, num_images: int, allowed: int) -> None:
    assert Tolerance(share).num_allowed(num_images) == allowed


def test_a_site_that_allows_none_stops_at_one(site: Site) -> None:
    site.policy(max_unreadable_share=0.0)
    site.damage(10)
    with pytest.raises(DataError, match=r"^manifest\.csv row 10, column image: the image is PNG, but damaged"):
        site.load()


def test_the_least_number_of_training_cases_is_that_of_what_is_left(site: Site) -> None:
    row = site.single("train")
    num_training = sum(split == "train" for split in site.load().splits.values())
    site.policy(minimum_cases=num_training)
    site.load()
    site.damage(row)
    with pytest.raises(DataError, match=f"{num_training - 1} labelled training cases with a readable image, expected at least"):
        site.load()


def test_a_second_load_reads_the_broken_one_alone_and_a_mended_one_is_back(site: Site) -> None:
    whole = site.path(10).read_bytes()
    site.damage(10)
    site.load()
    before, calls = site.cached(), []
    assert len(site.load(lambda done, total: calls.append((done, total))).manifest.rows) == NUM_IMAGES - 1
    assert (site.cached(), calls) == (before, [(NUM_IMAGES, NUM_IMAGES)])
    site.path(10).write_bytes(whole)
    assert len(site.load().manifest.rows) == NUM_IMAGES
    assert not site.load().left_out


def test_doctor_names_the_rows_once_and_goes_on(site: Site, tmp_path: Path) -> None:
    site.damage(10, 40)
    hospital = tmp_path / "hospital"
    context = DoctorContext("centerA", hospital / "sites/centerA.yaml", hospital / "study.yaml")
    found = check_images(context)
    assert found.status == "warning"
    assert f"{NUM_IMAGES - 2} images of" in found.message
    assert "left out: 2 images that cannot be read" in found.message
    assert "rows 10, 40: the image is PNG, but damaged" in found.message
    assert "take their rows out of manifest.csv" in found.fix
    assert "left out" not in check_splits(context).message
    assert check_fingerprint(context).status == "ok"
    assert context.data_fingerprint.num_images == NUM_IMAGES - 2


# ---- a share that is away


def empty_mount_point(site: Site, away: Path) -> None:
    site.images.rename(away)
    site.images.mkdir()


@pytest.mark.parametrize(
    ("leave", "says"),
    [
        pytest.param(lambda site, away: site.images.rename(away), "the image root does not exist", id="gone"),
        pytest.param(empty_mount_point, "the image root is empty", id="not-mounted"),
        pytest.param(
            lambda site, away: Path(site.site.manifest).parent.rename(away),
            "the folder of manifest.csv does not exist",
            id="manifest",
        ),
    ],
)
def test_a_share_that_is_away_is_no_broken_file(site: Site, tmp_path: Path, leave, says: str) -> None:
    site.site = site.site.model_copy(update={"state": str(tmp_path / "state")})
    site.load()
    before = site.cached()
    leave(site, tmp_path / "away")
    with pytest.raises(AwayError, match=says) as caught:
        site.load()
    assert "mounted" in caught.value.hint
    assert site.cached() == before


def test_a_share_that_goes_while_images_are_read_is_never_half_a_data_set(site: Site, tmp_path: Path) -> None:
    site.policy(max_unreadable_share=0.5)  # of which what is missing would be a part

    def leave(done: int, _: int) -> None:
        if done == 64:
            site.images.rename(tmp_path / "away")

    with pytest.raises(AwayError, match="the image root does not exist"):
        site.load(leave)
    (tmp_path / "away").rename(site.images)
    assert len(site.load().manifest.rows) == NUM_IMAGES


def test_a_share_that_was_away_for_a_moment_leaves_nothing_out(site: Site, tmp_path: Path) -> None:
    site.policy(max_unreadable_share=0.5)

    def flicker(done: int, _: int) -> None:
        if done == 64:
            site.images.rename(tmp_path / "away")
        if done == 65:
            (tmp_path / "away").rename(site.images)

    with pytest.raises(AwayError, match="at one time and not at another"):
        site.load(flicker)
    assert len(site.load().manifest.rows) == NUM_IMAGES


def behind_io_error(site: Site, rows) -> None:
    for row in rows:
        site.path(row).rename(site.images / f"behind-{row}")
        site.path(row).symlink_to(ALWAYS_EIO)


def test_an_error_of_the_disk_is_said_as_one_and_one_such_file_is_left_out(site: Site, at_once) -> None:
    behind_io_error(site, [10])
    (note,) = site.load().left_out
    assert "row 10: the image cannot be reached now: input/output error" in note
    assert "may read" not in note


def test_errors_of_the_disk_in_more_than_the_share_are_of_the_share(site: Site, at_once) -> None:
    behind_io_error(site, range(10, 15))
    with pytest.raises(
        AwayError, match="rows 10, 11, 12, 13, 14, column image: the image cannot be reached now: input/output error"
    ):
        site.load()
    site.path(10).unlink()
    site.path(10).write_bytes((site.images / "behind-10").read_bytes())
    site.damage(*range(20, 23))  # and now the broken files alone are too many
    with pytest.raises(DataError) as caught:
        site.load()
    assert not isinstance(caught.value, AwayError)


def test_an_image_that_comes_back_between_two_tries_was_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    behind_io_error(site, [10])

    def pause(seconds: float) -> None:
        if seconds and (behind := site.images / "behind-10").exists():
            behind.replace(site.path(10))

    monkeypatch.setattr(left_out_module.time, "sleep", pause)
    with pytest.raises(AwayError, match="at one time and not at another"):
        site.load()


@pytest.mark.parametrize("number", ["EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH"])
def test_errors_of_the_way_to_a_file_can_be_waited_for(number: str) -> None:
    assert isinstance(unreadable(OSError(getattr(errno, number), ""), "the image"), AwayError)


@pytest.mark.parametrize(("number", "says"), [("EACCES", "may not be read"), ("EISDIR", "cannot be read")])
def test_other_errors_are_of_the_file(number: str, says: str) -> None:
    error = unreadable(OSError(getattr(errno, number), ""), "the image")
    assert not isinstance(error, AwayError)
    assert error.message == f"the image {says}"


# ---- waiting


def test_a_folder_that_comes_back_is_waited_for_and_told(site: Site, tmp_path: Path, caplog) -> None:
    site.images.rename(tmp_path / "away")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        (tmp_path / "away").rename(site.images)

    assert len(wait_for_share(site.load, 30, say).manifest.rows) == NUM_IMAGES
    assert said == [f"waiting for its files since 0 s: the image root does not exist: {site.images}"]
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["waiting", "the"]


def test_a_wait_ends_with_its_patience(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.images.rename(tmp_path / "away")
    said: list[str] = []
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("csasn.platform.share.time", clock)
    with pytest.raises(AwayError):
        wait_for_share(site.load, 1.5, said.append)
    assert now == [1.5]
    assert len(said) == 2  # after 0 and 1 s


class Breaking(io.BytesIO):
    """A file on a share that goes away after its first kilobyte was read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or self.tell() + size > 1024:
            raise OSError(errno.ESTALE, "")
        return super().read(size)


@pytest.mark.parametrize("name", ["a.png", "a.dcm"])
def test_a_share_that_goes_away_while_a_picture_is_decoded_is_no_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (96, 96), np.uint8)
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(pixels).save(path)
    else:
        path = write(tmp_path, dicom(pixels))
    assert read_image(path).pixels_HW.shape == (96, 96)
    data = path.read_bytes()
    monkeypatch.setattr(Path, "open", lambda *_: Breaking(data))
    with pytest.raises(AwayError, match="the image cannot be reached now"):
        read_image(path)


def test_a_broken_file_is_not_waited_for(site: Site) -> None:
    site.damage(*range(10, 20))
    began = time.monotonic()
    with pytest.raises(DataError, match="10 of 102 images"):
        wait_for_share(site.load, 30, lambda _: None)
    assert time.monotonic() - began < 30


def test_reading_that_stands_still_is_said(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(share_module, "SILENCE_S", 0.1)
    said: list[str] = []
    with telling_progress(said.append) as advance:
        advance(1, 4)
        advance(1, 4)
        while len(said) < 2:
            time.sleep(0.05)
    assert said[0] == "reading images, 25 %"
    assert said[1].startswith("no image could be read for 0 s")
    assert "is the share slow, or gone?" in caplog.text
