"""What is built in can be loaded, and is of its kind."""

import pytest

from csasn.errors import ConfigurationError
from csasn.federated.server_rules.rule import ServerRule
from csasn.federated.weighting import WeightingRule
from csasn.learning.objectives.objective import LocalObjective
from csasn.model.profiles import Profile
from csasn.platform.registry import BUILT_IN, CLASS_WEIGHTINGS, LOCAL_OBJECTIVES, NETWORKS, SERVER_RULES, check_name, load

KINDS = {SERVER_RULES: ServerRule, LOCAL_OBJECTIVES: LocalObjective, CLASS_WEIGHTINGS: WeightingRule, NETWORKS: Profile}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, entries in BUILT_IN.items() for name in entries])
def test_every_entry_is_loaded_and_of_its_kind(group, name):
    assert check_name(group, name) == name
    assert isinstance(load(group, name, KINDS[group]), KINDS[group])


def test_a_name_that_nobody_provides_is_no_entry():
    with pytest.raises(
        ConfigurationError, match=r"'fedbest' is no entry of csasn\.server_rules: expected 'fedavg', .* or 'feddyn'"
    ):
        load(SERVER_RULES, "fedbest", ServerRule)
