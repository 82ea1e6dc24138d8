"""`client audit`, over what a federation of the two real apps left: what has left a site, and whether it is what arrived."""

import json
import os
import re
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict

import client.app
from client.audit import audit
from client.cli import command_parser
from csasn import identity, wire
from csasn.errors import ConfigurationError, ProtocolError, QuorumError, TrustError
from csasn.privacy.ledger import Contents, Ledger, Occasion
from csasn.privacy.receipt import PURPOSE, read_receipts
from csasn.site import find_site
from csasn.study import read_study
from server.app import coordinate
from server.flower_runtime import FIRST_NODE, RUN_ID, SERVER_NODE, LocalGrid, _identify
from server.preparation import begin
from server.run_directory import RunDirectory

SITES = ("centerA", "centerB")


class GridInside(LocalGrid):
    """The local grid without processes: a message is answered by the client app when it is pushed."""

    def __init__(self, configs):
        self._configs = {FIRST_NODE + index: config for index, config in enumerate(configs)}
        self._replies, self._next_id = {}, 1
        self.answered = lambda reply: reply
        _identify(SERVER_NODE)

    def push_messages(self, messages):
        identities = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(self._next_id)
            self._next_id += 1
            node = message.metadata.dst_node_id
            _identify(node)
            reply = self.answered(client.app.app(message, Context(RUN_ID, node, dict(self._configs[node]), RecordDict(), {})))
            self._replies[message.metadata.message_id] = reply
            _identify(SERVER_NODE)
            identities.append(message.metadata.message_id)
        return identities

    def pull_messages(self, message_ids):
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]


@pytest.fixture(scope="module")
def run_federation(write_small_hospitals):
    """run_federation(folder, policy={site: policy}, answered=...) -> the run directory, and how the run ended."""

    def run(folder, policies=None, answered=None):
        hospitals, path = folder / "h", folder / "run"
        study_file = write_small_hospitals(hospitals, SITES, num_cases=12, federation={"rounds": 1})
        for site, policy in (policies or {}).items():
            file = hospitals / "sites" / f"{site}.yaml"
            file.write_text(file.read_text() + f"policy: {json.dumps(policy)}\n")
        study = read_study(study_file)
        begin(path, study, {site: find_site(site, folder=hospitals / "sites") for site in SITES})
        files = {"study-file": str(path / "study.yaml"), "membership-file": str(path / "membership.json")}
        configs = [
            {**files, "site-file": str(hospitals / "sites" / f"{site}.yaml"), "state-folder": str(path / "sites" / site)}
            for site in SITES
        ]
        grid = GridInside(configs)
        grid.answered = answered or grid.answered
        directory = RunDirectory(path)
        try:
            coordinate(grid, dict(zip(SITES, grid.get_node_ids(), strict=True)), directory)
            return path, None
        except QuorumError as error:
            return path, error
        finally:
            directory.close()

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run_federation):
    path, error = run_federation(tmp_path_factory.mktemp("audit"))
    assert error is None
    return path


@pytest.fixture
def files(finished, tmp_path):
    """Copies of centerA's ledger and of the coordinator's receipts."""
    for source in (finished / "sites/centerA/ledger.jsonl", finished / "received.jsonl"):
        shutil.copy(source, tmp_path)
    return tmp_path / "ledger.jsonl", tmp_path / "received.jsonl"


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


def test_the_audit_of_a_run_says_in_words_what_has_left_and_that_it_is_what_arrived(files):
    report = audit(*files, "centerA")
    (run,) = report.runs
    assert run.messages == {"hello": 1, "train": 1, "validate": 1, "finish": 1}
    assert {array.split()[0] for array in run.arrays} == {"arrays/counts", "arrays/update"}
    assert (run.refused, run.absences, run.not_received, report.receipts) == ({}, {}, [], 4)
    text = "\n".join(report.lines())
    assert "its chain is whole" in text
    assert "4 messages at the coordinator, each as recorded here, in hash and size" in text
    assert "no images, no case identifiers: only these arrays:" in text
    assert re.search(r"run run-[0-9a-f]{12}: 4 messages sent \(1 hello, 1 train, 1 validate, 1 finish\)", text)


def test_the_bytes_of_the_audit_are_those_that_the_coordinator_counted(files):
    received = [receipt for receipt in read_receipts(files[1])[0] if receipt.site == "centerA"]
    assert audit(*files, "centerA").runs[0].num_bytes == sum(receipt.bytes for receipt in received)


def test_the_receipts_name_no_other_sites_lines_in_a_sites_audit(files):
    assert audit(*files, "centerA").receipts == 4
    assert {receipt.site for receipt in read_receipts(files[1])[0]} == set(SITES)


def test_without_receipts_the_chain_alone_is_verified_and_that_is_said(files):
    report = audit(files[0], site="centerA")
    assert (report.receipts, report.runs[0].not_received) == (None, None)
    assert "not compared with the coordinator" in "\n".join(report.lines())


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_an_edited_line_is_named(number, files):
    lines = lines_of(files[0])
    lines[number] = lines[number].replace(b'"outcome":"sent"', b'"outcome":"cut"', 1)
    files[0].write_bytes(b"".join(lines))
    with pytest.raises(ProtocolError, match=f"line {number + 1}: its text does not fit its hash") as error:
        audit(*files, "centerA")
    assert error.value.exit_code == 7


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_ledger_cut_at_its_end_is_found_by_the_receipts(kept, files):
    files[0].write_bytes(b"".join(lines_of(files[0])[:kept]))
    with pytest.raises(ProtocolError, match=f"line {kept + 1}: the coordinator received it, and this ledger ends at line {kept}"):
        audit(*files, "centerA")


def test_a_ledger_written_anew_is_found_by_the_receipts(files):
    """It tells of less, and its own chain is whole."""
    entries = [json.loads(line) for line in lines_of(files[0])]
    files[0].unlink()
    ledger = Ledger(files[0])
    for entry in entries:
        occasion = Occasion(entry["run"], entry["round"], entry["attempt"], entry["kind"])
        ledger.append(occasion, Contents((), (), entry["bytes"], entry["sha256"]))
    assert audit(files[0], site="centerA").num_lines == 4
    with pytest.raises(ProtocolError, match="line 1: the coordinator received another line with this number"):
        audit(*files, "centerA")


def change_receipt(path, number, **changes):
    lines = path.read_text().splitlines()
    places = [index for index, line in enumerate(lines) if json.loads(line)["site"] == "centerA"]
    lines[places[number]] = json.dumps(json.loads(lines[places[number]]) | changes)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("changes", [{"bytes": 7}, {"sha256": "b" * 64}])
def test_a_message_that_differs_in_size_or_hash_is_found(changes, files):
    change_receipt(files[1], 2, **changes)
    with pytest.raises(ProtocolError, match=r"line 3: recorded as sent with .* the coordinator received"):
        audit(*files, "centerA")


def test_what_was_refused_here_cannot_have_arrived(files):
    first = json.loads(lines_of(files[0])[0])
    ledger = Ledger(files[0])
    head = ledger.append(Occasion("run", 1, 9, "train"), Contents((), (), 24, first["sha256"]), "refused", "too large")
    change_receipt(files[1], 3, count=head.count, hash=head.hash, before=head.before, sha256=head.sha256, bytes=24)
    with pytest.raises(ProtocolError, match="line 5: recorded as refused"):
        audit(*files, "centerA")


def test_a_line_without_a_receipt_is_said_in_words_and_is_no_alarm(files):
    kept = [line for line in lines_of(files[1]) if not (b'"centerA"' in line and b'"train"' in line)]
    files[1].write_bytes(b"".join(kept))
    with files[0].open("ab") as file:
        file.write(lines_of(files[0])[0][:50])
    report = audit(*files, "centerA")
    assert report.runs[0].not_received == [2]
    assert "line 2 is recorded as sent, not received: it was lost on its way, or the site stopped" in "\n".join(report.lines())


def test_auditing_changes_nothing(files):
    with files[0].open("ab") as file:
        file.write(b'{"count":5,"ti')
    before = files[0].read_bytes()
    audit(*files, "centerA")
    assert files[0].read_bytes() == before


def test_a_receipt_that_the_site_did_not_sign_is_found(files):
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    signed = [
        receipt.model_copy(update={"signature": identity.sign(key, PURPOSE, receipt.head.statement)})
        for receipt in read_receipts(files[1])[0]
    ]
    files[1].write_text("".join(receipt.model_dump_json() + "\n" for receipt in signed))
    report = audit(*files, "centerA", public)
    assert report.signatures_checked
    change_receipt(files[1], 1, signature="ab" * 64)
    with pytest.raises(TrustError, match="ledger-head signature of centerA is not valid"):
        audit(*files, "centerA", public)


def test_a_file_that_is_not_there_is_named(tmp_path, files):
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl is not there"):
        audit(tmp_path / "nothing.jsonl")
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl is not there"):
        audit(files[0], tmp_path / "nothing.jsonl")


def command(*arguments):
    parsed = command_parser().parse_args(["audit", *map(str, arguments)])
    parsed.command(parsed)


def test_the_command_prints_words_or_json(files, capsys):
    command("--site", "centerA", "--ledger", files[0], "--received", files[1])
    assert "its chain is whole" in capsys.readouterr().out
    command("--site", "centerA", "--ledger", files[0], "--json")
    assert json.loads(capsys.readouterr().out)["num_lines"] == 4


def test_the_command_finds_the_ledger_by_the_site_file(finished, capsys, tmp_path):
    (tmp_path / "state/run").mkdir(parents=True)
    shutil.copy(finished / "sites/centerA/ledger.jsonl", tmp_path / "state/run")
    (tmp_path / "centerA.yaml").write_text("{site: centerA, manifest: m.csv, images: i, state: state}\n")
    command("--site", "centerA", "--config", tmp_path / "centerA.yaml")
    assert "centerA: the ledger has 4 lines" in capsys.readouterr().out


def test_a_site_over_its_own_budget_sends_a_line_in_place_of_its_update(tmp_path, run_federation):
    path, error = run_federation(tmp_path, {"centerB": {"upload_budget_mib": 0.25}})
    assert "centerB: refused: the gate refused the answer: it has" in error.message
    assert "this site's budget for the round has 262144 left" in error.message
    report = audit(path / "sites/centerB/ledger.jsonl", path / "received.jsonl", "centerB")
    (run,) = report.runs
    assert list(run.refused) == [2]
    assert run.messages == {"hello": 1, "train": 1}
    assert run.not_received == []
    assert "refused at line 2, nothing of it was sent: the gate refused the answer" in "\n".join(report.lines())
    assert "line 3 sent in place of an answer: refused: the gate" in "\n".join(report.lines())


def test_a_broken_ledger_sends_nothing_and_the_coordinator_says_so(tmp_path, run_federation, caplog):
    def damage(reply):
        ledger = tmp_path / "run/sites/centerB/ledger.jsonl"
        if ledger.exists() and reply.has_content() and wire.head_from_records(reply.content).count == 1:
            os.truncate(ledger, 0)
        return reply

    path, error = run_federation(tmp_path, answered=damage)
    assert "centerB: refused: its ledger is broken or cannot be written, so it sends nothing" in error.message
    assert "nothing is sent: ledger.jsonl line 1: it is gone" in caplog.text
    assert (path / "sites/centerB/ledger.jsonl").stat().st_size == 0


def test_a_site_whose_ledger_starts_anew_is_named_by_the_coordinator(tmp_path, run_federation):
    def forget(reply):
        if reply.has_content() and wire.head_from_records(reply.content).count == 1:
            (tmp_path / "run/sites/centerB/ledger.jsonl").unlink(missing_ok=True)
            client.app._ledger.cache_clear()
        return reply

    path, error = run_federation(tmp_path, answered=forget)
    assert "centerB: answer breaks the contract: the site's ledger went back from line 1 to line 1" in error.message
    assert any(receipt.refused for receipt in read_receipts(path / "received.jsonl")[0])
