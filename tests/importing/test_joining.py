"""client/importing/joining.py: a row speaks of the images for which all that it names is true; nothing is guessed."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from client.importing.joining import (
    DISAGREE,
    LABELS,
    NO_IMAGE,
    NO_PATIENT,
    NO_ROW,
    NO_STUDY,
    NO_ULTRASOUND,
    OTHER_PATIENT,
    SEVERAL,
    SPLITS,
    Claim,
    join,
)
from client.importing.objects import Listed
from client.importing.pathology import Diagnosis
from dicom_objects import CAPTURE, ULTRASOUND


def image(uid: str, patient: str = "P1", accession: str = "A1", **changes: object) -> Listed:
    return replace(Listed(uid, "series", f"study of {accession}", patient, accession, ULTRASOUND, "US"), **changes)


def rows(*diagnoses: Diagnosis) -> Sequence[Diagnosis]:
    return [replace(diagnosis, row=number) for number, diagnosis in enumerate(diagnoses, 2)]


def row(accession: str = "", label: str = "PTC", **more: object) -> Diagnosis:
    return Diagnosis(0, accession=accession, label=label, **more)


def reasons(entries) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(entry.reason, entry.number, entry.rows) for entry in entries]


def test_by_accession_number_and_by_patient_number():
    joined = join(rows(row("A1"), row(patient="P2", label="benign")), [image("1"), image("2", "P2", "A2"), image("3", "P2", "A3")])
    assert joined.claims["1"] == (Claim(("P1", "accession", "A1"), "PTC", "", (2,)),)
    assert joined.claims["2"] == joined.claims["3"] == (Claim(("P2",), "benign", "", (3,)),)
    assert (joined.rows, joined.pictures) == ((), ())


def test_nodules_of_a_patient_are_cases_of_their_own():
    of_two = rows(row("A1", nodule="left"), row("A2", "benign", nodule="right"), row("A3", nodule="left"))
    joined = join(of_two, [image("1"), image("2", accession="A2"), image("3", accession="A3")])
    cases = {uid: claims[0].case for uid, claims in joined.claims.items()}
    assert cases["1"] == cases["3"] == ("P1", "nodule", "left")
    assert cases["2"] == ("P1", "nodule", "right")
    assert {claims[0].patient for claims in joined.claims.values()} == {"P1"}


def test_a_study_that_shows_two_nodules_is_taken_apart_by_images_and_frames_alone():
    both = [image("1"), image("2")]
    unclear = join(rows(row("A1", nodule="left"), row("A1", "benign", nodule="right")), both)
    assert unclear.claims == {}
    assert reasons(unclear.pictures) == [(DISAGREE, 2, (2, 3))]
    named = join(rows(row("A1", nodule="left", image="1"), row("A1", "benign", nodule="right", image="2")), both)
    assert {uid: claims[0].label for uid, claims in named.claims.items()} == {"1": "PTC", "2": "benign"}
    of_clip = rows(row("A1", nodule="left", image="1", frame=3), row("A1", "benign", nodule="right", image="1", frame=7))
    assert [(claim.label, claim.frames) for claim in join(of_clip, both).claims["1"]] == [("PTC", (3,)), ("benign", (7,))]
    assert reasons(join(of_clip, both).pictures) == [(NO_ROW, 1, ())]


def test_a_row_that_names_patient_and_accession_number_needs_both():
    joined = join(rows(row("A1", patient="P9")), [image("1")])
    assert (joined.claims, reasons(joined.rows)) == ({}, [(OTHER_PATIENT, 1, (2,))])


def test_an_accession_number_of_two_patients_is_nobodys():
    there = [image("1"), image("2", "P2")]
    assert reasons(join(rows(row("A1")), there).rows) == [(SEVERAL, 1, (2,))]
    assert set(join(rows(row("A1", patient="P2")), there).claims) == {"2"}


def test_an_image_without_patient_number_has_that_of_the_list_or_is_left_out():
    nameless = [image("1", "")]
    assert reasons(join(rows(row("A1")), nameless).pictures) == [(NO_PATIENT, 1, (2,))]
    assert join(rows(row("A1", patient="P7")), nameless).claims["1"][0].patient == "P7"


def test_rows_that_find_nothing_say_why():
    there = [image("1"), image("2", accession="A2", kind=CAPTURE, modality="OT")]
    found = join(rows(row("A0"), row("A2"), row("A1", image="7"), row(patient="P0")), there)
    assert reasons(found.rows) == [(NO_STUDY, 1, (2,)), (NO_ULTRASOUND, 1, (3,)), (NO_IMAGE, 1, (4,)), (NO_STUDY, 1, (5,))]


def test_studies_that_no_row_names_are_counted_one_by_one():
    joined = join(rows(row("A1")), [image("1"), image("2", accession="A2"), image("3", accession="A2"), image("4", "P3", "A3")])
    assert sorted((entry.accession, entry.reason, entry.number) for entry in joined.pictures) == [
        ("A2", NO_ROW, 2),
        ("A3", NO_ROW, 1),
    ]


def test_a_case_of_two_labels_and_a_patient_of_two_splits_are_left_out():
    there = [image("1"), image("2", accession="A2"), image("3", "P3", "A3")]
    labels = join(rows(row("A1", nodule="n"), row("A2", "benign", nodule="n"), row("A3")), there)
    assert set(labels.claims) == {"3"}
    assert reasons(labels.pictures) == [(LABELS, 1, (2, 3)), (LABELS, 1, (2, 3))]
    splits = join(rows(row("A1", split="train"), row("A2", split="test"), row("A3")), there)
    assert set(splits.claims) == {"3"}
    assert [entry.reason for entry in splits.pictures] == [SPLITS, SPLITS]


def test_a_label_that_one_row_leaves_empty_is_that_of_the_case():
    joined = join(rows(row("A1", "", nodule="n"), row("A2", "FTC", nodule="n")), [image("1"), image("2", accession="A2")])
    assert {claims[0].label for claims in joined.claims.values()} == {"FTC"}


numbers = st.sampled_from(["", "1", "2"])
any_row = st.builds(
    row,
    accession=numbers,
    patient=numbers,
    label=st.sampled_from(["a", "b", ""]),
    nodule=numbers,
    split=st.sampled_from(["", "test"]),
)
any_image = st.builds(image, st.sampled_from("abcdef"), patient=numbers, accession=numbers)


@given(
    st.lists(any_row.filter(lambda each: each.accession or each.patient), max_size=6),
    st.lists(any_image, unique_by=lambda each: each.uid, max_size=6),
)
def test_whatever_the_list_says_each_image_is_claimed_or_left_out_and_claims_agree(diagnoses, images):
    joined = join(rows(*diagnoses), images)
    assert len(joined.claims) + sum(entry.number for entry in joined.pictures) == len(images)
    claims = [claim for of_image in joined.claims.values() for claim in of_image]
    labels = {(claim.case, claim.label) for claim in claims}
    splits = {(claim.patient, claim.split) for claim in claims}
    assert len(labels) == len({case for case, _ in labels})
    assert len(splits) == len({patient for patient, _ in splits})
    assert all(claim.patient for claim in claims)
    again = join(rows(*diagnoses), images[::-1])
    assert again.claims == joined.claims
