"""Whatever a coordinator and up to n - 2 colluders ask, in whatever order, all they can work out are sums over every honest site.

Masks are symbols (`symbols`), sites are real but for what learning comes to. In most sequences files, signatures and key exchange
are hashes in memory, in some they are the real ones too.
"""

import hashlib
import itertools
import logging
from functools import partial

import pytest

import adversary.light
import adversary.symbols
import client.worker.worker
from adversary.light import LightSites
from adversary.standins import MemorySites, files_in_memory, hash_sign, hashes_for_keys, remembered
from adversary.symbols import PRIME, Equation, Notes, combinations_without_masks, tells_sites_apart, try_sequences
from client.worker.kept import Kept
from csasn.federated import messages
from csasn.federated.secagg import keys, sealing

FEW, MANY, REAL = 2000, 100_000, 100
PLANTED = 1500  # sequences within which a planted fault is found


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def notes(monkeypatch):
    return Notes().patch(monkeypatch)


@pytest.fixture
def in_memory(monkeypatch, notes):
    """try_sequences(seeds) over sites in memory."""
    files_in_memory(monkeypatch)
    hashes_for_keys(monkeypatch)
    transcripts = remembered(monkeypatch)

    def attempt(seeds):
        transcripts.clear()
        return try_sequences(partial(MemorySites, sign=hash_sign), seeds, notes)

    return attempt


def is_clean(tally, sequences):
    return tally.first is None and tally.sequences == sequences and tally.telling > sequences // 3


def test_no_combination_of_answers_tells_honest_sites_apart(in_memory):
    assert is_clean(in_memory(range(FEW)), FEW)


def test_nor_with_real_keys_signatures_and_files(notes, tmp_path):
    folders = (tmp_path / str(number) for number in itertools.count())
    assert is_clean(try_sequences(lambda num: LightSites(num, next(folders)), range(REAL), notes), REAL)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_nor_in_a_hundred_thousand_sequences(in_memory, part):
    size = MANY // 10
    for start in range(FEW + part * size, FEW + (part + 1) * size, 1000):
        assert is_clean(in_memory(range(start, start + 1000)), 1000)


# ---- the brute force finds a planted fault


def _keys_of_anybody(monkeypatch):
    monkeypatch.setattr(sealing, "check_keys", lambda *_: None)


def _nothing_binds_a_key_to_its_question(monkeypatch):
    """Neither is T signed with the key, nor are V and so T in the seeds."""
    check, sign = keys.check_keys, keys.sign_key
    monkeypatch.setattr(sealing, "check_keys", lambda given, _, roster: check(given, b"", roster))
    for module in (client.worker.worker, adversary.symbols):
        monkeypatch.setattr(module, "sign_key", lambda private, _, signer: sign(private, b"", signer))
    monkeypatch.setattr(sealing, "view_of", lambda *_: b"one view".ljust(32))


def _two_questions_share_a_key_and_seeds(monkeypatch):
    monkeypatch.setattr(client.worker.worker, "fresh_key", lambda: hashlib.sha256(adversary.light.speaking[-1].encode()).digest())
    monkeypatch.setattr(sealing, "view_of", lambda *_: b"one view".ljust(32))


def _carried_is_not_in_the_transcript(monkeypatch):
    plain = client.worker.worker.transcript
    monkeypatch.setattr(client.worker.worker, "transcript", lambda question, carried=False: plain(question))


def _not_in_transcript(leaf):
    def plant(monkeypatch):
        monkeypatch.setattr(messages, "NOT_IN_TRANSCRIPT", {**messages.NOT_IN_TRANSCRIPT, leaf: "planted"})

    return plant


def _anything_left_over_is_carried_on(monkeypatch):
    plain = Kept.left
    newest = lambda kept: kept._left and kept._left[0]  # noqa: E731
    monkeypatch.setattr(Kept, "left", lambda kept, accepted: plain(kept, newest(kept)))


def _update_and_counts_share_a_seed(monkeypatch):
    plain = keys.share_seeds
    alike = lambda found: {peer: keys.PairSeeds(seeds.counts, seeds.counts) for peer, seeds in found.items()}  # noqa: E731
    monkeypatch.setattr(sealing, "share_seeds", lambda *given: alike(plain(*given)))


FAULTS = {
    "keys of anybody are taken": _keys_of_anybody,
    "nothing binds a key to its question": _nothing_binds_a_key_to_its_question,
    "two questions share a key and seeds": _two_questions_share_a_key_and_seeds,
    "carried is not in the transcript": _carried_is_not_in_the_transcript,
    "the model is not in the transcript": _not_in_transcript("ModelUpdate.state_hash"),
    "ranges are not in the transcript": _not_in_transcript("Train.ranges"),
    "the number is not in the transcript": _not_in_transcript("Header.number"),
    "class weights are not in the transcript": _not_in_transcript("Weighting.omega_K"),
    "accepted is not in the transcript": _not_in_transcript("Train.accepted"),
    "anything left over is carried on": _anything_left_over_is_carried_on,
    "update and counts share a seed": _update_and_counts_share_a_seed,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_brute_force_finds_a_planted_fault(fault, in_memory, monkeypatch):
    FAULTS[fault](monkeypatch)
    assert in_memory(range(PLANTED)).first is not None


# ---- the algebra itself


def equation(site, meaning="m", **masks):
    return Equation(("update", meaning, site), masks)


def test_masks_of_three_sites_vanish_in_the_whole_sum_alone():
    whole = [equation("a", s=1, t=1), equation("b", s=-1, u=1), equation("c", t=-1, u=-1)]
    (free,) = combinations_without_masks(whole)
    assert set(free.values()) in ({1}, {PRIME - 1})
    assert not tells_sites_apart(free, ["a", "b", "c"])
    assert combinations_without_masks(whole[:2]) == []


def test_a_combination_over_some_sites_tells_them_apart():
    (free,) = combinations_without_masks([equation("a", s=1), equation("b", s=-1)])
    assert tells_sites_apart(free, ["a", "b", "c"])
    assert not tells_sites_apart(free, ["a", "b"])


def test_two_answers_of_one_site_under_one_mask_tell_it_apart():
    twice = [equation("a", "one", s=1), equation("a", "other", s=1), equation("b", "one", s=-1)]
    assert any(tells_sites_apart(free, ["a", "b"]) for free in combinations_without_masks(twice))
