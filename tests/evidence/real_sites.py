"""Real ultrasound as federations: writes site folders and a study of ddti and of gallbladder, whose images stay where they are.

python tests/evidence/real_sites.py REAL OUT

REAL holds the folders `ddti` and `gallbladder` as they were published; OUT gets `ddti`, `ddti-binary`
and `gallbladder`. Patients are
shared out by chance, so that no two sites have one.
"""

import csv
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

FOUR = tuple(f"center{letter}" for letter in "ABCD")
TI_RADS = ("tr2_3", "tr4a", "tr4b", "tr4c_5")
Rows = Sequence[Mapping[str, str]]
MODEL = {"profile": "csasn-small", "image_size": 112, "frozen": ["efficientnet", "vit"]}
STILL = {"flip": False, "shift": 0, "scale": 0, "rotation_deg": 0, "contrast": 0, "brightness": 0}


def read_rows(folder: Path) -> Rows:
    """The rows of a published manifest; its case is the patient, who may have images of several labels."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def share_out(rows: Rows, sites: Sequence[str]) -> dict[str, Rows]:
    """The rows of each site, a patient's all at one."""
    patients = sorted({row["case_id"] for row in rows})
    random.Random(0).shuffle(patients)
    place = {patient: sites[number % len(sites)] for number, patient in enumerate(patients)}
    return {site: [row for row in rows if place[row["case_id"]] == site] for site in sites}


def write_site(out: Path, site: str, rows: Iterable[Mapping[str, str]], images: Path, labels: Mapping[str, str]) -> None:
    """A site's manifest and its file."""
    (out / "sites").mkdir(parents=True, exist_ok=True)
    (out / site).mkdir(exist_ok=True)
    with (out / site / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case_id", "image", "label", "patient_id"))
        writer.writerows((f"{row['case_id']}-{row['label']}", row["image"], row["label"], row["case_id"]) for row in rows)
    facts = {"site": site, "manifest": f"../{site}/manifest.csv", "images": str(images), "state": f"../{site}/state"}
    (out / "sites" / f"{site}.yaml").write_text(yaml.safe_dump(facts | ({"labels": dict(labels)} if labels else {})))


def write_study(out: Path, classes: Sequence[str], malignant: Sequence[str], sites: Sequence[str], test: float) -> None:
    """The study of a folder: csasn-small with both branches frozen, twenty rounds."""
    facts = {
        "name": out.name, "classes": list(classes), "malignant": list(malignant), "model": MODEL, "augmentation": STILL,
        "federation": {"sites": list(sites), "rounds": 20}, "split": {"validation": 0.15, "test": test},
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))


def write_studies(out: Path) -> None:
    """The studies of all three."""
    write_study(out / "ddti", TI_RADS, TI_RADS[1:], FOUR, test=0.3)
    write_study(out / "ddti-binary", ("benign", "suspicious"), ("suspicious",), FOUR, test=0.3)
    write_study(out / "gallbladder", ("non_ba", "biliary_atresia"), ("biliary_atresia",), FOUR[:3], test=0.2)


def main(real: Path, out: Path) -> None:
    """Writes all three; the external centre of gallbladder is a site that is in no study."""
    write_studies(out)
    binary = {grade: "benign" if grade == "tr2_3" else "suspicious" for grade in TI_RADS}
    for site, rows in share_out(read_rows(real / "ddti"), FOUR).items():
        for name, labels in (("ddti", {}), ("ddti-binary", binary)):
            write_site(out / name, site, rows, real / "ddti" / "images", labels)
    sites = share_out(read_rows(real / "gallbladder" / "train"), FOUR[:3])
    for site, rows in sites.items():
        write_site(out / "gallbladder", site, rows, real / "gallbladder" / "train" / "images", {})
    external = read_rows(real / "gallbladder" / "external")
    write_site(out / "gallbladder", "external", external, real / "gallbladder" / "external" / "images", {})


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:3]))
