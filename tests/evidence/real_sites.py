"""Real ultrasound as federations: writes site folders and a study of ddti and of gallbladder, whose images stay where they are.

python tests/evidence/real_sites.py REAL OUT

REAL holds the folders `ddti` and `gallbladder` as they were published; OUT gets `ddti`, `ddti-binary`, `gallbladder` and
`shifted`. Patients are shared out by chance, so that no two sites have one. `shifted` is of fewer cases of gallbladder, and its
sites are unlike each other, in what they see and in how their pictures look: centerA as it is; centerB with half of its cases
positive, brighter and noisier; centerC with one in eight, blurred and of little contrast. Its images are written to OUT.
"""

import csv
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter

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


def write_site(
    out: Path, site: str, rows: Sequence[Mapping[str, str]], images: Path, labels: Mapping[str, str], splits: Sequence[str] = ()
) -> None:
    """A site's manifest, with the columns of `splits`, and its file."""
    (out / "sites").mkdir(parents=True, exist_ok=True)
    (out / site).mkdir(exist_ok=True)
    with (out / site / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case_id", "image", "label", "patient_id", *splits))
        for row in rows:
            shown = f"{row['case_id']}-{row['label']}", row["image"], row["label"], row["case_id"]
            writer.writerow((*shown, *(row[name] for name in splits)))
    facts = {"site": site, "manifest": f"../{site}/manifest.csv", "images": str(images), "state": f"../{site}/state"}
    (out / "sites" / f"{site}.yaml").write_text(yaml.safe_dump(facts | ({"labels": dict(labels)} if labels else {})))


SHIFTED = {"train": (0.4, 210), "validation": (0.1, 50), "test": (0.4, 400)}  # share of the patients, images at most
POSITIVE = {"centerA": 0.23, "centerB": 0.5, "centerC": 0.12}  # share of a site's images


def choose_shifted(rows: Rows, positive: float) -> Iterable[tuple[Mapping[str, str], str]]:
    """Rows of each split with `positive` of them positive, patients apart, in the order in which chance has these."""
    patients = sorted({row["case_id"] for row in rows})
    random.Random(7).shuffle(patients)
    start = 0.0
    for split, (share, most) in SHIFTED.items():
        chosen = patients[int(start * len(patients)) : int((start + share) * len(patients))]
        start += share
        found = [row for patient in chosen for row in rows if row["case_id"] == patient]
        ill = [row for row in found if row["label"] == "biliary_atresia"]
        well = [row for row in found if row["label"] != "biliary_atresia"]
        num = min(most, int(len(ill) / positive), int(len(well) / (1 - positive)))
        num_ill = round(num * positive)
        yield from ((row, split) for row in (*ill[:num_ill], *well[: num - num_ill]))


def shift(image: Image.Image, site: str, random: np.random.Generator) -> Image.Image:
    """The image as another scanner with other settings might show it."""
    x_HW = np.asarray(image.convert("L")) / 255
    if site == "centerB":
        x_HW = x_HW**0.6 * (1 + 0.15 * random.standard_normal(x_HW.shape))
    if site == "centerC":
        x_HW = 0.25 + 0.5 * gaussian_filter(x_HW, 1)
    return Image.fromarray((x_HW.clip(0, 1) * 255).round().astype(np.uint8))


def write_shifted(out: Path, sites: Mapping[str, Rows], images: Path) -> None:
    """Three unlike sites, with their images and splits."""
    for number, (site, rows) in enumerate(sites.items()):
        random = np.random.default_rng(number)
        (out / site / "images").mkdir(parents=True, exist_ok=True)
        kept = []
        for row, split in choose_shifted(rows, POSITIVE[site]):
            with Image.open(images / row["image"]) as image:
                shift(image, site, random).save(out / site / "images" / f"{len(kept)}.png")
            kept.append(dict(row) | {"image": f"{len(kept)}.png", "split": split})
        write_site(out, site, kept, out / site / "images", {}, ("split",))


def write_shifted_study(out: Path) -> None:
    """The default model, trained whole, small as the images are."""
    facts = {
        "name": "shifted", "classes": ["non_ba", "biliary_atresia"], "malignant": ["biliary_atresia"], "model": {"image_size": 64},
        "federation": {"sites": list(POSITIVE), "rounds": 8},
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))


def write_study(out: Path, classes: Sequence[str], malignant: Sequence[str], sites: Sequence[str], test: float) -> None:
    """The study of a folder: csasn-small with both branches frozen, twenty rounds."""
    facts = {
        "name": out.name, "classes": list(classes), "malignant": list(malignant), "model": MODEL, "augmentation": STILL,
        "federation": {"sites": list(sites), "rounds": 20}, "split": {"validation": 0.15, "test": test},
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "study.yaml").write_text(yaml.safe_dump(facts, sort_keys=False))


def write_studies(out: Path) -> None:
    """The studies of all four."""
    write_shifted_study(out / "shifted")
    write_study(out / "ddti", TI_RADS, TI_RADS[1:], FOUR, test=0.3)
    write_study(out / "ddti-binary", ("benign", "suspicious"), ("suspicious",), FOUR, test=0.3)
    write_study(out / "gallbladder", ("non_ba", "biliary_atresia"), ("biliary_atresia",), FOUR[:3], test=0.2)


def main(real: Path, out: Path) -> None:
    """Writes all four; the external centre of gallbladder is a site that is in no study."""
    write_studies(out)
    binary = {grade: "benign" if grade == "tr2_3" else "suspicious" for grade in TI_RADS}
    for site, rows in share_out(read_rows(real / "ddti"), FOUR).items():
        for name, labels in (("ddti", {}), ("ddti-binary", binary)):
            write_site(out / name, site, rows, real / "ddti" / "images", labels)
    sites = share_out(read_rows(real / "gallbladder" / "train"), FOUR[:3])
    for site, rows in sites.items():
        write_site(out / "gallbladder", site, rows, real / "gallbladder" / "train" / "images", {})
    write_shifted(out / "shifted", sites, real / "gallbladder" / "train" / "images")
    external = read_rows(real / "gallbladder" / "external")
    write_site(out / "gallbladder", "external", external, real / "gallbladder" / "external" / "images", {})


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:3]))
