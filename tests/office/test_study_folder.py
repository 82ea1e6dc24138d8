"""What a site says at the coordinator counts for that site alone, once, and calls a person rarely."""

import json
import time
from datetime import timedelta

import pytest
from pydantic import ValidationError

import server.office.trouble_calls
from csasn import __version__
from csasn.errors import ProtocolError, TrustError
from csasn.trust.enrolment import Enrolment
from csasn.trust.facts import SiteFacts
from csasn.trust.membership import Approval
from enrolling import Federation
from server.front.site_signature import Signer
from server.office.studies import Studies
from server.office.study_folder import StudyFolder
from server.office.trouble_calls import VERSIONS_TOLD, TroubleCalls


@pytest.fixture
def study_folder(tmp_path, write_small_hospitals, monkeypatch, capsys):
    write_small_hospitals(tmp_path / "h")
    federation = Federation(tmp_path / "h", monkeypatch, capsys)
    federation.enroll_all()
    return StudyFolder(federation.enrolments)


def said(site="centerA", version=__version__, approval=None):
    return SiteFacts(site=site, study_hash="a" * 64, software_version=version, approval=approval).model_dump_json().encode()


def test_a_site_speaks_for_itself_alone(study_folder):
    with pytest.raises(TrustError, match="centerB signed facts of another site"):
        Studies(study_folder.path).answer_site(said("centerA"), Signer("centerB", time.time(), ""))
    foreign = Approval(site="centerA", study_hash="a" * 64, membership_hash="b" * 64, signature="c" * 128)
    with pytest.raises(TrustError, match="centerB signed facts of another site"):
        Studies(study_folder.path).answer_site(said("centerB", approval=foreign), Signer("centerB", time.time(), ""))
    assert study_folder.seen() == {}
    Studies(study_folder.path).answer_site(said("centerB"), Signer("centerB", 5.0, ""))
    assert {site: seen.time for site, seen in study_folder.seen().items()} == {"centerB": 5.0}


def test_a_request_that_is_sent_again_changes_nothing(study_folder):
    Studies(study_folder.path).answer_site(said(version="9.9.9"), Signer("centerA", 10.0, ""))
    Studies(study_folder.path).answer_site(said(), Signer("centerA", 20.0, ""))
    Studies(study_folder.path).answer_site(said(version="9.9.9"), Signer("centerA", 10.0, ""))
    Studies(study_folder.path).answer_site(said(version="9.9.9"), Signer("centerA", 20.0, ""))
    assert (study_folder.seen()["centerA"].time, study_folder.seen()["centerA"].software_version) == (20.0, __version__)


def test_what_is_no_sites_word_is_refused(study_folder):
    for body in (b"null", b"{}", b"\xff", said().replace(b"centerA", b"../../x")):
        with pytest.raises(ProtocolError):
            Studies(study_folder.path).answer_site(body, Signer("centerA", 1.0, ""))
    assert json.dumps(Studies(study_folder.path).answer_site(b"", Signer("centerA", 1.0, "")))


@pytest.mark.parametrize("version", ["1.2", "0.1.0", "1.2.3.dev4", "1.0rc1", "2.0.0+local.1", __version__])
def test_versions_of_python_packages_are_versions(version):
    assert SiteFacts(site="centerA", study_hash="a" * 64, software_version=version).software_version == version


@pytest.mark.parametrize(
    "version", ["1", "call me at 555", "1.0;rm", "newest", "1.0 ", "1.0-" + "a" * 40, "1.0\n", "v1.0", "1.0<b>"]
)
@pytest.mark.parametrize("model", [SiteFacts, Enrolment])
def test_other_texts_are_none(model, version):
    with pytest.raises(ValidationError, match="software_version"):
        model(site="centerA", study_hash="a" * 64, software_version=version)


def test_a_person_is_called_once_for_a_sites_version_and_for_few_of_them(study_folder, monkeypatch):
    called = []
    monkeypatch.setattr(server.office.trouble_calls.subprocess, "Popen", lambda words, **_: called.append(words[1]))
    calls = TroubleCalls("tell-me", print, timedelta())
    for number, version in enumerate(["9.9.1", "9.9.2", "9.9.1", "9.9.2", *(f"9.8.{each}" for each in range(20))]):
        Studies(study_folder.path).answer_site(said(version=version), Signer("centerA", 100.0 + number, ""))
        calls.tell(study_folder)
        calls.tell(study_folder)
    versions = [
        trouble.partition("study small: ")[2] for trouble in called if "runs version" in trouble and "over, " not in trouble
    ]
    assert versions == [f"centerA runs version {version}, this is {__version__}" for version in ("9.9.1", "9.9.2", "9.8.0")]
    assert len(versions) == VERSIONS_TOLD
    Studies(study_folder.path).answer_site(said("centerB", "9.9.1"), Signer("centerB", 1.0, ""))
    calls.tell(study_folder)
    assert called[-1].endswith(f"study small: centerB runs version 9.9.1, this is {__version__}")
