"""A hospital's archive as tests make it: ultrasound of patients with names, numbers and dates, and what pathology found."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import ExplicitVRLittleEndian

from csasn.phantom.case import draw
from csasn.phantom.nodule import CLASSES, draw_nodule
from csasn.phantom.scanner import SCANNERS
from dicom_objects import CAPTURE, CLIP, ULTRASOUND, region

ROOT = "1.2.826.0.1.3680043.10.1713"
NUM_PICTURES = 24  # drawn ones; others are these, turned and darkened
TOP, LEFT, SIZE = 40, 24, 128  # of the region in its screen
SPACING_CM = 0.02


@dataclass(frozen=True)
class Object:
    """A DICOM object to write, and where it comes from."""

    patient: int
    study: int
    number: int
    kind: str = ULTRASOUND
    modality: str = "US"
    num_frames: int = 1
    text: str = ""
    elements: dict[str, object] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return f"{self.study_uid}.7.{self.number}"

    @property
    def study_uid(self) -> str:
        return f"{ROOT}.{self.patient:05}1.{self.study:04}9".replace(".0", ".4")

    @property
    def patient_number(self) -> str:
        return f"MRN{7300000 + 37 * self.patient}"

    @property
    def name(self) -> str:
        return f"Mustermann{self.patient:03}^Erika{self.patient:03}"

    @property
    def accession(self) -> str:
        return f"ACC{90000000 + 1000 * self.patient + self.study}"

    @property
    def dates(self) -> tuple[str, str]:
        return f"19{40 + self.patient % 50}0{1 + self.patient % 9}17", f"2021{1 + self.patient % 12:02}{10 + self.study % 18}"

    @property
    def file_name(self) -> str:
        return f"IM_{self.patient:03}_{self.study}_{self.number:04}"

    @property
    def identifiers(self) -> tuple[str, ...]:
        """All that may be in no output."""
        series = f"{self.study_uid}.5"
        words = (*self.name.split("^"), self.patient_number, self.accession, *self.dates, self.file_name)
        return (*words, self.uid, self.study_uid, series, "Dr^Quincke", "Klinikum-Nord")

    def dataset(self) -> Dataset:
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = self.kind, self.uid
        made.SOPClassUID, made.SOPInstanceUID = self.kind, self.uid
        made.StudyInstanceUID, made.SeriesInstanceUID = self.study_uid, f"{self.study_uid}.5"
        made.PatientName, made.PatientID, made.AccessionNumber = self.name, self.patient_number, self.accession
        made.PatientBirthDate, made.StudyDate = self.dates
        made.SeriesDate = made.ContentDate = made.AcquisitionDate = self.dates[1]
        made.ReferringPhysicianName, made.InstitutionName = "Dr^Quincke", "Klinikum-Nord"
        made.Modality, made.InstanceNumber, made.SeriesNumber = self.modality, self.number, 1
        made.Manufacturer, made.ManufacturerModelName = "Example", "Sono 9"
        for keyword, value in self.elements.items():
            setattr(made, keyword, value)
        if self.num_frames:
            _add_pixels(made, self)
        return made

    def write(self, folder: Path, *, marked: bool = True) -> Path:
        """The object as a file of an export; without preamble and file header unless `marked`."""
        folder.mkdir(parents=True, exist_ok=True)
        dataset = self.dataset()
        if not marked:
            del dataset.file_meta
        path = folder / self.file_name
        dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=marked)
        return path


def still(patient: int, study: int, number: int, text: str = "", **elements: object) -> Object:
    return Object(patient, study, number, text=text, elements=elements)


def clip(patient: int, study: int, number: int, num_frames: int, **elements: object) -> Object:
    return Object(patient, study, number, CLIP, num_frames=num_frames, elements=elements)


def picture_of(thing: Object, frame: int = 1) -> np.ndarray:
    """The picture (uint8 H, W) inside the region of an object: what an import without text has to write."""
    drawn = _drawn((7 * thing.patient + 3 * thing.study + thing.number) % NUM_PICTURES)[:, :: -1 if thing.patient % 2 else 1]
    return drawn - np.minimum(drawn, thing.patient % 8 + 3 * frame)


@cache
def _drawn(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    scanner = list(SCANNERS.values())[number % len(SCANNERS)]
    nodule = draw_nodule(rng, CLASSES[number % len(CLASSES)])
    return draw(rng, nodule, replace(scanner, caliper_rate=0.0), "transverse", size_px=128).image


def _add_pixels(made: Dataset, thing: Object) -> None:
    """A screen with `text` within its region, and, where that is named, the patient's name above it."""
    view = region((LEFT, TOP, LEFT + SIZE - 1, TOP + SIZE - 1), delta=SPACING_CM)
    view.PhysicalDeltaY = SPACING_CM
    cropped = "SequenceOfUltrasoundRegions" not in thing.elements
    frames = []
    for frame in range(1, thing.num_frames + 1):
        screen = Image.new("L", (SIZE + 2 * LEFT, SIZE + 2 * TOP))
        screen.paste(Image.fromarray(picture_of(thing, frame)), (LEFT, TOP))
        pen = ImageDraw.Draw(screen)
        pen.text((4, 4), thing.name if cropped else "", fill=255, font=ImageFont.load_default(14))
        pen.text((LEFT + 8, TOP + 8), thing.text, fill=255, font=ImageFont.load_default(14))
        frames.append(np.asarray(screen))
    pixels = np.stack(frames) if thing.num_frames > 1 else frames[0]
    set_pixel_data(made, pixels, "MONOCHROME2", 8, generate_instance_uid=False)
    if cropped:
        made.SequenceOfUltrasoundRegions = [view]


SR = "1.2.840.10008.5.1.4.1.1.88.11"
WHOLE_SCREEN = {"SequenceOfUltrasoundRegions": []}


@dataclass(frozen=True)
class Done:
    """What a command did, and all that it showed."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Hospital:
    """A folder with a site file, an export of `things` and a pathology list."""

    folder: Path
    things: tuple[Object, ...]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def staged(self) -> Path:
        return self.data / ".import"

    @property
    def of_export(self) -> tuple[object, ...]:
        """The arguments of an import of the export."""
        return "--dicom", self.folder / "export", "--labels", self.folder / "list.csv"


def make_hospital(folder: Path, things: tuple[Object, ...], rows: list[dict[str, object]]) -> Hospital:
    for thing in things:
        thing.write(folder / "export" / thing.name / thing.dates[1])
    write_list(folder / "list.csv", rows)
    write_site(folder)
    return Hospital(folder, things)


def found(thing: Object, label: str, **more: object) -> dict[str, object]:
    """A row of the list, by accession number."""
    return {"accession_number": thing.accession, "label": label} | more


THINGS = (
    still(1, 1, 1),
    still(1, 1, 2, text="ID 493022"),
    still(2, 1, 1),  # one nodule of a patient
    still(2, 2, 1),  # and another one
    clip(3, 1, 1, 9),
    clip(3, 1, 2, 9, FrameNumbersOfInterest=[4]),
    still(4, 1, 1),  # of which the list does not speak
    still(5, 1, 1, BurnedInAnnotation="YES", **WHOLE_SCREEN),
    Object(1, 1, 9, SR, "SR", num_frames=0),
    Object(1, 1, 10, CAPTURE, "OT"),
)
ROWS = [
    found(THINGS[0], "PTC"),
    found(THINGS[2], "benign", nodule="left"),
    found(THINGS[3], "FTC", nodule="right"),
    found(THINGS[4], "benign"),
    found(THINGS[7], "benign"),
    {"accession_number": "ACC99999999", "label": "MTC"},
]


def write_list(path: Path, rows: list[dict[str, object]]) -> Path:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_site(folder: Path, **changes: object) -> Path:
    """A site file for data in `folder`/data; its path."""
    facts = {"site": "centerA", "manifest": "data/manifest.csv", "images": "data/images", "state": "state"} | changes
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def leaks(things: Iterable[Object], folder: Path, *texts: str) -> list[str]:
    """The identifiers of `things` that are in a file below `folder`, in its name, or in one of `texts`, byte by byte."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    named = (str(path.relative_to(folder)).encode() + b"\n" + path.read_bytes() for path in files)
    blob = b"\n".join([*named, *(text.encode() for text in texts)])
    words = {word for thing in things for word in thing.identifiers}
    return sorted(word for word in words if word.encode() in blob or word.encode("utf-16-le") in blob)
