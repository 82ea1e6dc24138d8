"""csasn/model/settling.py: what a study leaves open is written into it before anybody is asked, and means the same ever after."""

import json

import pytest
import yaml

from csasn.model.settling import OPTIONS, RULE, settle
from csasn.platform.configuration import write_yaml
from csasn.study import read_study


@pytest.fixture
def make(tmp_path):
    """A study file with these keys of the federation, read."""

    def make(**federation):
        values = {
            "name": "small", "classes": ["benign", "PTC"], "model": {"profile": "csasn-test", "image_size": 32},
            "federation": {"sites": ["centerA", "centerB"], **federation},
        }  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(values))
        return read_study(path)

    return make


def written(study, tmp_path):
    """The study as a hospital reads it."""
    path = tmp_path / "sent.yaml"
    path.write_text(yaml.safe_dump(json.loads(study.model_dump_json())))
    return read_study(path)


def test_a_study_that_names_no_rule_gets_momentum_and_says_so_to_whom_it_is_sent(make, tmp_path):
    settled = settle(make())
    assert (settled.federation.server_rule, settled.federation.server_options) == (RULE, OPTIONS)
    read = written(settled, tmp_path)
    assert read.study_hash == settled.study_hash != make().study_hash
    assert read.federation.server_rule == RULE
    assert settle(read).study_hash == settled.study_hash


@pytest.mark.parametrize(
    "said",
    [
        {"server_rule": "fedavg"},
        {"server_rule": "averaged"},
        {"server_rule": "fedavgm", "server_options": {"momentum": 0.9}},
        {"server_rule": "feddyn", "local_objective": "feddyn", "sites": ["centerA", "centerB", "centerC"]},
        {"local_objective": "scaffold", "sites": ["centerA", "centerB", "centerC"]},
    ],
    ids=lambda said: "-".join(map(str, said.values()))[:30],
)
def test_what_a_study_says_stays_also_where_it_is_written_and_read_and_settled_again(make, said, tmp_path):
    settled = settle(make(**said))
    assert settled.federation == make(**said).federation
    (tmp_path / "kept.yaml").write_text(write_yaml(settled))
    again = settle(read_study(tmp_path / "kept.yaml"))
    assert again.federation == settled.federation
    assert again.study_hash == settled.study_hash


def test_a_run_goes_on_with_the_rule_that_it_began_with(make, tmp_path):
    """Also one from before, which has FedAvg, and does not name it."""
    begun = written(settle(make(server_rule="fedavg")), tmp_path)
    assert settle(make(), begun).study_hash == begun.study_hash
    momentum = written(settle(make()), tmp_path)
    assert settle(make(), momentum).study_hash == momentum.study_hash
    assert settle(make(server_rule="fedavg"), momentum).study_hash != momentum.study_hash


def test_a_survey_has_no_rule_to_settle(make):
    survey = make().of_survey
    assert settle(survey) == survey
