"""Every lie about survivor sets that the coordinator can tell, searched through with the sites' real functions.

The coordinator has c sites on its side: it has their keys, their data and their shares, and they sign what it likes. All n answered
under one transcript. It asks each honest site, in any order and as often as it likes, to confirm and to reveal for any survivor
set. What it may then do is all that linear algebra allows:

- of a secret it has the shares of its own c sites and those that honest sites revealed, and it knows the secret where these are t;
- the masks of its own sites are known to it, so that honest sites alone are looked at;
- Σ_{k in S} y_k is unmasked if b_k of each k in S is known, and s_kj of each k in S with each honest j outside S: the masks between
  two sites of S cancel. Sums of other coefficients come to sums of such sets: two sites whose mask is not known need the same one.

So a lie succeeds where such an S holds fewer than t - c honest sites; and, over two attempts of one update, where S of the one and
S' of the other have a difference that does.
"""

import functools
import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest

from csasn.errors import ProtocolError
from csasn.federated.secagg import coordinator, site
from csasn.federated.secagg.masks import SEED_BYTES, Mask, add_masks
from csasn.federated.secagg.messages import threshold
from csasn.federated.secagg.shares import combine
from secagg_sites import TRAINING, answers, digest_of, names, sites, summed, survivors_of, values

CASES = [(num, c) for num in range(3, 7) for c in range(2 * threshold(num) - num)]


# ---- what one honest site can be brought to


@dataclass(frozen=True)
class Helped:
    """The sets that a site confirmed and revealed for in an attempt, and its state after."""

    confirmed: frozenset
    revealed: frozenset
    state: site.SiteState


@functools.cache
def scene(num, attempt):
    """The sites, and what all answered in an attempt."""
    group = sites(num, max_partial=num)
    return group, answers(group, attempt, TRAINING, values(group, 2, 16))


@functools.cache
def survivor_sets(num):
    """Every U that the threshold allows."""
    return [inside for size in range(threshold(num), num + 1) for inside in itertools.combinations(names(num), size)]


@functools.cache
def survivors(num, attempt, inside):
    """U with the confirmations of all its members: whether so many can be had is looked at in `allowed`."""
    group, answered = scene(num, attempt)
    return survivors_of(group, answered, inside)


def ask(num, attempt, name, helped, inside, what):
    """What comes of one question, or the same as before where the site refuses."""
    group, answered = scene(num, attempt)
    offered = survivors(num, attempt, inside)
    try:
        if what == "confirm":
            state, _ = site.confirm(helped.state, name, attempt, offered, group.roster, group.signer(name))
            return Helped(helped.confirmed | {inside}, helped.revealed, state)
        blobs = coordinator.blobs_for(name, {who: answered[who].sealing for who in inside}, offered, group.roster)
        state, shares = site.reveal(helped.state, name, attempt, offered, blobs, answered[name].own_shares, group.roster)
        assert len(shares) == coordinator.shares_bytes(num, len(inside))
        return Helped(helped.confirmed, helped.revealed | {inside}, state)
    except ProtocolError:
        return helped


def outcomes(num, attempt, name, state):
    """All that questions in any order can bring an honest site to, in one attempt."""
    group, _ = scene(num, attempt)
    opened = group.open(name, attempt, TRAINING, digest_of("transcript", attempt, TRAINING), state)
    found = {}
    waiting = [Helped(frozenset(), frozenset(), opened)]
    while waiting:
        helped = waiting.pop()
        if (key := repr(helped)) in found:
            continue
        found[key] = helped
        if max(len(helped.confirmed), len(helped.revealed)) > 1:
            continue  # it is lost already: no more has to be asked
        questions = itertools.product(survivor_sets(num), ("confirm", "reveal"))
        waiting += [ask(num, attempt, name, helped, inside, what) for inside, what in questions]
    return list(found.values())


def choices(found):
    """By the sets that a site reveals for, all that it can confirm beside; more is never less use to the coordinator, and what a
    site can do at most for some sets it can do for all that are fewer. The state is that after it revealed."""
    best = {}
    for helped in found:
        before = best.get(helped.revealed)
        confirmed = helped.confirmed | (before.confirmed if before else frozenset())
        best[helped.revealed] = Helped(confirmed, helped.revealed, helped.state)
    return list(best.values())


# ---- what the coordinator learns of it


def indices(num, inside):
    return [names(num).index(name) for name in inside]


def pieces(num, inside):
    """(owner, place) of each secret of which a site that reveals for U gives its share: `reveal`'s own order."""
    missing = [place for place in range(num) if place not in indices(num, inside)]
    result = np.zeros((num, num), np.int64)
    for owner in indices(num, inside):
        result[owner, [owner, *missing]] = 1
    return result


def given_by(num, revealed):
    """The shares that a site gives by all sets that it reveals for: one a secret at most."""
    return np.minimum(1, sum((pieces(num, inside) for inside in revealed), np.zeros((num, num), np.int64)))


def joint(num, honest, options):
    """Each combination of what honest sites choose: indices (combinations, honest)."""
    counts = [len(options[name]) for name in honest]
    return np.stack(np.meshgrid(*[np.arange(count) for count in counts], indexing="ij"), -1).reshape(-1, len(honest))


def allowed(num, honest, options, chosen):
    """The combinations in which each set that is not everybody and that somebody reveals for is confirmed by t of it, liars among
    them. A site that reveals for nothing confirms whatever it can: the coordinator asks it first."""
    t, fine = threshold(num), np.ones(len(chosen), bool)
    for inside in survivor_sets(num):
        if len(inside) == num:
            continue
        liars = len([name for name in inside if name not in honest])
        did = [np.array([[inside in one.confirmed, inside in one.revealed] for one in options[name]]) for name in honest]
        picked = np.stack([column[chosen[:, place]] for place, column in enumerate(did)], 1)
        fine &= ~picked[:, :, 1].any(1) | (picked[:, :, 0].sum(1) + liars >= t)
    return fine


def unmasked(num, honest, known):
    """For each combination and each set S of honest sites, whether S's sum is unmasked: (combinations, 2^honest); see above."""
    inside = indices(num, honest)
    result = np.zeros((len(known), 1 << len(inside)), bool)
    for mask in range(1, 1 << len(inside)):
        members = [place for bit, place in enumerate(inside) if mask >> bit & 1]
        others = [place for place in inside if place not in members]
        fine = known[:, members, members].all(1)
        for one, other in itertools.product(members, others):
            fine &= known[:, one, other] | known[:, other, one]
        result[:, mask] = fine
    return result


def learned(num, honest, options):
    """For each lie of one attempt that is allowed, which sets S it unmasks, and what each honest site chose."""
    chosen = joint(num, honest, options)
    chosen = chosen[allowed(num, honest, options, chosen)]
    given = np.full((len(chosen), num, num), num - len(honest))
    for place, name in enumerate(honest):
        given += np.stack([given_by(num, helped.revealed) for helped in options[name]])[chosen[:, place]]
    return unmasked(num, honest, given >= threshold(num)), chosen


def sizes(num_honest):
    return np.array([mask.bit_count() for mask in range(1 << num_honest)])


def smallest(num, honest, options):
    """The fewest honest sites in any sum that any lie of one attempt unmasks."""
    sums, _ = learned(num, honest, options)
    found = sizes(len(honest))[sums.any(0)]
    return int(found.min(initial=num))


# ---- the claims


@functools.cache
def first_options(num):
    """What each site can be brought to in the first attempt of a round, if it is honest."""
    group, _ = scene(num, 2)
    return {name: choices(outcomes(num, 2, name, group.states[name])) for name in names(num)}


def honest_sites(num, c):
    """Every set of honest sites where c are not."""
    return [tuple(name for name in names(num) if name not in liars) for liars in itertools.combinations(names(num), c)]


@pytest.mark.parametrize("num", range(3, 7))
def test_a_site_can_be_brought_to_reveal_for_one_set_of_those_it_is_in(num):
    for name, found in first_options(num).items():
        assert {helped.revealed for helped in found} == {
            frozenset(), *(frozenset({inside}) for inside in survivor_sets(num) if name in inside)
        }  # fmt: skip
        assert all(helped.confirmed <= helped.revealed for helped in found if helped.revealed)


@pytest.mark.parametrize(("num", "c"), CASES)
def test_no_lie_in_an_attempt_unmasks_a_sum_of_fewer_than_t_minus_c_honest_sites(num, c):
    least = threshold(num) - c
    for honest in honest_sites(num, c):
        assert smallest(num, honest, first_options(num)) >= least, honest


def smallest_difference(one, other, num_honest):
    """The fewest sites in a sum, or a difference of two, of what two attempts of the same update unmask."""
    of_one, of_other = ([mask for mask in range(1, 1 << num_honest) if sums[mask]] for sums in (one, other))
    found = [*of_one, *of_other, *(first ^ second for first, second in itertools.product(of_one, of_other) if first != second)]
    return min((mask.bit_count() for mask in found), default=num_honest)


@pytest.mark.parametrize(("num", "c"), CASES)
def test_no_lies_over_two_attempts_of_a_round_unmask_fewer(num, c):
    """What a site did in the first attempt binds it in the second, as far as its own functions have it."""
    least = threshold(num) - c
    again = functools.cache(lambda name, place: choices(outcomes(num, 3, name, first_options(num)[name][place].state)))
    for honest in honest_sites(num, c):
        sums, chosen = learned(num, honest, first_options(num))
        told = sums.any(1)
        assert told.any()
        for row, picked in zip(sums[told], chosen[told], strict=True):
            options = {name: again(name, int(place)) for name, place in zip(honest, picked, strict=True)}
            later, _ = learned(num, honest, options)
            for second in np.unique(later, axis=0):
                assert smallest_difference(row, second, len(honest)) >= least, (honest, picked)


def test_a_round_repeated_for_sites_that_only_confirmed_may_take_another_set():
    """So the second attempt is no weaker than the first, and the search above does not pass for want of anything to find."""
    group, _ = scene(4, 2)
    found = outcomes(4, 2, "zeta", group.states["zeta"])
    only_confirmed = next(helped for helped in found if helped.confirmed and not helped.revealed)
    revealed = next(helped for helped in found if helped.revealed)
    assert len({helped.revealed for helped in outcomes(4, 3, "zeta", only_confirmed.state)}) == 5
    assert {helped.revealed for helped in outcomes(4, 3, "zeta", revealed.state)} == {frozenset(), revealed.revealed}


def helping(sets, name):
    """That a site confirms and reveals for each of these sets that it is in."""
    mine = frozenset(inside for inside in sets if name in inside)
    return [Helped(mine, mine, site.SiteState())]


@pytest.mark.parametrize("forgotten", ["survivors", "revealed_for"])
def test_the_search_finds_the_lie_where_a_site_forgets_what_it_did(forgotten):
    """Where commitments are lost within an attempt, or reveals between attempts, one honest site is alone."""
    num, honest = 4, names(4)
    if forgotten == "survivors":
        options = {name: helping(survivor_sets(num), name) for name in honest}
        assert smallest(num, honest, options) == 1
        return
    whole, part = names(4), names(4)[:3]
    first, second = ({name: helping([inside], name) for name in honest} for inside in (whole, part))
    one, other = (learned(num, honest, options)[0][0] for options in (first, second))
    assert smallest_difference(one, other, num) == 1


# ---- where the bound ends, in real shares


def shares_for(num, attempt, name, inside):
    group, answered = scene(num, attempt)
    offered = survivors(num, attempt, inside)
    blobs = coordinator.blobs_for(name, {who: answered[who].sealing for who in inside}, offered, group.roster)
    return site.reveal(answered[name].state, name, attempt, offered, blobs, answered[name].own_shares, group.roster)[1]


def parts_of(num, name, inside):
    """What a site reveals, by (owner, place) of the secret."""
    text = shares_for(num, 2, name, inside)
    missing = [who for who in names(num) if who not in inside]
    order = [(owner, which) for owner in inside for which in (owner, *missing)]
    return {pair: text[SEED_BYTES * place :][:SEED_BYTES] for place, pair in enumerate(order)}


def test_a_third_of_the_membership_can_play_two_survivor_sets_off_against_each_other():
    """n = 7, t = 5: the coordinator with 2t - n = 3 sites reads one update, as csasn/SPEC.md says; with 2 it cannot."""
    num, liars = 7, ("omega", "kappa", "eta")
    victim, honest = "zeta", ("zeta", "alpha", "mid", "beta")
    without = tuple(name for name in names(num) if name != victim)
    group, answered = scene(num, 2)
    told = {"zeta": names(num), "alpha": names(num), "mid": without, "beta": without}
    assert {name for name in without if name not in liars} == {"alpha", "mid", "beta"}

    def secret(owner, place, inside):
        """From the two honest sites that were told U, and the liars, whose own shares are all theirs."""
        holders = [*(name for name in honest if told[name] == inside), *liars]
        return combine({group.roster.index(name): parts_of(num, name, inside)[owner, place] for name in holders})

    masks = [Mask(secret(victim, victim, names(num)), -1)]
    masks += [Mask(secret(peer, victim, without), -group.roster.sign_of(victim, peer)) for peer in without]
    upload = answered[victim].upload.copy()
    add_masks(upload, masks)
    assert upload.tolist() == values(group, 2, 16)[victim].tolist()


def test_with_one_site_fewer_the_same_lie_gathers_one_confirmation_too_few():
    """Of the six sites that are told a set without zeta, two are honest and hold to it, one was told another, and two lie."""
    num, without = 7, names(7)[1:]
    group, answered = scene(num, 2)
    offered = survivors(num, 2, without)
    four = {name: offered.confirmations[name] for name in ("mid", "beta", "eta", "kappa")}
    state, blobs = answered["mid"].state, {}
    with pytest.raises(ProtocolError, match="4 sites confirmed the survivors, expected 5 at least"):
        site.reveal(state, "mid", 2, replace(offered, confirmations=four), blobs, b"", group.roster)


def test_without_confirmations_seven_sites_could_be_told_apart_by_two_liars():
    """Five honest sites, each told another set, would unmask two of them alone: this is what step B is for."""
    num, honest = 7, names(7)[:5]
    first, second, a, b, c = honest
    missing = {first: (a, b), second: (a, c), a: (b, c), b: (a, c), c: (a, b)}
    told = {name: tuple(who for who in names(num) if who not in missing[name]) for name in honest}
    options = {name: helping([told[name]], name) for name in honest}
    given = np.full((1, num, num), 2) + sum(given_by(num, {told[name]}) for name in honest)
    sums = unmasked(num, honest, given >= threshold(num))[0]
    assert sizes(5)[sums].min() == 2 < threshold(num) - 2
    assert not allowed(num, honest, options, joint(num, honest, options)).any()
    group, answered = scene(num, 2)
    offered = survivors(num, 2, told[first])
    liars_and_itself = {name: offered.confirmations[name] for name in (first, "kappa", "eta")}
    with pytest.raises(ProtocolError, match="3 sites confirmed the survivors, expected 5 at least"):
        site.reveal(answered[first].state, first, 2, replace(offered, confirmations=liars_and_itself), {}, b"", group.roster)


def test_a_late_upload_stays_hidden_by_its_own_mask():
    """zeta was left out and its pair masks are known; b of zeta was shared with t, and nobody reveals it for a set without zeta."""
    num, without = 4, names(4)[1:]
    group, answered = scene(num, 2)
    revealed = coordinator.recover(
        {name: shares_for(num, 2, name, without) for name in without},
        without,
        {name: answered[name].sealing.hashes for name in without},
        group.roster,
    )
    assert not [pair for name in without for pair in parts_of(num, name, without) if pair[0] == "zeta"]
    upload = summed([answered[name].upload for name in names(num)])
    coordinator.unmask(upload, revealed)
    known = summed([values(group, 2, 16)[name] for name in without])
    assert upload.tolist() != (known + values(group, 2, 16)["zeta"]).tolist()
    with pytest.raises(ProtocolError, match="this site answered, and is not among the survivors"):
        site.confirm(answered["zeta"].state, "zeta", 2, survivors(num, 2, without), group.roster, group.signer("zeta"))
