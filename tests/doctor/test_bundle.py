"""The bundle for support holds what helps, and names nobody."""

import json
import stat
import zipfile
from pathlib import Path

import pytest
import yaml

from client.doctor.bundle import Scrubber, cut_paths, gather, write_bundle
from client.doctor.doctor import CHECKS, examine
from csasn.data.manifest import Manifest, Row
from csasn.errors import StorageError
from csasn.site import Site
from doctoring import run


def bundle_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def write_logs(hospital):
    """A log of lines that may leave, and of lines that name a case, an image, a folder or a key; what none may show."""
    key = (hospital.state / "keys/identity.key").read_text()
    patient = ["case C003 was read", "opened 003-1.png", "opened 005-1", f"in {hospital.images}/x", f"in {Path.home()}/x", "A" * 80]
    logs = hospital.state / "logs"
    logs.mkdir()
    lines = ["SuperNode ended (exit code 1)", *patient, *key.splitlines(), "wrote /var/lib/csasn/state/run/answer"]
    (logs / "worker.log").write_text("\n".join(lines) + "\n")
    return [*patient, key.splitlines()[1], str(hospital.path), "c003", "003-1"]


def test_the_command_takes_a_real_step_and_its_bundle_names_nobody(hospital, monkeypatch, capsys):
    private = [*write_logs(hospital), "own word"]
    hospital.set(policy={"upload_budget_mib": 0.5}, labels={"own word": "FTC"})
    monkeypatch.chdir(hospital.path)
    run("client", "doctor", "--site", "centerA", "--json", "--bundle", "help.zip", code=3)
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [line["check"] for line in found] == [check.name for check in CHECKS]
    assert all(set(line) == {"check", "status", "message", "fix"} for line in found)
    step = next(line for line in found if line["check"] == "training step")
    assert step["status"] == "ok"
    assert "a step of 8 images of csasn-test takes" in step["message"]
    assert "error: upload budget failed\n" in said.err
    assert said.err.index("help.zip holds") < said.err.index("logs/worker.log") < said.err.index("error:")
    path = hospital.path / "help.zip"
    files = bundle_of(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(files) == {"doctor.json", "packages.txt", "site.yaml", "logs/worker.log"}
    assert [name for name in private for text in files.values() if name.lower() in text.lower()] == []
    lines = files["logs/worker.log"].splitlines()
    assert lines[0] == "SuperNode ended (exit code 1)"
    assert lines[-2:] == ["wrote answer", "(9 lines left out)"]
    assert [line["status"] for line in json.loads(files["doctor.json"])] == [line["status"] for line in found]
    assert yaml.safe_load(files["site.yaml"])["manifest"] == "manifest.csv"
    assert yaml.safe_load(files["site.yaml"])["labels"] == {"word 1": "FTC"}
    assert any(line.startswith("flwr==") for line in files["packages.txt"].splitlines())
    with pytest.raises(StorageError, match="exists already"):
        write_bundle(path, {}, print)


def test_a_bundle_without_a_manifest_to_compare_with_has_neither_logs_nor_texts(hospital, quick):
    write_logs(hospital)
    hospital.manifest.write_text(hospital.manifest.read_text().replace("FTC", "FTX", 1))
    one = hospital.context()
    files = gather([result.facts() for result in examine(one, lambda _: None)], one.site, None)
    assert set(files) == {"doctor.json", "packages.txt", "site.yaml"}
    assert set(json.loads(files["doctor.json"])[0]) == {"check", "status"}


def test_short_case_ids_count_where_they_stand_alone():
    row = Row(2, "7", "7.png", None, 0, "", {}, patient="P5")
    manifest = Manifest((row,), {"7": 0}, {"7": ""}, {"7": "P5"}, has_patients=True)
    scrubber = Scrubber(Site(site="a", manifest="/m", images="/pictures", state="/s"), manifest)
    lines = {"row of case 7 read": False, "ended with code 17": True, "read 7.png": False, "in /pictures/x": False, "of p5": False}
    assert {line: scrubber.is_clean(line) for line in lines} == lines


def test_paths_are_cut_down_to_their_last_name():
    assert cut_paths("cannot read '/srv/a b/key': no") == "cannot read 'a b/key': no"
    assert (
        cut_paths("chmod 600 /srv/keys/node.key; see https://host.example/a/b")
        == "chmod 600 node.key; see https://host.example/a/b"
    )
