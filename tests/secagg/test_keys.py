"""Keys that are fresh for each question: whose they are, what for, and the seeds that follow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import ProtocolError, TrustError
from csasn.federated.secagg.keys import Roster, SignedKey, check_keys, fresh_key, share_seeds, sign_key, view_of
from csasn.platform.canonical import canonical
from csasn.trust.identity import sign
from secagg.scene import Group, T, drawn, signer_of

NUM = 4
P = 2**255 - 19
ORDER_EIGHT = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
SMALL_ORDER = [
    number.to_bytes(32, "little") for number in (0, 1, P - 1, P, P + 1, *ORDER_EIGHT)
]  # RFC 7748, section 6.1; the list of Bernstein's curve25519 page below 2^255


@pytest.fixture(scope="module")
def group():
    return Group(NUM)


def replaced(group, place, key):
    return (*group.keys[:place], key, *group.keys[place + 1 :])


def test_keys_of_all_sites_for_this_question_pass(group):
    check_keys(group.keys, T, group.roster)


@pytest.mark.parametrize("place", range(NUM))
def test_a_key_that_is_missing_is_refused(group, place):
    with pytest.raises(ProtocolError, match=f"{NUM - 1} keys came, expected a different one of each of the {NUM} sites"):
        check_keys(group.keys[:place] + group.keys[place + 1 :], T, group.roster)


def test_no_keys_and_one_too_many_are_refused(group):
    other = sign_key(drawn("other"), T, signer_of(group.names[0]))
    for keys in ((), (*group.keys, other)):
        with pytest.raises(ProtocolError, match=f"{len(keys)} keys came"):
            check_keys(keys, T, group.roster)


@pytest.mark.parametrize("place", range(1, NUM))
def test_one_key_twice_is_refused_also_where_both_sites_signed_it(group, place):
    again = sign_key(group.private(group.names[0]), T, signer_of(group.names[place]))
    with pytest.raises(ProtocolError, match=f"{NUM} keys came, expected a different one"):
        check_keys(replaced(group, place, again), T, group.roster)


@pytest.mark.parametrize("place", range(NUM))
@pytest.mark.parametrize("what", ["question", "identity", "purpose", "key", "signature", "text"])
def test_a_key_of_another_question_identity_or_purpose_is_refused(group, place, what):
    name, private = group.names[place], group.private(group.names[place])
    mine = group.keys[place]
    wrong = {
        "question": lambda: sign_key(private, drawn("another question"), signer_of(name)),
        "identity": lambda: sign_key(private, T, signer_of("nobody")),
        "purpose": lambda: sign_key(private, T, lambda _, data: signer_of(name)("secagg-answer", data)),
        "key": lambda: SignedKey(drawn("another key"), mine.signature),
        "signature": lambda: SignedKey(mine.public, mine.signature[:-2] + "00"),
        "text": lambda: SignedKey(mine.public, "no hexadecimal"),
    }[what]()
    with pytest.raises(TrustError, match=f"the secagg-key signature of {name} is not valid"):
        check_keys(replaced(group, place, wrong), T, group.roster)


def test_keys_in_another_order_are_refused(group):
    with pytest.raises(TrustError):
        check_keys((group.keys[1], group.keys[0], *group.keys[2:]), T, group.roster)


def test_keys_of_another_membership_are_refused(group):
    names = list(group.names)
    other = Roster({**group.roster.identities, names[1]: Group(NUM + 1).roster.identities[Group(NUM + 1).names[-1]]})
    with pytest.raises(TrustError, match=names[1]):
        check_keys(group.keys, T, other)


@pytest.mark.parametrize("point", SMALL_ORDER, ids=range(len(SMALL_ORDER)))
@pytest.mark.parametrize("high_bit", [0, 128])
def test_a_key_of_small_order_is_refused(group, point, high_bit):
    name = group.names[2]
    point = point[:31] + bytes([point[31] | high_bit])
    keys = replaced(group, 2, SignedKey(point, signer_of(name)("secagg-key", _statement(point))))
    check_keys(keys, T, group.roster)
    with pytest.raises(ProtocolError, match=f"the key of {name} cannot be used"):
        share_seeds(group.private(group.names[0]), group.names[0], view_of(T, keys), keys, group.roster)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(group, size):
    name, point = group.names[2], bytes(range(size))
    keys = replaced(group, 2, SignedKey(point, signer_of(name)("secagg-key", _statement(point))))
    with pytest.raises(ProtocolError, match=f"the key of {name} cannot be used"):
        share_seeds(group.private(group.names[0]), group.names[0], view_of(T, keys), keys, group.roster)


def _statement(point):
    return canonical([T, point])


@pytest.mark.parametrize("place", range(NUM))
def test_a_site_whose_own_key_was_replaced_refuses(group, place):
    name = group.names[place]
    keys = replaced(group, place, sign_key(drawn("other"), T, signer_of(name)))
    check_keys(keys, T, group.roster)
    with pytest.raises(ProtocolError, match="the key in this site's place is not its own"):
        share_seeds(group.private(name), name, view_of(T, keys), keys, group.roster)


@settings(deadline=None, max_examples=14)
@given(st.integers(3, 16), st.integers(0, 1000))
def test_two_sites_share_their_seeds_and_no_other_seed_is_the_same(num, draw):
    group = Group(num, draw=draw)
    view = view_of(T, group.keys)
    seeds = {name: share_seeds(group.private(name), name, view, group.keys, group.roster) for name in group.names}
    for name in group.names:
        assert set(seeds[name]) == set(group.roster.others(name))
        assert all(seeds[name][peer] == seeds[peer][name] for peer in seeds[name])
    found = {seed for shared in seeds.values() for pair in shared.values() for seed in (pair.update, pair.counts)}
    assert len(found) == num * (num - 1)  # two for each pair
    assert {len(seed) for seed in found} == {32}


@pytest.mark.parametrize("changed", ["question", "a key of another site"])
def test_seeds_of_two_views_have_nothing_in_common(group, changed):
    first, second = group.names[:2]
    keys = replaced(group, 3, sign_key(drawn("restored"), T, signer_of(group.names[3])))
    views = [view_of(T, group.keys), view_of(drawn("x"), group.keys) if changed == "question" else view_of(T, keys)]
    one, other = (share_seeds(group.private(first), first, view, group.keys, group.roster)[second] for view in views)
    assert not {one.update, one.counts} & {other.update, other.counts}


def test_a_view_is_of_the_question_and_of_every_key_in_its_place(group):
    views = {view_of(T, group.keys), view_of(drawn("x"), group.keys), view_of(T, group.keys[:-1]), view_of(T, group.keys[::-1])}
    views |= {view_of(T, replaced(group, place, group.key("nobody"))) for place in range(NUM)}
    assert len(views) == 4 + NUM


def test_private_keys_come_from_the_operating_system(monkeypatch):
    assert len({fresh_key() for _ in range(100)}) == 100
    monkeypatch.setattr("os.urandom", lambda size: bytes([size]) * size)
    assert fresh_key() == b"\x20" * 32


def test_the_earlier_of_two_sites_adds_and_the_later_subtracts():
    roster = Group(5).roster
    signs = np.array([[roster.sign_of(site, peer) if site != peer else 0 for peer in roster.sites] for site in roster.sites])
    assert np.array_equal(signs, np.triu(np.ones((5, 5), int), 1) - np.tril(np.ones((5, 5), int), -1))


def test_signing_a_key_says_what_it_is_for(group):
    name = group.names[0]
    said = []
    sign_key(group.private(name), T, lambda purpose, data: said.append((purpose, data)) or sign.__name__)
    assert said == [("secagg-key", _statement(group.keys[0].public))]
