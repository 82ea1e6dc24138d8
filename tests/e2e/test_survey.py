"""A survey of a deployment on loopback, by the public commands, and the study after it, under the same keys."""

import json
import os

import pytest

from csasn.platform.supervision import free_port
from csasn.trust.enrolment import EnrolmentRequest
from e2e.deployment import COORDINATOR, Deployment

SITES = ("centerA", "centerB", "centerC")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory, write_small_hospitals):
    """A survey that came to its end, though the coordinator was killed while sites counted."""
    folder = tmp_path_factory.mktemp("survey") / "deployment"
    write_small_hospitals(folder, SITES, num_cases=60, federation={"secure_aggregation": True})
    deployment = Deployment(folder)
    deployment.enrol(f"127.0.0.1:{free_port()}", begin="survey")
    deployment.start_all()
    try:
        deployment.wait_for(lambda: deployment.events("survey-started"), "the survey is asked for", 300)
        deployment.kill(COORDINATOR)
        deployment.start(COORDINATOR)
        deployment.wait_for(lambda: deployment.events("run-finished"), "the survey is finished", 300)
        deployment.wait_for((deployment.run_path / "survey.html").exists, "the page is written")
        codes = {site: deployment.exit_code(site) for site in SITES}
        deployment.end(COORDINATOR)
        yield deployment, codes
    finally:
        deployment.close()


def test_a_survey_ends_for_coordinator_and_sites_with_the_counts_of_the_local_engine(surveyed):
    deployment, codes = surveyed
    assert codes == dict.fromkeys(SITES, 0)
    survey = json.loads(deployment.run("server", "report", "--json"))
    assert (survey["status"], survey["engine"]) == ("complete", "deployment")
    deployment.run("server", "survey", "study.yaml", "--sites", "sites", "--out", "local", within_s=300)
    local = json.loads((deployment.folder / "local/survey.json").read_text())
    assert survey["tables"] == local["tables"]
    assert survey["tables"][0]["rows"][0]["count"] == 60 + 63 + 66
    said = deployment.run("server", "report", COLUMNS="120")
    assert f"open {deployment.run_path / 'survey.html'}".replace(f"{deployment.folder}/", "") in said
    assert "a survey, which trains nothing" in deployment.run("server", "status", COLUMNS="300")


def test_the_requests_say_no_number_of_cases(surveyed):
    deployment, _ = surveyed
    for site in SITES:
        request = json.loads((deployment.folder / f"{site}.request.json").read_text())
        assert request["enrolment"]["num_training_cases"] == 1


def test_ledger_and_receipts_of_a_survey_agree(surveyed):
    deployment, _ = surveyed
    received = deployment.folder / "centerB.received.jsonl"
    received.write_text(deployment.run("server", "receipts", "centerB"))
    said = deployment.run("client", "audit", "--site", "centerB", "--received", str(received))
    assert "signed by this site" in said
    assert "nothing was trained" in said
    ledger = deployment.folder / "centerB/state/run" / "ledger.jsonl"
    assert {json.loads(line)["kind"] for line in ledger.read_text().splitlines()} == {"survey", "collect"}


def test_the_study_after_it_is_enrolled_and_approved_by_itself_under_the_same_keys(surveyed):
    deployment, _ = surveyed
    keys = {site: json.loads((deployment.folder / f"{site}.request.json").read_text())["enrolment"] for site in SITES}
    os.rename(deployment.folder / "coordinator", deployment.folder / "survey")
    address = f"127.0.0.1:{free_port()}"
    deployment.run("server", "init", "study.yaml", "--address", address, "--passphrase-file", "passphrase")
    for site in SITES:
        deployment.run("client", "enroll", "--site", site, "--study", "study.yaml")
        request = json.loads((deployment.folder / f"{site}.request.json").read_text())["enrolment"]
        assert {key: request[key] for key in ("identity", "node_key")} == {key: keys[site][key] for key in ("identity", "node_key")}
        assert request["num_training_cases"] > 1
        fingerprint = EnrolmentRequest.model_validate_json((deployment.folder / f"{site}.request.json").read_bytes())
        deployment.run("server", "enroll", f"{site}.request.json", "--fingerprint", fingerprint.enrolment.fingerprint)
    deployment.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip", code=11)
    deployment.run("client", "install", "--site", "centerA", "coordinator/kits/centerA.kit.zip", "--replace")
    proposed, prefix = str(deployment.folder / "coordinator/membership.json"), deployment.membership_hash()[:12]
    said = deployment.run("client", "approve", "--site", "centerA", "--membership", proposed, "--yes", prefix)
    assert "trains csasn-test" in said
