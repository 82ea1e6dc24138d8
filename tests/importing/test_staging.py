"""`client import`: what is half done stays out of the way, is taken up again, and comes into place when a person says so."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from client.importing.folder import Folder
from client.importing.pathology import read_pathology
from client.importing.run import Import, Options
from client.importing.staging import Staging
from csasn.data.withdrawals import Withdrawn
from csasn.platform.locks import take_lock
from csasn.trust.pseudonyms import load_pseudonyms
from import_scene import THINGS, Done, Hospital, leaks, make_hospital, read_table, still, write_site

CLIENT = [sys.executable, "-c", "from client.commands.cli import main; main()", "import", "--site", "centerA"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def import_until(hospital: Hospital, num_pictures: int) -> None:
    """An import that a Ctrl-C ends after some objects."""

    def bar(name: str):
        def advance(done: int, _: int) -> None:
            if name == "reading pictures" and done == num_pictures:
                raise KeyboardInterrupt

        return advance

    staging = Staging(hospital.data)
    work = Import(
        "centerA",
        Folder(hospital.folder / "export"),
        staging,
        load_pseudonyms(hospital.folder / "state/keys"),
        Options(),
        Withdrawn(),
    )
    with staging.locked(), pytest.raises(KeyboardInterrupt):
        work.run(read_pathology(hospital.folder / "list.csv"), bar)


def lines(hospital: Hospital) -> list[str]:
    return [json.loads(line)["work"] for line in (hospital.staged / "journal.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("num_pictures", [1, 4, 7])
def test_an_import_that_was_stopped_goes_on_to_the_same_bits_and_reads_nothing_twice(hospital, run, num_pictures):
    run(hospital, *hospital.of_export)
    undisturbed = contents(hospital.staged)
    run(hospital, "--discard")
    import_until(hospital, num_pictures)
    assert not (hospital.staged / "manifest.csv").exists()
    begun = lines(hospital)
    assert len(begun) == num_pictures
    assert leaks(hospital.things, hospital.data) == []
    stamps = {path: path.stat().st_mtime_ns for path in (hospital.staged / "images").iterdir()}
    assert run(hospital, *hospital.of_export).code == 0
    assert contents(hospital.staged) == undisturbed
    assert lines(hospital)[:num_pictures] == begun
    assert len(set(lines(hospital))) == len(lines(hospital)) == 7
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_folder_that_goes_away_ends_the_import_and_makes_no_half_data_set(hospital, run, monkeypatch):
    export, away = hospital.folder / "export", hospital.folder / "away"

    def unplugged(self, work, png, keep=Staging.keep_picture):
        keep(self, work, png)
        if export.exists():
            export.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "keep_picture", unplugged)
        done = run(hospital, *hospital.of_export)
    assert done.code == 9
    assert "can no longer be read: no such file or directory\nhint: is its disk or network share still there?" in done.err
    assert leaks(hospital.things, hospital.data, done.text) == []
    assert not (hospital.staged / "manifest.csv").exists()
    assert len(lines(hospital)) == 1
    away.rename(export)
    assert run(hospital, *hospital.of_export).code == 0
    assert len(read_table(hospital.staged / "manifest.csv")) == 7


def test_what_a_killed_import_left_half_written_is_removed(hospital, run):
    run(hospital, *hospital.of_export)
    undisturbed = contents(hospital.staged)
    some = min((hospital.staged / "images").iterdir())
    (hospital.staged / "images/.i0.png.0011223344556677.tmp").write_bytes(b"half")
    (hospital.staged / "images" / f"i{'0' * 24}.png").write_bytes(b"of no object")
    some.write_bytes(some.read_bytes()[:100])
    with (hospital.staged / "journal.jsonl").open("a") as file:
        file.write('{"work": "w00", "taken": [{"na')
    run(hospital, *hospital.of_export)
    again = contents(hospital.staged)
    del again["journal.jsonl"], undisturbed["journal.jsonl"]
    assert again == undisturbed


def test_approval_moves_the_data_set_into_place_and_nothing_else(hospital, run):
    run(hospital, *hospital.of_export)
    staged = contents(hospital.staged)
    done = run(hospital, "--approve")
    assert done.code == 0, done.err
    assert "next: client doctor --site centerA" in done.out
    assert not hospital.staged.exists()
    names = {"manifest.csv", "left-out.csv", *(name for name in staged if name.startswith("images/"))}
    assert contents(hospital.data) == {name: staged[name] for name in names}
    assert leaks(hospital.things, hospital.data, done.text) == []
    named = {row["image"] for row in read_table(hospital.data / "manifest.csv")}
    assert named == {path.name for path in (hospital.data / "images").iterdir()}


def test_an_approval_that_was_killed_is_finished_when_asked_for_again(hospital, run):
    run(hospital, *hospital.of_export)
    staged = contents(hospital.staged)
    os.rename(hospital.staged / "images", hospital.data / "images")  # as far as it came
    again = run(hospital, *hospital.of_export)
    assert again.code == 3
    assert "finish it with --approve" in again.err
    assert run(hospital, "--approve").code == 0
    assert contents(hospital.data)["manifest.csv"] == staged["manifest.csv"]
    assert not hospital.staged.exists()


def test_nothing_is_approved_that_is_not_ready(hospital, run):
    assert "waits for approval" in run(hospital, "--approve").err
    import_until(hospital, 3)
    refused = run(hospital, "--approve")
    assert (refused.code, (hospital.data / "images").exists()) == (3, False)
    run(hospital, *hospital.of_export)
    assert (hospital.staged / "manifest.csv").exists()
    import_until(hospital, 3)  # again, of which nobody has seen the contact sheets
    assert run(hospital, "--approve").code == 3


def test_a_data_set_in_place_is_never_replaced(hospital, run):
    run(hospital, *hospital.of_export)
    run(hospital, "--approve")
    before = contents(hospital.data)
    refused = run(hospital, *hospital.of_export)
    assert refused.code == 3
    assert "which an import does not replace" in refused.err
    assert {name: data for name, data in contents(hospital.data).items() if not name.startswith(".import")} == before


def test_one_import_at_a_time(hospital, run):
    hospital.staged.mkdir(parents=True)
    lock = take_lock(hospital.staged / "lock")
    assert lock is not None
    refused = run(hospital, *hospital.of_export)
    os.close(lock)
    assert "another import is at work" in refused.err
    assert run(hospital, *hospital.of_export).code == 0


def test_discarding_leaves_nothing(hospital, run):
    run(hospital, *hospital.of_export)
    assert run(hospital, "--discard").code == 0
    assert contents(hospital.data) == {}


def test_the_same_patient_has_the_same_name_in_every_import_of_a_site_and_no_other(hospital, run, tmp_path):
    run(hospital, *hospital.of_export)
    run(hospital, *hospital.of_export, "--out", tmp_path / "other")
    first, second = (read_table(path / "manifest.csv") for path in (hospital.staged, tmp_path / "other/.import"))
    assert first == second
    write_site(hospital.folder, state="elsewhere")
    run(hospital, *hospital.of_export, "--out", tmp_path / "third")
    third = read_table(tmp_path / "third/.import/manifest.csv")
    for column in ("case_id", "patient_id", "image"):
        assert not {row[column] for row in first} & {row[column] for row in third}


def test_the_key_is_made_once_and_is_its_owners_alone(hospital, run):
    run(hospital, *hospital.of_export)
    key = hospital.folder / "state/keys/import.key"
    before = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    run(hospital, *hospital.of_export)
    assert key.read_bytes() == before
    for secret in (before.strip(), bytes.fromhex(before.decode())):
        assert not [name for name, data in contents(hospital.data).items() if secret in data]
    key.chmod(0o640)
    assert run(hospital, *hospital.of_export).code == 11
    key.chmod(0o600)
    key.write_text("short\n")
    damaged = run(hospital, *hospital.of_export)
    assert damaged.code == 11
    assert "client restore" in damaged.err


def test_who_has_the_key_finds_what_stands_for_a_number(hospital, run, monkeypatch, tmp_path):
    run(hospital, *hospital.of_export)
    thing = THINGS[0]
    (tmp_path / "numbers").write_text(f"{thing.patient_number}\n\n {thing.accession} \n")
    with (tmp_path / "numbers").open() as numbers:
        monkeypatch.setattr("sys.stdin", numbers)
        head, of_patient, of_accession = run(hospital, "--pseudonyms").out.split()
    (row,) = [row for row in read_table(hospital.staged / "manifest.csv") if row["label"] == "PTC"]
    assert head == "patient_id,accession"
    assert of_patient.split(",")[0] == row["patient_id"]
    left = read_table(hospital.staged / "left-out.csv")
    assert of_accession.split(",")[1] in {row["accession"] for row in left}


def test_where_the_site_file_names_other_places_they_are_asked_for(hospital, run, tmp_path):
    write_site(hospital.folder, manifest="table.csv")
    refused = run(hospital, *hospital.of_export)
    assert (refused.code, "--out" in refused.err) == (3, True)
    run(hospital, *hospital.of_export, "--out", tmp_path / "set")
    done = run(hospital, "--approve", "--out", tmp_path / "set")
    assert "with the keys manifest and images" in done.out
    assert (tmp_path / "set/manifest.csv").exists()


def test_a_full_disk_is_said_without_naming_a_picture_and_the_import_goes_on_after_it(hospital, run):
    command = " ".join(map(repr, map(str, [*CLIENT, "--config", hospital.folder / "site.yaml", *hospital.of_export])))
    limited = ["bash", "-c", f"ulimit -f 8; exec {command}"]
    full = subprocess.run(limited, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert full.returncode == 9
    assert full.stderr.startswith("error: cannot write the pictures: file too large\nhint: free disk space")
    assert "the same command goes on where this one stopped" in full.stderr
    assert ".png" not in full.stderr
    assert not list(hospital.data.rglob("*.tmp"))
    assert run(hospital, *hospital.of_export).code == 0


def test_what_libraries_say_of_a_header_is_not_shown(tmp_path):
    odd = still(1, 1, 1, SeriesInstanceUID="1.2.0099.987654321", AccessionNumber="ACC1")
    hospital = make_hospital(tmp_path, (odd,), [{"accession_number": "ACC1", "label": "PTC"}])
    command = [*CLIENT, "--config", hospital.folder / "site.yaml", *hospital.of_export]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.warns(UserWarning, match=r"1\.2\.0099\.987654321"):  # what would have been shown
        pydicom.dcmread(next(hospital.folder.rglob("IM_*")))["SeriesInstanceUID"].value  # noqa: B018


def test_a_person_at_a_terminal_is_asked_and_nothing_but_yes_approves(hospital):
    command = [*CLIENT, "--config", str(hospital.folder / "site.yaml"), *map(str, hospital.of_export)]
    assert (answer(command, "no\n").code, (hospital.data / "manifest.csv").exists()) == (130, False)
    done = answer(command, "yes\n")
    assert done.code == 0
    assert (hospital.data / "manifest.csv").exists()
    assert leaks(hospital.things, hospital.data, done.out) == []


def answer(command: list[str], text: str) -> Done:
    """What `command` does at a terminal where `text` is typed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, text.encode())
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return Done(process.returncode, shown.decode(), "")


def test_a_stopped_import_says_that_it_can_go_on(hospital, run, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("client.importing.folder._identify", stopped)
    done = run(hospital, *hospital.of_export)
    assert (done.code, done.err) == (130, "error: stopped\nhint: the same command goes on where this one stopped\n")
