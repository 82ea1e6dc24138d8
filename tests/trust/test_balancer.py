"""`server init --behind-balancer`: whom sites trust where a balancer ends TLS before the coordinator, and what people are told."""

import zipfile

import pytest
import yaml
from cryptography import x509

from csasn.trust.certificates import (
    authority_pem,
    certificate_fingerprint,
    create_authority,
    create_server_certificate,
    create_server_key,
    days_left,
)
from csasn.trust.enrolment import read_kit
from enrolling import SITES, Federation


@pytest.fixture
def federation(tmp_path, write_small_hospitals, monkeypatch, capsys):
    write_small_hospitals(tmp_path / "h", federation={"secure_aggregation": True})
    return Federation(tmp_path / "h", monkeypatch, capsys)


@pytest.fixture
def balancer(federation):
    """A file as balancers have it: certificate, its key, and their authority, which lasts longer."""
    authority, key = create_authority("hospital network"), create_server_key()
    certificate = create_server_certificate(authority, key, ["localhost"])
    path = federation.path / "balancer.pem"
    path.write_bytes(certificate + key + authority_pem(authority))
    return path


def test_kits_hold_the_balancers_certificates_in_place_of_the_studys_and_nothing_else_of_its_file(federation, balancer):
    federation.enroll_all("--behind-balancer", "balancer.pem")
    for site in SITES:
        with zipfile.ZipFile(federation.folder / f"kits/{site}.kit.zip") as archive:
            trusted = archive.read("ca.crt")
        names = [each.subject.rfc4514_string() for each in x509.load_pem_x509_certificates(trusted)]
        assert names == ["CN=hospital network", "CN=csasn coordinator"]
        assert days_left(trusted) > 3000
        assert b"PRIVATE KEY" not in trusted
        assert read_kit(federation.site(site).kit_folder)[0].behind_balancer
    assert (federation.folder / "keys/ca.crt").read_bytes() not in trusted


def test_both_sides_are_told_the_same_fingerprint_and_sites_what_a_balancer_sees(federation, balancer):
    made = federation.initialise("--behind-balancer", "balancer.pem")
    for site in SITES:
        federation.request(site)
        federation.enroll(site)
    installed = federation.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip")
    shown = certificate_fingerprint((federation.site("centerA").kit_folder / "ca.crt").read_bytes())
    assert shown in made
    assert "fingerprint of the balancer's authority" in made
    assert shown in installed
    assert "a balancer, which ends TLS before the coordinator" in installed
    approved = federation.run(
        "client", "approve", "--site", "centerA", "--membership", "coordinator/membership.json",
        "--yes", federation.enrolments.membership().membership_hash[:12],
    )  # fmt: skip
    assert "a balancer ends TLS before the coordinator; who runs it can see and" in approved


def test_without_a_balancer_nobody_speaks_of_one(federation):
    membership = federation.enroll_all()
    assert "a balancer" not in federation.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip")
    assert "a balancer" not in federation.approve("centerA", membership)
    assert not read_kit(federation.site("centerA").kit_folder)[0].behind_balancer


def test_a_renewal_of_the_coordinators_certificate_leaves_kits_as_they_are(federation, balancer):
    federation.enroll_all("--behind-balancer", "balancer.pem")
    before = (federation.folder / "kits/centerA.kit.zip").read_bytes()
    federation.run("server", "renew", "--passphrase-file", "passphrase")
    assert (federation.folder / "kits/centerA.kit.zip").read_bytes() == before


def test_a_study_without_masks_is_not_sent_through_a_balancer(federation, balancer):
    study = federation.path / "study.yaml"
    facts = yaml.safe_load(study.read_text())
    facts["federation"]["secure_aggregation"] = False
    study.write_text(yaml.safe_dump(facts))
    said = federation.initialise("--behind-balancer", "balancer.pem", code=3)
    assert "who runs the balancer would see what each site sends" in said
    assert not federation.folder.exists()


@pytest.mark.parametrize(("content", "code", "says"), [(None, 3, "cannot read nothing.pem"), ("key", 11, "no certificate in PEM")])
def test_a_file_without_a_certificate_is_refused(federation, content, code, says):
    if content:
        (federation.path / "nothing.pem").write_text(content)
    assert says in federation.initialise("--behind-balancer", "nothing.pem", code=code)
    assert not federation.folder.exists()
