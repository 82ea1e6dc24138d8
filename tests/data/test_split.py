"""csasn/data/split.py: seeded, stratified splits of cases."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csasn.data.split import split_cases, split_sizes
from csasn.recipe import Split

SHARES = st.builds(Split, validation=st.floats(0.01, 0.49), test=st.floats(0.01, 0.49))
CLASSES = st.dictionaries(st.text(min_size=1, max_size=8), st.integers(-1, 3), max_size=60)


@given(num_cases=st.integers(0, 2000), shares=SHARES)
@example(num_cases=2, shares=Split(validation=0.45, test=0.45))
@example(num_cases=4, shares=Split(validation=0.45, test=0.45))
def test_every_split_of_three_or_more_cases_has_one_and_sizes_follow_the_shares(num_cases: int, shares: Split) -> None:
    validation, test = split_sizes(num_cases, shares)
    train = num_cases - validation - test
    assert min(validation, test) >= (1 if num_cases >= 3 else 0)
    assert train >= (1 if num_cases else 0)
    assert abs(validation - num_cases * shares.validation) <= 1
    assert abs(test - num_cases * shares.test) <= 1


@pytest.mark.parametrize(
    ("num_cases", "sizes"), [(0, (0, 0)), (1, (0, 0)), (2, (0, 0)), (3, (1, 1)), (20, (3, 4)), (100, (15, 20))]
)
def test_sizes_at_the_default_shares(num_cases: int, sizes: tuple[int, int]) -> None:
    assert split_sizes(num_cases, Split()) == sizes


def test_no_test_case_where_its_share_is_zero() -> None:
    assert split_sizes(50, Split(validation=0.2, test=0)) == (10, 0)


@given(classes=CLASSES, shares=SHARES, seed=st.integers(0, 99), data=st.data())
def test_the_order_of_the_manifest_does_not_matter(classes: dict[str, int], shares: Split, seed: int, data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(classes.items()))))
    assert split_cases(classes, shares, seed, "centerA") == split_cases(shuffled, shares, seed, "centerA")


@given(classes=CLASSES, shares=SHARES)
def test_each_class_is_split_on_its_own_and_unlabelled_cases_train(classes: dict[str, int], shares: Split) -> None:
    splits = split_cases(classes, shares, 1, "centerA")
    assert splits.keys() == classes.keys()
    for label in set(classes.values()):
        found = Counter(splits[case] for case in classes if classes[case] == label)
        validation, test = split_sizes(found.total(), shares) if label >= 0 else (0, 0)
        assert (found["validation"], found["test"]) == (validation, test)


def test_seed_and_site_change_the_split() -> None:
    classes = {f"case{number}": 0 for number in range(100)}
    splits = [split_cases(classes, Split(), seed, site) for seed, site in ((1, "centerA"), (2, "centerA"), (1, "centerB"))]
    assert splits[0] == split_cases(classes, Split(), 1, "centerA")
    assert splits[0] != splits[1]
    assert splits[0] != splits[2]


def test_a_case_that_goes_moves_few_others() -> None:
    classes = {f"case{number}": number % 3 for number in range(300)}
    before = split_cases(classes, Split(), 1, "centerA")
    after = split_cases({case: label for case, label in classes.items() if case != "case7"}, Split(), 1, "centerA")
    assert sum(before[case] != after[case] for case in after) <= 2
