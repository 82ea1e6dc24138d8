"""Further studies of one coordinator: who is in them, who hears of them, and what of keys holds in all."""

import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from client.flower.app import nodes_of_hospital
from client.service.agent import Agent
from client.service.status import describe_site
from client.trust.coordinator_link import check_study
from client.trust.separability import find_differences
from client.worker.diary import Diary, Entry, Hospitals
from client.worker.notes import TURN, Turn, note, taking_turn
from csasn import wire
from csasn.data.withdrawals import Withdrawn
from csasn.errors import AttentionError, ConfigurationError, NetworkError, TrustError
from csasn.federated.messages import Header, Hello, Kind
from csasn.platform.storage import file_sha256
from csasn.platform.supervision import ServiceManager
from csasn.site import find_site
from csasn.trust.facts import CoordinatorFacts, SiteFacts
from enrolling import SITES, Federation
from server.front.site_signature import Signer
from server.office.enrolment import Enrolments
from server.office.further_study import rehearsal_of
from server.office.studies import Studies
from server.office.troubles import OVERDUE_DAYS
from server.page.sources import study_source

MORE = "more"


@pytest.fixture
def federation(tmp_path, write_small_hospitals, monkeypatch, capsys):
    """Three hospitals that approved a study, and the file of a further one; the coordinator answers without a network between."""
    write_small_hospitals(tmp_path / "h")
    federation = Federation(tmp_path / "h", monkeypatch, capsys)
    membership = federation.enroll_all()
    for site in SITES:
        federation.approve(site, membership)
    write_study(federation)
    monkeypatch.setattr("client.trust.enrolment.ask_facts", lambda _, kit, said: answer(federation, said))
    monkeypatch.setattr("client.service.participation.ask_facts", lambda _, kit, said: answer(federation, said))
    monkeypatch.setattr(
        "client.trust.coordinator_link.ask_facts",
        lambda site, kit, said=None: answer(federation, said or SiteFacts(site=site.site, study_hash=kit.study_hash)),
    )
    return federation


def write_study(hospitals, name=MORE, **changes):
    study = yaml.safe_load((hospitals.path / "study.yaml").read_text())
    (hospitals.path / f"{name}.yaml").write_text(yaml.safe_dump(study | {"name": name, "seed": 7} | changes))


def answer(federation, said):
    signer = Signer(said.site, time.time(), "")
    answered = Studies(federation.folder).answer_site(said.model_dump_json().encode(), signer)
    return CoordinatorFacts.model_validate_json(json.dumps(answered))


def further(federation, name=MORE):
    return Enrolments.open(federation.folder / "studies" / name)


def approve(federation, *sites, name=MORE):
    prefix = further(federation, name).membership().membership_hash[:12]
    for site in sites:
        federation.run("client", "approve", "--site", f"{site}/{name}", "--yes", prefix)


# the coordinator


def test_a_further_study_has_the_hospitals_keys_and_address_of_the_first_and_wants_approvals_alone(federation):
    said = federation.run("server", "study", "more.yaml")
    assert f"next: each hospital says client approve --site SITE/{MORE}" in said
    begun, first = further(federation), federation.enrolments
    assert begun.membership().members == first.membership().members
    assert begun.membership().membership_hash != first.membership().membership_hash
    assert begun.settings.address == first.settings.address
    assert not (begun.folder / "keys").exists()
    assert begun.approvals() == []
    said = federation.run("server", "study", "more.yaml", code=ConfigurationError.exit_code)
    assert "there is a study more already" in said


def test_a_coordinator_may_lie_in_a_folder_of_that_name_and_a_study_that_is_being_made_is_none_yet(federation):
    (federation.path / "studies").mkdir()
    moved = shutil.copytree(federation.folder, federation.path / "studies/thyroid")
    assert Enrolments.open(moved).office == moved
    federation.run("server", "study", "more.yaml", "--folder", "studies/thyroid")
    assert Enrolments.open(moved / "studies/more").office == moved
    shutil.copytree(moved / "studies/more", moved / "studies/.more.0123.tmp")
    assert [each.study.name for each in Studies(moved).all()] == ["small", "more"]
    assert len(Enrolments.open(moved).all_studies()) == 2


def test_a_further_study_counts_the_cases_that_a_hospital_signed_last(federation):
    write_study(federation, "third", seed=8)
    federation.run("server", "study", "more.yaml")
    request = federation.enrolments.request_file("centerA")
    old = further(federation).request_file("centerA")
    old.write_bytes(request.read_bytes())
    os.utime(old, (1, 1))
    federation.run("server", "study", "third.yaml")
    taken = further(federation, "third").request_file("centerA")
    assert taken.stat().st_mtime_ns == request.stat().st_mtime_ns


def test_what_holds_of_a_key_in_one_study_holds_in_all(federation):
    federation.run("server", "study", "more.yaml")
    before = further(federation).membership()
    federation.run("client", "keygen", "--site", "centerA", "--node")
    federation.run("client", "enroll", "--site", "centerA", "--study", "study.yaml")
    federation.run("server", "enroll", "centerA.request.json")
    renewed = federation.enrolments.sites()["centerA"].node_key
    assert renewed != before.member("centerA").node_key
    assert further(federation).sites()["centerA"].node_key == renewed
    assert further(federation).membership().membership_hash == before.membership_hash
    federation.run("server", "revoke", "centerB", "--folder", "coordinator/studies/more")
    assert set(further(federation).sites()) == set(federation.enrolments.sites()) == {"centerA", "centerC"}
    assert set(Studies(federation.folder).sites()) == {"centerA", "centerC"}


def test_a_hospital_that_leaves_one_study_stays_in_the_other(federation):
    federation.run("server", "study", "more.yaml")
    federation.run("server", "leave", "centerB", "--folder", "coordinator/studies/more")
    assert "centerB" not in further(federation).sites()
    assert "centerB" in federation.enrolments.sites()
    assert "centerB" in Studies(federation.folder).sites()
    assert answer(federation, SiteFacts(site="centerB", study_hash="a" * 64)).further_studies == ()


def test_a_name_is_one_hospital_in_all_studies(federation):
    """A hospital with another identity asks to be centerB in a study in which centerB is not."""
    write_study(federation, federation={"sites": ["centerA", "centerC", "centerD"]})
    federation.run("server", "study", "more.yaml")
    assert further(federation).waiting_for() == ["centerD"]
    (federation.path / "centerB/state/keys").rename(federation.path / "old-keys")
    federation.run("client", "keygen", "--site", "centerB")
    federation.run("client", "enroll", "--site", "centerB", "--study", "coordinator/studies/more/study.yaml", "--join")
    folder = ("--folder", "coordinator/studies/more")
    said = federation.run(
        "server", "enroll", "centerB.request.json", "--join", "--fingerprint", "x", *folder, code=TrustError.exit_code
    )
    assert "centerB is enrolled with another identity" in said


def test_a_site_hears_of_its_own_studies_alone(federation):
    write_study(federation, federation={"sites": ["centerA", "centerC"], "secure_aggregation": False, "min_sites": 2})
    federation.run("server", "study", "more.yaml")
    text = (further(federation).folder / "study.yaml").read_text()
    for site, offered, wanted in (("centerA", (MORE,), text), ("centerB", (), "")):
        said = SiteFacts(site=site, study_hash=federation.enrolments.study.study_hash, wants=MORE)
        facts = answer(federation, said)
        assert (facts.study_name, facts.further_studies, facts.wanted) == ("small", offered, wanted)
    facts = answer(federation, SiteFacts(site="centerB", study_hash=further(federation).study.study_hash))
    assert facts.study_name == "small"
    with pytest.raises(TrustError, match="centerZ is in no study"):
        Studies(federation.folder).answer_site(b"", Signer("centerZ", time.time(), ""))


def test_the_page_says_where_each_study_stands_and_what_wants_a_person_in_it(federation):
    source = study_source(federation.folder)
    assert "Other studies" not in source.show().sections["others"]
    before = source.state()
    federation.run("server", "study", "more.yaml")
    assert source.state() != before
    old = time.time() - (OVERDUE_DAYS + 1) * 86400
    os.utime(further(federation).folder / "membership.json", (old, old))
    shown = source.show().sections["others"]
    assert "<h3>more</h3>" in shown
    assert "approving, 0 of 3 sites did" in shown
    assert "centerB has not approved for 8 days" in shown
    assert "centerB has not approved for 8 days" in federation.run("server", "status", "--check", code=AttentionError.exit_code)


def test_a_study_that_names_no_rule_is_offered_with_the_one_that_the_coordinator_settled(federation):
    said = yaml.safe_load((federation.path / "more.yaml").read_text())["federation"]
    assert said.pop("server_rule") == "fedavg"
    write_study(federation, "silent", federation=said)
    for name, rule in (("silent", "fedavgm"), (MORE, "fedavg")):
        federation.run("server", "study", f"{name}.yaml")
        offered = yaml.safe_load((federation.folder / "studies" / name / "study.yaml").read_text())["federation"]
        assert offered["server_rule"] == rule
        assert further(federation, name).study.federation.server_rule == rule
        assert further(federation, name).study.federation.server_options == ({"momentum": 0.5} if name == "silent" else {})


def test_an_approval_of_a_further_study_is_kept_in_its_folder(federation):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    site = find_site("centerA/more")
    from client.trust.approval import read_approved

    study, _, approval = read_approved(site)
    assert study == further(federation).study
    answer(federation, SiteFacts(site="centerA", study_hash=study.study_hash, approval=approval))
    assert [each.site for each in further(federation).approvals()] == ["centerA"]
    assert federation.enrolments.approvals() == []


def test_a_rehearsal_is_one_round_from_random_weights_under_a_name_of_its_own(federation):
    federation.run("server", "rehearse")
    begun = further(federation, "small-rehearsal")
    assert begun.settings.rehearsal
    assert not federation.enrolments.settings.rehearsal
    study = begun.study
    assert (study.federation.rounds, study.continues) == (1, None)
    assert {study.model.initial_weights.efficientnet.source, study.model.initial_weights.vit.source} == {"random"}
    assert rehearsal_of(study).classes == federation.enrolments.study.classes


def test_the_coordinators_folder_alone_is_started_and_a_survey_passes_on_no_counts(federation, tmp_path):
    federation.run("server", "study", "more.yaml")
    said = federation.run("server", "start", "--folder", "coordinator/studies/more", code=ConfigurationError.exit_code)
    assert "hint: server start --folder coordinator serves all of them" in said
    where = ("--address", "localhost:9443", "--folder", "counts", "--passphrase-file", "passphrase")
    federation.run("server", "survey", "study.yaml", *where)
    for site in SITES:
        federation.run("client", "enroll", "--site", site, "--study", "counts/study.yaml")
        federation.run(
            "server", "enroll", f"{site}.request.json", "--folder", "counts", "--fingerprint", fingerprint_of(federation, site)
        )
    said = federation.run("server", "study", "study.yaml", "--folder", "counts")
    assert "still to enrol: centerA, centerB, centerC" in said
    federation.run("client", "enroll", "--site", "centerA", "--study", "counts/studies/small/study.yaml")
    said = federation.run("server", "enroll", "centerA.request.json", "--folder", "counts/studies/small")
    assert "centerA is enrolled" in said


def fingerprint_of(federation, site):
    return federation.enrolments.sites()[site].fingerprint


# the hospital


def test_a_further_study_has_a_state_of_its_own_and_what_the_site_file_says_is_otherwise_in_it(federation):
    path = federation.path / "sites/centerA.yaml"
    said = yaml.safe_load(path.read_text()) | {"policy": {"training_hours": "20:00-06:00", "minimum_cases": 2}}
    said["studies"] = {MORE: {"manifest": "other.csv", "policy": {"upload_budget_mib": 5}}}
    path.write_text(yaml.safe_dump(said))
    first, site = find_site("centerA"), find_site("centerA/more")
    assert site.manifest == str(federation.path / "sites/other.csv")
    assert site.images == first.images
    assert site.keys_folder == first.keys_folder
    assert (site.policy.upload_budget_mib, site.policy.minimum_cases, site.policy.training_hours) == (5, 1, "20:00-06:00")
    assert site.run_folder == first.service_folder / "studies/more/run"
    said["studies"][MORE]["policy"] = {"training_hours": "08:00-09:00"}
    path.write_text(yaml.safe_dump(said))
    with pytest.raises(ConfigurationError, match="training_hours are those of the site in every study"):
        find_site("centerA")
    with pytest.raises(ConfigurationError, match="is no name of a study"):
        find_site("centerB/../x")


def test_a_study_that_the_coordinator_does_not_have_is_no_study_of_the_site(federation):
    said = federation.run("client", "approve", "--site", "centerA/others", code=TrustError.exit_code)
    assert "the coordinator has no study others for centerA; those it has: none" in said
    assert not (find_site("centerA/others").kit_folder / "kit.json").exists()


def test_counts_of_any_study_tell_who_would_be_separable(federation):
    write_study(federation, federation={"sites": ["centerA", "centerB"], "secure_aggregation": False, "min_sites": 2})
    membership = federation.enrolments.membership()
    site = federation.site("centerA")
    folder = site.run_folder / "study-x"
    folder.mkdir(parents=True)
    counted = Hospitals(study_hash=membership.study_hash, membership_hash=membership.membership_hash, sites=membership.sites)
    entry = Entry(number=1, transcript="c" * 64, answer="d" * 64)
    Diary(folder, counted).note(Kind.HELLO, entry, 1, file_sha256(federation.path / "centerA/manifest.csv"))
    federation.run("server", "study", "more.yaml")
    proposed = further(federation).membership()
    (difference,) = find_differences(find_site("centerA/more"), proposed).values()
    assert difference.separable == ("centerC",)
    said = federation.run("client", "approve", "--site", "centerA/more", "--yes", "0", code=TrustError.exit_code)
    assert "the counts of centerC can be told" in said


def test_a_message_is_answered_by_the_study_that_it_names_and_by_the_first_where_none_is_approved(federation):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    node_of = nodes_of_hospital(federation.path / "sites/centerA.yaml")
    for study_hash, called in (
        (federation.enrolments.study.study_hash, "centerA"),
        (further(federation).study.study_hash, "centerA/more"),
        ("f" * 64, "centerA"),
    ):
        content = wire.request_to_records(Hello(Header(study_hash, "b" * 64, 1, 0, "run", 1)))
        assert node_of(SimpleNamespace(content=content), None).site.called == called
    assert (
        nodes_of_hospital(federation.path / "sites/centerB.yaml")(SimpleNamespace(content=content), None).site.called == "centerB"
    )


@pytest.fixture
def agent(federation):
    """The agent of centerA, whose processes are none."""
    agent = Agent(federation.site("centerA"), federation.path / "sites/centerA.yaml", ServiceManager(""), lines.append)
    agent.children = []
    lines.clear()
    return agent


lines: list[str] = []


def turn(agent):
    agent._find_studies()
    for called, study in list(agent.studies.items()):
        study._asked = float("-inf")
        agent._take_part_in(called, study)
    agent._raise_if_none_goes_on()
    agent._turn()


def test_a_running_service_says_what_is_offered_and_takes_up_what_was_approved(federation, agent):
    turn(agent)
    federation.run("server", "study", "more.yaml")
    turn(agent)
    turn(agent)
    assert [line for line in lines if "offers" in line] == [
        "the coordinator offers study more: read it, client approve --site centerA/more"
    ]
    approve(federation, "centerA")
    turn(agent)
    assert list(agent.studies) == ["centerA", "centerA/more"]
    turn(agent)
    assert "not approved by centerB, centerC" in agent.studies["centerA/more"].trouble
    agent.studies["centerA"].trouble = "another"
    assert agent.line() == "centerA: another; centerA/more: waiting: not approved by centerB, centerC"


def test_an_approval_that_cannot_be_read_is_said_once_and_taken_up_once_it_is_mended(federation, agent):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    approval = find_site("centerA/more").kit_folder / "approval.json"
    before = approval.read_bytes()
    approval.write_bytes(before.replace(b'"centerA"', b'"centerB"'))
    turn(agent)
    turn(agent)
    assert [line for line in lines if "approval.json is of centerB" in line] == [
        "centerA/more: approval.json is of centerB, expected centerA"
    ]
    approval.write_bytes(before)
    turn(agent)
    assert "centerA/more" in agent.studies


def test_a_backup_holds_the_keys_and_ledgers_of_all_studies_and_pixels_of_none(federation):
    site, further_one = find_site("centerA"), find_site("centerA/more")
    for state in (Path(site.state), Path(further_one.state)):
        for name in ("cache/pixels.bin", "report/page.html", "run/ledger.jsonl"):
            (state / name).parent.mkdir(parents=True, exist_ok=True)
            (state / name).write_bytes(b"x")
    federation.run("client", "backup", "--site", "centerA", "backup.tar")
    with tarfile.open(federation.path / "backup.tar") as archive:
        names = archive.getnames()
    assert {"state/run/ledger.jsonl", "state/studies/more/run/ledger.jsonl"} <= set(names)
    assert not [name for name in names if "pixels" in name or "page.html" in name]


def test_a_study_that_a_site_cannot_take_part_in_ends_no_other_and_the_last_one_ends_the_service(federation, agent):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    turn(agent)
    federation.run("server", "leave", "centerA")
    turn(agent)
    assert "the coordinator runs study" in agent.studies["centerA"].trouble
    assert "the coordinator runs study" in agent.line()
    assert "not approved by" in agent.studies["centerA/more"].trouble
    federation.run("server", "leave", "centerA", "--folder", "coordinator/studies/more")
    with pytest.raises((TrustError, NetworkError)):
        turn(agent)


def test_a_study_that_was_refused_for_a_while_goes_on_without_a_restart(federation, agent, monkeypatch):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    turn(agent)

    def refuse_first(facts, kit):
        if kit == agent.studies["centerA"].kit:
            raise TrustError("the clocks are two hours apart", "set them")
        check_study(facts, kit)

    with monkeypatch.context() as patch:
        patch.setattr("client.service.participation.check_study", refuse_first)
        turn(agent)
        assert agent.studies["centerA"].trouble == "the clocks are two hours apart"
        assert not agent.studies["centerA"].agreed
    turn(agent)
    assert not agent.studies["centerA"].refusal
    assert "not approved by" in agent.studies["centerA"].trouble


def test_whose_turn_it_is_is_said_of_the_studies_that_wait(federation):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    first, second = find_site("centerA"), find_site("centerA/more")
    note(first.service_folder / TURN, Turn(time=time.time()))
    with taking_turn(second):
        assert "(its turn comes after centerA/more)" in describe_site(first).line
        assert "its turn" not in describe_site(second).line
    assert "its turn" not in describe_site(first).line
    said = federation.run("client", "status", "--site", "centerA").splitlines()
    assert [line.partition(":")[0] for line in said] == ["centerA", "centerA/more"]


def test_a_patient_who_withdraws_is_in_no_study_any_more(federation):
    federation.run("server", "study", "more.yaml")
    approve(federation, "centerA")
    case = (federation.path / "centerA/manifest.csv").read_text().splitlines()[1].partition(",")[0]
    said = federation.run("client", "withdraw", "--site", "centerA", "--patient", case, "--why", "by letter")
    assert "centerA/more: 1 rows" in said
    for name in ("centerA", "centerA/more"):
        assert Withdrawn.of(find_site(name)).find(case)
    assert (find_site("centerA/more").run_folder / "ledger.jsonl").stat().st_size
