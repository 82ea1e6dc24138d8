"""What a site agrees to: the membership it signs, the kit it installs, and what is no longer approved."""

import json
import zipfile

import pytest

from client.trust.approval import PLAIN, approve, check_membership, obtain_membership, read_approved, review
from csasn.data.survey_tables import survey_layout, tables_of
from csasn.errors import ConfigurationError, TrustError
from csasn.study import read_study
from csasn.trust.enrolment import read_kit
from csasn.trust.identity import create_keys, load_identity
from csasn.trust.membership import sign_membership, verify_approvals
from enrolling import SITES


def test_a_missing_wrong_or_foreign_signature_is_named_by_its_site(federation, tmp_path):
    membership = federation.enroll_all()
    for site in SITES:
        federation.approve(site, membership)
    good = {site: federation.approval(site) for site in SITES}
    verify_approvals(membership, good.values())
    with pytest.raises(TrustError, match=r"not approved by centerB, centerC"):
        verify_approvals(membership, [good["centerA"]])
    swapped = good["centerB"].model_copy(update={"signature": good["centerC"].signature})
    with pytest.raises(TrustError, match="the membership signature of centerB is not valid"):
        verify_approvals(membership, [good["centerA"], swapped, good["centerC"]])
    create_keys(tmp_path / "stranger")
    foreign = sign_membership(membership, "centerD", load_identity(tmp_path / "stranger"))
    with pytest.raises(TrustError, match="'centerD' approved, but no key of a member"):
        verify_approvals(membership, [*good.values(), foreign])
    with pytest.raises(TrustError, match="signature of centerB is not valid"):
        verify_approvals(membership, [sign_membership(membership, "centerB", load_identity(tmp_path / "stranger"))])


def test_a_scripts_yes_to_another_membership_signs_nothing(federation):
    federation.enroll_all()
    command = ("client", "approve", "--site", "centerA", "--membership", "coordinator/membership.json")
    assert "is for another membership" in federation.run(*command, "--yes", "0" * 12, code=11)
    assert "is no terminal" in federation.run(*command, code=3)
    assert not (federation.site("centerA").kit_folder / "approval.json").exists()
    with pytest.raises(TrustError, match="centerA has approved no study"):
        read_approved(federation.site("centerA"))


def test_the_membership_comes_from_a_file_or_from_the_coordinator(federation):
    membership = federation.enroll_all()
    site = federation.site("centerA")
    kit, _ = read_kit(site.kit_folder)
    assert obtain_membership(site, kit, federation.folder / "membership.json") == membership
    assert (
        obtain_membership(site, kit, None, lambda asking, at: membership if at.address == "localhost:9443" else None) == membership
    )
    with pytest.raises(ConfigurationError, match="the membership is missing"):
        obtain_membership(site, kit, None)


def test_approval_says_in_plain_words_what_leaves_and_who_takes_part(federation):
    membership = federation.enroll_all()
    said = federation.approve("centerA", membership)
    assert PLAIN in said
    for words in (
        "up to 2",
        "leaves this site in every round",
        "at most 16 bits",
        "never leaves: images",
        "(this site)",
        "server by fedavg: the model moves",
    ):
        assert words in said
    for site, enrolment in federation.enrolments.sites().items():
        assert site in said
        assert enrolment.fingerprint in said
    assert "sums of activations" in said


@pytest.fixture
def survey(federation):
    """The same federation, about to enrol in the survey before its study."""
    federation.begin, federation.study = "survey", "coordinator/study.yaml"
    return federation


def test_approval_of_a_survey_says_that_nothing_is_trained_and_names_every_count_that_leaves(survey):
    said = survey.approve("centerA", survey.enroll_all())
    for words in (
        "survey before study small",
        "NOTHING is trained",
        "with an approval of its own",
        "policy.smallest_cell",
        "sums over all sites of 10 or more",
        "the words of a scanner",
        PLAIN,
    ):
        assert words in said
    study = read_study(survey.path / survey.study)
    named = [name for name, _ in survey_layout(study).shapes if not name.endswith("-hidden")]
    assert {table.block for table in tables_of(study)} == set(named)
    for table in tables_of(study):
        assert f"{table.title[1:]}: {', '.join(table.rows)}" in said
    assert "every round" not in said
    assert "/64" not in said


def test_a_request_for_a_survey_says_no_number_of_cases(survey):
    survey.initialise()
    path = survey.request("centerA")
    assert json.loads(path.read_text())["enrolment"]["num_training_cases"] == 1
    assert "asks to take part in a survey, software" in survey.enroll("centerA")


def test_an_approval_of_a_survey_is_none_of_its_study(survey):
    membership = survey.enroll_all()
    survey.approve("centerA", membership)
    study = read_study(survey.path / "study.yaml")
    assert study.study_hash != membership.study_hash
    with pytest.raises(TrustError, match="the membership is of study"):
        check_membership(survey.site("centerA"), study, membership)


def test_options_of_a_coordinators_folder_do_not_go_with_a_survey_on_this_machine(survey):
    command = ("server", "survey", "study.yaml", "--sites", "sites")
    assert "go with --address" in survey.run(*command, "--name", "127.0.0.1", code=3)


@pytest.mark.parametrize("batchnorm", ["shared", "silo", "fixbn"])
def test_approval_says_whether_sums_of_activations_leave_the_site(federation, batchnorm):
    study = federation.path / "study.yaml"
    study.write_text(study.read_text().replace("federation:\n", f"federation:\n  batchnorm: {batchnorm}\n"))
    said = federation.approve("centerA", federation.enroll_all())
    assert ("sums of activations (n, Σx, Σx²) of the received model" in said) == (batchnorm != "shared")


@pytest.mark.parametrize("secure", [False, True])
def test_approval_says_what_happens_where_a_site_is_away_and_that_no_word_of_a_case_is_sent(federation, secure):
    study = federation.path / "study.yaml"
    study.write_text(study.read_text().replace("secure_aggregation: false", f"secure_aggregation: {str(secure).lower()}"))
    said = federation.approve("centerA", federation.enroll_all())
    assert ("a round counts with every site or not at all: one that is away is waited for, however long" in said) == secure
    assert ("may lack one; if a site is lost for good, results are withheld" in said) == (not secure)
    assert "where it cannot answer, a reason out of a fixed list, which never depends on what a case shows" in said


def test_approving_anew_shows_what_changed(federation):
    before = federation.enroll_all()
    federation.approve("centerA", before)
    federation.site("centerB").keys_folder.rename(federation.path / "old")
    federation.request("centerB")
    federation.enroll("centerB", "--replace")
    federation.run("server", "revoke", "centerC")
    after = federation.enrolments.membership()
    said = federation.approve("centerA", after)
    assert "NEW KEY since you approved" in next(line for line in said.splitlines() if "centerB" in line)
    assert "GONE since you approved" in next(line for line in said.splitlines() if "centerC" in line)
    assert read_approved(federation.site("centerA"))[1] == after


def test_a_site_refuses_a_membership_of_another_study_with_other_keys_or_without_it(federation, tmp_path):
    membership = federation.enroll_all()
    site, (_, study) = federation.site("centerA"), read_kit(federation.site("centerA").kit_folder)
    first, *others = membership.members
    other_keys = create_keys(tmp_path / "other")
    with pytest.raises(TrustError, match="the membership is of study 0000"):
        approve(site, study, membership.model_copy(update={"study_hash": "0" * 64}))
    member = first.model_copy(update={"identity": other_keys.identity})
    with pytest.raises(TrustError, match="names another identity for centerA"):
        approve(site, study, membership.model_copy(update={"members": (member, *others)}))
    with pytest.raises(TrustError, match="does not name centerA"):
        review(site, study, membership.model_copy(update={"members": tuple(others)}))
    stranger = others[0].model_copy(update={"site": "centerZ"})
    said = review(site, study, membership.model_copy(update={"members": (first, stranger, others[1])}))
    assert [line for line in said if "JOINED: the study does not name it" in line] == [line for line in said if "centerZ" in line]
    assert not (site.kit_folder / "approval.json").exists()


def test_a_sites_policy_wins_over_the_study(federation):
    membership = federation.enroll_all()
    path = federation.path / "sites/centerA.yaml"
    path.write_text(path.read_text() + "policy: {require_secure_aggregation: true}\n")
    assert "this site's policy is require_secure_aggregation: true" in federation.approve("centerA", membership, code=3)


def test_what_changed_after_approval_is_no_longer_approved(federation):
    membership = federation.enroll_all()
    site = federation.site("centerA")
    federation.approve("centerA", membership)
    changed = membership.model_dump(mode="json")
    changed["members"][1]["weight_units"] += 1
    changed["members"][2]["weight_units"] -= 1
    (site.kit_folder / "membership.json").write_text(json.dumps(changed))
    with pytest.raises(TrustError, match="centerA approved membership"):
        read_approved(site)
    (site.kit_folder / "study.yaml").write_text((site.kit_folder / "study.yaml").read_text() + "seed: 2\n")
    with pytest.raises(TrustError, match=r"study\.yaml of the kit is missing, or not as the coordinator made it"):
        read_approved(site)


def test_a_kit_that_is_changed_another_sites_or_of_another_authority_is_refused(federation):
    federation.enroll_all()
    kit = federation.folder / "kits/centerA.kit.zip"
    command = ("client", "install", "--site", "centerA")
    assert "is the kit of centerB, expected centerA" in federation.run(*command, "coordinator/kits/centerB.kit.zip", code=11)
    with zipfile.ZipFile(kit) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name, content in (("ca.crt", b"x"), ("study.yaml", files["study.yaml"] + b"\n"), ("study.yaml", b"a" * (1 << 21))):
        with zipfile.ZipFile(federation.path / "bad.zip", "w") as archive:
            for each, own in files.items():
                archive.writestr(each, content if each == name else own)
        assert f"{name} " in federation.run(*command, "bad.zip", code=11)
    (federation.path / "bad.zip").write_bytes(kit.read_bytes()[:-40])
    assert "is damaged, or no kit" in federation.run(*command, "bad.zip", code=11)
    arguments = ("server", "init", "study.yaml", "--address", "h:1", "--folder", "other", "--passphrase-file", "passphrase")
    federation.run(*arguments)
    federation.enroll("centerA", "--folder", "other")
    assert "is of another authority" in federation.run(*command, "other/kits/centerA.kit.zip", code=11)
    assert read_kit(federation.site("centerA").kit_folder)[0].address == "localhost:9443"
    federation.run(*command, "other/kits/centerA.kit.zip", "--replace")
    assert read_kit(federation.site("centerA").kit_folder)[0].address == "h:1"
