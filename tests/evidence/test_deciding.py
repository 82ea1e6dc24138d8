"""server/evidence/deciding.py: other decisions from the same probabilities, by class weights of the training cases."""

import numpy as np
import pytest

from csasn.data.cases import load_site_data
from csasn.measures.cases import Cases
from csasn.site import find_site
from csasn.study import read_study
from server.evidence.deciding import decide, weights_without_rounds
from server.evidence.predictions import Predictions


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory, write_small_hospitals):
    """Three sites of 60 cases, where centerA has no FTC."""
    folder = tmp_path_factory.mktemp("deciding") / "hospitals"
    write_small_hospitals(folder, num_cases=60)
    path = folder / "centerA/manifest.csv"
    path.write_text(path.read_text().replace("FTC", "benign"))
    return folder


@pytest.mark.parametrize("names", [("centerA",), ("centerA", "centerB")])
def test_weights_follow_from_the_training_cases_of_the_sites(hospitals, names):
    study = read_study(hospitals / "study.yaml", ("class_weighting={mode: static, tau: 0.75}",))
    sites = [find_site(name, folder=hospitals / "sites") for name in names]
    counts = np.zeros(3)
    for site in sites:
        data = load_site_data(study, site, 32)
        counts += np.bincount(data.class_C[data.split_C == 0], minlength=3)
    assert counts.min() == (0 if len(names) == 1 else counts[2])
    expected = np.maximum(counts, 10) / np.maximum(counts, 10).sum()
    np.testing.assert_allclose(weights_without_rounds(study, sites).offset_K, -0.75 * np.log(expected))


def test_decisions_change_and_probabilities_stay(hospitals):
    study = read_study(hospitals / "study.yaml", ("class_weighting={mode: static, tau: 2.0}",))
    weights = weights_without_rounds(study, [find_site("centerA", folder=hospitals / "sites")])
    random = np.random.default_rng(1)
    probability_NK = random.dirichlet([6, 3, 1], 60)
    cases = Cases(random.integers(0, 3, 60), probability_NK.argmax(axis=1), np.log(probability_NK), np.zeros(3))
    predictions = Predictions(cases, np.zeros(60, np.int64), np.arange(60))
    found = decide(predictions, weights)
    np.testing.assert_array_equal(found.cases.decision_N, (probability_NK * np.exp(weights.offset_K)).argmax(axis=1))
    assert np.bincount(found.cases.decision_N, minlength=3)[2] > np.bincount(cases.decision_N, minlength=3)[2]
    np.testing.assert_array_equal(found.cases.log_probability_NK, cases.log_probability_NK)
    np.testing.assert_array_equal(found.cases.adjustment_K, weights.adjustment_K)
    np.testing.assert_array_equal(found.keys(), predictions.keys())
