"""A study that calibrates: the temperature follows from the cases of all sites, and what is released is what was counted."""

import numpy as np
import pytest
from scipy.special import log_softmax

from csasn.data.cases import VALIDATION, load_site_data
from csasn.errors import ProtocolError
from csasn.federated.messages import Finish
from csasn.finished.prediction import evaluate_sites
from csasn.finished.weights import DESCRIPTION, WEIGHTS, load_model
from csasn.learning.evaluation import labelled_logits
from csasn.measures.counts import FIXED_POINT
from csasn.measures.temperature import TEMPERATURES, temperature_of
from csasn.model.profiles import image_size
from csasn.study import Study
from server.run.outcome import write_outcome

MASKED = {"secure_aggregation": True, "rounds": 3, "batchnorm": "group"}
RATE = {"learning_rate": 0.005}


def run_to_the_end(federation):
    finished = federation.run()
    directory = type(federation.directory)(federation.path)
    write_outcome(directory, federation.contract, federation.network, finished)
    directory.close()
    return finished


@pytest.fixture(scope="module")
def both(tmp_path_factory, write_small_hospitals, local_federation):
    """(federation, what came of it) of a study that calibrates, and of one that does not."""
    made = []
    for calibration in ("temperature", "none"):
        folder = tmp_path_factory.mktemp(calibration)
        write_small_hospitals(folder / "hospitals", federation=MASKED, optimiser=RATE, calibration=calibration, num_cases=24)
        federation = local_federation(folder / "hospitals", folder / "run")
        made.append((federation, run_to_the_end(federation)))
    return made


def test_the_temperature_is_that_of_the_pooled_validation_cases_of_the_chosen_model(both):
    federation, finished = both[0]
    study, network = federation.study, federation.network
    federation.contract.state.write(network, finished.chosen.model)
    sums = np.zeros(len(TEMPERATURES))
    for site in federation.sites.values():
        data = load_site_data(study, site, image_size(study.model))
        for logits_K, label in zip(*labelled_logits(network, data, VALIDATION, study), strict=True):
            sums += [round(-log_softmax(logits_K / temperature)[label] * FIXED_POINT) for temperature in TEMPERATURES]
    assert finished.chosen.temperature == pytest.approx(temperature_of({"calibration": sums.astype(np.int64)}), rel=1e-6)
    assert finished.chosen.temperature != 1


def test_what_was_counted_is_what_the_released_files_give(both):
    federation, finished = both[0]
    network, info = load_model(federation.path)
    assert info.temperature == finished.chosen.temperature
    assert f'"temperature": {finished.chosen.temperature}' in (federation.path / DESCRIPTION).read_text()
    for name, block in evaluate_sites(network, info, federation.sites, "test").items():
        np.testing.assert_array_equal(block, finished.counts[name])
    (outcome,) = federation.events("outcome")
    assert outcome["temperature"] == finished.chosen.temperature
    assert outcome["adjustment"] == list(info.adjustment)


def test_no_decision_moves_and_every_probability_is_scaled(both):
    (calibrated, finished), (plain, finished_plain) = both
    assert calibrated.state_hash() == plain.state_hash()
    np.testing.assert_array_equal(finished.counts["confusion"], finished_plain.counts["confusion"])
    assert finished.counts["loss"] != finished_plain.counts["loss"]
    assert finished_plain.chosen.temperature == 1
    (network, info), (plain_network, plain_info) = load_model(calibrated.path), load_model(plain.path)
    images = np.random.default_rng(0).integers(0, 255, (5, info.image_size, info.image_size)).astype(np.uint8)
    expected = (plain_network.subtype_logits(images) + np.array(plain_info.adjustment)) / finished.chosen.temperature
    found = network.subtype_logits(images) + np.array(info.adjustment)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert '"temperature"' not in (plain.path / DESCRIPTION).read_text()
    assert "calibration" not in plain.study.model_dump()
    assert Study.model_validate(plain.study.model_dump()).study_hash == plain.study.study_hash


def test_killed_before_the_end_the_same_files_come_of_it(federate, both):
    class KilledError(Exception):
        pass

    def kill(site, request, answer):
        if isinstance(request, Finish):
            raise KilledError
        return answer

    changes = {"federation": MASKED, "optimiser": RATE, "calibration": "temperature", "num_cases": 24}
    disturbed = federate("disturbed", tamper=kill, **changes)
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = federate("disturbed")
    finished = run_to_the_end(resumed)
    assert finished.chosen.temperature == both[0][1].chosen.temperature
    for name in (WEIGHTS, DESCRIPTION):
        assert (resumed.path / name).read_bytes() == (both[0][0].path / name).read_bytes()


@pytest.mark.parametrize(("calibration", "wrong"), [("temperature", 9.0), ("none", 1.5)])
def test_a_site_refuses_a_temperature_that_the_study_cannot_have(both, calibration, wrong):
    federation, _ = both[calibration == "none"]
    asked = [request for site, request in federation.requests if isinstance(request, Finish) and site == "centerA"]
    changed = type(asked[0])(asked[0].header, asked[0].model, asked[0].weighting, asked[0].accepted, wrong)
    with pytest.raises(ProtocolError, match="the temperature is"):
        federation.workers["centerA"].answer(changed)
