"""client/importing/pathology.py: lists as spreadsheets write them; what is wrong is said by row, and no cell is shown."""

from pathlib import Path

import pytest

from client.importing.pathology import Diagnosis, read_pathology
from csasn.errors import ConfigurationError, DataError


def read(folder: Path, text: str, encoding: str = "utf-8") -> tuple[Diagnosis, ...]:
    (folder / "list.csv").write_bytes(text.encode(encoding))
    return read_pathology(folder / "list.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_dialects_and_encodings_of_spreadsheets(tmp_path, delimiter, encoding):
    text = "Größe,Accession Number,LABEL,Nodule\n1,A1,PTC, left \n\n,,,\n2,A2,benign,\n".replace(",", delimiter)
    assert read(tmp_path, text, encoding) == (
        Diagnosis(2, accession="A1", label="PTC", nodule="left"),
        Diagnosis(5, accession="A2", label="benign"),
    )


def test_every_column_that_the_help_names(tmp_path):
    text = "accession_number,patient_number,label,nodule,split,image,frame\nA1,P1,PTC,2,test,1.2.3,14\n"
    assert read(tmp_path, text) == (Diagnosis(2, "A1", "P1", "1.2.3", 14, "2", "PTC", "test"),)
    assert read(tmp_path, "PatientID,case,label\nP1,k,\n") == (Diagnosis(2, patient="P1", nodule="k"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("accession_number,label\n", "has no rows below its columns"),
        ("accession_number,diagnosis\nA1,PTC\n", "has no column label"),
        ("label\nPTC\n", "has neither a column accession_number nor patient_number"),
        ("label,accession,AccessionNumber\nPTC,A1,A2\n", "more than one column for accession_number"),
        ("label,accession\nPTC,\n", "row 2 names neither accession number nor patient number"),
        ("label,accession\nPTC,A1\nPTC,A*\n", "row 3 column accession_number holds *, ?, \\ or a comma"),
        ("label,accession\nPTC,1.23E+11\n", "row 2 column accession_number was rounded by a spreadsheet"),
        ("label,accession,split\nPTC,SECRET77,training\n", "row 2 column split is none of train, validation, test"),
        ("label,accession,image,frame\nPTC,SECRET77,1.2,0\n", "row 2 column frame is no number from 1 on"),
        ("label,accession,frame\nPTC,SECRET77,3\n", "row 2 column frame is given without image"),
        ("label,accession\nSECRET77,SECRET77\n", "row 2 column label holds the number of the accession"),
        ("label,accession\n" + "".join(f"SECRET77 {number},A{number}\n" for number in range(60)), "60 different texts"),
        (f"label,accession\n{'SECRET77 ' * 20},A1\n", "expected at most 50 classes of 64 characters"),
    ],
    ids=[
        "empty",
        "head",
        "label",
        "number",
        "twice",
        "nothing",
        "wild",
        "rounded",
        "split",
        "frame",
        "alone",
        "id",
        "many",
        "long",
    ],
)
def test_what_is_wrong_is_said_by_row_and_no_cell_is_shown(tmp_path, text, says):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    assert says in caught.value.message
    assert caught.value.hint
    assert "SECRET77" not in caught.value.message + caught.value.hint


def test_ten_faults_are_listed_and_the_rest_counted(tmp_path):
    with pytest.raises(DataError, match=r"row 11 .*and 15 more$") as caught:
        read(tmp_path, "label,accession\n" + "PTC,\n" * 25)
    assert "row 12" not in caught.value.message


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        read_pathology(tmp_path / "none.csv")
