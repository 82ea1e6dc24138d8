"""What spreadsheets write: each kind is read and said, or refused by its row. No message holds a case, an image or a cell."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from csasn.data.image_files import find_images
from csasn.data.manifest import Manifest, read_manifest
from csasn.errors import ConfigurationError, CsasnError, DataError
from csasn.study import Federation, Study, Task

CASE, IMAGE = "SECRETCASE77", "SECRETIMAGE88"
STUDY = Study(
    name="thyroid",
    classes=("benign", "PTC", "TR 4"),
    tasks={"subtype": Task(), "halo": Task(values=("absent", "present"))},
    federation=Federation(sites=("centerA",)),
)
HEADER = "case_id,image,label"
PLAIN = f"{HEADER}\r\n{CASE},{IMAGE}.png,benign\r\nb,b.png,PTC\r\n"


def read(folder: Path, data: str | bytes, labels: dict[str, str] | None = None) -> Manifest:
    path = folder / "manifest.csv"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    manifest = read_manifest(path, STUDY, labels)
    assert not [text for text in (*manifest.said, *manifest.notes) if "SECRET" in text]
    return manifest


def refused(folder: Path, data: str | bytes, labels: dict[str, str] | None = None) -> CsasnError:
    with pytest.raises(CsasnError) as caught:
        read(folder, data, labels)
    error = caught.value
    assert "SECRET" not in error.message + error.hint
    assert error.hint
    return error


def separated(by: str) -> str:
    return PLAIN.replace(",", by)


READ = {
    "plain": (PLAIN, []),
    "semicolons": (separated(";"), ["cells are separated by semicolons"]),
    "tabs": (separated("\t"), ["cells are separated by tabs"]),
    "bars": (separated("|"), ["cells are separated by bars"]),
    "sep-line": (
        "sep=;\r\n" + separated(";"),
        ["a line sep= stands above row 1, and is not counted", "cells are separated by semicolons"],
    ),
    "quoted-sep-line": ('"sep=,"\r\n' + PLAIN, ["a line sep= stands above row 1, and is not counted"]),
    "one-mark": (PLAIN.encode("utf-8-sig"), []),
    "mark-twice": (b"\xef\xbb\xbf" + PLAIN.encode("utf-8-sig"), ["begins with 2 byte-order marks"]),
    "utf-16": (PLAIN.encode("utf-16"), ["is in UTF-16"]),
    "utf-16-be": (b"\xfe\xff" + PLAIN.encode("utf-16-be"), ["is in UTF-16"]),
    "utf-16-without-mark": (PLAIN.encode("utf-16-le"), ["is in UTF-16 without its mark"]),
    "utf-16-be-without-mark": (PLAIN.encode("utf-16-be"), ["is in UTF-16 without its mark"]),
    "old-mac": (PLAIN.replace("\r\n", "\r"), []),
    "ctrl-z": (PLAIN + "\x1a", []),
    "capitals": (
        PLAIN.replace(HEADER, "Case_ID,IMAGE,Label"),
        ["columns are read by their meaning: 1 as case_id, 2 as image, 3 as label"],
    ),
    "blank-in-header": (PLAIN.replace("case_id", "Case ID"), ["columns are read by their meaning: 1 as case_id"]),
    "comment": ("# exported today\r\n" + PLAIN, ["lines above the header that begin with #: 1"]),
    "empty-columns": (PLAIN.replace("\r\n", ",,\r\n"), ["columns without a name are left out: 4, 5"]),
    "header-again": (PLAIN.replace("b,b.png", f"{HEADER}\r\nb,b.png"), ["row 3: repeats the header, and is left out"]),
    "trailing-commas-of-rows": (PLAIN.replace("benign", "benign,,").replace("PTC", "PTC,"), []),
    "quoted": (f'"case_id","image","label"\n"{CASE}","{IMAGE}.png","benign"\n"b","b.png","PTC"\n', []),
}


@pytest.mark.parametrize("kind", READ)
def test_each_kind_of_sheet_is_read_alike_and_said(tmp_path: Path, kind: str) -> None:
    data, said = READ[kind]
    manifest = read(tmp_path, data)
    assert [(row.case, row.image, row.label) for row in manifest.rows] == [(CASE, f"{IMAGE}.png", 0), ("b", "b.png", 1)]
    assert list(manifest.said) == said
    assert manifest.notes == ()


def test_rows_keep_the_numbers_that_a_spreadsheet_shows(tmp_path: Path) -> None:
    bad = PLAIN.replace("PTC", "PTX")
    assert "manifest.csv row 3, column label" in refused(tmp_path, bad).message
    assert "manifest.csv row 3, column label" in refused(tmp_path, "sep=,\r\n" + bad).message
    assert "manifest.csv row 5, column label" in refused(tmp_path, "# one\r\n\r\n" + bad).message


def test_a_text_of_an_unnamed_code_page_is_a_guess_that_is_said(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER}\nM\u00fcller,\u00e9t\u00e9.png,PTC\n".encode("cp1252"))
    assert (manifest.rows[0].case, manifest.rows[0].image) == ("M\u00fcller", "\u00e9t\u00e9.png")
    assert manifest.notes == ("line 2 is not UTF-8: read as Windows-1252, which is a guess",)


@pytest.mark.parametrize(
    ("text", "codec"), [("\u4e2d\u6587", "gb18030"), ("\u0418\u0432\u0430\u043d", "cp1251"), ("\u65e5\u672c", "shift-jis")]
)
def test_a_code_page_that_is_not_western_is_not_guessed(tmp_path: Path, text: str, codec: str) -> None:
    error = refused(tmp_path, f"{HEADER}\na,1.png,PTC\n{text},2.png,PTC\n".encode(codec))
    assert error.message == "manifest.csv line 3 is not UTF-8, but of a code page that the file does not name"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + b"x" * 50, "is a workbook, expected CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 50, "is a workbook, expected CSV"),
        (PLAIN.encode("utf-16")[:-1], "line 3 is cut off or damaged, expected UTF-16-LE"),
        (b"\xef\xbb\xbf" + PLAIN.encode() + b"\xff", "line 4 is cut off or damaged, expected UTF-8"),
        ("x" * 200_000 + "\n", "row 1 is not valid CSV"),
    ],
    ids=["xlsx", "xls", "half-utf-16", "damaged-utf-8", "one-long-cell"],
)
def test_what_is_no_sheet_is_refused(tmp_path: Path, data: str | bytes, message: str) -> None:
    assert refused(tmp_path, data).message == f"manifest.csv {message}"


# Columns


def test_columns_that_are_not_known_are_left_out_and_told_by_number(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER},SECRETAGE,shape,images2,\na,1.png,PTC,50,round,x,\nb,2.png,PTC,51,round,x,y\n")
    assert manifest.notes == (
        "columns that are not known are left out: 4, 6",
        "row 3: a column without a name has content, which is left out",
    )


@pytest.mark.parametrize(
    ("header", "message", "hint"),
    [
        ("case_id,image,lable", "has no column label", "is column 3 the label? then name it so"),
        ("case,image,label", "has no column case_id", "is column 1 the case_id? then name it so"),
        (f"{HEADER},patient", "row 1, column 4: is nearly patient_id", "is column 4 the patient_id? then name it so, else"),
        (f"{HEADER},splitt", "row 1, column 4: is nearly split", "is column 4 the split?"),
        (f"{HEADER},hallo", "row 1, column 4: is nearly halo", "is column 4 the halo?"),
    ],
)
def test_a_column_that_is_nearly_a_known_one_is_not_left_out(tmp_path: Path, header: str, message: str, hint: str) -> None:
    error = refused(tmp_path, f"{header}\n{CASE},{IMAGE},PTC,x\n")
    assert error.message == f"manifest.csv {message}"
    assert hint in error.hint


def test_a_patients_column_may_be_written_without_its_underscore(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER},PatientID\na,1.png,PTC,p\n")
    assert manifest.patients == {"a": "p"}
    assert manifest.said == ("columns are read by their meaning: 4 as patient_id",)


def test_one_column_in_two_spellings_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, f"{HEADER},Case ID\na,1.png,PTC,a\n").message == "manifest.csv has column case_id more than once"


# Cells


@pytest.mark.parametrize("cell", ["1.23E+05", "1,23457E+11", "1e+10"])
def test_an_id_in_scientific_notation_is_refused_by_its_row(tmp_path: Path, cell: str) -> None:
    message = refused(tmp_path, f'{HEADER}\na,1.png,PTC\n"{cell}",2.png,PTC\n').message
    assert message == "manifest.csv row 3, column case_id: is a number in scientific notation, whose digits are lost"
    message = refused(tmp_path, f'{HEADER},patient_id\na,1.png,PTC,"{cell}"\n').message
    assert "row 2, column patient_id: is a number in scientific notation" in message


@pytest.mark.parametrize("cell", ["12E34", "1E5", "E+05", "12.3E+05x"])
def test_an_id_that_has_an_e_in_it_is_an_id(tmp_path: Path, cell: str) -> None:
    assert read(tmp_path, f"{HEADER}\n{cell},1.png,PTC\n").classes == {cell: 1}


def test_ids_that_differ_by_zeros_or_capitals_alone_are_noted(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD"))
    cases = ["0001", "1", "00a7", "0A7", "0a7", "010", "100", composed, apart]
    manifest = read(tmp_path, "\n".join([HEADER, *(f"{case},{number}.png,PTC" for number, case in enumerate(cases))]))
    assert manifest.notes == (
        "column case_id differs by zeros before it alone in rows 2 and 3; rows 4 and 6",
        "column case_id differs by capitals or coded accents alone in rows 5 and 6; rows 9 and 10",
    )


def test_numbers_with_a_point_are_noted(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER}\n1.0,1.png,PTC\n2.0,2.png,PTC\n")
    assert manifest.notes == ("rows 2, 3: ids end in .0, as numbers of a spreadsheet do: are zeros before them lost?",)


@pytest.mark.parametrize("error", ["#N/A", "#REF!", "#DIV/0!", "#NAME?", "#NV", "#BEZUG!", "#VALEUR!", "#N/D"])
@pytest.mark.parametrize("column", range(4))
def test_an_error_of_a_formula_is_refused_by_its_row(tmp_path: Path, error: str, column: int) -> None:
    cells = ["a", "1.png", "PTC", "absent"]
    cells[column] = error
    message = refused(tmp_path, f"{HEADER},halo\n{','.join(cells)}\n").message
    name = [*HEADER.split(","), "halo"][column]
    assert message == f"manifest.csv row 2, column {name}: holds an error of a spreadsheet's formula"


def test_an_error_of_a_formula_in_a_column_that_is_left_out_does_not_count(tmp_path: Path) -> None:
    assert len(read(tmp_path, f"{HEADER},age,shape\na,1.png,PTC,#REF!,#N/A\n").rows) == 1


@pytest.mark.parametrize("cell", ["Benign", "BENIGN", "be nign", "benign\u200b", "benign."])
def test_a_label_that_differs_by_capitals_or_blanks_names_the_class_that_is_meant(tmp_path: Path, cell: str) -> None:
    error = refused(tmp_path, f"{HEADER}\na,1.png,{cell}\n")
    assert "row 2, column label: is not a class of the study, expected benign, from which it differs by" in error.message
    assert error.hint == "write benign as the study does, or map it by the key labels of the site file"


def test_blanks_around_a_label_do_not_count_whatever_their_kind(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEADER}\na,1.png,\u00a0PTC\u00a0\n").classes == {"a": 1}


def test_an_unlabelled_row_is_allowed_where_another_task_has_a_label(tmp_path: Path) -> None:
    (row,) = read(tmp_path, f"{HEADER},halo\na,1.png,,present\n").rows
    assert (row.label, dict(row.labels)) == (-1, {"halo": 1})


# The label map


def test_a_label_map_is_read_without_case_and_blanks_and_said(tmp_path: Path) -> None:
    words = {" Papillary Carcinoma ": "PTC", "0": "benign", "\u00e9": "TR 4"}
    text = f"{HEADER}\na,1,papillary carcinoma\nb,2,PAPILLARY CARCINOMA\nc,3,0\nd,4,benign\ne,5,e\u0301\n"
    manifest = read(tmp_path, text, words)
    assert manifest.classes == {"a": 1, "b": 1, "c": 0, "d": 0, "e": 2}
    assert manifest.said == ("labels read by the map of the site file: 4",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"SECRET": "ptc"}, "entry 1 of labels leads to no class of the study, expected one of benign, PTC, TR 4"),
        ({"a": "PTC", "SECRET": "papillary SECRET"}, "entry 2 of labels leads to no class of the study"),
        ({"ptc": "benign"}, "entry 1 of labels leads a class of the study to another"),
        ({"SECRET": "PTC", " secret": "benign"}, "entry 2 of labels leads the word of another entry to another class"),
    ],
)
def test_a_label_map_that_cannot_be_is_refused_by_the_number_of_its_entry(
    tmp_path: Path, labels: dict[str, str], message: str
) -> None:
    error = refused(tmp_path, PLAIN, labels)
    assert isinstance(error, ConfigurationError)
    assert message in error.message


# Names on the disk


def find(folder: Path, on_disk: str, in_sheet: str) -> tuple[list[Path], list[str], tuple[str, ...]]:
    place = folder / "images" / on_disk
    place.parent.mkdir(parents=True)
    place.touch()
    rows = read(folder, f"{HEADER}\nb,other.png,PTC\na,{in_sheet},PTC\n").rows
    paths, faults, notes = find_images(folder / "images", rows)
    return paths, [str(fault) for fault in faults if fault], notes


@pytest.mark.parametrize(("disk", "sheet"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_may_be_coded_otherwise_on_the_disk(tmp_path: Path, disk: str, sheet: str) -> None:
    name = "k\u00f6ln/\u00e9t\u00e9.png"
    paths, faults, notes = find(tmp_path, unicodedata.normalize(disk, name), unicodedata.normalize(sheet, name))
    assert (paths[0].exists(), faults) == (True, [])
    assert notes == ("row 3, column image: accents are coded otherwise than on the disk; read",)


@pytest.mark.parametrize(
    ("on_disk", "in_sheet", "problem"),
    [
        ("a2.png", "A2.PNG", "is not there, but one of this name in other capitals is"),
        ("Sub/a.png", "sub/a.png", "is not there, but one of this name in other capitals is"),
        ("a2.png", "a2", "is not there, but one of this name with the ending .png is"),
        ("A2.png", "a2.jpg", "is not there, but one of this name with the ending .png is"),
        ("a.2", "a.1", "is not there, but one of this name with another ending is"),
    ],
)
def test_what_is_there_by_nearly_the_name_is_told(tmp_path: Path, on_disk: str, in_sheet: str, problem: str) -> None:
    assert find(tmp_path, on_disk, in_sheet)[1] == [f"row 3, column image: {problem}"]


def test_what_is_not_there_at_all_is_left_to_the_reader(tmp_path: Path) -> None:
    paths, faults, notes = find(tmp_path, "z.png", "a.png")
    assert (paths, faults, notes) == ([tmp_path / "images/a.png", tmp_path / "images/other.png"], [], ())
    long = read(tmp_path, f"{HEADER}\na,{'x' * 300}/a.png,PTC\n").rows
    assert find_images(tmp_path / "nowhere", long) == ([tmp_path / "nowhere" / ("x" * 300) / "a.png"], [None], ())


def test_backslashes_between_folders_are_read_and_said(tmp_path: Path) -> None:
    manifest = read(tmp_path, f"{HEADER}\na,x\\y\\1.png,PTC\n")
    assert manifest.rows[0].image == "x/y/1.png"
    assert manifest.said == ("row 2, column image: \\ is read as / between folders",)
    assert isinstance(refused(tmp_path, f"{HEADER}\na,C:\\1.png,PTC\n"), DataError)


# Size


@pytest.mark.slow
def test_a_million_rows_are_read_within_a_minute_and_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    with path.open("w") as file:
        file.write(f"{HEADER},patient_id,scanner,halo\n")
        for number in range(1_000_000):
            case = number // 2
            labels = f"{STUDY.classes[case % 3]},P{case // 2:07},Maker {case % 7},{'absent' if number % 3 else ''}"
            file.write(f"{case:07},{case // 1000:04}/{case:07}-{number % 2}.png,{labels}\n")
    (tmp_path / "study.json").write_text(STUDY.model_dump_json())
    script = (
        "import pathlib, resource, sys, time\n"
        "from csasn.data.manifest import read_manifest\nfrom csasn.study import Study\n"
        "folder, begin = pathlib.Path(sys.argv[1]), time.perf_counter()\n"
        "manifest = read_manifest(folder / 'manifest.csv', Study.model_validate_json((folder / 'study.json').read_text()))\n"
        "assert (len(manifest.rows), len(manifest.classes), manifest.num_patients) == (10**6, 500_000, 250_000)\n"
        "print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    took_s, peak_kib = map(float, done.stdout.split())
    assert took_s < 60
    assert peak_kib < 1 << 20
