"""What others can add without a change here: a package that is installed beside this one brings a rule of the server, a local
objective, a class weighting or a network, and a study names it."""

import numpy as np
import pytest

from csasn.errors import ConfigurationError
from csasn.federated.messages import AboutModel, Kind
from csasn.platform import registry
from csasn.study import read_study

TOYS = {
    ("csasn.server_rules", "halved"): """
import numpy as np
from csasn.federated.server_rules.rule import ServerRule

class Halved(ServerRule):
    share: float = 0.5
    def move(self, mean_P, memory):
        return np.float32(self.share) * mean_P, memory

TOY = Halved()
""",
    ("csasn.server_rules", "idle"): """
from csasn.federated.server_rules.rule import ServerRule

class Idle(ServerRule):
    share: float = 0.5

TOY = Idle()
""",
    ("csasn.server_rules", "bare"): """
from csasn.federated.server_rules.rule import ServerRule

TOY = ServerRule()
""",
    ("csasn.local_objectives", "still"): """
from csasn.learning.objectives.objective import LocalObjective

class Still(LocalObjective):
    share: float = 0.0
    def add_gradient(self, parameters, received):
        for parameter in parameters:
            parameter.grad.mul_(self.share)

TOY = Still()
""",
    ("csasn.class_weightings", "falling"): """
import numpy as np
from csasn.federated.weighting import WeightingRule

TOY = WeightingRule(lambda settings, histogram_K, prior_K, history: np.linspace(1.5, 0.5, prior_K.size), uses_prior=False)
""",
    ("csasn.networks", "convnext-resnet"): """
from csasn.model.profiles import Profile

TOY = Profile("test_convnext", "test_resnet", 64, 4 << 20)
""",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install(group, name) -> the toy is a package beside this one; how many lines it is, its entry point among them."""

    def add(group, name):
        source, module = TOYS[group, name], f"toy_{name.replace('-', '_')}"
        folder = tmp_path / "packages"
        (folder / f"{module}-1.dist-info").mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (folder / f"{module}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
        (folder / f"{module}-1.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:TOY\n")
        monkeypatch.syspath_prepend(str(folder))
        return 1 + sum(bool(line) for line in source.splitlines())

    yield add
    registry._load.cache_clear()


def moved(federation):
    """How far each weight went from the first model to the last."""
    state = federation.contract.state
    return (federation.directory.load().model - state.read(federation.network))[: state.num_shared]


def test_a_rule_of_the_server_from_another_package_moves_the_model_by_its_own_step(federate, install):
    """Also where sums are masked, which gives the same sums."""
    assert install("csasn.server_rules", "halved") <= 8
    whole = federate("whole", federation={"rounds": 1})
    toy = {"server_rule": "halved", "server_options": {"share": 0.2}}
    fifth = federate("fifth", federation=toy | {"rounds": 1, "secure_aggregation": True})
    for federation in (whole, fifth):
        assert federation.run().counts
    expected = 0.2 * moved(whole)
    assert 0 < np.linalg.norm(moved(fifth) - expected) / np.linalg.norm(expected) < 1e-3


def test_sites_come_by_the_step_of_another_rule_to_the_coordinators_model(federate, install):
    """Else they would ask for the whole model."""
    install("csasn.server_rules", "halved")
    federation = federate("run", federation={"server_rule": "halved", "rounds": 3}, model_selection="last")
    federation.run()
    models = [request.model for site, request in federation.requests if site == "centerA" and isinstance(request, AboutModel)]
    assert [model.whole is not None for model in models] == [True] + [False] * (len(models) - 1)
    assert all(model.step is not None for model in models[1:-1])  # to finish they hold the very model
    assert all(not event["absent"] for event in federation.events("round-finished"))


def test_a_local_objective_from_another_package_changes_what_sites_train(federate, install):
    assert install("csasn.local_objectives", "still") <= 9
    still = federate("still", federation={"rounds": 1, "local_objective": "still"})
    same = federate("same", federation={"rounds": 1, "local_objective": "still", "local_options": {"share": 1.0}})
    none = federate("none", federation={"rounds": 1, "proximal_mu": 0.0})
    for federation in (still, same, none):
        federation.run()
    assert np.linalg.norm(moved(still)) < 0.1 * np.linalg.norm(moved(none))
    assert same.state_hash() == none.state_hash() != still.state_hash()


def test_a_class_weighting_from_another_package_gives_the_weights_that_every_site_comes_to(federate, install):
    assert install("csasn.class_weightings", "falling") <= 5
    federation = federate("run", class_weighting={"mode": "falling", "acts_on": "loss"})
    other = federate("other", class_weighting={"mode": "none", "acts_on": "loss"})
    assert federation.run().counts
    other.run()
    assert [event["class_weights"] for event in federation.events("train-started")] == [[1.5, 1.0, 0.5]] * 2
    assert federation.state_hash() != other.state_hash()


def test_a_network_of_another_family_from_another_package_is_trained_and_travels(federate, install):
    assert install("csasn.networks", "convnext-resnet") <= 4
    federation = federate("run", model={"profile": "convnext-resnet"})
    assert federation.run().counts
    names = {segment.name for segment in federation.contract.state.shared}
    assert any(name.startswith("efficientnet.net.stages") for name in names)
    assert any(name.startswith("vit.net.layer1") for name in names)
    assert np.abs(moved(federation)).max() > 0


def test_a_name_that_nobody_provides_is_refused_and_the_known_ones_are_listed(write_small_hospitals, tmp_path, install):
    install("csasn.server_rules", "halved")
    path = write_small_hospitals(tmp_path / "h", federation={"server_rule": "fedbest"})
    with pytest.raises(ConfigurationError, match=r"server_rule is 'fedbest': expected 'fedavg', .*, 'feddyn' or 'halved'"):
        read_study(path)


@pytest.mark.parametrize(
    ("group", "entry", "says"),
    [
        ("csasn.server_rules", "csasn.study:SUBTYPE", "is a str, expected a ServerRule"),
        ("csasn.networks", "csasn.study:nothing", "cannot be loaded from csasn.study:nothing"),
        ("csasn.networks", "no_such_module:TOY", "cannot be loaded from no_such_module:TOY"),
    ],
)
def test_an_entry_that_is_none_is_refused(tmp_path, monkeypatch, group, entry, says):
    from csasn.federated.server_rules.rule import ServerRule
    from csasn.model.profiles import Profile

    info = tmp_path / "bad-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nbad = {entry}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._load.cache_clear()
    with pytest.raises(ConfigurationError, match=says):
        registry.load(group, "bad", ServerRule if group == "csasn.server_rules" else Profile)
    registry._load.cache_clear()


def test_what_is_built_in_is_not_replaced_from_outside(install, monkeypatch):
    monkeypatch.setitem(TOYS, ("csasn.networks", "csasn-test"), TOYS["csasn.networks", "convnext-resnet"])
    install("csasn.networks", "csasn-test")
    from csasn.model.profiles import TEST, Profile

    assert registry.load("csasn.networks", "csasn-test", Profile) is TEST


def test_an_option_that_a_rule_does_not_have_is_refused(federate):
    with pytest.raises(ConfigurationError, match=r"study\.yaml: federation\.server_options\.momentum is not a known key"):
        federate("run", federation={"server_options": {"momentum": 0.9}})


@pytest.mark.parametrize(("name", "kind"), [("idle", "Idle"), ("bare", "ServerRule")])
def test_a_rule_that_says_nothing_of_a_step_is_refused_before_the_first_round(federate, install, name, kind):
    install("csasn.server_rules", name)
    with pytest.raises(ConfigurationError, match=f"the rule {kind} defines neither move nor step"):
        federate(name, federation={"server_rule": name})


def test_options_of_a_rule_from_another_package_are_checked_when_the_study_is_read(federate, install):
    install("csasn.server_rules", "halved")
    with pytest.raises(ConfigurationError, match=r"study\.yaml: federation\.server_options\.part is not a known key"):
        federate("run", federation={"server_rule": "halved", "server_options": {"part": 0.9}})


@pytest.mark.parametrize(
    ("rule", "options"),
    [("fedavgm", {"momentum": 0.8}), ("fedadagrad", {"beta1": 0.5}), ("fedadam", {"beta2": 0.9}), ("fedyogi", {})],
)
def test_a_run_of_a_rule_that_remembers_resumes_to_the_same_bits(federate, rule, options):
    """What the rule remembers is in the checkpoint."""
    federation = {"rounds": 3, "server_rule": rule, "server_options": options, "upload_bits": 8}
    whole = federate("whole", federation=federation)
    whole.run()
    memory = whole.directory.load().memory
    assert len(memory) == (2 if rule == "fedavgm" else 3)
    assert all(np.abs(array).max() > 0 for array in memory.values())

    class KilledError(Exception):
        pass

    def kill(site, request, answer):
        if request.kind is Kind.TRAIN and request.header.round == 3 and site == "centerB":
            raise KilledError
        return answer

    with pytest.raises(KilledError):
        federate("disturbed", tamper=kill, federation=federation).run()
    resumed = federate("disturbed")
    resumed.run()
    assert resumed.state_hash() == whole.state_hash()


def test_a_study_that_names_what_was_there_before_has_the_hash_that_it_had(write_small_hospitals, tmp_path):
    silent = read_study(write_small_hospitals(tmp_path / "silent"))
    named = {"server_rule": "fedavg", "server_options": {}, "local_objective": "fedprox", "local_options": {}}
    spoken = read_study(write_small_hospitals(tmp_path / "spoken", federation=named))
    assert spoken.study_hash == silent.study_hash
    assert not set(named) & set(silent.model_dump()["federation"])
    other = read_study(write_small_hospitals(tmp_path / "other", federation={"server_rule": "fedavgm"}))
    assert other.study_hash != silent.study_hash
