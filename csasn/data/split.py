"""Which patients train, which validate and which test, stratified by class; all cases of a patient go together."""

from collections import Counter
from collections.abc import Mapping

from csasn.platform.randomness import derive_seed
from csasn.recipe import Split

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


def split_patients(classes: Mapping[str, int], patients: Mapping[str, str], shares: Split, seed: int, site: str) -> dict[str, str]:
    """The split of each case, as `split_cases` would split the patients; `classes` and `patients` are by case id.

    A patient counts for the rarest class of their cases, since that one is the hardest to spread over splits; of equally rare ones
    for the last.
    """
    number = Counter(classes.values())
    rarest: dict[str, int] = {}
    for case, label in classes.items():
        other = rarest.setdefault(patients[case], label)
        if label >= 0 and (other < 0 or (-number[label], label) > (-number[other], other)):
            rarest[patients[case]] = label
    splits = split_cases(rarest, shares, seed, site)
    return {case: splits[patients[case]] for case in classes}


def split_cases(classes: Mapping[str, int], shares: Split, seed: int, site: str) -> dict[str, str]:
    """The split of each case, where a case is a patient: case id -> "train", "validation" or "test".

    `classes` maps case id -> class index, -1 unlabelled. The cases of a class are ranked by a hash of (seed, site, case id): the
    first test, the next validate, the rest train. So the order of the manifest does not matter, and a case that comes or goes moves
    only cases at the edges of the splits. Unlabelled cases train.
    """
    splits = dict.fromkeys(classes, SPLITS[TRAIN])
    for label in sorted(set(classes.values()) - {-1}):
        members = [case for case, other in classes.items() if other == label]
        ranked = sorted(members, key=lambda case: derive_seed(seed, "split", site, case))
        num_validation, num_test = split_sizes(len(ranked), shares)
        splits |= dict.fromkeys(ranked[:num_test], SPLITS[TEST])
        splits |= dict.fromkeys(ranked[num_test : num_test + num_validation], SPLITS[VALIDATION])
    return splits


def split_sizes(num_cases: int, shares: Split) -> tuple[int, int]:
    """Numbers of validation and test cases among `num_cases` of one class.

    Rounded shares; at least one each (test: unless its share is 0) from three cases on; always at least one case is left to train.
    """
    floor = 1 if num_cases >= 3 else 0
    num_validation = max(floor, _round(num_cases * shares.validation))
    num_test = max(floor, _round(num_cases * shares.test)) if shares.test else 0
    while num_cases and num_validation + num_test >= num_cases:
        if num_test > num_validation:
            num_test -= 1
        else:
            num_validation -= 1
    return num_validation, num_test


def _round(value: float) -> int:
    return int(value + 0.5)
