"""Fixtures of the tests of `client doctor`."""

import shutil

import pytest
from PIL import Image

from client.doctor import checks_data, context, link_speed
from client.doctor.training_probe import Measured
from csasn.platform.supervision import free_port
from csasn.trust.enrolment import read_request
from csasn.trust.membership import read_membership
from doctoring import PASSPHRASE, SITES, Federation, Hospital, picture, run, running_front


@pytest.fixture(scope="session")
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


@pytest.fixture
def hospital(federation, tmp_path):
    federation.say({})
    return Hospital(federation, tmp_path)


@pytest.fixture
def quick(monkeypatch):
    """A training step that took a second, without a process; a short measurement of the link, and no pictures."""
    monkeypatch.setattr(link_speed, "MOST_BYTES", 1 << 18)
    monkeypatch.setattr(checks_data, "draw_fingerprint", lambda *_: None)
    monkeypatch.setattr(context, "measure_training", lambda site, study, wanted: Measured("CPU", 1.0, 1 << 30, wanted))
