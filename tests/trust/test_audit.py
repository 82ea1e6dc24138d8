"""`client audit`, over what a federation of the two real apps left: what has left a site, and whether it is what arrived."""

import json
import os
import re
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, RecordDict

import client.flower.app
from client.trust.audit import audit
from client.worker.outbox import Outbox
from command_line import parse
from csasn import wire
from csasn.errors import ConfigurationError, ProtocolError, QuorumError, TrustError
from csasn.federated.messages import Absence, Header, Hello, Reason
from csasn.federated.receipt import PURPOSE, START, read_receipts
from csasn.privacy.ledger import Contents, Ledger, Occasion
from csasn.site import find_site
from csasn.study import read_study
from csasn.trust import identity
from csasn.trust.membership import Member, Membership
from server.flower.app import coordinate
from server.flower.runtime import FIRST_NODE, RUN_ID, SERVER_NODE, LocalGrid, _identify
from server.run.preparation import begin
from server.run.receipts import Receipts
from server.run.run_directory import RunDirectory

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
            reply = self.answered(
                client.flower.app.app(message, Context(RUN_ID, node, dict(self._configs[node]), RecordDict(), {}))
            )
            self._replies[message.metadata.message_id] = reply
            _identify(SERVER_NODE)
            identities.append(message.metadata.message_id)
        return identities

    def pull_messages(self, message_ids):
        return [self._replies.pop(identity) for identity in message_ids if identity in self._replies]


@pytest.fixture(scope="module")
def run_federation(write_small_hospitals):
    """run_federation(folder, policy={site: policy}, answered=..., option=...) -> the run directory, and how the run ended."""

    def run(folder, policies=None, answered=None, **federation):
        hospitals, path = folder / "h", folder / "run"
        federation = {"rounds": 1, "batchnorm": "shared", **federation}
        study_file = write_small_hospitals(hospitals, SITES, num_cases=12, federation=federation)
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


def go_on(ledger, received, site, number, run="run"):
    """`number` more messages of a site, each with its receipt at the coordinator; how its ledger was marked at each."""
    receipts, told = Receipts(received.parent, Membership.model_construct(members=(Member(site=site, weight_units=64),))), []
    for attempt in range(number):
        records = Outbox(ledger).post(Absence(Reason.DISK), Occasion(run, 1, attempt, "hello"), None)
        told.append(receipts.take(site, Hello(Header("a" * 64, "b" * 64, 1, 1, run, attempt)), records))
    return told


def bring_back(files, kept, says_so):
    """The ledger as in a copy of `kept` lines; `says_so` if the diary is newer than it, as it is where the copy is of the ledger
    alone."""
    lines = len(lines_of(files[0]))
    files[0].write_bytes(b"".join(lines_of(files[0])[:kept]))
    ledger = Ledger(files[0])
    if says_so:
        ledger.expect(lines)
    return ledger


@pytest.mark.parametrize("kept", [0, 1, 3])
@pytest.mark.parametrize("more", [0, 1, 9])
def test_a_ledger_that_says_that_it_was_brought_back_is_told_of_and_not_called_rewritten(kept, more, files):
    told = go_on(bring_back(files, kept, says_so=True), files[1], "centerA", more)
    assert [bool(marked) for marked in told] == [True, *[False] * (more - 1)][:more]
    report = audit(*files, "centerA")
    (lost,) = report.lost
    assert (lost.chain, lost.messages, lost.first, lost.last) == (START, 4 - kept, kept + 1, 4)
    assert report.receipts == kept + more
    assert report.restored == {kept + 1: f"the ledger ended at line {kept}, and had 4 when this site last answered"}
    assert sum(len(run.not_received) for run in report.runs if run.not_received is not None) == 0
    text = "\n".join(report.lines())
    lines = "line 4" if kept == 3 else f"lines {kept + 1} to 4"
    messages = "1 message" if kept == 3 else f"{4 - kept} messages"
    assert f"the coordinator has {messages} of the first chain, {lines}, which this ledger no longer holds: it was brought" in text
    assert f"line {kept + 1} begins a new chain, since the ledger was brought back from a copy, or lost" in text


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_ledger_that_the_coordinator_marked_is_told_of_and_not_called_rewritten(kept, files):
    """Ledger and diary are of one copy, so that the site itself saw no break."""
    told = go_on(bring_back(files, kept, says_so=False), files[1], "centerA", 2)
    assert [bool(marked) for marked in told] == [True, False]
    report = audit(*files, "centerA")
    assert report.restored == {}
    assert [(lost.messages, lost.first, lost.last) for lost in report.lost] == [(4 - kept, kept + 1, 4)]
    assert report.receipts == kept + 2


def test_a_ledger_brought_back_twice_tells_of_both_chains(files):
    """The second time from a copy that is older than the first break, whose line is gone too."""
    go_on(bring_back(files, 2, says_so=True), files[1], "centerA", 3)
    go_on(bring_back(files, 1, says_so=True), files[1], "centerA", 1)
    report = audit(*files, "centerA")
    assert [(lost.chain == START, lost.messages, lost.first, lost.last) for lost in report.lost] == [
        (True, 3, 2, 4),
        (False, 3, 4, 6),
    ]
    assert report.receipts == 1 + 1
    assert re.search(r"the coordinator has 3 messages of chain [0-9a-f]{16}, lines 4 to 6", "\n".join(report.lines()))


@pytest.mark.parametrize("says_so", [False, True])
def test_a_break_excuses_nothing_that_came_after_it(says_so, files):
    go_on(bring_back(files, 2, says_so), files[1], "centerA", 3)
    whole = lines_of(files[0])
    files[0].write_bytes(b"".join(whole[:-1]))
    with pytest.raises(ProtocolError, match=f"line {len(whole)}: the coordinator received it, and this ledger ends at line"):
        audit(*files, "centerA")


def test_a_break_excuses_no_line_that_was_before_it(files):
    """Line 1 is another one, and the ledger's own chain is whole."""
    entries = [json.loads(line) for line in lines_of(files[0])]
    files[0].unlink()
    ledger = Ledger(files[0])
    ledger.append(Occasion("run", 0, 1, "hello"), Contents((), (), 1, "c" * 64))
    ledger.append(Occasion("run", 1, 2, "train"), Contents((), (), 1, "c" * 64))
    ledger.expect(len(entries))
    with pytest.raises(ProtocolError, match="line 1: the coordinator received another line with this number"):
        audit(*files, "centerA")


def test_a_line_that_says_less_than_what_was_received_is_found_also_where_a_break_follows(files):
    change_receipt(files[1], 0, bytes=7)
    go_on(bring_back(files, 2, says_so=True), files[1], "centerA", 1)
    with pytest.raises(ProtocolError, match=r"line 1: recorded as sent with .* the coordinator received 7 bytes"):
        audit(*files, "centerA")


def test_a_break_that_another_site_made_excuses_nothing(files):
    other = Ledger(files[0].with_name("other.jsonl"))
    go_on(other, files[1], "centerB", 1)
    assert any(receipt.marked for receipt in read_receipts(files[1])[0])
    files[0].write_bytes(b"".join(lines_of(files[0])[:3]))
    with pytest.raises(ProtocolError, match="line 4: the coordinator received it, and this ledger ends at line 3"):
        audit(*files, "centerA")


def test_a_file_that_is_not_there_is_named(tmp_path, files):
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl is not there"):
        audit(tmp_path / "nothing.jsonl")
    with pytest.raises(ConfigurationError, match=r"nothing\.jsonl is not there"):
        audit(files[0], tmp_path / "nothing.jsonl")


def command(*arguments):
    parse("client", "audit", *arguments)()


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


def test_a_site_over_its_own_budget_sends_a_word_in_place_of_its_update(tmp_path, run_federation, caplog):
    path, error = run_federation(tmp_path, {"centerB": {"upload_budget_mib": 0.25}})
    assert "centerB: its upload budget is used up" in error.message
    assert "this site's budget for the round has 262144 left" in caplog.text
    report = audit(path / "sites/centerB/ledger.jsonl", path / "received.jsonl", "centerB")
    (run,) = report.runs
    refused = list(run.refused)
    assert refused[0] == 2
    assert run.messages == {"hello": 1, "train": len(refused)}
    assert list(run.absences.values()) == ["its upload budget is used up"] * len(refused)
    assert run.not_received == []
    assert "refused at line 2, nothing of it was sent: the gate refused the answer" in "\n".join(report.lines())
    assert "line 3 sent in place of an answer: its upload budget is used up" in "\n".join(report.lines())


def test_a_broken_ledger_sends_nothing_and_the_coordinator_says_so(tmp_path, run_federation, caplog):
    def damage(reply):
        ledger = tmp_path / "run/sites/centerB/ledger.jsonl"
        if ledger.exists() and reply.has_content() and wire.head_from_records(reply.content).count == 1:
            os.truncate(ledger, 0)
        return reply

    path, error = run_federation(tmp_path, answered=damage, answer_deadline_s=0.5)
    assert "centerB: its disk is full or cannot be written: its ledger is broken or cannot be written" in error.message
    assert "nothing is sent: ledger.jsonl line 1: it is gone" in caplog.text
    assert (path / "sites/centerB/ledger.jsonl").stat().st_size == 0


def test_a_site_whose_ledger_was_lost_begins_a_new_chain_is_named_and_stops_nothing(tmp_path, run_federation):
    def forget(reply):
        ledger = tmp_path / "run/sites/centerB/ledger.jsonl"
        if reply.metadata.src_node_id == FIRST_NODE + 1 and reply.metadata.message_type == "train":
            ledger.unlink()
            client.flower.app._node.cache_clear()
        return reply

    path, error = run_federation(tmp_path, answered=forget)
    assert error is None
    events = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] == "ledger-marked"]
    assert [event["site"] for event in told] == ["centerB"]
    assert told[0]["how"] == "the site's ledger begins a new chain at line 2, after line 2: it was brought back, or lost"
    marked = [receipt.marked for receipt in read_receipts(path / "received.jsonl")[0] if receipt.site == "centerB"]
    assert marked == ["", "", told[0]["how"], "", ""]  # it asked for the whole model, then answered the last two questions
    report = audit(path / "sites/centerB/ledger.jsonl", path / "received.jsonl", "centerB")
    assert [lost.messages for lost in report.lost] == [2]
    assert list(report.restored) == [1]
