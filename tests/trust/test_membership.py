"""Public weights of the sites."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csasn.errors import ConfigurationError
from csasn.platform.configuration import validate
from csasn.trust.membership import Member, Membership, share_weights


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=64))
def test_shares_add_up_to_64_and_each_site_has_one(counts):
    shares = share_weights({f"s{number:02}": count for number, count in enumerate(counts)})
    assert sum(shares.values()) == 64
    assert min(shares.values()) >= 1


def test_shares_follow_the_numbers_of_cases():
    assert share_weights({"a": 100, "b": 100, "c": 200}) == {"a": 16, "b": 16, "c": 32}
    assert share_weights({"a": 1, "b": 10_000}) == {"a": 1, "b": 63}


def test_shares_do_not_depend_on_the_order_of_sites():
    counts = {"a": 33, "b": 33, "c": 31, "d": 3}
    assert share_weights(counts) == share_weights(dict(reversed(counts.items())))


@pytest.mark.parametrize("counts", [{f"s{k}": 5 for k in range(65)}, {"a": 0, "b": 3}])
def test_impossible_shares_are_refused(counts):
    with pytest.raises(ConfigurationError):
        share_weights(counts)


def test_a_membership_that_does_not_add_up_is_refused():
    member = {"site": "a", "weight_units": 63}
    with pytest.raises(ConfigurationError, match="weights add up to 63, expected 64"):
        validate(Membership, {"study_hash": "0" * 64, "members": [member]}, "membership.json")


def test_any_change_changes_the_hash():
    one = Membership(study_hash="0" * 64, members=(Member(site="a", weight_units=32), Member(site="b", weight_units=32)))
    other = Membership(study_hash="0" * 64, members=(Member(site="a", weight_units=33), Member(site="b", weight_units=31)))
    assert one.membership_hash != other.membership_hash
