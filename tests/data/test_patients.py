"""Patients beside cases: two nodules of one patient, one split, one image an epoch, one patient in a privacy figure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.worker.learner import Learner
from conftest import LocalFederation
from csasn.data.cases import TRAIN, SiteData, count_training_cases, load_site_data
from csasn.data.manifest import read_manifest
from csasn.data.split import split_cases, split_patients
from csasn.errors import ConfigurationError, DataError
from csasn.learning.central import pool
from csasn.learning.training import epoch_batches, num_epoch_images, num_epoch_steps
from csasn.platform.configuration import validate
from csasn.recipe import Split
from csasn.site import Policy, Site
from csasn.study import Federation, Study
from training_scene import study, synthetic

CLASSES = ("benign", "PTC", "FTC")
STUDY = Study(name="thyroid", classes=CLASSES, federation=Federation(sites=("centerA",)))
HEADER = "case_id,image,label,patient_id,split"


def hospital(folder: Path, rows: Sequence[str], minimum_cases: int = 1, same: Sequence[str] = ()) -> Site:
    """A site with these rows of its manifest; images in `same` show one picture."""
    (folder / "images").mkdir(exist_ok=True)
    for number, row in enumerate(rows):
        name = row.split(",")[1]
        noise = np.random.default_rng(99 if name in same else number).integers(0, 256, (40, 50), np.uint8)
        Image.fromarray(noise).save(folder / "images" / name)
    (folder / "manifest.csv").write_text("\n".join([HEADER, *rows]))
    places = {"manifest": str(folder / "manifest.csv"), "images": str(folder / "images"), "state": str(folder / "state")}
    return Site(site="centerA", policy=Policy(minimum_cases=minimum_cases), **places)


def refused(folder: Path, rows: Sequence[str]) -> str:
    (folder / "manifest.csv").write_text("\n".join([HEADER, *rows]))
    with pytest.raises(DataError) as caught:
        read_manifest(folder / "manifest.csv", STUDY)
    assert "SECRET" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value.message


# The manifest


def test_two_nodules_of_one_patient_may_be_of_two_classes(tmp_path: Path) -> None:
    manifest = read_manifest(Path(hospital(tmp_path, ["a,1.png,benign,P,", "b,2.png,PTC,P,", "c,3.png,FTC,Q,"]).manifest), STUDY)
    assert manifest.classes == {"a": 0, "b": 1, "c": 2}
    assert manifest.patients == {"a": "P", "b": "P", "c": "Q"}
    assert (manifest.has_patients, manifest.num_patients) == (True, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["SECRETa,1,PTC,SECRETp,train", "b,2,PTC,SECRETp,test"], "row 3, column split: differs from row 2 of the same patient"),
        (
            ["a,1,PTC,SECRETp,train", "b,2,PTC,SECRETp,"],
            "row 3, column split: is given in only one of this and row 2 of the same patient",
        ),
        (["SECRETa,1,PTC,p,", "SECRETa,2,PTC,q,"], "row 3, column patient_id: differs from row 2 of the same case"),
        (["a,1,PTC,p,", "SECRETb,2,PTC,,"], "row 3, column patient_id: is empty"),
        (["a,1,PTC,p,", "a,2,FTC,p,"], "row 3, column label: differs from row 2 of the same case"),
    ],
    ids=["two-splits", "half-a-split", "two-patients", "none", "two-classes"],
)
def test_a_patient_has_one_split_and_a_case_one_patient(tmp_path: Path, rows: Sequence[str], message: str) -> None:
    assert refused(tmp_path, rows) == f"manifest.csv {message}"


def test_no_descriptor_may_be_called_patient_id() -> None:
    facts = {
        "name": "x",
        "classes": ["a", "b"],
        "federation": {"sites": ["s"]},
        "tasks": {"subtype": {}, "patient_id": {"values": ["a", "b"]}},
    }
    with pytest.raises(ConfigurationError, match="task patient_id has the name of a manifest column"):
        validate(Study, facts, "study.yaml")


# Splits

PATIENTS = st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 3)), min_size=1, max_size=80)


@given(cases=PATIENTS, seed=st.integers(0, 99))
def test_all_cases_of_a_patient_are_in_one_split(cases: list[tuple[int, int]], seed: int) -> None:
    classes = {f"c{number}": label for number, (_, label) in enumerate(cases)}
    patients = {f"c{number}": f"p{patient}" for number, (patient, _) in enumerate(cases)}
    splits = split_patients(classes, patients, Split(), seed, "centerA")
    assert splits.keys() == classes.keys()
    assert len({(patients[case], split) for case, split in splits.items()}) == len(set(patients.values()))


@given(classes=st.dictionaries(st.text(min_size=1, max_size=8), st.integers(-1, 3), max_size=60), seed=st.integers(0, 99))
def test_where_a_case_is_a_patient_splits_are_those_of_cases(classes: dict[str, int], seed: int) -> None:
    patients = {case: case for case in classes}
    assert split_patients(classes, patients, Split(), seed, "centerA") == split_cases(classes, Split(), seed, "centerA")


def test_a_patient_is_spread_by_the_rarest_of_their_classes() -> None:
    """Ten patients with a rare nodule beside a frequent one: each split gets its share of them."""
    classes = {f"{number}-{side}": 1 if side and number < 10 else 0 for number in range(100) for side in range(2)}
    patients = {case: case.split("-")[0] for case in classes}
    splits = split_patients(classes, patients, Split(validation=0.2, test=0.2), 1, "centerA")
    assert Counter(splits[case] for case, label in classes.items() if label) == {"train": 6, "validation": 2, "test": 2}


def test_an_unlabelled_case_goes_with_its_patient() -> None:
    classes = {f"{number}-{side}": -1 if side else 0 for number in range(30) for side in range(2)}
    patients = {case: case.split("-")[0] for case in classes}
    splits = split_patients(classes, patients, Split(), 1, "centerA")
    assert {splits[case] for case, label in classes.items() if label < 0} == {"train", "validation", "test"}


# The data set


def test_patients_are_numbered_and_pooled(tmp_path: Path) -> None:
    rows = ["a,1.png,benign,P,train", "b,2.png,PTC,P,train", "c,3.png,FTC,Q,test"]
    one = load_site_data(STUDY, hospital(tmp_path, rows), 32)
    assert one.patient_C is not None
    assert one.patient_C.tolist() == [0, 0, 1]
    without = replace(one, patient_C=None)
    assert pool({"a": without, "b": without}).patient_C is None
    both = pool({"a": one, "b": without, "c": one})
    assert both.patients_of(np.arange(9)).tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6]


def test_minimum_cases_asks_for_patients(tmp_path: Path) -> None:
    rows = [f"{number},{number}.png,PTC,P{number // 3},train" for number in range(6)]
    assert count_training_cases(STUDY, hospital(tmp_path, rows, minimum_cases=2)) == 6
    with pytest.raises(
        DataError, match=r"^manifest\.csv has 6 labelled training cases of 2 patients, expected at least 3 patients$"
    ):
        count_training_cases(STUDY, hospital(tmp_path, rows, minimum_cases=3))


def test_one_picture_of_two_patients_is_said_and_in_two_splits_refused(tmp_path: Path) -> None:
    rows = ["a,1.png,PTC,P,train", "b,2.png,PTC,Q,train", "c,3.png,PTC,P,train"]
    notes = load_site_data(STUDY, hospital(tmp_path, rows, same=["1.png", "2.png", "3.png"]), 32).notes
    assert [note for note in notes if "picture" in note] == [
        "row 3 shows the same picture as row 2 of another patient",
        "row 4 shows the same picture as row 2 of another case",
    ]
    site = hospital(tmp_path, ["a,1.png,PTC,P,train", "b,2.png,PTC,Q,test"], same=["1.png", "2.png"])
    with pytest.raises(DataError, match="row 3, column image: shows the same picture as row 2, of a case in another split"):
        load_site_data(STUDY, site, 32)


def test_what_was_noted_of_the_sheet_reaches_the_data_set(tmp_path: Path) -> None:
    site = hospital(tmp_path, ["01,1.png,PTC,P,train", "1,2.png,PTC,P,train"])
    Path(site.manifest).write_text(Path(site.manifest).read_text().replace(",", ";"))
    notes = load_site_data(STUDY, site, 32).notes
    assert notes[:2] == ("cells are separated by semicolons", "column case_id differs by zeros before it alone in rows 2 and 3")


# An epoch


def of_patients(num_cases: int = 24) -> SiteData:
    """Cases of which the first third are of one patient, and the others of one each."""
    data = synthetic(num_cases)
    return replace(data, patient_C=np.maximum(np.arange(num_cases) - num_cases // 3, 0))


def test_an_epoch_of_patients_takes_one_case_of_each() -> None:
    data, chosen = of_patients(), study(unit="patient", optimiser={"batch_size": 4})
    random = np.random.default_rng(0)
    seen: Counter[int] = Counter()
    orders = set()
    for _ in range(60):
        batches = list(epoch_batches(data, chosen, random))
        cases = data.case_N[np.concatenate(batches)]
        patients = data.patients_of(cases)
        assert sorted(patients) == sorted(set(data.patients_of(data.cases(TRAIN))))
        assert len(cases) == num_epoch_images(data, chosen)
        assert len(batches) == num_epoch_steps(len(cases), 4)
        orders.add(tuple(patients))
        seen.update(cases[patients == 0].tolist())
    assert len(orders) == 60
    assert set(seen) == {int(case) for case in data.cases(TRAIN) if data.patients_of(np.array([case]))[0] == 0}
    assert max(seen.values()) < 60 / len(seen) * 3  # each of the patient's cases in its turn


def test_an_epoch_of_cases_does_not_look_at_patients() -> None:
    data, chosen = of_patients(), study()
    one, other = (
        [batch.tolist() for batch in epoch_batches(each, chosen, np.random.default_rng(0))]
        for each in (data, replace(data, patient_C=None))
    )
    assert one == other
    assert sum(map(len, one)) == num_epoch_images(data, chosen) == len(data.cases(TRAIN))


def test_an_epoch_of_patients_takes_one_image_of_each() -> None:
    with pytest.raises(ConfigurationError, match="unit patient takes one image of each patient, which images_per_case all cannot"):
        study(unit="patient", images_per_case="all")


def test_the_worker_logs_what_was_noted_when_it_reads_the_data(
    federate: Callable[..., LocalFederation], caplog: pytest.LogCaptureFixture
) -> None:
    federation = federate()
    site = federation.sites["centerA"]
    sheet = Path(site.manifest)
    sheet.write_text(sheet.read_text().replace(",", "\t"))
    learner = Learner(federation.study, federation.directory.membership, site, lambda _: None)
    with caplog.at_level("INFO", logger="client"):
        learner.load_data()
        learner.load_data()
    assert caplog.messages.count("manifest.csv: cells are separated by tabs") == 1
