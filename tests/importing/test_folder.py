"""`client import --dicom`: what comes out of a hospital's export, and what does not."""

import shutil
import stat
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage

from client.importing.folder import COPY, DAMAGED_FILE, DIRECTORY, NOT_DICOM, UNREADABLE_FILE
from client.importing.joining import NO_ROW, NO_STUDY
from client.importing.pictures import ANNOTATED, TEXT
from client.importing.run import WITHDREW
from client.trust.withdrawal import withdraw_patient
from csasn.data.cache import Source, load_images
from csasn.data.manifest import read_manifest
from csasn.pictures.overlay import find_marks
from csasn.site import read_site
from csasn.study import Federation, Study
from dicom_objects import CAPTURE
from import_scene import (
    SPACING_CM,
    SR,
    THINGS,
    WHOLE_SCREEN,
    Hospital,
    Object,
    clip,
    found,
    leaks,
    make_hospital,
    picture_of,
    read_table,
    still,
    write_list,
)

STUDY = Study(name="s", classes=("benign", "PTC", "FTC", "MTC"), federation=Federation(sites=("centerA",)))
DRAWING = "1.2.840.10008.5.1.4.1.1.11.1"
OTHER_CLASS, OTHER_MODALITY = "no picture of ultrasound: Basic Text SR Storage", "a picture of another modality than US"


def chunks(png: bytes) -> list[bytes]:
    place, names = 8, []
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        names.append(png[place + 4 : place + 8])
        place += 12 + length
    return names


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {row["image"]: np.asarray(Image.open(folder / "images" / row["image"])) for row in read_table(folder / "manifest.csv")}


def holds(found: dict[str, np.ndarray], picture: np.ndarray) -> int:
    return sum(np.array_equal(other, picture) for other in found.values())


def test_images_and_manifest_hold_what_the_list_speaks_of_and_no_identifier(hospital, run):
    done = run(hospital, *hospital.of_export)
    assert done.code == 0, done.err
    rows = read_table(hospital.staged / "manifest.csv")
    assert sorted(row["label"] for row in rows) == ["FTC", "PTC", *["benign"] * 5]
    assert {row["scanner"] for row in rows} == {"Example Sono 9"}
    taken = pictures(hospital.staged)
    wanted = [picture_of(THINGS[place]) for place in (0, 2, 3)]
    wanted += [picture_of(THINGS[4], frame) for frame in (2, 5, 8)] + [picture_of(THINGS[5], 4)]
    assert [holds(taken, picture) for picture in wanted] == [1] * 7
    assert len(taken) == 7
    assert leaks(hospital.things, hospital.data, done.text) == []
    assert "list, row 7: no study of this number was found" in done.out


def test_two_nodules_of_a_patient_are_two_cases_of_one_patient(hospital, run):
    run(hospital, *hospital.of_export)
    table = read_table(hospital.staged / "manifest.csv")
    (one,) = [row["patient_id"] for row in table if row["label"] == "FTC"]
    of_two = [row for row in table if row["patient_id"] == one]
    assert sorted(row["label"] for row in of_two) == ["FTC", "benign"]
    assert len({row["case_id"] for row in of_two}) == 2
    assert len({row["patient_id"] for row in table}) == 3


def test_what_is_left_out_is_counted_with_its_reason(hospital, run):
    done = run(hospital, *hospital.of_export)
    left = read_table(hospital.staged / "left-out.csv")
    counts = Counter()
    for row in left:
        counts[row["reason"]] += int(row["number"])
    assert counts == {TEXT: 1, ANNOTATED: 1, NO_ROW: 1, OTHER_CLASS: 1, OTHER_MODALITY: 1, NO_STUDY: 1}
    assert all(reason in done.out for reason in counts)
    (suspected,) = [row for row in left if row["reason"] == TEXT]
    assert suspected["rows_of_list"] == "2"
    asked = {row["patient_id"] for row in read_table(hospital.staged / "manifest.csv") if row["label"] == "PTC"}
    assert {suspected["patient_id"]} == asked


def test_a_png_holds_pixels_and_their_size_alone(hospital, run):
    run(hospital, *hospital.of_export)
    for path in (hospital.staged / "images").iterdir():
        png = path.read_bytes()
        assert set(chunks(png)) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
        across, down, unit = struct.unpack_from(">IIB", png, png.index(b"pHYs") + 4)
        assert (across, down, unit) == (round(100 / SPACING_CM), round(100 / SPACING_CM), 1)
    for sheet in hospital.staged.glob("contact-sheet-*.png"):
        assert set(chunks(sheet.read_bytes())) == {b"IHDR", b"IDAT", b"IEND"}


def test_files_are_told_by_content_whatever_they_are_called(tmp_path, run):
    things = (still(1, 1, 1), still(2, 1, 1))
    hospital = make_hospital(tmp_path, things[:1], [found(thing, "PTC") for thing in things])
    export = hospital.folder / "export"
    first = next(path for path in export.rglob("IM_*"))
    things[1].write(export / "bare", marked=False)
    shutil.copy(first, export / "again.jpg")
    (export / "cut").write_bytes(first.read_bytes()[:200])
    (export / "notes.dcm").write_bytes(b"no DICOM at all" * 20)
    (export / "empty").touch()
    (export / "gone").symlink_to(export / "nowhere")
    directory = pydicom.dcmread(first, specific_tags=["PatientName"])
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.save_as(export / "DICOMDIR")
    done = run(hospital, *hospital.of_export)
    assert done.code == 0, done.err
    taken = pictures(hospital.staged)
    assert [holds(taken, picture_of(thing)) for thing in things] == [1, 1]
    left = {row["reason"]: int(row["number"]) for row in read_table(hospital.staged / "left-out.csv")}
    assert left.pop(COPY) == 1
    assert left.pop(NOT_DICOM) == 2
    assert left.pop(UNREADABLE_FILE) == 1
    assert left.pop(DIRECTORY) == 1
    assert left.pop(DAMAGED_FILE, 0) + left.pop("a DICOM file without SOP Instance UID", 0) == 1
    assert leaks(things, hospital.data, done.text) == []


def test_captures_of_an_ultrasound_scanner_are_taken(tmp_path, run):
    capture = Object(1, 1, 1, CAPTURE)
    hospital = make_hospital(tmp_path, (capture,), [found(capture, "PTC")])
    assert run(hospital, *hospital.of_export).code == 0
    assert holds(pictures(hospital.staged), picture_of(capture)) == 1


def test_suspected_text_is_blanked_where_that_is_asked_for(tmp_path, run):
    written = (still(1, 1, 1, text="ID 493022"), still(2, 1, 1, text="A. Example 03.04"))
    hospital = make_hospital(tmp_path, written, [found(thing, "PTC") for thing in written])
    refused = run(hospital, *hospital.of_export)
    assert refused.code == 4
    assert f"2 x {TEXT}" in refused.err
    done = run(hospital, *hospital.of_export, "--blank")
    assert done.code == 0, done.err
    taken = pictures(hospital.staged)
    assert len(taken) == 2
    for thing in written:
        plain = picture_of(thing)
        (blanked,) = [picture for picture in taken.values() if np.array_equal(picture[64:], plain[64:])]
        assert not [mark for mark in find_marks(blanked) if mark.kind == "text"]
        assert not blanked[10:20].any()  # from edge to edge: the detector sees only part of many a text
        assert np.array_equal(blanked[blanked > 0], plain[blanked > 0])


@pytest.mark.parametrize(
    ("elements", "text", "is_taken"),
    [
        ({"BurnedInAnnotation": "YES"}, "", True),  # what is annotated was cut off with the screen
        ({"BurnedInAnnotation": "NO"}, "ID 493022", False),  # it cannot be trusted
        ({"BurnedInAnnotation": "YES"} | WHOLE_SCREEN, "", False),
    ],
    ids=["yes, cropped", "no, with text", "yes, whole screen"],
)
def test_the_headers_word_on_text_never_clears_a_picture(tmp_path, run, elements, text, is_taken):
    thing = Object(1, 1, 1, text=text, elements=elements)
    hospital = make_hospital(tmp_path, (thing,), [found(thing, "PTC")])
    assert (run(hospital, *hospital.of_export).code == 0) == is_taken


@pytest.mark.parametrize(
    ("thing", "more", "options", "frames"),
    [
        (clip(1, 1, 1, 9), {}, (), (2, 5, 8)),
        (clip(1, 1, 1, 9), {}, ("--frames", 1), (5,)),
        (clip(1, 1, 1, 2), {}, (), (1, 2)),
        (clip(1, 1, 1, 9, FrameNumbersOfInterest=[4]), {}, (), (4,)),
        (clip(1, 1, 1, 9, FrameNumbersOfInterest=[7, 3]), {}, (), (3, 7)),
        (clip(1, 1, 1, 9, RepresentativeFrameNumber=6), {}, (), (6,)),
        (clip(1, 1, 1, 9, FrameNumbersOfInterest=[99]), {}, (), (2, 5, 8)),
        (clip(1, 1, 1, 9, FrameNumbersOfInterest=[4]), {"image": clip(1, 1, 1, 9).uid, "frame": 8}, (), (8,)),
    ],
    ids=["evenly", "middle", "few", "of interest", "two of interest", "representative", "impossible", "named"],
)
def test_of_a_clip_the_frame_that_was_measured_is_taken_else_some_evenly_spaced(tmp_path, run, thing, more, options, frames):
    hospital = make_hospital(tmp_path, (thing,), [found(thing, "PTC", **more)])
    assert run(hospital, *hospital.of_export, *options).code == 0
    taken = pictures(hospital.staged)
    assert [holds(taken, picture_of(thing, frame)) for frame in frames] == [1] * len(frames)
    assert len(taken) == len(frames)


def test_graphics_over_a_frame_say_that_it_was_measured(tmp_path, run):
    thing = clip(1, 1, 1, 9)
    hospital = make_hospital(tmp_path, (thing,), [found(thing, "PTC")])
    path = next((hospital.folder / "export").rglob("IM_*"))
    dataset = pydicom.dcmread(path)
    for element, kind, value in ((0x15, "IS", 2), (0x51, "US", 3), (0x40, "CS", "G")):
        dataset.add_new((0x6000, element), kind, value)
    dataset.save_as(path)
    assert run(hospital, *hospital.of_export).code == 0
    assert [holds(pictures(hospital.staged), picture_of(thing, frame)) for frame in range(1, 10)] == [0, 0, 1, 1, 0, 0, 0, 0, 0]


def test_a_report_or_a_drawing_that_points_to_a_frame_says_that_it_was_measured(tmp_path, run):
    things = [clip(1, 1, 1, 9), clip(1, 1, 2, 9)]
    report, drawing = (Object(1, 1, 3, SR, "SR", num_frames=0), Object(1, 1, 4, DRAWING, "PR", num_frames=0))
    image = Dataset()
    image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = things[0].uid, 6
    item = Dataset()
    item.ReferencedSOPSequence = [image]
    report.elements["ContentSequence"] = [item]
    image = Dataset()
    image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = things[1].uid, [2, 7]
    item = Dataset()
    item.ReferencedImageSequence = [image]
    drawing.elements["ReferencedSeriesSequence"] = [item]
    hospital = make_hospital(tmp_path, (*things, report, drawing), [found(things[0], "PTC")])
    assert run(hospital, *hospital.of_export).code == 0
    taken = pictures(hospital.staged)
    assert len(taken) == 3
    assert [holds(taken, picture_of(thing, frame)) for thing, frame in ((things[0], 6), (things[1], 2), (things[1], 7))] == [
        1,
        1,
        1,
    ]


def test_everything_is_its_owners_alone(hospital, run):
    run(hospital, *hospital.of_export)
    run(hospital, "--approve")
    for path in [*hospital.data.rglob("*"), hospital.folder / "state/keys/import.key"]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_folder_that_is_not_there_or_holds_nothing_says_so(hospital, run):
    gone = run(hospital, "--dicom", hospital.folder / "nowhere", "--labels", hospital.folder / "list.csv")
    assert gone.code == 3
    assert "no such file or directory" in gone.err
    (hospital.folder / "none").mkdir()
    empty = run(hospital, "--dicom", hospital.folder / "none", "--labels", hospital.folder / "list.csv")
    assert empty.code == 4
    assert "no picture is left to import\nhint: 6 x no study of this number was found" in empty.err


def test_an_import_needs_its_list(hospital, run):
    done = run(hospital, "--dicom", hospital.folder / "export")
    assert done.code == 3
    assert "--labels" in done.err


def test_the_list_may_be_mended_without_reading_any_picture_again(hospital, run):
    run(hospital, *hospital.of_export)
    stamps = {path.name: path.stat().st_mtime_ns for path in (hospital.staged / "images").iterdir()}
    rows = [found(THINGS[0], "FTC"), found(THINGS[6], "MTC")]
    write_list(hospital.folder / "list.csv", rows)
    assert run(hospital, *hospital.of_export).code == 0
    table = read_table(hospital.staged / "manifest.csv")
    assert sorted(row["label"] for row in table) == ["FTC", "MTC"]
    kept = {path.name: path.stat().st_mtime_ns for path in (hospital.staged / "images").iterdir()}
    assert set(kept) == {row["image"] for row in table}
    assert [stamps[name] == stamp for name, stamp in kept.items() if name in stamps] == [True]


def test_hospital_fixture_has_words_to_look_for(hospital: Hospital):
    """The search for identifiers finds them where they are."""
    assert len(leaks(hospital.things, hospital.folder / "export")) >= 40


def test_the_manifest_is_one_that_training_reads(hospital, run):
    run(hospital, *hospital.of_export)
    assert run(hospital, "--approve").code == 0
    manifest = read_manifest(hospital.data / "manifest.csv", STUDY)
    assert manifest.has_patients
    assert (len(manifest.rows), len(manifest.classes), manifest.num_patients) == (7, 4, 3)
    site = read_site(hospital.folder / "site.yaml")
    assert load_images(hospital.folder / "cache", [Source(row.number, Path(site.images) / row.image, row.frame, row.name)
                                                   for row in manifest.rows], 64).faults == ()  # fmt: skip


def test_who_withdrew_is_found_by_number_and_in_no_later_import(hospital, run):
    run(hospital, *hospital.of_export)
    assert run(hospital, "--approve").code == 0
    site, number = read_site(hospital.folder / "site.yaml"), THINGS[2].patient_number
    done = withdraw_patient(site, STUDY, number, "by letter")
    assert (done.rows, done.cases, done.anew) == (2, 2, True)
    later = hospital.folder / "later"
    assert run(hospital, *hospital.of_export, "--out", later).code == 0
    assert {row["label"] for row in read_table(later / ".import/manifest.csv")} == {"PTC", "benign"}
    assert len(read_table(later / ".import/manifest.csv")) == 5
    assert WITHDREW in {row["reason"] for row in read_table(later / ".import/left-out.csv")}
    assert not any(number in path.read_text(errors="replace") for path in (hospital.folder / "state").rglob("*") if path.is_file())
