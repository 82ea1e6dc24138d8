"""Sites join, leave and renew keys: by the commands of both sides, what each asks, and whose word counts afterwards."""

import pytest

from csasn.errors import ConfigurationError, TrustError
from csasn.study import Federation as Sites
from csasn.study import Study
from csasn.trust.membership import check_number, read_membership, verify_approvals
from enrolling import SITES, Federation
from server.office.membership_change import describe_change
from server.office.study_folder import StudyFolder
from server.run.run_directory import RunDirectory

JOINS = "centerD"


@pytest.fixture
def federation(tmp_path, write_small_hospitals, monkeypatch, capsys):
    """Three hospitals that approved, and one that the study does not name."""
    write_small_hospitals(tmp_path / "h", (*SITES, JOINS), federation={"sites": list(SITES)})
    federation = Federation(tmp_path / "h", monkeypatch, capsys)
    membership = federation.enroll_all()
    for site in SITES:
        federation.approve(site, membership)
        federation.enrolments.record(federation.approval(site))
    return federation


def begin_run(federation):
    """The run is under way."""
    path = federation.folder / "runs/small"
    RunDirectory.create(path, federation.enrolments.study, federation.enrolments.membership())
    return path


def test_a_site_leaves_and_comes_back_with_the_same_keys(federation):
    before = federation.enrolments.membership()
    assert "centerB is no longer of this study" in federation.run("server", "leave", "centerB")
    after = read_membership(federation.folder / "membership.json")
    assert after.sites == ("centerA", "centerC")
    assert federation.enrolments.approvals() == []
    assert not federation.enrolments.revoked().keys
    federation.enroll("centerB")
    assert federation.enrolments.membership() == before
    verify_approvals(before, federation.enrolments.approvals())
    assert "centerZ is not enrolled" in federation.run("server", "leave", "centerZ", code=TrustError.exit_code)


def test_a_site_that_the_study_does_not_name_joins_where_both_sides_say_so(federation):
    federation.run("client", "keygen", "--site", JOINS)
    said = federation.run("client", "enroll", "--site", JOINS, "--study", "study.yaml", code=ConfigurationError.exit_code)
    assert "is no site of study" in said
    assert "--join" in said
    federation.run("client", "enroll", "--site", JOINS, "--study", "study.yaml", "--join")
    assert "give --join" in federation.enroll(JOINS, code=TrustError.exit_code)
    federation.enroll(JOINS, "--join")
    joined = federation.enrolments.membership()
    assert joined.sites == (*SITES, JOINS)
    said = federation.approve("centerA", joined)
    assert "JOINED: the study does not name it NEW since you approved" in next(line for line in said.splitlines() if JOINS in line)
    federation.run("server", "leave", JOINS)
    assert federation.enrolments.membership().sites == SITES


@pytest.mark.parametrize(("federation_of", "most"), [({"upload_bits": 8}, 8), ({}, 16), ({"secure_aggregation": False}, 64)])
def test_no_more_sites_join_than_sums_can_hold(federation_of, most):
    study = Study(name="s", classes=("a", "b"), federation=Sites(sites=("a", "b", "c"), **federation_of))
    check_number(study, most)
    with pytest.raises(ConfigurationError, match=f"{most + 1} sites, expected at most {most}"):
        check_number(study, most + 1)


def test_a_renewed_node_key_is_taken_by_the_identitys_signature_and_asks_nobody(federation):
    before = federation.enrolments.membership()
    federation.run("client", "keygen", "--site", "centerB", "--node")
    assert list(federation.site("centerB").keys_folder.glob("node.key-*"))
    federation.run("client", "enroll", "--site", "centerB", "--study", "study.yaml")
    wrong = ("--fingerprint", "0000 " * 8)
    assert "given was 0000" in federation.run("server", "enroll", "centerB.request.json", *wrong, code=TrustError.exit_code)
    said = federation.run("server", "enroll", "centerB.request.json")
    assert "nothing to compare by telephone" in said
    after = federation.enrolments.membership()
    assert after.members[1].node_key != before.members[1].node_key
    assert before.members[1].node_key in federation.enrolments.revoked().keys
    assert after.membership_hash == before.membership_hash
    verify_approvals(after, federation.enrolments.approvals())


def test_another_identity_or_weight_is_another_membership(federation):
    """What a node key may do without approval, nothing else may."""
    before = federation.enrolments.membership()
    first, second, third = before.members
    for members in (
        (first.model_copy(update={"identity": "ab" * 32}), second, third),
        (first.model_copy(update={"weight_units": first.weight_units + 1}),
         second.model_copy(update={"weight_units": second.weight_units - 1}), third),
        (second, first, third),
    ):  # fmt: skip
        assert before.model_copy(update={"members": members}).membership_hash != before.membership_hash


def test_whoever_ends_a_membership_in_mid_run_is_told_and_asked(federation, monkeypatch):
    path = begin_run(federation)
    said = federation.run("server", "leave", "centerB", code=ConfigurationError.exit_code)
    assert "this wants a yes" in said
    assert federation.enrolments.membership().sites == SITES
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    said = federation.run("server", "leave", "centerB")
    assert "the run stands still from now on, after round 0 of 2" in said
    assert "it goes on from there once centerA, centerC all ran client approve" in said
    assert "in which centerB stands alone" in said
    assert read_membership(path / "membership.json").sites == SITES
    study_folder = StudyFolder(federation.enrolments)
    assert study_folder.facts().phase == "approving"
    assert study_folder.running_membership().sites == SITES


def test_nobody_is_asked_where_no_run_is_under_way_or_nothing_ends(federation):
    enrolments = federation.enrolments
    assert describe_change(StudyFolder(enrolments), None) == []
    begin_run(federation)
    assert describe_change(StudyFolder(enrolments), enrolments.membership()) == []
    assert "stands still until others enrol" in describe_change(StudyFolder(enrolments), None)[-1]
