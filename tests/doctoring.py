"""A coordinator behind a real front, three hospitals that approved, and copies of one of them to plant faults in."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import numpy as np
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from client.doctor.context import DoctorContext
from client.doctor.doctor import CHECKS, examine, first_failure
from command_line import run_here
from csasn.trust.certificates import load_authority

SITES = ("centerA", "centerB", "centerC")
PASSPHRASE = "correct horse battery"
FRONT = """
import json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from csasn import __version__
from csasn.platform.command import run_command
from server.office.studies import Studies
from server.office.study_folder import StudyFolder
from server.office.enrolment import Enrolments
from server.front.front import FrontSettings, Office, run_front
from server.front.site_signature import SiteSignatures
folder, port, certificate = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
study_folder = StudyFolder(Enrolments.open(folder))
def hello():
    changes = json.loads((folder / "changes.json").read_text())
    clock = datetime.now(UTC) + timedelta(seconds=changes.pop("ahead_s", 0))
    return {"software_version": changes.get("software_version", __version__), "time": clock.isoformat()}
def facts(said, signer):
    changes = json.loads((folder / "changes.json").read_text())
    changes.pop("ahead_s", None)
    return Studies(study_folder.path).answer_site(said, signer) | hello() | changes
sites = SiteSignatures(lambda: {site: enrolment.identity for site, enrolment in study_folder.enrolments.sites().items()})
office = Office(lambda _: None, sites.find, facts, hello)
settings = FrontSettings("127.0.0.1", port, 1, certificate, folder / "keys/server.key", credits_per_minute=1 << 20)
sys.exit(run_command(lambda: run_front(settings, office)))
"""


@contextmanager
def running_front(folder, port, certificate):
    with (folder / "front.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-P", "-c", FRONT, folder, str(port), certificate], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 300
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
    assert run_here(*arguments) == code


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

    def context(self, study_file=None):
        return DoctorContext("centerA", self.site_file, study_file)

    def examine(self, study_file=None):
        return {result.check: result for result in examine(self.context(study_file), lambda _: None)}


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
