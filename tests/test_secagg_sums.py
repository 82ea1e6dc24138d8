"""What comes out of secure aggregation is the plain sum, to the last bit, whoever is missing; wrong shares are named."""

import itertools
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg_reference as reference
from csasn.errors import ProtocolError, TrustError
from csasn.federated.secagg import coordinator, site
from csasn.federated.secagg.masks import BLOCK_BYTES, Mask, add_masks
from csasn.federated.secagg.messages import Roster, Survivors, hash_secret
from csasn.federated.secagg.shares import combine, split
from secagg_sites import (
    TYPES,
    answers,
    digest_of,
    drop_patterns,
    hashes_of,
    names,
    revealed_by,
    seeded,
    sites,
    summed,
    survivors_of,
    values,
    witnesses,
)

# ---- sums


def plain_sum(x, inside):
    bits = 8 * next(iter(x.values())).itemsize
    return reference.add_up([x[name].tolist() for name in inside], bits)


def unmasked(group, answered, inside, who=None):
    """The sum over U, put together from what `who` of it reveal."""
    survivors = survivors_of(group, answered, inside)
    parts = {name: revealed_by(group, answered, survivors, name)[1] for name in who or survivors.sites}
    revealed = coordinator.recover(parts, survivors.sites, hashes_of(answered, survivors), group.roster)
    assert not revealed.wrong
    total = summed([answered[name].upload for name in survivors.sites])
    coordinator.unmask(total, revealed)
    return total.tolist()


@pytest.mark.parametrize(("num", "bits"), [*itertools.product(range(3, 7), (8, 16, 64)), (7, 16), (8, 8)])
def test_the_unmasked_sum_is_the_plain_sum_for_every_set_of_survivors(num, bits):
    group = sites(num)
    x, counts = values(group, 11, bits), {name: np.arange(4) + place for place, name in enumerate(names(num))}
    occasion = site.Occasion(site.FINISH if bits == 64 else site.TRAIN, 4, "c" * 64)
    answered = answers(group, occasion=occasion, x=x, counts=counts)
    patterns = drop_patterns(num, group.roster.threshold)
    assert len(patterns) == {3: 1, 4: 5, 5: 6, 6: 7, 7: 29, 8: 37}[num]
    for inside in patterns:
        assert unmasked(group, answered, inside, inside[-group.roster.threshold :]) == plain_sum(x, inside), inside
    masked = summed([answered[name].upload for name in names(num)]).tolist()
    assert masked != plain_sum(x, names(num))


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_sums_at_both_ends_of_the_ring_are_exact(bits):
    group, most = sites(4), (1 << bits - 1) - 1
    x = {name: np.array([most // 4, -(most // 4), 0, -1], TYPES[bits]) for name in names(4)}
    answered = answers(group, x=x)
    for inside in drop_patterns(4, 3):
        assert unmasked(group, answered, inside) == plain_sum(x, inside)


@pytest.mark.parametrize("num", range(3, 9))
def test_counts_add_up_for_the_whole_membership(num):
    group = sites(num)
    counts = {name: np.random.default_rng(place).integers(0, 1 << 40, 7) for place, name in enumerate(names(num))}
    for kind in ("hello", site.TRAIN):
        occasion = site.Occasion(kind, 4, "c" * 64)
        answered = answers(group, occasion=occasion, x=values(group, 3, 16) if kind == site.TRAIN else None, counts=counts)
        assert summed([answer.counts for answer in answered.values()]).tolist() == sum(counts.values()).tolist()


def test_sites_that_saw_different_transcripts_add_up_to_noise():
    group, x = sites(3), values(sites(3), 64, 16)
    one, other = (answers(group, x=x, transcript=digest_of("transcript", which)) for which in "ab")
    mixed = {name: (other if name == "mid" else one)[name] for name in names(3)}
    total = summed([answer.counts for answer in mixed.values()])
    assert (np.abs(total) > 1 << 48).all()
    survivors = Survivors.of(names(3), witnesses(group, one) | {"mid": witnesses(group, other)["mid"]})
    with pytest.raises(TrustError, match="signature of mid is not valid"):
        revealed_by(group, mixed, survivors, "zeta")


# ---- properties


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([8, 16, 64]),
    num_bytes=st.sampled_from(
        [0, 1, 7, 15, 16, 17, 33, 1000, BLOCK_BYTES - 16, BLOCK_BYTES, BLOCK_BYTES + 8, 3 * BLOCK_BYTES + 40]
    ),
    signs=st.lists(st.sampled_from([1, -1]), max_size=3),
    threads=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_any_number_of_threads_adds_the_same_masks(bits, num_bytes, signs, threads, seed):
    start = np.frombuffer(seeded("values", seed)(num_bytes // (bits // 8) * (bits // 8)), TYPES[bits])
    masks = [Mask(seeded("seed", seed, place)(32), sign) for place, sign in enumerate(signs)]
    one, several = start.copy(), start.copy()
    add_masks(one, masks)
    add_masks(several, masks, threads)
    assert one.tobytes() == several.tobytes()
    head = min(len(start), 40)
    assert one[:head].tolist() == reference.add(start[:head].tolist(), [(mask.seed, mask.sign) for mask in masks], bits)
    add_masks(several, [Mask(mask.seed, -mask.sign) for mask in masks], 5 - threads)
    assert several.tobytes() == start.tobytes()


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_a_mask_of_several_blocks_is_the_reference_s_keystream_to_its_end(bits):
    size = BLOCK_BYTES + 16 * 3 + 8
    found = np.zeros(size // (bits // 8), TYPES[bits])
    add_masks(found, [Mask(bytes(range(32)), 1)], 2)
    assert found.tobytes() == reference.keystream(bytes(range(32)), size)


@settings(max_examples=20, deadline=None)
@given(num=st.integers(3, 7), size=st.sampled_from([0, 1, 5, 9, 40]), bits=st.sampled_from([8, 16, 64]), data=st.data())
def test_neither_who_is_missing_nor_the_order_of_answers_changes_the_sum(num, size, bits, data):
    group = sites(num)
    x = values(group, size, bits, data.draw(st.integers(0, 99)))
    answered = answers(group, x=x, num_threads=data.draw(st.integers(1, 3)))
    inside = data.draw(st.sampled_from(drop_patterns(num, group.roster.threshold)))
    order = data.draw(st.permutations(inside))
    who = order[: data.draw(st.integers(group.roster.threshold, len(inside)))]
    assert unmasked(group, {name: answered[name] for name in order}, inside, who) == plain_sum(x, inside)


# ---- dropouts between A and C, and wrong shares


def shares_of(group, answered, inside):
    survivors = survivors_of(group, answered, inside)
    return survivors, {name: revealed_by(group, answered, survivors, name)[1] for name in survivors.sites}


@pytest.mark.parametrize("num", [3, 4, 6])
def test_fewer_than_t_shares_are_refused_with_their_number(num):
    group = sites(num)
    answered, t = answers(group, x=values(group, 2, 16)), group.roster.threshold
    survivors, parts = shares_of(group, answered, names(num))
    few = dict(list(parts.items())[: t - 1])
    with pytest.raises(ProtocolError, match=f"{t - 1} sites revealed their shares, expected {t} at least"):
        coordinator.recover(few, survivors.sites, hashes_of(answered, survivors), group.roster)


@pytest.mark.parametrize("liar", names(4))
def test_a_wrong_share_is_named_and_does_not_stop_the_sum(liar):
    group, x = sites(4), values(sites(4), 5, 16)
    answered = answers(group, x=x)
    survivors, parts = shares_of(group, answered, names(4))
    changed = bytes([parts[liar][70] ^ 1])
    parts[liar] = parts[liar][:70] + changed + parts[liar][71:]
    revealed = coordinator.recover(parts, survivors.sites, hashes_of(answered, survivors), group.roster)
    used_first = liar in names(4)[: group.roster.threshold]
    assert revealed.wrong == ((liar,) if used_first else ())
    total = summed([answer.upload for answer in answered.values()])
    coordinator.unmask(total, revealed)
    assert total.tolist() == plain_sum(x, names(4))


def test_a_liar_among_sixteen_is_found_in_a_few_tries_and_only_once():
    sixteen = {f"s{place:02}": "" for place in range(16)}
    roster = Roster(sixteen, 1, 3)
    secrets = [seeded("secret", place)(32) for place in range(16)]
    pieces = [dict(zip(sixteen, split(secret, roster.threshold, 16), strict=True)) for secret in secrets]
    parts = {name: b"".join(piece[name] for piece in pieces) for name in sixteen}
    parts["s00"] = bytes(16 * 32)
    hashes = {name: [bytes(32)] * place + [hash_secret(secrets[place])] for place, name in enumerate(sixteen)}
    tries = []

    def counted(shares):
        tries.append(shares)
        assert len(tries) < 16 + 40
        return combine(shares)

    with mock.patch.object(coordinator, "combine", counted):
        revealed = coordinator.recover(parts, tuple(sixteen), hashes, roster)
    assert revealed.wrong == ("s00",)
    assert [mask.seed for mask in revealed.masks] == secrets


def test_shares_of_a_wrong_size_are_named():
    group = sites(4)
    answered = answers(group, x=values(group, 5, 16))
    survivors, parts = shares_of(group, answered, names(4))
    parts["mid"] = parts["mid"][:-1]
    assert coordinator.recover(parts, survivors.sites, hashes_of(answered, survivors), group.roster).wrong == ("mid",)


def test_exactly_t_shares_of_which_one_is_wrong_are_refused_with_whose_secret_it_is():
    group = sites(4)
    answered = answers(group, x=values(group, 5, 16))
    survivors, parts = shares_of(group, answered, names(4))
    del parts["beta"]
    parts["mid"] = parts["mid"][:32] + bytes(32) + parts["mid"][64:]
    with pytest.raises(ProtocolError, match="the revealed shares of alpha fit no secret"):
        coordinator.recover(parts, survivors.sites, hashes_of(answered, survivors), group.roster)
