"""csasn/data/manifest.py: what a manifest may hold, and how its faults are told."""

import csv
import io
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csasn.data.manifest import Manifest, read_manifest
from csasn.data.sheet import MAX_MANIFEST_BYTES
from csasn.errors import DataError
from csasn.study import Federation, Study, Task

CASE, IMAGE = "SECRETCASE77", "SECRETIMAGE88"
STUDY = Study(
    name="thyroid",
    classes=("benign", "PTC", "FTC", "MTC"),
    malignant=("PTC", "FTC", "MTC"),
    tasks={
        "subtype": Task(),
        "malignancy": Task(),
        "margin": Task(values=("smooth", "irregular")),
        "halo": Task(values=("no", "yes")),
    },
    federation=Federation(sites=("centerA",)),
)
HEADER = "case_id,image,label"


def read(folder: Path, text: str | bytes, study: Study = STUDY) -> Manifest:
    path = folder / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path, study)


def fault(folder: Path, text: str | bytes) -> DataError:
    """The error that `text` makes; neither the planted case nor the planted image may show in it."""
    with pytest.raises(DataError) as caught:
        read(folder, text)
    error = caught.value
    assert "SECRET" not in error.message + error.hint
    assert error.hint
    assert "\n" not in error.message
    return error


def test_rows_are_sorted_by_case_and_image_and_keep_their_numbers(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER}\nb,2.png,PTC\n\nb,1.png,PTC\na,x/3.dcm#12,benign\n")
    assert [(row.number, row.case, row.image, row.frame, row.label) for row in manifest.rows] == [
        (5, "a", "x/3.dcm", 12, 0),
        (4, "b", "1.png", None, 1),
        (2, "b", "2.png", None, 1),
    ]
    assert manifest.classes == {"b": 1, "a": 0}
    assert manifest.splits == {"b": "", "a": ""}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(seed=st.integers())
def test_the_order_of_rows_does_not_matter(tmp_path: Path, seed: int) -> None:
    rows = [(f"c{number // 3}", f"{number}.dcm#{1 + number % 4}", STUDY.classes[number // 3 % 4]) for number in range(24)]
    shuffled = random.Random(seed).sample(rows, len(rows))
    first, second = (read(tmp_path, "\n".join([HEADER, *(",".join(row) for row in some)])) for some in (rows, shuffled))
    assert [(row.case, row.name, row.label) for row in first.rows] == [(row.case, row.name, row.label) for row in second.rows]
    assert first.classes == second.classes


def test_byte_order_mark_crlf_quotes_and_blanks_are_understood(tmp_path: Path) -> None:
    text = f'\ufeff{HEADER}\r\n"a, the ""first""", 1.png ,"PTC "\r\n,,\r\n'
    (row,) = read(tmp_path, text).rows
    assert (row.case, row.image, row.label) == ('a, the "first"', "1.png", 1)


def test_a_line_break_inside_a_cell_does_not_shift_row_numbers(tmp_path: Path) -> None:
    assert "row 3, column label: is not a class" in fault(tmp_path, f'{HEADER}\n"a\nb",1.png,PTC\nc,2.png,PTX\n').message


def test_descriptors_of_the_study_are_labels_and_others_are_ignored(tmp_path: Path) -> None:
    header = f"{HEADER},view,scanner,margin,halo,shape"
    manifest = read(tmp_path, f"{header}\na,1.png,,long,S7,irregular,,anything\na,2.png,,,,,yes,\n")
    assert [dict(row.labels) for row in manifest.rows] == [{"margin": 1}, {"halo": 1}]
    assert manifest.classes == {"a": -1}


def test_the_class_belongs_to_the_case(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEADER}\na,1.png,\na,2.png,FTC\n").classes == {"a": 2}


def test_a_manifest_may_name_splits(tmp_path: Path) -> None:
    text = f"{HEADER},split\na,1.png,PTC,test\na,2.png,PTC,test\nb,3.png,PTC,\n"
    assert read(tmp_path, text).splits == {"a": "test", "b": ""}


def test_frames_of_one_clip_are_different_images(tmp_path: Path) -> None:
    text = f"{HEADER}\na,c.dcm,PTC\na,c.dcm#1,PTC\na,c.dcm#2,PTC\na,#3.png,PTC\n"
    assert [row.name for row in read(tmp_path, text).rows] == ["#3.png", "c.dcm", "c.dcm#1", "c.dcm#2"]


def test_rows_do_not_show_cases_or_images_when_printed(tmp_path: Path) -> None:
    assert "SECRET" not in repr(read(tmp_path, f"{HEADER}\n{CASE},{IMAGE},PTC\n"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,1.png,PTX", "row 2, column label: is not a class of the study, expected one of benign, PTC, FTC, MTC"),
        (f"PTC,{IMAGE},{CASE}", "row 2, column label: is not a class of the study"),  # two columns out of order
        (f",{IMAGE},PTC", "row 2, column case_id: is empty"),
        (f"{CASE},,PTC", "row 2, column image: is empty"),
        (f"{CASE},.,PTC", "row 2, column image: is empty"),
        (f"{CASE},/data/{IMAGE},PTC", "row 2, column image: is an absolute path"),
        (f"{CASE},C:\\{IMAGE},PTC", "row 2, column image: is an absolute path"),
        (f"{CASE},C:/{IMAGE},PTC", "row 2, column image: is an absolute path"),
        (f"{CASE},..\\{IMAGE},PTC", "row 2, column image: leaves the image root"),
        (f"{CASE},\\\\share\\{IMAGE},PTC", "row 2, column image: is an absolute path"),
        (f"{CASE},../{IMAGE},PTC", "row 2, column image: leaves the image root"),
        (f"{CASE},a/../../{IMAGE},PTC", "row 2, column image: leaves the image root"),
        (f"{CASE},{IMAGE}#0,PTC", "row 2, column image: names frame 0, expected 1 or more"),
        (f"{CASE},{IMAGE}", "row 2: has 2 cells, expected 3"),
        (f"{CASE},{IMAGE},PTC,1", "row 2: has 4 cells, expected 3"),
        (f"{CASE},1.png,PTC\nb,{IMAGE},FTC\n{CASE},{IMAGE}2,FTC", "row 4, column label: differs from row 2 of the same case"),
        (f"{CASE},{IMAGE},PTC\n\nb,{IMAGE},PTC", "row 4, column image: is the same as in row 2"),
        (f"{CASE},{IMAGE}#2,PTC\nb,./{IMAGE}#02,PTC", "row 3, column image: is the same as in row 2"),
        (f'{CASE},{IMAGE},PTC\nb,"{IMAGE},PTC', "row 3 is not valid CSV"),
        (f'{CASE},{IMAGE},PTC\nb,"{IMAGE}"x,PTC', "row 3 is not valid CSV"),
        (f"{CASE},{IMAGE * 20_000},PTC", "row 2 is not valid CSV"),
    ],
)
def test_a_fault_names_row_and_column_and_never_a_case(tmp_path: Path, rows: str, message: str) -> None:
    error = fault(tmp_path, f"{HEADER}\n{rows}\n")
    assert error.message.startswith("manifest.csv row ")
    assert message in error.message


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "a,1.png,PTC,Train",
            "row 2, column split: is not a split, expected train, from which it differs by capitals, blanks or signs",
        ),
        (f"train,{IMAGE},PTC,{CASE}", "row 2, column split: is not a split"),
        (f"{CASE},{IMAGE},PTC,train\n{CASE},2,PTC,test", "row 3, column split: differs from row 2 of the same case"),
        (
            f"{CASE},{IMAGE},PTC,train\n{CASE},2,PTC,",
            "row 3, column split: is given in only one of this and row 2 of the same case",
        ),
        (f"{CASE},{IMAGE},PTC,\n{CASE},2,PTC,test", "row 3, column split: is given in only one of this and row 2 of the same case"),
    ],
)
def test_a_fault_of_a_split_is_told(tmp_path: Path, rows: str, message: str) -> None:
    assert message in fault(tmp_path, f"{HEADER},split\n{rows}\n").message


def test_a_descriptor_outside_the_study_is_a_fault(tmp_path: Path) -> None:
    message = fault(tmp_path, f"{HEADER},margin\n{CASE},{IMAGE},PTC,{CASE}\n").message
    assert message == "manifest.csv row 2, column margin: is not a value of the study, expected one of smooth, irregular"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column case_id, image, label"),
        ("\n\n", "has no column case_id, image, label"),
        (f"case_id,label\n{CASE},PTC\n", "has no column image"),
        (f"{HEADER}\n", "has no rows"),
        (f"{HEADER}\n,,\n\n", "has no rows"),
        (f"{CASE},{HEADER},{IMAGE}\n", "has no rows"),
        (f"{HEADER}{f',{CASE}' * 1000}\n", "has 1003 columns, expected at most 1000"),
        (f"{HEADER},split,split\n{CASE},{IMAGE},PTC,,\n", "has column split more than once"),
        (f"{HEADER}\n{CASE},{IMAGE}\0,PTC\n", "line 2 holds a NUL byte"),
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in fault(tmp_path, text).message


def test_a_header_that_is_a_row_of_data_is_not_shown(tmp_path: Path) -> None:
    assert fault(tmp_path, f"{CASE},{IMAGE},PTC\n").message == "manifest.csv has no column case_id, image, label"


def test_a_manifest_that_is_not_there_or_cannot_be_read_or_is_huge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.csv does not exist"):
        read_manifest(tmp_path / "manifest.csv", STUDY)
    with pytest.raises(DataError, match=r"manifest\.csv cannot be read"):
        read_manifest(tmp_path, STUDY)
    with (tmp_path / "manifest.csv").open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(DataError, match=r"manifest\.csv is larger than 256 MiB"):
        read_manifest(tmp_path / "manifest.csv", STUDY)


def test_ten_faults_are_listed_in_order_and_the_rest_counted(tmp_path: Path) -> None:
    rows = ["a" + number * ",b" for number in range(3, 28)]
    message = fault(tmp_path, "\n".join([HEADER, f"{CASE}1,{IMAGE}1,FTC", *rows])).message
    parts = message.split("; ")
    assert parts[0] == "manifest.csv row 3: has 4 cells, expected 3"
    assert parts[1] == "row 4: has 5 cells, expected 3"
    assert len(parts) == 11
    assert parts[-1] == "and 15 more"


def test_rows_with_the_same_fault_are_one_line(tmp_path: Path) -> None:
    rows = [f"{CASE}{number},{IMAGE}{number},{'PTX' if number % 2 else 'PTC'}" for number in range(40)]
    message = fault(tmp_path, "\n".join([HEADER, f"{CASE}1,{IMAGE}1,FTC", *rows, "a,b"])).message
    first, other = message.split("; ")
    assert first.startswith("manifest.csv rows 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 10 more, column label: is not a class of")
    assert other == "row 43: has 2 cells, expected 3"


def test_after_a_thousand_faults_the_rest_is_not_read(tmp_path: Path) -> None:
    message = fault(tmp_path, f"{HEADER}\n" + "a\n" * 5000 + '"').message
    rows = ", ".join(map(str, range(2, 12)))
    assert message == f"manifest.csv rows {rows} and 990 more: has 1 cells, expected 3; later rows were not looked at"


def test_more_rows_than_a_hospital_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csasn.data.manifest.MAX_ROWS", 3)
    text = f"{HEADER}\na,1,PTC\na,2,PTC\na,3,PTC\n"
    assert len(read(tmp_path, text).rows) == 3
    assert fault(tmp_path, text + "a,4,PTC\n").message == "manifest.csv has more than 3 rows"


def test_a_header_of_a_million_columns_is_refused_at_once(tmp_path: Path) -> None:
    start = time.process_time()
    assert fault(tmp_path, HEADER + ",view" * 1_000_000).message == "manifest.csv has column view more than once"
    assert time.process_time() - start < 10  # it took hours while each column was counted anew


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(lambda text: text.strip())
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/\\#:"), min_size=1, max_size=12).filter(
    lambda text: text.strip() not in ("", ".", "..")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    cells=st.lists(st.tuples(CELLS, NAMES, st.none() | st.integers(1, 999_999_999)), min_size=1, max_size=8),
    crlf=st.booleans(),
    mark=st.booleans(),
)
def test_whatever_a_spreadsheet_writes_is_read_back(
    tmp_path: Path, cells: list[tuple[str, str, int | None]], crlf: bool, mark: bool
) -> None:
    rows = {image.strip(): (case.strip(), image.strip(), frame) for case, image, frame in cells}.values()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n" if crlf else "\n", quoting=csv.QUOTE_MINIMAL if crlf else csv.QUOTE_ALL)
    writer.writerow(("image", "label", "case_id"))
    writer.writerows((image if frame is None else f"{image}#{frame}", "PTC", case) for case, image, frame in rows)
    manifest = read(tmp_path, file.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    assert [(row.case, row.image, row.frame) for row in manifest.rows] == sorted(rows, key=lambda row: row[:2])
    assert manifest.classes == dict.fromkeys((case for case, _, _ in rows), 1)
