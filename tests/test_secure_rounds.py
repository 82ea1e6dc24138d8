"""Secure aggregation through the real coordinator, workers and files: the same model, whoever is lost, and nothing of one site."""

import json
from dataclasses import replace

import numpy as np
import pytest

from client.app import reason_of_failure
from conftest import LocalFederation, write_hospitals
from csasn.errors import QuorumError
from csasn.federated.messages import Absence, Answer, Kind, Reason
from csasn.study import read_study
from csasn.weighting import class_weights

FOUR = ("centerA", "centerB", "centerC", "centerD")
SECURE = {"secure_aggregation": True, "rounds": 2, "max_partial_rounds": 0.5}
EXCHANGES = [Kind.KEYS, Kind.HELLO, Kind.TRAIN, Kind.UNMASK, Kind.VALIDATE, Kind.FINISH]


def masked(federate, name="run", tamper=None, **changes):
    return federate(name, tamper=tamper, sites=FOUR, federation=SECURE | changes)


def plain(federate, **changes):
    return federate("plain", sites=FOUR, federation=SECURE | {"secure_aggregation": False, "min_sites": 3} | changes)


@pytest.mark.parametrize("bits", [16, 8])
def test_masked_or_plain_the_model_its_counts_and_its_statistics_are_the_same(federate, bits):
    hidden, seen = masked(federate, upload_bits=bits), plain(federate, upload_bits=bits)
    one, other = hidden.run(), seen.run()
    assert hidden.state_hash() == seen.state_hash()
    for name in ("counts", "statistics"):
        for block, values in getattr(one, name).items():
            np.testing.assert_array_equal(values, getattr(other, name)[block])
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


class Loses:
    """Loses what `sites` answer to the first `times` requests of a kind (of round 1, to train)."""

    def __init__(self, kind, sites=("centerC",), times=1):
        self.kind, self.left = kind, dict.fromkeys(sites, times)

    def __call__(self, site, request, answer):
        if request.kind is self.kind and self.left.get(site, 0) and request.header.round <= 2:
            self.left[site] -= 1
            return None
        return answer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The state hash of a run of so many rounds in which nothing happens."""
    known = {}

    def state_hash(rounds):
        if rounds not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            study = write_hospitals(folder / "hospitals", sites=FOUR, federation=SECURE | {"rounds": rounds})
            federation = LocalFederation(read_study(study), folder / "hospitals" / "sites", folder / "run")
            federation.run()
            known[rounds] = federation.state_hash()
        return known[rounds]

    return state_hash


@pytest.mark.parametrize("kind", EXCHANGES)
@pytest.mark.parametrize("site", FOUR)
def test_a_site_lost_once_at_any_exchange_stops_nothing(federate, undisturbed, kind, site):
    federation = masked(federate, tamper=Loses(kind, (site,)), rounds=1, max_partial_rounds=0.0)
    finished = federation.run()
    assert federation.state_hash() == undisturbed(1)
    assert finished.whole


@pytest.mark.parametrize("lost_at", [Kind.TRAIN, Kind.CONFIRM, Kind.UNMASK])
def test_with_three_of_four_a_round_is_partial_and_equals_the_plain_one(federate, lost_at):
    """The site that is lost at train; of the three that are left, all are needed to confirm and to unmask."""
    away = Loses(Kind.TRAIN, ("centerB",), times=1)
    times = 2 if lost_at is Kind.UNMASK else 1  # shares are asked for again before the round is repeated
    late = Loses(lost_at, ("centerD",), times) if lost_at is not Kind.TRAIN else away
    federation = masked(federate, tamper=lambda *a: late(*a[:2], away(*a)) if late is not away else away(*a))
    federation.run()
    seen = plain(federate)
    seen.tamper = Loses(Kind.TRAIN, ("centerB",))
    seen.run()
    first = federation.events("round-finished")[0]
    if lost_at is Kind.TRAIN:
        assert (first["participants"], first["attempts"]) == (["centerA", "centerC", "centerD"], 1)
        assert federation.state_hash() == seen.state_hash()
        assert [e["round"] for e in federation.events("evaluation-withheld")] == [0]
        return
    assert first["attempts"] == 2
    assert federation.events("nothing-unmasked")
    if lost_at is Kind.CONFIRM:  # nobody was asked to reveal yet: all of them may be in the repeat
        assert (first["participants"], first["absent"]) == (list(FOUR), {})
    else:
        assert first["participants"] == ["centerA", "centerC", "centerD"]
        assert first["absent"] == {"centerB": "was absent when the others were asked to reveal, for themselves alone"}
        assert federation.state_hash() == seen.state_hash()
        assert [e["round"] for e in federation.events("evaluation-withheld")] == []


def test_a_site_lost_before_it_reveals_is_in_the_sum_all_the_same(federate, undisturbed):
    federation = masked(federate, tamper=Loses(Kind.UNMASK, ("centerD",), times=9))
    federation.run()
    assert federation.state_hash() == undisturbed(2)
    assert federation.events("round-finished")[0]["participants"] == list(FOUR)


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.UNMASK])
def test_two_lost_of_four_unmask_nothing_and_the_error_says_so(federate, kind):
    federation = masked(federate, tamper=Loses(kind, ("centerB", "centerD"), times=99), max_attempts=2)
    with pytest.raises(QuorumError, match=r"round 1: 2 sites answered .*nothing was summed; centerB: .*; centerD: no answer"):
        federation.run()
    assert federation.directory.load().round == 0


def test_survivors_once_asked_for_shares_are_those_of_every_repeat(federate):
    """centerD is lost for good after round 1 was unmasked in part of the sites: nothing is unmasked for the other three."""
    attempts = []

    def tamper(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 1:
            attempts.append((request.header.attempt, site))
            if site == "centerD" and request.header.attempt > attempts[0][0]:
                return None
        first = request.header.attempt == (attempts[0][0] if attempts else 0)
        return None if request.kind is Kind.UNMASK and first and site in ("centerA", "centerB") else answer

    federation = masked(federate, tamper=tamper, max_attempts=3)
    with pytest.raises(QuorumError, match=r"round 1: 3 sites answered"):
        federation.run()
    asked = {r.survivors.sites for _, r in federation.requests if r.kind in (Kind.CONFIRM, Kind.UNMASK)}
    assert asked == {FOUR}


def test_a_site_refuses_other_survivors_for_a_state_that_it_revealed_in_any_run(federate):
    """The update to the same state is the same in another run: the difference of both sums would be one site's."""
    federation = masked(federate, rounds=1)
    federation.run()
    for site in ("centerA", "centerB"):
        revealed = federation.path / "sites" / site / "revealed.json"
        before = json.loads(revealed.read_text())
        assert {tuple(sites) for sites in before["revealed_for"].values()} == {FOUR}
        assert set(before["partial"]) == {federation.study.study_hash}
        revealed.write_text(json.dumps(before | {"revealed_for": dict.fromkeys(before["revealed_for"], FOUR[:3])}))
    for name in ("latest.safetensors", "keys.json", "survivors.json"):
        (federation.path / "checkpoints" / name).unlink()
    (federation.path / "run.json").write_text(json.dumps({"id": "another-run"}))
    other = masked(federate, max_attempts=1)
    with pytest.raises(QuorumError, match="centerA: refused: train of round 1 was revealed for other survivors before"):
        other.run()


def test_a_worker_that_was_killed_goes_on_with_its_keys(federate, undisturbed):
    def restart(site, request, answer):
        if site == "centerB":
            federation.restart_worker(site)
        return answer

    federation = masked(federate, tamper=restart)
    federation.run()
    assert federation.state_hash() == undisturbed(2)
    assert len(federation.events("keys-agreed")) == 1


def test_a_site_that_lost_its_keys_begins_a_new_epoch_and_the_histogram_is_not_summed_again(federate, undisturbed):
    def forget(site, request, answer):
        if site == "centerB" and request.kind is Kind.UNMASK and request.header.round == 1:
            federation.restart_worker(site)
            (next((federation.path / "sites" / site).glob("run-*")) / "secure.json").unlink()
        return answer

    federation = masked(federate, tamper=forget)
    federation.run()
    assert federation.state_hash() == undisturbed(2)
    assert len(federation.events("keys-agreed")) == 2
    assert sum(request.kind is Kind.HELLO for _, request in federation.requests) == len(FOUR)


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.UNMASK])
def test_a_coordinator_killed_in_a_round_goes_on_to_the_same_bits(federate, undisturbed, kind):
    class Killed(BaseException):
        pass

    def kill(site, request, answer):
        if request.kind is kind and site == "centerC" and request.header.round == 2:
            raise Killed
        return answer

    federation = masked(federate, tamper=kill)
    with pytest.raises(Killed):
        federation.run()
    resumed = masked(federate)
    resumed.run()
    assert resumed.state_hash() == undisturbed(2)


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.FINISH])
def test_a_coordinator_killed_between_shares_and_sum_needs_no_more_than_t_sites_to_go_on(federate, undisturbed, kind):
    """centerD is gone by then: to repeat the attempt, all four would be needed."""

    class Killed(BaseException):
        pass

    asked = []

    def kill(site, request, answer):
        asked.append(request.kind)
        if request.kind is Kind.UNMASK and asked.count(Kind.UNMASK) == (8 if kind is Kind.TRAIN else 12):
            raise Killed
        return answer

    federation = masked(federate, tamper=kill)
    with pytest.raises(Killed):
        federation.run()
    resumed = masked(federate, tamper=lambda site, request, answer: None if site == "centerD" else answer)
    if kind is Kind.TRAIN:  # validation cases of all sites are counted before the end
        resumed.tamper = lambda site, request, answer: None if site == "centerD" and request.kind is Kind.UNMASK else answer
    finished = resumed.run()
    assert len(resumed.events("shares-asked-again")) == 1
    assert resumed.state_hash() == undisturbed(2)
    assert finished.whole
    assert resumed.events("round-finished")[-1]["participants"] == list(FOUR)


def test_shares_that_are_never_found_give_way_to_a_repeat(federate, undisturbed):
    federation = masked(federate, tamper=Loses(Kind.UNMASK, ("centerA", "centerB"), times=2))
    federation.run()
    assert len(federation.events("nothing-unmasked")) == 2
    assert federation.events("round-finished")[0]["attempts"] == 2
    assert federation.state_hash() == undisturbed(2)


def test_a_site_that_was_sent_another_request_is_told_by_its_signature_and_its_counts_are_in_no_sum(federate):
    federation = masked(federate)
    exchange = federation.coordinator.sites.exchange

    def lie(requests, *rest):
        changed = dict(requests)
        if (request := requests["centerA"]).kind is Kind.VALIDATE:
            changed["centerA"] = replace(request, accepted=replace(request.accepted, sites=FOUR[:3]))
        return exchange(changed, *rest)

    federation.coordinator.sites.exchange = lie
    federation.run()
    said = federation.events("exchange-repeated")[0]["absent"]["centerA"]
    assert "answer breaks the contract: the secagg-upload signature of centerA is not valid" in said
    assert federation.events("evaluation-withheld")[-1]["round"] == 2


def test_an_answer_in_plain_and_a_wrong_signature_never_count(federate):
    def tamper(site, request, answer):
        if request.kind is Kind.TRAIN and isinstance(answer, Answer):
            if site == "centerA":
                return replace(answer, sealing=None)
            if site == "centerB":
                return replace(answer, counts=answer.counts + 1)
        return answer

    federation = masked(federate, tamper=tamper, max_attempts=1)
    with pytest.raises(QuorumError, match=r"centerA: .* not sealed, unlike .*; centerB: .*signature of centerB"):
        federation.run()


def test_a_request_without_keys_is_refused_by_a_site_whose_study_is_secure(federate):
    federation = masked(federate)
    federation.run()
    _, request = next(r for r in federation.requests if r[1].kind is Kind.TRAIN)
    header = replace(request.header, attempt=99)
    answer = reason_of_failure(lambda: federation._worker("centerA").answer(replace(request, header=header, keys=None)))
    assert answer == Absence(Reason.REFUSED, answer.text)
    assert "carries no keys" in answer.text


def test_after_a_run_the_coordinator_holds_nothing_of_one_site(federate):
    """Of each site, what it counted and its update, unmasked: neither is in any file of the coordinator's."""
    secrets = {}
    federation = masked(federate)
    for site in FOUR:
        worker = federation._worker(site)
        work = worker._work

        def spy(request, model, site=site, work=work):
            outcome = work(request, model)
            secrets[site, request.kind] = outcome.answer.counts.tobytes()
            if outcome.answer.update_P is not None:
                secrets[site, request.kind, "update"] = outcome.answer.update_P[:64].tobytes()
            return outcome

        worker._work = spy
    federation.run()
    assert len(secrets) == 4 * len(FOUR) + 2 * len(FOUR)
    for site in FOUR:
        run = next((federation.path / "sites" / site).glob("run-*"))
        facts = json.loads((run / "secure.json").read_text())
        secrets |= {(site, peer): bytes.fromhex(key) for peer, key in facts["pairs"].items()}
        secrets[site, "identity"] = (federation.path / "sites" / site / "keys" / "identity.key").read_bytes()
    files = [p for p in federation.path.rglob("*") if p.is_file() and "sites" not in p.relative_to(federation.path).parts]
    held = [path.read_bytes() for path in files]
    assert len(held) > 5
    for name, secret in secrets.items():
        shown = [form for form in (secret, secret.hex().encode()) if any(form in data for data in held)]
        assert not shown, f"{name} is in a file of the coordinator's"


def lying(federation, change, in_round=2):
    """`federation`, whose coordinator sends `change(request)` to all sites in place of each request to train a round."""
    exchange = federation.coordinator.sites.exchange

    def lie(requests, *rest):
        false = {
            site: change(sent) if sent.kind is Kind.TRAIN and sent.header.round == in_round else sent
            for site, sent in requests.items()
        }
        return exchange(false, *rest)

    federation.coordinator.sites.exchange = lie
    return federation


@pytest.mark.parametrize("factor", [1e-3, 2.0])
def test_ranges_that_do_not_follow_from_the_last_step_are_refused(federate, factor):
    federation = lying(plain(federate), lambda sent: replace(sent, ranges=sent.ranges * factor))
    with pytest.raises(QuorumError, match="the ranges of the tensors do not follow from the last step"):
        federation.run()


def test_sums_of_class_weights_that_are_not_those_of_the_last_broadcast_are_refused(federate):
    def forget(sent):
        history_R3K = sent.weighting.history_R3K + 1
        omega_K = class_weights(federation.study.class_weighting, sent.weighting.histogram_K, list(history_R3K)).omega_K
        return replace(sent, weighting=replace(sent.weighting, omega_K=omega_K, history_R3K=history_R3K))

    federation = lying(plain(federate, rounds=3), forget, in_round=3)
    with pytest.raises(QuorumError, match="the sums of the class weights are others than those of the last broadcast"):
        federation.run()
