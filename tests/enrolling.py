"""A coordinator and three hospitals that enrol with each other, by the commands that people run."""

import json

from command_line import run_here
from csasn.platform.configuration import validate
from csasn.site import find_site
from csasn.trust.enrolment import read_request
from csasn.trust.membership import Approval, read_membership
from server.office.enrolment import Enrolments

SITES = ("centerA", "centerB", "centerC")
PASSPHRASE = "correct horse battery"


class Federation:
    """A coordinator and three hospitals in one folder, and their commands run in this process."""

    def __init__(self, folder, monkeypatch, capsys):
        self.path, self.folder, self._capsys = folder, folder / "coordinator", capsys
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        self.begin, self.study = "init", "study.yaml"
        monkeypatch.chdir(folder)

    def run(self, *arguments, code=0):
        """Output of a command (standard output, or the error where one is expected)."""
        ended = run_here(*arguments)
        said = self._capsys.readouterr()
        assert ended == code, said.err + said.out
        return said.err if code else said.out

    def site(self, name):
        return find_site(name)

    @property
    def enrolments(self):
        return Enrolments.open(self.folder)

    def initialise(self, *more, code=0):
        where = ("--address", "localhost:9443", "--name", "127.0.0.1", "--folder", "coordinator")
        return self.run("server", self.begin, "study.yaml", *where, "--passphrase-file", "passphrase", *more, code=code)

    def request(self, site):
        self.run("client", "keygen", "--site", site)
        self.run("client", "enroll", "--site", site, "--study", self.study)
        return self.path / f"{site}.request.json"

    def enroll(self, site, *more, code=0):
        path = self.path / f"{site}.request.json"
        fingerprint = json_of(path)["enrolment"]["identity"] and read_request(path).enrolment.fingerprint
        return self.run("server", "enroll", path.name, "--fingerprint", fingerprint, *more, code=code)

    def enroll_all(self, *more):
        self.initialise(*more)
        for site in SITES:
            self.request(site)
            self.enroll(site)
            self.run("client", "install", "--site", site, f"coordinator/kits/{site}.kit.zip")
        return read_membership(self.folder / "membership.json")

    def approve(self, site, membership, code=0):
        return self.run(
            "client", "approve", "--site", site, "--membership", "coordinator/membership.json",
            "--yes", membership.membership_hash[:12], code=code,
        )  # fmt: skip

    def approval(self, site):
        return validate(Approval, json_of(self.site(site).kit_folder / "approval.json"), "approval.json")


def json_of(path):
    return json.loads(path.read_text())
