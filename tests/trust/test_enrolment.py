"""From keys to a signed membership, by the commands that people run; revocation and renewal."""

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from client.trust.approval import read_approved
from csasn.errors import ConfigurationError, TrustError
from csasn.platform.configuration import validate
from csasn.site import Policy, Site, split_address
from csasn.trust.certificates import certificate_fingerprint
from csasn.trust.identity import create_keys, load_identity
from csasn.trust.membership import Member, Membership, read_membership, sign_membership, verify_approvals
from enrolling import SITES, Federation, json_of
from server.office.enrolment import Enrolments


def test_from_keys_to_a_membership_that_every_site_signed(federation):
    membership = federation.enroll_all()
    assert membership.sites == SITES
    for member in membership.members:
        site = federation.site(member.site)
        assert (site.keys_folder / "node.pub").read_text().strip() == member.node_key
        federation.approve(member.site, membership)
        federation.enrolments.record(federation.approval(member.site))
    verify_approvals(membership, federation.enrolments.approvals())
    _, approved, _ = read_approved(federation.site("centerA"))
    assert approved == membership


def test_weights_follow_from_the_numbers_of_training_cases_in_the_requests(federation):
    membership = federation.enroll_all()
    numbers = {site: enrolment.num_training_cases for site, enrolment in federation.enrolments.sites().items()}
    assert list(numbers.values()) == [12, 15, 15]
    assert membership.weight_units == {"centerA": 18, "centerB": 23, "centerC": 23}


def test_no_private_key_is_in_what_travels(federation):
    federation.enroll_all()
    travels = [*federation.path.glob("*.request.json"), *federation.folder.glob("kits/*/*"), federation.folder / "membership.json"]
    assert len(travels) == 3 + 9 + 1
    for path in travels:
        assert b"PRIVATE" not in path.read_bytes()
    with zipfile.ZipFile(federation.folder / "kits/centerA.kit.zip") as kit:
        assert sorted(kit.namelist()) == ["ca.crt", "kit.json", "study.yaml"]
        assert kit.read("study.yaml") == (federation.path / "coordinator/study.yaml").read_bytes()


def test_private_files_are_private_and_the_authoritys_key_is_under_its_passphrase(federation):
    federation.enroll_all()
    keys = federation.folder / "keys"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.glob("*.key")} == {"ca.key": 0o600, "server.key": 0o600}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert (keys / "ca.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_commands_say_the_same_fingerprints_on_both_sides(federation):
    federation.initialise()
    shown = federation.run("client", "keygen", "--site", "centerA").split("fingerprint: ")[1].split("\n")[0]
    assert shown in federation.run("client", "enroll", "--site", "centerA", "--study", "study.yaml")
    assert shown in federation.enroll("centerA")
    installed = federation.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip")
    assert certificate_fingerprint((federation.folder / "keys/ca.crt").read_bytes()) in installed


def test_keygen_twice_changes_nothing_and_says_so(federation):
    federation.run("client", "keygen", "--site", "centerA")
    assert "holds keys already" in federation.run("client", "keygen", "--site", "centerA", code=11)


def test_init_twice_changes_nothing_and_says_so(federation):
    federation.initialise()
    before = (federation.folder / "keys/ca.key").read_bytes()
    arguments = ("server", "init", "study.yaml", "--address", "h:1", "--passphrase-file", "passphrase")
    assert "is there and not empty" in federation.run(*arguments, code=9)
    without = [word for word in arguments if word not in ("--passphrase-file", "passphrase")]
    assert "is there and not empty" in federation.run(*without, code=9)  # and before a passphrase is asked for
    assert (federation.folder / "keys/ca.key").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--address", "nowhere"), "address is 'nowhere'"),
        (("--address", "h:0"), "address is 'h:0': expected a port from 1 to 65535"),
        (("--address", "h:1", "--name", "two words"), "names.0 is 'two words'"),
    ],
)
def test_init_leaves_nothing_behind_where_an_argument_is_wrong(federation, arguments, says):
    assert says in federation.run("server", "init", "study.yaml", "--passphrase-file", "passphrase", *arguments, code=3)
    assert not list(federation.path.glob("*coordinator*"))


def test_a_short_passphrase_is_refused(federation):
    (federation.path / "passphrase").write_text("short\n")
    arguments = ("server", "init", "study.yaml", "--address", "h:1", "--passphrase-file", "passphrase")
    assert "the passphrase has 5 characters, expected at least 12" in federation.run(*arguments, code=3)


def test_a_wrong_fingerprint_enrols_nobody(federation):
    federation.initialise()
    federation.request("centerA")
    said = federation.run("server", "enroll", "centerA.request.json", "--fingerprint", "0000 1111", code=11)
    assert "the fingerprint of the request is" in said
    assert not federation.enrolments.sites()
    assert not (federation.folder / "kits").exists()


def test_a_question_needs_a_terminal_and_names_the_flag_for_scripts(federation):
    federation.initialise()
    federation.request("centerA")
    command = [Path(sys.prefix) / "bin" / "server", "enroll", "centerA.request.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == 3
    assert "--fingerprint F" in done.stderr
    assert not federation.enrolments.sites()


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("y", 130), ("", 130), ("no", 130)])
def test_only_the_whole_word_yes_enrols(federation, monkeypatch, answer, code):
    federation.initialise()
    federation.request("centerA")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    federation.run("server", "enroll", "centerA.request.json", code=code)
    assert list(federation.enrolments.sites()) == ["centerA"] * (code == 0)


@pytest.mark.parametrize("key", ["site", "num_training_cases", "study_hash", "identity", "node_key", "software_version"])
def test_a_request_that_was_changed_is_refused(federation, tmp_path, key):
    federation.initialise()
    request = json_of(federation.request("centerA"))
    other = create_keys(tmp_path / "other").model_dump()
    changed = {"site": "centerB", "num_training_cases": 1000, "study_hash": "0" * 64, "software_version": "9.9", **other}
    request["enrolment"][key] = changed[key]
    (federation.path / "centerA.request.json").write_text(json.dumps(request))
    said = federation.run("server", "enroll", "centerA.request.json", "--fingerprint", "x", code=11)
    assert f"the enrolment signature of {request['enrolment']['site']} is not valid" in said


def test_a_request_of_another_study_is_refused(federation):
    federation.initialise()
    study = yaml.safe_load((federation.path / "study.yaml").read_text())
    (federation.path / "study.yaml").write_text(yaml.safe_dump(study | {"seed": 2}))
    federation.request("centerA")
    assert "asks for study" in federation.enroll("centerA", code=11)


def test_a_study_that_changed_after_init_is_refused(federation):
    federation.initialise()
    federation.request("centerA")
    study = yaml.safe_load((federation.folder / "study.yaml").read_text())
    (federation.folder / "study.yaml").write_text(yaml.safe_dump(study | {"seed": 2}))
    assert "this folder was made for" in federation.enroll("centerA", code=3)


def test_a_site_that_is_not_in_the_study_is_refused_on_both_sides(federation):
    federation.initialise()
    study = yaml.safe_load((federation.path / "study.yaml").read_text())
    study["federation"]["sites"] = ["centerB", "centerC"]
    (federation.path / "without.yaml").write_text(yaml.safe_dump(study))
    federation.run("client", "keygen", "--site", "centerA")
    command = ("client", "enroll", "--site", "centerA", "--study", "without.yaml")
    assert "centerA is no site of study small" in federation.run(*command, code=3)
    federation.run("client", "enroll", "--site", "centerA", "--study", "study.yaml")
    arguments = ("server", "init", "without.yaml", "--address", "h:1", "--folder", "other", "--passphrase-file", "passphrase")
    federation.run(*arguments)
    assert "asks for study" in federation.enroll("centerA", "--folder", "other", code=11)


def test_two_sites_cannot_share_a_key(federation):
    federation.initialise()
    federation.request("centerA")
    federation.enroll("centerA")
    shutil.copytree(federation.site("centerA").keys_folder, federation.site("centerB").keys_folder)
    federation.run("client", "enroll", "--site", "centerB", "--study", "study.yaml")
    assert "centerB asks with a key of centerA" in federation.enroll("centerB", code=11)


def test_enrolling_again_with_the_same_keys_changes_nothing(federation):
    membership = federation.enroll_all()
    kit = (federation.folder / "kits/centerB.kit.zip").read_bytes()
    federation.enroll("centerB")
    assert read_membership(federation.folder / "membership.json") == membership
    assert (federation.folder / "kits/centerB.kit.zip").read_bytes() == kit


def test_new_keys_of_an_enrolled_site_want_replace_which_revokes_the_old_ones(federation):
    before = federation.enroll_all()
    old = federation.path / "old"
    federation.site("centerB").keys_folder.rename(old)
    federation.request("centerB")
    assert "centerB is enrolled with another identity" in federation.enroll("centerB", code=11)
    assert federation.enrolments.membership() == before
    federation.enroll("centerB", "--replace")
    after = read_membership(federation.folder / "membership.json")
    assert after.sites == SITES
    assert after.membership_hash != before.membership_hash
    shutil.rmtree(federation.site("centerB").keys_folder)
    old.rename(federation.site("centerB").keys_folder)
    federation.run("client", "enroll", "--site", "centerB", "--study", "study.yaml")
    assert "asks with a key that is revoked" in federation.enroll("centerB", "--replace", code=11)


def test_a_new_node_key_under_the_same_identity_revokes_the_old_node_key_alone(federation):
    before = federation.enroll_all()
    (federation.site("centerB").keys_folder / "node.key").unlink()
    federation.request("centerB")
    federation.enroll("centerB", "--replace")
    after = federation.enrolments.membership()
    assert after.members[1].identity == before.members[1].identity
    assert after.members[1].node_key != before.members[1].node_key


def test_the_membership_is_proposed_only_after_the_last_enrolment(federation):
    federation.initialise()
    for number, site in enumerate(SITES):
        federation.request(site)
        said = federation.enroll(site)
        assert federation.enrolments.waiting_for() == list(SITES[number + 1 :])
        assert (federation.folder / "membership.json").exists() == (site == "centerC")
        assert all(name in said for name in SITES[number + 1 :])


def test_a_revoked_site_is_left_out_and_everyone_else_is_asked_again(federation):
    before = federation.enroll_all()
    for site in SITES:
        federation.approve(site, before)
        federation.enrolments.record(federation.approval(site))
    federation.run("server", "revoke", "centerB")
    after = read_membership(federation.folder / "membership.json")
    assert after.sites == ("centerA", "centerC")
    assert sum(after.weight_units.values()) == 64
    assert federation.enrolments.approvals() == []
    with pytest.raises(TrustError, match="centerA approved membership"):
        verify_approvals(after, [federation.approval(site) for site in after.sites])
    assert "asks with a key that is revoked" in federation.enroll("centerB", code=11)
    shutil.rmtree(federation.site("centerB").keys_folder)
    federation.request("centerB")
    federation.enroll("centerB")
    assert federation.enrolments.membership().sites == SITES
    assert "centerZ is not enrolled" in federation.run("server", "revoke", "centerZ", code=11)


def test_no_membership_is_proposed_with_fewer_sites_than_the_study_wants(tmp_path, write_small_hospitals, monkeypatch, capsys):
    write_small_hospitals(tmp_path / "h", federation={"min_sites": 3})
    federation = Federation(tmp_path / "h", monkeypatch, capsys)
    federation.enroll_all()
    assert "fewer sites are left" in federation.run("server", "revoke", "centerB")
    assert not (federation.folder / "membership.json").exists()


def test_a_revocation_that_a_crash_cut_short_holds(federation, monkeypatch):
    federation.enroll_all()
    monkeypatch.setattr(Enrolments, "propose", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        federation.enrolments.revoke("centerB")
    assert federation.enrolments.membership().sites == ("centerA", "centerC")


def test_a_membership_without_keys_can_be_approved_by_nobody(tmp_path):
    create_keys(tmp_path)
    simulated = Membership(study_hash="0" * 64, members=(Member(site="a", weight_units=64),))
    with pytest.raises(TrustError, match="no key of a member"):
        verify_approvals(simulated, [sign_membership(simulated, "a", load_identity(tmp_path))])


def test_a_simulated_membership_keeps_its_hash_whether_absent_keys_are_written_or_not():
    plain = Membership(study_hash="0" * 64, members=(Member(site="a", weight_units=64),))
    assert plain.membership_hash == "c5024602a0d8111600f06ef6383c5f139d4504c4bb62c19902806dd2da866370"
    assert validate(Membership, plain.model_dump(mode="json"), "m").membership_hash == plain.membership_hash


def test_members_have_keys_of_their_own_all_or_none(tmp_path):
    one, two = (create_keys(tmp_path / name).model_dump() for name in "ab")
    a, b = {"site": "a", "weight_units": 32}, {"site": "b", "weight_units": 32}
    validate(Membership, {"study_hash": "0" * 64, "members": [a | one, b | two]}, "m")
    for members in ([a | one, b], [a | one, b | one], [a | one, b | two | {"node_key": one["node_key"]}]):
        with pytest.raises(ConfigurationError, match="of its own for each member, or none for any"):
            validate(Membership, {"study_hash": "0" * 64, "members": members}, "m")
    with pytest.raises(ConfigurationError, match="names a site twice"):
        validate(Membership, {"study_hash": "0" * 64, "members": [a, a]}, "m")


def test_renewal_keeps_authority_and_kits_and_wants_the_passphrase(federation):
    federation.enroll_all()
    names = ("keys/ca.crt", "keys/ca.key", "keys/server.key", "kits/centerA.kit.zip", "keys/server.crt")
    before = [(federation.folder / name).read_bytes() for name in names]
    (federation.path / "wrong").write_text("another passphrase\n")
    assert "the passphrase does not open" in federation.run("server", "renew", "--passphrase-file", "wrong", code=11)
    assert [(federation.folder / name).read_bytes() for name in names] == before
    assert "365 days" in federation.run("server", "renew", "--passphrase-file", "passphrase")
    after = [(federation.folder / name).read_bytes() for name in names]
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


@pytest.mark.parametrize("name", ["ca.key", "ca.crt", "server.key"])
def test_renewal_without_a_key_or_certificate_says_which(federation, name):
    federation.initialise()
    (federation.folder / "keys" / name).unlink()
    said = federation.run("server", "renew", "--passphrase-file", "passphrase", code=11)
    assert f"keys/{name}: no such file" in said
    assert "server restore" in said


def test_a_host_name_that_yaml_takes_for_a_number_stays_a_name(federation):
    command = ("server", "init", "study.yaml", "--address", "localhost:9443", "--name", "1e5", "--passphrase-file", "passphrase")
    federation.run(*command)
    assert Enrolments.open(federation.folder).settings.certificate_names == ["localhost", "1e5"]


def test_training_hours_may_pass_midnight():
    from datetime import time

    night, day = Policy(training_hours="20:00-06:00"), Policy(training_hours="08:30-17:00")
    assert [night.may_train_at(time(hour)) for hour in (19, 20, 23, 0, 5, 6)] == [False, True, True, True, True, False]
    assert [day.may_train_at(time(8, minute)) for minute in (29, 30)] == [False, True]
    assert not day.may_train_at(time(17))
    assert Policy().may_train_at(time(12))
    for wrong in ("20:00", "24:00-06:00", "20:00-20:00", "8:00-9:00"):
        with pytest.raises(ConfigurationError, match="training_hours"):
            validate(Policy, {"training_hours": wrong}, "site.yaml")


def test_addresses_are_host_and_port_and_keys_and_kit_lie_in_state_unless_named():
    assert split_address("h.example.org:9443") == ("h.example.org", 9443)
    assert split_address("[::1]:80") == ("::1", 80)
    facts = {"site": "a", "manifest": "m", "images": "i", "state": "/s"}
    site = validate(Site, facts | {"coordinator": "[::1]:80", "proxy": "http://proxy:3128"}, "site.yaml")
    assert (site.keys_folder, site.kit_folder) == (Path("/s/keys"), Path("/s/kit"))
    for key, value in (("coordinator", "h"), ("coordinator", "h:65536"), ("coordinator", "https://h:1"), ("proxy", "proxy:3128")):
        with pytest.raises(ConfigurationError, match=key):
            validate(Site, facts | {key: value}, "site.yaml")


@pytest.mark.parametrize("command", ["init", "enroll", "revoke", "renew", "backup", "restore"])
def test_help_of_the_coordinators_commands_has_an_example(federation, command):
    said = " ".join(federation.run("server", command, "--help").split())
    assert f"example: server {command} " in said


@pytest.mark.parametrize("command", ["keygen", "enroll", "install", "approve", "backup", "restore"])
def test_help_of_a_sites_commands_has_an_example(federation, command):
    said = " ".join(federation.run("client", command, "--help").split())
    assert f"example: client {command} --site centerA" in said


def test_help_does_not_load_cryptography():
    program = (
        "import sys, server.commands.cli, client.commands.cli; sys.exit('cryptography' in sys.modules or 'pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0
