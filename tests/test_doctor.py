"""`client doctor` against a real front over real TLS: each planted fault is found, and its fix is named."""

import json
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from PIL import Image, ImageDraw, ImageFont

import client.cli
import server.cli
from client import checks_data, checks_machine, link_speed, situation, training_probe
from client.bundle import Scrubber, cut_paths, gather, write_bundle
from client.doctor import CHECKS, examine, first_failure
from client.link_speed import FIRST_BYTES, MOST_BYTES, measure_rate
from client.situation import Situation
from client.training_probe import Measured
from csasn import __version__
from csasn.certificates import load_authority
from csasn.contract import Contract
from csasn.data.manifest import Manifest, Row
from csasn.enrolment import read_request
from csasn.errors import ConfigurationError, StorageError
from csasn.membership import read_membership
from csasn.site import Site

SITES = ("centerA", "centerB", "centerC")
PASSPHRASE = "correct horse battery"
FRONT = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from csasn.command import run_command
from server.desk import Desk
from server.enrolment import Enrolments
from server.front import FrontSettings, run_front
folder, port, certificate = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
desk = Desk(Enrolments.open(folder))
def facts(said):
    changes = json.loads((folder / "changes.json").read_text())
    clock = datetime.now(UTC) + timedelta(seconds=changes.pop("ahead_s", 0))
    return desk.exchange(said) | {"time": clock.isoformat()} | changes
settings = FrontSettings("127.0.0.1", port, 1, certificate, folder / "keys/server.key")
sys.exit(run_command(lambda: run_front(settings, facts, bool)))
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def running_front(folder, port, certificate):
    with (folder / "front.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-P", "-c", FRONT, folder, str(port), certificate], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        assert process.poll() is None, (folder / "front.log").read_text()
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def run(*arguments, code=0):
    command, *rest = map(str, arguments)
    main = {"client": client.cli, "server": server.cli}[command].main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [command, *rest])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == code


class Federation:
    """A coordinator behind a real front, and three hospitals that approved; tests take copies of the first one."""

    def __init__(self, path, port):
        self.path, self.port, self.folder = path, port, path / "coordinator"
        self.say({})

    def say(self, changes):
        """What the front's facts say instead of the truth."""
        (self.folder / "changes.json").write_text(json.dumps(changes))

    def expired_certificate(self):
        """The server's certificate, as it would look a day after its end."""
        keys = self.folder / "keys"
        authority = load_authority((keys / "ca.key").read_bytes(), (keys / "ca.crt").read_bytes(), PASSPHRASE)
        old = x509.load_pem_x509_certificate((keys / "server.crt").read_bytes())
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=30)).not_valid_after(now - timedelta(days=1))
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        path = self.folder / "expired.crt"
        path.write_bytes(builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM))
        return path


@pytest.fixture(scope="module")
def federation(tmp_path_factory, write_small_hospitals):
    path, port = tmp_path_factory.mktemp("doctor") / "h", free_port()
    write_small_hospitals(path)
    for number, file in enumerate(sorted((path / "centerA/images").iterdir())):
        Image.fromarray(picture(number)).save(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        (path / "passphrase").write_text(PASSPHRASE + "\n")
        run("server", "init", "study.yaml", "--address", f"127.0.0.1:{port}", "--passphrase-file", "passphrase")
        for site in SITES:
            run("client", "keygen", "--site", site)
            run("client", "enroll", "--site", site, "--study", "study.yaml")
            fingerprint = read_request(path / f"{site}.request.json").enrolment.fingerprint
            run("server", "enroll", f"{site}.request.json", "--fingerprint", fingerprint)
            run("client", "install", "--site", site, f"coordinator/kits/{site}.kit.zip")
        membership = read_membership(path / "coordinator/membership.json")
        for site in SITES:
            run("client", "approve", "--site", site, "--membership", "coordinator/membership.json",
                "--yes", membership.membership_hash[:12])  # fmt: skip
    found = Federation(path, port)
    for site in SITES:
        approvals = found.folder / "approvals"
        approvals.mkdir(exist_ok=True)
        shutil.copy(path / site / "state/kit/approval.json", approvals / f"{site}.json")
    with running_front(found.folder, port, found.folder / "keys/server.crt"):
        yield found


def picture(seed):
    """Tissue without a mark."""
    return np.random.default_rng(seed).normal(70, 8, (40, 48)).clip(0, 255).astype(np.uint8)


class Hospital:
    """A copy of centerA, to plant a fault in."""

    def __init__(self, federation, path):
        self.federation, self.path = federation, path
        shutil.copytree(federation.path / "centerA", path / "centerA")
        (path / "sites").mkdir()
        shutil.copy(federation.path / "sites/centerA.yaml", path / "sites")
        self.site_file, self.manifest = path / "sites/centerA.yaml", path / "centerA/manifest.csv"
        self.state, self.images = path / "centerA/state", path / "centerA/images"

    def set(self, **changes):
        self.site_file.write_text(yaml.safe_dump(yaml.safe_load(self.site_file.read_text()) | changes))

    def situation(self, study_file=None):
        return Situation("centerA", self.site_file, study_file)

    def examine(self, study_file=None):
        return {result.check: result for result in examine(self.situation(study_file), lambda _: None)}


@pytest.fixture
def hospital(federation, tmp_path):
    federation.say({})
    return Hospital(federation, tmp_path)


@pytest.fixture
def quick(monkeypatch):
    """A training step that took a second, without a process; a short measurement of the link, and no pictures."""
    monkeypatch.setattr(link_speed, "MOST_BYTES", 1 << 18)
    monkeypatch.setattr(checks_data, "draw_fingerprint", lambda *_: None)
    monkeypatch.setattr(situation, "measure_training", lambda site, study, wanted: Measured("CPU", 1.0, 1 << 30, wanted))


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
    records = hospital.situation().records
    of_split = {
        split: next(row for row in records.manifest.rows if records.splits[row.case] == split) for split in ("train", "test")
    }
    shutil.copy(hospital.images / of_split["train"].image, hospital.images / of_split["test"].image)


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
    (wrong_label, "labels", 4, "'FTX' is not a class of the study, expected one of benign, PTC, FTC", "correct it"),
    (unreadable_image, "images", 4, "manifest.csv row", "save it as PNG, JPEG or uncompressed DICOM"),
    (leakage, "splits", 4, "shows the same picture as row", "remove one of them"),
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
    (slow_clock, "clock", 11, "s behind the coordinator's", "NTP"),
    (somewhat_fast_clock, "clock", 0, "s ahead of the coordinator's", "NTP"),
    (other_study, "study", 11, "the coordinator runs study ffffffffffff, the kit is of", "new kit"),
    (other_version, "version", 7, f"runs version 9.9.9, here is {__version__}", "install version 9.9.9"),
    (not_approved, "approvals", 11, "centerA has not approved", "client approve --site centerA"),
    (approved_something_else, "approvals", 11, "this site approved", "client approve --site centerA"),
    (others_have_not_approved, "approvals", 0, "centerB, centerC did not yet", "they run client approve"),
    (nobody_enrolled, "approvals", 0, "no membership is proposed yet", "every site has enrolled"),
]


def needing(name):
    """The checks that cannot say anything where this one failed."""
    found = {name}
    for check in CHECKS:
        if found & set(check.needs):
            found.add(check.name)
    return found - {name}


def assert_found(found, check, code, says, fix):
    finding = found[check].finding
    assert says in finding.message
    assert fix in finding.fix
    assert finding.status == "failed" if code else finding.status in ("warning", "skipped")
    assert getattr(first_failure(list(found.values())), "exit_code", 0) == code
    skipped = needing(check) if code else {check} & {"approvals"}
    others = {name: found[name].finding.message for name in found if name != check and found[name].finding.status != "ok"}
    assert set(others) == skipped - {check}, others


@pytest.mark.parametrize(("plant", "check", "code", "says", "fix"), FAULTS, ids=[plant.__name__ for plant, *_ in FAULTS])
def test_a_planted_fault_is_found_with_its_fix_and_hides_nothing_else(hospital, quick, plant, check, code, says, fix):
    plant(hospital)
    assert_found(hospital.examine(), check, code, says, fix)


def test_an_expired_certificate_of_the_server_is_found(hospital, quick):
    port = free_port()
    hospital.set(coordinator=f"127.0.0.1:{port}")
    with running_front(hospital.federation.folder, port, hospital.federation.expired_certificate()):
        assert_found(hospital.examine(), "connection", 11, "is expired", "the coordinator runs server renew")


def pass_on(source, target):
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def tunnel(link, asked, status):
    """Answers one CONNECT with `status`, and where that is 200 passes bytes both ways until both sides have ended."""
    with link:
        asked.append(link.recv(4096).split(b"\r\n")[0].decode())
        link.sendall(b"HTTP/1.1 %d x\r\n\r\n" % status)
        if status == 200:
            host, port = asked[-1].split()[1].split(":")
            with socket.create_connection((host, int(port))) as target:
                back = threading.Thread(target=pass_on, args=(target, link))
                back.start()
                pass_on(link, target)
                back.join()


@contextmanager
def running_proxy(status):
    """A proxy that answers every CONNECT with `status`; its address, and what it was asked."""
    asked, threads = [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with suppress(OSError):
                while True:
                    threads.append(threading.Thread(target=tunnel, args=(listener.accept()[0], asked, status)))
                    threads[-1].start()

        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join()


def test_a_proxy_that_refuses_is_found(hospital, quick):
    with running_proxy(403) as (proxy, asked):
        hospital.set(proxy=proxy)
        assert_found(hospital.examine(), "connection", 12, f"the proxy {proxy} refuses the way", "allow CONNECT")
    assert asked
    assert all(line.startswith(f"CONNECT 127.0.0.1:{hospital.federation.port} ") for line in asked)


def test_all_is_measured_through_a_proxy_that_lets_through(hospital, quick):
    with running_proxy(200) as (proxy, asked):
        hospital.set(proxy=proxy)
        found = hospital.examine()
    assert {name: result.finding.message for name, result in found.items() if result.finding.status != "ok"} == {}
    assert f"answers through the proxy {proxy} over TLS" in found["connection"].finding.message
    assert len(asked) == 3  # handshake, facts, bandwidth


def test_a_disk_that_is_nearly_full_is_found(hospital, quick, monkeypatch):
    monkeypatch.setattr(checks_machine.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4 << 20))
    assert_found(hospital.examine(), "disk", 9, "4 MiB free for the state folder", "free disk space")


def test_out_of_memory_names_the_micro_batch_that_fits(hospital, quick, monkeypatch):
    monkeypatch.setattr(situation, "measure_training", training_probe.measure_training)
    fits = {2: Measured("H100", 1.0, 1 << 30, 2)}
    monkeypatch.setattr(training_probe, "take_step", lambda site, study, micro_batch: fits.get(micro_batch))
    says = "out of memory on H100 with 8 images at a time, 2 fit"
    found = hospital.examine()
    assert_found(found, "training step", 6, says, "micro_batch: 2 in the site file gives the same gradient")
    fits.clear()
    assert_found(hospital.examine(), "training step", 6, "out of memory with a single image", "too small for the study's model")


def test_a_machine_too_slow_for_the_deadline_is_found(hospital, quick, monkeypatch):
    monkeypatch.setattr(situation, "measure_training", lambda site, study, wanted: Measured("CPU", 40.0, 1 << 30, wanted))
    assert_found(hospital.examine(), "round", 6, "2 steps 80 s", "answer_deadline_s")


def test_a_fault_of_the_program_in_one_check_hides_no_other_and_shows_no_foreign_text(hospital, quick, monkeypatch):
    monkeypatch.setattr(checks_machine, "read_public_keys", lambda folder: int("Mustermann"))
    assert_found(hospital.examine(), "keys", 1, "unexpected ValueError", "report it")


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


def test_without_a_kit_the_study_has_to_be_named(hospital, quick):
    shutil.rmtree(hospital.state)
    assert_found(hospital.examine(), "configuration", 3, "which study?", "--study FILE")


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
    private = write_logs(hospital)
    small_budget(hospital)
    monkeypatch.chdir(hospital.path)
    run("client", "doctor", "--site", "centerA", "--json", "--bundle", "help.zip", code=3)
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [line["check"] for line in found] == [check.name for check in CHECKS]
    assert all(set(line) == {"check", "status", "message", "fix"} for line in found)
    step = next(line for line in found if line["check"] == "training step")
    assert step["status"] == "ok"
    assert "a step of 8 images of csasn-test takes" in step["message"]
    assert "error: upload budget failed: policy.upload_budget_mib is 0.5" in said.err
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
    assert any(line.startswith("flwr==") for line in files["packages.txt"].splitlines())
    with pytest.raises(StorageError, match="exists already"):
        write_bundle(path, {}, print)


def test_a_bundle_without_a_manifest_to_compare_with_has_neither_logs_nor_texts(hospital, quick):
    write_logs(hospital)
    wrong_label(hospital)
    one = hospital.situation()
    files = gather([result.facts() for result in examine(one, lambda _: None)], one.site, None)
    assert set(files) == {"doctor.json", "packages.txt", "site.yaml"}
    assert set(json.loads(files["doctor.json"])[0]) == {"check", "status"}


def test_short_case_ids_count_where_they_stand_alone():
    row = Row(2, "7", "7.png", None, 0, "", {})
    scrubber = Scrubber(Site(site="a", manifest="/m", images="/pictures", state="/s"), Manifest((row,), {"7": 0}, {"7": ""}))
    lines = {"row of case 7 read": False, "ended with code 17": True, "read 7.png": False, "in /pictures/x": False}
    assert {line: scrubber.is_clean(line) for line in lines} == lines


def test_paths_are_cut_down_to_their_last_name():
    assert cut_paths("cannot read '/srv/a b/key': no") == "cannot read 'a b/key': no"
    assert (
        cut_paths("chmod 600 /srv/keys/node.key; see https://host.example/a/b")
        == "chmod 600 node.key; see https://host.example/a/b"
    )


@pytest.mark.parametrize("rate", [3e3, 2e4, 1e6, 1e9])
def test_the_bandwidth_is_measured_within_five_seconds_each_way(rate):
    now, moved = [0.0], [0]

    def transfer(size):
        now[0] += 0.05 + size / rate
        moved[0] += size

    found = measure_rate(transfer, lambda: now[0])
    assert found == pytest.approx(rate, rel=0.3) or rate > 1e8
    assert now[0] < max(5.0, 1.1 * FIRST_BYTES / rate)
    assert moved[0] < 2 * MOST_BYTES


def test_sizes_of_a_round_are_those_of_its_messages(hospital):
    from csasn.federated.messages import Kind
    from csasn.model.network import build_network

    one = hospital.situation()
    assert one.contract.state == Contract.of(one.study, membership_of(hospital), build_network(one.study)).state
    values = one.contract.state.num_shared
    assert one.upload_bytes(1) == 2 * values + 8 * one.contract.counts[Kind.TRAIN].size
    assert (one.download_bytes(1), one.download_bytes(2)) == (4 * one.contract.state.size, 2 * values)


def membership_of(hospital):
    return read_membership(hospital.state / "kit/membership.json")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError(), None])
def test_a_step_out_of_memory_ends_with_a_code_of_its_own(hospital, monkeypatch, error):
    def measure(*_):
        if error:
            raise error
        torch.empty(1 << 50)  # the error of a CPU without memory

    monkeypatch.setattr(training_probe, "_measure", measure)
    with pytest.raises(SystemExit, match=str(training_probe.OUT_OF_MEMORY)):
        training_probe._print_step(hospital.site_file, hospital.state / "kit/study.yaml", 8)


def test_a_step_that_fails_is_told_from_one_that_is_out_of_memory(hospital, monkeypatch):
    real, programs = (
        subprocess.run,
        iter(
            (
                f"raise SystemExit({training_probe.OUT_OF_MEMORY})",
                "import os; os.kill(os.getpid(), 9)",
                "import sys; sys.stderr.write('WARNING x: y\\nerror: no GPU: none\\nhint: buy one\\n'); sys.exit(3)",
            )
        ),
    )
    monkeypatch.setattr(
        training_probe.subprocess, "run", lambda command, **options: real([sys.executable, "-c", next(programs)], **options)
    )
    given = hospital.site_file, hospital.state / "kit/study.yaml", 8
    assert training_probe.take_step(*given) is None
    assert training_probe.take_step(*given) is None
    with pytest.raises(ConfigurationError, match="no GPU: none") as caught:
        training_probe.take_step(*given)
    assert caught.value.hint == "buy one"


def test_help_names_what_is_written_and_loads_nothing_heavy(capsys):
    run("client", "doctor", "--help")
    said = capsys.readouterr().out
    assert "fingerprint.json and fingerprint.png" in said
    assert "exit codes" in said
    program = "import sys, client.cli; sys.exit(bool({'torch', 'cryptography', 'pydantic', 'httpx', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0
