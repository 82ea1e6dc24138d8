"""Secure aggregation through the real coordinator, workers and files: the same model as in plain, and every site in every sum."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.worker.kept import PENDING_FILE
from client.worker.learner import Learner
from csasn.errors import QuorumError, TrainingError
from csasn.federated.messages import AboutModel, Absence, Answer, Collect, Hello, Kind, ModelUpdate, Ready, Reason
from csasn.federated.secagg.keys import sign_key
from csasn.trust.identity import sign

FOUR = ("centerA", "centerB", "centerC", "centerD")
SECURE = {"secure_aggregation": True, "rounds": 2}
QUESTIONS = [Kind.HELLO, Kind.MEASURE, Kind.TRAIN, Kind.VALIDATE, Kind.FINISH]
# each question with its two exchanges, the second of which names it
EXCHANGES = [(kind, collects) for kind in QUESTIONS for collects in (False, True)]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr("server.run.exchange.FIRST_PAUSE_S", 0.001)


def masked(federate, name="run", tamper=None, **changes):
    return federate(name, tamper=tamper, sites=FOUR, federation=SECURE | changes)


def plain(federate, **changes):
    return federate("plain", sites=FOUR, federation=SECURE | {"secure_aggregation": False} | changes)


@pytest.mark.parametrize("bits", [16, 8])
def test_masked_or_plain_the_model_its_counts_and_its_statistics_are_the_same(federate, bits):
    hidden, seen = masked(federate, upload_bits=bits), plain(federate, upload_bits=bits)
    one, other = hidden.run(), seen.run()
    assert hidden.state_hash() == seen.state_hash()
    for block, values in one.counts.items():
        np.testing.assert_array_equal(values, other.counts[block])
    assert [e["clipped_share"] for e in hidden.events("round-finished")] == [
        e["clipped_share"] for e in seen.events("round-finished")
    ]


@pytest.mark.parametrize("mode", ["dynamic", "static", "balanced", "none"])
def test_every_class_weighting_follows_from_masked_sums_alone(federate, mode):
    runs = [
        federate(name, sites=FOUR, class_weighting={"mode": mode}, federation=SECURE | {"secure_aggregation": name == "masked"})
        for name in ("masked", "plain")
    ]
    for run in runs:
        run.run()
    weights = [[request.weighting.omega_K for _, request in run.requests if request.kind is Kind.VALIDATE] for run in runs]
    np.testing.assert_allclose(weights[0][0], weights[1][0], rtol=0, atol=1e-12)


@pytest.fixture
def expected(undisturbed):
    """The state hash of a run of so many rounds in which nothing happens."""
    return lambda rounds: undisturbed(sites=FOUR, federation=SECURE | {"rounds": rounds}).state_hash()


def is_exchange(request, kind, collects, current=None):
    """Whether a request is of this exchange of this kind of question, in this round."""
    of = request.of if isinstance(request, Collect) else request.kind
    return (of, isinstance(request, Collect)) == (kind, collects) and current in (None, request.header.round)


class Loses:
    """Loses what a site says in one exchange, so many times."""

    def __init__(self, kind, collects, site, times, reason=None):
        self.exchange, self.site, self.left, self.reason = (kind, collects), site, times, reason

    def __call__(self, site, request, answer):
        if site == self.site and self.left and is_exchange(request, *self.exchange):
            self.left -= 1
            return Absence(self.reason) if self.reason else None
        return answer


@pytest.mark.parametrize(("kind", "collects"), EXCHANGES)
def test_a_site_lost_at_any_exchange_is_waited_for_and_the_bits_are_the_same(federate, expected, kind, collects):
    """More often than a round in plain has attempts."""
    federation = masked(federate, tamper=Loses(kind, collects, "centerC", 6), rounds=1)
    finished = federation.run()
    assert federation.state_hash() == expected(1)
    assert finished.counts
    assert all(event["participants"] == list(FOUR) for event in federation.events("round-finished"))
    waiting = [event["sites"] for event in federation.events("waiting")]
    assert waiting == [{"centerC": "no answer within the deadline"}, {}]


@pytest.mark.parametrize("reason", [reason for reason in Reason if not reason.is_refusal and reason is not Reason.NUMBER])
def test_whatever_keeps_a_site_away_for_a_while_it_is_waited_for(federate, expected, reason):
    federation = masked(federate, tamper=Loses(Kind.TRAIN, False, "centerC", 3, reason), rounds=1)
    federation.run()
    assert federation.state_hash() == expected(1)


@pytest.mark.parametrize("collects", [False, True])
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason.is_refusal])
def test_a_refusal_stops_the_run_and_names_the_site(federate, reason, collects):
    federation = masked(federate, tamper=Loses(Kind.TRAIN, collects, "centerC", 1, reason))
    with pytest.raises(QuorumError, match=f"^centerC: {reason.value}$"):
        federation.run()
    assert federation.directory.load().round == 0


class Killed(BaseException):
    pass


def kill_at(kind, collects, current=None, site="centerC"):
    """Kills the coordinator when this site has said its word in an exchange, before the word comes."""

    def kill(name, request, answer):
        if name == site and is_exchange(request, kind, collects, current):
            raise Killed
        return answer

    return kill


@pytest.mark.parametrize(("kind", "collects"), EXCHANGES)
def test_a_coordinator_killed_at_any_exchange_goes_on_to_the_same_bits(federate, expected, kind, collects):
    federation = masked(federate, tamper=kill_at(kind, collects, 2 if kind is Kind.TRAIN else None))
    with pytest.raises(Killed):
        federation.run()
    resumed = masked(federate)
    assert resumed.run().counts
    assert resumed.state_hash() == expected(2)


def test_a_coordinator_killed_between_sum_and_checkpoint_goes_on_to_the_same_bits(federate, expected, monkeypatch):
    undisturbed, federation = expected(2), masked(federate)
    save = federation.directory.save

    def kill(state):
        if state.round == 2:
            raise Killed
        save(state)

    monkeypatch.setattr(federation.directory, "save", kill)
    with pytest.raises(Killed):
        federation.run()
    trained = count_training(monkeypatch)
    resumed = masked(federate)
    resumed.run()
    assert resumed.state_hash() == undisturbed
    assert trained == []  # what it came to was on the sites' disks


def count_training(monkeypatch):
    """A list that grows with each training."""
    trained, train = [], Learner._train
    monkeypatch.setattr(Learner, "_train", lambda *given: trained.append(1) or train(*given))
    return trained


def test_a_worker_killed_after_every_word_goes_on_with_the_same_bits_and_trains_each_round_once(federate, expected, monkeypatch):
    def restart(site, request, answer):
        if site == "centerB":
            federation.restart_worker(site)
        return answer

    undisturbed, trained = expected(2), count_training(monkeypatch)
    federation = masked(federate, tamper=restart)
    federation.run()
    assert len(trained) == 2 * len(FOUR)
    assert federation.state_hash() == undisturbed


def pending_of(federation, site):
    (path,) = (federation.path / "sites" / site).glob(f"study-*/{PENDING_FILE}")
    return path


def test_where_a_site_lost_its_answer_the_question_is_asked_under_the_next_number_and_none_has_two_sums(federate):
    """As after it was brought back from a backup, in which no such file is: others have answered under its old key."""
    views = {}

    def forget(site, request, answer):
        if isinstance(request, Collect) and request.of is Kind.TRAIN and isinstance(answer, Answer):
            views.setdefault((site, request.header.number), set()).add(answer.sealing.view)
            if site == "centerB" and request.header.number == 1:
                pending_of(federation, site).unlink()
                federation.restart_worker(site)
                return None
        return answer

    federation = masked(federate, tamper=forget)
    federation.run()
    assert all(len(seen) == 1 for seen in views.values())
    rounds = {r.header.number: r.header.round for _, r in federation.requests if r.kind is Kind.TRAIN}
    assert rounds == {1: 1, 2: 1, 3: 2}
    assert [event["round"] for event in federation.events("round-finished")] == [1, 2]


def test_the_same_question_again_gives_the_same_word_from_disk_without_training(federate, monkeypatch):
    federation = masked(federate, tamper=kill_at(Kind.TRAIN, False, 1, site="centerD"))
    with pytest.raises(Killed):
        federation.run()
    first, request = [r for site, r in federation.requests if site == "centerA" and r.kind in (Kind.MEASURE, Kind.TRAIN)][:2]
    whole = first.model.whole.copy()
    federation.contract.move_(whole, request.model.step)
    request = replace(request, model=ModelUpdate(request.model.state_hash, whole))  # a worker that starts again holds no model
    trained, said = count_training(monkeypatch), []
    for attempt in (1, 2, 3):
        federation.restart_worker("centerA")
        again = replace(request, header=replace(request.header, run="another", attempt=attempt))
        said += [federation._worker("centerA").answer(again) for _ in range(2)]
    assert isinstance(said[0], Ready)
    assert all(word == said[0] for word in said)
    assert trained == []


def test_what_is_collected_again_is_the_same_to_the_byte_also_after_a_restart(federate):
    collected = []

    def tamper(site, request, answer):
        if is_exchange(request, Kind.TRAIN, True, 1) and site == "centerA":
            collected.append((request, answer))
        if collected and site == "centerD":
            raise Killed
        return answer

    federation = masked(federate, tamper=tamper)
    with pytest.raises(Killed):
        federation.run()
    ((request, first),) = collected
    same = []
    for _ in range(2):
        same += [federation._worker("centerA").answer(request) for _ in range(2)]
        federation.restart_worker("centerA")
    for again in same:
        assert again.update_P.tobytes() == first.update_P.tobytes()
        assert again.counts.tobytes() == first.counts.tobytes()
        assert again.sealing == first.sealing


def test_a_key_that_the_site_did_not_sign_stops_the_run_with_its_name(federate):
    stranger = Ed25519PrivateKey.generate()

    def lie(site, request, answer):
        if site == "centerB" and is_exchange(request, Kind.TRAIN, False):
            return replace(answer, key=sign_key(bytes(range(32)), answer.transcript, lambda *given: sign(stranger, *given)))
        return answer

    federation = masked(federate, tamper=lie)
    with pytest.raises(QuorumError, match=r"the sites agree on no keys: the secagg-key signature of centerB is not valid"):
        federation.run()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda answer: replace(answer, counts=answer.counts + 1), "the secagg-answer signature of centerB is not valid"),
        (lambda answer: replace(answer, update_P=answer.update_P[::-1].copy()), "the secagg-answer signature of centerB is not"),
        (lambda answer: replace(answer, update_P=answer.update_P[1:]), "the update has shape"),
        (lambda answer: replace(answer, update_P=None), "holds no update"),
        (lambda answer: replace(answer, sealing=None), "is not sealed, unlike the study"),
        (lambda answer: replace(answer, sealing=replace(answer.sealing, view=bytes(32))), "is masked under other keys than"),
        (lambda answer: replace(answer, sealing=replace(answer.sealing, signature="ab" * 64)), "signature of centerB is not valid"),
    ],
)
def test_an_answer_that_is_not_the_sites_own_stops_the_run_with_its_name(federate, change, says):
    def lie(site, request, answer):
        return change(answer) if site == "centerB" and is_exchange(request, Kind.TRAIN, True) else answer

    federation = masked(federate, tamper=lie)
    with pytest.raises(QuorumError, match=f"^centerB: answer breaks the contract: .*{says}"):
        federation.run()
    assert federation.directory.load().round == 0


@pytest.mark.parametrize("lied_to", [("centerA",), ("centerA", "centerB", "centerC")], ids=["one", "all"])
def test_a_site_that_read_another_question_is_told_and_nothing_is_collected(federate, lied_to):
    """No masked answer leaves any site: each waits for keys under its own transcript. Where all read the same other question, as
    behind a balancer that changes what it passes, the coordinator knows that it did not ask that."""
    federation = masked(federate)
    send = federation.send

    def lie(requests, deadlines_s):
        false = {
            site: replace(sent, accepted=bytes(32)) if site in lied_to and sent.kind is Kind.VALIDATE else sent
            for site, sent in requests.items()
        }
        return send(false, deadlines_s)

    federation.send = lie
    with pytest.raises(QuorumError, match=r"^center. read another question than was asked"):
        federation.run()
    assert not [r for _, r in federation.requests if is_exchange(r, Kind.VALIDATE, True)]


def test_an_answer_in_plain_or_a_word_of_readiness_where_none_was_asked_for_stops_the_run(federate):
    def plain_answer(site, request, answer):
        return Answer(np.zeros(4, np.int64)) if site == "centerB" and is_exchange(request, Kind.HELLO, False) else answer

    with pytest.raises(QuorumError, match=r"^centerB sent a Answer where none was asked for"):
        masked(federate, tamper=plain_answer).run()


def test_sites_whose_questions_are_used_up_say_so(federate):
    federation = masked(federate, rounds=1)
    federation.run()
    worker = federation._worker("centerA")
    _, hello = next(r for r in federation.requests if isinstance(r[1], Hello))
    said = [worker.answer(replace(hello, header=replace(hello.header, number=number))) for number in (2, 3, 4)]
    assert [type(word) for word in said] == [Ready, Ready, Absence]
    assert said[-1] == Absence(Reason.NUMBER, 1)  # none of the others was collected
    federation = masked(federate, "other", tamper=Loses(Kind.HELLO, False, "centerA", 1, Reason.NUMBER))
    with pytest.raises(QuorumError, match="centerA answered hello 0 times, as often as it will"):
        federation.run()


def test_a_coordinator_that_begins_anew_asks_later_questions_by_itself_and_comes_to_its_end(federate):
    """All of it is lost but study and membership."""
    federation = masked(federate)
    federation.run()
    for path in [*(federation.path / "checkpoints").iterdir(), federation.path / "events.jsonl"]:
        path.unlink()
    again = masked(federate)
    assert again.run().counts
    assert again.directory.load().number == 4
    assert [event["round"] for event in again.events("round-finished")] == [1, 2]


def test_where_one_site_lost_what_it_left_over_all_go_on_without(federate):
    """Three that carry on and one that does not would give, by two sums, what the fourth one left over."""
    federation = masked(federate, rounds=3)

    def forget(site, request, answer):
        if site == "centerB" and is_exchange(request, Kind.TRAIN, True, 1):
            for path in (federation.path / "sites" / site).glob("study-*/left-*"):
                path.unlink()
            federation.restart_worker(site)
        return answer

    federation.tamper = forget
    federation.run()
    asked = [(r.header.round, r.accepted is None) for site, r in federation.requests if r.kind is Kind.TRAIN and site == "centerA"]
    assert asked == [(1, True), (2, False), (2, True), (3, False)]


def test_after_a_run_the_coordinator_holds_nothing_of_one_site(federate):
    """Of each site, what it counted, its update, unmasked, and its keys: none is in any file of the coordinator's."""
    secrets, federation = {}, masked(federate)
    for site in FOUR:
        worker = federation._worker(site)
        keep = worker._keep

        def spy(question, *given, site=site, keep=keep):
            pending = keep(question, *given)
            if question.kind is not Kind.MEASURE:  # whose count is 0: the work did not fail
                secrets[site, question.kind, question.header.number, "counts"] = pending.counts.tobytes()
            secrets[site, question.kind, question.header.number, "private key"] = pending.asked.private
            if pending.update_P is not None:
                secrets[site, question.kind, question.header.number, "update"] = pending.update_P[:64].tobytes()
            return pending

        worker._keep = spy
    federation.run()
    assert len(secrets) == (2 * 8 - 3 + 5) * len(FOUR)  # eight questions, three without counts, five with an update
    for site in FOUR:
        secrets[site, "identity"] = (federation.path / "sites" / site / "keys" / "identity.key").read_bytes()
    files = [p for p in federation.path.rglob("*") if p.is_file() and "sites" not in p.relative_to(federation.path).parts]
    held = [path.read_bytes() for path in files]
    assert len(held) > 5
    for name, secret in secrets.items():
        shown = [form for form in (secret, secret.hex().encode()) if any(form in data for data in held)]
        assert not shown, f"{name} is in a file of the coordinator's"


def test_masked_answers_of_one_site_look_like_nothing_that_it_counted(federate):
    sent, federation = {}, masked(federate, rounds=1)

    def spy(site, request, answer):
        if isinstance(answer, Answer):
            assert isinstance(request, Collect)
            sent[site, request.of] = answer
        return answer

    federation.tamper = spy
    federation.run()
    assert set(sent) == {(site, kind) for site in FOUR for kind in QUESTIONS}
    for (site, kind), answer in sent.items():
        small = np.abs(answer.counts) < 1 << 40
        assert small.mean() < 0.01 or answer.counts.size < 10, (site, kind)
        if kind is Kind.TRAIN:
            assert abs(answer.update_P.astype(float).mean()) < 500  # of uniform 16 bits, over many values


@pytest.mark.parametrize("times", [1, 9])
def test_a_round_that_makes_the_model_worse_is_undone_once_then_stops_the_run(federate, monkeypatch, times):
    """The coordinator judges the sum; a spoilt loss of one site is enough here."""
    federation, left = masked(federate, rounds=3), [times]
    for site in FOUR:
        learner = federation._worker(site).learner

        def work(question, *given, learner=learner, honest=learner.work, site=site):
            done = honest(question, *given)
            if question.kind is Kind.TRAIN and question.header.round == 3 and site == "centerB" and left[0]:
                left[0] -= 1
                done.counts["loss"] *= 1000
            return done

        learner.work = work
    if times == 1:
        assert federation.run().counts
        assert federation.directory.load().undone == 2
    else:
        with pytest.raises(TrainingError, match=r"after round 2, .* was the best so far, also after the round was undone"):
            federation.run()
    assert [event["round"] for event in federation.events("round-undone")] == [2]
    trained = [r for site, r in federation.requests if isinstance(r, AboutModel) and r.kind is Kind.TRAIN and site == "centerA"]
    numbers = [request.header.number for request in trained]
    assert numbers == sorted(numbers)


def test_no_key_of_an_answer_is_in_any_file_but_the_one_that_backups_leave_out(federate):
    federation, keys = masked(federate, rounds=1), []
    for site in FOUR:
        worker = federation._worker(site)
        keep = worker._keep
        worker._keep = lambda *given, keep=keep: keys.append(keep(*given)) or keys[-1]
    federation.run()
    for path in (path for site in FOUR for path in (federation.path / "sites" / site).rglob("*") if path.is_file()):
        data = path.read_bytes()
        found = [pending for pending in keys if pending.asked.private in data or pending.asked.private.hex().encode() in data]
        assert not found or path.name == PENDING_FILE, path.name
