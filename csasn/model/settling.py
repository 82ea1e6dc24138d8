"""What a study leaves open, settled before anybody is asked: written into the study that all approve."""

from csasn.model.packages import settle_weights
from csasn.study import Study

RULE, OPTIONS = "fedavgm", {"momentum": 0.5}


def settle(study: Study, begun: Study | None = None) -> Study:
    """`study` with initial weights and a rule of the server where it says nothing of them: those of `begun`, which a run goes on
    with. A survey trains nothing, and stays as it is."""
    return _settle_rule(settle_weights(study, begun), begun)


def _settle_rule(study: Study, begun: Study | None) -> Study:
    """The mean of the updates of sites that are unlike each other is short, and takes many rounds: momentum makes up for that
    (tests/evidence/README.md). FedProx alone goes with it; other objectives name their rule."""
    federation = study.federation
    if study.survey or federation.local_objective != "fedprox" or federation.model_fields_set & {"server_rule", "server_options"}:
        return study
    rule, options = (begun.federation.server_rule, begun.federation.server_options) if begun else (RULE, OPTIONS)
    settled = federation.model_copy(update={"server_rule": rule, "server_options": dict(options)})
    return study.model_copy(update={"federation": settled})
