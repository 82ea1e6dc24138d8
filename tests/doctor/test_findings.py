"""`client doctor` against a real front over real TLS: each planted fault is found, and its fix is named."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from client.doctor import checks_data, checks_machine, context, training_probe
from client.doctor.checks_data import DATA_CHECKS
from client.doctor.checks_machine import MACHINE_CHECKS
from client.doctor.checks_network import NETWORK_CHECKS
from client.doctor.doctor import CHECKS, first_failure
from client.doctor.training_probe import Measured
from csasn import __version__
from csasn.errors import StorageError
from csasn.platform.supervision import free_port
from csasn.privacy.contract import Contract
from csasn.trust.enrolment import read_request
from csasn.trust.identity import create_keys
from csasn.trust.membership import read_membership
from doctoring import assert_found, needing, run, running_front


def test_a_site_that_is_ready_is_green(hospital, quick):
    found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert len(found) == len(CHECKS)
    assert first_failure(list(found.values())) is None
    assert found["version"].lines() == [f"✓ version: {__version__}, as at the coordinator"]


def unknown_key(hospital):
    hospital.set(colour="blue")


def wrong_label(hospital):
    hospital.manifest.write_text(hospital.manifest.read_text().replace("FTC", "FTX", 1))


def unreadable_image(hospital):
    next(hospital.images.iterdir()).write_bytes(b"\x89PNG")


def leakage(hospital):
    records = hospital.context().records
    of_split = {
        split: next(row for row in records.manifest.rows if records.splits[row.case] == split) for split in ("train", "test")
    }
    shutil.copy(hospital.images / of_split["train"].image, hospital.images / of_split["test"].image)


def nearly_the_same(hospital):
    """Saved again a little brighter under another case of another class."""
    rows = hospital.context().manifest.rows
    other = next(row for row in rows if row.label != rows[0].label)
    pixels = np.asarray(Image.open(hospital.images / rows[0].image))
    Image.fromarray(pixels + 3).save(hospital.images / other.image)


def extra_column(hospital):
    header, *rows = hospital.manifest.read_text().splitlines()
    hospital.manifest.write_text("\n".join([f"{header},age", *(f"{row},50" for row in rows)]))


def too_few_cases(hospital):
    hospital.set(policy={"minimum_cases": 100})


def open_key(hospital):
    (hospital.state / "keys/identity.key").chmod(0o644)


def missing_key(hospital):
    (hospital.state / "keys/node.key").unlink()


def open_folder_of_keys(hospital):
    (hospital.state / "keys").chmod(0o755)


def changed_kit(hospital):
    study = hospital.state / "kit/study.yaml"
    study.write_text(study.read_text() + "\n")


def foreign_kit(hospital):
    shutil.rmtree(hospital.state / "kit")
    shutil.copytree(hospital.federation.path / "centerB/state/kit", hospital.state / "kit")


def another_authority(hospital):
    """The kit of another coordinator, of the same study at the same address."""
    path, address = hospital.federation.path, f"127.0.0.1:{hospital.federation.port}"
    other = str(hospital.path / "other")
    run("server", "init", path / "study.yaml", "--address", address, "--folder", other, "--passphrase-file", path / "passphrase")
    fingerprint = read_request(path / "centerA.request.json").enrolment.fingerprint
    run("server", "enroll", path / "centerA.request.json", "--folder", other, "--fingerprint", fingerprint)
    run("client", "install", "--site", "centerA", "--config", hospital.site_file, f"{other}/kits/centerA.kit.zip", "--replace")


def new_keys(hospital):
    shutil.rmtree(hospital.state / "keys")
    create_keys(hospital.state / "keys")


def slow_clock(hospital):
    hospital.federation.say({"ahead_s": 600})


def somewhat_fast_clock(hospital):
    hospital.federation.say({"ahead_s": -60})


def unknown_name(hospital):
    hospital.set(coordinator="nowhere.invalid:443")


def closed_port(hospital):
    hospital.set(coordinator=f"127.0.0.1:{free_port()}")


def other_version(hospital):
    hospital.federation.say({"software_version": "9.9.9"})


def other_study(hospital):
    hospital.federation.say({"study_hash": "f" * 64})


def not_approved(hospital):
    (hospital.state / "kit/approval.json").unlink()


def others_have_not_approved(hospital):
    hospital.federation.say({"approvals": []})


def approved_something_else(hospital):
    membership = json.loads((hospital.state / "kit/membership.json").read_text())
    membership["members"][1]["weight_units"] += 1
    membership["members"][2]["weight_units"] -= 1
    hospital.federation.say({"membership": membership})


def nobody_enrolled(hospital):
    hospital.federation.say({"membership": None})


def small_budget(hospital):
    hospital.set(policy={"upload_budget_mib": 0.5})


def secrecy_required(hospital):
    hospital.set(policy={"require_secure_aggregation": True})


def other_hours(hospital):
    now = datetime.now()
    hours = [(now + timedelta(hours=ahead)).strftime("%H:%M") for ahead in (2, 4)]
    hospital.set(policy={"training_hours": "-".join(hours)})


def burned_in_text(hospital):
    file = sorted(hospital.images.iterdir())[0]
    page = Image.fromarray(np.random.default_rng(9).normal(70, 8, (80, 100)).clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(page).text((10, 10), "NAME 1961", fill=230, font=ImageFont.load_default(14))
    page.save(file)


FAULTS = [  # what is planted, the check that finds it, how it ends, and words of the message and of the fix
    (unknown_key, "configuration", 3, "colour is not a known key", "correct centerA.yaml"),
    (wrong_label, "labels", 4, "column label: is not a class of the study, expected one of benign, PTC, FTC", "correct it"),
    (unreadable_image, "images", 4, "manifest.csv row", "save it as PNG, JPEG or uncompressed DICOM"),
    (leakage, "splits", 4, "shows the same picture as row", "remove one of them"),
    (nearly_the_same, "likeness", 0, "show nearly the same picture: two cases, ", "look at both"),
    (extra_column, "labels", 0, "columns that are not known are left out: 4", "see whether this is meant"),
    (too_few_cases, "cases", 4, "12 labelled training cases, expected at least 100", "minimum_cases in the site file"),
    (burned_in_text, "burned-in text", 0, "row 2 shows suspected burned-in text", "crop or mask"),
    (open_key, "keys", 11, "has mode 0644", "chmod 600"),
    (missing_key, "keys", 11, "node.key: no such file", "client keygen"),
    (open_folder_of_keys, "keys", 0, "others may enter", "chmod 700"),
    (small_budget, "upload budget", 3, "upload_budget_mib is 0.5, an answer has 1.2", "set upload_budget_mib to 2"),
    (secrecy_required, "secrecy", 3, "secure_aggregation is false in the study", "ask for a study with secure aggregation"),
    (other_hours, "training hours", 0, "which is not now", "policy.training_hours"),
    (changed_kit, "kit", 11, "study.yaml of the kit is missing, or not as", "client install"),
    (foreign_kit, "kit", 11, "the kit is of centerB, expected centerA", "client install"),
    (another_authority, "connection", 11, "is not of this study's authority", "does a proxy open TLS"),
    (unknown_name, "connection", 12, "the name in nowhere.invalid:443 cannot be resolved", "DNS"),
    (closed_port, "connection", 12, "cannot be reached directly", "outbound TCP to that port"),
    (new_keys, "enrolment", 11, "the coordinator does not know the key of centerA: is it enrolled?", "client enroll"),
    (slow_clock, "clock", 11, "s behind the coordinator's", "NTP"),
    (somewhat_fast_clock, "clock", 0, "s ahead of the coordinator's", "NTP"),
    (other_study, "study", 11, "the coordinator runs study ffffffffffff, the kit is of", "new kit"),
    (other_version, "version", 7, f"runs version 9.9.9, here is {__version__}", "install version 9.9.9"),
    (not_approved, "approvals", 0, "centerA has not approved yet", "next: client approve --site centerA"),
    (approved_something_else, "approvals", 11, "this site approved", "client approve --site centerA"),
    (others_have_not_approved, "approvals", 0, "centerB, centerC did not yet", "they run client approve"),
    (nobody_enrolled, "approvals", 0, "no membership is proposed yet", "every site has enrolled"),
]


@pytest.mark.parametrize(("plant", "check", "code", "says", "fix"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_planted_fault_is_found_with_its_fix_and_hides_nothing_else(hospital, quick, plant, check, code, says, fix):
    plant(hospital)
    assert_found(hospital.examine(), check, code, says, fix)


def test_patients_are_counted_and_how_the_sheet_was_read_is_said(hospital, quick):
    header, *rows = hospital.manifest.read_text().splitlines()
    patients = [f"{row},P{int(row[1:4]) // 2}" for row in rows]
    hospital.manifest.write_text("\n".join([f"{header},patient_id", *patients]).replace(",", ";"))
    found = hospital.examine()
    assert {name for name, result in found.items() if result.finding.status != "ok"} == set()
    assert found["labels"].finding.message == "27 rows of 18 cases of 9 patients in manifest.csv; cells are separated by semicolons"
    assert found["cases"].finding.message.endswith("asks for 1 patients")
    assert found["likeness"].finding.message == "no two patients with nearly the same picture"


def test_the_pairs_that_are_nearly_the_same_are_listed_up_to_ten(hospital, quick):
    names = [row.image for row in hospital.context().manifest.rows][:8]
    pixels = np.asarray(Image.open(hospital.images / names[0]))
    for number, name in enumerate(names):
        Image.fromarray(pixels + number).save(hospital.images / name)
    message = hospital.examine()["likeness"].finding.message.split("; ")
    assert len(message) == 11
    assert message[-1].startswith("and ")
    assert "two cases" in message[0]


def test_an_expired_certificate_of_the_server_is_found(hospital, quick):
    port = free_port()
    hospital.set(coordinator=f"127.0.0.1:{port}")
    with running_front(hospital.federation.folder, port, hospital.federation.expired_certificate()):
        assert_found(hospital.examine(), "connection", 11, "is expired", "the coordinator runs server renew")


def test_a_disk_that_is_nearly_full_is_found(hospital, quick, monkeypatch):
    monkeypatch.setattr("csasn.platform.storage.shutil.disk_usage", lambda folder: SimpleNamespace(free=4 << 20))
    assert_found(hospital.examine(), "disk", 9, "4 MiB free for the state folder", "free disk space")


def test_out_of_memory_names_the_micro_batch_that_fits(hospital, quick, monkeypatch):
    monkeypatch.setattr(context, "measure_training", training_probe.measure_training)
    fits = {2: Measured("H100", 1.0, 1 << 30, 2)}
    monkeypatch.setattr(training_probe, "take_step", lambda site, study, micro_batch: fits.get(micro_batch))
    says = "out of memory on H100 with 8 images at a time, 2 fit"
    found = hospital.examine()
    assert_found(found, "training step", 6, says, "micro_batch: 2 in the site file gives the same gradient")
    fits.clear()
    assert_found(hospital.examine(), "training step", 6, "out of memory with a single image", "too small for the study's model")


def test_a_machine_too_slow_for_the_deadline_is_found(hospital, quick, monkeypatch):
    monkeypatch.setattr(context, "measure_training", lambda site, study, wanted: Measured("CPU", 40.0, 1 << 30, wanted))
    assert_found(hospital.examine(), "round", 6, "2 steps 80 s", "answer_deadline_s")


def test_a_fault_of_the_program_in_one_check_hides_no_other_and_shows_no_foreign_text(hospital, quick, monkeypatch):
    monkeypatch.setattr(checks_machine, "read_public_keys", lambda folder: int("Mustermann"))
    assert_found(hospital.examine(), "keys", 1, "unexpected ValueError", "report it")


def test_doctor_by_another_user_than_the_services_is_told_so(hospital, quick, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "", "Mustermann")

    monkeypatch.setattr(checks_machine, "read_public_keys", refuse)
    assert_found(hospital.examine(), "keys", 9, "permission denied to user", "run it as the service's own user")


def test_another_study_than_the_kits_is_found(hospital, quick):
    other = hospital.path / "other.yaml"
    other.write_text((hospital.federation.path / "study.yaml").read_text() + "seed: 2\n")
    assert_found(hospital.examine(other), "kit", 11, "the study file is", "leave --study away")


def test_before_there_is_a_kit_all_but_the_network_is_checked(hospital, quick):
    shutil.rmtree(hospital.state)
    found = hospital.examine(hospital.federation.path / "study.yaml")
    skipped = {
        name: (result.finding.message, result.finding.fix) for name, result in found.items() if result.finding.status != "ok"
    }
    assert set(skipped) == {"keys", "kit"} | needing("kit")
    assert "client keygen --site centerA" in skipped.pop("keys")[1]
    assert {message for message, _ in skipped.values()} == {"no kit yet"}
    assert all("client install --site centerA" in fix for _, fix in skipped.values())
    assert found["clock"].lines() == ["- clock: no kit yet; client install --site centerA KIT"]


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("data", {check.name for check in DATA_CHECKS}),
        ("machine", {"configuration", "state folder", "labels", *(check.name for check in MACHINE_CHECKS)}),
        ("network", {"configuration", "state folder", "keys", "secrecy", *(check.name for check in NETWORK_CHECKS)}),
    ],
)
def test_one_group_is_checked_with_what_it_needs_and_nothing_else(hospital, quick, capsys, group, names):
    run("client", "doctor", "--site", "centerA", "--config", str(hospital.site_file), "--json", "--only", group)
    found = json.loads(capsys.readouterr().out)
    assert {one["check"] for one in found} == names
    assert {one["status"] for one in found} == {"ok"}


def test_a_question_of_the_network_reads_no_image_and_takes_no_step(hospital, quick, monkeypatch):
    monkeypatch.setattr(context, "measure_training", None)
    monkeypatch.setattr(context, "load_records", None)
    run("client", "doctor", "--site", "centerA", "--config", str(hospital.site_file), "--only", "network")


def test_what_failed_is_told_once(hospital, quick, capsys):
    unknown_key(hospital)
    run("client", "doctor", "--site", "centerA", "--config", str(hospital.site_file), code=3)
    said = capsys.readouterr()
    assert (said.out + said.err).count("is not a known key") == 1
    assert said.err.startswith("error: configuration failed\n")


def test_what_waits_for_a_mend_is_one_line_and_json_says_it_of_each_check(hospital, quick, capsys):
    unknown_key(hospital)
    run("client", "doctor", "--site", "centerA", "--config", str(hospital.site_file), code=3)
    lines = capsys.readouterr().out.splitlines()
    waiting = [check.name for check in CHECKS if check.name in needing("configuration")]
    assert lines[-1] == f"- not before configuration is in order: {', '.join(waiting)}"
    assert len(lines) <= 3
    run("client", "doctor", "--site", "centerA", "--config", str(hospital.site_file), "--json", code=3)
    assert [found["check"] for found in json.loads(capsys.readouterr().out)] == [check.name for check in CHECKS]


def test_without_a_kit_the_study_has_to_be_named(hospital, quick):
    shutil.rmtree(hospital.state)
    assert_found(hospital.examine(), "configuration", 3, "which study?", "--study FILE")


def test_sizes_of_a_round_are_those_of_its_messages(hospital):
    from csasn.federated.messages import Kind
    from csasn.model.network import build_network

    one = hospital.context()
    membership = read_membership(hospital.state / "kit/membership.json")
    assert one.contract.state == Contract.of(one.study, membership, build_network(one.study)).state
    values = one.contract.state.num_shared
    assert one.upload_bytes(1) == 2 * values + 8 * one.contract.counts[Kind.TRAIN].size
    assert (one.download_bytes(1), one.download_bytes(2)) == (4 * one.contract.state.size, 2 * values)


def test_help_names_what_is_written_and_loads_nothing_heavy(capsys):
    run("client", "doctor", "--help")
    said = capsys.readouterr().out
    assert "fingerprint.json and fingerprint.png" in said
    assert "exit codes" in said
    program = (
        "import sys, client.commands.cli; sys.exit(bool({'torch', 'cryptography', 'pydantic', 'httpx', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="another account is taken on by root alone")
@pytest.mark.parametrize("there", [True, False])
def test_a_state_folder_of_another_user_is_one_line_that_says_whose_it_is(there):
    place = Path(tempfile.mkdtemp())
    state = place / ("closed" if there else "closed/centerA")
    (place / "closed").mkdir(mode=0o755)
    place.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StorageError) as caught:
            checks_data.check_state(SimpleNamespace(site=SimpleNamespace(state=str(state))))
    finally:
        os.seteuid(0)
        shutil.rmtree(place)
    assert caught.value.message == f"{state} is not for user nobody: {place}/closed is of root, mode 0755"
    mend = f"chown -R nobody {state}" if there else f"install -d -o nobody -m 0700 {state}"
    assert caught.value.hint.endswith(f"or as root: {mend}")


def test_without_a_state_folder_nothing_that_needs_it_is_tried(hospital, quick):
    (hospital.path / "file").write_text("")
    hospital.set(state=str(hospital.path / "file/state"))
    found = hospital.examine(hospital.federation.path / "study.yaml")
    assert found["state folder"].finding.status == "failed"
    assert {"cases", "images", "keys", "disk", "kit"} <= {name for name, result in found.items() if result.waits_for}
    assert found["labels"].finding.status == "ok"
