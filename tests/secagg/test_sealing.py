"""A masked answer: masks cancel in the whole sum and nowhere else, and the site signs all of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import CsasnError, TrustError
from csasn.federated.secagg import sealing as sealing_module
from csasn.federated.secagg.keys import sign_key
from csasn.federated.secagg.sealing import check_sealing
from csasn.platform.canonical import canonical
from secagg.scene import TYPES, Group, T, drawn, is_uniform, signer_of, summed


def values(group, num, bits, seed=0):
    random = np.random.default_rng(seed)
    most = (1 << min(bits, 40) - 1) // group.num - 1
    return {name: random.integers(-most, most, num, endpoint=True).astype(TYPES[bits]) for name in group.names}


@settings(deadline=None, max_examples=16)
@given(st.integers(3, 16), st.sampled_from(list(TYPES)), st.integers(1, 40), st.integers(0, 99))
def test_masks_cancel_in_the_sum_over_all_sites(num, bits, size, draw):
    group = Group(num, draw=draw)
    updates, counts = values(group, size, bits, draw), values(group, 5, 64, draw + 1)
    sealed = [group.seal(name, updates[name], counts[name]) for name in group.names]
    assert np.array_equal(summed([update for _, update, _ in sealed]), summed(updates.values()))
    assert np.array_equal(summed([count for *_, count in sealed]), summed(counts.values()))
    assert len({sealing.view for sealing, *_ in sealed}) == 1


def test_masks_cancel_where_there_is_no_update():
    group = Group(4)
    counts = values(group, 5, 64)
    sealed = [group.seal(name, None, counts[name]) for name in group.names]
    assert {update for _, update, _ in sealed} == {None}
    assert np.array_equal(summed([count for *_, count in sealed]), summed(counts.values()))


@pytest.mark.parametrize("bits", TYPES)
def test_each_masked_array_and_each_sum_over_fewer_sites_is_uniform(bits):
    group = Group(4)
    zeros = np.zeros(1 << 15, TYPES[bits])
    masked = [group.seal(name, zeros, np.zeros(1, "<i8"))[1] for name in group.names]
    for size in (1, 2, 3):
        for some in itertools.combinations(masked, size):
            assert is_uniform(summed(some))
    assert not summed(masked).any()


def test_update_and_counts_are_masked_by_unrelated_streams():
    group = Group(3)
    zeros = np.zeros(1 << 14, "<i8")
    _, update, counts = group.seal(group.names[0], zeros, zeros)
    assert is_uniform(update - counts)
    assert is_uniform(update + counts)


def test_two_views_of_one_question_mask_the_same_answer_by_unrelated_streams():
    group = Group(3)
    other = (*group.keys[:2], sign_key(drawn("restored"), T, signer_of(group.names[2])))
    zeros = np.zeros(1 << 14, "<i8")
    one, again = (group.seal(group.names[0], zeros, zeros, keys)[1] for keys in (group.keys, other))
    assert is_uniform(one - again)


def test_the_same_keys_give_the_same_bytes():
    group = Group(3)
    update, counts = np.arange(9, dtype="<i2"), np.arange(3)
    one, other = (group.seal(group.names[1], update, counts, num_threads=threads) for threads in (1, 3))
    assert one[0] == other[0]
    assert np.array_equal(one[1], other[1])
    assert np.array_equal(one[2], other[2])


WRONG = {
    "a key is missing": lambda keys, group: keys[:-1],
    "a key comes twice": lambda keys, group: (*keys[:-1], keys[0]),
    "a key of another question": lambda keys, group: (*keys[:-1], group.key(group.names[-1], drawn("x"))),
    "a key of another identity": lambda keys, group: (*keys[:-1], sign_key(drawn("y"), T, signer_of("nobody"))),
    "its own key was replaced": lambda keys, group: (sign_key(drawn("y"), T, signer_of(group.names[0])), *keys[1:]),
    "a key of small order": lambda keys, group: (
        *keys[:-1],
        replace(keys[-1], public=bytes(32), signature=signer_of(group.names[-1])("secagg-key", canonical([T, bytes(32)]))),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_where_keys_are_refused_nothing_was_masked(wrong):
    group = Group(4)
    update, counts = np.arange(9, dtype="<i2"), np.arange(3)
    with pytest.raises(CsasnError):
        group.sealer(group.names[0]).seal(WRONG[wrong](group.keys, group), update, counts, signer_of(group.names[0]))
    assert np.array_equal(update, np.arange(9))
    assert np.array_equal(counts, np.arange(3))


def test_a_sealing_is_the_site_s_word_on_every_part():
    group = Group(3)
    name, identity = group.names[0], group.roster.identities[group.names[0]]
    sealing, update, counts = group.seal(name, np.arange(9, dtype="<i2"), np.arange(3))
    check_sealing(sealing, update, counts, name, identity)
    wrong = [
        (replace(sealing, view=drawn("x")), update, counts, identity),
        (sealing, update + update.dtype.type(1), counts, identity),
        (sealing, update, counts + 1, identity),
        (sealing, None, counts, identity),
        (sealing, update[:-1], counts, identity),
        (sealing, update, counts, group.roster.identities[group.names[1]]),
        (replace(sealing, signature="00" * 64), update, counts, identity),
    ]
    for given_sealing, given_update, given_counts, whose in wrong:
        with pytest.raises(TrustError, match=f"the secagg-answer signature of {name} is not valid"):
            check_sealing(given_sealing, given_update, given_counts, name, whose)


def test_update_and_counts_cannot_change_places_under_one_signature():
    group = Group(3)
    name = group.names[0]
    sealing, update, counts = group.seal(name, np.arange(3), np.arange(3))
    with pytest.raises(TrustError):
        check_sealing(sealing, counts, update, name, group.roster.identities[name])


def test_seeds_of_update_and_counts_never_meet(monkeypatch):
    seen = []
    monkeypatch.setattr(sealing_module, "add_masks", lambda values, masks, *_: seen.append({mask.seed for mask in masks}))
    group = Group(5)
    for name in group.names:
        group.seal(name, np.zeros(2, "<i2"), np.zeros(2, "<i8"))
    counts, updates = set.union(*seen[::2]), set.union(*seen[1::2])
    assert (len(counts), len(updates), counts & updates) == (10, 10, set())
