"""`client import --dicomweb` from a real archive: 200 objects of 60 patients, killed and interrupted on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.importing.joining import NO_STUDY
from client.importing.pictures import TEXT
from dicom_objects import CAPTURE
from e2e.orthanc import NAME, PASSWORD, Orthanc
from import_scene import SR, Object, clip, found, leaks, picture_of, read_table, still, write_list, write_site

pytestmark = pytest.mark.slow
CLIENT = [sys.executable, "-c", "from client.commands.cli import main; main()", "import", "--site", "centerA"]
NUM_PATIENTS, UNLISTED = 60, (58, 59, 60)
LABELS = ("benign", "PTC", "FTC")


def make_things() -> list[Object]:
    things = [still(patient, 1, number) for patient in range(1, NUM_PATIENTS + 1) for number in (1, 2)]
    things += [still(1, 2, number) for number in (1, 2, 3)]  # the other nodule of a patient
    things += [clip(patient, 1, 3, 5) for patient in range(2, 22)]
    things += [clip(patient, 1, 3, 5, FrameNumbersOfInterest=[4]) for patient in range(22, 32)]
    things += [still(patient, 1, 4, text="Erika 17.03.61") for patient in range(32, 37)]
    things += [Object(patient, 1, 5, SR, "SR", num_frames=0) for patient in range(1, 31)]
    things += [Object(patient, 1, 6, CAPTURE, "OT") for patient in range(1, 13)]
    return things


THINGS = make_things()


def make_rows() -> list[dict[str, object]]:
    listed = {thing.accession: thing for thing in THINGS if thing.patient not in UNLISTED and thing.patient > 1}
    rows = [found(thing, LABELS[thing.patient % 3]) for thing in listed.values()]
    rows += [found(still(1, 1, 1), "PTC", nodule="upper"), found(still(1, 2, 1), "benign", nodule="lower")]
    by_patient = rows[10]  # one that names the patient alone
    rows[10] = {
        "patient_number": next(t for t in THINGS if t.accession == by_patient["accession_number"]).patient_number,
        "label": "FTC",
    }
    return [*rows, {"accession_number": "ACC99999999", "label": "PTC"}]


class Site:
    """A hospital that imports from the archive, in processes of its own."""

    def __init__(self, folder: Path, archive: Orthanc) -> None:
        self.folder, self.archive = folder, archive
        self.shown = ""
        write_list(folder / "list.csv", make_rows())
        write_site(folder / "site")
        self.login(f"{NAME}:{PASSWORD}")

    @property
    def staged(self) -> Path:
        return self.folder / "site/data/.import"

    def login(self, text: str) -> None:
        (self.folder / "login").write_text(text + "\n", encoding="utf-8")
        (self.folder / "login").chmod(0o600)

    def command(self, *more: object) -> list[str]:
        source = ("--dicomweb", self.archive.url, "--ca", self.archive.ca, "--login", self.folder / "login")
        return [
            *CLIENT,
            "--config",
            *map(str, (self.folder / "site/site.yaml", *source, "--labels", self.folder / "list.csv", *more)),
        ]

    def run(self, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | more
        how = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 240}
        done = subprocess.run(command, check=False, env=environment, **how)
        self.shown += done.stdout + done.stderr
        return done

    def stop_after(self, num_objects: int, how: signal.Signals) -> int:
        """Begins the import and ends it so; its exit code."""
        process = subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )
        journal = self.staged / "journal.jsonl"
        for _ in range(2400):
            if journal.exists() and len(journal.read_bytes().splitlines()) >= num_objects:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(how)
        self.shown += process.communicate(timeout=60)[0]
        return process.returncode


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orthanc")
    archive = Orthanc(folder)
    archive.store(THINGS, tmp_path_factory.mktemp("objects"))
    yield archive
    archive.close()


@pytest.fixture
def site(archive, tmp_path):
    return Site(tmp_path, archive)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_import_that_is_killed_and_interrupted_goes_on_to_the_same_bits_without_identifiers(site, archive):
    assert (len(THINGS), len({thing.patient for thing in THINGS})) == (200, 60)
    assert site.stop_after(40, signal.SIGKILL) == -signal.SIGKILL
    assert site.stop_after(90, signal.SIGINT) == 130
    assert "the same command goes on where this one stopped" in site.shown
    done = site.run(site.command())
    assert done.returncode == 0, done.stderr

    pictures = {thing.uid for thing in THINGS if thing.modality == "US"}
    fetched = Counter(uid for uid in archive.fetched() if uid in pictures)
    assert len(fetched) == sum(thing.modality == "US" and thing.patient not in UNLISTED for thing in THINGS)
    assert sum(fetched.values()) - len(fetched) <= 2  # that which it was at, each time

    resumed = contents(site.staged)
    undisturbed = site.run(site.command("--out", site.folder / "again"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert contents(site.folder / "again/.import") == resumed
    assert leaks(THINGS, site.folder / "again", site.shown) == []
    assert leaks(THINGS, site.folder / "site", site.shown) == []

    rows = read_table(site.staged / "manifest.csv")
    counts = Counter(row["patient_id"] for row in rows)
    cases = {row["case_id"]: row["patient_id"] for row in rows}
    assert (len(counts), len(cases)) == (57, 58)
    (pair,) = [patient for patient, number in Counter(cases.values()).items() if number == 2]
    assert Counter(row["label"] for row in rows if row["patient_id"] == pair) == {"PTC": 2, "benign": 3}
    left = read_table(site.staged / "left-out.csv")
    assert sum(int(row["number"]) for row in left if row["reason"] == TEXT) == 5
    assert [row["rows_of_list"] for row in left if row["reason"] == NO_STUDY] == ["60"]

    assert site.run([*CLIENT, "--config", str(site.folder / "site/site.yaml"), "--approve"]).returncode == 0
    data = site.folder / "site/data"
    taken = [np.asarray(Image.open(path)).tobytes() for path in (data / "images").iterdir()]
    wanted = [picture_of(t, f).tobytes() for t in THINGS for f in frames(t) if t.modality == "US" and t.patient not in UNLISTED]
    assert sorted(taken) == sorted(wanted)
    assert leaks(THINGS, data, site.shown) == []


def frames(thing: Object) -> tuple[int, ...]:
    if thing.text:
        return ()
    if thing.num_frames == 5:
        return (4,) if thing.elements else (1, 3, 5)
    return (1,)


def test_what_is_wrong_with_the_way_to_the_archive_is_said_with_what_to_do(site, archive):
    site.login(f"{NAME}:wrong")
    refused = site.run(site.command())
    assert (refused.returncode, "refuses the login (401)\nhint: see --login" in refused.stderr) == (11, True)
    site.login(f"{NAME}:{PASSWORD}")
    command = site.command()
    nobody = site.run([word for word in command if word not in ("--ca", str(archive.ca))])
    assert nobody.returncode == 11
    assert "is of an authority that is not known here\nhint: give --ca" in nobody.stderr
    other = site.run([word.replace("127.0.0.1", "localhost") for word in command])
    assert (other.returncode, "is of another name" in other.stderr) == (11, True)
    elsewhere = site.run([word.replace("/dicom-web", "/dicomweb") for word in command])
    assert (elsewhere.returncode, "has no DICOMweb at this address (404)" in elsewhere.stderr) == (3, True)
    (site.folder / "login").chmod(0o640)
    assert site.run(command).returncode == 11
    assert PASSWORD not in site.shown
    assert not re.search(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+", site.shown)


def test_the_login_may_be_in_the_environment_and_shows_in_no_list_of_processes(site):
    write_list(site.folder / "list.csv", make_rows()[:3])
    command = [word for word in site.command() if word not in ("--login", str(site.folder / "login"))]
    done = site.run(command, CSASN_ARCHIVE_LOGIN=f"{NAME}:{PASSWORD}")
    assert done.returncode == 0, done.stderr
    assert not any(PASSWORD in word for word in command)
