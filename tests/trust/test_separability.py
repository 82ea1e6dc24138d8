"""A membership that makes single hospitals separable is told before it is approved, and approved only with a word more."""

import pytest

from client.trust.separability import check_differences, describe_difference, find_differences
from client.worker.diary import Diary, Entry, Hospitals
from csasn.errors import TrustError
from csasn.federated.messages import Kind
from csasn.site import Site
from csasn.trust.membership import Member, Membership

STUDY = "a" * 64
FOUR, THREE = ("centerA", "centerB", "centerC", "centerD"), ("centerA", "centerB", "centerC")


def membership(sites):
    units = [64 // len(sites)] * (len(sites) - 1)
    members = tuple(Member(site=name, weight_units=n) for name, n in zip(sites, [*units, 64 - sum(units)], strict=True))
    return Membership(study_hash=STUDY, members=members)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "manifest.csv").write_text("case_id,image,label\n")
    return Site(site="centerA", manifest=str(tmp_path / "manifest.csv"), images=str(tmp_path), state=str(tmp_path / "state"))


def count(site, sites, study=STUDY):
    """The site answers a hello in this membership, with the manifest of now."""
    import hashlib
    from pathlib import Path

    proposed = membership(sites)
    folder = site.run_folder / f"study-{proposed.membership_hash[:12]}"
    folder.mkdir(parents=True)
    diary = Diary(folder, Hospitals(study_hash=study, membership_hash=proposed.membership_hash, sites=sites))
    entry = Entry(number=1, transcript="c" * 64, answer="d" * 64)
    diary.note(Kind.HELLO, entry, 1, hashlib.sha256(Path(site.manifest).read_bytes()).hexdigest())


def test_a_hospital_that_leaves_is_named_and_nothing_is_signed_without_a_word(site):
    count(site, FOUR)
    ((earlier, difference),) = find_differences(site, membership(THREE)).items()
    assert (earlier, difference.separable) == (membership(FOUR).membership_hash, ("centerD",))
    line = describe_difference(earlier, difference)
    assert "without centerD" in line
    assert "are those of centerD" in line
    with pytest.raises(TrustError, match="counts of centerD") as refused:
        check_differences(site, membership(THREE), accepted=False)
    assert "--accept-difference" in refused.value.hint
    check_differences(site, membership(THREE), accepted=True)


def test_a_hospital_that_joins_is_named_too(site):
    count(site, THREE)
    assert [difference.separable for difference in find_differences(site, membership(FOUR)).values()] == [("centerD",)]


def test_one_for_another_names_both(site):
    count(site, THREE)
    (difference,) = find_differences(site, membership(("centerA", "centerB", "centerE"))).values()
    assert difference.separable == ("centerC", "centerE")


def test_two_that_leave_hide_each_other_and_the_same_hospitals_differ_in_nothing(site):
    count(site, (*FOUR, "centerE"))
    assert find_differences(site, membership(THREE)) == {}
    count(site, THREE)
    assert find_differences(site, membership(THREE)) == {}


def test_any_earlier_study_with_the_same_cases_counts_and_none_with_others(site):
    count(site, FOUR, study="b" * 64)
    assert find_differences(site, membership(THREE))
    with open(site.manifest, "a") as file:
        file.write("1,1.png,benign\n")
    assert find_differences(site, membership(THREE)) == {}


def test_a_membership_that_was_approved_but_never_counted_says_nothing(site):
    assert find_differences(site, membership(THREE)) == {}
