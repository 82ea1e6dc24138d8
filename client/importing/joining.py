"""Which row of the pathology list speaks of which image. Nothing is guessed: where rows disagree, images are left out.

A row speaks of the images for which all that it names is true: accession number, patient number, SOP Instance UID. Without a
patient number, its accession number has to be one patient's. Rows about one image have to say the same; rows that all name frames
speak of these frames alone. A case is what a row's `nodule` says within a patient, else the accession number, else the patient.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from client.importing.objects import Listed, reason_to_leave
from client.importing.pathology import Diagnosis

NO_ROW = "no row of the list speaks of it"
NO_STUDY, OTHER_PATIENT = "no study of this number was found", "its accession number is of another patient"
NO_IMAGE, NO_ULTRASOUND = "its study has no such image", "its study has no ultrasound picture"
SEVERAL = "several patients have its accession number: add a column patient_number"
DISAGREE = "rows of the list disagree about it: name images in a column image"
NO_PATIENT = "neither the image nor the list names a patient number"
LABELS, SPLITS = "rows of the list give one case several labels", "rows of the list put one patient into several splits"


@dataclass(frozen=True)
class Claim:
    """What the list says of an image, or of `frames` of it where it names any. `case` begins with the patient number."""

    case: tuple[str, ...] = field(repr=False)
    label: str
    split: str
    rows: tuple[int, ...]
    frames: tuple[int, ...] = ()

    @property
    def patient(self) -> str:
        """The patient number."""
        return self.case[0]


@dataclass(frozen=True, order=True)
class LeftOut:
    """What is not taken: `number` files, objects or pictures of one study or image, or a row of the list; and why."""

    reason: str
    number: int = 1
    rows: tuple[int, ...] = ()
    patient: str = field(default="", repr=False)
    accession: str = field(default="", repr=False)
    image: str = field(default="", repr=False)


@dataclass(frozen=True)
class Joined:
    """The claims on each ultrasound picture, by SOP Instance UID; rows that claim nothing; and pictures that no row claims."""

    claims: Mapping[str, tuple[Claim, ...]]
    rows: tuple[LeftOut, ...]
    pictures: tuple[LeftOut, ...]


def join(diagnoses: Sequence[Diagnosis], objects: Sequence[Listed]) -> Joined:
    """Joins the list with what a source has."""
    by_accession, by_patient = defaultdict(list), defaultdict(list)
    for listed in objects:
        by_accession[listed.accession].append(listed)
        by_patient[listed.patient].append(listed)
    speaking: dict[str, list[Diagnosis]] = defaultdict(list)
    idle = []
    for diagnosis in diagnoses:
        of_number = by_accession[diagnosis.accession] if diagnosis.accession else by_patient[diagnosis.patient]
        found, problem = _images_of(diagnosis, of_number)
        for listed in found:
            speaking[listed.uid].append(diagnosis)
        if problem:
            idle.append(LeftOut(problem, rows=(diagnosis.row,)))
    pictures = [listed for listed in objects if not reason_to_leave(listed)]
    resolved = {listed.uid: _resolve(listed, speaking[listed.uid]) for listed in pictures}
    claims = {uid: result for uid, result in resolved.items() if isinstance(result, tuple)}
    claims, problems = _agree(claims)
    problems |= {uid: result for uid, result in resolved.items() if isinstance(result, LeftOut)}
    return Joined(claims, tuple(idle), tuple(_by_study(pictures, problems)))


def _images_of(diagnosis: Diagnosis, of_number: Sequence[Listed]) -> tuple[list[Listed], str]:
    """The ultrasound pictures that a row speaks of, or why there are none."""
    if not of_number:
        return [], NO_STUDY
    found = [listed for listed in of_number if not diagnosis.patient or listed.patient in ("", diagnosis.patient)]
    if not found:
        return [], OTHER_PATIENT
    if not diagnosis.patient and len({listed.patient for listed in found} - {""}) > 1:
        return [], SEVERAL
    found = [listed for listed in found if not diagnosis.image or listed.uid == diagnosis.image]
    if not found:
        return [], NO_IMAGE
    found = [listed for listed in found if not reason_to_leave(listed)]
    return found, "" if found else NO_ULTRASOUND


def _resolve(listed: Listed, diagnoses: Sequence[Diagnosis]) -> tuple[Claim, ...] | LeftOut:
    """What the rows say of one picture, by frame where each of them names one."""
    here = LeftOut("", rows=tuple(diagnosis.row for diagnosis in diagnoses))
    if not diagnoses:
        return replace(here, reason=NO_ROW)
    groups: dict[int | None, list[Diagnosis]] = defaultdict(list)
    all_name_frames = all(diagnosis.frame for diagnosis in diagnoses)
    for diagnosis in diagnoses:
        groups[diagnosis.frame if all_name_frames else None].append(diagnosis)
    claims = []
    for _, group in sorted(groups.items(), key=lambda item: item[0] or 0):
        said = {_claim(listed, diagnosis) for diagnosis in group}
        if len(said) > 1:
            return replace(here, reason=DISAGREE)
        if not (claim := said.pop()).patient:
            return replace(here, reason=NO_PATIENT)
        frames = tuple(sorted({diagnosis.frame for diagnosis in group if diagnosis.frame}))
        claims.append(replace(claim, rows=tuple(diagnosis.row for diagnosis in group), frames=frames))
    return tuple(claims)


def _claim(listed: Listed, diagnosis: Diagnosis) -> Claim:
    patient = listed.patient or diagnosis.patient
    case: tuple[str, ...] = (patient,)
    if diagnosis.nodule:
        case = patient, "nodule", diagnosis.nodule
    elif diagnosis.accession:
        case = patient, "accession", diagnosis.accession
    return Claim(case, diagnosis.label, diagnosis.split, ())


def _agree(claims: Mapping[str, tuple[Claim, ...]]) -> tuple[dict[str, tuple[Claim, ...]], dict[str, LeftOut]]:
    """The claims whose case has one label and whose patient has one split, the label in each of them; and why not of the others.

    A case that has a label has it in the rows that leave it empty, too.
    """
    said: dict[Hashable, set[str]] = defaultdict(set)
    rows: dict[Hashable, set[int]] = defaultdict(set)
    for claim in chain.from_iterable(claims.values()):
        said[LABELS, claim.case] |= {claim.label} - {""}
        said[SPLITS, claim.patient].add(claim.split)
        for key in ((LABELS, claim.case), (SPLITS, claim.patient)):
            rows[key] |= set(claim.rows)
    good, bad = {}, {}
    for uid, of_image in claims.items():
        keys = [(LABELS, claim.case) for claim in of_image] + [(SPLITS, claim.patient) for claim in of_image]
        if fault := next((key for key in keys if len(said[key]) > 1), None):
            bad[uid] = LeftOut(fault[0], rows=tuple(sorted(rows[fault])))
        else:
            good[uid] = tuple(replace(claim, label=next(iter(said[LABELS, claim.case]), "")) for claim in of_image)
    return good, bad


def _by_study(pictures: Iterable[Listed], problems: Mapping[str, LeftOut]) -> list[LeftOut]:
    """One entry for each study and reason, with the number of its pictures."""
    counts = Counter(
        (listed.study, replace(problems[listed.uid], patient=listed.patient, accession=listed.accession))
        for listed in pictures
        if listed.uid in problems
    )
    return sorted(replace(entry, number=number) for (_, entry), number in counts.items())
