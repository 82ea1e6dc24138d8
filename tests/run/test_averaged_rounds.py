"""A run under the rule `averaged`: resumed to the same bits, and the model that is released was evaluated."""

import pytest

from csasn.federated.messages import Kind
from kills import KilledError, kill_at

RULE = {"federation": {"rounds": 2, "server_rule": "averaged", "server_options": {"decay": 0.5}}, "model_selection": "last"}


@pytest.mark.parametrize("kind", [Kind.TRAIN, Kind.VALIDATE])
def test_a_run_killed_at_the_last_step_or_behind_it_is_resumed_to_the_mean_of_the_models(federate, kind):
    undisturbed, plain = federate("undisturbed", **RULE), federate("plain", federation={"rounds": 2}, model_selection="last")
    finished = undisturbed.run()
    plain.run()
    disturbed = federate("disturbed", tamper=kill_at(kind, 2, "centerB"), **RULE)
    with pytest.raises(KilledError):
        disturbed.run()
    resumed = federate("disturbed")
    resumed.run()
    assert resumed.state_hash() == undisturbed.state_hash() != plain.state_hash()
    assert [event["round"] for event in undisturbed.events("evaluated")] == [0, 1, 2]
    assert finished.chosen.round == 2
    assert undisturbed.contract.state.hash(finished.chosen.model) == undisturbed.state_hash()  # what was evaluated last
